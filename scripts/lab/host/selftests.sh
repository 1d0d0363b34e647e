# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced by what runs the kernel selftests; sources common.sh, if that is not done.
#
#	build_selftests		builds the programs of tools/testing/selftests/xen by the
#				kernel's own rules, and sets SELFTESTS to their directory
#	build_selftests_from SOURCE DIRECTORY [VARIABLE-OF-MAKE]...
#				the same for programs that lie elsewhere
#	build_selftests_arm64	the same for arm64; scripts/setup --arm64 installs the compiler
#	build_programs TARGET	builds those of programs.mk, into $BUILD/lab
#	in_dom0 PROGRAM [OPTION]... [-- ARGUMENT...]
#				runs a program of scripts/lab/dom0, or a selftest, in dom0. OPTIONs
#				are those of dom0-run; a selftest's name stands for its file
#	blkd_in_dom0 PROGRAM [OPTION]... [-- ARGUMENT...]
#				the same for tests of grant-blkd, with a disk, which
#				holds a right file system afterwards, if any
#	granted_in_dom0 PROGRAM [OPTION]...
#				the same for tests of programs on granted memory
#	tap COMMAND...		shows the output of COMMAND, keeps it in $SCRATCH/tap, and fails
#				unless it is the TAP of tests that all passed
#	tap_verdict LOG		fails, saying why, unless LOG is such TAP
#	selftests_run [guest|granted] [OPTION]... -- "PROGRAM [ARGUMENT]..."...
#				does both with selftests; where: see lab/dom0/selftests
#	skip_auto_translated	arguments for gntdev_unmap in an auto-translated domain
#	pass_on_stock		tests of gntdev_unmap that pass without the series

declare -F die >/dev/null || . "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Grants are mapped there until the map object goes, so parts of them cannot be
# unmapped; and the PTEs are ordinary ones, which fork() copies and mprotect()
# changes.
# shellcheck disable=SC2034 # for the tests
skip_auto_translated=$(printf ' -T %s' \
	partial_munmap_leaves_the_rest_usable partial_munmaps_with_several_pinned_pages \
	a_mapping_put_over_it_keeps_the_data madv_dontneed_keeps_the_data \
	madv_dontneed_returns_idle_grants_at_once mremap_can_shrink_and_cannot_grow \
	exec_keeps_the_data_in_flight the_oom_reaper_keeps_the_data \
	fork_does_not_copy_the_mapping fork_after_madv_dofork_does_not_copy_it_either \
	mprotect_of_a_writable_mapping_is_refused mprotect_of_a_part_is_refused \
	mprotect_across_a_mapping_leaves_it)

# For scripts/bisect, before a commit has the selftests. scripts/check-stock fails if
# one of them does not pass.
# shellcheck disable=SC2034
pass_on_stock=(munmap_returns_idle_grants_at_once partial_munmap_leaves_the_rest_usable
	madv_dontneed_returns_idle_grants_at_once fork_does_not_copy_the_mapping
	get_offset_for_vaddr_tells_the_whole_map wrong_mmap_calls_are_refused
	mprotect_to_the_same_is_allowed advice_leaves_the_mapping_usable
	reading_proc_leaves_the_mapping_usable a_bad_ref_in_the_middle_maps_nothing
	a_bad_ref_at_either_end_maps_nothing a_bad_domid_maps_nothing
	notify_clears_the_byte_at_munmap notify_reaches_the_owner_when_the_process_dies
	notify_cannot_clear_a_byte_it_may_not_write)

build_selftests()
{
	build_selftests_from "$(selftests_source)" "$OUT/selftests"
}

build_selftests_arm64()
{
	build_selftests_from "$(selftests_source)" \
		"$OUT/selftests-arm64" ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-
}

build_programs()
{
	build_selftests
	make -s -f "$ROOT/scripts/lab/host/programs.mk" BUILD="$BUILD" TREE="$TREE" \
		SELFTESTS="$SELFTESTS" XEN="$(selftests_source)" "$@"
}

