// SPDX-License-Identifier: GPL-2.0-only
/*
 * One event happens to the machine, and types and disks have to be as before: for
 * scripts/boot --events. The arguments are:
 *
 *   event=EVENT     which event, see below
 *   rounds=N        how often it happens
 *   DEVICE=TYPE     the type that the default domain of the device's group has to have
 *   disk=DEVICE     this is a disk; the event happens to the first one. If that is not
 *                   there, the host is asked to plug it in
 *   write FROM WORD RESULT DRIVER
 *                   if that disk's type is FROM, and WORD is written to it, the result is
 *                   RESULT, a type or an error. DRIVER: "bound" or "free"
 *   slot            that disk can be unplugged from slot 1
 *   one-type        strict is in force, and nothing is required for that disk
 *
 * Several processes read the disk as fast as they can ("under load"), except in faults and
 * nth. So there are entries in the flush queue, if there is one, when the event happens. EVENT
 * is one of:
 *
 *   type      types are written under load with the driver bound, and then without it
 *   fuzz      random bytes, and what is nearly a type, are written by root, by the user nobody,
 *             and by several processes at once
 *   rebind    the driver is unbound and bound, and the device is removed and found again
 *   plug      the device is unplugged and plugged in
 *   cpu       the CPU on which the disk is read goes offline and comes back
 *   suspend   the machine suspends to RAM, and the host wakes it
 *   vfio      vfio-pci takes the device, maps by a container and by iommufd, and gives it back
 *   faults    allocations of the IOMMU's core, and of what it calls, fail at random while
 *             types are written, the driver is bound, and the device is found and plugged in
 *   nth       the same, but the n-th allocation fails, for each n until none does; and a group
 *             that falls back to strict is strict in fact. Not while the device is plugged in
 *   queue     no flush queue can be allocated from boot on; later they can
 *   kexec     the kernel in the file /kernel starts, with the initramfs in /initrd
 *
 * What is judged:
 *
 *  - the event itself: see its function;
 *  - what the event's readers read, a record of each page, and afterwards each disk, is what
 *    the disk holds;
 *  - afterwards each type is as told, and each disk's unmaps invalidate the IOTLB as often as
 *    its type says;
 *  - the kernel has logged no error, and is not tainted. Where allocations fail it may say
 *    that. lockdep, RCU's checks, KCSAN and kmemleak, if they were built in, have found
 *    nothing, and DEBUG_OBJECTS has not given up.
 *
 * After kexec process 1 of the next kernel judges, and this program prints nothing.
 *
 * It prints KTAP, and "# event WHAT NUMBER" for the table.
 */
#include <linux/iommufd.h>
#include <linux/kexec.h>
#include <linux/reboot.h>
#include <linux/sched.h>
#include <linux/vfio.h>
#include "guest.h"
#include "disk.h"
#include "log.h"

#define PCI "/sys/bus/pci/"
#define SLOT "1" /* of the first device that a machine plugs */
#define NAME_SIZE \
	64 /* bytes: of a device's name, a path's last part and the like */
#define PATH_SIZE 256
#define DEVICES 8
#define WRITES 64
#define READERS 3 /* processes that read the disk */
#define SEGMENTS 64 /* of a read: each is mapped and unmapped by itself */
#define KMEMLEAK "/sys/kernel/debug/kmemleak"
#define LEAK_SECONDS 6 /* after 5 it tells of what it takes for a leak */
#define LEAK_LINES 100 /* of what it tells are printed */
#define RECORDS (HALF_PAGE / RECORD_SIZE) /* of a segment */
#define QUEUED 256 /* unmaps until there surely are entries in a queue */
#define WINDOW 8192 /* unmaps that are counted */
/*
 * Lazy is less than one invalidation for so many unmaps. Strict is one for each. A queue is
 * flushed each 256 unmaps or 10 ms: that is one for 16 where a host is so slow that it makes
 * no more in this time, which the best of TRIES has to be clear of.
 */
#define LAZY_USES 16
#define TRIES 5
#define WAIT_SECONDS 20 /* for what comes or goes */
#define IOVA 0x100000ULL /* where vfio and iommufd map */
#define TEXTS 50 /* that are written in a row */
#define TEXT_SIZE PAGE /* bytes: of one; the kernel takes no more at once */
#define NOBODY 65534
#define NTHS 4096 /* more allocations than any path has */
#define TRIES_TO_FAIL 200 /* at random: by then something has failed */

/* A device of the machine, and the type that its default domain has to have */
struct device {
	const char *expectation; /* DEVICE=TYPE */
	const char *type;
	char name[NAME_SIZE];
	bool is_disk;
};

/* The result of a word that is written to the type of the device */
struct write {
	const char *from;
	const char *word;
	const char *result;
	bool bound;
};

/* What the readers have in common with us. wrong: reads that were not what the disk holds */
struct progress {
	long reads[READERS];
	long wrong;
};

static const char *event;
static int rounds;
static bool is_spoiled; /* see is_left_out() */
static struct device devices[DEVICES];
static struct write writes[WRITES];
static int device_count, write_count;
static struct device *subject; /* what the event happens to */
static char driver[PATH_SIZE]; /* of it, in sysfs */

static struct progress *progress;
static pid_t readers[READERS];
static bool is_read; /* the readers have been started, and not stopped */

/*
 * Is the act of the event @which left out? With events.spoil on the kernel's command line
 * it is, and the event has to fail. So one sees that it can.
 */
static bool is_left_out(const char *which)
{
	return is_spoiled && !strcmp(event, which);
}

/* For the table */
static void tell(const char *what, long number)
{
	ksft_print_msg("event %s %ld\n", what, number);
}

static bool is_type(const struct device *device, const char *type)
{
	char now[NAME_SIZE] = "none";

	read_type(device->name, now, sizeof(now));
	if (!strcmp(now, type))
		return true;
	ksft_print_msg("%s is %s, and should be %s\n", device->name, now, type);
	return false;
}

static bool is_lazy(const struct device *device)
{
	return !strcmp(device->type, "DMA-FQ");
}

static bool enter(const char *name)
{
	return !chdir(PCI "devices") && !chdir(name);
}

static bool is_bound(void)
{
	return enter(subject->name) && !chdir("driver");
}

/* Returns whether the device is there, and has a driver and a disk, before long. */
static bool wait_for_disk(void)
{
	int tenths;

	for (tenths = 0; tenths < WAIT_SECONDS * 10; tenths++) {
		if (is_bound() && find_disk(subject->expectation))
			return true;
		msleep(100);
	}
	ksft_print_msg("%s has no disk\n", subject->name);
	return false;
}

static bool wait_until_gone(void)
{
	int tenths;

	for (tenths = 0; tenths < WAIT_SECONDS * 10; tenths++) {
		if (!enter(subject->name))
			return true;
		msleep(100);
	}
	ksft_print_msg("%s does not go\n", subject->name);
	return false;
}

/* Make the record @n of each segment one that the disk does not have. */
static void spoil_records(const struct iovec segments[], int n)
{
	int i;

	for (i = 0; i < SEGMENTS; i++)
		memcpy((char *)segments[i].iov_base + n * RECORD_SIZE, "-1", 3);
}

/* Do the segments hold, in their record @n, those of the disk from @first on? */
static bool hold_records(const struct iovec segments[], int first, int n)
{
	const char *record;
	int i;

	for (i = 0; i < SEGMENTS; i++) {
		record = (char *)segments[i].iov_base + n * RECORD_SIZE;
		if (atoi(record) != (first + i) * RECORDS + n)
			return false;
	}
	return true;
}

