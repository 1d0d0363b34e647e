# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# shellcheck disable=SC2034 # for those who source this
#
# Sourced by what boots kernels: the extended regular expression of what a
# kernel or Xen says on its console when something is wrong.
complaints='Assertion .* failed|Xen BUG|Xen call trace|FATAL TRAP|Panic on CPU|implicitly unmap|still pending|Bad rss-counter|Bad page|WARNING:|BUG:|kernel BUG|Oops|KASAN|KCSAN|KFENCE|UBSAN|possible (recursive|circular)|lockdep|soft lockup|hard LOCKUP|blocked for more than|rcu.*stall|general protection|segfault at|unable to handle|Kernel panic|refcount_t:|list_(add|del) corruption|crashed:'
