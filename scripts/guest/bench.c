// SPDX-License-Identifier: GPL-2.0-only
/*
 * What it costs to map and unmap, and to read a disk, behind the IOMMU: for scripts/bench.
 * Does in order what it is told:
 *
 *   device=DEVICE   the PCI device that is mapped for
 *   type=TYPE       that the default domain of its group has to have
 *   count=WHO       IOTLB invalidations are counted, by host or kernel, and judged
 *   cpus=NUMBER     so many CPUs are there
 *   read=DISK,SEGMENTS,SECONDS
 *                   read so many pages at once, again and again
 *   map=THREADS,GRANULE,MODE,SECONDS
 *                   the kernel's dma_map_benchmark; MODE is single or sg
 *
 * read has to come before map, which takes the driver from DEVICE.
 *
 * Prints KTAP, a test for each type, cpus, read and map, and before its result what has been
 * measured, "# bench METRIC WORD VALUE":
 *
 *   boot            microseconds from the start of the kernel's clock to us
 *   used            bytes of memory that were in use then
 *   percpu          bytes of it that are there once for each CPU, as flush queues are
 *   vmalloc         bytes of it that vmalloc() gave, as to a flush queue for all CPUs
 *   groups          how many there are of IOMMU groups
 *   map, unmap      nanoseconds, on average, and that of reading the clock in it
 *   map_sd, unmap_sd
 *                   their standard deviations
 *   rate            maps and unmaps of them in a second
 *   unmaps, invalidations
 *                   how many
 *   reads           in a second
 *   cpu             nanoseconds for each of them that a CPU was not idle
 */
#include <asm/param.h>
#include <linux/map_benchmark.h>
#include "guest.h"
#include "clock.h"

#define DISK_SIZE 0x100000 /* bytes: see workbench/initramfs.py */
#define MAX_SEGMENTS 64

/* Unmaps that a flush queue of dma-iommu holds, and milliseconds until it is flushed */
#ifdef __s390__
#define QUEUE 32767
#define TIMEOUT 1000
#else
#define QUEUE 255
#define TIMEOUT 10
#endif
#define DRIVER "dma_map_benchmark"

static const char *device, *counter;
static bool lazy;
static int cpus = 1;

static void report(const char *metric, const char *word, long long value)
{
	ksft_print_msg("bench %s %s %lld\n", metric, word, value);
}

