// SPDX-License-Identifier: GPL-2.0-only
/*
 * What mapping, unmapping and I/O cost: the part of scripts/bench in dom0.
 *
 *   bench ROWS DISK DOMID REF...
 *
 * Does each piece of work several times, between marks that the plugin
 * count-insns.c sees, and prints a line for each time that a count is done:
 *
 *   ROW PAGES WHOSE TIMES NANOSECONDS
 *
 * the work was done TIMES times with so many PAGES; under the instruction clock
 * the NANOSECONDS are instructions.  "own" pages are granted by dom0 to itself,
 * "foreign" ones are those of the command line, "anonymous" ones not granted at
 * all.  ROWS is a list of rows, with commas; "" means all.  DISK is written to.
 */
#include "../host/bench-marks.h"
#include "grant-map.h"

#include <libaio.h>
#include <liburing.h>
#include <stdbool.h>
#include <time.h>
#include <xen/gntalloc.h>

/* mm/gup_test.h is not among the kernel's headers for user space. */
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

#define PIN_FAST_BENCHMARK	_IOWR('g', 2, struct gup_test)
#define FOLL_WRITE		0x01	/* <linux/mm_types.h> */

/* Xen's; the kernel's header for user space takes it from there. */
#ifndef GNTCOPY_source_gref
#define GNTCOPY_source_gref	0x01
#endif

#define REPEAT		5
#define PAGES_MAX	1024
#define MANY_MAPS	10000

/* A kernel of the series has this. */
#define WAITING_PAGES	"/sys/kernel/debug/xen-grants/waiting"

#define SIZES		6
static const unsigned int sizes[SIZES] = { 1, 11, 32, 128, 256, PAGES_MAX };
static const char *only;

struct pages {
	const char *whose;
	struct grants g;
};

static struct pages own = { .whose = "own", .g.domid = 0 };
static struct pages foreign = { .whose = "foreign" };
static struct pages anonymous = { .whose = "anonymous" };

static bool wanted(const char *row)
{
	size_t len = strlen(row);

	for (const char *p = only; (p = strstr(p, row)); p += len)
		if ((p == only || p[-1] == ',') && (!p[len] || p[len] == ','))
			return true;
	return !*only;
}

static __u64 now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

struct work {
	const char *row;
	const char *group;	/* -r takes this, too */
	unsigned int times;
	void (*before)(void *data);
	void (*once)(void *data);
	void (*after)(void *data);
};

static __u64 work_between_marks(const struct work *work, unsigned int times, void *data)
{
	__u64 start, time;

	if (work->before)
		work->before(data);
	mark('b');
	start = now();
	while (times--)
		work->once(data);
	time = now() - start;
	mark('e');
	if (work->after)
		work->after(data);
	return time;
}

/* The first repetition, which finds caches cold, does not count. */
static void measure(const struct work *work, unsigned int pages, const char *whose,
		    void *data)
{
	/* What comes before and after the work is not to be counted with it. */
	unsigned int at_once = work->before || work->after ? 1 : work->times;
	__u64 time;

	if (!wanted(work->row) && !(work->group && wanted(work->group)))
		return;
	for (int i = 0; i <= REPEAT; i++) {
		time = 0;
		for (unsigned int k = 0; k < work->times; k += at_once)
			time += work_between_marks(work, at_once, data);
		mark('d');
		printf("%s\t%u\t%s\t%u\t%llu%s\n", work->row, pages, whose, work->times,
		       (unsigned long long)time, i ? "" : "\twarm-up");
	}
	fflush(stdout);
}

/* ------------------------------------------------------------------ */
/* Mapping */

struct mapping {
	struct ioctl_gntdev_map_grant_ref *op;
	unsigned int count;
	int fd;
	char *addr;
	int pipe[2];
};

static struct mapping mapping_of(const struct pages *pages, unsigned int count)
{
	return (struct mapping){
		.count = count,
		.fd = must_open("/dev/xen/gntdev", O_RDWR),
		.op = map_op(&pages->g, count),
	};
}