/*
 * Ends when the disk cannot be read. Each reader reads segments of the disk that no other reads,
 * each to its own page of memory: so what reaches a wrong page is seen. One record of each
 * segment is compared, another one each time.
 */
static void read_for_ever(const char *disk, int reader)
{
	int first = reader * SEGMENTS, n = 0, fd;
	struct iovec segments[SEGMENTS];

	fd = open_for_segments(disk, segments, SEGMENTS, HALF_PAGE);
	if (fd < 0)
		exit(1);
	spoil_records(segments, n);
	while (syscall(__NR_preadv, fd, segments, SEGMENTS, first * HALF_PAGE,
		       0) == SEGMENTS * HALF_PAGE) {
		if (!hold_records(segments, first, n))
			__atomic_fetch_add(&progress->wrong, 1,
					   __ATOMIC_RELAXED);
		n = (n + 1) % RECORDS;
		spoil_records(segments, n);
		__atomic_fetch_add(&progress->reads[reader], 1,
				   __ATOMIC_RELAXED);
	}
	exit(1);
}

/* At least so many unmaps have the readers made until now. */
static long uses(void)
{
	long reads = 0;
	int i;

	for (i = 0; i < READERS; i++)
		reads += __atomic_load_n(&progress->reads[i], __ATOMIC_RELAXED);
	return reads * SEGMENTS;
}

/* Wait until the readers have made so many unmaps more; have they? */
static bool wait_for_uses(long more)
{
	long before = uses();
	int ms;

	for (ms = 0; ms < WAIT_SECONDS * 1000; ms++) {
		if (uses() - before >= more)
			return true;
		usleep(1000);
	}
	ksft_print_msg("the disk is not read\n");
	return false;
}

/* Begin to read the disk of @device, and wait until there are entries in its queue. */
static bool start_readers_of(const struct device *device)
{
	const char *disk = find_disk(device->expectation);
	int i;

	if (!disk)
		return false;
	for (i = 0; i < READERS; i++) {
		readers[i] = fork();
		if (readers[i] < 0)
			ksft_exit_fail_perror("fork");
		if (!readers[i])
			read_for_ever(disk, i);
	}
	is_read = true;
	return wait_for_uses(QUEUED);
}

static bool start_readers(void)
{
	return start_readers_of(subject);
}

/* End them; had all of them read on until now? */
static bool stop_readers(void)
{
	bool good = true;
	int i, status;

	if (!is_read)
		return true;
	is_read = false;
	for (i = 0; i < READERS; i++)
		kill(readers[i], SIGKILL);
	for (i = 0; i < READERS; i++) {
		if (waitpid(readers[i], &status, 0) != readers[i])
			ksft_exit_fail_perror("waitpid");
		good &= WIFSIGNALED(status);
	}
	return good;
}

/* Their disk goes: it does not matter whether they could read on until now. */
static void kill_readers(void)
{
	stop_readers();
}

/* The readers still read; then end them. */
static bool reads_on(void)
{
	bool good = wait_for_uses(QUEUED);

	if (stop_readers())
		return good;
	ksft_print_msg("the disk of %s could not be read\n", subject->name);
	return false;
}

/*
 * Under load: do unmaps invalidate the IOTLB as often as @type says? Those that are under way
 * when the count begins may not be counted.
 */
static bool invalidates_as(const char *type)
{
	bool is_strict = !strcmp(type, "DMA"), good = false;
	long count, before;
	int tries;

	if (!is_strict && strcmp(type, "DMA-FQ"))
		return true;
	for (tries = 0; !good && tries < (is_strict ? 1 : TRIES); tries++) {
		count = ask_host("count");
		before = uses();
		if (!wait_for_uses(WINDOW))
			return false;
		before = uses() - before;
		count = ask_host("count") - count;
		good = is_strict ? count >= before - READERS * SEGMENTS :
				   count && count < before / LAZY_USES;
		ksft_print_msg("%s: %ld invalidations in %ld unmaps\n", type,
			       count, before);
	}
	return good;
}

static bool is_read_well(const struct device *device)
{
	const char *disk = find_disk(device->expectation);

	if (disk && ends_well(read_disk, disk))
		return true;
	ksft_print_msg("the disk of %s is not read well\n", device->name);
	return false;
}

/*
 * Does the disk invalidate the IOTLB as often as its type says? Not that of NVMe, see
 * check_invalidations() of init.c. Only one disk is read at a time: the host counts for all.
 */
static bool is_counted_well(const struct device *device)
{
	const char *disk = find_disk(device->expectation);
	bool good;

	if (!disk || disk[0] != 'v')
		return disk;
	good = start_readers_of(device) && invalidates_as(device->type);
	return stop_readers() && good;
}

/* Are types, disks and the numbers of invalidations as told? */
static bool is_all_as_told(void)
{
	bool good = true;
	int i;

	for (i = 0; i < device_count; i++) {
		good &= is_type(&devices[i], devices[i].type);
		if (devices[i].is_disk)
			good &= is_read_well(&devices[i]) &&
				is_counted_well(&devices[i]);
	}
	if (progress->wrong)
		ksft_print_msg("%ld reads were not what the disk holds\n",
			       progress->wrong);
	return good && !progress->wrong;
}

/* Keep the path of the device's driver, for bind(). */
static void find_driver(void)
{
	if (!is_bound() || syscall(__NR_getcwd, driver, sizeof(driver)) < 0)
		ksft_exit_fail_msg("%s has no driver\n", subject->name);
}

static bool unbind(void)
{
	return is_bound() && write_file("unbind", subject->name);
}

static bool bind(void)
{
	return !chdir(driver) && write_file("bind", subject->name) &&
	       wait_for_disk();
}

static bool remove_device(void)
{
	return enter(subject->name) && write_file("remove", "1") &&
	       wait_until_gone();
}

static bool find_device(void)
{
	return write_file(PCI "rescan", "1") && wait_for_disk();
}

/* The negative error with this name of policy.py's; 0 if it is the name of a type */
static int error_of(const char *name)
{
	static const struct {
		const char *name;
		int error;
	} errors[] = { { "EPERM", EPERM },
		       { "EINVAL", EINVAL },
		       { "EOPNOTSUPP", EOPNOTSUPP } };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(errors); i++)
		if (!strcmp(errors[i].name, name))
			return -errors[i].error;
	return 0;
}

/* The result that @word has to have if it is written now: a type or an error */
static const char *result_of(const char *word, bool bound)
{
	char from[NAME_SIZE] = "none";
	int i;

	read_type(subject->name, from, sizeof(from));
	for (i = 0; i < write_count; i++)
		if (writes[i].bound == bound && !strcmp(writes[i].from, from) &&
		    !strcmp(writes[i].word, word))
			return writes[i].result;
	ksft_exit_fail_msg("no result of %s is given for the type %s\n", word,
			   from);
}

static long written; /* words */

/* Open the type of the device; -1 if it has none. */
static int open_type(void)
{
	return enter(subject->name) ? open("iommu_group/type", O_WRONLY) : -1;
}

/* Write @len bytes of @text to the type. Returns 0 or an error, which is negative. */
static int write_text(const char *text, size_t len)
{
	int fd = open_type(), error = 0;

	if (fd < 0)
		return -ENOENT;
	if (write(fd, text, len) < 0)
		error = -errno;
	close(fd);
	written++;
	return error;
}

static int write_type(const char *word)
{
	return write_text(word, strlen(word));
}

