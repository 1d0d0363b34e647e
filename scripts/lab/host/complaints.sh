# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# shellcheck disable=SC2034 # for those who source this
#
# Sourced by what boots kernels: the extended regular expression of what a kernel or Xen
# says on its console when something is wrong; "lockdep checking is enabled" is not.
complaints='Assertion .* failed|Xen BUG|Xen call trace|FATAL TRAP|Panic on CPU|kernel BUG'
complaints+='|implicitly unmap|still pending|Bad rss-counter|Bad page|WARNING:|BUG:|Oops'
complaints+='|KASAN|KCSAN|KFENCE|UBSAN|possible (recursive|circular)|soft lockup'
complaints+='|lockdep([^ ]| [^c]|$)'
complaints+='|hard LOCKUP|blocked for more than|rcu.*stall|segfault at|unable to handle'
complaints+='|general protection|Kernel panic|refcount_t:|list_(add|del) corruption|crashed:'
