// SPDX-License-Identifier: MIT
/*
 * export_errno.c - what an export refuses, how, and in which order.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/pci_regs.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define EXPORT (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF)

typedef struct vfio_region_dma_range range_t;

/* One export that must fail: what it is, and what the table says of it. */
struct refusal {
	const char *what;
	uint32_t bar, open_flags, flags;
	range_t range;
	int error;
};

static int export_one(int device, const struct refusal *try)
{
	struct vfio_device_feature_dma_buf *export;
	uint64_t bytes[(sizeof(*export) + sizeof(range_t)) / sizeof(uint64_t)] = { 0 };

	export = (void *)bytes;
	export->region_index = try->bar;
	export->open_flags = try->open_flags;
	export->flags = try->flags;
	export->nr_ranges = 1;
	export->dma_ranges[0] = try->range;
	return abi_feature(device, EXPORT, export, sizeof(bytes));
}

static void check_refusal(const struct barlease_device *dev, const struct refusal *try)
{
	int result = export_one(dev->device_fd, try);

	CHECK_THAT(result == -1 && errno == try->error, "%s: expected %s, saw %s",
		   try->what, errno_name(try->error),
		   result == -1 ? errno_name(errno) : "success");
}

static void check_refusals(const struct barlease_device *dev,
			   const struct refusal *tries, size_t count)
{
	unsigned int fds = count_fds(), rows = lease_rows(dev->bdf);

	for (size_t i = 0; i < count; i++)
		check_refusal(dev, &tries[i]);
	CHECK_EQ(count_fds(), fds);
	CHECK_EQ(lease_rows(dev->bdf), rows);
}

#define CHECK_REFUSALS(dev, tries) \
	check_refusals(dev, tries, sizeof(tries) / sizeof(*(tries)))

TEST(export_einval_range,
     "an empty, unaligned, overflowing or too long range is EINVAL")
{
	static const struct refusal tries[] = {
		{ "empty", RAM_BAR, O_RDWR, 0, { 0, 0 }, EINVAL },
		{ "empty at the end", RAM_BAR, O_RDWR, 0, { RAM_SIZE, 0 }, EINVAL },
		{ "unaligned offset", RAM_BAR, O_RDWR, 0, { 1, PAGE_SIZE }, EINVAL },
		{ "offset in mid-page",
		  RAM_BAR,
		  O_RDWR,
		  0,
		  { PAGE_SIZE / 2, PAGE_SIZE },
		  EINVAL },
		{ "unaligned length",
		  RAM_BAR,
		  O_RDWR,
		  0,
		  { 0, PAGE_SIZE + 1 },
		  EINVAL },
		{ "length below a page", RAM_BAR, O_RDWR, 0, { 0, 1 }, EINVAL },
		{ "past the end",
		  RAM_BAR,
		  O_RDWR,
		  0,
		  { 0, RAM_SIZE + PAGE_SIZE },
		  EINVAL },
		{ "across the end",
		  RAM_BAR,
		  O_RDWR,
		  0,
		  { RAM_SIZE - PAGE_SIZE, 2 * PAGE_SIZE },
		  EINVAL },
		{ "at the end", RAM_BAR, O_RDWR, 0, { RAM_SIZE, PAGE_SIZE }, EINVAL },
		{ "sum wraps to 0",
		  RAM_BAR,
		  O_RDWR,
		  0,
		  { -PAGE_SIZE, PAGE_SIZE },
		  EINVAL },
		{ "sum wraps into the BAR",
		  RAM_BAR,
		  O_RDWR,
		  0,
		  { -PAGE_SIZE, 2 * PAGE_SIZE },
		  EINVAL },
		{ "length wraps",
		  RAM_BAR,
		  O_RDWR,
		  0,
		  { PAGE_SIZE, -PAGE_SIZE },
		  EINVAL },
		{ "the largest length", RAM_BAR, O_RDWR, 0, { 0, -PAGE_SIZE }, EINVAL },
		{ "negative offset",
		  RAM_BAR,
		  O_RDWR,
		  0,
		  { 1ull << 63, PAGE_SIZE },
		  EINVAL },
		{ "all ones", RAM_BAR, O_RDWR, 0, { UINT64_MAX, UINT64_MAX }, EINVAL },
	};
	struct barlease_device dev = open_device(RAM_DEVICE);

	CHECK_REFUSALS(&dev, tries);
}

