// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unmapping granted pages: it never waits, never loses data, never leaks.
 *
 * What should happen
 *
 *   A process maps granted pages, the kernel references a few of them (data in
 *   a pipe, a registered buffer, a DMA pin), and the mapping is removed: by
 *   munmap(), as a whole or in parts, by the death of the process, by exec, by
 *   another mapping over it, by madvise().  Then
 *
 *    - the call returns immediately, and the addresses are free for other use;
 *    - a page without other references is no longer mapped when it returns;
 *    - a referenced page keeps its bytes, for reading and for writing, until
 *      the last reference is dropped, and is unmapped soon after;
 *    - it does not delay any other page;
 *    - only the removal of a mapping unmaps pages.
 *
 * How the tests make it happen
 *
 *   vmsplice() into a pipe is a pin that lasts until the pipe is read, and the
 *   data read shows whether the right page was pinned.  The kernel's GUP test
 *   device and registered io_uring buffers provide long-term pins.  Xen reports
 *   whether a grant is mapped (grant_in_use()), and a grant copy provides the
 *   bytes that the owner sees; so neither depends on the code under test.
 *
 * What a failure means
 *
 *   Wrong bytes: I/O used another page, so data is corrupted.  A grant still
 *   mapped: its owner can never free the page, and can never be destroyed
 *   completely.  A process that hangs, or an error in the kernel log ("Bad
 *   rss-counter", "still pending"): the core mm found a page table entry that
 *   it did not create.
 */
#include "gntdev_fixture.h"

#include <pthread.h>
#include <sys/ptrace.h>
#include <sys/socket.h>

FIXTURE(unmap) {
	struct situation s;
};

FIXTURE_VARIANT(unmap) {
	enum grant_source source;
};

FIXTURE_VARIANT_ADD(unmap, own) {
	.source = GRANTS_OWN,
};

FIXTURE_VARIANT_ADD(unmap, foreign) {
	.source = GRANTS_FOREIGN,
};

FIXTURE_SETUP(unmap)
{
	situation_setup(_metadata, &self->s, variant->source);
}

FIXTURE_TEARDOWN(unmap)
{
	situation_teardown(_metadata, &self->s);
}

/* ------------------------------------------------------------------ */
/* munmap() */

/* Pages without other references: no grant is mapped after munmap(). */
TEST_F(unmap, munmap_returns_idle_grants_at_once)
{
	struct situation *s = &self->s;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
}

/* Data in a pipe survives the munmap() of the page that it lies in. */
TEST_F(unmap, munmap_of_a_pinned_page_keeps_the_data)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
	EXPECT_LE(0, grant_wait_unused(&s->g, 0, SOON_MS));
}

/* The same for all pages of the mapping. */
TEST_F(unmap, munmap_of_a_mapping_pinned_whole_keeps_the_data)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	sleep_ms(50);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
}

/* A page of a read-only mapping is pinned and unmapped like any other. */
TEST_F(unmap, munmap_of_a_pinned_read_only_page_keeps_the_data)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	sleep_ms(50);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/*
 * A pinned page stays mapped in the kernel, and is counted as waiting, until it
 * is unpinned; the process does not wait for that.
 */
TEST_F(unmap, munmap_does_not_wait_for_a_pin)
{
	struct situation *s = &self->s;
	uint64_t start;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr + 2 * PAGE, PAGE));
	start = now_us();
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_GT(500000, now_us() - start);
	sleep_ms(300);
	EXPECT_NE(0, grant_in_use(&s->g, 2));
	EXPECT_TRUE(pages_wait(s, 1));
	EXPECT_TRUE(pipe_has(p, s->want + 2 * PAGE, PAGE));
}

/* The address is free at once: other memory can be mapped there, unshared. */
TEST_F(unmap, the_range_is_free_at_once)
{
	struct situation *s = &self->s;
	char *where, *other;
	int p[2];

	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	ASSERT_EQ(0, pipe_pin(p, where, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_EQ(SIGSEGV, touch(where, false));
	other = mmap(where, SIZE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ASSERT_EQ(where, other);
	memset(other, 0x5a, SIZE);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	munmap(other, SIZE);
}

/* Time in ms until a page that was in a pipe is unmapped. */
static int time_to_notice(struct __test_metadata *_metadata, struct situation *s,
			  int pinned_ms)
{
	int ms, p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	sleep_ms(pinned_ms);
	ASSERT_TRUE(pipe_has(p, s->want, PAGE));
	ms = grant_wait_unused(&s->g, 0, SOON_MS);
	ASSERT_LE(0, ms);

	return ms;
}

/*
 * The page is unmapped soon after the last unpin: usually well under 100 ms,
 * here in three of five cases.  A busy machine may be slow for a while, but a
 * slow worker is always slow.
 */
TEST_F(unmap, a_released_page_is_noticed_soon)
{
	int ms[5], i, soon = 0, tries;

	for (tries = 0; tries < 5 && soon < 3; tries++) {
		for (i = 0, soon = 0; i < 5; i++) {
			ms[i] = time_to_notice(_metadata, &self->s, i * 40);
			soon += ms[i] <= 100;
		}
	}
	EXPECT_LE(3, soon)
		TH_LOG("took %d %d %d %d %d ms", ms[0], ms[1], ms[2], ms[3],
		       ms[4]);
}

/* Two pins of one page: it waits for both. */
TEST_F(unmap, every_pin_of_a_page_counts)
{
	struct situation *s = &self->s;
	int p[2], q[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	ASSERT_EQ(0, pipe_pin(q, s->addr, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
	sleep_ms(200);
	EXPECT_NE(0, grant_in_use(&s->g, 0));
	EXPECT_TRUE(pipe_has(q, s->want, PAGE));
}

/* One pinned page: the seven others are given back at once. */
TEST_F(unmap, a_pinned_page_delays_no_neighbour)
{
	struct situation *s = &self->s;
	int i, p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr + 3 * PAGE, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pages_wait(s, 1));
	for (i = 0; i < NPAGES; i++) {
		if (i == 3)
			continue;
		EXPECT_LE(0, grant_wait_unused(&s->g, i, AT_ONCE_MS));
	}
	EXPECT_NE(0, grant_in_use(&s->g, 3));
	EXPECT_TRUE(pipe_has(p, s->want + 3 * PAGE, PAGE));
}

/* A long-term DMA pin: the kernel reads the right bytes through it. */
TEST_F(unmap, a_dma_pin_outlives_the_mapping)
{
	struct situation *s = &self->s;
	int fd = gup_open();

	ASSERT_LE(0, fd);
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, gup_pin(fd, s->addr, SIZE,
			     PIN_LONGTERM_TEST_FLAG_USE_WRITE |
			     PIN_LONGTERM_TEST_FLAG_USE_FAST));
	ASSERT_EQ(0, situation_unmap(s));
	/* The owner changes a page: the pin must see it, it is no copy. */
	fill_pages(s->want + 5 * PAGE, 1, 99);
	EXPECT_EQ(0, grant_write(&s->g, 5, s->want + 5 * PAGE));
	EXPECT_EQ(0, gup_read(fd, s->got));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));
	EXPECT_EQ(0, gup_unpin(fd));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
	close(fd);
}

/* ------------------------------------------------------------------ */
/* Parts of a mapping */

/* A hole in the middle leaves both ends usable, also for I/O. */
TEST_F(unmap, partial_munmap_leaves_the_rest_usable)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, munmap(s->addr + 3 * PAGE, 2 * PAGE));
	EXPECT_EQ(0, grants_in_use(&s->g, 3, 2));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, 3));
	EXPECT_TRUE(mapping_works(s, s->addr + 5 * PAGE, 5, 3));
	ASSERT_EQ(0, pipe_pin(p, s->addr + 5 * PAGE, 3 * PAGE));
	EXPECT_TRUE(pipe_has(p, s->want + 5 * PAGE, 3 * PAGE));
}

