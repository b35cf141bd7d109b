// SPDX-License-Identifier: MIT
/*
 * bind_test.c - a device that can't be bound keeps what it had. The linker puts a
 * device and drivers of the test's own in the place of sysfs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include "barlease_device.h"
#include "unit.h"

#define BDF    "0000:01:00.0"
#define DEVICE "/sys/bus/pci/devices/" BDF

int __wrap_access(const char *path, int mode);
int __wrap_barlease_write_file(const char *path, const char *text);
int __wrap_barlease_read_line(const char *path, char *line, size_t size);
const char *__wrap_barlease_link_name(const char *bdf, const char *link,
				      char target[PATH_MAX]);

/*
 * "picky" takes no device, "told" one that is to be its own, as VFIO's drivers do,
 * and the kernel finds "native" by itself.
 */
static const char *const drivers[] = { "native", "other", "picky", "told" };
static char driver[64], override[64];
static int nr_writes;

static bool is_loaded(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++) {
		if (!strcmp(drivers[i], name))
			return true;
	}
	return false;
}

static int refuse(int error)
{
	errno = error;
	return -1;
}

static int take(const char *name)
{
	if (!is_loaded(name) || !strcmp(name, "picky") ||
	    (!*override && !strcmp(name, "told")) ||
	    (*override && strcmp(override, name)))
		return refuse(ENODEV);
	strcpy(driver, name);
	return 0;
}

int __wrap_access(const char *path, int mode)
{
	char name[64] = "";

	assert_int_equal(mode, 0);
	assert_int_equal(sscanf(path, "/sys/bus/pci/drivers/%63[^/]", name), 1);
	return is_loaded(name) ? 0 : refuse(ENOENT);
}

int __wrap_barlease_write_file(const char *path, const char *text)
{
	char name[64] = "", file[8] = "";

	nr_writes++;
	if (!strcmp(path, DEVICE "/driver_override")) {
		strcpy(override, *text == '\n' ? "" : text);
		return 0;
	}
	assert_string_equal(text, BDF);
	if (!strcmp(path, DEVICE "/driver/unbind")) {
		assert_true(*driver);
		*driver = '\0';
		return 0;
	}
	/* Whether it found one it does not say. */
	if (!strcmp(path, "/sys/bus/pci/drivers_probe")) {
		if (!*driver)
			take(*override ? override : "native");
		return 0;
	}
	assert_int_equal(sscanf(path, "/sys/bus/pci/drivers/%63[^/]/%7s", name, file),
			 2);
	assert_string_equal(file, "bind");
	return take(name);
}

int __wrap_barlease_read_line(const char *path, char *line, size_t size)
{
	if (strcmp(path, DEVICE "/driver_override"))
		return refuse(ENOENT);
	snprintf(line, size, "%s", *override ? override : "(null)");
	return 0;
}

const char *__wrap_barlease_link_name(const char *bdf, const char *link,
				      char target[PATH_MAX])
{
	assert_string_equal(link, "driver");
	if (strcmp(bdf, BDF) || !*driver)
		return NULL;
	return strcpy(target, driver);
}

static void have(const char *bound, const char *forced)
{
	strcpy(driver, bound);
	strcpy(override, forced);
	nr_writes = 0;
}

static void check(const char *bound, const char *forced)
{
	assert_string_equal(driver, bound);
	assert_string_equal(override, forced);
}

static void a_driver_takes_the_device_and_gives_it_back(void **state)
{
	struct barlease_binding was = { .size = sizeof(was) };

	(void)state;
	have("native", "");
	assert_int_equal(barlease_device_get_binding(BDF, &was), 0);
	assert_int_equal(barlease_device_bind(BDF, "other"), 0);
	check("other", "other");
	assert_int_equal(barlease_device_unbind(BDF, &was), 0);
	check("native", "");
	assert_int_equal(barlease_device_bind(BDF, "other"), 0);
	assert_int_equal(barlease_device_bind(BDF, NULL), 0);
	check("native", "");
}

