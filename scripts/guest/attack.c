// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finds what a device can reach by DMA that has been unmapped, for scripts/boot --attack. QEMU's
 * edu device attacks; it begins a DMA 100 ms after it was told to. The program is told:
 *
 *   device=DEVICE   the device that attacks, by its PCI address
 *   plug            the host has to plug it in
 *   type=TYPE       that the default domain of its group has to have
 *   bounced         what it is given of a part of a page is bounced: it is not trusted
 *   lazy            what has been unmapped it reaches until the flush; without, never
 *
 * A page is mapped, and the device reads and writes it, which fills the IOTLB. Then it is
 * told to do so again, and before it does the page is unmapped, and gets a new secret. The
 * device has reached the page if it has read that secret, or has changed it. It was
 * refused if it has not, its DMA ran after the unmap and has ended, and the kernel has
 * logged one fault of this device, at this address, and nothing else. All else fails.
 *
 * What is judged:
 *
 *  - the type; and whether a part of a page is bounced;
 *  - mapped: what is mapped is read and written;
 *  - unmapped: the page is unmapped 2 ms before the DMA. It is refused, or if lazy reaches
 *    the page;
 *  - window: the same with 1 to 40 ms between; when lazy the page is reached 8 ms after the
 *    unmap and refused 24 ms after: the queue waits for 10 ms and up to two of the kernel's
 *    ticks, of 4 ms each;
 *  - flushed: 50 ms before the DMA it is refused;
 *  - reused: when the address is mapped again the device finds what is there now. If
 *    lazy it is not mapped again before the flush;
 *  - slot: a part of a page that was bounced is unmapped, and the bounce buffer is used for
 *    another part. The device is refused, or if lazy reaches that;
 *  - kernel log: there is no error but those faults, and no taint.
 *
 * It must run with QEMU's option -icount, on one CPU: then time passes by instructions.
 *
 * Prints KTAP, and "# attack WORD TEXT" for the table.
 */
#include <linux/edu.h>
#include "guest.h"
#include "clock.h"
#include "log.h"

#define MS 1000000LL /* nanoseconds */
#define BEGINS (100 * MS) /* after it was told to, edu's DMA begins */
#define ENDS (200 * MS) /* after that, it is taken to run for ever */
#define TICK 4 /* ms: the kernel's */
#define SURELY_QUEUED 8 /* ms after an unmap: a lazy one waits in the queue */
#define SURELY_FLUSHED 24
#define QUIET \
	1200 /* ms before an attack: the kernel logs no more than 3 faults in 5 s */
#define FAULT "DMAR: [DMA %s NO_PASID] Request device [%s] fault addr 0x%llx "
#define MOST (PAGE - 8) /* bytes: a whole page makes QEMU 7.2's edu abort */
#define REUSES 8 /* of other addresses, before one is used again */

/* A page but for its last word, or a part of it, that is mapped, filled and counted */
struct region {
	int page;
	int offset;
	int size;
};

static const struct region target = { 0, 0, MOST };
static const struct region bounced_target = { 0, 512, 512 };
/* By this what is in edu's buffer comes and goes */
static const struct region buffer = { 1, 0, MOST };
#define OTHERS 2 /* the first of the pages that are free */
#define SLOTS 3 /* the first of those for bounce buffers */

/* Milliseconds from an unmap to the DMA that are tried */
static const int steps[] = { 1,	 4,  8,	 10, 11, 12, 13, 14, 15,
			     16, 17, 18, 20, 24, 30, 40, 0 };

enum outcome { WRONG, REFUSED, REACHED };

/* One attack. @after: nanoseconds from the unmap to the DMA, as measured */
struct attack {
	const struct region *target;
	int before; /* ms from the unmap to the DMA */
	bool writes;
	long long after;
};

static const char *device, *type;
static bool plugged, lazy, bounced;
static int edu, log_fd;
static unsigned long long buffer_iova;
static long log_next;
static bool log_clean = true;

/* The fault that is expected, as the kernel logs it, and how often it has */
static char fault[128];
static int faults;

static struct edu_request ask(unsigned int what, const struct region *region,
			      struct edu_request request)
{
	request.page = region->page;
	request.offset = region->offset;
	request.size = region->size;
	if (ioctl(edu, what, &request))
		ksft_exit_fail_perror("edu");
	return request;
}

/* What begins with a page is mapped as a whole page. */
static struct edu_request map(const struct region *region)
{
	struct region all = *region;

	if (!all.offset)
		all.size = PAGE;
	return ask(EDU_MAP, &all, (struct edu_request){});
}

static void unmap(const struct region *region)
{
	ask(EDU_UNMAP, region, (struct edu_request){});
}

static void fill(const struct region *region, unsigned long long value)
{
	ask(EDU_FILL, region, (struct edu_request){ .value = value });
}

