// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the M2P override.
 *
 * They run at boot, on frames that belong to Xen or have no owner, so that no
 * other domain can grant them in the meantime.  A failure means that a user PTE
 * could be translated to the wrong page or to none.
 */

#include <kunit/test.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/sizes.h>

#include <xen/grant_table.h>
#include <xen/interface/xen.h>
#include <xen/interface/memory.h>
#include <xen/xen.h>

#include <asm/xen/hypercall.h>
#include <asm/xen/m2p-override.h>
#include <asm/xen/page.h>

#define NR_MANY	3000

static unsigned int fill;
module_param(fill, uint, 0444);
MODULE_PARM_DESC(fill, "Leave this many entries behind, to measure with a full table (default: 0)");

/* Frames that do not belong to this domain. */
static unsigned long mfns[NR_MANY];
#define some_mfn	(mfns[0])

/* Pages to map frames into; no takeover of an entry while p2m has its frame. */
static struct page *pages[2];

static unsigned long map_page(unsigned int i, unsigned long p2m_entry)
{
	unsigned long pfn = page_to_pfn(pages[i]);

	WRITE_ONCE(xen_p2m_addr[pfn], p2m_entry);
	return pfn;
}

static unsigned int find_foreign_frames(void)
{
	long mfn = HYPERVISOR_memory_op(XENMEM_maximum_ram_page, NULL);
	unsigned int n = 0;

	for (; mfn > 0 && n < NR_MANY; mfn--)
		if (mfn_to_pfn(mfn) == ~0UL)
			mfns[n++] = mfn;

	return n;
}

static int m2p_override_test_init(struct kunit *test)
{
	if (!xen_pv_domain())
		kunit_skip(test, "not a Xen PV domain");

	m2p_override_prepare();
	if (!static_key_enabled(&m2p_override_used))
		kunit_skip(test, "turned off by m2p_override.enable");

	KUNIT_ASSERT_EQ(test, find_foreign_frames(), NR_MANY);
	KUNIT_ASSERT_EQ(test, gnttab_alloc_pages(ARRAY_SIZE(pages), pages), 0);
	return 0;
}

static void m2p_override_test_exit(struct kunit *test)
{
	unsigned int i;

	if (!pages[0])
		return;

	for (i = 0; i < ARRAY_SIZE(pages); i++)
		map_page(i, INVALID_P2M_ENTRY);
	gnttab_free_pages(ARRAY_SIZE(pages), pages);
	pages[0] = NULL;
}

static void a_frame_without_override_leads_to_no_page(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), ~0UL);
	KUNIT_EXPECT_EQ(test, m2p_find_override_pfn(~0UL >> 1), ~0UL);
}

static void an_override_lasts_from_add_to_remove(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, m2p_add_override(some_mfn, 4711), 0);
	KUNIT_EXPECT_EQ(test, m2p_find_override_pfn(some_mfn), 4711UL);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), 4711UL);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(mfns[1]), ~0UL);

	m2p_remove_override(some_mfn, 4711);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), ~0UL);
}

static void the_first_page_of_a_frame_keeps_the_entry(struct kunit *test)
{
	unsigned long first = map_page(0, FOREIGN_FRAME(some_mfn));
	unsigned long second = map_page(1, FOREIGN_FRAME(some_mfn));

	KUNIT_ASSERT_EQ(test, m2p_add_override(some_mfn, first), 0);
	KUNIT_EXPECT_EQ(test, m2p_add_override(some_mfn, second), -EBUSY);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), first);

	/* A page without the entry must not remove it. */
	m2p_remove_override(some_mfn, second);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), first);

	m2p_remove_override(some_mfn, first);
	KUNIT_EXPECT_EQ(test, m2p_add_override(some_mfn, second), 0);
	m2p_remove_override(some_mfn, second);
}

/* The grace period: the first page is unmapped, but its entry still exists. */
static void an_unmapped_page_gives_its_entry_to_the_next(struct kunit *test)
{
	unsigned long first = map_page(0, FOREIGN_FRAME(some_mfn));
	unsigned long second = map_page(1, FOREIGN_FRAME(some_mfn));

	KUNIT_ASSERT_EQ(test, m2p_add_override(some_mfn, first), 0);
	map_page(0, INVALID_P2M_ENTRY);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), first);

	KUNIT_EXPECT_EQ(test, m2p_add_override(some_mfn, second), 0);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), second);

	m2p_remove_override(some_mfn, first);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), second);
	m2p_remove_override(some_mfn, second);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), ~0UL);
}

