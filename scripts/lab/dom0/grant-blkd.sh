# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced in dom0 by the tests of grant-blkd. /dev/vda is the image of guest-tools,
# /dev/vdb the disk of the test.
. ./lib.sh
set -e
log=/tmp/grant-blkd.log
daemon=
disk=xvda
n=0

# start OPTION...: a daemon, which is $daemon
start()
{
	./grant-blkd --json=/tmp/statistics "$@" 2>>$log &
	daemon=$!
}

# stop: ends the daemon, which may not have ended before
stop()
{
	kill "$daemon"
	wait "$daemon" || fail "the daemon ended with $?: $(tail -n 30 $log)"
}

# statistic DISK NAME: one of the counters of a disk, by its place in the list
statistic()
{
	kill -USR1 "$daemon"
	sleep 0.3
	sed -n "s/.*\"device\": $1,.*\"$2\": \([0-9]*\).*/\1/p" /tmp/statistics
}

# attach xvdX FILE [ro]
attach()
{
	timeout $((30 * slower)) ./grant-blkd attach "$DOMU_ID" "$@" ||
		fail "attach $* ($?): $(tail -n 30 $log)"
	within 15 "the guest has the disk $1" guest test -b "/dev/$1"
}

detach()
{
	timeout $((30 * slower)) ./grant-blkd detach "$DOMU_ID" "$1" ||
		fail "detach $1 ($?): $(tail -n 30 $log)"
	within 15 "the guest's disk $1 is gone" guest test ! -e "/dev/$1"
}

# The programs of guest-tools; libraries are found by links.
tools_attach()
{
	attach xvdt /dev/vda ro
	guest sh -c 'mkdir -p /tools && mount -t ext4 -o ro,noload /dev/xvdt /tools &&
		ln -snf /tools/lib /tools/lib64 / && ln -snf /tools/usr/lib /usr/lib' ||
		fail "the guest cannot mount its tools"
}

tools_detach()
{
	guest umount /tools || fail "the guest cannot unmount its tools"
	detach xvdt
}

# fio OPTION...: on the guest's disk $disk
fio()
{
	guest /tools/bin/fio --filename="/dev/$disk" --direct=1 --verify=crc32c --verify_fatal=1 \
		--randseed=1 --group_reporting --minimal "$@" >"/tmp/fio-$disk" 2>&1 ||
		fail "fio $* ($?): $(tail -n 20 "/tmp/fio-$disk")"
}

retired >/dev/null
mapped -ge 0
# shellcheck disable=SC2034 # for the tests
before=$n
