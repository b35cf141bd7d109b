/* SPDX-License-Identifier: MIT */
/*
 * owner.h - the lessor's calls.
 */
#ifndef OWNER_H
#define OWNER_H

#include "world.h"

void owner_init(void);
/* Before each input. */
void owner_begin(void);

int op_range(const struct record *r);
int op_export(const struct record *r);
int op_revoke(const struct record *r);
int op_memattr(const struct record *r);
int op_info(const struct record *r);
int op_list(const struct record *r);
int op_unknown(const struct record *r);
int op_decoding(const struct record *r);
int op_sleep(const struct record *r);
int op_reset(const struct record *r);
int op_reopen(const struct record *r);

#endif /* OWNER_H */