/* Unmapping an unmapped range, alone or with mapped pages, is no error. */
TEST_F(unmap, repeated_munmap_of_a_range_is_harmless)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr + 2 * PAGE, PAGE));
	ASSERT_EQ(0, munmap(s->addr + 2 * PAGE, 2 * PAGE));
	ASSERT_EQ(0, munmap(s->addr + 2 * PAGE, 2 * PAGE));
	ASSERT_EQ(0, munmap(s->addr + PAGE, 4 * PAGE));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, 1));
	EXPECT_TRUE(mapping_works(s, s->addr + 5 * PAGE, 5, 3));
	ASSERT_EQ(0, munmap(s->addr, SIZE));
	EXPECT_TRUE(pipe_has(p, s->want + 2 * PAGE, PAGE));
}

/* ------------------------------------------------------------------ */
/* Other calls that remove a mapping */

/* Anonymous memory put over a mapping is new memory, at once. */
TEST_F(unmap, a_mapping_put_over_it_keeps_the_data)
{
	struct situation *s = &self->s;
	char *other;
	int p[2], i;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	other = mmap(s->addr + PAGE, 4 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ASSERT_EQ(s->addr + PAGE, other);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(0, other[i * PAGE]);
	memset(other, 0x5a, 4 * PAGE);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, 1));
	EXPECT_TRUE(mapping_works(s, s->addr + 5 * PAGE, 5, 3));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	for (i = 1; i < 5; i++)
		EXPECT_LE(0, grant_wait_unused(&s->g, i, SOON_MS));
}

/* Another grant mapping put over it: each has its own pages. */
TEST_F(unmap, another_grant_mapping_put_over_it_works)
{
	struct situation *s = &self->s;
	uint64_t index;
	int p[2];

	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref + 4, 4,
				&s->index));
	s->addr = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		       0);
	ASSERT_NE(MAP_FAILED, s->addr);
	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref, 4, &index));
	ASSERT_EQ(s->addr, mmap(s->addr, 4 * PAGE, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_FIXED, s->fd, index));
	ASSERT_EQ(0, pipe_pin(p, s->addr, 4 * PAGE));
	ASSERT_EQ(s->addr, mmap(s->addr, 4 * PAGE, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_FIXED, s->fd, s->index));
	EXPECT_TRUE(mapping_works(s, s->addr, 4, 4));
	EXPECT_TRUE(pipe_has(p, s->want, 4 * PAGE));
}

/*
 * MADV_DONTNEED unmaps the pages.  They cannot be faulted in again, so later
 * accesses to the range get SIGBUS.
 */
TEST_F(unmap, madv_dontneed_keeps_the_data)
{
	struct situation *s = &self->s;
	int p[2], i;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, madvise(s->addr + 2 * PAGE, 3 * PAGE, MADV_DONTNEED));
	for (i = 2; i < 5; i++)
		EXPECT_EQ(SIGBUS, touch(s->addr + i * PAGE, false));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, 2));
	EXPECT_TRUE(mapping_works(s, s->addr + 5 * PAGE, 5, 3));
	/* Changed by mapping_works() while the page was in the pipe. */
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	for (i = 2; i < 5; i++)
		EXPECT_LE(0, grant_wait_unused(&s->g, i, SOON_MS));
}

/* Pages without other references: MADV_DONTNEED unmaps them at once, once. */
TEST_F(unmap, madv_dontneed_returns_idle_grants_at_once)
{
	struct situation *s = &self->s;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, madvise(s->addr, 4 * PAGE, MADV_DONTNEED));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, 4));
	EXPECT_TRUE(mapping_works(s, s->addr + 4 * PAGE, 4, 4));
	ASSERT_EQ(0, madvise(s->addr, SIZE, MADV_DONTNEED));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	ASSERT_EQ(0, situation_unmap(s));
}

/*
 * mremap() to another address either fails and leaves the mapping unchanged, or
 * removes it; it never creates a second one, nor shows other bytes.
 */
TEST_F(unmap, mremap_never_shows_other_bytes)
{
	struct situation *s = &self->s;
	char *to, *p2;
	int p[2], i;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	to = mmap(NULL, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, to);
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	p2 = mremap(s->addr, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (p2 == MAP_FAILED) {
		EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
		EXPECT_EQ(0, situation_unmap(s));
	} else {
		EXPECT_EQ(to, p2);
		EXPECT_EQ(SIGSEGV, touch(s->addr, false));
		for (i = 0; i < NPAGES; i++) {
			int sig = touch(to + i * PAGE, false);

			if (sig) {
				EXPECT_EQ(SIGBUS, sig);
				continue;
			}
			EXPECT_EQ(0, memcmp(to + i * PAGE, s->want + i * PAGE,
					    PAGE));
		}
		s->addr = NULL;
	}
	EXPECT_EQ(0, munmap(to, SIZE));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* mremap() to a smaller size unmaps the rest; to a larger size it fails. */
TEST_F(unmap, mremap_can_shrink_and_cannot_grow)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(MAP_FAILED, mremap(s->addr, SIZE, 2 * SIZE, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(s->addr, mremap(s->addr, SIZE, 3 * PAGE, 0));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, 3));
	EXPECT_EQ(SIGSEGV, touch(s->addr + 3 * PAGE, false));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_LE(0, grant_wait_unused(&s->g, NPAGES - 1, SOON_MS));
}

/* The child of a fork() does not get the mapping; its exit has no effect. */
TEST_F(unmap, fork_does_not_copy_the_mapping)
{
	struct situation *s = &self->s;
	int p[2], status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(touch(s->addr, false) == SIGSEGV ? 0 : 1);
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status);
	EXPECT_TRUE(mapping_works(s, s->addr + PAGE, 1, NPAGES - 1));
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
}

