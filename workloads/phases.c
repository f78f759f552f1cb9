/*
 * A workload that changes its nature twice a round: a pointer chase (TLB misses and nothing else),
 * a forking server (page tables written, spaces born and ended), a build (many short programs). No
 * static choice between shadow and nested paging is right for all three; a policy that adapts can
 * be. Phases of real programs are hundreds of millions of instructions and more; the defaults make
 * them 50 to 200 million, short enough to be simulated.
 */
#include "suite.h"

enum { ROUNDS, STEPS, SIZE, REQUESTS, FILES };

/* A part with its own knobs at --small's values but for the ones that are given. */
static uint64_t run_part(const struct study *s, uint64_t work, unsigned knob, uint64_t value)
{
	uint64_t values[KNOB_MAX] = {0};

	for (unsigned i = 0; i < KNOB_MAX; i++)
		values[i] = s->knobs[i].small;
	values[knob] = value;
	values[0] = work;
	return s->run(values);
}

static uint64_t phases(const uint64_t *knob)
{
	uint64_t sum = 0;

	measure_begin();
	for (uint64_t round = 0; round < knob[ROUNDS]; round++) {
		sum = fold(sum, run_part(&chase_study, knob[STEPS], 1, knob[SIZE]));
		sum = fold(sum, run_part(&forkserver_study, knob[REQUESTS], 0, 0));
		sum = fold(sum, run_part(&kbuild_study, knob[FILES], 0, 0));
	}
	measure_end();
	return sum;
}

const struct study phases_study = {
	"phases",
	"chase, then forkserver, then kbuild",
	{
		[ROUNDS] = {"rounds", 1, 1, 1, 1u << 31, "times all three"},
		[STEPS] = {"steps", 8000000, 30000, 1, UINT32_MAX, "the chase's links"},
		[SIZE] = {"size", 64 << 20, 1 << 20, 8192, 1u << 30,
			  "the chase's working set, one node a page"},
		[REQUESTS] = {"requests", 500, 5, 1, 1u << 31, "the server's requests"},
		[FILES] = {"files", 20, 2, 1, 4096, "files to compile"},
	},
	phases,
};
