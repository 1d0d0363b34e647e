# SPDX-License-Identifier: GPL-2.0-only
#
# The verbs. Each is one script, which has --help and can be run by itself.

# One after the other, whatever -j says: the steps share the machine's CPUs.
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

help:
	@echo 'make run            build what is needed, boot it, run the demo: ends with a table'
	@echo 'make check          build what is needed, run the tests [TEST="NAME..."]'
	@echo 'make check-long     the tests that take long, too'
	@echo 'make check-stock    the kernel tests on the stock kernel: which of them fail there'
	@echo 'make check-debug    the tests on a kernel that checks itself (lockdep, DEBUG_VM, ...)'
	@echo 'make check-kasan    the tests on a kernel with KASAN'
	@echo 'make check-kcsan    look for data races with KCSAN'
	@echo 'make check-configs  compile the series with other configurations, boot some [BOOT=]'
	@echo 'make check-mutations  break the series, change by change: do the tests notice?'
	@echo 'make mutants        the same in every small way there is, by machine [SAMPLE=n SEED=n]'
	@echo 'make coverage       which lines of the series do the tests run?'
	@echo 'make fuzz           200,000 random operations on the debug kernel [SEED=n OPS=n]'
	@echo 'make soak HOURS=n   everything at once, for hours'
	@echo 'make bisect         build, boot and test every commit of the series'
	@echo 'make compare        the demo, and tests of what it fixes, on stock and series'
	@echo 'make bench          what it costs, with the series and without: instructions, traps'
	@echo 'make profile        in which functions [ROW="cycle 256 foreign" KERNEL=series]'
	@echo 'make lint           shellcheck, checkpatch, sparse'
	@echo 'make setup          install the Debian packages that are missing'
	@echo 'make kernels        build the kernels series and stock'
	@echo 'make tree           make or update the work tree build/linux-BASE, to edit the series in'
	@echo 'make save           write its commits back to series/ and the new files'
	@echo 'make series         write the mail-ready patches to build/mail/ [GROUP=name]'
	@echo 'make send-test      really send them, to this machine, and apply what arrives'
	@echo 'make clean          remove build/, unless edits in a work tree are not saved'
	@echo
	@echo 'BASE=mainline, BASE=6.1: the same for another kernel than 6.12, which is the'
	@echo 'default. LINUX=DIRECTORY: for a kernel tree of your own.'

setup:
	@scripts/setup

tree: setup
	@scripts/tree-make

save:
	@scripts/tree-save

series: setup
	@scripts/series-mail $(GROUP)

send-test:
	@scripts/check send

kernel-series: setup
	@scripts/kernel-build series

kernels: kernel-series
	@scripts/kernel-build stock

run: kernel-series
	@scripts/demo

compare: kernels
	@scripts/compare

check:
	@scripts/check $(TEST)

check-long:
	@scripts/check --long $(TEST)

check-debug:
	@scripts/check --kernel debug $(TEST)

check-kasan:
	@scripts/check --kernel kasan $(TEST)

check-kcsan:
	@scripts/check --kernel kcsan $(or $(TEST),data-races)

check-configs:
	@scripts/check-configs $(if $(filter-out undefined,$(origin BOOT)),$(BOOT),--boot)

check-mutations: kernel-series
	@scripts/check-mutations

mutants: kernel-series
	@scripts/check-mutations --machine $(if $(SAMPLE),--sample $(SAMPLE)) $(if $(SEED),--seed $(SEED))

coverage:
	@scripts/coverage $(TEST)

fuzz:
	@scripts/check --kernel debug fuzz-long

soak: kernel-series
	@scripts/soak $(HOURS)

bench: kernels
	@scripts/bench

ROW = cycle 256 foreign
profile: kernels
	@scripts/bench --profile $(ROW) $(KERNEL)

check-stock: kernels
	@scripts/check-stock $(TEST)

bisect:
	@scripts/bisect

lint: setup
	@scripts/lint

clean:
	@scripts/clean

.PHONY: help setup tree save series send-test kernel-series kernels run compare check \
	check-long check-debug check-kasan check-kcsan check-configs \
	check-mutations mutants coverage fuzz soak bench profile check-stock bisect lint clean
