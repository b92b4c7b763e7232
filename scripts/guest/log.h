/* SPDX-License-Identifier: GPL-2.0-only */
/* The kernel's log, and its taint: what guests judge */
#define LOG_RECORD 2049 /* bytes: its PRINTK_MESSAGE_MAX, and a NUL */
#define TAINT_WARN 0x200 /* the kernel's bit 9: it has warned */

/*
 * Is it an error of QEMU's clock, which happens where the host has no time for QEMU?
 * Seen in one boot of 1500: the clock is read before there is an IOMMU driver.
 */
static bool is_of_the_clock(const char *text)
{
	return !strcmp(text, "Unable to read current time from RTC");
}

/*
 * Read a record of /dev/kmsg, "priority,number,...;text", into @buf. Returns its number,
 * or -1 at the end. EPIPE says that the next one is lost; then comes one that is not.
 */
static long read_record(int fd, char buf[LOG_RECORD])
{
	ssize_t len;

	do {
		len = read(fd, buf, LOG_RECORD - 1);
	} while (len < 0 && errno == EPIPE);
	if (len <= 0)
		return -1;
	buf[len] = '\0';
	return atol(strchr(buf, ',') + 1);
}

/*
 * Read on in the log, from record *@next. Is nothing lost, and nothing of @level or worse
 * but what @allowed, if given, says is? A priority is facility * 8 + level; the kernel's
 * own facility is 0. We cannot know what lost records said. The first one has the number
 * 0: if it is lost, no EPIPE tells.
 */
static bool log_goes_on(int fd, long *next, int level,
			bool (*allowed)(const char *text))
{
	char buf[LOG_RECORD], *text, *end;
	bool clean = true;
	long number;

	while ((number = read_record(fd, buf)) >= 0) {
		if (number != *next) {
			ksft_print_msg("records were lost before number %ld\n",
				       number);
			clean = false;
		}
		*next = number + 1;
		text = strchr(buf, ';');
		if (atoi(buf) > level || !text)
			continue;
		end = strchr(text, '\n');
		if (end)
			*end = '\0';
		ksft_print_msg("the kernel says: %s\n", text + 1);
		clean &= is_of_the_clock(text + 1) ||
			 (allowed && allowed(text + 1));
	}
	if (errno != EAGAIN) {
		ksft_perror("/dev/kmsg");
		clean = false;
	}
	return clean;
}

static int open_log(void)
{
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	if (fd < 0)
		ksft_exit_fail_perror("/dev/kmsg");
	return fd;
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

/* Has the kernel logged nothing of @level or worse, but what @allowed, if given, says is? */
static inline bool log_has_only(int level, bool (*allowed)(const char *text))
{
	int fd = open_log();
	long next = 0;
	bool clean = log_goes_on(fd, &next, level, allowed);

	close(fd);
	return clean;
}

/* Has the kernel logged nothing of @level or worse? */
static inline bool log_is_clean(int level)
{
	return log_has_only(level, NULL);
}

/* Has it logged no error, and not warned? */
static inline bool kernel_is_clean(void)
{
	bool clean = log_is_clean(LOG_ERR);

	clean &= taint_is(0);
	return clean;
}

/* Is lockdep still looking? -1 if it is not built in */
static inline long lockdep(void)
{
	return read_number("/proc/lockdep_stats", "debug_locks");
}

/* lockdep says nothing more once it has found something, and puts it down here. */
static inline bool lockdep_found_nothing(void)
{
	if (lockdep())
		return true;
	ksft_print_msg("lockdep has found something\n");
	return false;
}

static inline bool is_warning(const char *text)
{
	return !strncmp(text, "WARNING: ", 9);
}

/* Does DEBUG_OBJECTS say that it checks nothing any more? */
static inline bool is_given_up(const char *text)
{
	return !strncmp(text, "ODEBUG: Out of memory.", 22);
}

static inline bool is_no_finding(const char *text)
{
	return strncmp(text, "WARNING: suspicious RCU usage", 29) &&
	       !is_given_up(text);
}

/*
 * RCU's checks, and DEBUG_OBJECTS when it gives up, taint nothing and print no error. They
 * are there only with lockdep.
 */
static inline bool no_finding_is_logged(void)
{
	return lockdep() < 0 || log_has_only(LOG_WARNING, is_no_finding);
}

static inline bool is_no_race(const char *text)
{
	return strncmp(text, "BUG: KCSAN: ", 12);
}

/* KCSAN taints nothing. Has it looked, and found no data race? Or is it not built in? */
static inline bool kcsan_found_nothing(void)
{
	long watched =
		read_number("/sys/kernel/debug/kcsan", "setup_watchpoints");

	if (watched < 0)
		return true;
	ksft_print_msg("KCSAN has watched %ld accesses\n", watched);
	return log_has_only(LOG_ERR, is_no_race) && watched;
}
