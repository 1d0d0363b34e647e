// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unmap granted pages: immediately if they have no other references, otherwise
 * later; the caller never waits for that.
 *
 * A granted page that a PV domain maps for a user process has two mappings,
 * one in the user's page table and one in the direct map.  The user mapping is
 * nested in the kernel mapping, which is created first and removed last:
 *
 *            map           map for a       unmap,       last reference
 *         by the kernel      user       if referenced      dropped
 *   NONE -----------> KERNEL ----> USER ----------> WAITING ---------> GONE
 *    ^                   |          |   unmap, if not referenced       ^ |
 *    |                   `----------+----------------------------------' |
 *    `-------------------------------------------------------------------'
 *                        RCU grace period, release
 *
 *   KERNEL, USER, WAITING ----------------> RETIRED
 *                            Xen fails
 *
 * A page that a user has not mapped goes from KERNEL to WAITING in the same way.
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

#include <linux/atomic.h>
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
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include <xen/grant_table.h>
#include <xen/grant_unmap.h>
#include <xen/page.h>
#include <xen/xen.h>

#include <asm/xen/hypercall.h>

/* Xen flushes the TLB once per 32 unmap ops; a page takes up to two. */
#define UNMAP_BATCH_PAGES	16
/* For buffers, whose ops are allocated; as many as one command can map. */
#define UNMAP_MANY_PAGES	1024

/*
 * A new page is checked every WAIT_YOUNG_MS, since most I/O completes soon.
 * After WAIT_YOUNG_CHECKS unsuccessful checks it is checked every WAIT_OLD_MS.
 * Each round checks at most WAIT_PAGES_PER_ROUND pages, which bounds the cost
 * and time of a round: 10,000 old pages are all checked within two seconds.
 * Buffers are treated alike, but have many pages each.
 * The requests of backends age as well, but each round checks all of them, as
 * the rings limit their number.  The 2,048 requests of 64 disks delay a page by
 * less than a jiffy while they wait, and by 5 ms (2,600 instructions each) if
 * all of them are unmapped first.
 */
#define WAIT_YOUNG_MS		5
#define WAIT_OLD_MS		50
#define WAIT_YOUNG_CHECKS	16
#define WAIT_PAGES_PER_ROUND	256
#define WAIT_BUFFERS_PER_ROUND	16

/*
 * @kernel has a bit set for each page whose kernel mapping is in the batch,
 * @frozen for those of them whose count was frozen.  All pages of a DMA buffer
 * except the first always have a count of 0 and are never referenced.
 */
struct unmap_batch {
	struct gnttab_unmap_grant_ref ops[2 * UNMAP_BATCH_PAGES];
	struct granted_page *gpages[UNMAP_BATCH_PAGES];
	unsigned int nr_ops;
	unsigned int nr_gpages;
	u32 kernel;
	u32 frozen;
};

static_assert(UNMAP_BATCH_PAGES <= 32);

/* Entries wait on @young first, then on @old; they belong to the worker. */
struct wait_list {
	struct list_head young;
	struct list_head old;
	unsigned long old_checked;	/* in jiffies */
};

/* Protects the wait lists. */
static DEFINE_SPINLOCK(wait_lock);

static struct wait_list waiting_pages = {
	.young = LIST_HEAD_INIT(waiting_pages.young),
	.old = LIST_HEAD_INIT(waiting_pages.old),
};

static struct wait_list waiting_refs = {
	.young = LIST_HEAD_INIT(waiting_refs.young),
	.old = LIST_HEAD_INIT(waiting_refs.old),
};

static struct wait_list waiting_buffers = {
	.young = LIST_HEAD_INIT(waiting_buffers.young),
	.old = LIST_HEAD_INIT(waiting_buffers.old),
};

/* Protects the two lists below, and the buffers of each batch. */
static DEFINE_SPINLOCK(release_lock);
static LIST_HEAD(released_buffers);
static LIST_HEAD(buffer_batches);

static void release_worker(struct work_struct *work);
static DECLARE_WORK(release_work, release_worker);

static struct workqueue_struct *unmap_wq;
static void unmap_worker(struct work_struct *work);
static DECLARE_DELAYED_WORK(unmap_work, unmap_worker);

