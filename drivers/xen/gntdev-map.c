// SPDX-License-Identifier: GPL-2.0-only
/*
 * One mapping request of gntdev: the grants, the pages they are mapped into,
 * and the user's mapping of them.
 *
 * Copyright (c) 2006-2007, D G Murray.
 *           (c) 2009 Gerd Hoffmann <kraxel@redhat.com>
 *           (c) 2018 Oleksandr Andrushchenko, EPAM Systems Inc.
 *
 * Life of a map:
 *
 *   IOCTL_GNTDEV_MAP_GRANT_REF allocates it, with its pages; the file has a
 *   reference until IOCTL_GNTDEV_UNMAP_GRANT_REF or the last close();
 *
 *   mmap() maps the grants; it can succeed only once per map.  Each VMA has a
 *   reference; there can be several, since a VMA can be split;
 *
 *   in a PV domain an MMU notifier over the mapped range unmaps grants before
 *   the core mm removes the PTEs.  Referenced pages stay mapped in the kernel,
 *   each on its own (see grant-unmap.c).  The notifier is removed with the last
 *   VMA, since the map then owns neither the addresses nor the mm;
 *
 *   in an auto-translated domain the user's PTEs are ordinary ones.  The grants
 *   are unmapped when the last reference is dropped;
 *
 *   when there are no references and no mapped pages left, the event channel is
 *   notified, if requested, and the map is freed an RCU grace period later.
 *
 * Locks: priv->lock protects the tree of maps, and ->flags and ->notify of
 * each, which the notifier reads without it.  PTEs are created with mmap_lock
 * held for writing, which excludes all but lockless walkers.  Notifiers cannot
 * rely on mmap_lock; see grant-unmap.c for the locks when PTEs are removed.
 */

#define pr_fmt(fmt) "xen:" KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rbtree.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include <xen/events.h>
#include <xen/grant_table.h>
#include <xen/grant_unmap.h>
#include <xen/gntdev.h>
#include <xen/page.h>
#include <xen/xen.h>

#include "gntdev-common.h"

#ifdef CONFIG_XEN_GRANT_DMA_ALLOC
static void gntdev_dma_args(const struct gntdev_grant_map *map,
			    struct gnttab_dma_alloc_args *args)
{
	args->dev = map->dma_dev;
	args->coherent = !!(map->dma_flags & GNTDEV_DMA_FLAG_COHERENT);
	args->nr_pages = map->count;
	args->pages = map->pages;
	args->frames = map->frames;
	args->vaddr = map->dma_vaddr;
	args->dev_bus_addr = map->dma_bus_addr;
}

static int gntdev_alloc_dma_pages(struct gntdev_priv *priv,
				  struct gntdev_grant_map *map, int dma_flags)
{
	struct gnttab_dma_alloc_args args;
	int ret;

	map->frames = kvzalloc_objs(map->frames[0], map->count);
	if (!map->frames)
		return -ENOMEM;

	map->dma_dev = priv->dma_dev;
	map->dma_flags = dma_flags;
	gntdev_dma_args(map, &args);
	ret = gnttab_dma_alloc_pages(&args);
	if (ret) {
		kvfree(map->frames);
		return ret;
	}

	map->dma_vaddr = args.vaddr;
	map->dma_bus_addr = args.dev_bus_addr;
	return 0;
}

/*
 * Returns false if the pages are not a DMA buffer.  Such a buffer is freed as a
 * whole or, if pages were retired and only @count are left, not at all.
 */
static bool gntdev_free_dma_pages(struct gntdev_grant_map *map, int count)
{
	struct gnttab_dma_alloc_args args;

	if (!map->dma_vaddr)
		return false;

	gntdev_dma_args(map, &args);
	if (count == map->count)
		gnttab_dma_free_pages(&args);
	kvfree(map->frames);
	return true;
}
#else
static int gntdev_alloc_dma_pages(struct gntdev_priv *priv,
				  struct gntdev_grant_map *map, int dma_flags)
{
	return -EOPNOTSUPP;
}

static bool gntdev_free_dma_pages(struct gntdev_grant_map *map, int count)
{
	return false;
}
#endif

