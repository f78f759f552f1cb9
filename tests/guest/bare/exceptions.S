/* EXPECT: 33 "DUGBPO" */
/* Faults that the guest handles itself: divide, undefined, general protection, breakpoint, page, overflow. */
#include "bare.inc"
test:
	catch_exceptions stubs
	xor edx, edx
	xor ecx, ecx
	mov eax, 1
	lea ebp, [after_divide]
	div ecx
after_divide:
	lea ebp, [after_undefined]
	ud2
after_undefined:
	lea ebp, [after_protection]
	mov eax, 0xfff8
	mov ds, eax
after_protection:
	lea ebp, [after_breakpoint]
	int3
after_breakpoint:
	/* One 4 MiB page maps the code; 4 MiB is not mapped. */
	mov eax, cr4
	or eax, 0x10
	mov cr4, eax
	mov dword ptr [directory], 0x83
	lea eax, [directory]
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80000000
	mov cr0, eax
	lea ebp, [after_page]
	mov al, [0x400000]
after_page:
	mov eax, cr2
	cmp eax, 0x400000
	jne wrong
	lea ebp, [after_overflow]
	mov al, 0x7f
	add al, 1
	into
after_overflow:
	mov al, '\n'
	mov dx, COM1
	out dx, al
	debug_exit 0x10
wrong:
	debug_exit 0x11

on_exception:
	pop ebx
	pop eax
	mov al, byte ptr [letters + ebx]
	mov dx, COM1
	out dx, al
	mov [esp], ebp
	iret
	exception_stubs
	.section .data
letters:
	.ascii "D??BO?U??????GP?????????????????"
	.section .bss
	.align 4096
directory:
	.skip 4096
