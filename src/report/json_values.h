/* Values that the JSON reports share. Private to report/; jansson takes ownership by the _new calls
 * and tolerates NULL: a failed allocation shows at the end. */
#pragma once

#include <jansson.h>

#include "report/bill.h"

/* An integer wherever it is one; thousandths make a real, exact up to 15 digits. */
json_t *json_cycles(struct amount a);
json_t *json_count(uint64_t n);
/* {"unit": ..., "source": ..., "value": ...}; takes `value`. */
json_t *json_measure(const char *unit, const char *source, json_t *value);
