/* EXPECT: 4 --memory 64M */
/* CR3 past the end of RAM: the first fetch faults, and so does everything after. */
#include "bare.inc"
test:
	mov eax, 0x70000000
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80000000
	mov cr0, eax
	debug_exit 1