TEST(export_einval_flags, "unknown flags, unknown open_flags and O_WRONLY are EINVAL")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct refusal try = { .bar = RAM_BAR,
			       .range = { 0, PAGE_SIZE },
			       .error = EINVAL };
	char what[64];

	try.what = what;
	try.open_flags = O_RDWR;
	for (int bit = 0; bit < 32; bit++) {
		snprintf(what, sizeof(what), "flags bit %d", bit);
		try.flags = 1u << bit;
		check_refusal(&dev, &try);
	}
	try.flags = 0;
	for (int bit = 2; bit < 32; bit++) {
		if (1u << bit == O_CLOEXEC)
			continue;
		snprintf(what, sizeof(what), "open_flags bit %d", bit);
		try.open_flags = O_RDWR | 1u << bit;
		check_refusal(&dev, &try);
	}
	snprintf(what, sizeof(what), "O_WRONLY");
	try.open_flags = O_WRONLY;
	check_refusal(&dev, &try);
	try.open_flags = O_WRONLY | O_CLOEXEC;
	check_refusal(&dev, &try);
	snprintf(what, sizeof(what), "O_ACCMODE");
	try.open_flags = O_ACCMODE;
	check_refusal(&dev, &try);
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

TEST(export_open_flags, "O_RDONLY, O_RDWR and O_CLOEXEC do what they do for open()")
{
	static const uint32_t flags[] = { O_RDONLY, O_RDWR, O_RDONLY | O_CLOEXEC,
					  O_RDWR | O_CLOEXEC };
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t range = { 0, PAGE_SIZE };

	for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++) {
		int fd = lease_ranges(&dev, RAM_BAR, &range, 1, flags[i]);

		CHECK_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, flags[i] & O_ACCMODE);
		CHECK_EQ(fcntl(fd, F_GETFD), flags[i] & O_CLOEXEC ? FD_CLOEXEC : 0);
		CHECK_EQ(info(&dev, fd).open_flags, flags[i] & O_ACCMODE);
		close(fd);
	}
}

