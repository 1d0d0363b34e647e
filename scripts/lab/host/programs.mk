# SPDX-License-Identifier: GPL-2.0-only
#
# The programs that the lab's scripts run in dom0 and in the guest, and the plugins for
# QEMU, made into $(BUILD)/lab.
#
#	make -s -f scripts/lab/host/programs.mk BUILD=DIRECTORY [TARGET]

THIS := $(lastword $(MAKEFILE_LIST))
SRC := $(dir $(THIS))../
OUT := $(BUILD)/lab
CC := gcc
CFLAGS := -std=gnu11 -O2 -Wall -Wextra -Werror
# A dynamic program costs dom0 its libraries' way over 9p.
LDFLAGS := -static
QEMU ?= qemu-system-x86_64
# The version of QEMU's interface for plugins: see qemu-plugin.h.
PLUGIN_VERSION = $(shell $(QEMU) --version | sed -n 's/^QEMU emulator version \([0-9]*\).*/\1/p' | \
	awk '{ print ($$1 < 9 ? 1 : 4) }')

programs: $(OUT)/aio-demo
bench: $(OUT)/bench $(OUT)/count-insns.so
delay: $(OUT)/delay-at.so
guest: $(OUT)/disk-load

$(OUT)/%.so: $(SRC)host/%.c $(SRC)host/bench-marks.h $(SRC)host/qemu-plugin.h $(THIS) | $(OUT)
	$(CC) $(CFLAGS) -Wno-unused-parameter -DQEMU_PLUGIN_VERSION=$(PLUGIN_VERSION) -fPIC \
		-shared -fvisibility=hidden -o $@.new $<
	mv $@.new $@

$(OUT)/%: $(SRC)dom0/%.c $(SRC)dom0/grant-map.h $(SRC)host/bench-marks.h $(THIS) | $(OUT)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@.new $< -laio -luring
	mv $@.new $@

$(OUT)/%: $(SRC)guest/%.c $(THIS) | $(OUT)
	$(CC) $(CFLAGS) $(LDFLAGS) -D_GNU_SOURCE -o $@.new $< -laio
	mv $@.new $@

$(OUT):
	mkdir -p $@

.PHONY: programs bench delay guest
