// SPDX-License-Identifier: GPL-2.0-only
/*
 * Granted pages as registered buffers of an io_uring, without a user mapping.
 *
 * What should happen
 *
 *   GNTDEV_URING_REGISTER maps grants and makes them buffers of a ring, all or
 *   none; requests with fixed buffers move exactly the owner's bytes, and none
 *   can write to a buffer that was registered read-only.
 *   GNTDEV_URING_UNREGISTER, the close of the ring and the end of the process,
 *   even by SIGKILL, keep the data of requests in flight.  Xen has no mapping of
 *   the grants as soon as the last request has ended.
 *
 * How the tests make it happen
 *
 *   Requests in flight are reads from an empty pipe, and packets in the send
 *   queue of a TCP connection whose receiver does not read.  The disk is a RAM
 *   disk, checked by buffered I/O.  A grant copy provides the owner's bytes, and
 *   Xen tells which grants are mapped.
 *
 * What a failure means
 *
 *   Wrong bytes: a page was unmapped, and its frame replaced, while a request
 *   used it.  Grants that stay mapped: a reference was lost, and their owner can
 *   never free the pages.
 */
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "gntdev_fixture.h"

#define SLOTS	16
/* The release of a buffer is an event; the worker that polls would need this. */
#define POLL_US	5000

FIXTURE(uring) {
	struct situation s;
	struct uring r;
	int disk;	/* opened with O_DIRECT */
	int plain;	/* without */
};

FIXTURE_VARIANT(uring) {
	enum grant_source source;
};

FIXTURE_VARIANT_ADD(uring, own) {
	.source = GRANTS_OWN,
};

FIXTURE_VARIANT_ADD(uring, foreign) {
	.source = GRANTS_FOREIGN,
};

FIXTURE_SETUP(uring)
{
	self->disk = -1;
	self->plain = -1;
	self->r.fd = -1;
	situation_setup(_metadata, &self->s, variant->source);
	if (self->s.fd < 0)
		return;
	self->disk = disk_open(O_DIRECT);
	self->plain = disk_open(0);
	ASSERT_LE(0, self->disk)
		TH_LOG("%s: %s", test_disk(), strerror(errno));
	ASSERT_LE(0, self->plain);
	ASSERT_EQ(0, uring_open(&self->r));
	ASSERT_EQ(0, uring_make_table(&self->r, SLOTS));
}

FIXTURE_TEARDOWN(uring)
{
	if (self->r.fd >= 0)
		uring_close(&self->r);
	situation_teardown(_metadata, &self->s);
	close(self->disk);
	close(self->plain);
}

/* Are at least n grants mapped?  An unprivileged domain cannot find out. */
static bool still_mapped(struct situation *s, int n)
{
	return grant_in_use(&s->g, 0) < 0 || grants_in_use(&s->g, 0, NPAGES) >= n;
}

/* ------------------------------------------------------------------ */
/* Requests */

/* Pages [first, first + n) as the buffer in a slot. */
static struct gntdev_uring_buffer buffer_of(struct situation *s, unsigned int slot,
					    int first, int n)
{
	return (struct gntdev_uring_buffer){
		.index = slot,
		.domid = s->g.domid,
		.count = n,
		.refs = (uintptr_t)(s->g.ref + first),
		.failed = 12345,
		.status = 12345,
	};
}

static int command(struct uring *r, int fd, unsigned int op, const void *array,
		   unsigned int n)
{
	uring_command(r, fd, op, array, n);
	return uring_run(r);
}

static int register_buffers(struct uring *r, int fd,
			    struct gntdev_uring_buffer *buffers, unsigned int n)
{
	return command(r, fd, GNTDEV_URING_REGISTER, buffers, n);
}

/* All pages in slot 0. */
static int register_all(struct situation *s, struct uring *r)
{
	struct gntdev_uring_buffer buffer = buffer_of(s, 0, 0, NPAGES);

	return register_buffers(r, s->fd, &buffer, 1);
}

static int unregister_slot(struct situation *s, struct uring *r, uint32_t slot)
{
	return command(r, s->fd, GNTDEV_URING_UNREGISTER, &slot, 1);
}

static int fixed_io(struct uring *r, int opcode, int fd, unsigned int slot,
		    uint64_t start, unsigned int len, uint64_t offset)
{
	uring_fixed(r, opcode, fd, slot, start, len, offset);
	return uring_run(r);
}

/*
 * As three linked requests, submitted with one system call.  A worker thread
 * executes a linked request before io_uring has freed the previous one, which
 * may then still hold the buffer.
 */
static void linked_request(struct __test_metadata *_metadata, struct situation *s,
			   struct uring *r, int opcode, int disk, unsigned int flags,
			   bool by_worker)
{
	struct gntdev_uring_buffer buffer = buffer_of(s, 5, 0, NPAGES);
	const int want[] = { 0, SIZE, 0 };
	uint32_t slot = 5;
	int i, got[3];

	uring_command(r, s->fd, GNTDEV_URING_REGISTER, &buffer, 1)->flags =
		IOSQE_IO_LINK | flags;
	uring_fixed(r, opcode, disk, slot, 0, SIZE, 0)->flags = IOSQE_IO_LINK | flags;
	uring_command(r, s->fd, GNTDEV_URING_UNREGISTER, &slot, 1)->flags = flags;
	ASSERT_EQ(0, uring_enter(r, 3));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(uring_next(r, &got[i]));
		if (i == 2 && by_worker && got[i] == 1)
			continue;
		EXPECT_EQ(want[i], got[i])
			TH_LOG("request %d of 3", i);
	}
	EXPECT_LE(0, grants_wait_unused(&s->g, by_worker ? SOON_MS : 0));
}

