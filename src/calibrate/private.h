/* The parts of calibrate/ to each other. */
#pragma once

#include "calibrate/calibrate.h"

void host_read(struct host *h);

/* Clocks. */
double now_seconds(void);
/* Seconds that one cycle of the core takes just now, by a chain of additions that depend on each
 * other (a register to a register: one cycle on every processor). */
double cycle_seconds(void);

/*
 * Takes `sample_count` samples of what `once` takes, in seconds for each of its operations. A
 * sample is the best of three runs, counted in cycles that are timed beside it. `once` answers a
 * negative number if it cannot be done; then nothing is measured.
 */
struct sampler {
	double (*once)(void *opaque);
	void *opaque;
	unsigned sample_count;
	unsigned try_count; /* runs of which a sample is the best */
};
bool sample(const struct sampler *s, struct measure *out);

/* Samples of a latency whose median is so much above the lowest were disturbed. */
#define DISTURBED 1.2

void measure_refuse(struct measure *m, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Fill their measures, telling the progress before each. */
struct run {
	const struct calibrate_options *options;
	struct calibration *out;
	unsigned done;
};
void run_next(struct run *r, enum measure_id id);
unsigned run_samples(const struct run *r);

int measure_memory(struct run *r, struct error *e);
void measure_costs(struct run *r);
void measure_exits(struct run *r);
int measure_vmm(struct run *r, struct error *e);
