/* What the host's kernel lets us use. Apart from the rest, for <sys/auxv.h> has names that
 * x86/arch.h has, too. */
#include "engine/trans/host_cpu.h"

#include <sys/auxv.h>

#define HWCAP2_FSGSBASE_BIT 2ul

bool host_has_fsgsbase(void)
{
	return (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT) != 0;
}
