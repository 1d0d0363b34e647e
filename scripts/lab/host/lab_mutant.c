// SPDX-License-Identifier: GPL-2.0-only
/* Which mutation of scripts/check-mutations is on: lab_mutant.nr, 0 for none. */
#include <linux/export.h>
#include <linux/moduleparam.h>

extern unsigned int lab_mutant_nr;
unsigned int lab_mutant_nr;
EXPORT_SYMBOL_GPL(lab_mutant_nr);
module_param_named(nr, lab_mutant_nr, uint, 0600);
