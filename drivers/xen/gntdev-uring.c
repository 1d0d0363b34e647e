// SPDX-License-Identifier: GPL-2.0-only
/*
 * Granted pages as registered buffers of an io_uring.
 *
 * IOCTL_GNTDEV_MAP_GRANT_REF and mmap() map a page twice, once for the user and
 * once for the kernel.  A backend that only moves data between another domain
 * and a file needs the kernel's mapping alone.  So here there is no VMA, no PTE,
 * no MMU notifier and no M2P override, and nobody calls get_user_pages():
 *
 *   GNTDEV_URING_REGISTER allocates pages, maps the grants into them and gives
 *   them to the ring, which calls granted_buffer_release() once the buffer is
 *   unregistered, or the ring closed, and the last request with it has ended.
 *
 *   Then the pages are unmapped: by GNTDEV_URING_UNREGISTER if no request used
 *   them, else by a work item; those that still have references, which block
 *   drivers may give to a network, when these are dropped (grant-unmap.c).
 *
 * A ring's buffers can outlive the file, so nothing of them is in struct
 * gntdev_priv, and the callback is not in this module.
 *
 * If a page is also mapped by mmap(), or registered twice, it has another
 * struct page and another mapping for each: no lifetime depends on the other,
 * and finding the first mapping would need a table of all grants.
 *
 * Commands are executed inline, with the lock of the ring held: allocating from
 * the pool of pages and the hypercall are too short to pay for a worker thread.
 * Only if the other domain has paged a frame out does a worker wait for it.
 */

#include <linux/capability.h>
#include <linux/bvec.h>
#include <linux/cred.h>
#include <linux/io_uring/cmd.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include <xen/grant_table.h>
#include <xen/grant_unmap.h>
#include <xen/gntdev.h>
#include <xen/page.h>

#include "gntdev-common.h"

/* As many pages as a command can have without allocating memory for them. */
#define FEW_PAGES	16

/* The buffers of one command, in the order of @descs. */
struct uring_batch {
	struct io_uring_cmd *cmd;
	unsigned int issue_flags;
	struct gntdev_uring_buffer __user *user_descs;
	struct gntdev_uring_buffer *descs;
	unsigned int nr;
	unsigned int nr_pages;
	struct list_head buffers;
};

/* As io_uring does for buffers of user memory. */
static int account_pages(struct granted_buffer *buffer)
{
	struct user_struct *user = current_user();
	unsigned long limit;

	if (capable(CAP_IPC_LOCK))
		return 0;

	limit = rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT;
	if (atomic_long_add_return(buffer->count, &user->locked_vm) > limit) {
		atomic_long_sub(buffer->count, &user->locked_vm);
		return -ENOMEM;
	}
	buffer->user = get_uid(user);

	return 0;
}

/* Free buffers that were not mapped. */
static void free_buffers(struct uring_batch *batch)
{
	struct granted_buffer *buffer, *next;

	list_for_each_entry_safe(buffer, next, &batch->buffers, entry) {
		if (buffer->user)
			atomic_long_sub(buffer->count, &buffer->user->locked_vm);
		granted_buffer_free(buffer);
	}
}

/* Make a buffer.  Its handles are the grant references until it is mapped. */
static int add_buffer(struct uring_batch *batch,
		      const struct gntdev_uring_buffer *desc)
{
	struct granted_buffer *buffer;

	if (desc->domid > U16_MAX || desc->flags & ~GNTDEV_URING_READ_ONLY ||
	    !desc->count || desc->count > GNTDEV_URING_MAX_PAGES - batch->nr_pages)
		return -EINVAL;

	buffer = granted_buffer_alloc(desc->count);
	if (!buffer)
		return -ENOMEM;

	list_add_tail(&buffer->entry, &batch->buffers);
	batch->nr_pages += desc->count;

	if (copy_from_user(buffer->handles, u64_to_user_ptr(desc->refs),
			   desc->count * sizeof(buffer->handles[0])))
		return -EFAULT;

	return account_pages(buffer);
}

