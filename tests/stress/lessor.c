// SPDX-License-Identifier: MIT
/*
 * lessor.c - the process that has the devices.
 */
#define _GNU_SOURCE
#include <unistd.h>

#include "access.h"
#include "lessor.h"

static pthread_t start(void *(*run)(void *), void *arg)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, run, arg))
		fail(-1, -1, "pthread_create: expected success");
	return thread;
}

void lessor_main(const struct inboxes *boxes)
{
	pthread_t threads[LEASE_THREADS + GROUP_THREADS + 1];
	int nr = 0;

	me = ACTOR_GROUP;
	access_prepare();
	devices_prepare();
	devices_open();
	leases_prepare(boxes);
	world->lessor_ready = true;
	for (uintptr_t i = 0; i < LEASE_THREADS; i++)
		threads[nr++] = start(lease_thread, (void *)i);
	for (uintptr_t i = 0; i < GROUP_THREADS; i++)
		threads[nr++] = start(group_thread, (void *)i);
	threads[nr++] = start(quiet_thread, (void *)boxes);
	while (nr)
		pthread_join(threads[--nr], NULL);

	leases_finish();
	/* With the process the devices close, and what is still alive dies. */
	for (int i = 0; i < NR_DEVICES; i++)
		device_begin((enum device)i, 0);
	_exit(0);
}
