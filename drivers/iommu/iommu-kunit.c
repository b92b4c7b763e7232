// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests for the choice of a group's default domain, and for what follows
 * from it. Included at the end of iommu.c, whose static functions they call.
 *
 * Two suites:
 *
 *  - iommu_default_domain_type walks the whole policy: every group of one, two
 *    and three devices, whatever their drivers answer and whether they are
 *    trusted, under every setting. The groups are hand-made, no driver is
 *    involved, and what is right is computed here from the rules themselves.
 *
 *  - iommu_default_domain registers a mock IOMMU and probes devices behind it as
 *    any device is probed, so that the core, dma-iommu and the sysfs file are
 *    the real ones. The mock counts IOTLB invalidations, and notices when an
 *    IOVA is mapped again before the invalidation that its last use is owed.
 *
 * A running system is not disturbed: only the thread of a test sees the settings
 * that the test makes, and the mock's devices are on no real bus's list. But the
 * core's errors are logged, and have one rate limit for all devices.
 */
#include <kunit/test.h>
#include <kunit/test-bug.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/kmsg_dump.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "iommu-pages.h"

/* A driver without def_domain_type(); the other answers are domain types. */
#define ANSWER_NO_OP (-1)

/* What iommu_get_default_domain_type() returns if no type is possible. */
#define TYPE_REFUSED (-1)

static const char *type_name(int type)
{
	switch (type) {
	case 0:
		return "auto";
	case IOMMU_DOMAIN_IDENTITY:
		return "identity";
	case IOMMU_DOMAIN_PLATFORM:
		return "platform";
	case IOMMU_DOMAIN_DMA:
		return "DMA";
	case IOMMU_DOMAIN_DMA_FQ:
		return "DMA-FQ";
	default:
		return type < 0 ? "refused" : "unknown";
	}
}

/*
 * The settings of the test that runs: to its thread iommu_def_domain_type and
 * iommu_dma_strict are these. KUnit runs one test at a time.
 */
static struct {
	struct kunit *test;
	unsigned int def_domain_type;
	bool strict;
} settings;

static bool in_test(void)
{
	struct kunit *test = kunit_get_current_test();

	return test && test == READ_ONCE(settings.test);
}

static unsigned int *iommu_kunit_def_domain_type(unsigned int *system)
{
	return in_test() ? &settings.def_domain_type : system;
}

static bool *iommu_kunit_dma_strict(bool *system)
{
	return in_test() ? &settings.strict : system;
}

static void forget_settings(void *unused)
{
	WRITE_ONCE(settings.test, NULL);
}

/* Have settings for @test until it ends, however it does. At first the system's. */
static int own_settings(struct kunit *test)
{
	settings.def_domain_type = iommu_def_domain_type;
	settings.strict = iommu_dma_strict;
	WRITE_ONCE(settings.test, test);
	return kunit_add_action_or_reset(test, forget_settings, NULL);
}

static void needs_iommu_dma(struct kunit *test)
{
	if (!IS_ENABLED(CONFIG_IOMMU_DMA))
		kunit_skip(test, "needs CONFIG_IOMMU_DMA");
}

/* As iommu.strict and iommu.passthrough do it at boot */
static void set_policy(bool strict, bool passthrough)
{
	iommu_dma_strict = strict;
	if (passthrough)
		iommu_def_domain_type = IOMMU_DOMAIN_IDENTITY;
	else
		iommu_def_domain_type = strict ? IOMMU_DOMAIN_DMA :
						 IOMMU_DOMAIN_DMA_FQ;
}

/* Whether the kernel has logged @words since the last call */
static bool log_has(const char *words)
{
	static struct kmsg_dump_iter position;
	bool found = false;
	char line[256];
	size_t len;

	while (kmsg_dump_get_line(&position, false, line, sizeof(line) - 1,
				  &len)) {
		line[len] = '\0';
		found |= !!strstr(line, words);
	}
	return found;
}

/*
 * The policy
 */

#define POLICY_DEVS 3

/**
 * struct policy_dev - a device that exists only for the policy to look at
 * @pdev: on the PCI bus if it is untrusted, else on none; never registered
 * @dev_iommu: its link to @iommu
 * @iommu: holds its driver's ops
 * @gdev: its place in the group
 * @answer: what its driver answers, or ANSWER_NO_OP
 */
struct policy_dev {
	struct pci_dev pdev;
	struct dev_iommu dev_iommu;
	struct iommu_device iommu;
	struct group_device gdev;
	int answer;
};

/**
 * struct policy_group - a group that exists only for the policy to look at
 * @group: never registered either
 * @devs: the first of them are in it
 * @count: how many of @devs are in it
 * @static_domain: the default_domain of all its drivers' ops, or NULL
 */
struct policy_group {
	struct iommu_group group;
	struct policy_dev devs[POLICY_DEVS];
	unsigned int count;
	const struct iommu_domain *static_domain;
};

static int policy_def_domain_type(struct device *dev)
{
	return container_of(dev, struct policy_dev, pdev.dev)->answer;
}

static const struct iommu_ops policy_ops = {
	.def_domain_type = policy_def_domain_type,
};

static const struct iommu_ops policy_ops_without = {};

static struct iommu_domain policy_static_domain;
static const struct iommu_ops policy_ops_static = {
	.default_domain = &policy_static_domain,
	/* which is not asked then */
	.def_domain_type = policy_def_domain_type,
};

static int policy_init(struct kunit *test)
{
	struct policy_group *g;

	g = kunit_kzalloc(test, sizeof(*g), GFP_KERNEL);
	if (!g)
		return -ENOMEM;
	g->group.id = INT_MAX; /* which no real group has, for the log */
	mutex_init(&g->group.mutex);
	INIT_LIST_HEAD(&g->group.devices);
	test->priv = g;
	return own_settings(test);
}

static void policy_add(struct policy_group *g)
{
	struct policy_dev *p = &g->devs[g->count++];

	p->pdev.dev.init_name = "iommu_kunit";
	p->pdev.dev.iommu = &p->dev_iommu;
	p->dev_iommu.iommu_dev = &p->iommu;
	p->gdev.dev = &p->pdev.dev;
	list_add_tail(&p->gdev.list, &g->group.devices);
}

static void policy_set(struct policy_dev *p, int answer, bool untrusted)
{
	p->answer = answer;
	p->iommu.ops = answer == ANSWER_NO_OP ? &policy_ops_without :
						&policy_ops;
	p->pdev.untrusted = untrusted;
#ifdef CONFIG_PCI
	p->pdev.dev.bus = untrusted ? &pci_bus_type : NULL;
#endif
}

/* Without PCI there is no such thing, and ARM_DMA_USE_IOMMU does not allow it. */
static bool can_be_untrusted(void)
{
	return IS_ENABLED(CONFIG_PCI) && !IS_ENABLED(CONFIG_ARM_DMA_USE_IOMMU);
}

/* The code under test: a type, 0 for the system's default, or TYPE_REFUSED. */
static int policy_decide(struct policy_group *g, int asked)
{
	int type;

	mutex_lock(&g->group.mutex);
	type = iommu_get_default_domain_type(&g->group, asked);
	mutex_unlock(&g->group.mutex);
	return type;
}

/*
 * What the drivers' answers come to: identity beats translation, translation is
 * lazy unless the system is strict, and a static domain is what it is.
 */
static int wanted_constraint(const struct policy_group *g, bool strict)
{
	bool identity = IS_ENABLED(CONFIG_ARM_DMA_USE_IOMMU), dma = false;
	unsigned int i;

	if (g->static_domain)
		return identity ? IOMMU_DOMAIN_IDENTITY :
				  g->static_domain->type;

	for (i = 0; i < g->count; i++) {
		identity |= g->devs[i].answer == IOMMU_DOMAIN_IDENTITY;
		dma |= g->devs[i].answer == IOMMU_DOMAIN_DMA;
	}
	if (identity)
		return IOMMU_DOMAIN_IDENTITY;
	if (!dma)
		return 0;
	return strict ? IOMMU_DOMAIN_DMA : IOMMU_DOMAIN_DMA_FQ;
}

/*
 * The rules, in their order. Written from what the policy is to be; it shares
 * nothing with iommu_get_default_domain_type(). *@warns tells whether the kernel
 * is to warn of a driver that asks for what it was built without.
 */
static int wanted_type(const struct policy_group *g, bool strict, int asked,
		       bool *warns)
{
	int type = wanted_constraint(g, strict);
	bool untrusted = false;
	unsigned int i;

	*warns = false;
	if (!IS_ENABLED(CONFIG_IOMMU_DMA)) {
		if (type == IOMMU_DOMAIN_DMA || type == IOMMU_DOMAIN_DMA_FQ) {
			*warns = IS_ENABLED(CONFIG_BUG);
			return TYPE_REFUSED;
		}
		if (!type)
			type = IOMMU_DOMAIN_IDENTITY;
	}

	for (i = 0; i < g->count; i++)
		untrusted |= g->devs[i].pdev.untrusted;
	if (untrusted) {
		if (type == IOMMU_DOMAIN_IDENTITY ||
		    type == IOMMU_DOMAIN_PLATFORM)
			return TYPE_REFUSED;
		type = IOMMU_DOMAIN_DMA;
	}

	if (!asked || asked == type)
		return type;
	if (!type)
		return asked;
	if (type == IOMMU_DOMAIN_DMA_FQ && asked == IOMMU_DOMAIN_DMA)
		return IOMMU_DOMAIN_DMA;
	return TYPE_REFUSED;
}

