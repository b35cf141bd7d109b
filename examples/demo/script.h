/* SPDX-License-Identifier: MIT */
/*
 * script.h - how lessor and lessees are played: each reads commands from its
 * standard input, a line each, and answers on its standard output, a line each.
 */
#ifndef SCRIPT_H
#define SCRIPT_H

#include <stddef.h>

struct command {
	const char *name;
	void (*run)(char *args);
};

/* Obey until the input ends. The last command has no name. */
void play(const struct command *commands);

/*
 * The answer to a command: what this process saw. What stands in parentheses
 * at its end is detail that nobody compares.
 */
__attribute__((format(printf, 1, 2))) void answer(const char *format, ...);

/* Answer with the name of the current errno, and what it means in parentheses. */
void answer_errno(void);

/* Answer with a word when a call went well (0), else with errno's name. */
void answer_result(int result, const char *word);

/* "64 MiB" */
void format_size(char *text, size_t size, unsigned long long bytes);

#endif /* SCRIPT_H */
