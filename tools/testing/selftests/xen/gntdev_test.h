/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Code shared by the gntdev selftests: getting grants, pinning pages, checking
 * results.
 *
 * Grants come from one of two sources.  "Own" grants are pages that this domain
 * grants to itself through /dev/xen/gntalloc.  "Foreign" grants come from
 * another domain; environment variables say which to use:
 *
 *   XEN_TEST_GRANTS="DOMID REF REF..."   use these
 *   DOMU=command, DOMU_ID=number         run "$DOMU grant COUNT" to get some,
 *                                        and "$DOMU grant COUNT ro" to get
 *                                        read-only ones
 *
 * XEN_TEST_DISK=device replaces /dev/ram0.  XEN_TEST_NOT_ALONE=1 says that
 * other programs affect the kernel's counters, too: the tests then ignore them.
 *
 * The tests read a page as its owner sees it by a grant copy, without mapping
 * it.  They ask Xen, not the kernel under test, whether a grant is still
 * mapped: see grant_in_use().
 */
#ifndef XEN_GNTDEV_TEST_H
#define XEN_GNTDEV_TEST_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <mm/gup_test.h>

typedef uint32_t grant_ref_t;
typedef uint16_t domid_t;

#include <xen/evtchn.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>

/* Defined by Xen; the UAPI header relies on Xen's headers for them. */
#ifndef GNTCOPY_source_gref
#define GNTCOPY_source_gref	0x01
#define GNTCOPY_dest_gref	0x02
#endif

#define PAGE		4096UL
#define POOL_MAX	1024
#define DEBUGFS		"/sys/kernel/debug"

/* ------------------------------------------------------------------ */
/* Time, bytes and files */

static inline uint64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