/* The numbers of @word, divided by commas, into @values; what is none is 0 */
static void split(const char *word, int *values, int count)
{
	while (count--) {
		*values++ = atoi(word);
		word = strchr(word, ',') ? strchr(word, ',') + 1 : "";
	}
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

static void report_boot(void)
{
	const char *path = "/proc/meminfo";
	long used;

	report("boot", "-", now() / 1000);
	used = read_number(path, "MemTotal:") - read_number(path, "MemFree:");
	report("used", "-", used * 1024LL);
	report("percpu", "-", read_number(path, "Percpu:") * 1024LL);
	report("vmalloc", "-", read_number(path, "VmallocUsed:") * 1024LL);
	report("groups", "-", count_groups());
}

/* Nanoseconds for which the CPUs, all together, have not been idle */
static long long busy(void)
{
	FILE *file = fdopen(open("/proc/stat", O_RDONLY), "r");
	char line[256] = "", *pos = line;
	long long ticks = 0;
	int column;

	if (!file || !fgets(line, sizeof(line), file))
		ksft_exit_fail_perror("/proc/stat");
	fclose(file);
	/* "cpu  user nice system idle iowait irq softirq": not steal */
	pos = strchr(line, ' ');
	for (column = 0; column < 7 && pos; column++) {
		while (*pos == ' ')
			pos++;
		if (column != 3 && column != 4)
			ticks += atol(pos);
		pos = strchr(pos, ' ');
	}
	return ticks * (1000000000 / HZ);
}

/* Read into one page again and again, so that no two segments can be merged. */
static bool read_often(const char *word)
{
	struct iovec segments[MAX_SEGMENTS];
	long long start, end, since;
	char disk[16] = "";
	int values[3], i;
	off_t pos = 0;
	long reads;
	void *page;
	int fd;

	split(word, values, 3);
	if (!strchr(word, ',') || strchr(word, ',') - word >= (int)sizeof(disk))
		return false;
	memcpy(disk, word, strchr(word, ',') - word);
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fd = chdir("/dev") ? -1 : open(disk, O_RDONLY | O_DIRECT);
	if (page == MAP_FAILED || fd < 0 || values[1] > MAX_SEGMENTS)
		return false;
	for (i = 0; i < values[1]; i++)
		segments[i] = (struct iovec){ page, PAGE };
	since = busy();
	start = now();
	for (reads = 0; now() - start < values[2] * 1000000000LL; reads++) {
		if (syscall(__NR_preadv, fd, segments, values[1], pos, 0) !=
		    values[1] * PAGE)
			break;
		pos = (pos + values[1] * PAGE) % DISK_SIZE;
	}
	end = now();
	since = busy() - since;
	close(fd);
	munmap(page, PAGE);
	if (end - start < values[2] * 1000000000LL)
		return false;
	report("reads", word, reads * 1000000000LL / (end - start));
	report("cpu", word, since / reads);
	return true;
}

/* Have the benchmark drive the device instead of its own driver. */
static bool take_device(void)
{
	if (chdir("/sys/bus/pci/devices") || chdir(device) ||
	    !write_file("driver_override", DRIVER))
		return false;
	write_file("driver/unbind", device);
	/* The benchmark does not, and without it s390 has no statistics. */
	write_file("enable", "1");
	return write_file("/sys/bus/pci/drivers_probe", device);
}

/*
 * As many as there have to be? Where it is lazy they come when a queue is full, of which
 * each CPU has one, or its time is up.
 */
static bool judge_count(long count, long unmaps, long ms)
{
	if (!lazy)
		return count >= unmaps;
	if (unmaps > 2 * QUEUE * cpus && !count)
		return false;
	return count <= unmaps / QUEUE + (ms / TIMEOUT + 1) * cpus;
}

static bool map_often(const char *word)
{
	struct map_benchmark map = {};
	long unmaps, count = 0;
	long long start;
	int values[4];
	int fd, ret;

	split(word, values, 4);
	map.threads = values[0];
	map.granule = values[1];
	map.map_mode = strstr(word, "sg") ? DMA_MAP_BENCH_SG_MODE :
					    DMA_MAP_BENCH_SINGLE_MODE;
	map.seconds = values[3];
	map.node = -1;
	map.dma_bits = 64; /* those of s390 begin above 4 GiB */
	if (!take_device())
		return false;
	if (counter)
		count = count_invalidations(device, counter);
	start = now();
	fd = open("/sys/kernel/debug/" DRIVER, O_RDWR);
	ret = ioctl(fd, DMA_MAP_BENCHMARK, &map);
	close(fd);
	if (ret)
		return false;
	memcpy(&unmaps, map.expansion, sizeof(unmaps));
	report("map", word, map.avg_map_100ns);
	report("unmap", word, map.avg_unmap_100ns);
	report("map_sd", word, map.map_stddev);
	report("unmap_sd", word, map.unmap_stddev);
	report("rate", word, unmaps / map.seconds);
	report("unmaps", word, unmaps);
	if (!counter || !unmaps)
		return unmaps > 0;
	count = count_invalidations(device, counter) - count;
	report("invalidations", word, count);
	return judge_count(count, unmaps, (now() - start) / 1000000);
}

/* Has the default domain the type that it is to have? */
static bool check_type(const char *type)
{
	char buf[16];

	if (!read_type(device, buf, sizeof(buf)))
		return false;
	lazy = !strcmp(type, "DMA-FQ");
	return !strcmp(buf, type);
}

/* Are there @count of them, as /proc/stat has a line "cpu0" for each? */
static bool check_cpus(int count)
{
	FILE *file = fdopen(open("/proc/stat", O_RDONLY), "r");
	char line[256];

	if (!file)
		return false;
	for (cpus = 0; fgets(line, sizeof(line), file);)
		cpus += !strncmp(line, "cpu", 3) && line[3] != ' ';
	fclose(file);
	return cpus == count;
}

/* What follows @name if @arg begins with it, else NULL */
static const char *value_of(const char *arg, const char *name)
{
	return strncmp(arg, name, strlen(name)) ? NULL : arg + strlen(name);
}

/* Is it a test, and not only for later ones? */
static bool is_test(const char *arg)
{
	return value_of(arg, "type=") || value_of(arg, "cpus=") ||
	       value_of(arg, "read=") || value_of(arg, "map=");
}

static void obey(const char *arg)
{
	bool good;

	if (value_of(arg, "device="))
		device = value_of(arg, "device=");
	else if (value_of(arg, "count="))
		counter = value_of(arg, "count=");
	else if (!is_test(arg))
		ksft_exit_fail_msg("argument %s is none of ours\n", arg);
	if (!is_test(arg))
		return;
	if (value_of(arg, "type="))
		good = check_type(value_of(arg, "type="));
	else if (value_of(arg, "cpus="))
		good = check_cpus(atoi(value_of(arg, "cpus=")));
	else if (value_of(arg, "read="))
		good = read_often(value_of(arg, "read="));
	else
		good = map_often(value_of(arg, "map="));
	ksft_test_result(good, "%s\n", arg);
}

int main(int argc, char *argv[])
{
	int i, tests = 0;

	quiet_console(LOG_ERR);
	ksft_print_header();
	for (i = 1; i < argc; i++)
		tests += is_test(argv[i]);
	ksft_set_plan(tests);
	report_boot();
	for (i = 1; i < argc; i++)
		obey(argv[i]);
	ksft_finished();
}
