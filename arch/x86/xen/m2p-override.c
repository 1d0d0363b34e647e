// SPDX-License-Identifier: GPL-2.0-only
/*
 * M2P override: find the local page that maps a frame of another domain.
 *
 * Xen's machine-to-physical table has the pfn of a frame in the domain that
 * owns it.  For a frame that another domain granted to us it has that domain's
 * pfn, or none, so mfn_to_pfn() cannot find the struct page through which we
 * mapped it: the MFN in a user PTE cannot be translated, the PTE must be
 * special, and get_user_pages_fast() falls back to its slow path.
 *
 * This table has the missing translations, MFN -> pfn.  It is used only if the
 * ordinary M2P has none (see mfn_to_pfn()), so it never hides a frame of our
 * own.  A frame has at most one entry: the first page that maps it.  For the
 * second mapping of a frame, and for a grant of our own, m2p_add_override()
 * fails, and the user PTEs have to be special.
 *
 * An entry is added before the first ordinary user PTE with this MFN, and
 * removed an RCU grace period after the last one was cleared:
 *
 *   kernel-side map, p2m[pfn] = FOREIGN(mfn), add, user map
 *   user unmap, kernel-side unmap, p2m[pfn] = INVALID, grace period, remove
 *
 * The grace period is for walkers that read a PTE without a lock, like
 * GUP-fast, and look up the frame after the PTE may have been cleared.  All of
 * them are RCU readers, with interrupts disabled or through pte_offset_map().
 * They still find a page, but cannot take a reference to it, because its count
 * stays frozen until the entry has been removed (see
 * drivers/xen/grant-unmap.c).
 *
 * If the frame is mapped again within the grace period, by another page, that
 * page takes over the entry:
 *
 *   walker                   unmap, map again
 *   ------                   ----------------
 *   reads PTE with mfn
 *                            old page frozen, PTE cleared, p2m[old] = INVALID
 *                            p2m[new] = FOREIGN(mfn), entry = new, PTE with mfn
 *   looks up mfn
 *
 * Before the takeover the walker finds the old page, which is frozen.
 * Afterwards it finds the new page, which is the right one if the PTE has not
 * changed.  So it is enough to read the PTE again after taking the reference,
 * as every lockless walker does.
 *
 * The table has two levels and one pfn per frame.  The upper level is allocated
 * when the first grant is mapped, each leaf when it is first used.  The table
 * is read without locks, in any context: an entry is a word, and no part of the
 * table is ever freed.  It uses at most a thousandth of the machine's memory.
 * (A lookup in an XArray takes ten times the instructions.)  If there is no
 * memory for an entry, the addition fails and the PTE is special.
 */

#include <kunit/visibility.h>
#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/moduleparam.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>

#include <xen/grant_unmap.h>
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

/* Leaves hold pfn + 1, or 0 for no entry; pages beyond 16 TiB have no entry. */
u32 **m2p_overrides __read_mostly;
EXPORT_SYMBOL_GPL(m2p_overrides);

unsigned long m2p_override_nr __ro_after_init;
EXPORT_SYMBOL_GPL(m2p_override_nr);

static atomic_t m2p_override_entries = ATOMIC_INIT(0);

/*
 * Serializes takeovers with removals.  Without it, between the check of the old
 * page's p2m entry and the takeover, the entry can be removed, and the old page
 * released and used to map the same frame again, with an entry of its own.
 */
static DEFINE_SPINLOCK(m2p_override_lock);

/**
 * m2p_override_prepare - prepare for overrides
 *
 * Allocates the upper level of the table and permanently enables the lookup in
 * mfn_to_pfn().  Until then, or if there is no memory, every m2p_add_override()
 * fails.  This is a separate function because it patches code, which must not
 * be done with mmap_lock held, as it is when overrides are added.
 *
 * Context: May sleep.  Takes cpus_read_lock.
 */
void m2p_override_prepare(void)
{
	u32 **new;

	if (!m2p_override_nr)
		return;

	if (!READ_ONCE(m2p_overrides)) {
		new = __vmalloc(array_size((m2p_override_nr - 1) / M2P_OVERRIDE_LEAF_ENTRIES + 1,
					   sizeof(*new)),
				GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);
		if (!new)
			return;
		if (cmpxchg(&m2p_overrides, NULL, new))
			vfree(new);
	}

	/* Call even if enabled: a concurrent caller may still be patching. */
	static_branch_enable(&m2p_override_used);
}
EXPORT_SYMBOL_GPL(m2p_override_prepare);

