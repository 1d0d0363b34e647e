/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_QEMU_PLUGIN_H
#define LAB_QEMU_PLUGIN_H

/*
 * What the plugins here use of QEMU's interface for TCG plugins, version 1, as QEMU
 * documents it ("TCG Instruction Counting" and "QEMU TCG Plugins").  QEMU has a
 * header for it, which is in no package of Debian's.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QEMU_PLUGIN_VERSION	1

/* So that QEMU finds it: everything else is hidden. */
#define PLUGIN_EXPORT __attribute__((visibility("default")))

/* A block of translated code, and an instruction in it. */
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

#define QEMU_PLUGIN_CB_NO_REGS		0
#define QEMU_PLUGIN_INLINE_ADD_U64	0

/* QEMU calls this one. */
int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc,
			char **argv);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
					   void (*cb)(uint64_t id,
						      struct qemu_plugin_tb *tb));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, int op,
					      void *ptr, uint64_t imm);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
					    void (*cb)(unsigned int vcpu, void *data),
					    int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb,
						 size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);

#endif