/* How many bytes of @region have the @value that fill() has given all of them? */
static int count(const struct region *region, unsigned long long value)
{
	struct edu_request request = { .value = value };

	return ask(EDU_COUNT, region, request).count * sizeof(value);
}

/* A number that has not been before, and is not 0 */
static unsigned long long new_secret(void)
{
	static unsigned long long secret = 0x5ec3e75ec3e75ec3;

	return secret = secret * 6364136223846793005 + 1442695040888963407;
}

static bool is_running(void)
{
	return ask(EDU_RUNNING, &buffer, (struct edu_request){}).running;
}

static void start(unsigned long long iova, int size, int flags)
{
	struct region part = { 0, 0, size };
	struct edu_request request = { .iova = iova, .flags = flags };

	ask(EDU_START, &part, request);
}

/* Sleep for most of the time, which costs nothing; the rest has to be exact. */
static void wait_until(long long when)
{
	while (when - now() > 4 * TICK * MS)
		msleep(TICK);
	while (now() < when)
		;
}

/* Wait for the end of the DMA that was started at @began; has it come? */
static bool ends(long long began)
{
	wait_until(began + BEGINS - 2 * MS);
	while (is_running())
		if (now() - began > ENDS)
			return false;
	return true;
}

/* Do a DMA to its end; was it seen to run, and to end? */
static bool do_dma(unsigned long long iova, int size, int flags)
{
	bool runs;

	start(iova, size, flags);
	msleep(60);
	runs = is_running();
	msleep(60);
	return runs && !is_running();
}

/* Have all of edu's buffer hold @value. */
static bool set_buffer(unsigned long long value)
{
	fill(&buffer, value);
	return do_dma(buffer_iova, buffer.size, 0);
}

/* Have what edu's buffer holds in ours. */
static bool get_buffer(void)
{
	fill(&buffer, 0);
	return do_dma(buffer_iova, buffer.size, EDU_TO_MEMORY);
}

/* The beginning of our buffer, as much as the device has read of @region */
static struct region read_of(const struct region *region)
{
	return (struct region){ buffer.page, 0, region->size };
}

/* Does the device read @value at @iova, where it can be seen by the end of @region? */
static bool reads(const struct region *region, unsigned long long iova,
		  unsigned long long value)
{
	struct region part = read_of(region);

	return set_buffer(new_secret()) && do_dma(iova, region->size, 0) &&
	       get_buffer() && count(&part, value) == region->size;
}

/* Does the device write @value at @iova, which then is in all of @region? */
static bool writes(const struct region *region, unsigned long long iova,
		   unsigned long long value)
{
	return set_buffer(value) && do_dma(iova, region->size, EDU_TO_MEMORY) &&
	       count(region, value) == region->size;
}

/* From now on the kernel may log faults of the device at @iova, or none if that is 0. */
static void expect_fault(unsigned long long iova, bool writes)
{
	faults = 0;
	fault[0] = '\0';
	if (iova)
		snprintf(fault, sizeof(fault), FAULT, writes ? "Write" : "Read",
			 device, iova & ~(PAGE - 1ULL));
}

static bool is_expected(const char *text)
{
	if (!fault[0])
		return false;
	if (!strncmp(text, "DMAR: DRHD: handling fault status reg ", 38))
		return true;
	if (strncmp(text, fault, strlen(fault)))
		return false;
	faults++;
	return true;
}

/*
 * What the kernel has logged since the last time: nothing but faults of the device at
 * @iova, as it @writes? Those are counted in faults. None is expected at 0.
 */
static bool log_is_as_expected(unsigned long long iova, bool writes)
{
	bool good;

	expect_fault(iova, writes);
	good = log_goes_on(log_fd, &log_next, LOG_ERR, is_expected);
	log_clean &= good;
	return good;
}

/*
 * Map and fill the target of an attack, and see that the device reaches it. @mapped says
 * where it is mapped, and with its value what is in it.
 */
static bool reaches_mapped(const struct region *region,
			   struct edu_request *mapped)
{
	unsigned long long old = new_secret();

	fill(region, old);
	*mapped = map(region);
	mapped->value = old;
	if (!reads(region, mapped->iova, old))
		return false;
	/* What is bounced comes back only at the unmap */
	if (mapped->phys != mapped->own)
		return true;
	mapped->value = new_secret();
	return writes(region, mapped->iova, mapped->value);
}

static const char *name_of(enum outcome outcome)
{
	return outcome == REACHED ? "reached" :
	       outcome == REFUSED ? "refused" :
				    "wrong";
}

/*
 * What has the device done to @victim, which has got the secret @theirs after the unmap,
 * with @mine in its buffer? @at is what was mapped until then.
 */
