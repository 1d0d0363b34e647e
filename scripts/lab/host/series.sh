# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced, after common.sh, by the scripts that turn patches into commits of the
# kernel's work tree $TREE and back.
#
# series/*.patch are the patches for mainline. series/BASE/ has those that differ
# for another base, under the same name, those that only that base needs, and
# not-needed, which names (without their number) those that it does not need.
#
# refs/lab/made in the work tree is the commit that the patches gave the last time;
# what the branch series has beyond it is not saved.

MADE=refs/lab/made

tgit()
{
	git -C "$TREE" "$@"
}

# series_patches: prints the files of the patches for $BASE, in order.
series_patches()
{
	local dir=$ROOT/series name

	{
		ls "$dir"
		[ ! -d "$dir/$BASE" ] || ls "$dir/$BASE"
	} | sed -n '/^[0-9].*\.patch$/p' | sort -u | while read -r name; do
		if [ -e "$dir/$BASE/$name" ]; then
			printf '%s\n' "$dir/$BASE/$name"
		elif ! grep -q "^${name#*-}" "$dir/$BASE/not-needed" 2>/dev/null; then
			printf '%s\n' "$dir/$name"
		fi
	done
}

# series_view: prints the files of the kernel that this repository has whole.
series_view()
{
	git -C "$ROOT" ls-files -- arch block drivers Documentation fs include kernel lib mm \
		tools ':!Documentation/lab'
}

# series_files FILTER: prints the files that the patches add (A), change (M) or either
# (AM) in $TREE.
series_files()
{
	tgit diff --name-only --no-renames --diff-filter="$1" base $MADE
}

# What the branch is made from.
series_digest()
{
	tgit rev-parse base
	series_patches | xargs -r cat | sha256sum
}

# series_commit PARENT PATCH: sets COMMIT to the commit that PATCH makes on PARENT.
# The same patch gives the same commit. Fails if it does not apply. SENDER_NAME and
# SENDER_EMAIL take the place of the author.
series_commit()
{
	local tmp

	[ -n "${SERIES_TMP:-}" ] || {
		scratch
		SERIES_TMP=$SCRATCH
	}
	tmp=$SERIES_TMP
	export GIT_INDEX_FILE=$tmp/index
	tgit read-tree "$1"
	if ! tgit mailinfo -b --encoding=UTF-8 "$tmp/body" "$tmp/diff" <"$2" >"$tmp/info" ||
		! tgit apply --cached --whitespace=nowarn -v "$tmp/diff" 2>"$tmp/error"; then
		unset GIT_INDEX_FILE
		return 1
	fi
	{
		sed -n 's/^Subject: //p' "$tmp/info"
		echo
		cat "$tmp/body"
	} >"$tmp/message"
	COMMIT=$(
		info()
		{
			sed -n "s/^$1: //p" "$tmp/info"
		}
		export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE
		GIT_AUTHOR_NAME=${SENDER_NAME:-$(info Author)}
		GIT_AUTHOR_EMAIL=${SENDER_EMAIL:-$(info Email)}
		GIT_AUTHOR_DATE=$(info Date)
		GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL \
			GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE tgit commit-tree -p "$1" -F "$tmp/message" "$(tgit write-tree)"
	)
	unset GIT_INDEX_FILE
}

# series_make: sets CHAIN to the last commit of the patches on the tag base.
series_make()
{
	local patch

	CHAIN=$(tgit rev-parse 'base^{commit}')
	while read -r patch; do
		series_commit "$CHAIN" "$patch" || {
			grep -v '^Checking patch' "$SERIES_TMP/error" | sed 's/^/    | /' >&2
			# For tree-save, if somebody goes on by hand.
			series_digest >"$TREE/.git/lab-stopped"
			die "${patch#"$ROOT/"} does not apply to $BASE, see above" \
				"series/order names the kernel that it was made for; to port it," \
				"git -C $TREE checkout -B series $CHAIN, git am --reject it" \
				"and those after it, and make save"
		}
		CHAIN=$COMMIT
	done < <(series_patches)
}
