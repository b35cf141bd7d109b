// SPDX-License-Identifier: MIT
/*
 * includes.cc - a C++ program can include the headers, twice, and call what they
 * declare.
 */
#include <barlease.h>
#include <barlease_device.h>
#include <barlease_mmio.h>
#include <barlease_uapi.h>

#include <barlease.h>
#include <barlease_device.h>
#include <barlease_mmio.h>
#include <barlease_uapi.h>

int main()
{
	uint64_t word = 0;
	barlease_map_options options = {};

	barlease_mmio_write64(&word, 5);
	barlease_dma_wmb();
	barlease_dma_rmb();
	barlease_wc_flush();
	options.size = sizeof(options);
	/* -1 is no lease. */
	return barlease_mmio_read64(&word) == 5 && !barlease_map(-1, &options) &&
			       barlease_unmap(nullptr) == 0 ?
		       0 :
		       1;
}
