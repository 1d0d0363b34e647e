// SPDX-License-Identifier: GPL-2.0-only
/*
 * What mapping, unmapping and I/O cost: the part of scripts/bench in dom0.
 *
 *   bench [ROW]...
 *
 * Does the work of each row of the table below, or of these ROWs and groups of
 * rows, several times, between marks that the plugin, plugin.c, sees.  Prints
 * for each time
 *
 *   ROW PAGES WHOSE TIMES NANOSECONDS
 *
 * The work was done TIMES times with so many PAGES; under the instruction clock
 * the NANOSECONDS are instructions.  "own" pages are granted by dom0 to itself,
 * "foreign" ones by the guest, "anonymous" ones are not granted.  /dev/vda and
 * /dev/ram0 are written to.  The rows of registered grants are those of mainline,
 * and are skipped on a kernel that cannot register them.
 */
#include "../host/bench-marks.h"
#include "gntdev_test.h"

#include <err.h>

#define FOLL_WRITE	0x01	/* <linux/mm_types.h> */

#define REPEAT		5
#define PAGES_MAX	1024
#define REQUEST_MAX	32
#define MANY_MAPS	10000
#define MEMORY_MAPS	60

enum { OWN = 1, FOREIGN = 2, ANONYMOUS = 4, NONE = 8 };
static const char *const names[] = {
	[OWN] = "own", [FOREIGN] = "foreign", [ANONYMOUS] = "anonymous", [NONE] = "none",
};

struct row {
	const char *name;
	const char *group;
	const char *path;	/* opened as fd */
	unsigned int whose;
	unsigned int sizes[6];
	unsigned int pages;	/* about so many pages are worked on at a time */
	void (*begin)(void);
	void (*before)(void);
	void (*once)(void);	/* the work; only it is measured */
	void (*after)(void);
	void (*end)(void);
};

/* What is measured now, and what it works on. */
static const struct row *row;
static unsigned int whose, count;
static char *addr;
static int gntdev = -1, fd = -1;

static uint32_t own_refs[PAGES_MAX];
static struct ioctl_gntdev_map_grant_ref *op;
static aio_context_t aio;
static struct uring uring;

static int must_open(const char *path)
{
	int flags = strncmp(path, "/dev/", 5) || !strncmp(path, "/dev/xen", 8) ? 0 : O_DIRECT;
	int new = open(path, O_RDWR | O_CLOEXEC | flags);

	if (new < 0)
		err(2, "%s", path);
	return new;
}

/* ------------------------------------------------------------------ */
/* Mapping */

/*
 * Maps are made at the same place, where a page table begins.  A page behind
 * keeps the table, and others keep those above it, whatever comes and goes.
 */
#define ARENA		((char *)0x200000000000)
#define ARENA_PAGES	512

static void reserve_arena(void)
{
	if (mmap(ARENA + (ARENA_PAGES - 1) * PAGE, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_FIXED_NOREPLACE,
		 -1, 0) == MAP_FAILED)
		err(2, "mmap of the arena");
}

static void open_gntdev(void)
{
	gntdev = must_open("/dev/xen/gntdev");
	for (unsigned int i = 0; i < count; i++) {
		op->refs[i].domid = whose == OWN ? 0 : grant_pool->domid;
		op->refs[i].ref = whose == OWN ? own_refs[i] : grant_pool->ref[i];
	}
}

static void add(void)
{
	op->count = count;
	if (ioctl(gntdev, IOCTL_GNTDEV_MAP_GRANT_REF, op))
		err(2, "IOCTL_GNTDEV_MAP_GRANT_REF of %u pages", count);
}

static void map(void)
{
	add();
	addr = mmap(count < ARENA_PAGES ? ARENA : NULL, count * PAGE,
		    PROT_READ | PROT_WRITE, MAP_SHARED, gntdev, op->index);
	if (addr == MAP_FAILED)
		err(2, "mmap of %u granted pages", count);
}

static void unmap(void)
{
	if (munmap(addr, count * PAGE))
		err(2, "munmap");
}

static void forget(void)
{
	if (gntdev_del(gntdev, op->index, count))
		err(2, "IOCTL_GNTDEV_UNMAP_GRANT_REF");
}

static void cycle(void)
{
	map();
	unmap();
	forget();
}

/* They are not mapped: the file has them in its list. */
static void add_many(void)
{
	unsigned int pages = count;

	count = 1;
	for (unsigned int i = 0; i < MANY_MAPS; i++)
		add();
	count = pages;
}

