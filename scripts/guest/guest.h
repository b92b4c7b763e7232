/* SPDX-License-Identifier: GPL-2.0-only */
/* What init.c, the programs that it runs, and debian.c share */
#include <linux/uio.h>
#include <stdbool.h>
#include "kselftest.h"

#define LOG_EMERG 0 /* the kernel's KERN_EMERG and so on */
#define LOG_ERR 3
#define LOG_WARNING 4
#define PLUG_SECONDS 20 /* until a device counts as lost that comes or goes */
#define PAGE 4096 /* bytes: the smallest, on all of our architectures */

/*
 * From now on only messages of @level and worse reach the console: they would
 * split our lines.
 */
static void quiet_console(int level)
{
	syscall(__NR_syslog, 8 /* SYSLOG_ACTION_CONSOLE_LEVEL */, NULL,
		level + 1);
}

/* Ask for what it can do for us. Returns its answer, a number. */
static int ask_host(const char *what)
{
	char answer[16] = "";

	ksft_print_msg("host: %s\n", what);
	if (read(0, answer, sizeof(answer) - 1) <= 0)
		ksft_exit_fail_perror("no answer from the host");
	return atoi(answer);
}

/* Start the program argv[0]; what it prints can be read from @said. */
static inline pid_t start_program(char *argv[], char *envp[], int *said)
{
	int out[2];
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
		execve(argv[0], argv, envp);
		exit(-1);
	}
	close(out[1]);
	*said = out[0];
	return pid;
}

/* Wait until a program has ended; its exit status, or -1 if it crashed */
static inline int exit_status(pid_t pid)
{
	int status = -1;

	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/* Put the type of the default domain of @device's group, "DMA-FQ", into @buf; is there one? */
static inline bool read_type(const char *device, char *buf, size_t size)
{
	ssize_t len;
	int fd;

	if (chdir("/sys/bus/pci/devices") || chdir(device))
		return false;
	fd = open("iommu_group/type", O_RDONLY);
	if (fd < 0)
		return false;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len <= 0)
		return false;
	buf[len - 1] = '\0'; /* in place of the newline */
	return true;
}

/* What follows @name if @arg begins with it, else NULL */
static inline char *value_of(const char *arg, const char *name)
{
	return strncmp(arg, name, strlen(name)) ? NULL :
						  (char *)arg + strlen(name);
}

/* The number that follows ':', or begins, the line of @path that begins with @label */
static long read_number(const char *path, const char *label)
{
	FILE *file = fdopen(open(path, O_RDONLY), "r");
	long number = -1;
	char line[128], *pos;

	if (!file)
		return -1;
	while (number < 0 && fgets(line, sizeof(line), file)) {
		for (pos = line; *pos == ' '; pos++)
			;
		if (strncmp(pos, label, strlen(label)))
			continue;
		pos = strchr(pos, ':') ? strchr(pos, ':') + 1 :
					 pos + strlen(label);
		while (*pos == ' ' || *pos == '\t')
			pos++;
		number = atol(pos);
	}
	fclose(file);
	return number;
}

/* Where @part is in @text, or NULL: 6.12's nolibc has no strstr() */
static inline const char *find_part(const char *text, const char *part)
{
	for (; *text; text++)
		if (!strncmp(text, part, strlen(part)))
			return text;
	return NULL;
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool good = fd >= 0 && write(fd, text, strlen(text)) > 0;

	close(fd);
	return good;
}

/*
 * Take the power from the PCIe slot @slot, a digit. It refuses that while it powers on, and
 * what is plugged in has its driver before that has ended.
 */
static inline bool power_off(const char *slot)
{
	int tenths;

	for (tenths = 0; tenths < PLUG_SECONDS * 10; tenths++) {
		if (!chdir("/sys/bus/pci/slots") && !chdir(slot) &&
		    write_file("power", "0"))
			return true;
		msleep(100);
	}
	ksft_print_msg("slot %s keeps its power\n", slot);
	return false;
}

/*
 * How often has the IOTLB been invalidated for @device until now? The host counts, if
 * that is @who, or the kernel, as s390's does, and apart from that what maps have cost.
 */
static inline long count_invalidations(const char *device, const char *who)
{
	const char *all = "Global RPCITs", *some = "Sync RPCITs";
	long global, sync;

	if (!strcmp(who, "host"))
		return ask_host("count");
	if (chdir("/sys/kernel/debug/pci") || chdir(device))
		ksft_exit_fail_perror("/sys/kernel/debug/pci");
	if (read_number("statistics", all) < 0 &&
	    !write_file("statistics", "1"))
		ksft_exit_fail_perror("statistics");
	global = read_number("statistics", all);
	sync = read_number("statistics", some);
	if (global < 0 || sync < 0)
		ksft_exit_fail_msg("statistics: no %s\n",
				   global < 0 ? all : some);
	return global + sync;
}

#define HALF_PAGE (PAGE / 2)

/*
 * Have @count @segments of @size bytes. Between two of them as much is not used, since what is
 * side by side in memory is mapped as one. Whole pages may be so all the same, whatever their
 * addresses are; half a page never is.
 */
static inline bool have_segments(struct iovec segments[], int count,
				 size_t size)
{
	char *area = mmap(NULL, count * size * 2, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int i;

	if (area == MAP_FAILED)
		return false;
	memset(area, 0, count * size * 2);
	for (i = 0; i < count; i++)
		segments[i] = (struct iovec){ area + i * size * 2, size };
	return true;
}

/*
 * Open the disk @name to be read past the page cache, into @count @segments of @size bytes, see
 * have_segments(). Returns -1 if that cannot be done.
 */
static inline int open_for_segments(const char *name, struct iovec segments[],
				    int count, size_t size)
{
	if (!have_segments(segments, count, size) || chdir("/dev"))
		return -1;
	return open(name, O_RDONLY | O_DIRECT);
}

static inline void close_segments(int fd, struct iovec segments[], int count)
{
	close(fd);
	munmap(segments[0].iov_base, count * segments[0].iov_len * 2);
}
