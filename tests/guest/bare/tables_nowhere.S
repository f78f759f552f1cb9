/* EXPECT: 33 "...." --memory 64M */
/* Page tables in device memory and past the end of RAM: each access faults or reads something, and the guest goes on. */
#include "bare.inc"
	.set DIRECTORY, 0x200000
test:
	catch_exceptions stubs
	mov edi, DIRECTORY
	mov ecx, 1024
	xor eax, eax
	rep stosd
	mov dword ptr [DIRECTORY], 0x83
	mov dword ptr [DIRECTORY + 4 * 2], 0xfee00003
	mov dword ptr [DIRECTORY + 4 * 3], 0x3ffff003
	mov dword ptr [DIRECTORY + 4 * 4], 0xfffff003
	mov dword ptr [DIRECTORY + 4 * 5], 0xd0000083
	mov eax, cr4
	or eax, 0x10
	mov cr4, eax
	mov eax, DIRECTORY
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80000000
	mov cr0, eax
	mov edi, 0x800000
again:
	lea ebp, [next]
	mov eax, [edi]
	mov [edi + 4], eax
	lock inc dword ptr [edi + 8]
	movsd
	sub edi, 4
next:
	mov al, '.'
	mov dx, COM1
	out dx, al
	add edi, 0x400000
	and edi, 0xffc00000
	cmp edi, 0x1800000
	jb again
	debug_exit 0x10
on_exception:
	add esp, 8
	mov [esp], ebp
	iret
	exception_stubs
