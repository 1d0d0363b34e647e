# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced by the tests of the lab's scripts; sources common.sh, and sets tmp to a new
# directory that is removed at the end of the test.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scratch
tmp=$SCRATCH

# fixture: makes in $tmp a copy of this project's scripts with a series of its own, three
# patches on a "kernel" of four files and two of them on an older one, so that a test
# takes seconds and touches nothing real.
fixture()
{
	local dir=$tmp

	mkdir -p "$dir/project/scripts" "$dir/project/series" "$dir/kernel/lib" "$dir/kernel/mm"
	cp -r "$ROOT"/scripts/{lab,source,tree-make,tree-save} "$dir/project/scripts/"
	seq -f 'line %g of lib/list.c' 1 40 >"$dir/kernel/lib/list.c"
	seq -f 'line %g of mm/map.c' 1 40 >"$dir/kernel/mm/map.c"
	echo 'obj-y += list.o' >"$dir/kernel/lib/Makefile"
	# The last two are those of Debian's packaging.
	printf '%s\n' '*.o' '/*' '!/debian/' >"$dir/kernel/.gitignore"
	tar -C "$dir" -c -f "$dir/mainline.tar" kernel
	sed -i 's/^line 22 of .*/line 22 as it was/' "$dir/kernel/lib/list.c"
	tar -C "$dir" -c -f "$dir/6.12.tar" kernel
	rm -r "$dir/kernel"

	export BUILD=$dir/build
	PROJECT=$dir/project
	git -C "$PROJECT" init -q
	use mainline
	"$PROJECT/scripts/tree-make" >/dev/null
	sed -i 's/^line 3 .*/line 3 by the first/' "$TREE/lib/list.c"
	fixture_commit 'lib: change the list'
	echo 'obj-y += queue.o' >>"$TREE/lib/Makefile"
	echo 'a queue' >"$TREE/lib/queue.c"
	fixture_commit 'lib: add a queue

It is new: "quoted", 100%, and a line with an em dash — to keep.'
	sed -i -e 's/^line 20 .*/line 20 by the third/' "$TREE/lib/list.c"
	sed -i -e 's/^line 5 .*/line 5 by the third/' "$TREE/mm/map.c"
	fixture_commit 'mm: map it'
	"$PROJECT/scripts/tree-save" >/dev/null
	git -C "$PROJECT" add series lib
}

# use BASE: for the scripts of the lab from now on
use()
{
	export BASE=$1 SOURCE=${BUILD%/build}/$1.tar
	TREE=$BUILD/linux-$1
}

fixture_git()
{
	git -C "$TREE" -c user.name='Some Body' -c user.email=some@body.example \
		-c core.editor=true -c sequence.editor=true "$@"
}

# sparse_clone TREE DIRECTORY: a clone of a work tree, at its base, with only the
# directories that the series touches.
sparse_clone()
{
	git clone -q --shared --no-checkout "$1" "$2"
	git -C "$2" fetch -q origin 'refs/tags/base:refs/tags/base'
	git -C "$2" diff --name-only base origin/series | sed 's,/[^/]*$,,' | sort -u |
		git -C "$2" sparse-checkout set --cone --stdin
	git -C "$2" checkout -q --detach base
}

fixture_commit()
{
	git -C "$TREE" add -A
	fixture_git commit -q -m "$1"
}

# What the project holds of the series, with every byte, to compare.
fixture_state()
{
	(
		cd "$PROJECT" || exit
		find . \( -path ./scripts -o -path ./.git \) -prune -o -type f -print | sort |
			xargs sha256sum
	)
}

# ends STATUS COMMAND...: the command ends with this exit status ("!": with any but 0); its
# output is in $tmp/out
ends()
{
	local want=$1 rc=0

	shift
	"$@" >"$tmp/out" 2>&1 || rc=$?
	[ "$rc" = "$want" ] || { [ "$want" = ! ] && [ "$rc" != 0 ]; } ||
		fail "$*: exit status $rc, not $want: $(cat "$tmp/out")"
}

# says PATTERN...: each is in that output; says_not PATTERN: it is not
says()
{
	local pattern

	for pattern; do
		grep -q -e "$pattern" "$tmp/out" || fail "no '$pattern' in: $(cat "$tmp/out")"
	done
}

says_not()
{
	! grep -q -e "$1" "$tmp/out" || fail "'$1' in: $(cat "$tmp/out")"
}

# gone: the process whose number is in the file pid ends soon
gone()
{
	timeout 3 tail -f /dev/null --pid="$(cat pid)" || fail "the child of a test still runs"
}

fail()
{
	printf '%s\n' "$*"
	exit 1
}