static void move_both_ways(struct __test_metadata *_metadata, struct situation *s,
			   struct uring *r, int disk, int plain, unsigned int flags,
			   bool by_worker)
{
	memset(s->got, 0, SIZE);
	ASSERT_EQ(SIZE, pwrite(disk, s->got, SIZE, 0));
	linked_request(_metadata, s, r, IORING_OP_WRITE_FIXED, disk, flags,
		       by_worker);
	ASSERT_EQ(SIZE, pread(plain, s->got, SIZE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));

	fill_pages(s->want, NPAGES, now_us());
	ASSERT_EQ(SIZE, pwrite(disk, s->want, SIZE, 0));
	linked_request(_metadata, s, r, IORING_OP_READ_FIXED, disk, flags, by_worker);
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

TEST_F(uring, a_request_is_three_linked_sqes)
{
	move_both_ways(_metadata, &self->s, &self->r, self->disk, self->plain, 0,
		       false);
}

TEST_F(uring, buffered_io_uses_the_pages_as_well)
{
	move_both_ways(_metadata, &self->s, &self->r, self->plain, self->plain, 0,
		       true);
}

/* A worker thread of io_uring executes the commands. */
TEST_F(uring, a_worker_thread_can_execute_the_request)
{
	move_both_ways(_metadata, &self->s, &self->r, self->disk, self->plain,
		       IOSQE_ASYNC, true);
}

/* So does the thread that polls the submission queue. */
TEST_F(uring, a_polling_thread_can_execute_the_request)
{
	struct uring r;

	ASSERT_EQ(0, uring_open_flags(&r, IORING_SETUP_SQPOLL));
	ASSERT_EQ(0, uring_make_table(&r, SLOTS));
	move_both_ways(_metadata, &self->s, &r, self->disk, self->plain, 0, false);
	uring_close(&r);
}

/* Not in the order of slots, and from the middle of buffers. */
TEST_F(uring, one_command_registers_several_buffers)
{
	struct situation *s = &self->s;
	static const struct { uint32_t slot; int first, n; } parts[] = {
		{ 3, 0, 1 }, { 0, 1, 3 }, { 15, 4, 2 }, { 1, 6, 2 },
	};
	const int n = ARRAY_SIZE(parts);
	struct gntdev_uring_buffer buffers[n];
	uint32_t slots[n];
	int i;

	for (i = 0; i < n; i++) {
		slots[i] = parts[i].slot;
		buffers[i] = buffer_of(s, parts[i].slot, parts[i].first, parts[i].n);
	}
	ASSERT_EQ(0, register_buffers(&self->r, s->fd, buffers, n));
	EXPECT_TRUE(still_mapped(s, NPAGES));

	for (i = 0; i < n; i++) {
		unsigned int len = parts[i].n * PAGE;

		memset(s->got, 0, SIZE);
		EXPECT_EQ(len - 512, fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->disk,
					      parts[i].slot, 512, len - 512, 0));
		ASSERT_EQ(len - 512, pread(self->plain, s->got, len - 512, 0));
		EXPECT_EQ(0, memcmp(s->got, s->want + parts[i].first * PAGE + 512,
				    len - 512))
			TH_LOG("buffer %d", i);
		/* The buffer ends with its last page. */
		EXPECT_EQ(-EFAULT, fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->disk,
					    parts[i].slot, 512, len, 0));
	}

	EXPECT_EQ(0, command(&self->r, s->fd, GNTDEV_URING_UNREGISTER, slots, n));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	EXPECT_EQ(-EFAULT, fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->disk, 0, 0,
				    PAGE, 0));
}

/* As many pages as a command can have: each grant is mapped 128 times. */
TEST_F(uring, a_command_can_have_1024_pages_and_not_more)
{
	struct situation *s = &self->s;
	uint32_t refs[GNTDEV_URING_MAX_PAGES + 1];
	struct gntdev_uring_buffer buffers[2];
	char *got = pages_alloc(GNTDEV_URING_MAX_PAGES);
	int i;

	for (i = 0; i <= GNTDEV_URING_MAX_PAGES; i++)
		refs[i] = s->g.ref[i % NPAGES];
	buffers[0] = buffer_of(s, 0, 0, GNTDEV_URING_MAX_PAGES + 1);
	buffers[0].refs = (uintptr_t)refs;
	EXPECT_EQ(-EINVAL, register_buffers(&self->r, s->fd, buffers, 1));
	buffers[0].count = GNTDEV_URING_MAX_PAGES;
	buffers[1] = buffer_of(s, 1, 0, 1);
	EXPECT_EQ(-EINVAL, register_buffers(&self->r, s->fd, buffers, 2));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));

	ASSERT_EQ(0, register_buffers(&self->r, s->fd, buffers, 1));
	EXPECT_EQ(GNTDEV_URING_MAX_PAGES * PAGE,
		  fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->plain, 0, 0,
			   GNTDEV_URING_MAX_PAGES * PAGE, 0));
	ASSERT_EQ(GNTDEV_URING_MAX_PAGES * PAGE,
		  pread(self->plain, got, GNTDEV_URING_MAX_PAGES * PAGE, 0));
	for (i = 0; i < GNTDEV_URING_MAX_PAGES; i += NPAGES)
		EXPECT_EQ(0, memcmp(got + i * PAGE, s->want, SIZE));
	EXPECT_EQ(0, unregister_slot(s, &self->r, 0));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	munmap(got, GNTDEV_URING_MAX_PAGES * PAGE);
}