static void mapping_free(struct mapping *m)
{
	close(m->fd);
	free(m->op);
}

/*
 * Maps are made at the same place, where a page table begins.  A page behind
 * keeps the table, and others keep those above it, whatever comes and goes.
 */
#define ARENA		((char *)0x200000000000)
#define ARENA_PAGES	512

static void reserve_arena(void)
{
	char *addr = mmap(ARENA + (ARENA_PAGES - 1) * PAGE, PAGE,
			  PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
			  MAP_POPULATE | MAP_FIXED_NOREPLACE, -1, 0);

	if (addr == MAP_FAILED)
		err(2, "mmap of the arena");
}

static void map(void *data)
{
	struct mapping *m = data;

	m->op->count = m->count;
	if (ioctl(m->fd, IOCTL_GNTDEV_MAP_GRANT_REF, m->op))
		err(2, "IOCTL_GNTDEV_MAP_GRANT_REF of %u pages", m->count);
	m->addr = mmap(m->count < ARENA_PAGES ? ARENA : NULL, m->count * PAGE,
		       PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, m->op->index);
	if (m->addr == MAP_FAILED)
		err(2, "mmap of %u granted pages", m->count);
}

static void unmap(void *data)
{
	struct mapping *m = data;

	if (munmap(m->addr, m->count * PAGE))
		err(2, "munmap");
}

static void forget(void *data)
{
	struct mapping *m = data;
	struct ioctl_gntdev_unmap_grant_ref op = {
		.index = m->op->index, .count = m->count,
	};

	if (ioctl(m->fd, IOCTL_GNTDEV_UNMAP_GRANT_REF, &op))
		err(2, "IOCTL_GNTDEV_UNMAP_GRANT_REF");
}

static void cycle(void *data)
{
	map(data);
	unmap(data);
	forget(data);
}

static void measure_cycles(const struct pages *pages, unsigned int count)
{
	struct mapping m = mapping_of(pages, count);
	/* Long enough for a clock tick not to matter. */
	struct work work = { .row = "cycle", .times = 1 + 2000 / count, .once = cycle };

	measure(&work, count, pages->whose, &m);
	mapping_free(&m);
}

/* Maps that were made and are not mapped: the file has them in its list. */
static void measure_many_maps(void)
{
	struct mapping m = mapping_of(&foreign, 11), one = mapping_of(&foreign, 1);
	struct work work = { .row = "cycle-many-maps", .times = 180, .once = cycle };
	unsigned int i;

	close(one.fd);
	one.fd = m.fd;
	for (i = 0; i < MANY_MAPS; i++) {
		one.op->count = 1;
		if (ioctl(one.fd, IOCTL_GNTDEV_MAP_GRANT_REF, one.op))
			err(2, "map number %u", i);
	}
	measure(&work, m.count, foreign.whose, &m);
	mapping_free(&m);
	free(one.op);
}

/* One page stays in a pipe. */
static void map_and_pin(void *data)
{
	struct mapping *m = data;
	struct iovec v = { .iov_len = PAGE };

	map(m);
	v.iov_base = m->addr + 100 * PAGE;
	if (pipe(m->pipe) || vmsplice(m->pipe[1], &v, 1, 0) != (ssize_t)PAGE)
		err(2, "vmsplice");
}

static void let_go(void *data)
{
	struct mapping *m = data;

	close(m->pipe[0]);
	close(m->pipe[1]);
	forget(m);
	usleep(100000);
}

static void measure_unmap(const struct work *work, const struct pages *pages)
{
	struct mapping m = mapping_of(pages, 256);

	measure(work, m.count, pages->whose, &m);
	mapping_free(&m);
}

/* ------------------------------------------------------------------ */
/* Memory that stays mapped */