/* Drop retired pages from map->pages[]; returns the number of pages left. */
static int gntdev_drop_retired_pages(struct gntdev_grant_map *map)
{
	int i, count = 0;

	for (i = 0; i < map->count; i++)
		if (map->gpages[i].state != GRANTED_PAGE_RETIRED)
			map->pages[count++] = map->pages[i];

	return count;
}

static void gntdev_free_pages(struct gntdev_grant_map *map)
{
	int count = gntdev_drop_retired_pages(map);

	if (!gntdev_free_dma_pages(map, count))
		gnttab_free_pages(count, map->pages);
}

static void gntdev_free_map(struct gntdev_grant_map *map)
{
	kvfree(map->gpages);
	kfree(map);
}

/* Called when the map has no references and no mapped pages left. */
static void gntdev_map_idle(struct granted_page_owner *owner)
{
	struct gntdev_grant_map *map =
		container_of(owner, struct gntdev_grant_map, owner);

	if (map->notify.flags & UNMAP_NOTIFY_SEND_EVENT) {
		notify_remote_via_evtchn(map->notify.event);
		evtchn_put(map->notify.event);
	}
}

/* Called an RCU grace period after gntdev_map_idle(). */
static void gntdev_map_free(struct granted_page_owner *owner)
{
	struct gntdev_grant_map *map =
		container_of(owner, struct gntdev_grant_map, owner);

	granted_pages_release(map->gpages, map->count);
	gntdev_free_pages(map);
	gntdev_free_map(map);
}

static int gntdev_alloc_pages(struct gntdev_priv *priv,
			      struct gntdev_grant_map *map, int dma_flags)
{
	if (IS_ENABLED(CONFIG_XEN_GRANT_DMA_ALLOC) &&
	    dma_flags & (GNTDEV_DMA_FLAG_WC | GNTDEV_DMA_FLAG_COHERENT))
		return gntdev_alloc_dma_pages(priv, map, dma_flags);

	return gnttab_alloc_pages(map->count, map->pages);
}

/**
 * gntdev_alloc_map - allocate a map and its pages
 * @priv: the file's gntdev_priv
 * @count: number of pages
 * @dma_flags: GNTDEV_DMA_FLAG_*, for pages that a device can reach
 *
 * Context: May sleep.
 * Return: the map, with one reference, or NULL if there is no memory.
 */
struct gntdev_grant_map *gntdev_alloc_map(struct gntdev_priv *priv, int count,
					  int dma_flags)
{
	struct gntdev_grant_map *map;
	int i;

	/* Patches code, which must not be done with mmap_lock held. */
	m2p_override_prepare();

	map = kzalloc_obj(*map);
	if (!map)
		return NULL;

	map->count = count;
	/* Three arrays in one; each one ends aligned for the next. */
	map->gpages = kvmalloc_array(count, sizeof(map->gpages[0]) +
				     sizeof(map->pages[0]) +
				     sizeof(map->grants[0]), GFP_KERNEL);
	if (!map->gpages)
		goto fail;

	map->pages = (struct page **)(map->gpages + count);
	map->grants = (struct ioctl_gntdev_grant_ref *)(map->pages + count);

	if (gntdev_alloc_pages(priv, map, dma_flags))
		goto fail;

	for (i = 0; i < count; i++) {
		map->grants[i].domid = DOMID_INVALID;
		map->grants[i].ref = INVALID_GRANT_REF;
		map->gpages[i] = (struct granted_page){
			.page = map->pages[i],
			.owner = &map->owner,
			.handle = INVALID_GRANT_HANDLE,
		};
	}

	map->notify.addr = -1;
	granted_page_init_owner(&map->owner, THIS_MODULE, gntdev_map_idle,
				gntdev_map_free);
	refcount_set(&map->users, 1);

	return map;

fail:
	gntdev_free_map(map);
	return NULL;
}

#define map_of(rb_node) rb_entry(rb_node, struct gntdev_grant_map, node)

static bool gntdev_map_is_before(struct rb_node *a, const struct rb_node *b)
{
	return map_of(a)->index < map_of(b)->index;
}

static int gntdev_cmp_index(const void *key, const struct rb_node *node)
{
	unsigned long index = *(const unsigned long *)key;

	if (index < map_of(node)->index)
		return -1;

	return index - map_of(node)->index >= map_of(node)->count;
}

