// SPDX-License-Identifier: GPL-2.0-only
/*
 * Xen fails to unmap a granted page.
 *
 * What should happen
 *
 *   The page's contents are unknown, so it is retired: it is never used again,
 *   is counted in xen-grants/retired, and a line in the kernel log has the
 *   grant, its domain and Xen's status.  There are no other effects: munmap()
 *   and exit succeed, the other pages of the mapping are unmapped and reused,
 *   and the same grant can be mapped again, into another page.  It makes no
 *   difference whether the page was pinned when its mapping was removed.
 *
 * How the test makes it happen
 *
 *   It removes the kernel mapping of a page itself, by a hypercall through
 *   privcmd, so that the handle is invalid when the kernel tries to unmap the
 *   page.  The pfn is in pagemap, and gives the address in the direct map,
 *   which is not randomized in a PV domain.  The handle is found by trying: Xen
 *   accepts only that of the mapping of this frame at this address, and a
 *   failed attempt changes nothing.  The grants are another domain's, since for
 *   an own grant pagemap has the page that was granted.
 *
 *   To make Xen fail to remove the user mapping, which then stays in the page
 *   table, the test changes the write permission in that PTE: Xen unmaps only
 *   PTEs that it created itself.  A control domain may change the PTE by a
 *   hypercall.
 *
 *   From then on the kernel cannot access the page: no data may be read from a
 *   pipe that contains it.
 *
 *   Each run costs the machine 15 pages until the next boot, and the granting
 *   domain the two pages whose user mapping was not removed.
 *
 * What a failure means
 *
 *   A retired page is used again: its next user accesses an unmapped address
 *   (the kernel dies of a page fault), or a frame of another domain.  No line,
 *   or a wrong one: it is unknown which domain's grant was lost.  Other pages
 *   stay mapped: one bad page affects its neighbours.  "Bad page map" or "Bad
 *   rss-counter": the core mm found the PTE that Xen left.
 */
#include "gntdev_fixture.h"

#define BAD		3	/* the page that Xen refuses to unmap */
#define CYCLES		100
#define CYCLE_PAGES	32
#define TESTS		6
#define OF_USER		2	/* tests of a user's side */

#define GNTTABOP_UNMAP_GRANT_REF	1
#define GNTST_OKAY			0
#define GNTST_BAD_HANDLE		(-4)
/* The number of handles per domain, unless set on Xen's command line. */
#define HANDLES				(1024 * 256)
#define HANDLES_PER_CALL		128

/* Where the direct map of a PV domain starts. */
#define DIRECT_MAP	0xffff888000000000ULL

struct unmap_grant_ref {
	uint64_t host_addr;
	uint64_t dev_bus_addr;
	uint32_t handle;
	int16_t status;
};

/* Returns 0 if Xen has processed the ops; each op then has its status. */
static int unmap_grant_refs(struct unmap_grant_ref *op, int n)
{
	struct test_hypercall call = {
		.op = HYPERVISOR_GRANT_TABLE_OP,
		.arg = { GNTTABOP_UNMAP_GRANT_REF, (uintptr_t)op, n },
	};

	return ioctl(privcmd_fd(), TEST_PRIVCMD_HYPERCALL, &call);
}

/* Remove the kernel mapping of a page behind the kernel's back; 0 if done. */
static int unmap_behind_the_kernel(uint64_t pfn)
{
	struct unmap_grant_ref *op = pages_alloc(1);
	uint32_t handle, found = HANDLES;
	int i, ret = -1;

	/* Xen cannot fault pages in. */
	if (!op || mlock(op, PAGE))
		return -1;

	for (handle = 0; handle < HANDLES && found == HANDLES;
	     handle += HANDLES_PER_CALL) {
		for (i = 0; i < HANDLES_PER_CALL; i++) {
			op[i].host_addr = DIRECT_MAP + pfn * PAGE;
			op[i].dev_bus_addr = 0;
			op[i].handle = handle + i;
			op[i].status = GNTST_BAD_HANDLE;
		}
		if (unmap_grant_refs(op, HANDLES_PER_CALL))
			break;
		for (i = 0; i < HANDLES_PER_CALL; i++) {
			if (op[i].status == GNTST_OKAY)
				found = op[i].handle;
		}
	}

	/* The status that the kernel is going to get. */
	if (found != HANDLES) {
		op->handle = found;
		op->status = GNTST_OKAY;
		if (!unmap_grant_refs(op, 1) && op->status == GNTST_BAD_HANDLE)
			ret = 0;
	}
	munmap(op, PAGE);
	return ret;
}

#define UPDATE_VA_MAPPING_OTHERDOMAIN	22
#define UVMF_INVLPG_ALL			(2 | 4)
#define PTE_READ_ONLY			0x25	/* present, user, accessed */

