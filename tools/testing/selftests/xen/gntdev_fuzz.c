// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random operations on gntdev and on its mappings.
 *
 *   gntdev_fuzz [-s SEED] [-n OPERATIONS] [-t THREADS] own|foreign|both
 *
 * What should happen
 *
 *   Several threads share a few windows of addresses, a few gntdev files and
 *   their maps.  Each thread performs random operations on these: right and
 *   wrong ioctls, mmap() and all calls that change, move or remove a mapping,
 *   all ways to pass the memory to the kernel for I/O, creating processes that
 *   inherit it, closing the files.  Nearly every operation may fail, since the
 *   threads interfere with each other.  The kernel must not log an error, no
 *   byte may be wrong, and nothing may be left behind.
 *
 * How the test checks it
 *
 *   Half of the pages are "fixed": numbered pages (see gntdev_test.h), granted
 *   for writing, but only ever mapped read-only, while all threads try to write
 *   to them.  The other half are "loose": all threads may write to them, but
 *   each sector keeps its first bytes, the tag.  So a page returned by any I/O
 *   is either exactly a fixed one, or one of tagged sectors, or was never a
 *   grant and has no tags at all.  All else is an error.  In between each
 *   thread maps fixed pages privately, at its own addresses: that must always
 *   work, and show exactly these pages.  So must I/O with granted pages that
 *   are buffers of the thread's own ring.
 *
 *   The work is done in rounds, each in a new process, which ends by undoing
 *   everything, or by exiting in the middle of its work, or by being killed.
 *   After each round no grant is in use, the kernel's counters are back at
 *   their old values, each page has the right content for its owner, and can be
 *   mapped again.  An operation that must fail and does not is an error, and so
 *   is, at the end, a kind of operation that could have succeeded and never
 *   did.
 *
 *   The operations of a thread in a round depend on the seed, the round, the
 *   thread's number and the operation's.  Their order across threads is up to
 *   the scheduler: the same seed repeats the same operations, but with another
 *   timing, so that an operation may find another map.
 *
 * What a failure means
 *
 *   The last operations of each thread are printed.  The wrong page, and the
 *   operation that found it, show which lifetime was too short.  If something
 *   is left behind, look for an error path or a process exit that does not
 *   release it.  If all threads hang, look for what they wait for.
 */
#include "../kselftest.h"
#include "gntdev_test.h"

#include <assert.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define THREADS_MAX	16
#define ROUND_OPS	2000		/* of all threads */
#define STALL_S		120		/* without any progress */
#define SETTLE_MS	20000		/* until all is back, after a round */

/* Pages per source of grants: first the fixed ones, then the loose ones. */
#define FIXED		16
#define LOOSE		16
#define NGRANTS		(FIXED + LOOSE)
#define SOURCES_MAX	2

#define WINDOWS		4
#define WPAGES		8
#define ARENA_PAGES	(WINDOWS * WPAGES)
#define MARGIN		16		/* pages around the arena */

/* Fixed fd numbers for all files; lower ones are the threads' own. */
#define FD_BASE		500
#define FDS		8		/* the second half is for fixed pages */
#define MAPS		32
#define PIPES		3
#define STRAYS		4
#define SLOTS		4
#define PENDING		4
#define RECORDS		16

#define AREA_SIZE	(16 * PAGE)	/* of a thread on the disk */
#define SOURCE_AREA	(THREADS_MAX * AREA_SIZE)

/*
 * Starts each sector of a loose page.  A zero page may be replaced by a loose
 * one while it is read, so each byte of the tag may also be 0.  The low bytes
 * are 0 so that, used as an ioctl's count, it is 0 or above any limit.
 */
#define SECTOR		512
#define TAG		0x7a7566726e5a0000ULL

#define LIMIT		(64 * 1024)	/* gntdev's, of pages in a map */
#define NO_REF		0x7fffff00	/* and above */

enum ending { END_TIDY, END_EXIT, END_KILLED, ENDINGS };

/* CAN: expected to succeed at times.  NEVER: must fail. */
enum expect { CAN, NEVER };

struct record {
	unsigned long op;
	const char *what;
	unsigned long arg[6];
	long ret;
	int error;
	bool over;
};

#define KINDS_MAX	64

/* Shared with the parent and all children. */
struct shared {
	struct {
		struct record record[RECORDS];
		atomic_ulong records;
	} thread[THREADS_MAX];
	atomic_ulong done[KINDS_MAX], refused[KINDS_MAX];
	atomic_ulong operations;
	atomic_ulong faults;
	char fault[8][160];
	atomic_bool tidied, may_go;
};

struct thread {
	int id;
	unsigned long op;
	uint64_t random;
	bool child;
	char *got;		/* WPAGES pages for what I/O brings */
	char *mine;		/* WPAGES addresses that no other thread uses */
	int my_pipe[2];
	int pipe[PIPES][2];	/* the last one need not hold whole pages */
	int disk, mem, file, pagemap;
	int own;		/* a gntdev that no other thread uses */
	int events;
	uint32_t port;
	aio_context_t aio;
	struct uring ring;
	char *registered;
	size_t registered_len;
	struct uring buffers;		/* only of granted pages */
	struct slot {
		struct ioctl_gntdev_grant_ref page[WPAGES];
		unsigned int count;	/* 0: empty */
		bool of_fixed;		/* for reading only */
	} slot[SLOTS];
	int never[2];			/* an empty pipe */
	unsigned int pending;		/* reads from it */
	struct {
		char *addr;
		size_t len;
	} stray[STRAYS];	/* mappings for which the kernel chose the place */
	pthread_t pthread;
};

struct kind {
	const char *name;
	unsigned int weight;
	bool (*run)(struct thread *t);
	enum expect expect;
	bool not_in_child;
};

static const struct kind kinds[];

static struct grants sources[SOURCES_MAX];
static int nr_sources, nr_threads = 4;
static uint64_t seed;
static struct shared *shared;
static char *fixed;		/* the fixed pages, and one loose page */
static char *loose_page;
static char *arena;
static char *guard;		/* a page before one that is not there */
static char *read_only;		/* a page */
static uint64_t *many_refs;	/* LIMIT entries, never touched: all 0 */
static atomic_ulong map_slot[MAPS];
static struct thread threads[THREADS_MAX];
static pthread_barrier_t start;
static pthread_mutex_t one_huge = PTHREAD_MUTEX_INITIALIZER;
static enum ending ending;
static unsigned long round_nr, ops_per_thread;
static unsigned int weights;	/* of all kinds */
static unsigned int most_pages;	/* in one map, here */
static int out_pipe[2];		/* to the receiver */

/* ------------------------------------------------------------------ */
/* Chance */

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static unsigned int rnd(struct thread *t, unsigned int below)
{
	t->random = mix(t->random);
	return (t->random >> 32) % below;
}

static bool one_in(struct thread *t, unsigned int n)
{
	return !rnd(t, n);
}

