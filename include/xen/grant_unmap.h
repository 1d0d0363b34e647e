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
 * enum gnttab_kmap_state - where a page is in its life
 * @GNTTAB_KMAP_NONE: not mapped
 * @GNTTAB_KMAP_MAPPED: mapped by the kernel only
 * @GNTTAB_KMAP_USER: mapped by the kernel and in a user's page table
 * @GNTTAB_KMAP_WAITING: the kernel's side is left, somebody holds the page
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
 * struct gnttab_kmap_owner - what a set of mapped pages belongs to
 * @live: number of pages not yet unmapped, and one for the owner itself
 * @module: which the callbacks are in; stays for as long as the owner lives
 * @idle: called when @live is down to 0.  May sleep.
 * @free: called an RCU grace period after @idle, to release the pages with
 *        gnttab_kmap_release() and to free the owner.  May sleep.
 * @rwork: calls @idle where that must not sleep, and then @free
 */
struct gnttab_kmap_owner {
	atomic_t live;
	struct module *module;
	void (*idle)(struct gnttab_kmap_owner *owner);
	void (*free)(struct gnttab_kmap_owner *owner);
	struct rcu_work rwork;
};

/*
 * "kmap" is for the kernel's mapping, as in kmap_ops; it has nothing to do with
 * highmem.
 */

/**
 * struct gnttab_kmap - one granted page as mapped by the kernel, and the user
 *                      mapping nested in it
 * @page: from gnttab_alloc_pages()
 * @owner: is told when the page is unmapped
 * @waiting: on a list of pages that somebody holds, while it waits
 * @user_pte: machine address of the user's PTE; 0 if there is none and the page
 *            is retired
 * @user_handle: of the user's side, while there is one
 * @gfn: the frame that was mapped, once the page is gone
 * @handle: of the kernel's side; for an auto-translated domain of the only one
 * @state: where the page is in its life
 * @looks: number of unsuccessful checks while the page waits
 * @frozen: the reference count is frozen, once the page is gone
 *
 * While there is a user side, the lock of the user's page table protects
 * everything; a page that waits belongs to the worker.
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