static void describe_group(const struct policy_group *g, char *buf, size_t size)
{
	unsigned int i;
	size_t len = 0;

	for (i = 0; i < g->count; i++) {
		const struct policy_dev *p = &g->devs[i];
		const char *answer = type_name(p->answer);

		if (g->static_domain)
			answer = g->static_domain->type ?
					 type_name(g->static_domain->type) :
					 "blocked";
		else if (p->answer == ANSWER_NO_OP)
			answer = "no op";
		else if (!p->answer)
			answer = "none";
		len += scnprintf(buf + len, size - len, "%s%s%s", i ? ", " : "",
				 p->pdev.untrusted ? "untrusted " : "", answer);
	}
}

/**
 * struct policy_setting - what a decision depends on beside the group
 * @strict: iommu.strict
 * @passthrough: iommu.passthrough
 * @asked: the type written to the sysfs file, 0 for auto and at boot
 */
struct policy_setting {
	bool strict;
	bool passthrough;
	int asked;
};

static const struct policy_setting every_setting[] = {
	{ true, false, 0 },
	{ true, false, IOMMU_DOMAIN_IDENTITY },
	{ true, false, IOMMU_DOMAIN_DMA },
	{ true, false, IOMMU_DOMAIN_DMA_FQ },
	{ true, true, 0 },
	{ true, true, IOMMU_DOMAIN_IDENTITY },
	{ true, true, IOMMU_DOMAIN_DMA },
	{ true, true, IOMMU_DOMAIN_DMA_FQ },
	{ false, false, 0 },
	{ false, false, IOMMU_DOMAIN_IDENTITY },
	{ false, false, IOMMU_DOMAIN_DMA },
	{ false, false, IOMMU_DOMAIN_DMA_FQ },
	{ false, true, 0 },
	{ false, true, IOMMU_DOMAIN_IDENTITY },
	{ false, true, IOMMU_DOMAIN_DMA },
	{ false, true, IOMMU_DOMAIN_DMA_FQ },
};

static void describe_setting(const struct policy_setting *s, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s, %s, asked for %s",
		 s->strict ? "strict" : "lazy",
		 s->passthrough ? "pass-through" : "translated",
		 type_name(s->asked));
}

KUNIT_ARRAY_PARAM(every_setting, every_setting, describe_setting);

/*
 * Compare one decision with the rules. Of the many that one mistake makes wrong,
 * only the first few are named; the number of all of them is what @wrong counts.
 */
static void check_decision(struct kunit *test, const struct policy_setting *s,
			   unsigned int *wrong)
{
	struct policy_group *g = test->priv;
	int want, got = 0, warned = 0;
	char devices[96], setting[KUNIT_PARAM_DESC_SIZE];
	bool warns;

	want = wanted_type(g, s->strict, s->asked, &warns);
	kunit_warning_suppress(test) {
		got = policy_decide(g, s->asked);
		warned = KUNIT_SUPPRESSED_WARNING_COUNT();
	}
	if (got == want && warned == warns)
		return;
	if (++*wrong > 5)
		return;

	describe_group(g, devices, sizeof(devices));
	describe_setting(s, setting);
	KUNIT_FAIL(test, "%s{%s}, %s: got %s, want %s; %d warnings, want %d",
		   g->static_domain ? "static " : "", devices, setting,
		   got ? type_name(got) : "the default",
		   want ? type_name(want) : "the default", warned, warns);
}

/* Give @g's devices the answers and the trust that @code stands for. */
static bool set_combination(struct policy_group *g, unsigned int code)
{
	static const int answers[] = { ANSWER_NO_OP, 0, IOMMU_DOMAIN_IDENTITY,
				       IOMMU_DOMAIN_DMA };
	unsigned int i;

	for (i = 0; i < g->count; i++) {
		policy_set(&g->devs[i], answers[code % ARRAY_SIZE(answers)],
			   code / ARRAY_SIZE(answers) % 2);
		code /= ARRAY_SIZE(answers) * 2;
		if (g->devs[i].pdev.untrusted && !can_be_untrusted())
			return false;
	}
	return true;
}

static unsigned int combinations(unsigned int devices)
{
	return 1U << (3 * devices); /* four answers, trusted or not */
}

/* Every group of one to three devices under one setting. */
static void every_group(struct kunit *test)
{
	const struct policy_setting *s = test->param_value;
	unsigned int code, checked = 0, wrong = 0;
	struct policy_group *g = test->priv;

	set_policy(s->strict, s->passthrough);
	while (g->count < POLICY_DEVS) {
		policy_add(g);
		for (code = 0; code < combinations(g->count); code++) {
			if (!set_combination(g, code))
				continue;
			check_decision(test, s, &wrong);
			checked++;
		}
	}
	kunit_info(test, "%u groups\n", checked);
	KUNIT_EXPECT_EQ_MSG(test, wrong, 0, "of %u groups", checked);
}

/* Whatever the rules say, they do not depend on who comes first. */
static void order_does_not_matter(struct kunit *test)
{
	const struct policy_setting *s = test->param_value;
	struct policy_group *g = test->priv;
	unsigned int code;

	set_policy(s->strict, s->passthrough);
	while (g->count < POLICY_DEVS)
		policy_add(g);
	for (code = 0; code < combinations(g->count); code++) {
		int first = 0, rotated = 0, swapped = 0;

		if (!set_combination(g, code))
			continue;
		kunit_warning_suppress(test) {
			first = policy_decide(g, s->asked);
			list_rotate_left(&g->group.devices);
			rotated = policy_decide(g, s->asked);
			list_swap(g->group.devices.next, g->group.devices.prev);
			swapped = policy_decide(g, s->asked);
		}
		if (first != rotated || first != swapped) {
			char devices[96];

			describe_group(g, devices, sizeof(devices));
			KUNIT_FAIL(test, "{%s}: by its order %s, %s and %s",
				   devices, type_name(first),
				   type_name(rotated), type_name(swapped));
			return;
		}
	}
}

/* A static domain is taken as it is; its drivers are not even asked. */
static void static_default_domain(struct kunit *test)
{
	static const unsigned int types[] = { IOMMU_DOMAIN_BLOCKED,
					      IOMMU_DOMAIN_IDENTITY,
					      IOMMU_DOMAIN_PLATFORM,
					      IOMMU_DOMAIN_DMA };
	const struct policy_setting *s = test->param_value;
	struct policy_group *g = test->priv;
	unsigned int i, untrusted, wrong = 0;

	set_policy(s->strict, s->passthrough);
	g->static_domain = &policy_static_domain;
	policy_add(g);
	for (untrusted = 0; untrusted <= can_be_untrusted(); untrusted++) {
		policy_set(&g->devs[0], IOMMU_DOMAIN_DMA, untrusted);
		g->devs[0].iommu.ops = &policy_ops_static;
		for (i = 0; i < ARRAY_SIZE(types); i++) {
			policy_static_domain.type = types[i];
			check_decision(test, s, &wrong);
		}
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/*
 * IDENTITY wins over DMA, and the driver's mistake is logged. Two devices that
 * both answer DMA do not conflict, although the second's is compared with the
 * first's, which is DMA_FQ by then.
 */
static void conflict_is_reported(struct kunit *test)
{
	struct policy_group *g = test->priv;
	unsigned int tries;
	bool reported;

	if (!IS_ENABLED(CONFIG_PRINTK))
		kunit_skip(test, "needs CONFIG_PRINTK");
	/* There each answer of DMA conflicts, with what the core begins with */
	if (IS_ENABLED(CONFIG_ARM_DMA_USE_IOMMU))
		kunit_skip(test, "needs CONFIG_ARM_DMA_USE_IOMMU unset");

	set_policy(false, false);
	policy_add(g);
	policy_add(g);
	policy_set(&g->devs[0], IOMMU_DOMAIN_DMA, false);
	policy_set(&g->devs[1], IOMMU_DOMAIN_IDENTITY, false);

	log_has("");
	/* Other tests may have used up what the rate limit allows for now. */
	for (tries = 0, reported = false; tries < 60 && !reported; tries++) {
		if (tries)
			msleep(100);
		KUNIT_EXPECT_EQ(test, policy_decide(g, 0),
				IOMMU_DOMAIN_IDENTITY);
		reported = log_has("requesting conflicting def_domain_type");
	}
	KUNIT_EXPECT_TRUE(test, reported);

	/* Would be logged: the rate limit allows for more than one at a time. */
	policy_set(&g->devs[1], IOMMU_DOMAIN_DMA, false);
	kunit_warning_suppress(test)
		policy_decide(g, 0);
	KUNIT_EXPECT_FALSE(test,
			   log_has("requesting conflicting def_domain_type"));
}

/* As VT-d in caching mode and AMD-Vi with NpCache do it, when they initialise. */
static void strict_from_a_driver(struct kunit *test)
{
	struct policy_group *g = test->priv;

	needs_iommu_dma(test);
	set_policy(false, false);
	policy_add(g);
	policy_set(&g->devs[0], IOMMU_DOMAIN_DMA, false);
	KUNIT_EXPECT_EQ(test, policy_decide(g, 0), IOMMU_DOMAIN_DMA_FQ);
	KUNIT_EXPECT_EQ(test, policy_decide(g, IOMMU_DOMAIN_DMA_FQ),
			IOMMU_DOMAIN_DMA_FQ);

	iommu_set_dma_strict();
	KUNIT_EXPECT_EQ(test, policy_decide(g, 0), IOMMU_DOMAIN_DMA);
	KUNIT_EXPECT_EQ(test, policy_decide(g, IOMMU_DOMAIN_DMA_FQ),
			TYPE_REFUSED);
	KUNIT_EXPECT_EQ(test, iommu_def_domain_type, IOMMU_DOMAIN_DMA);

	policy_set(&g->devs[0], 0, false);
	KUNIT_EXPECT_EQ(test, policy_decide(g, 0), 0);
}

static struct kunit_case policy_cases[] = {
	KUNIT_CASE_SLOW(conflict_is_reported),
	KUNIT_CASE_PARAM(every_group, every_setting_gen_params),
	KUNIT_CASE_PARAM(order_does_not_matter, every_setting_gen_params),
	KUNIT_CASE_PARAM(static_default_domain, every_setting_gen_params),
	KUNIT_CASE(strict_from_a_driver),
	{}
};

static struct kunit_suite policy_suite = {
	.name = "iommu_default_domain_type",
	.init = policy_init,
	.test_cases = policy_cases,
};

/*
 * The mock IOMMU
 */

#define MOCK_NAME "iommu-kunit"
#define QUEUED 100 /* unmaps that do not fill a queue of dma-iommu */
#define MOCK_TABLES (2 * QUEUED)

/* Unmapped, but a device may still reach it: not invalidated yet */
#define MOCK_STALE XA_MARK_0

/**
 * struct mock_iommu - the IOMMU that a test's devices are behind
 * @iommu: what is registered
 * @nb: has the devices of mock_bus probed and released
 * @domains: how many exist
 * @invalidations: calls of iotlb_sync() and flush_iotlb_all()
 * @reused: IOVAs mapped again although they were not invalidated
 * @leaked: mappings that were still there when their domain was freed
 * @free_tables: every unmap leaves a page of page tables to be freed
 * @tables: these pages, each with a reference of ours to see it by
 * @num_tables: how many
 */
struct mock_iommu {
	struct iommu_device iommu;
	struct notifier_block nb;
	unsigned int domains;
	atomic_t invalidations;
	atomic_t reused;
	unsigned int leaked;
	bool free_tables;
	struct page *tables[MOCK_TABLES];
	unsigned int num_tables;
};

/**
 * struct mock_domain - a paging domain
 * @domain: for the core
 * @mock: counts what happens to it
 * @ptes: page frames by IOVA, for both the page table and the IOTLB: an entry
 *	marked MOCK_STALE has left the page table but may be in the IOTLB
 */
struct mock_domain {
	struct iommu_domain domain;
	struct mock_iommu *mock;
	struct xarray ptes;
};

/**
 * struct mock_dev - a device behind the mock IOMMU, and what its driver says
 * @mock: the IOMMU
 * @dev: while it is plugged in
 * @group: the group that it joins, or NULL for one of its own
 * @answer: of def_domain_type()
 * @pci: it is a PCI device
 * @untrusted: and sits behind an external-facing port
 * @cannot_defer: it lacks IOMMU_CAP_DEFERRED_FLUSH
 * @shadow_on_flush: dma-iommu gives it one large queue, not one for each CPU
 */
struct mock_dev {
	struct mock_iommu *mock;
	struct device *dev;
	struct iommu_group *group;
	int answer;
	bool pci;
	bool untrusted;
	bool cannot_defer;
	bool shadow_on_flush;
};

static struct mock_dev *to_mock_dev(struct device *dev)
{
	return *(struct mock_dev **)dev_get_platdata(dev);
}

static struct mock_domain *to_mock_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct mock_domain, domain);
}

