// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that counts what runs between marks.
 *
 *   -plugin count-insns.so,out=FILE,symbols=FILE
 *
 * A program in the guest sets marks with instructions that do nothing anywhere
 * else (see bench-marks.h).  What runs between "begin" and "end" is added up; at
 * "done" the sums are written to out: a line
 *
 *   USER KERNEL XEN
 *
 * with the instructions executed in user space, in the kernel, and in Xen, by their
 * addresses; and for each function that ran a line "+ INSTRUCTIONS CALLS NAME".
 *
 * symbols has a line "ADDRESS TYPE NAME" for each function, in the order of the
 * addresses and none of them twice.  A function ends where the next one begins.
 *
 * It counts translated blocks, each by its number of instructions.  One that a
 * fault leaves early counts as a whole, and so does the one that holds "end".
 * That is far below what interrupts make of it.  For one vCPU: no counter is
 * locked.
 */
#include "bench-marks.h"
#include "qemu-plugin.h"

/* By address: Xen has a slot of 16 TiB for itself, see Xen's config.h. */
#define XEN_BEGIN	0xffff800000000000ULL
#define XEN_END		0xffff880000000000ULL

enum { USER, KERNEL, XEN, MODES };

struct function {
	uint64_t addr;
	const char *name;
	unsigned long long insns;
	unsigned long long calls;
};

/* A block of translated code, for when it runs. */
struct block {
	size_t insns;
	int mode;
	bool is_entry;
	struct function *function;
};

static struct function *functions;
static size_t nr_functions;

static unsigned long long insns[MODES];
static bool counting;
static FILE *out;

static FILE *open_file(const char *path, const char *mode)
{
	FILE *f = fopen(path, mode);

	if (!f)
		perror(path);
	return f;
}

static bool read_symbols(const char *path)
{
	char type, name[400];
	FILE *f = open_file(path, "r");
	unsigned long long addr;

	if (!f)
		return false;
	while (fscanf(f, "%llx %c %399s", &addr, &type, name) == 3) {
		functions = realloc(functions, (nr_functions + 1) * sizeof(*functions));
		if (!functions)
			abort();
		functions[nr_functions++] = (struct function){
			.addr = addr, .name = strdup(name),
		};
	}
	fclose(f);
	return true;
}

static struct function *function_at(uint64_t addr)
{
	size_t low = 0, high = nr_functions;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (functions[mid].addr <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low ? &functions[low - 1] : NULL;
}

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
	fprintf(out, "%llu\t%llu\t%llu\n", insns[USER], insns[KERNEL], insns[XEN]);
	memset(insns, 0, sizeof(insns));
	for (size_t i = 0; i < nr_functions; i++) {
		struct function *f = &functions[i];

		if (f->insns)
			fprintf(out, "+\t%llu\t%llu\t%s\n", f->insns, f->calls, f->name);
		f->insns = 0;
		f->calls = 0;
	}
	fflush(out);
}

static void block_runs(unsigned int vcpu, void *data)
{
	const struct block *b = data;

	if (!counting)
		return;
	insns[b->mode] += b->insns;
	if (b->function) {
		b->function->insns += b->insns;
		b->function->calls += b->is_entry;
	}
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

/* What is allocated here is never freed: QEMU does not tell when a block goes. */
static void plugin_translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	uint64_t addr = qemu_plugin_tb_vaddr(tb);
	struct block *b = calloc(1, sizeof(*b));
	size_t i;

	if (!b)
		abort();
	b->insns = qemu_plugin_tb_n_insns(tb);
	if (!(addr >> 63)) {
		b->mode = USER;
		for (i = 0; i < b->insns; i++)
			look_for_mark(qemu_plugin_tb_get_insn(tb, i));
	} else {
		b->mode = addr >= XEN_BEGIN && addr < XEN_END ? XEN : KERNEL;
		b->function = function_at(addr);
		b->is_entry = b->function && b->function->addr == addr;
	}
	qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, QEMU_PLUGIN_CB_NO_REGS, b);
}

static bool plugin_argument(const char *text)
{
	if (!strncmp(text, "symbols=", 8))
		return read_symbols(text + 8);
	return !strncmp(text, "out=", 4) && (out = open_file(text + 4, "w"));
}

static bool plugin_ready(const struct qemu_info *info)
{
	if (!info->system_emulation || strcmp(info->target_name, "x86_64") ||
	    info->max_vcpus != 1) {
		fprintf(stderr, "count-insns: only for x86_64 with one vCPU\n");
		return false;
	}
	return out && functions;
}