/* Not even with MADV_DOFORK. */
TEST_F(unmap, fork_after_madv_dofork_does_not_copy_it_either)
{
	struct situation *s = &self->s;
	int status;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	madvise(s->addr, SIZE, MADV_DOFORK);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(touch(s->addr, false) ? 0 : 1);
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
}

/* ------------------------------------------------------------------ */
/* Death of the process */

enum how_it_ends { BY_EXIT, BY_SIGKILL, BY_EXEC };

/*
 * A child maps the grants through its own file, puts all bytes into the pipe,
 * and exits.  After exec the process continues without the mapping, with the
 * device still open.
 */
static pid_t child_with_data_in_flight(struct situation *s, int pipefd[2],
				       enum how_it_ends how)
{
	struct iovec iov = { NULL, SIZE };
	int ready[2];
	pid_t pid;
	char c;

	if (pipe(pipefd) || pipe2(ready, O_CLOEXEC))
		return -1;
	pid = fork();
	if (pid) {
		/* The end of file comes with the exit or the exec. */
		close(ready[1]);
		if (read(ready[0], &c, 1) != 1)
			pid = -1;
		if (how == BY_SIGKILL && pid > 0)
			kill(pid, SIGKILL);
		else if (read(ready[0], &c, 1))
			pid = -1;
		close(ready[0]);
		return pid;
	}

	s->fd = gntdev_open();
	iov.iov_base = situation_map(s, PROT_READ | PROT_WRITE);
	if (iov.iov_base == MAP_FAILED ||
	    vmsplice(pipefd[1], &iov, 1, 0) != SIZE ||
	    write(ready[1], "r", 1) != 1)
		_exit(2);
	switch (how) {
	case BY_EXIT:
		_exit(0);
	case BY_EXEC:
		execl("/proc/self/exe", "gntdev_unmap", "--sleep", NULL);
		_exit(3);
	case BY_SIGKILL:
		for (;;)
			pause();
	}
	_exit(4);
}

TEST_F(unmap, a_killed_process_keeps_its_data_in_flight)
{
	struct situation *s = &self->s;
	int p[2], status;
	pid_t pid;

	pid = child_with_data_in_flight(s, p, BY_SIGKILL);
	ASSERT_LT(0, pid);
	status = wait_child(pid, 5000);
	ASSERT_NE(-1, status)
		TH_LOG("the killed process does not exit");
	EXPECT_TRUE(WIFSIGNALED(status));
	sleep_ms(50);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

TEST_F(unmap, an_exiting_process_keeps_its_data_in_flight)
{
	struct situation *s = &self->s;
	int p[2], status;
	pid_t pid;

	pid = child_with_data_in_flight(s, p, BY_EXIT);
	ASSERT_LT(0, pid);
	status = wait_child(pid, 5000);
	ASSERT_EQ(0, status);
	sleep_ms(50);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

TEST_F(unmap, exec_keeps_the_data_in_flight)
{
	struct situation *s = &self->s;
	int p[2], status;
	pid_t pid;

	pid = child_with_data_in_flight(s, p, BY_EXEC);
	ASSERT_LT(0, pid);
	ASSERT_EQ(-1, wait_child(pid, 50))
		TH_LOG("the new program was not started");
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS))
		TH_LOG("mapped by a process that has no mapping");
	kill(pid, SIGKILL);
	status = wait_child(pid, 5000);
	EXPECT_NE(-1, status);
}

/* A process without pins leaves nothing mapped, however it ends. */
TEST_F(unmap, a_killed_process_with_nothing_pinned_leaves_nothing)
{
	struct situation *s = &self->s;
	int p[2], status;
	pid_t pid;

	pid = child_with_data_in_flight(s, p, BY_SIGKILL);
	ASSERT_LT(0, pid);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	status = wait_child(pid, 5000);
	ASSERT_NE(-1, status);
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
}

/*
 * The OOM reaper removes the memory of a dying process while that still runs,
 * and must not sleep.  process_mrelease() does the same on request.  ptrace
 * stops the victim at its exit, so that it still has its memory.  The reaper
 * skips shared mappings, so this one is private, and therefore read-only.
 */
TEST_F(unmap, the_oom_reaper_keeps_the_data)
{
	struct situation *s = &self->s;
	int p[2], ready[2], status, pidfd, i;
	struct iovec iov;
	uint64_t index;
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		s->fd = gntdev_open();
		if (gntdev_add(s->fd, s->g.domid, s->g.ref, NPAGES, &index))
			_exit(2);
		iov.iov_base = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, s->fd,
				    index);
		iov.iov_len = 4 * PAGE;
		if (iov.iov_base == MAP_FAILED ||
		    vmsplice(p[1], &iov, 1, 0) != (ssize_t)iov.iov_len ||
		    write(ready[1], "r", 1) != 1)
			_exit(3);
		for (;;)
			pause();
	}
	ASSERT_EQ(1, read(ready[0], &c, 1));
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXIT));
	pidfd = syscall(__NR_pidfd_open, pid, 0);
	ASSERT_LE(0, pidfd);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	status = wait_child(pid, 5000);
	ASSERT_TRUE(WIFSTOPPED(status) &&
		    status >> 8 == (SIGTRAP | (PTRACE_EVENT_EXIT << 8)))
		TH_LOG("status %#x", status);

	EXPECT_EQ(0, syscall(__NR_process_mrelease, pidfd, 0))
		TH_LOG("process_mrelease: %s", strerror(errno));
	for (i = 4; i < NPAGES; i++)
		EXPECT_LE(0, grant_wait_unused(&s->g, i, AT_ONCE_MS));
	EXPECT_NE(0, grant_in_use(&s->g, 0));
	EXPECT_TRUE(pipe_has(p, s->want, 4 * PAGE));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));

	EXPECT_EQ(0, ptrace(PTRACE_CONT, pid, 0, 0));
	status = wait_child(pid, 5000);
	EXPECT_TRUE(WIFSIGNALED(status));
	pipe_close(ready);
	close(pidfd);
}

#define SHORT_LIVES	100

/* Not counting free objects that the allocator still caches. */
static long count_mm_structs(void)
{
	write_string("/sys/kernel/slab/mm_struct/shrink", "1");
	return read_counter("/sys/kernel/slab/mm_struct/objects");
}

/*
 * A page in a pipe keeps only itself allocated, not the mm_struct, with the
 * page directory, of the process that mapped it and has exited.  Other
 * processes create and free some meanwhile.
 */