/* ------------------------------------------------------------------ */
/* Errors */

/* All or none, and the kernel tells which grant failed. */
TEST_F(uring, a_bad_grant_fails_the_whole_command)
{
	struct situation *s = &self->s;
	struct gntdev_uring_buffer buffers[3];
	uint32_t refs[NPAGES];
	int bad, i;

	for (bad = 0; bad < NPAGES; bad++) {
		memcpy(refs, s->g.ref, sizeof(refs));
		refs[bad] = 0x7ffffff0;
		for (i = 0; i < 3; i++) {
			buffers[i] = buffer_of(s, i, 0, i == 1 ? 4 : 2);
			buffers[i].refs = (uintptr_t)(refs + (i ? 4 * i - 2 : 0));
		}
		ASSERT_EQ(-ENXIO, register_buffers(&self->r, s->fd, buffers, 3))
			TH_LOG("grant %d", bad);
		for (i = 0; i < 3; i++) {
			int first = i ? 4 * i - 2 : 0, n = buffers[i].count;
			bool in = bad >= first && bad < first + n;

			EXPECT_EQ(in ? bad - first : n, buffers[i].failed);
			/* GNTST_bad_gntref */
			EXPECT_EQ(in ? -3 : 0, buffers[i].status);
		}
		EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	}

	/* The first one of several is told. */
	for (i = 1; i < NPAGES; i += 3)
		refs[i] = 0x7ffffff0;
	buffers[0] = buffer_of(s, 0, 0, NPAGES);
	buffers[0].refs = (uintptr_t)refs;
	EXPECT_EQ(-ENXIO, register_buffers(&self->r, s->fd, buffers, 1));
	EXPECT_EQ(1, buffers[0].failed);
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));

	/* A domain that does not exist. */
	buffers[0] = buffer_of(s, 0, 0, 2);
	buffers[1] = buffer_of(s, 1, 2, 4);
	buffers[1].domid = 0x7000;
	EXPECT_EQ(-ENXIO, register_buffers(&self->r, s->fd, buffers, 2));
	EXPECT_EQ(2, buffers[0].failed);
	EXPECT_EQ(0, buffers[1].failed);
	EXPECT_NE(0, buffers[1].status);
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));

	/* The slots are free. */
	EXPECT_EQ(0, register_all(s, &self->r));
	EXPECT_EQ(0, unregister_slot(s, &self->r, 0));
}

/* A slot that cannot be filled fails the whole command, too. */
TEST_F(uring, a_bad_slot_fails_the_whole_command)
{
	struct situation *s = &self->s;
	struct gntdev_uring_buffer buffers[3];
	int i;

	ASSERT_EQ(0, register_all(s, &self->r));
	for (i = 0; i < 3; i++)
		buffers[i] = buffer_of(s, i + 1, i, 1);
	buffers[2].index = 0;
	EXPECT_EQ(-EBUSY, register_buffers(&self->r, s->fd, buffers, 3));
	buffers[2].index = SLOTS;
	EXPECT_EQ(-EINVAL, register_buffers(&self->r, s->fd, buffers, 3));
	buffers[2].index = UINT32_MAX;
	EXPECT_EQ(-EINVAL, register_buffers(&self->r, s->fd, buffers, 3));
	EXPECT_EQ(12345, buffers[0].failed);
	for (i = 1; i < 4; i++)
		EXPECT_EQ(-EINVAL, unregister_slot(s, &self->r, i));

	/* The buffer that was there is intact. */
	EXPECT_EQ(SIZE, fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->disk, 0, 0,
				 SIZE, 0));
	EXPECT_EQ(0, unregister_slot(s, &self->r, 0));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
}

