// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unmap granted pages: immediately if they have no other references, otherwise
 * later; the caller never waits for that.
 *
 * A granted page that a PV domain maps for a user process has two mappings,
 * one in the user's page table and one in the direct map.  The user mapping is
 * nested in the kernel mapping, which is created first and removed last:
 *
 *             map              unmap              last reference dropped
 *   NONE ------------> MAPPED --------> WAITING -----------------------> GONE
 *    ^                    |    both mappings, if no other references      ^ |
 *    |                    `-----------------------------------------------' |
 *    `----------------------------------------------------------------------'
 *                        RCU grace period, release
 *
 * "Unmap" is called from an MMU notifier, before the core mm walks the page
 * table, so the core mm never sees a PTE that Xen created.  A pinned page keeps
 * its kernel mapping, and thus its frame: I/O in flight continues even if the
 * process has exited.  Such pages wait individually for a worker, which polls
 * their reference counts, as there is no way to wait for a reference count.
 *
 * A page is unmapped with its reference count frozen, that is 0 instead of 1:
 * the page has no other references, and lockless get_user_pages_fast() cannot
 * take one, as it does so with "increment unless 0".
 *
 * An unmapped page is gone for its owner and for Xen, but its count stays
 * frozen and its M2P override stays in place until an RCU grace period has
 * passed.  A lockless walker that read the PTE before it was cleared may still
 * look up the frame.  It finds this page, which is valid but cannot be
 * referenced.  It can find another page only if that page maps the same frame
 * by now, see m2p-override.c.
 *
 * If Xen fails to unmap a page, other code has already unmapped it or the
 * handle is wrong.  The page's contents are then unknown, so the page is
 * retired: it is never returned to the allocator, and a message is printed.  A
 * frozen count stays frozen.
 *
 * Locks, outermost first: the lock of the user's page table, wait_lock.
 * Notifiers are called with mmap_lock, a per-VMA lock or neither, so a page
 * with a user mapping is protected by the page table lock only.  The hypercall
 * is made with that lock held.  The slow path of get_user_pages() takes it,
 * too, and warns about a page with a count of 0; it sees either a page that is
 * not yet frozen or no PTE.
 */

#define pr_fmt(fmt) "xen: " KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/page_ref.h>
#include <linux/pgtable.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include <xen/grant_table.h>
#include <xen/grant_unmap.h>
#include <xen/page.h>
#include <xen/xen.h>

#include <asm/xen/hypercall.h>

/* Xen flushes the TLB once per so many unmap ops (GNTTAB_UNMAP_BATCH_SIZE). */
#define UNMAP_BATCH_OPS		32
/* Most pages take two ops each, and the batch lives on the stack. */
#define UNMAP_BATCH_KMAPS	20

/*
 * A new page is checked every WAIT_YOUNG_MS, since most I/O completes soon.
 * After WAIT_YOUNG_LOOKS unsuccessful checks it is checked every WAIT_OLD_MS.
 * Each round checks at most WAIT_PAGES_PER_ROUND pages, which bounds the cost
 * and time of a round: 10,000 old pages are all checked within two seconds.
 * The requests of backends age as well, but each round checks all of them, as
 * the rings limit their number.  The 2,048 requests of 64 disks delay a page by
 * less than a jiffy while they wait, and by 5 ms (2,600 instructions each) if
 * all of them are unmapped first.
 */
#define WAIT_YOUNG_MS		5
#define WAIT_OLD_MS		50
#define WAIT_YOUNG_LOOKS	16
#define WAIT_PAGES_PER_ROUND	256

/*
 * @idle has a bit set for each page whose kernel mapping is in the batch,
 * @frozen for those of them whose count was frozen.  All pages of a DMA buffer
 * except the first always have a count of 0 and are never referenced.
 */
struct unmap_batch {
	struct gnttab_unmap_grant_ref ops[UNMAP_BATCH_OPS];
	struct gnttab_kmap *kmaps[UNMAP_BATCH_KMAPS];
	unsigned int nr_ops;
	unsigned int nr_kmaps;
	u32 idle;
	u32 frozen;
};