/* As it is after a bind by hand. */
static void a_driver_has_it_back_whose_override_was_taken_back(void **state)
{
	struct barlease_binding was = { .size = sizeof(was) };

	(void)state;
	have("told", "");
	assert_int_equal(barlease_device_get_binding(BDF, &was), 0);
	assert_int_equal(barlease_device_bind(BDF, "other"), 0);
	check("other", "other");
	assert_int_equal(barlease_device_unbind(BDF, &was), 0);
	check("told", "");
}

static void who_does_not_get_it_changes_nothing(void **state)
{
	static const char *const had[][2] = {
		{ "native", "" },   { "other", "other" }, { "", "" },
		{ "", "gone" },     { "told", "told" },   { "told", "" },
		{ "told", "gone" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(had); i++) {
		have(had[i][0], had[i][1]);
		assert_int_equal(barlease_device_bind(BDF, "picky"), -1);
		assert_int_equal(errno, ENODEV);
		check(had[i][0], had[i][1]);
	}
}

static void what_is_no_driver_is_not_tried(void **state)
{
	static const char *const names[] = { "", ".", "..", "a/b", "/", "native/" };
	struct barlease_binding former = { .size = sizeof(former) };

	(void)state;
	have("native", "");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(barlease_device_bind(BDF, names[i]), -1);
		assert_int_equal(errno, EINVAL);
	}
	assert_int_equal(barlease_device_bind(BDF, "natvie"), -1);
	assert_int_equal(errno, ENODEV);
	strcpy(former.driver, "natvie");
	assert_int_equal(barlease_device_unbind(BDF, &former), -1);
	assert_int_equal(errno, ENODEV);
	assert_int_equal(barlease_device_bind("0000:01:00.1", "other"), -1);
	assert_int_equal(errno, ENODEV);
	assert_int_equal(nr_writes, 0);
	check("native", "");
}

static void an_unbind_that_fails_changes_nothing(void **state)
{
	struct barlease_binding former = { .size = sizeof(former), .driver = "picky" };

	(void)state;
	have("other", "other");
	assert_int_equal(barlease_device_unbind(BDF, &former), -1);
	assert_int_equal(errno, ENODEV);
	check("other", "other");
}

/* It would cut a name off, or leave out the override. */
static void a_size_without_both_names_is_einval(void **state)
{
	struct {
		struct barlease_binding binding;
		char more[8];
	} later = { .binding = { .size = sizeof(later) } };
	struct barlease_binding binding = { .driver = "native", .override = "" };

	(void)state;
	have("other", "other");
	for (uint32_t size = 8; size < sizeof(binding); size += 8) {
		binding.size = size;
		assert_int_equal(barlease_device_get_binding(BDF, &binding), -1);
		assert_int_equal(errno, EINVAL);
		assert_int_equal(barlease_device_unbind(BDF, &binding), -1);
		assert_int_equal(errno, EINVAL);
		assert_string_equal(binding.driver, "native");
	}
	assert_int_equal(nr_writes, 0);
	check("other", "other");
	assert_int_equal(barlease_device_get_binding(BDF, &later.binding), 0);
	assert_string_equal(later.binding.driver, "other");
	assert_string_equal(later.binding.override, "other");
	assert_int_equal(barlease_device_unbind(BDF, &later.binding), 0);
	check("other", "other");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_driver_takes_the_device_and_gives_it_back),
		cmocka_unit_test(a_driver_has_it_back_whose_override_was_taken_back),
		cmocka_unit_test(who_does_not_get_it_changes_nothing),
		cmocka_unit_test(what_is_no_driver_is_not_tried),
		cmocka_unit_test(an_unbind_that_fails_changes_nothing),
		cmocka_unit_test(a_size_without_both_names_is_einval),
	};

	return cmocka_run_group_tests_name("bind", tests, NULL, NULL);
}
