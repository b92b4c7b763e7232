// SPDX-License-Identifier: GPL-2.0-only
/*
 * Check the default domain of every IOMMU group: its type, and with --write what
 * becomes of it when another type is written to sysfs. See usage().
 *
 * The types that must be can be told. Where nobody tells them they are derived,
 * as far as they can be: an administrator may have changed the type of any group,
 * and does not leave a trace.
 */
#ifndef NOLIBC
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The C library's name for what the kernel and nolibc call so */
#define linux_dirent64 dirent64
#endif
#include <stdbool.h>

#include "kselftest.h"

#define GROUPS "/sys/kernel/iommu_groups"

/* As sysfs spells them, and what is said of a device that is in no group */
static const char * const types[] = {
	"blocked", "identity", "unmanaged", "DMA", "DMA-FQ", "none",
};

#define TYPE_SIZE 16	/* bytes: more than the longest of @types */
#define NAME_SIZE 64	/* bytes: more than a device's or a group's name */
#define LINE_SIZE 4096	/* bytes: more than a record of the log or a command line */
#define NOBODY 65534	/* the user who may do nothing */

#define VTD_CAP_CM 7	/* VT-d's capability bit: caching mode, for a hypervisor */
#define VTD_ECAP_PT 6	/* its extended one: pass-through */
#define AMD_CAP_NPCACHE 26	/* AMD-Vi's: as caching mode */

/**
 * struct device - a device that stands behind an IOMMU
 * @name: its name on its bus, "0000:00:02.0"
 * @removable: the kernel says so, as it does of what it does not trust
 * @bound: it has a driver
 * @requires: its IOMMU driver is known to require translation
 * @forces: its IOMMU driver is known to force strict invalidation
 */
struct device {
	const char *name;
	bool removable;
	bool bound;
	bool requires;
	bool forces;
};

/**
 * struct group - an IOMMU group
 * @name: its name, a number
 * @type: type of its default domain, as sysfs spells it; "" if not readable
 * @devices: how many it has
 * @removable: how many of them are
 * @bound: how many of them have a driver
 * @requires: its IOMMU driver is known to require translation
 * @forces: its IOMMU driver is known to force strict invalidation
 */
struct group {
	char name[NAME_SIZE];
	char type[TYPE_SIZE];
	int devices;
	int removable;
	int bound;
	bool requires;
	bool forces;
};

/* What the kernel has decided for all groups, as far as it lets us know */
enum answer { UNKNOWN, NO, YES };
static enum answer strict, passthrough;

static bool may_write;

static bool known_type(const char *type)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(type, types[i]))
			return true;
	return false;
}

static bool begins_with(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

static void copy_name(char *to, const char *from, size_t len)
{
	if (len >= NAME_SIZE)
		ksft_exit_fail_msg("no room for the name %s\n", from);
	memcpy(to, from, len);
	to[len] = '\0';
}

/* Read the first line of a small file; false if there is none. */
static bool read_line(const char *path, char *buf, size_t size)
{
	ssize_t len;
	char *end;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		return false;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len <= 0)
		return false;
	buf[len] = '\0';
	end = strchr(buf, '\n');
	if (end)
		*end = '\0';
	return true;
}

/* Is @bit set in the hexadecimal number that the file holds? */
static enum answer read_bit(const char *path, int bit)
{
	char buf[32];

	if (!read_line(path, buf, sizeof(buf)))
		return UNKNOWN;
	return strtoull(buf, NULL, 16) >> bit & 1 ? YES : NO;
}

/*
 * With getdents64(), since nolibc has no readdir(). Returns the number of
 * entries, or -1 if the directory cannot be read.
 */
static int walk_dir(const char *path,
		    void (*fn)(const char *name, void *arg), void *arg)
{
	unsigned long long buf[128];	/* aligned as its entries are */
	int fd, len, pos, count = 0;

	fd = open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return -1;

	while ((len = getdents64(fd, (void *)buf, sizeof(buf))) > 0) {
		for (pos = 0; pos < len;) {
			struct linux_dirent64 *entry = (void *)((char *)buf + pos);

			pos += entry->d_reclen;
			if (entry->d_name[0] == '.')
				continue;
			fn(entry->d_name, arg);
			count++;
		}
	}
	close(fd);
	return len < 0 ? -1 : count;
}

/* Go to the directory of a group. It may have vanished: its device was unplugged. */
static bool enter(const char *group)
{
	return !chdir(GROUPS) && !chdir(group);
}

