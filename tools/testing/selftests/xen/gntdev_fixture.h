/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of most gntdev tests: a few grants whose pages contain known
 * bytes, and an open gntdev device to map them with.
 *
 * A test must not leave anything behind.  Once its mappings and pins are gone,
 * the teardown checks that Xen has no mapping of these grants, that the
 * kernel's counters are back at their old values, that the pages contain the
 * bytes that the test expects, and that each grant can be mapped again.
 */
#ifndef XEN_GNTDEV_FIXTURE_H
#define XEN_GNTDEV_FIXTURE_H

#include "../kselftest_harness.h"
#include "gntdev_test.h"

#define NPAGES		8
#define SIZE		(NPAGES * PAGE)
/* Asynchronous work may take a moment to show its effect. */
#define AT_ONCE_MS	20
/* Limit for unmapping after the last unpin; some tests use a shorter one. */
#define SOON_MS		1000

struct situation {
	struct grants g;
	int fd;
	uint64_t index;
	char *addr;	/* SIZE bytes to unmap at the end, or NULL */
	char *want;	/* what the pages should hold */
	char *got;	/* room for SIZE bytes */
	long entries, waiting, retired;
};

static inline void situation_setup(struct __test_metadata *_metadata,
				   struct situation *s,
				   enum grant_source source)
{
	int i, ret;

	s->fd = -1;
	ret = grants_get(&s->g, source, NPAGES);
	if (ret > 0)
		SKIP(return, "no other domain's grants (XEN_TEST_GRANTS, DOMU)");
	ASSERT_EQ(0, ret)
		TH_LOG("no grants: %s", strerror(errno));

	s->want = pages_alloc(NPAGES);
	s->got = pages_alloc(NPAGES);
	ASSERT_NE(NULL, s->want);
	ASSERT_NE(NULL, s->got);
	fill_pages(s->want, NPAGES, now_us());
	for (i = 0; i < NPAGES; i++)
		ASSERT_EQ(0, grant_write(&s->g, i, s->want + i * PAGE))
			TH_LOG("ref %u: %s", s->g.ref[i], strerror(errno));

	/* Also creates the mappings for later checks, before any holes. */
	ASSERT_EQ(0, grants_in_use(&s->g, 0, NPAGES));

	s->entries = count_entries();
	s->waiting = count_waiting();
	s->retired = count_retired();
	s->fd = gntdev_open();
	ASSERT_LE(0, s->fd);
}

/* All pages, with one mmap(). */
static inline char *situation_map(struct situation *s, int prot)
{
	char *p = gntdev_map(s->fd, &s->g, 0, NPAGES, prot, &s->index);

	s->addr = p == MAP_FAILED ? NULL : p;
	return p;
}

/* Also delete the map object where that is what keeps the grants mapped. */
static inline int situation_unmap(struct situation *s)
{
	char *p = s->addr;
	int ret;

	s->addr = NULL;
	ret = munmap(p, SIZE);
	/* Fails if the test has already done so, or has closed the device. */
	if (!ret && auto_translated())
		gntdev_del(s->fd, s->index, NPAGES);
	return ret;
}

/* Older kernels do not register file-backed memory. */
static inline bool uring_registers(struct situation *s)
{
	bool registers = false;
	struct uring r;

	if (uring_open(&r))
		return false;
	if (situation_map(s, PROT_READ | PROT_WRITE) != MAP_FAILED) {
		registers = !uring_register(&r, s->addr, SIZE) ||
			    errno != EOPNOTSUPP;
		situation_unmap(s);
	}
	uring_close(&r);
	return registers;
}

/*
 * Is count() back at value, within SOON_MS?  It can be lower if an earlier
 * program left something behind: entries last for a grace period.
 */
static inline bool counter_returns(long (*count)(void), long value)
{
	uint64_t start = now_us();

	while (count() > value) {
		if (now_us() - start > SOON_MS * 1000ULL)
			return false;
		sleep_ms(1);
	}
	return true;
}

/* Do n more pages wait than at first?  (An unpatched kernel has no counter) */
static inline bool pages_wait(struct situation *s, int n)
{
	return s->waiting < 0 || count_waiting() == s->waiting + n;
}

/* Do pages [first, first + n) contain the expected bytes for their owner? */
static inline bool owner_sees(struct situation *s, int first, int n)
{
	int i;

	for (i = first; i < first + n; i++) {
		if (grant_read(&s->g, i, s->got + i * PAGE) ||
		    memcmp(s->got + i * PAGE, s->want + i * PAGE, PAGE))
			return false;
	}
	return true;
}

/* Does a mapping of pages [first, first + n) show the expected bytes? */
static inline bool mapping_shows(struct situation *s, const char *addr,
				 int first, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		if (touch((char *)addr + i * PAGE, false))
			return false;
	}
	return !memcmp(addr, s->want + first * PAGE, n * PAGE);
}

/* The same, and does a write to it reach the owner? */
static inline bool mapping_works(struct situation *s, char *addr, int first,
				 int n)
{
	int i;

	if (!mapping_shows(s, addr, first, n))
		return false;
	for (i = 0; i < n; i++) {
		if (touch(addr + i * PAGE, true))
			return false;
		addr[i * PAGE]++;
		s->want[(first + i) * PAGE]++;
	}
	return owner_sees(s, first, n);
}

static inline void situation_teardown(struct __test_metadata *_metadata,
				      struct situation *s)
{
	char *p;
	int fd;

	if (s->addr)
		munmap(s->addr, SIZE);
	if (s->fd >= 0)
		close(s->fd);

	EXPECT_LE(0, grants_wait_unused(&s->g, 2 * SOON_MS))
		TH_LOG("%d of %d grants are still mapped",
		       grants_in_use(&s->g, 0, s->g.n), s->g.n);
	EXPECT_TRUE(counter_returns(count_waiting, s->waiting))
		TH_LOG("%ld pages wait, were %ld", count_waiting(), s->waiting);
	EXPECT_TRUE(counter_returns(count_entries, s->entries))
		TH_LOG("%ld entries, were %ld", count_entries(), s->entries);
	EXPECT_EQ(s->retired, count_retired());
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("the pages do not hold what they should");

	fd = gntdev_open();
	p = gntdev_map(fd, &s->g, 0, NPAGES, PROT_READ | PROT_WRITE, NULL);
	EXPECT_NE(MAP_FAILED, p)
		TH_LOG("cannot be mapped again: %s", strerror(errno));
	if (p != MAP_FAILED) {
		EXPECT_TRUE(mapping_shows(s, p, 0, NPAGES));
		munmap(p, SIZE);
	}
	close(fd);
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
	EXPECT_TRUE(counter_returns(count_entries, s->entries));
	grants_put(&s->g);
}

#endif /* XEN_GNTDEV_FIXTURE_H */
