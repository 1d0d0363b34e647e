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
 * The entries are in a table of two levels, a pfn for each frame, of which only
 * the parts exist that were ever used.  It is read and written without locks, in
 * any context: an entry is a word that changes by cmpxchg, and no part of the
 * table is ever freed.  It grows to a thousandth of the machine's memory at most.
 * (An XArray takes ten times the instructions for a lookup, two of which are
 * needed for each pin of a page.)  There is no guarantee of memory: an addition
 * can fail, and then the PTE is special.
 */

#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/moduleparam.h>
#include <linux/vmalloc.h>

#include <xen/interface/xen.h>
#include <xen/interface/memory.h>
#include <xen/xen.h>

#include <asm/xen/hypercall.h>
#include <asm/xen/m2p-override.h>
#include <asm/xen/page.h>

static bool enable __ro_after_init = true;
module_param(enable, bool, 0444);
MODULE_PARM_DESC(enable, "Let user mappings of granted pages take the fast path (always off without XEN_UNPOPULATED_ALLOC)");

DEFINE_STATIC_KEY_FALSE(m2p_override_used);
EXPORT_SYMBOL_GPL(m2p_override_used);

/* Leaves of pfn + 1, or 0 for none; pages beyond 16 TiB cannot have an entry. */
u32 **m2p_overrides __ro_after_init;
EXPORT_SYMBOL_GPL(m2p_overrides);

unsigned long m2p_override_nr __ro_after_init;
EXPORT_SYMBOL_GPL(m2p_override_nr);

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
	/* Even if it is on: who else does that may be only half-way. */
	if (m2p_overrides)
		static_branch_enable(&m2p_override_used);
}
EXPORT_SYMBOL_GPL(m2p_override_prepare);

/* Out of line: it is rare, and every addition would save registers for it. */
static noinline u32 *m2p_override_new_leaf(unsigned long i)
{
	u32 *new, *leaf;

	new = (u32 *)get_zeroed_page(GFP_KERNEL);
	if (!new)
		return NULL;

	leaf = cmpxchg(&m2p_overrides[i], NULL, new);
	if (leaf)
		free_page((unsigned long)new);

	return leaf ?: new;
}

/* The entry of a frame, or NULL if there is none or, without memory, none can be. */
static __always_inline u32 *m2p_override_entry(unsigned long mfn, bool create)
{
	unsigned long i = mfn / M2P_OVERRIDE_LEAF_ENTRIES;
	u32 *leaf;

	if (mfn >= m2p_override_nr)
		return NULL;

	leaf = READ_ONCE(m2p_overrides[i]);
	if (!leaf && create)
		leaf = m2p_override_new_leaf(i);

	return leaf ? &leaf[mfn % M2P_OVERRIDE_LEAF_ENTRIES] : NULL;
}

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
 * * -ENOMEM: no memory for the entry, or no place for @mfn or @pfn.
 */
int m2p_add_override(unsigned long mfn, unsigned long pfn)
{
	u32 *entry;

	if (!static_branch_unlikely(&m2p_override_used))
		return -EOPNOTSUPP;

	if (__pfn_to_mfn(mfn_to_pfn_no_overrides(mfn)) == mfn)
		return -EEXIST;

	entry = m2p_override_entry(mfn, true);
	if (!entry || pfn >= U32_MAX)
		return -ENOMEM;

	if (cmpxchg(entry, 0, pfn + 1))
		return -EBUSY;

	atomic_long_inc(&m2p_override_entries);

	return 0;
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
 * Context: Any.
 */
void m2p_remove_override(unsigned long mfn, unsigned long pfn)
{
	u32 *entry = m2p_override_entry(mfn, false);

	if (!entry || READ_ONCE(*entry) != pfn + 1)
		return;

	if (cmpxchg(entry, pfn + 1, 0) == pfn + 1)
		atomic_long_dec(&m2p_override_entries);
}
EXPORT_SYMBOL_GPL(m2p_remove_override);

static int m2p_override_entries_get(void *data, u64 *val)
{
	*val = atomic_long_read(&m2p_override_entries);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(m2p_override_entries_fops, m2p_override_entries_get,
			 NULL, "%llu\n");

static int __init m2p_override_init(void)
{
	long max_mfn;

	if (!xen_pv_domain())
		return 0;

	debugfs_create_file("entries", 0400,
			    debugfs_create_dir("xen-m2p-override", NULL),
			    NULL, &m2p_override_entries_fops);
	/*
	 * A page from the balloon can go back to the allocator, with a count made
	 * anew, while a lockless walker that saw its PTE long ago has just taken a
	 * reference.
	 */
	if (!IS_ENABLED(CONFIG_XEN_UNPOPULATED_ALLOC))
		enable = false;
	if (!enable)
		return 0;

	max_mfn = HYPERVISOR_memory_op(XENMEM_maximum_ram_page, NULL);
	if (max_mfn <= 0)
		return -ENODEV;

	m2p_overrides = vzalloc(array_size(max_mfn / M2P_OVERRIDE_LEAF_ENTRIES + 1,
					   sizeof(*m2p_overrides)));
	if (!m2p_overrides)
		return -ENOMEM;
	m2p_override_nr = max_mfn + 1;

	return 0;
}
subsys_initcall(m2p_override_init);
