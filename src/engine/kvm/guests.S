/*
 * The self-test's guests, and those whose exits `gnomon exits` times. Each is copied to PROBE_CODE
 * (probe.h), so nothing here may depend on where it was linked: jumps are relative, far ones name
 * their place from PROBE_CODE on. A guest says that it came through by HLT with a magic in RAX.
 */
	.intel_syntax noprefix
	.section .rodata
	.set CODE, 0x1000

	.macro guest name
	.global kvm_guest_\name, kvm_guest_\name\()_end
	.balign 16
kvm_guest_\name:
	.endm
	.macro end_guest name
kvm_guest_\name\()_end:
	.endm

/* Real mode: the stack, a software interrupt through the table at 0 (its handler is this guest's
 * end), string instructions. */
	.code16
	guest real
	.att_syntax prefix /* clang's assembler takes no such sum otherwise */
	movw $(3f - kvm_guest_real + CODE), 0x80
	.intel_syntax noprefix
	mov word ptr ds:[0x82], 0
	mov ax, 0x1234
	push ax
	pop bx
	xor cx, cx
	int 0x20
	mov si, 0x700
	mov di, 0x710
	mov word ptr [si], 0x4241
	cld
	movsw
	mov ax, ds:[0x710]
	add ax, bx
	add ax, cx
	hlt
3:	inc cx
	iret
	end_guest real

/* From real mode to flat 32-bit code by a far jump, and its stack. */
	guest protected
	lgdt ds:[0x4f0]
	mov eax, cr0
	or al, 1
	mov cr0, eax
	.byte 0x66, 0xea /* jmp far, 32 bits */
	.long 4f - kvm_guest_protected + CODE
	.word 8
	.code32
4:	mov ax, 16
	mov ds, ax
	mov ss, ax
	mov esp, 0x8000
	push 0x50524f54
	call 5f
5:	pop ecx
	pop eax
	hlt
	end_guest protected

/* An exception of flat 32-bit code, through a gate, and back. */
	guest exception
	xor eax, eax
	ud2
	inc eax
	hlt
	end_guest exception

	guest exception_handler
	add dword ptr [esp], 2
	mov eax, 0x55440000
	iretd
	end_guest exception_handler

/* 32-bit paging over tables that lie ready. */
	.code32
	guest paged
	mov eax, 0x10000
	mov cr3, eax
	mov eax, cr0
	or eax, 0x80000000
	mov cr0, eax
	jmp 6f
6:	mov dword ptr ds:[0x700], 0x50414745
	mov eax, ds:[0x400700] /* the same page by another address */
	hlt
	end_guest paged

/* From flat 32-bit code to 64-bit code as kernels go: PAE, CR3, LME, PG, far jump. */
	guest long
	mov eax, cr4
	or eax, 0x20
	mov cr4, eax
	mov eax, 0x14000
	mov cr3, eax
	mov ecx, 0xc0000080
	rdmsr
	or eax, 0x100
	wrmsr
	mov eax, cr0
	or eax, 0x80000000
	mov cr0, eax
	.byte 0xea
	.long 7f - kvm_guest_long + CODE
	.word 24
	.code64
7:	mov r15, 0x4c4f4e4700000000
	lea rsp, [0x8000]
	push r15
	pop rax
	or rax, 1
	hlt
	end_guest long

/* The rest starts in 64-bit mode. */
	guest port
	in al, 0x71
	inc al
	out 0x80, al
	hlt
	end_guest port

	guest mmio
	mov ebx, 0x10000000
	mov eax, [rbx]
	inc eax
	mov [rbx + 8], eax
	hlt
	end_guest mmio

	guest hlt
	mov eax, 1
	hlt
	mov eax, 2
	hlt
	end_guest hlt

