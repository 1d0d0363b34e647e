# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# shellcheck disable=SC2034 # what those who source this use
#
# Sourced, after common.sh, by the scripts that turn the patch series into
# commits of the kernel's work tree and back.
#
# The two forms of a series are a directory (series/order, series/*.patch and
# the new files at their kernel paths) and a chain of commits on top of the
# tag base. chain_make goes from the first to the second, chain_write back.
# Both are functions of their input alone: the same directory gives the same
# commit hashes, and the same chain the same bytes. So "is there anything to
# do" is a comparison of two hashes.
#
# refs/lab/saved in the work tree is the chain that both sides last agreed on:
# what the branch has beyond it was not saved, what the directory has beyond
# it was not made.

LINUX=$BUILD/linux
SAVED=refs/lab/saved

lgit()
{
	git -C "$LINUX" "$@"
}

# Prints the entries of an order file as lines: "patch NAME", "file PATH".
order_entries()
{
	awk '
	/^[ \t]*(#|$)/ { next }
	/^[ \t]/ { print "file " $1; next }
	{ print "patch " $1 }' "$1"
}

# order_check DIRECTORY: stop at the first thing wrong with its series.
order_check()
{
	local dir=$1 kind name patches=0

	[ -e "$dir/series/order" ] || die "no $dir/series/order"
	while read -r kind name; do
		case $kind in
		patch)
			patches=$((patches + 1))
			[ -e "$dir/series/$name" ] ||
				die "series/order names $name, which is not in series/"
			;;
		file)
			[ "$patches" -gt 0 ] ||
				die "series/order: $name stands before the first patch"
			[ -e "$dir/$name" ] ||
				die "series/order names the new file $name, which does not exist"
			! lgit cat-file -e "base:$name" 2>/dev/null ||
				die "series/order: $name is a file of the kernel, not a new one" \
					"edits to it belong in a patch"
			;;
		esac
	done < <(order_entries "$dir/series/order")
	name=$(order_entries "$dir/series/order" | sort | uniq -d | head -n 1)
	[ -z "$name" ] || die "series/order has this twice: $name"
}

# Shows which hunks of a patch do not fit on the files of the current index.
show_rejects()
{
	local patch=$1 dir f

	scratch
	dir=$SCRATCH
	while read -r f; do
		mkdir -p "$dir/$(dirname "$f")"
		lgit cat-file blob ":$f" >"$dir/$f" 2>/dev/null || rm -f "$dir/$f"
	done < <(sed -n 's,^--- a/\([^\t]*\).*,\1,p' "$patch")
	(
		unset GIT_INDEX_FILE
		cd "$dir" || exit
		GIT_CEILING_DIRECTORIES=$BUILD git apply --reject "$patch" 2>&1 |
			grep -E '^error' || true
		find . -name '*.rej' | sort | while read -r f; do
			cat "$f"
		done
	) | sed 's/^/    | /' >&2
}

# chain_make DIRECTORY: sets CHAIN to the commit at the end of that series' chain.
chain_make()
{
	local dir=$1 tmp commit kind name mode blob

	order_check "$dir"
	scratch
	tmp=$SCRATCH
	commit=$(lgit rev-parse 'base^{commit}')
	export GIT_INDEX_FILE=$tmp/index
	lgit read-tree base
	: >"$tmp/files"
	while read -r kind name; do
		case $kind in
		patch)
			_chain_commit
			_chain_message "$dir/series/$name"
			if ! grep -q '^diff --git ' "$dir/series/$name"; then
				continue
			fi
			if ! lgit apply --cached --whitespace=nowarn \
				"$dir/series/$name" 2>"$tmp/error"; then
				sed 's/^/    | /' "$tmp/error" >&2
				show_rejects "$dir/series/$name"
				die "series/$name no longer applies, see above" \
					"correct it, or the patches before it"
			fi
			;;
		file)
			mode=100644
			[ ! -x "$dir/$name" ] || mode=100755
			blob=$(lgit hash-object -w --no-filters "$dir/$name")
			lgit update-index --add --cacheinfo "$mode,$blob,$name"
			;;
		esac
	done < <(order_entries "$dir/series/order")
	_chain_commit
	unset GIT_INDEX_FILE
	CHAIN=$commit
}

