/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_BENCH_MARKS_H
#define LAB_BENCH_MARKS_H

/*
 * The marks that plugin.c looks for: "nopl DISPLACEMENT(%rax)", which does
 * nothing on any machine, with a displacement that no compiler makes.  The last
 * byte tells which mark it is.  What runs between "b" and "e" is added up; "d"
 * writes the sums and starts anew.
 */
#define MARK "\x0f\x1f\x80Xen"

static inline __attribute__((always_inline)) void mark(char which)
{
	__asm__ volatile(".byte 0x0f, 0x1f, 0x80; .ascii \"Xen\"; .byte %c0"
			 : : "i"(which) : "memory");
}

#endif