/* Tell the user which grants failed. */
static int report_failures(struct uring_batch *batch,
			   const struct gnttab_map_grant_ref *op)
{
	unsigned int i, n;
	int err = -ENXIO;

	/* Execute the command again, in a thread that may wait for the frame. */
	for (i = 0; i < batch->nr_pages; i++)
		if (op[i].status == GNTST_eagain)
			return -EAGAIN;

	for (n = 0; n < batch->nr; n++) {
		struct gntdev_uring_buffer *desc = &batch->descs[n];

		desc->failed = desc->count;
		desc->status = GNTST_okay;
		for (i = desc->count; i-- > 0; )
			if (op[i].status != GNTST_okay) {
				desc->failed = i;
				desc->status = op[i].status;
			}
		op += desc->count;

		if (desc->status == GNTST_no_device_space ||
		    desc->status == GNTST_no_space)
			err = -ENOSPC;
		if (put_user(desc->failed, &batch->user_descs[n].failed) ||
		    put_user(desc->status, &batch->user_descs[n].status))
			err = -EFAULT;
	}

	return err;
}

/*
 * Map all grants with one hypercall.  Afterwards the buffers have the pages that
 * are mapped, all or, after an error, some or none.
 */
static int map_buffers(struct uring_batch *batch, struct gnttab_map_grant_ref *ops,
		       struct page **pages)
{
	struct gntdev_uring_buffer *desc = batch->descs;
	struct gnttab_map_grant_ref *op = ops;
	struct page **page = pages, **failed = pages;
	struct granted_buffer *buffer;
	unsigned int i;
	int err;

	list_for_each_entry(buffer, &batch->buffers, entry) {
		u32 flags = GNTMAP_host_map;

		if (desc->flags & GNTDEV_URING_READ_ONLY)
			flags |= GNTMAP_readonly;
		for (i = 0; i < buffer->count; i++)
			gnttab_set_map_op(op++, (unsigned long)
					  pfn_to_kaddr(page_to_pfn(*page++)),
					  flags, buffer->handles[i], desc->domid);
		desc++;
	}

	if (batch->issue_flags & IO_URING_F_NONBLOCK)
		err = gnttab_map_refs_nowait(ops, pages, batch->nr_pages);
	else
		err = gnttab_map_refs(ops, NULL, pages, batch->nr_pages);
	if (err) {
		/* Xen has not processed any of the ops. */
		for (i = 0; i < batch->nr_pages; i++)
			ops[i].status = GNTST_general_error;
	}

	op = ops;
	page = pages;
	list_for_each_entry(buffer, &batch->buffers, entry) {
		unsigned int count = buffer->count, mapped = 0;

		for (i = 0; i < count; i++, op++, page++) {
			if (op->status == GNTST_okay) {
				buffer->handles[mapped] = op->handle;
				buffer->pages[mapped++] = *page;
			} else {
				*failed++ = *page;
			}
		}
		if (buffer->user)
			atomic_long_sub(count - mapped, &buffer->user->locked_vm);
		buffer->count = mapped;
	}

	if (failed == pages)
		return 0;

	gnttab_free_pages(failed - pages, pages);

	return err ?: report_failures(batch, ops);
}

/* Give the buffers to the ring; those that it takes leave the list. */
static int register_buffers(struct uring_batch *batch, struct bio_vec *bvecs)
{
	struct gntdev_uring_buffer *desc = batch->descs;
	struct granted_buffer *buffer, *next;
	unsigned int i;
	int err;

	list_for_each_entry_safe(buffer, next, &batch->buffers, entry) {
		u8 direction = IO_BUF_SOURCE;

		if (!(desc->flags & GNTDEV_URING_READ_ONLY))
			direction |= IO_BUF_DEST;
		for (i = 0; i < buffer->count; i++)
			bvec_set_page(&bvecs[i], buffer->pages[i], XEN_PAGE_SIZE, 0);

		list_del(&buffer->entry);
		err = io_buffer_register_bvec(batch->cmd, bvecs, buffer->count,
					      granted_buffer_release, buffer,
					      direction, desc->index,
					      batch->issue_flags);
		if (err) {
			list_add(&buffer->entry, &batch->buffers);
			return err;
		}
		desc++;
	}

	return 0;
}

