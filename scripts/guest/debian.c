// SPDX-License-Identifier: GPL-2.0-only
/*
 * Judges a Debian with a kernel of scripts/package in it: for scripts/debian. A systemd unit
 * runs it once all else is up, and powers off when it has ended. What it is told is a file of
 * QEMU's firmware interface, a line each:
 *
 *   release=RELEASE   of the kernel, whose package has to be installed
 *   root=DEVICE       the disk that / has to be on
 *   DEVICE=TYPE       what default_domain, the selftest, is to find
 *   too-strict        default_domain has to fail when it writes types, as it does on stock
 *                     where translation is required
 *   fio NAME EXPECT RW SIZE DEPTH
 *                     read the root disk with fio
 *   iperf3 NAME EXPECT OPTION
 *                     send from one network card to the other, both of this machine
 *   upgrade           install the packages in UPGRADE
 *   upgraded          that has been done before this boot
 *   selftests=DEVICE  at last, run the kernel's selftests of iommufd, and those of VFIO with
 *                     a device
 *
 * fio and iperf3 are judged by the number of invalidations of the IOTLB for each request or
 * packet, which the host counts. EXPECT is one of:
 *
 *   strict   one for each, or more
 *   waits    the same, though the domain is lazy: the kernel does not queue these
 *   lazy     fewer than one for LAZY_USES
 *
 * Prints KTAP, and before each such test "# load NAME INVALIDATIONS USES SPEED". A line of
 * the journal's errors is "# journal: MESSAGE", and one of a result of a selftest of the kernel's
 * "# result: ok NUMBER NAME", or "not ok": the host compares these with other boots.
 */
#include <sys/sysmacros.h>
#include "guest.h"
#include "log.h"

#define CONSOLE "/dev/ttyS0"
#define TOLD "/sys/firmware/qemu_fw_cfg/by_name/opt/workbench/told/raw"
#define SELFTESTS "/usr/lib/kselftest"
#define UPGRADE "/var/lib/upgrade"
#define SUBTEST "    " /* what KTAP has before each line of one */
#define LINES 64 /* that we may be told */
#define WORDS 20 /* of a command */
#define LAZY_USES 4
#define TRIES 5 /* to be lazy: on a slow host a timer often flushes */
#define REQUESTS 512 /* of fio's */
#define FIO \
	"fio --name=load --readonly --direct=1 --ioengine=libaio --minimal --invalidate=0 --size=100% --mem=shm --number_ios"
#define ERRORS \
	"journalctl --boot --priority=err --output=cat --no-pager --quiet"
#define SERVER_SECONDS 20 /* for it to listen */

/*
 * Connect virtio-net and e1000e, which udev calls by their places. Without segmentation by the
 * cards each packet is mapped by itself.
 */
#define NETWORK                                                 \
	"ip netns add peer && ip link set enp0s9 netns peer &&" \
	"ip address add 10.0.1.1/24 dev enp0s8 &&"              \
	"ip link set enp0s8 gso_max_segs 1 up &&"               \
	"ip -n peer address add 10.0.1.2/24 dev enp0s9 &&"      \
	"ip -n peer link set enp0s9 gso_max_segs 1 up &&"       \
	"ip netns exec peer iperf3 --server --daemon"

#define IS_INSTALLED                                                      \
	"test $(uname -r) = $RELEASE && test -d /lib/modules/$RELEASE &&" \
	"dpkg-query -W -f '${db:Status-Status}' linux-image-$RELEASE |"   \
	"grep -qx installed"

/* Of 2 MiB each, which tests map. The kernel has to set them aside when it boots. */
#define HAS_HUGE_PAGES                                    \
	"test $(cat /proc/sys/vm/nr_hugepages) -ge 96 ||" \
	"{ echo there are no 96 huge pages; exit 1; }"

/* In an emulator they take longer than the 45 s that they have */
#define RUN_SELFTESTS                                                   \
	"VFIO_SELFTESTS_BDF=%s " SELFTESTS                              \
	"/run_kselftest.sh --override-timeout 300 -c iommu -c vfio -S " \
	"iommu:default_domain >/run/selftests 2>&1"
#define RESULTS \
	"sed -n 's/^[# ]*\\(\\(not \\)*ok [0-9]\\)/\\1/p' /run/selftests"