/* The directory xen-grants in debugfs. */
struct dentry *gnttab_debugfs;
static atomic_t nr_waiting = ATOMIC_INIT(0);
static atomic_t nr_retired = ATOMIC_INIT(0);

static void batch_init(struct unmap_batch *batch)
{
	batch->nr_ops = 0;
	batch->nr_gpages = 0;
	batch->kernel = 0;
	batch->frozen = 0;
}

/*
 * Let an entry wait.  Only the first young entry reschedules the worker: if each
 * entry did, a steady stream of them would postpone it forever.
 */
static void wait_on(struct list_head *entry, struct wait_list *wait)
{
	unsigned long flags;
	bool first;

	spin_lock_irqsave(&wait_lock, flags);
	first = list_empty(&wait->young);
	list_add_tail(entry, &wait->young);
	spin_unlock_irqrestore(&wait_lock, flags);

	if (first)
		mod_delayed_work(unmap_wq, &unmap_work,
				 msecs_to_jiffies(WAIT_YOUNG_MS));
}

static void wait_for_page(struct granted_page *gpage)
{
	WRITE_ONCE(gpage->state, GRANTED_PAGE_WAITING);
	gpage->checks = 0;
	atomic_inc(&nr_waiting);

	wait_on(&gpage->waiting, &waiting_pages);
}

static void count_retired(struct page *page, s16 status)
{
	struct xen_page_foreign *foreign = xen_page_foreign(page);

	atomic_inc(&nr_retired);
	pr_err("Xen failed to unmap grant %u of domain %u (status %d): page retired\n",
	       foreign ? foreign->gref : INVALID_GRANT_REF,
	       foreign ? foreign->domid : DOMID_INVALID, status);
}

static void retire_page(struct granted_page *gpage, s16 status)
{
	if (gpage->state != GRANTED_PAGE_USER)
		gpage->user_pte = 0;
	/* Pairs with clear_retired_ptes(), which then reads user_pte. */
	smp_store_release(&gpage->state, GRANTED_PAGE_RETIRED);
	count_retired(gpage->page, status);
}

static void owner_free_work(struct work_struct *work)
{
	struct granted_page_owner *owner =
		container_of(to_rcu_work(work), struct granted_page_owner, rwork);
	struct module *module = owner->module;

	owner->free(owner);
	module_put(module);
}

static void owner_is_idle(struct granted_page_owner *owner)
{
	owner->idle(owner);

	INIT_RCU_WORK(&owner->rwork, owner_free_work);
	queue_rcu_work(system_long_wq, &owner->rwork);
}

static void owner_is_idle_work(struct work_struct *work)
{
	owner_is_idle(container_of(work, struct granted_page_owner, rwork.work));
}

/* Drop the reference of a page.  Deferred, as ->idle() may sleep. */
static void put_owner_of_page(struct granted_page_owner *owner)
{
	if (refcount_dec_and_test(&owner->live))
		schedule_work(&owner->rwork.work);
}

/*
 * Unmap the batch with one hypercall and empty it.  An owner may be freed as
 * soon as its last page is unmapped or retired.
 */
static void batch_unmap(struct unmap_batch *batch)
{
	struct gnttab_unmap_grant_ref *op = batch->ops;
	unsigned int i;

	if (batch->nr_ops &&
	    gnttab_batch_op(GNTTABOP_unmap_grant_ref, batch->ops, batch->nr_ops)) {
		/* Xen has not processed any of the ops. */
		for (i = 0; i < batch->nr_ops; i++)
			batch->ops[i].status = GNTST_general_error;
	}

	for (i = 0; i < batch->nr_gpages; i++) {
		struct granted_page *gpage = batch->gpages[i];
		bool kernel = batch->kernel & BIT(i);
		s16 status = GNTST_okay;

		if (gpage->state == GRANTED_PAGE_WAITING)
			atomic_dec(&nr_waiting);

		if (gpage->state == GRANTED_PAGE_USER) {
			status = op++->status;
			if (status == GNTST_okay)
				gpage->user_pte = 0;
		}

		if (kernel)
			status = op->status ?: status;

		if (status != GNTST_okay) {
			retire_page(gpage, status);
		} else if (!kernel) {
			wait_for_page(gpage);
			continue;
		} else {
			gpage->gfn = pfn_to_gfn(page_to_pfn(gpage->page));
			gpage->frozen = batch->frozen & BIT(i);
		}

		if (kernel) {
			if (op->status == GNTST_okay) {
				ClearPageForeign(gpage->page);
				clear_foreign_p2m_mapping(op, &gpage->page, 1);
			}
			op++;
		}

		if (status == GNTST_okay)
			/* Pairs with gntdev_is_unmapped(), for a new mmap(). */
			smp_store_release(&gpage->state, GRANTED_PAGE_GONE);

		put_owner_of_page(gpage->owner);
	}

	batch_init(batch);
}

