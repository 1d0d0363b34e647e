// SPDX-License-Identifier: GPL-2.0-only
/*
 * Xen runs out of handles in the middle of a batch.
 *
 * What should happen
 *
 *   Xen keeps a table of a domain's mappings, of a size that its command line
 *   limits (gnttab_max_maptrack_frames=).  A mapping that does not fit fails as
 *   a whole: mmap() fails with ENOSPC, none of its grants stays mapped, and
 *   existing mappings are unchanged.  Once there is room, the same map object
 *   can be mapped.
 *
 * How the test makes it happen
 *
 *   It maps own grants, 64 at a time, until one mapping fails, unmaps one that
 *   succeeded, and tries the failed one again.
 *
 * What a failure means
 *
 *   Another errno: a user cannot tell a full table from a wrong argument.
 *   Grants that stay mapped: handles leak, and the table stays full.
 */
#include "../kselftest_harness.h"
#include "gntdev_test.h"

#define EACH	64
/* If more mappings than this succeed, the table is not small. */
#define MOST	64

TEST(a_full_table_maps_nothing_and_loses_nothing)
{
	static struct grants g, more;
	uint64_t index[MOST];
	char *addr[MOST];
	int fd, n, i;

	ASSERT_EQ(0, grants_get(&g, GRANTS_OWN, EACH));
	ASSERT_EQ(0, grants_get(&more, GRANTS_OWN, EACH));
	fd = gntdev_open();
	ASSERT_LE(0, fd);

	for (n = 0; n < MOST; n++) {
		ASSERT_EQ(0, gntdev_add(fd, g.domid, n ? more.ref : g.ref,
					EACH, &index[n]));
		addr[n] = mmap(NULL, EACH * PAGE, PROT_READ | PROT_WRITE,
			       MAP_SHARED, fd, index[n]);
		if (addr[n] == MAP_FAILED)
			break;
	}
	EXPECT_EQ(ENOSPC, errno);
	ASSERT_LT(0, n);
	ASSERT_GT(MOST, n)
		TH_LOG("the table is not full; boot with gnttab_max_maptrack_frames=2");

	/* Repeated failures leak no handles: a failed mmap() releases all. */
	for (i = 0; i < 200; i++) {
		char *p = mmap(NULL, EACH * PAGE, PROT_READ | PROT_WRITE,
			       MAP_SHARED, fd, index[n]);

		ASSERT_EQ(MAP_FAILED, p);
		ASSERT_EQ(ENOSPC, errno);
	}

	/* Existing mappings still work. */
	for (i = 0; i < n; i++) {
		addr[i][5]++;
		EXPECT_EQ(0, touch(addr[i] + (EACH - 1) * PAGE, true));
	}

	ASSERT_EQ(0, munmap(addr[0], EACH * PAGE));
	EXPECT_EQ(0, grants_in_use(&g, 0, EACH));
	addr[n] = mmap(NULL, EACH * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		       fd, index[n]);
	EXPECT_NE(MAP_FAILED, addr[n])
		TH_LOG("again: %s", strerror(errno));
	for (i = 1; i <= n; i++) {
		if (addr[i] != MAP_FAILED)
			munmap(addr[i], EACH * PAGE);
	}
	close(fd);
	EXPECT_LE(0, grants_wait_unused(&g, 1000));
	EXPECT_LE(0, grants_wait_unused(&more, 1000));
	grants_put(&g);
	grants_put(&more);
}

int main(int argc, char **argv)
{
	if (pool_init(1))
		return KSFT_FAIL;
	return test_harness_run(argc, argv);
}
