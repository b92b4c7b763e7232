// SPDX-License-Identifier: GPL-2.0-only
/*
 * Process 1 of every guest but those of scripts/debian. Judges the boot, and ends the guest.
 * What it is told is in the file /told of its initramfs, a line each:
 *
 *   DEVICE=TYPE, DEVICE/FROM/WORD=RESULT
 *                   what default_domain, the selftest, is to find
 *   disk=DEVICE     this is a disk, which is read
 *   module=NAME     load /modules/NAME, before all else; they come in this order
 *   no-driver=DEVICE
 *                   this disk's driver may be a module that we do not have
 *   group=DEVICE DEVICE ...
 *                   these share a group, and no other device is in it
 *   plug=DEVICE     if this is not there, the host is asked to plug it in; the first of
 *                   them is in PCIe slot 1, the second in slot 2, and so on
 *   replug=N        then they are unplugged and plugged in again so often
 *   rescan=DEVICE   this bridge is removed, with all behind it, and found again
 *   bounced=DEVICE  its DMA goes through bounce buffers; that of all others does not
 *   count=host      the host can count IOTLB invalidations, or
 *   count=kernel    the kernel does, which is s390's
 *   no-writes       types are not written
 *   remapped        the IOMMU remaps interrupts
 *   x2apic          and does so for CPUs in x2APIC mode
 *   scalable        VT-d is in scalable mode
 *   warns           the IOMMU's core has to warn, and refuse a driver's answer
 *   too-strict      it is strict where it should be lazy, as stock is where translation
 *                   is required, and default_domain has to find it
 *
 * What is judged:
 *
 *  - default_domain finds every TYPE, and no fault by itself; or if every TYPE is
 *    none, nothing to judge by itself;
 *  - each group has the devices that it should, and no others;
 *  - every disk is read through the IOMMU and holds what it should; DMA of bounced= is
 *    bounced, and no other is; and each unmap invalidates the IOTLB if the TYPE is DMA, few
 *    do if it is DMA-FQ;
 *  - each PCI device's interrupt is remapped, if the IOMMU does that, and x2APIC mode is on
 *    if it can be;
 *  - VT-d is in scalable mode, if it should be;
 *  - types and disks again after each DEVICE has been unplugged and plugged in;
 *  - after every DEVICE has lost its driver, default_domain writes types, and
 *    each WORD has its RESULT; unless no-writes;
 *  - the kernel has logged no error, as the IOMMU drivers do of a DMA fault, and
 *    no record of its log is lost; and it is not tainted, as it is by a warning.
 *    With warns the core must warn, and only the core.
 *
 * The host is asked on the console: a line "# host: count", "plug N" or "unplug N", with
 * the N-th device to plug in. It answers there with a number: of invalidations until now,
 * or 0.
 *
 * With "kunit" for the first line it judges what KUnit has done at boot instead:
 *
 *  - every suite passes when it is run a second time, and in the other order;
 *  - nothing but the tests themselves has tainted the kernel. lockdep, RCU's checks and KCSAN,
 *    if they were built in, have found nothing, and DEBUG_OBJECTS has not given up.
 *
 * With "bench", "attack", "loads" or "events" for the first line it runs bench.c and so on,
 * and hands over the others.
 *
 * Prints KTAP. Built with nolibc, which the compiler includes by -include.
 */
#include <asm/ioctls.h>
#include <linux/reboot.h>
#include "guest.h"
#include "disk.h"
#include "log.h"

