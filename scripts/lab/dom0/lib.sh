# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced by the programs of the tests that run in dom0. SLOWER=N in the environment
# multiplies all time limits, for a kernel that is slower.
set -u

slower=${SLOWER:-1}

# counter NAME: prints one of the kernel's counters
counter()
{
	local value

	value=$(cat "/sys/kernel/debug/$1") || fail "no $1: not a kernel of the series"
	echo $((value))
}

entries() { counter xen-grants/overrides; }
waiting() { counter xen-grants/waiting; }
retired() { counter xen-grants/retired; }

fail()
{
	set +e
	{
		echo "${0##*/}: $*"
		timeout 5 xl list
		timeout 5 xenstore-ls -f /local/domain/0/backend
		dmesg | tail -n 20
	} >&2
	exit 1
}

# within SECONDS WHAT COMMAND...: waits until the command succeeds
within()
{
	local end=$((SECONDS + $1 * slower + 1)) what=$2

	shift 2
	until "$@"; do
		[ $SECONDS -lt $end ] || fail "not in time: $what"
		sleep 0.1
	done
}

guest()
{
	timeout $((200 * slower)) "$DOMU" run "$@"
}

# attach_disk xvdX OPTIONS: by xl, to a backend that libxl knows
attach_disk()
{
	timeout $((60 * slower)) xl block-attach "$DOMU_ID" "format=raw,access=rw,vdev=$1,$2" ||
		fail "xl block-attach ($?)"
	within 30 "the guest has the disk $1" guest test -b "/dev/$1"
}

detach_disk()
{
	timeout $((60 * slower)) xl block-detach "$DOMU_ID" "$1" || fail "xl block-detach ($?)"
	within 30 "the guest's disk $1 is gone" guest test ! -e "/dev/$1"
}

# mapped OPERATOR NUMBER: compares how many grants of the guest are mapped; sets n
mapped()
{
	n=$(timeout $((20 * slower)) "$DOMU" mapped) ||
		fail "the number of mapped grants is unknown"
	test "$n" "$1" "$2"
}

# unmapped_again NUMBER: no more grants of the guest are mapped than at first
unmapped_again()
{
	within 5 "detached, and no more mapped than before" mapped -eq "$1"
}

no_page_is_retired()
{
	[ "$(retired)" = 0 ] || fail "pages are retired: $(retired)"
}

guest_exists()
{
	xl list | awk -v id="$DOMU_ID" '$2 == id { n++ } END { exit !n }'
}

guest_is_gone()
{
	! guest_exists
}

# hold FILE ARGUMENT...: starts gntdev_hold with its output in FILE, and waits until it
# holds its pages
hold()
{
	local file=$1

	shift
	/put/gntdev_hold "$@" >"$file" 2>&1 &
	within 20 "gntdev_hold holds pages" grep -q held "$file"
}

still_held()
{
	! grep -q released "$@" || fail "too slow: the pages have been released"
}
