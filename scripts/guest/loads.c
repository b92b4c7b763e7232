// SPDX-License-Identifier: GPL-2.0-only
/*
 * Finds how often the IOTLB is invalidated for each kind of load, for scripts/boot --loads. It
 * is told who counts invalidations, "count=host", and then in order what to do:
 *
 *   NAME EXPECT DEVICE HOW NUMBER
 *
 * HOW a PCI DEVICE is used, and what the NUMBER of it is:
 *
 *   read     its disk is read, in requests of so many segments
 *   iova     the same, where its driver maps a request of several segments by the dma_iova API
 *   ping     packets go to the host and come back, from network 10.0.NUMBER.0
 *   single   the kernel's dma_map_benchmark maps so many pages as one
 *   sg       it maps a scatterlist of so many entries
 *   rebind   its driver goes and comes so often, which frees what dma_alloc_coherent() gave
 *
 * What is judged is the number of invalidations for each use. A use is an unmap, or what frees
 * coherent memory: the kernel's tracepoints count them, since drivers use pages again.
 * They do not know the dma_iova API, where a use is a request, as the block layer counts them.
 * EXPECT is one of:
 *
 *   strict   one for each use, or more
 *   lazy     fewer than one for LAZY_USES
 *   waits    one for each use, and few more, though the domain is lazy: the kernel does not
 *            queue these
 *
 * Prints KTAP, a test for each NAME and before it "# load NAME INVALIDATIONS USES". The last
 * one is the kernel's log.
 */
#include <linux/in.h>
#include <linux/map_benchmark.h>
#include <linux/sockios.h>
#include "guest.h"
#include "log.h"

#define LAZY_USES 16
#define TRIES 5 /* to be lazy: on a slow host a timer often flushes */
#define WAIT_SECONDS 20 /* for a disk, a network or a driver */
#define REQUESTS 512 /* of a disk */
#define READERS 16 /* of it at a time */
#define MAX_SEGMENTS 64
#define PACKETS 1024
#define BURST 16 /* of them are under way */
#define PACKET_SIZE 1400 /* bytes, that of an ICMP echo */
#define BENCHMARK "dma_map_benchmark"
#define EVENTS "/sys/kernel/tracing/events/dma/"

/* As in sys/socket.h and net/if.h, which a C library has */
#define AF_INET 2
#define SOCK_DGRAM 2
#define IFF_UP 1

struct interface_request {
	char name[16];
	union {
		struct sockaddr_in address;
		short flags;
		char space[24];
	};
};

struct load {
	const char *name;
	const char *expect;
	const char *device;
	const char *how;
	int number;
};

static const char *counter;

static const char *const events[] = { "dma_unmap_phys", "dma_unmap_sg",
				      "dma_free", "dma_free_pages",
				      "dma_free_sgt" };

/*
 * Begin to count the uses of @device, or end it. With a filter there is one entry, so none is
 * dropped.
 */
static void count_uses(const char *device, bool begin)
{
	char trigger[128], path[128];
	size_t i;

	snprintf(trigger, sizeof(trigger),
		 "%shist:keys=device if device == \"%s\"", begin ? "" : "!",
		 device);
	for (i = 0; i < ARRAY_SIZE(events); i++) {
		snprintf(path, sizeof(path), EVENTS "%s/trigger", events[i]);
		if (!write_file(path, trigger))
			ksft_exit_fail_perror(path);
	}
}

static long uses_until_now(void)
{
	char path[128];
	long uses = 0;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(events); i++) {
		snprintf(path, sizeof(path), EVENTS "%s/hist", events[i]);
		uses += read_number(path, "Hits");
	}
	return uses;
}

/* Is @name, a link in @directory, to something that hangs on @device? */
static bool hangs_on(const char *directory, const char *name,
		     const char *device)
{
	char path[256] = "", part[32];

	snprintf(part, sizeof(part), "/%s/", device);
	return !chdir(directory) && !chdir(name) &&
	       syscall(__NR_getcwd, path, sizeof(path)) >= 0 &&
	       strstr(path, part);
}

/* What in @directory hangs on @device, until the next call; or NULL. It is waited for. */
static const char *find(const char *directory, const char *device)
{
	static struct dirent entry;
	struct dirent *next;
	int tenths;
	DIR *dir;

	for (tenths = 0; tenths < WAIT_SECONDS * 10; tenths++) {
		dir = opendir(directory);
		if (!dir)
			ksft_exit_fail_perror(directory);
		while (!readdir_r(dir, &entry, &next) && next)
			if (entry.d_name[0] != '.' &&
			    hangs_on(directory, entry.d_name, device))
				break;
		closedir(dir);
		if (next)
			return entry.d_name;
		msleep(100);
	}
	ksft_print_msg("nothing in %s is of %s\n", directory, device);
	return NULL;
}

