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
 * @GNTTAB_KMAP_RETIRED: Xen refused to unmap it; never to be used again
 */
enum gnttab_kmap_state {
	GNTTAB_KMAP_NONE,
	GNTTAB_KMAP_MAPPED,
	GNTTAB_KMAP_USER,
	GNTTAB_KMAP_WAITING,
	GNTTAB_KMAP_RETIRED,
};

/**
 * struct gnttab_kmap_owner - what a set of mapped pages belongs to
 * @live: number of pages not yet unmapped, and one for the owner itself
 * @module: which @idle is in; stays for as long as the owner lives
 * @idle: called when @live is down to 0; frees the owner.  May sleep.
 * @work: calls @idle where that must not sleep
 */
struct gnttab_kmap_owner {
	atomic_t live;
	struct module *module;
	void (*idle)(struct gnttab_kmap_owner *owner);
	struct work_struct work;
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
 * @user_pte: machine address of the user's PTE, while there is one, else 0
 * @user_handle: of the user's side, while there is one
 * @handle: of the kernel's side; for an auto-translated domain of the only one
 * @state: where the page is in its life
 * @looks: how often @waiting was in vain
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
	};
	grant_handle_t handle;
	u8 state;
	u8 looks;
};

void gnttab_kmap_unmap_user(struct gnttab_kmap *kmaps, struct mm_struct *mm,
			    unsigned long start, unsigned long end);
void gnttab_kmap_unmap(struct gnttab_kmap *kmaps, unsigned int count);
void gnttab_kmap_init_owner(struct gnttab_kmap_owner *owner,
			    struct module *module,
			    void (*idle)(struct gnttab_kmap_owner *owner));
void gnttab_kmap_put_owner(struct gnttab_kmap_owner *owner, unsigned int count);

#endif /* _XEN_GRANT_UNMAP_H */
