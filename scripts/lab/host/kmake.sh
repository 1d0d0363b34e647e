# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced, after common.sh, by the scripts that run the kernel's make: with other settings
# Kbuild would compile everything again.

# With a fixed date, user and number of the build, a build of the same source gives
# the same kernel, and ccache finds what it has.
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 1970'
export KBUILD_BUILD_USER=lab KBUILD_BUILD_HOST=lab KBUILD_BUILD_VERSION=1
# The kernel's release must not depend on whether the tree is clean.
export LOCALVERSION=

_ccache=
if command -v ccache >/dev/null; then
	_ccache='ccache '
fi

# kmake_config NAME: use scripts/configs/NAME.config, if there is one, from now on. Sets
#
#	VARIANT		that file, or /dev/null
#	OBJ		where the objects are, in the tree
#	SETTINGS	what its lines "# make: NAME=VALUE..." give to every make
#	COMPILER	of these settings
#	IMAGE		the kernel's image that comes of it
# shellcheck disable=SC2034 # for the scripts that source this
kmake_config()
{
	VARIANT=$ROOT/scripts/configs/$1.config
	OBJ=obj-$1
	[ -e "$VARIANT" ] || {
		VARIANT=/dev/null
		OBJ=obj
	}
	mapfile -t SETTINGS < <(sed -n 's/^# make: //p' "$VARIANT" | tr ' ' '\n')
	IMAGE=arch/x86/boot/bzImage
	case " ${SETTINGS[*]} " in
	*' LLVM=1 '*) COMPILER=clang ;;
	*' ARCH=arm64 '*)
		COMPILER=aarch64-linux-gnu-gcc
		IMAGE=arch/arm64/boot/Image
		;;
	*) COMPILER=gcc ;;
	esac
}
kmake_config none

# kmake TREE ARGUMENT...: make in TREE, with the objects in TREE/$OBJ.
kmake()
{
	local tree=$1

	shift
	make -C "$tree" O="$OBJ" CC="$_ccache$COMPILER" "${SETTINGS[@]}" \
		-j"${JOBS:-$(nproc)}" "$@"
}

# kmake_targets FILE.c...: prints what to make to have those compiled that the architecture
# has: as a rule the directory, for the configuration says which of its files are compiled.
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

# kmake_lock: one make at a time. Two would only be slower, and in one tree spoil it.
kmake_lock()
{
	mkdir -p "$BUILD"
	exec 9>"$BUILD/kernel-build.lock"
	if ! flock -n 9; then
		say "  another kernel build is at work in $BUILD, waiting for it"
		flock -w 1800 9 || die "the other kernel build did not end in 30 min"
	fi
}

# kmake_tree COPY COMMIT [PATCH]...: makes COPY, or brings it to that commit of the work tree
# with the patches on top. It begins with the files and objects of the work tree, and
# writes only files that change: make compiles only these.
# shellcheck disable=SC2153 # TREE is of common.sh
kmake_tree()
{
	local copy=$1 made

	if [ ! -d "$copy/.git" ]; then
		rm -rf "$copy.part" "$copy"
		git clone -q --shared --no-checkout "$TREE" "$copy.part"
		find "$TREE" -mindepth 1 -maxdepth 1 ! -name .git ! -name 'obj-*' \
			-exec cp -a --reflink=auto -t "$copy.part" {} +
		# Its index knows nothing of the copies yet.
		cp "$TREE/.git/index" "$copy.part/.git/"
		git -C "$copy.part" update-index -q --refresh || true
		mv "$copy.part" "$copy"
	fi
	(
		cd "$copy" || exit
		git fetch -q "$TREE" "$2"
		export GIT_INDEX_FILE=.git/index-new
		git read-tree FETCH_HEAD
		cat /dev/null "${@:3}" | git apply --cached --allow-empty --whitespace=nowarn
		made=$(git -c user.name=lab -c user.email=lab@localhost commit-tree \
			-p FETCH_HEAD -m lab "$(git write-tree)")
		unset GIT_INDEX_FILE
		git checkout -q -f --detach "$made"
		git clean -q -f -d
	)
}
