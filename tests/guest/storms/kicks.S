/*
 * OPTIONS: --device rng,transport=mmio,packed=off
 * A device (virtio-mmio, entropy) that is kicked after every buffer and between them, without waiting for an answer.
 */
#include "../bare/bare.inc"
	.set DEVICE, 0xfea00000
	.set DESCRIPTORS, 0x200000
	.set AVAILABLE, 0x201000
	.set USED, 0x202000
	.set BUFFER, 0x203000
	.set ENTRIES, 8
	.macro set register, value
	mov dword ptr [DEVICE + \register], \value
	.endm
test:
	set 0x70, 0		/* status */
	set 0x70, 3		/* ACKNOWLEDGE, DRIVER */
	set 0x24, 1
	set 0x20, 1		/* VERSION_1 */
	set 0x24, 0
	set 0x20, 0
	set 0x70, 11		/* FEATURES_OK */
	set 0x30, 0
	set 0x38, ENTRIES
	set 0x80, DESCRIPTORS
	set 0x84, 0
	set 0x90, AVAILABLE
	set 0x94, 0
	set 0xa0, USED
	set 0xa4, 0
	set 0x44, 1
	set 0x70, 15		/* DRIVER_OK */
	cmp dword ptr [DEVICE + 0x70], 15
	jne wrong
	xor ecx, ecx
1:	mov edi, ecx
	shl edi, 4
	mov dword ptr [DESCRIPTORS + edi], BUFFER
	mov dword ptr [DESCRIPTORS + edi + 8], 64
	mov dword ptr [DESCRIPTORS + edi + 12], 2
	mov [AVAILABLE + 4 + ecx * 2], cx
	inc ecx
	cmp ecx, ENTRIES
	jb 1b
	say ready
2:	mov ax, [USED + 2]
	add ax, ENTRIES
	mov [AVAILABLE + 2], ax
	mov ecx, 100
3:	set 0x50, 0
	set 0x50, 0xffff
	loop 3b
	test dword ptr [DEVICE + 0x70], 0x40	/* NEEDS_RESET: we did nothing wrong */
	jz 2b
wrong:
	debug_exit 1
	.section .data
ready:	.asciz "ready\n"