static size_t min(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void nap(struct thread *t, unsigned int max_us)
{
	struct timespec ts = { 0, rnd(t, max_us) * 1000L };

	nanosleep(&ts, NULL);
}

/* ------------------------------------------------------------------ */
/* The log of operations */

/* Called before each operation, maybe the last; what is a format for longs. */
static void record(struct thread *t, const char *what, unsigned long a,
		   unsigned long b, unsigned long c, unsigned long d,
		   unsigned long e, unsigned long f)
{
	unsigned long n = atomic_load(&shared->thread[t->id].records);
	struct record *r = &shared->thread[t->id].record[n % RECORDS];

	*r = (struct record){
		.op = t->op, .what = what, .arg = { a, b, c, d, e, f },
	};
	atomic_store(&shared->thread[t->id].records, n + 1);
}

#define record_args(t, what, a, b, c, d, e, f, ...)			\
	record(t, what, (unsigned long)(a), (unsigned long)(b),		\
	       (unsigned long)(c), (unsigned long)(d),			\
	       (unsigned long)(e), (unsigned long)(f))
#define note(t, what, ...)						\
	record_args(t, what, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)

/* After it; returns whether it succeeded. */
static bool result(struct thread *t, long ret)
{
	unsigned long n = atomic_load(&shared->thread[t->id].records);
	struct record *r = &shared->thread[t->id].record[(n - 1) % RECORDS];

	r->error = errno;
	r->ret = ret;
	r->over = true;
	return ret >= 0;
}

static __attribute__((format(printf, 1, 2))) void fault(const char *format, ...)
{
	unsigned long n = atomic_fetch_add(&shared->faults, 1);
	va_list args;

	if (n >= ARRAY_SIZE(shared->fault))
		return;
	va_start(args, format);
	vsnprintf(shared->fault[n], sizeof(shared->fault[n]), format, args);
	va_end(args);
}

static void print_records(void)
{
	int i;

	printf("# the arena is %p+%#lx, the files are %d to %d\n", arena,
	       ARENA_PAGES * PAGE, FD_BASE, FD_BASE + FDS - 1);
	for (i = 0; i < nr_threads; i++) {
		unsigned long n = atomic_load(&shared->thread[i].records);
		unsigned long first = n > RECORDS ? n - RECORDS : 0;

		for (; first < n; first++) {
			struct record *r;

			r = &shared->thread[i].record[first % RECORDS];
			printf("# thread %d, operation %lu: ", i, r->op);
			if (r->what)
				printf(r->what, r->arg[0], r->arg[1], r->arg[2],
				       r->arg[3], r->arg[4], r->arg[5]);
			if (!r->over)
				printf(" ...\n");
			else if (r->ret >= 0)
				printf(" = %ld\n", r->ret);
			else
				printf(" = %ld (%s)\n", r->ret, strerror(r->error));
		}
	}
}

/* ------------------------------------------------------------------ */
/* Bytes */

static bool is_tagged(const char *page, bool or_zero)
{
	const uint64_t tag = TAG;
	const char *want = (const char *)&tag;
	size_t i, k;

	for (i = 0; i < PAGE; i += SECTOR)
		for (k = 0; k < sizeof(tag); k++)
			if (page[i + k] != want[k] &&
			    !(or_zero && !page[i + k]))
				return false;
	return true;
}

static bool is_known(const char *page)
{
	return is_numbered_page(page, fixed, SOURCES_MAX * FIXED) ||
	       is_tagged(page, true);
}

static void check(const char *who, const char *buf, size_t len)
{
	size_t i;

	for (i = 0; i + PAGE <= len; i += PAGE) {
		const uint64_t *head = (const uint64_t *)(buf + i);

		if (!is_known(buf + i))
			fault("%s: page %zu of %zu is wrong: %#llx %#llx ... %#llx",
			      who, i / PAGE, len / PAGE,
			      (unsigned long long)head[0],
			      (unsigned long long)head[1],
			      (unsigned long long)head[PAGE / 8 - 1]);
	}
}

/*
 * Check bytes copied through a mapping that may have been replaced by another
 * one meanwhile, at any byte.  Each byte of a tag is still that of a known
 * page.
 */
static bool is_known_byte(size_t at, char byte)
{
	const uint64_t tag = TAG;
	int i;

	if (!byte || byte == ((const char *)&tag)[at % SECTOR])
		return true;
	for (i = 0; i < SOURCES_MAX * FIXED; i++)
		if (byte == fixed[i * PAGE + at])
			return true;
	return false;
}

static void check_torn(const char *who, const char *buf, size_t len)
{
	size_t i, k;

	for (i = 0; i + SECTOR <= len; i += SECTOR)
		for (k = i; k < i + sizeof(uint64_t); k++)
			if (!is_known_byte(k % PAGE, buf[k]))
				fault("%s: byte %#zx of %#zx is wrong: %#x",
				      who, k, len, buf[k] & 0xff);
}

/* Copy from memory that may not be mapped, or be unmapped during the copy. */
static bool copy_caught(char *to, const char *from, size_t len)
{
	if (sigsetjmp(touch_env, 1)) {
		touching = 0;
		return false;
	}
	touching = 1;
	memcpy(to, from, len);
	touching = 0;
	return true;
}

/* ------------------------------------------------------------------ */
/* Places */

/* Some pages in a window, across windows, or where the kernel placed a map. */
static char *somewhere(struct thread *t, size_t *len)
{
	unsigned int pages = WPAGES, first = rnd(t, WINDOWS) * WPAGES, skip, i;
	char *p;

	if (one_in(t, 16)) {
		i = rnd(t, STRAYS);
		if (t->stray[i].addr) {
			*len = t->stray[i].len;
			return t->stray[i].addr;
		}
	}
	if (one_in(t, 8)) {
		first = rnd(t, ARENA_PAGES);
		pages = min(ARENA_PAGES - first, WPAGES);
	}
	p = arena + first * PAGE;
	skip = one_in(t, 4) ? 0 : rnd(t, pages);
	*len = (one_in(t, 2) ? 1 : 1 + rnd(t, pages - skip)) * PAGE;
	return p + skip * PAGE;
}

/* Bytes that may be written to a loose page: not those of a tag. */
static unsigned int beyond_tag(struct thread *t, unsigned int *len)
{
	unsigned int at = sizeof(uint64_t) +
			  rnd(t, SECTOR - sizeof(uint64_t));

	*len = 1 + rnd(t, SECTOR - at);
	return rnd(t, PAGE / SECTOR) * SECTOR + at;
}

static void keep_stray(struct thread *t, char *addr, size_t len)
{
	unsigned int i = rnd(t, STRAYS);

	if (t->stray[i].addr)
		munmap(t->stray[i].addr, t->stray[i].len);
	t->stray[i].addr = addr;
	t->stray[i].len = len;
}

/* ------------------------------------------------------------------ */
/* Files and maps */

static bool is_for_fixed(int fd)
{
	return fd >= FD_BASE + FDS / 2;
}

static int some_fd(struct thread *t)
{
	return FD_BASE + rnd(t, FDS);
}

static struct ioctl_gntdev_grant_ref some_page(struct thread *t, bool of_fixed)
{
	struct grants *g = &sources[rnd(t, nr_sources)];
	int i = of_fixed ? rnd(t, FIXED) : FIXED + rnd(t, LOOSE);

	return (struct ioctl_gntdev_grant_ref){ g->domid, g->ref[i] };
}

static const char *fixed_page(int source, int i)
{
	return fixed + (source * FIXED + i) * PAGE;
}

/* What a fixed page holds. */
static const char *bytes_of(struct ioctl_gntdev_grant_ref page)
{
	int s, i;

	for (s = 0; s < nr_sources; s++)
		for (i = 0; i < FIXED; i++)
			if (page.domid == (uint32_t)sources[s].domid &&
			    page.ref == sources[s].ref[i])
				return fixed_page(s, i);
	return NULL;
}

/* A map as known to all threads: 0, or its file, size and offset. */
static unsigned long map_word(int fd, unsigned int count, uint64_t index)
{
	return (unsigned long)fd << 48 | (unsigned long)count << 40 |
	       index / PAGE;
}

static bool some_map(struct thread *t, int *fd, unsigned int *count,
		     uint64_t *index, atomic_ulong **slot)
{
	unsigned int i, at = rnd(t, MAPS);
	unsigned long word = 0;

	for (i = 0; i < MAPS && !word; i++) {
		*slot = &map_slot[(at + i) % MAPS];
		word = atomic_load(*slot);
	}
	*fd = word >> 48;
	*count = word >> 40 & 0xff;
	*index = (word & ((1UL << 40) - 1)) * PAGE;
	return word;
}

/* Room for a map of few pages. */
union add_op {
	struct ioctl_gntdev_map_grant_ref op;
	char room[sizeof(struct ioctl_gntdev_map_grant_ref) +
		  WPAGES * sizeof(struct ioctl_gntdev_grant_ref)];
};

static void fill_add_op(struct thread *t, union add_op *add, bool of_fixed)
{
	struct ioctl_gntdev_grant_ref *ref = add->op.refs;
	unsigned int i, n = 1 + rnd(t, WPAGES);
	struct ioctl_gntdev_grant_ref page;

	memset(add, 0, sizeof(*add));
	add->op.count = n;
	for (i = 0; i < n; i++) {
		page = some_page(t, of_fixed);
		/* Also the same one twice. */
		ref[i] = i && one_in(t, 16) ? ref[i - 1] : page;
	}
}

/* A bad pointer: at least the last of its size bytes is not accessible. */
static void *bad_pointer(struct thread *t, size_t size)
{
	switch (rnd(t, 5)) {
	case 0:
		return NULL;
	case 1:
		return (void *)0xffff888000000000UL;
	case 2:
		return (void *)0x8000000000001UL;
	case 3:
		return guard + PAGE;
	default:
		return guard + PAGE - size + 1 + rnd(t, size - 1);
	}
}

/* ------------------------------------------------------------------ */
/* Operations: the ioctls */

static bool do_add(struct thread *t)
{
	int fd = some_fd(t);
	union add_op add;

	fill_add_op(t, &add, is_for_fixed(fd));
	note(t, "MAP_GRANT_REF fd %lu, %lu pages", fd, add.op.count);
	if (!result(t, ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, &add)))
		return false;
	atomic_store(&map_slot[rnd(t, MAPS)],
		     map_word(fd, add.op.count, add.op.index));
	return true;
}

static bool do_add_bad(struct thread *t)
{
	struct ioctl_gntdev_map_grant_ref *at;
	unsigned int way = rnd(t, 7);
	int fd = some_fd(t);
	union add_op add;
	void *p = &add;
	size_t len;

	fill_add_op(t, &add, is_for_fixed(fd));
	switch (way) {
	case 0:
		add.op.count = 0;
		break;
	case 1:
		add.op.count = LIMIT + 1 + rnd(t, 1000);
		break;
	case 2:
		add.op.count = 1U << 31 | rnd(t, 1000);
		break;
	case 3:
		add.op.count = -1U - rnd(t, 1000);
		break;
	case 4:
		p = bad_pointer(t, sizeof(add.op));
		break;
	case 5:
		/* The refs reach into unmapped memory. */
		at = (void *)(guard + PAGE - sizeof(add.op));
		add.op.count = 2 + rnd(t, 100);
		memcpy(at, &add.op, sizeof(add.op));
		p = at;
		break;
	default:
		/* The memory is readable only, or is in a window. */
		p = one_in(t, 2) ? read_only : somewhere(t, &len);
		break;
	}
	note(t, "MAP_GRANT_REF fd %lu, bad, way %lu, %#lx pages", fd, way,
	     add.op.count);
	return result(t, ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, p));
}

/* A map with one page that Xen fails to map: no part of it may be mapped. */
static bool do_map_bad(struct thread *t)
{
	static const uint32_t no_domid[] = {
		0x7ff0, 0x7ff1, 0x7ff2, 0x7ff4, 0x7fff, 0xffff, 0x10000, -1U,
	};
	struct ioctl_gntdev_grant_ref *ref;
	union add_op add;
	unsigned int bad;
	size_t len;
	void *p;

	fill_add_op(t, &add, one_in(t, 2));
	bad = rnd(t, add.op.count);
	ref = add.op.refs;
	ref[bad].ref = one_in(t, 4) ? -1U : NO_REF + rnd(t, 256);
	if (one_in(t, 2))
		ref[bad].domid = no_domid[rnd(t, ARRAY_SIZE(no_domid))];
	len = add.op.count * PAGE;
	if (ioctl(t->own, IOCTL_GNTDEV_MAP_GRANT_REF, &add))
		return false;
	note(t, "mmap of %lu pages, of which %lu is domain %#lx ref %#lx",
	     add.op.count, bad, ref[bad].domid, ref[bad].ref);
	p = mmap(arena + rnd(t, WINDOWS) * WPAGES * PAGE, len, PROT_READ,
		 MAP_SHARED | MAP_FIXED, t->own, add.op.index);
	result(t, p == MAP_FAILED ? -1 : 0);
	gntdev_del(t->own, add.op.index, add.op.count);
	return p != MAP_FAILED;
}

/* A large map, up to the limit; one thread at a time, to save memory. */
static bool do_add_huge(struct thread *t)
{
	struct {
		uint32_t count, pad;
		uint64_t index;
	} *op = (void *)((char *)many_refs + PAGE - 16);
	unsigned int n = one_in(t, 8) ? most_pages : 256 + rnd(t, 4096);
	bool good;

	if (pthread_mutex_trylock(&one_huge))
		return false;
	op->count = n;
	note(t, "MAP_GRANT_REF of %lu pages", n);
	good = result(t, ioctl(t->own, IOCTL_GNTDEV_MAP_GRANT_REF, op));
	if (good && gntdev_del(t->own, op->index, n))
		fault("a large map cannot be removed: %s", strerror(errno));
	pthread_mutex_unlock(&one_huge);
	return good;
}

static bool do_del(struct thread *t)
{
	atomic_ulong *slot;
	unsigned int count;
	uint64_t index;
	int fd;

	if (!some_map(t, &fd, &count, &index, &slot))
		return false;
	if (one_in(t, 16))
		fd = some_fd(t);
	if (one_in(t, 16))
		count = rnd(t, WPAGES + 1);
	else
		atomic_store(slot, 0);
	if (one_in(t, 16))
		index += rnd(t, 8) * PAGE;
	note(t, "UNMAP_GRANT_REF fd %lu, %lu pages at %#lx", fd, count, index);
	return result(t, gntdev_del(fd, index, count));
}