#define JUDGE "/default_domain"
#define SUBTEST "    " /* what KTAP has before each line of one */
#define TAINT_TEST 0x40000 /* bit 18: KUnit has run a test */
#define KUNIT_DIR "/sys/kernel/debug/kunit"
#define SUITES 16 /* that there is room for */
#define NAME_SIZE 64 /* bytes: of a suite's or device's name, with its NUL */
#define ARGS 256 /* lines that we may be told */
#define TOLD_SIZE 16384 /* bytes: of all of them */
#define SEGMENTS 64 /* of a read: each is mapped and unmapped by itself */
#define READS 128 /* that many unmaps make a flush queue run full often */
#define QUEUE_UNMAPS 512 /* lazy is at least one invalidation in so many */
#define LAZY_UNMAPS 64 /* lazy is less than one invalidation in so many */
#define HIWATER "/sys/kernel/debug/swiotlb/io_tlb_used_hiwater"
#define PLUGS 9 /* a slot's number is a digit */

/**
 * struct arguments - what we have been told
 * @types: each DEVICE=TYPE, for default_domain, which has its own name before them
 * @writes: its name, "--write" and each DEVICE/FROM/WORD=RESULT
 * @disks: each DEVICE that is one
 * @modules: each NAME of one
 * @no_driver: each DEVICE whose driver may be missing
 * @no_writes: types are not written
 * @count: who counts invalidations, "host", "kernel" or NULL
 * @remapped: the IOMMU remaps interrupts
 * @x2apic: and does so for CPUs in x2APIC mode
 * @scalable: VT-d is in scalable mode
 * @warns: the IOMMU's core has to warn
 * @too_strict: default_domain has to fail when it writes what it has derived
 * @groups: each DEVICE DEVICE ... that is one
 * @plugs: each DEVICE that the host plugs in
 * @rescan: the DEVICE that is removed and found again, or NULL
 * @bounced: each DEVICE that is bounced
 * @replugs: how often to plug them in again
 * @again: they have been: that goes into the names of tests
 */
struct arguments {
	char *types[ARGS + 2];
	char *writes[ARGS + 3];
	char *disks[ARGS + 1];
	char *modules[ARGS + 1];
	bool no_writes;
	bool remapped;
	bool x2apic;
	bool scalable;
	const char *count;
	bool warns;
	bool too_strict;
	char *groups[ARGS + 1];
	char *plugs[ARGS + 1];
	const char *rescan;
	char *bounced[ARGS + 1];
	char *no_driver[ARGS + 1];
	int replugs;
	bool again;
};

static struct arguments args;

static void mount_all(void)
{
	if (mount("none", "/dev", "devtmpfs", 0, NULL) ||
	    mount("none", "/proc", "proc", 0, NULL) ||
	    mount("none", "/sys", "sysfs", 0, NULL) ||
	    mount("none", "/sys/kernel/debug", "debugfs", 0, NULL))
		ksft_exit_fail_perror("mount");
}

/* Results that are not ok, of all that has been relayed */
static int failures;

/* Print a line of KTAP behind @prefix; does it say "ok"? */
static bool relay_line(const char *prefix, const char *line)
{
	printf("%s%s\n", prefix, line);
	failures += !strncmp(line, "not ok ", 7);
	return !strncmp(line, "ok ", 3);
}

/*
 * Copy KTAP from @fd to the console, behind @prefix: indented it is a subtest. A line
 * that is too long goes on in the next one. Returns whether the last line says "ok"; it
 * need not end, as that of a judge that crashes.
 */
static bool relay(int fd, const char *prefix)
{
	char line[512], c;
	bool ok = false;
	size_t len = 0;

	while (read(fd, &c, 1) == 1) {
		if (c != '\n')
			line[len++] = c;
		if (c != '\n' && len < sizeof(line) - 1)
			continue;
		line[len] = '\0';
		ok = relay_line(prefix, line);
		len = 0;
	}
	line[len] = '\0';
	return len ? relay_line(prefix, line) : ok;
}

/*
 * Run default_domain with @argv, [0] being free; as @notes what it prints is no subtest.
 * Returns its exit status, or -1 if it could not be run, or crashed.
 */
static int run_judge(char *argv[], bool notes)
{
	pid_t pid;
	int said;

	argv[0] = JUDGE;
	pid = start_program(argv, NULL, &said);
	relay(said, notes ? "# " : SUBTEST);
	close(said);
	return exit_status(pid);
}

