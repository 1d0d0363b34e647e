// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each step that can fail is made to fail once.
 *
 * What should happen
 *
 *   If an allocation or a hypercall fails, the call returns an errno that tells
 *   the cause.  Existing state is unchanged, nothing stays mapped, nothing
 *   leaks, and the next user is not affected.  If the owner of a frame has
 *   paged it out, the hypercall is retried until the frame is there.  A page
 *   that Xen fails to unmap is retired, and only that page.
 *
 * How the test makes it happen
 *
 *   The kernel's fault injection makes the nth step of a task fail
 *   (/proc/thread-self/fail-nth).  A "life" is everything that a process can do
 *   with a mapping, from open() to close().  It is run with n = 1, 2, 3, ...
 *   until there is no nth step any more, and its result is checked from outside
 *   each time.  "fail_grant_op" makes a hypercall fail, or one of its ops, with
 *   any status; see grant-fault.c.  The number of faults that were tried is
 *   printed.
 *
 *   Needs a kernel with CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC and
 *   CONFIG_XEN_GRANT_FAULT_INJECTION.
 *
 * What a failure means
 *
 *   An error path releases too little (grants, entries or pages are left) or
 *   too much (the kernel logs an error).
 */
#include "gntdev_fixture.h"

#define FAULT_DIR	DEBUGFS "/fail_grant_op/"

/* For the mask "cmds". */
#define MAP_OPS		1
#define UNMAP_OPS	2

/* For "status", without the minus sign. */
#define GENERAL_ERROR	1
#define PAGED_OUT	12
#define NO_SPACE	13

/* More steps than a life can have. */
#define NTH_MAX		2000
/* A page of PMDs covers 1 GiB of addresses. */
#define WINDOW_ROOM	(4UL << 30)
/* For hundreds of lives, on a kernel with all debug checks. */
#define LIVES_SECONDS	300
/* Other tests check that pages are unmapped promptly. */
#define LEFT_MS		10000

static bool knob(const char *dir, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "/%s/%s", dir, name);
	return !write_string(path, value);
}

static bool knob_number(const char *name, long value)
{
	char text[16];

	snprintf(text, sizeof(text), "%ld", value);
	return knob("fail_grant_op", name, text);
}

/* Without messages, and also for allocations that may sleep (nearly all). */
static bool faults_init(void)
{
	static const char * const dir[] = {
		"failslab", "fail_page_alloc", "fail_grant_op",
	};
	bool good = true;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(dir); i++) {
		good &= knob(dir[i], "verbose", "0");
		good &= knob(dir[i], "probability", "0");
		good &= knob(dir[i], "times", "-1");
	}
	good &= knob("failslab", "ignore-gfp-wait", "N");
	good &= knob("fail_page_alloc", "ignore-gfp-wait", "N");
	good &= knob("fail_page_alloc", "ignore-gfp-highmem", "N");
	good &= knob("fail_page_alloc", "min-order", "0");
	return good;
}

/* Which hypercalls can fail in a life, and how. */
static bool faults_of_calls(int cmds, int op, int status)
{
	return knob_number("cmds", cmds) && knob_number("op", op) &&
	       knob_number("status", status);
}

/* Let the next hypercalls of this kind fail, except for the first few. */
static bool fail_calls(int skip, int times)
{
	return knob_number("space", skip + 1) && knob_number("times", times) &&
	       knob_number("probability", 100);
}

static bool no_faults(void)
{
	return knob_number("probability", 0) && knob_number("times", -1) &&
	       knob_number("space", 0) && faults_of_calls(0, 0, 0);
}

static void set_nth(int fd, int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", n);

	if (pwrite(fd, text, len, 0) != len)
		abort();
}

/* The number of steps left until the fault; 0: it has happened. */
static int get_nth(int fd)
{
	char text[16] = "";

	if (pread(fd, text, sizeof(text) - 1, 0) <= 0)
		abort();
	return atoi(text);
}

/* ------------------------------------------------------------------ */
/* Lives */

struct lives {
	struct situation s;
	int nth;	/* /proc/thread-self/fail-nth */
	int null;	/* /dev/null */
	int errnos[8];	/* what the failing step may return */
	const char *wrong;
};

FIXTURE(fault) {
	struct lives l;
};

