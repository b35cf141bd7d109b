// SPDX-License-Identifier: MIT
/* script.c - the command loop that lessor and lessees share. */
#define _GNU_SOURCE
#include "script.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void answer(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

void answer_errno(void)
{
	answer("%s (%s)", strerrorname_np(errno), strerrordesc_np(errno));
}

void answer_result(int result, const char *word)
{
	if (result == 0)
		answer("%s", word);
	else
		answer_errno();
}

void play(const struct command *commands)
{
	char line[256];

	while (fgets(line, sizeof(line), stdin)) {
		const struct command *command = commands;
		char *args;

		line[strcspn(line, "\n")] = '\0';
		args = line + strcspn(line, " ");
		if (*args)
			*args++ = '\0';
		while (command->name && strcmp(command->name, line) != 0)
			command++;
		if (command->name)
			command->run(args);
		else
			answer("does not know how to %s", line);
	}
}

void format_size(char *text, size_t size, unsigned long long bytes)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB" };
	size_t unit = 0;

	while (unit < 3 && bytes && bytes % 1024 == 0) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, size, "%llu %s", bytes, units[unit]);
}
