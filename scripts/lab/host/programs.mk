# SPDX-License-Identifier: GPL-2.0-only
#
# The programs that the lab's scripts run in dom0, made into $(BUILD)/lab.
#
#	make -s -f scripts/lab/host/programs.mk BUILD=DIRECTORY

SRC := $(dir $(lastword $(MAKEFILE_LIST)))../
OUT := $(BUILD)/lab
CC := gcc
CFLAGS := -std=gnu11 -O2 -Wall -Wextra -Werror
# A dynamic program costs dom0 its libraries' way over 9p.
LDFLAGS := -static

programs: $(OUT)/aio-demo $(OUT)/pin-cost
bench: $(OUT)/bench $(OUT)/count-insns.so
delay: $(OUT)/delay-at.so

$(OUT)/aio-demo $(OUT)/bench: LDLIBS := -laio -luring
$(OUT)/bench: $(SRC)host/bench-marks.h

$(OUT)/%.so: $(SRC)host/%.c $(SRC)host/bench-marks.h $(SRC)host/qemu-plugin.h | $(OUT)
	$(CC) $(CFLAGS) -fPIC -shared -fvisibility=hidden -o $@.new $<
	mv $@.new $@

$(OUT)/%: $(SRC)dom0/%.c $(SRC)dom0/grant-map.h $(SRC)dom0/measure.h $(lastword $(MAKEFILE_LIST)) | $(OUT)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@.new $< $(LDLIBS)
	mv $@.new $@

$(OUT):
	mkdir -p $@

.PHONY: programs bench delay