/*
 * Write @len bytes of @text, which the kernel has to take for @word; is the result right? An
 * error leaves the type as it was.
 */
static bool text_writes_well(const char *text, size_t len, const char *word,
			     bool bound)
{
	const char *result = result_of(word, bound);
	int want = error_of(result), error;
	char before[NAME_SIZE] = "";

	read_type(subject->name, before, sizeof(before));
	error = want;
	if (want || !bound || !is_left_out("type"))
		error = write_text(text, len);
	if (error != want) {
		ksft_print_msg("%s from %s: error %d, and should be %d\n", word,
			       before, error, want);
		return false;
	}
	return is_type(subject, want ? before : result);
}

static bool writes_well(const char *word, bool bound)
{
	return text_writes_well(word, strlen(word), word, bound);
}

static bool all_write_well(const char *const words[], bool bound)
{
	bool good = true;

	for (; *words; words++)
		good &= writes_well(*words, bound);
	return good;
}

/* With the driver bound, and the disk read: only DMA-FQ from DMA can be written. */
static bool write_under_load(bool is_counted)
{
	static const char *const words[] = { "DMA", "identity", "nonsense",
					     "auto", NULL };
	char type[NAME_SIZE] = "";
	bool good = true;

	read_type(subject->name, type, sizeof(type));
	if (is_counted)
		good &= invalidates_as(type);
	good &= all_write_well(words, true);
	good &= writes_well("DMA-FQ", true);
	good &= all_write_well(words, true);
	read_type(subject->name, type, sizeof(type));
	if (is_counted)
		good &= invalidates_as(type);
	return good;
}

/*
 * The first round begins with the type of the boot, each other one with DMA. "auto" gives
 * the type of the boot. The driver is unbound while the disk is read.
 */
static bool have_types_written(void)
{
	static const char *const words[] = { "nonsense", "identity", "DMA-FQ",
					     "auto", NULL };
	bool good = true;
	int i;

	for (i = 0; good && i < rounds; i++) {
		good &= start_readers();
		good &= write_under_load(i < 2 || i == rounds - 1);
		good &= unbind();
		kill_readers();
		good &= all_write_well(words, false);
		good &= is_type(subject, subject->type);
		if (i < rounds - 1)
			good &= writes_well("DMA", false);
		good &= bind();
	}
	tell("rounds", i);
	tell("writes", written);
	return good;
}

/* The words that the type takes */
static const char *const types[] = { "DMA", "DMA-FQ", "auto", "identity" };

/* Marsaglia's xorshift. A seed draws the same each time. */
static unsigned int drawn;

static unsigned int draw(unsigned int below)
{
	drawn ^= drawn << 13;
	drawn ^= drawn >> 17;
	drawn ^= drawn << 5;
	return drawn % below;
}

/* Change one byte of @text, insert one or remove one. Returns how long it is then. */
static size_t change_text(char *text, size_t len)
{
	size_t place = draw(len);

	switch (draw(4)) {
	case 0:
		text[place] ^= 1 << draw(8);
		return len;
	case 1:
		text[place] ^= 'a' ^ 'A';
		return len;
	case 2:
		memmove(text + place + 1, text + place, len - place);
		text[place] = draw(256);
		return len + 1;
	default:
		memmove(text + place, text + place + 1, len - place - 1);
		return len - 1;
	}
}

/*
 * Put into @text a word, as it is or with a newline, something else after its end, a word with
 * a change or two, or any bytes. Returns how long that is, and at least 1.
 */
static size_t draw_text(char text[TEXT_SIZE])
{
	const char *word = types[draw(ARRAY_SIZE(types))];
	size_t len = strlen(word), i;

	memcpy(text, word, len);
	switch (draw(5)) {
	case 0:
		text[len] = '\n';
		return len + draw(2);
	case 1:
		text[len] = '\0';
		text[len + 1] = draw(256);
		return len + 2;
	case 2:
		len = change_text(text, len);
		return draw(2) ? change_text(text, len) : len;
	case 3:
		text[len] = '\n';
		text[len + 1] = draw(256);
		return len + 2;
	default:
		len = 1 + draw(draw(2) ? 8 : TEXT_SIZE);
		for (i = 0; i < len; i++)
			text[i] = draw(256);
		return len;
	}
}

/* What the kernel has to take it for: it ends at a NUL, and before that at a last newline. */
static const char *word_in(const char *text, size_t len)
{
	size_t i;

	len = strnlen(text, len);
	if (len && text[len - 1] == '\n')
		len--;
	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (len == strlen(types[i]) && !memcmp(text, types[i], len))
			return types[i];
	return "nonsense";
}

/* One after the other: each has the result that it should have. */
static bool texts_write_well(bool bound)
{
	char text[TEXT_SIZE];
	bool good = true;
	size_t len;
	int i;

	for (i = 0; good && i < TEXTS; i++) {
		len = draw_text(text);
		good = text_writes_well(text, len, word_in(text, len), bound);
	}
	return good;
}

/* In a child, so that we stay root: is nobody refused, even with what root has opened? */
static bool nobody_is_refused(void)
{
	int fd = open_type(), status;
	char text[TEXT_SIZE];
	pid_t pid = fork();
	bool denied;
	size_t i;

	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid) {
		denied = is_left_out("fuzz") ||
			 !syscall(__NR_setresuid, NOBODY, NOBODY, NOBODY);
		denied &= open_type() < 0 && errno == EACCES;
		for (i = 0; i < ARRAY_SIZE(types); i++)
			denied &= write(fd, types[i], strlen(types[i])) < 0 &&
				  errno == EACCES;
		for (i = 0; i < TEXTS; i++)
			denied &= write(fd, text, draw_text(text)) < 0 &&
				  errno == EACCES;
		exit(denied);
	}
	close(fd);
	if (waitpid(pid, &status, 0) != pid)
		ksft_exit_fail_perror("waitpid");
	return WIFEXITED(status) && WEXITSTATUS(status) == true;
}

/* Is this what a write of @word leads to from one of the types? Others write as well. */
static bool may_be(int error, const char *word)
{
	int i;

	for (i = 0; i < write_count; i++)
		if (!writes[i].bound && !strcmp(writes[i].word, word) &&
		    error_of(writes[i].result) == error)
			return true;
	ksft_print_msg("%s: error %d, from whatever type\n", word, error);
	return false;
}

static bool is_any_type(void)
{
	char type[NAME_SIZE] = "none";
	int i;

	read_type(subject->name, type, sizeof(type));
	for (i = 0; i < write_count; i++)
		if (!strcmp(writes[i].from, type))
			return true;
	ksft_print_msg("%s is %s, which it cannot be\n", subject->name, type);
	return false;
}

/* One of several that write at once. */
static bool write_texts(void)
{
	char text[TEXT_SIZE];
	bool good = true;
	size_t len;
	int i;

	for (i = 0; good && i < TEXTS; i++) {
		len = draw_text(text);
		good = may_be(write_text(text, len), word_in(text, len)) &&
		       is_any_type();
	}
	return good;
}

/* Several write at once, each something else. */
static bool write_in_parallel(void)
{
	bool good = true;
	int i, status;

	for (i = 0; i < READERS; i++) {
		pid_t pid = fork();

		if (pid < 0)
			ksft_exit_fail_perror("fork");
		if (!pid)
			exit(!write_texts());
		draw(2); /* so that each writes something else */
	}
	for (i = 0; i < READERS; i++)
		good &= waitpid(-1, &status, 0) > 0 && !status;
	return good;
}

