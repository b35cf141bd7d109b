// SPDX-License-Identifier: MIT
/* sysfs.c - what sysfs says of a PCI device, and what can be written there. */
#define _GNU_SOURCE
#include "sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int barlease_parse_bdf(const char *bdf, char out[16])
{
	unsigned int domain, bus, dev, fn;
	int end = 0;

	if (sscanf(bdf, "%8x:%2x:%2x.%1u%n", &domain, &bus, &dev, &fn, &end) != 4 ||
	    bdf[end] || dev > 31 || fn > 7 ||
	    snprintf(out, 16, "%04x:%02x:%02x.%u", domain, bus, dev, fn) >= 16) {
		errno = EINVAL;
		return -1;
	}
	return 0;
}

const char *barlease_link_name(const char *bdf, const char *link, char name[PATH_MAX])
{
	char path[PATH_MAX], target[PATH_MAX], *slash;
	ssize_t len;

	snprintf(path, sizeof(path), PCI_SYSFS "/devices/%s/%s", bdf, link);
	len = readlink(path, target, sizeof(target) - 1);
	if (len < 0)
		return NULL;
	target[len] = '\0';
	slash = strrchr(target, '/');
	return strcpy(name, slash ? slash + 1 : target);
}

int barlease_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int saved;
	ssize_t len;

	if (fd < 0)
		return -1;
	len = write(fd, text, strlen(text));
	saved = errno;
	close(fd);
	errno = saved;
	return len < 0 ? -1 : 0;
}

int barlease_read_line(const char *path, char *line, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int saved;
	ssize_t len;

	if (fd < 0)
		return -1;
	len = read(fd, line, size);
	saved = errno;
	close(fd);
	errno = saved;
	if (len < 0)
		return -1;
	if ((size_t)len == size) {
		errno = ERANGE;
		return -1;
	}
	line[len] = '\0';
	line[strcspn(line, "\n")] = '\0';
	return 0;
}
