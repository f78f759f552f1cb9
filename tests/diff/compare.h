/* Comparison of the two outcomes of one test case. */
#pragma once

#include "diff.h"

/* How many things differ; `text` gets a line for each. */
unsigned compare(const struct test_case *t, const struct test_state *host,
		 const struct test_state *guest, const uint8_t *host_data,
		 const uint8_t *guest_data, char *text, size_t text_bytes);