/*
 * Add the mappings of a page that can be removed now: the user mapping always,
 * the kernel mapping if the page has no other references.  The op for the user
 * mapping comes first.  Unmap the batch if it is full.
 */
static void batch_add(struct unmap_batch *batch, struct granted_page *gpage)
{
	u32 bit = BIT(batch->nr_gpages);
	bool frozen;

	if (gpage->state == GRANTED_PAGE_USER)
		gnttab_set_unmap_op(&batch->ops[batch->nr_ops++],
				    gpage->user_pte, GNTMAP_contains_pte,
				    gpage->user_handle);

	frozen = page_ref_freeze(gpage->page, 1);
	if (frozen)
		batch->frozen |= bit;

	if (frozen || !page_ref_count(gpage->page)) {
		batch->kernel |= bit;
		gnttab_set_unmap_op(&batch->ops[batch->nr_ops++], (unsigned long)
				    pfn_to_kaddr(page_to_pfn(gpage->page)),
				    0, gpage->handle);
	}

	batch->gpages[batch->nr_gpages++] = gpage;
	if (batch->nr_gpages == UNMAP_BATCH_PAGES)
		batch_unmap(batch);
}

/**
 * granted_page_init_owner - initialize the owner of a set of pages
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
void granted_page_init_owner(struct granted_page_owner *owner,
			     struct module *module,
			     void (*idle)(struct granted_page_owner *owner),
			     void (*free)(struct granted_page_owner *owner))
{
	__module_get(module);
	refcount_set(&owner->live, 1);
	owner->module = module;
	owner->idle = idle;
	owner->free = free;
	INIT_WORK(&owner->rwork.work, owner_is_idle_work);
}
EXPORT_SYMBOL_GPL(granted_page_init_owner);

/**
 * granted_page_put_owner - drop the owner's references for unmapped pages
 * @owner: owner of the pages
 * @count: number of pages, plus one for the owner's own reference
 *
 * Context: May sleep if this can drop the last reference, else any.
 */
void granted_page_put_owner(struct granted_page_owner *owner, unsigned int count)
{
	if (count && refcount_sub_and_test(count, &owner->live))
		owner_is_idle(owner);
}
EXPORT_SYMBOL_GPL(granted_page_put_owner);

/**
 * granted_page_clear_byte - set a byte of a mapped page to 0
 * @gpage: the page, mapped for writing
 * @offset: offset of the byte in the page
 *
 * Context: Any; the kernel mapping of the page must not be removed meanwhile.
 */
void granted_page_clear_byte(struct granted_page *gpage, unsigned int offset)
{
	u8 *addr = pfn_to_kaddr(page_to_pfn(gpage->page));

	addr[offset] = 0;
}
EXPORT_SYMBOL_GPL(granted_page_clear_byte);

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

/* Clear PTEs that Xen failed to unmap: the core mm must not see them. */
static void clear_retired_ptes(struct granted_page *gpages, unsigned int count,
			       struct mm_struct *mm, unsigned long addr, pte_t *pte)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		/* Pairs with retire_page(). */
		u8 state = smp_load_acquire(&gpages[i].state);

		if (state == GRANTED_PAGE_RETIRED && gpages[i].user_pte) {
			gpages[i].user_pte = 0;
			pte_clear(mm, addr + i * PAGE_SIZE, pte + i);
		}
	}
}