/* The first byte and the last one have to be written. */
static bool read_once(int fd, struct iovec *segments, int count)
{
	unsigned char *first = segments[0].iov_base,
		      *last = segments[count - 1].iov_base;

	first[0] = 0xff;
	last[PAGE - 1] = 0xff;
	return syscall(__NR_preadv, fd, segments, count, 0, 0) ==
		       count * PAGE &&
	       first[0] != 0xff && last[PAGE - 1] != 0xff;
}

static bool read_in_turn(const char *disk, int count)
{
	struct iovec segments[MAX_SEGMENTS];
	int fd, i;

	if (count > MAX_SEGMENTS)
		return false;
	/* NVMe splits a request where a segment ends within a page. */
	fd = open_for_segments(disk, segments, count, PAGE);
	if (fd < 0)
		return false;
	for (i = 0; i < REQUESTS / READERS; i++)
		if (!read_once(fd, segments, count))
			break;
	close_segments(fd, segments, count);
	return i == REQUESTS / READERS;
}

/* By several processes, so that there is seldom nothing to do but wait for the host */
static bool read_often(const char *disk, int count)
{
	int i, status;
	bool good = true;

	for (i = 0; i < READERS; i++) {
		pid_t pid = fork();

		if (pid < 0)
			ksft_exit_fail_perror("fork");
		if (!pid)
			exit(!read_in_turn(disk, count));
	}
	for (i = 0; i < READERS; i++)
		good &= waitpid(-1, &status, 0) > 0 && !status;
	return good;
}

/* How many requests have read @disk until now? */
static long requests_until_now(const char *disk)
{
	if (chdir("/sys/block") || chdir(disk))
		return -1;
	return read_number("stat", "");
}

static struct sockaddr_in address(int network, int host)
{
	unsigned char bytes[] = { 10, 0, network, host };
	struct sockaddr_in found = { .sin_family = AF_INET };

	memcpy(&found.sin_addr, bytes, sizeof(bytes));
	return found;
}

/* Give the interface @name the address that QEMU has for a guest on this network. */
static bool configure(int fd, const char *name, int network)
{
	struct interface_request request = {};

	strlcat(request.name, name, sizeof(request.name));
	request.address = address(network, 15);
	if (ioctl(fd, SIOCSIFADDR, &request))
		return false;
	memset(&request.address.sin_addr, 0xff, 3);
	((unsigned char *)&request.address.sin_addr)[3] = 0;
	if (ioctl(fd, SIOCSIFNETMASK, &request))
		return false;
	request.flags = IFF_UP;
	return !ioctl(fd, SIOCSIFFLAGS, &request);
}