/* Forget stale entries from @first to @last, as an IOTLB does. */
static void mock_invalidate(struct mock_domain *md, unsigned long first,
			    unsigned long last)
{
	unsigned long pfn, flags;
	void *pte;

	xa_lock_irqsave(&md->ptes, flags);
	atomic_inc(&md->mock->invalidations);
	xa_for_each_marked(&md->ptes, pfn, pte, MOCK_STALE) {
		if (pfn >= first && pfn <= last)
			__xa_erase(&md->ptes, pfn);
	}
	xa_unlock_irqrestore(&md->ptes, flags);
}

static void mock_flush_iotlb_all(struct iommu_domain *domain)
{
	mock_invalidate(to_mock_domain(domain), 0, ULONG_MAX);
}

static void mock_iotlb_sync(struct iommu_domain *domain,
			    struct iommu_iotlb_gather *gather)
{
	mock_invalidate(to_mock_domain(domain), gather->start >> PAGE_SHIFT,
			gather->end >> PAGE_SHIFT);
	iommu_put_pages_list(&gather->freelist);
}

static int mock_map_pages(struct iommu_domain *domain, unsigned long iova,
			  phys_addr_t paddr, size_t pgsize, size_t pgcount,
			  int prot, gfp_t gfp, size_t *mapped)
{
	struct mock_domain *md = to_mock_domain(domain);
	unsigned long pfn = iova >> PAGE_SHIFT, flags;
	void *old;

	for (; pgcount; pgcount--, pfn++, paddr += pgsize) {
		xa_lock_irqsave(&md->ptes, flags);
		if (xa_get_mark(&md->ptes, pfn, MOCK_STALE))
			atomic_inc(&md->mock->reused);
		/* The lock is held, whatever the caller would allow */
		old = __xa_store(&md->ptes, pfn,
				 xa_mk_value(paddr >> PAGE_SHIFT), GFP_ATOMIC);
		__xa_clear_mark(&md->ptes, pfn, MOCK_STALE);
		xa_unlock_irqrestore(&md->ptes, flags);
		if (xa_is_err(old))
			return xa_err(old);
		*mapped += pgsize;
	}
	return 0;
}

static void mock_free_table(struct mock_iommu *mock,
			    struct iommu_iotlb_gather *gather)
{
	void *table;

	if (!mock->free_tables || mock->num_tables == MOCK_TABLES)
		return;
	table = iommu_alloc_pages_sz(GFP_ATOMIC, PAGE_SIZE);
	if (!table)
		return;
	mock->tables[mock->num_tables] = virt_to_page(table);
	get_page(mock->tables[mock->num_tables++]);
	iommu_pages_list_add(&gather->freelist, table);
}

static size_t mock_unmap_pages(struct iommu_domain *domain, unsigned long iova,
			       size_t pgsize, size_t pgcount,
			       struct iommu_iotlb_gather *gather)
{
	struct mock_domain *md = to_mock_domain(domain);
	unsigned long pfn = iova >> PAGE_SHIFT, flags;
	size_t i;

	xa_lock_irqsave(&md->ptes, flags);
	for (i = 0; i < pgcount; i++)
		__xa_set_mark(&md->ptes, pfn + i, MOCK_STALE);
	xa_unlock_irqrestore(&md->ptes, flags);

	iommu_iotlb_gather_add_range(gather, iova, pgsize * pgcount);
	mock_free_table(md->mock, gather);
	return pgsize * pgcount;
}

static phys_addr_t mock_iova_to_phys(struct iommu_domain *domain,
				     dma_addr_t iova)
{
	struct mock_domain *md = to_mock_domain(domain);
	unsigned long pfn = iova >> PAGE_SHIFT;
	void *pte = xa_load(&md->ptes, pfn);

	if (!pte || xa_get_mark(&md->ptes, pfn, MOCK_STALE))
		return 0;
	return ((phys_addr_t)xa_to_value(pte) << PAGE_SHIFT) |
	       offset_in_page(iova);
}

static unsigned int mock_count(struct mock_domain *md, bool stale)
{
	unsigned int count = 0;
	unsigned long pfn;
	void *pte;

	xa_for_each(&md->ptes, pfn, pte)
		count += xa_get_mark(&md->ptes, pfn, MOCK_STALE) == stale;
	return count;
}

static void mock_domain_free(struct iommu_domain *domain)
{
	struct mock_domain *md = to_mock_domain(domain);

	md->mock->leaked += mock_count(md, false);
	md->mock->domains--;
	xa_destroy(&md->ptes);
	kfree(md);
}

static int mock_attach_dev(struct iommu_domain *domain, struct device *dev,
			   struct iommu_domain *old)
{
	return 0;
}

static const struct iommu_domain_ops mock_domain_ops = {
	.attach_dev = mock_attach_dev,
	.map_pages = mock_map_pages,
	.unmap_pages = mock_unmap_pages,
	.flush_iotlb_all = mock_flush_iotlb_all,
	.iotlb_sync = mock_iotlb_sync,
	.iova_to_phys = mock_iova_to_phys,
	.free = mock_domain_free,
};

static const struct iommu_domain_ops mock_identity_ops = {
	.attach_dev = mock_attach_dev,
};

static struct iommu_domain mock_identity_domain = {
	.type = IOMMU_DOMAIN_IDENTITY,
	.ops = &mock_identity_ops,
};

static struct iommu_domain *mock_domain_alloc_paging(struct device *dev)
{
	struct mock_domain *md;

	md = kzalloc_obj(*md);
	if (!md)
		return ERR_PTR(-ENOMEM);
	xa_init_flags(&md->ptes, XA_FLAGS_LOCK_IRQ);
	md->mock = to_mock_dev(dev)->mock;
	md->mock->domains++;
	md->domain.pgsize_bitmap = PAGE_SIZE;
	md->domain.geometry.aperture_end = DMA_BIT_MASK(32);
	md->domain.geometry.force_aperture = true;
	return &md->domain;
}

static bool mock_capable(struct device *dev, enum iommu_cap cap)
{
	return cap == IOMMU_CAP_DEFERRED_FLUSH &&
	       !to_mock_dev(dev)->cannot_defer;
}

static struct iommu_device *mock_probe_device(struct device *dev)
{
	struct mock_dev *mdev = to_mock_dev(dev);

	dev->iommu->shadow_on_flush = mdev->shadow_on_flush;
	return &mdev->mock->iommu;
}