static int held[2];

/* One page stays in a pipe. */
static void map_and_pin(void)
{
	map();
	if (pipe_pin(held, addr + 100 * PAGE, PAGE))
		err(2, "vmsplice");
}

static void let_go(void)
{
	pipe_close(held);
	forget();
	usleep(100000);
}

/* ------------------------------------------------------------------ */
/* Memory that stays mapped */

static char *anonymous(void)
{
	char *new = pages_alloc(count);

	if (!new)
		err(1, "mmap of %u pages", count);
	/* One huge page is pinned at once, which no set of grants can match. */
	if (madvise(new, count * PAGE, MADV_NOHUGEPAGE) && errno != EINVAL)
		err(1, "MADV_NOHUGEPAGE");
	/* Out of order: neighbours among the frames make fewer, longer segments. */
	for (unsigned int i = 0; i < count; i++)
		memset(new + (i * 7 + 3) % count * PAGE, 1, PAGE);
	return new;
}

static void map_memory(void)
{
	if (whose == ANONYMOUS)
		addr = anonymous();
	else
		map();
}

static void pin(void)
{
	struct gup_test test = {
		.addr = (uintptr_t)addr,
		.size = count * PAGE,
		.nr_pages_per_call = count,
		.gup_flags = FOLL_WRITE,
	};

	if (ioctl(fd, PIN_FAST_BENCHMARK, &test) || test.size != count * PAGE)
		err(1, "PIN_FAST_BENCHMARK");
}

/* Reads the entries of ordinary pages, which takes one mfn_to_pfn() each. */
static void read_pagemap(void)
{
	static uint64_t entry[PAGES_MAX];

	if (pread(fd, entry, sizeof(entry), (uintptr_t)addr / PAGE * sizeof(*entry)) !=
	    sizeof(entry))
		err(1, "/proc/self/pagemap");
}

/* ------------------------------------------------------------------ */
/* I/O */

static void check_io(int res)
{
	if (res != (int)(count * PAGE))
		errx(1, "%s of %u pages: %d", row->name, count, res);
}

static void by_libaio(void)
{
	check_io(aio_io_in(aio, *row->name == 'w' ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, fd,
			   addr, count * PAGE, 0));
}

static void by_io_uring(void)
{
	check_io(uring_io(&uring, *row->name == 'w' ? IORING_OP_WRITE : IORING_OP_READ, fd,
			  addr, count * PAGE, 0));
}

/* ------------------------------------------------------------------ */
/* What a backend can do with a request: copy, map for it, or stay mapped; */
/* and the copy alone */

static char *copied;
static struct gntdev_grant_copy_segment segments[REQUEST_MAX];

static void begin_request(void)
{
	copied = anonymous();
	for (unsigned int i = 0; i < count; i++) {
		segments[i] = (struct gntdev_grant_copy_segment){
			.source.foreign.ref = grant_pool->ref[i],
			.source.foreign.domid = grant_pool->domid,
			.dest.virt = copied + i * PAGE,
			.len = PAGE,
			.flags = GNTCOPY_source_gref,
		};
	}
}

static void end_request(void)
{
	munmap(copied, count * PAGE);
}

static void store(const char *from)
{
	check_io(pwrite(fd, from, count * PAGE, 0));
}

static void copy(void)
{
	struct ioctl_gntdev_grant_copy copy_op = { .count = count, .segments = segments };

	if (ioctl(gntdev, IOCTL_GNTDEV_GRANT_COPY, &copy_op))
		err(1, "IOCTL_GNTDEV_GRANT_COPY");
}

static void copy_and_store(void)
{
	copy();
	store(copied);
}

static void store_mapped(void)
{
	store(addr);
}

static void map_and_store(void)
{
	map();
	store_mapped();
	unmap();
	forget();
}

static void begin_mapped(void)
{
	begin_request();
	map();
}

static void end_mapped(void)
{
	unmap();
	end_request();
}

#ifdef GNTDEV_URING_REGISTER
/* ------------------------------------------------------------------ */
/* The same with the pages as a buffer of the ring, in slot 0 */

static struct gntdev_uring_buffer buffer = { .flags = GNTDEV_URING_READ_ONLY };

/* All with one io_uring_enter(); only the last request succeeds with a CQE. */
#define NOT_LAST	(IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS)

static void add_register(unsigned int flags)
{
	uring_command(&uring, gntdev, GNTDEV_URING_REGISTER, &buffer, 1)->flags = flags;
}

