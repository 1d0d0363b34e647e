// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O on granted pages: the kernel uses exactly the page that was granted.
 *
 * What should happen
 *
 *   A process maps granted pages and passes them to the kernel without touching
 *   them: to a pipe, to O_DIRECT reads and writes, to native AIO and io_uring,
 *   also with registered buffers.  Writes contain exactly the owner's bytes,
 *   and reads store exactly the bytes that the owner then sees.  I/O cannot
 *   write to a page that was mapped read-only, even if the same process maps
 *   the same grant a second time for writing.
 *
 * How the tests make it happen
 *
 *   They use a RAM disk, and check direct I/O by buffered I/O.  A grant copy
 *   provides the owner's bytes without any mapping.  The kernel's GUP test
 *   device pins pages in every way that the kernel has.
 *
 * What a failure means
 *
 *   EFAULT: the page was not found from its page table entry.  Wrong bytes:
 *   another page was found, and I/O used memory that belongs to someone else.
 *   A write through a read-only mapping: pages that a domain granted read-only
 *   are changed.
 */
#include "gntdev_fixture.h"

FIXTURE(pin) {
	struct situation s;
	int disk;	/* opened with O_DIRECT */
	int plain;	/* without */
};

FIXTURE_VARIANT(pin) {
	enum grant_source source;
};

FIXTURE_VARIANT_ADD(pin, own) {
	.source = GRANTS_OWN,
};

FIXTURE_VARIANT_ADD(pin, foreign) {
	.source = GRANTS_FOREIGN,
};

FIXTURE_SETUP(pin)
{
	self->disk = -1;
	self->plain = -1;
	situation_setup(_metadata, &self->s, variant->source);
	if (self->s.fd < 0)
		return;
	self->disk = disk_open(O_DIRECT);
	self->plain = disk_open(0);
	ASSERT_LE(0, self->disk)
		TH_LOG("%s: %s", test_disk(), strerror(errno));
	ASSERT_LE(0, self->plain);
}

FIXTURE_TEARDOWN(pin)
{
	situation_teardown(_metadata, &self->s);
	close(self->disk);
	close(self->plain);
}

/* A way to move size bytes between addr and the start of the disk. */
typedef long (*mover)(int disk, char *addr, size_t size, bool out);

static long by_pread(int disk, char *addr, size_t size, bool out)
{
	long ret = out ? pwrite(disk, addr, size, 0) :
			 pread(disk, addr, size, 0);

	return ret < 0 ? -errno : ret;
}

static long by_aio(int disk, char *addr, size_t size, bool out)
{
	return aio_io(out ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, disk, addr, size,
		      0);
}

static long by_uring(int disk, char *addr, size_t size, bool out)
{
	struct uring r;
	long ret;

	if (uring_open(&r))
		return -errno;
	ret = uring_io(&r, out ? IORING_OP_WRITE : IORING_OP_READ, disk, addr,
		       size, 0);
	uring_close(&r);
	return ret;
}

static long by_uring_fixed(int disk, char *addr, size_t size, bool out)
{
	struct uring r;
	long ret;

	if (uring_open(&r))
		return -errno;
	if (uring_register(&r, addr, size))
		ret = -errno;
	else
		ret = uring_io(&r, out ? IORING_OP_WRITE_FIXED :
					 IORING_OP_READ_FIXED,
			       disk, addr, size, 0);
	uring_unregister(&r);
	uring_close(&r);
	return ret;
}

static void move_both_ways(struct __test_metadata *_metadata,
			   struct situation *s, int disk, mover move)
{
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	memset(s->got, 0, SIZE);
	ASSERT_EQ(SIZE, pwrite(disk, s->got, SIZE, 0));
	EXPECT_EQ(SIZE, move(disk, s->addr, SIZE, true));
	ASSERT_EQ(SIZE, pread(disk, s->got, SIZE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));

	fill_pages(s->want, NPAGES, now_us());
	ASSERT_EQ(SIZE, pwrite(disk, s->want, SIZE, 0));
	EXPECT_EQ(SIZE, move(disk, s->addr, SIZE, false));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	EXPECT_TRUE(mapping_shows(s, s->addr, 0, NPAGES));
}

TEST_F(pin, direct_io_moves_the_exact_bytes)
{
	move_both_ways(_metadata, &self->s, self->disk, by_pread);
}

TEST_F(pin, native_aio_moves_the_exact_bytes)
{
	move_both_ways(_metadata, &self->s, self->disk, by_aio);
}

TEST_F(pin, io_uring_moves_the_exact_bytes)
{
	move_both_ways(_metadata, &self->s, self->disk, by_uring);
}