static struct iommu_group *mock_device_group(struct device *dev)
{
	struct mock_dev *mdev = to_mock_dev(dev);

	return mdev->group ? iommu_group_ref_get(mdev->group) :
			     generic_device_group(dev);
}

static int mock_def_domain_type(struct device *dev)
{
	return to_mock_dev(dev)->answer;
}

static const struct iommu_ops mock_ops = {
	.capable = mock_capable,
	.domain_alloc_paging = mock_domain_alloc_paging,
	.probe_device = mock_probe_device,
	.device_group = mock_device_group,
	.def_domain_type = mock_def_domain_type,
	.identity_domain = &mock_identity_domain,
	.default_domain_ops = &mock_domain_ops,
};

/*
 * Devices behind the mock IOMMU
 */

/* A driver that is bound uses the default domain, as on the real buses. */
static int mock_dma_configure(struct device *dev)
{
	return iommu_device_use_default_domain(dev);
}

static void mock_dma_cleanup(struct device *dev)
{
	iommu_device_unuse_default_domain(dev);
}

/* The mock IOMMU listens to it, as real ones do to real buses. */
static const struct bus_type mock_bus = {
	.name = MOCK_NAME,
	.dma_configure = mock_dma_configure,
	.dma_cleanup = mock_dma_cleanup,
};

/*
 * A PCI device must not meet the PCI core, which would look for its configuration
 * space. It is added to a bus that nobody listens to, so that it is in sysfs and
 * bus_iommu_probe() can find it, and only then said to be on the PCI bus: a probe
 * before that would not see whether it is trusted.
 */
static const struct bus_type mock_pci_bus = {
	.name = MOCK_NAME "-pci",
};

/**
 * struct mock_hw - a device, and what dma-iommu wants to know of its bus
 * @pdev: the device; of any that is no PCI device only @pdev.dev is looked at
 * @bus: only to get from it to @bridge
 * @bridge: has no windows that IOVAs must avoid
 * @mdev: is its platform data
 */
struct mock_hw {
	struct pci_dev pdev;
	struct pci_bus bus;
	struct pci_host_bridge bridge;
	struct mock_dev *mdev;
};

static void mock_release(struct device *dev)
{
	kfree(container_of(dev, struct mock_hw, pdev.dev));
}

static void mock_init_pci(struct mock_hw *hw, bool untrusted)
{
	hw->pdev.untrusted = untrusted;
	hw->pdev.current_state = PCI_UNKNOWN; /* leave it alone at shutdown */
	hw->pdev.bus = &hw->bus;
	hw->bus.bridge = &hw->bridge.dev;
	INIT_LIST_HEAD(&hw->bridge.windows);
	INIT_LIST_HEAD(&hw->bridge.dma_ranges);
}

static struct device *mock_alloc_hw(struct mock_dev *mdev)
{
	struct device *dev;
	struct mock_hw *hw;

	hw = kzalloc_obj(*hw);
	if (!hw)
		return NULL;
	mock_init_pci(hw, mdev->untrusted);
	hw->mdev = mdev;
	hw->pdev.dma_mask = DMA_BIT_MASK(32);

	dev = &hw->pdev.dev;
	device_initialize(dev);
	device_set_pm_not_required(dev); /* nor is there anything to suspend */
	dev_assign_dma_coherent(dev, true); /* or coherent memory is scarce */
	dev->release = mock_release;
	dev->platform_data = &hw->mdev;
	dev->dma_mask = &hw->pdev.dma_mask;
	dev->coherent_dma_mask = DMA_BIT_MASK(32);
	dev->bus = mdev->pci ? &mock_pci_bus : &mock_bus;
	return dev;
}

/* Put the device in place. Nobody probes it if it is a PCI device. */
static int mock_add_device(struct mock_dev *mdev)
{
	static atomic_t id = ATOMIC_INIT(0);
	struct device *dev = mock_alloc_hw(mdev);
	int ret;

	if (!dev)
		return -ENOMEM;
	ret = dev_set_name(dev, "%s.%d", MOCK_NAME, atomic_inc_return(&id));
	if (!ret)
		ret = iommu_mock_device_add(dev, &mdev->mock->iommu);
	if (ret) {
		put_device(dev);
		return ret;
	}
#ifdef CONFIG_PCI
	if (mdev->pci)
		dev->bus = &pci_bus_type;
#endif
	mdev->dev = dev;
	return 0;
}

/* Take the device away, as hot unplug does. */
static void mock_unplug(void *data)
{
	struct mock_dev *mdev = data;
	struct device *dev = mdev->dev;

	mdev->dev = NULL;
	if (!dev)
		return;
	if (mdev->pci) {
		iommu_release_device(dev);
		dev->bus = &mock_pci_bus;
	}
	device_unregister(dev);
}

/* The same in a test, which takes it away when it ends */
static void mock_add(struct kunit *test, struct mock_dev *mdev)
{
	int ret;

	KUNIT_ASSERT_EQ(test, mock_add_device(mdev), 0);
	ret = kunit_add_action_or_reset(test, mock_unplug, mdev);
	KUNIT_ASSERT_EQ(test, ret, 0);
}

/* Hot-plug the device: it is in its group and has its domain afterwards. */
static void mock_plug(struct kunit *test, struct mock_dev *mdev)
{
	mock_add(test, mdev);
	if (mdev->pci)
		KUNIT_ASSERT_EQ(test, iommu_probe_device(mdev->dev), 0);
	KUNIT_ASSERT_NOT_NULL(test, mdev->dev->iommu_group);
}

static void mock_pull(struct kunit *test, struct mock_dev *mdev)
{
	kunit_release_action(test, mock_unplug, mdev);
}

static struct mock_dev *mock_alloc(struct kunit *test, int answer)
{
	struct mock_dev *mdev;

	mdev = kunit_kzalloc(test, sizeof(*mdev), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, mdev);
	mdev->mock = test->priv;
	mdev->answer = answer;
	return mdev;
}

static struct mock_dev *mock_alloc_pci(struct kunit *test, int answer,
				       bool untrusted)
{
	struct mock_dev *mdev = mock_alloc(test, answer);

	if (!can_be_untrusted())
		kunit_skip(test, "needs CONFIG_PCI");
	mdev->pci = true;
	mdev->untrusted = untrusted;
	return mdev;
}

KUNIT_DEFINE_ACTION_WRAPPER(mock_put_group, iommu_group_put,
			    struct iommu_group *);

static struct iommu_group *mock_alloc_group(struct kunit *test)
{
	struct iommu_group *group = iommu_group_alloc();

	KUNIT_ASSERT_FALSE(test, IS_ERR(group));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, mock_put_group, group));
	return group;
}

static int default_type(struct mock_dev *mdev)
{
	return mdev->dev->iommu_group->default_domain->type;
}

static struct mock_domain *default_domain(struct mock_dev *mdev)
{
	return to_mock_domain(mdev->dev->iommu_group->default_domain);
}

#define EXPECT_TYPE(_test, _mdev, _type)                          \
	KUNIT_EXPECT_STREQ(_test, type_name(default_type(_mdev)), \
			   type_name(_type))

/**
 * struct churn - what came of mapping and unmapping
 * @invalidations: in all that time
 * @timeouts: how many of them the timer of dma-iommu's queue may have made
 * @stale: pages still in the IOTLB at the end
 */
struct churn {
	unsigned int invalidations;
	unsigned int timeouts;
	unsigned int stale;
};

/* ms, of a queue per CPU; that of a single queue is longer */
#define TIMEOUT 10

/* How often may a queue have timed out since @start, in jiffies? */
static unsigned int timeouts_since(unsigned long start)
{
	return jiffies_to_msecs(jiffies - start) / TIMEOUT + 1;
}

/*
 * Map and unmap @count times, 1 to 8 pages unless @pages says how many. The timer
 * of dma-iommu's queue cannot run on this CPU meanwhile, but on PREEMPT_RT. It may
 * run on another CPU, if an earlier call has started it there.
 */
static struct churn churn(struct kunit *test, struct mock_dev *mdev,
			  unsigned int count, unsigned int pages)
{
	struct mock_iommu *mock = mdev->mock;
	struct churn result = {};
	unsigned int i, failed = 0;
	unsigned long start;
	struct page *buffer;

	KUNIT_ASSERT_TRUE(test,
			  iommu_is_dma_domain(&default_domain(mdev)->domain));
	buffer = alloc_pages(GFP_KERNEL, 3);
	KUNIT_ASSERT_NOT_NULL(test, buffer);

	local_bh_disable();
	start = jiffies;
	result.invalidations = atomic_read(&mock->invalidations);
	for (i = 0; i < count; i++) {
		size_t size = PAGE_SIZE * (pages ?: 1 + i % 8);
		dma_addr_t addr =
			dma_map_page(mdev->dev, buffer, 0, size, DMA_TO_DEVICE);

		if (dma_mapping_error(mdev->dev, addr))
			failed++;
		else
			dma_unmap_page(mdev->dev, addr, size, DMA_TO_DEVICE);
	}
	result.invalidations =
		atomic_read(&mock->invalidations) - result.invalidations;
	result.stale = mock_count(default_domain(mdev), true);
	result.timeouts = timeouts_since(start);
	local_bh_enable();

	__free_pages(buffer, 3);
	KUNIT_EXPECT_EQ(test, failed, 0);
	return result;
}

#define CHURN 1024

/* One invalidation for each unmap, none of them late */
static void expect_strict(struct kunit *test, struct mock_dev *mdev)
{
	struct churn result;

	EXPECT_TYPE(test, mdev, IOMMU_DOMAIN_DMA);
	result = churn(test, mdev, CHURN, 1);
	KUNIT_EXPECT_EQ(test, result.invalidations, CHURN);
	KUNIT_EXPECT_EQ(test, result.stale, 0);
}