/* Undo map_buffers() and register_buffers(), half-way or not. */
static void undo_buffers(struct uring_batch *batch, unsigned int nr_registered)
{
	struct granted_buffer *buffer, *next;
	struct granted_buffer_batch released;

	granted_buffers_begin(&released);
	while (nr_registered-- > 0)
		io_buffer_unregister(batch->cmd, batch->descs[nr_registered].index,
				     batch->issue_flags);
	list_for_each_entry_safe(buffer, next, &batch->buffers, entry) {
		list_del(&buffer->entry);
		granted_buffer_release(buffer);
	}
	granted_buffers_end(&released);
}

static int map_and_register(struct uring_batch *batch)
{
	struct gnttab_map_grant_ref few_ops[FEW_PAGES], *ops = few_ops;
	struct page *few_pages[FEW_PAGES], **pages = few_pages;
	void *many = NULL;
	int err;

	if (batch->nr_pages > FEW_PAGES) {
		many = kvmalloc_array(batch->nr_pages, sizeof(*ops) + sizeof(*pages),
				      GFP_KERNEL);
		if (!many)
			return -ENOMEM;
		ops = many;
		pages = (struct page **)(ops + batch->nr_pages);
	}

	err = gnttab_alloc_pages(batch->nr_pages, pages);
	if (err)
		goto out;

	err = map_buffers(batch, ops, pages);
	/* The ops are not needed any more, and a bio_vec is smaller. */
	static_assert(sizeof(struct bio_vec) <= sizeof(*ops));
	err = err ?: register_buffers(batch, (struct bio_vec *)ops);
	if (err)
		undo_buffers(batch, batch->nr - list_count_nodes(&batch->buffers));

out:
	kvfree(many);
	return err;
}

static int uring_register(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	struct gntdev_uring_buffer one;
	struct uring_batch batch = {
		.cmd = cmd,
		.issue_flags = issue_flags,
		.user_descs = u64_to_user_ptr(READ_ONCE(cmd->sqe->addr)),
		.descs = &one,
		.nr = READ_ONCE(cmd->sqe->len),
		.buffers = LIST_HEAD_INIT(batch.buffers),
	};
	unsigned int i;
	int err = 0;

	if (!batch.nr || batch.nr > GNTDEV_URING_MAX_BUFFERS)
		return -EINVAL;

	if (batch.nr > 1) {
		batch.descs = memdup_array_user(batch.user_descs, batch.nr, sizeof(one));
		if (IS_ERR(batch.descs))
			return PTR_ERR(batch.descs);
	} else if (copy_from_user(&one, batch.user_descs, sizeof(one))) {
		return -EFAULT;
	}

	for (i = 0; i < batch.nr && !err; i++)
		err = add_buffer(&batch, &batch.descs[i]);

	err = err ?: map_and_register(&batch);
	free_buffers(&batch);

	if (batch.nr > 1)
		kfree(batch.descs);
	return err;
}

static int uring_unregister(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	u32 __user *user_slots = u64_to_user_ptr(READ_ONCE(cmd->sqe->addr));
	unsigned int i, nr = READ_ONCE(cmd->sqe->len);
	struct granted_buffer_batch released;
	u32 slots[GNTDEV_URING_MAX_BUFFERS];
	int err = 0;

	if (!nr || nr > ARRAY_SIZE(slots))
		return -EINVAL;
	if (copy_from_user(slots, user_slots, nr * sizeof(slots[0])))
		return -EFAULT;

	granted_buffers_begin(&released);
	for (i = 0; i < nr && !err; i++)
		err = io_buffer_unregister(cmd, slots[i], issue_flags);
	nr -= granted_buffers_end(&released);

	return err ?: nr;
}

int gntdev_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	if (READ_ONCE(cmd->sqe->ioprio) || READ_ONCE(cmd->sqe->uring_cmd_flags) ||
	    READ_ONCE(cmd->sqe->addr3) || READ_ONCE(cmd->sqe->__pad2[0]))
		return -EINVAL;

	switch (cmd->cmd_op) {
	case GNTDEV_URING_REGISTER:
		return uring_register(cmd, issue_flags);
	case GNTDEV_URING_UNREGISTER:
		return uring_unregister(cmd, issue_flags);
	default:
		return -EOPNOTSUPP;
	}
}