static enum outcome outcome_of(const struct attack *attack,
			       const struct region *victim,
			       const struct edu_request *at,
			       unsigned long long mine,
			       unsigned long long theirs)
{
	struct region part = read_of(victim);
	bool reached, intact;

	if (attack->writes) {
		reached = count(victim, mine) == victim->size;
		intact = count(victim, theirs) == victim->size;
	} else if (get_buffer()) {
		reached = count(&part, theirs) == victim->size;
		intact = !count(&part, theirs) && !count(&part, at->value);
	} else {
		return WRONG;
	}
	if (!log_is_as_expected(at->iova, attack->writes))
		return WRONG;
	if (reached && !faults)
		return REACHED;
	if (intact && faults == 1)
		return REFUSED;
	ksft_print_msg("%s, %s, and %d faults of %s were logged\n",
		       reached ? "reached" : "not reached",
		       intact ? "intact" : "not intact", faults, device);
	return WRONG;
}

/*
 * Map parts of pages with @theirs in them, until one has the bounce buffer at @phys. None
 * gets the address that was unmapped: if it is free, a page of its own takes it meanwhile.
 */
static int find_slot(unsigned long long phys, unsigned long long theirs)
{
	struct region region = bounced_target;
	struct region taker = { OTHERS, 0, MOST };
	int found = -1;

	map(&taker);
	for (region.page = SLOTS; found < 0 && region.page < EDU_PAGES;
	     region.page++) {
		fill(&region, theirs);
		if (map(&region).phys == phys)
			found = region.page;
	}
	unmap(&taker);
	return found;
}

static void unmap_slots(int last)
{
	struct region region = bounced_target;

	if (last < 0)
		last = EDU_PAGES - 1;
	for (region.page = SLOTS; region.page <= last; region.page++)
		unmap(&region);
}

static enum outcome do_attack(struct attack *attack)
{
	unsigned long long mine = new_secret(), theirs = new_secret();
	struct region victim = *attack->target;
	bool is_slot = attack->target == &bounced_target;
	struct edu_request at;
	enum outcome outcome = WRONG;
	long long began, unmapped;
	bool good;

	msleep(QUIET);
	good = reaches_mapped(attack->target, &at) && set_buffer(mine);
	good &= log_is_as_expected(0, false);
	began = now();
	start(at.iova, attack->target->size,
	      EDU_ATTACK | (attack->writes ? EDU_TO_MEMORY : 0));
	wait_until(began + BEGINS - attack->before * MS);
	unmap(attack->target);
	unmapped = now();
	if (is_slot)
		victim.page = find_slot(at.phys, theirs);
	else
		fill(&victim, theirs);
	if (!is_running()) {
		ksft_print_msg("the DMA has not begun, or ended too soon\n");
		good = false;
	}
	good &= ends(began);
	attack->after = now() - unmapped;
	if (victim.page >= 0 && good)
		outcome = outcome_of(attack, &victim, &at, mine, theirs);
	if (is_slot)
		unmap_slots(victim.page);
	ksft_print_msg("%s %lld us after the unmap: %s\n",
		       attack->writes ? "write" : "read", attack->after / 1000,
		       name_of(outcome));
	return outcome;
}

static enum outcome attack_page(int before, bool writes)
{
	struct attack attack = { &target, before, writes, 0 };

	return do_attack(&attack);
}

/* A read and a write: have they the same outcome? */
static enum outcome attack_twice(int before)
{
	enum outcome outcome = attack_page(before, false);

	return attack_page(before, true) == outcome ? outcome : WRONG;
}

static void check_mapped(void)
{
	struct edu_request at;
	bool good = reaches_mapped(&target, &at);

	unmap(&target);
	good &= at.phys == at.own;
	good &= log_is_as_expected(0, false);
	ksft_print_msg("attack mapped %s\n", good ? "reached" : "wrong");
	ksft_test_result(good, "mapped\n");
}

static void check_at(const char *word, int before, enum outcome want)
{
	enum outcome outcome = attack_twice(before);

	ksft_print_msg("attack %s %s\n", word, name_of(outcome));
	ksft_test_result(outcome == want, "%s\n", word);
}

/* Until when after the unmap is the page reached, and from when on is it refused? */
static void check_window(void)
{
	long long reached = 0, refused = 0;
	bool good = true;
	const int *step;

	for (step = steps; *step; step++) {
		struct attack attack = { &target, *step, false, 0 };
		enum outcome outcome = do_attack(&attack);

		if (outcome == REACHED)
			reached = attack.after;
		if (outcome == REFUSED && !refused)
			refused = attack.after;
		if (outcome == WRONG)
			good = false;
		if (outcome == REACHED && (!lazy || *step >= SURELY_FLUSHED))
			good = false;
		if (outcome == REFUSED && lazy && *step <= SURELY_QUEUED)
			good = false;
	}
	ksft_print_msg("attack window %lld,%lld\n", reached / 1000,
		       refused / 1000);
	ksft_test_result(good, "window\n");
}

