/* EXPECT: 4 */
/* CR3 in the local APIC's page. */
#include "bare.inc"
test:
	mov eax, 0xfee00000
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80000000
	mov cr0, eax
	debug_exit 1