# Those here are mainline's.
selftests_source()
{
	local dir=tools/testing/selftests/xen

	if grep -q -s "^+++ b/$dir/" "$ROOT/series/$BASE"/*.patch ||
		grep -q -s '^selftests-xen-' "$ROOT/series/$BASE/not-needed"; then
		"$ROOT/scripts/tree-make" >&2
		printf '%s\n' "$TREE/$dir"
	else
		printf '%s\n' "$ROOT/$dir"
	fi
}

build_selftests_from()
{
	local src=$1 neighbour

	SELFTESTS=$2
	shift 2
	[ -e "$TREE/tools/testing/selftests/lib.mk" ] || "$ROOT/scripts/tree-make" >&2
	mkdir -p "$SELFTESTS"
	exec 9>"$SELFTESTS/lock"
	flock -w 600 9 || die "another build of the selftests takes more than 10 minutes" \
		"see who holds $SELFTESTS/lock"

	if [ ! -e "$SELFTESTS/usr/include/xen/gntdev.h" ] ||
		[ "$TREE/include/uapi/xen/gntdev.h" -nt "$SELFTESTS/usr/include/xen/gntdev.h" ]; then
		make -s -C "$TREE" O="$SELFTESTS/obj" "$@" \
			INSTALL_HDR_PATH="$SELFTESTS/usr.new" headers_install \
			>"$SELFTESTS/build.log" 2>&1 9>&- ||
			die "the kernel's headers were not installed" \
				"see $SELFTESTS/build.log"
		rm -rf "${SELFTESTS:?}/usr" "${SELFTESTS:?}/obj"
		mv "$SELFTESTS/usr.new" "$SELFTESTS/usr"
	fi

	# "../lib.mk" is looked for from any directory that make or the compiler
	# is told of: one beside where ours will be in the kernel's tree.
	neighbour=$TREE/tools/testing/selftests/kcmp
	make -s -C "$src" -I "$neighbour" OUTPUT="$SELFTESTS" "$@" \
		KHDR_INCLUDES="-isystem $SELFTESTS/usr/include" \
		USERCFLAGS="-Werror -I $neighbour" \
		>"$SELFTESTS/build.log" 2>&1 9>&- || {
		tail -n 30 "$SELFTESTS/build.log" >&2
		die "the selftests do not build" "see $SELFTESTS/build.log"
	}
	exec 9>&-
}

# A program that died says nothing at its end, one that never ran says nothing
# at all: both are seen by the plan that was not kept. What Linux 6.1 cannot do at
# all it may skip.
tap_verdict()
{
	awk -v base="$BASE" '
	{ sub(/\r$/, "") }
	/^1\.\.[0-9]+$/ { plan += substr($0, 4) }
	base == "6.1" && /^ok .* # SKIP io_uring registers no memory of files/ { ran++; next }
	/^ok / && / # SKIP/ { skipped++; print "skipped: " $0 }
	/^ok / { ran++ }
	/^not ok / { ran++; failed++; print "failed: " $0 }
	END {
		printf "%d tests, %d failed, %d skipped, %d not run\n",
			plan, failed, skipped, plan - ran
		exit !(plan > 0 && ran == plan && !failed && !skipped)
	}' "$1"
}

in_dom0()
{
	local program=$1 options=()

	shift
	build_selftests
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		case $1 in
		gntdev_*) options+=("$SELFTESTS/$1") ;;
		*) options+=("$1") ;;
		esac
		shift
	done
	case $program in
	gntdev_*) options+=(--put "$SELFTESTS/$program") ;;
	*) options+=(--put "$ROOT/scripts/lab/dom0/lib.sh" --put "$ROOT/scripts/lab/dom0/$program") ;;
	esac
	"$ROOT/scripts/dom0-run" "${options[@]}" -- \
		env SLOWER="${SLOWER:-1}" FAIL_FAST="${FAIL_FAST:-}" "./$program" "${@:2}"
}

blkd_in_dom0()
{
	local lab=$BUILD/lab/blkd${SANITIZE:+-sanitized} tools

	scratch
	mkdir -p "$lab"
	make -s -C "$ROOT/tools/xen" OUT="$lab" SANITIZE="${SANITIZE:-}"
	tools=$("$ROOT/scripts/lab/host/guest-tools")
	# QEMU locks it.
	cp "$tools" "$SCRATCH/tools"
	truncate -s 128M "$SCRATCH/disk"
	set -- "$1" --put "$ROOT/scripts/lab/dom0/grant-blkd.sh" --put "$lab/grant-blkd" \
		--domu-mem 256 --domu-put "$lab/blkd-fuzz" \
		--disk "$SCRATCH/tools" --disk "$SCRATCH/disk" "${@:2}"
	in_dom0 "$@"
	[ "$(blkid -o value -s TYPE "$SCRATCH/disk")" != ext4 ] || e2fsck -f -n "$SCRATCH/disk"
}

granted_in_dom0()
{
	build_programs demo
	scratch
	make -s -C "$ROOT/tools/xen" OUT="$SCRATCH" "$SCRATCH/granted-alloc.so"
	truncate -s 256M "$SCRATCH/disk"
	in_dom0 "$1" --put "$ROOT/scripts/lab/dom0/granted.sh" --put "$SCRATCH/granted-alloc.so" \
		--put "$BUILD/lab/aio-demo" --domu --disk "$SCRATCH/disk" "${@:2}"
}

tap()
{
	local rc=0

	scratch
	("$@") >"$SCRATCH/tap" 2>&1 || rc=$?
	cat "$SCRATCH/tap"
	tap_verdict "$SCRATCH/tap" || return
	[ "$rc" = 0 ] || die "dom0-run ended with $rc" "its --help tells what that means"
}

selftests_run()
{
	local where=dom0 put=--put options=() program

	case $1 in
	guest | granted)
		where=$1 put=--domu-put
		shift
		;;
	esac
	[ "$where" != granted ] || options=(--put gntdev_grant)
	while [ "$1" != -- ]; do
		options+=("$1")
		shift
	done
	shift
	for program; do
		program=${program%% *}
		[[ " ${options[*]} " = *" $put $program "* ]] || options+=("$put" "$program")
	done
	tap in_dom0 selftests "${options[@]}" -- "$where" "$@"
}
