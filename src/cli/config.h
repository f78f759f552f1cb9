/*
 * Options in a file: one JSON object whose keys are the options' names. The same table that parses
 * the command line parses it, and writes it: --config and --dump-config know no option of their
 * own. docs/config.md has the rules, docs/schema/config.json the keys.
 *
 * The law: what is dumped, read again and dumped is the same, byte for byte, and so is the machine.
 */
#pragma once

#include <jansson.h>

#include "base/error.h"
#include "cli/options.h"

#define CONFIG_VERSION 1
#define CONFIG_BYTES_MAX (1u << 20)

/* Gives each option that `set` has not been given yet the file's value. *document owns the texts
 * and must live as long as the target. -EINVAL with file and key, -EIO and the like. */
int config_read(const char *file, struct option_set *set, json_t **document, struct error *e);
/* The same from memory; `origin` is what messages call it. */
int config_parse(const char *origin, const char *bytes, size_t size_bytes, struct option_set *set,
		 json_t **document, struct error *e);

/* What the options are now, those by default, too. NULL without memory or for a text that is no
 * UTF-8. */
json_t *config_to_json(const struct option_set *set);