/* Returns "" if it cannot be read. */
static const char *read_type(const char *group)
{
	static char type[TYPE_SIZE];

	if (!enter(group) || !read_line("type", type, sizeof(type)))
		type[0] = '\0';
	return type;
}

/* Of the device in whose directory we are */
static void read_device(struct device *dev)
{
	char removable[16];
	int fd;

	dev->removable = read_line("removable", removable, sizeof(removable)) &&
			 !strcmp(removable, "removable");
	fd = open("driver", O_RDONLY | O_DIRECTORY);
	dev->bound = fd >= 0;
	if (dev->bound)
		close(fd);
	dev->requires = read_bit("iommu/intel-iommu/ecap", VTD_ECAP_PT) == NO;
	dev->forces = read_bit("iommu/intel-iommu/cap", VTD_CAP_CM) == YES ||
		      read_bit("iommu/amd-iommu/cap", AMD_CAP_NPCACHE) == YES;
}

/**
 * struct walk - state of a walk over all groups
 * @group: the group that the walk has come to
 * @device_fn: called for each of its devices, or NULL
 * @group_fn: called for it after them, or NULL
 * @arg: handed to both
 */
struct walk {
	struct group group;
	void (*device_fn)(const struct device *dev, const struct group *group,
			  void *arg);
	void (*group_fn)(const struct group *group, void *arg);
	void *arg;
};

static void walk_device(const char *name, void *arg)
{
	struct walk *walk = arg;
	struct group *group = &walk->group;
	struct device dev = { .name = name };

	if (!chdir("devices") && !chdir(name))
		read_device(&dev);
	enter(group->name);

	group->devices++;
	group->removable += dev.removable;
	group->bound += dev.bound;
	group->requires |= dev.requires;
	group->forces |= dev.forces;
	if (walk->device_fn)
		walk->device_fn(&dev, group, walk->arg);
}

static void walk_group(const char *name, void *arg)
{
	struct walk *walk = arg;
	struct group *group = &walk->group;

	memset(group, 0, sizeof(*group));
	copy_name(group->name, name, strlen(name));
	strcpy(group->type, read_type(name));
	if (!enter(name))
		return;
	walk_dir("devices", walk_device, walk);
	if (walk->group_fn)
		walk->group_fn(group, walk->arg);
}

/* Returns the number of groups, 0 or -1 if the kernel has none. */
static int walk_groups(struct walk *walk)
{
	return walk_dir(GROUPS, walk_group, walk);
}

static void report_device(const struct device *dev, const struct group *group,
			  void *arg)
{
	ksft_print_msg("%s group %s %s%s\n", dev->name, group->name,
		       group->type[0] ? group->type : "unreadable",
		       dev->removable ? " removable" : "");
}

/**
 * struct search - look for one device among all
 * @name: the device to look for
 * @found: how many there are; a name is only unique on its bus
 * @group: the group of the last one
 * @type: and its type, "none" if there is none
 */
struct search {
	char name[NAME_SIZE];
	int found;
	char group[NAME_SIZE];
	char type[TYPE_SIZE];
};

static void match(const struct device *dev, const struct group *group, void *arg)
{
	struct search *search = arg;

	if (strcmp(dev->name, search->name))
		return;
	search->found++;
	strcpy(search->group, group->name);
	strcpy(search->type, group->type);
}

/* Look for the device whose name is the first @len characters of @name. */
static void find_device(struct search *search, const char *name, size_t len)
{
	struct walk walk = { .device_fn = match, .arg = search };

	memset(search, 0, sizeof(*search));
	copy_name(search->name, name, len);
	strcpy(search->type, "none");
	walk_groups(&walk);
	if (search->found > 1)
		ksft_print_msg("%d devices are called %s\n", search->found,
			       search->name);
}

/* Judge one DEVICE=TYPE. */
static void check_type(const char *expectation)
{
	const char *type = strchr(expectation, '=') + 1;
	struct search search;
	bool good;

	find_device(&search, expectation, type - expectation - 1);
	good = search.found <= 1 && !strcmp(search.type, type);
	if (!good && !search.found)
		ksft_print_msg("%s is in no IOMMU group\n", search.name);
	else if (!good)
		ksft_print_msg("%s is %s, not %s\n", search.name, search.type, type);
	ksft_test_result(good, "%s\n", expectation);
}