/*
 * Replace the PTE of grant i at addr by a read-only one, with the hypercall for
 * PTEs of this process.  The frame is in the grant table that grant_in_use()
 * reads.
 */
static int spoil_pte(struct grants *g, int i, char *addr)
{
	struct test_hypercall call = {
		.op = UPDATE_VA_MAPPING_OTHERDOMAIN,
		.arg = { (uintptr_t)addr, 0, UVMF_INVLPG_ALL, g->domid },
	};
	uint64_t frame = grant_frame(g, i);

	if (!frame)
		return -1;
	call.arg[1] = frame * PAGE + PTE_READ_ONLY;
	return ioctl(privcmd_fd(), TEST_PRIVCMD_HYPERCALL, &call);
}

/* ------------------------------------------------------------------ */
/* The kernel's log */

#define REFUSED		"Xen failed to unmap"

struct refusal {
	unsigned int ref;
	unsigned int domid;
	int status;
};

/* The next line about a page that Xen failed to unmap; false if none. */
static bool log_next(int fd, struct refusal *r)
{
	char record[8192];
	ssize_t n;

	for (;;) {
		char *text;

		n = read(fd, record, sizeof(record) - 1);
		/* EPIPE: lines were lost; the next read skips them. */
		if (n < 0 && errno == EPIPE)
			continue;
		if (n <= 0)
			return false;
		record[n] = 0;
		text = strstr(record, REFUSED);
		if (!text)
			continue;
		/* An incomplete line counts as one about no grant. */
		if (sscanf(text, REFUSED " grant %u of domain %u (status %d)",
			   &r->ref, &r->domid, &r->status) != 3 ||
		    !strstr(text, "): page retired\n"))
			memset(r, 0xff, sizeof(*r));
		return true;
	}
}

/* The same, but wait a moment for the line. */
static bool log_wait(int fd, struct refusal *r)
{
	uint64_t start = now_us();

	while (!log_next(fd, r)) {
		if (now_us() - start > SOON_MS * 1000ULL)
			return false;
		sleep_ms(1);
	}
	return true;
}

/* ------------------------------------------------------------------ */

FIXTURE(retire) {
	struct situation s;
	int slot[NPAGES];
	int log;
	long tainted;
};

FIXTURE_SETUP(retire)
{
	struct situation *s = &self->s;

	ASSERT_LE(0, count_retired())
		TH_LOG("this kernel does not count the pages it retires");
	/* Only a PV domain has a direct map of grants, and entries. */
	if (!override_enabled() || count_entries() < 0)
		SKIP(return, "pagemap needs the M2P override (m2p_override.enable)");

	situation_setup(_metadata, s, GRANTS_FOREIGN);
	if (s->fd < 0)
		return;

	memcpy(self->slot, s->g.slot, sizeof(self->slot));
	self->tainted = read_number("/proc/sys/kernel/tainted");
	self->log = log_open();
	ASSERT_LE(0, self->log);
}

FIXTURE_TEARDOWN(retire)
{
	struct refusal r;
	int i;

	/* Each test sets ->retired to the expected number. */
	situation_teardown(_metadata, &self->s);
	EXPECT_FALSE(log_next(self->log, &r))
		TH_LOG("one more line, about grant %u", r.ref);
	EXPECT_EQ(self->tainted, read_number("/proc/sys/kernel/tainted"));
	close(self->log);

	/* For the next mapping of these grants pagemap has the retired page. */
	for (i = 0; i < NPAGES; i++)
		grant_pool->state[self->slot[i]] = POOL_LOST;
}

/* Map all pages, so that the kernel will fail to unmap page i. */
static void spoil(struct __test_metadata *_metadata, struct situation *s, int i)
{
	uint64_t pfn = pfn_of(s->addr + i * PAGE);

	ASSERT_NE(0, pfn);
	ASSERT_EQ(0, unmap_behind_the_kernel(pfn))
		TH_LOG("no handle for page %llx", (unsigned long long)pfn);
}

/* Expect that one more page, page i, is retired; only its override is left. */
static void expect_retired(struct __test_metadata *_metadata,
			   struct situation *s, int i, int log)
{
	struct refusal r = { 0 };

	s->retired++;
	s->entries++;
	EXPECT_TRUE(log_wait(log, &r))
		TH_LOG("no line in the log");
	EXPECT_EQ(s->g.ref[i], r.ref);
	EXPECT_EQ(s->g.domid, r.domid);
	EXPECT_EQ(GNTST_BAD_HANDLE, r.status);
}

