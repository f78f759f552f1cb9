/* EXPECT: 33 "marked" --timeout 30 */
/* KVM: protected mode, ports */
/* A region of interest by marks: CPUID 474e4f4dh with ecx 1 and 2, and a loop between them. */
#include "bare.inc"
	.set MARK, 0x474e4f4d
test:
	mov eax, MARK
	mov ecx, 1
	cpuid
	mov ecx, 1000
1:	inc dword ptr [count]
	loop 1b
	mov eax, MARK
	mov ecx, 2
	cpuid
	say text
	debug_exit 0x10
text:
	.asciz "marked\n"
	.section .data
count:	.long 0
