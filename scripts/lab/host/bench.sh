# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced by scripts/bench and scripts/bench-blk after selftests.sh.
#
#	count_in_dom0 [--clock] KERNEL NAME [OPTION]... -- COMMAND...
#			runs COMMAND in dom0 under the instruction clock, beside a guest, with
#			OPTIONs of dom0-run. Leaves in the directory $out what it printed as
#			NAME.rows and NAME.log and, without --clock, what the plugin counted as
#			NAME.counts, with the functions of kernel and Xen in NAME.symbols
#	report ...	runs bench-report on the directory $out
#	profile ROW PAGES WHOSE
#			prints the functions that ran for a row of profile.rows

count_in_dom0()
{
	local clock='' options=() symbols name

	[ "$1" != --clock ] || clock=1
	[ -z "$clock" ] || shift
	name=${out:?}/$2
	if [ -z "$clock" ]; then
		symbols=(/usr/lib/debug/boot/xen-syms-*.map)
		[ -f "${symbols[-1]}" ] || die "Xen's symbols are not installed" "run scripts/setup"
		[ -f "$OUT/kernels/$1/vmlinux" ] ||
			die "there is no kernel $1" "scripts/kernel-build $1 makes it"
		# Functions in the order of their addresses, with the first of several names.
		{
			nm "$OUT/kernels/$1/vmlinux"
			sed 's/^0x//' "${symbols[-1]}"
		} | grep -i '^f.* t ' | sort -s -u -k 1,1 >"$name.symbols"
		options=(--plugin "file=$BUILD/lab/plugin.so,out=$name.counts")
	fi
	# A kernel without the series may complain of what it is asked to do.
	"$ROOT/scripts/dom0-run" --kernel "$1" "${options[@]}" --icount --domu --domu-mem 128 \
		--mem 768 --disk null:16 --allow-splat --timeout 900 "${@:3}" \
		>"$name.rows" 2>"$name.log" || {
		cat "$name.log" >&2
		die "no counts of $1" "what it said is above"
	}
}

report()
{
	"$ROOT/scripts/lab/host/bench-report" "$out" "$@"
}

profile()
{
	report profile profile "$@" >"$out/profile.txt" || die "there is no row $*" "see $0 --help"
	echo "instructions, calls per page  of $*"
	head -n 60 "$out/profile.txt"
	echo "the rest: $out/profile.txt"
}
