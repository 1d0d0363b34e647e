// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that counts what runs between marks.
 *
 *   -plugin count-insns.so,out=FILE
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
 */
#include "bench-marks.h"
#include "qemu-plugin.h"

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
	qemu_plugin_register_vcpu_insn_exec_cb(insn, cb, QEMU_PLUGIN_CB_NO_REGS, NULL);
}

static void plugin_translated(uint64_t id, struct qemu_plugin_tb *tb)
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
	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, QEMU_PLUGIN_CB_NO_REGS, b);
}

static bool plugin_argument(const char *text)
{
	return !strncmp(text, "out=", 4) && (out = fopen(text + 4, "w"));
}

static bool plugin_ready(const struct qemu_info *info)
{
	return out && info->system_emulation && !strcmp(info->target_name, "x86_64") &&
	       info->max_vcpus == 1;
}
