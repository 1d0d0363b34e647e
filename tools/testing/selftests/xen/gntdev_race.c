// SPDX-License-Identifier: GPL-2.0-only
/*
 * Concurrent mapping, unmapping and I/O on the same addresses.
 *
 *   gntdev_race SECONDS own|foreign
 *
 * What should happen
 *
 *   Two threads map and unmap grants in two windows of addresses, another one
 *   unmaps parts of them in every possible way, and four threads pass these
 *   addresses to the kernel: to pipes, to O_DIRECT, to io_uring's registered
 *   buffers, to /proc/self/mem.  One more starts processes that map and splice,
 *   and kills them.  I/O that comes too late for a mapping gets EFAULT.  I/O
 *   that succeeds gets the bytes of a page that was mapped there, all of them
 *   of one page.
 *
 * How the test checks it
 *
 *   Each page contains a pattern with its number, and is never changed.  All
 *   bytes that any I/O returns are compared with the pattern of the page whose
 *   number they contain.  Only the threads that map grants use mmap(), so that
 *   nothing else can be mapped in the windows.  At the end no grant may be
 *   mapped, no page may wait, and each page must contain its pattern.  A kind
 *   of I/O that never succeeded has tested nothing, and fails the test.
 *
 * What a failure means
 *
 *   I/O found the wrong page, or one that was being freed: look at the code
 *   that closes the race between a lockless page table walk and the unmapping
 *   of the page.
 */
#include "../kselftest.h"
#include "gntdev_test.h"

#include <pthread.h>
#include <stdatomic.h>

#define WINDOWS		2
#define WPAGES		8
#define WSIZE		(WPAGES * PAGE)
#define SETS		3		/* the last one is the victims' */
#define NGRANTS		(SETS * WPAGES)

enum kind {
	K_MAP, K_SPLIT, K_SPLICE, K_DIRECT, K_URING, K_MEM, K_KILL, KINDS
};

static const char * const kind_name[KINDS] = {
	"map", "split", "vmsplice", "direct", "io_uring", "mem", "kill",
};

static struct grants g;
static char *window[WINDOWS];
static char *pattern;	/* NGRANTS pages */
static int map_fd[WINDOWS];
static atomic_bool stop;
static atomic_ulong done[KINDS], late[KINDS], wrong;

static unsigned int rnd(unsigned int *seed, unsigned int below)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 17;
	*seed ^= *seed << 5;
	return *seed % below;
}

static void nap(unsigned int *seed)
{
	unsigned int us = rnd(seed, 8) ? rnd(seed, 200) : rnd(seed, 3000);
	struct timespec ts = { 0, us * 1000L };

	nanosleep(&ts, NULL);
}

/* Check that each page is, as a whole, one of the numbered pages. */
static void check(enum kind kind, const char *buf, size_t len)
{
	size_t i;

	for (i = 0; i + PAGE <= len; i += PAGE) {
		const uint64_t *head = (const uint64_t *)(buf + i);

		if (is_numbered_page(head, pattern, NGRANTS))
			continue;
		if (!atomic_fetch_add(&wrong, 1))
			printf("# %s: page %zu of %zu is wrong: %#llx %llu\n",
			       kind_name[kind], i / PAGE, len / PAGE,
			       (unsigned long long)head[0],
			       (unsigned long long)head[1]);
	}
}

static void count(enum kind kind, long ret)
{
	atomic_fetch_add(ret > 0 ? &done[kind] : &late[kind], 1);
}

/* Some pages of some window. */
static char *somewhere(unsigned int *seed, size_t *len)
{
	unsigned int first = rnd(seed, WPAGES);

	*len = (1 + rnd(seed, WPAGES - first)) * PAGE;
	return window[rnd(seed, WINDOWS)] + first * PAGE;
}