/* Out of line, so that other additions need not save registers for it. */
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

/* Return the entry of a frame; NULL if it has no leaf or @mfn is too large. */
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
 * A user PTE for @pfn must be special unless this returns 0.  An entry of
 * another page is taken over if that page does not map the frame any more.
 *
 * Context: May sleep to allocate memory.
 * Return: 0 if mfn_to_pfn(@mfn) returns @pfn from now on, else
 * * -EOPNOTSUPP: overrides are disabled or were not prepared,
 * * -EEXIST: the frame is our own, and the ordinary M2P has it,
 * * -EBUSY: another page maps the frame and has the entry,
 * * -ENOMEM: no memory for the entry, or @mfn or @pfn is out of range.
 */
int m2p_add_override(unsigned long mfn, unsigned long pfn)
{
	u32 *entry, old;
	bool taken_over = false;

	if (!static_branch_unlikely(&m2p_override_used))
		return -EOPNOTSUPP;

	if (__pfn_to_mfn(mfn_to_pfn_no_overrides(mfn)) == mfn)
		return -EEXIST;

	entry = m2p_override_entry(mfn, true);
	if (!entry || pfn >= U32_MAX)
		return -ENOMEM;

	old = cmpxchg(entry, 0, pfn + 1);
	if (!old) {
		atomic_inc(&m2p_override_entries);
		return 0;
	}

	/*
	 * Check whether the other page is unmapped but in its grace period.
	 * Not with __pfn_to_mfn(), which does a slow lookup of invalid entries.
	 */
	spin_lock(&m2p_override_lock);
	if (READ_ONCE(*entry) == old &&
	    (old - 1 >= xen_p2m_size || xen_p2m_addr[old - 1] != FOREIGN_FRAME(mfn))) {
		WRITE_ONCE(*entry, pfn + 1);
		taken_over = true;
	}
	spin_unlock(&m2p_override_lock);

	return taken_over ? 0 : -EBUSY;
}
EXPORT_SYMBOL_IF_KUNIT(m2p_add_override);

/**
 * m2p_remove_override - remove the override of a foreign frame
 * @mfn: machine frame number
 * @pfn: the local page that maps it
 *
 * Does nothing if @mfn has no entry or one for another page, so it may be
 * called for every page whose kernel mapping has been removed.
 *
 * Context: Not in interrupts.  An RCU grace period must have passed since the
 * last user PTE was cleared.
 */
void m2p_remove_override(unsigned long mfn, unsigned long pfn)
{
	u32 *entry;

	/* There is no table if its allocation failed. */
	if (!static_branch_unlikely(&m2p_override_used))
		return;

	entry = m2p_override_entry(mfn, false);
	if (!entry || READ_ONCE(*entry) != pfn + 1)
		return;

	spin_lock(&m2p_override_lock);
	if (READ_ONCE(*entry) == pfn + 1) {
		WRITE_ONCE(*entry, 0);
		atomic_dec(&m2p_override_entries);
	}
	spin_unlock(&m2p_override_lock);
}
EXPORT_SYMBOL_IF_KUNIT(m2p_remove_override);

static int __init m2p_override_init(void)
{
	long max_mfn;

	if (!xen_pv_domain())
		return 0;

	debugfs_create_atomic_t("overrides", 0400, gnttab_debugfs,
				&m2p_override_entries);
	/*
	 * A ballooned page can be returned to the page allocator, which resets
	 * its count, while a lockless walker that read its PTE long ago has
	 * just taken a reference.
	 */
	if (!IS_ENABLED(CONFIG_XEN_UNPOPULATED_ALLOC))
		enable = false;
	if (!enable)
		return 0;

	max_mfn = HYPERVISOR_memory_op(XENMEM_maximum_ram_page, NULL);
	if (max_mfn <= 0)
		return -ENODEV;

	m2p_override_nr = max_mfn + 1;

	return 0;
}
fs_initcall(m2p_override_init);	/* after grant_unmap_init() */