TEST_F(unmap, a_page_that_waits_keeps_no_dead_process)
{
	char *want = pages_alloc(SHORT_LIVES);
	struct situation *s = &self->s;
	long before, after, start;
	int i, p[2], status;
	pid_t pid;

	before = count_mm_structs();
	ASSERT_LE(0, before)
		TH_LOG("needs CONFIG_SLUB_DEBUG and CONFIG_SYSFS");
	ASSERT_NE(NULL, want);
	ASSERT_EQ(0, pipe(p));
	ASSERT_LE(SHORT_LIVES * PAGE, fcntl(p[1], F_SETPIPE_SZ, SHORT_LIVES * PAGE));

	for (i = 0; i < SHORT_LIVES; i++) {
		struct iovec iov = { NULL, PAGE };

		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			iov.iov_base = gntdev_map(gntdev_open(), &s->g, i % NPAGES,
						  1, PROT_READ, NULL);
			_exit(iov.iov_base == MAP_FAILED ||
			      vmsplice(p[1], &iov, 1, 0) != (ssize_t)PAGE);
		}
		status = wait_child(pid, 5000);
		ASSERT_EQ(0, status);
		memcpy(want + i * PAGE, s->want + i % NPAGES * PAGE, PAGE);
	}
	EXPECT_TRUE(pages_wait(s, SHORT_LIVES));

	start = now_us();
	do {
		sleep_ms(10);
		after = count_mm_structs();
	} while (after > before + SHORT_LIVES / 10 &&
		 now_us() - start < 2 * SOON_MS * 1000ULL);
	EXPECT_GE(before + SHORT_LIVES / 10, after)
		TH_LOG("%d processes are gone, %ld mm_structs are left of them",
		       SHORT_LIVES, after - before);
	EXPECT_TRUE(pipe_has(p, want, SHORT_LIVES * PAGE));
	munmap(want, SHORT_LIVES * PAGE);
}

/* ------------------------------------------------------------------ */
/* The device and its map objects */

/* Closing the device leaves the mapping, which munmap() then removes. */
TEST_F(unmap, close_before_munmap_leaves_the_mapping)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, close(s->fd));
	s->fd = -1;
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

TEST_F(unmap, close_after_munmap_of_a_pinned_page_keeps_the_data)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	ASSERT_EQ(0, close(s->fd));
	s->fd = -1;
	sleep_ms(50);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* The ioctl removes the map object; the mapping stays until munmap(). */
TEST_F(unmap, the_unmap_ioctl_leaves_the_mapping)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, gntdev_del(s->fd, s->index, NPAGES));
	EXPECT_EQ(-1, gntdev_del(s->fd, s->index, NPAGES));
	EXPECT_EQ(ENOENT, errno);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, pipe_pin(p, s->addr, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, PAGE));
}

/* IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR returns offset and size of the map. */
TEST_F(unmap, get_offset_for_vaddr_tells_the_whole_map)
{
	struct ioctl_gntdev_get_offset_for_vaddr op = { 0 };
	struct situation *s = &self->s;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	op.vaddr = (uintptr_t)s->addr;
	ASSERT_EQ(0, ioctl(s->fd, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR, &op));
	EXPECT_EQ(s->index, op.offset);
	EXPECT_EQ(NPAGES, op.count);

	ASSERT_EQ(0, munmap(s->addr + PAGE, PAGE));
	op.vaddr = (uintptr_t)(s->addr + 2 * PAGE);
	op.offset = 0;
	op.count = 0;
	ASSERT_EQ(0, ioctl(s->fd, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR, &op));
	EXPECT_EQ(s->index, op.offset);
	EXPECT_EQ(NPAGES, op.count);

	op.vaddr = (uintptr_t)&op;
	EXPECT_EQ(-1, ioctl(s->fd, IOCTL_GNTDEV_GET_OFFSET_FOR_VADDR, &op));
	EXPECT_EQ(EINVAL, errno);
}

/* A map object is mapped once at a time, whole, and not private-writable. */
TEST_F(unmap, wrong_mmap_calls_are_refused)
{
	struct situation *s = &self->s;
	uint64_t index;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ, MAP_SHARED, s->fd,
				   s->index));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, situation_unmap(s));

	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref, NPAGES, &index));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE - PAGE, PROT_READ, MAP_SHARED,
				   s->fd, index));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE, s->fd, index));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
}

/* ------------------------------------------------------------------ */
/* Registered buffers */

/* io_uring's registered buffers: I/O goes to the right page after munmap(). */
TEST_F(unmap, registered_buffers_outlive_the_mapping)
{
	struct situation *s = &self->s;
	struct uring r;
	char *addr;
	int disk, i;

	if (!uring_registers(s))
		SKIP(return, "io_uring registers no memory of files");
	disk = disk_open(O_DIRECT);
	ASSERT_LE(0, disk);
	ASSERT_EQ(0, uring_open(&r));
	addr = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, uring_register(&r, addr, SIZE))
		TH_LOG("register: %s", strerror(errno));
	ASSERT_EQ(0, situation_unmap(s));

	/* Out of the granted pages ... */
	EXPECT_EQ(SIZE, uring_io(&r, IORING_OP_WRITE_FIXED, disk, addr, SIZE,
				 0));
	memset(s->got, 0, SIZE);
	EXPECT_EQ(SIZE, pread(disk, s->got, SIZE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));

	/* ... and into them. */
	fill_pages(s->want, NPAGES, now_us());
	EXPECT_EQ(SIZE, pwrite(disk, s->want, SIZE, 0));
	EXPECT_EQ(SIZE, uring_io(&r, IORING_OP_READ_FIXED, disk, addr, SIZE,
				 0));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));

	for (i = 0; i < NPAGES; i++)
		EXPECT_NE(0, grant_in_use(&s->g, i));
	EXPECT_EQ(0, uring_unregister(&r));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
	uring_close(&r);
	close(disk);
}

/* A process dies with registered buffers: they are released with its ring. */
TEST_F(unmap, a_killed_process_leaves_no_registered_buffers)
{
	struct situation *s = &self->s;
	int ready[2], status;
	struct uring r;
	pid_t pid;
	char c;

	if (!uring_registers(s))
		SKIP(return, "io_uring registers no memory of files");
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		s->fd = gntdev_open();
		if (uring_open(&r) ||
		    situation_map(s, PROT_READ | PROT_WRITE) == MAP_FAILED ||
		    uring_register(&r, s->addr, SIZE) ||
		    write(ready[1], "r", 1) != 1)
			_exit(2);
		for (;;)
			pause();
	}
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &c, 1));
	kill(pid, SIGKILL);
	status = wait_child(pid, 5000);
	ASSERT_NE(-1, status);
	/* The ring is torn down by a worker, after the process. */
	EXPECT_LE(0, grants_wait_unused(&s->g, 5 * SOON_MS));
	close(ready[0]);
}

/* ------------------------------------------------------------------ */
/* The same grant twice */

/*
 * One grant, a read-only and a writable mapping, in both orders; one of them is
 * removed while its page is pinned: the other still works.
 */
static void two_mappings(struct __test_metadata *_metadata,
			 struct situation *s, int prot_goes, int prot_stays)
{
	char *goes, *stays;
	int p[2];
	bool ok;

