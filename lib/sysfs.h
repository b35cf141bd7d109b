/* SPDX-License-Identifier: MIT */
/* sysfs.h - what sysfs says of a PCI device, and what can be written there. */
#ifndef BARLEASE_SYSFS_H
#define BARLEASE_SYSFS_H

#include <limits.h>
#include <stddef.h>

#define PCI_SYSFS "/sys/bus/pci"

/* Write out the address in full; nothing else gets into a path. EINVAL: it is none. */
int barlease_parse_bdf(const char *bdf, char out[16]);

/*
 * What a link in the device's directory points to, without its path; NULL with
 * errno set when there is no such link. name is where it is put.
 */
const char *barlease_link_name(const char *bdf, const char *link, char name[PATH_MAX]);

/* The first line of a file, of at most size - 1 bytes. ERANGE: it is longer. */
int barlease_read_line(const char *path, char *line, size_t size);

int barlease_write_file(const char *path, const char *text);

#endif /* BARLEASE_SYSFS_H */
