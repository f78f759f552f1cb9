/* What all commands print alike. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

#define WRAP_COLUMNS 80

bool cli_is_fancy(FILE *f)
{
	const char *no_color = getenv("NO_COLOR");
	return isatty(fileno(f)) && !(no_color && *no_color);
}

int cli_usage_error(const char *command, const char *text)
{
	bool is_fancy = cli_is_fancy(stderr);
	fprintf(stderr, "gnomon%s%s: %serror:%s %s\n", *command ? " " : "", command,
		is_fancy ? "\033[1;31m" : "", is_fancy ? "\033[0m" : "", text);
	fprintf(stderr, "Try 'gnomon %s%s--help'.\n", command, *command ? " " : "");
	return EXIT_CODE_USAGE;
}

static void pad(FILE *f, unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i++)
		fputc(' ', f);
}

void cli_print_wrapped(FILE *f, const char *text, unsigned column, unsigned indent)
{
	pad(f, column, indent);
	column = column > indent ? column : indent;
	bool is_first = true;
	while (*text) {
		size_t n = strcspn(text, " ");
		if (!is_first && column + 1 + n > WRAP_COLUMNS) {
			fputc('\n', f);
			pad(f, 0, indent);
			column = indent;
		} else if (!is_first) {
			fputc(' ', f);
			column++;
		}
		fwrite(text, 1, n, f);
		column += (unsigned)n;
		text += n;
		text += strspn(text, " ");
		is_first = false;
	}
	fputc('\n', f);
}
