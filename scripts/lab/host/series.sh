# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced, after common.sh, by the scripts that turn patches into commits of the kernel's
# work tree $TREE and back. series/*.patch are the patches for mainline. series/BASE/ has
# those that differ for another base, under the same name, those that only that base needs,
# and not-needed, which names (without their number) those that it does not need.
#
# In the work tree, refs/lab/made is the commit that the patches gave the last time, and
# .git/lab-made the digest of these patches. Commits on top of it are not saved.

MADE=refs/lab/made

tgit()
{
	git -C "$TREE" "$@"
}

# series_lock MINUTES: one script at a time works on the trees.
series_lock()
{
	mkdir -p "$OUT/log"
	exec 8>"$BUILD/tree.lock"
	flock -w "$(($1 * 60))" 8 ||
		die "another script has been at work on $TREE for $1 min"
}

# series_patches: prints the files of the patches for $BASE, in order.
series_patches()
{
	local dir=$ROOT/series name

	find "$dir" -name '[0-9]*.patch' -printf '%P\n' | sed -n "s,^$BASE/,,; /\//!p" |
		sort -u | while read -r name; do
		if [ -e "$dir/$BASE/$name" ]; then
			printf '%s\n' "$dir/$BASE/$name"
		elif ! grep -qs "^${name#*-}" "$dir/$BASE/not-needed"; then
			printf '%s\n' "$dir/$name"
		fi
	done
}

# series_view: prints the files of the kernel that this repository has whole.
series_view()
{
	git -C "$ROOT" ls-files -- arch block drivers Documentation fs include kernel lib mm \
		tools ':!Documentation/lab' ':!tools/xen'
}

# series_files FILTER: prints the files that the patches add (A), change (M) or either
# (AM) in $TREE.
series_files()
{
	tgit diff --name-only --no-renames --diff-filter="$1" base $MADE
}

# The digest of what the branch is made from.
series_digest()
{
	tgit rev-parse base
	series_patches | xargs -r cat | sha256sum
}

# series_make: sets CHAIN to the last commit of the patches on the tag base. The same
# patches give the same commits. It works in a tree without files: git am checks out
# those that a patch changes.
series_make()
{
	local am patches failed

	scratch
	am=$SCRATCH/am
	mapfile -t patches < <(series_patches)
	tgit worktree prune
	tgit worktree add -q --no-checkout --detach "$am" base
	git -C "$am" read-tree HEAD
	if [ ${#patches[@]} != 0 ] &&
		! GIT_COMMITTER_NAME=lab GIT_COMMITTER_EMAIL=lab@localhost git -C "$am" am -q \
			--keep-non-patch --keep-cr --whitespace=nowarn \
			--committer-date-is-author-date "${patches[@]}" >"$SCRATCH/log" 2>&1; then
		# In more detail than git am says it.
		git -C "$am" am --show-current-patch=diff | git -C "$am" apply --cached -v 2>&1 |
			cat "$SCRATCH/log" - | grep -v -e '^Checking patch' -e '^hint:' |
			sed 's/^/    | /' >&2 || true
		failed=${patches[$(cat "$(git -C "$am" rev-parse --git-path rebase-apply/next)") - 1]}
		# For tree-save, if the user applies the rest by hand.
		series_digest >"$TREE/.git/lab-stopped"
		die "${failed#"$ROOT/"} does not apply to $BASE, see above" \
			"series/order names the kernel that it was made for; to port it," \
			"git -C $TREE checkout -B series $(git -C "$am" rev-parse HEAD), git am --reject it" \
			"and those after it, and make save"
	fi
	CHAIN=$(git -C "$am" rev-parse HEAD)
	tgit worktree remove --force "$am"
}

# series_made: $CHAIN is what the patches give now.
series_made()
{
	tgit update-ref $MADE "$CHAIN"
	series_digest >"$TREE/.git/lab-made"
	say "  tree: $(tgit rev-list --count base..series) commits on base in $TREE"
}