/* Protects the lists.  Entries on the lists belong to the worker. */
static DEFINE_SPINLOCK(wait_lock);
static LIST_HEAD(young_kmaps);
static LIST_HEAD(old_kmaps);
static LIST_HEAD(young_refs);
static LIST_HEAD(old_refs);

static struct workqueue_struct *unmap_wq;
static void unmap_worker(struct work_struct *work);
static DECLARE_DELAYED_WORK(unmap_work, unmap_worker);

static atomic_t nr_waiting = ATOMIC_INIT(0);
static atomic_t nr_retired = ATOMIC_INIT(0);

static void batch_init(struct unmap_batch *batch)
{
	BUILD_BUG_ON(UNMAP_BATCH_KMAPS > 32);
	batch->nr_ops = 0;
	batch->nr_kmaps = 0;
	batch->idle = 0;
	batch->frozen = 0;
}

/*
 * Add an entry to a young list.  Only the first entry reschedules the worker:
 * if each entry did, a steady stream of them would postpone it forever.
 */
static void wait_on(struct list_head *entry, struct list_head *list)
{
	unsigned long flags;
	bool first;

	spin_lock_irqsave(&wait_lock, flags);
	first = list_empty(list);
	list_add_tail(entry, list);
	spin_unlock_irqrestore(&wait_lock, flags);

	if (first)
		mod_delayed_work(unmap_wq, &unmap_work,
				 msecs_to_jiffies(WAIT_YOUNG_MS));
}

static void wait_for_kmap(struct gnttab_kmap *kmap)
{
	WRITE_ONCE(kmap->state, GNTTAB_KMAP_WAITING);
	kmap->looks = 0;
	atomic_inc(&nr_waiting);

	wait_on(&kmap->waiting, &young_kmaps);
}

static void retire_kmap(struct gnttab_kmap *kmap, s16 status)
{
	struct xen_page_foreign *foreign = xen_page_foreign(kmap->page);

	if (kmap->state != GNTTAB_KMAP_USER)
		kmap->user_pte = 0;
	/* Pairs with gnttab_kmap_unmap_user(), which then reads user_pte. */
	smp_store_release(&kmap->state, GNTTAB_KMAP_RETIRED);
	atomic_inc(&nr_retired);
	pr_err("Xen refused to unmap grant %u of domain %u (status %d): page retired\n",
	       foreign ? foreign->gref : INVALID_GRANT_REF,
	       foreign ? foreign->domid : DOMID_INVALID, status);
}

/*
 * Add the mappings of a page that can be removed now: the user mapping always,
 * the kernel mapping if the page has no other references.  The op for the user
 * mapping comes first.
 */
static void batch_add(struct unmap_batch *batch, struct gnttab_kmap *kmap)
{
	u32 bit = BIT(batch->nr_kmaps);
	bool frozen;

	if (kmap->state == GNTTAB_KMAP_USER)
		gnttab_set_unmap_op(&batch->ops[batch->nr_ops++],
				    kmap->user_pte, GNTMAP_contains_pte,
				    kmap->user_handle);

	frozen = page_ref_freeze(kmap->page, 1);
	if (frozen)
		batch->frozen |= bit;

	if (frozen || !page_ref_count(kmap->page)) {
		batch->idle |= bit;
		gnttab_set_unmap_op(&batch->ops[batch->nr_ops++], (unsigned long)
				    pfn_to_kaddr(page_to_pfn(kmap->page)),
				    0, kmap->handle);
	}

	batch->kmaps[batch->nr_kmaps++] = kmap;
}

static bool batch_is_full(const struct unmap_batch *batch)
{
	return batch->nr_ops > UNMAP_BATCH_OPS - 2 ||
	       batch->nr_kmaps == UNMAP_BATCH_KMAPS;
}

/*
 * Unmap the batch with one hypercall and empty it.  On return kmaps[] starts
 * with the pages that are unmapped or retired.  Returns their number; the
 * caller drops as many references to their owners once it holds no lock.
 */
