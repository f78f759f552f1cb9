/* A page table written as fast as can be, each entry looked through once and left without INVLPG every second time. */
#include "../bare/bare.inc"
	.set DIRECTORY, 0x200000
	.set TABLE, 0x201000
	.set WINDOW, 0x40000000
	.set FIRST, 0x400000
test:
	mov edi, DIRECTORY
	mov ecx, 2048
	xor eax, eax
	rep stosd
	mov dword ptr [DIRECTORY], 0x83
	mov dword ptr [DIRECTORY + 4], 0x400083
	mov dword ptr [DIRECTORY + 8], 0x800083
	mov dword ptr [DIRECTORY + 256 * 4], TABLE | 7
	/* Each page begins with its own address. */
	mov edi, FIRST
1:	mov [edi], edi
	add edi, 0x1000
	cmp edi, 0xc00000
	jb 1b
	mov eax, cr4
	or eax, 0x10
	mov cr4, eax
	mov eax, DIRECTORY
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80010000
	mov cr0, eax
	say ready
	xor ecx, ecx
2:	inc ecx
	mov eax, ecx
	and eax, 0x7ff
	shl eax, 12
	add eax, FIRST
	mov ebx, ecx
	and ebx, 0x3ff
	mov edx, eax
	or edx, 7
	mov [TABLE + ebx * 4], edx
	test ecx, 1
	jz 2b
	shl ebx, 12
	invlpg [WINDOW + ebx]
	cmp [WINDOW + ebx], eax
	je 2b
	debug_exit 1
	.section .data
ready:	.asciz "ready\n"
