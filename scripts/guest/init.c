// SPDX-License-Identifier: GPL-2.0-only
/*
 * Process 1 of every guest. Judges the boot in three parts, and ends the guest:
 *
 *  - default_domain, the selftest, with this program's own arguments:
 *    DEVICE=TYPE ..., which the kernel finds behind "--" on its command line;
 *  - the disk of every such DEVICE that is a storage controller: it is read
 *    through the IOMMU and holds what it should;
 *  - the kernel has logged no error, as the IOMMU drivers do of a DMA fault,
 *    and is not tainted, as it is by a warning. But where a DEVICE is to get no
 *    domain, DEVICE=none, it is tainted by a warning.
 *
 * With "kunit" for the first argument it judges what KUnit has done at boot instead:
 *
 *  - every suite passes when it is run a second time, and in the other order;
 *  - nothing but the tests themselves has tainted the kernel, and lockdep, if
 *    it was built in, has found nothing.
 *
 * Prints KTAP. Built with nolibc, which the compiler includes by -include.
 */
#include <linux/reboot.h>
#include <stdbool.h>
#include "kselftest.h"

#define JUDGE		"/default_domain"
#define RECORD_SIZE	16	/* bytes: a record is its own number, in text */
#define DISK_RECORDS	65536
#define READ_SECONDS	20	/* until a read is taken for lost */
#define LOG_EMERG	0	/* the kernel's KERN_EMERG and so on */
#define LOG_ERR		3
#define LOG_WARNING	4
#define LOG_RECORD	2049	/* bytes: its PRINTK_MESSAGE_MAX, and a NUL */
#define TAINT_WARN	0x200	/* the kernel's bit 9: it has warned */
#define TAINT_TEST	0x40000	/* bit 18: KUnit has run a test */
#define KUNIT_DIR	"/sys/kernel/debug/kunit"
#define SUITES		16	/* that there is room for */
#define NAME_SIZE	64	/* bytes: of a suite's name, with its NUL */

/*
 * From now on only messages of @level and worse reach the console: they would
 * split our lines.
 */
static void quiet_console(int level)
{
	syscall(__NR_syslog, 8 /* SYSLOG_ACTION_CONSOLE_LEVEL */, NULL, level + 1);
}

static void mount_all(void)
{
	if (mount("none", "/dev", "devtmpfs", 0, NULL) ||
	    mount("none", "/proc", "proc", 0, NULL) ||
	    mount("none", "/sys", "sysfs", 0, NULL))
		ksft_exit_fail_perror("mount");
}

/*
 * Copy KTAP from @fd to the console, indented: it is a subtest. Returns whether
 * its last line says "ok".
 */
static bool relay(int fd)
{
	char line[512] = "";
	bool ok = false;
	size_t len = 0;

	while (read(fd, line + len, 1) == 1) {
		if (line[len] != '\n' && len < sizeof(line) - 2) {
			len++;
			continue;
		}
		line[len] = '\0';
		printf("    %s\n", line);
		ok = !strncmp(line, "ok ", 3);
		len = 0;
	}
	return ok;
}

static void run_judge(char *argv[], char *envp[])
{
	int status = -1, out[2];
	pid_t pid;

	if (pipe(out))
		ksft_exit_fail_perror("pipe");
	pid = fork();
	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid) {
		dup2(out[1], 1);
		dup2(out[1], 2);
		close(out[0]);
		close(out[1]);
		argv[0] = JUDGE;
		execve(JUDGE, argv, envp);
		exit(KSFT_FAIL);
	}
	close(out[1]);
	relay(out[0]);
	close(out[0]);
	/* A judge that skipped has checked nothing: that is no pass either. */
	ksft_test_result(waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
			 WEXITSTATUS(status) == KSFT_PASS, "default_domain\n");
}

/* Is @expectation's device, the part before '=', a storage controller? */
static bool is_storage(const char *expectation)
{
	const char *end = strchr(expectation, '=');
	char name[64] = "", class[9] = "";
	int fd;

	if (!end || end - expectation >= (int)sizeof(name))
		return false;
	memcpy(name, expectation, end - expectation);
	if (chdir("/sys/bus/pci/devices") || chdir(name))
		return false;
	fd = open("class", O_RDONLY);
	if (fd < 0)
		return false;
	read(fd, class, sizeof(class) - 1);
	close(fd);
	return !strncmp(class, "0x01", 4);
}

/* Does the disk @name hang on @expectation's device? */
static bool is_disk_of(const char *name, const char *expectation)
{
	size_t len = strchr(expectation, '=') - expectation;
	char path[256] = "", *pos;

	/* Following the link and asking where we are gives the device's path. */
	if (chdir("/sys/block") || chdir(name) ||
	    syscall(__NR_getcwd, path, sizeof(path)) < 0)
		return false;
	for (pos = path; (pos = strchr(pos, '/')); )
		if (!strncmp(++pos, expectation, len) && pos[len] == '/')
			return true;
	return false;
}

/* The disk of @expectation's device, "vda", until the next call; or NULL. */
static const char *find_disk(const char *expectation)
{
	FILE *partitions = fdopen(open("/proc/partitions", O_RDONLY), "r");
	static char line[128];
	char *name = NULL;

	if (!partitions)
		return NULL;
	while (fgets(line, sizeof(line), partitions)) {
		line[strlen(line) - 1] = '\0';
		name = strrchr(line, ' ');
		if (name && is_disk_of(++name, expectation))
			break;
		name = NULL;
	}
	fclose(partitions);
	return name;
}

