/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _XEN_GRANT_UNMAP_H
#define _XEN_GRANT_UNMAP_H

#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/refcount.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include <xen/grant_table.h>

struct dentry;
struct module;
struct task_struct;
struct user_struct;

/**
 * enum granted_page_state - state of a page
 * @GRANTED_PAGE_NONE: not mapped
 * @GRANTED_PAGE_KERNEL: mapped by the kernel only
 * @GRANTED_PAGE_USER: mapped by the kernel and in a user's page table
 * @GRANTED_PAGE_WAITING: still mapped by the kernel, as the page is referenced
 * @GRANTED_PAGE_GONE: unmapped, but lockless walkers may still find the page
 * @GRANTED_PAGE_RETIRED: Xen failed to unmap it; never to be used again
 */
enum granted_page_state {
	GRANTED_PAGE_NONE,
	GRANTED_PAGE_KERNEL,
	GRANTED_PAGE_USER,
	GRANTED_PAGE_WAITING,
	GRANTED_PAGE_GONE,
	GRANTED_PAGE_RETIRED,
};

/**
 * struct granted_page_owner - owner of a set of mapped pages
 * @live: number of pages not yet unmapped, plus one for the owner itself
 * @module: contains the callbacks; referenced until the owner is freed
 * @idle: called when @live is down to 0.  May sleep.
 * @free: called an RCU grace period after @idle, to release the pages with
 *        granted_pages_release() and to free the owner.  May sleep.
 * @rwork: calls @idle for callers that must not sleep, and then @free
 */
struct granted_page_owner {
	refcount_t live;
	struct module *module;
	void (*idle)(struct granted_page_owner *owner);
	void (*free)(struct granted_page_owner *owner);
	struct rcu_work rwork;
};

/**
 * struct granted_page - one granted page as mapped by the kernel, and the user
 *                       mapping nested in it
 * @page: from gnttab_alloc_pages()
 * @owner: owner of the page, whose reference is dropped when it is unmapped
 * @waiting: entry in a list of referenced pages, while the page waits
 * @user_pte: machine address of the user's PTE; 0 if there is none and the page
 *            is retired
 * @user_handle: handle of the user mapping, while there is one
 * @gfn: the frame that was mapped, once the page is gone
 * @handle: handle of the kernel mapping; in an auto-translated domain the only
 *          one
 * @state: enum granted_page_state
 * @checks: number of unsuccessful checks while the page waits
 * @frozen: the reference count is frozen, once the page is gone
 *
 * While there is a user mapping, the lock of the user's page table protects all
 * members; a waiting page belongs to the worker.
 */
struct granted_page {
	struct page *page;
	struct granted_page_owner *owner;
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
	u8 checks;
	bool frozen;
};

/**
 * struct granted_buffer - granted pages that only the kernel maps, all of which
 *                         have the same user, who releases them together
 * @entry: entry in a list: the creator's, then that of released buffers, then
 *         one of buffers with referenced pages
 * @user: the user whose locked_vm counts the pages, or NULL
 * @count: number of pages
 * @checks: number of unsuccessful checks while the buffer waits
 * @handles: handles of the mappings, behind @pages
 * @pages: from gnttab_alloc_pages()
 */
struct granted_buffer {
	struct list_head entry;
	struct user_struct *user;
	unsigned int count;
	unsigned int checks;
	grant_handle_t *handles;
	struct page *pages[];
};

/**
 * struct granted_buffer_batch - buffers that a task releases and unmaps together
 * @entry: entry in the list of batches
 * @task: the task
 * @buffers: the buffers that it has released
 */
struct granted_buffer_batch {
	struct list_head entry;
	struct task_struct *task;
	struct list_head buffers;
};

extern struct dentry *gnttab_debugfs;

void granted_pages_unmap_user(struct granted_page *gpages, unsigned int count,
			      struct mm_struct *mm, unsigned long addr, long byte);
void granted_pages_unmap(struct granted_page *gpages, unsigned int count);
void granted_pages_release(struct granted_page *gpages, unsigned int count);
void granted_page_clear_byte(struct granted_page *gpage, unsigned int offset);
void granted_page_init_owner(struct granted_page_owner *owner,
			     struct module *module,
			     void (*idle)(struct granted_page_owner *owner),
			     void (*free)(struct granted_page_owner *owner));
void granted_page_put_owner(struct granted_page_owner *owner, unsigned int count);

struct granted_buffer *granted_buffer_alloc(unsigned int count);
void granted_buffer_free(struct granted_buffer *buffer);
void granted_buffer_release(void *buffer);
void granted_buffers_begin(struct granted_buffer_batch *batch);
unsigned int granted_buffers_end(struct granted_buffer_batch *batch);

#endif /* _XEN_GRANT_UNMAP_H */