/* Without other references, the page is retired when munmap() returns. */
TEST_F(retire, munmap_retires_a_page_that_xen_refuses)
{
	struct situation *s = &self->s;
	char *where;

	where = situation_map(s, PROT_READ | PROT_WRITE);
	ASSERT_NE(MAP_FAILED, where);
	spoil(_metadata, s, BAD);
	/* The user mapping is unchanged. */
	EXPECT_TRUE(mapping_shows(s, s->addr, 0, NPAGES));
	EXPECT_EQ(s->retired, count_retired());

	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_EQ(s->retired + 1, count_retired());
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	EXPECT_EQ(SIGSEGV, touch(where + BAD * PAGE, false));
	EXPECT_TRUE(pages_wait(s, 0));
	expect_retired(_metadata, s, BAD, self->log);
}

/* If the page is pinned, it waits, and is retired by the worker. */
TEST_F(retire, the_worker_retires_a_page_that_xen_refuses)
{
	struct situation *s = &self->s;
	struct refusal r;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, pipe_pin(p, s->addr + BAD * PAGE, PAGE));
	spoil(_metadata, s, BAD);

	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	sleep_ms(200);
	EXPECT_TRUE(pages_wait(s, 1));
	EXPECT_EQ(s->retired, count_retired());
	EXPECT_FALSE(log_next(self->log, &r));

	pipe_close(p);
	EXPECT_TRUE(counter_returns(count_retired, s->retired + 1));
	EXPECT_TRUE(counter_returns(count_waiting, s->waiting));
	expect_retired(_metadata, s, BAD, self->log);
}

/* The process is killed, and exits like any other. */
TEST_F(retire, exit_retires_a_page_that_xen_refuses)
{
	struct situation *s = &self->s;
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (situation_map(s, PROT_READ | PROT_WRITE) == MAP_FAILED)
			_exit(2);
		if (unmap_behind_the_kernel(pfn_of(s->addr + BAD * PAGE)))
			_exit(3);
		raise(SIGKILL);
	}
	status = wait_child(pid, 5000);
	ASSERT_TRUE(WIFSIGNALED(status))
		TH_LOG("status %x", status);
	EXPECT_EQ(SIGKILL, WTERMSIG(status));
	EXPECT_EQ(s->retired + 1, count_retired());
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	expect_retired(_metadata, s, BAD, self->log);
}

/* All pages of a mapping: each has a line of its own. */
TEST_F(retire, every_refused_page_is_named)
{
	struct situation *s = &self->s;
	long before = s->retired;
	int i;

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (i = 0; i < NPAGES; i++)
		spoil(_metadata, s, i);
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_EQ(before + NPAGES, count_retired());
	EXPECT_EQ(0, grants_in_use(&s->g, 0, NPAGES));
	for (i = 0; i < NPAGES; i++)
		expect_retired(_metadata, s, i, self->log);
}

/*
 * The grant still works.  Its frame still translates to the retired page, which
 * must not be mistaken for the page that maps it now.
 */
TEST_F(retire, the_grant_can_be_mapped_into_another_page)
{
	struct situation *s = &self->s;
	int p[2];

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	spoil(_metadata, s, BAD);
	ASSERT_EQ(0, situation_unmap(s));
	expect_retired(_metadata, s, BAD, self->log);

	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	EXPECT_TRUE(mapping_works(s, s->addr, 0, NPAGES));
	ASSERT_EQ(0, pipe_pin(p, s->addr, SIZE));
	ASSERT_EQ(0, situation_unmap(s));
	EXPECT_TRUE(pipe_has(p, s->want, SIZE));
	EXPECT_LE(0, grants_wait_unused(&s->g, SOON_MS));
}

/*
 * Pages are reused in reverse order, so a retired one would be among the first.
 * The reuse of its neighbours confirms the order.
 */
