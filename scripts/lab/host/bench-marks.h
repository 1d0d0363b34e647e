/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_BENCH_MARKS_H
#define LAB_BENCH_MARKS_H

/*
 * The marks that count-insns.c looks for: "nopl DISPLACEMENT(%rax)", which does
 * nothing on any machine, with a displacement that no compiler makes.  The last
 * byte tells which mark it is.
 */
#define MARK "\x0f\x1f\x80Xen"

#define MARK_ASM ".byte 0x0f, 0x1f, 0x80; .ascii \"Xen"

/* What runs between begin and end is added up until done. */
static inline void mark_begin(void)
{
	__asm__ volatile(MARK_ASM "b\"" ::: "memory");
}

static inline void mark_end(void)
{
	__asm__ volatile(MARK_ASM "e\"" ::: "memory");
}

static inline void mark_done(void)
{
	__asm__ volatile(MARK_ASM "d\"" ::: "memory");
}

#endif
