# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced by the tests of dom0-run. Gives dom0_run, which keeps the exit status in RC and
# the streams in $TMP/out and $TMP/err, and shows them; ends_with STATUS ARG..., which does
# so and wants that status; and fake_qemu, which puts a script in QEMU's place, so that a
# test of what dom0-run does about a machine needs no machine.

. "$(dirname "${BASH_SOURCE[0]}")/fixture.sh"

TMP=$tmp
cd "$TMP"

dom0_run()
{
	local start=$SECONDS

	RC=0
	"$ROOT/scripts/dom0-run" "$@" >"$TMP/out" 2>"$TMP/err" </dev/null || RC=$?
	echo "--- dom0-run ended with $RC after $((SECONDS - start)) s: $*"
	sed 's/^/out: /' "$TMP/out"
	sed 's/^/err: /' "$TMP/err"
}

ends_with()
{
	local status=$1

	shift
	dom0_run "$@"
	[ "$RC" = "$status" ] || fail "exit status $RC, not $status"
}

# fake_qemu: its standard input is the script's body, which finds itself in
# the run's directory, as QEMU does: console.log and job/ are there.
fake_qemu()
{
	{
		echo '#!/bin/bash'
		echo 'start() { echo "dom0-run: command starts" >>console.log; : >job/started; }'
		# shellcheck disable=SC2016 # for that shell
		echo 'end() { echo "dom0-run: command ended with $1" >>console.log; echo "$1" >job/status; sleep 20; }'
		cat
	} >"$TMP/fake-qemu"
	chmod +x "$TMP/fake-qemu"
	: >"$TMP/bzImage"
	# Not where they would push out the consoles of real runs.
	export QEMU=$TMP/fake-qemu DOM0_KERNEL=$TMP/bzImage RUNS=$TMP/runs
}
