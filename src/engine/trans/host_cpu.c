/* What the host's kernel lets us use. Apart from the rest, for <sys/auxv.h> has names that
 * x86/arch.h has, too. */
#include "engine/trans/host_cpu.h"

#include <asm/prctl.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HWCAP2_FSGSBASE_BIT 2ul

bool host_has_fsgsbase(void)
{
	return (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT) != 0;
}

uint64_t host_gs_base(void)
{
	uint64_t base = 0;
	syscall(SYS_arch_prctl, ARCH_GET_GS, &base);
	return base;
}

void host_set_gs_base(uint64_t base)
{
	syscall(SYS_arch_prctl, ARCH_SET_GS, base);
}