/* What is none of the words is refused, whoever writes it, and changes nothing. */
static bool have_fuzzed(void)
{
	bool good = true;
	int i;

	for (i = 0; good && i < rounds; i++) {
		drawn = i + 1;
		good &= start_readers() && texts_write_well(true);
		good &= unbind();
		kill_readers();
		good &= texts_write_well(false);
		good &= nobody_is_refused() && write_in_parallel();
		good &= writes_well("auto", false);
		good &= is_type(subject, subject->type) && bind();
	}
	tell("rounds", i);
	tell("writes", written);
	return good;
}

static bool have_rebound(void)
{
	bool good = true;
	int i;

	for (i = 0; good && i < rounds; i++) {
		good &= start_readers() && (is_left_out("rebind") || unbind());
		kill_readers();
		good &= !is_bound() && is_type(subject, subject->type) &&
			bind();
		good &= start_readers() && remove_device();
		kill_readers();
		good &= find_device() && is_type(subject, subject->type);
	}
	tell("unbound", i);
	tell("removed", i);
	return good;
}

static bool unplug_device(void)
{
	if (!is_left_out("plug") && !power_off(SLOT))
		return false;
	if (!wait_until_gone())
		return false; /* QEMU would refuse to have it a second time */
	ask_host("unplug 1");
	return true;
}

static bool have_plugged(void)
{
	bool good = true;
	int i;

	for (i = 0; good && i < rounds; i++) {
		good &= start_readers() && unplug_device();
		kill_readers();
		if (!good)
			break;
		ask_host("plug 1");
		good &= wait_for_disk() && is_type(subject, subject->type);
	}
	tell("plugged", i);
	return good;
}

#define CPU1 "/sys/devices/system/cpu/cpu1/online"

/* Where the kernel has been told to begin with one CPU, there is another one from now on. */
static void start_cpu1(void)
{
	if (read_number(CPU1, "") == 0 && !write_file(CPU1, "1"))
		ksft_exit_fail_perror(CPU1);
	if (read_number(CPU1, "") != 1)
		ksft_exit_fail_msg("there is one CPU\n");
}

/* Have the readers, which are ours, read on this CPU alone. */
static bool run_on(int cpu)
{
	unsigned long mask = 1UL << cpu;
	int i;

	for (i = 0; i < READERS; i++)
		if (syscall(__NR_sched_setaffinity, readers[i], sizeof(mask),
			    &mask))
			return false;
	return true;
}

/* How many interrupts of virtio's has CPU 1 taken? It is online. */
static long interrupts_of_cpu1(void)
{
	FILE *file = fdopen(open("/proc/interrupts", O_RDONLY), "r");
	char line[256], *pos;
	long sum = 0;

	if (!file)
		ksft_exit_fail_perror("/proc/interrupts");
	while (fgets(line, sizeof(line), file)) {
		pos = strchr(line, ':');
		if (!pos || !strstr(line, "virtio"))
			continue;
		strtol(pos + 1, &pos, 10); /* of CPU 0 */
		sum += strtol(pos, NULL, 10);
	}
	fclose(file);
	return sum;
}

/* Have CPU 1 unmap, so that there are entries in its queue: its interrupts end requests. */
static bool fill_queue_of_cpu1(void)
{
	long before;

	/* What is under way may still end elsewhere */
	if (!run_on(1) || !wait_for_uses(QUEUED))
		return false;
	before = interrupts_of_cpu1();
	if (!wait_for_uses(QUEUED))
		return false;
	if (interrupts_of_cpu1() > before)
		return true;
	ksft_print_msg("CPU 1 takes no interrupts of disks\n");
	return false;
}

/* The readers move to the other CPU; their entries stay in the queue of this one. */
static bool have_cpu_offline(void)
{
	bool good = true;
	int i;

	for (i = 0; good && i < rounds; i++) {
		good &= start_readers() && fill_queue_of_cpu1() &&
			(is_left_out("cpu") || write_file(CPU1, "0")) &&
			wait_for_uses(QUEUED) && read_number(CPU1, "") == 0;
		good &= write_file(CPU1, "1") && reads_on();
		good &= is_type(subject, subject->type);
	}
	tell("offline", i);
	return good;
}

static bool have_suspended(void)
{
	bool good = true;
	int i;

	for (i = 0; good && i < rounds; i++) {
		good &= start_readers();
		ask_host("wake");
		good &= is_left_out("suspend") ||
			write_file("/sys/power/state", "mem");
		good &= reads_on();
		good &= is_type(subject, subject->type);
	}
	tell("suspended", i);
	/* The kernel counts, too. */
	return good &&
	       read_number("/sys/power/suspend_stats/success", "") == rounds;
}

/* Have only the driver @name take the device, or any if that is a newline. */
static bool give_to(const char *name)
{
	return enter(subject->name) && write_file("driver_override", name) &&
	       write_file(PCI "drivers_probe", subject->name);
}

/* The last part of where the link @name in the device's directory points to */
static bool read_link(const struct device *device, const char *name,
		      char path[PATH_SIZE], const char **last)
{
	ssize_t len =
		enter(device->name) ? readlink(name, path, PATH_SIZE - 1) : -1;

	if (len <= 0)
		return false;
	path[len] = '\0';
	*last = strrchr(path, '/') + 1;
	return true;
}

/* The type cannot be written while VFIO owns the group. */
static bool is_owned(void)
{
	return writes_well("auto", true) && writes_well("DMA", true);
}

static bool map_by_container(int container, void *page)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (unsigned long)page,
		.iova = IOVA,
		.size = PAGE,
	};
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof(unmap),
						    .iova = IOVA,
						    .size = PAGE };

	return !ioctl(container, VFIO_IOMMU_MAP_DMA, &map) && is_owned() &&
	       !ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) &&
	       unmap.size == PAGE;
}

static bool use_container(void *page)
{
	int container = open("/dev/vfio/vfio", O_RDWR), group, device = -1;
	char link[PATH_SIZE], path[PATH_SIZE];
	const char *number;
	bool good;

	if (!read_link(subject, "iommu_group", link, &number))
		return false;
	snprintf(path, sizeof(path), "/dev/vfio/%s", number);
	group = open(path, O_RDWR);
	good = group >= 0 &&
	       !ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) &&
	       !ioctl(container, VFIO_SET_IOMMU, (void *)VFIO_TYPE1v2_IOMMU);
	if (good)
		device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD,
			       (void *)subject->name);
	good = good && device >= 0 && map_by_container(container, page);
	if (!good)
		ksft_perror("container");
	close(device);
	close(group);
	close(container);
	return good;
}

/* The device's own file of VFIO, or -1 */
static int open_cdev(void)
{
	char path[PATH_SIZE];
	struct dirent entry, *next;
	DIR *dir;

	if (!enter(subject->name))
		return -1;
	dir = opendir("vfio-dev");
	if (!dir)
		return -1;
	while (!readdir_r(dir, &entry, &next) && next)
		if (entry.d_name[0] != '.')
			break;
	closedir(dir);
	if (!next)
		return -1;
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", entry.d_name);
	return open(path, O_RDWR);
}

static bool map_by_iommufd(int iommufd, int ioas, void *page)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.ioas_id = ioas,
		.user_va = (unsigned long)page,
		.length = PAGE,
		.iova = IOVA,
	};
	struct iommu_ioas_unmap unmap = { .size = sizeof(unmap),
					  .ioas_id = ioas,
					  .iova = IOVA,
					  .length = PAGE };

	return !ioctl(iommufd, IOMMU_IOAS_MAP, &map) && is_owned() &&
	       !ioctl(iommufd, IOMMU_IOAS_UNMAP, &unmap) &&
	       unmap.length == PAGE;
}

