// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page table walkers on granted pages: all code in a distribution kernel that
 * walks the page tables of a process, or takes references to the pages there.
 *
 * What should happen
 *
 *   The kernel may use a granted page for direct I/O, a pipe or a DMA pin;
 *   other tests cover that.  It must not use the page where memory of its own
 *   domain is needed: map it a second time, in its own page tables (vmap()), in
 *   those of a process (vm_insert_page()) or of a device (HMM), nor migrate,
 *   swap, merge, or poison it.  Xen rejects such a mapping, since a frame of
 *   another domain may be mapped only through its grant, and the kernel does
 *   not expect the write of a page table entry to fail.  So each of these calls
 *   fails with an errno, or skips the pages, and
 *
 *    - the bytes are right, for the process and for their owner;
 *    - the mapping still works;
 *    - no reference to the pages is left, and the grants are unmapped;
 *    - the kernel logs no error.
 *
 * How the tests make it happen
 *
 *   One test per walker.  Each runs with own grants, with another domain's, and
 *   with a second mapping of the latter, whose PTEs are special: only the VMA
 *   finds their pages.  The checks of the fixture's teardown apply to all
 *   tests; it also looks for errors in the kernel log.  If an unprotected
 *   kernel would have an Oops, a child makes the call, so that the test can
 *   check what is left.
 *
 *   A test whose feature is not in the kernel is skipped.
 *
 * What a failure means
 *
 *   A child was killed: the kernel had an Oops; see the log.  Another errno, or
 *   none: the walker used the page, with unpredictable effects.  A grant is
 *   still mapped: the walker never dropped its reference.
 */
#include "gntdev_fixture.h"

#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/hw_breakpoint.h>
#include <linux/if_xdp.h>
#include <linux/mempolicy.h>
#include <linux/perf_event.h>
#include <linux/tcp.h>
#include <linux/userfaultfd.h>

#include <lib/test_hmm_uapi.h>

/* These are younger than some C libraries. */
#ifndef MADV_COLD
#define MADV_COLD	20
#define MADV_PAGEOUT	21
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON	100
#endif
#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE	101
#endif
#ifndef AF_XDP
#define AF_XDP		44
#define SOL_XDP		283
#endif

FIXTURE(walkers) {
	struct situation s;
	char *first;	/* the mapping that has the override entries */
	int log;
};

FIXTURE_VARIANT(walkers) {
	enum grant_source source;
	bool second;
};

FIXTURE_VARIANT_ADD(walkers, own) {
	.source = GRANTS_OWN,
};

FIXTURE_VARIANT_ADD(walkers, foreign) {
	.source = GRANTS_FOREIGN,
};

FIXTURE_VARIANT_ADD(walkers, foreign_second) {
	.source = GRANTS_FOREIGN,
	.second = true,
};

FIXTURE_SETUP(walkers)
{
	struct situation *s = &self->s;

	self->log = log_open();
	self->first = NULL;
	situation_setup(_metadata, s, variant->source);
	if (s->fd >= 0 && variant->second) {
		self->first = gntdev_map(s->fd, &s->g, 0, NPAGES,
					 PROT_READ | PROT_WRITE, NULL);
		ASSERT_NE(MAP_FAILED, self->first);
	}
}

/* Does a line of the log say that something is wrong? */
static bool is_complaint(const char *line)
{
	static const char * const words[] = {
		"BUG", "WARNING", "Oops", "Bad page", "Bad rss-counter",
		"general protection", "still pending", "Xen refused",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(words); i++) {
		if (strstr(line, words[i]))
			return true;
	}
	return false;
}

FIXTURE_TEARDOWN(walkers)
{
	char record[8192];
	ssize_t n;

	if (self->first)
		EXPECT_TRUE(mapping_shows(&self->s, self->first, 0, NPAGES));
	if (self->first)
		munmap(self->first, SIZE);
	situation_teardown(_metadata, &self->s);

	for (;;) {
		n = read(self->log, record, sizeof(record) - 1);
		/* EPIPE: lines were lost; the next read skips them. */
		if (n < 0 && errno == EPIPE)
			continue;
		if (n <= 0)
			break;
		record[n] = 0;
		record[strcspn(record, "\n")] = 0;
		EXPECT_FALSE(is_complaint(record))
			TH_LOG("kernel log: %s", record);
	}
	close(self->log);
}

/* Does the mapping show the expected bytes, to the process and to a pin? */
static bool can_be_read(struct situation *s)
{
	int p[2];

	return mapping_shows(s, s->addr, 0, NPAGES) &&
	       !pipe_pin(p, s->addr, SIZE) && pipe_has(p, s->want, SIZE);
}

/* The same, and can it be written?  Not in a child, where s->want is a copy. */
static bool all_is_well(struct situation *s)
{
	return mapping_works(s, s->addr, 0, NPAGES) && can_be_read(s);
}