/* The page at 16 MiB is not there; the handler puts the first one there and goes on. */
	guest fault
	mov ebx, 0x1000000
	mov rax, [rbx + 0x700]
	add rax, rcx
	hlt
	end_guest fault

	guest fault_handler
	mov rcx, cr2
	pop rdx /* the error code */
	add rcx, rdx
	mov qword ptr ds:[0x16040], 0x83
	iretq
	end_guest fault_handler

	guest interrupt
	sti
8:	nop
	jmp 8b
	end_guest interrupt

	guest interrupt_handler
	mov eax, 0x494e5452
	hlt
	end_guest interrupt_handler

	guest msr
	mov ecx, 0xce
	rdmsr
	shl rdx, 32
	or rax, rdx
	inc rax
	mov rdx, rax
	shr rdx, 32
	mov ecx, 0x140
	wrmsr
	hlt
	end_guest msr

/* x87 and vector registers keep what they hold across an exit. */
	guest fpu
	fninit
	fld1
	mov rax, 0x4650550000000000
	movq xmm7, rax
	out 0x80, al
	fld1
	fcomip st, st(1)
	jne 30f
	movq rax, xmm7
	inc rax
30:	hlt
	end_guest fpu

	guest cpuid
	mov eax, 1
	cpuid
	mov esi, ecx
	xor eax, eax
	xor ecx, ecx
	cpuid
	mov eax, esi
	hlt
	end_guest cpuid

	guest tsc
	rdtsc
	shl rdx, 32
	or rax, rdx
	hlt
	end_guest tsc

/* Timed: each loops over one thing that exits. Those that the kernel answers alone repeat it ESI
 * times (the caller's) before a HLT. */
	guest time_cpuid
9:	mov edi, esi
10:	xor eax, eax
	cpuid
	dec edi
	jnz 10b
	hlt
	jmp 9b
	end_guest time_cpuid

	guest time_nothing /* what is left of such a round without it */
11:	mov edi, esi
12:	xor eax, eax
	dec edi
	jnz 12b
	hlt
	jmp 11b
	end_guest time_nothing

	guest time_port
13:	out 0x80, al
	jmp 13b
	end_guest time_port

	guest time_port_in
14:	in al, 0x80
	jmp 14b
	end_guest time_port_in

	guest time_mmio
	mov ebx, 0x10000000
15:	mov [rbx], eax
	jmp 15b
	end_guest time_mmio

	guest time_mmio_read
	mov ebx, 0x10000000
16:	mov eax, [rbx]
	jmp 16b
	end_guest time_mmio_read

	guest time_hlt
17:	hlt
	jmp 17b
	end_guest time_hlt

	guest time_msr_read /* answered by us */
	mov ecx, 0xce
18:	rdmsr
	jmp 18b
	end_guest time_msr_read

	guest time_msr_kernel /* answered by KVM */
19:	mov edi, esi
	mov ecx, 0xc0000080
20:	rdmsr
	dec edi
	jnz 20b
	hlt
	jmp 19b
	end_guest time_msr_kernel

/* Touches ESI pages from 2 MiB on, one word each, then halts: first with nothing behind them in the
 * host's tables, then with all of it. */
	guest time_touch
21:	mov edi, esi
	mov ebx, 0x200000
22:	mov eax, [rbx]
	add ebx, 4096
	dec edi
	jnz 22b
	hlt
	jmp 21b
	end_guest time_touch

	guest time_cr3 /* loads CR3 with what it is */
	mov rdx, cr3
23:	mov edi, esi
24:	mov cr3, rdx
	dec edi
	jnz 24b
	hlt
	jmp 23b
	end_guest time_cr3

	guest time_invlpg
	mov ebx, 0x200000
25:	mov edi, esi
26:	invlpg [rbx]
	dec edi
	jnz 26b
	hlt
	jmp 25b
	end_guest time_invlpg

	guest time_rdtsc
27:	mov edi, esi
28:	rdtsc
	dec edi
	jnz 28b
	hlt
	jmp 27b
	end_guest time_rdtsc

	.section .note.GNU-stack, "", @progbits
