// SPDX-License-Identifier: MIT
/*
 * system.c - the running kernel seen from a test.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "device.h"
#include "harness.h"
#include "system.h"

#define MODULE      "barlease_vfio_pci"
#define MODULE_PATH "/sys/module/" MODULE
#define DEBUGFS     "/sys/kernel/debug"
#define TRACEFS     "/sys/kernel/tracing"
#define EVENTS      TRACEFS "/events/barlease/enable"

char *read_file(const char *path)
{
	size_t size = 0, room = 0;
	char *text = NULL;
	ssize_t got;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_THAT(fd >= 0, "expected to open %s, saw %s", path, errno_name(errno));
	do {
		if (room - size < 4096) {
			room = room * 2 + 8192;
			/* cppcheck-suppress memleakOnRealloc ; then the test ends */
			text = realloc(text, room);
			CHECK(text);
		}
		got = CHECK_OK(read(fd, text + size, room - size - 1));
		size += (size_t)got;
	} while (got);
	close(fd);
	text[size] = '\0';
	return text;
}

void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	CHECK_THAT(fd >= 0, "expected to open %s, saw %s", path, errno_name(errno));
	CHECK_THAT(write(fd, text, strlen(text)) == (ssize_t)strlen(text),
		   "expected to write \"%s\" to %s, saw %s", text, path,
		   errno_name(errno));
	close(fd);
}

uint64_t amount(const char *path, const char *name)
{
	char *text = read_file(path), *found = strstr(text, name);
	uint64_t value;

	CHECK(found);
	value = strtoull(found + strlen(name), NULL, 0);
	free(text);
	return value;
}

/* What is loaded, known to all processes of a run. */
static struct {
	bool known;
	char params[256];
} * loaded;

void system_prepare(void)
{
	loaded = mmap(NULL, sizeof(*loaded), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(loaded != MAP_FAILED);
}

bool module_is_loaded(void)
{
	return !access(MODULE_PATH, F_OK);
}

unsigned int module_users(void)
{
	char *text = read_file(MODULE_PATH "/refcnt");
	unsigned int users = (unsigned int)strtoul(text, NULL, 0);

	free(text);
	return users;
}

/* 0, or -1 with errno; the file is named by an environment variable. */
static int load_file(const char *variable, const char *params)
{
	const char *path = getenv(variable);
	int fd, result, error;

	CHECK_THAT(path, "expected %s to name a module", variable);
	fd = (int)CHECK_OK(open(path, O_RDONLY | O_CLOEXEC));
	result = (int)syscall(SYS_finit_module, fd, params, 0);
	error = errno;
	close(fd);
	errno = error;
	return result;
}

int module_try_load(const char *params)
{
	loaded->known = false;
	return load_file("BARLEASE_KO", params ? params : "");
}

int module_try_unload(void)
{
	return (int)syscall(SYS_delete_module, MODULE, O_NONBLOCK);
}

void module_load(const char *params)
{
	if (module_is_loaded())
		CHECK_OK(module_try_unload());
	CHECK_OK(module_try_load(params));
	bind_devices();
	snprintf(loaded->params, sizeof(loaded->params), "%s", params ? params : "");
	loaded->known = true;
}

void module_require(const char *params)
{
	if (!loaded->known || !module_is_loaded() ||
	    strcmp(loaded->params, params ? params : ""))
		module_load(params);
}

char *module_parameter(const char *name)
{
	char path[128], *text;

	snprintf(path, sizeof(path), MODULE_PATH "/parameters/%s", name);
	text = read_file(path);
	text[strcspn(text, "\n")] = '\0';
	return text;
}

static char *read_leases(const char *bdf)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "/barlease/%s/leases", bdf);
	return read_file(path);
}

static bool is_row(const char *line)
{
	return *line >= '0' && *line <= '9';
}

static unsigned int count_rows(const char *text)
{
	unsigned int rows = 0;

	for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
		rows += is_row(line);
		if (!strchr(line, '\n'))
			break;
	}
	return rows;
}

unsigned int lease_rows(const char *bdf)
{
	char *text = read_leases(bdf);
	unsigned int rows = count_rows(text);

	free(text);
	return rows;
}

unsigned int leases_alive(void)
{
	unsigned int rows = 0;
	glob_t found;

	if (glob(DEBUGFS "/barlease/*/leases", 0, NULL, &found))
		return 0;
	for (size_t i = 0; i < found.gl_pathc; i++) {
		char *text = read_file(found.gl_pathv[i]);

		rows += count_rows(text);
		free(text);
	}
	globfree(&found);
	return rows;
}

char *lease_row(const char *bdf, uint64_t id)
{
	char *text = read_leases(bdf), *row = NULL, *rest = text;

	for (char *line; !row && (line = strsep(&rest, "\n"));)
		if (is_row(line) && strtoull(line, NULL, 0) == id)
			row = strdup(line);
	free(text);
	return row;
}

void trace_start(void)
{
	write_file(TRACEFS "/tracing_on", "1");
	write_file(EVENTS, "1");
	/* Opening it for writing with O_TRUNC is what empties the buffer. */
	close((int)CHECK_OK(open(TRACEFS "/trace", O_WRONLY | O_TRUNC)));
}

char *trace_stop(void)
{
	write_file(EVENTS, "0");
	return read_file(TRACEFS "/trace");
}

struct counter counter_start(const char *system, const char *event)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_TRACEPOINT,
					.size = sizeof(attr) };
	struct counter counter = { .count = get_nprocs() };
	char path[128], *id;

	snprintf(path, sizeof(path), TRACEFS "/events/%s/%s/id", system, event);
	id = read_file(path);
	attr.config = strtoull(id, NULL, 0);
	free(id);
	CHECK(counter.count <= MOST_CPUS);
	for (int cpu = 0; cpu < counter.count; cpu++)
		counter.fds[cpu] = (int)CHECK_OK(syscall(
			SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC));
	return counter;
}

uint64_t counter_stop(struct counter *counter)
{
	uint64_t sum = 0, count;

	for (int cpu = 0; cpu < counter->count; cpu++) {
		CHECK_EQ(read(counter->fds[cpu], &count, sizeof(count)), sizeof(count));
		close(counter->fds[cpu]);
		sum += count;
	}
	return sum;
}

unsigned int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int count = 0;

	CHECK(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

long thread_faults(void)
{
	struct rusage usage;

	CHECK_OK(getrusage(RUSAGE_THREAD, &usage));
	return usage.ru_minflt + usage.ru_majflt;
}

struct ptwalk page_entry(const void *at)
{
	static int fd = -1;
	struct ptwalk walk = { .address = (uintptr_t)at };

	if (fd < 0) {
		if (access("/dev/" PTWALK_DEVICE, F_OK))
			CHECK_OK(load_file("PTWALK_KO", ""));
		fd = (int)CHECK_OK(open("/dev/" PTWALK_DEVICE, O_RDONLY | O_CLOEXEC));
	}
	CHECK_OK(ioctl(fd, PTWALK_IOCTL, &walk));
	return walk;
}