static char *memory_of(const struct pages *pages, unsigned int count)
{
	unsigned int i;
	char *addr;

	if (pages != &anonymous)
		return grants_map(&pages->g, count);
	addr = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	if (addr == MAP_FAILED)
		err(1, "mmap of %u pages", count);
	/* One huge page is pinned at once, which no set of grants can match. */
	if (madvise(addr, count * PAGE, MADV_NOHUGEPAGE) && errno != EINVAL)
		err(1, "MADV_NOHUGEPAGE");
	/* Out of order: neighbours among the frames make fewer, longer segments. */
	for (i = 0; i < count; i++)
		memset(addr + (i * 7 + 3) % count * PAGE, 1, PAGE);
	return addr;
}

struct pin {
	int fd;
	struct gup_test op;
};

static void pin(void *data)
{
	struct pin *p = data;
	struct gup_test op = p->op;

	if (ioctl(p->fd, PIN_FAST_BENCHMARK, &op) || op.size != p->op.size)
		err(1, "PIN_FAST_BENCHMARK");
}

static void measure_pins(const struct pages *pages, unsigned int count)
{
	struct work work = { .row = "pin", .times = 200, .once = pin };
	char *addr = memory_of(pages, count);
	struct pin p = {
		.fd = must_open("/sys/kernel/debug/gup_test", O_RDWR),
		.op = {
			.addr = (uintptr_t)addr,
			.size = count * PAGE,
			.nr_pages_per_call = count,
			.gup_flags = FOLL_WRITE,
		},
	};

	measure(&work, count, pages->whose, &p);
	close(p.fd);
	munmap(addr, count * PAGE);
}

/* Reads the entries of ordinary pages, which takes one mfn_to_pfn() each. */
struct pagemap {
	int fd;
	off_t where;
	__u64 entry[PAGES_MAX];
};

static void read_pagemap(void *data)
{
	struct pagemap *p = data;

	if (pread(p->fd, p->entry, sizeof(p->entry), p->where) != sizeof(p->entry))
		err(1, "/proc/self/pagemap");
}

static void measure_pagemap(void)
{
	static struct pagemap p;
	struct work work = { .row = "mfn-to-pfn", .times = 20, .once = read_pagemap };
	char *addr = memory_of(&anonymous, PAGES_MAX);

	p.fd = must_open("/proc/self/pagemap", O_RDONLY);
	p.where = (uintptr_t)addr / PAGE * sizeof(p.entry[0]);
	measure(&work, PAGES_MAX, anonymous.whose, &p);
	close(p.fd);
	munmap(addr, PAGES_MAX * PAGE);
}

/* ------------------------------------------------------------------ */
/* I/O */

struct io {
	int disk;
	bool write;
	char *addr;
	size_t len;
	io_context_t aio;
	struct io_uring ring;
};

static void by_libaio(void *data)
{
	struct io *io = data;
	struct iocb cb, *list = &cb;
	struct io_event event;

	(io->write ? io_prep_pwrite : io_prep_pread)(&cb, io->disk, io->addr, io->len, 0);
	if (io_submit(io->aio, 1, &list) != 1 ||
	    io_getevents(io->aio, 1, 1, &event, NULL) != 1 ||
	    event.res != io->len)
		errx(1, "libaio: %s of %zu bytes", io->write ? "write" : "read", io->len);
}

static void by_io_uring(void *data)
{
	struct io *io = data;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&io->ring);
	struct io_uring_cqe *cqe;

	io_uring_prep_rw(io->write ? IORING_OP_WRITE : IORING_OP_READ, sqe, io->disk,
			 io->addr, io->len, 0);
	if (io_uring_submit_and_wait(&io->ring, 1) != 1 ||
	    io_uring_wait_cqe(&io->ring, &cqe) || cqe->res != (int)io->len)
		errx(1, "io_uring: %s of %zu bytes", io->write ? "write" : "read", io->len);
	io_uring_cqe_seen(&io->ring, cqe);
}

