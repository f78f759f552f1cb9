/* EXPECT: 33 "tick" --timeout 30 */
/* The PIT through the PIC, hlt between: ten ticks arrive and none is lost. */
#include "bare.inc"
test:
	lea edi, [big_idt + 0x20 * 8]
	lea eax, [on_tick]
	mov word ptr [edi], ax
	mov ax, cs
	mov word ptr [edi + 2], ax
	mov word ptr [edi + 4], 0x8e00
	lea eax, [on_tick]
	shr eax, 16
	mov word ptr [edi + 6], ax
	lidt [big_idt_pointer]
	/* both PICs: vectors 0x20 and 0x28, only IRQ 0 open */
	mov al, 0x11
	out 0x20, al
	out 0xa0, al
	mov al, 0x20
	out 0x21, al
	mov al, 0x28
	out 0xa1, al
	mov al, 4
	out 0x21, al
	mov al, 2
	out 0xa1, al
	mov al, 1
	out 0x21, al
	out 0xa1, al
	mov al, 0xfe
	out 0x21, al
	mov al, 0xff
	out 0xa1, al
	/* channel 0, rate generator, about 1 kHz */
	mov al, 0x34
	out 0x43, al
	mov al, 0xa9
	out 0x40, al
	mov al, 0x04
	out 0x40, al
	sti
1:	hlt
	cmp dword ptr [ticks], 10
	jb 1b
	cli
	say text
	debug_exit 0x10
on_tick:
	push eax
	inc dword ptr [ticks]
	mov al, 0x20
	out 0x20, al
	pop eax
	iret
text:
	.asciz "tick\n"
	.section .data
ticks:	.long 0
big_idt_pointer:
	.word 0x30 * 8 - 1
	.long big_idt
	.align 16
big_idt:
	.fill 0x30 * 8, 1, 0
