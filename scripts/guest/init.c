// SPDX-License-Identifier: GPL-2.0-only
/*
 * Process 1 of every guest. Judges the boot in three parts, and ends the guest:
 *
 *  - default_domain, the selftest, with this program's own arguments:
 *    DEVICE=TYPE ..., which the kernel finds behind "--" on its command line;
 *  - the disk of every such DEVICE that is a storage controller: it is read
 *    through the IOMMU and holds what it should;
 *  - the kernel has logged no error, as the IOMMU drivers do of a DMA fault,
 *    and is not tainted, as it is by a warning.
 *
 * Prints KTAP. Built with nolibc, which the compiler includes by -include.
 */
#include <stdbool.h>
#include "kselftest.h"

#define JUDGE		"/default_domain"
#define RECORD_SIZE	16	/* bytes: a record is its own number, in text */
#define DISK_RECORDS	65536
#define READ_SECONDS	20	/* until a read is taken for lost */
#define LOG_ERR		3	/* the kernel's KERN_ERR */
#define LOG_RECORD	2049	/* bytes: its PRINTK_MESSAGE_MAX, and a NUL */

/* From now on only errors reach the console: messages would split our lines. */
static void quiet_console(void)
{
	syscall(__NR_syslog, 8 /* SYSLOG_ACTION_CONSOLE_LEVEL */, NULL,
		LOG_ERR + 1);
}

static void mount_all(void)
{
	if (mount("none", "/dev", "devtmpfs", 0, NULL) ||
	    mount("none", "/proc", "proc", 0, NULL) ||
	    mount("none", "/sys", "sysfs", 0, NULL))
		ksft_exit_fail_perror("mount");
}

/* Copy a child's KTAP from @fd to the console, indented: it is a subtest. */
static void relay(int fd)
{
	char line[512];
	size_t len = 0;

	while (read(fd, line + len, 1) == 1) {
		if (line[len] != '\n' && len < sizeof(line) - 2) {
			len++;
			continue;
		}
		line[len] = '\0';
		printf("    %s\n", line);
		len = 0;
	}
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

/* A record of /dev/kmsg starts with "priority,", facility * 8 + level. */
static bool is_kernel_error(const char *record)
{
	return atoi(record) <= LOG_ERR;
}

static bool log_is_clean(void)
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
		if (!is_kernel_error(buf) || !text)
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

static bool is_tainted(void)
{
	char buf[16] = "";
	int fd, len;

	fd = open("/proc/sys/kernel/tainted", O_RDONLY);
	if (fd < 0)
		ksft_exit_fail_perror("/proc/sys/kernel/tainted");
	len = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (len > 0 && !atoi(buf))
		return false;
	ksft_print_msg("the kernel is tainted: %s\n", buf);
	return true;
}

static void check_kernel(void)
{
	bool clean = log_is_clean();

	ksft_test_result(!is_tainted() && clean,
			 "no error and no warning from the kernel\n");
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
	int i, disks = 0;

	mount_all();
	quiet_console();
	for (i = 1; i < argc; i++)
		disks += is_storage(argv[i]);

	ksft_print_header();
	ksft_set_plan(1 + disks + 1);
	run_judge(argv, envp);
	for (i = 1; i < argc; i++)
		if (is_storage(argv[i]))
			check_disk(argv[i]);
	check_kernel();

	restart();
	return 0;
}