/* An export whose argsz is not that of its ranges. */
static int export_argsz(int device, uint32_t nr_ranges, size_t argsz)
{
	struct vfio_device_feature_dma_buf *export;
	struct vfio_device_feature *feature;
	/* A whole page: what is past argsz must not be looked at. */
	char *page = CHECK_MAP(mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	int result, error;

	feature = (void *)page;
	feature->argsz = (uint32_t)argsz;
	feature->flags = EXPORT;
	export = (void *)feature->data;
	*export = (struct vfio_device_feature_dma_buf){
		.region_index = RAM_BAR,
		.open_flags = O_RDWR,
		.nr_ranges = nr_ranges,
	};
	for (int i = 0; i < 16; i++)
		export->dma_ranges[i].length = PAGE_SIZE;
	result = ioctl(device, VFIO_DEVICE_FEATURE, feature);
	error = errno;
	CHECK_OK(munmap(page, PAGE_SIZE));
	errno = error;
	return result;
}

TEST(export_einval_argsz, "no range, or an argsz too small for nr_ranges, is EINVAL")
{
	const size_t head = sizeof(struct vfio_device_feature) +
			    sizeof(struct vfio_device_feature_dma_buf);
	struct barlease_device dev = open_device(RAM_DEVICE);

	CHECK_ERRNO(export_argsz(dev.device_fd, 0, head), EINVAL);
	CHECK_ERRNO(export_argsz(dev.device_fd, 0, head + sizeof(range_t)), EINVAL);
	for (size_t argsz = 0; argsz < head + 2 * sizeof(range_t); argsz++)
		CHECK_ERRNO(export_argsz(dev.device_fd, 2, argsz), EINVAL);
	CHECK_OK(export_argsz(dev.device_fd, 2, head + 2 * sizeof(range_t)));
	/* With more than the ranges it is as good. */
	CHECK_OK(export_argsz(dev.device_fd, 2, head + 3 * sizeof(range_t)));
	/* 2^28 + 1 ranges: 32 bits of their length are one range's. */
	CHECK_ERRNO(export_argsz(dev.device_fd, 0x10000001, head + sizeof(range_t)),
		    EINVAL);
	CHECK_ERRNO(export_argsz(dev.device_fd, UINT32_MAX, head + sizeof(range_t)),
		    EINVAL);
	CHECK_EQ(lease_rows(dev.bdf), 2);
}

TEST(export_e2big, "more than 65,536 ranges are E2BIG")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	uint32_t most = BARLEASE_MAX_RANGES;
	range_t *ranges = calloc(2 * most, sizeof(*ranges));

	CHECK(ranges);
	for (uint32_t i = 0; i < 2 * most; i++)
		ranges[i].length = PAGE_SIZE;
	CHECK_ERRNO(abi_export(dev.device_fd, RAM_BAR, ranges, most + 1, O_RDWR),
		    E2BIG);
	CHECK_ERRNO(abi_export(dev.device_fd, RAM_BAR, ranges, 2 * most, O_RDWR),
		    E2BIG);
	CHECK_EQ(lease_rows(dev.bdf), 0);
	CHECK_OK(abi_export(dev.device_fd, RAM_BAR, ranges, most, O_RDWR));
}

TEST(export_enodev_no_bar,
     "a BAR that is not implemented, ROM, config or none is ENODEV")
{
	static const uint32_t others[] = { VFIO_PCI_ROM_REGION_INDEX,
					   VFIO_PCI_CONFIG_REGION_INDEX,
					   VFIO_PCI_VGA_REGION_INDEX,
					   VFIO_PCI_NUM_REGIONS,
					   63,
					   1u << 24,
					   INT_MAX,
					   UINT32_MAX };
	struct refusal try = { .open_flags = O_RDWR,
			       .range = { 0, PAGE_SIZE },
			       .error = ENODEV };
	struct barlease_device dev = open_device(RAM_DEVICE);
	unsigned int absent = 0;
	char what[64];

	try.what = what;
	for (uint32_t bar = 0; bar < BARLEASE_BARS; bar++) {
		snprintf(what, sizeof(what), "BAR%u", bar);
		try.bar = bar;
		if (dev.bars[bar].size)
			continue;
		check_refusal(&dev, &try);
		absent++;
	}
	CHECK(absent);
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++) {
		snprintf(what, sizeof(what), "region %#x", others[i]);
		try.bar = others[i];
		check_refusal(&dev, &try);
	}
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

/* Not the device's choice: VFIO would not mmap it either. */
static void check_no_mmap(const struct barlease_device *dev, uint32_t bar)
{
	struct refusal try = { .what = "this BAR",
			       .bar = bar,
			       .open_flags = O_RDWR,
			       .range = { 0, PAGE_SIZE },
			       .error = ENODEV };

	CHECK(dev->bars[bar].size);
	CHECK(!(dev->bars[bar].flags & VFIO_REGION_INFO_FLAG_MMAP));
	check_refusal(dev, &try);
}

TEST(export_enodev_io, "a BAR of I/O ports is ENODEV")
{
	struct barlease_device dev = open_device(AHCI_DEVICE);

	CHECK(read_config(&dev, PCI_BASE_ADDRESS_4, 4) & PCI_BASE_ADDRESS_SPACE_IO);
	check_no_mmap(&dev, 4);
	/* Its neighbour is as good as any. */
	close(lease(&dev, 5, 0, PAGE_SIZE));
}