static bool expects(const char *expectation, const char *type)
{
	return !strcmp(strchr(expectation, '=') + 1, type);
}

/* Is no DEVICE to be in a group? */
static bool expects_none(void)
{
	char **type;

	for (type = args.types + 1; *type; type++)
		if (!expects(*type, "none"))
			return false;
	return true;
}

/* What default_domain derives by itself, with @option or NULL */
static void check_derived(char *option)
{
	/* A judge that skipped has checked nothing: that is no pass, unless it should. */
	int want = expects_none() ? KSFT_SKIP : KSFT_PASS;
	bool fails = option && args.too_strict;
	char *argv[3] = { NULL, option };
	int before = failures;
	bool good;

	if (fails)
		want = KSFT_FAIL;
	good = run_judge(argv, fails) == want;
	/* A judge that gives up has found nothing */
	if (fails && failures == before)
		good = false;
	ksft_test_result(good, "types as derived%s\n",
			 option ? ", and written" : "");
}

/* The device's name, without what is expected of it, until the next call */
static const char *device_of(const char *expectation)
{
	static char name[NAME_SIZE];
	size_t len = strchr(expectation, '=') - expectation;

	if (len >= sizeof(name))
		ksft_exit_fail_msg("no room for the name %s\n", expectation);
	memcpy(name, expectation, len);
	name[len] = '\0';
	return name;
}

/* Is @device in a @list that ends with NULL? */
static bool is_in(char *list[], const char *device)
{
	for (; *list; list++)
		if (!strcmp(*list, device))
			return true;
	return false;
}

/*
 * Read the disk @name again and again, in segments that are mapped and unmapped by
 * themselves. Returns how many unmaps that made at least; the driver's own come on top.
 */
static int unmap_often(const char *name)
{
	struct iovec segments[SEGMENTS];
	int i, fd = open_for_segments(name, segments, SEGMENTS, HALF_PAGE);

	if (fd < 0)
		return 0;
	for (i = 0; i < READS; i++)
		if (syscall(__NR_preadv, fd, segments, SEGMENTS, 0, 0) !=
		    SEGMENTS * HALF_PAGE)
			break;
	close_segments(fd, segments, SEGMENTS);
	return i == READS ? READS * SEGMENTS : 0;
}

/* "0000:00:02.0 is read again", the name of a test, until the next call */
static const char *test_name(const char *expectation, const char *what)
{
	static char name[NAME_SIZE * 2];

	/* 6.12's nolibc has no snprintf() */
	name[0] = '\0';
	strlcat(name, device_of(expectation), sizeof(name));
	strlcat(name, " ", sizeof(name));
	strlcat(name, what, sizeof(name));
	strlcat(name, args.again ? " again" : "", sizeof(name));
	return name;
}

static void skip(const char *expectation, const char *what, const char *why)
{
	ksft_test_result_code(KSFT_SKIP, test_name(expectation, what), "%s",
			      why);
}

/*
 * A queue that is full is flushed, so a host that has counted too little has missed some. Not
 * where the kernel counts: s390 has one queue, of 32768 entries.
 */
static bool is_count_right(long count, int unmaps, bool is_lazy)
{
	if (!is_lazy)
		return count >= unmaps;
	return count < unmaps / LAZY_UNMAPS &&
	       (strcmp(args.count, "host") || count >= unmaps / QUEUE_UNMAPS);
}

/*
 * Not of NVMe: in 7.3 it unmaps a request of more than one segment by dma_iova_destroy().
 * That is one dma_iova_unlink(), which waits for the IOTLB whatever the domain's type is.
 */