TEST_F(uring, wrong_commands_are_refused)
{
	struct situation *s = &self->s;
	struct gntdev_uring_buffer good = buffer_of(s, 0, 0, NPAGES);
	struct gntdev_uring_buffer wrong[6], *buffers;
	struct io_uring_sqe *sqe;
	uint32_t slots[GNTDEV_URING_MAX_BUFFERS + 1] = { 0 };
	char *bad = pages_alloc(2), *memory = pages_alloc(1);
	struct iovec iov = { memory, PAGE };
	struct uring *r = &self->r, other;
	unsigned int i;

	ASSERT_EQ(0, munmap(bad + PAGE, PAGE));
	buffers = calloc(GNTDEV_URING_MAX_BUFFERS + 1, sizeof(*buffers));
	ASSERT_NE(NULL, buffers);

	EXPECT_EQ(-EINVAL, register_buffers(r, s->fd, &good, 0));
	EXPECT_EQ(-EINVAL, register_buffers(r, s->fd, buffers,
					    GNTDEV_URING_MAX_BUFFERS + 1));
	EXPECT_EQ(-EFAULT, register_buffers(r, s->fd, (void *)(bad + PAGE - 8), 1));
	EXPECT_EQ(-EFAULT, register_buffers(r, s->fd, (void *)(bad + PAGE - 40), 2));

	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		wrong[i] = good;
	wrong[0].refs = (uintptr_t)(bad + PAGE - 4);
	wrong[1].count = 0;
	wrong[2].count = UINT32_MAX;
	wrong[3].domid = 0x10000;
	wrong[4].flags = 2;
	wrong[5].flags = 1U << 31;
	for (i = 0; i < ARRAY_SIZE(wrong); i++)
		EXPECT_EQ(i ? -EINVAL : -EFAULT,
			  register_buffers(r, s->fd, &wrong[i], 1))
			TH_LOG("buffer %u", i);

	EXPECT_EQ(-EOPNOTSUPP, command(r, s->fd, 0, &good, 1));
	EXPECT_EQ(-EOPNOTSUPP, command(r, s->fd, IOCTL_GNTDEV_GRANT_COPY, &good, 1));
	for (i = 0; i < 3; i++) {
		sqe = uring_command(r, s->fd, GNTDEV_URING_REGISTER, &good, 1);
		if (i == 0)
			sqe->addr3 = 1;
		else if (i == 1)
			sqe->ioprio = 1;
		else
			sqe->uring_cmd_flags = IORING_URING_CMD_FIXED;
		EXPECT_EQ(-EINVAL, uring_run(r))
			TH_LOG("sqe %u", i);
	}

	EXPECT_EQ(-EINVAL, command(r, s->fd, GNTDEV_URING_UNREGISTER, slots, 0));
	EXPECT_EQ(-EINVAL, command(r, s->fd, GNTDEV_URING_UNREGISTER, slots,
				   GNTDEV_URING_MAX_BUFFERS + 1));
	EXPECT_EQ(-EFAULT, command(r, s->fd, GNTDEV_URING_UNREGISTER, bad + PAGE - 2, 1));
	EXPECT_EQ(-EINVAL, unregister_slot(s, r, 0));
	EXPECT_EQ(-EINVAL, unregister_slot(s, r, SLOTS));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));

	/* A ring without a table, and one with a buffer of user memory. */
	ASSERT_EQ(0, uring_open(&other));
	EXPECT_EQ(-EINVAL, register_buffers(&other, s->fd, &good, 1));
	ASSERT_EQ(0, syscall(__NR_io_uring_register, other.fd,
			     IORING_REGISTER_BUFFERS, &iov, 1));
	EXPECT_EQ(-EBUSY, register_buffers(&other, s->fd, &good, 1));
	EXPECT_EQ(-EBUSY, unregister_slot(s, &other, 0));
	uring_close(&other);
	free(buffers);
	munmap(bad, PAGE);
	munmap(memory, PAGE);
}

/* The pages count towards RLIMIT_MEMLOCK of a user without CAP_IPC_LOCK. */
TEST_F(uring, the_limit_of_locked_memory_holds)
{
	struct rlimit limit = { NPAGES / 2 * PAGE, NPAGES / 2 * PAGE };
	struct situation *s = &self->s;
	struct gntdev_uring_buffer half = buffer_of(s, 0, 0, NPAGES / 2);
	struct gntdev_uring_buffer more = buffer_of(s, 1, NPAGES / 2, 1);
	struct gntdev_uring_buffer wrong = more;
	uint32_t no_ref = 0x7ffffff0;
	pid_t pid;
	int i;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (setrlimit(RLIMIT_MEMLOCK, &limit) || setresuid(65534, 65534, 65534))
			_exit(1);
		if (register_all(s, &self->r) != -ENOMEM)
			_exit(2);
		wrong.refs = (uintptr_t)&no_ref;
		for (i = 0; i < NPAGES; i++)
			if (register_buffers(&self->r, s->fd, &wrong, 1) != -ENXIO)
				_exit(3);
		for (i = 0; i < 3; i++) {
			if (register_buffers(&self->r, s->fd, &half, 1))
				_exit(4);
			if (register_buffers(&self->r, s->fd, &more, 1) != -ENOMEM)
				_exit(5);
			if (unregister_slot(s, &self->r, 0))
				_exit(6);
		}
		_exit(0);
	}
	EXPECT_EQ(0, wait_child(pid, 5000));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	/* The limit is none for this process. */
	EXPECT_EQ(0, register_all(s, &self->r));
	EXPECT_EQ(0, unregister_slot(s, &self->r, 0));
}

/* ------------------------------------------------------------------ */
/* I/O in flight */