FIXTURE_VARIANT(fault) {
	enum grant_source source;
};

FIXTURE_VARIANT_ADD(fault, own) {
	.source = GRANTS_OWN,
};

FIXTURE_VARIANT_ADD(fault, foreign) {
	.source = GRANTS_FOREIGN,
};

FIXTURE_SETUP(fault)
{
	ASSERT_TRUE(faults_init() && no_faults())
		TH_LOG("no fault injection in this kernel; see the head of this file");
	situation_setup(_metadata, &self->l.s, variant->source);
	self->l.errnos[0] = ENOMEM;
	self->l.errnos[1] = EFAULT;
	self->l.errnos[2] = EAGAIN;
	/* alloc_fd() and get_empty_filp() */
	self->l.errnos[3] = ENFILE;
	self->l.errnos[4] = EMFILE;
	self->l.nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->l.nth);
	self->l.null = open("/dev/null", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->l.null);
}

FIXTURE_TEARDOWN(fault)
{
	set_nth(self->l.nth, 0);
	no_faults();
	situation_teardown(_metadata, &self->l.s);
	close(self->l.nth);
}

/* If a step of a life fails, its errno must be one of these; returns ok. */
static bool step(struct lives *l, const char *what, bool ok)
{
	int err = errno;
	size_t i;

	if (ok)
		return true;
	for (i = 0; i < ARRAY_SIZE(l->errnos); i++) {
		if (err == l->errnos[i])
			return false;
	}
	if (!l->wrong) {
		set_nth(l->nth, 0);
		printf("# %s: %s\n", what, strerror(err));
		l->wrong = what;
	}
	return false;
}

/* Addresses far from all others, so that each life allocates page tables. */
static char *window;

/*
 * Pages 0 and 1 are pinned; 4 to 6 are unmapped by munmap() of the middle, 2 by
 * madvise(), the rest by munmap() of the whole range.
 */
static void live(struct lives *l)
{
	struct situation *s = &l->s;
	struct iovec iov = { window, 2 * PAGE };
	int fd, p[2] = { -1, -1 };
	char *addr = MAP_FAILED;
	uint64_t index;
	pid_t pid;
	int stat;

	fd = gntdev_open();
	if (!step(l, "open", fd >= 0))
		return;
	if (!step(l, "map ioctl",
		  !gntdev_add(fd, s->g.domid, s->g.ref, NPAGES, &index)))
		goto out;
	step(l, "notify ioctl",
	     !gntdev_notify(fd, index + 7 * PAGE, UNMAP_NOTIFY_CLEAR_BYTE, 0));
	step(l, "notify ioctl", !gntdev_notify(fd, index, 0, 0));

	addr = mmap(window, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		    fd, index);
	if (!step(l, "mmap", addr != MAP_FAILED)) {
		/* Retry, since the map object is unchanged. */
		addr = mmap(window, SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, fd, index);
		if (!step(l, "mmap again", addr != MAP_FAILED))
			goto del;
	}
	step(l, "pipe", !pipe(p));
	step(l, "vmsplice", p[1] < 0 || vmsplice(p[1], &iov, 1, 0) > 0);

	pid = fork();
	if (!pid)
		_exit(0);
	if (step(l, "fork", pid > 0))
		waitpid(pid, &stat, 0);

	step(l, "mprotect", !mprotect(addr, PAGE, PROT_READ) || errno == EACCES);
	step(l, "munmap of the middle", !munmap(addr + 4 * PAGE, 3 * PAGE));
	step(l, "madvise", !madvise(addr + 2 * PAGE, PAGE, MADV_DONTNEED));
	step(l, "munmap", !munmap(addr, SIZE));
del:
	step(l, "unmap ioctl", !gntdev_del(fd, index, NPAGES));
out:
	close(fd);
	if (p[0] >= 0)
		pipe_close(p);
}