TEST_F(retire, a_retired_page_is_never_used_again)
{
	struct situation *s = &self->s;
	bool seen[NPAGES] = { false };
	uint64_t pfn[NPAGES], index;
	struct grants more;
	int i, j, n, again = 0;

	ASSERT_EQ(0, grants_get(&more, GRANTS_FOREIGN, CYCLE_PAGES));
	ASSERT_EQ(0, grants_in_use(&more, 0, CYCLE_PAGES));
	ASSERT_NE(MAP_FAILED, situation_map(s, PROT_READ | PROT_WRITE));
	for (i = 0; i < NPAGES; i++) {
		pfn[i] = pfn_of(s->addr + i * PAGE);
		ASSERT_NE(0, pfn[i]);
	}
	spoil(_metadata, s, BAD);
	ASSERT_EQ(0, situation_unmap(s));
	expect_retired(_metadata, s, BAD, self->log);
	/* The map object owns the pages until it is freed. */
	ASSERT_EQ(0, gntdev_del(s->fd, s->index, NPAGES));

	/* The pages are freed a grace period after the map, or later. */
	for (n = 0; n < CYCLES || (!again && n < 50 * CYCLES); n++) {
		char *p = gntdev_map(s->fd, &more, 0, CYCLE_PAGES,
				     PROT_READ | PROT_WRITE, &index);

		ASSERT_NE(MAP_FAILED, p)
			TH_LOG("cycle %d: %s", n, strerror(errno));
		for (i = 0; i < CYCLE_PAGES; i++) {
			uint64_t now = pfn_of(p + i * PAGE);

			ASSERT_NE(0, now);
			ASSERT_EQ(0, touch(p + i * PAGE, true));
			for (j = 0; j < NPAGES; j++)
				seen[j] |= now == pfn[j];
		}
		ASSERT_EQ(0, munmap(p, CYCLE_PAGES * PAGE));
		ASSERT_EQ(0, gntdev_del(s->fd, index, CYCLE_PAGES));

		for (again = 0, j = 0; j < NPAGES; j++)
			again += j != BAD && seen[j];
	}

	EXPECT_FALSE(seen[BAD]);
	EXPECT_LT(0, again)
		TH_LOG("no page is reused at all, so this test proves nothing");
	EXPECT_LE(0, grants_wait_unused(&more, SOON_MS));
	grants_put(&more);
}

/* ------------------------------------------------------------------ */
/*
 * Xen fails to remove the user mapping, and the PTE is still there: the kernel
 * clears it, so that the core mm does not treat it as a page of a file.
 */

FIXTURE(user_side) {
	struct grants g;
	long retired, tainted;
	int fd, log;
};

FIXTURE_SETUP(user_side)
{
	int ret;

	self->fd = -1;
	self->log = -1;
	ASSERT_LE(0, count_retired())
		TH_LOG("this kernel does not count the pages it retires");
	ret = grants_get(&self->g, GRANTS_FOREIGN, NPAGES);
	if (ret > 0 || !in_control_domain())
		SKIP(return, "not a control domain with another one's grants");
	ASSERT_EQ(0, ret);
	self->retired = count_retired();
	self->tainted = read_number("/proc/sys/kernel/tainted");
	self->log = log_open();
	ASSERT_LE(0, self->log);
	self->fd = gntdev_open();
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(user_side)
{
	struct refusal r = { 0 };

	EXPECT_EQ(self->retired + 1, count_retired());
	EXPECT_TRUE(log_wait(self->log, &r))
		TH_LOG("no line in the log");
	EXPECT_EQ(self->g.ref[BAD], r.ref);
	EXPECT_EQ(self->g.domid, r.domid);
	EXPECT_FALSE(log_next(self->log, &r))
		TH_LOG("one more line, about grant %u", r.ref);
	EXPECT_EQ(self->tainted, read_number("/proc/sys/kernel/tainted"))
		TH_LOG("the core mm complained about the PTE");
	/* Its grant stays in use, since Xen has not unmapped it. */
	EXPECT_EQ(0, grants_in_use(&self->g, 0, BAD));
	EXPECT_EQ(1, grant_in_use(&self->g, BAD));
	EXPECT_EQ(0, grants_in_use(&self->g, BAD + 1, NPAGES - BAD - 1));
	close(self->fd);
	close(self->log);
	grants_put(&self->g);
}

TEST_F(user_side, munmap_leaves_no_pte_that_xen_refuses_to_unmap)
{
	char *addr = gntdev_map(self->fd, &self->g, 0, NPAGES, PROT_READ | PROT_WRITE,
				NULL);

	ASSERT_NE(MAP_FAILED, addr);
	ASSERT_EQ(0, spoil_pte(&self->g, BAD, addr + BAD * PAGE))
		TH_LOG("Xen did not change the PTE: %s", strerror(errno));
	ASSERT_EQ(0, touch(addr + BAD * PAGE, false));
	EXPECT_EQ(0, munmap(addr, SIZE));
	EXPECT_EQ(SIGSEGV, touch(addr + BAD * PAGE, false));
}

TEST_F(user_side, exit_leaves_no_pte_that_xen_refuses_to_unmap)
{
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		char *addr = gntdev_map(gntdev_open(), &self->g, 0, NPAGES,
					PROT_READ | PROT_WRITE, NULL);

		_exit(addr == MAP_FAILED ||
		      spoil_pte(&self->g, BAD, addr + BAD * PAGE));
	}
	status = wait_child(pid, 5000);
	EXPECT_EQ(0, status);
}

int main(int argc, char **argv)
{
	if (pool_init((TESTS + OF_USER) * NPAGES + CYCLE_PAGES))
		return KSFT_FAIL;
	return test_harness_run(argc, argv);
}