static unsigned int batch_unmap(struct unmap_batch *batch)
{
	struct gnttab_unmap_grant_ref *op = batch->ops;
	unsigned int i, done = 0;

	if (batch->nr_ops &&
	    gnttab_batch_op(GNTTABOP_unmap_grant_ref, batch->ops, batch->nr_ops)) {
		/* Xen has not processed any of the ops. */
		for (i = 0; i < batch->nr_ops; i++)
			batch->ops[i].status = GNTST_general_error;
	}

	for (i = 0; i < batch->nr_kmaps; i++) {
		struct gnttab_kmap *kmap = batch->kmaps[i];
		bool idle = batch->idle & BIT(i);
		s16 status = GNTST_okay;

		if (kmap->state == GNTTAB_KMAP_USER) {
			status = op++->status;
			if (status == GNTST_okay)
				kmap->user_pte = 0;
		}

		if (idle)
			status = op->status ?: status;

		if (status != GNTST_okay) {
			retire_kmap(kmap, status);
		} else if (!idle) {
			wait_for_kmap(kmap);
			continue;
		} else {
			kmap->gfn = pfn_to_gfn(page_to_pfn(kmap->page));
			kmap->frozen = batch->frozen & BIT(i);
		}

		if (idle) {
			if (op->status == GNTST_okay) {
				ClearPageForeign(kmap->page);
				clear_foreign_p2m_mapping(op, &kmap->page, 1);
			}
			op++;
		}

		if (status == GNTST_okay)
			/* Pairs with gntdev_is_unmapped(), for a new mmap(). */
			smp_store_release(&kmap->state, GNTTAB_KMAP_GONE);

		batch->kmaps[done++] = kmap;
	}

	batch_init(batch);

	return done;
}

static void owner_free_work(struct work_struct *work)
{
	struct gnttab_kmap_owner *owner =
		container_of(to_rcu_work(work), struct gnttab_kmap_owner, rwork);
	struct module *module = owner->module;

	owner->free(owner);
	module_put(module);
}

static void owner_is_idle(struct gnttab_kmap_owner *owner)
{
	owner->idle(owner);

	INIT_RCU_WORK(&owner->rwork, owner_free_work);
	queue_rcu_work(system_long_wq, &owner->rwork);
}

static void owner_is_idle_work(struct work_struct *work)
{
	owner_is_idle(container_of(work, struct gnttab_kmap_owner, rwork.work));
}

/* For callers that must not sleep, or not for long: ->idle() may sleep. */
static void put_owner_deferred(struct gnttab_kmap_owner *owner, unsigned int count)
{
	if (count && atomic_sub_and_test(count, &owner->live))
		schedule_work(&owner->rwork.work);
}

/**
 * gnttab_kmap_init_owner - initialize the owner of a set of pages
 * @owner: the owner; starts with one reference, its own
 * @module: module that contains the callbacks
 * @idle: called when the owner has been put and has no mapped pages left
 * @free: called an RCU grace period later
 *
 * Pages may still wait long after the last file was closed, so the owner holds
 * a reference to the module.
 *
 * Context: Any; the caller must keep the module from being unloaded.
 */
void gnttab_kmap_init_owner(struct gnttab_kmap_owner *owner,
			    struct module *module,
			    void (*idle)(struct gnttab_kmap_owner *owner),
			    void (*free)(struct gnttab_kmap_owner *owner))
{
	__module_get(module);
	atomic_set(&owner->live, 1);
	owner->module = module;
	owner->idle = idle;
	owner->free = free;
	INIT_WORK(&owner->rwork.work, owner_is_idle_work);
}
EXPORT_SYMBOL_GPL(gnttab_kmap_init_owner);

/**
 * gnttab_kmap_put_owner - drop the owner's references for unmapped pages
 * @owner: owner of the pages
 * @count: number of pages, plus one for the owner's own reference
 *
 * Context: May sleep if this can drop the last reference, else any.
 */
void gnttab_kmap_put_owner(struct gnttab_kmap_owner *owner, unsigned int count)
{
	if (count && atomic_sub_and_test(count, &owner->live))
		owner_is_idle(owner);
}
EXPORT_SYMBOL_GPL(gnttab_kmap_put_owner);

/**
 * gnttab_kmap_clear_byte - set a byte of a mapped page to 0
 * @kmap: the page, mapped for writing
 * @offset: offset of the byte in the page
 *
 * Context: Any; the kernel mapping of the page must not be removed meanwhile.
 */