static inline void sleep_ms(unsigned int ms)
{
	struct timespec ts = { ms / 1000, (ms % 1000) * 1000000L };

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

/* Fill pages with unique bytes: no other page, and no other seed, has them. */
static inline void fill_pages(void *buf, size_t pages, uint64_t seed)
{
	uint64_t *p = buf, x = seed * 0x9e3779b97f4a7c15ULL + 1;
	size_t i;

	for (i = 0; i < pages * PAGE / sizeof(*p); i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = x;
	}
}

/* A page that contains its number, from which all of its bytes follow. */
#define NUMBERED_MAGIC	0x67726e7472616365ULL

static inline void fill_numbered_page(void *page, uint64_t number)
{
	uint64_t *head = page;

	fill_pages(page, 1, number + 1);
	head[0] = NUMBERED_MAGIC;
	head[1] = number;
}

/* Is the whole page equal to one of count such pages, numbered from 0? */
static inline bool is_numbered_page(const void *page, const char *pages,
				    uint64_t count)
{
	const uint64_t *head = page;

	return head[0] == NUMBERED_MAGIC && head[1] < count &&
	       !memcmp(page, pages + head[1] * PAGE, PAGE);
}

static inline void *pages_alloc(size_t pages)
{
	void *p = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* The number in a small file, or -1 if there is no such file. */
static inline long read_number(const char *path)
{
	char buf[64];
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	n = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (n <= 0)
		return -1;
	buf[n] = 0;
	return strtol(buf, NULL, 0);
}

static inline int write_string(const char *path, const char *text)
{
	ssize_t n, len = strlen(text);
	int fd;

	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -1;
	n = write(fd, text, len);
	close(fd);
	return n == len ? 0 : -1;
}

/* The kernel's log, from now on. */
static inline int log_open(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (fd >= 0)
		lseek(fd, 0, SEEK_END);
	return fd;
}

static inline bool read_entry(const char *path, uint64_t number, uint64_t *entry)
{
	ssize_t n;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	n = pread(fd, entry, sizeof(*entry), number * sizeof(*entry));
	close(fd);
	return n == sizeof(*entry);
}

/* The number of the page that is mapped at addr, or 0. */
static inline uint64_t pfn_of(const void *addr)
{
	uint64_t entry;

	if (!read_entry("/proc/self/pagemap", (uintptr_t)addr / PAGE, &entry))
		return 0;
	return entry >> 63 ? entry & ((1ULL << 55) - 1) : 0;
}

/* Is the page mapped at addr marked dirty?  -1 if unknown. */
static inline int is_dirty(const void *addr)
{
	uint64_t pfn = pfn_of(addr), flags;

	if (!pfn || !read_entry("/proc/kpageflags", pfn, &flags))
		return -1;
	return flags >> 4 & 1; /* KPF_DIRTY */
}

static inline long read_counter(const char *path)
{
	return getenv("XEN_TEST_NOT_ALONE") ? 0 : read_number(path);
}

/* Override entries, waiting pages, retired pages; -1: no such counter. */
static inline long count_entries(void)
{
	return read_counter(DEBUGFS "/xen-grants/overrides");
}

/* The module parameter; an unpatched kernel has none. */
static inline bool override_enabled(void)
{
	char c = 'N';
	int fd;

	fd = open("/sys/module/m2p_override/parameters/enable", O_RDONLY);
	if (fd < 0)
		return false;
	if (read(fd, &c, 1) != 1)
		c = 'N';
	close(fd);
	return c != 'N' && c != '0';
}

static inline long count_waiting(void)
{
	return read_counter(DEBUGFS "/xen-grants/waiting");
}

static inline long count_retired(void)
{
	return read_counter(DEBUGFS "/xen-grants/retired");
}

/* ------------------------------------------------------------------ */
/* Hypercalls through privcmd, where no driver interface exists */

struct test_hypercall {
	uint64_t op;
	uint64_t arg[5];
};

struct test_mmap_resource {
	uint16_t dom;
	uint32_t type;
	uint32_t id;
	uint32_t idx;
	uint64_t num;
	uint64_t addr;
};

#define TEST_PRIVCMD_HYPERCALL \
	_IOC(_IOC_NONE, 'P', 0, sizeof(struct test_hypercall))
#define TEST_PRIVCMD_MMAP_RESOURCE \
	_IOC(_IOC_NONE, 'P', 7, sizeof(struct test_mmap_resource))

#define HYPERVISOR_GRANT_TABLE_OP	20
#define GNTTABOP_SWAP_GRANT_REF		11
#define GNTST_EAGAIN			(-12)
#define RESOURCE_GRANT_TABLE		1
#define GTF_IN_USE			((1 << 3) | (1 << 4))

struct swap_grant_ref {
	uint32_t ref_a;
	uint32_t ref_b;
	int16_t status;
};

struct grant_entry_v1 {
	uint16_t flags;
	uint16_t domid;
	uint32_t frame;
};

static inline int privcmd_fd(void)
{
	static int fd = -1;

	if (fd < 0)
		fd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
	return fd;
}

/* Xen's status of the swap, or 1 if the hypercall could not be made. */
static inline int swap_refs(uint32_t a, uint32_t b)
{
	static struct swap_grant_ref *op;
	static pid_t op_pid;
	struct test_hypercall call = {
		.op = HYPERVISOR_GRANT_TABLE_OP,
		.arg = { GNTTABOP_SWAP_GRANT_REF, 0, 1 },
	};

	/* Xen cannot fault pages in, and fork() makes them copy-on-write. */
	if (op_pid != getpid()) {
		op = pages_alloc(1);
		if (!op || mlock(op, PAGE))
			return 1;
		op_pid = getpid();
	}
	op->ref_a = a;
	op->ref_b = b;
	op->status = 0;
	call.arg[1] = (uintptr_t)op;
	if (ioctl(privcmd_fd(), TEST_PRIVCMD_HYPERCALL, &call) < 0)
		return 1;
	return op->status;
}

/* ------------------------------------------------------------------ */
/* This domain's number */

static inline bool in_control_domain(void)
{
	char buf[64] = "";
	int fd = open("/proc/xen/capabilities", O_RDONLY);

	if (fd < 0)
		return false;
	if (read(fd, buf, sizeof(buf) - 1) < 0)
		buf[0] = 0;
	close(fd);
	return strstr(buf, "control_d");
}

/*
 * Are user PTEs ordinary ones here?  Then grants stay mapped until the map
 * object is freed, not only until the VMA is removed.
 */
static inline bool auto_translated(void)
{
	char type[16] = "PV\n";
	int fd = open("/sys/hypervisor/guest_type", O_RDONLY);

	if (fd >= 0) {
		if (read(fd, type, sizeof(type) - 1) < 2)
			type[0] = 0;
		close(fd);
	}
	return strncmp(type, "PV\n", 3);
}

/* Read of "domid" relative to our own directory in xenstore. */
static inline int own_domid(void)
{
	struct {
		uint32_t type, req, tx, len;
		char text[64];
	} msg = { 2 /* XS_READ */, 1, 0, sizeof("domid"), "domid" };
	static int domid = -1;
	int fd;

	if (domid >= 0)
		return domid;
	if (in_control_domain())
		return domid = 0;

	fd = open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (write(fd, &msg, 16 + msg.len) == (ssize_t)(16 + msg.len) &&
	    read(fd, &msg, 16) == 16 && msg.type == 2 &&
	    msg.len < sizeof(msg.text) &&
	    read(fd, msg.text, msg.len) == (ssize_t)msg.len) {
		msg.text[msg.len] = 0;
		domid = atoi(msg.text);
	}
	close(fd);
	return domid;
}

/* ------------------------------------------------------------------ */
/* Grants */

#define GRANTS_MAX	256
#define NO_SLOT		(-1)

enum grant_source { GRANTS_OWN, GRANTS_FOREIGN };

struct grants {
	enum grant_source source;
	int n;
	int domid;
	uint32_t ref[GRANTS_MAX + 1];
	/* own: the device they come from, and one idle ref to swap with */
	int alloc_fd;
	uint64_t alloc_index;
	uint32_t idle;
	/* foreign: places in the pool, or NO_SLOT */
	int slot[GRANTS_MAX];
};

enum pool_state { POOL_FREE, POOL_TAKEN, POOL_LOST };

/* Shared by all tests of one program; each test runs in its own process. */
struct grant_pool {
	int domid;
	int n;
	uint32_t ref[POOL_MAX];
	enum pool_state state[POOL_MAX];
};

static struct grant_pool *grant_pool;

static inline int pool_parse(char *text)
{
	char *word, *save;

	for (word = strtok_r(text, " \t\n", &save);
	     word && grant_pool->n < POOL_MAX;
	     word = strtok_r(NULL, " \t\n", &save)) {
		char *end;
		unsigned long v = strtoul(word, &end, 0);

		if (*end)
			return -1;
		if (grant_pool->domid < 0)
			grant_pool->domid = v;
		else
			grant_pool->ref[grant_pool->n++] = v;
	}
	return grant_pool->n ? 0 : -1;
}

static inline bool have_guest(void)
{
	const char *domu = getenv("DOMU");

	return domu && *domu && getenv("DOMU_ID");
}

/* Let the guest grant count pages; returns "DOMID REF REF..." or NULL. */
static inline char *ask_guest(int count, const char *how)
{
	size_t size = POOL_MAX * 16, got;
	char cmd[4096], *text;
	FILE *f;

	text = calloc(1, size);
	if (!text)
		return NULL;
	snprintf(cmd, sizeof(cmd), "%s grant %d %s", getenv("DOMU"), count, how);
	f = popen(cmd, "r");
	if (!f)
		goto fail;
	got = snprintf(text, size, "%s ", getenv("DOMU_ID"));
	got += fread(text + got, 1, size - got - 1, f);
	if (!pclose(f))
		return text;
	fprintf(stderr, "# '%s' failed\n", cmd);
fail:
	free(text);
	return NULL;
}

/*
 * Call this first in main().  Returns 0 even if there are no foreign grants; an
 * error means that the environment variables are wrong.
 */
static inline int pool_init(int count)
{
	const char *given = getenv("XEN_TEST_GRANTS");
	char *text;
	int ret;

	/* A container or a small guest may not have it mounted. */
	if (access(DEBUGFS "/gup_test", F_OK))
		mount("debugfs", DEBUGFS, "debugfs", 0, NULL);

	grant_pool = mmap(NULL, sizeof(*grant_pool), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (grant_pool == MAP_FAILED)
		return -1;
	grant_pool->domid = -1;

	if (given) {
		text = strdup(given);
		if (!text)
			return -1;
	} else if (have_guest()) {
		text = ask_guest(count, "");
		if (!text)
			return -1;
	} else {
		return 0;
	}

	ret = pool_parse(text);
	if (ret)
		fprintf(stderr, "# no list of grants: '%s'\n", text);
	free(text);
	return ret;
}

static inline int grants_get_own(struct grants *g, int n, int flags)
{
	struct ioctl_gntalloc_alloc_gref *op;
	size_t size = sizeof(*op) + (n + 1) * sizeof(uint32_t);
	int ret;

	g->domid = own_domid();
	if (g->domid < 0)
		return -1;
	g->alloc_fd = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC);
	if (g->alloc_fd < 0)
		return -1;
	op = calloc(1, size);
	if (!op)
		return -1;
	op->domid = g->domid;
	op->flags = flags;
	op->count = n + 1;
	ret = ioctl(g->alloc_fd, IOCTL_GNTALLOC_ALLOC_GREF, op);
	if (!ret) {
		memcpy(g->ref, op->gref_ids, n * sizeof(uint32_t));
		g->idle = op->gref_ids[n];
		g->alloc_index = op->index;
		g->n = n;
	}
	free(op);
	return ret;
}

/* Returns 0, -1 with errno, or 1 if there is no source of such grants. */
static inline int grants_get(struct grants *g, enum grant_source source, int n)
{
	int i;

	memset(g, 0, sizeof(*g));
	g->source = source;
	g->alloc_fd = -1;
	if (n > GRANTS_MAX) {
		errno = E2BIG;
		return -1;
	}
	if (source == GRANTS_OWN)
		return grants_get_own(g, n, GNTALLOC_FLAG_WRITABLE);

	if (!grant_pool->n)
		return 1;
	g->domid = grant_pool->domid;
	for (i = 0; i < grant_pool->n && g->n < n; i++) {
		if (grant_pool->state[i] != POOL_FREE)
			continue;
		grant_pool->state[i] = POOL_TAKEN;
		g->slot[g->n] = i;
		g->ref[g->n++] = grant_pool->ref[i];
	}
	if (g->n < n) {
		errno = ENOSPC;
		return -1;
	}
	return 0;
}

/* Xen's entry for grant i in the table of another domain, or NULL. */
static inline struct grant_entry_v1 *grant_entry(struct grants *g, int i)
{
	static struct grant_entry_v1 *frame[64];
	static pid_t frame_pid;
	const int per_frame = PAGE / sizeof(struct grant_entry_v1);
	struct test_mmap_resource res = {
		.dom = g->domid,
		.type = RESOURCE_GRANT_TABLE,
		.num = 1,
	};
	unsigned int f = g->ref[i] / per_frame;
	void *p;

	if (!in_control_domain() || f >= 64)
		return NULL;
	if (frame_pid != getpid()) {
		memset(frame, 0, sizeof(frame));
		frame_pid = getpid();
	}
	if (!frame[f]) {
		p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			 privcmd_fd(), 0);
		if (p == MAP_FAILED)
			return NULL;
		res.idx = f;
		res.addr = (uintptr_t)p;
		if (ioctl(privcmd_fd(), TEST_PRIVCMD_MMAP_RESOURCE, &res)) {
			munmap(p, PAGE);
			return NULL;
		}
		frame[f] = p;
	}
	return &frame[f][g->ref[i] % per_frame];
}

/*
 * Get read-only grants.  A guest has filled its pages, and grants new ones on
 * each call; own pages are mapped at addr for the caller to fill.
 */
static inline int grants_get_read_only(struct grants *g, enum grant_source source,
				       int n, char **addr)
{
	char *text, *word, *save;
	int ret;

	memset(g, 0, sizeof(*g));
	g->source = source;
	g->alloc_fd = -1;
	*addr = NULL;

	if (source == GRANTS_OWN) {
		ret = grants_get_own(g, n, 0);
		if (ret)
			return ret;
		*addr = mmap(NULL, n * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			     g->alloc_fd, g->alloc_index);
		return *addr == MAP_FAILED ? -1 : 0;
	}

	if (!have_guest())
		return 1;
	text = ask_guest(n, "ro");
	if (!text)
		return -1;
	word = strtok_r(text, " \t\n", &save);
	g->domid = atoi(word);
	while (g->n < n && (word = strtok_r(NULL, " \t\n", &save))) {
		g->slot[g->n] = NO_SLOT;
		g->ref[g->n++] = strtoul(word, NULL, 0);
	}
	free(text);
	return g->n == n ? 0 : -1;
}

/* The frame that another domain granted (the MFN for a PV domain), or 0. */
static inline uint64_t grant_frame(struct grants *g, int i)
{
	const struct grant_entry_v1 *entry = grant_entry(g, i);

	return entry ? entry->frame : 0;
}

/*
 * Is grant i still mapped?  1 or 0 according to Xen, -1 if this domain cannot
 * find out (another domain's grant, seen from an unprivileged domain).
 *
 * Own grants: Xen swaps two grants of the calling domain only if neither is
 * mapped.  Swapping twice restores them.
 */
static inline int grant_in_use(struct grants *g, int i)
{
	const struct grant_entry_v1 *entry;
	int status;

	if (g->source == GRANTS_OWN) {
		status = swap_refs(g->ref[i], g->idle);
		if (status == GNTST_EAGAIN)
			return 1;
		if (status)
			return -1;
		return swap_refs(g->ref[i], g->idle) ? -1 : 0;
	}

	entry = grant_entry(g, i);
	if (!entry)
		return -1;
	return !!(__atomic_load_n(&entry->flags, __ATOMIC_RELAXED) & GTF_IN_USE);
}

/* The number of mapped grants among count grants, starting at first. */
static inline int grants_in_use(struct grants *g, int first, int count)
{
	int i, n = 0;

	for (i = first; i < first + count; i++)
		n += grant_in_use(g, i) > 0;
	return n;
}

/* Milliseconds until grant i is unmapped; -1 if still mapped after limit. */
static inline int grant_wait_unused(struct grants *g, int i, int limit_ms)
{
	uint64_t start = now_us();

	while (grant_in_use(g, i) > 0) {
		if (now_us() - start > limit_ms * 1000ULL)
			return -1;
		sleep_ms(1);
	}
	return (now_us() - start) / 1000;
}

/* The same for all grants. */
static inline int grants_wait_unused(struct grants *g, int limit_ms)
{
	uint64_t start = now_us();
	int i, left;

	for (i = 0; i < g->n; i++) {
		left = limit_ms - (int)((now_us() - start) / 1000);
		if (grant_wait_unused(g, i, left > 0 ? left : 0) < 0)
			return -1;
	}
	return (now_us() - start) / 1000;
}

/* Return the grants to their source.  Do not reuse one that is still mapped. */
static inline void grants_put(struct grants *g)
{
	struct ioctl_gntalloc_dealloc_gref op = {
		.index = g->alloc_index,
		.count = g->n + 1,
	};
	int i;

	if (g->source == GRANTS_OWN) {
		if (g->alloc_fd < 0)
			return;
		if (g->n)
			ioctl(g->alloc_fd, IOCTL_GNTALLOC_DEALLOC_GREF, &op);
		close(g->alloc_fd);
		g->alloc_fd = -1;
		return;
	}
	for (i = 0; i < g->n; i++) {
		if (g->slot[i] == NO_SLOT)
			continue;
		grant_pool->state[g->slot[i]] =
			grant_in_use(g, i) > 0 ? POOL_LOST : POOL_FREE;
	}
	g->n = 0;
}

/* Of page i, to or from buf. */
static inline void grant_copy_segment(struct gntdev_grant_copy_segment *seg,
				      struct grants *g, int i, void *buf,
				      bool write)
{
	*seg = (struct gntdev_grant_copy_segment){ .len = PAGE };
	if (write) {
		seg->flags = GNTCOPY_dest_gref;
		seg->source.virt = buf;
		seg->dest.foreign.ref = g->ref[i];
		seg->dest.foreign.domid = g->domid;
	} else {
		seg->flags = GNTCOPY_source_gref;
		seg->dest.virt = buf;
		seg->source.foreign.ref = g->ref[i];
		seg->source.foreign.domid = g->domid;
	}
}

/* Read a page as its owner sees it: Xen copies it, without any mapping. */
static inline int grant_copy(struct grants *g, int i, void *buf, bool write)
{
	struct gntdev_grant_copy_segment seg;
	struct ioctl_gntdev_grant_copy op = { .count = 1, .segments = &seg };
	int fd, ret;

	grant_copy_segment(&seg, g, i, buf, write);
	fd = open("/dev/xen/gntdev", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ret = ioctl(fd, IOCTL_GNTDEV_GRANT_COPY, &op);
	close(fd);
	return ret ? ret : seg.status;
}

static inline int grant_read(struct grants *g, int i, void *buf)
{
	return grant_copy(g, i, buf, false);
}

static inline int grant_write(struct grants *g, int i, void *buf)
{
	return grant_copy(g, i, buf, true);
}

/* ------------------------------------------------------------------ */
/* gntdev */

static inline int gntdev_open(void)
{
	return open("/dev/xen/gntdev", O_RDWR);
}

/* Make a map object for n refs; *index is its offset for mmap(). */
static inline int gntdev_add_many(int fd, const uint32_t *domid,
				  const uint32_t *ref, int n, uint64_t *index)
{
	/* No heap for a small number: racing threads must not call mmap(). */
	struct ioctl_gntdev_map_grant_ref few[16], *op = few;
	int i, ret;

	if (n > 16) {
		op = calloc(1, sizeof(*op) + n * sizeof(op->refs[0]));
		if (!op)
			return -1;
	}
	op->count = n;
	op->pad = 0;
	for (i = 0; i < n; i++) {
		struct ioctl_gntdev_grant_ref *r = op->refs + i;

		r->domid = domid[i];
		r->ref = ref[i];
	}
	ret = ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, op);
	*index = op->index;
	if (op != few)
		free(op);
	return ret;
}

/* All of one domain. */
static inline int gntdev_add(int fd, int domid, const uint32_t *ref, int n,
			     uint64_t *index)
{
	uint32_t few[16], *domids = few;
	int i, ret;

	if (n > 16) {
		domids = calloc(n, sizeof(*domids));
		if (!domids)
			return -1;
	}
	for (i = 0; i < n; i++)
		domids[i] = domid;
	ret = gntdev_add_many(fd, domids, ref, n, index);
	if (domids != few)
		free(domids);
	return ret;
}

static inline int gntdev_del(int fd, uint64_t index, int n)
{
	struct ioctl_gntdev_unmap_grant_ref op = {
		.index = index,
		.count = n,
	};

	return ioctl(fd, IOCTL_GNTDEV_UNMAP_GRANT_REF, &op);
}

/* Both steps for grants [first, first + n) of g. */
static inline char *gntdev_map(int fd, struct grants *g, int first, int n,
			       int prot, uint64_t *index)
{
	uint64_t dummy;

	if (!index)
		index = &dummy;
	if (gntdev_add(fd, g->domid, g->ref + first, n, index))
		return MAP_FAILED;
	return mmap(NULL, n * PAGE, prot, MAP_SHARED, fd, *index);
}

static inline int gntdev_notify(int fd, uint64_t index, uint32_t action,
				uint32_t port)
{
	struct ioctl_gntdev_unmap_notify op = {
		.index = index,
		.action = action,
		.event_channel_port = port,
	};

	return ioctl(fd, IOCTL_GNTDEV_SET_UNMAP_NOTIFY, &op);
}

/* An event channel from this domain to itself. */
static inline int event_pair(uint32_t *wait_port, uint32_t *send_port)
{
	struct ioctl_evtchn_bind_unbound_port u = {
		.remote_domain = own_domid(),
	};
	struct ioctl_evtchn_bind_interdomain b = {
		.remote_domain = own_domid(),
	};
	int fd, ret;

	fd = open("/dev/xen/evtchn", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ret = ioctl(fd, IOCTL_EVTCHN_BIND_UNBOUND_PORT, &u);
	if (ret <= 0)
		goto fail;
	*wait_port = ret;
	b.remote_port = ret;
	ret = ioctl(fd, IOCTL_EVTCHN_BIND_INTERDOMAIN, &b);
	if (ret <= 0)
		goto fail;
	*send_port = ret;
	return fd;
fail:
	close(fd);
	return -1;
}

/*
 * Consume the event: 1 if it came within limit_ms, else 0.  Xen signals a port
 * once when it is bound; events on other ports are dropped.
 */
static inline int event_wait(int fd, uint32_t port, int limit_ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t end = now_us() + limit_ms * 1000ULL;
	uint32_t got;

	for (;;) {
		uint64_t now = now_us();

		if (poll(&p, 1, now < end ? (end - now) / 1000 : 0) <= 0)
			return 0;
		if (read(fd, &got, sizeof(got)) != sizeof(got) ||
		    write(fd, &got, sizeof(got)) != sizeof(got))
			return -1;
		if (got == port)
			return 1;
	}
}

/* ------------------------------------------------------------------ */
/* Accessing memory that may not be mapped */

static __thread sigjmp_buf touch_env;
static __thread volatile sig_atomic_t touching;

static void touch_handler(int sig)
{
	if (touching)
		siglongjmp(touch_env, sig);
	/* Not expected: let the signal be fatal. */
	signal(sig, SIG_DFL);
}

/* Like touch(), for any number of threads; needs the handler in place. */
static inline int touch_caught(char *p, bool write)
{
	int sig = sigsetjmp(touch_env, 1);

	if (!sig) {
		char c;

		touching = 1;
		c = __atomic_load_n(p, __ATOMIC_RELAXED);
		if (write)
			__atomic_store_n(p, c, __ATOMIC_RELAXED);
	}
	touching = 0;
	return sig;
}

/* 0 if the byte can be read (and written), or the signal one gets. */
static inline int touch(char *p, bool write)
{
	struct sigaction sa = { .sa_handler = touch_handler };
	struct sigaction bus, segv;
	int sig;

	sigaction(SIGBUS, &sa, &bus);
	sigaction(SIGSEGV, &sa, &segv);
	sig = touch_caught(p, write);
	sigaction(SIGBUS, &bus, NULL);
	sigaction(SIGSEGV, &segv, NULL);
	return sig;
}

/* ------------------------------------------------------------------ */
/* Pins: a pipe */

static inline int pipe_pin(int pipefd[2], void *addr, size_t len)
{
	struct iovec iov = { addr, len };

	if (pipe(pipefd))
		return -1;
	if (vmsplice(pipefd[1], &iov, 1, 0) != (ssize_t)len) {
		close(pipefd[0]);
		close(pipefd[1]);
		return -1;
	}
	return 0;
}

/* Reads len bytes, as many as there are; returns their number. */
static inline ssize_t read_all(int fd, void *buf, size_t len)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = read(fd, (char *)buf + done, len - done);
		if (n < 0)
			return -1;
		if (!n)
			break;
		done += n;
	}
	return done;
}