/*
 * A child maps the grants and makes the call that may cause an Oops.  attempt()
 * must not use assertions, as the child must not run the rest of the test.
 */
static void in_child(struct __test_metadata *_metadata, struct situation *s,
		     void (*attempt)(struct __test_metadata *_metadata,
				     struct situation *s))
{
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		s->fd = gntdev_open();
		EXPECT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
		if (s->addr)
			attempt(_metadata, s);
		_exit(_metadata->exit_code);
	}
	status = wait_child(pid, 10000);
	if (status < 0)
		kill(pid, SIGKILL);
	EXPECT_EQ(KSFT_PASS, status)
		TH_LOG("the child's status is %#x: %s", status,
		       status < 0 ? "a call does not return" :
		       WIFSIGNALED(status) ? "a call killed it" : "see above");
}

/* To a file of sysfs. */
static int put(const char *dir, const char *file, const char *text)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return write_string(path, text);
}

static int put_number(const char *dir, const char *file, unsigned long number)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", number);
	return put(dir, file, text);
}

/* ------------------------------------------------------------------ */
/* Walkers that change PTEs */

/* Write protection by userfaultfd, the asynchronous kind included. */
TEST_F(walkers, userfaultfd_is_refused)
{
	static const uint64_t modes[] = {
		UFFDIO_REGISTER_MODE_WP, UFFDIO_REGISTER_MODE_MISSING,
		UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC,
	};
	struct situation *s = &self->s;
	struct uffdio_register reg = { .range.len = SIZE };
	struct uffdio_writeprotect wp = {
		.range.len = SIZE,
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	unsigned int i;
	int fd;

	fd = syscall(__NR_userfaultfd, O_CLOEXEC);
	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		SKIP(return, "no CONFIG_USERFAULTFD");
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	reg.range.start = (uintptr_t)s->addr;
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		reg.mode = modes[i];
		EXPECT_EQ(-1, ioctl(fd, UFFDIO_REGISTER, &reg));
		EXPECT_EQ(EINVAL, errno);
	}
	wp.range.start = (uintptr_t)s->addr;
	EXPECT_EQ(-1, ioctl(fd, UFFDIO_WRITEPROTECT, &wp));
	EXPECT_TRUE(all_is_well(s));
	close(fd);
}

/* The pagemap ioctl with which checkpoint and restore finds written pages. */
TEST_F(walkers, pagemap_scan_protects_nothing)
{
	struct page_region regions[NPAGES];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.vec = (uintptr_t)regions,
		.vec_len = NPAGES,
		.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
	};
	struct situation *s = &self->s;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	ASSERT_LE(0, fd);
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	arg.start = (uintptr_t)s->addr;
	arg.end = arg.start + SIZE;
	EXPECT_LE(0, ioctl(fd, PAGEMAP_SCAN, &arg));
	EXPECT_TRUE(all_is_well(s));
	arg.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
	EXPECT_EQ(-1, ioctl(fd, PAGEMAP_SCAN, &arg));
	arg.flags = PM_SCAN_WP_MATCHING;
	ioctl(fd, PAGEMAP_SCAN, &arg);
	EXPECT_TRUE(all_is_well(s));
	close(fd);
}

#define SOFT_DIRTY	((uint64_t)1 << 55)

/* clear_refs does not track writes to the pages, so they stay soft-dirty. */
TEST_F(walkers, soft_dirty_is_kept)
{
	struct situation *s = &self->s;
	uint64_t entry = 0;
	char *page;
	int i;

	page = pages_alloc(1);
	ASSERT_NE(NULL, page);
	page[0] = 1;
	ASSERT_TRUE(read_entry("/proc/self/pagemap", (uintptr_t)page / PAGE, &entry));
	munmap(page, PAGE);
	if (!(entry & SOFT_DIRTY))
		SKIP(return, "no CONFIG_MEM_SOFT_DIRTY");
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, write_string("/proc/self/clear_refs", "4"));
	for (i = 0; i < NPAGES; i++) {
		ASSERT_TRUE(read_entry("/proc/self/pagemap",
				       (uintptr_t)s->addr / PAGE + i, &entry));
		EXPECT_NE(0, entry & SOFT_DIRTY);
	}
	EXPECT_TRUE(all_is_well(s));
}

