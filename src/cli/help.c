/* `gnomon help [COMMAND]` and `gnomon version`. */
#include <string.h>

#include "cli/cli.h"

static void overview(void)
{
	bool is_fancy = cli_is_fancy(stdout);
	printf("usage: gnomon COMMAND [OPTION]...\n\n"
	       "A virtual machine monitor that runs unmodified x86-64 guests on any Linux\n"
	       "machine, without hardware support, and tells to the cycle what virtualization\n"
	       "costs them.\n\n"
	       "%sCommands%s\n",
	       is_fancy ? "\033[1m" : "", is_fancy ? "\033[0m" : "");
	for (const struct command *c = cli_commands; c->name; c++)
		printf("  %-12s%s\n", c->name, c->text);
	printf("\n%sTry%s\n"
	       "  gnomon run --kernel /boot/vmlinuz --append \"console=ttyS0\" --report\n"
	       "  gnomon help run\n\n"
	       "The manual is gnomon(1).\n",
	       is_fancy ? "\033[1m" : "", is_fancy ? "\033[0m" : "");
}

int cmd_help(int argc, char **argv)
{
	if (argc < 2 || argv[1][0] == '-' || !strcmp(argv[1], "help")) {
		overview();
		return EXIT_CODE_OK;
	}
	for (const struct command *c = cli_commands; c->name; c++) {
		char help[] = "--help";
		char *arguments[] = {argv[1], help, NULL};
		if (!strcmp(c->name, argv[1]))
			return c->run(2, arguments);
	}
	char text[200];
	snprintf(text, sizeof(text), "there is no command '%.60s'", argv[1]);
	return cli_usage_error("help", text);
}

int cmd_version(int argc, char **argv)
{
	printf("gnomon %s\n", GNOMON_VERSION);
	return EXIT_CODE_OK;
}