	goes = gntdev_map(s->fd, &s->g, 0, NPAGES, prot_goes, NULL);
	ASSERT_NE(MAP_FAILED, goes);
	stays = situation_map(s, prot_stays);
	ASSERT_NE(MAP_FAILED, stays);
	EXPECT_TRUE(mapping_shows(s, goes, 0, NPAGES));
	EXPECT_TRUE(mapping_shows(s, stays, 0, NPAGES));

	ASSERT_EQ(0, pipe_pin(p, goes, SIZE));
	ASSERT_EQ(0, munmap(goes, SIZE));
	if (prot_stays & PROT_WRITE)
		ok = mapping_works(s, stays, 0, NPAGES);
	else
		ok = mapping_shows(s, stays, 0, NPAGES);
	EXPECT_TRUE(ok);
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));

	ASSERT_EQ(0, pipe_pin(p, stays, SIZE));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_TRUE(mapping_shows(s, stays, 0, NPAGES));
}

TEST_F(unmap, a_read_only_mapping_goes_and_the_writable_one_stays)
{
	two_mappings(_metadata, &self->s, PROT_READ, PROT_READ | PROT_WRITE);
}

TEST_F(unmap, a_writable_mapping_goes_and_the_read_only_one_stays)
{
	two_mappings(_metadata, &self->s, PROT_READ | PROT_WRITE, PROT_READ);
}

TEST_F(unmap, one_of_two_writable_mappings_goes)
{
	two_mappings(_metadata, &self->s, PROT_READ | PROT_WRITE,
		     PROT_READ | PROT_WRITE);
}

/* Both pinned, both unmapped, then unpinned in the order of pinning. */
TEST_F(unmap, two_pinned_mappings_of_a_grant_go)
{
	struct situation *s = &self->s;
	int p[2], q[2];
	char *other;

	other = gntdev_map(s->fd, &s->g, 0, NPAGES, PROT_READ, NULL);
	ASSERT_NE(MAP_FAILED, other);
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, other, SIZE));
	ASSERT_EQ(0, pipe_pin(q, s->addr, SIZE));
	ASSERT_EQ(0, munmap(other, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	sleep_ms(100);
	EXPECT_NE(0, grant_in_use(&s->g, 0));
	EXPECT_TRUE(pipe_has(q, s->want, SIZE));
}

/* ------------------------------------------------------------------ */
/* A pin held by another process */

/* A reader that got the pipe by fork() reads it after the writer has exited. */
TEST_F(unmap, a_pin_inherited_by_fork_keeps_the_data)
{
	struct situation *s = &self->s;
	int p[2], go[2], status;
	pid_t pid;
	char c;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(go[1]);
		if (read(go[0], &c, 1))
			_exit(2);
		_exit(pipe_has(p, s->want, SIZE) ? 0 : 1);
	}
	pipe_close(p);
	ASSERT_EQ(0, situation_unmap(s));
	ASSERT_EQ(0, close(s->fd));
	s->fd = -1;
	sleep_ms(50);
	EXPECT_NE(0, grant_in_use(&s->g, 0));
	pipe_close(go);
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status);
}

static int send_fd(int sock, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { "f", 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	return sendmsg(sock, &msg, 0) == 1 ? 0 : -1;
}

static int receive_fd(int sock)
{
	char control[CMSG_SPACE(sizeof(int))], c;
	struct iovec iov = { &c, 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	int fd;

	if (recvmsg(sock, &msg, 0) != 1)
		return -1;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -1;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(int));
	return fd;
}

/* A pipe sent through a socket, read after the sender is dead. */
TEST_F(unmap, a_pin_passed_through_a_socket_keeps_the_data)
{
	struct situation *s = &self->s;
	int sock[2], p[2], status;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		s->fd = gntdev_open();
		if (situation_map(s, PROT_READ | PROT_WRITE) == MAP_FAILED ||
		    pipe_pin(p, s->addr, SIZE) || send_fd(sock[1], p[0]))
			_exit(2);
		_exit(0);
	}
	status = wait_child(pid, 5000);
	ASSERT_EQ(0, status);
	sleep_ms(50);
	EXPECT_NE(0, grant_in_use(&s->g, 0));
	p[0] = receive_fd(sock[0]);
	ASSERT_LE(0, p[0]);
	p[1] = -1;
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	pipe_close(sock);
}

/* ------------------------------------------------------------------ */
/* What does not remove a mapping */

/* A change of protection fails, and has no effect. */
TEST_F(unmap, mprotect_of_a_writable_mapping_is_refused)
{
	struct situation *s = &self->s;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, mprotect(s->addr, SIZE, PROT_READ));
	EXPECT_EQ(EACCES, errno);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	EXPECT_EQ(-1, mprotect(s->addr, SIZE, PROT_NONE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
}

TEST_F(unmap, mprotect_of_a_part_is_refused)
{
	struct situation *s = &self->s;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(-1, mprotect(s->addr + 2 * PAGE, PAGE, PROT_READ));
	EXPECT_EQ(EACCES, errno);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, munmap(s->addr + PAGE, 2 * PAGE));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, 1));
	EXPECT_TRUE(mapping_works(s, s->addr + 3 * PAGE, 3, 5));
}

/* mprotect() to the present protection succeeds, as libraries may call it. */
TEST_F(unmap, mprotect_to_the_same_is_allowed)
{
	struct situation *s = &self->s;
	char *ro;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, mprotect(s->addr, SIZE, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));

	ro = gntdev_map(s->fd, &s->g, 0, NPAGES, PROT_READ, NULL);
	ASSERT_NE(MAP_FAILED, ro);
	EXPECT_EQ(0, mprotect(ro, SIZE, PROT_READ));
	EXPECT_TRUE(mapping_shows(s, ro, 0, NPAGES));
	munmap(ro, SIZE);
}

/* A page that was mapped for reading cannot be made writable. */
TEST_F(unmap, a_read_only_mapping_cannot_be_made_writable)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ));
	EXPECT_EQ(-1, mprotect(s->addr, SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_TRUE(mapping_shows(s, s->addr, 0, NPAGES));
	EXPECT_EQ(SIGSEGV, touch(s->addr, true));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* Nor by an mprotect() over it together with other memory. */
TEST_F(unmap, mprotect_across_a_mapping_leaves_it)
{
	struct situation *s = &self->s;
	uint64_t index;
	char *room;

	room = mmap(NULL, SIZE + 2 * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, room);
	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref, NPAGES, &index));
	ASSERT_EQ(room + PAGE, mmap(room + PAGE, SIZE, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_FIXED, s->fd, index));
	EXPECT_EQ(-1, mprotect(room, SIZE + 2 * PAGE, PROT_READ));
	EXPECT_EQ(EACCES, errno);
	EXPECT_TRUE(mapping_works(s, room + PAGE, 0, NPAGES));
	munmap(room, SIZE + 2 * PAGE);
}