static bool do_del_bad(struct thread *t)
{
	struct ioctl_gntdev_unmap_grant_ref op = {
		.index = rnd(t, 64) * PAGE,
		.count = 1 + WPAGES + (one_in(t, 2) ? rnd(t, 100) : LIMIT),
	};
	void *p = one_in(t, 2) ? &op : bad_pointer(t, sizeof(op));
	int fd = some_fd(t);

	note(t, "UNMAP_GRANT_REF fd %lu, bad, at %#lx", fd, p);
	return result(t, ioctl(fd, IOCTL_GNTDEV_UNMAP_GRANT_REF, p));
}

static bool do_offset(struct thread *t)
{
	struct ioctl_gntdev_get_offset_for_vaddr op = { 0 };
	int fd = some_fd(t);
	size_t len;

	op.vaddr = (uintptr_t)somewhere(t, &len);
	note(t, "GET_OFFSET_FOR_VADDR fd %lu, %#lx", fd, op.vaddr);
	if (!result(t, ioctl(fd, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR, &op)))
		return false;
	if (!op.count || op.count > WPAGES)
		fault("GET_OFFSET_FOR_VADDR: %u pages", op.count);
	return true;
}

static bool do_offset_bad(struct thread *t)
{
	struct ioctl_gntdev_get_offset_for_vaddr op = {
		.vaddr = (uintptr_t)(one_in(t, 2) ? (void *)-PAGE : shared),
	};
	void *p = one_in(t, 2) ? &op : bad_pointer(t, sizeof(op));
	int fd = some_fd(t);

	note(t, "GET_OFFSET_FOR_VADDR fd %lu, bad, at %#lx", fd, p);
	return result(t, ioctl(fd, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR, p));
}

static bool do_notify(struct thread *t)
{
	unsigned int count, len, action = rnd(t, 4);
	atomic_ulong *slot;
	uint64_t index;
	int fd;

	if (!some_map(t, &fd, &count, &index, &slot))
		return false;
	index += rnd(t, count) * PAGE;
	/* No byte of a fixed page may be cleared. */
	index += is_for_fixed(fd) ? rnd(t, PAGE) : beyond_tag(t, &len);
	note(t, "SET_UNMAP_NOTIFY fd %lu, at %#lx, action %lu, port %lu", fd,
	     index, action, t->port);
	return result(t, gntdev_notify(fd, index, action, t->port));
}

static bool do_notify_bad(struct thread *t)
{
	static const uint32_t no_port[] = { 0, 4095, 131072, 1U << 31, -1U };
	struct ioctl_gntdev_unmap_notify op = {
		.index = rnd(t, 64) * PAGE,
		.action = UNMAP_NOTIFY_SEND_EVENT,
		.event_channel_port = t->port,
	};
	unsigned int way = rnd(t, 4);
	int fd = some_fd(t);
	void *p = &op;

	switch (way) {
	case 0:
		op.event_channel_port = no_port[rnd(t, ARRAY_SIZE(no_port))];
		break;
	case 1:
		op.action = 4U << rnd(t, 30) | rnd(t, 4);
		break;
	case 2:
		op.index = 1ULL << (48 + rnd(t, 15));
		break;
	default:
		p = bad_pointer(t, sizeof(op));
		break;
	}
	note(t, "SET_UNMAP_NOTIFY fd %lu, bad, way %lu, action %#lx, port %#lx",
	     fd, way, op.action, op.event_channel_port);
	return result(t, ioctl(fd, IOCTL_GNTDEV_SET_UNMAP_NOTIFY, p));
}

/* Replace the port, although maps may still have to notify the old one. */
static bool do_events(struct thread *t)
{
	uint32_t wait_port;

	note(t, "instead of port %lu another one", t->port);
	close(t->events);
	t->events = event_pair(&wait_port, &t->port);
	if (!result(t, t->events))
		t->port = 0;
	return t->events >= 0;
}

#define COPY_SEGMENTS	4

static bool copied(const struct gntdev_grant_copy_segment *seg,
		   unsigned int count, int ret)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		if (seg[i].status)
			return false;
	return !ret;
}

static bool do_copy(struct thread *t)
{
	struct gntdev_grant_copy_segment seg[COPY_SEGMENTS] = { 0 };
	unsigned int i, len, at, n = 1 + rnd(t, COPY_SEGMENTS);
	struct ioctl_gntdev_grant_copy op = { n, seg };
	const char *want[COPY_SEGMENTS];
	struct ioctl_gntdev_grant_ref page;
	unsigned int way = rnd(t, 5);
	int fd = some_fd(t), ret;
	size_t pages;

	for (i = 0; i < n; i++) {
		struct gntdev_grant_copy_segment *s = seg + i;

		at = one_in(t, 2) ? 0 : beyond_tag(t, &len);
		s->len = at ? len : PAGE;
		page = some_page(t, way == 0);
		want[i] = bytes_of(page);
		s->flags = GNTCOPY_source_gref;
		s->source.foreign.ref = page.ref;
		s->source.foreign.domid = page.domid;
		s->source.foreign.offset = at;
		switch (way) {
		case 0:
		case 1:
			/* To where it is checked. */
			s->source.foreign.offset = 0;
			s->len = PAGE;
			s->dest.virt = t->got + i * PAGE;
			break;
		case 2:
			/* To a mapping. */
			s->dest.virt = somewhere(t, &pages) + at;
			break;
		case 3:
			/* From here. */
			s->flags = 0;
			s->source.virt = at ? somewhere(t, &pages) + at :
					 loose_page;
			break;
		default:
			break;
		}
		if (way < 3)
			continue;
		page = some_page(t, false);
		s->flags |= GNTCOPY_dest_gref;
		s->dest.foreign.ref = page.ref;
		s->dest.foreign.domid = page.domid;
		s->dest.foreign.offset = at;
	}
	note(t, "GRANT_COPY fd %lu, way %lu, %lu segments", fd, way, n);
	ret = ioctl(fd, IOCTL_GNTDEV_GRANT_COPY, &op);
	result(t, ret);
	if (!copied(seg, n, ret))
		return false;
	for (i = 0; way == 0 && i < n; i++)
		if (memcmp(t->got + i * PAGE, want[i], PAGE))
			fault("GRANT_COPY: not the page that was asked for");
	if (way == 1)
		check("GRANT_COPY", t->got, n * PAGE);
	return true;
}

static bool do_copy_bad(struct thread *t)
{
	struct gntdev_grant_copy_segment seg[2] = { 0 }, *s = &seg[rnd(t, 2)];
	struct ioctl_gntdev_grant_copy op = { 2, seg };
	struct ioctl_gntdev_grant_ref page;
	unsigned int i, way = rnd(t, 8);
	int fd = some_fd(t), ret;
	void *p = &op;

	for (i = 0; i < 2; i++) {
		page = some_page(t, one_in(t, 2));
		seg[i].flags = GNTCOPY_source_gref;
		seg[i].source.foreign.ref = page.ref;
		seg[i].source.foreign.domid = page.domid;
		seg[i].dest.virt = t->got + i * PAGE;
		seg[i].len = PAGE;
	}
	switch (way) {
	case 0:
		s->flags = 0;
		s->source.virt = loose_page;
		break;
	case 1:
		s->source.foreign.offset = 1 + rnd(t, 0xfffe);
		break;
	case 2:
		s->source.foreign.ref = NO_REF + rnd(t, 256);
		break;
	case 3:
		s->source.foreign.domid = 0x7ff4;
		break;
	case 4:
		s->dest.virt = bad_pointer(t, PAGE);
		break;
	case 5:
		p = bad_pointer(t, sizeof(op));
		break;
	case 6:
		op.segments = bad_pointer(t, sizeof(seg));
		op.count = one_in(t, 2) ? 2 : -1U;
		break;
	default:
		/* The status cannot be written. */
		op.segments = (void *)(read_only + PAGE / 2);
		break;
	}
	note(t, "GRANT_COPY fd %lu, bad, way %lu", fd, way);
	ret = ioctl(fd, IOCTL_GNTDEV_GRANT_COPY, p);
	result(t, ret);
	return way < 5 ? copied(seg, 2, ret) : !ret;
}

static bool do_ioctl_unknown(struct thread *t)
{
	static const unsigned long known_of_dmabuf[] = {
		IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS,
		IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED,
		IOCTL_GNTDEV_DMABUF_IMP_TO_REFS,
		IOCTL_GNTDEV_DMABUF_IMP_RELEASE,
		IOCTL_GNTDEV_SET_MAX_GRANTS,
	};
	/* Not valid as a number of pages, nor as a file. */
	uint32_t op[16] = { -1U, LIMIT + 1, -1U, -1U };
	unsigned long cmd = known_of_dmabuf[rnd(t, ARRAY_SIZE(known_of_dmabuf))];
	int fd = some_fd(t);
	void *p;

	if (one_in(t, 2))
		cmd = _IOC(rnd(t, 4), 'G', 13 + rnd(t, 200), rnd(t, 1 << 14));
	p = one_in(t, 4) ? bad_pointer(t, sizeof(op)) : op;
	note(t, "ioctl fd %lu, %#lx, at %#lx", fd, cmd, p);
	return result(t, ioctl(fd, cmd, p));
}

/* ------------------------------------------------------------------ */
/* Operations: the files */

static bool do_open(struct thread *t)
{
	int to = some_fd(t), fd, ret;

	note(t, "open fd %lu", to);
	fd = gntdev_open();
	ret = fd < 0 ? -1 : dup2(fd, to);
	if (fd >= 0)
		close(fd);
	return result(t, ret);
}

static bool do_dup(struct thread *t)
{
	int fd = some_fd(t);
	/* The other one is for the same pages. */
	int to = FD_BASE + (is_for_fixed(fd) ? FDS / 2 : 0) + rnd(t, FDS / 2);

	note(t, "dup2 fd %lu to %lu", fd, to);
	return result(t, dup2(fd, to));
}

static bool do_close(struct thread *t)
{
	int fd = some_fd(t);

	note(t, "close fd %lu", fd);
	return result(t, close(fd));
}

/* ------------------------------------------------------------------ */
/* Operations: mappings */

