/* Random text as --cpu: a model, or an error with a message. */
#include <assert.h>
#include <string.h>

#include "cpu/cpuid.h"
#include "cpu/vcpu.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const heads[] = {"", "max,", "x86-64,", "x86-64,+la57,-", "max,+"};
	struct cpu_model m = {.vcpu_count = 1, .tsc_hz = 1000000000};
	struct error e = {0};
	char spec[700];

	if (!size)
		return 0;
	const char *head = heads[data[0] % ARRAY_COUNT(heads)];
	size_t length = strlen(head), rest = size - 1 < 600 ? size - 1 : 600;
	memcpy(spec, head, length);
	memcpy(spec + length, data + 1, rest);
	spec[length + rest] = 0;
	int r = cpu_model_parse(&m, spec, &e);
	assert(r < 0 ? e.text[0] && e.code == r : m.has[FEATURE_LM]);
	if (r == 0) {
		struct vcpu v = {.model = &m};
		for (uint32_t leaf = 0; leaf < 0x20; leaf++)
			cpu_cpuid(&v, leaf, data[0]);
	}
	return 0;
}