/* A socket that sends an ICMP echo from the interface of @device, or -1 */
static int open_network(const char *device, int network)
{
	const char *name = find("/sys/class/net", device);
	int fd;

	write_file("/proc/sys/net/ipv4/ping_group_range", "0 0");
	fd = syscall(__NR_socket, AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
	if (name && fd >= 0 && configure(fd, name, network))
		return fd;
	close(fd);
	return -1;
}

/* Send so many packets to the host; how many come back before it is silent? */
static int ping(int fd, int network, int count, int timeout_ms)
{
	struct sockaddr_in host = address(network, 2);
	struct pollfd answers = { .fd = fd, .events = POLLIN };
	char packet[PACKET_SIZE] = { 8 /* ICMP_ECHO */ };
	int i, back = 0;

	for (i = 0; i < count; i++)
		syscall(__NR_sendto, fd, packet, sizeof(packet), 0, &host,
			sizeof(host));
	while (back < count && poll(&answers, 1, timeout_ms) == 1)
		if (read(fd, packet, sizeof(packet)) == sizeof(packet))
			back++;
	return back;
}

/* The link may take its time, and so may who is asked for the host's address. */
static bool wait_for_network(int fd, int network)
{
	int tries;

	for (tries = 0; tries < WAIT_SECONDS; tries++)
		if (ping(fd, network, 1, 1000) == 1)
			return true;
	return false;
}

static bool ping_often(int fd, int network)
{
	int sent, back = 0;

	for (sent = 0; sent < PACKETS; sent += BURST)
		back += ping(fd, network, BURST, 1000);
	if (back != PACKETS)
		ksft_print_msg("%d of %d packets came back\n", back, PACKETS);
	return back == PACKETS;
}

/* Have the benchmark drive the device. */
static bool take_device(const char *device)
{
	if (chdir("/sys/bus/pci/devices") || chdir(device) ||
	    !write_file("driver_override", BENCHMARK))
		return false;
	write_file("driver/unbind", device);
	return write_file("/sys/bus/pci/drivers_probe", device);
}

static bool map_often(int mode, int pages)
{
	struct map_benchmark map = {};
	int fd, ret;

	map.threads = 1;
	map.seconds = 1;
	map.granule = pages;
	map.map_mode = mode;
	map.node = -1;
	map.dma_bits = 64;
	fd = open("/sys/kernel/debug/" BENCHMARK, O_RDWR);
	ret = ioctl(fd, DMA_MAP_BENCHMARK, &map);
	close(fd);
	return !ret;
}

static bool rebind(const char *device, int times)
{
	char driver[128] = "";

	if (chdir("/sys/bus/pci/devices") || chdir(device) || chdir("driver") ||
	    syscall(__NR_getcwd, driver, sizeof(driver)) < 0)
		return false;
	while (times--)
		if (!write_file("unbind", device) ||
		    !write_file("bind", device))
			return false;
	return true;
}

/* What a load is done with, prepared so that only the load itself is counted */
struct means {
	const char *disk;
	int fd;
};

static bool is(const struct load *load, const char *how)
{
	return !strcmp(load->how, how);
}

static bool prepare(const struct load *load, struct means *means)
{
	if (is(load, "read") || is(load, "iova")) {
		means->disk = find("/sys/block", load->device);
		return means->disk;
	}
	if (is(load, "ping")) {
		means->fd = open_network(load->device, load->number);
		return means->fd >= 0 &&
		       wait_for_network(means->fd, load->number);
	}
	if (is(load, "single") || is(load, "sg"))
		return take_device(load->device);
	return true;
}

static bool perform(const struct load *load, const struct means *means)
{
	if (means->disk)
		return read_often(means->disk, load->number);
	if (is(load, "ping"))
		return ping_often(means->fd, load->number);
	if (is(load, "single"))
		return map_often(DMA_MAP_BENCH_SINGLE_MODE, load->number);
	if (is(load, "sg"))
		return map_often(DMA_MAP_BENCH_SG_MODE, load->number);
	return rebind(load->device, load->number);
}

/*
 * Do it once; returns how many uses it was, 0 if it failed. Each of them is between the two
 * times that invalidations are counted.
 */
static long measure(const struct load *load, const struct means *means,
		    long *count)
{
	bool is_iova = is(load, "iova");
	long uses = 0;
	bool good;

	*count = count_invalidations(load->device, counter);
	if (is_iova)
		uses = requests_until_now(means->disk);
	else
		count_uses(load->device, true);
	good = perform(load, means);
	if (is_iova)
		uses = requests_until_now(means->disk) - uses;
	else
		uses = uses_until_now();
	*count = count_invalidations(load->device, counter) - *count;
	if (!is_iova)
		count_uses(load->device, false);
	if (!good)
		ksft_print_msg("%s could not be done\n", load->name);
	return good ? uses : 0;
}

static bool as_expected(const char *expect, long count, long uses)
{
	if (!strcmp(expect, "strict"))
		return uses > 0 && count >= uses;
	if (!strcmp(expect, "waits"))
		return uses > 0 && count >= uses &&
		       count < uses + uses / LAZY_USES;
	return !strcmp(expect, "lazy") && count < uses / LAZY_USES;
}

/* How often to try? What invalidates for each use is strict, on however slow a host. */
static int tries_of(const char *expect, long count, long uses)
{
	if (!strcmp(expect, "strict"))
		return 1;
	return !strcmp(expect, "lazy") && uses > 0 && count >= uses ? 1 : TRIES;
}

static void judge(const struct load *load)
{
	struct means means = { .fd = -1 };
	long count = 0, uses = 0;
	bool good = false;
	int tries = 0;

	if (prepare(load, &means)) {
		do {
			uses = measure(load, &means, &count);
			good = as_expected(load->expect, count, uses);
			ksft_print_msg("load %s %ld %ld\n", load->name, count,
				       uses);
		} while (!good &&
			 ++tries < tries_of(load->expect, count, uses));
	}
	if (means.fd >= 0)
		close(means.fd);
	ksft_test_result(good, "%s %s\n", load->name, load->expect);
}

static void read_load(char *line, struct load *load)
{
	const char **fields[] = { &load->name, &load->expect, &load->device,
				  &load->how };
	char *pos = line;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		*fields[i] = pos;
		pos = strchr(pos, ' ');
		if (!pos)
			ksft_exit_fail_msg("no load: %s\n", line);
		*pos++ = '\0';
	}
	load->number = atoi(pos);
}

int main(int argc, char *argv[])
{
	struct load load;
	int i;

	if (argc < 3 || strncmp(argv[1], "count=", 6))
		ksft_exit_fail_msg("not told who counts, and what to do\n");
	counter = argv[1] + 6;
	quiet_console(LOG_ERR);
	if (mount("none", "/sys/kernel/tracing", "tracefs", 0, NULL))
		ksft_exit_fail_perror("/sys/kernel/tracing");
	ksft_print_header();
	ksft_set_plan(argc - 2 + 1);
	for (i = 2; i < argc; i++) {
		read_load(argv[i], &load);
		judge(&load);
	}
	ksft_test_result(kernel_is_clean(), "kernel log\n");
	ksft_finished();
}
