// SPDX-License-Identifier: GPL-2.0-only
/*
 * Another domain's pages as a dma-buf.
 *
 * What should happen
 *
 *   IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS maps grants into pages and returns a
 *   dma-buf of them, in an auto-translated domain; in a PV domain it fails with
 *   EOPNOTSUPP.  The grants are mapped until the last file descriptor of the
 *   dma-buf is closed, which an ioctl can wait for, even if the gntdev file was
 *   closed long before.  The pages are either ordinary ones of gntdev or a
 *   buffer that is accessible to a device.
 *
 * How the test makes it happen
 *
 *   It exports another domain's grants and checks them from outside where
 *   possible: when run in a guest, the caller must check that no grant is
 *   mapped in the end.  Each grant is mapped again, and shows the same bytes.
 *
 * What a failure means
 *
 *   gntdev-dmabuf.c uses a map object of gntdev without a VMA: some code relies
 *   on a map having one.
 */
#include "gntdev_fixture.h"

FIXTURE(dmabuf) {
	struct situation s;
};

FIXTURE_VARIANT(dmabuf) {
	uint32_t flags;
};

FIXTURE_VARIANT_ADD(dmabuf, pages) {
	.flags = 0,
};

FIXTURE_VARIANT_ADD(dmabuf, write_combining) {
	.flags = GNTDEV_DMA_FLAG_WC,
};

FIXTURE_VARIANT_ADD(dmabuf, coherent) {
	.flags = GNTDEV_DMA_FLAG_COHERENT,
};

FIXTURE_SETUP(dmabuf)
{
	situation_setup(_metadata, &self->s, GRANTS_FOREIGN);
}

FIXTURE_TEARDOWN(dmabuf)
{
	situation_teardown(_metadata, &self->s);
}

/* The file descriptor of a dma-buf, or -1 with errno. */
static int export(struct situation *s, const uint32_t *ref, uint32_t flags)
{
	union {
		struct ioctl_gntdev_dmabuf_exp_from_refs op;
		char room[sizeof(struct ioctl_gntdev_dmabuf_exp_from_refs) +
			  NPAGES * sizeof(uint32_t)];
	} u = {
		.op = { .flags = flags, .count = NPAGES, .domid = s->g.domid },
	};

	memcpy(u.op.refs, ref, NPAGES * sizeof(uint32_t));
	if (ioctl(s->fd, IOCTL_GNTDEV_DMABUF_EXP_FROM_REFS, &u.op))
		return -1;
	return u.op.fd;
}

static int wait_released(struct situation *s, int buf, uint32_t ms)
{
	struct ioctl_gntdev_dmabuf_exp_wait_released op = {
		.fd = buf,
		.wait_to_ms = ms,
	};

	return ioctl(s->fd, IOCTL_GNTDEV_DMABUF_EXP_WAIT_RELEASED, &op);
}

TEST_F(dmabuf, grants_are_mapped_until_it_is_closed)
{
	struct situation *s = &self->s;
	int i, buf, more;

	for (i = 0; i < 3; i++) {
		buf = export(s, s->g.ref, variant->flags);
		ASSERT_LE(0, buf)
			TH_LOG("%s", strerror(errno));
		EXPECT_EQ(NPAGES * PAGE, lseek(buf, 0, SEEK_END));
		EXPECT_EQ(-1, wait_released(s, buf, 50));
		EXPECT_EQ(ETIMEDOUT, errno);
		more = dup(buf);
		EXPECT_EQ(0, close(buf));
		EXPECT_EQ(-1, wait_released(s, buf, 50));
		EXPECT_EQ(ETIMEDOUT, errno);
		EXPECT_EQ(0, close(more));
		/* It is released, or was some time ago. */
		if (wait_released(s, buf, SOON_MS))
			EXPECT_EQ(ENOENT, errno);
	}
}

TEST_F(dmabuf, it_outlives_the_file_of_gntdev)
{
	struct situation *s = &self->s;
	int buf;

	buf = export(s, s->g.ref, variant->flags);
	ASSERT_LE(0, buf)
		TH_LOG("%s", strerror(errno));
	EXPECT_EQ(0, close(s->fd));
	sleep_ms(50);
	EXPECT_EQ(NPAGES * PAGE, lseek(buf, 0, SEEK_END));
	EXPECT_EQ(0, close(buf));
	s->fd = gntdev_open();
}

/* The map used to have an offset, so that mmap() and the ioctl could use it. */
TEST_F(dmabuf, nobody_gets_at_its_map_by_an_offset)
{
	struct situation *s = &self->s;
	int buf;

	buf = export(s, s->g.ref, variant->flags);
	ASSERT_LE(0, buf)
		TH_LOG("%s", strerror(errno));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, NPAGES * PAGE, PROT_READ, MAP_SHARED, s->fd, 0));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, gntdev_del(s->fd, 0, NPAGES));
	EXPECT_EQ(ENOENT, errno);
	EXPECT_EQ(NPAGES * PAGE, lseek(buf, 0, SEEK_END));
	EXPECT_EQ(0, close(buf));
}

TEST_F(dmabuf, a_wait_without_memory_holds_no_reference)
{
	struct situation *s = &self->s;
	int buf, nth;

	nth = open("/proc/thread-self/fail-nth", O_WRONLY);
	if (nth < 0 || write_string(DEBUGFS "/failslab/ignore-gfp-wait", "N") ||
	    write_string(DEBUGFS "/failslab/verbose", "0"))
		SKIP(return, "no CONFIG_FAILSLAB, or no debugfs");
	buf = export(s, s->g.ref, variant->flags);
	ASSERT_LE(0, buf)
		TH_LOG("%s", strerror(errno));
	ASSERT_EQ(1, write(nth, "1", 1));
	EXPECT_EQ(-1, wait_released(s, buf, 50));
	EXPECT_EQ(ENOMEM, errno);
	close(nth);
	EXPECT_EQ(0, close(buf));
	/* It is released, or was some time ago. */
	if (wait_released(s, buf, SOON_MS))
		EXPECT_EQ(ENOENT, errno);
}

TEST_F(dmabuf, a_bad_ref_maps_nothing)
{
	struct situation *s = &self->s;
	uint32_t ref[NPAGES];
	int i;

	for (i = 0; i < NPAGES; i += NPAGES - 1) {
		memcpy(ref, s->g.ref, sizeof(ref));
		ref[i] = 0x3fffff;
		EXPECT_EQ(-1, export(s, ref, variant->flags));
		EXPECT_EQ(EINVAL, errno);
	}
}

TEST_F(dmabuf, a_process_that_dies_leaves_nothing)
{
	struct situation *s = &self->s;
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (export(s, s->g.ref, variant->flags) < 0)
			_exit(1);
		raise(SIGKILL);
	}
	status = wait_child(pid, 5000);
	EXPECT_TRUE(WIFSIGNALED(status));
}

int main(int argc, char **argv)
{
	if (pool_init(8 * NPAGES))
		return KSFT_FAIL;
	return test_harness_run(argc, argv);
}