static bool do_mmap(struct thread *t)
{
	static const int prots[] = {
		PROT_READ, PROT_READ, PROT_READ | PROT_EXEC, PROT_NONE,
		PROT_WRITE, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
		PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
		PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
		PROT_READ | PROT_WRITE,
	};
	enum { FOR_READING = 4 };
	int fd, prot, flags = one_in(t, 16) ? MAP_SHARED_VALIDATE : MAP_SHARED;
	unsigned int count;
	atomic_ulong *slot;
	uint64_t index;
	char *p, *at;

	if (!some_map(t, &fd, &count, &index, &slot))
		return false;
	prot = prots[rnd(t, is_for_fixed(fd) ? FOR_READING : ARRAY_SIZE(prots))];
	if (!(prot & PROT_WRITE) && one_in(t, 4))
		flags = MAP_PRIVATE;
	if (one_in(t, 8))
		flags |= MAP_POPULATE;
	if (one_in(t, 32))
		flags |= MAP_LOCKED;
	at = arena + (rnd(t, WINDOWS) * WPAGES + rnd(t, WPAGES - count + 1)) *
	     PAGE;
	switch (rnd(t, 12)) {
	case 0:
		break;		/* only a hint */
	case 1:
		at = NULL;
		break;
	case 2:
		flags |= MAP_FIXED_NOREPLACE;
		break;
	default:
		flags |= MAP_FIXED;
		break;
	}
	note(t, "mmap(%#lx, %lu pages, prot %lu, flags %#lx, fd %lu, %#lx)", at,
	     count, prot, flags, fd, index);
	p = mmap(at, count * PAGE, prot, flags, fd, index);
	/* A map can be mapped only once; other threads try nevertheless. */
	if (!one_in(t, 8))
		atomic_store(slot, 0);
	if (!result(t, p == MAP_FAILED ? -1 : 0))
		return false;
	if (!(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)))
		keep_stray(t, p, count * PAGE);
	return true;
}

/* Nothing that is mapped with these files has such a size or such flags. */
static bool do_mmap_bad(struct thread *t)
{
	char *p, *at = arena + rnd(t, WINDOWS) * WPAGES * PAGE;
	int fd, prot = PROT_READ, flags = MAP_SHARED;
	size_t len = (1 + rnd(t, WPAGES)) * PAGE;
	unsigned int count, way = rnd(t, 4);
	atomic_ulong *slot;
	uint64_t index;

	if (!some_map(t, &fd, &count, &index, &slot)) {
		fd = some_fd(t);
		index = 0;
	}
	switch (way) {
	case 0:
		len = (WPAGES + 1 + rnd(t, WPAGES)) * PAGE;
		if (len > (size_t)(arena + ARENA_PAGES * PAGE - at))
			at -= WPAGES * PAGE;
		break;
	case 1:
		prot |= PROT_WRITE;
		flags = MAP_PRIVATE;
		break;
	case 2:
		index += (1UL + rnd(t, 1000)) << 24;
		break;
	default:
		index += 1 + rnd(t, PAGE - 1);
		break;
	}
	note(t, "mmap(%#lx, %#lx, prot %lu, flags %#lx, fd %lu, %#lx), bad", at,
	     len, prot, flags | MAP_FIXED, fd, index);
	p = mmap(at, len, prot, flags | MAP_FIXED, fd, index);
	return result(t, p == MAP_FAILED ? -1 : 0);
}

static bool do_anonymous(struct thread *t)
{
	static const int prots[] = {
		PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
	};
	int flags = MAP_ANONYMOUS | (one_in(t, 2) ? MAP_SHARED : MAP_PRIVATE);
	int prot = prots[rnd(t, ARRAY_SIZE(prots))];
	size_t len;
	char *p = somewhere(t, &len);

	flags |= one_in(t, 4) ? MAP_FIXED_NOREPLACE : MAP_FIXED;
	note(t, "mmap(%#lx, %#lx, prot %lu, flags %#lx), anonymous", p, len,
	     prot, flags);
	return result(t, mmap(p, len, prot, flags, -1, 0) == MAP_FAILED ? -1 : 0);
}

static bool do_munmap(struct thread *t)
{
	size_t len;
	char *p = somewhere(t, &len);

	note(t, "munmap(%#lx, %#lx)", p, len);
	return result(t, munmap(p, len));
}

static bool do_mprotect(struct thread *t)
{
	/* PROT_EXEC on any kind of data, which is never executed. */
	int prot = rnd(t, 8);
	size_t len;
	char *p = somewhere(t, &len);

	note(t, "mprotect(%#lx, %#lx, %lu)", p, len, prot);
	return result(t, mprotect(p, len, prot));
}

static bool do_madvise(struct thread *t)
{
	/* Up to MADV_COLLAPSE and a few more; those from 100 on damage memory. */
	int advice = rnd(t, 30);
	size_t len;
	char *p = somewhere(t, &len);

	/* Often those that zap, and the one that lets children inherit. */
	if (one_in(t, 3))
		advice = one_in(t, 2) ? MADV_DONTNEED : MADV_DOFORK;
	note(t, "madvise(%#lx, %#lx, %lu)", p, len, advice);
	return result(t, madvise(p, len, advice));
}

static bool do_mremap(struct thread *t)
{
	size_t len, to_len, room;
	char *p = somewhere(t, &len), *to = somewhere(t, &room), *q;
	int flags = one_in(t, 4) ? 0 : MREMAP_MAYMOVE;

	switch (rnd(t, 4)) {
	case 0:
		to_len = (1 + rnd(t, len / PAGE)) * PAGE;
		break;
	case 1:
		to_len = len + rnd(t, 3) * PAGE;
		break;
	default:
		to_len = len;
		break;
	}
	if (flags && one_in(t, 4) && to_len == len)
		flags |= MREMAP_DONTUNMAP;
	if (flags && !one_in(t, 4)) {
		flags |= MREMAP_FIXED;
		to_len = min(to_len, room);
	}
	/* Growing in place must not reach beyond the arena. */
	if (!(flags & MREMAP_FIXED) && !(flags & MREMAP_MAYMOVE))
		to_len = min(to_len, len);
	note(t, "mremap(%#lx, %#lx, %#lx, flags %lu, %#lx)", p, len, to_len,
	     flags, to);
	q = mremap(p, len, to_len, flags, to);
	if (!result(t, q == MAP_FAILED ? -1 : 0))
		return false;
	if (q != p && !(flags & MREMAP_FIXED))
		keep_stray(t, q, to_len);
	return true;
}

static bool do_mlock(struct thread *t)
{
	size_t len;
	char *p = somewhere(t, &len);
	unsigned int way = rnd(t, 3);

	note(t, "mlock, way %lu (%#lx, %#lx)", way, p, len);
	switch (way) {
	case 0:
		return result(t, mlock(p, len));
	case 1:
		return result(t, mlock2(p, len, MLOCK_ONFAULT));
	default:
		return result(t, munlock(p, len));
	}
}

static bool do_msync(struct thread *t)
{
	int flags = 1 + rnd(t, 7);
	size_t len;
	char *p = somewhere(t, &len);

	note(t, "msync(%#lx, %#lx, %lu)", p, len, flags);
	return result(t, msync(p, len, flags));
}

static bool do_mincore(struct thread *t)
{
	unsigned char in[ARENA_PAGES];
	size_t len;
	char *p = somewhere(t, &len);

	note(t, "mincore(%#lx, %#lx)", p, len);
	return result(t, mincore(p, len, in));
}

/* ------------------------------------------------------------------ */
/* Operations: looking and writing */

static bool do_touch(struct thread *t)
{
	size_t len;
	char *p = somewhere(t, &len);
	bool write = one_in(t, 2);
	unsigned int rest, at = beyond_tag(t, &rest);
	int sig;

	note(t, "touch %#lx, write %lu", p + at, write);
	sig = touch_caught(p + at, write);
	errno = EFAULT;
	return result(t, sig ? -1 : 0);
}

static bool do_look(struct thread *t)
{
	size_t len;
	char *p = somewhere(t, &len);

	note(t, "look at %#lx+%#lx", p, len);
	errno = EFAULT;
	if (!result(t, copy_caught(t->got, p, len) ? 0 : -1))
		return false;
	check_torn("look", t->got, len);
	return true;
}

/* Write memory to a file by an ordinary write(), and read it from one. */
static bool do_file(struct thread *t)
{
	bool write = one_in(t, 2);
	size_t len;
	char *p = somewhere(t, &len);
	long n;

	note(t, write ? "write(%#lx, %#lx)" : "read(%#lx, %#lx)", p, len);
	if (!write)
		return result(t, pread(t->file, p, len, AREA_SIZE));
	n = pwrite(t->file, p, len, 0);
	if (!result(t, n))
		return false;
	if (pread(t->file, t->got, n, 0) != n)
		fault("cannot read a file in memory: %s", strerror(errno));
	check_torn("write", t->got, n);
	return true;
}

static bool do_vm_read(struct thread *t)
{
	/* A child reads from the process whose thread it was. */
	pid_t pid = t->child && one_in(t, 2) ? getppid() : getpid();
	struct iovec local, remote;
	long n;

	remote.iov_base = somewhere(t, &remote.iov_len);
	local = (struct iovec){ t->got, remote.iov_len };
	note(t, "process_vm_readv(%#lx, %#lx)", remote.iov_base, remote.iov_len);
	n = process_vm_readv(pid, &local, 1, &remote, 1, 0);
	if (!result(t, n))
		return false;
	check("process_vm_readv", t->got, n);
	return true;
}

static bool do_vm_write(struct thread *t)
{
	pid_t pid = t->child && one_in(t, 2) ? getppid() : getpid();
	struct iovec local = { loose_page, PAGE }, remote;
	unsigned int at, len;
	size_t pages;

	remote.iov_base = somewhere(t, &pages);
	remote.iov_len = PAGE;
	if (one_in(t, 2)) {
		at = beyond_tag(t, &len);
		remote.iov_base = (char *)remote.iov_base + at;
		local.iov_len = len;
		remote.iov_len = len;
	}
	note(t, "process_vm_writev(%#lx, %#lx)", remote.iov_base, remote.iov_len);
	return result(t, process_vm_writev(pid, &local, 1, &remote, 1, 0));
}

static bool do_mem_read(struct thread *t)
{
	size_t len;
	char *p = somewhere(t, &len);
	long n;

	note(t, "read mem %#lx+%#lx", p, len);
	n = pread(t->mem, t->got, len, (uintptr_t)p);
	if (!result(t, n))
		return false;
	check("mem", t->got, n);
	return true;
}

static bool do_mem_write(struct thread *t)
{
	unsigned int len, at = beyond_tag(t, &len);
	size_t pages;
	char *p = somewhere(t, &pages) + at;

	note(t, "write mem %#lx+%#lx", p, len);
	return result(t, pwrite(t->mem, loose_page, len, (uintptr_t)p));
}

static bool do_proc(struct thread *t)
{
	static const char * const table[] = {
		"/proc/self/smaps", "/proc/self/smaps_rollup",
		"/proc/self/maps", "/proc/self/numa_maps",
	};
	unsigned int which = rnd(t, 8);
	uint64_t entry[WPAGES];
	size_t len;
	char *p = somewhere(t, &len);
	long n;
	int fd;

	note(t, "/proc, way %lu, %#lx+%#lx", which, p, len);
	if (which >= ARRAY_SIZE(table))
		return result(t, pread(t->pagemap, entry,
				       len / PAGE * sizeof(*entry),
				       (uintptr_t)p / PAGE * sizeof(*entry)));
	fd = open(table[which], O_RDONLY | O_CLOEXEC);
	if (!result(t, fd))
		return false;
	do {
		n = read(fd, t->got, WPAGES * PAGE);
	} while (n > 0);
	result(t, n);
	close(fd);
	return !n;
}

