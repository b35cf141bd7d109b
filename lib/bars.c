// SPDX-License-Identifier: MIT
/* bars.c - what VFIO and config space say of a device's BARs. */
#define _GNU_SOURCE
#include "bars.h"

#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Config space has room for no more capabilities; who says so lies. */
#define MAX_CAPABILITIES 48

int barlease_region_info(int device_fd, uint32_t index, struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){ .argsz = sizeof(*info), .index = index };
	return ioctl(device_fd, VFIO_DEVICE_GET_REGION_INFO, info);
}

static int read_config(int fd, uint64_t config, uint32_t at, uint32_t *value)
{
	if (pread(fd, value, sizeof(*value), config + at) != sizeof(*value)) {
		errno = EIO;
		return -1;
	}
	*value = le32toh(*value);
	return 0;
}

static uint32_t bar_kind(uint32_t reg)
{
	uint32_t kind = BARLEASE_BAR_MEMORY;

	if (reg & PCI_BASE_ADDRESS_SPACE_IO)
		return BARLEASE_BAR_IO;
	if ((reg & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64)
		kind |= BARLEASE_BAR_64BIT;
	if (reg & PCI_BASE_ADDRESS_MEM_PREFETCH)
		kind |= BARLEASE_BAR_PREFETCHABLE;
	return kind;
}

/* The offset of the MSI-X capability; 0: none. */
static int find_msix(int fd, uint64_t config, uint32_t *found)
{
	uint32_t value, at;

	*found = 0;
	if (read_config(fd, config, PCI_COMMAND, &value))
		return -1;
	if (!(value >> 16 & PCI_STATUS_CAP_LIST))
		return 0;
	if (read_config(fd, config, PCI_CAPABILITY_LIST, &value))
		return -1;
	at = value & 0xfc;
	for (int i = 0; at && i < MAX_CAPABILITIES; i++) {
		if (read_config(fd, config, at, &value))
			return -1;
		if ((value & 0xff) == PCI_CAP_ID_MSIX) {
			*found = at;
			return 0;
		}
		at = value >> 8 & 0xfc;
	}
	return 0;
}

static int read_msix(int fd, uint64_t config, struct barlease_msix *msix)
{
	uint32_t at, control, table, pba;

	if (find_msix(fd, config, &at))
		return -1;
	if (!at)
		return 0;
	if (read_config(fd, config, at, &control) ||
	    read_config(fd, config, at + PCI_MSIX_TABLE, &table) ||
	    read_config(fd, config, at + PCI_MSIX_PBA, &pba))
		return -1;
	msix->nr_vectors = (control >> 16 & PCI_MSIX_FLAGS_QSIZE) + 1;
	msix->table_bar = table & PCI_MSIX_TABLE_BIR;
	msix->table_offset = table & PCI_MSIX_TABLE_OFFSET;
	msix->pba_bar = pba & PCI_MSIX_PBA_BIR;
	msix->pba_offset = pba & PCI_MSIX_PBA_OFFSET;
	return 0;
}

int barlease_read_bars(struct barlease_device *dev)
{
	struct vfio_region_info info, config;
	uint32_t reg;

	if (barlease_region_info(dev->device_fd, VFIO_PCI_CONFIG_REGION_INDEX, &config))
		return -1;
	for (int i = 0; i < BARLEASE_BARS; i++) {
		if (barlease_region_info(dev->device_fd, i, &info) < 0)
			return -1;
		dev->bars[i].size = info.size;
		dev->bars[i].offset = info.offset;
		dev->bars[i].flags = info.flags;
		if (info.size == 0)
			continue;
		if (read_config(dev->device_fd, config.offset,
				PCI_BASE_ADDRESS_0 + 4 * i, &reg))
			return -1;
		dev->bars[i].kind = bar_kind(reg);
	}
	return read_msix(dev->device_fd, config.offset, &dev->msix);
}