/* Less than one invalidation in 64 unmaps: the flush queue is really used */
static void expect_lazy(struct kunit *test, struct mock_dev *mdev)
{
	struct churn result;

	EXPECT_TYPE(test, mdev, IOMMU_DOMAIN_DMA_FQ);
	result = churn(test, mdev, CHURN, 1);
	KUNIT_EXPECT_LT(test, result.invalidations,
			CHURN / 64 + result.timeouts);
}

static void expect_type(struct kunit *test, struct mock_dev *mdev, int type)
{
	if (type == IOMMU_DOMAIN_DMA)
		expect_strict(test, mdev);
	else if (type == IOMMU_DOMAIN_DMA_FQ)
		expect_lazy(test, mdev);
	else
		EXPECT_TYPE(test, mdev, type);
}

static void mock_destroy(void *data)
{
	struct mock_iommu *mock = data;

	iommu_device_unregister_bus(&mock->iommu, &mock_bus, &mock->nb);
	iommu_device_sysfs_remove(&mock->iommu);
}

static void unregister_bus(void *bus)
{
	bus_unregister(bus);
}

static int register_bus(struct kunit *test, const struct bus_type *bus)
{
	int ret = bus_register(bus);

	if (ret)
		return ret;
	return kunit_add_action_or_reset(test, unregister_bus, (void *)bus);
}

static int mock_create(struct kunit *test)
{
	struct mock_iommu *mock;
	int ret;

	mock = kunit_kzalloc(test, sizeof(*mock), GFP_KERNEL);
	if (!mock)
		return -ENOMEM;
	test->priv = mock;
	ret = own_settings(test);
	if (!ret)
		ret = register_bus(test, &mock_bus);
	if (!ret)
		ret = register_bus(test, &mock_pci_bus);
	if (!ret)
		ret = iommu_device_sysfs_add(&mock->iommu, NULL, NULL,
					     MOCK_NAME);
	if (ret)
		return ret;
	ret = iommu_device_register_bus(&mock->iommu, &mock_ops, &mock_bus,
					&mock->nb);
	if (ret) {
		iommu_device_sysfs_remove(&mock->iommu);
		return ret;
	}
	return kunit_add_action_or_reset(test, mock_destroy, mock);
}

/*
 * The real path
 */

/**
 * struct probe_case - a device, the settings, and the type that it must get
 * @name: of the parameter
 * @answer: of the device's driver
 * @strict: iommu.strict
 * @passthrough: iommu.passthrough
 * @cannot_defer: see struct mock_dev
 * @shadow_on_flush: see struct mock_dev
 * @type: that is right
 */
struct probe_case {
	const char *name;
	int answer;
	bool strict;
	bool passthrough;
	bool cannot_defer;
	bool shadow_on_flush;
	int type;
};

static const struct probe_case probe_cases[] = {
	{ "requires translation, lazy", .answer = IOMMU_DOMAIN_DMA,
	  .type = IOMMU_DOMAIN_DMA_FQ },
	{ "requires translation, strict", .answer = IOMMU_DOMAIN_DMA,
	  .strict = true, .type = IOMMU_DOMAIN_DMA },
	{ "requires translation, lazy, cannot defer",
	  .answer = IOMMU_DOMAIN_DMA, .cannot_defer = true,
	  .type = IOMMU_DOMAIN_DMA },
	{ "requires translation, lazy, pass-through",
	  .answer = IOMMU_DOMAIN_DMA, .passthrough = true,
	  .type = IOMMU_DOMAIN_DMA_FQ },
	{ "requires translation, strict, pass-through",
	  .answer = IOMMU_DOMAIN_DMA, .strict = true, .passthrough = true,
	  .type = IOMMU_DOMAIN_DMA },
	{ "requires nothing, lazy", .type = IOMMU_DOMAIN_DMA_FQ },
	{ "requires nothing, strict", .strict = true,
	  .type = IOMMU_DOMAIN_DMA },
	{ "requires nothing, lazy, cannot defer", .cannot_defer = true,
	  .type = IOMMU_DOMAIN_DMA },
	{ "requires nothing, pass-through", .passthrough = true,
	  .type = IOMMU_DOMAIN_IDENTITY },
	{ "requires identity, lazy", .answer = IOMMU_DOMAIN_IDENTITY,
	  .type = IOMMU_DOMAIN_IDENTITY },
	{ "requires identity, strict", .answer = IOMMU_DOMAIN_IDENTITY,
	  .strict = true, .type = IOMMU_DOMAIN_IDENTITY },
};

KUNIT_ARRAY_PARAM_DESC(probe_cases, probe_cases, name);

/* The type, and that invalidation is as lazy or as strict as the type says */
static void default_domain_of_a_device(struct kunit *test)
{
	const struct probe_case *s = test->param_value;
	struct mock_dev *mdev = mock_alloc(test, s->answer);

	needs_iommu_dma(test);
	set_policy(s->strict, s->passthrough);
	mdev->cannot_defer = s->cannot_defer;
	mock_plug(test, mdev);
	expect_type(test, mdev, s->type);
}

/**
 * struct plug_work - a device that is plugged in by a thread which runs no test
 * @work: for the workqueue
 * @mdev: the device
 * @error: of plugging it in
 */
struct plug_work {
	struct work_struct work;
	struct mock_dev *mdev;
	int error;
};

static void plug_elsewhere(struct work_struct *work)
{
	struct plug_work *plug = container_of(work, struct plug_work, work);

	plug->error = mock_add_device(plug->mdev);
}

/*
 * A device of the system that is plugged in while a test runs gets what the system
 * is set to, not what the test is.
 */
static void settings_are_the_tests_own(struct kunit *test)
{
	const bool strict = iommu_dma_strict;
	const int def = iommu_def_domain_type;
	const int answers[] = { IOMMU_DOMAIN_DMA, 0 };
	const int wanted[] = { strict ? IOMMU_DOMAIN_DMA : IOMMU_DOMAIN_DMA_FQ,
			       def };
	unsigned int i;

	needs_iommu_dma(test);
	set_policy(!strict, def != IOMMU_DOMAIN_IDENTITY);
	for (i = 0; i < ARRAY_SIZE(answers); i++) {
		struct plug_work plug = {
			.mdev = mock_alloc(test, answers[i]),
		};

		INIT_WORK_ONSTACK(&plug.work, plug_elsewhere);
		schedule_work(&plug.work);
		flush_work(&plug.work);
		destroy_work_on_stack(&plug.work);
		KUNIT_ASSERT_EQ(test, plug.error, 0);
		KUNIT_ASSERT_EQ(test, 0,
				kunit_add_action_or_reset(test, mock_unplug,
							  plug.mdev));
		KUNIT_ASSERT_NOT_NULL(test, plug.mdev->dev->iommu_group);
		EXPECT_TYPE(test, plug.mdev, wanted[i]);
	}
}

/*
 * Without dma-iommu a driver that requires translation has been configured
 * wrongly: the kernel warns, and the device gets no domain. All others bypass.
 */
static void no_dma_iommu(struct kunit *test)
{
	struct mock_dev *requires = mock_alloc(test, IOMMU_DOMAIN_DMA);
	struct mock_dev *none = mock_alloc(test, 0);
	int strict, warned = 0;

	if (IS_ENABLED(CONFIG_IOMMU_DMA))
		kunit_skip(test, "needs CONFIG_IOMMU_DMA unset");
	if (IS_ENABLED(CONFIG_ARM_DMA_USE_IOMMU))
		kunit_skip(test, "needs CONFIG_ARM_DMA_USE_IOMMU unset");

	for (strict = 0; strict <= 1; strict++) {
		set_policy(strict, false);
		kunit_warning_suppress(test) {
			mock_add(test, requires);
			warned = KUNIT_SUPPRESSED_WARNING_COUNT();
		}
		KUNIT_EXPECT_EQ(test, warned, IS_ENABLED(CONFIG_BUG));
		KUNIT_EXPECT_NULL(test, requires->dev->iommu_group);
		mock_pull(test, requires);

		mock_plug(test, none);
		EXPECT_TYPE(test, none, IOMMU_DOMAIN_IDENTITY);
		mock_pull(test, none);
	}
}

/**
 * struct mapping - what a driver has of the DMA API
 * @addr: for the device
 * @cpu: coherent memory
 * @sgt: noncontiguous memory
 * @sg: a scatterlist of two pages
 */
struct mapping {
	dma_addr_t addr;
	void *cpu;
	struct sg_table *sgt;
	struct scatterlist sg[2];
};

static bool map_single(struct device *dev, struct page *page, struct mapping *m)
{
	m->addr = dma_map_page(dev, page, 0, PAGE_SIZE, DMA_TO_DEVICE);
	return !dma_mapping_error(dev, m->addr);
}

static void unmap_single(struct device *dev, struct mapping *m)
{
	dma_unmap_page(dev, m->addr, PAGE_SIZE, DMA_TO_DEVICE);
}

static bool map_sg(struct device *dev, struct page *page, struct mapping *m)
{
	unsigned int i;

	sg_init_table(m->sg, ARRAY_SIZE(m->sg));
	for (i = 0; i < ARRAY_SIZE(m->sg); i++)
		sg_set_page(&m->sg[i], page, PAGE_SIZE, 0);
	return dma_map_sg(dev, m->sg, ARRAY_SIZE(m->sg), DMA_TO_DEVICE);
}