static bool use_iommufd(void *page)
{
	int iommufd = open("/dev/iommu", O_RDWR), device = open_cdev();
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind),
						 .iommufd = iommufd };
	struct vfio_device_attach_iommufd_pt attach = {};
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
	bool good;

	good = device >= 0 && !ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind) &&
	       !ioctl(iommufd, IOMMU_IOAS_ALLOC, &alloc);
	attach.argsz = sizeof(attach);
	attach.pt_id = alloc.out_ioas_id;
	good = good && !ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach) &&
	       map_by_iommufd(iommufd, alloc.out_ioas_id, page);
	if (!good)
		ksft_perror("iommufd");
	close(device);
	close(iommufd);
	return good;
}

/* vfio-pci owns the group only while it is open: before and after, types can be written. */
static bool have_taken_by_vfio(void)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool good = page != MAP_FAILED;
	int i;

	for (i = 0; good && i < rounds; i++) {
		good &= start_readers() && unbind();
		kill_readers();
		good &= is_left_out("vfio") || give_to("vfio-pci");
		good &= writes_well("auto", false) && use_container(page) &&
			is_type(subject, subject->type) && use_iommufd(page) &&
			writes_well("auto", false);
		good &= unbind() && give_to("\n") && wait_for_disk();
		good &= is_type(subject, subject->type);
		good &= start_readers() && invalidates_as(subject->type);
		good &= stop_readers();
	}
	tell("taken", i);
	return good;
}

/* In drivers/iommu/, before all of the core and dma-iommu.c, and after them */
static const char *const symbols[] = {
	"intel_iommu_probe_device",
	"arm_smmu_probe_device",
	"alloc_iova",
	"viommu_probe_device",
};

/* Take a line of /proc/kallsyms, "ADDRESS TYPE NAME"; widen the range if we want it. */
static void widen(const char *line, unsigned long *start, unsigned long *end)
{
	const char *name = strrchr(line, ' ');
	unsigned long address;
	size_t i;

	for (i = 0; name && i < ARRAY_SIZE(symbols); i++) {
		if (strcmp(name + 1, symbols[i]))
			continue;
		address = strtoul(line, NULL, 16);
		*start = address < *start ? address : *start;
		*end = address > *end ? address : *end;
	}
}

/* Where is the code of the IOMMU's core? */
static void find_core(unsigned long *start, unsigned long *end)
{
	static char buf[65536];
	int fd = open("/proc/kallsyms", O_RDONLY);
	size_t kept = 0;
	ssize_t len;
	char *pos, *next;

	*start = -1UL;
	*end = 0;
	while ((len = read(fd, buf + kept, sizeof(buf) - 1 - kept)) > 0) {
		buf[kept + len] = '\0';
		for (pos = buf; (next = strchr(pos, '\n')); pos = next + 1) {
			*next = '\0';
			widen(pos, start, end);
		}
		kept = strlen(pos);
		memmove(buf, pos, kept);
	}
	close(fd);
	if (*start >= *end)
		ksft_exit_fail_msg("/proc/kallsyms does not say where\n");
}

/* Files that have allocations fail, kept open: opening them would fail as well */
static int make_it_fail, fail_nth;

static void set_fault(const char *kind, const char *name, const char *value)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", kind, name);
	if (!write_file(path, value))
		ksft_exit_fail_perror(path);
}

/* What can fail: allocations of slabs, of pages and of flush queues */
static const char *const kinds[] = { "failslab", "fail_page_alloc",
				     "fail_iova_queue" };

static void set_faults(const char *name, const char *value)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		set_fault(kinds[i], name, value);
}

/* What fails has to be ours, and called by the IOMMU's core, or by what that calls. */
static void prepare_faults(void)
{
	unsigned long start, end;
	char address[32];

	find_core(&start, &end);
	snprintf(address, sizeof(address), "0x%lx", start);
	set_faults("require-start", address);
	snprintf(address, sizeof(address), "0x%lx", end);
	set_faults("require-end", address);
	set_faults("task-filter", "Y");
	set_fault("failslab", "ignore-gfp-wait", "N");
	set_fault("fail_page_alloc", "ignore-gfp-wait", "N");
	set_fault("fail_page_alloc", "ignore-gfp-highmem", "N");
	set_fault("fail_page_alloc", "min-order", "0");
	set_faults("verbose", "0");
	make_it_fail = open("/proc/self/make-it-fail", O_WRONLY);
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR);
	if (make_it_fail < 0 || fail_nth < 0)
		ksft_exit_fail_perror("/proc/self");
}

static long faults_left(void)
{
	char path[PATH_SIZE];
	long left = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/times",
			 kinds[i]);
		left += read_number(path, "");
	}
	return left;
}

/*
 * Write @text to the file @fd, with allocations failing: the @nth, or if that is 0 some at
 * random. Puts the error, or 0, into @error. Returns how many have failed.
 */
static int write_with_faults(int fd, const char *text, int nth, int *error)
{
	char number[16] = "";
	long before;
	ssize_t ret;

	if (!nth) {
		set_faults("times", "1000000");
		before = faults_left();
		if (!is_left_out("faults"))
			write(make_it_fail, "1", 1);
		ret = write(fd, text, strlen(text));
		*error = ret < 0 ? -errno : 0;
		write(make_it_fail, "0", 1);
		return before - faults_left();
	}
	snprintf(number, sizeof(number), "%d", is_left_out("nth") ? NTHS : nth);
	write(fail_nth, number, strlen(number));
	ret = write(fd, text, strlen(text));
	*error = ret < 0 ? -errno : 0;
	memset(number, 0, sizeof(number));
	if (syscall(__NR_pread64, fail_nth, number, sizeof(number) - 1, 0) <= 0)
		ksft_exit_fail_perror("fail-nth");
	write(fail_nth, "0", 1);
	return atoi(number) == 0;
}

/* Wait until the device is there, and the core has dealt with it. */
static bool wait_for_device(void)
{
	int tenths;

	for (tenths = 0; tenths < WAIT_SECONDS * 10; tenths++) {
		/* Whoever finds devices holds a lock meanwhile, for which this waits */
		if (enter(subject->name))
			return write_file(PCI "rescan", "1");
		msleep(100);
	}
	ksft_print_msg("%s does not come\n", subject->name);
	return false;
}

/*
 * Plug the device in, with allocations failing at random in whichever task: the thread of the
 * hot-plug controller finds it. Returns how many have failed, or -1 if it does not come.
 */
static int plug_with_faults(void)
{
	bool is_there;
	long before;

	set_faults("times", "1000000");
	before = faults_left();
	if (!is_left_out("faults"))
		set_faults("task-filter", "N");
	ask_host("plug 1");
	is_there = wait_for_device();
	set_faults("task-filter", "Y");
	return is_there ? before - faults_left() : -1;
}

/*
 * A path on which allocations fail. Nothing fails while begin() goes to its start, and end()
 * back. check() says whether the state after a try is right.
 */
struct path {
	const char *name;
	const char *percent; /* of allocations that fail at random */
	const char *from; /* the type at its start; NULL: there is no device */
	bool (*begin)(void);
	int (*open)(void); /* NULL: the device is plugged in */
	bool (*check)(const struct path *path, const char *result, int error,
		      int failed);
	bool (*end)(void);
	const char *word; /* that is written, or NULL for the device's name */
	bool bound;
	int seldom; /* in one of so many rounds, since it takes long */
};