static void measure_io(const char *kind, const char *path, const struct pages *pages,
		       unsigned int count)
{
	struct io io = {
		.disk = must_open(path, O_RDWR | O_DIRECT),
		.addr = memory_of(pages, count),
		.len = count * PAGE,
	};
	char row[64];

	if (io_setup(1, &io.aio) || io_uring_queue_init(1, &io.ring, 0))
		errx(1, "libaio or io_uring");
	for (unsigned int i = 0; i < 4; i++) {
		bool uring = i / 2;
		struct work work = {
			.row = row,
			.group = i % 2 ? "read" : "write",
			.times = 1000 / count,
			.once = uring ? by_io_uring : by_libaio,
		};

		io.write = i % 2 == 0;
		snprintf(row, sizeof(row), "%s-%s-%s", work.group, kind,
			 uring ? "io_uring" : "libaio");
		measure(&work, count, pages->whose, &io);
	}
	io_uring_queue_exit(&io.ring);
	io_destroy(io.aio);
	munmap(io.addr, io.len);
	close(io.disk);
}

/* ------------------------------------------------------------------ */
/* What a backend can do with a request: copy, map for it, or stay mapped; */
/* and the copy alone */

struct request {
	struct mapping m;
	struct ioctl_gntdev_grant_copy copy;
	struct gntdev_grant_copy_segment *segments;
	char *private;
	int disk;
};

static void store(const struct request *r, const char *addr)
{
	size_t len = r->m.count * PAGE;

	if (pwrite(r->disk, addr, len, 0) != (ssize_t)len)
		err(1, "write of %zu bytes", len);
}

static void copy(void *data)
{
	struct request *r = data;

	if (ioctl(r->m.fd, IOCTL_GNTDEV_GRANT_COPY, &r->copy))
		err(1, "IOCTL_GNTDEV_GRANT_COPY");
}

static void copy_and_store(void *data)
{
	struct request *r = data;

	copy(r);
	store(r, r->private);
}

static void map_and_store(void *data)
{
	struct request *r = data;

	map(&r->m);
	store(r, r->m.addr);
	unmap(&r->m);
	forget(&r->m);
}

static void only_store(void *data)
{
	struct request *r = data;

	store(r, r->m.addr);
}

static void measure_request(struct request *r, const char *row, void (*once)(void *data))
{
	struct work work = {
		.row = row,
		.group = once == copy ? NULL : "request",
		.times = 1 + 1000 / r->m.count,
		.once = once,
	};

	measure(&work, r->m.count, foreign.whose, r);
}

static void measure_requests(unsigned int count)
{
	struct request r = {
		.m = mapping_of(&foreign, count),
		.private = memory_of(&anonymous, count),
		.segments = calloc(count, sizeof(*r.segments)),
		.disk = must_open("/dev/ram0", O_RDWR | O_DIRECT),
	};
	unsigned int i;

	if (!r.segments)
		err(2, "memory for %u segments", count);
	for (i = 0; i < count; i++) {
		struct gntdev_grant_copy_segment *s = &r.segments[i];

		s->source.foreign.ref = foreign.g.refs[i];
		s->source.foreign.domid = foreign.g.domid;
		s->dest.virt = r.private + i * PAGE;
		s->len = PAGE;
		s->flags = GNTCOPY_source_gref;
	}
	r.copy.count = count;
	r.copy.segments = r.segments;
	measure_request(&r, "copy", copy);
	measure_request(&r, "request-copied", copy_and_store);
	measure_request(&r, "request-mapped", map_and_store);
	map(&r.m);
	measure_request(&r, "request-stays-mapped", only_store);
	unmap(&r.m);
	mapping_free(&r.m);
	munmap(r.private, count * PAGE);
	free(r.segments);
	close(r.disk);
}

/* ------------------------------------------------------------------ */
/* A system that grants nothing, and memory */

static void run_shell(void *data)
{
	(void)data;
	if (system("i=0; while [ $i -lt 30 ]; do i=$((i + 1)); ./busybox true; "
		   "./busybox seq 200 | ./busybox sort -r | ./busybox md5sum >/dev/null; "
		   "done"))
		errx(1, "a command failed");
}

#define COUNT_FREE_PAGES \
	"awk '/ (count:|nr_(free|page_table)_pages) / { n += $2 } END { print n }' /proc/zoneinfo"

