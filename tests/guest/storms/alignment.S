/* A user's instruction that is not aligned (#AC), and a handler that returns to it, for ever. */
#include "../bare/bare.inc"
test:
	lgdt [gdt_pointer]
	jmp 8:1f
1:	catch_exceptions
	mov eax, 0x10
	mov ss, eax
	mov eax, 0x23
	mov ds, eax
	mov es, eax
	lea eax, [tss]
	mov [gdt + 0x2a], ax
	shr eax, 16
	mov [gdt + 0x2c], al
	lea eax, [stack_top]
	mov [tss + 4], eax
	mov eax, 0x28
	ltr ax
	mov eax, cr0
	or eax, 0x40000		/* AM */
	mov cr0, eax
	say ready
	push 0x23
	lea eax, [stack_top - 8192]
	push eax
	push 0x40002		/* EFLAGS.AC */
	push 0x1b
	lea eax, [2f]
	push eax
	iretd
2:	mov eax, [stack_top - 8192 + 1]
	jmp 2b
on_exception:
	add esp, 8
	iretd
	exception_stubs
	.section .data
ready:	.asciz "ready\n"
	.align 8
gdt:	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff, 0x0000890000000067
gdt_pointer:
	.word 6 * 8 - 1
	.long gdt
tss:	.long 0, 0, 0x10
	.fill 23, 4, 0
