// SPDX-License-Identifier: GPL-2.0-only
/*
 * UNMAP_NOTIFY_CLEAR_BYTE clears the byte in the guest's page once, on
 * unmapping.
 *
 * What should happen
 *
 *   The byte is set to 0 once, when the user's mapping of its page is removed.
 *   If the page is no longer mapped for the user, a request fails with EINVAL.
 *   A request made before mmap() is done when the mapping is removed.  It makes
 *   no difference whether the page is pinned, so that it stays mapped in the
 *   kernel.  After unmapping, the addresses can be used for other memory, and
 *   operations on that must not affect the guest.
 *
 * How the tests make it happen
 *
 *   vmsplice() into a pipe pins the pages, so that the map object continues to
 *   exist.  The mapping is removed in each possible way, the byte is requested
 *   before or after that, and other memory is mapped at the same addresses,
 *   used and unmapped.  The owner sets the byte to 1 and checks it by a grant
 *   copy.
 *
 *   For PV domains.  In auto-translated ones the byte is cleared when the map
 *   object is freed.
 *
 * What a failure means
 *
 *   A byte cleared too often, or by the wrong event, is a write into a page
 *   that the guest may already use for something else: its data is corrupted.
 *   If the byte is not cleared, the guest waits forever.
 */
#include "gntdev_fixture.h"

#include <pthread.h>

#define BYTE		77	/* its place in a page */
#define AT		3	/* the page of most requests */

FIXTURE(notify) {
	struct situation s;
};

FIXTURE_VARIANT(notify) {
	enum grant_source source;
};

FIXTURE_VARIANT_ADD(notify, own) {
	.source = GRANTS_OWN,
};

FIXTURE_VARIANT_ADD(notify, foreign) {
	.source = GRANTS_FOREIGN,
};

/* The owner writes the byte of a page. */
static int owner_sets(struct situation *s, int page, char value)
{
	s->want[page * PAGE + BYTE] = value;
	return grant_write(&s->g, page, s->want + page * PAGE);
}

FIXTURE_SETUP(notify)
{
	struct situation *s = &self->s;
	int i;

	situation_setup(_metadata, s, variant->source);
	if (s->fd < 0)
		return;
	for (i = 0; i < NPAGES; i++)
		ASSERT_EQ(0, owner_sets(s, i, 1));
}

FIXTURE_TEARDOWN(notify)
{
	situation_teardown(_metadata, &self->s);
}

static int ask_for_byte(struct situation *s, int page)
{
	return gntdev_notify(s->fd, s->index + page * PAGE + BYTE,
			     UNMAP_NOTIFY_CLEAR_BYTE, 0);
}

/* Expect that the byte of this page was cleared, and no other byte. */
static bool byte_is_cleared(struct situation *s, int page)
{
	s->want[page * PAGE + BYTE] = 0;
	return owner_sees(s, 0, NPAGES);
}

