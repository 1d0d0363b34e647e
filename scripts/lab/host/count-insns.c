// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that counts what runs between marks.
 *
 *   -plugin count-insns.so,out=FILE,symbols=FILE[,symbols=FILE...]
 *           [,calls=NAME...][,profile=on]
 *
 * A program in the guest sets marks with instructions that do nothing anywhere
 * else (see bench-marks.h).  What runs between "begin" and "end" is added up; at
 * "done" a line with the sums is written to out:
 *
 *   USER KERNEL XEN CALLS...
 *
 * the instructions executed in user space, in the kernel, and in Xen, by their
 * addresses, and for each calls=NAME how often that function was entered.  Before
 * the first such line comes one with these headings, after "#".  With profile=on
 * a line "+ INSTRUCTIONS CALLS NAME" follows for each function that ran.
 *
 * symbols is what "nm -n" prints, of vmlinux or of xen-syms.  A function begins
 * where a symbol of a text section is and ends where the next one is.
 *
 * It counts translated blocks, each by its number of instructions.  One that a
 * fault leaves early counts as a whole, and so do the two that hold the marks.
 * That is far below what interrupts make of it.  For one vCPU: no counter is
 * locked.
 *
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench-marks.h"
#include "qemu-plugin.h"

PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* ------------------------------------------------------------------ */
/* Who runs, by address: Xen has a slot of 16 TiB for itself, see Xen's config.h */

#define XEN_BEGIN	0xffff800000000000ULL
#define XEN_END		0xffff880000000000ULL

enum { USER, KERNEL, XEN, MODES };

static const char * const mode_name[MODES] = { "user", "kernel", "xen" };

static int mode_of(uint64_t addr)
{
	if (!(addr >> 63))
		return USER;
	return addr >= XEN_BEGIN && addr < XEN_END ? XEN : KERNEL;
}

/* ------------------------------------------------------------------ */
/* Functions */

struct count {
	uint64_t now;	/* what the translated code adds to */
	uint64_t sum;
};

struct function {
	uint64_t addr;
	const char *name;
	struct count insns;
	struct count calls;
};

#define CALLS_MAX 32

static struct function *functions;
static size_t nr_functions;
static const char *call_name[CALLS_MAX];
static struct function *call[CALLS_MAX];
static int nr_calls;

static struct count insns[MODES];
static bool profile;
static FILE *out;

static int by_addr(const void *a, const void *b)
{
	const struct function *x = a, *y = b;

	return (x->addr > y->addr) - (x->addr < y->addr);
}

static bool read_symbols(const char *path)
{
	char line[512], type, name[400];
	size_t room = nr_functions;
	FILE *f = fopen(path, "r");
	unsigned long long addr;

	if (!f) {
		perror(path);
		return false;
	}
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx %c %399s", &addr, &type, name) != 3 ||
		    !strchr("tTwW", type) || !(addr >> 63))
			continue;
		if (nr_functions == room) {
			room = room ? 2 * room : 65536;
			functions = realloc(functions, room * sizeof(*functions));
			if (!functions)
				abort();
		}
		functions[nr_functions++] = (struct function){
			.addr = addr, .name = strdup(name),
		};
	}
	fclose(f);
	return true;
}

/* Of several names for an address the first one stays. */
static void sort_functions(void)
{
	size_t i, n = 0;

	qsort(functions, nr_functions, sizeof(*functions), by_addr);
	for (i = 0; i < nr_functions; i++)
		if (!n || functions[i].addr != functions[n - 1].addr)
			functions[n++] = functions[i];
	nr_functions = n;
}

