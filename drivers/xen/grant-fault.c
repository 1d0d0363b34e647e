// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets batches of grant table operations fail, for tests.
 *
 * Some of what Xen can answer is hard to bring about: that a frame is paged
 * out, that it does not unmap a page, that the hypercall itself fails.  Here a
 * batch can be made to have such an answer.  Xen never sees the op which fails;
 * the others of its batch it does.
 *
 * debugfs has, in fail_grant_op/, the knobs of every kind of fault (see
 * Documentation/fault-injection/fault-injection.rst) and three more:
 *
 *   cmds    mask of what can fail: 1 << GNTTABOP_map_grant_ref (1),
 *           1 << GNTTABOP_unmap_grant_ref (2)
 *   op      number of the op in its batch; of a smaller batch the last one
 *   status  what Xen is said to answer, without the minus sign of the
 *           GNTST_* values; 0 lets the whole hypercall fail with -EFAULT
 */

#include <linux/bits.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/export.h>
#include <linux/fault-inject.h>
#include <linux/init.h>
#include <linux/minmax.h>

#include <xen/grant_table.h>

#include <asm/xen/hypercall.h>

static DECLARE_FAULT_ATTR(fail_grant_op);
static u32 fail_cmds;
static u32 fail_op;
static u32 fail_status;

static void set_status(unsigned int cmd, void *ops, unsigned int i, s16 status)
{
	struct gnttab_unmap_grant_ref *unmap_ops = ops;
	struct gnttab_map_grant_ref *map_ops = ops;

	if (cmd == GNTTABOP_map_grant_ref)
		map_ops[i].status = status;
	else
		unmap_ops[i].status = status;
}

/**
 * gnttab_batch_op - map or unmap a batch of grants
 * @cmd: GNTTABOP_map_grant_ref or GNTTABOP_unmap_grant_ref
 * @ops: of the struct that belongs to @cmd
 * @count: number of ops
 *
 * Context: that of a hypercall, which is any.
 * Return: 0 if Xen has looked at the ops, each of which has a status then; a
 * negative errno else.
 */
int gnttab_batch_op(unsigned int cmd, void *ops, unsigned int count)
{
	size_t size = cmd == GNTTABOP_map_grant_ref ?
		      sizeof(struct gnttab_map_grant_ref) :
		      sizeof(struct gnttab_unmap_grant_ref);
	u32 status = READ_ONCE(fail_status);
	unsigned int i, rest;
	int ret = 0;

	if (!count || !(READ_ONCE(fail_cmds) & BIT(cmd)) ||
	    !should_fail(&fail_grant_op, 1))
		return HYPERVISOR_grant_table_op(cmd, ops, count);

	if (!status)
		return -EFAULT;

	i = min(READ_ONCE(fail_op), count - 1);
	rest = count - 1 - i;
	if (i)
		ret = HYPERVISOR_grant_table_op(cmd, ops, i);
	if (!ret && rest)
		ret = HYPERVISOR_grant_table_op(cmd, ops + (i + 1) * size, rest);
	set_status(cmd, ops, i, -status);

	return ret;
}
EXPORT_SYMBOL_GPL(gnttab_batch_op);

static int __init gnttab_fault_init(void)
{
	struct dentry *dir;

	dir = fault_create_debugfs_attr("fail_grant_op", NULL, &fail_grant_op);
	if (IS_ERR(dir))
		return PTR_ERR(dir);

	debugfs_create_u32("cmds", 0600, dir, &fail_cmds);
	debugfs_create_u32("op", 0600, dir, &fail_op);
	debugfs_create_u32("status", 0600, dir, &fail_status);

	return 0;
}
late_initcall(gnttab_fault_init);