static void after_clear_refs(struct __test_metadata *_metadata,
			     struct situation *s, const char *what)
{
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	memset(s->addr, 1, SIZE);
	memset(s->want, 1, SIZE);
	EXPECT_EQ(0, write_string("/proc/self/clear_refs", what));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	EXPECT_EQ(0, write_string("/proc/self/clear_refs", what));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* The referenced bits of all pages. */
TEST_F(unmap, clear_refs_1_leaves_the_mapping_usable)
{
	after_clear_refs(_metadata, &self->s, "1");
}

/* Of anonymous pages. */
TEST_F(unmap, clear_refs_2_leaves_the_mapping_usable)
{
	after_clear_refs(_metadata, &self->s, "2");
}

/* Of pages of files. */
TEST_F(unmap, clear_refs_3_leaves_the_mapping_usable)
{
	after_clear_refs(_metadata, &self->s, "3");
}

/* The soft-dirty bits, for which page table entries are write-protected. */
TEST_F(unmap, clear_refs_4_leaves_the_mapping_usable)
{
	after_clear_refs(_metadata, &self->s, "4");
}

/*
 * Advice, locks, and other calls that walk a mapping.  Each may fail, but none
 * may change the bytes that it shows.
 */
TEST_F(unmap, advice_leaves_the_mapping_usable)
{
	static const struct {
		const char *name;
		int advice;
	} calls[] = {
		{ "MADV_NORMAL", MADV_NORMAL },
		{ "MADV_RANDOM", MADV_RANDOM },
		{ "MADV_WILLNEED", MADV_WILLNEED },
		{ "MADV_FREE", MADV_FREE },
		{ "MADV_COLD", 20 },
		{ "MADV_PAGEOUT", 21 },
		{ "MADV_POPULATE_READ", 22 },
		{ "MADV_POPULATE_WRITE", 23 },
		{ "MADV_COLLAPSE", 25 },
		{ "MADV_MERGEABLE", MADV_MERGEABLE },
		{ "MADV_UNMERGEABLE", MADV_UNMERGEABLE },
		{ "MADV_HUGEPAGE", MADV_HUGEPAGE },
		{ "MADV_NOHUGEPAGE", MADV_NOHUGEPAGE },
		{ "MADV_WIPEONFORK", MADV_WIPEONFORK },
		{ "MADV_KEEPONFORK", MADV_KEEPONFORK },
		{ "MADV_DONTFORK", MADV_DONTFORK },
		{ "MADV_DODUMP", MADV_DODUMP },
		{ "MADV_DONTDUMP", MADV_DONTDUMP },
	};
	struct situation *s = &self->s;
	unsigned int i;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		madvise(s->addr, SIZE, calls[i].advice);
		EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES))
			TH_LOG("after %s", calls[i].name);
	}
}

TEST_F(unmap, locks_and_msync_leave_the_mapping_usable)
{
	struct situation *s = &self->s;
	unsigned char vec[NPAGES];
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	mlock(s->addr, SIZE);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	munlock(s->addr, SIZE);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	msync(s->addr, SIZE, MS_SYNC);
	mincore(s->addr, SIZE, vec);
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	mlock(s->addr, SIZE);
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* All of /proc that walks page tables. */
TEST_F(unmap, reading_proc_leaves_the_mapping_usable)
{
	static const char * const files[] = {
		"/proc/self/smaps", "/proc/self/smaps_rollup",
		"/proc/self/maps", "/proc/self/numa_maps",
		"/proc/self/pagemap",
	};
	struct situation *s = &self->s;
	unsigned int i;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		int fd = open(files[i], O_RDONLY);

		if (fd < 0)
			continue;
		if (strstr(files[i], "pagemap"))
			pread(fd, s->got, NPAGES * 8,
			      (uintptr_t)s->addr / PAGE * 8);
		else
			while (read(fd, s->got, SIZE) > 0)
				;
		close(fd);
		EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES))
			TH_LOG("after %s", files[i]);
	}
}

/* ------------------------------------------------------------------ */
/* Mappings that fail */

/*
 * One grant of eight does not exist.  None of the eight is mapped, the errno is
 * that of a wrong argument, and once the grant exists the same map object can
 * be mapped.
 */
TEST_F(unmap, a_bad_ref_in_the_middle_maps_nothing)
{
	struct situation *s = &self->s;
	uint32_t ref[NPAGES];
	uint64_t index;
	int i;

	memcpy(ref, s->g.ref, sizeof(ref));
	ref[4] = 0x3fffff;
	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, ref, NPAGES, &index));
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
					   MAP_SHARED, s->fd, index));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_LE(0, grants_wait_unused(&s->g, AT_ONCE_MS));
		EXPECT_TRUE(pages_wait(s, 0));
	}
	EXPECT_EQ(0, gntdev_del(s->fd, index, NPAGES));
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
}

TEST_F(unmap, a_bad_ref_at_either_end_maps_nothing)
{
	struct situation *s = &self->s;
	uint32_t ref[NPAGES];
	uint64_t index;
	int i;

	for (i = 0; i < NPAGES; i += NPAGES - 1) {
		memcpy(ref, s->g.ref, sizeof(ref));
		ref[i] = 0x3fffff;
		ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, ref, NPAGES,
					&index));
		EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ, MAP_SHARED,
					   s->fd, index));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_LE(0, grants_wait_unused(&s->g, AT_ONCE_MS));
	}
}

/*
 * One grant of eight is our own, which is revoked and granted again: first bad,
 * then good.  In the foreign variant the batch has grants of two domains.  A
 * first try that was read-only does not affect the rights of the second one.
 */
TEST_F(unmap, a_failed_map_can_be_tried_again)
{
	struct situation *s = &self->s;
	uint32_t ref[NPAGES], domid[NPAGES];
	struct grants extra;
	uint64_t index;
	char *p;
	int i;

	for (i = 0; i < NPAGES; i++) {
		ref[i] = s->g.ref[i];
		domid[i] = s->g.domid;
	}
	ASSERT_EQ(0, grants_get(&extra, GRANTS_OWN, 1));
	ref[3] = extra.ref[0];
	domid[3] = extra.domid;
	grants_put(&extra);

	ASSERT_EQ(0, gntdev_add_many(s->fd, domid, ref, NPAGES, &index));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ, MAP_SHARED, s->fd, index));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_LE(0, grants_wait_unused(&s->g, AT_ONCE_MS));

	ASSERT_EQ(0, grants_get(&extra, GRANTS_OWN, 1));
	if (extra.ref[0] != ref[3]) {
		/* The allocator returns the last freed first: one of two. */
		uint32_t r = extra.ref[0];

		extra.ref[0] = extra.idle;
		extra.idle = r;
	}
	ASSERT_EQ(ref[3], extra.ref[0]);
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd, index);
	EXPECT_NE(MAP_FAILED, p)
		TH_LOG("again: %s", strerror(errno));
	if (p != MAP_FAILED) {
		EXPECT_TRUE(mapping_works(s, p, 0, 3));
		EXPECT_TRUE(mapping_works(s, p + 4 * PAGE, 4, 4));
		EXPECT_EQ(0, p[3 * PAGE]);
		EXPECT_EQ(0, munmap(p, SIZE));
	}
	EXPECT_EQ(0, gntdev_del(s->fd, index, NPAGES));
	EXPECT_LE(0, grants_wait_unused(&extra, SOON_MS));
	grants_put(&extra);
}

