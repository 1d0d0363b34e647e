# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Sourced by what boots kernels: extended regular expressions of what a kernel or Xen
# says on its console when something is wrong.

# A kernel ends with one of these.
deaths='kernel BUG at|BUG: unable|Oops:|general protection|Kernel panic'

complaints="$deaths|Assertion .* failed|Xen BUG|Xen call trace|FATAL TRAP|Panic on CPU"
complaints+='|implicitly unmap|still pending|Bad rss-counter|Bad page|WARNING:|BUG:|Oops'
complaints+='|KASAN|KCSAN|KFENCE|UBSAN|possible (recursive|circular)|lockdep|soft lockup'
complaints+='|hard LOCKUP|blocked for more than|rcu.*stall|segfault at|unable to handle'
# shellcheck disable=SC2034 # for those who source this
complaints+='|refcount_t:|list_(add|del) corruption|crashed:'

# last_words LOG: what a dying dom0 said, by the console that dom0-run's output names
last_words()
{
	local console line=

	console=$(consoles_of "$1" | tail -n 1)
	[ -z "$console" ] ||
		line=$(tr -d '\r' <"$console" | grep -aoE -m 1 "($deaths).*") || true
	echo "${line:-dom0 died without a message}"
}
