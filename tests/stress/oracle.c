// SPDX-License-Identifier: MIT
/*
 * oracle.c - what an access may see.
 */
#include "oracle.h"

bool oracle_dead(struct identity id, struct moment at)
{
	enum lease_state state = lease_state(at.lease);

	return at.lease >> 8 != id.export || state == LEASE_REVOKED ||
	       state == LEASE_FREE || device_opening(at.device) != id.opening;
}

bool oracle_alive(struct identity id, struct moment at)
{
	return !oracle_dead(id, at) && lease_state(at.lease) == LEASE_LIVE &&
	       !(device_flags(at.device) & DEVICE_CHANGING);
}

unsigned int oracle_access(struct identity id, struct moment before,
			   struct moment after)
{
	unsigned int flags = device_flags(before.device);

	/* Whatever else happened meanwhile. */
	if (oracle_dead(id, before))
		return GONE;

	/* Two things race, or one is under way: either. */
	if (before.lease != after.lease || before.device != after.device ||
	    !oracle_alive(id, before)) {
		flags |= device_flags(after.device);
		/* Pulled out and put back in between, it has been opened anew. */
		if (flags & DEVICE_REMOVED ||
		    (flags & DEVICE_PULLABLE &&
		     device_opening(after.device) != id.opening))
			return RIGHT | GONE | VANISHED;
		return RIGHT | GONE;
	}

	if (flags & DEVICE_REMOVED)
		return RIGHT | GONE | VANISHED;
	return flags & DEVICE_OFF ? GONE : RIGHT;
}

bool oracle_sure(unsigned int may)
{
	return (may & (may - 1)) == 0;
}