static bool find_without_driver(void)
{
	return write_file(PCI "rescan", "1") && enter(subject->name);
}

/* The device comes with a new group, without a driver. */
static bool renew_device(void)
{
	return remove_device() && find_without_driver();
}

/*
 * No driver, a new domain, and the type is @from: of DMA anything can be made. Written where
 * the type is DMA already it would leave the domain as it is. If there was no memory to set
 * that up for DMA, the kernel crashes when the device is used, with and without the series.
 */
static bool begin_from(const char *from)
{
	bool is_taken = !error_of(result_of("DMA-FQ", false));

	if (is_taken ? write_type("DMA-FQ") : !renew_device())
		return false;
	if (write_type("DMA") || !is_type(subject, "DMA"))
		return false;
	return !strcmp(from, "DMA") ||
	       (!write_type(from) && is_type(subject, from));
}

/*
 * Does the device invalidate as its type says? It is read for this, by its driver, which it has
 * before and after if @bound.
 */
static bool does_as_it_says(bool bound)
{
	char type[NAME_SIZE] = "none";
	bool good = bound || bind();

	read_type(subject->name, type, sizeof(type));
	good = good && start_readers() && invalidates_as(type);
	return stop_readers() && good && (bound || unbind());
}

/* Is the type DMA, and should be @result, since there was no memory for a queue? */
static bool fell_back(const char *result)
{
	char type[NAME_SIZE] = "none";

	read_type(subject->name, type, sizeof(type));
	return !strcmp(result, "DMA-FQ") && !strcmp(type, "DMA");
}

static bool at_random; /* allocations fail: it may be more than one */

/*
 * The group fell back to strict: is it so in fact? If more has failed its device may be without
 * the DMA API of the IOMMU, or refused, with and without the series.
 */
static bool falls_back_well(bool bound)
{
	return at_random || does_as_it_says(bound);
}

/*
 * It has been done, or not at all. Only where something has failed may it be strict that
 * should be lazy; never lazy that should be strict. Done does not mean that the device can do
 * DMA: the core ignores it if there was no memory to set the new domain up, see is_warned_of().
 * If it has not been done, VT-d's driver may have blocked the device: it does so before it
 * attaches a domain, and if that fails nobody attaches the old one. So without a driver only
 * the type is judged.
 */
static bool check_written(const struct path *path, const char *result,
			  int error, int failed)
{
	if (!error && failed && fell_back(result))
		return falls_back_well(path->bound);
	if (!is_type(subject, error ? path->from : result))
		return false;
	return !path->bound || does_as_it_says(true);
}

static bool nothing(void)
{
	return true;
}

static int open_bind(void)
{
	return chdir(driver) ? -1 : open("bind", O_WRONLY);
}

static bool check_bind(const struct path *path, const char *result, int error,
		       int failed)
{
	return is_bound() == !error && is_type(subject, path->from);
}

static bool end_bind(void)
{
	return !is_bound() || unbind();
}

static int open_rescan(void)
{
	return open(PCI "rescan", O_WRONLY);
}

static long without_group;

/*
 * Where something has failed, it may have no group, or be strict that should be lazy. It is
 * found: only allocations of the IOMMU fail.
 */
static bool check_rescan(const struct path *path, const char *result, int error,
			 int failed)
{
	char type[NAME_SIZE] = "none";

	if (!failed)
		return is_type(subject, subject->type);
	if (!enter(subject->name))
		return false;
	if (!read_type(subject->name, type, sizeof(type))) {
		without_group++;
		return true;
	}
	if (fell_back(subject->type))
		return falls_back_well(false);
	return is_type(subject, subject->type);
}

static bool end_rescan(void)
{
	if (enter(subject->name) && !remove_device())
		return false;
	return find_without_driver() && is_type(subject, subject->type);
}

static bool end_plug(void)
{
	if (!unplug_device())
		return false;
	ask_host("plug 1");
	return wait_for_device() && is_type(subject, subject->type);
}

static const struct path paths[] = {
	{ "auto", "10", "DMA", nothing, open_type, check_written, nothing,
	  "auto" },
	{ "DMA-FQ", "50", "DMA", nothing, open_type, check_written, nothing,
	  "DMA-FQ" },
	{ "identity", "10", "DMA", nothing, open_type, check_written, nothing,
	  "identity" },
	{ "DMA", "10", "DMA-FQ", nothing, open_type, check_written, nothing,
	  "DMA" },
	{ "lazy-auto", "10", "DMA-FQ", nothing, open_type, check_written,
	  nothing, "auto" },
	{ "bound", "50", "DMA", bind, open_type, check_written, unbind,
	  "DMA-FQ", true },
	{ "bind", "10", "DMA", nothing, open_bind, check_bind, end_bind },
	{ "lazy-bind", "10", "DMA-FQ", nothing, open_bind, check_bind,
	  end_bind },
	{ "rescan", "10", NULL, remove_device, open_rescan, check_rescan,
	  end_rescan, "1" },
	{ "plug", "10", NULL, unplug_device, NULL, check_rescan, end_plug,
	  .seldom = 10 },
};

/* Strict is in force, and nothing is required for the disk: of types there is this one. */
static bool has_one_type;

/*
 * Does it say that there is no memory, if anything? Where there is no other type to try, the
 * core says EINVAL for auto, with and without the series.
 */
static bool is_clean(const struct path *path, int error)
{
	bool chooses = path->word && !strcmp(path->word, "auto");

	if (chooses && has_one_type && error == -EINVAL)
		return true;
	return !error || error == -ENOMEM;
}

/* Write what is written on @path. Returns how many allocations have failed, or -1. */
static int write_on(const struct path *path, int nth, int *error)
{
	int fd = path->open(), failed;

	if (fd < 0)
		return -1;
	failed = write_with_faults(fd, path->word ?: subject->name, nth, error);
	close(fd);
	return failed;
}

/*
 * Go along @path once. The @nth allocation fails, or some at random if that is 0. Returns how
 * many have failed, or -1 if the state is not right then.
 */
static int try_path(const struct path *path, int nth)
{
	const char *result = "";
	int error = 0, failed;

	if ((path->from && !begin_from(path->from)) || !path->begin())
		return -1;
	if (path->check == check_written)
		result = result_of(path->word, path->bound);
	failed = path->open ? write_on(path, nth, &error) : plug_with_faults();
	if (failed < 0)
		return -1;
	if (failed ? !is_clean(path, error) : error != error_of(result))
		ksft_print_msg("%s: error %d, and %d have failed\n", path->name,
			       error, failed);
	else if (path->check(path, result, error, failed) && path->end())
		return failed;
	ksft_print_msg("%s: not as it should be, with error %d\n", path->name,
		       error);
	return -1;
}

/* Pages of the IOMMU's tables, of which kmemleak knows nothing */
static long table_pages(void)
{
	long pages = -1;

	/* Each CPU keeps some of the number to itself until it is asked for them */
	if (write_file("/proc/sys/vm/stat_refresh", "1"))
		pages = read_number("/proc/vmstat", "nr_iommu_pages ");
	if (pages <= 0)
		ksft_exit_fail_msg("the kernel counts no pages of tables\n");
	return pages;
}

static long pages_before;

