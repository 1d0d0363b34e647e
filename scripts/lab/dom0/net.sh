# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced in dom0, after lib.sh: an interface of the guest, which netback serves.

connected()
{
	[ "$(xenstore-read "/local/domain/0/backend/vif/$DOMU_ID/0/state")" = 4 ]
}

# Both ends, in dom0 and in the guest. The receiver answers the first who connects with the
# hash of all that it gets; the sender sends 2 MiB of random bytes, and prints their hash
# and the receiver's. It tries again as long as nobody listens.
# shellcheck disable=SC2016 # for the shells there
receive='busybox timeout 90 busybox nc -l -p "$0" -e sha256sum'
# shellcheck disable=SC2016
send='bytes=/tmp/bytes.$$ n=0
	busybox head -c 2097152 /dev/urandom >$bytes && busybox sha256sum <$bytes || exit
	until busybox timeout 90 busybox nc "$0" "$1" <$bytes 2>/tmp/error.$$; do
		n=$((n + 1))
		[ $n -lt 100 ] || exec cat /tmp/error.$$
		busybox usleep 100000
	done
	rm $bytes'

# carry to-dom0|to-guest NAME: the sender and the receiver have the same hash
carry()
{
	local file=/tmp/$2

	if [ "$1" = to-dom0 ]; then
		busybox sh -c "$receive" 5001 &
		guest sh -c "$send" 10.7.0.1 5001 >"$file" || fail "$2: no transfer ($?)"
	else
		guest sh -c "$receive" 5002 &
		busybox sh -c "$send" 10.7.0.2 5002 >"$file" || fail "$2: no transfer ($?)"
	fi
	wait $! || fail "$2: the receiver ($?)"
	if [ "$(wc -l <"$file")" != 2 ] ||
		[ "$(sort -u "$file" | grep -cE '^[0-9a-f]{64}  -$')" != 1 ]; then
		fail "$2: not the same was sent and received: $(cat "$file")"
	fi
	echo "right: $2, after $SECONDS s"
}

network_attach()
{
	timeout 30 xl network-attach "$DOMU_ID" script=/put/hotplug mac=00:16:3e:00:00:01 ||
		fail "xl network-attach ($?)"
	within 15 "the guest has the interface" guest test -d /sys/class/net/eth0
	guest ifconfig eth0 10.7.0.2 netmask 255.255.255.0 up || fail "ifconfig in the guest"
	within 15 "the interface is connected" connected
}

network_detach()
{
	timeout 30 xl network-detach "$DOMU_ID" 0 || fail "xl network-detach ($?)"
	within 15 "the guest's interface is gone" guest test ! -e /sys/class/net/eth0
}
