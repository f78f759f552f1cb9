#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *e, int code, const char *format, ...)
{
	if (!e)
		return code;
	va_list args;
	va_start(args, format);
	vsnprintf(e->text, sizeof(e->text), format, args);
	va_end(args);
	e->code = code;
	return code;
}

int error_prefix(struct error *e, const char *format, ...)
{
	if (!e)
		return -1;
	char old[sizeof(e->text)];
	memcpy(old, e->text, sizeof(old));
	va_list args;
	va_start(args, format);
	int used = vsnprintf(e->text, sizeof(e->text), format, args);
	va_end(args);
	if (used >= 0 && (size_t)used < sizeof(e->text) - 2)
		snprintf(e->text + used, sizeof(e->text) - (size_t)used, ": %s", old);
	return e->code;
}
