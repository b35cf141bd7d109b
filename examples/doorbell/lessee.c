// SPDX-License-Identifier: MIT
/*
 * lessee.c - an unprivileged process that gets a doorbell page at a socket, has
 * the device compute factorials, and goes on when the page is taken back.
 *
 * Usage: lessee SOCKET
 */
#define _GNU_SOURCE
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "barlease.h"

/* Registers of the device. */
#define FACTORIAL 0x08 /* store a number, load its factorial */
#define STATUS    0x20
#define COMPUTING 0x01

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (sock < 0 || connect(sock, (struct sockaddr *)&addr, sizeof(addr)))
		err(1, "%s", path);
	return sock;
}

int main(int argc, char *argv[])
{
	struct barlease_map_options options = { .size = sizeof(options),
						.flags = BARLEASE_MAP_SURVIVE };
	struct barlease_info info = { .size = sizeof(info) };
	struct barlease_map *map;
	uint32_t n = 0, result;
	int lease;

	if (argc != 2)
		errx(2, "usage: lessee SOCKET");
	lease = barlease_recv(connect_to(argv[1]), &info);
	if (lease < 0)
		err(1, "lease");
	options.va_hint = info.va_hint;
	map = barlease_map(lease, &options);
	if (!map)
		err(1, "map");
	printf("lessee: uid %d has %" PRIu64 " bytes\n", (int)getuid(), info.length);

	for (;;) {
		n = n % 12 + 1;
		barlease_write32(map, FACTORIAL, n);
		/* A page that is gone reads as ones: always ask before one waits. */
		while (barlease_read32(map, STATUS) & COMPUTING &&
		       !barlease_map_lost(map))
			;
		result = barlease_read32(map, FACTORIAL);
		if (barlease_map_lost(map))
			break;
		printf("lessee: %" PRIu32 "! = %" PRIu32 "\n", n, result);
		usleep(100000);
	}
	printf("lessee: the page was taken back, and I live\n");
	return barlease_unmap(map) ? 1 : 0;
}
