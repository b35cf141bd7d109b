/* SPDX-License-Identifier: MIT */
/*
 * operations.h - which VFIO feature does which operation. This table is the one
 * place that knows numbers: should upstream assign one, it is a line here.
 */
#ifndef BARLEASE_OPERATIONS_H
#define BARLEASE_OPERATIONS_H

#include <stdint.h>

#include "barlease.h"
#include "barlease_uapi.h"

struct operation {
	uint32_t bit;   /* BARLEASE_CAN_* */
	uint32_t flags; /* of struct vfio_device_feature */
};

enum { EXPORT, REVOKE, MEMATTR, INFO, NR_OPERATIONS };

static const struct operation operations[NR_OPERATIONS] = {
	[EXPORT] = { BARLEASE_CAN_EXPORT,
		     VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF },
	[REVOKE] = { BARLEASE_CAN_REVOKE,
		     VFIO_DEVICE_FEATURE_SET | BARLEASE_FEATURE_REVOKE },
	[MEMATTR] = { BARLEASE_CAN_SET_MEMATTR,
		      VFIO_DEVICE_FEATURE_SET | BARLEASE_FEATURE_MEMATTR },
	[INFO] = { BARLEASE_CAN_GET_INFO,
		   VFIO_DEVICE_FEATURE_GET | BARLEASE_FEATURE_INFO },
};

#endif /* BARLEASE_OPERATIONS_H */