void gnttab_kmap_clear_byte(struct gnttab_kmap *kmap, unsigned int offset)
{
	u8 *addr = pfn_to_kaddr(page_to_pfn(kmap->page));

	addr[offset] = 0;
}
EXPORT_SYMBOL_GPL(gnttab_kmap_clear_byte);

/*
 * Find the PMD of an address; NULL if one of the tables above does not exist.
 * An empty table may be freed at any time (by MADV_DONTNEED with
 * CONFIG_PT_RECLAIM), and a notifier must not allocate a new one.
 */
static pmd_t *find_pmd(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(*pgd))
		return NULL;

	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d))
		return NULL;

	pud = pud_offset(p4d, addr);
	if (pud_none(*pud))
		return NULL;

	return pmd_offset(pud, addr);
}

/**
 * gnttab_kmap_unmap_user - unmap pages from a user's page table
 * @kmaps: the pages, all of one owner
 * @count: number of pages, whose PTEs are all in one page table
 * @mm: mm that the page table belongs to
 * @addr: address of the first page
 * @byte: offset of a byte, from the start of the first page, to set to 0 before
 *        its page is unmapped; ignored if that page has no user mapping or is
 *        not one of @kmaps
 *
 * Pages without a user mapping are skipped.  If a page has no other references,
 * its kernel mapping is removed with the same hypercall; other pages wait for
 * the worker.
 *
 * Context: An MMU notifier, blocking or not; does not sleep.  Takes the lock of
 * the page table.
 */
void gnttab_kmap_unmap_user(struct gnttab_kmap *kmaps, unsigned int count,
			    struct mm_struct *mm, unsigned long addr, long byte)
{
	struct gnttab_kmap_owner *owner = kmaps->owner;
	long byte_page = byte >> PAGE_SHIFT;
	struct unmap_batch batch;
	unsigned int i, done = 0;
	spinlock_t *ptl;	/* the page table's */
	pmd_t *pmd;
	pte_t *pte;

	/* User mappings are only removed, so this check needs no lock. */
	for (i = 0; i < count; i++)
		if (READ_ONCE(kmaps[i].state) == GNTTAB_KMAP_USER)
			break;
	if (i == count)
		return;

	pmd = find_pmd(mm, addr);
	if (!pmd)
		return;

	pte = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!pte)
		return;
	/* Sparse does not see that pte_offset_map_lock() takes it. */
	__acquire(ptl);

	/* Check under the lock: another caller may have unmapped the page. */
	if (byte_page >= 0 && byte_page < count &&
	    kmaps[byte_page].state == GNTTAB_KMAP_USER)
		gnttab_kmap_clear_byte(&kmaps[byte_page], offset_in_page(byte));

	batch_init(&batch);
	for (; i < count; i++) {
		if (READ_ONCE(kmaps[i].state) != GNTTAB_KMAP_USER)
			continue;

		batch_add(&batch, &kmaps[i]);
		if (batch_is_full(&batch))
			done += batch_unmap(&batch);
	}
	done += batch_unmap(&batch);

	/* Clear PTEs that Xen failed to unmap: the core mm must not see them. */
	if (unlikely(atomic_read(&nr_retired))) {
		for (i = 0; i < count; i++) {
			/* Pairs with retire_kmap(). */
			u8 state = smp_load_acquire(&kmaps[i].state);

			if (state == GNTTAB_KMAP_RETIRED && kmaps[i].user_pte) {
				kmaps[i].user_pte = 0;
				pte_clear(mm, addr + i * PAGE_SIZE, pte + i);
			}
		}
	}

	pte_unmap_unlock(pte, ptl);

	put_owner_deferred(owner, done);
}
EXPORT_SYMBOL_GPL(gnttab_kmap_unmap_user);

/**
 * gnttab_kmap_unmap - unmap pages that have no user mapping
 * @kmaps: the pages, all of one owner
 * @count: number of pages
 *
 * For auto-translated domains, where the core mm creates the user's PTEs and
 * they hold references, and to undo a mapping that failed half-way.  Pages that
 * are not mapped are skipped; pages with other references wait for the worker.
 *
 * Context: May sleep, as this may drop the owner's last reference.
 */