static void check_invalidations(const char *expectation, const char *disk)
{
	bool is_lazy = expects(expectation, "DMA-FQ");
	bool is_strict = expects(expectation, "DMA");
	const char *device = device_of(expectation);
	const char *why = NULL;
	long count;
	int unmaps;

	if (!is_lazy && !is_strict)
		why = "nothing is mapped";
	else if (disk[0] != 'v')
		why = "only virtio-blk is counted";
	else if (!args.count)
		why = "nobody counts its invalidations";
	if (why) {
		skip(expectation, "invalidates", why);
		return;
	}
	count = count_invalidations(device, args.count);
	unmaps = unmap_often(disk);
	count = count_invalidations(device, args.count) - count;
	ksft_print_msg("%s: %ld invalidations in %d unmaps\n", expectation,
		       count, unmaps);
	ksft_test_result(unmaps && is_count_right(count, unmaps, is_lazy),
			 "%s\n", test_name(expectation, "invalidates"));
}

/* Bounce buffers have been used since the mark was reset, or have not. */
static void check_bounced(const char *expectation)
{
	long used = read_number(HIWATER, "");
	const char *why = NULL;
	bool want;

	if (!*args.bounced)
		why = "no bounce buffers here";
	else if (expects(expectation, "identity"))
		why = "it is not translated";
	if (why) {
		skip(expectation, "bounces", why);
		return;
	}
	want = is_in(args.bounced, device_of(expectation));
	ksft_print_msg("%s: %ld bytes of bounce buffers\n", expectation, used);
	ksft_test_result(want ? used > 0 : !used, "%s\n",
			 test_name(expectation, "bounces"));
}

#define DISK_TESTS 3 /* that check_disk() makes */

static bool is_there(const char *device)
{
	return !chdir("/sys/bus/pci/devices") && !chdir(device);
}

/* Has the driver of this disk just been loaded, or the device just come? */
static bool is_late(const char *expectation)
{
	const char *device = device_of(expectation);

	if (!is_in(args.disks, device) || !is_there(device) || chdir("driver"))
		return false;
	return *args.modules || args.rescan || is_in(args.plugs, device);
}

/* Who opens a disk waits until the kernel has looked for partitions there. */
static int open_late(const char *what)
{
	const char *name;
	char **type;

	for (type = args.types + 1; *type; type++) {
		if (!is_late(*type))
			continue;
		while (!(name = find_disk(*type)) || chdir("/dev") ||
		       open(name, O_RDONLY) < 0)
			msleep(100);
	}
	return 0;
}

/*
 * The driver of a late disk may still look for it, or for its partitions. This DMA must not be
 * taken for another disk's. To see that it would be, the kernel is told hasty=1.
 */
static void settle(void)
{
	char **type;

	for (type = args.types + 1; *type && !getenv("hasty"); type++)
		if (is_late(*type)) {
			ends_well(open_late, "a disk");
			return;
		}
}

static void check_disk(const char *expectation)
{
	const char *name = find_disk(expectation);
	const char *why = "its driver is a module";

	if (!name && is_in(args.no_driver, device_of(expectation))) {
		skip(expectation, "is read", why);
		skip(expectation, "bounces", why);
		skip(expectation, "invalidates", why);
		return;
	}
	write_file(HIWATER, "0");
	ksft_test_result(name && ends_well(read_disk, name), "%s\n",
			 test_name(expectation, "is read"));
	check_bounced(expectation);
	check_invalidations(expectation, name ?: "v");
}

static void check_disks(void)
{
	char **type;

	settle();
	for (type = args.types + 1; *type; type++)
		if (is_in(args.disks, device_of(*type)))
			check_disk(*type);
}

/* How many entries has the directory in which we are, but for "." and ".."? */
static int count_entries(void)
{
	int fd, len, pos, count = 0;
	char buf[2048];

	fd = open(".", O_RDONLY | O_DIRECTORY);
	while ((len = getdents64(fd, (void *)buf, sizeof(buf))) > 0) {
		struct linux_dirent64 *entry;

		for (pos = 0; pos < len; pos += entry->d_reclen) {
			entry = (void *)(buf + pos);
			count += entry->d_name[0] != '.';
		}
	}
	close(fd);
	return len < 0 ? -1 : count;
}

