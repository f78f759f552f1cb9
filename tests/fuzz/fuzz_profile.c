/* The profile parser: whatever the bytes, a complete profile or one message, nothing else. */
#include <stdlib.h>
#include <string.h>

#include "hw/hw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *bytes, size_t size_bytes)
{
	struct error e = {0};
	struct profile *p;
	int rc = profile_parse("fuzz", bytes, size_bytes, &p, &e);

	if (rc) {
		if (p || !e.text[0] || e.code != rc)
			abort();
		return;
	}
	for (int event = 0; event < EVENT_COUNT; event++)
		if (event_must_be_priced((enum event)event) && !p->price[event].is_priced)
			abort();
	profile_destroy(p);
}

/* The bytes as they are, and as edits of a good profile: three bytes say where and what. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t size_bytes;
	const char *good = profile_builtin_text(0, &size_bytes);
	char *edited = malloc(size_bytes);

	check((const char *)data, size);
	if (!edited)
		return 0;
	memcpy(edited, good, size_bytes);
	for (size_t i = 0; i + 2 < size && i < 24; i += 3)
		edited[(data[i] | (size_t)data[i + 1] << 8) % size_bytes] = (char)data[i + 2];
	check(edited, size_bytes);
	free(edited);
	return 0;
}