static void unmap_sg(struct device *dev, struct mapping *m)
{
	dma_unmap_sg(dev, m->sg, ARRAY_SIZE(m->sg), DMA_TO_DEVICE);
}

/* Atomic, as it is freed: other memory would have to be unmapped for the CPU, too. */
static bool map_coherent(struct device *dev, struct page *page,
			 struct mapping *m)
{
	m->cpu = dma_alloc_coherent(dev, PAGE_SIZE, &m->addr, GFP_ATOMIC);
	return m->cpu;
}

static void unmap_coherent(struct device *dev, struct mapping *m)
{
	dma_free_coherent(dev, PAGE_SIZE, m->cpu, m->addr);
}

static bool map_noncontiguous(struct device *dev, struct page *page,
			      struct mapping *m)
{
	m->sgt = dma_alloc_noncontiguous(dev, 2 * PAGE_SIZE, DMA_TO_DEVICE,
					 GFP_KERNEL, 0);
	return m->sgt;
}

static void unmap_noncontiguous(struct device *dev, struct mapping *m)
{
	dma_free_noncontiguous(dev, 2 * PAGE_SIZE, m->sgt, DMA_TO_DEVICE);
}

/**
 * struct dma_api - a part of the DMA API
 * @name: of the parameter
 * @map: maps @page, or memory of its own; returns whether it did
 * @unmap: undoes it with one unmap, in any context
 */
struct dma_api {
	const char *name;
	bool (*map)(struct device *dev, struct page *page, struct mapping *m);
	void (*unmap)(struct device *dev, struct mapping *m);
};

static const struct dma_api dma_apis[] = {
	{ "single", map_single, unmap_single },
	{ "scatterlist", map_sg, unmap_sg },
	{ "coherent", map_coherent, unmap_coherent },
	{ "noncontiguous", map_noncontiguous, unmap_noncontiguous },
};

KUNIT_ARRAY_PARAM_DESC(dma_apis, dma_apis, name);

/* How often do so many unmaps invalidate? See churn() on the queue's timer. */
static struct churn invalidations_of(struct kunit *test, struct mock_dev *mdev,
				     unsigned int count)
{
	const struct dma_api *api = test->param_value;
	unsigned int i, mapped = 0;
	struct churn result = {};
	unsigned long start;
	struct mapping *m;
	struct page *page;

	m = kunit_kcalloc(test, count, sizeof(*m), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, m);
	page = alloc_page(GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, page);
	while (mapped < count && api->map(mdev->dev, page, &m[mapped]))
		mapped++;

	local_bh_disable();
	start = jiffies;
	result.invalidations = atomic_read(&mdev->mock->invalidations);
	for (i = 0; i < mapped; i++)
		api->unmap(mdev->dev, &m[i]);
	result.invalidations =
		atomic_read(&mdev->mock->invalidations) - result.invalidations;
	result.timeouts = timeouts_since(start);
	local_bh_enable();

	__free_page(page);
	KUNIT_EXPECT_EQ(test, mapped, count);
	return result;
}

/*
 * A lazy domain is lazy, and a strict one strict, with each of these APIs. Not with
 * dma_iova_unlink(), which invalidates in every domain.
 */
static void unmap_follows_type(struct kunit *test)
{
	struct mock_dev *mdev = mock_alloc(test, 0);
	struct churn result;

	needs_iommu_dma(test);
	set_policy(true, false);
	mock_plug(test, mdev);
	EXPECT_TYPE(test, mdev, IOMMU_DOMAIN_DMA);
	result = invalidations_of(test, mdev, QUEUED);
	KUNIT_EXPECT_EQ(test, result.invalidations, QUEUED);
	mock_pull(test, mdev);

	set_policy(false, false);
	mock_plug(test, mdev);
	EXPECT_TYPE(test, mdev, IOMMU_DOMAIN_DMA_FQ);
	result = invalidations_of(test, mdev, QUEUED);
	KUNIT_EXPECT_LT(test, result.invalidations,
			QUEUED / 8 + result.timeouts);
	mock_pull(test, mdev);
	KUNIT_EXPECT_EQ(test, mdev->mock->leaked, 0);
}

/* Who asks for translation, for the tests of what laziness must not break */
static const struct probe_case lazy_devices[] = {
	{ "requires translation", .answer = IOMMU_DOMAIN_DMA },
	{ "requires translation, single queue", .answer = IOMMU_DOMAIN_DMA,
	  .shadow_on_flush = true },
	{ "requires nothing" },
};

KUNIT_ARRAY_PARAM_DESC(lazy_devices, lazy_devices, name);

static struct mock_dev *plug_lazy_device(struct kunit *test)
{
	const struct probe_case *s = test->param_value;
	struct mock_dev *mdev = mock_alloc(test, s->answer);

	needs_iommu_dma(test);
	set_policy(false, false);
	mdev->shadow_on_flush = s->shadow_on_flush;
	mock_plug(test, mdev);
	EXPECT_TYPE(test, mdev, IOMMU_DOMAIN_DMA_FQ);
	return mdev;
}

/*
 * An IOVA is free for the next user when nothing can reach the last one's page
 * through it any more: when it has been invalidated. On several CPUs, if there
 * are, since each has a queue; and between the rounds the queue's timer gets its
 * turn, so that entries leave the queue in both ways. A single queue is larger,
 * and its timer takes a second: there they stay until the device is unplugged.
 *
 * Not on all CPUs: a single queue takes 32768 entries before it is flushed, and
 * with pages of 64 KiB these would need more IOVAs than 32 bits have.
 */
static void iova_not_reused_early(struct kunit *test)
{
	struct mock_dev *mdev = plug_lazy_device(test);
	unsigned int round, cpu, cpus, stale = 0;

	for (round = 0; round < 4; round++) {
		cpus = 0;
		for_each_online_cpu(cpu) {
			if (cpus++ == 4)
				break;
			set_cpus_allowed_ptr(current, cpumask_of(cpu));
			stale += churn(test, mdev, 300, 0).stale;
		}
		msleep(20);
	}
	KUNIT_EXPECT_GT(test, stale, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&mdev->mock->reused), 0);
}

/* Whether the last test can fail: here the invalidation is left out. */
static void mock_notices_early_reuse(struct kunit *test)
{
	struct mock_dev *mdev = mock_alloc(test, 0);
	struct iommu_iotlb_gather gather;
	struct iommu_domain *domain;
	const int prot = IOMMU_READ | IOMMU_WRITE;

	needs_iommu_dma(test);
	set_policy(true, false);
	mock_plug(test, mdev);
	domain = &default_domain(mdev)->domain;
	iommu_iotlb_gather_init(&gather);

	KUNIT_EXPECT_EQ(test, 0,
			iommu_map(domain, SZ_1M, SZ_2M, PAGE_SIZE, prot,
				  GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, PAGE_SIZE,
			iommu_unmap_fast(domain, SZ_1M, PAGE_SIZE, &gather));
	KUNIT_EXPECT_EQ(test, atomic_read(&mdev->mock->reused), 0);
	KUNIT_EXPECT_EQ(test, 0,
			iommu_map(domain, SZ_1M, SZ_2M, PAGE_SIZE, prot,
				  GFP_KERNEL));
	KUNIT_EXPECT_EQ(test, atomic_read(&mdev->mock->reused), 1);
	KUNIT_EXPECT_EQ(test, PAGE_SIZE, iommu_unmap(domain, SZ_1M, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, mock_count(to_mock_domain(domain), true), 0);
}

/* How many of the page-table pages are still in use but for our references */
static unsigned int unfreed_tables(struct mock_iommu *mock)
{
	unsigned int i, unfreed = 0;

	for (i = 0; i < mock->num_tables; i++)
		unfreed += page_ref_count(mock->tables[i]) > 1;
	return unfreed;
}

static void put_tables(void *data)
{
	struct mock_iommu *mock = data;

	while (mock->num_tables)
		put_page(mock->tables[--mock->num_tables]);
}

static void collect_tables(struct kunit *test, struct mock_iommu *mock)
{
	mock->free_tables = true;
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, put_tables, mock));
}

/* What nobody pushes out of the queue its timer flushes, page tables and all. */
static void queue_is_flushed_in_time(struct kunit *test)
{
	struct mock_dev *mdev = plug_lazy_device(test);
	struct mock_domain *md = default_domain(mdev);
	struct mock_iommu *mock = mdev->mock;
	unsigned int tries;

	collect_tables(test, mock);
	churn(test, mdev, QUEUED, 1);
	KUNIT_EXPECT_EQ(test, mock->num_tables, QUEUED);

	/* Longer than any queue's timeout, and over at once if all is well */
	for (tries = 0; tries < 500 && unfreed_tables(mock); tries++)
		msleep(20);
	KUNIT_EXPECT_EQ(test, unfreed_tables(mock), 0);
	KUNIT_EXPECT_EQ(test, mock_count(md, true), 0);
}

/* A device that goes takes its domain, its queue and what is in it along. */
static void teardown_with_queued_entries(struct kunit *test)
{
	struct mock_iommu *mock = test->priv;
	unsigned int count, queued = 0;

	collect_tables(test, mock);
	/* Again with less, should the queue's timer have been faster than we were */
	for (count = QUEUED; count && !queued; count /= 2) {
		struct mock_dev *mdev = plug_lazy_device(test);

		churn(test, mdev, count, 1);
		queued = unfreed_tables(mock);
		mock_pull(test, mdev);
		KUNIT_EXPECT_EQ(test, mock->domains, 0);
		KUNIT_EXPECT_EQ(test, unfreed_tables(mock), 0);
		KUNIT_EXPECT_EQ(test, mock->leaked, 0);
	}
	KUNIT_EXPECT_GT(test, queued, 0);
}