/* Devices get no driver by themselves: one without a group would do DMA without it. */
static bool begin_faults(void)
{
	if (!remove_device() || !find_device()) /* as end_faults() has it */
		return false;
	pages_before = table_pages();
	prepare_faults();
	return write_file(PCI "drivers_autoprobe", "0") && unbind();
}

static bool end_faults(void)
{
	long pages;

	if (without_group)
		tell("without-group", without_group);
	set_faults("probability", "0");
	if (!write_file(PCI "drivers_autoprobe", "1") || !remove_device() ||
	    !find_device())
		return false;
	pages = table_pages();
	if (pages <= pages_before)
		return true;
	ksft_print_msg("tables have %ld pages, and had %ld\n", pages,
		       pages_before);
	return false;
}

/*
 * Is nothing allocated on @path? It cannot become what the path starts from, the word is
 * refused, or the type stays what it is.
 */
static bool allocates_nothing(const struct path *path)
{
	const char *result;

	if (!path->from || !begin_from("DMA"))
		return false;
	if (strcmp(path->from, "DMA") && error_of(result_of(path->from, false)))
		return true;
	if (path->check != check_written || !begin_from(path->from))
		return false;
	result = result_of(path->word, path->bound);
	return error_of(result) || !strcmp(result, path->from);
}

/* Go along @path as often as told, and on until something has failed. */
static bool fail_at_random(const struct path *path)
{
	int tries, now = 0, times = rounds / (path->seldom ?: 1);
	long failed = 0;

	at_random = true;
	set_faults("probability", path->percent);
	for (tries = 0; tries < times || (!failed && tries < TRIES_TO_FAIL);
	     tries++) {
		now = try_path(path, 0);
		if (now < 0)
			break;
		failed += now;
	}
	tell(path->name, failed);
	return now >= 0 && failed;
}

/* Have the first allocation on @path fail, then the second, until none does. */
static bool fail_each(const struct path *path)
{
	int nth, now = 1;

	for (nth = 1; nth < NTHS; nth++) {
		now = try_path(path, nth);
		if (now <= 0)
			break;
	}
	tell(path->name, nth - 1);
	return !now && nth > 1;
}

static bool has_slot; /* from which the subject can be unplugged */

static bool have_paths_fail(bool (*fail)(const struct path *path))
{
	bool good = begin_faults();
	size_t i;

	for (i = 0; good && i < ARRAY_SIZE(paths); i++) {
		if (!paths[i].open && (!has_slot || fail == fail_each))
			continue; /* in another task the n-th cannot be counted */
		if (allocates_nothing(&paths[i]))
			continue;
		good &= fail(&paths[i]);
		/* Only a first domain may give reason to warn, see is_warned_of() */
		good &= !paths[i].from || taint_is(0);
		if (!good)
			ksft_print_msg("%s: nothing fails, or see above\n",
				       paths[i].name);
	}
	return end_faults() && good;
}

static bool have_failed_at_random(void)
{
	return have_paths_fail(fail_at_random);
}

static bool have_failed_each(void)
{
	return have_paths_fail(fail_each);
}

/* Does the selftest say that the group of the device may have no queue? */
static bool selftest_says_why(const struct device *device)
{
	const char *why = "a flush queue could not be allocated";
	char link[PATH_SIZE], label[NAME_SIZE], line[512];
	char *argv[2] = { "/default_domain" };
	const char *number;
	bool good = false;
	FILE *said;
	pid_t pid;
	int out;

	if (!read_link(device, "iommu_group", link, &number))
		return false;
	snprintf(label, sizeof(label), " group %s type ", number);
	pid = start_program(argv, NULL, &out);
	said = fdopen(out, "r");
	while (said && fgets(line, sizeof(line), said)) {
		if (!strstr(line, label))
			continue;
		ksft_print_msg("the selftest says: %s", line);
		good |= !!strstr(line, why);
	}
	fclose(said);
	exit_status(pid); /* that it fails is right */
	return good;
}

/* Is each device strict that should be lazy, and any other as told? */
static bool is_strict_instead(void)
{
	bool good = true;
	int i;

	for (i = 0; i < device_count; i++)
		good &= is_type(&devices[i],
				is_lazy(&devices[i]) ? "DMA" : devices[i].type);
	return good;
}

/* How many devices should be lazy? */
static int lazy_count(void)
{
	int count = 0, i;

	for (i = 0; i < device_count; i++)
		count += is_lazy(&devices[i]);
	return count;
}

/*
 * With the driver bound and the disk read, DMA-FQ is refused, and it stays strict: there is no
 * memory for the queue, or the kernel refuses it before it needs one.
 */
static bool is_refused_a_queue(void)
{
	bool good = start_readers() && invalidates_as("DMA");
	int want = error_of(result_of("DMA-FQ", true)) ?: -ENOMEM;

	good &= write_type("DMA-FQ") == want && is_type(subject, "DMA") &&
		invalidates_as("DMA");
	return reads_on() && good;
}

/* Each device that should have a queue gets one: the subject when it is found, others by sysfs. */
static bool give_queues(void)
{
	bool good = remove_device() && find_device();
	int i;

	for (i = 0; i < device_count; i++)
		if (is_lazy(&devices[i]) && &devices[i] != subject)
			good &= enter(devices[i].name) &&
				write_file("iommu_group/type", "DMA-FQ");
	return good;
}

/* The kernel has booted with fail_iova_queue, so that no group could have a queue. */
static bool have_no_queues(void)
{
	bool good;
	int i;

	if (is_left_out("queue"))
		set_fault("fail_iova_queue", "probability", "0");
	good = is_strict_instead() && is_refused_a_queue();
	for (i = 0; i < device_count; i++)
		if (is_lazy(&devices[i]))
			good &= selftest_says_why(&devices[i]);
	set_fault("fail_iova_queue", "probability", "0");
	tell("devices", lazy_count());
	return give_queues() && good;
}

/* The kernel's command line */
static const char *read_cmdline(void)
{
	static char line[1024];
	int fd = open("/proc/cmdline", O_RDONLY);
	ssize_t len = read(fd, line, sizeof(line) - 1);

	close(fd);
	if (len <= 0)
		ksft_exit_fail_perror("/proc/cmdline");
	line[len - 1] = '\0'; /* in place of the newline */
	return line;
}

/*
 * arm64 takes every CPU but the first down before the next kernel starts. blk-mq then waits for
 * the requests of these CPUs. virtio-blk, which is shut down by then, ends none, and the
 * machine hangs, with stock as well.
 */
static bool read_where_they_may(void)
{
#ifdef __aarch64__
	return run_on(0) && wait_for_uses(READERS * QUEUED);
#else
	return true;
#endif
}

/* It returns only if it has failed. The next kernel's process 1 judges. */
static bool have_next_kernel(void)
{
	int kernel = open("/kernel", O_RDONLY),
	    initrd = open("/initrd", O_RDONLY);
	const char *line = read_cmdline();
	/* nolibc's syscall() has its arguments in registers, which a call would spoil */
	size_t size = strlen(line) + 1;

	if (!start_readers() || !kernel_is_clean() || !no_finding_is_logged() ||
	    !lockdep_found_nothing() || !kcsan_found_nothing())
		return false;
	if (syscall(__NR_kexec_file_load, kernel, initrd, size, line, 0)) {
		ksft_perror("kexec_file_load");
		return false;
	}
	/* Nobody reads the log of this kernel any more: a warning has to end it */
	if (write_file("/proc/sys/kernel/panic_on_warn", "1") &&
	    read_where_they_may() && wait_for_uses(QUEUED) &&
	    !is_left_out("kexec"))
		reboot(LINUX_REBOOT_CMD_KEXEC);
	ksft_perror("kexec");
	return false;
}

