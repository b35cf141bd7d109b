// SPDX-License-Identifier: MIT
/* actor.c - processes, pipes and patience. */
#define _GNU_SOURCE
#include "actor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* Longer than any wait of an actor's own. */
#define PATIENCE_MS 20000

/*
 * Opened before the user changes, as the build directory may be closed to
 * others.
 */
static int open_program(const char *name)
{
	char path[4096];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
	size_t room;

	if (len < 0)
		return -1;
	path[len] = '\0';
	len = strrchr(path, '/') + 1 - path;
	room = sizeof(path) - len;
	if ((size_t)snprintf(path + len, room, "%s", name) >= room) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return open(path, O_PATH | O_CLOEXEC);
}

__attribute__((noreturn)) static void become(int program, char *const argv[], uid_t uid,
					     int in, int out)
{
	if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0 &&
	    (uid == 0 || (setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
			  setresuid(uid, uid, uid) == 0)))
		fexecve(program, argv, environ);
	perror(argv[0]);
	_exit(127);
}

int actor_start(struct actor *actor, const char *name, const char *program,
		const char *arg, uid_t uid)
{
	char *argv[] = { (char *)program, (char *)arg, NULL };
	int commands[2], answers[2], fd = open_program(program);

	*actor = (struct actor){ .name = name, .pidfd = -1 };
	if (fd < 0 || pipe2(commands, O_CLOEXEC) || pipe2(answers, O_CLOEXEC))
		return -1;

	actor->pid = fork();
	if (actor->pid == 0)
		become(fd, argv, uid, commands[0], answers[1]);
	close(fd);
	close(commands[0]);
	close(answers[1]);
	if (actor->pid < 0)
		return -1;

	actor->commands = commands[1];
	actor->answers = answers[0];
	actor->pidfd = pidfd_open(actor->pid, 0);
	return actor->pidfd < 0 ? -1 : 0;
}

static bool ready(int fd)
{
	struct pollfd pollfd = { .fd = fd, .events = POLLIN };

	return poll(&pollfd, 1, PATIENCE_MS) == 1;
}

void actor_tell(struct actor *actor, const char *command)
{
	/* One that is gone is noticed when it is to be heard. */
	dprintf(actor->commands, "%s\n", command);
}

int actor_hear(struct actor *actor, char answer[ANSWER_SIZE])
{
	ssize_t got;
	size_t len = 0;

	/* An answer is one short write, but nothing says that it is read as one. */
	do {
		if (!ready(actor->answers)) {
			snprintf(answer, ANSWER_SIZE, "no answer");
			return -1;
		}
		got = read(actor->answers, answer + len, ANSWER_SIZE - 1 - len);
		if (got <= 0) {
			snprintf(answer, ANSWER_SIZE, "the process is gone");
			return -1;
		}
		len += got;
	} while (answer[len - 1] != '\n' && len < ANSWER_SIZE - 1);
	answer[len] = '\0';
	answer[strcspn(answer, "\n")] = '\0';
	return 0;
}

void actor_finish(struct actor *actor, char how[ANSWER_SIZE])
{
	int status;

	close(actor->commands);
	if (!ready(actor->pidfd)) {
		snprintf(how, ANSWER_SIZE, "does not end");
		return;
	}
	waitpid(actor->pid, &status, 0);
	if (WIFEXITED(status))
		snprintf(how, ANSWER_SIZE, "exit %d", WEXITSTATUS(status));
	else
		snprintf(how, ANSWER_SIZE, "killed by %s", strsignal(WTERMSIG(status)));
	close(actor->answers);
	close(actor->pidfd);
	actor->pidfd = -1;
}

void actor_kill(struct actor *actor)
{
	if (actor->pidfd < 0)
		return;
	pidfd_send_signal(actor->pidfd, SIGKILL, NULL, 0);
	if (ready(actor->pidfd))
		waitpid(actor->pid, NULL, 0);
}
