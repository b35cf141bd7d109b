/* SPDX-License-Identifier: MIT */
/*
 * call.h - VFIO_DEVICE_FEATURE with arguments that may be wrong in what they say
 * of themselves, and what must be said of those.
 */
#ifndef CALL_H
#define CALL_H

#include "world.h"

#define GET   VFIO_DEVICE_FEATURE_GET
#define SET   VFIO_DEVICE_FEATURE_SET
#define PROBE VFIO_DEVICE_FEATURE_PROBE

/* Bytes of the largest argument: one range more than there may be. */
#define ROOM (sizeof(struct vfio_device_feature) + 16 + 16 * (BARLEASE_MAX_RANGES + 1))

/* The argument of such a call. */
struct call {
	uint32_t flags;
	uint32_t argsz;
	size_t size; /* that it really has, and no byte more can be read */
	enum { GOOD, NONE, READ_ONLY } pointer;
};

void call_init(void);
/* One that is right, for so many bytes of payload. */
struct call simple_call(uint32_t flags, size_t payload);
/* Ways in which what is common to all features can be wrong, or odd. */
void lie(struct call *call, uint8_t code);
/*
 * What is said of it before the feature is looked at, which has these operations
 * (none: it is not there) and a struct of that size: 1, or the ioctl's result.
 */
int want_header(const struct call *call, uint32_t operations, size_t size);
/* Make the call; payload goes in, and comes back. */
int feature(enum device_name dev, const struct call *call, void *payload);

#endif /* CALL_H */