/* ksmd skips the pages, although they equal each other and others. */
TEST_F(walkers, ksm_merges_nothing)
{
	static const char dir[] = "/sys/kernel/mm/ksm";
	struct situation *s = &self->s;
	uint64_t start;
	long scans;
	char *twins;
	int i;

	scans = read_number("/sys/kernel/mm/ksm/full_scans");
	if (scans < 0)
		SKIP(return, "no CONFIG_KSM");
	for (i = 1; i < NPAGES; i++) {
		memcpy(s->want + i * PAGE, s->want, PAGE);
		ASSERT_EQ(0, grant_write(&s->g, i, s->want));
	}
	twins = pages_alloc(NPAGES);
	ASSERT_NE(NULL, twins);
	memcpy(twins, s->want, SIZE);
	ASSERT_EQ(0, madvise(twins, SIZE, MADV_MERGEABLE));
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, madvise(s->addr, SIZE, MADV_MERGEABLE));
	prctl(67 /* PR_SET_MEMORY_MERGE */, 1, 0, 0, 0);

	put(dir, "sleep_millisecs", "10");
	put(dir, "pages_to_scan", "10000");
	put(dir, "run", "1");
	for (start = now_us(); now_us() - start < 5000000; sleep_ms(10)) {
		if (read_number("/sys/kernel/mm/ksm/full_scans") >= scans + 3)
			break;
	}
	EXPECT_LE(scans + 3, read_number("/sys/kernel/mm/ksm/full_scans"));
	EXPECT_TRUE(all_is_well(s));
	put(dir, "run", "2");
	put(dir, "run", "0");
	munmap(twins, SIZE);
}

/* mbind(), move_pages(), migrate_pages(). */
TEST_F(walkers, nothing_migrates_between_nodes)
{
	struct situation *s = &self->s;
	unsigned long node = 1;
	int p[2], i, nodes[NPAGES] = { 0 }, status[NPAGES];
	void *pages[NPAGES];

	if (access("/proc/self/numa_maps", F_OK))
		SKIP(return, "no CONFIG_NUMA");
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (i = 0; i < NPAGES; i++)
		pages[i] = s->addr + i * PAGE;
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));

	syscall(__NR_mbind, s->addr, SIZE, MPOL_BIND, &node, 64,
		MPOL_MF_MOVE_ALL);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	syscall(__NR_mbind, s->addr, SIZE, MPOL_BIND, &node, 64,
		MPOL_MF_MOVE | MPOL_MF_STRICT);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	EXPECT_EQ(0, syscall(__NR_move_pages, 0, (long)NPAGES, pages, NULL,
			     status, 0));
	syscall(__NR_move_pages, 0, (long)NPAGES, pages, nodes, status,
		MPOL_MF_MOVE_ALL);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	syscall(__NR_migrate_pages, 0, 64L, &node, &node);
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
	EXPECT_TRUE(all_is_well(s));
}

/* DAMON monitors the pages, ages them, and tries to page them out. */
TEST_F(walkers, damon_pages_nothing_out)
{
	static const char admin[] = "/sys/kernel/mm/damon/admin/kdamonds";
	static const char daemon[] = "/sys/kernel/mm/damon/admin/kdamonds/0";
	static const char ctx[] =
		"/sys/kernel/mm/damon/admin/kdamonds/0/contexts/0";
	static const char scheme[] =
		"/sys/kernel/mm/damon/admin/kdamonds/0/contexts/0/schemes/0";
	static const char nr_tried[] =
		"/sys/kernel/mm/damon/admin/kdamonds/0/contexts/0/schemes/0/stats/nr_tried";
	struct situation *s = &self->s;
	unsigned long start;
	long tried = 0;
	uint64_t since;
	int p[2];

	if (put(admin, "nr_kdamonds", "1"))
		SKIP(return, "no CONFIG_DAMON_SYSFS");
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	start = (uintptr_t)s->addr;
	EXPECT_EQ(0, put(daemon, "contexts/nr_contexts", "1"));
	EXPECT_EQ(0, put(ctx, "operations", "vaddr"));
	EXPECT_EQ(0, put(ctx, "monitoring_attrs/intervals/sample_us", "1000"));
	EXPECT_EQ(0, put(ctx, "monitoring_attrs/intervals/aggr_us", "20000"));
	EXPECT_EQ(0, put(ctx, "targets/nr_targets", "1"));
	EXPECT_EQ(0, put_number(ctx, "targets/0/pid_target", getpid()));
	EXPECT_EQ(0, put(ctx, "targets/0/regions/nr_regions", "1"));
	EXPECT_EQ(0, put_number(ctx, "targets/0/regions/0/start", start));
	EXPECT_EQ(0, put_number(ctx, "targets/0/regions/0/end", start + SIZE));
	EXPECT_EQ(0, put(ctx, "schemes/nr_schemes", "1"));
	EXPECT_EQ(0, put(scheme, "action", "pageout"));
	EXPECT_EQ(0, put_number(scheme, "access_pattern/sz/max", -1UL));
	EXPECT_EQ(0, put(scheme, "access_pattern/nr_accesses/max", "1000"));
	EXPECT_EQ(0, put(scheme, "access_pattern/age/max", "1000000"));
	EXPECT_EQ(0, put(daemon, "state", "on"));
	for (since = now_us(); tried < 5 && now_us() - since < 5000000;) {
		EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
		put(daemon, "state", "update_schemes_stats");
		tried = read_number(nr_tried);
	}
	EXPECT_LE(5, tried);
	EXPECT_EQ(0, put(daemon, "state", "off"));
	put(admin, "nr_kdamonds", "0");
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
	EXPECT_TRUE(all_is_well(s));
}