static bool find_calls(void)
{
	size_t i;
	int k;

	for (k = 0; k < nr_calls; k++) {
		for (i = 0; i < nr_functions; i++)
			if (!strcmp(functions[i].name, call_name[k]))
				call[k] = &functions[i];
		if (!call[k]) {
			fprintf(stderr, "count-insns: no function %s\n", call_name[k]);
			return false;
		}
	}
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

/* ------------------------------------------------------------------ */
/* Marks and blocks */

enum what { FORGET, ADD_UP, START_ANEW };

static void change_count(struct count *count, enum what what)
{
	if (what == ADD_UP)
		count->sum += count->now;
	else if (what == START_ANEW)
		count->sum = 0;
	count->now = 0;
}

static void change_counts(enum what what)
{
	size_t i;

	for (i = 0; i < MODES; i++)
		change_count(&insns[i], what);
	for (i = 0; i < nr_functions; i++) {
		change_count(&functions[i].insns, what);
		change_count(&functions[i].calls, what);
	}
}

static void begin(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	change_counts(FORGET);
}

static void end(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	change_counts(ADD_UP);
}

static unsigned long long to_print(uint64_t number)
{
	return number;
}

static void done(unsigned int vcpu, void *data)
{
	size_t i;
	int k;

	(void)vcpu;
	(void)data;
	for (k = 0; k < MODES; k++)
		fprintf(out, "%s%llu", k ? "\t" : "", to_print(insns[k].sum));
	for (k = 0; k < nr_calls; k++)
		fprintf(out, "\t%llu", to_print(call[k]->calls.sum));
	fputc('\n', out);
	for (i = 0; profile && i < nr_functions; i++)
		if (functions[i].insns.sum)
			fprintf(out, "+\t%llu\t%llu\t%s\n",
				to_print(functions[i].insns.sum),
				to_print(functions[i].calls.sum),
				functions[i].name);
	fflush(out);
	change_counts(START_ANEW);
}

static void add_when_run(struct qemu_plugin_tb *tb, struct count *count, uint64_t n)
{
	qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64,
						 &count->now, n);
}

static void look_for_mark(struct qemu_plugin_insn *insn)
{
	static const char mark[] = MARK;
	const uint8_t *bytes = qemu_plugin_insn_data(insn);
	void (*what)(unsigned int vcpu, void *data) = done;

	if (qemu_plugin_insn_size(insn) != sizeof(mark) ||
	    memcmp(bytes, mark, sizeof(mark) - 1))
		return;

	if (bytes[sizeof(mark) - 1] == 'b')
		what = begin;
	if (bytes[sizeof(mark) - 1] == 'e')
		what = end;
	qemu_plugin_register_vcpu_insn_exec_cb(insn, what, QEMU_PLUGIN_CB_NO_REGS,
					       NULL);
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	uint64_t addr = qemu_plugin_tb_vaddr(tb);
	int mode = mode_of(addr);
	struct function *function;

	(void)id;
	add_when_run(tb, &insns[mode], n);
	if (mode == USER) {
		for (i = 0; i < n; i++)
			look_for_mark(qemu_plugin_tb_get_insn(tb, i));
		return;
	}
	function = function_at(addr);
	if (!function)
		return;
	add_when_run(tb, &function->insns, n);
	if (function->addr == addr)
		add_when_run(tb, &function->calls, 1);
}

static bool argument(const char *name, const char *value)
{
	if (!strcmp(name, "symbols"))
		return read_symbols(value);
	if (!strcmp(name, "calls") && nr_calls < CALLS_MAX) {
		call_name[nr_calls++] = value;
		return true;
	}
	if (!strcmp(name, "profile")) {
		profile = !strcmp(value, "on");
		return true;
	}
	if (!strcmp(name, "out")) {
		out = fopen(value, "w");
		if (!out)
			perror(value);
		return out;
	}
	fprintf(stderr, "count-insns: what is %s?\n", name);
	return false;
}

PLUGIN_EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info,
				      int argc, char **argv)
{
	int i;

	if (!info->system_emulation || strcmp(info->target_name, "x86_64") ||
	    info->max_vcpus != 1) {
		fprintf(stderr, "count-insns: only for x86_64 with one vCPU\n");
		return -1;
	}
	for (i = 0; i < argc; i++) {
		char *name = strdup(argv[i]), *value = name ? strchr(name, '=') : NULL;

		if (!value)
			return -1;
		*value++ = 0;
		if (!argument(name, value))
			return -1;
	}
	sort_functions();
	if (!out || !find_calls()) {
		fprintf(stderr, "count-insns: see the head of count-insns.c\n");
		return -1;
	}
	fputc('#', out);
	for (i = 0; i < MODES; i++)
		fprintf(out, "%s%s", i ? "\t" : "", mode_name[i]);
	for (i = 0; i < nr_calls; i++)
		fprintf(out, "\t%s", call_name[i]);
	fputc('\n', out);
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