TEST_F(pin, registered_buffers_move_the_exact_bytes)
{
	if (!uring_registers(&self->s))
		SKIP(return, "io_uring registers no memory of files");
	move_both_ways(_metadata, &self->s, self->disk, by_uring_fixed);
}

/* Sectors at odd offsets, across page boundaries. */
TEST_F(pin, direct_io_of_parts_of_pages_moves_the_exact_bytes)
{
	struct situation *s = &self->s;
	size_t at = PAGE + 512, len = 3 * PAGE + 1024;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(len, pwrite(self->disk, s->addr + at, len, 4096));
	EXPECT_EQ(SIZE, pread(self->disk, s->got, SIZE, 4096));
	EXPECT_EQ(0, memcmp(s->got, s->want + at, len));

	fill_pages(s->got, NPAGES, now_us());
	EXPECT_EQ(SIZE, pwrite(self->disk, s->got, SIZE, 8192));
	EXPECT_EQ(len, pread(self->disk, s->addr + at, len, 8192));
	memcpy(s->want + at, s->got, len);
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

/* One request over granted and ordinary memory. */
TEST_F(pin, one_request_takes_granted_and_ordinary_pages)
{
	struct situation *s = &self->s;
	char *mine = pages_alloc(2);
	struct iovec iov[4];

	ASSERT_NE(NULL, mine);
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	fill_pages(mine, 2, 4711);
	iov[0] = (struct iovec){ mine, PAGE };
	iov[1] = (struct iovec){ s->addr + 6 * PAGE, 2 * PAGE };
	iov[2] = (struct iovec){ mine + PAGE, PAGE };
	iov[3] = (struct iovec){ s->addr, PAGE };
	EXPECT_EQ(5 * PAGE, pwritev(self->disk, iov, 4, 0));
	EXPECT_EQ(5 * PAGE, pread(self->disk, s->got, 5 * PAGE, 0));
	EXPECT_EQ(0, memcmp(s->got, mine, PAGE));
	EXPECT_EQ(0, memcmp(s->got + PAGE, s->want + 6 * PAGE, 2 * PAGE));
	EXPECT_EQ(0, memcmp(s->got + 3 * PAGE, mine + PAGE, PAGE));
	EXPECT_EQ(0, memcmp(s->got + 4 * PAGE, s->want, PAGE));
	munmap(mine, 2 * PAGE);
}

/* The same page in one request twice. */
TEST_F(pin, one_request_takes_a_page_twice)
{
	struct situation *s = &self->s;
	struct iovec iov[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	iov[0] = (struct iovec){ s->addr + PAGE, PAGE };
	iov[1] = (struct iovec){ s->addr + PAGE, PAGE };
	EXPECT_EQ(2 * PAGE, pwritev(self->disk, iov, 2, 0));
	EXPECT_EQ(2 * PAGE, pread(self->disk, s->got, 2 * PAGE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want + PAGE, PAGE));
	EXPECT_EQ(0, memcmp(s->got + PAGE, s->want + PAGE, PAGE));
}

TEST_F(pin, vmsplice_gives_the_exact_bytes)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	/* The pipe contains the page itself, not a copy. */
	s->addr[5] ^= 1;
	s->want[5] ^= 1;
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
}

/* All ways in which the kernel gets user pages. */
TEST_F(pin, every_way_to_pin_takes_all_pages)
{
	static const struct {
		const char *name;
		unsigned long cmd;
	} ways[] = {
		{ "get_user_pages_fast", GUP_FAST_BENCHMARK },
		{ "get_user_pages", GUP_BASIC_TEST },
		{ "pin_user_pages_fast", PIN_FAST_BENCHMARK },
		{ "pin_user_pages", PIN_BASIC_TEST },
		{ "pin_user_pages, long-term", PIN_LONGTERM_BENCHMARK },
	};
	struct situation *s = &self->s;
	unsigned int i, flags;
	int fd = gup_open();

	ASSERT_LE(0, fd);
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		for (flags = 0; flags < 2; flags++) {
			struct gup_test op = {
				.addr = (uintptr_t)s->addr,
				.size = SIZE,
				.nr_pages_per_call = NPAGES,
				.gup_flags = flags, /* 1: FOLL_WRITE */
			};

			EXPECT_EQ(0, ioctl(fd, ways[i].cmd, &op));
			EXPECT_EQ(SIZE, op.size)
				TH_LOG("%s, flags %u", ways[i].name, flags);
		}
	}
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	close(fd);
}

