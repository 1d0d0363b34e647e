/* SPDX-License-Identifier: GPL-2.0-only */
/* At the top of each file that scripts/lab/host/mutate.py has written. */
#ifndef _LINUX_LAB_MUTANT_H
#define _LINUX_LAB_MUTANT_H
#include <linux/compiler.h>
#include <linux/types.h>

/* A return that is left out. */
#pragma GCC diagnostic ignored "-Wreturn-type"

extern unsigned int lab_mutant_nr;

static __always_inline bool lab_mutant(unsigned int nr)
{
	return unlikely(READ_ONCE(lab_mutant_nr) == nr);
}
#endif