/**
 * granted_pages_unmap_user - unmap pages from a user's page table
 * @gpages: the pages, all of one owner
 * @count: number of pages, whose PTEs are all in one page table
 * @mm: mm that the page table belongs to
 * @addr: address of the first page
 * @byte: offset of a byte, from the start of the first page, to set to 0 before
 *        its page is unmapped; ignored if that page has no user mapping or is
 *        not one of @gpages
 *
 * Pages without a user mapping are skipped.  If a page has no other references,
 * its kernel mapping is removed with the same hypercall; other pages wait for
 * the worker.
 *
 * Context: An MMU notifier, blocking or not; does not sleep.  Takes the lock of
 * the page table.  The caller holds a reference to the owner.
 */
void granted_pages_unmap_user(struct granted_page *gpages, unsigned int count,
			      struct mm_struct *mm, unsigned long addr, long byte)
{
	long byte_page = byte >> PAGE_SHIFT;
	struct unmap_batch batch;
	unsigned int i;
	spinlock_t *ptl;	/* the page table's */
	pmd_t *pmd;
	pte_t *pte;

	/* User mappings are only removed, so this check needs no lock. */
	for (i = 0; i < count; i++)
		if (READ_ONCE(gpages[i].state) == GRANTED_PAGE_USER)
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
	    gpages[byte_page].state == GRANTED_PAGE_USER)
		granted_page_clear_byte(&gpages[byte_page], offset_in_page(byte));

	batch_init(&batch);
	for (; i < count; i++) {
		if (READ_ONCE(gpages[i].state) != GRANTED_PAGE_USER)
			continue;

		batch_add(&batch, &gpages[i]);
	}
	batch_unmap(&batch);

	if (unlikely(atomic_read(&nr_retired)))
		clear_retired_ptes(gpages, count, mm, addr, pte);

	pte_unmap_unlock(pte, ptl);
}
EXPORT_SYMBOL_GPL(granted_pages_unmap_user);

/**
 * granted_pages_unmap - unmap pages that have no user mapping
 * @gpages: the pages, all of one owner
 * @count: number of pages
 *
 * For auto-translated domains, where the core mm creates the user's PTEs and
 * they hold references, and to undo a mapping that failed half-way.  Pages that
 * are not mapped are skipped; pages with other references wait for the worker.
 *
 * Context: Any; the caller holds a reference to the owner.
 */
void granted_pages_unmap(struct granted_page *gpages, unsigned int count)
{
	struct unmap_batch batch;
	unsigned int i;

	batch_init(&batch);

	for (i = 0; i < count; i++) {
		if (READ_ONCE(gpages[i].state) != GRANTED_PAGE_KERNEL)
			continue;

		batch_add(&batch, &gpages[i]);
	}
	batch_unmap(&batch);
}
EXPORT_SYMBOL_GPL(granted_pages_unmap);

/**
 * granted_pages_release - make unmapped pages usable again
 * @gpages: the pages
 * @count: number of pages
 *
 * Removes the M2P overrides of pages in GRANTED_PAGE_GONE and unfreezes their
 * reference counts.  Other pages are skipped.
 *
 * Context: An RCU grace period has passed since the last page was unmapped.
 */
void granted_pages_release(struct granted_page *gpages, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++) {
		struct granted_page *gpage = &gpages[i];

		if (gpage->state != GRANTED_PAGE_GONE)
			continue;

		m2p_remove_override(gpage->gfn, page_to_pfn(gpage->page));
		/* No frame is translated to the page now: it may be reused. */
		if (gpage->frozen)
			page_ref_unfreeze(gpage->page, 1);
		WRITE_ONCE(gpage->state, GRANTED_PAGE_NONE);
	}
}
EXPORT_SYMBOL_GPL(granted_pages_release);

/**
 * granted_buffer_alloc - allocate a buffer, without pages
 * @count: number of pages that it will have
 *
 * Context: May sleep.
 * Return: the buffer, or NULL.
 */
struct granted_buffer *granted_buffer_alloc(unsigned int count)
{
	struct granted_buffer *buffer;