static void a_page_with_another_frame_loses_the_entry(struct kunit *test)
{
	unsigned long first = map_page(0, FOREIGN_FRAME(some_mfn));
	unsigned long second = map_page(1, FOREIGN_FRAME(some_mfn));

	KUNIT_ASSERT_EQ(test, m2p_add_override(some_mfn, first), 0);
	map_page(0, FOREIGN_FRAME(mfns[1]));
	KUNIT_EXPECT_EQ(test, m2p_add_override(some_mfn, second), 0);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), second);
	m2p_remove_override(some_mfn, second);
}

static void an_own_frame_is_never_overridden(struct kunit *test)
{
	struct page *page = alloc_page(GFP_KERNEL);
	unsigned long pfn, mfn;

	KUNIT_ASSERT_NOT_NULL(test, page);
	pfn = page_to_pfn(page);
	mfn = pfn_to_mfn(pfn);

	KUNIT_EXPECT_EQ(test, m2p_add_override(mfn, pfn + 1), -EEXIST);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(mfn), pfn);
	__free_page(page);
}

static void page_0_can_have_an_override(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, m2p_add_override(some_mfn, 0), 0);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), 0UL);
	m2p_remove_override(some_mfn, 0);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), ~0UL);
}

static void many_overrides_do_not_disturb_each_other(struct kunit *test)
{
	unsigned long wrong = 0;
	unsigned int i;

	for (i = 0; i < NR_MANY; i++)
		wrong += m2p_add_override(mfns[i], i) != 0;
	for (i = 0; i < NR_MANY; i += 2)
		m2p_remove_override(mfns[i], i);
	for (i = 0; i < NR_MANY; i++)
		wrong += m2p_find_override_pfn(mfns[i]) != (i % 2 ? i : ~0UL);
	for (i = 1; i < NR_MANY; i += 2)
		m2p_remove_override(mfns[i], i);
	for (i = 0; i < NR_MANY; i++)
		wrong += m2p_find_override_pfn(mfns[i]) != ~0UL;

	KUNIT_EXPECT_EQ(test, wrong, 0UL);
}

struct lookup {
	struct irq_work work;
	unsigned long pfn;
};

static void look_up(struct irq_work *work)
{
	container_of(work, struct lookup, work)->pfn = mfn_to_pfn(some_mfn);
}

static void an_interrupt_can_look_an_override_up(struct kunit *test)
{
	struct lookup lookup = { .work = IRQ_WORK_INIT_HARD(look_up) };

	KUNIT_ASSERT_EQ(test, m2p_add_override(some_mfn, 4711), 0);
	irq_work_queue(&lookup.work);
	irq_work_sync(&lookup.work);
	KUNIT_EXPECT_EQ(test, lookup.pfn, 4711UL);
	m2p_remove_override(some_mfn, 4711);
}

/*
 * Start at 4 GiB, since unowned frames below it can belong to a device, and go
 * upwards, since Xen allocates a domain's frames from the top.
 */
static void m2p_override_test_fill(struct kunit_suite *suite)
{
	long mfn, max_mfn;

	/* Called even if the tests were skipped because this is not Xen. */
	if (!fill || !xen_pv_domain())
		return;

	max_mfn = HYPERVISOR_memory_op(XENMEM_maximum_ram_page, NULL);
	for (mfn = SZ_4G >> PAGE_SHIFT; fill && mfn <= max_mfn; mfn++)
		if (!m2p_add_override(mfn, 4711))
			fill--;
}

static struct kunit_case m2p_override_test_cases[] = {
	KUNIT_CASE(a_frame_without_override_leads_to_no_page),
	KUNIT_CASE(an_override_lasts_from_add_to_remove),
	KUNIT_CASE(the_first_page_of_a_frame_keeps_the_entry),
	KUNIT_CASE(an_unmapped_page_gives_its_entry_to_the_next),
	KUNIT_CASE(a_page_with_another_frame_loses_the_entry),
	KUNIT_CASE(an_own_frame_is_never_overridden),
	KUNIT_CASE(page_0_can_have_an_override),
	KUNIT_CASE(many_overrides_do_not_disturb_each_other),
	KUNIT_CASE(an_interrupt_can_look_an_override_up),
	{}
};

static struct kunit_suite m2p_override_test_suite = {
	.name = "xen-m2p-override",
	.init = m2p_override_test_init,
	.exit = m2p_override_test_exit,
	.suite_exit = m2p_override_test_fill,
	.test_cases = m2p_override_test_cases,
};

kunit_test_suite(m2p_override_test_suite);

MODULE_DESCRIPTION("KUnit tests of the Xen M2P override");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_LICENSE("GPL");