/* "EINVAL" */
static const char *error_name(int error)
{
	switch (error) {
	case EPERM:	 return "EPERM";
	case ENOMEM:	 return "ENOMEM";
	case EACCES:	 return "EACCES";
	case EBUSY:	 return "EBUSY";
	case ENODEV:	 return "ENODEV";
	case EINVAL:	 return "EINVAL";
	case EOPNOTSUPP: return "EOPNOTSUPP";
	}
	ksft_print_msg("error %d has no name here\n", error);
	return "?";
}

/* Returns 0 or an errno. */
static int write_fd(int fd, const char *word)
{
	return write(fd, word, strlen(word)) < 0 ? errno : 0;
}

/* Write @word to the type of @group. Returns 0 or an errno. */
static int write_type(const char *group, const char *word)
{
	int fd, error;

	if (!enter(group))
		return errno;
	fd = open("type", O_WRONLY);
	if (fd < 0)
		return errno;
	error = write_fd(fd, word);
	close(fd);
	return error;
}

/*
 * Make @type the type of @group. Where its driver requires translation and
 * invalidation is strict, DMA-FQ can be had from DMA only.
 */
static bool make_type(const char *group, const char *type)
{
	if (!strcmp(read_type(group), type) || !write_type(group, type))
		return true;
	if (!strcmp(type, "DMA-FQ") && !write_type(group, "DMA") &&
	    !write_type(group, "DMA-FQ"))
		return true;
	ksft_print_msg("group %s is %s and cannot be made %s\n", group,
		       read_type(group), type);
	return false;
}

/*
 * May nobody write @word, neither through a file of his own, nor through one that
 * root has opened for him?
 */
static bool refused_to_nobody(const char *group, const char *word)
{
	int fd, status;
	pid_t pid;

	pid = fork();
	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid) {
		fd = enter(group) ? open("type", O_WRONLY) : -1;
		if (fd < 0 || syscall(__NR_setresuid, NOBODY, NOBODY, NOBODY))
			exit(KSFT_FAIL);
		exit(write_type(group, word) == EACCES &&
		     write_fd(fd, word) == EACCES ? KSFT_PASS : KSFT_FAIL);
	}
	if (waitpid(pid, &status, 0) == pid && WIFEXITED(status) &&
	    WEXITSTATUS(status) == KSFT_PASS)
		return true;
	ksft_print_msg("group %s, %s written by nobody: no EACCES\n", group, word);
	return false;
}

/*
 * Write @word to the type of @group, after nobody could not. Says what comes of it:
 * the name of an error, and then the type must be what it was, or the new type.
 */
static const char *try_write(const char *group, const char *word)
{
	char before[TYPE_SIZE];
	int error;

	strcpy(before, read_type(group));
	if (!refused_to_nobody(group, word))
		return "?";
	if (strcmp(read_type(group), before))
		return "changed by nobody";
	error = write_type(group, word);
	if (!error)
		return read_type(group);
	if (strcmp(read_type(group), before))
		return "changed in spite of an error";
	return error_name(error);
}

/* Judge one DEVICE/FROM/WORD=RESULT. */
static void check_write(const char *expectation)
{
	const char *from = strchr(expectation, '/') + 1;
	const char *word = strchr(from, '/') + 1;
	const char *result = strchr(word, '=') + 1;
	char type[NAME_SIZE], written[NAME_SIZE];
	struct search search;
	const char *got;
	bool good;

	copy_name(type, from, word - from - 1);
	copy_name(written, word, result - word - 1);
	find_device(&search, expectation, from - expectation - 1);
	good = search.found == 1 && make_type(search.group, type);
	if (good) {
		got = try_write(search.group, written);
		good = !strcmp(got, result);
		if (!good)
			ksft_print_msg("%s, %s written to %s: %s, not %s\n",
				       search.name, written, type, got, result);
		good &= make_type(search.group, search.type);
	}
	ksft_test_result(good, "%s\n", expectation);
}

/* Does @word, written to @group, give @result? */
static bool gives(const char *group, const char *word, const char *result)
{
	char before[TYPE_SIZE];
	const char *got;

	strcpy(before, read_type(group));
	got = try_write(group, word);
	if (!strcmp(got, result))
		return true;
	ksft_print_msg("group %s, %s written to %s: %s, not %s\n", group, word,
		       before, got, result);
	return false;
}