/*
 * Map pages until one is at @iova, @count of them at most, from @page on; returns the last
 * one's number, and whether it is there in @found.
 */
static int map_until(unsigned long long iova, int page, int count, bool *found)
{
	struct region region = { page, 0, MOST };

	for (*found = false; !*found && count--; region.page++)
		*found = map(&region).iova == iova;
	return region.page - 1;
}

static void check_reused(void)
{
	struct region other = { OTHERS, 0, MOST };
	unsigned long long theirs = new_secret(), old = new_secret();
	bool good, found = false;
	struct edu_request at;
	int last = OTHERS - 1;

	good = reaches_mapped(&target, &at);
	unmap(&target);
	if (lazy) {
		last = map_until(at.iova, OTHERS, REUSES, &found);
		if (found)
			ksft_print_msg("mapped again before the flush\n");
		good &= !found;
		msleep(100);
	}
	if (!found)
		last = map_until(at.iova, last + 1, REUSES, &found);
	other.page = last;
	fill(&target, old);
	fill(&other, theirs);
	good &= found && reads(&other, at.iova, theirs) &&
		writes(&other, at.iova, new_secret()) &&
		count(&target, old) == target.size;
	for (other.page = OTHERS; other.page <= last; other.page++)
		unmap(&other);
	good &= log_is_as_expected(0, false);
	ksft_print_msg("attack reused %s\n", good ? "refused" : "wrong");
	ksft_test_result(good, "reused\n");
}

static void skip(const char *name, const char *why)
{
	ksft_test_result_code(KSFT_SKIP, name, "%s", why);
}

static void check_slot(void)
{
	struct attack attack = { &bounced_target, 4, false, 0 };
	enum outcome outcome;

	if (!bounced) {
		skip("slot", "what it is given is not bounced");
		return;
	}
	outcome = do_attack(&attack);
	ksft_print_msg("attack slot %s\n", name_of(outcome));
	ksft_test_result(outcome == (lazy ? REACHED : REFUSED), "slot\n");
}

/* A part of a page is bounced for those who are not trusted, and only for them. */
static void check_trust(void)
{
	struct edu_request at = map(&bounced_target);

	unmap(&bounced_target);
	ksft_test_result((at.phys != at.own) == bounced, "trust\n");
}

static void check_type(void)
{
	char buf[16] = "none";
	bool good = read_type(device, buf, sizeof(buf)) && !strcmp(buf, type);

	ksft_print_msg("attack type %s\n", buf);
	ksft_test_result(good, "type\n");
}

static void open_device(void)
{
	char path[64];
	int tenths;

	snprintf(path, sizeof(path), "/dev/edu-%s", device);
	if (plugged)
		ask_host("plug 1");
	for (tenths = 0; tenths < PLUG_SECONDS * 10; tenths++) {
		edu = open(path, O_RDWR);
		if (edu >= 0)
			return;
		msleep(100);
	}
	ksft_exit_fail_perror(path);
}

static void read_argument(const char *arg)
{
	if (value_of(arg, "device="))
		device = value_of(arg, "device=");
	else if (value_of(arg, "type="))
		type = value_of(arg, "type=");
	else if (!strcmp(arg, "plug"))
		plugged = true;
	else if (!strcmp(arg, "bounced"))
		bounced = true;
	else if (!strcmp(arg, "lazy"))
		lazy = true;
	else
		ksft_exit_fail_msg("unknown argument %s\n", arg);
}

int main(int argc, char *argv[])
{
	static const char *const others[] = {
		"trust",  "mapped", "unmapped",	  "window", "flushed",
		"reused", "slot",   "kernel log", NULL
	};
	const char *const *name;
	bool clean;
	int i;

	quiet_console(LOG_ERR - 1); /* its faults are errors */
	ksft_print_header();
	for (i = 1; i < argc; i++)
		read_argument(argv[i]);
	if (!device || !type)
		ksft_exit_fail_msg("want device= and type=\n");
	log_fd = open_log();
	open_device();
	ksft_set_plan(9);
	check_type();
	if (!strcmp(type, "identity")) {
		for (name = others; *name; name++)
			skip(*name, "nothing is translated");
		ksft_finished();
	}
	buffer_iova = map(&buffer).iova;
	check_trust();
	check_mapped();
	check_at("unmapped", 2, lazy ? REACHED : REFUSED);
	check_window();
	check_at("flushed", 50, REFUSED);
	check_reused();
	check_slot();
	clean = log_is_as_expected(0, false);
	clean &= log_clean && taint_is(0);
	ksft_test_result(clean, "kernel log\n");
	ksft_finished();
}