/**
 * gntdev_add_map - assign an offset to a map and add it to its file
 * @priv: the file's gntdev_priv
 * @add: the map
 *
 * The map is added behind the last one.  Holes are not reused: on 64-bit the
 * offsets cannot be exhausted.
 *
 * Context: priv->lock is held.
 * Return: 0; -ENOSPC if the offset would overflow (32-bit only).
 */
int gntdev_add_map(struct gntdev_priv *priv, struct gntdev_grant_map *add)
{
	struct rb_node *last = rb_last(&priv->maps);

	add->index = last ? map_of(last)->index + map_of(last)->count : 0;
	if (add->index + add->count < add->index)
		return -ENOSPC;

	rb_add(&add->node, &priv->maps, gntdev_map_is_before);
	return 0;
}

/**
 * gntdev_remove_map - remove a map from its file
 * @priv: the file's gntdev_priv
 * @map: the map; the caller takes over the file's reference
 *
 * Context: priv->lock is held.
 */
void gntdev_remove_map(struct gntdev_priv *priv, struct gntdev_grant_map *map)
{
	rb_erase(&map->node, &priv->maps);
}

/**
 * gntdev_find_map - find the map that contains an offset
 * @priv: the file's gntdev_priv
 * @index: offset in pages
 *
 * Context: priv->lock is held.
 * Return: the map or NULL.
 */
struct gntdev_grant_map *gntdev_find_map(struct gntdev_priv *priv,
					 unsigned long index)
{
	struct rb_node *node = rb_find(&index, &priv->maps, gntdev_cmp_index);

	return node ? map_of(node) : NULL;
}

/**
 * gntdev_find_map_index - find a map by its offset
 * @priv: the file's gntdev_priv
 * @index: offset in pages of the map's first page
 * @count: number of pages the map must have, or 0
 *
 * Context: priv->lock is held.
 * Return: the map or NULL.
 */
struct gntdev_grant_map *gntdev_find_map_index(struct gntdev_priv *priv,
					       unsigned long index, int count)
{
	struct gntdev_grant_map *map = gntdev_find_map(priv, index);

	if (!map || map->index != index || (count && map->count != count))
		return NULL;

	return map;
}

/* The byte to clear for UNMAP_NOTIFY_CLEAR_BYTE, or a negative number. */
static int gntdev_notify_byte(const struct gntdev_grant_map *map)
{
	return map->flags & GNTMAP_readonly ? -1 : READ_ONCE(map->notify.addr);
}

/**
 * gntdev_is_gone - has a page been mapped and unmapped again by the user?
 * @map: the map
 * @pgno: index of the page in the map
 *
 * Context: priv->lock is held.
 * Return: true if the page has no user mapping and will not get one again.
 */
bool gntdev_is_gone(const struct gntdev_grant_map *map, unsigned int pgno)
{
	/* Pairs with gntdev_map_vma(). */
	return map->in_use && !smp_load_acquire(&map->mmap_failed) &&
	       READ_ONCE(map->gpages[pgno].state) > GRANTED_PAGE_USER;
}

/**
 * gntdev_put_map - drop a reference
 * @map: the map, or NULL
 *
 * Context: May sleep if this can drop the last reference.
 */
void gntdev_put_map(struct gntdev_grant_map *map)
{
	if (!map || !refcount_dec_and_test(&map->users))
		return;

	if (!xen_pv_domain()) {
		int byte = gntdev_notify_byte(map);

		if (byte >= 0 && map->gpages[byte >> PAGE_SHIFT].state == GRANTED_PAGE_KERNEL)
			granted_page_clear_byte(&map->gpages[byte >> PAGE_SHIFT],
						offset_in_page(byte));
		granted_pages_unmap(map->gpages, map->count);
	}

	granted_page_put_owner(&map->owner, 1);
}

/*
 * The caller adds all pages to owner->live beforehand, since a mapped page can
 * be unmapped, and subtracted again, at any time.
 */
static void gntdev_set_mapped(struct granted_page *gpage,
			      const struct gnttab_map_grant_ref *op)
{
	gpage->handle = op->handle;
	WRITE_ONCE(gpage->state, GRANTED_PAGE_KERNEL);
}

/**
 * gntdev_map_grant_pages - map the grants of a map for the kernel
 * @map: the map, with its flags set
 *
 * For auto-translated domains; does nothing if the grants are mapped already.
 *
 * Context: May sleep.
 * Return: 0; -ENOMEM; -EINVAL if Xen fails to map one of the grants.
 */
