/* SPDX-License-Identifier: MIT */
/* sigbus.h - the library's handler of SIGBUS. */
#ifndef BARLEASE_SIGBUS_H
#define BARLEASE_SIGBUS_H

/* Install it; once is enough. One thread at a time. Returns 0, or -1 with errno. */
int barlease_sigbus_install(void);

#endif /* BARLEASE_SIGBUS_H */
