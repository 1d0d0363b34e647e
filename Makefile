# SPDX-License-Identifier: GPL-2.0-only
#
# The verbs. Each is one script, which has --help and can be run by itself.

# One after the other, whatever -j says: the steps share the machine's CPUs.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

define HELP
Use
  make run          build what is needed, boot it, run the demo: ends with a table
  make compare      the demo, and tests of what it fixes, on stock and series
  make check        build what is needed, run the tests [TEST="NAME..."]
                    LONG=1 those that take long, too
                    KERNEL=debug on a kernel that checks itself (lockdep, DEBUG_VM, ...),
                    KERNEL=kasan with KASAN, KERNEL=kcsan data races, or another one
                    of scripts/configs/; KERNEL=stock which selftests fail there
  make proof        run everything, hours, that has not passed for the code as it is;
                    then print when each was proven. It can be interrupted

Review
  make series       write the mail-ready patches to build/mail/ [GROUP=name]
  make send-test    send them to this machine, and apply what arrives
  make bisect       build, boot and test every commit of the series
  make bench        what it costs, with the series and without: instructions, traps
                    PROFILE="cycle 256 foreign" in which functions [KERNEL=series]
  make bench-blk    what a request of a guest to its disk costs: grant-blkd, qemu, blkback
  make mutations    break the series, change by change: do the tests fail?
                    SAMPLE=n n of the ways that a program finds [SEED=n]
  make lint         shellcheck, checkpatch, sparse

Hack
  make tree         make or update the work tree build/linux-BASE, to edit the series in
  make save         write its commits back to series/ and the new files
  make kernels      build the kernels series and stock
  make setup        install the Debian packages that are missing
  make clean        remove build/, unless edits in a work tree are not saved

BASE=mainline, BASE=6.1: the same for another kernel than 6.12, which is the
default. LINUX=DIRECTORY: for a kernel tree of your own.

Tests that only run by name or in "make proof", hours each: check-configs check-stock
bisect coverage mutations, and soak [HOURS=n].
endef

help:
	$(info $(HELP))@:

tree series lint kernel-series: setup
run mutations kernels: kernel-series
compare bench bench-blk: kernels

setup compare bench-blk bisect lint clean:
	@scripts/$@

tree:
	@scripts/tree-make

save:
	@scripts/tree-save

series:
	@scripts/series-mail $(GROUP)

send-test:
	@scripts/check send

kernel-series:
	@scripts/kernel-build series

kernels:
	@scripts/kernel-build stock

run:
	@scripts/demo

ifeq ($(KERNEL),stock)
check:
	@scripts/check-stock $(TEST)
else
# KCSAN finds races in every kernel, which fail any other test.
check: TEST ?= $(if $(filter kcsan,$(KERNEL)),data-races)
check:
	@scripts/check $(if $(LONG),--long) $(if $(KERNEL),--kernel $(KERNEL)) $(TEST)
endif

proof:
	@scripts/check --proof

bench:
	@scripts/bench $(if $(PROFILE),--profile $(PROFILE) $(KERNEL))

mutations:
	@scripts/check-mutations $(if $(SAMPLE),--machine --sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

.PHONY: help setup tree save series send-test kernel-series kernels run compare check proof \
	bench bench-blk mutations bisect lint clean
