/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_QEMU_PLUGIN_H
#define LAB_QEMU_PLUGIN_H

/*
 * What the plugins here share: how a plugin starts, and what they use of QEMU's
 * interface for TCG plugins, as QEMU documents it ("QEMU TCG Plugins").  QEMU has a
 * header for it, which is in no package of Debian's.
 *
 * QEMU loads no plugin made for another version of the interface.  Debian 12 has
 * QEMU 7.2 with version 1; Debian 13 has QEMU 10.0, which accepts 2 to 4.  Of what
 * is used here only qemu_plugin_insn_data() differs.  programs.mk defines
 * QEMU_PLUGIN_VERSION.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

#define QEMU_PLUGIN_CB_NO_REGS	0

typedef void vcpu_cb(unsigned int vcpu, void *data);

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

/* ------------------------------------------------------------------ */
/* Each plugin has these three. */

/* An argument NAME=VALUE of -plugin; false if it is not known or wrong. */
static bool plugin_argument(const char *text);

/* After all arguments; false if something is missing. */
static bool plugin_ready(const struct qemu_info *info);

/* Code was translated: asks to be called when it runs. */
static void plugin_translated(uint64_t id, struct qemu_plugin_tb *tb);

PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

/* QEMU calls this one. */
PLUGIN_EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc,
				      char **argv)
{
	for (int i = 0; i < argc; i++) {
		if (!plugin_argument(argv[i])) {
			fprintf(stderr, "plugin: bad argument %s\n", argv[i]);
			return -1;
		}
	}
	if (!plugin_ready(info)) {
		fprintf(stderr, "plugin: cannot start; see the head of its source\n");
		return -1;
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, plugin_translated);
	return 0;
}

#endif
