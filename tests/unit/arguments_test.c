// SPDX-License-Identifier: MIT
/*
 * arguments_test.c - what the library refuses before it asks the kernel: device
 * addresses that are none, and calls on fds that are no device's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"
#include "barlease_uapi.h"
#include "unit.h"

static void check_no_address(const char *bdf)
{
	struct barlease_device dev;

	errno = 0;
	assert_int_equal(barlease_device_open(&dev, bdf), -1);
	assert_int_equal(errno, EINVAL);
	errno = 0;
	assert_int_equal(barlease_device_bind(bdf, BARLEASE_DRIVER), -1);
	assert_int_equal(errno, EINVAL);
}

static void what_is_no_address_is_einval(void **state)
{
	static const char *const bad[] = {
		"",
		"barlease",
		"0000:01:00",
		"0000:01:00.",
		"01:00.0",
		"0000:01:20.0",
		"0000:01:00.8",
		"0000:01:00.0 ",
		"0000:01:00.0/../../../../etc/passwd",
		"../0000:01:00.0",
		"0000:01:00.00",
		"0000:100:00.0",
		"100000000:01:00.0",
	};
	char endless[4096];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		check_no_address(bad[i]);
	memset(endless, '0', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = '\0';
	check_no_address(endless);
}

/* No machine has this one: domains go up to 0xffff, or 0x10000 and a few. */
static void a_device_that_is_not_there_is_enodev(void **state)
{
	struct barlease_device dev;

	(void)state;
	assert_int_equal(barlease_device_open(&dev, "fffff:ff:1f.7"), -1);
	assert_int_equal(errno, ENODEV);
	assert_int_equal(barlease_device_bind("fffff:ff:1f.7", BARLEASE_DRIVER), -1);
	assert_int_equal(errno, ENODEV);
	assert_int_equal(dev.device_fd, -1);
	assert_int_equal(dev.group_fd, -1);
	assert_int_equal(dev.container_fd, -1);
	assert_int_equal(dev.iommu_fd, -1);
}

static void too_many_ranges_are_e2big(void **state)
{
	const struct barlease_range range = { 0, 4096 };

	(void)state;
	assert_int_equal(
		barlease_export(-1, 0, &range, BARLEASE_MAX_RANGES + 1, O_RDWR), -1);
	assert_int_equal(errno, E2BIG);
	assert_int_equal(barlease_export(-1, 0, &range, SIZE_MAX, O_RDWR), -1);
	assert_int_equal(errno, E2BIG);
	assert_int_equal(barlease_export(-1, 0, &range, 1, O_RDWR), -1);
	assert_int_equal(errno, EBADF);
}

static void check_device_calls(int fd, int error)
{
	struct barlease_device dev = { .device_fd = fd,
				       .group_fd = fd,
				       .iommu_fd = -1 };
	struct barlease_info info = { .size = sizeof(info) };

	assert_int_equal(barlease_revoke(fd, fd), -1);
	assert_int_equal(errno, error);
	assert_int_equal(barlease_set_memattr(fd, fd, BARLEASE_MEMATTR_WC), -1);
	assert_int_equal(errno, error);
	assert_int_equal(barlease_get_info(fd, fd, &info), -1);
	assert_int_equal(errno, error);
	assert_int_equal(barlease_device_reset(&dev), -1);
	assert_int_equal(errno, error);
	assert_int_equal(barlease_device_hot_reset(&dev), -1);
	assert_int_equal(errno, error);
	assert_int_equal(barlease_device_command(&dev, 0, 0), -1);
	assert_int_equal(errno, error);
}

static void an_fd_of_no_device_is_refused(void **state)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	assert_return_code(fd, errno);
	check_device_calls(fd, ENOTTY);
	close(fd);
	check_device_calls(fd, EBADF);
}

static void what_is_no_device_has_no_features(void **state)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	uint32_t mask = 5;

	(void)state;
	assert_return_code(fd, errno);
	assert_int_equal(barlease_features(fd, &mask), 0);
	assert_int_equal(mask, 0);
	close(fd);
	mask = 5;
	assert_int_equal(barlease_features(fd, &mask), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(mask, 5);
}

static void check_no_binding(const char *bdf, const struct barlease_binding *binding,
			     int error)
{
	errno = 0;
	assert_int_equal(barlease_device_unbind(bdf, binding), -1);
	assert_int_equal(errno, error);
}

static void a_binding_that_is_none_is_einval(void **state)
{
	const char *none = "fffff:ff:1f.7";
	struct barlease_binding binding = { 0 };

	(void)state;
	check_no_binding(none, &binding, EINVAL);
	assert_int_equal(barlease_device_get_binding(none, &binding), -1);
	assert_int_equal(errno, EINVAL);
	binding.size = sizeof(binding);
	check_no_binding(none, &binding, ENODEV);
	check_no_binding("nowhere", &binding, EINVAL);
	assert_int_equal(barlease_device_get_binding(none, &binding), -1);
	assert_int_equal(errno, ENODEV);
	assert_int_equal(barlease_device_get_binding("nowhere", &binding), -1);
	assert_int_equal(errno, EINVAL);
	binding.reserved = 1;
	check_no_binding(none, &binding, EINVAL);
	binding.reserved = 0;
	strcpy(binding.driver, "../../devices");
	check_no_binding(none, &binding, EINVAL);
	memset(binding.driver, 'x', sizeof(binding.driver));
	check_no_binding(none, &binding, EINVAL);
	binding.driver[0] = '\0';
	memset(binding.override, 'x', sizeof(binding.override));
	check_no_binding(none, &binding, EINVAL);
}

static void a_size_that_is_none_is_einval(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 4, 7, 9, 12, 55, 57, 4104, UINT32_MAX };
	struct barlease_info info = { 0 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		info.size = sizes[i];
		assert_int_equal(barlease_get_info(-1, -1, &info), -1);
		assert_int_equal(errno, EINVAL);
	}
	for (info.size = 8; info.size <= 4096; info.size += 8) {
		assert_int_equal(barlease_get_info(-1, -1, &info), -1);
		assert_int_equal(errno, EBADF);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_address_is_einval),
		cmocka_unit_test(a_device_that_is_not_there_is_enodev),
		cmocka_unit_test(too_many_ranges_are_e2big),
		cmocka_unit_test(an_fd_of_no_device_is_refused),
		cmocka_unit_test(what_is_no_device_has_no_features),
		cmocka_unit_test(a_binding_that_is_none_is_einval),
		cmocka_unit_test(a_size_that_is_none_is_einval),
	};

	return cmocka_run_group_tests_name("arguments", tests, NULL, NULL);
}