static bool do_clear_refs(struct thread *t)
{
	static const char * const what[] = { "1", "2", "3", "4", "5" };
	unsigned int which = rnd(t, ARRAY_SIZE(what));

	note(t, "clear_refs %lu", which + 1);
	return result(t, write_string("/proc/self/clear_refs", what[which]));
}

/* ------------------------------------------------------------------ */
/* Operations: pins */

static int *some_pipe(struct thread *t)
{
	return t->pipe[rnd(t, PIPES - 1)];
}

static bool do_vmsplice(struct thread *t)
{
	int flags = SPLICE_F_NONBLOCK | (one_in(t, 8) ? SPLICE_F_GIFT : 0);
	struct iovec iov;
	int *p = some_pipe(t);

	iov.iov_base = somewhere(t, &iov.iov_len);
	if (one_in(t, 8)) {
		p = t->pipe[PIPES - 1];
		iov.iov_base = (char *)iov.iov_base + rnd(t, PAGE);
		iov.iov_len -= PAGE - 1;
	}
	note(t, "vmsplice(%#lx, %#lx) to fd %lu", iov.iov_base, iov.iov_len,
	     p[1]);
	return result(t, vmsplice(p[1], &iov, 1, flags));
}

static bool do_pipe_read(struct thread *t)
{
	int *p = some_pipe(t);
	size_t len = (1 + rnd(t, WPAGES)) * PAGE;
	long n;

	if (one_in(t, 4))
		p = t->pipe[PIPES - 1];
	note(t, "read %#lx from pipe, fd %lu", len, p[0]);
	n = read(p[0], t->got, len);
	if (!result(t, n)) {
		if (errno != EAGAIN)
			fault("a pipe's data is lost: %s", strerror(errno));
		return false;
	}
	if (p == t->pipe[PIPES - 1])
		return true;
	if (n % PAGE)
		fault("%ld bytes from a pipe of whole pages", n);
	check("pipe", t->got, n);
	return true;
}

static bool do_splice(struct thread *t)
{
	int *from = some_pipe(t), *to = some_pipe(t);
	size_t len = (1 + rnd(t, WPAGES)) * PAGE;
	unsigned int way = rnd(t, 3);
	loff_t at = 0;
	long n;

	note(t, "splice, way %lu, %#lx from fd %lu", way, len, from[0]);
	switch (way) {
	case 0:
		return result(t, tee(from[0], to[1], len, SPLICE_F_NONBLOCK));
	case 1:
		return result(t, splice(from[0], NULL, to[1], NULL, len,
					SPLICE_F_NONBLOCK));
	default:
		n = splice(from[0], NULL, t->file, &at, len, SPLICE_F_NONBLOCK);
		if (!result(t, n))
			return false;
		if (pread(t->file, t->got, n, 0) != n)
			fault("cannot read a file in memory: %s",
			      strerror(errno));
		check("splice", t->got, n);
		return true;
	}
}

/* Send to another process, which checks the pages after a while. */
static bool do_pass(struct thread *t)
{
	struct iovec iov;

	iov.iov_base = somewhere(t, &iov.iov_len);
	note(t, "vmsplice(%#lx, %#lx) to the receiver", iov.iov_base,
	     iov.iov_len);
	return result(t, vmsplice(out_pipe[1], &iov, 1, SPLICE_F_NONBLOCK));
}

static off_t area(struct thread *t)
{
	return t->id * AREA_SIZE;
}

/* Check what was written to this thread's area of the disk. */
static void check_disk(struct thread *t, const char *who, long len)
{
	if (pread(t->disk, t->got, len, area(t)) != len)
		fault("%s: cannot read the disk: %s", who, strerror(errno));
	check(who, t->got, len);
}

static bool do_direct_write(struct thread *t)
{
	size_t len;
	char *p = somewhere(t, &len);
	long n;

	note(t, "O_DIRECT write(%#lx, %#lx)", p, len);
	if (one_in(t, 8)) {
		/* Not whole pages. */
		n = pwrite(t->disk, p + rnd(t, 8) * SECTOR, SECTOR, area(t));
		return result(t, n);
	}
	n = pwrite(t->disk, p, len, area(t));
	if (!result(t, n))
		return false;
	check_disk(t, "direct", n);
	return true;
}

static bool do_direct_read(struct thread *t)
{
	size_t len;
	char *p = somewhere(t, &len);

	if (one_in(t, 4)) {
		p += rnd(t, 8) * SECTOR;
		len = SECTOR;
	}
	note(t, "O_DIRECT read(%#lx, %#lx)", p, len);
	return result(t, pread(t->disk, p, len, SOURCE_AREA));
}

static bool do_aio(struct thread *t)
{
	bool write = one_in(t, 2);
	size_t len;
	char *p = somewhere(t, &len);
	int n;

	note(t, write ? "AIO write(%#lx, %#lx)" : "AIO read(%#lx, %#lx)", p, len);
	n = aio_io_in(t->aio, write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, t->disk,
		      p, len, write ? area(t) : (off_t)SOURCE_AREA);
	errno = -n;
	if (!result(t, n))
		return false;
	if (write)
		check_disk(t, "aio", n);
	return true;
}

static bool do_uring(struct thread *t)
{
	bool write = one_in(t, 2);
	size_t len;
	char *p = somewhere(t, &len);
	int n;

	note(t, write ? "io_uring write(%#lx, %#lx)" : "io_uring read(%#lx, %#lx)",
	     p, len);
	n = uring_io(&t->ring, write ? IORING_OP_WRITE : IORING_OP_READ,
		     t->disk, p, len, write ? area(t) : (off_t)SOURCE_AREA);
	errno = -n;
	if (!result(t, n))
		return false;
	if (write)
		check_disk(t, "io_uring", n);
	return true;
}

/* Register a buffer; the previous one is unregistered. */
static bool do_uring_register(struct thread *t)
{
	size_t len;
	char *p = somewhere(t, &len);

	note(t, "io_uring register(%#lx, %#lx)", p, len);
	if (t->registered && uring_unregister(&t->ring))
		fault("cannot unregister: %s", strerror(errno));
	t->registered = NULL;
	if (!result(t, uring_register(&t->ring, p, len)))
		return false;
	t->registered = p;
	t->registered_len = len;
	return true;
}

/* Registered pages stay valid, even if their addresses were unmapped. */
static bool do_uring_fixed(struct thread *t)
{
	bool write = one_in(t, 2);
	int n;

	if (!t->registered)
		return false;
	note(t, write ? "io_uring write, registered (%#lx, %#lx)" :
		"io_uring read, registered (%#lx, %#lx)", t->registered,
	     t->registered_len);
	n = uring_io(&t->ring,
		     write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED,
		     t->disk, t->registered, t->registered_len,
		     write ? area(t) : (off_t)SOURCE_AREA);
	errno = -n;
	result(t, n);
	if (n != (int)t->registered_len)
		fault("a registered buffer's data is lost: %d", n);
	else if (write)
		check_disk(t, "io_uring fixed", n);
	return true;
}

/* ------------------------------------------------------------------ */
/* Operations: granted pages as buffers of a ring, without a mapping */

static struct slot some_pages(struct thread *t)
{
	struct slot slot = { .count = 1 + rnd(t, WPAGES), .of_fixed = one_in(t, 2) };
	struct grants *g = &sources[rnd(t, nr_sources)];
	unsigned int i;

	for (i = 0; i < slot.count; i++) {
		slot.page[i].domid = g->domid;
		slot.page[i].ref = g->ref[slot.of_fixed ? rnd(t, FIXED) :
						       FIXED + rnd(t, LOOSE)];
	}
	return slot;
}

static struct gntdev_uring_buffer buffer_of(const struct slot *slot, uint32_t *refs,
					    unsigned int index)
{
	unsigned int i;

	for (i = 0; i < slot->count; i++)
		refs[i] = slot->page[i].ref;
	return (struct gntdev_uring_buffer){
		.index = index,
		.domid = slot->page[0].domid,
		.flags = slot->of_fixed ? GNTDEV_URING_READ_ONLY : 0,
		.count = slot->count,
		.refs = (uintptr_t)refs,
	};
}

static int run_command(struct thread *t, int fd, unsigned int op, const void *array,
		       unsigned int n)
{
	int ret;

	uring_command(&t->buffers, fd, op, array, n);
	ret = uring_run(&t->buffers);
	errno = -ret;
	return ret;
}

/* Only with a file of one's own it must work, if the slots are empty. */
static bool do_buffer_add(struct thread *t)
{
	unsigned int i, n = 1 + rnd(t, 2), at = rnd(t, SLOTS);
	struct gntdev_uring_buffer buffer[2];
	int fd = one_in(t, 2) ? t->own : some_fd(t);
	uint32_t refs[2][WPAGES];
	struct slot slot[2];
	bool empty = true;

	for (i = 0; i < n; i++) {
		slot[i] = some_pages(t);
		buffer[i] = buffer_of(&slot[i], refs[i], (at + i) % SLOTS);
		empty &= !t->slot[(at + i) % SLOTS].count;
	}
	note(t, "register %lu buffers from slot %lu, fd %lu, %lu pages", n, at, fd,
	     slot[0].count);
	if (!result(t, run_command(t, fd, GNTDEV_URING_REGISTER, buffer, n))) {
		if (fd == t->own && errno != (empty ? 0 : EBUSY))
			fault("cannot register buffers: %s", strerror(errno));
		return false;
	}
	if (!empty)
		fault("a buffer was replaced");
	for (i = 0; i < n; i++)
		t->slot[(at + i) % SLOTS] = slot[i];
	return true;
}