/* The kernel reads through a pin exactly the bytes that the owner wrote. */
TEST_F(pin, a_pin_shows_the_owners_bytes)
{
	struct situation *s = &self->s;
	int fd = gup_open(), flags;

	ASSERT_LE(0, fd);
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (flags = 0; flags < 4; flags++) {
		ASSERT_EQ(0, gup_pin(fd, s->addr, SIZE, flags));
		fill_pages(s->want + 2 * PAGE, 1, flags);
		EXPECT_EQ(0, grant_write(&s->g, 2, s->want + 2 * PAGE));
		EXPECT_EQ(0, gup_read(fd, s->got));
		EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));
		EXPECT_EQ(0, gup_unpin(fd));
	}
	close(fd);
}

/* I/O may read from a read-only mapping, but not store into it. */
TEST_F(pin, io_into_a_read_only_mapping_is_refused)
{
	static const mover moves[] = { by_pread, by_aio, by_uring };
	struct situation *s = &self->s;
	unsigned int i;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ));
	for (i = 0; i < ARRAY_SIZE(moves); i++) {
		memset(s->got, 0, SIZE);
		ASSERT_EQ(SIZE, pwrite(self->disk, s->got, SIZE, 0));
		EXPECT_EQ(SIZE, moves[i](self->disk, s->addr, SIZE, true));
		ASSERT_EQ(SIZE, pread(self->disk, s->got, SIZE, 0));
		EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));

		memset(s->got, 0x77, SIZE);
		ASSERT_EQ(SIZE, pwrite(self->disk, s->got, SIZE, 0));
		EXPECT_EQ(-EFAULT, moves[i](self->disk, s->addr, SIZE, false));
		EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	}
	EXPECT_EQ(-1, pread(self->plain, s->addr, PAGE, 0));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

TEST_F(pin, a_read_only_page_is_not_pinned_for_writing)
{
	static const unsigned long ways[] = {
		GUP_FAST_BENCHMARK, GUP_BASIC_TEST, PIN_FAST_BENCHMARK,
		PIN_BASIC_TEST, PIN_LONGTERM_BENCHMARK,
	};
	struct situation *s = &self->s;
	int fd = gup_open();
	unsigned int i;

	ASSERT_LE(0, fd);
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ));
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		struct gup_test op = {
			.addr = (uintptr_t)s->addr,
			.size = SIZE,
			.nr_pages_per_call = NPAGES,
			.gup_flags = 1, /* FOLL_WRITE */
		};

		/* The size tells how much was pinned: not a single page. */
		EXPECT_TRUE(ioctl(fd, ways[i], &op) || op.size == 0)
			TH_LOG("way %u got %llu bytes", i,
			       (unsigned long long)op.size);
	}
	EXPECT_NE(0, gup_pin(fd, s->addr, SIZE,
			     PIN_LONGTERM_TEST_FLAG_USE_WRITE));
	close(fd);
}

/* /proc/self/mem forces writes where possible; here it must fail. */
TEST_F(pin, proc_mem_reads_and_does_not_force_a_write)
{
	struct situation *s = &self->s;
	int fd = open("/proc/self/mem", O_RDWR);
	uint64_t index;
	char *ro;

	ASSERT_LE(0, fd);
	ro = gntdev_map(s->fd, &s->g, 0, 4, PROT_READ, NULL);
	ASSERT_NE(MAP_FAILED, ro);
	EXPECT_EQ(PAGE, pread(fd, s->got, PAGE, (uintptr_t)ro));
	EXPECT_EQ(0, memcmp(s->got, s->want, PAGE));
	memset(s->got, 0x66, PAGE);
	EXPECT_EQ(-1, pwrite(fd, s->got, PAGE, (uintptr_t)ro));
	EXPECT_TRUE(owner_sees(s, 0, 4));
	munmap(ro, 4 * PAGE);

	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, s->g.ref, 4, &index));
	ro = mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE, s->fd, index);
	ASSERT_NE(MAP_FAILED, ro);
	EXPECT_EQ(-1, pwrite(fd, s->got, PAGE, (uintptr_t)ro));
	EXPECT_TRUE(mapping_shows(s, ro, 0, 4));
	EXPECT_TRUE(owner_sees(s, 0, 4));
	munmap(ro, 4 * PAGE);

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(PAGE, pread(fd, s->got, PAGE, (uintptr_t)s->addr));
	EXPECT_EQ(0, memcmp(s->got, s->want, PAGE));
	fill_pages(s->want, 1, 5);
	EXPECT_EQ(PAGE, pwrite(fd, s->want, PAGE, (uintptr_t)s->addr));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	close(fd);
}