/* Reclaim on behalf of another process, with a page in flight. */
TEST_F(walkers, process_madvise_reclaims_nothing)
{
	static const int advice[] = { MADV_COLD, MADV_PAGEOUT };
	struct situation *s = &self->s;
	struct iovec iov = { NULL, SIZE };
	unsigned int i;
	int p[2], fd;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	fd = syscall(__NR_pidfd_open, getpid(), 0);
	ASSERT_LE(0, fd);
	iov.iov_base = s->addr;
	for (i = 0; i < ARRAY_SIZE(advice); i++) {
		syscall(__NR_process_madvise, fd, &iov, 1L, advice[i], 0);
		EXPECT_TRUE(mapping_shows(s, s->addr, 0, NPAGES));
	}
	close(fd);
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
	EXPECT_TRUE(all_is_well(s));
}

/*
 * Request one more generation in each list of the multi-generational LRU, by
 * the number of its last one.  The file has a line for each list: memcg, node,
 * and then the generations.  Returns the number of walks.
 */
static int lru_gen_age(void)
{
	unsigned int memcg = 0, node = 0, seq = 0, next, walks = 0;
	char line[512], command[64];
	bool have = false, end;
	FILE *f;

	f = fopen(DEBUGFS "/lru_gen", "r");
	if (!f)
		return -1;
	do {
		end = !fgets(line, sizeof(line), f);
		if (!end && sscanf(line, " %u", &next) == 1) {
			seq = next;
			have = true;
			continue;
		}
		if (have) {
			snprintf(command, sizeof(command), "+ %u %u %u 1 1\n",
				 memcg, node, seq);
			walks += !write_string(DEBUGFS "/lru_gen", command);
			have = false;
		}
		if (!end && sscanf(line, " memcg %u", &memcg) != 1)
			sscanf(line, " node %u", &node);
	} while (!end);
	fclose(f);
	return walks;
}

/* The aging of the multi-generational LRU clears the accessed bits of PTEs. */
TEST_F(walkers, lru_gen_aging_passes_by)
{
	struct situation *s = &self->s;
	int p[2], i;

	if (access(DEBUGFS "/lru_gen", W_OK))
		SKIP(return, "no CONFIG_LRU_GEN");
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	for (i = 0; i < 4; i++) {
		EXPECT_LT(0, lru_gen_age());
		EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	}
	pipe_close(p);
	EXPECT_TRUE(all_is_well(s));
}

/* ------------------------------------------------------------------ */
/* Walkers that work on single pages */

/* Idle page tracking, by the pfns from pagemap. */
TEST_F(walkers, idle_tracking_passes_by)
{
	static const char bitmap[] = "/sys/kernel/mm/page_idle/bitmap";
	struct situation *s = &self->s;
	uint64_t word = -1ULL, pfn;
	int i, fd;

	fd = open(bitmap, O_RDWR);
	if (fd < 0)
		SKIP(return, "no CONFIG_IDLE_PAGE_TRACKING");
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (i = 0; i < NPAGES; i++) {
		pfn = pfn_of(s->addr + i * PAGE);
		pwrite(fd, &word, sizeof(word), pfn / 64 * 8);
		pread(fd, &word, sizeof(word), pfn / 64 * 8);
	}
	EXPECT_TRUE(all_is_well(s));
	close(fd);
}

/*
 * Soft offlining moves a page's content elsewhere.  It fails with EIO for a
 * page that is not memory managed by Linux, and with EBUSY in the gap of a
 * dom0's memory, and the page stays in use.
 */
TEST_F(walkers, soft_offlining_is_refused)
{
	struct situation *s = &self->s;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, madvise(s->addr, PAGE, MADV_SOFT_OFFLINE));
	if (errno == EINVAL)
		SKIP(return, "no CONFIG_MEMORY_FAILURE");
	EXPECT_TRUE(all_is_well(s));
}

/* Was memory added for grant mappings?  It is once there is no gap (left). */
static bool has_scratch_memory(void)
{
	char line[128];
	bool found = false;
	FILE *f;

	f = fopen("/proc/iomem", "r");
	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, "Xen scratch");
	fclose(f);
	return found;
}