/* Submit a read of all pages from an empty pipe. */
static void read_in_flight(struct __test_metadata *_metadata, struct situation *s,
			   struct uring *r, int pipefd[2])
{
	ASSERT_EQ(0, register_all(s, r));
	ASSERT_EQ(0, pipe(pipefd));
	uring_fixed(r, IORING_OP_READ_FIXED, pipefd[0], 0, 0, SIZE, 0);
	ASSERT_EQ(0, uring_enter(r, 0));
}

/* End it: new bytes for all pages. */
static void end_read(struct __test_metadata *_metadata, struct situation *s,
		     struct uring *r, int pipefd[2])
{
	int got;

	fill_pages(s->want, NPAGES, now_us());
	ASSERT_EQ(SIZE, write(pipefd[1], s->want, SIZE));
	ASSERT_EQ(0, uring_enter(r, 1));
	ASSERT_TRUE(uring_next(r, &got));
	EXPECT_EQ(SIZE, got);
}

/*
 * The grants are unmapped by the event of the last request's end, and no page waits
 * for the worker that polls.
 */
TEST_F(uring, unregistering_keeps_the_data_in_flight)
{
	struct situation *s = &self->s;
	uint64_t start, us, best = UINT64_MAX;
	int i, p[2];

	for (i = 0; i < 11; i++) {
		read_in_flight(_metadata, s, &self->r, p);
		EXPECT_EQ(1, unregister_slot(s, &self->r, 0));
		EXPECT_EQ(-EFAULT, fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->disk,
					    0, 0, PAGE, 0));
		sleep_ms(20);
		EXPECT_TRUE(still_mapped(s, NPAGES));
		EXPECT_TRUE(pages_wait(s, 0));

		end_read(_metadata, s, &self->r, p);
		start = now_us();
		while (grants_in_use(&s->g, 0, NPAGES) && now_us() < start + 1000000)
			;
		us = now_us() - start;
		EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
		best = us < best ? us : best;
		EXPECT_TRUE(owner_sees(s, 0, NPAGES));
		pipe_close(p);
	}
	EXPECT_GT(POLL_US, best);
	printf("# unmapped %llu us after the end of the last request\n",
	       (unsigned long long)best);
}

/* A hard link, as in gntdev.rst: the last request runs even if the I/O fails. */
TEST_F(uring, a_failed_request_does_not_keep_the_grants)
{
	struct situation *s = &self->s;
	struct gntdev_uring_buffer buffer = buffer_of(s, 2, 0, NPAGES);
	const int want[] = { 0, -EFAULT, 0 };
	uint32_t slot = 2;
	int i, got;

	uring_command(&self->r, s->fd, GNTDEV_URING_REGISTER, &buffer, 1)->flags =
		IOSQE_IO_LINK;
	/* Beyond the end of the buffer. */
	uring_fixed(&self->r, IORING_OP_READ_FIXED, self->disk, slot, PAGE, SIZE,
		    0)->flags = IOSQE_IO_HARDLINK;
	uring_command(&self->r, s->fd, GNTDEV_URING_UNREGISTER, &slot, 1);
	ASSERT_EQ(0, uring_enter(&self->r, 3));
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(uring_next(&self->r, &got));
		EXPECT_EQ(want[i], got)
			TH_LOG("request %d of 3", i);
	}
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
}

/* Once more with two requests and two buffers, which end together. */
TEST_F(uring, buffers_that_end_together_are_all_unmapped)
{
	struct situation *s = &self->s;
	struct gntdev_uring_buffer buffers[2];
	uint32_t slots[2] = { 0, 1 };
	int i, p[2], got;

	for (i = 0; i < 2; i++)
		buffers[i] = buffer_of(s, i, i * NPAGES / 2, NPAGES / 2);
	ASSERT_EQ(0, register_buffers(&self->r, s->fd, buffers, 2));
	ASSERT_EQ(0, pipe(p));
	for (i = 0; i < 2; i++)
		uring_fixed(&self->r, IORING_OP_READ_FIXED, p[0], i, 0, SIZE / 2, 0);
	ASSERT_EQ(0, uring_enter(&self->r, 0));
	EXPECT_EQ(2, command(&self->r, s->fd, GNTDEV_URING_UNREGISTER, slots, 2));
	close(p[1]);
	ASSERT_EQ(0, uring_enter(&self->r, 2));
	for (i = 0; i < 2; i++) {
		ASSERT_TRUE(uring_next(&self->r, &got));
		EXPECT_EQ(0, got);
	}
	EXPECT_LE(0, grants_wait_unused(&s->g, AT_ONCE_MS));
	close(p[0]);
}

/* io_uring cancels the read; the device may be closed before or after. */
TEST_F(uring, closing_the_ring_unmaps_the_grants)
{
	struct situation *s = &self->s;
	struct uring r;
	int i, p[2];

	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, uring_open(&r));
		ASSERT_EQ(0, uring_make_table(&r, SLOTS));
		if (i & 1) {
			read_in_flight(_metadata, s, &r, p);
		} else {
			ASSERT_EQ(0, register_all(s, &r));
			ASSERT_EQ(0, pipe(p));
		}
		if (i & 2) {
			close(s->fd);
			s->fd = gntdev_open();
			sleep_ms(AT_ONCE_MS);
		}
		EXPECT_TRUE(still_mapped(s, NPAGES));
		uring_close(&r);
		EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS))
			TH_LOG("round %d", i);
		pipe_close(p);
	}
}