/* Another process reads and writes the pages, like a debugger. */
TEST_F(pin, another_process_reaches_the_pages)
{
	struct situation *s = &self->s;
	char path[32];
	pid_t pid;
	int status;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	fill_pages(s->got, NPAGES, 31);
	snprintf(path, sizeof(path), "/proc/%d/mem", getpid());
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char *buf = pages_alloc(NPAGES);
		int fd = open(path, O_RDWR);

		if (pread(fd, buf, SIZE, (uintptr_t)s->addr) != SIZE ||
		    memcmp(buf, s->want, SIZE))
			_exit(1);
		if (pwrite(fd, s->got, SIZE, (uintptr_t)s->addr) != SIZE)
			_exit(2);
		_exit(0);
	}
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status);
	memcpy(s->want, s->got, SIZE);
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
}

/*
 * A frame translates to one page only.  When a grant is mapped twice, with
 * different rights, I/O through each mapping must use the page of that mapping:
 * writing works through the writable one, whichever came first, and fails
 * through the other.
 */
static void two_rights(struct __test_metadata *_metadata,
		       struct situation *s, int disk, int first_prot)
{
	char *addr[2], *ro, *rw;
	int i, p[2];

	for (i = 0; i < 2; i++) {
		addr[i] = gntdev_map(s->fd, &s->g, 0, NPAGES,
				     i ? first_prot ^ PROT_WRITE : first_prot,
				     NULL);
		ASSERT_NE(MAP_FAILED, addr[i]);
	}
	ro = first_prot & PROT_WRITE ? addr[1] : addr[0];
	rw = first_prot & PROT_WRITE ? addr[0] : addr[1];

	fill_pages(s->want, NPAGES, now_us());
	ASSERT_EQ(SIZE, pwrite(disk, s->want, SIZE, 0));
	EXPECT_EQ(SIZE, by_pread(disk, rw, SIZE, false));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	EXPECT_TRUE(mapping_shows(s, ro, 0, NPAGES));

	memset(s->got, 0x55, SIZE);
	ASSERT_EQ(SIZE, pwrite(disk, s->got, SIZE, 0));
	EXPECT_EQ(-EFAULT, by_pread(disk, ro, SIZE, false));
	EXPECT_TRUE(owner_sees(s, 0, NPAGES));

	EXPECT_EQ(SIZE, by_pread(disk, ro, SIZE, true));
	ASSERT_EQ(SIZE, pread(disk, s->got, SIZE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));
	ASSERT_EQ(0, pipe_pin(p, ro, SIZE));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));

	/* The first is unmapped; I/O through the other still works. */
	EXPECT_EQ(0, munmap(addr[0], SIZE));
	if (addr[1] == rw) {
		fill_pages(s->want, NPAGES, now_us());
		ASSERT_EQ(SIZE, pwrite(disk, s->want, SIZE, 0));
		EXPECT_EQ(SIZE, by_pread(disk, rw, SIZE, false));
		EXPECT_TRUE(owner_sees(s, 0, NPAGES));
	}
	EXPECT_EQ(SIZE, by_pread(disk, addr[1], SIZE, true));
	ASSERT_EQ(SIZE, pread(disk, s->got, SIZE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, SIZE));
	EXPECT_EQ(0, munmap(addr[1], SIZE));
}

TEST_F(pin, io_is_exact_when_a_grant_is_mapped_read_only_then_writable)
{
	two_rights(_metadata, &self->s, self->disk, PROT_READ);
}

TEST_F(pin, io_is_exact_when_a_grant_is_mapped_writable_then_read_only)
{
	two_rights(_metadata, &self->s, self->disk, PROT_READ | PROT_WRITE);
}

/* One grant twice in the same mapping. */
TEST_F(pin, io_is_exact_when_one_mapping_has_a_grant_twice)
{
	struct situation *s = &self->s;
	uint32_t ref[4] = { s->g.ref[0], s->g.ref[1], s->g.ref[0],
			    s->g.ref[1] };
	uint64_t index;
	char *addr;

	ASSERT_EQ(0, gntdev_add(s->fd, s->g.domid, ref, 4, &index));
	addr = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, s->fd,
		    index);
	ASSERT_NE(MAP_FAILED, addr);
	EXPECT_EQ(4 * PAGE, by_pread(self->disk, addr, 4 * PAGE, true));
	ASSERT_EQ(4 * PAGE, pread(self->disk, s->got, 4 * PAGE, 0));
	EXPECT_EQ(0, memcmp(s->got, s->want, 2 * PAGE));
	EXPECT_EQ(0, memcmp(s->got + 2 * PAGE, s->want, 2 * PAGE));

	fill_pages(s->want, 2, now_us());
	ASSERT_EQ(2 * PAGE, pwrite(self->disk, s->want, 2 * PAGE, 0));
	EXPECT_EQ(2 * PAGE, by_pread(self->disk, addr + 2 * PAGE, 2 * PAGE,
				     false));
	EXPECT_TRUE(owner_sees(s, 0, 2));
	EXPECT_EQ(0, munmap(addr, 4 * PAGE));
}

