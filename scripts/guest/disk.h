/* SPDX-License-Identifier: GPL-2.0-only */
/* The disk of a device, and whether it is read well: what guests judge */
#define RECORD_SIZE 16 /* bytes: a record is its own number, in text */
#define DISK_RECORDS 65536
#define READ_SECONDS 20 /* until a read is taken for lost */

/* Does the disk @name hang on @expectation's device? */
static bool is_disk_of(const char *name, const char *expectation)
{
	size_t len = strchr(expectation, '=') - expectation;
	char path[256] = "", *pos;

	/* Following the link and asking where we are gives the device's path. */
	if (chdir("/sys/block") || chdir(name) ||
	    syscall(__NR_getcwd, path, sizeof(path)) < 0)
		return false;
	for (pos = path; (pos = strchr(pos, '/'));)
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
	char buf[64 * RECORD_SIZE + 1] = ""; /* ends as a string, for atoi() */
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
 * Returns whether @act returns 0. In a child: a request that was lost behind the IOMMU never
 * comes back, and that must not keep us from saying so.
 */
static bool ends_well(int (*act)(const char *name), const char *name)
{
	int status, tenths;
	pid_t pid;

	pid = fork();
	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid)
		exit(act(name));

	for (tenths = 0; tenths < READ_SECONDS * 10; tenths++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) && !WEXITSTATUS(status);
		msleep(100);
	}
	kill(pid, SIGKILL);
	ksft_print_msg("no answer from %s in %d seconds\n", name, READ_SECONDS);
	return false;
}