TEST_F(unmap, a_bad_domid_maps_nothing)
{
	struct situation *s = &self->s;
	uint64_t index;

	ASSERT_EQ(0, gntdev_add(s->fd, 0x6fff, s->g.ref, NPAGES, &index));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, SIZE, PROT_READ | PROT_WRITE,
				   MAP_SHARED, s->fd, index));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
}

/* ------------------------------------------------------------------ */
/* Notification of the owner */

/* The byte is cleared when its page is unmapped, and only then. */
TEST_F(unmap, notify_clears_the_byte_at_munmap)
{
	struct situation *s = &self->s;
	size_t at = 3 * PAGE + 77;

	s->want[at] = 1;
	ASSERT_EQ(0, grant_write(&s->g, 3, s->want + 3 * PAGE));
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, gntdev_notify(s->fd, s->index + at,
				   UNMAP_NOTIFY_CLEAR_BYTE, 0));
	ASSERT_EQ(0, munmap(s->addr, 2 * PAGE));
	EXPECT_TRUE(owner_sees(s, 3, 1));
	ASSERT_EQ(0, situation_unmap(s));
	s->want[at] = 0;
	EXPECT_TRUE(owner_sees(s, 3, 1));
}

/* The process that mapped it dies: the purpose of the notification. */
TEST_F(unmap, notify_reaches_the_owner_when_the_process_dies)
{
	struct situation *s = &self->s;
	uint32_t wait_port, send_port;
	int ready[2], ev, status;
	size_t at = 2 * PAGE + 5;
	pid_t pid;
	char c;

	ev = event_pair(&wait_port, &send_port);
	ASSERT_LE(0, ev);
	s->want[at] = 1;
	ASSERT_EQ(0, grant_write(&s->g, 2, s->want + 2 * PAGE));
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(s->fd);
		s->fd = gntdev_open();
		if (situation_map(s, PROT_READ | PROT_WRITE) == MAP_FAILED ||
		    gntdev_notify(s->fd, s->index + at,
				  UNMAP_NOTIFY_CLEAR_BYTE |
				  UNMAP_NOTIFY_SEND_EVENT, send_port) ||
		    write(ready[1], "r", 1) != 1)
			_exit(2);
		for (;;)
			pause();
	}
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &c, 1));
	EXPECT_EQ(0, event_wait(ev, wait_port, 50));
	kill(pid, SIGKILL);
	EXPECT_EQ(1, event_wait(ev, wait_port, 5000));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	s->want[at] = 0;
	EXPECT_TRUE(owner_sees(s, 2, 1));
	status = wait_child(pid, 5000);
	EXPECT_NE(-1, status);
	close(ready[0]);
	close(ev);
}

/*
 * The page is pinned while it is unmapped: the byte is cleared with the
 * mapping, the event comes after the last page is unmapped.
 */
TEST_F(unmap, notify_of_a_pinned_page_comes_when_it_is_gone)
{
	struct situation *s = &self->s;
	uint32_t wait_port, send_port;
	size_t at = 2 * PAGE + 5;
	int ev, p[2];

	ev = event_pair(&wait_port, &send_port);
	ASSERT_LE(0, ev);
	s->want[at] = 1;
	ASSERT_EQ(0, grant_write(&s->g, 2, s->want + 2 * PAGE));
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, gntdev_notify(s->fd, s->index + at,
				   UNMAP_NOTIFY_CLEAR_BYTE |
				   UNMAP_NOTIFY_SEND_EVENT, send_port));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	s->want[at] = 0;
	EXPECT_TRUE(owner_sees(s, 2, 1));
	ASSERT_EQ(0, close(s->fd));
	s->fd = -1;
	EXPECT_EQ(0, event_wait(ev, wait_port, 200));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_EQ(1, event_wait(ev, wait_port, SOON_MS));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	close(ev);
}

/* A byte in a read-only page cannot be cleared. */
TEST_F(unmap, notify_cannot_clear_a_byte_it_may_not_write)
{
	struct situation *s = &self->s;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ));
	EXPECT_EQ(-1, gntdev_notify(s->fd, s->index + 1,
				    UNMAP_NOTIFY_CLEAR_BYTE, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, gntdev_notify(s->fd, s->index + SIZE,
				    UNMAP_NOTIFY_CLEAR_BYTE, 0));
	EXPECT_EQ(ENOENT, errno);
}

/* ------------------------------------------------------------------ */
/* Locks */

/*
 * The ioctl that makes a map object writes the object's offset to the caller's
 * memory.  This may have to copy the page first, for which the kernel takes
 * mmap_lock, which mmap() of another thread holds while it looks up its own map
 * object.  Here the page is copied each time, as it is a private page of a
 * file, mapped anew.  And mmap() holds the lock for long before the lookup,
 * since it first clears the old mapping.
 */
#define CLEARED_SIZE	(4096 * PAGE)

struct slow_mmap {
	int fd;
	char *addr;
	bool started;
};

static void *mmap_slowly(void *arg)
{
	struct slow_mmap *m = arg;

	__atomic_store_n(&m->started, true, __ATOMIC_RELEASE);
	/* No map object has this offset. */
	return mmap(m->addr, CLEARED_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED,
		    m->fd, 1UL << 40);
}

