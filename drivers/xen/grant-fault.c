// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fault injection for grant table operations.
 *
 * Some failures are hard to provoke: a frame that is paged out, a page that Xen
 * does not unmap, a hypercall that fails as a whole.  This makes one op of a
 * batch, or the whole batch, fail.  The op that fails is not passed to Xen, the
 * other ops of its batch are.
 *
 * The directory fail_grant_op/ in debugfs has the usual files (see
 * Documentation/fault-injection/fault-injection.rst) and three more:
 *
 *   cmds    mask of the commands that can fail: 1 << GNTTABOP_map_grant_ref (1),
 *           1 << GNTTABOP_unmap_grant_ref (2)
 *   op      index of the op in its batch; if the batch is smaller, its last op
 *   status  status of the op, without the minus sign of the GNTST_* values;
 *           0 makes the whole hypercall fail with -EFAULT
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
 * @ops: array of the struct that @cmd takes
 * @count: number of ops
 *
 * Context: Any.
 * Return: 0 if Xen has processed the ops, each of which then has a status; else
 * a negative errno.
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