/* The buffers belong to the ring, not to the device's file. */
TEST_F(uring, buffers_outlive_the_file)
{
	struct situation *s = &self->s;

	ASSERT_EQ(0, register_all(s, &self->r));
	close(s->fd);
	memset(s->got, 0, SIZE);
	ASSERT_EQ(SIZE, pwrite(self->disk, s->got, SIZE, 0));
	EXPECT_EQ(SIZE, fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->disk, 0, 0,
				 SIZE, 0));
	ASSERT_EQ(SIZE, pread(self->plain, s->got, SIZE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));
	/* Any other file will do. */
	s->fd = gntdev_open();
	EXPECT_EQ(0, unregister_slot(s, &self->r, 0));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
}

/* Another process registers buffers in a ring that it has inherited. */
TEST_F(uring, a_ring_of_another_process_can_be_used)
{
	struct situation *s = &self->s;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(register_all(s, &self->r) != 0);
	EXPECT_EQ(0, wait_child(pid, 5000));
	sleep_ms(AT_ONCE_MS);
	EXPECT_TRUE(still_mapped(s, NPAGES));
	fill_pages(s->want, NPAGES, now_us());
	ASSERT_EQ(SIZE, pwrite(self->disk, s->want, SIZE, 0));
	EXPECT_EQ(SIZE, fixed_io(&self->r, IORING_OP_READ_FIXED, self->disk, 0, 0,
				 SIZE, 0));
	EXPECT_EQ(0, unregister_slot(s, &self->r, 0));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

/* A second ring has a copy of the table: the last one of both counts. */
TEST_F(uring, cloned_buffers_keep_the_grants_mapped)
{
	struct situation *s = &self->s;
	struct io_uring_clone_buffers clone = { .src_fd = self->r.fd };
	struct uring other;

	ASSERT_EQ(0, uring_open(&other));
	ASSERT_EQ(0, register_all(s, &self->r));
	ASSERT_EQ(0, syscall(__NR_io_uring_register, other.fd,
			     IORING_REGISTER_CLONE_BUFFERS, &clone, 1));
	EXPECT_EQ(1, unregister_slot(s, &self->r, 0));
	EXPECT_TRUE(still_mapped(s, NPAGES));
	fill_pages(s->want, NPAGES, now_us());
	ASSERT_EQ(SIZE, pwrite(self->disk, s->want, SIZE, 0));
	EXPECT_EQ(SIZE, fixed_io(&other, IORING_OP_READ_FIXED, self->disk, 0, 0, SIZE, 0));
	EXPECT_EQ(0, unregister_slot(s, &other, 0));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	uring_close(&other);
}

/* The two mappings of a page do not depend on each other. */
TEST_F(uring, a_page_can_be_mapped_and_registered)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, register_all(s, &self->r));
	fill_pages(s->want, NPAGES, now_us());
	ASSERT_EQ(SIZE, pwrite(self->disk, s->want, SIZE, 0));
	EXPECT_EQ(SIZE, fixed_io(&self->r, IORING_OP_READ_FIXED, self->disk, 0, 0, SIZE, 0));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	EXPECT_EQ(0, unregister_slot(s, &self->r, 0));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));

	read_in_flight(_metadata, s, &self->r, p);
	EXPECT_EQ(0, situation_unmap(s));
	EXPECT_EQ(1, unregister_slot(s, &self->r, 0));
	end_read(_metadata, s, &self->r, p);
	EXPECT_LE(0, grants_wait_unused(&s->g, AT_ONCE_MS));
	pipe_close(p);
}

/* ------------------------------------------------------------------ */
/* The end of the process, with data in the send queue of a socket */

static int loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int ret = ioctl(fd, SIOCSIFFLAGS, &request);

	close(fd);
	return ret;
}

/* A connection whose receiver has room for less than all pages. */
static int narrow_pair(int sock[2])
{
	struct sockaddr_in addr = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	socklen_t len = sizeof(addr);
	int few = 8192, many = 64 * PAGE, fd, ret = -1;

	fd = socket(AF_INET, SOCK_STREAM, 0);
	sock[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (!loopback_up() &&
	    !setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof(few)) &&
	    !setsockopt(sock[0], SOL_SOCKET, SO_SNDBUF, &many, sizeof(many)) &&
	    !bind(fd, (struct sockaddr *)&addr, sizeof(addr)) && !listen(fd, 1) &&
	    !getsockname(fd, (struct sockaddr *)&addr, &len) &&
	    !connect(sock[0], (struct sockaddr *)&addr, sizeof(addr))) {
		sock[1] = accept(fd, NULL, NULL);
		ret = sock[1] < 0 ? -1 : 0;
	}
	close(fd);
	return ret;
}

enum how_it_ends { BY_UNREGISTER, BY_CLOSE, BY_EXIT, BY_SIGKILL };