/* Copy the first word of @words into @buf; return what is behind it. */
static const char *first_word(const char *words, char buf[NAME_SIZE])
{
	const char *end = strchr(words, ' ') ?: words + strlen(words);

	if (end - words >= NAME_SIZE)
		ksft_exit_fail_msg("no room for the name %s\n", words);
	memcpy(buf, words, end - words);
	buf[end - words] = '\0';
	return *end ? end + 1 : end;
}

/* Do the devices in @told, "DEVICE DEVICE ...", share a group, and with no other device? */
static bool is_group(const char *told)
{
	char device[NAME_SIZE];
	int devices = 0, fd;

	first_word(told, device);
	if (!is_there(device) || chdir("iommu_group/devices"))
		return false;
	while (*told) {
		told = first_word(told, device);
		fd = open(device, O_RDONLY);
		if (fd < 0)
			return false;
		close(fd);
		devices++;
	}
	return count_entries() == devices;
}

static void check_groups(void)
{
	bool good = true;
	char **group;

	for (group = args.groups; *group; group++) {
		if (is_group(*group))
			continue;
		ksft_print_msg("no group has just %s\n", *group);
		good = false;
	}
	ksft_test_result(good, "groups as told\n");
}

/* Wait until @device and its driver are there, or are gone. */
static bool wait_for(const char *device, bool there)
{
	int tenths;

	for (tenths = 0; tenths < PLUG_SECONDS * 10; tenths++) {
		if (there ? is_there(device) && !chdir("driver") :
			    !is_there(device))
			return true;
		msleep(100);
	}
	ksft_print_msg("%s does not %s\n", device, there ? "come" : "go");
	return false;
}

/* Ask the host to "plug" or "unplug" the device of @slot, a digit. */
static void ask_for(const char *what, const char *slot)
{
	char asked[16] = "";

	strlcat(asked, what, sizeof(asked));
	strlcat(asked, " ", sizeof(asked));
	strlcat(asked, slot, sizeof(asked));
	ask_host(asked);
}

/* Have each device plugged in that is not there. */
static bool plug_all(void)
{
	char slot[] = "1", **plug;

	for (plug = args.plugs; *plug; plug++, slot[0]++) {
		if (is_there(*plug))
			continue;
		ask_for("plug", slot);
		if (!wait_for(*plug, true))
			return false;
	}
	return true;
}

static bool replug_all(void)
{
	char slot[] = "1", **plug;

	for (plug = args.plugs; *plug; plug++, slot[0]++) {
		if (!power_off(slot) || !wait_for(*plug, false))
			return false;
		ask_for("unplug", slot);
	}
	return plug_all();
}

static void check_replugs(void)
{
	bool good = true;
	int i;

	for (i = 1; good && i <= args.replugs; i++) {
		good = replug_all() && run_judge(args.types, true) == KSFT_PASS;
		if (!good)
			ksft_print_msg("replug %d of %d\n", i, args.replugs);
	}
	ksft_test_result(good, "plugged in again\n");
}

/* Take the driver from every DEVICE, without which no type could be written. */
static void unbind_all(void)
{
	const char *device;
	char **type;

	for (type = args.types + 1; *type; type++) {
		device = device_of(*type);
		if (is_there(device) && !chdir("driver"))
			write_file("unbind", device);
	}
}

static bool is_in_x2apic_mode(void)
{
	int fd = open("/dev/cpu/0/msr", O_RDONLY);
	__u64 base = 0; /* IA32_APIC_BASE, the MSR of this number */
	bool is_read = lseek(fd, 0x1b, SEEK_SET) == 0x1b &&
		       read(fd, &base, sizeof(base)) == sizeof(base);

	close(fd);
	return is_read && base & 1 << 10;
}

