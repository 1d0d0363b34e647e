// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the M2P override.
 *
 * The frames used lie beyond the machine's memory, so nobody owns them and
 * nobody can map them while the tests run.  Without an override mfn_to_pfn()
 * takes them for device memory.  A failure means that a user PTE could be
 * served with the wrong page or with none.
 */

#include <kunit/test.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/mm.h>

#include <xen/xen.h>

#include <asm/xen/m2p-override.h>
#include <asm/xen/page.h>

#define NR_MANY	5000UL

static unsigned long some_mfn;

static int m2p_override_test_init(struct kunit *test)
{
	if (!xen_pv_domain())
		kunit_skip(test, "not a Xen PV domain");

	m2p_override_prepare();
	if (!static_key_enabled(&m2p_override_used))
		kunit_skip(test, "turned off by m2p_override.enable");

	some_mfn = machine_to_phys_nr + 0x1000;
	return 0;
}

static void a_frame_without_override_leads_to_no_page(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, m2p_find_override_pfn(some_mfn), ~0UL);
}

static void an_override_lasts_from_add_to_remove(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, m2p_add_override(some_mfn, 4711), 0);
	KUNIT_EXPECT_EQ(test, m2p_find_override_pfn(some_mfn), 4711UL);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), 4711UL);
	KUNIT_EXPECT_EQ(test, m2p_find_override_pfn(some_mfn + 1), ~0UL);

	m2p_remove_override(some_mfn, 4711);
	KUNIT_EXPECT_EQ(test, m2p_find_override_pfn(some_mfn), ~0UL);
}

static void the_first_page_of_a_frame_keeps_the_entry(struct kunit *test)
{
	KUNIT_ASSERT_EQ(test, m2p_add_override(some_mfn, 1), 0);
	KUNIT_EXPECT_EQ(test, m2p_add_override(some_mfn, 2), -EBUSY);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), 1UL);

	/* Who did not get the entry must not take it along when it goes. */
	m2p_remove_override(some_mfn, 2);
	KUNIT_EXPECT_EQ(test, mfn_to_pfn(some_mfn), 1UL);

	m2p_remove_override(some_mfn, 1);
	KUNIT_EXPECT_EQ(test, m2p_add_override(some_mfn, 2), 0);
	m2p_remove_override(some_mfn, 2);
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
	KUNIT_EXPECT_EQ(test, m2p_find_override_pfn(some_mfn), ~0UL);
}

static void many_overrides_do_not_disturb_each_other(struct kunit *test)
{
	unsigned long i, wrong = 0;

	for (i = 0; i < NR_MANY; i++)
		wrong += m2p_add_override(some_mfn + 3 * i, i) != 0;
	for (i = 0; i < NR_MANY; i += 2)
		m2p_remove_override(some_mfn + 3 * i, i);
	for (i = 0; i < NR_MANY; i++)
		wrong += m2p_find_override_pfn(some_mfn + 3 * i) != (i % 2 ? i : ~0UL);
	for (i = 1; i < NR_MANY; i += 2)
		m2p_remove_override(some_mfn + 3 * i, i);
	for (i = 0; i < 3 * NR_MANY; i++)
		wrong += m2p_find_override_pfn(some_mfn + i) != ~0UL;

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

static struct kunit_case m2p_override_test_cases[] = {
	KUNIT_CASE(a_frame_without_override_leads_to_no_page),
	KUNIT_CASE(an_override_lasts_from_add_to_remove),
	KUNIT_CASE(the_first_page_of_a_frame_keeps_the_entry),
	KUNIT_CASE(an_own_frame_is_never_overridden),
	KUNIT_CASE(page_0_can_have_an_override),
	KUNIT_CASE(many_overrides_do_not_disturb_each_other),
	KUNIT_CASE(an_interrupt_can_look_an_override_up),
	{}
};

static struct kunit_suite m2p_override_test_suite = {
	.name = "xen-m2p-override",
	.init = m2p_override_test_init,
	.test_cases = m2p_override_test_cases,
};

kunit_test_suite(m2p_override_test_suite);

MODULE_DESCRIPTION("KUnit tests of the Xen M2P override");
MODULE_LICENSE("GPL");