/* What holds whatever the driver and the parameters say. */
static bool writes_well(const struct group *group)
{
	const char *name = group->name;
	char chosen[TYPE_SIZE];
	bool good;

	good = gives(name, "nonsense", "EINVAL");
	/* What the kernel chooses by itself it also takes when asked for. */
	if (write_type(name, "auto")) {
		ksft_print_msg("group %s: auto is refused\n", name);
		return false;
	}
	strcpy(chosen, read_type(name));
	good &= gives(name, chosen, chosen);
	/* To be strict rather than lazy is always a legal wish. */
	if (!strcmp(chosen, "DMA-FQ"))
		good &= gives(name, "DMA", "DMA");
	/* A flush queue can be had by any group that is translated. */
	if (!strcmp(read_type(name), "DMA"))
		good &= gives(name, "DMA-FQ", "DMA-FQ");
	good &= gives(name, "auto", chosen);
	return good & make_type(name, group->type);
}

static void derive_writes(const struct group *group)
{
	const char *why = !may_write ? "not without --write" :
			  geteuid() ? "only root may write" :
			  !group->type[0] ? "its type cannot be read" :
			  group->bound ? "a device has a driver" : NULL;

	if (why)
		ksft_test_result_code(KSFT_SKIP, "types written", "group %s: %s",
				      group->name, why);
	else
		ksft_test_result(writes_well(group), "group %s: types written\n",
				 group->name);
}

/* What is derived of the type of @group cannot be known. */
static void skip_type(const struct group *group, const char *why)
{
	ksft_test_result_code(KSFT_SKIP, "type", "group %s: %s: %s", group->name,
			      group->type, why);
}

/* Lazy invalidation is in force and @group, which is trusted, is strict. */
static void derive_strict(const struct group *group)
{
	const char *why = group->forces ? "its IOMMU is in caching mode" :
			  passthrough == YES ? "fell back from pass-through" : NULL;

	if (why)
		ksft_test_result_pass("group %s: DMA: %s\n", group->name, why);
	else if (group->requires)
		skip_type(group,
			  "through sysfs, or this kernel is strict if a driver requires translation");
	else
		skip_type(group, "through sysfs, or its IOMMU cannot defer");
}

/* No device of @group is removable. */
static void derive_trusted(const struct group *group)
{
	bool is_lazy = !strcmp(group->type, "DMA-FQ");

	if (!is_lazy && strcmp(group->type, "DMA"))
		ksft_test_result_pass("group %s: %s\n", group->name, group->type);
	else if (strict == UNKNOWN)
		skip_type(group, "strict or lazy, not known what is in force");
	else if (is_lazy == (strict == NO))
		ksft_test_result_pass("group %s: %s: as is in force\n", group->name,
				      group->type);
	else if (is_lazy)
		skip_type(group, "strict is in force, so this was done through sysfs");
	else
		derive_strict(group);
}

static void derive_type(const struct group *group, void *arg)
{
	bool is_strict = !strcmp(group->type, "DMA");

	if (!group->type[0])
		skip_type(group, "its type cannot be read");
	else if (!group->removable)
		derive_trusted(group);
	else if (is_strict || group->removable == group->devices)
		ksft_test_result(is_strict, "group %s: %s: removable\n",
				 group->name, group->type);
	else
		skip_type(group,
			  "through sysfs, or a removable device joined when it had its domain");
	derive_writes(group);
}

/* Of a word of the command line: the truth of what follows @prefix, as kstrtobool() */
static void read_word(const char *word, const char *prefix, enum answer *answer)
{
	if (!begins_with(word, prefix))
		return;
	word += strlen(prefix);
	if (strchr("yYtT1", *word) || begins_with(word, "on"))
		*answer = *word ? YES : *answer;
	else if (strchr("nNfF0", *word) || begins_with(word, "of"))
		*answer = NO;
}

static void read_cmdline(void)
{
	char line[LINE_SIZE], *word, *end;

	if (!read_line("/proc/cmdline", line, sizeof(line)))
		return;
	for (word = line; word; word = end) {
		end = strchr(word, ' ');
		if (end)
			*end++ = '\0';
		if (!strcmp(word, "--"))
			break;
		read_word(word, "iommu.strict=", &strict);
		read_word(word, "iommu.passthrough=", &passthrough);
	}
}

static void read_log(void)
{
	const char *policy = "iommu: DMA domain TLB invalidation policy: ";
	const char *type = "iommu: Default domain type: ";
	char buf[LINE_SIZE], *text;
	int fd, len;

	fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return;
	while ((len = read(fd, buf, sizeof(buf) - 1)) > 0 || (len < 0 && errno == EPIPE)) {
		buf[len < 0 ? 0 : len] = '\0';
		text = strchr(buf, ';');
		if (!text)
			continue;
		text++;
		if (begins_with(text, policy))
			strict = begins_with(text + strlen(policy), "strict") ? YES : NO;
		if (begins_with(text, type))
			passthrough = begins_with(text + strlen(type), "Passthrough") ?
				      YES : NO;
	}
	close(fd);
}

