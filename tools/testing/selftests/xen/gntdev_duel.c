// SPDX-License-Identifier: GPL-2.0-only
/*
 * One thread unmaps a mapping while another one takes references to its pages.
 *
 *   gntdev_duel SECONDS own|foreign
 *
 * What should happen
 *
 *   One thread maps grants and unmaps them again, by munmap() or by
 *   MADV_DONTNEED, as fast as it can.  The other splices these addresses into a
 *   pipe, as fast as it can, and reads them back.  Either it comes too late and
 *   gets EFAULT, or it gets the bytes of the pages, and they stay valid.
 *
 * How the test checks it
 *
 *   Each page contains unique bytes, which are compared.  Neither thread ever
 *   sleeps, so that they hit the few hundred instructions in which a page's
 *   count is frozen and its PTE is cleared.  gntdev_race does much more at the
 *   same time, and so hits them too rarely.
 *
 *   Before that the test makes the kernel add memory to map into, first a page
 *   and then more than fits below the frames of other domains, which are in a
 *   hole of this domain's memory.  So these frames have no struct page, but all
 *   memory around them has: code that uses such a frame as a pfn gets a page
 *   fault.
 *
 * What a failure means
 *
 *   Lost data, or data of another page: a reference was taken to a page that
 *   was being unmapped.  A warning of try_grab_folio(): the slow path of
 *   get_user_pages() saw a frozen page, although the page table lock should
 *   have made it wait.
 */
#include "../kselftest.h"
#include "gntdev_test.h"

#include <pthread.h>
#include <stdatomic.h>

#define NPAGES	8
#define SIZE	(NPAGES * PAGE)

static struct grants g;
static char *window, *want, *got;
static atomic_bool stop;
static unsigned long maps, late, done;

static bool surround_foreign_frames(void)
{
	const int many = 65536;
	uint32_t *ref = calloc(many, sizeof(*ref));
	int fd = gntdev_open();
	uint64_t index;
	bool done;

	done = ref && fd >= 0 && !gntdev_add(fd, g.domid, ref, 1, &index) &&
	       !gntdev_add(fd, g.domid, ref, many, &index);
	free(ref);
	if (fd >= 0)
		close(fd);
	return done;
}

/* Returns what went wrong, or NULL. */
static void *mapper(void *arg)
{
	int fd = gntdev_open();
	uint64_t index;

	for (; !stop; maps++) {
		if (gntdev_add(fd, g.domid, g.ref, NPAGES, &index))
			return "no map object";
		if (mmap(window, SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, index) != window)
			return "no mapping";
		/* With mmap_lock held for writing, and for reading. */
		if (maps % 2 ? munmap(window, SIZE) :
		    madvise(window, SIZE, MADV_DONTNEED))
			return "cannot remove the mapping";
		if (gntdev_del(fd, index, NPAGES))
			return "cannot delete the map object";
	}
	close(fd);
	return NULL;
}

static void *splicer(void *arg)
{
	struct iovec iov = { window, SIZE };
	int p[2];
	long n;

	if (pipe(p))
		return "no pipe";
	while (!stop) {
		n = vmsplice(p[1], &iov, 1, SPLICE_F_NONBLOCK);
		if (n <= 0) {
			late++;
			continue;
		}
		if (read_all(p[0], got, n) != n)
			return "a pipe's data is lost";
		if (memcmp(got, want, n))
			return "a pipe's data is wrong";
		done++;
	}
	pipe_close(p);
	return NULL;
}

int main(int argc, char **argv)
{
	static void *(*const run[])(void *) = { mapper, splicer };
	const char *why[ARRAY_SIZE(run)] = { NULL };
	pthread_t thread[ARRAY_SIZE(run)];
	bool good = true;
	size_t i;

	if (argc != 3 || (strcmp(argv[2], "own") && strcmp(argv[2], "foreign"))) {
		fprintf(stderr, "usage: %s SECONDS own|foreign\n", argv[0]);
		return 2;
	}
	printf("TAP version 13\n1..1\n");
	fflush(stdout);
	if (pool_init(NPAGES) ||
	    grants_get(&g, strcmp(argv[2], "own") ? GRANTS_FOREIGN : GRANTS_OWN,
		       NPAGES)) {
		printf("not ok 1 duel.%s # no grants\n", argv[2]);
		return 1;
	}
	if (!surround_foreign_frames()) {
		printf("not ok 1 duel.%s # no memory to map over\n", argv[2]);
		return 1;
	}
	want = pages_alloc(NPAGES);
	got = pages_alloc(NPAGES);
	fill_pages(want, NPAGES, now_us());
	for (i = 0; i < NPAGES; i++) {
		if (grant_write(&g, i, want + i * PAGE)) {
			printf("not ok 1 duel.%s # cannot fill a page\n", argv[2]);
			return 1;
		}
	}
	/*
	 * At an address that no library uses, so that holes stay holes.  The
	 * neighbour keeps the page table allocated: with a new table
	 * get_user_pages() would notice that its PTE has been mapped again.
	 */
	window = (char *)0x100000000000UL;
	if (mmap(window + SIZE, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE,
		 -1, 0) == MAP_FAILED) {
		printf("not ok 1 duel.%s # no neighbour\n", argv[2]);
		return 1;
	}

	for (i = 0; i < ARRAY_SIZE(run); i++)
		pthread_create(&thread[i], NULL, run[i], NULL);
	sleep_ms(atoi(argv[1]) * 1000);
	stop = true;
	for (i = 0; i < ARRAY_SIZE(run); i++) {
		pthread_join(thread[i], (void **)&why[i]);
		if (why[i]) {
			printf("# %s\n", why[i]);
			good = false;
		}
	}
	munmap(window, SIZE);
	printf("# %lu maps, %lu times in time, %lu times late\n", maps, done, late);
	if (!done || !late) {
		printf("# the threads never collided\n");
		good = false;
	}
	if (grants_wait_unused(&g, 5000) < 0) {
		printf("# grants are still mapped\n");
		good = false;
	}
	grants_put(&g);
	printf("%sok 1 duel.%s\n", good ? "" : "not ", argv[2]);
	return !good;
}
