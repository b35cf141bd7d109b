/* SPDX-License-Identifier: MIT */
/*
 * actor.h - the other processes of the demo, from the conductor's side: started
 * as some user, told a command, heard, waited for. No wait is without an end.
 */
#ifndef ACTOR_H
#define ACTOR_H

#include <stddef.h>
#include <sys/types.h>

#define ANSWER_SIZE 128

struct actor {
	const char *name; /* for the reader: "lessee A" */
	pid_t pid;
	int pidfd;
	int commands; /* a pipe to its standard input */
	int answers;  /* a pipe from its standard output */
};

/*
 * Start a program of the conductor's own directory as uid, with one argument or
 * NULL. -1: errno.
 */
int actor_start(struct actor *actor, const char *name, const char *program,
		const char *arg, uid_t uid);

/*
 * Send it a command, hear the answer. -1: there is none, and the text says why;
 * nothing more is to be had from this actor.
 */
void actor_tell(struct actor *actor, const char *command);
int actor_hear(struct actor *actor, char answer[ANSWER_SIZE]);

/* End its commands and wait for its exit: "exit 0", or how else it ended. */
void actor_finish(struct actor *actor, char how[ANSWER_SIZE]);

/* If it still lives: kill it. */
void actor_kill(struct actor *actor);

#endif /* ACTOR_H */
