/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_BENCH_MARKS_H
#define LAB_BENCH_MARKS_H

/*
 * The marks that count-insns.c looks for: "nopl DISPLACEMENT(%rax)", which does
 * nothing on any machine, with a displacement that no compiler makes.
 */
#define MARK_BYTES	0x0f, 0x1f, 0x80, 'X', 'e', 'n'
#define MARK_BEGIN_BYTE	'b'
#define MARK_END_BYTE	'e'
#define MARK_DONE_BYTE	'd'

#define MARK_TEXT_(...)	#__VA_ARGS__
#define MARK_TEXT(...)	MARK_TEXT_(__VA_ARGS__)

/* What runs between begin and end is added up until done. */
static inline void mark_begin(void)
{
	__asm__ volatile(".byte " MARK_TEXT(MARK_BYTES, MARK_BEGIN_BYTE) ::: "memory");
}

static inline void mark_end(void)
{
	__asm__ volatile(".byte " MARK_TEXT(MARK_BYTES, MARK_END_BYTE) ::: "memory");
}

static inline void mark_done(void)
{
	__asm__ volatile(".byte " MARK_TEXT(MARK_BYTES, MARK_DONE_BYTE) ::: "memory");
}

#endif /* LAB_BENCH_MARKS_H */
