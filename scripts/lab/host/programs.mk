# SPDX-License-Identifier: GPL-2.0-only
#
# The programs that the lab's scripts run in dom0, and the plugins for QEMU, made
# into $(BUILD)/lab; and what dom0-run boots beside the kernel:
#
#	boot		Xen, uncompressed as QEMU can load it; the initramfs of dom0 and of
#			the guest; and domu, "$DOMU" of the command in dom0
#	arm64		the initramfs of both domains there
#	load		disk-load, for the guest
#
# build_programs in selftests.sh calls it: the programs share code with the selftests.

THIS := $(lastword $(MAKEFILE_LIST))
SRC := $(dir $(THIS))../
OUT := $(BUILD)/lab
CC := gcc
CFLAGS := -std=gnu11 -O2 -Wall -Wextra -Werror
# A dynamic program costs dom0 its libraries' way over 9p.
LDFLAGS := -static
QEMU ?= qemu-system-x86_64
# The version of QEMU's interface for plugins: see plugin.c.
PLUGIN_VERSION = $(shell $(QEMU) --version | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p' | \
	awk '{ print ($$1 < 9 ? 1 : 4) }')

demo: $(OUT)/aio-demo
bench: $(OUT)/bench $(OUT)/plugin.so
delay: $(OUT)/plugin.so
load: $(OUT)/disk-load
boot: $(OUT)/xen $(OUT)/domu $(OUT)/dom0.cpio $(OUT)/guest.cpio
arm64: $(OUT)/arm64.cpio

# Make all of it again if a package is upgraded, whose files can have an old date, and if
# another copy of this project made it.
MADE_BY := $(OUT)/made-by-$(subst /,-,$(abspath $(SRC)))
UPGRADES := $(wildcard $(addprefix /var/lib/dpkg/info/,libxen-dev*.list busybox-static.list \
	xen-hypervisor-*.list)) $(MADE_BY) $(THIS)
$(MADE_BY): | $(OUT)
	rm -f $(OUT)/made-by-*
	touch $@

$(OUT)/%.so: $(SRC)host/%.c $(SRC)host/bench-marks.h $(UPGRADES) | $(OUT)
	$(CC) $(CFLAGS) -Wno-unused-parameter -DQEMU_PLUGIN_VERSION=$(PLUGIN_VERSION) -fPIC \
		-shared -fvisibility=hidden -o $@.new $<
	mv $@.new $@

$(OUT)/%: $(SRC)dom0/%.c $(XEN)/gntdev_test.h $(SRC)host/bench-marks.h $(UPGRADES) | $(OUT)
	$(CC) $(CFLAGS) -I $(XEN) -isystem $(SELFTESTS)/usr/include -I $(TREE) $(LDFLAGS) -o $@.new $<
	mv $@.new $@

$(OUT)/%: $(SRC)guest/%.c $(SRC)host/bench-marks.h $(UPGRADES) | $(OUT)
	$(CC) $(CFLAGS) -D_GNU_SOURCE $(LDFLAGS) -o $@.new $< -laio
	mv $@.new $@

$(OUT):
	mkdir -p $@

# --- what dom0-run boots --------------------------------------------------

HYPERVISOR := $(lastword $(wildcard /boot/xen-*.gz))
BUSYBOX := $(shell command -v busybox)
APPLETS = $(filter-out busybox,$(shell $(BUSYBOX) --list))
# What each initramfs holds: FILE=NAME.
dom0 := $(SRC)dom0/init=init $(BUSYBOX)=bin/busybox
guest := $(SRC)guest/init=init $(BUSYBOX)=bin/busybox $(OUT)/domu=bin/guest-agent
arm64 := $(SRC)dom0/init=init $(BUILD)/arm64/busybox=bin/busybox $(SRC)guest/init=guest-init

ifneq ($(filter boot,$(MAKECMDGOALS)),)
ifeq ($(and $(HYPERVISOR),$(BUSYBOX),$(wildcard /usr/include/xenctrl.h),$(shell command -v cpio)),)
$(error busybox, Xen, its headers or cpio is not installed: run scripts/setup)
endif
ifneq ($(shell readelf -l $(BUSYBOX) | grep INTERP),)
$(error $(BUSYBOX) is not static: install busybox-static, or run scripts/setup)
endif
endif

$(OUT)/domu: $(SRC)dom0/domu.c $(UPGRADES) | $(OUT)
	$(CC) $(CFLAGS) -D_GNU_SOURCE $(LDFLAGS) -s -o $@.new $< -lxenctrl -lxenforeignmemory \
		-lxencall -lxengnttab -lxenevtchn -lxendevicemodel -lxentoollog -lpthread \
		-lxenstore -lxentoolcore
	mv $@.new $@

$(OUT)/xen: $(HYPERVISOR) $(UPGRADES)
	zcat $< >$@.new
	mv $@.new $@

# In dom0 the other programs are those of its root, not busybox's.
$(OUT)/dom0.cpio: APPLETS := sh cat cp grep hostname ifconfig mkdir mount mv reboot sleep sync \
	tail umount usleep
.SECONDEXPANSION:
$(OUT)/%.cpio: $$(foreach f,$$($$*),$$(firstword $$(subst =, ,$$f))) $(UPGRADES)
	rm -rf $@.tree
	mkdir -p $(addprefix $@.tree/,bin dev etc lower proc put root run sbin sys sysroot tmp upper usr)
	ln -s ../bin $@.tree/usr/bin
	for applet in $(APPLETS); do ln -s busybox $@.tree/bin/$$applet; done
	for file in $($*); do install -m 755 "$${file%=*}" "$@.tree/$${file#*=}" || exit; done
	cd $@.tree && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 >$@.new
	mv $@.new $@
	rm -rf $@.tree

.PHONY: demo bench delay boot arm64 load
.SECONDARY:
