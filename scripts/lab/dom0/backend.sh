# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced in dom0 by the tests of backends: backend.sh CLASS, of which xenstore knows the
# devices (vbd or vif).
. ./lib.sh
set -e
class=$1
tracing=/sys/kernel/tracing

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
	unmapped_again "$before"
	echo "right: $n pages are mapped when it is detached"
}

# probe FUNCTION; calls FUNCTION: how often it was called since
probe()
{
	echo "p:$1 $1" >>$tracing/kprobe_events ||
		fail "there is no probe in $1 (CONFIG_KPROBE_EVENTS)"
	echo 1 >"$tracing/events/kprobes/$1/enable"
}

calls()
{
	awk -v name="$1" '$1 == name { print $2 }' $tracing/kprobe_profile
}

nothing_is_retired()
{
	no_page_is_retired
	echo "all right"
}

retired >/dev/null
mapped -ge 0
before=$n
