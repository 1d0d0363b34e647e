# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced by every script of the lab, first, so that a make's flags, a cross compiler or a
# git hook's repository in the environment do not reach the programs it runs. Sets
#
#	ROOT	the project's root
#	BUILD	where everything made goes; the variable of that name overrides it
#	BASE	the kernel that the patches are applied to: 6.12, 6.1 or mainline
#	OWN	a kernel tree of the user's, in place of Debian's source of BASE
#		(default mainline), if the user has set LINUX to it
#	TREE	the work tree of BASE
#	OUT	where everything made of that goes

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
BUILD=${BUILD:-$ROOT/build}
case $BUILD in
/*) ;;
*) BUILD=$PWD/$BUILD ;;
esac
export BUILD

# Scripts that are called by this one need to see the same.
OWN=${OWN:-${LINUX:-}}
unset LINUX
BASE=${BASE:-${OWN:+mainline}}
BASE=${BASE:-6.12}
case $BASE in
6.12 | 6.1 | mainline) ;;
*)
	echo "BASE is $BASE, not 6.12, 6.1 or mainline" >&2
	exit 2
	;;
esac
export OWN BASE
# shellcheck disable=SC2034
TREE=$BUILD/linux-$BASE${OWN:+-own}
# shellcheck disable=SC2034
OUT=$BUILD/$BASE${OWN:+-own}

export LC_ALL=C
# modinfo and the like, which Debian keeps out of a user's path.
PATH=$PATH:/usr/sbin:/sbin
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
unset ARCH CROSS_COMPILE LLVM O V C W KBUILD_OUTPUT KCONFIG_CONFIG KCFLAGS
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_PREFIX
unset CDPATH GREP_OPTIONS

# The user's git settings must not change what is written to series/, and a
# build/ made by another user is as good as one's own.
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
export GIT_CONFIG_COUNT=1
export GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'

ME=$(basename "$0")

say()
{
	printf '%s\n' "$*"
}

# die MESSAGE [WHAT TO DO NEXT]...
die()
{
	printf '%s: %s\n' "$ME" "$1" >&2
	shift
	while [ $# -gt 0 ]; do
		printf '    %s\n' "$1" >&2
		shift
	done
	exit 1
}

usage_error()
{
	printf '%s: %s\n    see %s --help\n' "$ME" "$*" "$0" >&2
	exit 2
}

# arguments "NAME NAME=..." ARGUMENT...: sets the variable NAME to y for the option --NAME,
# and to VALUE for --NAME VALUE if it is NAME= here, which an array gets as one element
# more; leaves the other arguments, from -- on, in ARGS. In the variable's name, - is _.
# With NO-ARGS among the NAMEs there must be none. --help prints the head comment of the
# script, from its fourth line, and what all have.
arguments()
{
	local known=" ${1//[[:space:]]/ } " name

	shift
	while [[ ${1:-} = -* && $1 != -- ]]; do
		name=${1#--}
		if [ "$1" = --help ] || [ "$1" = -h ]; then
			sed -n -e '4,${/^#/!q; s/^# \{0,1\}//p}' "$0"
			printf '\n%s %s\n' "BASE=mainline or BASE=6.1 takes the place of 6.12," \
				"BUILD=DIRECTORY of build/."
			exit 0
		elif [[ -n $name && $known = *" $name "* ]]; then
			printf -v "${name//-/_}" y
		elif [[ $known = *" $name= "* ]]; then
			[ $# -ge 2 ] || usage_error "$1 wants a value"
			name=${name//-/_}
			if [[ $(declare -p "$name" 2>/dev/null) = 'declare -a'* ]]; then
				local -n _list=$name
				_list+=("$2")
				unset -n _list
			else
				printf -v "$name" %s "$2"
			fi
			shift
		else
			usage_error "unknown option $1"
		fi
		shift
	done
	[ $# = 0 ] || [[ $known != *" NO-ARGS "* ]] || usage_error "unknown argument $1"
	# shellcheck disable=SC2034 # for the script
	ARGS=("$@")
}

# number WHAT VALUE: stop unless that is a number above 0.
number()
{
	case $2 in
	'' | *[!0-9]* | 0*) usage_error "$1 wants a number above 0, not '$2'" ;;
	esac
}

# svg_to_keep FILE...: what gnuplot wrote, in the form that scripts/lint wants.
svg_to_keep()
{
	sed -i -e 's/[[:space:]]*$//' \
		-e '1a <!-- SPDX-License-Identifier: GPL-2.0-only -->' "$@"
}

# consoles_of LOG: the files with whole consoles that dom0-run has named there
consoles_of()
{
	sed -n 's/^dom0-run: .*the whole console: //p' "$1"
}

_scratch=()

# scratch: sets SCRATCH to a new directory in BUILD that the script's end
# removes, however it ends.
scratch()
{
	mkdir -p "$BUILD"
	SCRATCH=$(mktemp -d "$BUILD/scratch.XXXXXX")
	_scratch+=("$SCRATCH")
	trap 'rm -rf "${_scratch[@]}"' EXIT
}

# tree_hash TREE: prints the hash of a git work tree with all that is edited and new
tree_hash()
(
	GIT_INDEX_FILE=$(mktemp "$BUILD/scratch.XXXXXX")
	export GIT_INDEX_FILE
	trap 'rm -f "$GIT_INDEX_FILE"' EXIT
	cp "$1/.git/index" "$GIT_INDEX_FILE"
	git -C "$1" add -A
	git -C "$1" write-tree
)

# end_process PID: with SIGTERM, and after 5 s with SIGKILL; -PID is a process group
end_process()
{
	local n=0

	kill -TERM -- "$1" 2>/dev/null || true
	while kill -0 -- "$1" 2>/dev/null && [ $n -lt 50 ]; do
		sleep 0.1
		n=$((n + 1))
	done
	kill -KILL -- "$1" 2>/dev/null || true
	wait "${1#-}" 2>/dev/null || true
}

_step_pid=

_step_stop()
{
	if [ -n "$_step_pid" ]; then
		kill -TERM -- "-$_step_pid" 2>/dev/null || true
		_step_pid=
	fi
}

# run_limited LOG SECONDS COMMAND [ARG]...
#
# Runs a command or function in a process group of its own, with its output
# in LOG, and sets RC to its exit status (124: over the time limit) and
# SECS to the seconds it took. On a terminal TITLE is shown with the time.
run_limited()
{
	local log=$1 limit=$2 start=$SECONDS next=60

	shift 2
	mkdir -p "$(dirname "$log")"
	RC=0

	trap '_step_stop; exit 130' INT
	trap '_step_stop; exit 143' TERM HUP
	set -m
	(
		trap - INT TERM HUP EXIT
		set +m
		set -eu
		"$@"
	) >"$log" 2>&1 </dev/null &
	_step_pid=$!
	set +m

	while kill -0 "$_step_pid" 2>/dev/null; do
		SECS=$((SECONDS - start))
		if [ "$SECS" -ge "$limit" ]; then
			end_process "-$_step_pid"
			RC=124
			break
		fi
		if [ -t 1 ]; then
			printf '\r%s  %s ' "${TITLE:-}" "$(_time "$SECS")"
		elif [ "$SECS" -ge "$next" ]; then
			say "    ... $(_time "$SECS")  log: $log"
			next=$((next + 60))
		fi
		sleep 0.2
	done
	[ "$RC" = 124 ] || wait "$_step_pid" || RC=$?
	_step_pid=
	trap - INT TERM HUP
	SECS=$((SECONDS - start))
	if [ -t 1 ]; then
		printf '\r\033[K'
	fi
}

_time()
{
	printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# step TITLE LOG SECONDS COMMAND [ARG]...
#
# A long piece of work: shows its title, time and log, and if it fails or
# takes more than SECONDS shows the end of its log and stops the script.
step()
{
	local log=$2 limit=$3
	TITLE="  $1"

	if [ ! -t 1 ]; then
		say "$TITLE ..."
	fi
	shift
	run_limited "$@"
	if [ "$RC" = 0 ]; then
		say "$TITLE: $(_time "$SECS")  log: $log"
		return
	fi
	say "$TITLE: FAILED after $(_time "$SECS")  log: $log"
	tail -n 30 "$log" | sed 's/^/    | /'
	if grep -qs 'No space left on device' "$log"; then
		die "the disk ran full during:$TITLE" \
			"$BUILD is the place; make room there or set BUILD=DIRECTORY"
	fi
	if [ "$RC" = 124 ]; then
		die "$((limit / 60)) min were not enough for:$TITLE"
	fi
	die "failed (exit status $RC):$TITLE" "the whole log is $log"
}

# need_space MIB WHAT: stop unless BUILD has that many MiB free.
# LAB_FREE_MIB stands in for the real number, for the test of the message.
need_space()
{
	local have

	mkdir -p "$BUILD" || die "cannot make $BUILD" "set BUILD=DIRECTORY"
	have=${LAB_FREE_MIB:-$(df -Pm "$BUILD" | awk 'NR == 2 { print $4 }')}
	if [ "$have" -lt "$1" ]; then
		die "no disk space: $2 needs $1 MiB, $have MiB are free in $BUILD" \
			"make room there, or set BUILD=DIRECTORY to a place that has it"
	fi
}
