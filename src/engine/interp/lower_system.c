/*
 * The lowering's entrance to the system instructions: each file knows its own.
 */
#include "engine/interp/system.h"

bool lower_system(struct lowering *l)
{
	return lower_segments(l) || lower_far(l) || lower_returns(l) || lower_control(l) ||
	       lower_privileged(l) || lower_flags(l) || lower_port(l);
}