	buffer = kvmalloc(sizeof(*buffer) + (size_t)count *
			  (sizeof(buffer->pages[0]) + sizeof(buffer->handles[0])),
			  GFP_KERNEL_ACCOUNT);
	if (!buffer)
		return NULL;

	buffer->user = NULL;
	buffer->count = count;
	buffer->checks = 0;
	buffer->handles = (grant_handle_t *)(buffer->pages + count);

	return buffer;
}
EXPORT_SYMBOL_GPL(granted_buffer_alloc);

/**
 * granted_buffer_free - free a buffer without pages, mapped or not
 * @buffer: the buffer
 *
 * Context: May sleep.
 */
void granted_buffer_free(struct granted_buffer *buffer)
{
	free_uid(buffer->user);
	kvfree(buffer);
}
EXPORT_SYMBOL_GPL(granted_buffer_free);

/* Pages of buffers to unmap with one hypercall, their counts frozen. */
struct buffer_ops {
	struct gnttab_unmap_grant_ref *ops;
	struct page **pages;
	unsigned int nr;
	unsigned int max;
};

static void buffer_ops_unmap(struct buffer_ops *batch)
{
	unsigned int i, nr_free = 0;

	if (batch->nr &&
	    gnttab_batch_op(GNTTABOP_unmap_grant_ref, batch->ops, batch->nr)) {
		/* Xen has not processed any of the ops. */
		for (i = 0; i < batch->nr; i++)
			batch->ops[i].status = GNTST_general_error;
	}

	for (i = 0; i < batch->nr; i++) {
		struct page *page = batch->pages[i];

		if (batch->ops[i].status != GNTST_okay) {
			count_retired(page, batch->ops[i].status);
			continue;
		}

		ClearPageForeign(page);
		clear_foreign_p2m_mapping(&batch->ops[i], &page, 1);
		page_ref_unfreeze(page, 1);
		batch->pages[nr_free++] = page;
	}

	gnttab_free_pages(nr_free, batch->pages);
	batch->nr = 0;
}

/*
 * Add the pages that have no other references, and keep the others.  No PTE
 * ever led to the pages, and no frame is translated to them, so no walker of
 * page tables can find them: they need no grace period.
 */
static void buffer_ops_add(struct buffer_ops *batch, struct granted_buffer *buffer)
{
	unsigned int i, kept = 0;

	for (i = 0; i < buffer->count; i++) {
		struct page *page = buffer->pages[i];

		if (!page_ref_freeze(page, 1)) {
			buffer->pages[kept] = page;
			buffer->handles[kept++] = buffer->handles[i];
			continue;
		}

		gnttab_set_unmap_op(&batch->ops[batch->nr], (unsigned long)
				    pfn_to_kaddr(page_to_pfn(page)),
				    GNTMAP_host_map, buffer->handles[i]);
		batch->pages[batch->nr++] = page;
		if (batch->nr == batch->max)
			buffer_ops_unmap(batch);
	}

#ifdef CONFIG_IO_URING
	if (buffer->user)
		atomic_long_sub(buffer->count - kept, &buffer->user->locked_vm);
#endif
	buffer->count = kept;
}

/*
 * Unmap the pages of released buffers, and free the buffers.  Those with pages
 * that are still referenced stay in the list.
 */
static void unmap_buffers(struct list_head *buffers)
{
	struct gnttab_unmap_grant_ref few_ops[UNMAP_BATCH_PAGES];
	struct page *few_pages[UNMAP_BATCH_PAGES];
	struct buffer_ops batch = { few_ops, few_pages, 0, UNMAP_BATCH_PAGES };
	struct granted_buffer *buffer, *next;
	unsigned int nr_pages = 0;
	void *many = NULL;

	list_for_each_entry(buffer, buffers, entry)
		nr_pages += buffer->count;

	/* Without memory it takes more hypercalls. */
	nr_pages = min(nr_pages, UNMAP_MANY_PAGES);
	if (nr_pages > UNMAP_BATCH_PAGES)
		many = kmalloc_array(nr_pages, sizeof(*few_ops) + sizeof(*few_pages),
				     GFP_NOWAIT | __GFP_NOWARN);
	if (many) {
		batch.ops = many;
		batch.pages = (struct page **)(batch.ops + nr_pages);
		batch.max = nr_pages;
	}

	list_for_each_entry_safe(buffer, next, buffers, entry) {
		buffer_ops_add(&batch, buffer);
		if (buffer->count)
			continue;

		list_del(&buffer->entry);
		granted_buffer_free(buffer);
	}
	buffer_ops_unmap(&batch);
	kfree(many);
}

