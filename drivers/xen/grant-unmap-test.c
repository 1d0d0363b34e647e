// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of how a backend's pages, and those of buffers, are unmapped while
 * they are referenced, and of the state in which a page is returned to the
 * allocator.
 *
 * They run at boot in dom0, which maps its own grants.  A failure means that a
 * backend's I/O could continue in memory that has a new owner, that a guest
 * never gets its pages back, or that a page looks foreign to its next user.
 */

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/slab.h>

#include <xen/grant_table.h>
#include <xen/grant_unmap.h>
#include <xen/page.h>
#include <xen/xen.h>

/* Longer than a page counts as young, even if a jiffy is 10 ms. */
#define LONG_MS		1000
/* Not guaranteed, but more than the worker needs on any machine. */
#define SOON_MS		5000
/* The requests of 64 disks with a ring of 32 each. */
#define MANY_REQUESTS	(64 * 32)

/* A granted page, and the page that it is mapped into. */
struct mapping {
	struct page *granted, *page;
	grant_ref_t ref;
	struct gnttab_unmap_grant_ref op;
	struct gntab_unmap_queue_data item;
	struct completion done;
	int result;
};

static void mapping_is_unmapped(int result, struct gntab_unmap_queue_data *item)
{
	struct mapping *m = item->data;

	m->result = result;
	complete(&m->done);
}

static struct mapping *new_mapping(struct kunit *test)
{
	/* Not kunit_kzalloc(): after a failure the worker still uses it. */
	struct mapping *m = kzalloc(sizeof(*m), GFP_KERNEL);
	struct gnttab_map_grant_ref op;
	unsigned long addr;
	int ref;

	KUNIT_ASSERT_NOT_NULL(test, m);
	m->granted = alloc_page(GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, m->granted);
	ref = gnttab_grant_foreign_access(0, xen_page_to_gfn(m->granted), 0);
	KUNIT_ASSERT_GE(test, ref, 0);
	m->ref = ref;

	KUNIT_ASSERT_EQ(test, gnttab_alloc_pages(1, &m->page), 0);
	addr = (unsigned long)pfn_to_kaddr(page_to_pfn(m->page));
	gnttab_set_map_op(&op, addr, GNTMAP_host_map, m->ref, 0);
	KUNIT_ASSERT_EQ(test, gnttab_map_refs(&op, NULL, &m->page, 1), 0);
	KUNIT_ASSERT_EQ(test, op.status, GNTST_okay);

	gnttab_set_unmap_op(&m->op, addr, GNTMAP_host_map, op.handle);
	init_completion(&m->done);
	m->item = (struct gntab_unmap_queue_data){
		.data = m,
		.done = mapping_is_unmapped,
		.unmap_ops = &m->op,
		.pages = &m->page,
		.count = 1,
	};

	return m;
}

/* Wait for a mapping to be unmapped, and free it.  Leaks it on a timeout. */
static void expect_unmapped(struct kunit *test, struct mapping *m)
{
	unsigned long left;

	left = wait_for_completion_timeout(&m->done, msecs_to_jiffies(SOON_MS));
	KUNIT_ASSERT_NE_MSG(test, left, 0UL, "not unmapped after %d ms", SOON_MS);
	KUNIT_EXPECT_EQ(test, m->result, 0);
	KUNIT_EXPECT_EQ(test, page_count(m->page), 1);

	gnttab_free_pages(1, &m->page);
	gnttab_end_foreign_access(m->ref, m->granted);
	kfree(m);
}

static void a_page_that_nobody_holds_is_unmapped_at_once(struct kunit *test)
{
	struct mapping *m = new_mapping(test);

	gnttab_unmap_refs_async(&m->item);
	KUNIT_EXPECT_TRUE(test, completion_done(&m->done));
	expect_unmapped(test, m);
}

/* The second unmap fails, and its caller, which waits, gets the error. */
static void a_caller_that_waits_gets_the_result(struct kunit *test)
{
	struct mapping *m = new_mapping(test);

	gnttab_unmap_refs_async(&m->item);
	KUNIT_EXPECT_EQ(test, gnttab_unmap_refs_sync(&m->item), -EINVAL);
	expect_unmapped(test, m);
}

static void held_for(struct kunit *test, unsigned int ms)
{
	struct mapping *m = new_mapping(test);

	get_page(m->page);
	gnttab_unmap_refs_async(&m->item);
	msleep(ms);
	KUNIT_EXPECT_FALSE(test, completion_done(&m->done));
	/* It stays mapped while it is referenced. */
	KUNIT_EXPECT_TRUE(test, PageForeign(m->page));

	put_page(m->page);
	expect_unmapped(test, m);
}

static void a_held_page_is_unmapped_when_it_is_let_go(struct kunit *test)
{
	held_for(test, 20);
}

static void a_page_held_for_long_is_unmapped_all_the_same(struct kunit *test)
{
	held_for(test, LONG_MS);
}

