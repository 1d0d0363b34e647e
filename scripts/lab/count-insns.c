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
 * Debian has no package with qemu-plugin.h; what is used of it is declared here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench-marks.h"

/* ------------------------------------------------------------------ */
/* QEMU's interface for plugins, version 1 */

struct qemu_plugin_tb;
struct qemu_plugin_insn;

typedef struct {
	const char *target_name;
	struct {
		int min;
		int cur;
	} version;
	bool system_emulation;
	int smp_vcpus;
	int max_vcpus;
} qemu_info_t;

enum { QEMU_PLUGIN_CB_NO_REGS };
enum { QEMU_PLUGIN_INLINE_ADD_U64 };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
		void (*cb)(uint64_t id, struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op,
					      void *ptr, uint64_t imm);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
		void (*cb)(unsigned int vcpu, void *data), int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb,
						 size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
int qemu_plugin_install(uint64_t id, const qemu_info_t *info, int argc, char **argv);

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
	uint64_t addr;

	if (!f) {
		perror(path);
		return false;
	}
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%" SCNx64 " %c %399s", &addr, &type, name) != 3 ||
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

static void for_each_count(void (*what)(struct count *count))
{
	size_t i;

	for (i = 0; i < MODES; i++)
		what(&insns[i]);
	for (i = 0; i < nr_functions; i++) {
		what(&functions[i].insns);
		what(&functions[i].calls);
	}
}

static void forget(struct count *count)
{
	count->now = 0;
}

static void add_up(struct count *count)
{
	count->sum += count->now;
}

static void start_anew(struct count *count)
{
	count->sum = 0;
}

static void begin(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	for_each_count(forget);
}

static void end(unsigned int vcpu, void *data)
{
	(void)vcpu;
	(void)data;
	for_each_count(add_up);
}

static void done(unsigned int vcpu, void *data)
{
	size_t i;
	int k;

	(void)vcpu;
	(void)data;
	for (k = 0; k < MODES; k++)
		fprintf(out, "%s%" PRIu64, k ? "\t" : "", insns[k].sum);
	for (k = 0; k < nr_calls; k++)
		fprintf(out, "\t%" PRIu64, call[k]->calls.sum);
	fputc('\n', out);
	for (i = 0; profile && i < nr_functions; i++)
		if (functions[i].insns.sum)
			fprintf(out, "+\t%" PRIu64 "\t%" PRIu64 "\t%s\n",
				functions[i].insns.sum, functions[i].calls.sum,
				functions[i].name);
	fflush(out);
	for_each_count(start_anew);
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	static const uint8_t mark[] = { MARK_BYTES };
	size_t i, n = qemu_plugin_tb_n_insns(tb);
	uint64_t addr = qemu_plugin_tb_vaddr(tb);
	int mode = mode_of(addr);
	struct function *function;

	(void)id;
	qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64,
						 &insns[mode].now, n);
	if (mode == USER) {
		for (i = 0; i < n; i++) {
			struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
			const uint8_t *bytes = qemu_plugin_insn_data(insn);
			void (*what)(unsigned int vcpu, void *data);

			if (qemu_plugin_insn_size(insn) != sizeof(mark) + 1 ||
			    memcmp(bytes, mark, sizeof(mark)))
				continue;
			what = bytes[sizeof(mark)] == MARK_BEGIN_BYTE ? begin :
			       bytes[sizeof(mark)] == MARK_END_BYTE ? end : done;
			qemu_plugin_register_vcpu_insn_exec_cb(insn, what,
						QEMU_PLUGIN_CB_NO_REGS, NULL);
		}
		return;
	}
	function = function_at(addr);
	if (!function)
		return;
	qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64,
						 &function->insns.now, n);
	if (function->addr == addr)
		qemu_plugin_register_vcpu_tb_exec_inline(tb,
				QEMU_PLUGIN_INLINE_ADD_U64, &function->calls.now, 1);
}

static const char *value_of(const char *arg, const char *name)
{
	size_t len = strlen(name);

	return !strncmp(arg, name, len) && arg[len] == '=' ? arg + len + 1 : NULL;
}

__attribute__((visibility("default")))
int qemu_plugin_install(uint64_t id, const qemu_info_t *info, int argc, char **argv)
{
	const char *value;
	int i;

	if (!info->system_emulation || strcmp(info->target_name, "x86_64") ||
	    info->max_vcpus != 1) {
		fprintf(stderr, "count-insns: only for x86_64 with one vCPU\n");
		return -1;
	}
	for (i = 0; i < argc; i++) {
		if ((value = value_of(argv[i], "out"))) {
			out = fopen(value, "w");
			if (!out) {
				perror(value);
				return -1;
			}
		} else if ((value = value_of(argv[i], "symbols"))) {
			if (!read_symbols(value))
				return -1;
		} else if ((value = value_of(argv[i], "calls")) && nr_calls < CALLS_MAX) {
			call_name[nr_calls++] = strdup(value);
		} else if ((value = value_of(argv[i], "profile"))) {
			profile = !strcmp(value, "on");
		} else {
			fprintf(stderr, "count-insns: what is %s?\n", argv[i]);
			return -1;
		}
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
