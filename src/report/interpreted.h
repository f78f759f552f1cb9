/*
 * What of a run under `trans` was translated, and which instructions the interpreter executed
 * instead: `gnomon run --interpreted`. As a table, or as JSON, schema "gnomon-interpreted", version
 * 1: "instructions", "translated", "cold" and "interpreted", a list of {"instruction", "why",
 * "count"}, the most frequent first.
 */
#pragma once

#include <stdio.h>

#include "base/error.h"
#include "engine/trans/trans.h"

void report_write_interpreted(FILE *out, const struct trans_statistics *statistics);
/* 0, -ENOMEM, or what writing failed with. */
int report_write_interpreted_json(FILE *out, const struct trans_statistics *statistics,
				  struct error *e);
