// SPDX-License-Identifier: GPL-2.0-only
/*
 * What it costs to choose a default domain, to map and to unmap, and how much memory is in
 * use: for scripts/bench. The guest's clock goes by instructions, 1 ns each, so that a time is
 * a number of instructions, and the same each time. Nothing here waits for the host.
 *
 * Does in order what it is told:
 *
 *   device=DEVICE   the PCI device that is mapped for
 *   count=WHO       IOTLB invalidations are counted, by host or kernel
 *   type=TYPE       that the default domain of its group has to have
 *   memory=CPUS     how much is in use, where so many CPUs are possible
 *   choose          have the default domain's type chosen again, as "auto" does
 *   map=PAGES,MODE  the kernel's dma_map_benchmark maps so many pages, again and again; MODE
 *                   is single or sg
 *
 * Prints KTAP, a test for each type, memory, choose and map, and before its result what has
 * been measured, "# bench METRIC WORD VALUE":
 *
 *   groups          IOMMU groups
 *   percpu          bytes in use of what there is once for each possible CPU, as flush queues
 *   pages           bytes of the pages that hold this, for all CPUs
 *   choose          instructions, those of reading the clock left out
 *   all             maps, and unmaps
 *   loops           those of them that count: the first fifth does not
 *   map, unmap      instructions of those that count, without reading the clock
 *   invalidations   of the IOTLB in all loops, if the kernel counts them. If the host does, what
 *                   is between the bytes MARK_BEGIN and MARK_END on the console counts
 */
#include <asm/ioctls.h>
#include <linux/map_benchmark.h>
#include "guest.h"

#define LOOPS 100000
#define SECONDS 20 /* of the guest's time, more than LOOPS take */
#define DRIVER "dma_map_benchmark"
#define MARK_BEGIN "\002"
#define MARK_END "\003"

/* What a diff in scripts/probe/ has the benchmark take and return in expansion[] */
struct counts {
	unsigned long long loops, map, unmap;
};

static const char *device, *counter;

static void report(const char *metric, const char *word, long long value)
{
	ksft_print_msg("bench %s %s %lld\n", metric, word, value);
}

/* Have the host see where in the trace we are: the byte has been sent when this returns. */
static void mark(const char *byte)
{
	ksft_print_msg("%s\n", byte);
	ioctl(1, TCSBRK, 1);
}

/* They are numbered from 0. */
static int count_groups(void)
{
	char path[64];
	int count = 0;

	do
		snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%d",
			 count++);
	while (!chdir(path));
	return count - 1;
}

/* The file has "0", or "0-3". */
static int possible_cpus(void)
{
	char buf[16] = "";
	int fd = open("/sys/devices/system/cpu/possible", O_RDONLY);
	ssize_t len = read(fd, buf, sizeof(buf) - 1);
	char *last = strchr(buf, '-');

	close(fd);
	return len > 0 ? atoi(last ? last + 1 : buf) + 1 : 0;
}

/* Of the part of one CPU, what is static and what has been allocated */
static long percpu_bytes(void)
{
	static const char path[] = "/sys/kernel/debug/percpu_stats";
	long used =
		read_number(path, "nr_chunks") * read_number(path, "unit_size");
	FILE *file = fdopen(open(path, O_RDONLY), "r");
	char line[128], *pos;

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		pos = strchr(line, ':');
		if (!pos || !strstr(line, "free_bytes"))
			continue;
		while (*++pos == ' ')
			;
		used -= atol(pos);
	}
	fclose(file);
	return used;
}

static bool report_memory(const char *cpus)
{
	long percpu = percpu_bytes();

	report("groups", "-", count_groups());
	report("percpu", "-", percpu);
	report("pages", "-", read_number("/proc/meminfo", "Percpu:") * 1024LL);
	return percpu > 0 && possible_cpus() == atoi(cpus);
}

static bool leave_driver(void)
{
	if (chdir("/sys/bus/pci/devices") || chdir(device))
		return false;
	write_file("driver/unbind", device);
	return true;
}

/* A diff in scripts/probe/ has the kernel say how long it took. */
static bool choose(void)
{
	long took;

	if (!leave_driver() || !write_file("iommu_group/type", "auto"))
		return false;
	took = read_number("/sys/module/iommu/parameters/chosen_ns", "");
	report("choose", "-", took);
	return took > 0;
}

/* Have the benchmark drive the device instead of its own driver. */
static bool take_device(void)
{
	if (!leave_driver() || !write_file("driver_override", DRIVER))
		return false;
	/* The benchmark does not, and without it s390 has no statistics. */
	write_file("enable", "1");
	return write_file("/sys/bus/pci/drivers_probe", device);
}

static bool run_benchmark(struct map_benchmark *map, long *count)
{
	bool by_kernel = counter && !strcmp(counter, "kernel");
	int fd, ret;

	if (by_kernel)
		*count = count_invalidations(device, counter);
	fd = open("/sys/kernel/debug/" DRIVER, O_RDWR);
	mark(MARK_BEGIN);
	ret = ioctl(fd, DMA_MAP_BENCHMARK, map);
	mark(MARK_END);
	close(fd);
	if (by_kernel)
		*count = count_invalidations(device, counter) - *count;
	return !ret;
}

static bool map_often(const char *word)
{
	struct counts counts = { .loops = LOOPS };
	struct map_benchmark map = {
		.threads = 1,
		.granule = atoi(word),
		.map_mode = strstr(word, "sg") ? DMA_MAP_BENCH_SG_MODE :
						 DMA_MAP_BENCH_SINGLE_MODE,
		.seconds = SECONDS,
		.node = -1,
		.dma_bits = 64, /* those of s390 begin above 4 GiB */
	};
	long count = 0;

	memcpy(map.expansion, &counts, sizeof(counts));
	if (!take_device() || !run_benchmark(&map, &count))
		return false;
	memcpy(&counts, map.expansion, sizeof(counts));
	report("all", word, counts.loops + counts.loops / 4);
	report("loops", word, counts.loops);
	report("map", word, counts.map);
	report("unmap", word, counts.unmap);
	if (count)
		report("invalidations", word, count);
	return counts.loops == LOOPS;
}

/* Has the default domain the type that it is to have? */
static bool check_type(const char *type)
{
	char buf[16];

	return read_type(device, buf, sizeof(buf)) && !strcmp(buf, type);
}

/* Is it a test, and not only for later ones? */
static bool is_test(const char *arg)
{
	return !value_of(arg, "device=") && !value_of(arg, "count=");
}

static bool obey(const char *arg)
{
	if (value_of(arg, "type="))
		return check_type(value_of(arg, "type="));
	if (value_of(arg, "map="))
		return map_often(value_of(arg, "map="));
	if (value_of(arg, "memory="))
		return report_memory(value_of(arg, "memory="));
	if (!strcmp(arg, "choose"))
		return choose();
	ksft_exit_fail_msg("unknown argument %s\n", arg);
}

int main(int argc, char *argv[])
{
	int i, tests = 0;

	quiet_console(LOG_ERR);
	ksft_print_header();
	for (i = 1; i < argc; i++)
		tests += is_test(argv[i]);
	ksft_set_plan(tests);
	for (i = 1; i < argc; i++) {
		if (value_of(argv[i], "device="))
			device = value_of(argv[i], "device=");
		else if (value_of(argv[i], "count="))
			counter = value_of(argv[i], "count=");
		else
			ksft_test_result(obey(argv[i]), "%s\n", argv[i]);
	}
	ksft_finished();
}