/*
 * The override table has an entry for each foreign frame of a set of grants,
 * until a grace period after the set was released.  A domain's own frames have
 * none, since the ordinary M2P has them.
 */
TEST_F(pin, the_override_has_the_mapped_frames)
{
	struct situation *s = &self->s;
	long each = variant->source == GRANTS_FOREIGN ? 1 : 0;
	int p[2];

	if (s->entries < 0)
		SKIP(return, "this kernel has no M2P override");
	if (!override_enabled())
		SKIP(return, "the M2P override is switched off");

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_EQ(s->entries + each * NPAGES, count_entries());
	ASSERT_EQ(0, pipe_pin(p, s->addr + 4 * PAGE, PAGE));
	ASSERT_EQ(0, situation_unmap(s));
	usleep(100000);
	EXPECT_EQ(s->entries + each * NPAGES, count_entries());
	EXPECT_TRUE(pipe_has(p, s->want + 4 * PAGE, PAGE));
	gntdev_del(s->fd, s->index, NPAGES);
	EXPECT_TRUE(counter_returns(count_entries, s->entries));
}

/* ------------------------------------------------------------------ */
/* Grant copies, many in one request, to and from a buffer of ours */

#define BUF_PAGES	41
#define BUF_SIZE	(BUF_PAGES * PAGE)
#define SEGMENTS	40
/* Copies per hypercall (all or none are done); no copy crosses a page. */
#define BATCH		16
#define BAD_REF		0xfffffff
#define UNTOUCHED	77

/* FRESH: not touched yet, so that reading finds the zero page. */
enum page_kind { FILLED, FRESH, READ_ONLY, NO_ACCESS, UNMAPPED };

struct copies {
	char *buf;
	char *model;		/* what it should hold */
	enum page_kind kind[BUF_PAGES];
	int dirty[BUF_PAGES];	/* -1: either will do */
	struct gntdev_grant_copy_segment seg[SEGMENTS];
	int grant[SEGMENTS];	/* which of the situation's, -1: BAD_REF */
	int status[SEGMENTS], n;
};

static void copies_begin(struct copies *c)
{
	enum page_kind *kind = c->kind;
	int i;

	c->n = 0;
	if (!c->model)
		c->model = pages_alloc(BUF_PAGES);
	c->buf = pages_alloc(BUF_PAGES);
	fill_pages(c->model, BUF_PAGES, 1);
	for (i = 0; i < BUF_PAGES; i++) {
		char *page = c->buf + i * PAGE;

		c->dirty[i] = 0;
		if (kind[i] == FRESH)
			memset(c->model + i * PAGE, 0, PAGE);
		else
			memcpy(page, c->model + i * PAGE, PAGE);
		if (kind[i] == READ_ONLY || kind[i] == NO_ACCESS)
			mprotect(page, PAGE, kind[i] == READ_ONLY ? PROT_READ : PROT_NONE);
		if (kind[i] == UNMAPPED)
			munmap(page, PAGE);
	}
}

static void copies_add(struct situation *s, struct copies *c, bool in, size_t at,
		       size_t len, size_t offset, int grant)
{
	struct gntdev_grant_copy_segment *seg = &c->seg[c->n];

	grant_copy_segment(seg, &s->g, grant < 0 ? 0 : grant, c->buf + at, !in);
	seg->len = len;
	seg->status = UNTOUCHED;
	if (in)
		seg->source.foreign.offset = offset;
	else
		seg->dest.foreign.offset = offset;
	if (grant < 0 && in)
		seg->source.foreign.ref = BAD_REF;
	else if (grant < 0)
		seg->dest.foreign.ref = BAD_REF;
	c->status[c->n] = UNTOUCHED;
	c->grant[c->n++] = grant;
}

struct move {
	size_t at, len;
	char *granted;
	bool in;
	int segment;
};

