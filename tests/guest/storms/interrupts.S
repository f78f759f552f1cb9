/* Each interrupt sends the next before it ends, and a timer of one tick another. */
#include "../bare/bare.inc"
	.set APIC, 0xfee00000
	.macro gate32 vector, label
	lea eax, [\label]
	mov [table + \vector * 8], ax
	mov word ptr [table + \vector * 8 + 2], cs
	mov word ptr [table + \vector * 8 + 4], 0x8e00
	shr eax, 16
	mov [table + \vector * 8 + 6], ax
	.endm
test:
	gate32 0x40, on_message
	gate32 0x41, on_tick
	gate32 0xff, on_spurious
	lidt [table_pointer]
	mov al, 0xff
	out 0x21, al
	out 0xa1, al
	mov dword ptr [APIC + 0xf0], 0x1ff
	mov dword ptr [APIC + 0x3e0], 0xb
	mov dword ptr [APIC + 0x320], 0x20041
	mov dword ptr [APIC + 0x380], 1
	say ready
	mov dword ptr [APIC + 0x300], 0x44040
	sti
1:	hlt
	jmp 1b
on_message:
	mov dword ptr [APIC + 0xb0], 0
	mov dword ptr [APIC + 0x310], 0
	mov dword ptr [APIC + 0x300], 0x44040
	iretd
on_tick:
	mov dword ptr [APIC + 0xb0], 0
on_spurious:
	iretd
	.section .data
ready:	.asciz "ready\n"
table_pointer:
	.word 256 * 8 - 1
	.long table
	.section .bss
	.align 16
table:	.skip 256 * 8
