/* The bill of a run, as report/ makes it, printed where the options say. */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "base/types.h"
#include "report/report.h"

struct vm;

struct bill_order {
	enum bill_format format;
	const char *file;  /* NULL: standard output */
	uint64_t start_ns; /* the host's monotonic time when the run began */
};

/* At the end: the guest's regions of interest if it marked any, else the whole run. */
int bill_print(struct vm *vm, const struct bill_order *order, struct error *e);
/* The whole run so far, while it goes on, to `f`. */
void bill_print_now(struct vm *vm, const struct bill_order *order, FILE *f);
/* Levels of the tables that vcpu 0 uses now; 0 without paging. */
unsigned bill_guest_levels(struct vm *vm);
