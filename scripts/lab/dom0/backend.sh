# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced in dom0 by the tests of backends: backend.sh CLASS, of which xenstore knows the
# devices (vbd or vif).
set -eu
class=$1
tracing=/sys/kernel/tracing
retired=/sys/kernel/debug/xen-grant-unmap/retired

fail()
{
	echo "$*"
	xenstore-ls -f "/local/domain/0/backend/$class" || true
	busybox ifconfig -a
	dmesg | tail -n 20
	exit 1
}

# within SECONDS WHAT COMMAND...: until the command succeeds
within()
{
	local end=$((SECONDS + $1)) what=$2

	shift 2
	until "$@"; do
		[ $SECONDS -lt $end ] || fail "not in time: $what"
		sleep 0.1
	done
}

# mapped TEST NUMBER: Xen's count of mapped grants of the guest, which is left in $n
mapped()
{
	n=$(timeout 20 "$DOMU" mapped) || fail "nobody knows how many grants are mapped"
	test "$n" "$1" "$2"
}

guest()
{
	timeout 100 "$DOMU" run "$@"
}

# attached DEVICE RING: sets $idle to the number of mapped grants with no requests
attached()
{
	local rings

	rings=$(xenstore-ls -f "/local/domain/$DOMU_ID/device/$class/$1" | grep -c "$2")
	idle=$((before + rings))
	mapped -ge $idle || fail "the device is there, and its rings are not mapped: $n"
	echo "attached: $n mapped, $rings of them for rings"
}

detached()
{
	within 5 "detached, and no more mapped than before" mapped -eq "$before"
	echo "right: $n pages are mapped when it is detached"
}

# probe FUNCTION; calls FUNCTION: how often it was called since
probe()
{
	echo "p:$1 $1" >>$tracing/kprobe_events
	echo 1 >"$tracing/events/kprobes/$1/enable"
}

calls()
{
	awk -v name="$1" '$1 == name { print $2 }' $tracing/kprobe_profile
}

nothing_is_retired()
{
	[ "$(($(cat $retired)))" = 0 ] || fail "pages are retired: $(cat $retired)"
	echo "all right"
}

[ -r $retired ] || fail "no $retired: not a kernel of the series"
[ -w $tracing/kprobe_events ] || fail "the kernel has no CONFIG_KPROBE_EVENTS"
mapped -ge 0
before=$n
