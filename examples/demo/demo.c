// SPDX-License-Identifier: MIT
/*
 * demo.c - the conductor: has a lessor and three lessees played by processes of
 * their own, and compares what each of them sees with what it should see.
 *
 * It writes to the device's BAR 2, so it takes nothing but QEMU's ivshmem,
 * whose BAR 2 is plain memory.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "actor.h"
#include "story.h"

#define IVSHMEM "0x1af4 0x1110"

static struct actor lessor = { .pidfd = -1 };
static struct actor lessees[LESSEES] = { { .pidfd = -1 },
					 { .pidfd = -1 },
					 { .pidfd = -1 } };
static struct actor *const a = &lessees[0], *const b = &lessees[1],
			   *const c = &lessees[2];

static char dir[] = "/tmp/barlease-demo.XXXXXX";
static char socket_path[sizeof(dir) + sizeof("/socket")];

static int steps, failures;
static bool colours;

static void clean_up(void)
{
	actor_kill(&lessor);
	for (int i = 0; i < LESSEES; i++)
		actor_kill(&lessees[i]);
	unlink(socket_path);
	rmdir(dir);
}

__attribute__((noreturn)) static void end(void)
{
	if (failures)
		printf("\n%d of %d steps were not as expected.\n", failures, steps);
	else
		printf("\nAll %d steps were as expected.\n", steps);
	exit(failures ? EXIT_FAILURE : EXIT_SUCCESS);
}

__attribute__((noreturn)) static void give_up(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

static void scene(const char *title)
{
	printf("\n%s%s%s\n", colours ? "\033[1m" : "", title, colours ? "\033[m" : "");
}

/* What an answer adds in parentheses is for the reader alone. */
static bool matches(const char *seen, const char *expected)
{
	size_t len = strlen(expected);

	return strncmp(seen, expected, len) == 0 &&
	       (seen[len] == '\0' || strncmp(seen + len, " (", 2) == 0);
}

static void show(const struct actor *actor, const char *does, const char *expected,
		 const char *seen)
{
	bool ok = matches(seen, expected);
	const char *on = !colours ? "" : ok ? "\033[32m" : "\033[1;31m";

	printf("%s%s%s %2d %-8s %-38s expected: %-23s seen: %s\n", on,
	       ok ? "[ok]  " : "[FAIL]", colours ? "\033[m" : "", ++steps, actor->name,
	       does, expected, seen);
	fflush(stdout);
	failures += !ok;
}

static void hear(struct actor *actor, const char *does, const char *expected)
{
	char seen[ANSWER_SIZE];
	int gone = actor_hear(actor, seen);

	show(actor, does, expected, seen);
	if (gone)
		end();
}

/* One step: tell an actor a command, and compare its answer. */
__attribute__((format(printf, 4, 5))) static void step(struct actor *actor,
						       const char *does,
						       const char *expected,
						       const char *command, ...)
{
	char line[256];
	va_list args;

	va_start(args, command);
	vsnprintf(line, sizeof(line), command, args);
	va_end(args);
	actor_tell(actor, line);
	hear(actor, does, expected);
}

/* Ask for something that is needed in a later step. */
static void ask(struct actor *actor, const char *command, char seen[ANSWER_SIZE])
{
	actor_tell(actor, command);
	if (actor_hear(actor, seen)) {
		show(actor, command, "an answer", seen);
		end();
	}
}

static void step_exit(struct actor *actor, const char *does)
{
	char how[ANSWER_SIZE];

	actor_finish(actor, how);
	show(actor, does, "exit 0", how);
}

static void start_actors(void)
{
	static const char *const names[LESSEES] = { "lessee A", "lessee B",
						    "lessee C" };

	if (actor_start(&lessor, "lessor", "lessor", NULL, 0))
		give_up("lessor");
	for (int i = 0; i < LESSEES; i++)
		if (actor_start(&lessees[i], names[i], "lessee", slices[i].name,
				slices[i].uid))
			give_up(names[i]);
}

static void take_the_device(const char *bdf)
{
	char group[ANSWER_SIZE], user[32], opens[64];

	scene("The lessor opens the device. The lessees are ordinary users, who cannot.");
	step(&lessor, "opens the device, whose BAR 2 has", "1 GiB", "open %s", bdf);
	ask(&lessor, "group", group);
	snprintf(opens, sizeof(opens), "opens the device's node /dev/vfio/%.8s", group);
	for (int i = 0; i < LESSEES; i++) {
		snprintf(user, sizeof(user), "uid %d, no capability",
			 (int)slices[i].uid);
		step(&lessees[i], "runs as", user, "who");
		step(&lessees[i], opens, "EACCES", "open /dev/vfio/%s", group);
	}
}

static void give_leases(void)
{
	static const char *const what[LESSEES] = {
		"64 MiB, read-write",
		"64 MiB, read-only",
		"76 KiB, read-write",
	};
	char user[16];

	scene("The lessor leases 64 MiB to A, the same to B to read, two ranges to C.");
	step(&lessor, "exports", "3 leases", "export");
	step(&lessor, "takes requests at a Unix socket", "listening", "listen %s",
	     socket_path);
	for (int i = 0; i < LESSEES; i++) {
		snprintf(user, sizeof(user), "uid %d", (int)slices[i].uid);
		actor_tell(&lessor, "serve");
		step(&lessees[i], "asks at the socket and gets", what[i], "ask %s",
		     socket_path);
		hear(&lessor, "has given that lease to", user);
		step(&lessees[i], "maps it", "mapped", "map");
	}
}