/* All pages become a buffer of a ring, are read, and are no buffer any more. */
static void live_registered(struct lives *l)
{
	struct situation *s = &l->s;
	struct gntdev_uring_buffer buffer = {
		.domid = s->g.domid,
		.count = NPAGES,
		.refs = (uintptr_t)s->g.ref,
	};
	struct uring r = { 0 };
	uint32_t slot = 0;

	if (!step(l, "ring", !uring_open(&r)))
		return;
	if (!step(l, "table", !uring_make_table(&r, 1)))
		goto out;
	uring_command(&r, s->fd, GNTDEV_URING_REGISTER, &buffer, 1);
	errno = -uring_run(&r);
	if (!step(l, "register", !errno))
		goto out;
	errno = -uring_io(&r, IORING_OP_WRITE_FIXED, l->null, NULL, SIZE, 0);
	step(l, "write", errno == -SIZE);
	uring_command(&r, s->fd, GNTDEV_URING_UNREGISTER, &slot, 1);
	errno = -uring_run(&r);
	step(l, "unregister", !errno);
out:
	uring_close(&r);
}

/* A map object may still keep the entries of pages that were mapped. */
static bool nothing_is_mapped(struct situation *s)
{
	return grants_wait_unused(&s->g, LEFT_MS) >= 0 &&
	       counter_returns(count_waiting, s->waiting) &&
	       count_retired() == s->retired && owner_sees(s, 0, NPAGES);
}

/* Unmap the rest of the life's mapping, in case its munmap() failed. */
static bool nothing_is_left(struct situation *s)
{
	munmap(window, SIZE);
	return nothing_is_mapped(s) && counter_returns(count_entries, s->entries);
}

typedef void (*life)(struct lives *l);

static int each_nth_fault(struct __test_metadata *_metadata,
			  struct lives *l, life live)
{
	int n, left;

	for (n = 1; n < NTH_MAX; n++) {
		set_nth(l->nth, n);
		live(l);
		left = get_nth(l->nth);
		set_nth(l->nth, 0);
		ASSERT_EQ(NULL, l->wrong)
			TH_LOG("fault %d: wrong errno of %s", n, l->wrong);
		ASSERT_TRUE(nothing_is_left(&l->s))
			TH_LOG("fault %d: %d grants mapped, %ld entries (%ld), %ld wait",
			       n, grants_in_use(&l->s.g, 0, NPAGES),
			       count_entries(), l->s.entries, count_waiting());
		if (left)
			break;
	}
	EXPECT_LT(20, n)
		TH_LOG("too few steps could fail");
	EXPECT_GT(NTH_MAX, n);
	printf("# %d faults tried in one life each\n", n - 1);
	return n - 1;
}

/*
 * Only the requested call fails: a page without an override is mapped
 * nevertheless, so the errno is always ENOMEM, or EFAULT if a page could not be
 * pinned, or EAGAIN from fork().
 */
TEST_F_TIMEOUT(fault, any_allocation_may_fail, LIVES_SECONDS)
{
	each_nth_fault(_metadata, &self->l, live);
}

static void with_map_calls(struct __test_metadata *_metadata,
			   struct lives *l, life live, int status, int err)
{
	int op;

	l->errnos[5] = err;
	for (op = 0; op < NPAGES; op += NPAGES / 2 - 1) {
		ASSERT_TRUE(faults_of_calls(MAP_OPS, op, status));
		each_nth_fault(_metadata, l, live);
	}
}

TEST_F_TIMEOUT(fault, any_allocation_or_map_hypercall_may_fail, LIVES_SECONDS)
{
	with_map_calls(_metadata, &self->l, live, 0, EFAULT);
}

TEST_F_TIMEOUT(fault, any_allocation_or_map_op_may_fail, LIVES_SECONDS)
{
	with_map_calls(_metadata, &self->l, live, GENERAL_ERROR, EINVAL);
}

TEST_F_TIMEOUT(fault, registering_may_fail_at_any_step, LIVES_SECONDS)
{
	each_nth_fault(_metadata, &self->l, live_registered);
	with_map_calls(_metadata, &self->l, live_registered, 0, EFAULT);
	with_map_calls(_metadata, &self->l, live_registered, GENERAL_ERROR, ENXIO);
	with_map_calls(_metadata, &self->l, live_registered, NO_SPACE, ENOSPC);
}