/* Everything is in the send queue, without a copy; false if it is not. */
static bool send_all(struct situation *s, struct uring *r, int sock)
{
	struct io_uring_sqe *sqe;

	if (uring_open(r) || uring_make_table(r, SLOTS) || register_all(s, r))
		return false;
	sqe = uring_fixed(r, IORING_OP_SEND_ZC, sock, 0, 0, SIZE, 0);
	sqe->ioprio = IORING_RECVSEND_FIXED_BUF;
	return uring_run(r) == SIZE;
}

static void send_and_end(struct __test_metadata *_metadata, struct situation *s,
			 enum how_it_ends how)
{
	struct timeval limit = { .tv_sec = 5 };
	int sock[2], ready[2], status;
	struct uring r;
	pid_t pid;
	char c;

	ASSERT_EQ(0, narrow_pair(sock))
		TH_LOG("no TCP connection: %s", strerror(errno));
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (!send_all(s, &r, sock[0]))
			_exit(1);
		if (how == BY_UNREGISTER && unregister_slot(s, &r, 0) != 1)
			_exit(2);
		if (how == BY_CLOSE)
			uring_close(&r);
		if (write(ready[1], "r", 1) != 1)
			_exit(3);
		if (how == BY_EXIT)
			_exit(0);
		for (;;)
			pause();
	}
	close(ready[1]);
	/* Only the child has it: its end leaves the data without a sender. */
	close(sock[0]);
	EXPECT_EQ(1, read(ready[0], &c, 1));
	if (how == BY_SIGKILL)
		kill(pid, SIGKILL);
	if (how == BY_EXIT || how == BY_SIGKILL) {
		status = wait_child(pid, 5000);
		EXPECT_EQ(how == BY_SIGKILL ? SIGKILL : 0, status);
	}
	sleep_ms(50);
	EXPECT_TRUE(still_mapped(s, 1));

	memset(s->got, 0, SIZE);
	setsockopt(sock[1], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	EXPECT_EQ(SIZE, recv(sock[1], s->got, SIZE, MSG_WAITALL));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
	kill(pid, SIGKILL);
	wait_child(pid, 5000);
	close(sock[1]);
	close(ready[0]);
}

TEST_F(uring, unregistering_keeps_the_data_in_a_socket)
{
	send_and_end(_metadata, &self->s, BY_UNREGISTER);
}

TEST_F(uring, closing_the_ring_keeps_the_data_in_a_socket)
{
	send_and_end(_metadata, &self->s, BY_CLOSE);
}

TEST_F(uring, an_exiting_process_keeps_the_data_in_a_socket)
{
	send_and_end(_metadata, &self->s, BY_EXIT);
}

TEST_F(uring, a_killed_process_keeps_the_data_in_a_socket)
{
	send_and_end(_metadata, &self->s, BY_SIGKILL);
}

/* A process that is killed while it reads leaves nothing mapped. */
TEST_F(uring, a_killed_process_leaves_nothing)
{
	struct situation *s = &self->s;
	int ready[2], p[2];
	struct uring r;
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (uring_open(&r) || uring_make_table(&r, SLOTS))
			_exit(1);
		read_in_flight(_metadata, s, &r, p);
		if (write(ready[1], "r", 1) != 1)
			_exit(2);
		for (;;)
			pause();
	}
	EXPECT_EQ(1, read(ready[0], &c, 1));
	EXPECT_TRUE(still_mapped(s, NPAGES));
	kill(pid, SIGKILL);
	EXPECT_EQ(SIGKILL, wait_child(pid, 5000));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
	pipe_close(ready);
}

/* ------------------------------------------------------------------ */
/* Read-only grants */

FIXTURE(uring_read_only) {
	struct situation s;	/* only g, fd, want and got */
	struct uring r;
	int disk;
};

FIXTURE_VARIANT(uring_read_only) {
	enum grant_source source;
};

FIXTURE_VARIANT_ADD(uring_read_only, own) {
	.source = GRANTS_OWN,
};

FIXTURE_VARIANT_ADD(uring_read_only, foreign) {
	.source = GRANTS_FOREIGN,
};

FIXTURE_SETUP(uring_read_only)
{
	struct situation *s = &self->s;
	char *owners;
	int i, ret;

	self->disk = -1;
	ret = grants_get_read_only(&s->g, variant->source, NPAGES, &owners);
	if (ret > 0)
		SKIP(return, "no guest to grant pages for reading (DOMU)");
	ASSERT_EQ(0, ret)
		TH_LOG("no grants: %s", strerror(errno));
	s->want = pages_alloc(NPAGES);
	s->got = pages_alloc(NPAGES);
	ASSERT_NE(NULL, s->want);
	ASSERT_NE(NULL, s->got);
	if (owners) {
		fill_pages(owners, NPAGES, now_us());
		munmap(owners, SIZE);
	}
	for (i = 0; i < NPAGES; i++)
		ASSERT_EQ(0, grant_read(&s->g, i, s->want + i * PAGE));
	self->disk = disk_open(O_DIRECT);
	s->fd = gntdev_open();
	ASSERT_LE(0, self->disk);
	ASSERT_LE(0, s->fd);
	ASSERT_EQ(0, uring_open(&self->r));
	ASSERT_EQ(0, uring_make_table(&self->r, SLOTS));
}