static void moves_done(struct copies *c, const struct move *m, int n)
{
	for (; n--; m++) {
		char *mine = c->model + m->at;
		int *dirty = &c->dirty[m->at / PAGE];

		if (!m->granted) {
			c->status[m->segment] = -3; /* GNTST_bad_gntref */
			if (m->in && !*dirty)
				*dirty = -1;
		} else if (m->in) {
			memcpy(mine, m->granted, m->len);
			*dirty = 1;
		} else {
			memcpy(m->granted, mine, m->len);
		}
	}
}

/* Compute the expected result, if each page is pinned when it is reached. */
static int copies_expect(struct situation *s, struct copies *c)
{
	struct move m[BATCH];
	int i, n = 0;

	for (i = 0; i < c->n; i++) {
		struct gntdev_grant_copy_segment *seg = &c->seg[i];
		bool in = seg->flags & GNTCOPY_source_gref;
		size_t offset = in ? seg->source.foreign.offset : seg->dest.foreign.offset;
		size_t at = (char *)(in ? seg->dest.virt : seg->source.virt) - c->buf;
		size_t done, len;

		if (!seg->flags || offset + seg->len > PAGE)
			return -EINVAL;
		c->status[i] = 0;
		for (done = 0; done < seg->len; done += len) {
			enum page_kind kind = c->kind[(at + done) / PAGE];

			if (n == BATCH) {
				moves_done(c, m, n);
				n = 0;
			}
			if (kind >= (in ? READ_ONLY : NO_ACCESS))
				return -EFAULT;
			len = PAGE - (at + done) % PAGE;
			if (len > seg->len - done)
				len = seg->len - done;
			m[n++] = (struct move){ at + done, len, c->grant[i] < 0 ? NULL :
				s->want + c->grant[i] * PAGE + offset + done, in, i };
		}
	}
	moves_done(c, m, n);
	return 0;
}

static bool copies_are_exact(struct __test_metadata *_metadata, struct situation *s,
			     struct copies *c)
{
	struct ioctl_gntdev_grant_copy op = { .count = c->n, .segments = c->seg };
	int i, ret, want = copies_expect(s, c);

	ret = ioctl(s->fd, IOCTL_GNTDEV_GRANT_COPY, &op) ? -errno : 0;
	if (ret != want) {
		TH_LOG("the ioctl returns %d, not %d", ret, want);
		return false;
	}
	for (i = 0; i < c->n; i++) {
		if (c->seg[i].status == c->status[i])
			continue;
		TH_LOG("the status is %d, not %d: segment %d of %d",
		       c->seg[i].status, c->status[i], i, c->n);
		return false;
	}
	for (i = 0; i < BUF_PAGES; i++) {
		if (c->kind[i] >= NO_ACCESS ||
		    !memcmp(c->buf + i * PAGE, c->model + i * PAGE, PAGE))
			continue;
		TH_LOG("wrong bytes in page %d of the buffer", i);
		return false;
	}
	return owner_sees(s, 0, NPAGES);
}

static void copies_end(struct copies *c)
{
	munmap(c->buf, BUF_SIZE);
}

/*
 * A request over one buffer, page by page or at an odd offset: complete, and
 * with one page that cannot be pinned.  The copies in earlier hypercalls are
 * done, those in its own are not, and later segments are not processed.
 */
TEST_F(pin, a_grant_copy_stops_at_a_page_that_it_cannot_have)
{
	static const int bad[] = { 0, 1, 7, 8, 15, 16, 17, 31, 32, 39 };
	struct situation *s = &self->s;
	struct copies c = { 0 };
	unsigned int i, k, way;

	for (way = 0; way < 4; way++) {
		for (i = 0; i < ARRAY_SIZE(bad); i++) {
			bool in = way & 1;
			int at = way & 2 ? 100 : 0;
			enum page_kind kind;

			for (kind = FILLED; kind <= UNMAPPED; kind++) {
				c.kind[bad[i]] = kind;
				copies_begin(&c);
				for (k = 0; k < SEGMENTS; k++, at += PAGE)
					copies_add(s, &c, in, at, PAGE, 0, k % NPAGES);
				at -= SEGMENTS * PAGE;
				ASSERT_TRUE(copies_are_exact(_metadata, s, &c))
					TH_LOG("%s at %d, page %d is of kind %d",
					       in ? "in" : "out", at, bad[i], kind);
				copies_end(&c);
			}
			c.kind[bad[i]] = FILLED;
		}
	}
}

/*
 * A request whose segments reach beyond the readable memory.  The copies in
 * earlier hypercalls are done.
 */
