// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holds granted pages in pipes after unmapping them.
 *
 *   gntdev_hold SECONDS COUNT [mapped]
 *
 * maps COUNT grants (another domain's if set in the environment, see
 * gntdev_test.h, else own ones), puts them into pipes, unmaps them, prints
 * "held COUNT", sleeps, reads the pipes, prints "released", and waits for the
 * pages to be unmapped: the exit status is 0 if all bytes were right and no
 * page is left waiting after a while.  With "mapped" they are unmapped only
 * after the sleep.
 *
 * Used to measure the cost of waiting pages, and to destroy their domain.
 */
#include "gntdev_test.h"

#include <sys/resource.h>

#define PER_PIPE	16

int main(int argc, char **argv)
{
	struct rlimit files = { 16384, 16384 };
	int count, seconds, fd, i, n, bad = 0;
	bool mapped;
	uint64_t index, start;
	int (*pipes)[2];
	uint32_t *ref;
	char *addr, *want;
	long waiting;

	mapped = argc == 4 && !strcmp(argv[3], "mapped");
	count = argc > 2 ? atoi(argv[2]) : 0;
	if (argc > 3 + mapped || count < 1 || count > 65536) {
		fprintf(stderr, "usage: %s SECONDS COUNT [mapped]\n", argv[0]);
		return 2;
	}
	seconds = atoi(argv[1]);
	setrlimit(RLIMIT_NOFILE, &files);
	if (pool_init(count > POOL_MAX ? POOL_MAX : count))
		return 2;

	ref = calloc(count, sizeof(*ref));
	want = pages_alloc(count);
	pipes = calloc(count / PER_PIPE + 1, sizeof(*pipes));
	if (!ref || !want || !pipes)
		return 2;
	if (!grant_pool->n) {
		struct grants g;

		/*
		 * One page mapped many times counts as many pages; Xen permits
		 * 127 mappings of a grant, and each page takes two.
		 */
		grant_pool->domid = own_domid();
		if (grants_get(&g, GRANTS_OWN, count < GRANTS_MAX ? count : GRANTS_MAX)) {
			perror("gntalloc");
			return 2;
		}
		memcpy(grant_pool->ref, g.ref, g.n * sizeof(uint32_t));
		grant_pool->n = g.n;
	}
	for (i = 0; i < count; i++)
		ref[i] = grant_pool->ref[i % grant_pool->n];

	waiting = count_waiting();
	fd = gntdev_open();
	if (gntdev_add(fd, grant_pool->domid, ref, count, &index)) {
		perror("IOCTL_GNTDEV_MAP_GRANT_REF");
		return 2;
	}
	addr = mmap(NULL, count * PAGE, PROT_READ, MAP_SHARED, fd, index);
	if (addr == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	memcpy(want, addr, count * PAGE);
	for (i = 0; i < count; i += n) {
		n = count - i < PER_PIPE ? count - i : PER_PIPE;
		if (pipe_pin(pipes[i / PER_PIPE], addr + i * PAGE, n * PAGE)) {
			perror("vmsplice");
			return 2;
		}
	}
	if (!mapped) {
		munmap(addr, count * PAGE);
		close(fd);
	}
	printf("held %d\n", count);
	fflush(stdout);
	sleep_ms(seconds * 1000);

	if (mapped) {
		munmap(addr, count * PAGE);
		close(fd);
	}
	start = now_us();
	for (i = 0; i < count; i += n) {
		n = count - i < PER_PIPE ? count - i : PER_PIPE;
		bad += !pipe_has(pipes[i / PER_PIPE], want + i * PAGE,
				 n * PAGE);
	}
	printf("released\n");
	fflush(stdout);
	while (count_waiting() > waiting &&
	       now_us() - start < 1000000 + count * 1000ULL)
		sleep_ms(1);
	printf("gone after %llu ms, %ld wait, %d pipes bad\n",
	       (unsigned long long)(now_us() - start) / 1000, count_waiting(),
	       bad);
	return bad || count_waiting() > waiting;
}
