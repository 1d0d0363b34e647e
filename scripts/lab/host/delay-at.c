// SPDX-License-Identifier: GPL-2.0-only
/*
 * A plugin for QEMU's TCG that makes a race easier to meet.
 *
 *   -plugin delay-at.so,at=ADDRESS,every=N,us=MICROSECONDS[,then=ADDRESS,times=T]
 *
 * Whenever a virtual CPU gets to the instruction at ADDRESS for the Nth time, it
 * waits that many microseconds while the others go on; and it waits again the next
 * T times (default 1) that it gets to the second ADDRESS, for a CPU that has to
 * answer interrupts before the others can go on.
 */
#include <stdatomic.h>
#include <unistd.h>

#include "qemu-plugin.h"

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

static void plugin_translated(uint64_t id, struct qemu_plugin_tb *tb)
{
	size_t i, n = qemu_plugin_tb_n_insns(tb);

	for (i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t addr = qemu_plugin_insn_vaddr(insn);

		if (addr == at)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, visit,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
		if (addr == then)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, visit_then,
							       QEMU_PLUGIN_CB_NO_REGS, NULL);
	}
}

static bool plugin_argument(const char *text)
{
	return sscanf(text, "at=%llx", &at) == 1 || sscanf(text, "then=%llx", &then) == 1 ||
	       sscanf(text, "every=%llu", &every) == 1 || sscanf(text, "us=%llu", &us) == 1 ||
	       sscanf(text, "times=%llu", &times) == 1;
}

static bool plugin_ready(const struct qemu_info *info)
{
	return info->max_vcpus <= VCPUS_MAX && at && every && us && times;
}