TEST_F(pin, a_grant_copy_stops_at_a_segment_that_it_cannot_read)
{
	static const int readable[] = { 0, 1, 2, 15, 16, 17, 33 };
	struct situation *s = &self->s;
	char *end = pages_alloc(2) + PAGE, *buf = pages_alloc(SEGMENTS);
	unsigned int i;
	int k;

	ASSERT_EQ(0, munmap(end, PAGE));
	for (i = 0; i < ARRAY_SIZE(readable); i++) {
		int n = readable[i], done = n ? (n - 1) / BATCH * BATCH : 0;
		struct gntdev_grant_copy_segment *seg = (void *)end;
		struct ioctl_gntdev_grant_copy op = {
			.count = n + 1,
			.segments = seg -= n,
		};

		memset(buf, 0, SEGMENTS * PAGE);
		for (k = 0; k < n; k++)
			grant_copy_segment(&seg[k], &s->g, k % NPAGES,
					   buf + k * PAGE, false);
		EXPECT_EQ(-1, ioctl(s->fd, IOCTL_GNTDEV_GRANT_COPY, &op));
		EXPECT_EQ(EFAULT, errno);
		for (k = 0; k < n; k++)
			EXPECT_EQ(k < done, !memcmp(buf + k * PAGE, s->want +
						    k % NPAGES * PAGE, PAGE))
				TH_LOG("copy %d of %d", k, n);
	}
	munmap(end - PAGE, PAGE);
	munmap(buf, SEGMENTS * PAGE);
}

static uint32_t rnd(uint32_t below)
{
	static uint64_t x = 1;

	x = x * 6364136223846793005ULL + 1442695040888963407ULL;
	return (x >> 33) % below;
}

/*
 * Random requests: in both directions, with segments that are contiguous or
 * share pages or are anywhere, and sometimes a wrong one.
 */
static void copies_random(struct situation *s, struct copies *c)
{
	int i, n = 1 + rnd(SEGMENTS), wild = rnd(2);
	size_t at = 0, len;
	bool in = rnd(2);

	for (i = 0; i < BUF_PAGES; i++)
		c->kind[i] = wild && !rnd(BUF_PAGES) ? rnd(5) : rnd(4) ? FILLED : FRESH;
	copies_begin(c);
	for (i = 0; i < n; i++) {
		if (!rnd(6))
			in = !in;
		len = rnd(2) ? PAGE : rnd(4) ? 1 + rnd(PAGE) : rnd(600);
		if (!i || !rnd(6) || at + len > BUF_SIZE)
			at = rnd(BUF_SIZE - len) & (rnd(2) ? ~0UL : ~(PAGE - 1));
		copies_add(s, c, in, at, len, rnd(PAGE - len + 1),
			   rnd(100) ? (int)rnd(NPAGES) : -1);
		if (wild && !rnd(200))
			c->seg[i].flags = 0;
		if (wild && !rnd(200))
			c->seg[i].len += PAGE;
		at += len;
	}
}

TEST_F(pin, grant_copies_of_any_shape_move_the_exact_bytes)
{
	struct situation *s = &self->s;
	struct copies c = { 0 };
	int i;

	for (i = 0; i < 500; i++) {
		copies_random(s, &c);
		ASSERT_TRUE(copies_are_exact(_metadata, s, &c))
			TH_LOG("request %d", i);
		copies_end(&c);
	}
}

/*
 * A local page that is written must be marked dirty, or it may lose its data.
 * A page that is only read must not be marked, as it need not be writable.
 */
TEST_F(pin, a_grant_copy_marks_the_pages_dirty_that_it_writes)
{
	struct situation *s = &self->s;
	struct copies c = { 0 };
	int i, k;

	for (i = 0; i < 200; i++) {
		copies_random(s, &c);
		ASSERT_TRUE(copies_are_exact(_metadata, s, &c))
			TH_LOG("request %d", i);
		for (k = 0; k < BUF_PAGES; k++) {
			if (c.dirty[k] < 0)
				continue;
			ASSERT_EQ(c.dirty[k], is_dirty(c.buf + k * PAGE) == 1)
				TH_LOG("request %d, page %d", i, k);
		}
		copies_end(&c);
	}
}

/* ------------------------------------------------------------------ */
/* Pages granted read-only, as a disk frontend does for writes */

FIXTURE(read_only) {
	struct grants g;
	int fd;
	int disk;	/* opened with O_DIRECT */
	char *want;
	char *got;
	long waiting;
};

FIXTURE_VARIANT(read_only) {
	enum grant_source source;
};

FIXTURE_VARIANT_ADD(read_only, own) {
	.source = GRANTS_OWN,
};

FIXTURE_VARIANT_ADD(read_only, foreign) {
	.source = GRANTS_FOREIGN,
};