/* The first buffer is right, the second one, or the whole command, is not. */
static bool do_buffer_bad(struct thread *t)
{
	unsigned int i, way = rnd(t, 12), op = GNTDEV_URING_REGISTER, n = 2;
	struct gntdev_uring_buffer buffer[2], *b = &buffer[1];
	int fd = one_in(t, 2) ? t->own : some_fd(t);
	uint32_t refs[2][WPAGES];
	void *array = buffer;
	struct slot slot;

	for (i = 0; i < 2; i++) {
		slot = some_pages(t);
		buffer[i] = buffer_of(&slot, refs[i], rnd(t, SLOTS));
	}
	switch (way) {
	case 0:
		refs[1][rnd(t, b->count)] = NO_REF + rnd(t, 256);
		break;
	case 1:
		b->domid = 0x7ff1;
		break;
	case 2:
		b->domid |= 0x10000U << rnd(t, 16);
		break;
	case 3:
		b->flags |= 2U << rnd(t, 31);
		break;
	case 4:
		b->count = one_in(t, 2) ? 0 : -1U - rnd(t, 1000);
		break;
	case 5:
		b->count = GNTDEV_URING_MAX_PAGES - buffer[0].count + 1;
		break;
	case 6:
		b->refs = (uintptr_t)bad_pointer(t, b->count * sizeof(refs[0][0]));
		break;
	case 7:
		b->index = one_in(t, 2) ? SLOTS + rnd(t, 1000) : -1U - rnd(t, 1000);
		break;
	case 8:
		b->index = buffer[0].index;
		break;
	case 9:
		array = bad_pointer(t, sizeof(buffer));
		break;
	case 10:
		op = one_in(t, 2) ? IOCTL_GNTDEV_MAP_GRANT_REF : 1U << rnd(t, 32);
		break;
	default:
		n = one_in(t, 2) ? 0 : GNTDEV_URING_MAX_BUFFERS + 1 + rnd(t, 1000);
		op = one_in(t, 2) ? op : GNTDEV_URING_UNREGISTER;
		break;
	}
	note(t, "register buffers, fd %lu, bad, way %lu", fd, way);
	return result(t, run_command(t, fd, op, array, n));
}

static bool do_buffer_del(struct thread *t)
{
	unsigned int i, n = 1 + rnd(t, 2), at = rnd(t, SLOTS);
	int fd = one_in(t, 2) ? t->own : some_fd(t), ret;
	uint32_t index[2];
	bool used = true;

	for (i = 0; i < n; i++) {
		index[i] = (at + i) % SLOTS;
		used &= !!t->slot[index[i]].count;
	}
	note(t, "unregister %lu buffers from slot %lu, fd %lu", n, at, fd);
	ret = run_command(t, fd, GNTDEV_URING_UNREGISTER, index, n);
	result(t, ret);
	if (ret == -EBADF)
		return false;
	/* Those before an empty slot are unregistered, too. */
	for (i = 0; i < n && t->slot[index[i]].count; i++)
		t->slot[index[i]].count = 0;
	if (used ? ret < 0 || ret > (int)n : ret != -EINVAL)
		fault("unregister: %d, of %u buffers", ret, n);
	return ret >= 0;
}

/* Check what was written to the disk from pages [first, first + n) of a buffer. */
static void check_slot(struct thread *t, const struct slot *slot, unsigned int first,
		       unsigned int n)
{
	unsigned int i;

	check_disk(t, "buffer", n * PAGE);
	for (i = 0; slot->of_fixed && i < n; i++)
		if (memcmp(t->got + i * PAGE, bytes_of(slot->page[first + i]), PAGE))
			fault("buffer: page %u of %u is another one", first + i,
			      slot->count);
}

/* Also with an empty slot, beyond the end of a buffer, or into fixed pages. */
static bool do_buffer_io(struct thread *t)
{
	unsigned int at = rnd(t, SLOTS), first = rnd(t, WPAGES), n = 1 + rnd(t, WPAGES);
	struct slot *slot = &t->slot[at];
	bool write = one_in(t, 2), good;
	int ret;

	if (slot->count && !one_in(t, 8)) {
		first %= slot->count;
		n = 1 + n % (slot->count - first);
	}
	note(t, write ? "write buffer %lu, pages %lu+%lu of %lu" :
			"read buffer %lu, pages %lu+%lu of %lu",
	     at, first, n, slot->count);
	uring_fixed(&t->buffers, write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED,
		    t->disk, at, first * PAGE, n * PAGE,
		    write ? area(t) : (off_t)SOURCE_AREA);
	ret = uring_run(&t->buffers);
	errno = -ret;
	result(t, ret);
	good = first + n <= slot->count && (write || !slot->of_fixed);
	if (ret != (good ? (int)(n * PAGE) : -EFAULT))
		fault("I/O of pages %u+%u of %u: %d", first, n, slot->count, ret);
	else if (good && write)
		check_slot(t, slot, first, n);
	return good;
}

/* Register, write, unregister, as linked requests. */
static bool do_buffer_linked(struct thread *t)
{
	unsigned int flags = one_in(t, 4) ? IOSQE_ASYNC : 0, i;
	struct slot slot = some_pages(t);
	struct gntdev_uring_buffer buffer;
	uint32_t refs[WPAGES], at;
	int got[3] = { 0 };

	for (at = 0; at < SLOTS && t->slot[at].count; at++)
		;
	if (at == SLOTS)
		return false;
	buffer = buffer_of(&slot, refs, at);
	note(t, "linked, buffer %lu, %lu pages, flags %#lx", at, slot.count, flags);
	uring_command(&t->buffers, t->own, GNTDEV_URING_REGISTER, &buffer, 1)->flags =
		IOSQE_IO_LINK | flags;
	uring_fixed(&t->buffers, IORING_OP_WRITE_FIXED, t->disk, at, 0,
		    slot.count * PAGE, area(t))->flags = IOSQE_IO_HARDLINK | flags;
	uring_command(&t->buffers, t->own, GNTDEV_URING_UNREGISTER, &at, 1)->flags =
		flags;
	result(t, uring_enter(&t->buffers, 3));
	for (i = 0; i < 3; i++)
		if (!uring_next(&t->buffers, &got[i]))
			fault("request %u of 3 has no result", i);
	/* A worker thread may still hold the buffer. */
	if (got[0] || got[1] != (int)(slot.count * PAGE) || got[2] < 0 || got[2] > 1)
		fault("linked: %d, %d, %d", got[0], got[1], got[2]);
	else
		check_slot(t, &slot, 0, slot.count);
	return true;
}

/* A read that does not end before it is cancelled. */
static bool do_buffer_pending(struct thread *t)
{
	unsigned int at = rnd(t, SLOTS);
	struct slot *slot = &t->slot[at];

	if (!slot->count || slot->of_fixed || t->pending == PENDING)
		return false;
	note(t, "read from an empty pipe into buffer %lu", at);
	uring_fixed(&t->buffers, IORING_OP_READ_FIXED, t->never[0], at, 0,
		    slot->count * PAGE, 0);
	if (!result(t, uring_enter(&t->buffers, 0)))
		fault("cannot submit a read: %s", strerror(errno));
	t->pending++;
	return true;
}

static bool do_buffer_cancel(struct thread *t)
{
	int got, cancelled = -1, ended = 0;

	if (!t->pending)
		return false;
	note(t, "cancel %lu reads", t->pending);
	uring_sqe(&t->buffers, IORING_OP_ASYNC_CANCEL, -1, 0, 0, 0)->cancel_flags =
		IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
	result(t, uring_enter(&t->buffers, t->pending + 1));
	while (uring_next(&t->buffers, &got)) {
		if (got == -ECANCELED)
			ended++;
		else
			cancelled = got;
	}
	if (ended != (int)t->pending || cancelled != ended)
		fault("%d reads of %u were cancelled, %d ended", cancelled, t->pending,
		      ended);
	t->pending = 0;
	return true;
}

/*
 * Instead of closing the ring: at this time the new one could be mapped into a
 * hole of the arena.
 */
static bool do_buffer_drop(struct thread *t)
{
	note(t, "unregister all buffers, %lu reads", t->pending);
	memset(t->slot, 0, sizeof(t->slot));
	if (!result(t, uring_unregister(&t->buffers)) ||
	    uring_make_table(&t->buffers, SLOTS))
		fault("cannot make a new table of buffers: %s", strerror(errno));
	return true;
}

/* ------------------------------------------------------------------ */
/* Operations: a mapping of one's own */

/* Reserve the addresses: the kernel could place other mappings in a hole. */
static void cover(char *p, size_t len)
{
	if (mmap(p, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) == MAP_FAILED)
		fault("cannot cover a mapping: %s", strerror(errno));
}

/* Read a mapping into t->got in a random way, and cover it. */
static long bring(struct thread *t, unsigned int way, char *p, size_t len)
{
	struct iovec iov = { p, len };
	long n;

	switch (way) {
	case 0:
		n = vmsplice(t->my_pipe[1], &iov, 1, SPLICE_F_NONBLOCK);
		cover(p, len);
		if (n == (long)len)
			n = read_all(t->my_pipe[0], t->got, len);
		return n;
	case 1:
		n = pwrite(t->disk, p, len, area(t));
		break;
	case 2:
		n = uring_io(&t->ring, IORING_OP_WRITE, t->disk, p, len, area(t));
		break;
	case 3:
		n = pread(t->mem, t->got, len, (uintptr_t)p);
		break;
	default:
		n = copy_caught(t->got, p, len) ? (long)len : -1;
		break;
	}
	cover(p, len);
	if (n == (long)len && (way == 1 || way == 2))
		n = pread(t->disk, t->got, len, area(t));
	return n;
}

/* The pages and addresses are private to the thread, so this must work. */
static bool do_alone(struct thread *t)
{
	unsigned int i, way = rnd(t, 5);
	struct ioctl_gntdev_grant_ref ref[WPAGES];
	union add_op add;
	long len, n;
	char *p;

	fill_add_op(t, &add, true);
	memcpy(ref, (char *)&add + offsetof(struct ioctl_gntdev_map_grant_ref, refs),
	       add.op.count * sizeof(*ref));
	len = add.op.count * PAGE;
	note(t, "alone, way %lu, %lu pages at %#lx", way, add.op.count, t->mine);
	if (!result(t, ioctl(t->own, IOCTL_GNTDEV_MAP_GRANT_REF, &add))) {
		fault("cannot add a map of one's own: %s", strerror(errno));
		return false;
	}
	p = mmap(t->mine, len, PROT_READ, MAP_SHARED | MAP_FIXED, t->own,
		 add.op.index);
	if (p == MAP_FAILED) {
		fault("cannot map a map of one's own: %s", strerror(errno));
		cover(t->mine, len);
	} else {
		n = bring(t, way, p, len);
		if (n != len)
			fault("alone: way %u brought %ld of %ld bytes", way, n, len);
		for (i = 0; n == len && i < add.op.count; i++)
			if (memcmp(t->got + i * PAGE, bytes_of(ref[i]), PAGE))
				fault("alone: way %u, page %u of %u is wrong",
				      way, i, add.op.count);
	}
	if (gntdev_del(t->own, add.op.index, add.op.count))
		fault("cannot remove a map of one's own: %s", strerror(errno));
	return true;
}

/* ------------------------------------------------------------------ */
/* Operations: processes */

static void run_one(struct thread *t);