static void poison_a_page(struct __test_metadata *_metadata, struct situation *s)
{
	uint64_t flags;
	int p[2];

	/* For a special PTE pagemap has another page or none. */
	if (!has_scratch_memory() ||
	    (read_entry("/proc/kpageflags", pfn_of(s->addr), &flags) &&
	     flags >> 32 & 1)) /* KPF_RESERVED */
		return;
	EXPECT_EQ(0, pipe_pin(p, s->addr + PAGE, PAGE));
	EXPECT_EQ(-1, madvise(s->addr, PAGE, MADV_HWPOISON));
	EXPECT_EQ(EBUSY, errno);
	EXPECT_TRUE(mapping_shows(s, s->addr, 0, NPAGES));
	EXPECT_TRUE(pipe_has(p, s->want + PAGE, PAGE));
	EXPECT_EQ(0, situation_unmap(s));
}

/*
 * A memory failure in a granted page, injected by root.  The page is device
 * memory without a file, which memory_failure() does not handle: it fails with
 * EBUSY, and the grant can be unmapped.  In the gap of a dom0's memory the page
 * is poisoned and never released, and neither is its grant, so this is not
 * tried there.
 */
TEST_F(walkers, a_memory_failure_keeps_no_grant)
{
	if (madvise(NULL, 0, MADV_HWPOISON) && errno == EINVAL)
		SKIP(return, "no CONFIG_MEMORY_FAILURE");
	in_child(_metadata, &self->s, poison_a_page);
}

/* ------------------------------------------------------------------ */
/* Walkers that only read */

/* Files about single pages (by pfn) and about processes (text). */
TEST_F(walkers, proc_shows_the_pages_to_another_process)
{
	static const char * const per_page[] = {
		"/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup",
	};
	static const char * const per_process[] = {
		"smaps", "smaps_rollup", "numa_maps", "maps",
	};
	struct situation *s = &self->s;
	uint64_t entry;
	char path[64];
	unsigned int i;
	int status, j;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (i = 0; i < ARRAY_SIZE(per_page); i++) {
		for (j = 0; j < NPAGES; j++)
			read_entry(per_page[i], pfn_of(s->addr + j * PAGE),
				   &entry);
	}
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		for (i = 0; i < ARRAY_SIZE(per_process); i++) {
			int fd;

			snprintf(path, sizeof(path), "/proc/%d/%s", getppid(),
				 per_process[i]);
			fd = open(path, O_RDONLY);
			while (read(fd, s->got, SIZE) > 0)
				;
			close(fd);
		}
		snprintf(path, sizeof(path), "/proc/%d/pagemap", getppid());
		for (j = 0; j < NPAGES; j++) {
			if (!read_entry(path, (uintptr_t)s->addr / PAGE + j,
					&entry) || !(entry >> 63))
				_exit(1);
		}
		_exit(0);
	}
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status);
	EXPECT_TRUE(all_is_well(s));
}

/* process_vm_readv() and process_vm_writev() from another process. */
TEST_F(walkers, process_vm_calls_move_the_exact_bytes)
{
	struct situation *s = &self->s;
	struct iovec local = { s->got, SIZE }, remote = { NULL, SIZE };
	int status;
	pid_t pid;

	if (process_vm_readv(getpid(), NULL, 0, NULL, 0, 0))
		SKIP(return, "no CONFIG_CROSS_MEMORY_ATTACH");
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	remote.iov_base = s->addr;
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (process_vm_readv(getppid(), &local, 1, &remote, 1, 0) !=
		    SIZE)
			_exit(errno);
		if (memcmp(s->got, s->want, SIZE))
			_exit(1);
		fill_pages(s->got, NPAGES, 23);
		if (process_vm_writev(getppid(), &local, 1, &remote, 1, 0) !=
		    SIZE)
			_exit(errno);
		_exit(0);
	}
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status)
		TH_LOG("the child's status is %#x", status);
	fill_pages(s->want, NPAGES, 23);
	EXPECT_TRUE(all_is_well(s));
}

/*
 * A shared futex is identified by its page, and a granted page is neither
 * anonymous nor file-backed: EFAULT.  A private one is identified by its
 * address.
 */
TEST_F(walkers, only_private_futexes_work)
{
	static const struct timespec soon = { 0, 10000000 };
	struct situation *s = &self->s;
	uint32_t *futex;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	futex = (uint32_t *)s->addr;
	EXPECT_EQ(-1, syscall(__NR_futex, futex, FUTEX_WAIT, *futex, &soon));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, syscall(__NR_futex, futex, FUTEX_WAKE, 1));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, syscall(__NR_futex, futex, FUTEX_WAIT_PRIVATE, *futex,
			      &soon));
	EXPECT_EQ(ETIMEDOUT, errno);
	EXPECT_EQ(0, syscall(__NR_futex, futex, FUTEX_WAKE_PRIVATE, 1));
	EXPECT_TRUE(all_is_well(s));
}

