// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that counts what runs between marks, or makes a race easier
 * to meet.
 *
 *   -plugin plugin.so,out=FILE
 *
 * A program in the guest sets marks with instructions that do nothing anywhere
 * else (see bench-marks.h).  What runs between "begin" and "end" is added up; at
 * "done" the sums are written to out: for each translated block that ran a line
 *
 *   ADDRESS INSTRUCTIONS TIMES
 *
 * with the number of its instructions, and an empty line in the end.  A block that
 * a fault leaves early counts as a whole, and so does the one that holds "end".
 * That is far below what interrupts make of it.  For one vCPU: no counter is
 * locked.
 *
 *   -plugin plugin.so,at=ADDRESS,every=N,us=MICROSECONDS,then=ADDRESS,times=T
 *
 * Whenever a virtual CPU gets to the instruction at the first ADDRESS for the Nth time,
 * it waits that many microseconds while the others go on; and it waits again the next
 * T times that it gets to the second ADDRESS, for a CPU that has to answer interrupts
 * before the others can go on.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench-marks.h"

/*
 * What is used of QEMU's interface for TCG plugins, as QEMU documents it ("QEMU TCG
 * Plugins").  QEMU has a header for it, which is in no package of Debian's.
 *
 * QEMU loads no plugin made for another version of the interface.  Debian 12 has
 * QEMU 7.2 with version 1; Debian 13 has QEMU 10.0, which accepts 2 to 4.  Of what
 * is used here only qemu_plugin_insn_data() differs.  programs.mk defines
 * QEMU_PLUGIN_VERSION.
 */
struct qemu_plugin_tb;
struct qemu_plugin_insn;

struct qemu_info {
	const char *target_name;
	int version_min;
	int version_cur;
	bool system_emulation;
	int smp_vcpus;
	int max_vcpus;
};

typedef void vcpu_cb(unsigned int vcpu, void *data);
#define NO_REGS	0

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
					   void (*cb)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, vcpu_cb *cb, int flags,
					  void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, vcpu_cb *cb,
					    int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb,
						 size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
#if QEMU_PLUGIN_VERSION < 3
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
#else
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *dest, size_t len);
#endif
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);

/* So that QEMU finds it: everything else is hidden. */
#define PLUGIN_EXPORT __attribute__((visibility("default")))

/* ------------------------------------------------------------------ */
/* Counting */

/* They are never freed: QEMU does not tell when a block goes. */
struct block {
	struct block *next;
	unsigned long long addr;
	size_t insns;
	unsigned long long times;
};

static struct block *blocks;
static bool counting;
static FILE *out;

static void begin(unsigned int vcpu, void *data)
{
	counting = true;
}

static void end(unsigned int vcpu, void *data)
{
	counting = false;
}

static void done(unsigned int vcpu, void *data)
{
	for (struct block *b = blocks; b; b = b->next) {
		if (b->times)
			fprintf(out, "%llx %zu %llu\n", b->addr, b->insns, b->times);
		b->times = 0;
	}
	fputc('\n', out);
	fflush(out);
}

static void block_runs(unsigned int vcpu, void *data)
{
	struct block *b = data;

	b->times += counting;
}

static void look_for_mark(struct qemu_plugin_insn *insn)
{
	/* Without the last byte, in whose place this has its 0. */
	static const char expected[] = MARK;
	const size_t len = sizeof(expected);
	vcpu_cb *cb = done;

	if (qemu_plugin_insn_size(insn) != len)
		return;
#if QEMU_PLUGIN_VERSION < 3
	const char *bytes = qemu_plugin_insn_data(insn);
#else
	char bytes[sizeof(expected)];

	qemu_plugin_insn_data(insn, bytes, len);
#endif
	if (memcmp(bytes, expected, len - 1))
		return;
	if (bytes[len - 1] == 'b')
		cb = begin;
	if (bytes[len - 1] == 'e')
		cb = end;
	qemu_plugin_register_vcpu_insn_exec_cb(insn, cb, NO_REGS, NULL);
}

static void count(struct qemu_plugin_tb *tb)
{
	struct block *b = calloc(1, sizeof(*b));

	if (!b)
		abort();
	b->addr = qemu_plugin_tb_vaddr(tb);
	b->insns = qemu_plugin_tb_n_insns(tb);
	b->next = blocks;
	blocks = b;
	/* Only programs have marks. */
	for (size_t i = 0; !(b->addr >> 63) && i < b->insns; i++)
		look_for_mark(qemu_plugin_tb_get_insn(tb, i));
	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, NO_REGS, b);
}

/* ------------------------------------------------------------------ */
/* Waiting */

#define VCPUS_MAX 64

static unsigned long long at, then, every = 1, us, times = 1;
static atomic_ullong visits;
static unsigned long long stops_left[VCPUS_MAX];

static void visit(unsigned int vcpu, void *data)
{
	if (atomic_fetch_add(&visits, 1) % every != every - 1)
		return;
	usleep(us);
	stops_left[vcpu] = times;
}

static void visit_then(unsigned int vcpu, void *data)
{
	if (!stops_left[vcpu])
		return;
	stops_left[vcpu]--;
	usleep(us);
}

static void wait_at(struct qemu_plugin_tb *tb)
{
	for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t addr = qemu_plugin_insn_vaddr(insn);

		if (addr == at)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, visit, NO_REGS, NULL);
		if (addr == then)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, visit_then, NO_REGS, NULL);
	}
}

/* ------------------------------------------------------------------ */

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	if (out)
		count(tb);
	else
		wait_at(tb);
}

static bool argument(const char *text)
{
	if (!strncmp(text, "out=", 4))
		return (out = fopen(text + 4, "w"));
	return sscanf(text, "at=%llx", &at) == 1 || sscanf(text, "then=%llx", &then) == 1 ||
	       sscanf(text, "every=%llu", &every) == 1 || sscanf(text, "us=%llu", &us) == 1 ||
	       sscanf(text, "times=%llu", &times) == 1;
}

PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* QEMU calls this one. */
PLUGIN_EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc,
				      char **argv)
{
	for (int i = 0; i < argc; i++) {
		if (!argument(argv[i])) {
			fprintf(stderr, "plugin: bad argument %s\n", argv[i]);
			return -1;
		}
	}
	if (!info->system_emulation || strcmp(info->target_name, "x86_64") ||
	    info->max_vcpus > (out ? 1 : VCPUS_MAX) || !(out || (at && every))) {
		fprintf(stderr, "plugin: cannot start; see the head of its source\n");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