static void *mapper(void *arg)
{
	long w = (long)arg;
	unsigned int seed = 100 + w;

	while (!stop) {
		unsigned int set = rnd(&seed, SETS - 1);
		int prot = rnd(&seed, 4) ? PROT_READ | PROT_WRITE : PROT_READ;
		uint64_t index;
		char *p;

		if (gntdev_add(map_fd[w], g.domid, g.ref + set * WPAGES, WPAGES,
			       &index)) {
			count(K_MAP, -1);
			continue;
		}
		p = mmap(window[w], WSIZE, prot, MAP_SHARED | MAP_FIXED,
			 map_fd[w], index);
		count(K_MAP, p == window[w]);
		nap(&seed);
		switch (rnd(&seed, 3)) {
		case 0:
			munmap(window[w], WSIZE);
			break;
		case 1:
			mmap(window[w], WSIZE, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		default:
			/* The next mapping replaces it. */
			break;
		}
		gntdev_del(map_fd[w], index, WPAGES);
	}
	return NULL;
}

static void *splitter(void *arg)
{
	unsigned int seed = 200;
	size_t len;
	char *p;

	while (!stop) {
		p = somewhere(&seed, &len);
		switch (rnd(&seed, 8)) {
		case 0:
		case 1:
		case 2:
			count(K_SPLIT, !munmap(p, len));
			break;
		case 3:
		case 4:
			count(K_SPLIT, !madvise(p, len, MADV_DONTNEED));
			break;
		case 5:
			mmap(p, PAGE, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		case 6:
			/* Fails, or nothing is mapped. */
			mprotect(p, len, PROT_NONE);
			break;
		default:
			if (!rnd(&seed, 8))
				write_string("/proc/self/clear_refs",
					     rnd(&seed, 2) ? "1" : "4");
			break;
		}
		nap(&seed);
	}
	return NULL;
}

static void *splicer(void *arg)
{
	char *buf = arg;
	unsigned int seed = 300;
	struct iovec iov;
	int p[2];
	long n;

	if (pipe(p))
		return "pipe";
	while (!stop) {
		iov.iov_base = somewhere(&seed, &iov.iov_len);
		n = vmsplice(p[1], &iov, 1, SPLICE_F_NONBLOCK);
		count(K_SPLICE, n);
		if (n <= 0) {
			sched_yield();
			continue;
		}
		nap(&seed);
		if (read_all(p[0], buf, n) != n)
			return "a pipe's data is lost";
		check(K_SPLICE, buf, n);
	}
	pipe_close(p);
	return NULL;
}

static void *direct_writer(void *arg)
{
	int disk = disk_open(O_DIRECT);
	unsigned int seed = 400;
	char *buf = arg, *p;
	size_t len;
	long n;

	if (disk < 0)
		return "no disk";
	while (!stop) {
		p = somewhere(&seed, &len);
		n = pwrite(disk, p, len, 0);
		count(K_DIRECT, n);
		if (n <= 0) {
			sched_yield();
			continue;
		}
		if (pread(disk, buf, n, 0) != n)
			return "cannot read the disk";
		check(K_DIRECT, buf, n);
	}
	close(disk);
	return NULL;
}

static struct uring ring;

static void *uring_writer(void *arg)
{
	const uint64_t offset = 1 << 20;
	int disk = disk_open(O_DIRECT);
	unsigned int seed = 500;
	char *buf = arg, *p;
	size_t len;
	long n;

	if (disk < 0)
		return "no disk";
	while (!stop) {
		p = somewhere(&seed, &len);
		if (uring_register(&ring, p, len)) {
			count(K_URING, -1);
			sched_yield();
			continue;
		}
		nap(&seed);
		n = uring_io(&ring, IORING_OP_WRITE_FIXED, disk, p, len,
			     offset);
		if (n != (long)len)
			return "a registered buffer's data is lost";
		if (pread(disk, buf, len, offset) != (long)len)
			return "cannot read the disk";
		check(K_URING, buf, len);
		count(K_URING, n);
		if (uring_unregister(&ring))
			return "cannot unregister";
	}
	close(disk);
	return NULL;
}

static void *mem_reader(void *arg)
{
	unsigned int seed = 600;
	int fd = open("/proc/self/mem", O_RDONLY);
	char *buf = arg;
	size_t len;
	long n;

	while (!stop) {
		n = pread(fd, buf, PAGE, (uintptr_t)somewhere(&seed, &len));
		/* A forced read: memory without access reads as zeros. */
		if (n == (long)PAGE && !buf[0] && !memcmp(buf, buf + 1, PAGE - 1))
			n = 0;
		count(K_MEM, n);
		if (n > 0)
			check(K_MEM, buf, n);
		nap(&seed);
	}
	close(fd);
	return NULL;
}

/* The victim maps, splices and unmaps until it is killed. */
static void victim(int out)
{
	const uint32_t *ref = g.ref + (SETS - 1) * WPAGES;
	struct iovec iov = { NULL, WSIZE };
	int fd = gntdev_open();
	uint64_t index;

	for (;;) {
		if (gntdev_add(fd, g.domid, ref, WPAGES, &index))
			_exit(1);
		iov.iov_base = mmap(NULL, WSIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED, fd, index);
		if (iov.iov_base == MAP_FAILED)
			_exit(2);
		if (vmsplice(out, &iov, 1, 0) <= 0)
			_exit(3);
		munmap(iov.iov_base, WSIZE);
		gntdev_del(fd, index, WPAGES);
	}
}

static void *killer(void *arg)
{
	unsigned int seed = 700;
	char *buf = arg;
	int p[2];
	pid_t pid;
	long n;

	while (!stop) {
		if (pipe(p))
			return "pipe";
		pid = fork();
		if (pid < 0)
			return "fork";
		if (!pid)
			victim(p[1]);
		close(p[1]);
		nap(&seed);
		n = read_all(p[0], buf, WSIZE);
		nap(&seed);
		kill(pid, SIGKILL);
		if (wait_child(pid, 20000) < 0)
			return "a killed process does not go";
		if (n == (long)WSIZE)
			check(K_KILL, buf, n);
		/* The data that it left in the pipe is right as well. */
		while ((n = read_all(p[0], buf, PAGE)) > 0)
			check(K_KILL, buf, n);
		count(K_KILL, 1);
		close(p[0]);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static void *(*const other[])(void *) = {
		splitter, splicer, direct_writer, uring_writer, mem_reader,
		killer,
	};
	enum { OTHERS = ARRAY_SIZE(other) };
	pthread_t thread[WINDOWS + OTHERS];
	enum grant_source source;
	long waiting, entries, i;
	bool good = true;
	char *pages;
	void *ret;
	int left;

	if (argc != 3 || (strcmp(argv[2], "own") && strcmp(argv[2], "foreign"))) {
		fprintf(stderr, "usage: %s SECONDS own|foreign\n", argv[0]);
		return 2;
	}
	source = strcmp(argv[2], "own") ? GRANTS_FOREIGN : GRANTS_OWN;
	printf("TAP version 13\n1..1\n");
	fflush(stdout);
	if (pool_init(NGRANTS) || grants_get(&g, source, NGRANTS)) {
		printf("not ok 1 race.%s # no grants\n", argv[2]);
		return 1;
	}
	pages = pages_alloc(NGRANTS + OTHERS * WPAGES);
	pattern = pages;
	for (i = 0; i < NGRANTS; i++) {
		fill_numbered_page(pattern + i * PAGE, i);
		if (grant_write(&g, i, pattern + i * PAGE)) {
			printf("not ok 1 race.%s # cannot fill a page\n",
			       argv[2]);
			return 1;
		}
	}
	for (i = 0; i < WINDOWS; i++) {
		window[i] = mmap(NULL, WSIZE, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		map_fd[i] = gntdev_open();
	}
	if (uring_open(&ring)) {
		printf("not ok 1 race.%s # no io_uring\n", argv[2]);
		return 1;
	}
	waiting = count_waiting();
	entries = count_entries();

	/* Allocate the stacks before there are holes for them. */
	for (i = OTHERS - 1; i >= 0; i--)
		pthread_create(&thread[WINDOWS + i], NULL, other[i],
			       pages + (NGRANTS + i * WPAGES) * PAGE);
	for (i = 0; i < WINDOWS; i++)
		pthread_create(&thread[i], NULL, mapper, (void *)i);
	sleep_ms(atoi(argv[1]) * 1000);
	stop = true;
	for (i = 0; i < WINDOWS + OTHERS; i++) {
		pthread_join(thread[i], &ret);
		if (ret) {
			printf("# %s\n", (char *)ret);
			good = false;
		}
	}
	for (i = 0; i < WINDOWS; i++) {
		munmap(window[i], WSIZE);
		close(map_fd[i]);
	}
	uring_close(&ring);

	for (i = 0; i < KINDS; i++) {
		printf("# %-9s %8lu done %8lu came late\n", kind_name[i],
		       done[i], late[i]);
		if (!done[i]) {
			printf("# %s never succeeded\n", kind_name[i]);
			good = false;
		}
	}
	if (wrong) {
		printf("# %lu pages were wrong\n", wrong);
		good = false;
	}
	if (grants_wait_unused(&g, 5000) < 0) {
		left = grants_in_use(&g, 0, NGRANTS);
		printf("# %d grants are still mapped\n", left);
		good = false;
	}
	/* Entries last for a grace period. */
	for (i = 0; i < 50 && (count_waiting() > waiting || count_entries() > entries); i++)
		sleep_ms(100);
	if (i == 50) {
		printf("# waiting %ld, was %ld; entries %ld, were %ld\n",
		       count_waiting(), waiting, count_entries(), entries);
		good = false;
	}
	for (i = 0; i < NGRANTS; i++) {
		/* The threads' buffers are free by now. */
		if (grant_read(&g, i, pages + NGRANTS * PAGE) ||
		    memcmp(pages + NGRANTS * PAGE, pattern + i * PAGE, PAGE)) {
			printf("# page %ld was changed\n", i);
			good = false;
		}
	}
	grants_put(&g);
	printf("%sok 1 race.%s\n", good ? "" : "not ", argv[2]);
	return !good;
}