TEST(export_enodev_shared_page, "a BAR that shares its page with another is ENODEV")
{
	const char *first = device_bdf(SMALL_DEVICE);
	const char *second = device_bdf(SMALL_SIBLING);
	struct barlease_device dev;

	/* Placed anew the small BAR gets the next free address. */
	remove_and_rescan(second);
	CHECK_EQ(bar_start(first, 0) / PAGE_SIZE, bar_start(second, 0) / PAGE_SIZE);
	dev = open_device(SMALL_DEVICE);
	check_no_mmap(&dev, 0);
	barlease_device_close(&dev);
	dev = open_device(SMALL_SIBLING);
	check_no_mmap(&dev, 0);
}

TEST(export_if_mmap, "a BAR is leased if and only if VFIO would mmap it")
{
	for (int kind = RAM_DEVICE; kind <= AHCI_DEVICE; kind++) {
		struct barlease_device dev = open_device(kind);

		for (uint32_t bar = 0; bar < BARLEASE_BARS; bar++) {
			const struct barlease_bar *b = &dev.bars[bar];
			range_t range = { 0, PAGE_SIZE };
			int fd = abi_export(dev.device_fd, bar, &range, 1, O_RDWR);

			if (b->size && b->flags & VFIO_REGION_INFO_FLAG_MMAP)
				CHECK_THAT(fd >= 0 || errno == EPERM,
					   "%s BAR%u: expected a lease, saw %s",
					   dev.bdf, bar, errno_name(errno));
			else
				CHECK_THAT(fd < 0 && errno == ENODEV,
					   "%s BAR%u: expected ENODEV, saw %s", dev.bdf,
					   bar, fd < 0 ? errno_name(errno) : "a lease");
		}
		barlease_device_close(&dev);
	}
}

TEST(export_rounded_bar,
     "a BAR shorter than a page can be leased up to the end of that page")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct refusal two = {
		"two pages", 0, O_RDWR, 0, { 0, 2 * PAGE_SIZE }, EINVAL
	};
	int fd;

	CHECK(dev.bars[0].size && dev.bars[0].size < PAGE_SIZE);
	fd = lease(&dev, 0, 0, PAGE_SIZE);
	CHECK_EQ(info(&dev, fd).size, PAGE_SIZE);
	CHECK_LOADS(map(fd, 0, PAGE_SIZE, PROT_READ));
	check_refusal(&dev, &two);
}

/* Where the MSI-X table (or PBA) lies, as the capability has it. */
static uint64_t msix_page(const struct barlease_device *dev, uint32_t field,
			  uint32_t *bar)
{
	uint32_t at = find_capability(dev, PCI_CAP_ID_MSIX);
	uint32_t place = read_config(dev, at + field, 4);

	*bar = place & PCI_MSIX_TABLE_BIR;
	return (place & PCI_MSIX_TABLE_OFFSET) & -PAGE_SIZE;
}

TEST(export_eperm_msix, "a range that meets a page of the MSI-X table or PBA is EPERM")
{
	struct barlease_device dev = open_device(NVME_DEVICE);
	uint32_t bar, pba_bar;
	uint64_t table = msix_page(&dev, PCI_MSIX_TABLE, &bar);
	uint64_t pba = msix_page(&dev, PCI_MSIX_PBA, &pba_bar);
	uint64_t size = dev.bars[bar].size;
	struct refusal tries[] = {
		{ "the table", bar, O_RDWR, 0, { table, PAGE_SIZE }, EPERM },
		{ "read-only", bar, O_RDONLY, 0, { table, PAGE_SIZE }, EPERM },
		{ "the PBA", pba_bar, O_RDWR, 0, { pba, PAGE_SIZE }, EPERM },
		{ "all of it", bar, O_RDWR, 0, { 0, size }, EPERM },
		{ "up to it", bar, O_RDWR, 0, { 0, table + PAGE_SIZE }, EPERM },
		{ "from it on", bar, O_RDWR, 0, { table, size - table }, EPERM },
	};
	range_t among[] = { { 0, PAGE_SIZE }, { table, PAGE_SIZE }, { 0, PAGE_SIZE } };

	/* The layout that gives this test its sense. */
	CHECK(table >= PAGE_SIZE && table + PAGE_SIZE <= size);
	CHECK_REFUSALS(&dev, tries);
	CHECK_ERRNO(abi_export(dev.device_fd, bar, among, 3, O_RDWR), EPERM);
	CHECK_EQ(lease_rows(dev.bdf), 0);
	lease(&dev, bar, 0, table);
}