/* The kernel names what raises an interrupt, as in "IR-PCI-MSIX-0000:00:02.0". */
static void check_remapped(void)
{
	FILE *file = fdopen(open("/proc/interrupts", O_RDONLY), "r");
	int remapped = 0, others = 0;
	bool has_mode = !args.x2apic || is_in_x2apic_mode();
	const char *pos;
	char line[256];

	if (!file)
		ksft_exit_fail_perror("/proc/interrupts");
	while (fgets(line, sizeof(line), file)) {
		pos = find_part(line, "PCI-MSI");
		if (!pos)
			continue;
		if (pos - line > 3 && !strncmp(pos - 3, "IR-", 3))
			remapped++;
		else
			others++;
	}
	fclose(file);
	ksft_print_msg("%d interrupts are remapped, %d are not\n", remapped,
		       others);
	ksft_test_result(remapped && !others && has_mode,
			 "interrupts remapped\n");
}

#define VTD 0xfed90000 /* where QEMU's VT-d has its registers */
#define VTD_RTADDR 0x20 /* bytes after that: the register that has the mode */
#define VTD_MODE 0xc00 /* its bits 11 and 10 */
#define VTD_SCALABLE 0x400

/* Both modes have the same types: the register tells which one the kernel has chosen. */
static void check_scalable(void)
{
	int fd = open("/dev/mem", O_RDONLY);
	char *registers;
	__u64 root;

	if (fd < 0)
		ksft_exit_fail_perror("/dev/mem");
	registers = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, VTD);
	if (registers == MAP_FAILED)
		ksft_exit_fail_perror("mmap of /dev/mem");
	root = __atomic_load_n((__u64 *)(registers + VTD_RTADDR),
			       __ATOMIC_RELAXED);
	munmap(registers, PAGE);
	close(fd);
	ksft_test_result((root & VTD_MODE) == VTD_SCALABLE, "scalable mode\n");
}

static void check_writes(void)
{
	unbind_all();
	if (args.writes[2])
		ksft_test_result(run_judge(args.writes, false) == KSFT_PASS,
				 "types written\n");
	check_derived("--write");
}

static int core_warned; /* times: it, by is_of_the_core() */

/* Is it no warning, or one of the IOMMU's core? DEBUG_OBJECTS must not give up. */
static bool is_of_the_core(const char *text)
{
	core_warned += is_warning(text);
	if (!is_warning(text))
		return !is_given_up(text);
	return find_part(text, " drivers/iommu/iommu.c:");
}

/* Does a driver log that its answer is refused, by -EINVAL? */
static bool is_refused(const char *text)
{
	return find_part(text, " error -22");
}

static void check_kernel(void)
{
	bool clean;

	if (args.warns)
		clean = log_has_only(LOG_ERR, is_refused) &&
			log_has_only(LOG_WARNING, is_of_the_core) &&
			core_warned && taint_is(TAINT_WARN);
	else
		clean = kernel_is_clean() && no_finding_is_logged();
	clean &= lockdep_found_nothing() && kcsan_found_nothing();
	ksft_test_result(clean, "kernel log\n");
}