static void child(struct thread *t, unsigned int way)
{
	unsigned int n = 1 + rnd(t, 4);
	size_t len;
	char *p;

	t->child = true;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	switch (way) {
	case 0:
		/* Check all memory that the child can access. */
		for (p = arena; p < arena + ARENA_PAGES * PAGE; p += PAGE)
			if (copy_caught(t->got, p, PAGE))
				check("child", t->got, PAGE);
		break;
	case 1:
		execl("/proc/self/exe", "gntdev_fuzz", "exit", NULL);
		_exit(1);
	case 2:
		p = somewhere(t, &len);
		munmap(p, len);
		break;
	case 3:
		/* Keep all that it inherited until it exits. */
		nap(t, 1000);
		break;
	default:
		/* Work like any thread, until killed or n operations are done. */
		while (n-- && !shared->faults)
			run_one(t);
		break;
	}
	_exit(0);
}

static bool do_fork(struct thread *t)
{
	unsigned int way = rnd(t, 8);
	bool kill_it = one_in(t, 3);
	int status;
	pid_t pid;

	note(t, "fork, way %lu, kill %lu", way, kill_it);
	pid = fork();
	if (!pid)
		child(t, way);
	if (!result(t, pid))
		return false;
	if (kill_it) {
		nap(t, 2000);
		kill(pid, SIGKILL);
	}
	note(t, "wait for process %lu", pid);
	if (!result(t, waitpid(pid, &status, 0))) {
		fault("waitpid: %s", strerror(errno));
		return false;
	}
	if (WIFSIGNALED(status) ? !kill_it || WTERMSIG(status) != SIGKILL :
				  WEXITSTATUS(status))
		fault("a child ended with status %#x (way %u)", status, way);
	return true;
}

/* ------------------------------------------------------------------ */

static const struct kind kinds[] = {
	{ "add", 125, do_add, CAN },
	{ "add bad", 15, do_add_bad, NEVER },
	{ "add huge", 1, do_add_huge, CAN, true },
	{ "del", 30, do_del, CAN },
	{ "del bad", 5, do_del_bad, NEVER },
	{ "offset", 10, do_offset, CAN },
	{ "offset bad", 3, do_offset_bad, NEVER },
	{ "notify", 25, do_notify, CAN },
	{ "notify bad", 5, do_notify_bad, NEVER },
	{ "events", 3, do_events, CAN, true },
	{ "copy", 25, do_copy, CAN },
	{ "copy bad", 8, do_copy_bad, NEVER },
	{ "ioctl unknown", 5, do_ioctl_unknown, NEVER },
	{ "open", 8, do_open, CAN },
	{ "dup", 4, do_dup, CAN },
	{ "close", 3, do_close, CAN },
	{ "mmap", 115, do_mmap, CAN },
	{ "mmap bad", 5, do_mmap_bad, NEVER },
	{ "mmap bad ref", 6, do_map_bad, NEVER, true },
	{ "anonymous", 12, do_anonymous, CAN },
	{ "munmap", 30, do_munmap, CAN },
	{ "mprotect", 15, do_mprotect, CAN },
	{ "madvise", 30, do_madvise, CAN },
	{ "mremap", 15, do_mremap, CAN },
	{ "mlock", 8, do_mlock, CAN },
	{ "msync", 3, do_msync, CAN },
	{ "mincore", 3, do_mincore, CAN },
	{ "touch", 30, do_touch, CAN },
	{ "look", 30, do_look, CAN },
	{ "file", 20, do_file, CAN },
	{ "vm read", 20, do_vm_read, CAN },
	{ "vm write", 15, do_vm_write, CAN },
	{ "mem read", 20, do_mem_read, CAN },
	{ "mem write", 15, do_mem_write, CAN },
	{ "proc", 8, do_proc, CAN },
	{ "clear_refs", 3, do_clear_refs, CAN },
	{ "vmsplice", 60, do_vmsplice, CAN },
	{ "pipe read", 40, do_pipe_read, CAN },
	{ "splice", 25, do_splice, CAN },
	{ "pass", 15, do_pass, CAN },
	{ "direct write", 30, do_direct_write, CAN },
	{ "direct read", 30, do_direct_read, CAN },
	{ "aio", 25, do_aio, CAN, true },
	{ "uring", 20, do_uring, CAN, true },
	{ "uring register", 25, do_uring_register, CAN, true },
	{ "uring fixed", 25, do_uring_fixed, CAN, true },
	{ "buffer add", 40, do_buffer_add, CAN, true },
	{ "buffer bad", 10, do_buffer_bad, NEVER, true },
	{ "buffer del", 25, do_buffer_del, CAN, true },
	{ "buffer I/O", 40, do_buffer_io, CAN, true },
	{ "buffer linked", 15, do_buffer_linked, CAN, true },
	{ "buffer pending", 15, do_buffer_pending, CAN, true },
	{ "buffer cancel", 5, do_buffer_cancel, CAN, true },
	{ "buffer drop", 3, do_buffer_drop, CAN, true },
	{ "alone", 35, do_alone, CAN, true },
	{ "fork", 5, do_fork, CAN, true },
};

static_assert(ARRAY_SIZE(kinds) <= KINDS_MAX, "too many kinds");

static void run_one(struct thread *t)
{
	unsigned int at = rnd(t, weights);
	const struct kind *k;

	for (k = kinds; at >= k->weight; k++)
		at -= k->weight;
	if (t->child && k->not_in_child)
		return;
	if (!k->run(t)) {
		atomic_fetch_add(&shared->refused[k - kinds], 1);
		return;
	}
	atomic_fetch_add(&shared->done[k - kinds], 1);
	if (k->expect == NEVER)
		fault("%s was not refused", k->name);
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;

	pthread_barrier_wait(&start);
	for (t->op = 0; t->op < ops_per_thread && !shared->faults; t->op++) {
		t->random = mix(seed ^ mix(round_nr << 40 ^
					   (uint64_t)t->id << 32 ^ t->op));
		run_one(t);
		atomic_fetch_add(&shared->operations, 1);
	}
	/* The first thread to finish ends the process while the others work. */
	if (!shared->faults && ending == END_EXIT)
		_exit(0);
	if (!shared->faults && ending == END_KILLED)
		kill(getpid(), SIGKILL);
	return NULL;
}

/* ------------------------------------------------------------------ */
/* The worker: one round */

static void worker_fail(const char *what)
{
	fault("cannot start a round: %s: %s", what, strerror(errno));
	_exit(1);
}

static void thread_setup(struct thread *t, int id)
{
	uint32_t wait_port;
	int i;

	memset(t, 0, sizeof(*t));
	t->id = id;
	t->got = pages_alloc(WPAGES);
	t->mine = mmap(NULL, WPAGES * PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!t->got || t->mine == MAP_FAILED)
		worker_fail("memory");
	for (i = 0; i < PIPES; i++)
		if (pipe2(t->pipe[i], O_NONBLOCK | O_CLOEXEC))
			worker_fail("pipe");
	if (pipe2(t->my_pipe, O_CLOEXEC))
		worker_fail("pipe");
	t->disk = disk_open(O_DIRECT);
	t->mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	t->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	t->file = memfd_create("fuzz", MFD_CLOEXEC);
	t->own = gntdev_open();
	t->events = event_pair(&wait_port, &t->port);
	if (t->disk < 0 || t->mem < 0 || t->pagemap < 0 ||
	    t->file < 0 || t->own < 0 || t->events < 0)
		worker_fail("a device or file");
	for (i = 0; i < WPAGES; i++)
		if (pwrite(t->file, loose_page, PAGE, AREA_SIZE + i * PAGE) !=
		    (ssize_t)PAGE)
			worker_fail("a file in memory");
	if (uring_open(&t->ring) || uring_open(&t->buffers) ||
	    uring_make_table(&t->buffers, SLOTS) || pipe2(t->never, O_CLOEXEC))
		worker_fail("io_uring");
	if (syscall(__NR_io_setup, 1, &t->aio))
		worker_fail("AIO");
}

static void thread_tidy(struct thread *t)
{
	int i;

	for (i = 0; i < STRAYS; i++)
		if (t->stray[i].addr)
			munmap(t->stray[i].addr, t->stray[i].len);
	for (i = 0; i < PIPES; i++)
		pipe_close(t->pipe[i]);
	pipe_close(t->my_pipe);
	uring_close(&t->ring);
	uring_close(&t->buffers);
	pipe_close(t->never);
	syscall(__NR_io_destroy, t->aio);
	close(t->events);
	close(t->own);
	close(t->disk);
	close(t->file);
}

