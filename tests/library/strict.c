// SPDX-License-Identifier: MIT
/* strict.c - the headers alone, in plain ISO C that knows nothing of POSIX. */
#include <barlease.h>
#include <barlease_device.h>
#include <barlease_mmio.h>

int main(void)
{
	return barlease_unmap(0);
}