/* Unplugged and plugged in again, a device gets what it had before. */
static void replug(struct kunit *test)
{
	struct mock_iommu *mock = test->priv;
	unsigned int round;

	for (round = 0; round < 64; round++) {
		struct mock_dev *mdev = plug_lazy_device(test);

		churn(test, mdev, 10, 0);
		mock_pull(test, mdev);
		KUNIT_ASSERT_EQ(test, mock->domains, 0);
	}
	KUNIT_EXPECT_EQ(test, mock->leaked, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&mock->reused), 0);
}

/*
 * Untrusted devices
 */

/* The domain for a group of its own, at hot plug and as often as one likes */
static void untrusted_is_strict(struct kunit *test)
{
	const struct probe_case *s = test->param_value;
	struct mock_dev *mdev = mock_alloc_pci(test, s->answer, true);
	unsigned int round;

	needs_iommu_dma(test);
	set_policy(s->strict, s->passthrough);
	for (round = 0; round < 4; round++) {
		mock_plug(test, mdev);
		expect_strict(test, mdev);
		mock_pull(test, mdev);
	}
}

static const struct probe_case untrusted_devices[] = {
	{ "requires translation, lazy", .answer = IOMMU_DOMAIN_DMA },
	{ "requires translation, strict", .answer = IOMMU_DOMAIN_DMA,
	  .strict = true },
	{ "requires translation, lazy, pass-through",
	  .answer = IOMMU_DOMAIN_DMA, .passthrough = true },
	{ "requires nothing, lazy" },
	{ "requires nothing, pass-through", .passthrough = true },
};

KUNIT_ARRAY_PARAM_DESC(untrusted_devices, untrusted_devices, name);

/* The driver may not overrule the distrust: the device stays without a domain. */
static void untrusted_identity_is_refused(struct kunit *test)
{
	struct mock_dev *mdev =
		mock_alloc_pci(test, IOMMU_DOMAIN_IDENTITY, true);

	set_policy(false, false);
	mock_add(test, mdev);
	KUNIT_EXPECT_EQ(test, iommu_probe_device(mdev->dev), -EINVAL);
	KUNIT_EXPECT_NULL(test, mdev->dev->iommu_group);
}

/* Found at boot beside a trusted one, before or after it: both are strict. */
static void untrusted_joins_before_domain(struct kunit *test)
{
	const struct probe_case *s = test->param_value;
	int untrusted_first, i;

	needs_iommu_dma(test);
	set_policy(false, false);
	for (untrusted_first = 0; untrusted_first <= 1; untrusted_first++) {
		struct iommu_group *group = mock_alloc_group(test);
		struct mock_dev *mdev[2];

		for (i = 0; i < 2; i++) {
			mdev[i] = mock_alloc_pci(test, s->answer,
						 i != untrusted_first);
			mdev[i]->group = group;
			mdev[i]->shadow_on_flush = s->shadow_on_flush;
			mock_add(test, mdev[i]);
		}
		KUNIT_ASSERT_EQ(test, bus_iommu_probe(&mock_pci_bus), 0);
		for (i = 0; i < 2; i++)
			expect_strict(test, mdev[i]);
		for (i = 0; i < 2; i++)
			mock_pull(test, mdev[i]);
	}
}

/*
 * The late joiner: the core does not choose again for a device that is hot-plugged
 * into a group with a domain. An untrusted one is never less strict than the group
 * that it joins; it may be as lazy. To have the core choose again is what "auto" is
 * for, with no driver bound.
 */
static void untrusted_joins_late(struct kunit *test)
{
	const struct probe_case *s = test->param_value;
	int strict;

	needs_iommu_dma(test);
	for (strict = 0; strict <= 1; strict++) {
		struct mock_dev *trusted =
			mock_alloc_pci(test, s->answer, false);
		struct mock_dev *late = mock_alloc_pci(test, s->answer, true);
		struct iommu_group *group = mock_alloc_group(test);

		set_policy(strict, false);
		trusted->group = group;
		trusted->shadow_on_flush = s->shadow_on_flush;
		late->group = group;

		mock_plug(test, trusted);
		expect_type(test, trusted,
			    strict ? IOMMU_DOMAIN_DMA : IOMMU_DOMAIN_DMA_FQ);
		mock_plug(test, late);
		if (strict)
			expect_strict(test, late);
		else
			churn(test, late, CHURN, 1);

		KUNIT_EXPECT_EQ(test, 4,
				iommu_group_store_type(group, "auto", 4));
		expect_strict(test, late);
		expect_strict(test, trusted);
		mock_pull(test, late);
		mock_pull(test, trusted);
	}
}

/*
 * The sysfs file
 */

/* Call the store() of the file "type" the way sysfs does */
static int write_type_buf(struct mock_dev *mdev, const char *buf, size_t count)
{
	struct kobject *kobj = &mdev->dev->iommu_group->kobj;
	ssize_t ret;

	ret = kobj->ktype->sysfs_ops->store(kobj, &iommu_group_attr_type.attr,
					    buf, count);
	return ret == count ? 0 : ret < 0 ? ret : -EIO;
}

static int write_type(struct mock_dev *mdev, const char *type)
{
	return write_type_buf(mdev, type, strlen(type));
}

static void expect_read(struct kunit *test, struct mock_dev *mdev, int type)
{
	struct kobject *kobj = &mdev->dev->iommu_group->kobj;
	char *buf = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	char want[16];
	ssize_t len;

	KUNIT_ASSERT_NOT_NULL(test, buf);
	snprintf(want, sizeof(want), "%s\n", type_name(type));
	len = kobj->ktype->sysfs_ops->show(kobj, &iommu_group_attr_type.attr,
					   buf);
	KUNIT_EXPECT_EQ(test, strlen(want), len);
	KUNIT_EXPECT_STREQ(test, buf, want);
	kunit_kfree(test, buf);
}

/* Make @type the group's, whatever it is: "auto" under strict is never lazy. */
static void set_current_type(struct kunit *test, struct mock_dev *mdev,
			     int type)
{
	set_policy(true, false);
	KUNIT_ASSERT_EQ(test, write_type(mdev, "auto"), 0);
	if (default_type(mdev) != type)
		KUNIT_ASSERT_EQ(test, write_type(mdev, type_name(type)), 0);
	expect_read(test, mdev, type);
}

/**
 * struct type_write - a write to the file "type" and what must come of it
 * @current_type: when it is written; 0 ends the table
 * @written: what is written
 * @strict: the type afterwards under iommu.strict=1, or -EINVAL
 * @lazy: and under iommu.strict=0
 */
struct type_write {
	int current_type;
	const char *written;
	int strict;
	int lazy;
};

#define DMA IOMMU_DOMAIN_DMA
#define DMA_FQ IOMMU_DOMAIN_DMA_FQ
#define IDENTITY IOMMU_DOMAIN_IDENTITY

/* Tables, which clang-format would not leave as such */
/* clang-format off */
static const struct type_write requires_translation[] = {
	{ DMA,		"DMA",		DMA,		DMA },
	{ DMA,		"DMA-FQ",	DMA_FQ,		DMA_FQ },
	{ DMA,		"auto",		DMA,		DMA_FQ },
	{ DMA,		"identity",	-EINVAL,	-EINVAL },
	{ DMA,		"junk",		-EINVAL,	-EINVAL },
	{ DMA_FQ,	"DMA",		DMA,		DMA },
	{ DMA_FQ,	"DMA-FQ",	-EINVAL,	DMA_FQ },
	{ DMA_FQ,	"auto",		DMA,		DMA_FQ },
	{ DMA_FQ,	"identity",	-EINVAL,	-EINVAL },
	{ DMA_FQ,	"junk",		-EINVAL,	-EINVAL },
	{}
};

static const struct type_write requires_nothing[] = {
	{ DMA,		"DMA",		DMA,		DMA },
	{ DMA,		"DMA-FQ",	DMA_FQ,		DMA_FQ },
	{ DMA,		"auto",		DMA,		DMA_FQ },
	{ DMA,		"identity",	IDENTITY,	IDENTITY },
	{ DMA_FQ,	"DMA",		DMA,		DMA },
	{ DMA_FQ,	"DMA-FQ",	DMA_FQ,		DMA_FQ },
	{ DMA_FQ,	"auto",		DMA,		DMA_FQ },
	{ DMA_FQ,	"identity",	IDENTITY,	IDENTITY },
	{ IDENTITY,	"DMA",		DMA,		DMA },
	{ IDENTITY,	"DMA-FQ",	DMA_FQ,		DMA_FQ },
	{ IDENTITY,	"auto",		DMA,		DMA_FQ },
	{ IDENTITY,	"identity",	IDENTITY,	IDENTITY },
	{}
};

static const struct type_write requires_identity[] = {
	{ IDENTITY,	"DMA",		-EINVAL,	-EINVAL },
	{ IDENTITY,	"DMA-FQ",	-EINVAL,	-EINVAL },
	{ IDENTITY,	"auto",		IDENTITY,	IDENTITY },
	{ IDENTITY,	"identity",	IDENTITY,	IDENTITY },
	{}
};

/*
 * DMA-FQ, written to DMA, is not tried: it is granted in place before anybody asks
 * for trust, which no test should demand.
 */
static const struct type_write is_untrusted[] = {
	{ DMA,		"DMA",		DMA,		DMA },
	{ DMA,		"auto",		DMA,		DMA },
	{ DMA,		"identity",	-EINVAL,	-EINVAL },
	{ DMA,		"junk",		-EINVAL,	-EINVAL },
	{}
};

