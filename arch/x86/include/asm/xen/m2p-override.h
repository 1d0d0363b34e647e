/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _ASM_X86_XEN_M2P_OVERRIDE_H
#define _ASM_X86_XEN_M2P_OVERRIDE_H

#include <linux/compiler_types.h>
#include <linux/errno.h>
#include <linux/jump_label.h>
#include <linux/types.h>

#include <asm/page_types.h>
#include <asm/rwonce.h>

#ifdef CONFIG_XEN_PV
#define M2P_OVERRIDE_LEAF_ENTRIES	(PAGE_SIZE / sizeof(u32))

DECLARE_STATIC_KEY_FALSE(m2p_override_used);
extern u32 **m2p_overrides;
extern unsigned long m2p_override_nr;

void m2p_override_prepare(void);
int m2p_add_override(unsigned long mfn, unsigned long pfn);
void m2p_remove_override(unsigned long mfn, unsigned long pfn);

/**
 * m2p_find_override_pfn - find the local page that maps a foreign frame
 * @mfn: machine frame number which the ordinary M2P does not resolve
 *
 * Costs a patched-out jump until overrides are used for the first time.
 * Inline, since GUP-fast calls it for each page.
 *
 * Context: Any, including NMI.
 * Return: the pfn, or ~0UL if @mfn has no override.
 */
static __always_inline unsigned long m2p_find_override_pfn(unsigned long mfn)
{
	const u32 *leaf;

	if (!static_branch_unlikely(&m2p_override_used) || mfn >= m2p_override_nr)
		return ~0UL;

	leaf = READ_ONCE(m2p_overrides[mfn / M2P_OVERRIDE_LEAF_ENTRIES]);

	/* 0 means no entry, for which 0 - 1UL is returned. */
	return leaf ? READ_ONCE(leaf[mfn % M2P_OVERRIDE_LEAF_ENTRIES]) - 1UL : ~0UL;
}
#else
static inline void m2p_override_prepare(void)
{
}

static inline int m2p_add_override(unsigned long mfn, unsigned long pfn)
{
	return -EOPNOTSUPP;
}

static inline void m2p_remove_override(unsigned long mfn, unsigned long pfn)
{
}

static inline unsigned long m2p_find_override_pfn(unsigned long mfn)
{
	return ~0UL;
}
#endif /* CONFIG_XEN_PV */

#endif /* _ASM_X86_XEN_M2P_OVERRIDE_H */
