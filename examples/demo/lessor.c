// SPDX-License-Identifier: MIT
/*
 * lessor.c - owns the device: exports the leases, gives each to the uid it is
 * meant for, takes one back, resets the device, and watches the BAR through a
 * mapping of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "barlease.h"
#include "barlease_device.h"
#include "script.h"
#include "story.h"

#define CHANGE_SECONDS 3

static struct barlease_device device;
static volatile uint64_t *bar;
static int leases[LESSEES];
static int listener;

static uint64_t word_at_revoke;
static uint64_t faults_at_reset[LESSEES];

static int index_of(const char *name)
{
	return (int)(find_slice(name) - slices);
}

static volatile uint64_t *bar_word(uint64_t offset)
{
	return bar + offset / sizeof(*bar);
}

static void open_device(char *bdf)
{
	char size[32];
	void *map;

	if (barlease_device_open(&device, bdf)) {
		answer_errno();
		return;
	}
	map = mmap(NULL, device.bars[BAR].size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   device.device_fd, device.bars[BAR].offset);
	if (map == MAP_FAILED) {
		answer_errno();
		return;
	}
	bar = map;
	format_size(size, sizeof(size), device.bars[BAR].size);
	answer("%s", size);
}

static void tell_group(char *args)
{
	(void)args;
	answer("%d", device.group);
}

static void label(const struct slice *slice)
{
	for (uint64_t at = 0; at < slice_length(slice); at += PAGE_SIZE)
		*bar_word(bar_offset(slice, at)) = bar_offset(slice, at);
}

static void export_slices(char *args)
{
	(void)args;
	for (int i = 0; i < LESSEES; i++) {
		label(&slices[i]);
		leases[i] = barlease_export(device.device_fd, BAR, slices[i].ranges,
					    slices[i].nr_ranges, slices[i].access);
		if (leases[i] < 0) {
			answer_errno();
			return;
		}
	}
	answer("%d leases", LESSEES);
}

static void listen_at(char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	/* Anyone may ask: who asks is known from the kernel. */
	if (listener < 0 || bind(listener, (struct sockaddr *)&addr, sizeof(addr)) ||
	    chmod(path, 0666) || listen(listener, LESSEES))
		answer_errno();
	else
		answer("listening");
}

static int give(int sock, uid_t uid)
{
	struct barlease_info info = { .size = sizeof(info) };

	for (int i = 0; i < LESSEES; i++)
		if (slices[i].uid == uid) {
			if (barlease_get_info(device.device_fd, leases[i], &info))
				return -1;
			return barlease_send(sock, leases[i], &info);
		}
	errno = EPERM;
	return -1;
}

static void serve(char *args)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	(void)args;
	if (sock < 0) {
		answer_errno();
		return;
	}
	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len) ||
	    give(sock, peer.uid))
		answer_errno();
	else
		answer("uid %d", (int)peer.uid);
	close(sock);
}

static void show_word(char *offset)
{
	answer("0x%llx", (unsigned long long)*bar_word(strtoull(offset, NULL, 0)));
}

static volatile uint64_t *watched_word(void)
{
	return bar_word(bar_offset(&slices[0], FREE_WORD));
}

static bool changes_within(int seconds)
{
	uint64_t before = *watched_word();
	struct timespec now, end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	do {
		if (*watched_word() != before)
			return true;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < end.tv_sec);
	return false;
}

static void watch_changes(char *args)
{
	(void)args;
	answer(changes_within(CHANGE_SECONDS) ? "it changes" : "it does not change");
}

static void revoke_slice(char *name)
{
	int result = barlease_revoke(device.device_fd, leases[index_of(name)]);

	word_at_revoke = *watched_word();
	answer_result(result, "revoked");
}

/* The lessee never stores the same value twice, so equal means untouched. */
static void compare_word(char *args)
{
	unsigned long long was = word_at_revoke, is = *watched_word();

	(void)args;
	if (was == is)
		answer("unchanged (still 0x%llx)", is);
	else
		answer("changed from 0x%llx to 0x%llx", was, is);
}

static int count_faults(int i, uint64_t *faults)
{
	struct barlease_info info = { .size = sizeof(info) };

	if (barlease_get_info(device.device_fd, leases[i], &info))
		return -1;
	*faults = info.faults;
	return 0;
}

static void show_faults(char *name)
{
	uint64_t faults;

	if (count_faults(index_of(name), &faults))
		answer_errno();
	else
		answer("%llu faults", (unsigned long long)faults);
}

static void reset(char *args)
{
	(void)args;
	for (int i = 0; i < LESSEES; i++)
		if (count_faults(i, &faults_at_reset[i])) {
			answer_errno();
			return;
		}
	answer_result(barlease_device_reset(&device), "reset");
}

static void compare_faults(char *name)
{
	int i = index_of(name);
	unsigned long long was = faults_at_reset[i];
	uint64_t is;

	if (count_faults(i, &is))
		answer_errno();
	else if (is > was)
		answer("new faults (%llu more)", (unsigned long long)is - was);
	else
		answer("no new fault");
}

int main(void)
{
	static const struct command commands[] = {
		{ "open", open_device },
		{ "group", tell_group },
		{ "export", export_slices },
		{ "listen", listen_at },
		{ "serve", serve },
		{ "word", show_word },
		{ "watch", watch_changes },
		{ "revoke", revoke_slice },
		{ "compare-word", compare_word },
		{ "faults", show_faults },
		{ "reset", reset },
		{ "compare-faults", compare_faults },
		{ NULL, NULL },
	};

	play(commands);
	/* To exit is enough: the kernel closes the device and ends its leases. */
	return 0;
}