/* Has each of them come to its end, and has something passed? */
#define SELFTESTS_ENDED                                                        \
	"wanted=$(" SELFTESTS                                                  \
	"/run_kselftest.sh -l | grep -c -e ^iommu: -e ^vfio:);"                \
	"found=$(grep -c '^\\(not \\)*ok [0-9]* selftests: ' /run/selftests);" \
	"echo $found of $wanted, without default_domain;"                      \
	"test $found = $((wanted - 1)) || exit 1;"                             \
	"grep TIMEOUT /run/selftests && exit 1;"                               \
	"for name in iommufd vfio; do"                                         \
	" grep \"^# ok [0-9]* $name\" /run/selftests | grep -vq SKIP ||"       \
	" exit 1; done"

/* Is each package of UPGRADE installed as it is there? */
#define IS_UPGRADED                                                           \
	"set -e; for deb in " UPGRADE "/*.deb; do"                            \
	" dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n'"    \
	" $(dpkg-deb -f $deb Package) |"                                      \
	" grep -qFx \"$(dpkg-deb --show --showformat '${Package} ${Version}'" \
	" $deb) installed\"; done; test -z \"$(dpkg --audit)\""

/**
 * struct told - what we have been told
 * @lines: what is to be done, in this order
 * @types: each DEVICE=TYPE, for default_domain
 * @release: of the kernel
 * @root: the device that / is on
 * @too_strict: default_domain has to fail when it writes
 * @tested: a device for the kernel's selftests, or NULL
 */
struct told {
	char *lines[LINES + 1];
	char *types[LINES + 1];
	const char *release;
	const char *root;
	bool too_strict;
	const char *tested;
};

static struct told told;

static char *environment[] = {
	"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=/root",
	"DEBIAN_FRONTEND=noninteractive",     NULL,
};

/*
 * Run a line of shell. What it prints goes behind @prefix to the console, or into the @size
 * bytes of @said if that is given. Returns its exit status, or -1 if it has none.
 */
static int run(const char *line, const char *prefix, char *said, size_t size)
{
	char *argv[4] = { "/bin/sh", "-c", (char *)line };
	bool begins = true;
	size_t len = 0;
	pid_t pid;
	int out;
	char c;

	pid = start_program(argv, environment, &out);
	while (read(out, &c, 1) == 1) {
		if (said && len < size - 1)
			said[len++] = c;
		if (said)
			continue;
		printf("%s%c", begins ? prefix : "", c);
		begins = c == '\n';
	}
	if (said)
		said[len] = '\0';
	else if (!begins)
		printf("\n");
	close(out);
	return exit_status(pid);
}

/* What a program that has failed said, each line as a comment */
static void print_lines(const char *what, char *said)
{
	char *end;

	for (; *said; said = end) {
		end = strchr(said, '\n');
		if (end)
			*end++ = '\0';
		else
			end = said + strlen(said);
		ksft_print_msg("%s: %s\n", what, said);
	}
}

/* Does a line of shell succeed? What it prints is no result. */
static bool succeeds(const char *line)
{
	return !run(line, "# ", NULL, 0);
}

/* Does a line of shell succeed and print nothing? */
static bool is_silent(const char *line)
{
	char said[512];
	bool silent = !run(line, NULL, said, sizeof(said)) && !*said;

	if (!silent)
		print_lines(line, said);
	return silent;
}

/* Is it the kernel of an installed package, and are its modules there? */
static void check_package(void)
{
	char line[512];

	snprintf(line, sizeof(line), "RELEASE=%s; %s", told.release,
		 IS_INSTALLED);
	ksft_test_result(succeeds(line), "kernel of the package\n");
}

/* The root disk's name, "nvme0n1", until the next call; NULL if / is not on it */
static const char *root_disk(void)
{
	static char path[256];
	char name[64];
	struct stat stats;

	if (stat("/", &stats))
		return NULL;
	snprintf(name, sizeof(name), "/sys/dev/block/%u:%u",
		 (unsigned int)major(stats.st_dev),
		 (unsigned int)minor(stats.st_dev));
	if (chdir(name) || syscall(__NR_getcwd, path, sizeof(path)) < 0 ||
	    !strstr(path, told.root))
		return NULL;
	return strrchr(path, '/') + 1;
}

static void check_types(void)
{
	char line[1024] = SELFTESTS "/iommu/default_domain";
	char **type;

	for (type = told.types; *type; type++) {
		strlcat(line, " ", sizeof(line));
		strlcat(line, *type, sizeof(line));
	}
	ksft_test_result(*told.types && !run(line, SUBTEST, NULL, 0),
			 "types as told\n");
}

