// SPDX-License-Identifier: GPL-2.0-only
/*
 * Many cycles of mapping, pinning, unmapping and unpinning do not leak.
 *
 *   gntdev_cycles COUNT own|foreign
 *
 * What should happen
 *
 *   After any number of cycles there are as many unmapped grants, free pages,
 *   override entries and slab objects as before.
 *
 * How the test makes it happen
 *
 *   Each cycle maps four grants.  By turns it pins a page and drops the pin
 *   before or after the mapping is removed, unmaps it in parts, drops it with
 *   MADV_DONTNEED, has a bad reference in the batch, or closes files that
 *   nothing was mapped from.  A tenth of the cycles runs first, to fill the
 *   kernel's caches; then the test starts to count.
 *
 * What a failure means
 *
 *   Something leaks on one of the ways to remove a mapping.  Grants, entries
 *   and pages are counted exactly; leaks of other memory are detected if more
 *   than one page or slab object is lost in ten cycles, since the rest of the
 *   system is active, too.
 */
#include "gntdev_test.h"

#include <dirent.h>

#define EACH	4
#define SETS	4

/* Objects of all caches; free ones in a CPU's list count as used. */
static long slab_objects(void)
{
	char line[256], name[64];
	long used, sum = 0;
	FILE *f;

	f = fopen("/proc/slabinfo", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %ld", name, &used) == 2 && *name != '#')
			sum += used;
	}
	fclose(f);
	return sum;
}

static long kib_of(const char *what)
{
	char line[256];
	long kb = -1;
	FILE *f;

	f = fopen("/proc/meminfo", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, what, strlen(what)))
			kb = atol(line + strlen(what));
	}
	fclose(f);
	return kb;
}