void gnttab_kmap_unmap(struct gnttab_kmap *kmaps, unsigned int count)
{
	struct gnttab_kmap_owner *owner = kmaps->owner;
	struct unmap_batch batch;
	unsigned int i, done = 0;

	batch_init(&batch);

	for (i = 0; i < count; i++) {
		if (READ_ONCE(kmaps[i].state) != GNTTAB_KMAP_MAPPED)
			continue;

		batch_add(&batch, &kmaps[i]);
		if (batch_is_full(&batch))
			done += batch_unmap(&batch);
	}
	done += batch_unmap(&batch);

	gnttab_kmap_put_owner(owner, done);
}
EXPORT_SYMBOL_GPL(gnttab_kmap_unmap);

/**
 * gnttab_kmap_release - make unmapped pages usable again
 * @kmaps: the pages
 * @count: number of pages
 *
 * Removes the M2P overrides of pages in GNTTAB_KMAP_GONE and unfreezes their
 * reference counts.  Other pages are skipped.
 *
 * Context: An RCU grace period has passed since the last page was unmapped.
 */
void gnttab_kmap_release(struct gnttab_kmap *kmaps, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		struct gnttab_kmap *kmap = &kmaps[i];

		if (kmap->state != GNTTAB_KMAP_GONE)
			continue;

		m2p_remove_override(kmap->gfn, page_to_pfn(kmap->page));
		/* No frame is translated to the page now: it may be reused. */
		if (kmap->frozen)
			page_ref_unfreeze(kmap->page, 1);
		kmap->state = GNTTAB_KMAP_NONE;
	}
}
EXPORT_SYMBOL_GPL(gnttab_kmap_release);

/* Unmap a batch of waiting pages, which may have different owners. */
static void batch_unmap_waiting(struct unmap_batch *batch)
{
	unsigned int i, done;

	atomic_sub(batch->nr_kmaps, &nr_waiting);
	done = batch_unmap(batch);

	for (i = 0; i < done; i++)
		put_owner_deferred(batch->kmaps[i]->owner, 1);
}

/*
 * Check the first pages of a list.  Unmap those without other references,
 * requeue the others at the end of @list, or of old_kmaps after enough checks.
 */
static void look_at_kmaps(struct list_head *list)
{
	struct gnttab_kmap *kmap, *tmp;
	struct unmap_batch batch;
	unsigned int n = 0;
	LIST_HEAD(young);
	LIST_HEAD(look);
	LIST_HEAD(old);

	batch_init(&batch);

	spin_lock_irq(&wait_lock);
	list_for_each_entry(kmap, list, waiting) {
		if (++n == WAIT_PAGES_PER_ROUND)
			break;
	}
	if (n == WAIT_PAGES_PER_ROUND)
		list_cut_position(&look, list, &kmap->waiting);
	else
		list_splice_init(list, &look);
	spin_unlock_irq(&wait_lock);

	list_for_each_entry_safe(kmap, tmp, &look, waiting) {
		if (page_ref_count(kmap->page) <= 1) {
			list_del(&kmap->waiting);
			batch_add(&batch, kmap);
			if (batch_is_full(&batch))
				batch_unmap_waiting(&batch);
		} else if (kmap->looks < WAIT_YOUNG_LOOKS) {
			kmap->looks++;
			list_move_tail(&kmap->waiting, &young);
		} else {
			list_move_tail(&kmap->waiting, &old);
		}
	}
	batch_unmap_waiting(&batch);

	spin_lock_irq(&wait_lock);
	list_splice_tail(&young, &young_kmaps);
	list_splice_tail(&old, &old_kmaps);
	spin_unlock_irq(&wait_lock);
}

static bool refs_are_held(const struct gntab_unmap_queue_data *item)
{
	unsigned int i;

	for (i = 0; i < item->count; i++)
		if (page_count(item->pages[i]) > 1)
			return true;

	return false;
}

static void unmap_refs(struct gntab_unmap_queue_data *item)
{
	item->done(gnttab_unmap_refs(item->unmap_ops, item->pages, item->count),
		   item);
}

