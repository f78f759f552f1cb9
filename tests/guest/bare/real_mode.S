/* EXPECT: 103 "real" */
/* KVM: protected mode, ports, real mode */
/* Down to real mode and through the interrupt table there: 16-bit code, segments, string instructions. */
#include "bare.inc"
test:
	lea esi, [real_begin]
	mov edi, 0x7000
	mov ecx, OFFSET real_end - real_begin
	rep movsb
	lgdt [gdt_pointer]
	jmp 0x18:to_16
gdt:
	.quad 0
	.quad 0x00cf9a000000ffff
	.quad 0x00cf92000000ffff
	.quad 0x00009a000000ffff
	.quad 0x000092000000ffff
gdt_pointer:
	.word 5 * 8 - 1
	.long gdt
	.section .text
	.set to_16, 0x7000
	.code16
real_begin:
	mov ax, 0x20
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov fs, ax
	mov gs, ax
	mov eax, cr0
	and al, 0xfe
	mov cr0, eax
	.byte 0xea
	.word 0x7000 + real_entry - real_begin, 0
real_entry:
	xor ax, ax
	mov ds, ax
	mov es, ax
	mov ss, ax
	mov sp, 0x6ff0
	lidt [0x7000 + ivt_pointer - real_begin]
	mov word ptr [0x60 * 4], 0x7000 + handler - real_begin
	mov word ptr [0x60 * 4 + 2], 0
	mov word ptr [0], 0x7000 + on_divide - real_begin
	mov word ptr [2], 0
	/* "real" through an interrupt, a byte a call */
	mov si, 0x7000 + text - real_begin
1:	lodsb
	test al, al
	jz 2f
	int 0x60
	jmp 1b
2:	/* segment arithmetic: 0x1000:0x0010 and 0x1001:0x0000 are one byte */
	mov ax, 0x1000
	mov es, ax
	mov byte ptr es:[0x10], 0x5a
	mov ax, 0x1001
	mov es, ax
	cmp byte ptr es:[0], 0x5a
	jne bad
	/* a divide error comes back through vector 0 */
	xor cx, cx
	mov ax, 1
	xor dx, dx
	div cx
	cmp bx, 0x1234
	jne bad
	mov al, 0x33
	out 0xf4, al
bad:
	mov al, 0x34
	out 0xf4, al
3:	hlt
	jmp 3b
handler:
	push dx
	mov dx, 0x3f8
	out dx, al
	pop dx
	iret
on_divide:
	push bp
	mov bp, sp
	add word ptr [bp + 2], 2
	mov bx, 0x1234
	pop bp
	iret
ivt_pointer:
	.word 0x3ff
	.long 0
text:
	.asciz "real\n"
real_end:
	.code32