TEST(export_allow_msix, "allow_msix=1 lifts the MSI-X guard", .params = "allow_msix=1")
{
	struct barlease_device dev = open_device(NVME_DEVICE);
	uint32_t bar;
	uint64_t table = msix_page(&dev, PCI_MSIX_TABLE, &bar);

	CHECK_LOADS(map(lease(&dev, bar, table, PAGE_SIZE), 0, PAGE_SIZE, PROT_READ));
	lease(&dev, bar, 0, dev.bars[bar].size);
}

TEST(export_order,
     "EINVAL comes before E2BIG and ENOSPC, these before ENODEV, that before EPERM")
{
	struct barlease_device dev = open_device(NVME_DEVICE);
	uint32_t bar, none = VFIO_PCI_CONFIG_REGION_INDEX;
	uint64_t table = msix_page(&dev, PCI_MSIX_TABLE, &bar);
	uint64_t size = dev.bars[bar].size;
	struct refusal tries[] = {
		{ "MSI-X, O_WRONLY", bar, O_WRONLY, 0, { table, PAGE_SIZE }, EINVAL },
		{ "MSI-X, flags", bar, O_RDWR, 1, { table, PAGE_SIZE }, EINVAL },
		{ "MSI-X, past the end", bar, O_RDWR, 0, { table, size }, EINVAL },
		{ "config, O_WRONLY", none, O_WRONLY, 0, { 0, PAGE_SIZE }, EINVAL },
		{ "config, flags", none, O_RDWR, 1, { 0, PAGE_SIZE }, EINVAL },
		{ "config, unaligned", none, O_RDWR, 0, { 1, PAGE_SIZE }, EINVAL },
		{ "config, empty", none, O_RDWR, 0, { 0, 0 }, EINVAL },
		{ "config, overflow",
		  none,
		  O_RDWR,
		  0,
		  { -PAGE_SIZE, 2 * PAGE_SIZE },
		  EINVAL },
		{ "config, no window", none, O_RDWR, 0, { 0, GIB(65536) }, ENOSPC },
	};
	range_t late[] = { { table, PAGE_SIZE }, { size, PAGE_SIZE } };
	uint32_t many = BARLEASE_MAX_RANGES + 1;
	range_t *ranges = calloc(many, sizeof(*ranges));

	CHECK(ranges);
	CHECK_REFUSALS(&dev, tries);
	CHECK_ERRNO(abi_export(dev.device_fd, none, NULL, 0, O_RDWR), EINVAL);
	CHECK_ERRNO(abi_export(dev.device_fd, bar, late, 2, O_RDWR), EINVAL);
	for (uint32_t i = 0; i < many; i++)
		ranges[i] = (range_t){ table, PAGE_SIZE };
	CHECK_ERRNO(abi_export(dev.device_fd, none, ranges, many, O_RDWR), E2BIG);
	CHECK_ERRNO(abi_export(dev.device_fd, bar, ranges, many, O_RDWR), E2BIG);
	CHECK_ERRNO(abi_export(dev.device_fd, bar, ranges, many, O_WRONLY), EINVAL);
	/* A bad range is found even behind too many good ones. */
	ranges[many - 1].length = 0;
	CHECK_ERRNO(abi_export(dev.device_fd, bar, ranges, many, O_RDWR), EINVAL);
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

TEST(export_any_bad_range, "one bad range among many refuses the whole export")
{
	enum { COUNT = 100 };
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t ranges[COUNT];

	for (int bad = 0; bad < COUNT; bad++) {
		for (int i = 0; i < COUNT; i++)
			ranges[i] = (range_t){ (uint64_t)i * PAGE_SIZE, PAGE_SIZE };
		ranges[bad].length = 0;
		CHECK_ERRNO(abi_export(dev.device_fd, RAM_BAR, ranges, COUNT, O_RDWR),
			    EINVAL);
	}
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

TEST(export_no_fd_left, "an export that gets no fd leaves no lease behind")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	range_t range = { 0, PAGE_SIZE };
	struct rlimit limit, none;

	CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
	none = (struct rlimit){ 3, limit.rlim_max };
	CHECK(dev.device_fd >= 3);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &none));
	for (int i = 0; i < 100; i++)
		CHECK_ERRNO(abi_export(dev.device_fd, RAM_BAR, &range, 1, O_RDWR),
			    EMFILE);
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &limit));
	CHECK_EQ(lease_rows(dev.bdf), 0);
}