/* A worker thread of io_uring maps the grants then, at its first or second try. */
TEST_F(fault, registering_waits_for_a_frame_that_is_paged_out)
{
	struct lives *l = &self->l;
	int op, times;

	for (times = 1; times < 3; times++) {
		for (op = 0; op < NPAGES; op++) {
			ASSERT_TRUE(faults_of_calls(MAP_OPS, op, PAGED_OUT) &&
				    fail_calls(0, times));
			live_registered(l);
			ASSERT_EQ(0, read_number(FAULT_DIR "times"))
				TH_LOG("the fault did not happen");
			ASSERT_TRUE(no_faults());
			ASSERT_EQ(NULL, l->wrong);
			ASSERT_TRUE(nothing_is_left(&l->s));
		}
	}
}

/* ------------------------------------------------------------------ */
/* One hypercall */

/* The first one maps into the kernel, the second one into the user's PTEs. */
static void map_fails(struct __test_metadata *_metadata,
		      struct lives *l, int status, int err)
{
	struct situation *s = &l->s;
	int skip, op, tried = 0;
	uint64_t index;
	char *p;

	for (skip = 0; skip < 2; skip++) {
		for (op = 0; op < NPAGES; op++) {
			ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref,
						NPAGES, &index));
			ASSERT_TRUE(faults_of_calls(MAP_OPS, op, status) &&
				    fail_calls(skip, 1));
			p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
				 s->fd, index);
			ASSERT_EQ(MAP_FAILED, p);
			ASSERT_EQ(err, errno);
			ASSERT_EQ(0, read_number(FAULT_DIR "times"))
				TH_LOG("the fault did not happen");
			ASSERT_TRUE(no_faults());
			ASSERT_TRUE(nothing_is_mapped(s));

			p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
				 s->fd, index);
			ASSERT_NE(MAP_FAILED, p)
				TH_LOG("again: %s", strerror(errno));
			ASSERT_TRUE(mapping_works(s, p, 0, NPAGES));
			ASSERT_EQ(0, munmap(p, SIZE));
			ASSERT_EQ(0, gntdev_del(s->fd, index, NPAGES));
			ASSERT_TRUE(nothing_is_left(s));
			tried++;
		}
	}
	printf("# %d faults tried\n", tried);
}

TEST_F(fault, a_failed_map_hypercall_maps_nothing)
{
	map_fails(_metadata, &self->l, 0, EFAULT);
}

TEST_F(fault, a_failed_map_op_maps_nothing)
{
	map_fails(_metadata, &self->l, GENERAL_ERROR, EINVAL);
}

TEST_F(fault, a_map_op_without_space_maps_nothing)
{
	map_fails(_metadata, &self->l, NO_SPACE, ENOSPC);
}

/* Each frame of each batch is paged out, and present on the retry. */
TEST_F(fault, a_frame_that_is_paged_out_is_asked_for_again)
{
	struct situation *s = &self->l.s;
	int skip, op, tried = 0;

	for (skip = 0; skip < 2; skip++) {
		for (op = 0; op < NPAGES; op++) {
			ASSERT_TRUE(faults_of_calls(MAP_OPS, op, PAGED_OUT) &&
				    fail_calls(skip, 1));
			ASSERT_NE(MAP_FAILED,
				  situation_map(s, PROT_READ | PROT_WRITE))
				TH_LOG("%s", strerror(errno));
			ASSERT_EQ(0, read_number(FAULT_DIR "times"))
				TH_LOG("the fault did not happen");
			ASSERT_TRUE(no_faults());
			ASSERT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
			ASSERT_EQ(0, situation_unmap(s));
			ASSERT_EQ(0, gntdev_del(s->fd, s->index, NPAGES));
			ASSERT_TRUE(nothing_is_left(s));
			tried++;
		}
	}
	printf("# %d faults tried\n", tried);
}

/* ------------------------------------------------------------------ */
/* Death */

/*
 * A child runs one life after the other until it is killed, at a random moment;
 * this is repeated some hundred times.
 */
