/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_MEASURE_H
#define LAB_MEASURE_H

/* What the lab's programs that measure share. */

#include "grant-map.h"
#include <time.h>

/* mm/gup_test.h is no part of the kernel's user-space headers. */
struct gup_test {
	__u64 get_delta_usec;
	__u64 put_delta_usec;
	__u64 addr;
	__u64 size;
	__u32 nr_pages_per_call;
	__u32 gup_flags;
	__u32 test_flags;
	__u32 which_pages[8];
};

#define PIN_FAST_BENCHMARK _IOWR('g', 2, struct gup_test)
#define FOLL_WRITE 0x01	/* <linux/mm_types.h> */

static inline __u64 now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static inline int gup_open(void)
{
	int fd = open("/sys/kernel/debug/gup_test", O_RDWR);

	if (fd < 0)
		err(1, "/sys/kernel/debug/gup_test");
	return fd;
}

/* Not there before they are touched. */
static inline char *anonymous_pages(__u32 count)
{
	char *addr = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (addr == MAP_FAILED)
		err(1, "mmap of %u pages", count);
	/* One huge page is pinned at once, which no set of grants can match. */
	if (madvise(addr, count * PAGE, MADV_NOHUGEPAGE) && errno != EINVAL)
		err(1, "MADV_NOHUGEPAGE");
	return addr;
}

#endif
