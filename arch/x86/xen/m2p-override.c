// SPDX-License-Identifier: GPL-2.0-only
/*
 * M2P override: which local page maps a frame of another domain?
 *
 * Xen's machine-to-physical table belongs to the owner of a frame.  For a
 * frame that another domain granted to us it answers with that domain's pfn,
 * or with nothing, so mfn_to_pfn() cannot find the struct page through which
 * we mapped it: the MFN in a user PTE leads nowhere, the PTE must be special,
 * and get_user_pages_fast() turns back at it.
 *
 * This table has the missing answers, MFN -> pfn.  It is asked only when the
 * ordinary M2P has none (see mfn_to_pfn()), so it never hides a frame of our
 * own, and a frame has at most one entry: the first page that maps it.  Who
 * comes second, with the same frame mapped twice or with a grant of our own,
 * is told so by m2p_add_override() and has to keep its user PTEs special.
 *
 * The life of an entry is nested in that of the kernel-side mapping, and
 * encloses that of every user PTE with this MFN:
 *
 *   kernel-side map, p2m[pfn] = FOREIGN(mfn), add, user map
 *   user unmap, kernel-side unmap, remove, p2m[pfn] = INVALID
 *
 * Nobody can use the entry between the unmapping and its removal: there is no
 * PTE left to start from, and whoever read the PTE earlier, as GUP-fast does
 * without a lock, fails to take a reference, since the page's count stays frozen
 * until the entry is gone.  Such a walker may find that the frame in its copy
 * of the PTE leads to no page any more, or to another one; so it looks before
 * and after it takes the reference (see gup_fast_pte_range()).
 *
 * An XArray holds the entries: lookups are lockless, as they come from page
 * table walks in any context; additions and removals take its lock; values
 * are stored in place, so no object has a lifetime of its own.  There is no
 * guarantee of memory: an addition can fail, and then the PTE is special.
 */

#define pr_fmt(fmt) "xen: " KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

#include <xen/xen.h>

#include <asm/xen/m2p-override.h>
#include <asm/xen/page.h>

static bool enable __ro_after_init = true;
module_param(enable, bool, 0444);
MODULE_PARM_DESC(enable, "Let user mappings of granted pages take the fast path (default: on)");

DEFINE_STATIC_KEY_FALSE(m2p_override_used);
EXPORT_SYMBOL_GPL(m2p_override_used);

static DEFINE_XARRAY(m2p_overrides);
static atomic_long_t m2p_override_entries = ATOMIC_LONG_INIT(0);

/**
 * m2p_override_prepare - get ready for overrides
 *
 * Switches the lookup in mfn_to_pfn() on, for good.  Until then every
 * m2p_add_override() fails.  This is a call of its own because it patches
 * code, which must not be done below mmap_lock, where overrides are added.
 *
 * Context: May sleep.  Takes cpus_read_lock.
 */
void m2p_override_prepare(void)
{
	if (enable && xen_pv_domain() && !static_key_enabled(&m2p_override_used))
		static_branch_enable(&m2p_override_used);
}
EXPORT_SYMBOL_GPL(m2p_override_prepare);

/**
 * m2p_add_override - let mfn_to_pfn() find the page that maps a foreign frame
 * @mfn: machine frame number
 * @pfn: the local page; its p2m entry must be FOREIGN_FRAME(@mfn) already
 *
 * A user PTE for @pfn may be an ordinary one only after a return of 0.
 *
 * Context: May sleep, for memory.
 * Return: 0 if mfn_to_pfn(@mfn) gives @pfn from now on, else
 * * -EOPNOTSUPP: overrides are turned off or were not prepared,
 * * -EEXIST: the frame is one of our own, the ordinary M2P has it,
 * * -EBUSY: another page maps the frame and has the entry,
 * * -ENOMEM: no memory for the entry.
 */
int m2p_add_override(unsigned long mfn, unsigned long pfn)
{
	int ret;

	if (!static_branch_unlikely(&m2p_override_used))
		return -EOPNOTSUPP;

	/* The identity rule at the end of mfn_to_pfn() loses to an override. */
	if (__pfn_to_mfn(mfn_to_pfn_no_overrides(mfn)) == mfn)
		return -EEXIST;

	ret = xa_insert(&m2p_overrides, mfn, xa_mk_value(pfn), GFP_KERNEL);
	if (!ret)
		atomic_long_inc(&m2p_override_entries);

	return ret;
}
EXPORT_SYMBOL_GPL(m2p_add_override);

/**
 * m2p_remove_override - forget the page that maps a foreign frame
 * @mfn: machine frame number
 * @pfn: the local page which maps it
 *
 * Does nothing if @mfn has no entry or one for another page, so it may be
 * called for every page whose kernel-side mapping goes.
 *
 * Context: Process context, atomic or not; any if @pfn has no override.
 */
void m2p_remove_override(unsigned long mfn, unsigned long pfn)
{
	/*
	 * Backends have no overrides, and some unmap in interrupts, where the
	 * XArray's lock must not be taken.
	 */
	if (m2p_find_override_pfn(mfn) != pfn)
		return;

	if (xa_cmpxchg(&m2p_overrides, mfn, xa_mk_value(pfn), NULL, 0) ==
	    xa_mk_value(pfn))
		atomic_long_dec(&m2p_override_entries);
}
EXPORT_SYMBOL_GPL(m2p_remove_override);

unsigned long __m2p_find_override_pfn(unsigned long mfn)
{
	void *entry;

	/*
	 * A CPU that is idle or on its way up or down reads page tables, too,
	 * but RCU would not keep the nodes of the XArray for it.  It has no
	 * business with user PTEs of grants, so nothing is lost.
	 */
	if (unlikely(!rcu_is_watching()))
		return ~0UL;

	entry = xa_load(&m2p_overrides, mfn);

	return entry ? xa_to_value(entry) : ~0UL;
}
EXPORT_SYMBOL_GPL(__m2p_find_override_pfn);

static int m2p_override_entries_get(void *data, u64 *val)
{
	*val = atomic_long_read(&m2p_override_entries);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(m2p_override_entries_fops, m2p_override_entries_get,
			 NULL, "%llu\n");

static int __init m2p_override_debugfs_init(void)
{
	if (xen_pv_domain())
		debugfs_create_file("entries", 0400,
				    debugfs_create_dir("xen-m2p-override", NULL),
				    NULL, &m2p_override_entries_fops);
	return 0;
}
late_initcall(m2p_override_debugfs_init);