/* Locking all memory, present and future mappings. */
TEST_F(walkers, mlockall_holds_nothing)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, mlockall(MCL_CURRENT | MCL_FUTURE));
	EXPECT_TRUE(all_is_well(s));
	ASSERT_EQ(0, situation_unmap(s));
	if (!self->first)
		EXPECT_LE(0, grants_wait_unused(&s->g, AT_ONCE_MS));

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
	munlockall();
}

/* A perf sample has the physical address that a breakpoint watched. */
TEST_F(walkers, perf_samples_the_pages_address)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT,
		.size = sizeof(attr),
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR | PERF_SAMPLE_PHYS_ADDR,
		.exclude_kernel = 1,
		.bp_type = HW_BREAKPOINT_W,
		.bp_len = HW_BREAKPOINT_LEN_1,
	};
	struct perf_event_mmap_page *ring;
	struct situation *s = &self->s;
	struct {
		struct perf_event_header header;
		uint64_t addr, phys_addr;
	} *sample;
	int fd;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	attr.bp_addr = (uintptr_t)s->addr;
	fd = syscall(__NR_perf_event_open, &attr, 0, -1, -1, 0);
	if (fd < 0)
		SKIP(return, "no breakpoints (CONFIG_PERF_EVENTS)");
	ring = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, ring);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, 1));
	EXPECT_LE(sizeof(*sample), ring->data_head);
	sample = (void *)((char *)ring + PAGE);
	EXPECT_EQ(PERF_RECORD_SAMPLE, sample->header.type);
	EXPECT_EQ((uintptr_t)s->addr, sample->addr);
	/* perf takes no lock, and cannot follow a special PTE. */
	if (sample->phys_addr)
		EXPECT_EQ(pfn_of(s->addr), sample->phys_addr / PAGE);
	munmap(ring, 2 * PAGE);
	close(fd);
	EXPECT_TRUE(all_is_well(s));
}

/* A core dump does not contain the pages, and I/O in flight is not lost. */
TEST_F(walkers, a_core_dump_leaves_the_pages_out)
{
	static const char pattern[] = "/proc/sys/kernel/core_pattern";
	static const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct iovec iov = { NULL, SIZE };
	struct situation *s = &self->s;
	int p[2], go[2], status, i, fd;
	char old[128] = "", core[64], c, *dump;
	off_t size;
	pid_t pid;

	fd = open(pattern, O_RDONLY);
	if (fd < 0)
		SKIP(return, "no CONFIG_COREDUMP");
	ASSERT_LT(0, read(fd, old, sizeof(old) - 1));
	close(fd);
	ASSERT_EQ(0, write_string(pattern, "/tmp/gntdev_walkers.%p"));

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		s->fd = gntdev_open();
		iov.iov_base = situation_map(s, PROT_READ | PROT_WRITE);
		write_string("/proc/self/coredump_filter", "0xff");
		madvise(iov.iov_base, SIZE, MADV_DODUMP);
		setrlimit(RLIMIT_CORE, &unlimited);
		if (read(go[0], &c, 1) != 1 ||
		    vmsplice(p[1], &iov, 1, 0) != SIZE)
			_exit(1);
		abort();
	}
	/* Bytes that the child has no copy of. */
	fill_pages(s->want, NPAGES, now_us());
	for (i = 0; i < NPAGES; i++)
		ASSERT_EQ(0, grant_write(&s->g, i, s->want + i * PAGE));
	ASSERT_EQ(1, write(go[1], "g", 1));
	status = wait_child(pid, 20000);
	EXPECT_TRUE(status >= 0 && WIFSIGNALED(status) && WCOREDUMP(status))
		TH_LOG("status %x", status);
	write_string(pattern, old);
	pipe_close(go);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));

	snprintf(core, sizeof(core), "/tmp/gntdev_walkers.%d", pid);
	fd = open(core, O_RDONLY);
	ASSERT_LE(0, fd);
	size = lseek(fd, 0, SEEK_END);
	ASSERT_LT(0, size);
	dump = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	ASSERT_NE(MAP_FAILED, dump);
	EXPECT_EQ(NULL, memmem(dump, size, s->want, 64));
	EXPECT_EQ(NULL, memmem(dump, size, s->want + SIZE - PAGE, 64));
	munmap(dump, size);
	close(fd);
	unlink(core);
}

/* ------------------------------------------------------------------ */
/* The same frame, mapped without a grant */

struct test_mmapbatch_v2 {
	uint32_t num;
	uint16_t dom;
	uint64_t addr;
	const unsigned long *arr;
	int *err;
};

#define TEST_PRIVCMD_MMAPBATCH_V2 \
	_IOC(_IOC_NONE, 'P', 4, sizeof(struct test_mmapbatch_v2))

/*
 * The control domain may map any frame of a guest.  The frame now translates to
 * the page that maps the grant, but this does not affect a PTE of privcmd: it
 * cannot be pinned, and the removal of one mapping does not affect the other.
 */
