// SPDX-License-Identifier: MIT
/*
 * call.c - VFIO_DEVICE_FEATURE with arguments that may be wrong in what they say
 * of themselves, and what must be said of those.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "call.h"

/* An argument ends where this ends; nothing is mapped behind it. */
static char *room_end;

void call_init(void)
{
	size_t length = (ROOM + PAGE_SIZE - 1) / PAGE_SIZE * PAGE_SIZE;
	char *room = mmap(NULL, length + PAGE_SIZE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (room == MAP_FAILED || mprotect(room, length, PROT_READ | PROT_WRITE))
		wrong("no memory for arguments: %m");
	room_end = room + length;
}

void lie(struct call *call, uint8_t code)
{
	switch (code) {
	case 1:
		call->argsz--;
		break;
	case 2:
		call->argsz = sizeof(struct vfio_device_feature);
		break;
	case 3:
		call->argsz = sizeof(struct vfio_device_feature) - 1;
		break;
	case 4:
		call->argsz = 0;
		break;
	case 5:
		call->argsz += 8;
		break;
	case 6:
		call->argsz = UINT32_MAX;
		break;
	case 7:
		call->size--;
		break;
	case 8:
		call->size = sizeof(struct vfio_device_feature);
		break;
	case 9:
		call->pointer = NONE;
		break;
	case 10:
		call->pointer = READ_ONLY;
		break;
	case 11:
		call->flags |= PROBE;
		break;
	case 12:
		call->flags ^= GET | SET;
		break;
	case 13:
		call->flags &= ~(uint32_t)(GET | SET);
		break;
	case 14:
		call->flags |= GET | SET;
		break;
	case 15:
		call->flags |= GET | SET | PROBE;
		break;
	case 16:
		call->flags ^= GET | SET | PROBE;
		break;
	case 17:
		call->flags |= 1U << 19;
		break;
	case 18:
		call->flags |= 1U << 31;
		break;
	case 19:
		call->flags |= PROBE;
		call->argsz -= 4;
		break;
	default:
		break;
	}
}

int want_header(const struct call *call, uint32_t operations, size_t size)
{
	uint32_t op = call->flags & (GET | SET);

	if (call->pointer == NONE || call->size < sizeof(struct vfio_device_feature))
		return -EFAULT;
	if (call->argsz < sizeof(struct vfio_device_feature) ||
	    call->flags & ~(uint32_t)(VFIO_DEVICE_FEATURE_MASK | GET | SET | PROBE) ||
	    (op == (GET | SET) && !(call->flags & PROBE)))
		return -EINVAL;
	if (!operations)
		return -ENOTTY;
	if (op & ~operations)
		return -EINVAL;
	if (call->flags & PROBE)
		return 0;
	if (!op || call->argsz - sizeof(struct vfio_device_feature) < size)
		return -EINVAL;
	if (call->size - sizeof(struct vfio_device_feature) < size)
		return -EFAULT;
	return 1;
}

int feature(enum device_name dev, const struct call *call, void *payload)
{
	char *arg = room_end - call->size;
	char *page = room_end - PAGE_SIZE;
	const size_t head = sizeof(struct vfio_device_feature);
	struct vfio_device_feature header = { .argsz = call->argsz,
					      .flags = call->flags };
	int result;

	memcpy(arg, &header, call->size < head ? call->size : head);
	if (call->size > head)
		memcpy(arg + head, payload, call->size - head);
	if (call->pointer == READ_ONLY)
		mprotect(page, PAGE_SIZE, PROT_READ);
	result = (int)outcome(ioctl(devices[dev].device_fd, VFIO_DEVICE_FEATURE,
				    call->pointer == NONE ? NULL : arg));
	if (call->pointer == READ_ONLY)
		mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE);
	if (call->size > head)
		memcpy(payload, arg + head, call->size - head);
	return result;
}

struct call simple_call(uint32_t flags, size_t payload)
{
	const size_t size = sizeof(struct vfio_device_feature) + payload;

	return (struct call){ .flags = flags, .argsz = (uint32_t)size, .size = size };
}
