# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced, after common.sh, by the scripts that run the kernel's make. All of
# them have to run it with the same settings: Kbuild compiles everything anew
# when the compiler's command line changes.

# With the date, the user and the number of the build held still, a build of
# the same source gives the same kernel, and ccache finds what it has.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
export KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab KBUILD_BUILD_VERSION=1
export KCONFIG_NOTIMESTAMP=1
# The kernel's release must not depend on whether the tree is clean.
export LOCALVERSION=

_ccache=
if command -v ccache >/dev/null; then
	_ccache='ccache '
fi

# Where the objects are, in the tree.
OBJ=obj

# What compiles, and the kernel's image that comes of it.
# shellcheck disable=SC2034 # for who sources this
COMPILER=gcc
# shellcheck disable=SC2034
IMAGE=arch/x86/boot/bzImage
_settings=()

# kmake_compiler NAME: gcc, clang, or a gcc for another architecture.
kmake_compiler()
{
	COMPILER=$1
	case $1 in
	gcc) ;;
	clang) kmake_settings LLVM=1 ;;
	aarch64-*-gcc)
		kmake_settings ARCH=arm64 CROSS_COMPILE="${1%gcc}"
		# shellcheck disable=SC2034
		IMAGE=arch/arm64/boot/Image
		;;
	*) die "it is not known how to build a kernel with the compiler $1" ;;
	esac
}

# kmake_config NAME: the compiler and the objects of scripts/configs/NAME.config.
kmake_config()
{
	local compiler

	compiler=$(sed -n 's/^# compiler: //p' "$ROOT/scripts/configs/$1.config")
	kmake_compiler "${compiler:-gcc}"
	OBJ=obj-$1
}

# kmake_settings NAME=VALUE...: for every make from now on.
kmake_settings()
{
	_settings+=("$@")
}

# kmake TREE ARGUMENT...: make in TREE, with the objects in TREE/$OBJ.
kmake()
{
	local tree=$1

	shift
	make -C "$tree" O="$OBJ" CC="$_ccache$COMPILER" "${_settings[@]}" \
		-j"${JOBS:-$(nproc)}" "$@"
}

# kmake_targets FILE.c...: prints what to make to have those compiled that the
# architecture has. As a rule the whole directory, built as Kbuild has it there: which
# files that are is part of what a configuration says.
kmake_targets()
{
	local file

	for file; do
		case $file in
		# arm64 compiles it as well.
		arch/arm/xen/*) file=arch/arm64/xen/x.c ;;
		esac
		case $file in
		mm/* | fs/*) printf '%s\n' "${file%.c}.o" ;;
		"${IMAGE%%/boot/*}"/*) printf '%s/\n' "${file%/*}" ;;
		arch/*) ;;
		*) printf '%s/\n' "${file%/*}" ;;
		esac
	done | sort -u
}

# Two of these makes at once would both be slow, and in one tree both wrong.
kmake_lock()
{
	mkdir -p "$BUILD"
	exec 9>"$BUILD/kernel-build.lock"
	if ! flock -n 9; then
		say "  another kernel build is at work in $BUILD, waiting for it"
		flock -w 1800 9 || die "the other kernel build did not end in 30 min"
	fi
}

# kmake_copy TREE COPY: a work tree with its objects, so that a build in the copy
# compiles only what is changed there.
kmake_copy()
{
	rm -rf "$2.part"
	mkdir -p "$2.part"
	cd "$1" || return
	find . -mindepth 1 -maxdepth 1 ! -name 'obj-*' \
		-exec cp -a --reflink=auto -t "$2.part" {} +
	# Of the copies git's index knows nothing yet. A checkout would write each file
	# anew, and make would compile them all again.
	git -C "$2.part" update-index -q --refresh
	mv "$2.part" "$2"
}