static void add_store(unsigned int flags)
{
	uring_sqe(&uring, IORING_OP_WRITE_FIXED, fd, 0, count * PAGE, 0)->flags = flags;
}

static void add_unregister(void)
{
	uring_command(&uring, gntdev, GNTDEV_URING_UNREGISTER, &buffer.index, 1);
}

static void run_sqes(int expected)
{
	int res = uring_run(&uring);

	if (res != expected)
		errx(1, "%s of %u pages: %d", row->name, count, res);
}

static void begin_registering(void)
{
	if (uring_make_table(&uring, MEMORY_MAPS))
		err(1, "IORING_REGISTER_BUFFERS2");
	buffer.domid = grant_pool->domid;
	buffer.count = count;
	buffer.refs = (uintptr_t)grant_pool->ref;
}

static void end_registering(void)
{
	uring_unregister(&uring);
}

static void register_and_unregister(void)
{
	add_register(NOT_LAST);
	add_unregister();
	run_sqes(0);
}

static void register_and_store(void)
{
	add_register(NOT_LAST);
	add_store(NOT_LAST);
	add_unregister();
	run_sqes(0);
}

static void begin_registered(void)
{
	begin_registering();
	add_register(0);
	run_sqes(0);
}

static void store_registered(void)
{
	add_store(0);
	run_sqes(count * PAGE);
}
#endif

/* ------------------------------------------------------------------ */
/* A system that grants nothing, and memory */