/* clang-format on */

#undef DMA
#undef DMA_FQ
#undef IDENTITY

/**
 * struct type_writes - a device, a setting, and all there is to write
 * @name: of the parameter
 * @writes: the table
 * @answer: of the device's driver
 * @untrusted: it sits behind an external-facing port
 * @strict: iommu.strict
 */
struct type_writes {
	const char *name;
	const struct type_write *writes;
	int answer;
	bool untrusted;
	bool strict;
};

static const struct type_writes type_writes[] = {
	{ "requires translation, strict", requires_translation,
	  .answer = IOMMU_DOMAIN_DMA, .strict = true },
	{ "requires translation, lazy", requires_translation,
	  .answer = IOMMU_DOMAIN_DMA },
	{ "requires nothing, strict", requires_nothing, .strict = true },
	{ "requires nothing, lazy", requires_nothing },
	{ "requires identity, strict", requires_identity,
	  .answer = IOMMU_DOMAIN_IDENTITY, .strict = true },
	{ "requires identity, lazy", requires_identity,
	  .answer = IOMMU_DOMAIN_IDENTITY },
	{ "untrusted, requires translation, strict", is_untrusted,
	  .answer = IOMMU_DOMAIN_DMA, .untrusted = true, .strict = true },
	{ "untrusted, requires translation, lazy", is_untrusted,
	  .answer = IOMMU_DOMAIN_DMA, .untrusted = true },
	{ "untrusted, requires nothing, lazy", is_untrusted,
	  .untrusted = true },
};

KUNIT_ARRAY_PARAM_DESC(type_writes, type_writes, name);

/* Every write from every current type; what is refused changes nothing. */
static void sysfs_type(struct kunit *test)
{
	const struct type_writes *t = test->param_value;
	const struct type_write *w;
	struct mock_dev *mdev;

	needs_iommu_dma(test);
	mdev = t->untrusted ? mock_alloc_pci(test, t->answer, true) :
			      mock_alloc(test, t->answer);
	set_policy(t->strict, false);
	mock_plug(test, mdev);
	for (w = t->writes; w->current_type; w++) {
		int want = t->strict ? w->strict : w->lazy;
		int ret;

		set_current_type(test, mdev, w->current_type);
		set_policy(t->strict, false);
		ret = write_type(mdev, w->written);
		KUNIT_EXPECT_EQ_MSG(test, ret, min(want, 0), "%s written to %s",
				    w->written, type_name(w->current_type));
		KUNIT_EXPECT_STREQ_MSG(test, type_name(default_type(mdev)),
				       type_name(want < 0 ? w->current_type :
							    want),
				       "%s written to %s", w->written,
				       type_name(w->current_type));
		expect_type(test, mdev, default_type(mdev));
	}
}

static struct mock_dev *plug_writable_device(struct kunit *test)
{
	struct mock_dev *mdev = mock_alloc(test, IOMMU_DOMAIN_DMA);

	needs_iommu_dma(test);
	set_policy(false, false);
	mock_plug(test, mdev);
	return mdev;
}

/* A write by somebody who lacks one of root's capabilities */
static int write_type_without(struct mock_dev *mdev, const char *type, int cap)
{
	const struct cred *old;
	struct cred *cred;
	int ret;

	cred = prepare_creds();
	if (!cred)
		return -ENOMEM;
	cap_lower(cred->cap_effective, cap);
	old = override_creds(cred);
	ret = write_type(mdev, type);
	revert_creds(old);
	put_cred(cred);
	return ret;
}

static void sysfs_type_needs_capabilities(struct kunit *test)
{
	static const char *const types[] = { "DMA", "DMA-FQ", "auto", "junk" };
	struct mock_dev *mdev = plug_writable_device(test);
	unsigned int i;

	if (!IS_ENABLED(CONFIG_MULTIUSER))
		kunit_skip(test, "needs CONFIG_MULTIUSER");

	set_current_type(test, mdev, IOMMU_DOMAIN_DMA);
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		KUNIT_EXPECT_EQ(test, -EACCES,
				write_type_without(mdev, types[i],
						   CAP_SYS_ADMIN));
		KUNIT_EXPECT_EQ(test, -EACCES,
				write_type_without(mdev, types[i],
						   CAP_SYS_RAWIO));
		expect_read(test, mdev, IOMMU_DOMAIN_DMA);
	}
	KUNIT_EXPECT_EQ(test, 0,
			write_type_without(mdev, "DMA-FQ", CAP_NET_ADMIN));
	expect_read(test, mdev, IOMMU_DOMAIN_DMA_FQ);
}

static struct device_driver mock_driver = {
	.name = MOCK_NAME,
	.bus = &mock_bus,
	.probe_type = PROBE_FORCE_SYNCHRONOUS,
};

static void unbind_driver(void *unused)
{
	driver_unregister(&mock_driver);
}

/* Only from DMA to DMA-FQ under a driver's feet, and anything once it is gone */
static void sysfs_type_with_driver_bound(struct kunit *test)
{
	static const char *const types[] = { "DMA", "auto", "identity" };
	struct mock_dev *mdev = plug_writable_device(test);
	unsigned int i;

	set_current_type(test, mdev, IOMMU_DOMAIN_DMA);
	set_policy(false, false);
	KUNIT_ASSERT_EQ(test, driver_register(&mock_driver), 0);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, unbind_driver, NULL));
	KUNIT_ASSERT_PTR_EQ(test, mdev->dev->driver, &mock_driver);

	for (i = 0; i < ARRAY_SIZE(types); i++)
		KUNIT_EXPECT_EQ(test, write_type(mdev, types[i]), -EPERM);
	expect_strict(test, mdev);
	KUNIT_EXPECT_EQ(test, write_type(mdev, "DMA-FQ"), 0);
	expect_lazy(test, mdev);
	for (i = 0; i < ARRAY_SIZE(types); i++)
		KUNIT_EXPECT_EQ(test, write_type(mdev, types[i]), -EPERM);
	KUNIT_EXPECT_EQ(test, write_type(mdev, "DMA-FQ"), -EPERM);
	expect_lazy(test, mdev);

	kunit_release_action(test, unbind_driver, NULL);
	KUNIT_EXPECT_EQ(test, write_type(mdev, "DMA"), 0);
	expect_strict(test, mdev);
}

static void sysfs_type_junk(struct kunit *test)
{
	/* clang-format off */
	static const char *const junk[] = {
		"", "\n", "dma", "Dma", "DMA-fq", "dma-fq", "DMA_FQ", "DMAFQ",
		"DMA-FQ ", " DMA", "DMA\n\n", "DMA-", "Auto", "AUTO", "Identity",
		"unmanaged", "blocked", "0",
	};
	/* clang-format on */
	struct mock_dev *mdev = plug_writable_device(test);
	char *page = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_NOT_NULL(test, page);
	set_current_type(test, mdev, IOMMU_DOMAIN_DMA_FQ);
	for (i = 0; i < ARRAY_SIZE(junk); i++)
		KUNIT_EXPECT_EQ_MSG(test, write_type(mdev, junk[i]), -EINVAL,
				    "'%s'", junk[i]);
	memset(page, 'A', PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, write_type(mdev, page), -EINVAL);
	memcpy(page, "DMA", 3);
	KUNIT_EXPECT_EQ(test, write_type(mdev, page), -EINVAL);
	KUNIT_EXPECT_EQ(test, write_type_buf(mdev, "\0DMA", 4), -EINVAL);
	expect_read(test, mdev, IOMMU_DOMAIN_DMA_FQ);

	/* The words end at a NUL, as everywhere in sysfs, or at a last newline */
	KUNIT_EXPECT_EQ(test, write_type_buf(mdev, "DMA\0FQ", 6), 0);
	expect_read(test, mdev, IOMMU_DOMAIN_DMA);
	KUNIT_EXPECT_EQ(test, write_type(mdev, "DMA-FQ\n"), 0);
	expect_read(test, mdev, IOMMU_DOMAIN_DMA_FQ);
}

static struct kunit_case mock_cases[] = {
	KUNIT_CASE_PARAM(default_domain_of_a_device, probe_cases_gen_params),
	KUNIT_CASE(settings_are_the_tests_own),
	KUNIT_CASE(no_dma_iommu),
	KUNIT_CASE_PARAM(unmap_follows_type, dma_apis_gen_params),
	KUNIT_CASE_PARAM(iova_not_reused_early, lazy_devices_gen_params),
	KUNIT_CASE(mock_notices_early_reuse),
	KUNIT_CASE_PARAM(queue_is_flushed_in_time, lazy_devices_gen_params),
	KUNIT_CASE_PARAM(teardown_with_queued_entries, lazy_devices_gen_params),
	KUNIT_CASE_PARAM(replug, lazy_devices_gen_params),
	KUNIT_CASE_PARAM(untrusted_is_strict, untrusted_devices_gen_params),
	KUNIT_CASE(untrusted_identity_is_refused),
	KUNIT_CASE_PARAM(untrusted_joins_before_domain,
			 lazy_devices_gen_params),
	KUNIT_CASE_PARAM(untrusted_joins_late, lazy_devices_gen_params),
	KUNIT_CASE_PARAM(sysfs_type, type_writes_gen_params),
	KUNIT_CASE(sysfs_type_needs_capabilities),
	KUNIT_CASE(sysfs_type_with_driver_bound),
	KUNIT_CASE(sysfs_type_junk),
	{}
};

static struct kunit_suite mock_suite = {
	.name = "iommu_default_domain",
	.init = mock_create,
	.test_cases = mock_cases,
};

kunit_test_suites(&policy_suite, &mock_suite);
