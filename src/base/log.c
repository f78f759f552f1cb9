#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static enum log_level current_level = LOG_WARN;

static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

void log_set_level(enum log_level level)
{
	current_level = level;
}

enum log_level log_get_level(void)
{
	return current_level;
}

int log_level_from_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_COUNT(level_names); i++)
		if (!strcmp(name, level_names[i]))
			return (int)i;
	return -1;
}

void log_write(enum log_level level, const char *format, ...)
{
	if (level > current_level)
		return;
	char line[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	fprintf(stderr, "gnomon: %s: %s\n", level_names[level], line);
}
