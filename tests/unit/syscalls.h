/* SPDX-License-Identifier: MIT */
/*
 * syscalls.h - between the library and the kernel: syscall(), by which handlers alone
 * map. The linker puts this before it (--wrap=syscall).
 */
#ifndef SYSCALLS_H
#define SYSCALLS_H

#include <stdarg.h>
#include <stdbool.h>
#include <sys/syscall.h>

/* The program's: it may wait, or change them. false with errno set: it fails. */
static bool on_syscall(long number, long args[6]);

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);

long __wrap_syscall(long number, ...)
{
	/* More there are not, in the other calls. */
	const int nr = number == SYS_mmap || number == SYS_futex ? 6 : 4;
	va_list args;
	long a[6] = { 0 };

	va_start(args, number);
	for (int i = 0; i < nr; i++)
		a[i] = va_arg(args, long);
	va_end(args);
	if (!on_syscall(number, a))
		return -1;
	return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

#endif /* SYSCALLS_H */