static void a_held_page_delays_no_other_request(struct kunit *test)
{
	struct mapping *held = new_mapping(test);
	struct mapping *free = new_mapping(test);

	get_page(held->page);
	get_page(free->page);
	gnttab_unmap_refs_async(&held->item);
	gnttab_unmap_refs_async(&free->item);
	msleep(LONG_MS);

	put_page(free->page);
	expect_unmapped(test, free);
	KUNIT_EXPECT_FALSE(test, completion_done(&held->done));

	put_page(held->page);
	expect_unmapped(test, held);
}

/* A mapping like those of gntdev, without a user mapping. */
struct owned_mapping {
	struct mapping *m;
	struct granted_page gpage;
	struct granted_page_owner owner;
	int count_when_idle;
	u64 idle_at;
};

static void owned_mapping_idle(struct granted_page_owner *owner)
{
	struct owned_mapping *o = container_of(owner, struct owned_mapping, owner);

	o->count_when_idle = page_count(o->m->page);
	o->idle_at = ktime_get_ns();
}

static void owned_mapping_free(struct granted_page_owner *owner)
{
	struct owned_mapping *o = container_of(owner, struct owned_mapping, owner);

	granted_pages_release(&o->gpage, 1);
	complete(&o->m->done);
}

static struct owned_mapping *new_owned_mapping(struct kunit *test)
{
	/* See new_mapping(). */
	struct owned_mapping *o = kzalloc(sizeof(*o), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, o);
	o->m = new_mapping(test);
	o->gpage = (struct granted_page){
		.page = o->m->page,
		.owner = &o->owner,
		.handle = o->m->op.handle,
		.state = GRANTED_PAGE_KERNEL,
	};
	granted_page_init_owner(&o->owner, THIS_MODULE, owned_mapping_idle,
				owned_mapping_free);
	refcount_inc(&o->owner.live);

	return o;
}

/*
 * Check that the page is in the state that it had before it was mapped, since
 * gnttab_alloc_pages() does not reset it.  Returns the time, in ns, at which it
 * was unmapped.
 */
static u64 expect_owned_unmapped(struct kunit *test, struct owned_mapping *o)
{
	unsigned long left;
	u64 idle_at;

	left = wait_for_completion_timeout(&o->m->done, msecs_to_jiffies(SOON_MS));
	KUNIT_ASSERT_NE_MSG(test, left, 0UL, "not unmapped after %d ms", SOON_MS);
	idle_at = o->idle_at;
	/* Lockless walkers cannot reference it during the grace period. */
	KUNIT_EXPECT_EQ(test, o->count_when_idle, 0);
	KUNIT_EXPECT_EQ(test, o->gpage.state, GRANTED_PAGE_NONE);
	KUNIT_EXPECT_FALSE(test, PageForeign(o->m->page));
	/* For expect_unmapped(). */
	complete(&o->m->done);
	expect_unmapped(test, o->m);
	kfree(o);

	return idle_at;
}

static void an_unmapped_page_is_not_foreign(struct kunit *test)
{
	struct owned_mapping *o = new_owned_mapping(test);

	KUNIT_EXPECT_TRUE(test, PageForeign(o->m->page));
	granted_pages_unmap(&o->gpage, 1);
	granted_page_put_owner(&o->owner, 1);
	expect_owned_unmapped(test, o);
}

static void a_page_that_was_held_is_not_foreign(struct kunit *test)
{
	struct owned_mapping *o = new_owned_mapping(test);

	get_page(o->m->page);
	granted_pages_unmap(&o->gpage, 1);
	granted_page_put_owner(&o->owner, 1);
	msleep(20);
	/* A referenced page must stay foreign, e.g. for a grant copy. */
	KUNIT_EXPECT_FALSE(test, completion_done(&o->m->done));
	KUNIT_EXPECT_TRUE(test, PageForeign(o->m->page));

	put_page(o->m->page);
	expect_owned_unmapped(test, o);
}

/* Return the time, in us, to unmap a page together with @count requests. */
static u64 us_to_unmap_with(struct kunit *test, struct mapping **held,
			    unsigned int count)
{
	struct owned_mapping *o = new_owned_mapping(test);
	u64 released_at;
	unsigned int i;

	get_page(o->m->page);
	granted_pages_unmap(&o->gpage, 1);
	granted_page_put_owner(&o->owner, 1);

	for (i = 0; i < count; i++)
		put_page(held[i]->page);
	put_page(o->m->page);

	released_at = ktime_get_ns();

	return (expect_owned_unmapped(test, o) - released_at) / NSEC_PER_USEC;
}

/*
 * All requests of many disks wait, as if network storage stalls.  A page of
 * gntdev is released, first alone and then together with the requests.
 */
static void requests_that_wait_do_not_delay_a_page(struct kunit *test)
{
	u64 alone, together;
	struct mapping **held;
	unsigned int i;

	held = kunit_kmalloc_array(test, MANY_REQUESTS, sizeof(*held), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, held);
	for (i = 0; i < MANY_REQUESTS; i++) {
		held[i] = new_mapping(test);
		get_page(held[i]->page);
		gnttab_unmap_refs_async(&held[i]->item);
	}

	alone = us_to_unmap_with(test, held, 0);
	KUNIT_EXPECT_FALSE(test, completion_done(&held[0]->done));
	together = us_to_unmap_with(test, held, MANY_REQUESTS);
	kunit_info(test, "unmapped after %llu us, with all requests after %llu us",
		   alone, together);
	KUNIT_EXPECT_LT(test, alone, 10 * LONG_MS * USEC_PER_MSEC);
	KUNIT_EXPECT_LT(test, together, 10 * LONG_MS * USEC_PER_MSEC);

	for (i = 0; i < MANY_REQUESTS; i++)
		expect_unmapped(test, held[i]);
}