static bool begins_with(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* Is @line the result of a group to which types have been written? Behind a skip is why. */
static bool is_of_writes(const char *line)
{
	size_t len = strlen(line);

	return begins_with(line, "# ") && strstr(line, "ok ") && len > 7 &&
	       !strcmp(line + len - 7, " writes");
}

/*
 * Run the selftest as it is installed, by the kernel's own script. Its exit status says
 * nothing of the test: its last line does. If types are written, one group has to be judged.
 */
static void check_selftest(bool writes)
{
	const char *want = "ok 1 selftests: iommu: default_domain";
	bool fails = writes && told.too_strict, good = false, judged = false;
	static char said[1 << 16];
	char line[128], *pos, *end;

	if (fails)
		want = "not ok 1 selftests: iommu: default_domain # exit=1";
	snprintf(line, sizeof(line),
		 "%s" SELFTESTS "/run_kselftest.sh -t iommu:default_domain",
		 writes ? "KSELFTEST_DEFAULT_DOMAIN_ARGS=--write " : "");
	run(line, NULL, said, sizeof(said));
	for (pos = said; (end = strchr(pos, '\n')); pos = end + 1) {
		*end = '\0';
		printf("%s%s\n", fails ? "# " : SUBTEST, pos);
		good |= !strcmp(pos, want);
		judged |= is_of_writes(pos);
	}
	ksft_test_result(good && (judged || !writes), "kselftest%s\n",
			 writes ? " that writes" : "");
}

/*
 * Run the selftests of iommufd and VFIO. Which of them succeed is not judged here, since with
 * QEMU some may not. They have allocations fail, of which the kernel complains by errors, but
 * it may not warn.
 */
static bool run_selftests(const char *device)
{
	char line[256];

	snprintf(line, sizeof(line), RUN_SELFTESTS, device);
	if (!succeeds(HAS_HUGE_PAGES) || chdir("/sys/bus/pci/devices") ||
	    chdir(device) || !write_file("driver_override", "vfio-pci") ||
	    !write_file("/sys/bus/pci/drivers_probe", device))
		return false;
	run(line, "# ", NULL, 0);
	run("cat /run/selftests", "# selftest: ", NULL, 0);
	run(RESULTS, "# result: ", NULL, 0);
	return succeeds(SELFTESTS_ENDED) && taint_is(0);
}

static bool as_expected(const char *expect, long count, long uses)
{
	if (!strcmp(expect, "strict") || !strcmp(expect, "waits"))
		return uses > 0 && count >= uses;
	return !strcmp(expect, "lazy") && uses > 0 && count < uses / LAZY_USES;
}

/* The field @number, from 1 on, of @line, whose fields are divided by ';' */
static const char *field(const char *line, int number)
{
	while (line && --number)
		line = strchr(line, ';') ? strchr(line, ';') + 1 : NULL;
	return line ?: "";
}

/*
 * Read the root disk; returns how many requests that was, 0 if it failed. In shared memory fio's
 * buffers are not of huge pages, which would be mapped as one.
 */
static long read_disk(char *words[], long *speed)
{
	const char *result, *name = root_disk();
	char line[512], said[2048];
	int status;

	/* Requests that follow each other would be merged, and mapped as one */
	if (!name || chdir("/sys/block") || chdir(name) ||
	    !write_file("queue/nomerges", "2"))
		return 0;
	snprintf(line, sizeof(line),
		 "%s %d --filename=/dev/%s --rw=%s --bs=%s --iodepth=%s", FIO,
		 REQUESTS, name, words[0], words[1], words[2]);
	status = run(line, NULL, said, sizeof(said));
	result = strstr(said, "3;fio"); /* its format, and its version */
	if (status || !result || atol(field(result, 5))) {
		print_lines("fio", said);
		return 0;
	}
	*speed = atol(field(result, 8));
	return REQUESTS;
}

/* How many packets has virtio-net sent, and got? */
static long packets_until_now(void)
{
	const char *directory = "/sys/class/net/enp0s8/statistics";

	if (chdir(directory))
		return 0;
	return read_number("tx_packets", "") + read_number("rx_packets", "");
}

/* Send; returns how many packets that was, 0 if it failed. Speed is in kbit/s. */
static long send_packets(char *words[], long *speed)
{
	char line[128];
	static char said[1 << 16];
	long packets;
	char *pos;
	int tries;

	snprintf(line, sizeof(line),
		 "iperf3 --client 10.0.1.2 --bytes 4M --json %s", words[0]);
	for (tries = 0; tries < SERVER_SECONDS; tries++) {
		packets = packets_until_now();
		if (!run(line, NULL, said, sizeof(said)))
			break;
		msleep(1000);
	}
	pos = strstr(said, "\"sum_received\"");
	pos = pos ? strstr(pos, "\"bits_per_second\":") : NULL;
	if (tries == SERVER_SECONDS || !pos) {
		print_lines("iperf3", said);
		return 0;
	}
	*speed = atol(strchr(pos, ':') + 2) / 1000;
	return packets_until_now() - packets;
}

/* Do a load, "fio NAME EXPECT ..." or "iperf3 NAME EXPECT ...", and judge it. */
static void check_load(char *words[])
{
	const char *name = words[1], *expect = words[2];
	bool lazy = !strcmp(expect, "lazy"), good = false;
	long count, uses, speed = 0;
	int tries;

	for (tries = 0; !good && tries < (lazy ? TRIES : 1); tries++) {
		count = ask_host("count");
		uses = !strcmp(words[0], "fio") ?
			       read_disk(words + 3, &speed) :
			       send_packets(words + 3, &speed);
		count = ask_host("count") - count;
		good = as_expected(expect, count, uses);
		ksft_print_msg("load %s %ld %ld %ld\n", name, count, uses,
			       speed);
	}
	ksft_test_result(good, "%s %s\n", name, expect);
}

static void check_journal(void)
{
	bool good = !run(ERRORS, "# journal: ", NULL, 0);

	good &= is_silent("systemctl list-units --failed --plain --no-legend");
	ksft_test_result(good, "journal\n");
}

/* Cut @line into words. */
static void split(char *line, char *words[WORDS])
{
	int i;

	for (i = 0; line && i < WORDS - 1; i++) {
		words[i] = line;
		line = strchr(line, ' ');
		if (line)
			*line++ = '\0';
	}
	words[i] = NULL;
}

static bool is_load(const char *line)
{
	return begins_with(line, "fio ") || begins_with(line, "iperf3 ");
}

static void read_line_told(char *line)
{
	char **last;

	if (begins_with(line, "release=")) {
		told.release = line + 8;
	} else if (begins_with(line, "root=")) {
		told.root = line + 5;
	} else if (!strcmp(line, "too-strict")) {
		told.too_strict = true;
	} else if (begins_with(line, "selftests=")) {
		told.tested = line + 10;
	} else if (is_load(line) || begins_with(line, "upgrade")) {
		for (last = told.lines; *last; last++)
			;
		*last = line;
	} else if (strchr(line, '=')) {
		for (last = told.types; *last; last++)
			;
		*last = line;
	} else {
		ksft_exit_fail_msg("unknown line %s\n", line);
	}
}

static void read_told(void)
{
	static char text[4096];
	int fd = open(TOLD, O_RDONLY), len, lines = 0;
	char *pos = text, *end;

	len = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (len <= 0 || len == sizeof(text) - 1)
		ksft_exit_fail_perror(TOLD);
	close(fd);
	while ((end = strchr(pos, '\n'))) {
		if (++lines > LINES)
			ksft_exit_fail_msg("told more than %d lines\n", LINES);
		*end = '\0';
		read_line_told(pos);
		pos = end + 1;
	}
	if (!told.release || !told.root)
		ksft_exit_fail_msg("not told the release, or the root\n");
}

static int count_tests(void)
{
	int count = told.tested ? 8 : 7;
	char **line;

	for (line = told.lines; *line; line++)
		count++;
	return count;
}

static void check_line(char *line)
{
	static bool connected;
	char *words[WORDS];
	bool good;

	if (!strcmp(line, "upgrade")) {
		good = succeeds("dpkg --install " UPGRADE "/*.deb") &&
		       succeeds(IS_UPGRADED);
		ksft_test_result(good, "upgrade\n");
		return;
	}
	if (!strcmp(line, "upgraded")) {
		ksft_test_result(succeeds(IS_UPGRADED), "upgraded\n");
		return;
	}
	split(line, words);
	if (!strcmp(words[0], "iperf3") && !connected)
		connected = succeeds(NETWORK);
	check_load(words);
}

int main(void)
{
	int fd = open(CONSOLE, O_RDWR);
	char **line;

	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	quiet_console(LOG_ERR);
	ksft_print_header();
	read_told();
	ksft_set_plan(count_tests());
	check_package();
	ksft_test_result(root_disk(), "root is on %s\n", told.root);
	check_types();
	check_selftest(false);
	check_selftest(true);
	for (line = told.lines; *line; line++)
		check_line(*line);
	check_journal();
	ksft_test_result(kernel_is_clean(), "kernel log\n");
	if (told.tested)
		ksft_test_result(run_selftests(told.tested), "selftests\n");
	syscall(__NR_ioctl, 1, 0x5409 /* TCSBRK: until all of it is out */, 1);
	ksft_finished();
}