/* Is the map's former range usable for other memory, in all possible ways? */
static bool reuse(char *addr, size_t len)
{
	char *other;

	if (mmap(addr, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != addr)
		return false;
	other = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (other == MAP_FAILED)
		return false;
	memset(addr, 0x5a, len);
	if (madvise(addr, len, MADV_DONTNEED) || *addr)
		return false;
	memset(addr, 0x5a, len);
	if (madvise(addr, len, MADV_FREE) || mprotect(addr, len, PROT_READ))
		return false;
	if (mremap(addr, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, other) != other ||
	    mremap(other, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, addr) != addr)
		return false;
	return !munmap(addr, len);
}

/* The page is not mapped: the request fails, and nothing is written. */
static void expect_refused(struct __test_metadata *_metadata,
			   struct situation *s, int page)
{
	errno = 0;
	EXPECT_EQ(-1, ask_for_byte(s, page))
		TH_LOG("a request for page %d was accepted", page);
	EXPECT_EQ(EINVAL, errno);
}

/* ------------------------------------------------------------------ */
/* Requests that come too late */

TEST_F(notify, a_request_after_munmap_is_refused)
{
	struct situation *s = &self->s;
	char *where;

	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_EQ(0, situation_unmap(s));
	expect_refused(_metadata, s, AT);
	EXPECT_TRUE(reuse(where, SIZE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

/* The pages are pinned, so that they are still mapped in the kernel. */
TEST_F(notify, a_request_after_munmap_of_held_pages_is_refused)
{
	struct situation *s = &self->s;
	char *where;
	int p[2];

	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_EQ(0, pipe_pin(p, where, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	expect_refused(_metadata, s, AT);
	EXPECT_TRUE(reuse(where, SIZE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("other memory at its address cleared the byte");
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* One page is unmapped, its neighbours are not: requests differ by page. */
TEST_F(notify, a_request_for_the_one_page_that_is_gone_is_refused)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, munmap(s->addr + AT * PAGE, PAGE));
	expect_refused(_metadata, s, AT);
	EXPECT_TRUE(reuse(s->addr + AT * PAGE, PAGE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("other memory at its address cleared the byte");

	EXPECT_EQ(0, ask_for_byte(s, AT + 1));
	EXPECT_TRUE(reuse(s->addr + AT * PAGE, PAGE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(byte_is_cleared(s, AT + 1));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* MADV_DONTNEED unmaps the pages of a range, which still belongs to the map. */
TEST_F(notify, a_request_after_madv_dontneed_is_refused)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, madvise(s->addr + AT * PAGE, PAGE, MADV_DONTNEED));
	expect_refused(_metadata, s, AT);
	ASSERT_EQ(0, madvise(s->addr + AT * PAGE, PAGE, MADV_DONTNEED));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("a second MADV_DONTNEED cleared the byte");
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("munmap() of an empty range cleared the byte");
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* mremap() moves the range and unmaps the pages. */
TEST_F(notify, a_request_after_mremap_is_refused)
{
	struct situation *s = &self->s;
	char *from, *to;
	int p[2];

	from = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, from);
	to = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(0, pipe_pin(p, from, SIZE));
	ASSERT_EQ(to, mremap(from, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	s->addr = NULL;
	expect_refused(_metadata, s, AT);
	EXPECT_TRUE(reuse(from, SIZE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("other memory at its old address cleared the byte");
	EXPECT_EQ(0, munmap(to, SIZE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* Pages of another map, with a byte of its own, are mapped there. */
TEST_F(notify, another_map_at_the_same_address_has_its_own_byte)
{
	struct situation *s = &self->s;
	const int half = NPAGES / 2;
	uint64_t first, second;
	char *where, *p2;
	int p[2];

	where = gntdev_map(s->fd, &s->g, 0, half, PROT_READ | PROT_WRITE, &first);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_EQ(0, pipe_pin(p, where, half * PAGE));
	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref + half, half, &second));
	p2 = mmap(where, half * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		  s->fd, second);
	ASSERT_EQ(where, p2);

	s->index = first;
	expect_refused(_metadata, s, 0);
	EXPECT_EQ(0, gntdev_notify(s->fd, second + BYTE, UNMAP_NOTIFY_CLEAR_BYTE, 0));
	EXPECT_EQ(0, munmap(where, half * PAGE));
	EXPECT_TRUE(byte_is_cleared(s, half))
		TH_LOG("not the second map's byte, or not it alone");
	EXPECT_TRUE(pipe_has(p, s->want, half * PAGE));
}

/* ------------------------------------------------------------------ */
/* Requests that are done when the mapping is removed */

/* Pinned pages: cleared with the mapping, and not changed afterwards. */
TEST_F(notify, a_held_page_has_its_byte_cleared_once)
{
	struct situation *s = &self->s;
	char *where;
	int p[2];

	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_EQ(0, ask_for_byte(s, AT));
	ASSERT_EQ(0, pipe_pin(p, where, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(byte_is_cleared(s, AT));

	ASSERT_EQ(0, owner_sets(s, AT, 1));
	EXPECT_TRUE(reuse(where, SIZE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("cleared once more");
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
	ASSERT_EQ(0, gntdev_del(s->fd, s->index, NPAGES));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("cleared once more, by the end of the map");
}

/* The same for one page of several. */
TEST_F(notify, the_byte_of_one_page_is_cleared_once)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, ask_for_byte(s, AT));
	ASSERT_EQ(0, pipe_pin(p, s->addr + AT * PAGE, PAGE));
	ASSERT_EQ(0, munmap(s->addr, AT * PAGE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("cleared too early");
	ASSERT_EQ(0, munmap(s->addr + AT * PAGE, PAGE));
	EXPECT_TRUE(byte_is_cleared(s, AT));

	ASSERT_EQ(0, owner_sets(s, AT, 1));
	EXPECT_TRUE(reuse(s->addr + AT * PAGE, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("cleared once more");
	EXPECT_TRUE(pipe_has(p, s->want + AT * PAGE, PAGE));
}

/* The same by MADV_DONTNEED; the range still belongs to the map. */
TEST_F(notify, madv_dontneed_clears_the_byte_once)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, ask_for_byte(s, AT));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, madvise(s->addr, SIZE, MADV_DONTNEED));
	EXPECT_TRUE(byte_is_cleared(s, AT));
	ASSERT_EQ(0, owner_sets(s, AT, 1));
	ASSERT_EQ(0, madvise(s->addr, SIZE, MADV_DONTNEED));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("cleared once more");
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* A request made before mmap() is done when the mapping is removed. */
TEST_F(notify, a_request_before_mmap_is_done_at_munmap)
{
	struct situation *s = &self->s;
	uint64_t index;
	char *addr;
	int p[2];

	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref, NPAGES, &index));
	s->index = index;
	ASSERT_EQ(0, ask_for_byte(s, AT));
	addr = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, index);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	ASSERT_EQ(0, pipe_pin(p, addr, SIZE));
	ASSERT_EQ(0, munmap(addr, SIZE));
	EXPECT_TRUE(byte_is_cleared(s, AT));
	ASSERT_EQ(0, owner_sets(s, AT, 1));
	EXPECT_TRUE(reuse(addr, SIZE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* If the map is never mapped, no page is written to. */
TEST_F(notify, a_map_that_is_never_mapped_clears_nothing)
{
	struct situation *s = &self->s;
	uint64_t index;

	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref, NPAGES, &index));
	s->index = index;
	EXPECT_EQ(0, ask_for_byte(s, AT));
	EXPECT_EQ(0, gntdev_del(s->fd, index, NPAGES));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

/* The last request counts; one without CLEAR_BYTE cancels it. */
TEST_F(notify, a_request_takes_the_place_of_the_last_one)
{
	struct situation *s = &self->s;
	char *addr;

	addr = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(0, ask_for_byte(s, AT));
	EXPECT_EQ(0, ask_for_byte(s, AT + 1));
	ASSERT_EQ(0, munmap(addr + AT * PAGE, PAGE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	EXPECT_EQ(0, gntdev_notify(s->fd, s->index, 0, 0));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

/*
 * One thread makes requests in a loop while another one removes the mapping.
 * No request, even a concurrent one, is left to be done by later events.
 */
#define ROUNDS	40

struct asker {
	struct situation *s;
	unsigned int accepted;
	bool unmapped;		/* from now on it is too late */
	bool refused;
};

static void *ask_until_refused(void *arg)
{
	struct asker *a = arg;
	bool last = false;

	for (;;) {
		bool too_late = __atomic_load_n(&a->unmapped, __ATOMIC_ACQUIRE);

		if (ask_for_byte(a->s, AT)) {
			a->refused = errno == EINVAL;
			return NULL;
		}
		__atomic_add_fetch(&a->accepted, 1, __ATOMIC_RELEASE);
		if (last)
			return NULL;
		last = too_late;
	}
}

TEST_F(notify, requests_beside_munmap_leave_nothing_for_later)
{
	struct situation *s = &self->s;
	unsigned int i, left = 0;
	pthread_t thread;
	uint64_t start;
	char *where;
	int p[2];

	for (i = 0; i < ROUNDS && !left; i++) {
		struct asker a = { .s = s };

		where = situation_map(s, PROT_READ | PROT_WRITE);
		ASSERT_NE(MAP_FAILED, where);
		ASSERT_EQ(0, pipe_pin(p, where, SIZE));
		ASSERT_EQ(0, pthread_create(&thread, NULL, ask_until_refused, &a));
		while (!__atomic_load_n(&a.accepted, __ATOMIC_ACQUIRE))
			sched_yield();
		for (start = now_us(); now_us() - start < i * 5;)
			;
		ASSERT_EQ(0, situation_unmap(s));
		__atomic_store_n(&a.unmapped, true, __ATOMIC_RELEASE);
		ASSERT_EQ(0, pthread_join(thread, NULL));
		EXPECT_TRUE(a.refused)
			TH_LOG("round %u: a request after munmap() was accepted", i);
		EXPECT_TRUE(byte_is_cleared(s, AT));

		ASSERT_EQ(0, owner_sets(s, AT, 1));
		EXPECT_TRUE(reuse(where, SIZE));
		left = !owner_sees(s, 0, NPAGES);
		EXPECT_EQ(0, left)
			TH_LOG("round %u: one more request was done, by other memory", i);
		ASSERT_EQ(0, owner_sets(s, AT, 1));
		EXPECT_TRUE(pipe_has(p, s->want, SIZE));
		ASSERT_EQ(0, gntdev_del(s->fd, s->index, NPAGES));
	}
}

/* ------------------------------------------------------------------ */
/* The event */

/* It can be requested while there is a map object. */
TEST_F(notify, the_event_can_be_asked_for_after_munmap)
{
	struct situation *s = &self->s;
	uint32_t wait_port, send_port;
	int ev, p[2];
	char *where;

	ev = event_pair(&wait_port, &send_port);
	ASSERT_LE(0, ev);
	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_EQ(0, pipe_pin(p, where, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_EQ(0, gntdev_notify(s->fd, s->index, UNMAP_NOTIFY_SEND_EVENT,
				   send_port));

	/* A request that fails does not change the existing one. */
	EXPECT_EQ(-1, gntdev_notify(s->fd, s->index + AT * PAGE + BYTE,
				    UNMAP_NOTIFY_CLEAR_BYTE |
				    UNMAP_NOTIFY_SEND_EVENT, send_port));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(reuse(where, SIZE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	ASSERT_EQ(0, gntdev_del(s->fd, s->index, NPAGES));
	EXPECT_EQ(0, event_wait(ev, wait_port, 100));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_EQ(1, event_wait(ev, wait_port, SOON_MS));
	close(ev);
}

/* ------------------------------------------------------------------ */
/* Other processes */

#define REFUSED		0	/* exit codes of children */
#define ACCEPTED	1
#define BROKEN		2

/* In a child, which reports only through its exit code. */
static int verdict(struct situation *s)
{
	if (!ask_for_byte(s, AT))
		return ACCEPTED;
	return errno == EINVAL ? REFUSED : BROKEN;
}

/* A map of the child's own, whose pages are in the parent's pipe. */
static bool map_in_child(struct situation *s, int out)
{
	struct iovec iov = { NULL, SIZE };

	s->fd = gntdev_open();
	iov.iov_base = situation_map(s, PROT_READ | PROT_WRITE);
	return iov.iov_base != MAP_FAILED &&
	       vmsplice(out, &iov, 1, 0) == (ssize_t)SIZE;
}

/* A process whose request came too late exits, with other memory mapped. */
TEST_F(notify, the_exit_of_who_asked_too_late_clears_nothing)
{
	struct situation *s = &self->s;
	int p[2], status, ret;
	char *where;
	pid_t pid;

	ASSERT_EQ(0, pipe(p));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (!map_in_child(s, p[1]))
			_exit(BROKEN);
		where = s->addr;
		situation_unmap(s);
		ret = verdict(s);
		if (mmap(where, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			 MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != where)
			_exit(BROKEN);
		memset(where, 0x5a, SIZE);
		_exit(ret);
	}
	status = wait_child(pid, 5000);
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(REFUSED, WEXITSTATUS(status));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("exit cleared the byte");
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* For a process whose request came in time, its exit clears the byte, once. */
TEST_F(notify, exit_clears_the_byte_once)
{
	struct situation *s = &self->s;
	int p[2], status;
	pid_t pid;

	ASSERT_EQ(0, pipe(p));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(map_in_child(s, p[1]) && !ask_for_byte(s, AT) ? 0 : BROKEN);
	status = wait_child(pid, 5000);
	ASSERT_EQ(0, status);
	EXPECT_TRUE(byte_is_cleared(s, AT));
	ASSERT_EQ(0, owner_sets(s, AT, 1));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

/*
 * A program started by exec has the device still open, and no mapping: it is
 * gntdev_notify FD INDEX ADDRESS.
 */
static int after_exec(char **arg)
{
	struct situation s = {
		.fd = atoi(arg[0]),
		.index = strtoull(arg[1], NULL, 0),
	};
	int ret = verdict(&s);

	return reuse((char *)strtoul(arg[2], NULL, 0), SIZE) ? ret : BROKEN;
}

/* Request a byte before exec or not; exec continues in after_exec(). */
static void exec_in_child(struct __test_metadata *_metadata, struct situation *s,
			  int p[2], bool in_time)
{
	char fd[16], index[32], addr[32];
	int status;
	pid_t pid;

	ASSERT_EQ(0, pipe(p));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (!map_in_child(s, p[1]) || (in_time && ask_for_byte(s, AT)))
			_exit(BROKEN);
		snprintf(fd, sizeof(fd), "%d", s->fd);
		snprintf(index, sizeof(index), "%llu", (unsigned long long)s->index);
		snprintf(addr, sizeof(addr), "%lu", (unsigned long)s->addr);
		execl("/proc/self/exe", "gntdev_notify", fd, index, addr, NULL);
		_exit(BROKEN);
	}
	status = wait_child(pid, 5000);
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(REFUSED, WEXITSTATUS(status));
}

TEST_F(notify, a_request_after_exec_is_refused)
{
	struct situation *s = &self->s;
	int p[2];

	exec_in_child(_metadata, s, p, false);
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

TEST_F(notify, exec_clears_the_byte)
{
	struct situation *s = &self->s;
	int p[2];

	exec_in_child(_metadata, s, p, true);
	EXPECT_TRUE(byte_is_cleared(s, AT));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/*
 * A child shares the open device.  It can request a byte for its parent's
 * mapping; the child's own memory at the same address does not matter.
 */
TEST_F(notify, the_memory_of_a_child_does_not_matter)
{
	struct situation *s = &self->s;
	int p[2], status;
	char *where;
	pid_t pid;

	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_EQ(0, pipe_pin(p, where, SIZE));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(!ask_for_byte(s, AT) && reuse(where, SIZE) ? 0 : BROKEN);
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status);
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("a child's memory cleared the byte");
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(byte_is_cleared(s, AT));

	/* Once the parent has unmapped all, the child's requests fail, too. */
	ASSERT_EQ(0, owner_sets(s, AT, 1));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(verdict(s));
	status = wait_child(pid, 5000);
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(REFUSED, WEXITSTATUS(status));
	EXPECT_TRUE(reuse(where, SIZE));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES))
		TH_LOG("memory of the parent cleared a byte that its child asked for");
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* The empty range that a child has after MADV_DOFORK does not map the page. */
TEST_F(notify, the_empty_range_of_a_child_does_not_matter)
{
	struct situation *s = &self->s;
	int go[2], p[2], status;
	char *where, c;
	pid_t pid;

	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_EQ(0, pipe_pin(p, where, SIZE));
	madvise(where, SIZE, MADV_DOFORK);
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(go[1]);
		_exit(read(go[0], &c, 1) == 1 && !munmap(where, SIZE) ? 0 : BROKEN);
	}

	ASSERT_EQ(0, situation_unmap(s));
	expect_refused(_metadata, s, AT);
	ASSERT_EQ(1, write(go[1], "g", 1));
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status);
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	pipe_close(go);
}

int main(int argc, char **argv)
{
	if (argc == 4 && argv[1][0] != '-')
		return after_exec(argv + 1);
	if (pool_init(4 * NPAGES))
		return KSFT_FAIL;
	return test_harness_run(argc, argv);
}