/* Free memory in bytes, also that on the CPUs' lists; user page tables count as free. */
static long free_bytes(void)
{
	long n;
	FILE *f;

	sleep(1);
	f = popen(COUNT_FREE_PAGES, "r");
	if (!f || fscanf(f, "%ld", &n) != 1 || pclose(f))
		errx(1, "no numbers in /proc/zoneinfo");
	return n * PAGE;
}

/*
 * Memory that goes when maps are made and mapped, in bytes per page, without what
 * only the first ones need: pages to map over, tables that stay.  No marks here.
 */
static void measure_memory(void)
{
	enum { n = 60 };
	struct mapping m[n];
	unsigned int i, round;
	long before, after;

	for (round = 0; round < 4; round++) {
		for (i = 0; i < n; i++)
			m[i] = mapping_of(&foreign, PAGES_MAX);
		before = free_bytes();
		for (i = 0; i < n; i++)
			map(&m[i]);
		after = free_bytes();
		for (i = 0; i < n; i++) {
			unmap(&m[i]);
			forget(&m[i]);
			mapping_free(&m[i]);
		}
		if (round)
			printf("memory\t%u\tforeign\t1\t%ld\n", PAGES_MAX,
			       (before - after) / (n * PAGES_MAX));
	}
}

static void alloc_own(void)
{
	struct ioctl_gntalloc_alloc_gref *op;
	int fd = must_open("/dev/xen/gntalloc", O_RDWR);

	op = calloc(1, sizeof(*op) + PAGES_MAX * sizeof(op->gref_ids[0]));
	if (!op)
		err(2, "memory for %u grant references", PAGES_MAX);
	op->domid = own.g.domid;
	op->count = PAGES_MAX;
	op->flags = GNTALLOC_FLAG_WRITABLE;
	if (ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, op))
		err(2, "IOCTL_GNTALLOC_ALLOC_GREF");
	own.g.count = PAGES_MAX;
	own.g.refs = calloc(PAGES_MAX, sizeof(own.g.refs[0]));
	for (unsigned int i = 0; i < PAGES_MAX; i++)
		own.g.refs[i] = op->gref_ids[i];
	free(op);
}

int main(int argc, char **argv)
{
	const struct work idle = { .row = "unmap", .times = 8, .before = map,
				   .once = unmap, .after = forget };
	const struct work held = { .row = "unmap-one-held", .times = 8,
				   .before = map_and_pin, .once = unmap,
				   .after = let_go };
	const struct work shell = { .row = "shell", .times = 1, .once = run_shell };
	const struct pages *all[] = { &own, &foreign, &anonymous };
	unsigned int i, k;

	if (argc < 5)
		errx(2, "usage: bench ROWS DISK DOMID REF...");
	only = argv[1];
	foreign.g = parse_grants(argv + 3);
	if (foreign.g.count < PAGES_MAX)
		errx(2, "%u grants are needed", PAGES_MAX);
	alloc_own();
	reserve_arena();

	for (i = 0; i < 2; i++)
		for (k = 0; k < SIZES; k++)
			measure_cycles(all[i], sizes[k]);
	if (wanted("cycle-many-maps"))
		measure_many_maps();
	measure_unmap(&idle, &foreign);
	/* A stock kernel corrupts its memory when it unmaps a page that is held. */
	if (!access(WAITING_PAGES, R_OK))
		measure_unmap(&held, &foreign);
	for (i = 0; i < 3; i++)
		measure_pins(all[i], 32);
	measure_pagemap();
	for (i = 1; i < 3; i++) {
		for (k = 1; k <= 16; k += 15) {
			measure_io("brd", "/dev/ram0", all[i], k);
			measure_io("virtio", argv[2], all[i], k);
		}
	}
	for (k = 0; k < 3; k++)
		measure_requests(sizes[k]);
	measure(&shell, 0, "none", NULL);
	if (wanted("memory"))
		measure_memory();
	return 0;
}
