/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _XEN_GRANT_UNMAP_H
#define _XEN_GRANT_UNMAP_H

#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include <xen/grant_table.h>

struct module;

/**
 * enum gnttab_kmap_state - state of a page
 * @GNTTAB_KMAP_NONE: not mapped
 * @GNTTAB_KMAP_MAPPED: mapped by the kernel only
 * @GNTTAB_KMAP_USER: mapped by the kernel and in a user's page table
 * @GNTTAB_KMAP_WAITING: still mapped by the kernel, as the page is referenced
 * @GNTTAB_KMAP_GONE: unmapped, but lockless walkers may still find the page
 * @GNTTAB_KMAP_RETIRED: Xen refused to unmap it; never to be used again
 */
enum gnttab_kmap_state {
	GNTTAB_KMAP_NONE,
	GNTTAB_KMAP_MAPPED,
	GNTTAB_KMAP_USER,
	GNTTAB_KMAP_WAITING,
	GNTTAB_KMAP_GONE,
	GNTTAB_KMAP_RETIRED,
};

/**
 * struct gnttab_kmap_owner - owner of a set of mapped pages
 * @live: number of pages not yet unmapped, plus one for the owner itself
 * @module: contains the callbacks; referenced until the owner is freed
 * @idle: called when @live is down to 0.  May sleep.
 * @free: called an RCU grace period after @idle, to release the pages with
 *        gnttab_kmap_release() and to free the owner.  May sleep.
 * @rwork: calls @idle for callers that must not sleep, and then @free
 */
struct gnttab_kmap_owner {
	atomic_t live;
	struct module *module;
	void (*idle)(struct gnttab_kmap_owner *owner);
	void (*free)(struct gnttab_kmap_owner *owner);
	struct rcu_work rwork;
};

/*
 * "kmap" stands for the kernel's mapping, as in kmap_ops; it is not related to
 * highmem.
 */

/**
 * struct gnttab_kmap - one granted page as mapped by the kernel, and the user
 *                      mapping nested in it
 * @page: from gnttab_alloc_pages()
 * @owner: owner of the page, whose reference is dropped when it is unmapped
 * @waiting: entry in a list of referenced pages, while the page waits
 * @user_pte: machine address of the user's PTE; 0 if there is none and the page
 *            is retired
 * @user_handle: handle of the user mapping, while there is one
 * @gfn: the frame that was mapped, once the page is gone
 * @handle: handle of the kernel mapping; in an auto-translated domain the only
 *          one
 * @state: enum gnttab_kmap_state
 * @looks: number of unsuccessful checks while the page waits
 * @frozen: the reference count is frozen, once the page is gone
 *
 * While there is a user mapping, the lock of the user's page table protects all
 * members; a waiting page belongs to the worker.
 */
struct gnttab_kmap {
	struct page *page;
	struct gnttab_kmap_owner *owner;
	union {
		struct list_head waiting;
		struct {
			u64 user_pte;
			grant_handle_t user_handle;
		};
		unsigned long gfn;
	};
	grant_handle_t handle;
	u8 state;
	u8 looks;
	bool frozen;
};

void gnttab_kmap_unmap_user(struct gnttab_kmap *kmaps, unsigned int count,
			    struct mm_struct *mm, unsigned long addr, long byte);
void gnttab_kmap_unmap(struct gnttab_kmap *kmaps, unsigned int count);
void gnttab_kmap_release(struct gnttab_kmap *kmaps, unsigned int count);
void gnttab_kmap_clear_byte(struct gnttab_kmap *kmap, unsigned int offset);
void gnttab_kmap_init_owner(struct gnttab_kmap_owner *owner,
			    struct module *module,
			    void (*idle)(struct gnttab_kmap_owner *owner),
			    void (*free)(struct gnttab_kmap_owner *owner));
void gnttab_kmap_put_owner(struct gnttab_kmap_owner *owner, unsigned int count);

#endif /* _XEN_GRANT_UNMAP_H */
