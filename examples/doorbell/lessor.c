// SPDX-License-Identifier: MIT
/*
 * lessor.c - owns a device with a doorbell page, QEMU's "edu", and lends that page
 * to whoever connects to a socket, for some seconds. Errors end it.
 *
 * Usage: lessor ADDRESS SOCKET SECONDS
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	/* Anybody may connect; SO_PEERCRED would tell who it is. */
	if (sock < 0 || bind(sock, (struct sockaddr *)&addr, sizeof(addr)) ||
	    chmod(path, 0666) || listen(sock, 1))
		err(1, "%s", path);
	return sock;
}

int main(int argc, char *argv[])
{
	struct barlease_range doorbell = { .offset = 0,
					   .length = sysconf(_SC_PAGESIZE) };
	struct barlease_info info = { .size = sizeof(info) };
	struct barlease_device dev;
	int listener, client, lease;

	if (argc != 4)
		errx(2, "usage: lessor ADDRESS SOCKET SECONDS");
	if (barlease_device_open(&dev, argv[1]))
		err(1, "%s", argv[1]);
	listener = listen_at(argv[2]);
	client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (client < 0)
		err(1, "accept");

	/* One export for each lessee: it is what can be revoked. */
	lease = barlease_export(dev.device_fd, 0, &doorbell, 1, O_RDWR);
	if (lease < 0 || barlease_get_info(dev.device_fd, lease, &info) ||
	    barlease_send(client, lease, &info))
		err(1, "lease");
	printf("lessor: lent a page of %s\n", dev.bdf);

	sleep(atoi(argv[3]));
	if (barlease_revoke(dev.device_fd, lease))
		err(1, "revoke");
	printf("lessor: took it back\n");
	barlease_device_close(&dev);
	unlink(argv[2]);
	return 0;
}