static void look_at_refs(struct list_head *list)
{
	struct gntab_unmap_queue_data *item, *tmp;
	LIST_HEAD(young);
	LIST_HEAD(look);
	LIST_HEAD(old);

	spin_lock_irq(&wait_lock);
	list_splice_init(list, &look);
	spin_unlock_irq(&wait_lock);

	list_for_each_entry_safe(item, tmp, &look, list) {
		if (!refs_are_held(item)) {
			list_del(&item->list);
			unmap_refs(item);
		} else if (item->age < WAIT_YOUNG_LOOKS) {
			item->age++;
			list_move_tail(&item->list, &young);
		} else {
			list_move_tail(&item->list, &old);
		}
	}

	spin_lock_irq(&wait_lock);
	list_splice_tail(&young, &young_refs);
	list_splice_tail(&old, &old_refs);
	spin_unlock_irq(&wait_lock);
}

static void unmap_worker(struct work_struct *work)
{
	static unsigned long last_old_look = INITIAL_JIFFIES;
	unsigned int delay = 0;

	look_at_refs(&young_refs);
	look_at_kmaps(&young_kmaps);
	/* Not time_after(): jiffies may wrap during weeks without work. */
	if (jiffies - last_old_look >= msecs_to_jiffies(WAIT_OLD_MS)) {
		look_at_refs(&old_refs);
		look_at_kmaps(&old_kmaps);
		last_old_look = jiffies;
	}

	spin_lock_irq(&wait_lock);
	if (!list_empty(&young_kmaps) || !list_empty(&young_refs))
		delay = WAIT_YOUNG_MS;
	else if (!list_empty(&old_kmaps) || !list_empty(&old_refs))
		delay = WAIT_OLD_MS;
	spin_unlock_irq(&wait_lock);

	/* Does nothing if the work has been queued since. */
	if (delay)
		queue_delayed_work(unmap_wq, &unmap_work, msecs_to_jiffies(delay));
}

/**
 * gnttab_unmap_refs_async - unmap pages that a backend has mapped
 * @item: the ops, the pages, and @item->done() to call when they are unmapped;
 *        belongs to the worker until then
 *
 * Unmaps immediately if none of the pages has other references, else as soon as
 * the worker finds that none has.
 *
 * Context: Any, including interrupts: backends call it when I/O completes.
 * @item->done() is called from here or by the worker.
 */
void gnttab_unmap_refs_async(struct gntab_unmap_queue_data *item)
{
	if (!refs_are_held(item)) {
		unmap_refs(item);
		return;
	}

	item->age = 0;
	wait_on(&item->list, &young_refs);
}
EXPORT_SYMBOL_GPL(gnttab_unmap_refs_async);

struct unmap_refs_result {
	struct completion completion;
	int result;
};

static void unmap_refs_sync_done(int result, struct gntab_unmap_queue_data *item)
{
	struct unmap_refs_result *res = item->data;

	res->result = result;
	complete(&res->completion);
}

/**
 * gnttab_unmap_refs_sync - unmap pages that a backend has mapped, and wait
 * @item: the ops and the pages
 *
 * Context: Sleeps until none of the pages has other references.
 * Return: the result of gnttab_unmap_refs().
 */
int gnttab_unmap_refs_sync(struct gntab_unmap_queue_data *item)
{
	struct unmap_refs_result res;

	init_completion(&res.completion);
	item->data = &res;
	item->done = unmap_refs_sync_done;
	gnttab_unmap_refs_async(item);
	wait_for_completion(&res.completion);

	return res.result;
}
EXPORT_SYMBOL_GPL(gnttab_unmap_refs_sync);

static int __init grant_unmap_init(void)
{
	struct dentry *dir;

	if (!xen_domain())
		return 0;

	/* The pages waiting here may be the cause of a memory shortage. */
	unmap_wq = alloc_workqueue("xen-grant-unmap", WQ_UNBOUND | WQ_MEM_RECLAIM, 1);
	if (!unmap_wq)
		unmap_wq = system_long_wq;

	dir = debugfs_create_dir("xen-grant-unmap", NULL);
	debugfs_create_atomic_t("waiting", 0400, dir, &nr_waiting);
	debugfs_create_atomic_t("retired", 0400, dir, &nr_retired);

	return 0;
}
subsys_initcall(grant_unmap_init);
