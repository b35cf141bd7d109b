// SPDX-License-Identifier: MIT
/* bind.c - bind a PCI device to a driver by driver_override, and undo it. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "barlease_device.h"
#include "sized.h"
#include "sysfs.h"

/* Below it a name would be cut off, or the override be left out. */
#define BINDING_SIZE_MIN                               \
	(offsetof(struct barlease_binding, override) + \
	 sizeof(((struct barlease_binding *)0)->override))

static bool holds_names(const struct barlease_binding *binding)
{
	return binding->size >= BINDING_SIZE_MIN;
}

static int write_override(const char *address, const char *driver)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_SYSFS "/devices/%s/driver_override", address);
	if (barlease_write_file(path, driver && *driver ? driver : "\n") == 0)
		return 0;
	if (errno == ENOENT)
		errno = ENODEV;
	return -1;
}

static bool is_bound(const char *address, const char *driver)
{
	char target[PATH_MAX];
	const char *bound = barlease_link_name(address, "driver", target);

	return bound && strcmp(bound, driver) == 0;
}

/* What may be a directory among the drivers. */
static bool is_name(const char *driver)
{
	return *driver && *driver != '.' && !strchr(driver, '/');
}

/* The kernel says nothing of a driver that it lacks, and takes the device away. */
static int find_driver(const char *driver)
{
	char path[PATH_MAX];

	if (!is_name(driver)) {
		errno = EINVAL;
		return -1;
	}
	snprintf(path, sizeof(path), PCI_SYSFS "/drivers/%s", driver);
	if (access(path, F_OK) == 0)
		return 0;
	errno = ENODEV;
	return -1;
}

static int release(const char *address)
{
	char path[PATH_MAX], target[PATH_MAX];

	if (!barlease_link_name(address, "driver", target))
		return 0;
	snprintf(path, sizeof(path), PCI_SYSFS "/devices/%s/driver/unbind", address);
	return barlease_write_file(path, address);
}

static int read_binding(const char *address, struct barlease_binding *now)
{
	char path[PATH_MAX], target[PATH_MAX];
	const char *driver;

	*now = (struct barlease_binding){ 0 };
	snprintf(path, sizeof(path), PCI_SYSFS "/devices/%s/driver_override", address);
	if (barlease_read_line(path, now->override, sizeof(now->override))) {
		if (errno == ENOENT)
			errno = ENODEV;
		return -1;
	}
	/* How the kernel writes that there is none. */
	if (strcmp(now->override, "(null)") == 0)
		now->override[0] = '\0';
	driver = barlease_link_name(address, "driver", target);
	if (driver && strlen(driver) >= sizeof(now->driver)) {
		errno = ERANGE;
		return -1;
	}
	if (driver)
		strcpy(now->driver, driver);
	return 0;
}

static int bind_by_override(const char *address, const char *driver)
{
	if (write_override(address, driver))
		return -1;
	if (driver && is_bound(address, driver))
		return 0;
	if (release(address) ||
	    barlease_write_file(PCI_SYSFS "/drivers_probe", address))
		return -1;
	if (driver && !is_bound(address, driver)) {
		errno = ENODEV;
		return -1;
	}
	return 0;
}

/*
 * To that driver, and not to whichever the kernel would find first; "": to none. It
 * may be one that takes what it is told to by an override only.
 */
static int move(const char *address, const char *driver)
{
	char path[PATH_MAX];

	if (*driver && is_bound(address, driver))
		return 0;
	if (write_override(address, driver) || release(address))
		return -1;
	if (!*driver)
		return 0;
	snprintf(path, sizeof(path), PCI_SYSFS "/drivers/%s/bind", driver);
	if (barlease_write_file(path, address)) {
		if (errno == ENOENT)
			errno = ENODEV;
		return -1;
	}
	return 0;
}

/* The override last: who has bound by one may have taken it back since. */
static int restore(const char *address, const struct barlease_binding *former)
{
	int ret = move(address, former->driver), saved = errno;

	if (write_override(address, former->override))
		return -1;
	errno = saved;
	return ret;
}

/* After what failed: the device has what it had, as far as that is possible. */
static int put_back(const char *address, const struct barlease_binding *now)
{
	int saved = errno;

	restore(address, now);
	errno = saved;
	return -1;
}

int barlease_device_bind(const char *bdf, const char *driver)
{
	struct barlease_binding now;
	char address[16];

	if (barlease_parse_bdf(bdf, address) || (driver && find_driver(driver)) ||
	    read_binding(address, &now))
		return -1;
	if (bind_by_override(address, driver))
		return put_back(address, &now);
	return 0;
}

int barlease_device_get_binding(const char *bdf, struct barlease_binding *binding)
{
	struct barlease_binding now;
	char address[16];

	if (!barlease_size_valid(binding) || !holds_names(binding)) {
		errno = EINVAL;
		return -1;
	}
	if (barlease_parse_bdf(bdf, address) || read_binding(address, &now))
		return -1;
	barlease_sized_out(binding, &now, sizeof(now));
	return 0;
}

int barlease_device_unbind(const char *bdf, const struct barlease_binding *binding)
{
	struct barlease_binding former = { 0 }, now;
	char address[16];

	if (barlease_sized_in(&former, sizeof(former), binding) ||
	    barlease_parse_bdf(bdf, address))
		return -1;
	if (!holds_names(&former) || former.reserved ||
	    !memchr(former.driver, '\0', sizeof(former.driver)) ||
	    !memchr(former.override, '\0', sizeof(former.override))) {
		errno = EINVAL;
		return -1;
	}
	if ((former.driver[0] && find_driver(former.driver)) ||
	    read_binding(address, &now))
		return -1;
	if (restore(address, &former))
		return put_back(address, &now);
	return 0;
}
