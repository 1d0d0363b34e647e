# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced in dom0: the guest's disk xvda, which a qemu of its own serves.
# shellcheck source=scripts/lab/dom0/lib.sh
declare -F within >/dev/null || . ./lib.sh

# start_qemu PROGRAM [ARGUMENT]...: sets qemu to its process id
start_qemu()
{
	"$1" -xen-domid "$DOMU_ID" -xen-attach -M xenpv -name guest -nodefaults \
		-no-user-config -display none "${@:2}" >>/tmp/qemu.log 2>&1 &
	qemu=$!
}

qemu_runs()
{
	kill -0 "$qemu" 2>/dev/null || fail "qemu has ended: $(cat /tmp/qemu.log)"
}

stop_qemu()
{
	qemu_runs
	kill "$qemu"
	wait "$qemu" || fail "qemu ended with $?: $(cat /tmp/qemu.log)"
}

# attach_qdisk DISK: with O_DIRECT, which libxl has to be asked for
attach_qdisk()
{
	timeout $((60 * slower)) xl block-attach "$DOMU_ID" \
		"format=raw,vdev=xvda,access=rw,backendtype=qdisk,direct-io-safe,target=$1" ||
		fail "xl block-attach ($?): $(cat /tmp/qemu.log)"
	within 30 "the guest has the disk" "$DOMU" run test -b /dev/xvda
}

detach_qdisk()
{
	timeout $((60 * slower)) xl block-detach "$DOMU_ID" xvda || fail "xl block-detach ($?)"
	within 30 "the guest's disk is gone" "$DOMU" run test ! -e /dev/xvda
}
