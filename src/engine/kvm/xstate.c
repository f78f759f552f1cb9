/*
 * x87, SSE and AVX state as KVM_GET_XSAVE has it: the standard format of XSAVE (SDM 1, 13.4), with
 * AVX at its usual place. A component whose bit in XSTATE_BV is 0 is in its initial state, whatever
 * its bytes say.
 *
 * KVM saves with 64-bit operands, so FIP and FDP are whole, and the selectors FCS and FDS, which
 * only 32-bit code sees, are lost: they come back as 0.
 */
#include <linux/kvm.h>
#include <string.h>

#include "cpu/vcpu.h"
#include "engine/kvm/private.h"

#define AT_FTW 4u
#define AT_FOP 6u
#define AT_FIP 8u
#define AT_FDP 16u
#define AT_MXCSR 24u
#define AT_MXCSR_MASK 28u
#define AT_ST 32u
#define AT_XMM 160u
#define AT_HEADER 512u
#define AT_AVX 576u
#define MXCSR_RESET 0x1f80u
#define FCW_RESET 0x37fu

void kvm_xstate_put(const struct fpu_state *f, bool has_avx, struct kvm_xsave *out)
{
	uint8_t *area = (uint8_t *)out->region;
	uint64_t components = XCR0_X87 | XCR0_SSE | (has_avx ? XCR0_AVX : 0);

	memset(out, 0, sizeof(*out));
	memcpy(area, &f->fcw, 2);
	memcpy(area + 2, &f->fsw, 2);
	area[AT_FTW] = f->ftw;
	memcpy(area + AT_FOP, &f->fop, 2);
	memcpy(area + AT_FIP, &f->fip, 8);
	memcpy(area + AT_FDP, &f->fdp, 8);
	memcpy(area + AT_MXCSR, &f->mxcsr, 4);
	memcpy(area + AT_ST, f->st, sizeof(f->st));
	for (unsigned i = 0; i < 16; i++) {
		memcpy(area + AT_XMM + 16 * i, f->ymm[i], 16);
		if (has_avx)
			memcpy(area + AT_AVX + 16 * i, f->ymm[i] + 16, 16);
	}
	memcpy(area + AT_HEADER, &components, 8);
}

static void get_x87(const uint8_t *area, bool is_used, struct fpu_state *f)
{
	if (!is_used) {
		f->fcw = FCW_RESET;
		return;
	}
	memcpy(&f->fcw, area, 2);
	memcpy(&f->fsw, area + 2, 2);
	f->ftw = area[AT_FTW];
	memcpy(&f->fop, area + AT_FOP, 2);
	memcpy(&f->fip, area + AT_FIP, 8);
	memcpy(&f->fdp, area + AT_FDP, 8);
	for (unsigned i = 0; i < 8; i++)
		memcpy(f->st[i], area + AT_ST + 16 * i, 10);
}

void kvm_xstate_get(const struct kvm_xsave *in, struct fpu_state *f)
{
	const uint8_t *area = (const uint8_t *)in->region;
	uint64_t used;

	memset(f, 0, sizeof(*f));
	memcpy(&used, area + AT_HEADER, 8);
	get_x87(area, used & XCR0_X87, f);
	f->mxcsr = MXCSR_RESET;
	if (used & (XCR0_SSE | XCR0_AVX))
		memcpy(&f->mxcsr, area + AT_MXCSR, 4);
	for (unsigned i = 0; i < 16; i++) {
		if (used & XCR0_SSE)
			memcpy(f->ymm[i], area + AT_XMM + 16 * i, 16);
		if (used & XCR0_AVX)
			memcpy(f->ymm[i] + 16, area + AT_AVX + 16 * i, 16);
	}
}