TEST_F_TIMEOUT(fault, a_kill_at_any_moment_leaves_nothing, LIVES_SECONDS)
{
	struct situation *s = &self->l.s;
	unsigned int seed = 1;
	int i, status;
	pid_t pid;

	for (i = 0; i < 200; i++) {
		pid = fork();
		ASSERT_LE(0, pid);
		while (!pid) {
			live(&self->l);
			live_registered(&self->l);
		}
		seed = seed * 1103515245 + 12345;
		usleep(seed / 65536 % 8000);
		kill(pid, SIGKILL);
		status = wait_child(pid, 10000);
		ASSERT_TRUE(WIFSIGNALED(status));
		ASSERT_TRUE(nothing_is_left(s))
			TH_LOG("kill %d: %d grants mapped, %ld entries (%ld), %ld wait",
			       i, grants_in_use(&s->g, 0, NPAGES),
			       count_entries(), s->entries, count_waiting());
	}
	printf("# %d kills tried\n", i);
}

/* ------------------------------------------------------------------ */
/* Pages to map into.  The kernel adds more when needed, 32,768 at a time. */

#define SOME_PAGES	1000
/* More than that many additions need, since not every fault makes one fail. */
#define MAPS_MAX	320
/*
 * The number of steps of an addition that belong to the driver (the range and
 * the p2m).  They are followed by arch_add_memory(), which does not handle a
 * failure to allocate page tables.
 */
#define STEPS		8

TEST(adding_pages_may_fail)
{
	struct ioctl_gntdev_map_grant_ref *op;
	int fd, nth, used = NTH_MAX, left, ret, maps, tried = 0, failed = 0;

	ASSERT_TRUE(faults_init() && no_faults());
	nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, nth);
	fd = gntdev_open();
	ASSERT_LE(0, fd);
	op = calloc(1, sizeof(*op) + SOME_PAGES * sizeof(op->refs[0]));
	ASSERT_NE(NULL, op);
	/* Never mapped: any refs do.  Touched, so that no page fault fails. */
	memset(op->refs, 1, SOME_PAGES * sizeof(op->refs[0]));
	op->count = SOME_PAGES;

	/* An addition is now the last step of a map; one of two needs none. */
	for (maps = 0; maps < 2; maps++) {
		set_nth(nth, NTH_MAX);
		ASSERT_EQ(0, ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, op));
		left = get_nth(nth);
		set_nth(nth, 0);
		if (used > NTH_MAX - left)
			used = NTH_MAX - left;
	}

	for (maps = 0; maps < MAPS_MAX && tried < STEPS; maps++) {
		set_nth(nth, used + tried + 1);
		ret = ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, op);
		left = get_nth(nth);
		set_nth(nth, 0);
		if (ret) {
			ASSERT_EQ(0, left);
			ASSERT_EQ(ENOMEM, errno);
			failed++;
		}
		tried += !left;
	}
	EXPECT_EQ(STEPS, tried);
	/* Others hit optional allocations, if the kernel has debug checks. */
	EXPECT_LE(2, failed);
	/* The addition still succeeds now. */
	EXPECT_EQ(0, ioctl(fd, IOCTL_GNTDEV_MAP_GRANT_REF, op));
	printf("# %d faults tried\n", tried);

	close(fd);
	close(nth);
	free(op);
}

/* ------------------------------------------------------------------ */
/* Unmapping that fails in Xen.  Such a page's grant stays in use, too. */

FIXTURE(refused) {
	struct situation s;
};

FIXTURE_SETUP(refused)
{
	ASSERT_TRUE(faults_init() && no_faults());
	situation_setup(_metadata, &self->s, GRANTS_FOREIGN);
}

/* Mappings whose op Xen did not get stay mapped; the others do not. */
FIXTURE_TEARDOWN(refused)
{
	struct situation *s = &self->s;

	no_faults();
	close(s->fd);
	EXPECT_EQ(s->waiting, count_waiting());
	grants_put(&s->g);
}

/* Pages first to first + n - 1 are retired, the other grants are free. */
static void expect_refused(struct __test_metadata *_metadata,
			   struct situation *s, int first, int n)
{
	uint64_t start = now_us();