int gntdev_map_grant_pages(struct gntdev_grant_map *map)
{
	struct gnttab_map_grant_ref *ops;
	int i, err, mapped = 0;

	if (READ_ONCE(map->gpages[0].state) == GRANTED_PAGE_KERNEL)
		return 0;

	ops = kvmalloc_objs(*ops, map->count);
	if (!ops)
		return -ENOMEM;

	for (i = 0; i < map->count; i++)
		gnttab_set_map_op(&ops[i],
				  (unsigned long)
				  pfn_to_kaddr(page_to_pfn(map->pages[i])),
				  map->flags, map->grants[i].ref,
				  map->grants[i].domid);

	err = gnttab_map_refs(ops, NULL, map->pages, map->count);

	refcount_add(map->count, &map->owner.live);
	for (i = 0; i < map->count; i++) {
		if (ops[i].status == GNTST_okay) {
			gntdev_set_mapped(&map->gpages[i], &ops[i]);
			mapped++;
		} else if (!err) {
			err = -EINVAL;
		}
	}
	granted_page_put_owner(&map->owner, map->count - mapped);

	if (err)
		granted_pages_unmap(map->gpages, map->count);

	kvfree(ops);
	return err;
}

struct gntdev_pte_ops {
	struct gntdev_grant_map *map;
	struct gnttab_map_grant_ref *map_ops;
	struct gnttab_map_grant_ref *kmap_ops;
	u64 maddr;
};

static int gntdev_set_pte_op(pte_t *pte, unsigned long addr, void *data)
{
	struct gntdev_pte_ops *ops = data;
	struct gntdev_grant_map *map = ops->map;
	unsigned int i = (addr - map->pages_vm_start) >> PAGE_SHIFT;
	struct ioctl_gntdev_grant_ref grant;
	u32 flags;

	/* Look up the machine address once per page table, at the first PTE. */
	if (!i || !offset_in_page(pte))
		ops->maddr = arbitrary_virt_to_machine(pte).maddr;
	else
		ops->maddr += sizeof(*pte);

	/* Read after the call above, so that it need not preserve them. */
	grant = map->grants[i];
	flags = map->flags;

	gnttab_set_map_op(&ops->map_ops[i], ops->maddr,
			  flags | GNTMAP_application_map | GNTMAP_contains_pte,
			  grant.ref, grant.domid);

	gnttab_set_map_op(&ops->kmap_ops[i],
			  (unsigned long)
				  pfn_to_kaddr(page_to_pfn(map->pages[i])),
			  flags | GNTMAP_host_map, grant.ref, grant.domid);
	return 0;
}

/* Remove the user mappings in a range of the map's addresses. */
static void gntdev_unmap_user(struct gntdev_grant_map *map, unsigned long start,
			      unsigned long end, bool may_sleep)
{
	int byte = gntdev_notify_byte(map);
	unsigned long next;

	for (; start < end; start = next) {
		unsigned long offset = start - map->pages_vm_start;

		next = pmd_addr_end(start, end);
		granted_pages_unmap_user(map->gpages + (offset >> PAGE_SHIFT),
					 (next - start) >> PAGE_SHIFT,
					 map->notifier.mm, start,
					 (long)byte - (long)offset);
		if (may_sleep)
			cond_resched();
	}
}

/* Create the PTEs of a VMA, and the direct mappings that they are nested in. */
static int gntdev_map_ptes(struct gntdev_grant_map *map,
			   struct vm_area_struct *vma)
{
	struct gntdev_pte_ops ops = { .map = map };
	int i, err, mapped = 0;

	ops.map_ops = kvmalloc_array(map->count, 2 * sizeof(*ops.map_ops),
				     GFP_KERNEL);
	if (!ops.map_ops)
		return -ENOMEM;
	ops.kmap_ops = ops.map_ops + map->count;

	err = apply_to_page_range(vma->vm_mm, vma->vm_start,
				  vma->vm_end - vma->vm_start,
				  gntdev_set_pte_op, &ops);
	if (err)
		goto out;

	err = gnttab_map_refs(ops.map_ops, ops.kmap_ops, map->pages, map->count);