TEST_F(unmap, the_map_ioctl_and_mmap_do_not_deadlock)
{
	struct situation *s = &self->s;
	const struct ioctl_gntdev_map_grant_ref want = {
		.count = 1,
		.refs = { { s->g.domid, s->g.ref[0] } },
	};
	struct slow_mmap m = { .fd = s->fd };
	struct ioctl_gntdev_map_grant_ref *op;
	pthread_t thread;
	uint64_t start;
	void *ret;
	int file, i;

	file = memfd_create("op", 0);
	ASSERT_EQ(sizeof(want), write(file, &want, sizeof(want)));
	for (i = 0; i < 10; i++) {
		m.started = false;
		m.addr = mmap(NULL, CLEARED_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		ASSERT_NE(MAP_FAILED, m.addr);
		op = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
		ASSERT_NE(MAP_FAILED, op);
		/* The ioctl can read it at once. */
		ASSERT_EQ(1, op->count);

		ASSERT_EQ(0, pthread_create(&thread, NULL, mmap_slowly, &m));
		while (!__atomic_load_n(&m.started, __ATOMIC_ACQUIRE))
			;
		/* Somewhere in the range that mmap() has to clear. */
		for (start = now_us(); now_us() - start < i * 200;)
			;
		EXPECT_EQ(0, ioctl(s->fd, IOCTL_GNTDEV_MAP_GRANT_REF, op));
		ASSERT_EQ(0, pthread_join(thread, &ret));
		EXPECT_EQ(MAP_FAILED, ret);
		EXPECT_EQ(0, gntdev_del(s->fd, op->index, 1));
		munmap(op, PAGE);
	}
	close(file);
}

/*
 * If the ioctl cannot write the offset of its map object, it removes the object
 * again.  Another thread that guessed the offset may have removed it already,
 * and made a map object of its own, with the same offset and in the same
 * memory.  The ioctl must not remove that one.
 *
 * To give the other thread time, the write of the ioctl is delayed: the page
 * has to be copied, see above, and mprotect() of a third thread holds the lock
 * nearly always.  The page behind it is not writable at all.  The allocator
 * returns the memory that was freed last on the same CPU.
 */
#define LOCKED_SIZE	(1024 * PAGE)
#define STEALS_MS	3000
#define STEALS		30

struct failing_map {
	int fd;
	int file;
	char *room;		/* for two pages */
	unsigned int go, done;	/* number of the call */
	bool stop;
	int wrong;
};

static void *keep_mmap_lock(void *arg)
{
	struct failing_map *m = arg;
	char *p = mmap(NULL, LOCKED_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	run_on(1);
	while (!__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE)) {
		mprotect(p, LOCKED_SIZE, PROT_READ);
		mprotect(p, LOCKED_SIZE, PROT_READ | PROT_WRITE);
	}
	munmap(p, LOCKED_SIZE);
	return NULL;
}

/* Offset of the argument in the file: two of its words in the second page. */
#define FAILING_AT	(PAGE - offsetof(struct ioctl_gntdev_map_grant_ref, refs))

static void *map_and_fail(void *arg)
{
	struct failing_map *m = arg;
	unsigned int done = 0;

	run_on(0);
	for (;;) {
		while (__atomic_load_n(&m->go, __ATOMIC_ACQUIRE) == done) {
			if (__atomic_load_n(&m->stop, __ATOMIC_ACQUIRE))
				return NULL;
			sched_yield();
		}
		if (mmap(m->room, PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_FIXED, m->file, 0) != m->room ||
		    ioctl(m->fd, IOCTL_GNTDEV_MAP_GRANT_REF, m->room + FAILING_AT) != -1 ||
		    errno != EFAULT)
			m->wrong++;
		__atomic_store_n(&m->done, ++done, __ATOMIC_RELEASE);
	}
}

TEST_F(unmap, a_failed_map_ioctl_removes_no_other_map)
{
	struct situation *s = &self->s;
	const struct ioctl_gntdev_map_grant_ref op = {
		.count = 1,
		.refs = { { s->g.domid, s->g.ref[0] } },
	};
	struct failing_map m = { .fd = s->fd };
	unsigned int stolen = 0, lost = 0;
	pthread_t locker, failing;
	uint64_t start, index = 0;

	m.file = memfd_create("op", 0);
	ASSERT_EQ(0, ftruncate(m.file, 2 * PAGE));
	ASSERT_EQ(sizeof(op), pwrite(m.file, &op, sizeof(op), FAILING_AT));
	m.room = mmap(NULL, 2 * PAGE, PROT_READ, MAP_PRIVATE, m.file, 0);
	ASSERT_NE(MAP_FAILED, m.room);
	ASSERT_EQ(0, pthread_create(&locker, NULL, keep_mmap_lock, &m));
	ASSERT_EQ(0, pthread_create(&failing, NULL, map_and_fail, &m));
	run_on(0);

	start = now_us();
	while (stolen < STEALS && !lost && now_us() - start < STEALS_MS * 1000ULL) {
		unsigned int call = m.go + 1;
		bool mine = false;

		__atomic_store_n(&m.go, call, __ATOMIC_RELEASE);
		while (__atomic_load_n(&m.done, __ATOMIC_ACQUIRE) != call) {
			if (!mine && !gntdev_del(s->fd, 0, 1))
				mine = !gntdev_add(s->fd, s->g.domid, s->g.ref, 1,
						   &index);
			sched_yield();
		}
		if (mine) {
			stolen++;
			lost += !!gntdev_del(s->fd, index, 1);
		}
		/* The map object of the call that failed is not left either. */
		EXPECT_EQ(-1, gntdev_del(s->fd, 0, 1));
	}
	__atomic_store_n(&m.stop, true, __ATOMIC_RELEASE);
	pthread_join(failing, NULL);
	pthread_join(locker, NULL);
	printf("# removed %u map objects in %u calls\n", stolen, m.done);
	EXPECT_EQ(0, lost)
		TH_LOG("failed call %u removed a map object of another thread",
		       m.done);
	EXPECT_EQ(0, m.wrong)
		TH_LOG("%d calls did not fail with EFAULT", m.wrong);
	munmap(m.room, 2 * PAGE);
	close(m.file);
}

/* ------------------------------------------------------------------ */
/* Last, since an unpatched kernel does not survive it */

/*
 * Two pages are pinned, and three munmap() calls remove the mapping in parts.
 * A kernel with one work item per mapping queues it twice.
 */
TEST_F(unmap, partial_munmaps_with_several_pinned_pages)
{
	struct situation *s = &self->s;
	int p[2], q[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr + PAGE, PAGE));
	ASSERT_EQ(0, pipe_pin(q, s->addr + 5 * PAGE, PAGE));
	ASSERT_EQ(0, munmap(s->addr, 3 * PAGE));
	ASSERT_EQ(0, munmap(s->addr + 5 * PAGE, 3 * PAGE));
	EXPECT_TRUE(mapping_works(s, s->addr + 3 * PAGE, 3, 2));
	ASSERT_EQ(0, munmap(s->addr + 3 * PAGE, 2 * PAGE));
	s->addr = NULL;
	sleep_ms(200);
	EXPECT_EQ(0, grants_in_use(&s->g, 2, 3));
	EXPECT_TRUE(pipe_has(q, s->want + 5 * PAGE, PAGE));
	EXPECT_LE(0, grant_wait_unused(&s->g, 5, SOON_MS));
	EXPECT_NE(0, grant_in_use(&s->g, 1));
	EXPECT_TRUE(pipe_has(p, s->want + PAGE, PAGE));
}

int main(int argc, char **argv)
{
	/* What exec_keeps_the_data_in_flight turns its child into. */
	if (argc == 2 && !strcmp(argv[1], "--sleep")) {
		for (;;)
			pause();
	}
	if (pool_init(6 * NPAGES))
		return KSFT_FAIL;
	return test_harness_run(argc, argv);
}