/* Fill @names with KUnit's suites, newest first as debugfs has them; how many? */
static int find_suites(char names[SUITES][NAME_SIZE])
{
	int fd, len, pos, count = 0;
	char buf[2048];
	size_t size;

	fd = open(KUNIT_DIR, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		ksft_exit_fail_perror(KUNIT_DIR);
	while ((len = getdents64(fd, (void *)buf, sizeof(buf))) > 0) {
		struct linux_dirent64 *entry;

		for (pos = 0; pos < len; pos += entry->d_reclen) {
			entry = (void *)(buf + pos);
			if (entry->d_name[0] == '.')
				continue;
			size = strlen(entry->d_name) + 1;
			if (count == SUITES || size > NAME_SIZE)
				ksft_exit_fail_msg("no room for suite %s\n",
						   entry->d_name);
			memcpy(names[count++], entry->d_name, size);
		}
	}
	close(fd);
	return count;
}

static void run_again(const char *suite)
{
	int run, results;

	if (chdir(KUNIT_DIR) || chdir(suite))
		ksft_exit_fail_perror(suite);
	run = open("run", O_WRONLY);
	if (write(run, "1", 1) != 1)
		ksft_exit_fail_perror("run");
	close(run);
	results = open("results", O_RDONLY);
	ksft_test_result(relay(results, SUBTEST), "%s again\n", suite);
	close(results);
}

static void judge_kunit(void)
{
	char names[SUITES][NAME_SIZE];
	int count, i;
	bool clean;

	quiet_console(LOG_EMERG); /* the suites provoke errors */
	count = find_suites(names);
	ksft_print_header();
	ksft_set_plan(count + 1);
	for (i = 0; i < count; i++)
		run_again(names[i]);
	clean = lockdep_found_nothing() && no_finding_is_logged() &&
		kcsan_found_nothing();
	clean &= taint_is(TAINT_TEST);
	if (!clean)
		log_is_clean(LOG_WARNING); /* which says why */
	ksft_test_result(clean, "kernel log\n");
	reboot(LINUX_REBOOT_CMD_POWER_OFF);
}

/*
 * Restart once all that has been printed is out, which ends QEMU. An orderly
 * power-off would wait for devices that the IOMMU has cut off: a faulting one,
 * or an NVMe controller whose virtio-iommu was shut down before it.
 */
static void restart(void)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY);

	syscall(__NR_ioctl, 1, TCSBRK, 1);
	write(fd, "b", 1);
}

static void append(char *list[], char *arg)
{
	while (*list)
		list++;
	*list = arg;
}

static void read_argument(char *arg)
{
	if (value_of(arg, "count="))
		args.count = value_of(arg, "count=");
	else if (!strcmp(arg, "warns"))
		args.warns = true;
	else if (value_of(arg, "no-driver="))
		append(args.no_driver, value_of(arg, "no-driver="));
	else if (!strcmp(arg, "no-writes"))
		args.no_writes = true;
	else if (!strcmp(arg, "remapped"))
		args.remapped = true;
	else if (!strcmp(arg, "x2apic"))
		args.x2apic = true;
	else if (!strcmp(arg, "scalable"))
		args.scalable = true;
	else if (value_of(arg, "module="))
		append(args.modules, value_of(arg, "module="));
	else if (value_of(arg, "disk="))
		append(args.disks, value_of(arg, "disk="));
	else if (!strcmp(arg, "too-strict"))
		args.too_strict = true;
	else if (value_of(arg, "plug="))
		append(args.plugs, value_of(arg, "plug="));
	else if (value_of(arg, "rescan="))
		args.rescan = value_of(arg, "rescan=");
	else if (value_of(arg, "replug="))
		args.replugs = atoi(value_of(arg, "replug="));
	else if (value_of(arg, "bounced="))
		append(args.bounced, value_of(arg, "bounced="));
	else if (value_of(arg, "group="))
		append(args.groups, value_of(arg, "group="));
	else if (strchr(arg, '='))
		append(strchr(arg, '/') ? args.writes : args.types, arg);
	else
		ksft_exit_fail_msg("unknown argument %s\n", arg);
}

static int length(char *list[])
{
	int count;

	for (count = 0; list[count]; count++)
		;
	return count;
}

/*
 * ENODEV is that of algorithms for which this CPU lacks an instruction. If it is a disk's
 * driver, the disk cannot be read.
 */
static void load_modules(void)
{
	char path[NAME_SIZE * 2], **name;
	int fd;

	for (name = args.modules; *name; name++) {
		path[0] = '\0';
		strlcat(path, "/modules/", sizeof(path));
		strlcat(path, *name, sizeof(path));
		fd = open(path, O_RDONLY);
		if (syscall(__NR_finit_module, fd, "", 0) && errno != ENODEV)
			ksft_exit_fail_perror(path);
		close(fd);
	}
}