static void run_shell(void)
{
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
static void measure_memory(const char *name, void (*take)(int i), void (*give_back)(void))
{
	long before, after;

	whose = FOREIGN;
	count = PAGES_MAX;
	for (int round = 0; round < 4; round++) {
		open_gntdev();
		before = free_bytes();
		for (int i = 0; i < MEMORY_MAPS; i++)
			take(i);
		after = free_bytes();
		give_back();
		close(gntdev);
		if (round)
			printf("%s\t%u\tforeign\t1\t%ld\n", name, PAGES_MAX,
			       (before - after) / (MEMORY_MAPS * PAGES_MAX));
	}
}

static char *mapped[MEMORY_MAPS];

static void take_map(int i)
{
	map();
	mapped[i] = addr;
}

static void unmap_all(void)
{
	for (int i = 0; i < MEMORY_MAPS; i++)
		munmap(mapped[i], count * PAGE);
}

#ifdef GNTDEV_URING_REGISTER
static void take_buffer(int i)
{
	if (!i)
		begin_registering();
	buffer.index = i;
	add_register(0);
	run_sqes(0);
}
#endif

/* ------------------------------------------------------------------ */

#define IO(name, group, path, once) \
	{ name, group, path, FOREIGN | ANONYMOUS, { 1, 16 }, 1000, map_memory, NULL, once, NULL, \
	  unmap }
#define REQUEST(name, group, begin, once, end) \
	{ name, group, "/dev/ram0", FOREIGN, { 1, 11, REQUEST_MAX }, 1000, begin, NULL, once, \
	  NULL, end }

static const struct row rows[] = {
	/* Long enough for a clock tick not to matter. */
	{ "cycle", .whose = OWN | FOREIGN, .sizes = { 1, 11, 32, 128, 256, PAGES_MAX },
	  .pages = 2000, .once = cycle },
	{ "cycle-many-maps", .whose = FOREIGN, .sizes = { 11 },
	  .pages = 2000, .begin = add_many, .once = cycle },
	{ "unmap", .whose = FOREIGN, .sizes = { 256 },
	  .pages = 2000, .before = map, .once = unmap, .after = forget },
	{ "unmap-one-held", .whose = FOREIGN, .sizes = { 256 },
	  .pages = 2000, .before = map_and_pin, .once = unmap, .after = let_go },
	{ "pin", .whose = OWN | FOREIGN | ANONYMOUS, .sizes = { 32 }, .path = DEBUGFS "/gup_test",
	  .pages = 6400, .begin = map_memory, .once = pin, .end = unmap },
	{ "mfn-to-pfn", .whose = ANONYMOUS, .sizes = { PAGES_MAX }, .path = "/proc/self/pagemap",
	  .pages = 20000, .begin = map_memory, .once = read_pagemap, .end = unmap },
	IO("write-brd-libaio", "write", "/dev/ram0", by_libaio),
	IO("read-brd-libaio", "read", "/dev/ram0", by_libaio),
	IO("write-brd-io_uring", "write", "/dev/ram0", by_io_uring),
	IO("read-brd-io_uring", "read", "/dev/ram0", by_io_uring),
	IO("write-virtio-libaio", "write", "/dev/vda", by_libaio),
	IO("read-virtio-libaio", "read", "/dev/vda", by_libaio),
	IO("write-virtio-io_uring", "write", "/dev/vda", by_io_uring),
	IO("read-virtio-io_uring", "read", "/dev/vda", by_io_uring),
	REQUEST("copy", NULL, begin_request, copy, end_request),
	REQUEST("request-copied", "request", begin_request, copy_and_store, end_request),
	REQUEST("request-mapped", "request", begin_request, map_and_store, end_request),
	REQUEST("request-stays-mapped", "request", begin_mapped, store_mapped, end_mapped),
#ifdef GNTDEV_URING_REGISTER
	REQUEST("request-registered", "request", begin_registering, register_and_store,
		end_registering),
	REQUEST("request-stays-registered", "request", begin_registered, store_registered,
		end_registering),
	{ "cycle-registered", .whose = FOREIGN, .sizes = { 1, 11, 32, 256 }, .pages = 2000,
	  .begin = begin_registering, .once = register_and_unregister, .end = end_registering },
#endif
	{ "shell", .whose = NONE, .once = run_shell },
	{ NULL }
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void call(void (*function)(void))
{
	if (function)
		function();
}

/* The first repetition, which finds caches cold, does not count. */
static void measure(void)
{
	unsigned int times = count ? 1 + row->pages / count : 1;
	/* What comes before and after the work is not to be counted with it. */
	unsigned int at_once = row->before || row->after ? 1 : times;
	uint64_t start, time;

	if (row->path)
		fd = must_open(row->path);
	if (whose & (OWN | FOREIGN))
		open_gntdev();
	call(row->begin);
	for (int i = 0; i <= REPEAT; i++) {
		time = 0;
		for (unsigned int done = 0; done < times; done += at_once) {
			call(row->before);
			mark('b');
			start = now_ns();
			for (unsigned int n = 0; n < at_once; n++)
				row->once();
			time += now_ns() - start;
			mark('e');
			call(row->after);
		}
		mark('d');
		printf("%s\t%u\t%s\t%u\t%llu%s\n", row->name, count, names[whose], times,
		       (unsigned long long)time, i ? "" : "\twarm-up");
	}
	call(row->end);
	close(gntdev);
	close(fd);
	gntdev = -1;
	fd = -1;
	fflush(stdout);
}

static bool wanted(char **only, const char *name)
{
	bool all = !*only;

	for (; *only; only++)
		if (name && !strcmp(*only, name))
			return true;
	return all;
}

int main(int argc, char **argv)
{
	struct grants g;

	(void)argc;
	op = calloc(1, sizeof(*op) + PAGES_MAX * sizeof(op->refs[0]));
	if (!op || pool_init(PAGES_MAX) || grant_pool->n < PAGES_MAX)
		errx(2, "%u grants are needed", PAGES_MAX);
	for (unsigned int i = 0; i < PAGES_MAX; i += GRANTS_MAX) {
		if (grants_get(&g, GRANTS_OWN, GRANTS_MAX))
			err(2, "dom0's own grants");
		memcpy(own_refs + i, g.ref, GRANTS_MAX * sizeof(*own_refs));
	}
	if (syscall(__NR_io_setup, 1, &aio) || uring_open(&uring))
		err(2, "libaio or io_uring");
	reserve_arena();

	for (row = rows; row->name; row++) {
		if (!wanted(argv + 1, row->name) && !wanted(argv + 1, row->group))
			continue;
		/*
		 * A stock kernel corrupts its memory when it unmaps a page that is held,
		 * and registers no grants.
		 */
		if ((row->before == map_and_pin || strstr(row->name, "registered")) &&
		    count_waiting() < 0)
			continue;
		for (whose = OWN; whose <= NONE; whose *= 2) {
			const unsigned int *size = row->sizes;

			do {
				count = *size;
				if (row->whose & whose)
					measure();
			} while (++size < row->sizes + 6 && *size);
		}
	}
	if (wanted(argv + 1, "memory"))
		measure_memory("memory", take_map, unmap_all);
#ifdef GNTDEV_URING_REGISTER
	if (wanted(argv + 1, "memory-registered") && count_waiting() >= 0)
		measure_memory("memory-registered", take_buffer, end_registering);
#endif
	return 0;
}