/* Unmap released buffers; returns the number of those that have to wait. */
static unsigned int unmap_released_buffers(struct list_head *buffers)
{
	struct granted_buffer *buffer, *next;
	unsigned int nr_waiting_buffers = 0;

	unmap_buffers(buffers);

	list_for_each_entry_safe(buffer, next, buffers, entry) {
		list_del(&buffer->entry);
		atomic_add(buffer->count, &nr_waiting);
		nr_waiting_buffers++;
		wait_on(&buffer->entry, &waiting_buffers);
	}

	return nr_waiting_buffers;
}

/*
 * On the CPU that released the first buffer and before its other tasks, as the
 * owner of the pages may be waiting for them.
 */
static void release_worker(struct work_struct *work)
{
	LIST_HEAD(buffers);

	spin_lock(&release_lock);
	list_splice_init(&released_buffers, &buffers);
	spin_unlock(&release_lock);

	unmap_released_buffers(&buffers);
}

/**
 * granted_buffer_release - release a buffer that is no longer used
 * @data: the struct granted_buffer
 *
 * Its pages are unmapped together with those of other released buffers, by
 * granted_buffers_end() if the task has called granted_buffers_begin(), else by
 * a work item.  Pages that are still referenced are unmapped later.
 *
 * Context: Process context; does not sleep.
 */
void granted_buffer_release(void *data)
{
	struct granted_buffer *buffer = data;
	struct list_head *to = &released_buffers;
	struct granted_buffer_batch *batch;
	bool kick;

	spin_lock(&release_lock);
	list_for_each_entry(batch, &buffer_batches, entry)
		if (batch->task == current)
			to = &batch->buffers;
	kick = to == &released_buffers && list_empty(to);
	list_add_tail(&buffer->entry, to);
	spin_unlock(&release_lock);

	if (kick)
		queue_work(system_highpri_wq, &release_work);
}
EXPORT_SYMBOL_GPL(granted_buffer_release);

/**
 * granted_buffers_begin - let buffers that this task releases form a batch
 * @batch: the batch
 *
 * Context: Process context; does not nest.
 */
void granted_buffers_begin(struct granted_buffer_batch *batch)
{
	batch->task = current;
	INIT_LIST_HEAD(&batch->buffers);

	spin_lock(&release_lock);
	list_add(&batch->entry, &buffer_batches);
	spin_unlock(&release_lock);
}
EXPORT_SYMBOL_GPL(granted_buffers_begin);

/**
 * granted_buffers_end - unmap the pages of the buffers in a batch
 * @batch: the batch
 *
 * Context: May sleep.
 * Return: the number of buffers whose pages are all unmapped.
 */
unsigned int granted_buffers_end(struct granted_buffer_batch *batch)
{
	unsigned int nr;

	spin_lock(&release_lock);
	list_del(&batch->entry);
	spin_unlock(&release_lock);

	nr = list_count_nodes(&batch->buffers);
	return nr - unmap_released_buffers(&batch->buffers);
}
EXPORT_SYMBOL_GPL(granted_buffers_end);

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

/* The worker's, which never runs twice at a time.  Too large for its stack. */
static struct unmap_batch waiting_batch;

/*
 * Check an entry that was taken off its list, and unmap it if it has no other
 * references; batch_unmap() may let it wait again.  Returns 0, or else the number
 * of unsuccessful checks.
 */
static unsigned int check_page(struct list_head *entry)
{
	struct granted_page *gpage = list_entry(entry, struct granted_page, waiting);

	if (page_ref_count(gpage->page) <= 1) {
		batch_add(&waiting_batch, gpage);
		return 0;
	}

	if (gpage->checks < WAIT_YOUNG_CHECKS)
		gpage->checks++;

	return gpage->checks;
}

