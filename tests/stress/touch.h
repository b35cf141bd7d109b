/* SPDX-License-Identifier: MIT */
/*
 * touch.h - orders in which a lessee accesses what it has mapped. Each single
 * access is checked.
 */
#ifndef TOUCH_H
#define TOUCH_H

#include "maps.h"

/* One page, time and again. */
void touch_one(const struct view *view, uint64_t r, bool store);
/* Load from every page, or where there are many, some that have a stamp. */
void touch_all(const struct view *view);
/* Here and there, and beside. */
void touch_some(const struct view *view, uint64_t r, bool store);

#endif /* TOUCH_H */
