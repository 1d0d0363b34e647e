// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that makes a race easier to meet.
 *
 *   -plugin delay-at.so,at=ADDRESS,every=N,us=MICROSECONDS[,then=ADDRESS,times=T]
 *
 * Whenever a virtual CPU gets to the instruction at ADDRESS for the Nth time, it
 * stands still for so long, while the others go on; and the next T times (one,
 * without T) that it gets to the second ADDRESS, once more.  That is for who has to
 * answer interrupts in between before the others can go on.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "qemu-plugin.h"

PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

#define VCPUS_MAX 64

static unsigned long long at, then, every = 1, us, times = 1;
static atomic_ullong visits;
static unsigned long long stops_left[VCPUS_MAX];

static void visit(unsigned int vcpu, void *data)
{
	(void)data;
	if (atomic_fetch_add(&visits, 1) % every != every - 1)
		return;
	usleep(us);
	stops_left[vcpu] = times;
}

static void visit_then(unsigned int vcpu, void *data)
{
	(void)data;
	if (!stops_left[vcpu])
		return;
	stops_left[vcpu]--;
	usleep(us);
}

static void call_when_run(struct qemu_plugin_insn *insn,
			  void (*call)(unsigned int vcpu, void *data))
{
	qemu_plugin_register_vcpu_insn_exec_cb(insn, call, QEMU_PLUGIN_CB_NO_REGS,
					       NULL);
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t i, n = qemu_plugin_tb_n_insns(tb);

	(void)id;
	for (i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t addr = qemu_plugin_insn_vaddr(insn);

		if (addr == at)
			call_when_run(insn, visit);
		if (addr == then)
			call_when_run(insn, visit_then);
	}
}

PLUGIN_EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info,
				      int argc, char **argv)
{
	int i;

	if (info->max_vcpus > VCPUS_MAX)
		return -1;
	for (i = 0; i < argc; i++) {
		if (sscanf(argv[i], "at=%llx", &at) != 1 &&
		    sscanf(argv[i], "then=%llx", &then) != 1 &&
		    sscanf(argv[i], "every=%llu", &every) != 1 &&
		    sscanf(argv[i], "us=%llu", &us) != 1 &&
		    sscanf(argv[i], "times=%llu", &times) != 1) {
			fprintf(stderr, "delay-at: what is %s?\n", argv[i]);
			return -1;
		}
	}
	if (!at || !every) {
		fprintf(stderr, "delay-at: see the head of delay-at.c\n");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