static unsigned int check_refs(struct list_head *entry)
{
	struct gntab_unmap_queue_data *item =
		list_entry(entry, struct gntab_unmap_queue_data, list);

	if (!refs_are_held(item)) {
		unmap_refs(item);
		return 0;
	}

	if (item->age < WAIT_YOUNG_CHECKS)
		item->age++;

	return item->age;
}

static unsigned int check_buffer(struct list_head *entry)
{
	struct granted_buffer *buffer = list_entry(entry, struct granted_buffer, entry);
	unsigned int count = buffer->count;
	LIST_HEAD(list);

	list_add(entry, &list);
	unmap_buffers(&list);
	if (list_empty(&list)) {
		atomic_sub(count, &nr_waiting);
		return 0;
	}

	atomic_sub(count - buffer->count, &nr_waiting);
	list_del(entry);
	if (buffer->checks < WAIT_YOUNG_CHECKS)
		buffer->checks++;

	return buffer->checks;
}

typedef unsigned int (*check_fn)(struct list_head *entry);

/* Check the first @max entries of one of the lists in @wait. */
static void check_list(struct wait_list *wait, struct list_head *list,
		       check_fn check, unsigned int max)
{
	struct list_head *entry, *next;
	unsigned int n = 0;
	LIST_HEAD(young);
	LIST_HEAD(todo);
	LIST_HEAD(old);

	spin_lock_irq(&wait_lock);
	list_splice_init(list, &todo);
	spin_unlock_irq(&wait_lock);

	list_for_each_safe(entry, next, &todo) {
		unsigned int checks;

		if (n++ == max)
			break;

		list_del(entry);
		checks = check(entry);
		if (checks)
			list_add_tail(entry, checks < WAIT_YOUNG_CHECKS ? &young : &old);
	}
	batch_unmap(&waiting_batch);

	spin_lock_irq(&wait_lock);
	list_splice(&todo, list);
	list_splice_tail(&young, &wait->young);
	list_splice_tail(&old, &wait->old);
	spin_unlock_irq(&wait_lock);
}

/* Returns the delay in ms until the next check, or 0 if the list is empty. */
static unsigned int check_wait_list(struct wait_list *wait, check_fn check,
				    unsigned int max)
{
	check_list(wait, &wait->young, check, max);
	/* Not time_after(): jiffies may wrap during weeks without work. */
	if (jiffies - wait->old_checked >= msecs_to_jiffies(WAIT_OLD_MS)) {
		check_list(wait, &wait->old, check, max);
		wait->old_checked = jiffies;
	}

	/* Needs no lock: only the worker removes entries. */
	if (!list_empty(&wait->young))
		return WAIT_YOUNG_MS;

	return list_empty(&wait->old) ? 0 : WAIT_OLD_MS;
}

static void unmap_worker(struct work_struct *work)
{
	unsigned int delay, pages_delay, buffers_delay;

	delay = check_wait_list(&waiting_refs, check_refs, UINT_MAX);
	pages_delay = check_wait_list(&waiting_pages, check_page, WAIT_PAGES_PER_ROUND);
	delay = min_not_zero(delay, pages_delay);
	buffers_delay = check_wait_list(&waiting_buffers, check_buffer,
					WAIT_BUFFERS_PER_ROUND);
	delay = min_not_zero(delay, buffers_delay);

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
	wait_on(&item->list, &waiting_refs);
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
	if (!xen_domain())
		return 0;

	/* The pages waiting here may be the cause of a memory shortage. */
	unmap_wq = alloc_workqueue("xen-grant-unmap", WQ_UNBOUND | WQ_MEM_RECLAIM, 1);
	if (!unmap_wq)
		unmap_wq = system_long_wq;

	gnttab_debugfs = debugfs_create_dir("xen-grants", NULL);
	debugfs_create_atomic_t("waiting", 0400, gnttab_debugfs, &nr_waiting);
	debugfs_create_atomic_t("retired", 0400, gnttab_debugfs, &nr_retired);

	return 0;
}
subsys_initcall(grant_unmap_init);
