/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _ASM_X86_XEN_M2P_OVERRIDE_H
#define _ASM_X86_XEN_M2P_OVERRIDE_H

#include <linux/compiler_types.h>
#include <linux/errno.h>
#include <linux/jump_label.h>

#ifdef CONFIG_XEN_PV
DECLARE_STATIC_KEY_FALSE(m2p_override_used);

void m2p_override_prepare(void);
int m2p_add_override(unsigned long mfn, unsigned long pfn);
void m2p_remove_override(unsigned long mfn, unsigned long pfn);
unsigned long __m2p_find_override_pfn(unsigned long mfn);

/**
 * m2p_find_override_pfn - find the local page a foreign frame is mapped by
 * @mfn: machine frame number which the ordinary M2P does not resolve
 *
 * Costs a patched-out jump until the first user of overrides shows up.
 *
 * Context: Any, including NMI.
 * Return: the pfn, or ~0UL if @mfn has no override.
 */
static __always_inline unsigned long m2p_find_override_pfn(unsigned long mfn)
{
	if (static_branch_unlikely(&m2p_override_used))
		return __m2p_find_override_pfn(mfn);

	return ~0UL;
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