/* So many that to look at all of them takes far longer than a signal. */
static void export_for_long(int sock, void *device)
{
	const size_t piece = MIB(2), length = GIB(3);
	int memory = (int)CHECK_OK(memfd_create("ranges", MFD_CLOEXEC));
	struct vfio_device_feature_dma_buf *export;
	struct vfio_device_feature *feature;
	range_t *ranges;
	char *at;

	CHECK_OK(ftruncate(memory, (off_t)piece));
	ranges = map(memory, 0, piece, PROT_READ | PROT_WRITE);
	for (size_t i = 0; i < piece / sizeof(*ranges); i++)
		ranges[i] = (range_t){ 0, PAGE_SIZE };
	/* The same over and over, and before it a page for what precedes them. */
	at = CHECK_MAP(mmap(NULL, PAGE_SIZE + length, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	at += PAGE_SIZE;
	for (size_t off = 0; off < length; off += piece)
		CHECK_MAP(mmap(at + off, piece, PROT_READ, MAP_SHARED | MAP_FIXED,
			       memory, 0));
	export = (void *)(at - sizeof(*export));
	*export = (struct vfio_device_feature_dma_buf){
		.region_index = RAM_BAR,
		.open_flags = O_RDWR,
		.nr_ranges = length / sizeof(range_t),
	};
	feature = (void *)((char *)export - sizeof(*feature));
	feature->argsz = (uint32_t)(sizeof(*feature) + sizeof(*export) + length);
	feature->flags = EXPORT;
	say(sock, 0);
	ioctl(*(int *)device, VFIO_DEVICE_FEATURE, feature);
	FAIL("expected to be killed, saw the export return: %s", errno_name(errno));
}

/* The time of a CPU that it has taken, in ms. */
static long cpu_time(pid_t pid)
{
	struct timespec used;
	clockid_t clock;

	CHECK(!clock_getcpuclockid(pid, &clock));
	CHECK_OK(clock_gettime(clock, &used));
	return used.tv_sec * 1000 + used.tv_nsec / 1000000;
}

TEST(export_eintr, "a fatal signal ends an export before all its ranges are read")
{
	struct barlease_device dev = open_device(RAM_DEVICE);
	struct kid kid = kid_start(export_for_long, &dev.device_fd);
	time_t start;
	long before;
	int status;

	hear(kid.sock);
	/* What it takes from here on, it takes for the export. */
	before = cpu_time(kid.pid);
	while (cpu_time(kid.pid) < before + 100) {
		CHECK_EQ(waitpid(kid.pid, &status, WNOHANG), 0);
		sched_yield();
	}
	start = time(NULL);
	CHECK_OK(kill(kid.pid, SIGKILL));
	CHECK_OK(waitpid(kid.pid, &status, 0));
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	CHECK(time(NULL) - start <= 5);
	CHECK_EQ(lease_rows(dev.bdf), 0);
}