# The commit of the patch in $tmp/message, if there is one, from the index.
_chain_commit()
{
	[ -e "$tmp/message" ] || return 0
	commit=$(
		export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_AUTHOR_DATE
		GIT_AUTHOR_NAME=$(cat "$tmp/name")
		GIT_AUTHOR_EMAIL=$(cat "$tmp/email")
		GIT_AUTHOR_DATE=$(cat "$tmp/date")
		GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME \
			GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL \
			GIT_COMMITTER_DATE=$GIT_AUTHOR_DATE \
			lgit commit-tree -p "$commit" -F "$tmp/message" \
			"$(lgit write-tree)"
	)
	rm "$tmp/message"
}

_chain_message()
{
	lgit mailinfo -b --encoding=UTF-8 "$tmp/body" "$tmp/diff" \
		<"$1" >"$tmp/info"
	sed -n 's/^Author: //p' "$tmp/info" >"$tmp/name"
	sed -n 's/^Email: //p' "$tmp/info" >"$tmp/email"
	sed -n 's/^Date: //p' "$tmp/info" >"$tmp/date"
	sed -n 's/^Subject: //p' "$tmp/info" >"$tmp/subject"
	for field in name email date subject; do
		[ -s "$tmp/$field" ] ||
			die "$1 lacks a From, Date or Subject line" \
				"a patch begins like a mail, see git-format-patch(1)"
	done
	{
		cat "$tmp/subject"
		echo
		cat "$tmp/body"
	} | lgit stripspace >"$tmp/message"
}

# chain_commits TIP: the commits of a chain, first to last.
chain_commits()
{
	lgit rev-list --reverse --first-parent "base..$1"
}

patch_slug()
{
	lgit log -1 --format=%f "$1" | cut -c 1-52 | sed 's/[-.]*$//'
}

# chain_write TIP DIRECTORY TEMPLATE
#
# Writes a chain as a series directory. The chain must be normal: each file
# that the base does not have is added whole, by one commit. TEMPLATE is the
# order file whose comments are kept.
chain_write()
{
	local tip=$1 dir=$2 template=$3 commit n=0 name f

	mkdir -p "$dir/series"
	: >"$dir/entries"
	while read -r commit; do
		n=$((n + 1))
		name=$(printf '%04d-%s.patch' "$n" "$(patch_slug "$commit")")
		echo "patch $name" >>"$dir/entries"
		lgit diff-tree -r --no-commit-id --no-renames --diff-filter=A \
			--name-only "$commit" | sort >"$dir/added"
		sed 's/^/file /' "$dir/added" >>"$dir/entries"
		while read -r f; do
			mkdir -p "$dir/$(dirname "$f")"
			lgit cat-file blob "$tip:$f" >"$dir/$f"
			case $(lgit ls-tree "$tip" "$f") in
			100755*) chmod +x "$dir/$f" ;;
			100644*) ;;
			*) die "$f is neither a file nor a program" ;;
			esac
		done <"$dir/added"
		{
			lgit log -1 --date=rfc2822 \
				--format='From: %an <%ae>%nDate: %ad%nSubject: %s%n%n%b' \
				"$commit" | lgit stripspace
			echo '---'
			lgit diff-tree -r -p --no-commit-id --no-renames \
				--no-ext-diff --no-textconv --no-color \
				--diff-algorithm=histogram --abbrev=12 \
				--src-prefix=a/ --dst-prefix=b/ \
				--diff-filter=a "$commit"
		} >"$dir/series/$name"
	done < <(chain_commits "$tip")
	rm -f "$dir/added"
	_order_write "$dir/entries" "$template" >"$dir/series/order"
	rm "$dir/entries"
}

# The comments up to the first empty line are the file's. Those above a patch
# go with it, wherever it moves and whatever number it gets; those of a patch
# that is gone stay before the next one.
_order_write()
{
	awk '
	function slug(name) {
		sub(/^[0-9]+-/, "", name)
		return name
	}
	pass == 1 {
		entry[++n] = $1 == "patch" ? $2 : "\t" $2
		if ($1 == "patch")
			is_there[slug($2)] = 1
		next
	}
	head == 0 { print; if ($0 == "") head = 1; next }
	/^[ \t]*(#|$)/ { notes = notes $0 "\n"; next }
	/^[ \t]/ { next }
	slug($1) in is_there { note[slug($1)] = notes; notes = "" }
	END {
		for (i = 1; i <= n; i++) {
			if (entry[i] !~ /^\t/)
				printf "%s", note[slug(entry[i])]
			print entry[i]
		}
		printf "%s", notes
	}' pass=1 "$1" pass=2 "$2"
}