static inline void pipe_close(int pipefd[2])
{
	close(pipefd[0]);
	close(pipefd[1]);
}

/* Read the data, which drops the pins; returns whether it is as expected. */
static inline bool pipe_has(int pipefd[2], const void *want, size_t len)
{
	char *got = pages_alloc((len + PAGE - 1) / PAGE);
	bool ok;

	ok = got && read_all(pipefd[0], got, len) == (ssize_t)len &&
	     !memcmp(got, want, len);
	munmap(got, (len + PAGE - 1) / PAGE * PAGE);
	pipe_close(pipefd);
	return ok;
}

/* ------------------------------------------------------------------ */
/* Pins: the kernel's own GUP test device; one range at a time */

static inline int gup_open(void)
{
	return open(DEBUGFS "/gup_test", O_RDWR | O_CLOEXEC);
}

static inline int gup_pin(int fd, void *addr, size_t len, unsigned int flags)
{
	struct pin_longterm_test op = {
		.addr = (uintptr_t)addr,
		.size = len,
		.flags = flags,
	};

	return ioctl(fd, PIN_LONGTERM_TEST_START, &op);
}

/* The pinned pages as the kernel sees them. */
static inline int gup_read(int fd, void *buf)
{
	uint64_t addr = (uintptr_t)buf;

	return ioctl(fd, PIN_LONGTERM_TEST_READ, &addr);
}