	refcount_add(map->count, &map->owner.live);
	for (i = 0; i < map->count; i++) {
		struct granted_page *gpage = &map->gpages[i];

		if (ops.kmap_ops[i].handle == INVALID_GRANT_HANDLE)
			continue;

		gntdev_set_mapped(gpage, &ops.kmap_ops[i]);
		mapped++;
		if (ops.map_ops[i].handle == INVALID_GRANT_HANDLE)
			continue;

		gpage->user_pte = ops.map_ops[i].host_addr;
		gpage->user_handle = ops.map_ops[i].handle;
		WRITE_ONCE(gpage->state, GRANTED_PAGE_USER);
	}
	granted_page_put_owner(&map->owner, map->count - mapped);

	/* A PTE is left only if Xen failed to unmap it; retire its page. */
	if (err) {
		gntdev_unmap_user(map, vma->vm_start, vma->vm_end, true);
		granted_pages_unmap(map->gpages, map->count);
	}

out:
	kvfree(ops.map_ops);
	return err;
}

static void gntdev_vma_open(struct vm_area_struct *vma)
{
	struct gntdev_grant_map *map = vma->vm_private_data;

	refcount_inc(&map->users);
}

static void gntdev_vma_close(struct vm_area_struct *vma)
{
	struct gntdev_grant_map *map = vma->vm_private_data;

	vma->vm_private_data = NULL;
	gntdev_put_map(map);
}

/*
 * Xen owns the PTEs, so the core mm cannot change their permissions.
 * mprotect() fails with EACCES, since trying would lose the mapping.
 */
static int gntdev_vma_mprotect(struct vm_area_struct *vma, unsigned long start,
			       unsigned long end, unsigned long newflags)
{
	return (newflags ^ vma->vm_flags) & VM_ACCESS_FLAGS ? -EACCES : 0;
}

static struct page *gntdev_vma_find_page(struct vm_area_struct *vma,
					 unsigned long addr)
{
	struct gntdev_grant_map *map = vma->vm_private_data;
	unsigned long i = (addr - map->pages_vm_start) >> PAGE_SHIFT;

	return i < map->count ? map->pages[i] : NULL;
}

/* For the child of a fork() in a PV domain; its VMA has no PTEs. */
static const struct vm_operations_struct gntdev_child_vmops = {
	.open = gntdev_vma_open,
	.close = gntdev_vma_close,
	.mprotect = gntdev_vma_mprotect,
};

static void gntdev_pv_vma_open(struct vm_area_struct *vma)
{
	struct gntdev_grant_map *map = vma->vm_private_data;

	gntdev_vma_open(vma);

	/* The VMA that this one was copied from keeps the notifier alive. */
	if (vma->vm_mm == map->notifier.mm) {
		atomic_inc(&map->vmas);
		return;
	}

	/*
	 * Xen rejects copies of the PTEs in a child, so do not copy them even
	 * if MADV_DOFORK has cleared VM_DONTCOPY.
	 */
	vm_flags_set(vma, VM_WIPEONFORK);
	vma->vm_ops = &gntdev_child_vmops;
}

static void gntdev_pv_vma_close(struct vm_area_struct *vma)
{
	struct gntdev_grant_map *map = vma->vm_private_data;

	if (atomic_dec_and_test(&map->vmas))
		mmu_interval_notifier_remove(&map->notifier);

	gntdev_vma_close(vma);
}

static const struct vm_operations_struct gntdev_pv_vmops = {
	.open = gntdev_pv_vma_open,
	.close = gntdev_pv_vma_close,
	.mprotect = gntdev_vma_mprotect,
	.find_normal_page = gntdev_vma_find_page,
};

/* For auto-translated domains, where the PTEs are ordinary ones. */
static const struct vm_operations_struct gntdev_vmops = {
	.open = gntdev_vma_open,
	.close = gntdev_vma_close,
};

/**
 * gntdev_vma_map - find the map behind a VMA
 * @vma: any VMA
 *
 * Context: mmap_lock is held.
 * Return: the map, or NULL if @vma does not belong to gntdev.
 */
struct gntdev_grant_map *gntdev_vma_map(struct vm_area_struct *vma)
{
	if (vma->vm_ops != &gntdev_pv_vmops && vma->vm_ops != &gntdev_vmops &&
	    vma->vm_ops != &gntdev_child_vmops)
		return NULL;

	return vma->vm_private_data;
}