static void try_a(void)
{
	scene("A can read and write its slice, and reaches nothing else.");
	step(a, "reads the label of each page, finds", "16384 right pages", "labels");
	step(&lessor, "counts for that (huge pages of 2 MiB)", "32 faults", "faults A");
	step(a, "stores 0xa11ce", "stored", "store 8 0xa11ce");
	step(&lessor, "reads the BAR at 256 MiB + 8", "0xa11ce", "word 0x10000008");
	step(a, "maps the page after its last", "EINVAL", "mmap r 0x4000000");
	step(a, "maps a page for executing", "EPERM", "mmap rx 0");
}

static void try_b(void)
{
	scene("B sees the same pages, and cannot change them.");
	step(b, "reads the label of each page, finds", "16384 right pages", "labels");
	step(b, "loads what A has stored", "0xa11ce", "load 8");
	step(b, "maps a page for writing", "EACCES", "mmap rw 0");
	step(b, "makes its mapping writable", "EACCES", "mprotect rw");
	step(b, "makes its mapping executable", "EACCES", "mprotect rx");
	step(b, "opens its lease anew, for writing", "EACCES", "reopen");
}

static void try_c(void)
{
	scene("C has two ranges end to end: 12 KiB at 512 MiB, 64 KiB at 768 MiB.");
	step(c, "reads the label of each page, finds", "19 right pages", "labels");
	step(c, "maps across the seam, sees the pages", "0x20005000, 0x30000000",
	     "seam 0x3000");
	step(c, "stores 0xc0ffee in its last page", "stored", "store 0x12008 0xc0ffee");
	step(&lessor, "reads the BAR at 768 MiB + 60 KiB + 8", "0xc0ffee",
	     "word 0x3000f008");
	step(c, "maps the page after its last", "EINVAL", "mmap rw 0x13000");
}

static void revoke_a(void)
{
	char faults_b[ANSWER_SIZE], faults_c[ANSWER_SIZE];

	scene("The lessor takes A's lease back while A stores and B and C read.");
	step(b, "reads all its pages in a loop", "reading", "loop-load");
	step(c, "reads all its pages in a loop", "reading", "loop-load");
	step(a, "stores a growing number in a loop", "storing", "loop-store");
	step(&lessor, "watches that word in the BAR", "it changes", "watch");
	ask(&lessor, "faults B", faults_b);
	ask(&lessor, "faults C", faults_c);
	step(&lessor, "revokes A's lease", "revoked", "revoke A");
	step(a, "gets", "SIGBUS", "await-sigbus");
	step(a, "tries to go on storing, and gets", "only SIGBUS", "retry");
	step(&lessor, "finds that word since the revoke", "unchanged", "compare-word");
	step(a, "maps its lease again", "ENODEV", "mmap rw 0");
	step(b, "reads on, and has had", "0 SIGBUS, 0 wrong", "keep-on");
	step(c, "reads on, and has had", "0 SIGBUS, 0 wrong", "keep-on");
	step(&lessor, "counts for B, as before", faults_b, "faults B");
	step(&lessor, "counts for C, as before", faults_c, "faults C");
}

static void reset_device(void)
{
	scene("The lessor resets the device under B and C.");
	step(&lessor, "resets the device", "reset", "reset");
	step(b, "reads on, and has had", "0 SIGBUS, 0 wrong", "keep-on");
	step(c, "reads on, and has had", "0 SIGBUS, 0 wrong", "keep-on");
	step(&lessor, "counts for B, as its pages came back", "new faults",
	     "compare-faults B");
	step(&lessor, "counts for C, as its pages came back", "new faults",
	     "compare-faults C");
}

static void close_device(void)
{
	scene("The lessor exits, and its leases end with it.");
	step_exit(&lessor, "exits");
	step(b, "gets", "SIGBUS", "await-sigbus");
	step(c, "gets", "SIGBUS", "await-sigbus");
	step(b, "tries to go on reading, and gets", "only SIGBUS", "retry");
	step(c, "tries to go on reading, and gets", "only SIGBUS", "retry");
	step(b, "maps its lease again", "ENODEV", "mmap r 0");
	step(c, "maps its lease again", "ENODEV", "mmap r 0");
	for (int i = 0; i < LESSEES; i++)
		step_exit(&lessees[i], "has lived through all this, and exits");
}

static void read_id(const char *bdf, const char *which, char id[16])
{
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf, which);
	file = fopen(path, "re");
	if (!file || !fgets(id, 16, file))
		give_up(path);
	fclose(file);
	id[strcspn(id, "\n")] = '\0';
}

static bool is_ivshmem(const char *bdf)
{
	char vendor[16], device[16], id[33];

	read_id(bdf, "vendor", vendor);
	read_id(bdf, "device", device);
	snprintf(id, sizeof(id), "%s %s", vendor, device);
	return strcmp(id, IVSHMEM) == 0;
}

int main(int argc, char *argv[])
{
	if (argc != 2) {
		fprintf(stderr, "Usage: %s DOMAIN:BUS:DEVICE.FUNCTION\n", argv[0]);
		return 2;
	}
	if (!is_ivshmem(argv[1])) {
		fprintf(stderr, "%s: %s is not QEMU's ivshmem\n", argv[0], argv[1]);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	colours = isatty(STDOUT_FILENO);
	if (!mkdtemp(dir) || chmod(dir, 0755))
		give_up(dir);
	snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
	atexit(clean_up);

	printf("One PCI device (%s), its owner, and three unprivileged users\n",
	       argv[1]);
	start_actors();
	take_the_device(argv[1]);
	give_leases();
	try_a();
	try_b();
	try_c();
	revoke_a();
	reset_device();
	close_device();
	end();
}
