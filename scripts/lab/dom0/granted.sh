# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced in dom0 by the tests that run other people's programs on granted memory, which
# tools/xen/granted-alloc.c gives them.
. ./lib.sh
set -e

report=/tmp/granted-alloc

# grants PAGES: the guest grants as many to these programs, and dom0's own may be as many
grants()
{
	echo 16384 >/sys/module/xen_gntalloc/parameters/limit
	# shellcheck disable=SC2016 # for the guest's shell
	"$DOMU" run sh -c 'echo 16384 >/sys/module/xen_gntalloc/parameters/limit'
	guest_grants="$DOMU_ID $("$DOMU" grant "$1")"
}

# on MEMORY COMMAND...: runs it on memory that is anonymous, or whose pages are the
# guest's or dom0's own grants. Fails if it got no granted memory, or once not.
on()
{
	local memory=$1 preload=(timeout $((250 * slower)) env) rc=0

	shift
	[ "$memory" != guest ] || preload+=("XEN_TEST_GRANTS=$guest_grants")
	[ "$memory" = anonymous ] ||
		preload+=("LD_PRELOAD=/put/granted-alloc.so" "GRANTED_ALLOC_REPORT=$report")
	rm -f $report
	"${preload[@]}" "$@" || rc=$?
	if [ "$memory" != anonymous ]; then
		cat $report
		grep -q 'allocations=[1-9].* fell_back=0 ' $report ||
			fail "not all of the program's memory was granted"
	fi
	return $rc
}

# nothing_is_left: no grant is mapped, and no page was retired
nothing_is_left()
{
	unmapped_again 0
	no_page_is_retired
	echo "right: $n pages are mapped at the end, and none is retired"
}