/* Address ranges that were hotplugged for pages to map grants into. */
static long pool_ranges(void)
{
	char line[256];
	long n = 0;
	FILE *f;

	f = fopen("/proc/iomem", "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f))
		n += !!strstr(line, "Xen scratch");
	fclose(f);
	return n;
}

struct counts {
	long entries, waiting, retired, slab, free_kb, ranges, mapped;
};

/* Objects in KASAN's quarantine count until their cache is shrunk. */
static void shrink_slabs(void)
{
	const char *dir = "/sys/kernel/slab";
	struct dirent *entry;
	char path[512];
	DIR *d = opendir(dir);

	while (d && (entry = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s/shrink", dir, entry->d_name);
		write_string(path, "1");
	}
	if (d)
		closedir(d);
}

static void take(struct counts *c, struct grants *g)
{
	long last;
	int i;

	/* Wait for deferred frees: grace periods, workers and the like. */
	c->free_kb = 0;
	for (i = 0; i < 10; i++) {
		last = c->free_kb;
		write_string("/proc/sys/vm/drop_caches", "3");
		sleep_ms(500);
		c->free_kb = kib_of("MemFree:");
		if (labs(c->free_kb - last) < 256)
			break;
	}
	c->entries = count_entries();
	c->waiting = count_waiting();
	c->retired = count_retired();
	c->mapped = grants_in_use(g, 0, g->n);
	shrink_slabs();
	c->ranges = pool_ranges();
	c->slab = slab_objects();
}

/* Worse by more than slack?  (1: if it grows; -1: if it shrinks; 0: both) */
static bool same(const char *what, long before, long after, int worse,
		 long slack)
{
	long lost = worse ? (after - before) * worse : labs(after - before);
	bool ok = lost <= slack;

	printf("# %-18s %9ld before %9ld after%s\n", what, before, after,
	       ok ? "" : "  <- differs");
	return ok;
}

static int close_unmapped(domid_t domid, uint32_t *ref)
{
	uint64_t index;
	int fd, i;

	for (i = 0; i < 4; i++) {
		fd = gntdev_open();
		if (fd < 0 || gntdev_add(fd, domid, ref, EACH, &index) || close(fd))
			return 9;
	}
	return 0;
}

static int cycle(int fd, struct grants *g, int i, char *want, char *buf)
{
	const uint32_t *from = g->ref + i % SETS * EACH;
	char *page = want + i % SETS * EACH * PAGE;
	struct iovec iov = { NULL, PAGE };
	uint32_t ref[EACH];
	int kind = i / SETS % 9, p[2];
	uint64_t index;
	char *addr;

	memcpy(ref, from, sizeof(ref));
	if (kind == 8)
		return close_unmapped(g->domid, ref);
	if (kind == 7)
		ref[2] = 0x3fffff;
	if (gntdev_add(fd, g->domid, ref, EACH, &index))
		return 1;
	addr = mmap(NULL, EACH * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		    index);
	if (kind == 7)
		return addr != MAP_FAILED || gntdev_del(fd, index, EACH);
	if (addr == MAP_FAILED)
		return 2;
	if (!kind)
		return munmap(addr, EACH * PAGE) || gntdev_del(fd, index, EACH);

	if (pipe(p))
		return 3;
	iov.iov_base = addr + PAGE;
	if (vmsplice(p[1], &iov, 1, 0) != PAGE)
		return 4;
	if (kind == 1 && read_all(p[0], buf, PAGE) != PAGE)
		return 5;
	switch (kind) {
	case 2:
		munmap(addr + PAGE, PAGE);
		munmap(addr, 2 * PAGE);
		munmap(addr + 2 * PAGE, 2 * PAGE);
		break;
	case 3:
		madvise(addr, 3 * PAGE, MADV_DONTNEED);
		munmap(addr, EACH * PAGE);
		break;
	case 4:
		gntdev_del(fd, index, EACH);
		munmap(addr, EACH * PAGE);
		break;
	default:
		munmap(addr, EACH * PAGE);
		break;
	}
	if (kind != 4 && gntdev_del(fd, index, EACH))
		return 6;
	if (kind != 1 && read_all(p[0], buf, PAGE) != PAGE)
		return 7;
	pipe_close(p);
	return memcmp(buf, page + PAGE, PAGE) ? 8 : 0;
}

int main(int argc, char **argv)
{
	struct counts before, after;
	char *want, *buf;
	int n, i, fd, ret = 0;
	struct grants g;
	bool good = true;

	n = argc == 3 ? atoi(argv[1]) : 0;
	if (n < 10 || (strcmp(argv[2], "own") && strcmp(argv[2], "foreign"))) {
		fprintf(stderr, "usage: %s COUNT own|foreign\n", argv[0]);
		return 2;
	}
	printf("TAP version 13\n1..1\n");
	fflush(stdout);
	if (pool_init(SETS * EACH) ||
	    grants_get(&g, strcmp(argv[2], "own") ? GRANTS_FOREIGN : GRANTS_OWN,
		       SETS * EACH)) {
		printf("not ok 1 cycles.%s # no grants\n", argv[2]);
		return 1;
	}
	want = pages_alloc(SETS * EACH);
	buf = pages_alloc(1);
	fill_pages(want, SETS * EACH, 3);
	for (i = 0; i < SETS * EACH; i++) {
		if (grant_write(&g, i, want + i * PAGE))
			return 1;
	}
	fd = gntdev_open();
	for (i = 0; i < n / 10 && !ret; i++)
		ret = cycle(fd, &g, i, want, buf);
	grants_wait_unused(&g, 5000);
	take(&before, &g);
	for (i = 0; i < n && !ret; i++)
		ret = cycle(fd, &g, i, want, buf);
	if (ret) {
		printf("# cycle %d failed at step %d: %s\n", i, ret,
		       strerror(errno));
		good = false;
	}
	grants_wait_unused(&g, 5000);
	take(&after, &g);
	good &= same("override entries", before.entries, after.entries, 0, 0);
	good &= same("waiting pages", before.waiting, after.waiting, 0, 0);
	good &= same("retired pages", before.retired, after.retired, 0, 0);
	good &= same("mapped grants", before.mapped, after.mapped, 0, 0);
	good &= same("address ranges", before.ranges, after.ranges, 0, 0);
	good &= same("slab objects", before.slab, after.slab, 1, n / 10 + 1000);
	good &= same("free memory, KiB", before.free_kb, after.free_kb, -1,
		     n / 10 * 4 + 4096);
	close(fd);
	grants_put(&g);
	printf("%sok 1 cycles.%s\n", good ? "" : "not ", argv[2]);
	return !good;
}