/*
 * The kernel says at boot what is in force, which comes from the command line,
 * its configuration and drivers. Without its log the command line may tell.
 */
static void read_state(void)
{
	read_cmdline();
	read_log();
	ksft_print_msg("invalidation is %s\n", strict == YES ? "strict" :
		       strict == NO ? "lazy" : "strict or lazy, not known");
}

static void usage(void)
{
	printf("Usage: default_domain [--write] [EXPECTATION ...]\n"
	       "Check the type of the default domain of IOMMU groups. An EXPECTATION is\n"
	       "  DEVICE=TYPE              the group of DEVICE (its name in\n"
	       "                           /sys/kernel/iommu_groups/*/devices, as in\n"
	       "                           0000:00:02.0) has this TYPE: identity, DMA,\n"
	       "                           DMA-FQ, unmanaged or blocked; or, with none,\n"
	       "                           DEVICE is in no group\n"
	       "  DEVICE/FROM/WORD=RESULT  WORD, written to it when the type is FROM, makes\n"
	       "                           RESULT of it, or is refused with that error, as\n"
	       "                           in EINVAL; and nobody may write it. Needs --write\n"
	       "                           and that no device of the group has a driver\n"
	       "Without any, what must hold is derived from the boot parameters and the\n"
	       "kernel's log, for each group: untrusted devices are strict, all else is as is\n"
	       "in force or can be explained; with --write also that types can be written,\n"
	       "where no device of the group has a driver. What cannot be known is skipped.\n"
	       "Changes nothing without --write; with it, every type is put back.\n"
	       "Prints KTAP. Exit status: 0 if all is as expected, 1 if not or if an argument\n"
	       "is wrong, 4 if there was nothing to check.\n");
}

static bool is_write(const char *expectation)
{
	return strchr(expectation, '/');
}

static bool valid_write(const char *expectation)
{
	const char *from = strchr(expectation, '/') + 1;
	const char *word = strchr(from, '/') ? strchr(from, '/') + 1 : NULL;
	const char *result = word ? strchr(word, '=') : NULL;
	char type[NAME_SIZE];

	if (!result || from - expectation > NAME_SIZE ||
	    word - from > NAME_SIZE || result - word >= NAME_SIZE || !result[1])
		return false;
	copy_name(type, from, word - from - 1);
	return known_type(type);
}

static bool valid_type(const char *expectation)
{
	const char *type = strchr(expectation, '=');

	return type && type != expectation && type - expectation < NAME_SIZE &&
	       known_type(type + 1);
}

static void refuse(const char *argument, const char *want)
{
	fprintf(stderr, "default_domain: '%s': %s\n", argument, want);
	exit(KSFT_FAIL);
}

static void validate(const char *expectation)
{
	if (!is_write(expectation) && !valid_type(expectation))
		refuse(expectation,
		       "want DEVICE=TYPE, with TYPE one of blocked, identity, unmanaged, DMA, DMA-FQ, none");
	if (is_write(expectation) && !valid_write(expectation))
		refuse(expectation, "want DEVICE/FROM/WORD=RESULT, with FROM a type");
	if (is_write(expectation) && !may_write)
		refuse(expectation, "needs --write");
}

int main(int argc, char *argv[])
{
	struct walk report = { .device_fn = report_device };
	struct walk derive = { .group_fn = derive_type };
	int i, groups, first = 1;

	if (argc > 1 && !strcmp(argv[1], "--help")) {
		usage();
		return 0;
	}
	if (argc > 1 && !strcmp(argv[1], "--write")) {
		may_write = true;
		first = 2;
	}
	for (i = first; i < argc; i++)
		validate(argv[i]);

	ksft_print_header();
	groups = walk_groups(&report);
	if (groups <= 0)
		ksft_print_msg("no IOMMU group in " GROUPS "\n");
	if (argc > first) {
		ksft_set_plan(argc - first);
		for (i = first; i < argc; i++) {
			if (is_write(argv[i]))
				check_write(argv[i]);
			else
				check_type(argv[i]);
		}
	} else if (groups <= 0) {
		ksft_exit_skip("no IOMMU, or it is off\n");
	} else {
		read_state();
		ksft_set_plan(2 * groups);
		walk_groups(&derive);
	}
	ksft_finished();
}
