/* EXPECT: any --timeout 60 */
/* Random values into every register of the local APIC, the I/O APIC, the HPET and the first PCI functions. */
#include "bare.inc"
	.macro storm base, bytes
	mov edi, \base
	mov ecx, (\bytes) / 4
1:	imul ebp, ebp, 1103515245
	add ebp, 12345
	mov eax, ebp
	shr eax, 1
	mov ebx, [edi]
	mov [edi], eax
	mov byte ptr [edi + 1], al
	mov bx, [edi + 2]
	add edi, 4
	loop 1b
	.endm
test:
	mov ebp, 777
	mov esi, 8
again:
	storm 0xfee00000, 0x400
	storm 0xfec00000, 0x40
	storm 0xfed00000, 0x400
	storm 0xe0000000, 0x20000
	mov ecx, 0x40
	mov edi, 0xfec00000
2:	mov [edi], cl
	imul ebp, ebp, 1103515245
	add ebp, 12345
	mov [edi + 0x10], ebp
	mov eax, [edi + 0x10]
	loop 2b
	dec esi
	jnz again
	debug_exit 0x10
