# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced in dom0: a disk of the guest that a qemu of its own serves.
declare -F within >/dev/null || . ./lib.sh

qemu_serves()
{
	qemu_runs
	[ "$(xenstore-read "$model" 2>/dev/null)" = running ]
}

# start_qemu PROGRAM [ARGUMENT]...: sets qemu to its process id. libxl has
# to know of it: it attaches nothing without, and ends it when it destroys the guest.
start_qemu()
{
	local model=/local/domain/0/device-model/$DOMU_ID/state

	xenstore-rm "$model" 2>/dev/null || true
	"$1" -xen-domid "$DOMU_ID" -xen-attach -M xenpv -name guest -nodefaults \
		-no-user-config -display none "${@:2}" >&2 &
	qemu=$!
	xenstore-write "/local/domain/$DOMU_ID/image/device-model-pid" "$qemu"
	within 60 "qemu is ready" qemu_serves
}

qemu_runs()
{
	kill -0 "$qemu" 2>/dev/null || fail "qemu has ended"
}

stop_qemu()
{
	qemu_runs
	kill "$qemu"
	wait "$qemu" || fail "qemu ended with $?"
}

# attach_qdisk DISK [xvdX]: with O_DIRECT, which libxl has to be asked for
attach_qdisk()
{
	attach_disk "${2:-xvda}" "backendtype=qdisk,direct-io-safe,target=$1"
}

detach_qdisk()
{
	detach_disk xvda
}