static inline int gup_unpin(int fd)
{
	return ioctl(fd, PIN_LONGTERM_TEST_STOP);
}

/* ------------------------------------------------------------------ */
/* Pins: io_uring, minimal */

struct uring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array;
	unsigned int *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	void *rings;
	size_t rings_size, sqes_size;
	unsigned int added;	/* but not yet submitted */
};

static inline int uring_open_flags(struct uring *r, unsigned int flags)
{
	struct io_uring_params p = { .flags = flags };
	size_t sq, cq;
	char *base;

	r->fd = syscall(__NR_io_uring_setup, 8, &p);
	if (r->fd < 0)
		return -1;
	sq = p.sq_off.array + p.sq_entries * sizeof(unsigned int);
	cq = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	r->rings_size = sq > cq ? sq : cq;
	r->sqes_size = p.sq_entries * sizeof(struct io_uring_sqe);
	base = mmap(NULL, r->rings_size, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	r->sqes = mmap(NULL, r->sqes_size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQES);
	if (base == MAP_FAILED || r->sqes == MAP_FAILED) {
		close(r->fd);
		return -1;
	}
	r->rings = base;
	r->added = 0;
	r->sq_tail = (unsigned int *)(base + p.sq_off.tail);
	r->sq_mask = (unsigned int *)(base + p.sq_off.ring_mask);
	r->sq_array = (unsigned int *)(base + p.sq_off.array);
	r->cq_head = (unsigned int *)(base + p.cq_off.head);
	r->cq_tail = (unsigned int *)(base + p.cq_off.tail);
	r->cq_mask = (unsigned int *)(base + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(base + p.cq_off.cqes);
	return 0;
}

static inline int uring_open(struct uring *r)
{
	return uring_open_flags(r, 0);
}

static inline void uring_close(struct uring *r)
{
	munmap(r->rings, r->rings_size);
	munmap(r->sqes, r->sqes_size);
	close(r->fd);
}

static inline int uring_register(struct uring *r, void *addr, size_t len)
{
	struct iovec iov = { addr, len };

	return syscall(__NR_io_uring_register, r->fd,
		       IORING_REGISTER_BUFFERS, &iov, 1);
}

static inline int uring_unregister(struct uring *r)
{
	return syscall(__NR_io_uring_register, r->fd,
		       IORING_UNREGISTER_BUFFERS, NULL, 0);
}

/* Add a request, for uring_enter() to submit. */
static inline struct io_uring_sqe *uring_sqe(struct uring *r, int opcode, int fd,
					     uint64_t addr, unsigned int len,
					     uint64_t offset)
{
	unsigned int tail = *r->sq_tail + r->added++;
	struct io_uring_sqe *sqe = &r->sqes[tail & *r->sq_mask];

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = opcode;
	sqe->fd = fd;
	sqe->addr = addr;
	sqe->len = len;
	sqe->off = offset;
	r->sq_array[tail & *r->sq_mask] = tail & *r->sq_mask;
	return sqe;
}

/* A table of buffers, all empty. */
static inline int uring_make_table(struct uring *r, unsigned int slots)
{
	struct io_uring_rsrc_register table = {
		.nr = slots,
		.flags = IORING_RSRC_REGISTER_SPARSE,
	};

	return syscall(__NR_io_uring_register, r->fd, IORING_REGISTER_BUFFERS2,
		       &table, sizeof(table));
}

/* Add a command for gntdev with an array of @n elements. */
static inline struct io_uring_sqe *uring_command(struct uring *r, int fd,
						 unsigned int op,
						 const void *array,
						 unsigned int n)
{
	struct io_uring_sqe *sqe = uring_sqe(r, IORING_OP_URING_CMD, fd,
					     (uintptr_t)array, n, 0);

	sqe->cmd_op = op;
	return sqe;
}

/* Add I/O with a part of the buffer in a slot. */
static inline struct io_uring_sqe *uring_fixed(struct uring *r, int opcode,
					       int fd, unsigned int slot,
					       uint64_t start, unsigned int len,
					       uint64_t offset)
{
	struct io_uring_sqe *sqe = uring_sqe(r, opcode, fd, start, len, offset);

	sqe->buf_index = slot;
	return sqe;
}

/* Submit the added requests, and wait for results; 0 or -errno. */
static inline int uring_enter(struct uring *r, unsigned int wait)
{
	unsigned int submit = r->added;
	int ret;

	r->added = 0;
	__atomic_store_n(r->sq_tail, *r->sq_tail + submit, __ATOMIC_RELEASE);
	do {
		ret = syscall(__NR_io_uring_enter, r->fd, submit, wait,
			      IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP,
			      NULL, 0);
	} while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : 0;
}

/* Take the next result, if there is one. */
static inline bool uring_next(struct uring *r, int *result)
{
	unsigned int head = *r->cq_head;

	if (head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE))
		return false;
	*result = r->cqes[head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, head + 1, __ATOMIC_RELEASE);
	return true;
}

/* Submit one request; its result, or -errno. */
static inline int uring_run(struct uring *r)
{
	int result, ret = uring_enter(r, 1);

	if (ret)
		return ret;
	return uring_next(r, &result) ? result : -EIO;
}

/* One operation from start to end; its result, or -errno. */
static inline int uring_io(struct uring *r, int opcode, int fd, void *addr,
			   unsigned int len, uint64_t offset)
{
	uring_sqe(r, opcode, fd, (uintptr_t)addr, len, offset);
	return uring_run(r);
}

/* ------------------------------------------------------------------ */
/* Pins: native AIO, one operation */

/* In an existing context: setting one up maps memory. */
static inline int aio_io_in(aio_context_t ctx, int opcode, int fd, void *addr,
			    size_t len, uint64_t offset)
{
	struct iocb cb = {
		.aio_lio_opcode = opcode,
		.aio_fildes = fd,
		.aio_buf = (uintptr_t)addr,
		.aio_nbytes = len,
		.aio_offset = offset,
	};
	struct iocb *list[] = { &cb };
	struct io_event ev = { 0 };
	int ret;

	ret = syscall(__NR_io_submit, ctx, 1, list);
	if (ret != 1)
		return ret < 0 ? -errno : -EIO;
	ret = syscall(__NR_io_getevents, ctx, 1, 1, &ev, NULL);
	return ret == 1 ? (int)ev.res : -EIO;
}

static inline int aio_io(int opcode, int fd, void *addr, size_t len,
			 uint64_t offset)
{
	aio_context_t ctx = 0;
	int ret;

	if (syscall(__NR_io_setup, 1, &ctx))
		return -errno;
	ret = aio_io_in(ctx, opcode, fd, addr, len, offset);
	syscall(__NR_io_destroy, ctx);
	return ret;
}

/* ------------------------------------------------------------------ */
/* Other processes */

static inline const char *test_disk(void)
{
	return getenv("XEN_TEST_DISK") ?: "/dev/ram0";
}

static inline int disk_open(int flags)
{
	return open(test_disk(), O_RDWR | O_CLOEXEC | flags);
}

/* The wait status, or -1 if it has not ended after limit_ms. */
static inline int wait_child(pid_t pid, int limit_ms)
{
	uint64_t start = now_us();
	int status;

	for (;;) {
		pid_t got = waitpid(pid, &status, WNOHANG);

		if (got == pid)
			return status;
		if (got < 0 || now_us() - start > limit_ms * 1000ULL)
			return -1;
		sleep_ms(1);
	}
}

/* The thread stays on one CPU from now on. */
static inline void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

#endif /* XEN_GNTDEV_TEST_H */