/* Returns 0 if the disk @name can be read whole and record n says n. */
static int read_disk(const char *name)
{
	char buf[64 * RECORD_SIZE + 1] = "";	/* ends as a string, for atoi() */
	int fd, len, pos, record = 0;

	if (chdir("/dev"))
		return 1;
	fd = open(name, O_RDONLY);
	if (fd < 0)
		return 1;
	while ((len = read(fd, buf, sizeof(buf) - 1)) == sizeof(buf) - 1)
		for (pos = 0; pos < len; pos += RECORD_SIZE)
			if (atoi(buf + pos) != record++)
				return 1;
	return len || record != DISK_RECORDS;
}

/*
 * In a child: a request that was lost behind the IOMMU never comes back, and
 * that must not keep us from saying so.
 */
static bool disk_reads_well(const char *name)
{
	int status, tenths;
	pid_t pid;

	pid = fork();
	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid)
		exit(read_disk(name));

	for (tenths = 0; tenths < READ_SECONDS * 10; tenths++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) && !WEXITSTATUS(status);
		msleep(100);
	}
	ksft_print_msg("no answer from %s in %d seconds\n", name, READ_SECONDS);
	return false;
}

static void check_disk(const char *expectation)
{
	const char *name = find_disk(expectation);

	ksft_test_result(name && disk_reads_well(name), "read %s of %s\n",
			 name ? name : "the disk", expectation);
}

/*
 * Has the kernel logged nothing of @level or worse? A record of /dev/kmsg starts
 * with "priority,", facility * 8 + level; the kernel's own facility is 0.
 */
static bool log_is_clean(int level)
{
	char buf[LOG_RECORD], *text, *end;
	bool clean = true;
	int fd, len;

	fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		ksft_exit_fail_perror("/dev/kmsg");
	while ((len = read(fd, buf, sizeof(buf) - 1)) > 0) {
		buf[len] = '\0';
		text = strchr(buf, ';');
		if (atoi(buf) > level || !text)
			continue;
		end = strchr(text, '\n');
		if (end)
			*end = '\0';
		ksft_print_msg("the kernel says: %s\n", text + 1);
		clean = false;
	}
	/* EPIPE: records were lost, and we cannot know what they said. */
	if (!len || errno != EAGAIN) {
		ksft_perror("/dev/kmsg");
		clean = false;
	}
	close(fd);
	return clean;
}

/* Is the kernel tainted by @taint, and by nothing else? */
static bool taint_is(int taint)
{
	char buf[16] = "";
	int fd, len;

	fd = open("/proc/sys/kernel/tainted", O_RDONLY);
	if (fd < 0)
		ksft_exit_fail_perror("/proc/sys/kernel/tainted");
	len = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (len > 0 && atoi(buf) == taint)
		return true;
	ksft_print_msg("the kernel's taint is not %d but %s\n", taint, buf);
	return false;
}

static void check_kernel(bool must_warn)
{
	bool clean;

	if (must_warn) {
		ksft_test_result(taint_is(TAINT_WARN), "the kernel has warned\n");
		return;
	}
	clean = log_is_clean(LOG_ERR);
	clean &= taint_is(0);
	ksft_test_result(clean, "no error and no warning from the kernel\n");
}

/* lockdep says nothing more once it has found something, and puts it down here. */
static bool lockdep_is_content(void)
{
	FILE *stats = fdopen(open("/proc/lockdep_stats", O_RDONLY), "r");
	bool content = true;
	char line[128];

	if (!stats)
		return true;
	while (fgets(line, sizeof(line), stats))
		if (!strncmp(line, " debug_locks:", 13))
			content = atoi(strrchr(line, ' ') + 1);
	fclose(stats);
	if (!content)
		ksft_print_msg("lockdep has found something\n");
	return content;
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
	ksft_test_result(relay(results), "%s again\n", suite);
	close(results);
}

static void judge_kunit(void)
{
	char names[SUITES][NAME_SIZE];
	int count, i;
	bool clean;

	quiet_console(LOG_EMERG);	/* the suites provoke errors */
	if (mount("none", "/sys/kernel/debug", "debugfs", 0, NULL))
		ksft_exit_fail_perror("mount debugfs");
	count = find_suites(names);
	ksft_print_header();
	ksft_set_plan(count + 1);
	for (i = 0; i < count; i++)
		run_again(names[i]);
	clean = lockdep_is_content();
	clean &= taint_is(TAINT_TEST);
	if (!clean)
		log_is_clean(LOG_WARNING);	/* which says why */
	ksft_test_result(clean, "no warning from the kernel\n");
	reboot(LINUX_REBOOT_CMD_POWER_OFF);
}

/*
 * Restart at once, which ends QEMU. An orderly power-off would wait for devices
 * that the IOMMU has cut off: a faulting one, or an NVMe controller whose
 * virtio-iommu was shut down before it.
 */
static void restart(void)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY);

	write(fd, "b", 1);
}

int main(int argc, char *argv[], char *envp[])
{
	bool must_warn = false;
	int i, disks = 0;

	mount_all();
	if (argc > 1 && !strcmp(argv[1], "kunit")) {
		judge_kunit();
		return 0;
	}
	quiet_console(LOG_ERR);
	for (i = 1; i < argc; i++) {
		disks += is_storage(argv[i]);
		must_warn |= !strcmp(strchr(argv[i], '=') ?: "", "=none");
	}

	ksft_print_header();
	ksft_set_plan(1 + disks + 1);
	run_judge(argv, envp);
	for (i = 1; i < argc; i++)
		if (is_storage(argv[i]))
			check_disk(argv[i]);
	check_kernel(must_warn);

	restart();
	return 0;
}
