# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced by the tests of the series' scripts. fixture DIRECTORY makes there a
# copy of this project's scripts with a series of its own, three patches on a
# "kernel" of four files, so that a test takes a second and touches nothing
# real.

fixture()
{
	local dir=$1 root
	root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

	mkdir -p "$dir/project/scripts" "$dir/project/series" "$dir/kernel/lib" \
		"$dir/kernel/mm"
	cp -r "$root/scripts/lab" "$root/scripts/tree-make" \
		"$root/scripts/tree-save" "$root/scripts/series-mail" \
		"$dir/project/scripts/"
	seq -f 'line %g of lib/list.c' 1 40 >"$dir/kernel/lib/list.c"
	seq -f 'line %g of mm/map.c' 1 40 >"$dir/kernel/mm/map.c"
	echo 'obj-y += list.o' >"$dir/kernel/lib/Makefile"
	# The last two are those of Debian's packaging.
	printf '%s\n' '*.o' '/*' '!/debian/' >"$dir/kernel/.gitignore"
	tar -C "$dir" -c -f "$dir/kernel.tar" kernel
	rm -r "$dir/kernel"

	export BUILD=$dir/build LINUX_SOURCE=$dir/kernel.tar
	PROJECT=$dir/project
	TREE=$BUILD/linux
	printf '# The header.\n\n' >"$PROJECT/series/order"
	printf 'The subject of it all\n\nThe text of it all.\n' \
		>"$PROJECT/series/cover-letter"
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
	sed -i 's/^\(0002.*\)/# Why there is a queue.\n\1/' "$PROJECT/series/order"
	"$PROJECT/scripts/tree-make"
}

fixture_commit()
{
	git -C "$TREE" add -A
	git -C "$TREE" -c user.name='Some Body' -c user.email=some@body.example \
		commit -q -m "$1"
}

# What the project holds of the series, with every byte, to compare.
fixture_state()
{
	(
		cd "$PROJECT" || exit
		find . -path ./scripts -prune -o -type f -print | sort | while read -r f; do
			printf '%s %s\n' "$f" "$(sha256sum <"$f")"
		done
	)
}

fail()
{
	printf '%s\n' "$*"
	exit 1
}