FIXTURE_TEARDOWN(uring_read_only)
{
	if (self->disk < 0)
		return;
	uring_close(&self->r);
	EXPECT_LE(0, grants_wait_unused(&self->s.g, SOON_MS));
	EXPECT_TRUE(owner_sees(&self->s, 0, NPAGES));
	close(self->s.fd);
	close(self->disk);
	grants_put(&self->s.g);
}

TEST_F(uring_read_only, they_are_written_out_and_not_read_into)
{
	struct situation *s = &self->s;
	struct gntdev_uring_buffer buffer = buffer_of(s, 0, 0, NPAGES);
	int p[2];

	EXPECT_EQ(-ENXIO, register_buffers(&self->r, s->fd, &buffer, 1));
	EXPECT_EQ(0, buffer.failed);
	buffer.flags = GNTDEV_URING_READ_ONLY;
	ASSERT_EQ(0, register_buffers(&self->r, s->fd, &buffer, 1));

	memset(s->got, 0, SIZE);
	ASSERT_EQ(SIZE, pwrite(self->disk, s->got, SIZE, 0));
	EXPECT_EQ(SIZE, fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->disk, 0, 0,
				 SIZE, 0));
	ASSERT_EQ(SIZE, pread(self->disk, s->got, SIZE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));

	EXPECT_EQ(-EFAULT, fixed_io(&self->r, IORING_OP_READ_FIXED, self->disk, 0, 0,
				    SIZE, 0));
	ASSERT_EQ(0, pipe(p));
	ASSERT_EQ(5, write(p[1], "bytes", 5));
	EXPECT_EQ(-EFAULT, fixed_io(&self->r, IORING_OP_READ_FIXED, p[0], 0, 0, 5, 0));
	EXPECT_EQ(0, unregister_slot(s, &self->r, 0));
	pipe_close(p);
}

/* As the user asks for it, not as the grant permits. */
TEST_F(uring, a_buffer_registered_read_only_is_not_read_into)
{
	struct situation *s = &self->s;
	struct gntdev_uring_buffer buffers[2];
	uint32_t slots[2] = { 0, 1 };

	buffers[0] = buffer_of(s, 0, 0, 4);
	buffers[0].flags = GNTDEV_URING_READ_ONLY;
	buffers[1] = buffer_of(s, 1, 4, 4);
	ASSERT_EQ(0, register_buffers(&self->r, s->fd, buffers, 2));
	fill_pages(s->want + 4 * PAGE, 4, now_us());
	ASSERT_EQ(4 * PAGE, pwrite(self->disk, s->want + 4 * PAGE, 4 * PAGE, 0));
	EXPECT_EQ(-EFAULT, fixed_io(&self->r, IORING_OP_READ_FIXED, self->disk, 0, 0,
				    4 * PAGE, 0));
	EXPECT_EQ(4 * PAGE, fixed_io(&self->r, IORING_OP_READ_FIXED, self->disk, 1, 0,
				     4 * PAGE, 0));
	EXPECT_EQ(4 * PAGE, fixed_io(&self->r, IORING_OP_WRITE_FIXED, self->disk, 0, 0,
				     4 * PAGE, 0));
	EXPECT_EQ(0, command(&self->r, s->fd, GNTDEV_URING_UNREGISTER, slots, 2));
}

/* Two threads with a ring each, and one file of the device. */
struct racer {
	struct situation *s;
	int first, n, disk, errors;
};

static void *register_repeatedly(void *arg)
{
	struct racer *me = arg;
	struct gntdev_uring_buffer buffer = buffer_of(me->s, 1, me->first, me->n);
	uint32_t slot = 1;
	struct uring r;
	int i, got;

	if (uring_open(&r) || uring_make_table(&r, SLOTS)) {
		me->errors = 1000;
		return NULL;
	}
	for (i = 0; i < 300; i++) {
		me->errors += register_buffers(&r, me->s->fd, &buffer, 1) != 0;
		uring_fixed(&r, IORING_OP_WRITE_FIXED, me->disk, 1, 0, me->n * PAGE,
			    me->first * PAGE);
		me->errors += uring_enter(&r, 0) != 0;
		uring_command(&r, me->s->fd, GNTDEV_URING_UNREGISTER, &slot, 1);
		me->errors += uring_enter(&r, 2) != 0;
		me->errors += !uring_next(&r, &got) || got < 0;
		me->errors += !uring_next(&r, &got) || got < 0;
	}
	uring_close(&r);
	return NULL;
}

TEST_F(uring, threads_do_not_disturb_each_other)
{
	struct situation *s = &self->s;
	struct racer racers[4];
	pthread_t threads[4];
	int i;

	for (i = 0; i < 4; i++) {
		racers[i] = (struct racer){ s, 2 * i, 2, self->disk };
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, register_repeatedly,
					    &racers[i]));
	}
	for (i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(0, racers[i].errors);
	}
	ASSERT_EQ(SIZE, pread(self->disk, s->got, SIZE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));
}

int main(int argc, char **argv)
{
	if (pool_init(4 * NPAGES))
		return KSFT_FAIL;
	return test_harness_run(argc, argv);
}