/* Where the driver of the IOMMU is a module, disks are probed later, and by themselves. */
static void wait_for_drivers(void)
{
	char **disk;

	for (disk = args.disks; *disk; disk++)
		if (!is_in(args.no_driver, *disk))
			wait_for(*disk, true);
}

/* The bridge comes back first, and its group has a domain before what is behind it joins. */
static bool find_again(const char *bridge)
{
	return is_there(bridge) && write_file("remove", "1") &&
	       !is_there(bridge) && write_file("/sys/bus/pci/rescan", "1") &&
	       is_there(bridge);
}

static int count_tests(void)
{
	int disk_tests = length(args.disks) * DISK_TESTS;
	int tests = 2 + !!*args.groups + disk_tests + 1;

	tests += args.remapped + args.scalable;
	if (args.replugs)
		tests += 1 + disk_tests;
	if (!args.no_writes)
		tests += args.writes[2] ? 2 : 1;
	return tests;
}

static void judge_boot(void)
{
	quiet_console(LOG_ERR);
	ksft_print_header();
	load_modules();
	if (length(args.plugs) > PLUGS)
		ksft_exit_fail_msg("more than %d devices to plug in\n", PLUGS);
	if (!plug_all())
		ksft_exit_fail_msg("a device is missing\n");
	wait_for_drivers();
	if (args.rescan) {
		if (!find_again(args.rescan))
			ksft_exit_fail_msg("%s is not found again\n",
					   args.rescan);
		wait_for_drivers();
	}

	ksft_set_plan(count_tests());
	ksft_test_result(run_judge(args.types, false) == KSFT_PASS,
			 "types as told\n");
	check_derived(NULL);
	if (*args.groups)
		check_groups();
	check_disks();
	if (args.remapped)
		check_remapped();
	if (args.scalable)
		check_scalable();
	if (args.replugs) {
		check_replugs();
		args.again = true;
		check_disks();
	}
	if (!args.no_writes)
		check_writes();
	check_kernel();
	ksft_print_cnts();
}

/* The program @argv[0] of / speaks for itself, also if it fails. */
static void run_instead(char *argv[])
{
	pid_t pid = fork();

	if (!pid) {
		execve(argv[0], argv, NULL);
		ksft_exit_fail_perror(argv[0]);
	}
	waitpid(pid, NULL, 0);
}

/* Fill @argv with the lines of /told, behind a name for us; how many are they? */
static int read_told(char *argv[ARGS + 2])
{
	static char told[TOLD_SIZE];
	int fd = open("/told", O_RDONLY), len, argc = 1;
	char *pos = told, *end;

	len = fd < 0 ? -1 : read(fd, told, sizeof(told) - 1);
	if (len < 0)
		ksft_exit_fail_perror("/told");
	if (len == sizeof(told) - 1)
		ksft_exit_fail_msg("no room for all of /told\n");
	close(fd);
	argv[0] = "init";
	while ((end = strchr(pos, '\n'))) {
		if (argc > ARGS)
			ksft_exit_fail_msg("/told has more than %d lines\n",
					   ARGS);
		*end = '\0';
		argv[argc++] = pos;
		pos = end + 1;
	}
	return argc;
}

int main(void)
{
	char *argv[ARGS + 2] = {};
	int i, argc;

	mount_all();
	argc = read_told(argv);
	if (argc > 1 && !strcmp(argv[1], "kunit")) {
		judge_kunit();
		return 0;
	}
	if (argc > 1 &&
	    (!strcmp(argv[1], "bench") || !strcmp(argv[1], "attack") ||
	     !strcmp(argv[1], "loads") || !strcmp(argv[1], "events"))) {
		run_instead(argv + 1);
		restart();
	}
	args.types[0] = "";
	args.writes[0] = "";
	args.writes[1] = "--write";
	for (i = 1; i < argc; i++)
		read_argument(argv[i]);
	judge_boot();
	restart();
	return 0;
}