FIXTURE_SETUP(read_only)
{
	char *owners;
	int i, ret;

	self->disk = -1;
	self->fd = -1;
	ret = grants_get_read_only(&self->g, variant->source, NPAGES, &owners);
	if (ret > 0)
		SKIP(return, "no guest to grant pages for reading (DOMU)");
	ASSERT_EQ(0, ret)
		TH_LOG("no grants: %s", strerror(errno));

	self->want = pages_alloc(NPAGES);
	self->got = pages_alloc(NPAGES);
	ASSERT_NE(NULL, self->want);
	ASSERT_NE(NULL, self->got);
	if (owners) {
		fill_pages(owners, NPAGES, now_us());
		memcpy(self->want, owners, SIZE);
		munmap(owners, SIZE);
	}
	/* Check with Xen: a grant copy to such a page fails. */
	for (i = 0; i < NPAGES; i++) {
		ASSERT_EQ(0, grant_read(&self->g, i, self->got + i * PAGE));
		ASSERT_NE(0, grant_write(&self->g, i, self->got + i * PAGE))
			TH_LOG("grant %u is not read-only", self->g.ref[i]);
	}
	if (owners)
		ASSERT_EQ(0, memcmp(self->got, self->want, SIZE));
	memcpy(self->want, self->got, SIZE);

	self->waiting = count_waiting();
	ASSERT_EQ(0, grants_in_use(&self->g, 0, NPAGES));
	self->disk = disk_open(O_DIRECT);
	self->fd = gntdev_open();
	ASSERT_LE(0, self->disk);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(read_only)
{
	int i;

	close(self->disk);
	close(self->fd);
	EXPECT_LE(0, grants_wait_unused(&self->g, 2 * SOON_MS));
	EXPECT_TRUE(counter_returns(count_waiting, self->waiting));
	for (i = 0; i < self->g.n; i++) {
		EXPECT_EQ(0, grant_read(&self->g, i, self->got));
		EXPECT_EQ(0, memcmp(self->got, self->want + i * PAGE, PAGE))
			TH_LOG("page %d was changed", i);
	}
	grants_put(&self->g);
}

/* They can be mapped read-only, written to a disk, and pinned after munmap(). */
TEST_F(read_only, they_are_written_out_and_not_read_into)
{
	static const mover movers[] = { by_pread, by_aio, by_uring };
	unsigned int i;
	int p[2];
	char *addr;

	addr = gntdev_map(self->fd, &self->g, 0, NPAGES, PROT_READ, NULL);
	ASSERT_NE(MAP_FAILED, addr)
		TH_LOG("mmap: %s", strerror(errno));
	/* Before the pages are touched. */
	for (i = 0; i < ARRAY_SIZE(movers); i++) {
		memset(self->got, 0, SIZE);
		ASSERT_EQ(SIZE, pwrite(self->disk, self->got, SIZE, 0));
		EXPECT_EQ(SIZE, movers[i](self->disk, addr, SIZE, true));
		ASSERT_EQ(SIZE, pread(self->disk, self->got, SIZE, 0));
		EXPECT_EQ(0, memcmp(self->got, self->want, SIZE))
			TH_LOG("wrong bytes by mover %u", i);
		EXPECT_EQ(-EFAULT, movers[i](self->disk, addr, SIZE, false));
	}
	EXPECT_EQ(0, memcmp(addr, self->want, SIZE));
	EXPECT_EQ(SIGSEGV, touch(addr, true));

	ASSERT_EQ(0, pipe_pin(p, addr, SIZE));
	ASSERT_EQ(0, munmap(addr, SIZE));
	EXPECT_TRUE(pipe_has(p, self->want, SIZE));
}

/* Mapping them for writing fails in Xen, and leaves nothing behind. */
TEST_F(read_only, a_writable_mapping_is_refused)
{
	uint64_t index;
	char *addr;

	ASSERT_EQ(0, gntdev_add(self->fd, self->g.domid, self->g.ref, NPAGES, &index));
	addr = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, index);
	EXPECT_EQ(MAP_FAILED, addr);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_LE(0, grants_wait_unused(&self->g, AT_ONCE_MS));

	addr = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, self->fd, index);
	ASSERT_NE(MAP_FAILED, addr)
		TH_LOG("for reading, then: %s", strerror(errno));
	EXPECT_EQ(0, memcmp(addr, self->want, SIZE));
	EXPECT_EQ(0, munmap(addr, SIZE));
}

int main(int argc, char **argv)
{
	if (pool_init(4 * NPAGES))
		return KSFT_FAIL;
	return test_harness_run(argc, argv);
}