static const struct {
	const char *name;
	bool (*happens)(void);
} events[] = {
	/* clang-format off */
	{ "type", have_types_written },
	{ "fuzz", have_fuzzed },
	{ "rebind", have_rebound },
	{ "plug", have_plugged },
	{ "cpu", have_cpu_offline },
	{ "suspend", have_suspended },
	{ "vfio", have_taken_by_vfio },
	{ "faults", have_failed_at_random },
	{ "nth", have_failed_each },
	{ "queue", have_no_queues },
	{ "kexec", have_next_kernel },
	/* clang-format on */
};

/* Was kmemleak built in? */
static bool has_kmemleak(void)
{
	int fd = open(KMEMLEAK, O_RDONLY);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* kmemleak only takes for a leak what nothing has pointed to in two scans, and for a while. */
static bool find_leaks(void)
{
	msleep(LEAK_SECONDS * 1000);
	return write_file(KMEMLEAK, "scan") && write_file(KMEMLEAK, "scan");
}

/* What booting has leaked is not the event's. */
static void forget_leaks(void)
{
	if (has_kmemleak() && !(find_leaks() && write_file(KMEMLEAK, "clear")))
		ksft_exit_fail_perror(KMEMLEAK);
}

static bool nothing_leaks(void)
{
	char line[256];
	int lines = 0;
	FILE *leaks;

	if (!has_kmemleak())
		return true;
	leaks = fdopen(open(KMEMLEAK, O_RDONLY), "r");
	if (!leaks || !find_leaks()) {
		ksft_perror(KMEMLEAK);
		return false;
	}
	while (fgets(line, sizeof(line), leaks)) /* each ends with a newline */
		if (lines++ < LEAK_LINES)
			ksft_print_msg("kmemleak: %s", line);
	fclose(leaks);
	return !lines;
}

static bool happens(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(events); i++)
		if (!strcmp(events[i].name, event))
			return events[i].happens();
	ksft_exit_fail_msg("unknown event %s\n", event);
}

/* Does @text name the error -ENOMEM, as in "error -12", and not as in "error -120"? */
static bool names_enomem(const char *text)
{
	const char *number = strstr(text, " -12");

	return number && (number[4] < '0' || number[4] > '9');
}

/* Is it an error that the kernel logs when an allocation has failed? */
static bool says_no_memory(const char *text)
{
	static const char *const parts[] = {
		"error -12",
		"error: -12",
		"Failed to add to iommu group ",
	};
	static const char *const without_number[] = {
		"kobject: can not set name properly!",
		"DMAR: PASID table allocation failed",
		"really_probe: driver_sysfs_add failed",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(parts); i++)
		if (strstr(text, parts[i]) && names_enomem(text))
			return true;
	for (i = 0; i < ARRAY_SIZE(without_number); i++)
		if (strstr(text, without_number[i]))
			return true;
	return false;
}

static long warned; /* times: the kernel, by is_warned_of() */
static long without_dma; /* times: a device cannot use its domain */

/*
 * The core warns if the first domain of a group cannot be attached, which a driver must not
 * refuse. VT-d's and SMMUv3's refuse if they have no memory. SMMUv3's then warns, too: it
 * detaches what it has not attached. Both with and without the series.
 */
static bool is_warned_of(const char *text)
{
	without_dma += !!strstr(text, "retaining platform DMA ops");
	if (!is_warning(text))
		return !is_given_up(text);
	warned++;
	return strstr(text, " at iommu_setup_default_domain+") ||
	       strstr(text, " at arm_smmu_invs_unref+");
}

/* Has the kernel said no more than that allocations have failed? */
static bool only_memory_was_short(void)
{
	bool clean = log_has_only(LOG_ERR, says_no_memory);

	clean &= log_has_only(LOG_WARNING, is_warned_of);
	if (warned)
		tell("warned", warned);
	if (without_dma)
		tell("without-dma", without_dma);
	return clean && (taint_is(0) || taint_is(TAINT_WARN));
}

static void add_device(const char *expectation)
{
	struct device *device = &devices[device_count++];
	const char *end = strchr(expectation, '=');

	if (device_count > DEVICES || end - expectation >= NAME_SIZE)
		ksft_exit_fail_msg("no room for %s\n", expectation);
	device->expectation = expectation;
	device->type = end + 1;
	memcpy(device->name, expectation, end - expectation);
}

static void set_disk(const char *name)
{
	int i;

	for (i = 0; i < device_count; i++)
		if (!strcmp(devices[i].name, name)) {
			devices[i].is_disk = true;
			subject = subject ?: &devices[i];
		}
}

/* "write FROM WORD RESULT DRIVER" */
static void add_write(char *line)
{
	struct write *write = &writes[write_count++];
	const char **fields[] = { &write->from, &write->word, &write->result };
	char *pos = line;
	size_t i;

	if (write_count > WRITES)
		ksft_exit_fail_msg("no room for %s\n", line);
	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		pos = strchr(pos, ' ');
		if (!pos)
			ksft_exit_fail_msg("no write: %s\n", line);
		*pos++ = '\0';
		*fields[i] = pos;
	}
	pos = strchr(pos, ' ');
	if (!pos)
		ksft_exit_fail_msg("no write: %s\n", line);
	*pos = '\0';
	write->bound = !strcmp(pos + 1, "bound");
}

static void read_argument(char *arg)
{
	if (!strncmp(arg, "event=", 6))
		event = arg + 6;
	else if (!strncmp(arg, "rounds=", 7))
		rounds = atoi(arg + 7);
	else if (!strncmp(arg, "disk=", 5))
		set_disk(arg + 5);
	else if (!strcmp(arg, "slot"))
		has_slot = true;
	else if (!strcmp(arg, "one-type"))
		has_one_type = true;
	else if (!strncmp(arg, "write ", 6))
		add_write(arg);
	else if (strchr(arg, '='))
		add_device(arg);
	else
		ksft_exit_fail_msg("unknown argument %s\n", arg);
}

int main(int argc, char *argv[])
{
	bool good = false, is_kexec;
	int i;

	for (i = 1; i < argc; i++)
		read_argument(argv[i]);
	is_spoiled = strstr(read_cmdline(), " events.spoil");
	if (!event || !subject || !rounds)
		ksft_exit_fail_msg("event, rounds or disk is missing\n");
	is_kexec = !strcmp(event, "kexec");
	quiet_console(LOG_ERR);
	progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (progress == MAP_FAILED)
		ksft_exit_fail_perror("mmap");
	if (!enter(subject->name))
		ask_host("plug 1");
	if (!wait_for_disk())
		ksft_exit_fail_msg("%s is missing\n", subject->name);
	start_cpu1();
	find_driver();
	forget_leaks();
	if (is_kexec)
		good = happens(); /* which returns only if it has failed */
	ksft_print_header();
	ksft_set_plan(3);
	if (!is_kexec)
		good = happens();
	kill_readers();
	ksft_test_result(good, "%s\n", event);
	ksft_test_result(is_all_as_told(), "as before\n");
	good = make_it_fail ? only_memory_was_short() :
			      kernel_is_clean() && no_finding_is_logged();
	good &= lockdep_found_nothing() && kcsan_found_nothing() &&
		nothing_leaks();
	if (!good)
		log_is_clean(LOG_WARNING); /* which says why */
	ksft_test_result(good, "kernel log\n");
	ksft_finished();
}