/*
 * Only events that remove PTEs unmap grants.  All other events concern PTE bits
 * that the kernel must not change, and are ignored.
 */
static bool gntdev_event_unmaps(enum mmu_notifier_event event)
{
	switch (event) {
	case MMU_NOTIFY_UNMAP:
	case MMU_NOTIFY_CLEAR:
	case MMU_NOTIFY_RELEASE:
		return true;
	default:
		return false;
	}
}

static bool gntdev_invalidate(struct mmu_interval_notifier *mn,
			      const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	struct gntdev_grant_map *map =
		container_of(mn, struct gntdev_grant_map, notifier);
	unsigned long map_end = map->pages_vm_start +
				((unsigned long)map->count << PAGE_SHIFT);
	unsigned long start, end;

	if (!gntdev_event_unmaps(range->event))
		return true;

	start = max(range->start, map->pages_vm_start);
	end = min(range->end, map_end);

	gntdev_unmap_user(map, start, end, mmu_notifier_range_blockable(range));

	return true;
}

static const struct mmu_interval_notifier_ops gntdev_mmu_ops = {
	.invalidate = gntdev_invalidate,
};

static int gntdev_map_vma_pv(struct gntdev_grant_map *map,
			     struct vm_area_struct *vma)
{
	int err;

	vm_flags_set(vma, VM_DONTCOPY);

	map->pages_vm_start = vma->vm_start;

	err = mmu_interval_notifier_insert_locked(&map->notifier, vma->vm_mm,
						  vma->vm_start,
						  vma->vm_end - vma->vm_start,
						  &gntdev_mmu_ops);
	if (err)
		return err;

	/*
	 * The page tables of this range cannot change while mmap_lock is held
	 * for writing, so there is nothing to retry.  But the notifier may have
	 * been inserted during another invalidation; wait for it to end, so
	 * that the notifier does not miss the next one.
	 */
	mmu_interval_read_begin(&map->notifier);
	atomic_set(&map->vmas, 1);

	err = gntdev_map_ptes(map, vma);
	if (err)
		mmu_interval_notifier_remove(&map->notifier);

	return err;
}

/**
 * gntdev_is_unmapped - can a map be mapped, possibly again?
 * @map: the map, which only the worker may unmap concurrently
 *
 * Return: true if none of its pages is mapped, waits or is retired.
 */
bool gntdev_is_unmapped(const struct gntdev_grant_map *map)
{
	int i;

	for (i = 0; i < map->count; i++) {
		/* Pairs with batch_unmap(), which then only puts the owner. */
		u8 state = smp_load_acquire(&map->gpages[i].state);

		if (state != GRANTED_PAGE_NONE && state != GRANTED_PAGE_GONE)
			return false;
	}

	return true;
}

/**
 * gntdev_map_vma - map the grants of a map for a user
 * @map: the map, with its flags set; the caller's reference becomes the VMA's
 * @vma: a new VMA of exactly the size of the map
 *
 * Context: mmap_lock is held for writing.  May sleep, for long if the other
 * domain has paged a frame out.
 * Return: 0; -ENOMEM; -ENOSPC if Xen is out of handles; -EINVAL if Xen fails to
 * map one of the grants.
 */
int gntdev_map_vma(struct gntdev_grant_map *map, struct vm_area_struct *vma)
{
	int err;

	/* Released here, not on failure, as few programs retry mmap(). */
	if (map->mmap_failed) {
		synchronize_rcu();
		granted_pages_release(map->gpages, map->count);
		/* Pairs with gntdev_is_gone(). */
		smp_store_release(&map->mmap_failed, false);
	}

	vma->vm_private_data = map;
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP | VM_MIXEDMAP);

	/*
	 * Xen does not permit writes; do not let mprotect() enable them.  In an
	 * auto-translated domain a write would fault again forever.
	 */
	if (map->flags & GNTMAP_readonly)
		vm_flags_clear(vma, VM_MAYWRITE);

	if (xen_pv_domain()) {
		vma->vm_ops = &gntdev_pv_vmops;
		return gntdev_map_vma_pv(map, vma);
	}

	vma->vm_ops = &gntdev_vmops;

	err = gntdev_map_grant_pages(map);
	if (err)
		return err;

	return vm_map_pages_zero(vma, map->pages, map->count);
}