TEST_F(walkers, an_alias_by_privcmd_is_not_pinned)
{
	struct situation *s = &self->s;
	struct test_mmapbatch_v2 op = { .num = 1, .dom = s->g.domid };
	struct grant_entry_v1 *entry;
	int p[2], i, err = 0;
	unsigned long frame;
	char *alias;

	/* A domain cannot map its own frames this way. */
	if (variant->source == GRANTS_OWN)
		return;
	entry = grant_entry(&s->g, 0);
	if (!entry)
		SKIP(return, "not in the control domain");
	frame = entry->frame;
	op.arr = &frame;
	op.err = &err;

	for (i = 0; i < 2; i++) {
		alias = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			     privcmd_fd(), 0);
		ASSERT_NE(MAP_FAILED, alias);
		op.addr = (uintptr_t)alias;
		ASSERT_EQ(0, ioctl(privcmd_fd(), TEST_PRIVCMD_MMAPBATCH_V2, &op));
		ASSERT_EQ(0, err);
		ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
		EXPECT_TRUE(mapping_shows(s, alias, 0, 1));
		EXPECT_TRUE(mapping_works(s, alias, 0, 1));
		EXPECT_EQ(-1, pipe_pin(p, alias, PAGE));
		EXPECT_EQ(EFAULT, errno);
		ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
		if (i) {
			munmap(alias, PAGE);
			EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
			ASSERT_EQ(0, situation_unmap(s));
		} else {
			ASSERT_EQ(0, situation_unmap(s));
			EXPECT_TRUE(mapping_shows(s, alias, 0, 1));
			munmap(alias, PAGE);
		}
		EXPECT_TRUE(pipe_has(p, s->want, PAGE));
	}
}

/* ------------------------------------------------------------------ */
/* Walkers that map a page again; an unpatched kernel may not survive them */

static int hmm(int fd, unsigned long op, char *addr, void *buf)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (uintptr_t)addr,
		.ptr = (uintptr_t)buf,
		.npages = NPAGES,
	};

	return ioctl(fd, op, &cmd) ? errno : 0;
}

static void mirror(struct __test_metadata *_metadata, struct situation *s)
{
	int i, fd = open("/dev/hmm_dmirror0", O_RDWR);
	unsigned char prot[NPAGES] = { 0 };
	char *where = s->addr;

	EXPECT_EQ(EFAULT, hmm(fd, HMM_DMIRROR_READ, where, s->got));
	memset(s->got, 0x5a, SIZE);
	EXPECT_EQ(EFAULT, hmm(fd, HMM_DMIRROR_WRITE, where, s->got));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	EXPECT_EQ(0, hmm(fd, HMM_DMIRROR_SNAPSHOT, where, prot));
	for (i = 0; i < NPAGES; i++)
		EXPECT_EQ(HMM_DMIRROR_PROT_ERROR, prot[i]);
	EXPECT_NE(0, hmm(fd, HMM_DMIRROR_MIGRATE_TO_DEV, where, s->got));
	EXPECT_NE(0, hmm(fd, HMM_DMIRROR_EXCLUSIVE, where, s->got));
	EXPECT_TRUE(can_be_read(s));
	EXPECT_EQ(0, situation_unmap(s));
	EXPECT_NE(0, hmm(fd, HMM_DMIRROR_READ, where, s->got));
	close(fd);
}

/*
 * Drivers of GPUs and of RDMA with on-demand paging let a device access the
 * memory of a process.  The machine frame in a PTE differs from the pfn of its
 * page, and the device is not notified when the frame is returned to its
 * owner.
 */
TEST_F(walkers, hmm_mirrors_nothing)
{
	if (access("/dev/hmm_dmirror0", F_OK))
		SKIP(return, "no CONFIG_TEST_HMM");
	in_child(_metadata, &self->s, mirror);
}

static void register_buffer_rings(struct __test_metadata *_metadata,
				  struct situation *s)
{
	/*
	 * A ring of four pages and one of one page, for which newer kernels
	 * need no mapping but the direct map.
	 */
	struct io_uring_buf_reg reg = {
		.ring_addr = (uintptr_t)s->addr,
		.ring_entries = 4 * PAGE / sizeof(struct io_uring_buf),
	};
	struct uring r;
	int ret;

	if (uring_open(&r)) {
		EXPECT_EQ(0, errno);
		return;
	}
	ret = syscall(__NR_io_uring_register, r.fd, IORING_REGISTER_PBUF_RING,
		      &reg, 1);
	EXPECT_EQ(-1, ret);
	EXPECT_EQ(ENOMEM, errno);

	reg.ring_entries /= 4;
	ret = syscall(__NR_io_uring_register, r.fd, IORING_REGISTER_PBUF_RING,
		      &reg, 1);
	if (ret)
		EXPECT_EQ(ENOMEM, errno);
	uring_close(&r);
	EXPECT_TRUE(can_be_read(s));
}