static void worker(void)
{
	struct sigaction sa = { .sa_handler = touch_handler };
	int i;

	sigaction(SIGBUS, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	for (i = 0; i < FDS; i++) {
		int fd = gntdev_open();

		if (fd < 0 || dup2(fd, FD_BASE + i) < 0)
			worker_fail("gntdev");
		close(fd);
	}
	for (i = 0; i < nr_threads; i++)
		thread_setup(&threads[i], i);
	pthread_barrier_init(&start, NULL, nr_threads);
	/* Once the threads run, new mappings can be placed in a hole. */
	for (i = 0; i < nr_threads; i++)
		if (pthread_create(&threads[i].pthread, NULL, thread_main,
				   &threads[i]))
			worker_fail("thread");
	for (i = 0; i < nr_threads; i++)
		pthread_join(threads[i].pthread, NULL);

	munmap(arena, ARENA_PAGES * PAGE);
	for (i = 0; i < nr_threads; i++)
		thread_tidy(&threads[i]);
	for (i = 0; i < FDS; i++)
		close(FD_BASE + i);
	close(out_pipe[1]);
	atomic_store(&shared->tidied, true);
	while (!atomic_load(&shared->may_go))
		sleep_ms(1);
	_exit(0);
}

/* Receives pages and checks them after a random time. */
static void receiver(void)
{
	struct thread t = { .id = nr_threads, .random = mix(seed ^ round_nr) };
	char *buf = pages_alloc(WPAGES);
	ssize_t n;

	close(out_pipe[1]);
	for (;;) {
		n = read(out_pipe[0], buf, (1 + rnd(&t, WPAGES)) * PAGE);
		if (n <= 0)
			break;
		if (n % PAGE)
			fault("%zd bytes were passed on", n);
		check("pass", buf, n);
		nap(&t, 5000);
	}
	_exit(n ? 1 : 0);
}

/* ------------------------------------------------------------------ */
/* The parent */

static long entries, waiting, retired;

/* Check that nothing is left of the round, according to Xen and the kernel. */
static bool check_nothing_left(void)
{
	uint64_t limit = now_us() + SETTLE_MS * 1000ULL;
	int i;

	for (i = 0; i < nr_sources; i++)
		if (grants_wait_unused(&sources[i], SETTLE_MS) < 0)
			fault("%d of %d grants of domain %d are still mapped",
			      grants_in_use(&sources[i], 0, NGRANTS), NGRANTS,
			      sources[i].domid);
	while (count_waiting() > waiting || count_entries() > entries) {
		if (now_us() > limit) {
			fault("waiting %ld, was %ld; entries %ld, were %ld",
			      count_waiting(), waiting, count_entries(), entries);
			break;
		}
		sleep_ms(1);
	}
	if (count_retired() > retired)
		fault("retired %ld, were %ld", count_retired(), retired);
	return !shared->faults;
}

/* Check the content of each page, for its owner and when it is mapped. */
static bool check_pages(void)
{
	static char page[PAGE] __attribute__((aligned(PAGE)));
	static char written[NGRANTS * PAGE] __attribute__((aligned(PAGE)));
	int fd = gntdev_open(), disk = disk_open(O_DIRECT), s, i;

	for (s = 0; s < nr_sources; s++) {
		char *p = gntdev_map(fd, &sources[s], 0, NGRANTS, PROT_READ,
				     NULL);

		if (p == MAP_FAILED)
			fault("domain %d's grants cannot be mapped again: %s",
			      sources[s].domid, strerror(errno));
		else if (pwrite(disk, p, sizeof(written), 0) != sizeof(written) ||
			 pread(disk, written, sizeof(written), 0) !=
			 sizeof(written))
			fault("domain %d's grants cannot be written to disk: %s",
			      sources[s].domid, strerror(errno));
		for (i = 0; i < NGRANTS; i++) {
			if (grant_read(&sources[s], i, page))
				fault("page %d cannot be read", i);
			else if (i < FIXED ?
				 !!memcmp(page, fixed_page(s, i), PAGE) :
				 !is_tagged(page, false))
				fault("page %d of domain %d was changed", i,
				      sources[s].domid);
			else if (p != MAP_FAILED &&
				 (memcmp(page, p + i * PAGE, PAGE) ||
				  memcmp(page, written + i * PAGE, PAGE)))
				fault("page %d of domain %d is mapped wrongly",
				      i, sources[s].domid);
		}
		if (p != MAP_FAILED)
			munmap(p, NGRANTS * PAGE);
	}
	close(disk);
	close(fd);
	return !shared->faults;
}

/* The worker's status, or -1 if it makes no progress. */
static int watch_worker(pid_t pid)
{
	uint64_t moved = now_us();
	unsigned long last = 0;
	int status;

	while (waitpid(pid, &status, WNOHANG) != pid) {
		unsigned long now = atomic_load(&shared->operations);

		if (now != last) {
			last = now;
			moved = now_us();
		}
		if (atomic_load(&shared->tidied) &&
		    !atomic_load(&shared->may_go)) {
			check_nothing_left();
			atomic_store(&shared->may_go, true);
		}
		if (now_us() - moved > STALL_S * 1000000ULL)
			return -1;
		sleep_ms(2);
	}
	return status;
}

static bool run_round(void)
{
	pid_t pid, other;
	int status;

	ending = mix(seed ^ mix(round_nr)) % (ENDINGS + 1);
	if (ending == ENDINGS)
		ending = END_TIDY;
	atomic_store(&shared->tidied, false);
	atomic_store(&shared->may_go, false);
	if (pipe2(out_pipe, O_CLOEXEC)) {
		fault("pipe: %s", strerror(errno));
		return false;
	}
	other = fork();
	if (!other)
		receiver();
	pid = fork();
	if (!pid) {
		close(out_pipe[0]);
		worker();
	}
	close(out_pipe[0]);
	close(out_pipe[1]);
	if (other < 0 || pid < 0) {
		fault("fork: %s", strerror(errno));
		return false;
	}

	status = watch_worker(pid);
	if (status < 0) {
		fault("nothing has moved for %d s", STALL_S);
		kill(pid, SIGKILL);
		kill(other, SIGKILL);
		return false;
	}
	if (ending == END_KILLED ?
	    !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL : status)
		if (!shared->faults)
			fault("the worker ended with status %#x", status);
	/* The receiver gets the end of file when the last child has exited. */
	status = wait_child(other, STALL_S * 1000);
	if (status)
		fault("the receiver ended with status %#x", status);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return check_nothing_left() && check_pages() && check_nothing_left();
}

static bool setup_grants(const char *which)
{
	static const char * const name[] = { "own", "foreign" };
	int s, i;

	if (pool_init(NGRANTS))
		return false;
	for (s = GRANTS_OWN; s <= GRANTS_FOREIGN; s++) {
		if (strcmp(which, "both") && strcmp(which, name[s]))
			continue;
		if (grants_get(&sources[nr_sources], s, NGRANTS)) {
			printf("# no %s grants\n", name[s]);
			return false;
		}
		nr_sources++;
	}

	fixed = pages_alloc(SOURCES_MAX * FIXED + 1);
	loose_page = fixed + SOURCES_MAX * FIXED * PAGE;
	for (i = 0; i < SOURCES_MAX * FIXED; i++)
		fill_numbered_page(fixed + i * PAGE, i);
	fill_pages(loose_page, 1, 0);
	for (i = 0; i < (int)PAGE; i += SECTOR)
		*(uint64_t *)(loose_page + i) = TAG;
	for (s = 0; s < nr_sources; s++)
		for (i = 0; i < NGRANTS; i++)
			if (grant_write(&sources[s], i, i < FIXED ?
					(char *)fixed_page(s, i) : loose_page)) {
				printf("# cannot fill a page\n");
				return false;
			}
	return true;
}

static bool setup_memory(void)
{
	struct gntdev_grant_copy_segment *seg;
	union add_op *add;
	char *around;
	size_t i;
	int disk;

	around = mmap(NULL, (ARENA_PAGES + 2 * MARGIN) * PAGE, PROT_NONE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	guard = pages_alloc(2);
	read_only = pages_alloc(1);
	many_refs = pages_alloc(LIMIT * sizeof(*many_refs) / PAGE + 2);
	if (around == MAP_FAILED || !guard || !read_only || !many_refs)
		return false;
	arena = around + MARGIN * PAGE;
	if (mprotect(guard + PAGE, PAGE, PROT_NONE))
		return false;

	/* Valid arguments, except that they are not writable. */
	add = (void *)read_only;
	add->op.count = 1;
	add->op.refs[0].domid = sources[0].domid;
	add->op.refs[0].ref = sources[0].ref[0];
	seg = (void *)(read_only + PAGE / 2);
	for (i = 0; i < 2; i++) {
		seg[i].flags = GNTCOPY_source_gref;
		seg[i].source.foreign.domid = sources[0].domid;
		seg[i].source.foreign.ref = sources[0].ref[0];
		seg[i].dest.virt = loose_page;
		seg[i].len = PAGE;
	}
	if (mprotect(read_only, PAGE, PROT_READ))
		return false;

	disk = disk_open(O_DIRECT);
	for (i = 0; i < WPAGES; i++)
		if (pwrite(disk, loose_page, PAGE, SOURCE_AREA + i * PAGE) !=
		    (ssize_t)PAGE)
			return false;
	close(disk);
	return true;
}

/* Some kinds need CONFIG_CROSS_MEMORY_ATTACH. */
static bool can_be_done(const struct kind *kind)
{
	if (kind->run != do_vm_read && kind->run != do_vm_write)
		return kind->expect == CAN;
	return !process_vm_readv(getpid(), NULL, 0, NULL, 0, 0);
}

static bool every_kind_succeeded(void)
{
	bool good = true;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		unsigned long done = shared->done[i];
		unsigned long refused = shared->refused[i];

		printf("# %-14s %8lu done %8lu refused\n", kinds[i].name, done,
		       refused);
		if (!can_be_done(&kinds[i])) {
			if (kinds[i].expect == CAN)
				printf("# %s: not in this kernel\n",
				       kinds[i].name);
			continue;
		}
		/* With only a few tries, all may have had bad timing. */
		if (!done && refused >= 150) {
			printf("# %s never succeeded\n", kinds[i].name);
			good = false;
		}
	}
	return good;
}

static void usage(const char *name)
{
	fprintf(stderr,
		"usage: %s [-s SEED] [-n OPERATIONS] [-t THREADS] own|foreign|both\n",
		name);
	exit(2);
}

int main(int argc, char **argv)
{
	unsigned long wanted = 20000, done, shown = 0, i;
	const struct rlimit no_core = { 0, 0 };
	bool good = true;
	char *end = NULL;
	int c;

	/* The program that a child executes. */
	if (argc == 2 && !strcmp(argv[1], "exit"))
		return 0;

	seed = now_us() ^ (uint64_t)getpid() << 40;
	seed = mix(seed) >> 32;
	while ((c = getopt(argc, argv, "s:n:t:")) != -1) {
		unsigned long v = optarg ? strtoul(optarg, &end, 0) : 0;

		if (c == '?' || !*optarg || *end)
			usage(argv[0]);
		if (c == 's')
			seed = v;
		else if (c == 'n' && v)
			wanted = v;
		else if (c == 't' && v && v <= THREADS_MAX)
			nr_threads = v;
		else
			usage(argv[0]);
	}
	if (optind != argc - 1 ||
	    (strcmp(argv[optind], "own") && strcmp(argv[optind], "foreign") &&
	     strcmp(argv[optind], "both")))
		usage(argv[0]);

	/* Without CONFIG_XEN_UNPOPULATED_ALLOC they are taken from RAM. */
	most_pages = min(LIMIT, sysconf(_SC_PHYS_PAGES) / 3);
	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		weights += kinds[i].weight;
	setlinebuf(stdout);
	printf("TAP version 13\n1..1\n# seed %#llx, %lu operations, %d threads\n",
	       (unsigned long long)seed, wanted, nr_threads);
	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || !setup_grants(argv[optind]) ||
	    !setup_memory()) {
		printf("not ok 1 fuzz.%s # cannot start: %s\n", argv[optind],
		       strerror(errno));
		return 1;
	}
	waiting = count_waiting();
	entries = count_entries();
	retired = count_retired();

	while (check_pages()) {
		done = shared->operations;
		if (done / 20000 != shown || done >= wanted) {
			shown = done / 20000;
			printf("# %lu operations in %lu rounds\n", done, round_nr);
		}
		if (done >= wanted)
			break;
		round_nr++;
		ops_per_thread = min(wanted - done, ROUND_OPS);
		ops_per_thread = (ops_per_thread + nr_threads - 1) / nr_threads;
		if (!run_round())
			break;
	}

	if (shared->faults) {
		printf("# %lu errors in round %lu, after %lu operations\n",
		       shared->faults, round_nr, shared->operations);
		for (i = 0; i < min(shared->faults, ARRAY_SIZE(shared->fault)); i++)
			printf("# %s\n", shared->fault[i]);
		print_records();
		good = false;
	}
	good &= every_kind_succeeded();
	while (nr_sources)
		grants_put(&sources[--nr_sources]);
	printf("%sok 1 fuzz.%s\n", good ? "" : "not ", argv[optind]);
	return !good;
}