#define BUFFER_PAGES	3

/* A buffer of three pages, one of which has another reference. */
struct test_buffer {
	struct mapping *m[BUFFER_PAGES];
	struct granted_buffer *buffer;
};

static void new_test_buffer(struct kunit *test, struct test_buffer *b)
{
	unsigned int i;

	b->buffer = granted_buffer_alloc(BUFFER_PAGES);
	KUNIT_ASSERT_NOT_NULL(test, b->buffer);
	for (i = 0; i < BUFFER_PAGES; i++) {
		b->m[i] = new_mapping(test);
		b->buffer->pages[i] = b->m[i]->page;
		b->buffer->handles[i] = b->m[i]->op.handle;
	}
	get_page(b->m[1]->page);
}

/* The granting side can take the page back only if it is not mapped. */
static bool taken_back(struct mapping *m, unsigned int limit_ms)
{
	while (!gnttab_try_end_foreign_access(m->ref)) {
		if (!limit_ms--)
			return false;
		usleep_range(1000, 2000);
	}

	__free_page(m->granted);
	kfree(m);
	return true;
}

static void expect_buffer_unmapped(struct kunit *test, struct test_buffer *b,
				   unsigned int limit_ms)
{
	struct page *page = b->m[1]->page;

	KUNIT_EXPECT_TRUE(test, taken_back(b->m[0], limit_ms));
	KUNIT_EXPECT_TRUE(test, taken_back(b->m[2], limit_ms));
	msleep(20);
	KUNIT_EXPECT_TRUE(test, PageForeign(page));
	KUNIT_ASSERT_FALSE(test, gnttab_try_end_foreign_access(b->m[1]->ref));

	put_page(page);
	KUNIT_EXPECT_TRUE(test, taken_back(b->m[1], SOON_MS));
	KUNIT_EXPECT_FALSE(test, PageForeign(page));
	KUNIT_EXPECT_EQ(test, page_count(page), 1);
}

static void a_held_page_of_a_buffer_delays_no_other(struct kunit *test)
{
	struct granted_buffer_batch batch;
	struct test_buffer held, free;

	new_test_buffer(test, &held);
	new_test_buffer(test, &free);
	put_page(free.m[1]->page);

	granted_buffers_begin(&batch);
	granted_buffer_release(held.buffer);
	granted_buffer_release(free.buffer);
	KUNIT_EXPECT_TRUE(test, PageForeign(free.m[1]->page));
	KUNIT_EXPECT_EQ(test, granted_buffers_end(&batch), 1);

	KUNIT_EXPECT_TRUE(test, taken_back(free.m[0], 0));
	KUNIT_EXPECT_TRUE(test, taken_back(free.m[1], 0));
	KUNIT_EXPECT_TRUE(test, taken_back(free.m[2], 0));
	expect_buffer_unmapped(test, &held, 0);
}

static void a_buffer_is_unmapped_by_the_work_item(struct kunit *test)
{
	struct test_buffer b;

	new_test_buffer(test, &b);
	granted_buffer_release(b.buffer);
	expect_buffer_unmapped(test, &b, SOON_MS);
}

static int grant_unmap_test_init(struct kunit *test)
{
	if (!xen_pv_domain() || !xen_initial_domain())
		kunit_skip(test, "not dom0, or not a Xen PV domain");

	return 0;
}

static struct kunit_case grant_unmap_test_cases[] = {
	KUNIT_CASE(a_page_that_nobody_holds_is_unmapped_at_once),
	KUNIT_CASE(a_caller_that_waits_gets_the_result),
	KUNIT_CASE(a_held_page_is_unmapped_when_it_is_let_go),
	KUNIT_CASE(a_page_held_for_long_is_unmapped_all_the_same),
	KUNIT_CASE(a_held_page_delays_no_other_request),
	KUNIT_CASE(an_unmapped_page_is_not_foreign),
	KUNIT_CASE(a_page_that_was_held_is_not_foreign),
	KUNIT_CASE(requests_that_wait_do_not_delay_a_page),
	KUNIT_CASE(a_held_page_of_a_buffer_delays_no_other),
	KUNIT_CASE(a_buffer_is_unmapped_by_the_work_item),
	{}
};

static struct kunit_suite grant_unmap_test_suite = {
	.name = "xen-grant-unmap",
	.init = grant_unmap_test_init,
	.test_cases = grant_unmap_test_cases,
};

kunit_test_suite(grant_unmap_test_suite);

MODULE_DESCRIPTION("KUnit tests of how Xen grants are unmapped");
MODULE_LICENSE("GPL");
