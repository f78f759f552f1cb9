/* EXPECT: 33 */
/* A page directory that is its own page table, in two slots; entries change through the self-map, with INVLPG. */
#include "bare.inc"
	.set DIRECTORY, 0x200000
test:
	mov edi, DIRECTORY
	mov ecx, 1024
	xor eax, eax
	rep stosd
	mov dword ptr [DIRECTORY], 0x83
	mov dword ptr [DIRECTORY + 1023 * 4], DIRECTORY | 3
	mov dword ptr [DIRECTORY + 512 * 4], DIRECTORY | 3
	mov eax, cr4
	or eax, 0x10
	mov cr4, eax
	mov eax, DIRECTORY
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80010000
	mov cr0, eax
	/* The directory as its own last page. */
	mov eax, [0xfffff000 + 1023 * 4]
	and eax, ~0x60
	cmp eax, DIRECTORY | 3
	jne wrong
	/* Seen through slot 512 its entry 1023 is a page again: the directory. */
	mov eax, [0x80000000 + 1023 * 4096 + 512 * 4]
	and eax, ~0x60
	cmp eax, DIRECTORY | 3
	jne wrong
	/* Map 0x300000 at slot 768 as page by writing a table through the self-map, then move it. */
	mov dword ptr [0x300000], 0x11111111
	mov dword ptr [0x301000], 0x22222222
	mov dword ptr [0xfffff000 + 768 * 4], 0x240003
	mov dword ptr [0xffc00000 + 768 * 4096], 0x300003
	cmp dword ptr [0xc0000000], 0x11111111
	jne wrong
	mov dword ptr [0xffc00000 + 768 * 4096], 0x301003
	invlpg [0xc0000000]
	cmp dword ptr [0xc0000000], 0x22222222
	jne wrong
	/* A thousand times: move, invalidate, look. */
	mov ecx, 1000
1:	mov eax, 0x300003
	test cl, 1
	jz 2f
	mov eax, 0x301003
2:	mov [0xffc00000 + 768 * 4096], eax
	invlpg [0xc0000000]
	mov ebx, [0xc0000000]
	mov edx, 0x11111111
	test cl, 1
	jz 3f
	mov edx, 0x22222222
3:	cmp ebx, edx
	jne wrong
	loop 1b
	debug_exit 0x10
wrong:
	debug_exit 0x11
