// SPDX-License-Identifier: GPL-2.0-only
/*
 * Check the default domain of every IOMMU group: its type, and with --write what
 * becomes of it when another type is written to sysfs. See usage().
 *
 * The right types can be told on the command line. Otherwise they are derived, as far
 * as that is possible: an administrator may have changed the type of any group, and
 * leaves no trace.
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
static const char *const types[] = {
	"blocked", "identity", "unmanaged", "DMA", "DMA-FQ", "unknown", "none",
};

#define TYPE_SIZE 16 /* bytes: more than the longest of @types */
#define NAME_SIZE 256 /* bytes: a name in sysfs has 255 at most */
#define LINE_SIZE 4096 /* bytes: more than a record of the log has */
#define NOBODY 65534 /* the user who may do nothing */
#define VTD_ECAP_PT 6 /* bit of VT-d's extended capabilities: pass-through */

/**
 * struct device - a device that stands behind an IOMMU
 * @name: its name on its bus, "0000:00:02.0"
 * @removable: the kernel calls it so, and does not trust what it calls so
 * @bound: it has a driver that may have it do DMA
 * @active: it may do DMA without a driver that owns it
 * @requires: its IOMMU driver is known to require translation
 */
struct device {
	const char *name;
	bool removable;
	bool bound;
	bool active;
	bool requires;
};

/**
 * struct group - an IOMMU group
 * @name: its name, a number
 * @type: type of its default domain, as sysfs spells it; "" if not readable
 * @devices: how many it has
 * @removable: how many of them are
 * @bound: one of them is
 * @translated: so are their interrupts
 * @active: one of them may do DMA without a driver that owns it
 * @requires: its IOMMU driver is known to require translation
 */
struct group {
	char name[NAME_SIZE];
	char type[TYPE_SIZE];
	int devices;
	int removable;
	bool bound;
	bool translated;
	bool active;
	bool requires;
};

/* What is in force for all groups, as far as the kernel lets us know */
enum answer { UNKNOWN, NO, YES };
static enum answer strict, passthrough;

/* The log is whole from the core's policy on, and tells what is in force. */
static bool logged;

/* So many flush queues could not be allocated, and the log does not say for whom. */
static int lost_queues;

static enum answer yes_no(bool truth)
{
	return truth ? YES : NO;
}

static const char *answer_name(enum answer answer)
{
	static const char *const names[] = { "not known", "no", "yes" };

	return names[answer];
}

/* The groups that there were at the start: a dock may be unplugged at any time */
static char (*group_names)[16];
static int groups;

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

/* The first @len bytes of @from; whoever calls has made sure that they fit. */
static void copy_name(char *to, const char *from, size_t len)
{
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
	return yes_no(strtoull(buf, NULL, 16) >> bit & 1);
}

/*
 * With getdents64(), since nolibc has no readdir(). Returns the number of entries, or
 * -1 if the directory cannot be read.
 */
