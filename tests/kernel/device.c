// SPDX-License-Identifier: MIT
/*
 * device.c - the emulated devices, the raw kernel ABI, and access to a BAR
 * that may be gone.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <linux/dma-buf.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define PCI_DEVICES "/sys/bus/pci/devices"

static const struct {
	const char *name;
	const char *vendor, *device;
	int nth; /* of these, by address */
} kinds[] = {
	[RAM_DEVICE] = { "ivshmem", "0x1af4", "0x1110", 0 },
	[BLK_DEVICE] = { "virtio-blk", "0x1af4", "0x1042", 0 },
	[NVME_DEVICE] = { "nvme", "0x1b36", "0x0010", 0 },
	[EDU_DEVICE] = { "edu", "0x1234", "0x11e8", 0 },
	[EDU_SIBLING] = { "second edu", "0x1234", "0x11e8", 1 },
	[BIG_DEVICE] = { "second ivshmem", "0x1af4", "0x1110", 1 },
	[SMALL_DEVICE] = { "third ivshmem", "0x1af4", "0x1110", 2 },
	[SMALL_SIBLING] = { "fourth ivshmem", "0x1af4", "0x1110", 3 },
	[AHCI_DEVICE] = { "AHCI", "0x8086", "0x2922", 0 },
};
#define KINDS (sizeof(kinds) / sizeof(*kinds))

static bool has_id(const char *bdf, const char *file, const char *id)
{
	char path[384], *text;
	bool same;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/%s", bdf, file);
	text = read_file(path);
	same = !strncmp(text, id, strlen(id));
	free(text);
	return same;
}

/* "": there was none. All processes have it from the first, as a scan takes long. */
static char addresses[KINDS][16];

static void find_devices(void)
{
	int nth[KINDS] = { 0 };
	struct dirent **entries;
	int count;

	count = (int)CHECK_OK(scandir(PCI_DEVICES, &entries, NULL, alphasort));
	for (int i = 0; i < count; i++) {
		const char *bdf = entries[i]->d_name;

		for (size_t kind = 0; kind < KINDS && *bdf != '.'; kind++)
			if (has_id(bdf, "vendor", kinds[kind].vendor) &&
			    has_id(bdf, "device", kinds[kind].device) &&
			    nth[kind]++ == kinds[kind].nth)
				snprintf(addresses[kind], sizeof(*addresses), "%.15s",
					 bdf);
		free(entries[i]);
	}
	free(entries);
}

/* The device of a kind; NULL: none, or none any more. */
static const char *find_device(enum device_kind kind)
{
	char path[sizeof(PCI_DEVICES) + sizeof(addresses)];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s", addresses[kind]);
	return *addresses[kind] && !access(path, F_OK) ? addresses[kind] : NULL;
}

const char *device_bdf(enum device_kind kind)
{
	const char *bdf = find_device(kind);

	CHECK_THAT(bdf, "expected a device of kind %s, saw none", kinds[kind].name);
	return bdf;
}

static void bind_all(const char *driver)
{
	for (size_t kind = 0; kind < KINDS; kind++) {
		const char *bdf = find_device((enum device_kind)kind);

		if (bdf)
			CHECK_OK(barlease_device_bind(bdf, driver));
	}
}

void bind_devices(void)
{
	bind_all(BARLEASE_DRIVER);
}

void unbind_devices(void)
{
	bind_all(NULL);
}

void remove_and_rescan(const char *bdf)
{
	char path[96];

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/remove", bdf);
	write_file(path, "1");
	write_file("/sys/bus/pci/rescan", "1");
	bind_devices();
}

/* Shared with the tests' processes. */
static struct {
	uint32_t chosen;
	bool used;
} * path;

