// SPDX-License-Identifier: GPL-2.0-only
/*
 * Check, or only report, the type of the default domain of every device that
 * stands behind an IOMMU. Reads sysfs and changes nothing.
 */
#ifndef NOLIBC
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/**
 * struct device - a device that stands behind an IOMMU
 * @name: its name on its bus, "0000:00:02.0"
 * @group: number of its IOMMU group
 * @type: type of the group's default domain, as sysfs spells it
 */
struct device {
	const char *name;
	const char *group;
	char type[TYPE_SIZE];
};

typedef void (*device_fn)(const struct device *dev, void *arg);

/**
 * struct search - look for one device among all
 * @name: the device to look for
 * @found: how many there are; a name is only unique on its bus
 * @type: the type of the last one, "none" if there is none
 */
struct search {
	const char *name;
	int found;
	char type[TYPE_SIZE];
};

static bool known_type(const char *type)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(type, types[i]))
			return true;
	return false;
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

/**
 * struct walk - state of a walk over all devices
 * @dev: the device that the walk has come to
 * @fn: called for each device
 * @arg: handed to @fn
 */
struct walk {
	struct device dev;
	device_fn fn;
	void *arg;
};

static void walk_device(const char *name, void *arg)
{
	struct walk *walk = arg;

	walk->dev.name = name;
	walk->fn(&walk->dev, walk->arg);
}

static void walk_group(const char *group, void *arg)
{
	struct walk *walk = arg;

	/* A group may vanish while we look: its device was unplugged. */
	if (chdir(group))
		return;
	walk->dev.group = group;
	if (!read_line("type", walk->dev.type, sizeof(walk->dev.type)))
		walk->dev.type[0] = '\0';
	walk_dir("devices", walk_device, walk);
	if (chdir(".."))
		ksft_exit_fail_perror("chdir");
}

/* Returns the number of groups, 0 or -1 if the kernel has none. */
static int walk_devices(device_fn fn, void *arg)
{
	struct walk walk = { .fn = fn, .arg = arg };

	if (chdir(GROUPS))
		return 0;
	return walk_dir(".", walk_group, &walk);
}

static void report(const struct device *dev, void *arg)
{
	ksft_print_msg("%s group %s %s\n", dev->name, dev->group,
		       dev->type[0] ? dev->type : "unreadable");
}

static void match(const struct device *dev, void *arg)
{
	struct search *search = arg;

	if (strcmp(dev->name, search->name))
		return;
	search->found++;
	memcpy(search->type, dev->type, sizeof(search->type));
}

/* Judge one DEVICE=TYPE. */
static void check(const char *expectation)
{
	struct search search = { .type = "none" };
	const char *type = strchr(expectation, '=') + 1;
	char name[64] = "";
	bool good;

	memcpy(name, expectation, type - expectation - 1);
	search.name = name;
	walk_devices(match, &search);

	good = search.found <= 1 && !strcmp(search.type, type);
	if (search.found > 1)
		ksft_print_msg("%d devices are called %s\n", search.found, name);
	else if (!good && !search.found)
		ksft_print_msg("%s is in no IOMMU group\n", name);
	else if (!good)
		ksft_print_msg("%s is %s, not %s\n", name, search.type, type);
	ksft_test_result(good, "%s\n", expectation);
}

static void usage(void)
{
	printf("Usage: default_domain [DEVICE=TYPE ...]\n"
	       "Check that the IOMMU group of each DEVICE (its name in\n"
	       "/sys/kernel/iommu_groups/*/devices, as in 0000:00:02.0) has a default\n"
	       "domain of this TYPE: identity, DMA, DMA-FQ, unmanaged or blocked; or, with\n"
	       "none, that DEVICE is in no group.\n"
	       "Without arguments, only report every device with its group and type.\n"
	       "Reads sysfs, changes nothing. Prints KTAP. Exit status: 0 if all is as\n"
	       "expected, 1 if not or if an argument is wrong, 4 if nothing was checked.\n");
}

static void validate(const char *expectation)
{
	const char *type = strchr(expectation, '=');

	if (!type || type == expectation || type - expectation > 63 ||
	    !known_type(type + 1)) {
		fprintf(stderr,
			"default_domain: '%s': want DEVICE=TYPE, with TYPE one of blocked, identity, unmanaged, DMA, DMA-FQ, none\n",
			expectation);
		exit(KSFT_FAIL);
	}
}

int main(int argc, char *argv[])
{
	int i;

	if (argc > 1 && !strcmp(argv[1], "--help")) {
		usage();
		return 0;
	}
	for (i = 1; i < argc; i++)
		validate(argv[i]);

	ksft_print_header();
	if (walk_devices(report, NULL) <= 0)
		ksft_print_msg("no IOMMU group in " GROUPS "\n");
	if (argc == 1)
		ksft_exit_skip("no DEVICE=TYPE given, nothing to check\n");

	ksft_set_plan(argc - 1);
	for (i = 1; i < argc; i++)
		check(argv[i]);
	ksft_finished();
}