static int walk_dir(const char *path, void (*fn)(const char *name, void *arg),
		    void *arg)
{
	unsigned long long buf[128]; /* aligned as its entries are */
	int fd, len, pos, count = 0;

	fd = open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return -1;

	while ((len = getdents64(fd, (void *)buf, sizeof(buf))) > 0) {
		for (pos = 0; pos < len;) {
			struct linux_dirent64 *entry =
				(void *)((char *)buf + pos);

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

/*
 * Has the device in whose directory we are a driver? That of a PCIe port leaves DMA
 * to others, and lets the type be written.
 */
static bool has_driver(void)
{
	char path[NAME_SIZE + 32] = "";
	bool has = !chdir("driver");

	if (has)
		syscall(__NR_getcwd, path, sizeof(path));
	return has && strcmp(path, "/sys/bus/pci/drivers/pcieport");
}

static void ignore(const char *name, void *arg)
{
}

/*
 * May the device in whose directory we are do DMA while nobody owns it? A new domain would
 * break that.
 *
 * Firmware and helper devices that are no PCI devices do it without a driver, or any other
 * sign. A PCIe port sends its interrupts: where they are translated they are mapped in the
 * domain that was there when they were set up.
 */
static bool is_active(bool translated)
{
	char vendor[16];

	if (!read_line("subsystem_vendor", vendor, sizeof(vendor)))
		return true;
	return translated && walk_dir("msi_irqs", ignore, NULL) > 0;
}

/*
 * Are the interrupts of the group in whose directory we are translated by its domain? Not
 * those of x86, whose address is reserved.
 */
static bool translates_msis(void)
{
	char buf[1024];
	int fd, len, pos;

	fd = open("reserved_regions", O_RDONLY);
	len = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	buf[len < 0 ? 0 : len] = '\0';
	for (pos = 0; pos < len; pos++)
		if ((!pos || buf[pos - 1] == '\n') &&
		    begins_with(buf + pos, "0x00000000fee00000 "))
			return false;
	return true;
}

/* Of the device in whose directory we are, which we leave */
static void read_device(struct device *dev, bool translated)
{
	char removable[16];

	dev->removable = read_line("removable", removable, sizeof(removable)) &&
			 !strcmp(removable, "removable");
	dev->requires = read_bit("iommu/intel-iommu/ecap", VTD_ECAP_PT) == NO;
	dev->active = is_active(translated);
	dev->bound = has_driver();
}

/**
 * struct walk - state of a walk over all devices
 * @group: the group that the walk has come to
 * @fn: called for each device, with its group as far as it is known
 * @arg: handed to @fn
 */
struct walk {
	struct group group;
	void (*fn)(const struct device *dev, const struct group *group,
		   void *arg);
	void *arg;
};

static void walk_device(const char *name, void *arg)
{
	struct walk *walk = arg;
	struct group *group = &walk->group;
	/* Bound, if it has just gone */
	struct device dev = { .name = name, .bound = true };

	if (!chdir("devices") && !chdir(name))
		read_device(&dev, group->translated);
	enter(group->name);

	group->devices++;
	group->removable += dev.removable;
	group->bound |= dev.bound;
	group->active |= dev.active;
	group->requires |= dev.requires;
	if (walk->fn)
		walk->fn(&dev, group, walk->arg);
}

/* Fill @walk->group. It has no devices if it has vanished. */
static void walk_group(struct walk *walk, const char *name)
{
	struct group *group = &walk->group;

	memset(group, 0, sizeof(*group));
	copy_name(group->name, name, strlen(name));
	strcpy(group->type, read_type(name));
	if (!enter(name))
		return;
	group->translated = translates_msis();
	walk_dir("devices", walk_device, walk);
}

static void walk_groups(struct walk *walk)
{
	int i;

	for (i = 0; i < groups; i++)
		walk_group(walk, group_names[i]);
}

static void add_group(const char *name, void *arg)
{
	group_names = realloc(group_names, (groups + 1) * sizeof(*group_names));
	if (!group_names || strlen(name) >= sizeof(*group_names))
		ksft_exit_fail_msg("no room for group %s\n", name);
	strcpy(group_names[groups++], name);
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
 * @group: the group of the last one; its type is "none" if there is none
 */
struct search {
	char name[NAME_SIZE];
	int found;
	struct group group;
};

static void match(const struct device *dev, const struct group *group,
		  void *arg)
{
	struct search *search = arg;

	if (strcmp(dev->name, search->name))
		return;
	search->found++;
	strcpy(search->group.name, group->name);
}

/* Look for the device whose name is the first @len characters of @name. */
static void find_device(struct search *search, const char *name, size_t len)
{
	struct walk walk = { .fn = match, .arg = search };
	struct walk found = {};

	memset(search, 0, sizeof(*search));
	copy_name(search->name, name, len);
	strcpy(search->group.type, "none");
	walk_groups(&walk);
	if (search->found) {
		walk_group(&found, search->group.name);
		search->group = found.group;
	}
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
	good = search.found <= 1 && !strcmp(search.group.type, type);
	if (!good && !search.found)
		ksft_print_msg("%s is in no IOMMU group\n", search.name);
	else if (!good)
		ksft_print_msg("%s is %s, not %s\n", search.name,
			       search.group.type, type);
	ksft_test_result(good, "%s\n", expectation);
}

/* "EINVAL" */
static const char *error_name(int error)
{
	/* clang-format off */
	switch (error) {
	case EPERM:	 return "EPERM";
	case ENOMEM:	 return "ENOMEM";
	case EACCES:	 return "EACCES";
	case EBUSY:	 return "EBUSY";
	case ENODEV:	 return "ENODEV";
	case ENOSPC:	 return "ENOSPC";
	case EINVAL:	 return "EINVAL";
	case EROFS:	 return "EROFS";
	case EOPNOTSUPP: return "EOPNOTSUPP";
	}
	/* clang-format on */
	ksft_print_msg("error %d has no name here\n", error);
	return "?";
}

/* Returns 0 or an errno. */
static int write_fd(int fd, const char *word)
{
	return write(fd, word, strlen(word)) < 0 ? errno : 0;
}

/* Why a write may have failed that should not; what may explain a failure, or NULL */
static const char *excuse;

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
	if (error == EPERM || error == EBUSY)
		excuse = "it was in use meanwhile";
	else if (error == ENOSPC)
		excuse = "the IOMMU has no room for another domain";
	return error;
}

static bool is_type(const char *group, const char *type)
{
	return !strcmp(read_type(group), type);
}

/*
 * Make @type the type of @group. DMA-FQ may only be to be had from DMA, by the
 * core's short cut: it does not ask whether the IOMMU can defer.
 */
static bool make_type(const char *group, const char *type)
{
	if (is_type(group, type))
		return true;
	write_type(group, type);
	if (!is_type(group, type) && !strcmp(type, "DMA-FQ")) {
		write_type(group, "DMA");
		write_type(group, type);
	}
	if (is_type(group, type))
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
	if (!pid) {
		fd = enter(group) ? open("type", O_WRONLY) : -1;
		if (fd < 0)
			exit(KSFT_FAIL);
		if (syscall(__NR_setresuid, NOBODY, NOBODY, NOBODY))
			exit(errno == EPERM ? KSFT_SKIP : KSFT_FAIL);
		if (write_type(group, word) != EACCES ||
		    write_fd(fd, word) != EACCES)
			exit(KSFT_FAIL);
		exit(KSFT_PASS);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		status = -1;
	else
		status = WEXITSTATUS(status);
	if (status == KSFT_SKIP)
		ksft_print_msg("group %s: we may not become nobody to write\n",
			       group);
	if (status == KSFT_PASS || status == KSFT_SKIP)
		return true;
	ksft_print_msg("group %s: %s could not be tried, or was not refused\n",
		       group, word);
	return false;
}

/*
 * Write @word to the type of @group. Returns what comes of it: the name of an error, and
 * then the type must be what it was, or the new type.
 */
static const char *try_write(const char *group, const char *word)
{
	char before[TYPE_SIZE];
	int error;

	strcpy(before, read_type(group));
	error = write_type(group, word);
	if (!error)
		return read_type(group);
	if (!is_type(group, before))
		return "changed in spite of an error";
	return error_name(error);
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

/* Judge one DEVICE/FROM/WORD=RESULT. */
static void check_write(const char *expectation)
{
	const char *from = strchr(expectation, '/') + 1;
	const char *word = strchr(from, '/') + 1;
	const char *result = strchr(word, '=') + 1;
	char type[NAME_SIZE], written[NAME_SIZE];
	const struct group *group;
	struct search search;
	bool good = false;

	copy_name(type, from, word - from - 1);
	copy_name(written, word, result - word - 1);
	find_device(&search, expectation, from - expectation - 1);
	group = &search.group;
	if (search.found == 1 && group->bound)
		ksft_print_msg("a device of group %s has a driver\n",
			       group->name);
	else if (search.found == 1 && make_type(group->name, type))
		good = refused_to_nobody(group->name, written) &&
		       gives(group->name, written, result);
	/* Whatever has come of it, the type is put back. */
	if (search.found == 1 && !group->bound)
		good &= make_type(group->name, group->type);
	ksft_test_result(good, "%s\n", expectation);
}

static bool is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/*
 * Cut the first parameter off @line, and return what is behind it, as next_arg() of the
 * kernel does: a blank in quotes ends nothing, and quotes around the parameter or its
 * value are no part of it. A missing value is "". NULL if there is none, or at "--",
 * where init's arguments begin.
 */
static char *next_param(char *line, char **name, char **value)
{
	bool in_quotes = false, quoted;
	char *end, *equals = NULL, *rest;

	while (is_blank(*line))
		line++;
	for (end = line; *end && (in_quotes || !is_blank(*end)); end++) {
		in_quotes ^= *end == '"';
		if (*end == '=' && !equals)
			equals = end;
	}
	if (end == line)
		return NULL;

	rest = *end ? end + 1 : end;
	*end = '\0';
	*name = line + (*line == '"');
	*value = equals ? equals + 1 : end;
	quoted = *line == '"' || **value == '"';
	*value += **value == '"';
	if (equals)
		*equals = '\0';
	if (quoted && end[-1] == '"')
		end[-1] = '\0';
	return equals || strcmp(*name, "--") ? rest : NULL;
}

/* Is @a the parameter @b? '-' may stand for '_' in its name, as in parameq(). */
static bool is_param(const char *a, const char *b)
{
	while (*a && (*a == *b || (*a == '-' && *b == '_'))) {
		a++;
		b++;
	}
	return *a == *b;
}

/* The truth of @value, as kstrtobool() has it */
static void read_truth(const char *value, enum answer *answer)
{
	char c, o;

	c = *value | 0x20; /* lower case */
	o = c == 'o' ? value[1] | 0x20 : 0; /* of on and off */
	if (*value == '1' || c == 'e' || c == 'y' || c == 't' || o == 'n')
		*answer = YES;
	else if (*value == '0' || c == 'd' || c == 'n' || c == 'f' || o == 'f')
		*answer = NO;
}

/* Is @option among those in @value, which commas divide? */
static bool has_option(const char *value, const char *option)
{
	for (; value; value = strchr(value, ',')) {
		value += *value == ',';
		if (begins_with(value, option))
			return true;
	}
	return false;
}

/* What it says for itself: a driver may still force strict or pass-through. */
static void read_cmdline(void)
{
	char line[LINE_SIZE], *pos = line, *name, *value;
	bool force = false;

	if (!read_line("/proc/cmdline", line, sizeof(line)))
		return;
	while ((pos = next_param(pos, &name, &value))) {
		if (is_param(name, "iommu.strict"))
			read_truth(value, &strict);
		if (is_param(name, "iommu.passthrough"))
			read_truth(value, &passthrough);
		if (is_param(name, "iommu") && has_option(value, "pt"))
			passthrough = YES;
		if (is_param(name, "iommu") && has_option(value, "nopt"))
			passthrough = NO;
		force |= (is_param(name, "intel_iommu") &&
			  has_option(value, "strict")) ||
			 (is_param(name, "amd_iommu") &&
			  has_option(value, "fullflush")) ||
			 (is_param(name, "s390_iommu") &&
			  has_option(value, "strict"));
	}
	if (force)
		strict = YES;
}

static bool ends_with(const char *text, const char *suffix)
{
	size_t len = strlen(text), end = strlen(suffix);

	return len >= end && !strcmp(text + len - end, suffix);
}

/* Does an IOMMU driver force all invalidation to be strict? VT-d, AMD-Vi, VT-d */
static bool forces_strict(const char *text)
{
	return ends_with(text,
			 "IOMMU batching disallowed due to virtualization") ||
	       ends_with(text, "Using strict mode due to virtualization") ||
	       ends_with(text, "Disabling batched IOTLB flush on Ironlake");
}

/*
 * Does VT-d force pass-through, whatever the parameters say? It does if it is off by
 * default, and the platform opts in for the sake of an external-facing port.
 */
static bool forces_passthrough(const char *text)
{
	return ends_with(text, "force enabled due to platform opt in");
}

/* One message: what the core has decided, and what a driver has forced later */
static void read_message(const char *text)
{
	const char *policy = "iommu: DMA domain TLB invalidation policy: ";
	const char *type = "iommu: Default domain type: ";

	if (begins_with(text, policy)) {
		strict = yes_no(begins_with(text + strlen(policy), "strict"));
		logged = true;
	} else if (begins_with(text, type)) {
		passthrough =
			yes_no(begins_with(text + strlen(type), "Passthrough"));
	} else if (forces_strict(text)) {
		strict = YES;
	} else if (forces_passthrough(text)) {
		passthrough = YES;
	} else if (ends_with(text, "iova flush queue initialization failed")) {
		lost_queues++;
	}
}

/*
 * Records of the log are missing, or all. A driver may have said there that it forces
 * strict or pass-through, even against a parameter. Nothing takes back either one.
 */
static void doubt(void)
{
	logged = false;
	if (strict == NO)
		strict = UNKNOWN;
	if (passthrough == NO)
		passthrough = UNKNOWN;
}

/*
 * What there is to read since the last call.
 *
 * Records are numbered from 0 on. Only the numbers tell that some were overwritten before
 * the log was opened. EPIPE is for what is overwritten later.
 */
static void read_log(void)
{
	static unsigned long long next;
	static int fd = -1;
	char buf[LINE_SIZE], *comma, *text, *end;
	unsigned long long number;
	int len;

	if (fd < 0)
		fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	while ((len = read(fd, buf, sizeof(buf) - 1)) > 0 ||
	       (len < 0 && errno == EPIPE)) {
		buf[len < 0 ? 0 : len] = '\0';
		comma = strchr(buf, ',');
		text = strchr(buf, ';');
		end = strchr(buf, '\n');
		if (!comma || !text || !end)
			continue;
		*end = '\0';
		number = strtoull(comma + 1, NULL, 10);
		if (number != next)
			doubt();
		next = number + 1;
		read_message(text + 1);
	}
	if (!next || errno != EAGAIN)
		doubt();
}

/*
 * The kernel says at boot what is in force, which comes from the command line,
 * its configuration and drivers. Without its log only a parameter for strict or for
 * pass-through tells.
 */
static void read_state(void)
{
	read_cmdline();
	read_log();
	ksft_print_msg("strict invalidation: %s, pass-through: %s\n",
		       answer_name(strict), answer_name(passthrough));
}

/* The type of a group of trusted devices without requirements, NULL if not known */
static const char *type_in_force(void)
{
	if (passthrough == YES)
		return "identity";
	if (passthrough == UNKNOWN || strict == UNKNOWN)
		return NULL;
	return strict == YES ? "DMA" : "DMA-FQ";
}

/*
 * To require translation is not to require strict invalidation. VT-d without
 * pass-through is known to require it, and can always defer; and where the log tells
 * what is in force, no driver has objected. With pass-through the core may have fallen
 * back to strict, as it documents.
 */
static bool lazy_if_in_force(const struct group *group, const char *chosen)
{
	if (!logged || strict != NO || passthrough != NO || !group->requires ||
	    group->removable || !strcmp(chosen, "DMA-FQ"))
		return true;
	ksft_print_msg("group %s: lazy is in force, auto gives %s\n",
		       group->name, chosen);
	return false;
}

/*
 * One device that is not trusted is enough, and the core has to look whenever it chooses.
 * We cannot see whether a driver has cleared pci_dev.untrusted, as some do: see
 * https://github.com/tenstorrent/tt-kmd/pull/195
 */
static bool strict_if_removable(const struct group *group, const char *chosen)
{
	if (!group->removable || !strcmp(chosen, "DMA"))
		return true;
	ksft_print_msg("group %s: removable, yet auto gives %s\n", group->name,
		       chosen);
	ksft_print_msg("a driver may have cleared pci_dev.untrusted\n");
	return false;
}

/* What holds whatever the parameters say, and what of them is known. */
static bool writes_well(const struct group *group)
{
	const char *name = group->name;
	char chosen[TYPE_SIZE];
	bool good;

	good = refused_to_nobody(name, "auto");
	good &= gives(name, "nonsense", "EINVAL");
	if (write_type(name, "auto")) {
		ksft_print_msg("group %s: auto is refused\n", name);
		make_type(name, group->type);
		return false;
	}
	/* What the kernel chooses by itself it also takes when asked for. */
	strcpy(chosen, read_type(name));
	good &= strict_if_removable(group, chosen);
	good &= lazy_if_in_force(group, chosen);
	good &= gives(name, chosen, chosen);
	/*
	 * To be strict rather than lazy is always a legal wish. The way back by the
	 * core's short cut is safe only where the IOMMU is known to be able to defer.
	 */
	if (!strcmp(chosen, "DMA-FQ")) {
		good &= gives(name, "DMA", "DMA");
		good &= gives(name, "DMA-FQ", "DMA-FQ");
		good &= gives(name, "auto", chosen);
	}
	/* Whatever has come of it, the type is put back. */
	good &= make_type(name, group->type);
	return good;
}

/* "group 7 type", until the next call */
static const char *label(const struct group *group, const char *what)
{
	static char buf[NAME_SIZE];

	strcpy(buf, "group ");
	strcpy(buf + strlen(buf), group->name);
	strcpy(buf + strlen(buf), what);
	return buf;
}

/* May the type not be written here, as in a container? */
static bool is_denied(const char *group)
{
	int error = write_type(group, "nonsense");

	return error == EACCES || error == EROFS;
}

/* Why what is written to the type of @group is not judged, or NULL */
static const char *unwritable(const struct group *group)
{
	bool is_strict = !strcmp(group->type, "DMA");
	int error;

	if (!group->devices)
		return "it is gone";
	if (group->bound)
		return "a device has a driver";
	if (group->active)
		return "a device may do DMA without a driver";
	if (!is_strict && strcmp(group->type, "DMA-FQ") &&
	    strcmp(group->type, "identity"))
		return "not the core's to choose";
	if (group->removable && !is_strict)
		return "could not be put back";
	if (is_denied(group->name))
		return "may not be written here";
	/* A type that it has may yet be refused: a requirement has come, or it was a short cut. */
	error = write_type(group->name, group->type);
	if (error == EPERM || error == EBUSY)
		return "it is in use";
	return error ? "could not be put back" : NULL;
}

/* What has happened to the group @name meanwhile that may explain a failure, or NULL */
static const char *disturbed(const char *name)
{
	struct walk walk = {};

	walk_group(&walk, name);
	if (!walk.group.devices)
		return "it has gone meanwhile";
	if (walk.group.bound)
		return "a device has got a driver meanwhile";
	return NULL;
}

/*
 * Where a flush queue cannot be allocated, DMA-FQ is refused, or becomes DMA. That is
 * right, and proves nothing. Who is not trusted needs no queue.
 */
static void derive_writes(const struct group *group)
{
	const char *why = unwritable(group);
	int lost = lost_queues;
	bool good = true;

	excuse = NULL;
	if (!why) {
		good = writes_well(group);
		read_log();
	}
	if (!good && !group->removable && lost_queues != lost)
		why = "a flush queue could not be allocated";
	if (!good && !why)
		why = disturbed(group->name);
	if (!good && !why)
		why = excuse;
	if (why)
		ksft_test_result_code(KSFT_SKIP, label(group, " writes"), "%s",
				      why);
	else
		ksft_test_result(good, "group %s writes\n", group->name);
}

/* Why may a group of trusted devices have another type than is in force? */
static const char *explain(const struct group *group)
{
	if (!strcmp(group->type, "identity"))
		return "a driver requires it, no IOMMU_DMA, or done through sysfs";
	if (!strcmp(group->type, "DMA-FQ") && strict == YES)
		return "done through sysfs, since strict is in force";
	if (strcmp(group->type, "DMA") && strcmp(group->type, "DMA-FQ"))
		return "not the core's to choose";
	if (lost_queues && passthrough == NO && !strcmp(group->type, "DMA"))
		return "the log says that a flush queue could not be allocated, maybe its own";
	if (group->requires && strict == NO && !strcmp(group->type, "DMA"))
		return "done through sysfs, or this kernel is strict if translation is required";
	if (passthrough == YES)
		return "translation is required, no identity to be had, or done through sysfs";
	return "the IOMMU cannot defer, or done through sysfs";
}

/* Returns why the type of @group is neither right nor wrong, or NULL. */
static const char *unclear(const struct group *group)
{
	const char *want = type_in_force();

	if (!group->devices || !group->type[0])
		return "it is gone, or has no type that can be read";
	if (!strcmp(group->type, "unknown"))
		return "not the core's to choose";
	if (!group->removable && !want)
		return "what is in force is not known";
	if (!group->removable && strcmp(group->type, want))
		return explain(group);
	if (group->removable && group->removable < group->devices &&
	    strcmp(group->type, "DMA"))
		return "a removable device joined when it had its domain, or done through sysfs";
	return NULL;
}

static void derive_type(const struct group *group)
{
	const char *why = unclear(group);

	if (why) {
		ksft_test_result_code(KSFT_SKIP, label(group, " type"),
				      "%s: %s", group->type, why);
		return;
	}
	/* Either as is in force, or all its devices are removable. */
	if (group->removable && strcmp(group->type, "DMA"))
		ksft_print_msg("group %s: removable, yet %s, maybe by sysfs\n",
			       group->name, group->type);
	ksft_test_result(!group->removable || !strcmp(group->type, "DMA"),
			 "group %s type\n", group->name);
}

static void derive_all(void)
{
	struct walk walk = {};
	int i;

	for (i = 0; i < groups; i++) {
		walk_group(&walk, group_names[i]);
		derive_type(&walk.group);
		if (may_write)
			derive_writes(&walk.group);
	}
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
	       "Without any, what must hold is derived for each group, from the boot parameters\n"
	       "and the kernel's log:\n"
	       "  - A group of nothing but removable devices must be DMA, and not be made\n"
	       "    DMA-FQ through sysfs either.\n"
	       "  - Any other should have the type that is in force. If it has not, it is\n"
	       "    skipped, and the test says what may explain that.\n"
	       "  - A driver may force strict or pass-through, and only the log tells. If that\n"
	       "    is not whole, or may not be read, a parameter for lazy or translated proves\n"
	       "    nothing. Groups are skipped then.\n"
	       "With --write also, where no device of the group has a driver, and none may do DMA\n"
	       "without one, as PCIe ports by their interrupts, or what is no PCI device:\n"
	       "  - The type can be written. What is refused changes nothing.\n"
	       "  - If a device is removable, auto gives DMA. This fails, too, if a driver has\n"
	       "    cleared pci_dev.untrusted, which the kernel has set for such a device.\n"
	       "  - If VT-d has no pass-through and the log says that lazy invalidation is in\n"
	       "    force, auto gives DMA-FQ.\n"
	       "  - If a flush queue could not be allocated meanwhile, the group is skipped.\n"
	       "Changes nothing without --write. With it each type is put back, unless the test\n"
	       "is killed, a driver is bound meanwhile, or a flush queue cannot be allocated.\n"
	       "Prints KTAP. Exit status: 0 if nothing is wrong, though all may be skipped, 1 if\n"
	       "something is, or an argument, 4 if there is no IOMMU group and no type is\n"
	       "expected.\n");
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
	return known_type(type) && strcmp(type, "none");
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
		refuse(expectation,
		       "want DEVICE/FROM/WORD=RESULT, with FROM a type");
	if (is_write(expectation) && !may_write)
		refuse(expectation, "needs --write");
}

int main(int argc, char *argv[])
{
	struct walk report = { .fn = report_device };
	int i, first = 1;

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
	walk_dir(GROUPS, add_group, NULL);
	walk_groups(&report);
	if (!groups)
		ksft_print_msg("no IOMMU group in " GROUPS "\n");
	if (argc > first) {
		ksft_set_plan(argc - first);
		for (i = first; i < argc; i++) {
			if (is_write(argv[i]))
				check_write(argv[i]);
			else
				check_type(argv[i]);
		}
	} else if (!groups) {
		ksft_exit_skip("no IOMMU, or it is off\n");
	} else {
		read_state();
		ksft_set_plan(may_write ? 2 * groups : groups);
		derive_all();
	}
	ksft_finished();
}