void devices_prepare(void)
{
	find_devices();
	path = CHECK_MAP(mmap(NULL, sizeof(*path), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

void path_choose(uint32_t chosen)
{
	path->chosen = chosen;
	path->used = false;
}

bool path_was_used(void)
{
	return path->used;
}

bool path_is_cdev(void)
{
	return path->chosen == BARLEASE_PATH_CDEV;
}

int try_open_address(struct barlease_device *dev, const char *bdf)
{
	path->used = true;
	return barlease_device_open_path(dev, bdf, path->chosen);
}

struct barlease_device open_address(const char *bdf)
{
	struct barlease_device dev;

	CHECK_OK(try_open_address(&dev, bdf));
	return dev;
}

struct barlease_device open_device(enum device_kind kind)
{
	return open_address(device_bdf(kind));
}

struct barlease_device open_beside(const struct barlease_device *dev,
				   enum device_kind kind)
{
	struct barlease_device other;

	CHECK_OK(barlease_device_open_beside(&other, device_bdf(kind), dev));
	return other;
}

uint64_t bar_start(const char *bdf, int bar)
{
	char path[96], *text, *line;
	uint64_t start;

	snprintf(path, sizeof(path), PCI_DEVICES "/%s/resource", bdf);
	line = text = read_file(path);
	while (bar--) {
		line += strcspn(line, "\n");
		line += *line == '\n';
	}
	start = strtoull(line, NULL, 0);
	free(text);
	return start;
}

void *map_bar(const struct barlease_device *dev, int bar, uint64_t offset,
	      uint64_t length, int prot)
{
	return map(dev->device_fd, dev->bars[bar].offset + offset, length, prot);
}

static off_t config_offset(uint32_t offset)
{
	return (off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40 | offset;
}

uint32_t read_config(const struct barlease_device *dev, uint32_t offset, size_t size)
{
	uint32_t value = 0;

	CHECK_EQ(pread(dev->device_fd, &value, size, config_offset(offset)), size);
	return value;
}

void write_config(const struct barlease_device *dev, uint32_t offset, uint32_t value,
		  size_t size)
{
	CHECK_EQ(pwrite(dev->device_fd, &value, size, config_offset(offset)), size);
}

uint32_t find_capability(const struct barlease_device *dev, uint8_t id)
{
	uint32_t at = read_config(dev, PCI_CAPABILITY_LIST, 1);

	while (at && read_config(dev, at + PCI_CAP_LIST_ID, 1) != id)
		at = read_config(dev, at + PCI_CAP_LIST_NEXT, 1);
	CHECK_THAT(at, "expected %s to have capability %u, saw none", dev->bdf, id);
	return at;
}

void set_decoding(struct barlease_device *dev, bool on)
{
	CHECK_OK(barlease_device_command(dev, on ? PCI_COMMAND_MEMORY : 0,
					 on ? 0 : PCI_COMMAND_MEMORY));
}

void set_power_state(const struct barlease_device *dev, unsigned int state)
{
	uint32_t at = find_capability(dev, PCI_CAP_ID_PM) + PCI_PM_CTRL;
	uint32_t value = read_config(dev, at, 2);

	write_config(dev, at, (value & ~PCI_PM_CTRL_STATE_MASK) | state, 2);
	CHECK_EQ(read_config(dev, at, 2) & PCI_PM_CTRL_STATE_MASK, state);
}

/* A buffer of the exact size, so that a kernel that reads on is seen. */
int abi_feature(int device, uint32_t flags, void *data, size_t size)
{
	size_t argsz = sizeof(struct vfio_device_feature) + size;
	struct vfio_device_feature *feature = malloc(argsz);
	int result, error;

	CHECK(feature);
	feature->argsz = (uint32_t)argsz;
	feature->flags = flags;
	if (size)
		memcpy(feature->data, data, size);
	result = ioctl(device, VFIO_DEVICE_FEATURE, feature);
	error = errno;
	if (size)
		memcpy(data, feature->data, size);
	free(feature);
	errno = error;
	return result;
}

int abi_export(int device, uint32_t bar, const struct vfio_region_dma_range *ranges,
	       uint32_t nr_ranges, uint32_t open_flags)
{
	size_t length = nr_ranges * sizeof(*ranges);
	size_t size = sizeof(struct vfio_device_feature_dma_buf) + length;
	struct vfio_device_feature_dma_buf *export = malloc(size);
	int result, error;

	CHECK(export);
	*export = (struct vfio_device_feature_dma_buf){
		.region_index = bar,
		.open_flags = open_flags,
		.nr_ranges = nr_ranges,
	};
	if (length)
		memcpy(export->dma_ranges, ranges, length);
	result = abi_feature(device,
			     VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF,
			     export, size);
	error = errno;
	free(export);
	errno = error;
	return result;
}

int abi_revoke(int device, int lease)
{
	struct barlease_feature_revoke revoke = { .dmabuf_fd = lease };

	return abi_feature(device, VFIO_DEVICE_FEATURE_SET | BARLEASE_FEATURE_REVOKE,
			   &revoke, sizeof(revoke));
}

int abi_memattr(int device, int lease, uint32_t memattr)
{
	struct barlease_feature_memattr set = { .dmabuf_fd = lease,
						.memattr = memattr };

	return abi_feature(device, VFIO_DEVICE_FEATURE_SET | BARLEASE_FEATURE_MEMATTR,
			   &set, sizeof(set));
}

int abi_info(int device, int lease, struct barlease_feature_info *info)
{
	*info = (struct barlease_feature_info){ .dmabuf_fd = lease };
	return abi_feature(device, VFIO_DEVICE_FEATURE_GET | BARLEASE_FEATURE_INFO,
			   info, sizeof(*info));
}

int abi_sync(int lease, uint64_t flags)
{
	struct dma_buf_sync sync = { .flags = flags };

	return ioctl(lease, DMA_BUF_IOCTL_SYNC, &sync);
}

int abi_prefault(int lease)
{
	return abi_sync(lease, DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW);
}

int lease_ranges(const struct barlease_device *dev, uint32_t bar,
		 const struct vfio_region_dma_range *ranges, uint32_t nr_ranges,
		 uint32_t open_flags)
{
	return (int)CHECK_OK(
		abi_export(dev->device_fd, bar, ranges, nr_ranges, open_flags));
}

int lease(const struct barlease_device *dev, uint32_t bar, uint64_t offset,
	  uint64_t length)
{
	struct vfio_region_dma_range range = { .offset = offset, .length = length };

	return lease_ranges(dev, bar, &range, 1, O_RDWR | O_CLOEXEC);
}

struct barlease_feature_info info(const struct barlease_device *dev, int lease)
{
	struct barlease_feature_info info;

	CHECK_OK(abi_info(dev->device_fd, lease, &info));
	return info;
}

uint64_t faults(const struct barlease_device *dev, int lease)
{
	return info(dev, lease).faults;
}

void *map(int fd, uint64_t offset, uint64_t length, int prot)
{
	return CHECK_MAP(mmap(NULL, length, prot, MAP_SHARED, fd, (off_t)offset));
}

void *map_at(int fd, uint64_t offset, uint64_t length, int prot, uint64_t hint)
{
	/* What stays reserved around it keeps neighbours away. */
	char *room =
		CHECK_MAP(mmap(NULL, length + 2 * GIB(1), PROT_NONE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	uint64_t skip = (hint - (uintptr_t)room) % GIB(1);

	return CHECK_MAP(mmap(room + skip, length, prot, MAP_SHARED | MAP_FIXED, fd,
			      (off_t)offset));
}

/* SA_NODEFER, so that no access pays for saving the signal mask. */
static _Thread_local sigjmp_buf escape;
static _Thread_local volatile sig_atomic_t escaping;

static void on_signal(int number)
{
	if (escaping)
		siglongjmp(escape, number);
	signal(number, SIG_DFL);
}

__attribute__((constructor)) static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
}

int try_load(const volatile void *at, uint32_t *value)
{
	int number = sigsetjmp(escape, 0);

	if (!number) {
		escaping = 1;
		*value = *(const volatile uint32_t *)at;
	}
	escaping = 0;
	return number;
}

int try_store(volatile void *at, uint32_t value)
{
	int number = sigsetjmp(escape, 0);

	if (!number) {
		escaping = 1;
		*(volatile uint32_t *)at = value;
	}
	escaping = 0;
	return number;
}

static const char *outcome(int number)
{
	return number == SIGBUS ? "SIGBUS" : number ? "SIGSEGV" : "no signal";
}

void check_access(const char *file, int line, const char *what, const char *where,
		  int seen, int want)
{
	if (seen != want)
		fail_at(file, line, "%s at %s: expected %s, saw %s", what, where,
			outcome(want), outcome(seen));
}

static uint32_t stamp(uint64_t page)
{
	return 0xb1000000u + (uint32_t)page;
}

void stamp_pages(const struct barlease_device *dev)
{
	uint64_t size = dev->bars[RAM_BAR].size, pages = size / PAGE_SIZE;
	char *bar = map_bar(dev, RAM_BAR, 0, size, PROT_READ | PROT_WRITE);
	volatile uint32_t *last = (void *)(bar + size - PAGE_SIZE + STAMP_OFFSET);

	/* The last page is written last: it tells that all are. */
	for (uint64_t page = 0; *last != stamp(pages - 1); page++)
		*(volatile uint32_t *)(bar + page * PAGE_SIZE + STAMP_OFFSET) =
			stamp(page);
	CHECK_OK(munmap(bar, size));
}

void check_page(const char *file, int line, const void *at, uint64_t page)
{
	uint32_t seen = 0;
	int number = try_load((const char *)at + STAMP_OFFSET, &seen);

	if (number)
		fail_at(file, line, "expected page %llu, saw SIG%s",
			(unsigned long long)page, sigabbrev_np(number));
	if (seen != stamp(page))
		fail_at(file, line, "expected page %llu (%#x), saw %#x",
			(unsigned long long)page, stamp(page), seen);
}