	while (count_retired() < s->retired + n && now_us() - start < SOON_MS * 1000)
		sleep_ms(1);
	EXPECT_EQ(s->retired + n, count_retired());
	EXPECT_EQ(0, read_number(FAULT_DIR "times"))
		TH_LOG("the fault did not happen");
	EXPECT_EQ(0, grants_in_use(&s->g, 0, first));
	EXPECT_EQ(0, grants_in_use(&s->g, first + n, NPAGES - first - n));
	EXPECT_EQ(n, grants_in_use(&s->g, first, n));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

/* A mapping of other grants works, before and after. */
static void expect_others_work(struct __test_metadata *_metadata)
{
	struct grants g;
	int fd = gntdev_open();
	char *p;

	ASSERT_EQ(0, grants_get(&g, GRANTS_OWN, NPAGES));
	p = gntdev_map(fd, &g, 0, NPAGES, PROT_READ | PROT_WRITE, NULL);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(0, touch(p, true));
	EXPECT_EQ(0, munmap(p, SIZE));
	close(fd);
	EXPECT_LE(0, grants_wait_unused(&g, SOON_MS));
	grants_put(&g);
}

/* For an idle page the op for the user comes before that for the kernel. */
static void munmap_refused(struct __test_metadata *_metadata,
			   struct situation *s, int op, int status, int n)
{
	char *where;

	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_TRUE(faults_of_calls(UNMAP_OPS, op, status) && fail_calls(0, 1));
	EXPECT_EQ(0, situation_unmap(s));
	expect_refused(_metadata, s, op / 2, n);
	no_faults();
	/* The process has nothing mapped there. */
	EXPECT_EQ(SIGSEGV, touch(where + op / 2 * PAGE, false));
	expect_others_work(_metadata);
}

TEST_F(refused, the_user_side_is_refused)
{
	munmap_refused(_metadata, &self->s, 4, GENERAL_ERROR, 1);
}

TEST_F(refused, the_kernel_side_is_refused)
{
	munmap_refused(_metadata, &self->s, 5, GENERAL_ERROR, 1);
}

TEST_F(refused, the_hypercall_fails)
{
	munmap_refused(_metadata, &self->s, 0, 0, NPAGES);
}

TEST_F(refused, the_worker_is_refused)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr + 3 * PAGE, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	ASSERT_TRUE(faults_of_calls(UNMAP_OPS, 0, GENERAL_ERROR) &&
		    fail_calls(0, 1));
	EXPECT_TRUE(pipe_has(p, s->want + 3 * PAGE, PAGE));
	expect_refused(_metadata, s, 3, 1);
	no_faults();
	expect_others_work(_metadata);
}

/* For a pinned page only the user mapping is removed, and that fails. */
TEST_F(refused, the_user_side_of_a_held_page_is_refused)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	ASSERT_TRUE(faults_of_calls(UNMAP_OPS, 0, GENERAL_ERROR) &&
		    fail_calls(0, 1));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
	expect_refused(_metadata, s, 0, 1);
	no_faults();
	expect_others_work(_metadata);
}

/*
 * The user's batch fails at its last page, and unmapping the first page again
 * fails, too, but succeeds when it is retried: mmap() fails, nothing is
 * retired, the map object can be used again, and the process continues.
 */
TEST_F(refused, the_rollback_is_refused)
{
	struct situation *s = &self->s;
	uint64_t index;
	char *p;
	int i;

	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref, NPAGES, &index));
	ASSERT_TRUE(faults_of_calls(MAP_OPS | UNMAP_OPS, NPAGES - 1,
				    GENERAL_ERROR) && fail_calls(1, 2));
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, index);
	ASSERT_EQ(MAP_FAILED, p);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, read_number(FAULT_DIR "times"));
	no_faults();
	/* A second hypercall unmaps it. */
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	EXPECT_EQ(s->retired, count_retired());
	for (i = 0; i < 2; i++) {
		p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd,
			 index);
		ASSERT_NE(MAP_FAILED, p);
		EXPECT_TRUE(mapping_works(s, p, 0, NPAGES));
		EXPECT_EQ(0, munmap(p, SIZE));
		EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
		EXPECT_EQ(0, gntdev_del(s->fd, index, NPAGES));
		ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref, NPAGES,
					&index));
	}
	expect_others_work(_metadata);
}

int main(int argc, char **argv)
{
	if (pool_init(20 * NPAGES))
		return KSFT_FAIL;
	window = mmap(NULL, WINDOW_ROOM, PROT_NONE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (window == MAP_FAILED || munmap(window, WINDOW_ROOM))
		return KSFT_FAIL;
	window += WINDOW_ROOM / 2;
	return test_harness_run(argc, argv);
}
