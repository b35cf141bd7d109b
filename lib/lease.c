// SPDX-License-Identifier: MIT
/*
 * lease.c - what a lessor does with a lease: export, revoke, set its memory
 * attribute, ask about it. Each is one VFIO_DEVICE_FEATURE ioctl.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "barlease.h"
#include "barlease_uapi.h"
#include "operations.h"
#include "sized.h"

/* data holds the feature's struct on entry and, for a GET, on return. */
static int feature(int device_fd, int operation, void *data, size_t size)
{
	union {
		struct vfio_device_feature head;
		char bytes[sizeof(struct vfio_device_feature) + 64];
	} arg = { .head = { .argsz = sizeof(arg.head) + size,
			    .flags = operations[operation].flags } };

	_Static_assert(sizeof(struct barlease_feature_info) <= 64, "arg is too small");
	memcpy(arg.head.data, data, size);
	if (ioctl(device_fd, VFIO_DEVICE_FEATURE, &arg) < 0)
		return -1;
	memcpy(data, arg.head.data, size);
	return 0;
}

int barlease_features(int device_fd, uint32_t *mask)
{
	uint32_t can = 0;

	for (int i = 0; i < NR_OPERATIONS; i++) {
		struct vfio_device_feature probe = {
			.argsz = sizeof(probe),
			.flags = operations[i].flags | VFIO_DEVICE_FEATURE_PROBE,
		};

		if (ioctl(device_fd, VFIO_DEVICE_FEATURE, &probe) == 0)
			can |= operations[i].bit;
		else if (errno != ENOTTY)
			return -1;
	}
	*mask = can;
	return 0;
}

int barlease_export(int device_fd, uint32_t bar, const struct barlease_range *ranges,
		    size_t nr_ranges, int access)
{
	struct vfio_device_feature_dma_buf *dma_buf;
	struct vfio_device_feature *arg;
	size_t size;
	int fd;

	if (nr_ranges > BARLEASE_MAX_RANGES) {
		errno = E2BIG;
		return -1;
	}
	size = sizeof(*arg) + sizeof(*dma_buf) +
	       nr_ranges * sizeof(dma_buf->dma_ranges[0]);
	arg = calloc(1, size);
	if (!arg)
		return -1;

	arg->argsz = size;
	arg->flags = operations[EXPORT].flags;
	dma_buf = (void *)arg->data;
	dma_buf->region_index = bar;
	dma_buf->open_flags = access | O_CLOEXEC;
	dma_buf->nr_ranges = nr_ranges;
	for (size_t i = 0; i < nr_ranges; i++) {
		dma_buf->dma_ranges[i].offset = ranges[i].offset;
		dma_buf->dma_ranges[i].length = ranges[i].length;
	}

	fd = ioctl(device_fd, VFIO_DEVICE_FEATURE, arg);
	free(arg);
	return fd;
}

int barlease_revoke(int device_fd, int lease_fd)
{
	struct barlease_feature_revoke revoke = { .dmabuf_fd = lease_fd };

	return feature(device_fd, REVOKE, &revoke, sizeof(revoke));
}

int barlease_set_memattr(int device_fd, int lease_fd, uint32_t memattr)
{
	struct barlease_feature_memattr set = {
		.dmabuf_fd = lease_fd,
		.memattr = memattr,
	};

	return feature(device_fd, MEMATTR, &set, sizeof(set));
}

int barlease_get_info(int device_fd, int lease_fd, struct barlease_info *info)
{
	struct barlease_feature_info get = { .dmabuf_fd = lease_fd };
	struct barlease_info known;

	if (!barlease_size_valid(info)) {
		errno = EINVAL;
		return -1;
	}
	if (feature(device_fd, INFO, &get, sizeof(get)))
		return -1;

	known = (struct barlease_info){
		.state = get.state,
		.id = get.id,
		.length = get.size,
		.nr_ranges = get.nr_ranges,
		.nr_spans = get.nr_spans,
		.memattr = get.memattr,
		.access = get.open_flags,
		.va_hint = get.va_hint,
		.faults = get.faults,
	};
	barlease_sized_out(info, &known, sizeof(known));
	return 0;
}