/* io_uring vmap()s the memory in which a process describes its buffers. */
TEST_F(walkers, io_uring_refuses_a_buffer_ring)
{
	in_child(_metadata, &self->s, register_buffer_rings);
}

static void set_up_rings(struct __test_metadata *_metadata, struct situation *s)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_NO_MMAP | IORING_SETUP_NO_SQARRAY,
		.sq_off.user_addr = (uintptr_t)s->addr,
		.cq_off.user_addr = (uintptr_t)s->addr + 2 * PAGE,
	};

	/* Each takes two pages: newer kernels do not map a single one. */
	int fd = syscall(__NR_io_uring_setup, 2 * PAGE / 64, &p);

	EXPECT_EQ(-1, fd);
	EXPECT_EQ(ENOMEM, errno);
	/* Before anything else is written into the ring. */
	close(fd);
	EXPECT_TRUE(can_be_read(s));
}

/* The same with the memory for the rings themselves. */
TEST_F(walkers, io_uring_refuses_rings)
{
	in_child(_metadata, &self->s, set_up_rings);
}

static void register_umem(struct __test_metadata *_metadata, struct situation *s)
{
	struct xdp_umem_reg reg = {
		.addr = (uintptr_t)s->addr,
		.len = SIZE,
		.chunk_size = PAGE,
	};
	int fd = socket(AF_XDP, SOCK_RAW, 0);

	EXPECT_EQ(-1, setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)));
	EXPECT_EQ(ENOMEM, errno);
	close(fd);
	EXPECT_TRUE(can_be_read(s));
}

/* AF_XDP vmap()s the memory for packets. */
TEST_F(walkers, af_xdp_refuses_a_umem)
{
	int fd = socket(AF_XDP, SOCK_RAW, 0);

	if (fd < 0)
		SKIP(return, "no CONFIG_XDP_SOCKETS");
	close(fd);
	in_child(_metadata, &self->s, register_umem);
}

/* Two ends of a TCP connection, over loopback. */
static int tcp_pair(int sock[2])
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int fd, ret = -1;

	fd = socket(AF_INET, SOCK_STREAM, 0);
	sock[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (!bind(fd, (struct sockaddr *)&addr, sizeof(addr)) &&
	    !listen(fd, 1) &&
	    !getsockname(fd, (struct sockaddr *)&addr, &len) &&
	    !connect(sock[0], (struct sockaddr *)&addr, sizeof(addr))) {
		sock[1] = accept(fd, NULL, NULL);
		ret = sock[1] < 0 ? -1 : 0;
	}
	close(fd);
	return ret;
}

static void receive_by_mapping(struct __test_metadata *_metadata,
			       struct situation *s)
{
	struct tcp_zerocopy_receive zc = { .length = SIZE };
	socklen_t len = sizeof(zc);
	int p[2], sock[2] = { -1, -1 };
	char *window;

	/*
	 * A receiver queues buffers to the CPU that allocated them, which may
	 * free them only on the next network activity there.
	 */
	run_on(0);

	EXPECT_EQ(0, tcp_pair(sock));
	window = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, sock[1], 0);
	EXPECT_NE(MAP_FAILED, window);
	EXPECT_EQ(0, pipe_pin(p, s->addr, SIZE));
	EXPECT_EQ(SIZE, splice(p[0], NULL, sock[0], NULL, SIZE, SPLICE_F_MOVE));
	pipe_close(p);

	/* Wait for all data before a mapping of it is requested. */
	EXPECT_EQ(SIZE, recv(sock[1], s->got, SIZE, MSG_PEEK | MSG_WAITALL));
	zc.address = (uintptr_t)window;
	EXPECT_EQ(-1, getsockopt(sock[1], IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE,
				 &zc, &len));
	EXPECT_EQ(EACCES, errno);
	/* Nothing is mapped, so no bytes of another page are visible. */
	EXPECT_EQ(SIGBUS, touch(window, false));

	/* The receiver reads instead; the mapping may be removed by then. */
	EXPECT_TRUE(can_be_read(s));
	EXPECT_EQ(0, situation_unmap(s));
	memset(s->got, 0, SIZE);
	EXPECT_EQ(SIZE, recv(sock[1], s->got, SIZE, MSG_DONTWAIT));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));
	munmap(window, SIZE);
	close(sock[0]);
	close(sock[1]);
}

/*
 * A receiver gets a granted page from a socket's queue.  The kernel would map
 * it into the receiver's page table if that is requested instead of a copy.
 */
TEST_F(walkers, tcp_zerocopy_receive_is_refused)
{
	in_child(_metadata, &self->s, receive_by_mapping);
}

int main(int argc, char **argv)
{
	if (pool_init(12 * NPAGES))
		return KSFT_FAIL;
	return test_harness_run(argc, argv);
}
