/*
 * What the fuzz targets of devices do with state: whatever a guest did, it can be saved, loaded and
 * saved to the same bytes; and bytes that no run has made are refused or taken, never worse.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/device.h"
#include "state/state.h"

static inline void must(bool is_true)
{
	if (!is_true)
		abort();
}

static inline struct state_writer *devices_save(struct device *const *devices, unsigned count)
{
	struct state_writer *w = NULL;
	must(!state_buffer_create(&w));
	for (unsigned i = 0; i < count; i++)
		device_save(devices[i], w);
	return w;
}

static inline void devices_save_load_save(struct device *const *devices, unsigned count)
{
	size_t n, again;
	struct state_writer *w = devices_save(devices, count);
	const uint8_t *bytes = state_buffer_bytes(w, &n);
	struct state_reader *r = NULL;
	must(!state_reader_create(&r, bytes, n, NULL));
	for (unsigned i = 0; i < count; i++) {
		struct error e = {0};
		if (device_load(devices[i], r, &e))
			fprintf(stderr, "%s\n", e.text);
		must(!e.code);
	}
	struct state_writer *v = devices_save(devices, count);
	const uint8_t *copy = state_buffer_bytes(v, &again);
	must(n == again);
	for (size_t i = 0; i < n; i++)
		if (bytes[i] != copy[i]) {
			fprintf(stderr, "saved state differs at byte %zu\n", i);
			abort();
		}
	state_reader_destroy(r);
	state_writer_destroy(v);
	state_writer_destroy(w);
}

static inline void devices_load_damaged(struct device *const *devices, unsigned count,
					uint64_t where, uint8_t value)
{
	size_t n;
	struct state_writer *w = devices_save(devices, count);
	const uint8_t *bytes = state_buffer_bytes(w, &n);
	uint8_t *copy = malloc(n);
	struct state_reader *r = NULL;
	must(copy != NULL);
	memcpy(copy, bytes, n);
	copy[where % n] = value;
	if (!state_reader_create(&r, copy, n, NULL))
		for (unsigned i = 0; i < count; i++)
			device_load(devices[i], r, NULL);
	state_reader_destroy(r);
	free(copy);
	state_writer_destroy(w);
}
