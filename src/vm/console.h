/*
 * What the guest prints on its serial ports, watched: counted and hashed for the state hash, and
 * searched for the texts that end a run (--stop-at, a Linux panic's last line). Private to vm/.
 */
#pragma once

#include "base/types.h"

struct vm_config;

#define MATCH_MAX 255

/* Finds one text in a stream of bytes, without looking back (Knuth, Morris, Pratt). */
struct matcher {
	char text[MATCH_MAX + 1];
	uint16_t length; /* 0: matches never */
	uint16_t matched;
	uint8_t fallback[MATCH_MAX + 1]; /* length of the longest proper border of text[0..i] */
};

/* `text` may be NULL; cut to MATCH_MAX. */
void matcher_init(struct matcher *m, const char *text);
/* True when `byte` completes the text. */
bool matcher_feed(struct matcher *m, uint8_t byte);

enum console_news {
	CONSOLE_STOP_AT = 1,
	CONSOLE_PANIC = 2,
	CONSOLE_PANIC_END = 4,
	CONSOLE_REGION_FROM = 8,
	CONSOLE_REGION_TO = 16,
};

struct console {
	struct matcher stop_at, panic, panic_end, region_from, region_to;
	uint64_t byte_count;
	void *hash; /* XXH3 state */
};

int console_init(struct console *c, const struct vm_config *config); /* -ENOMEM */
void console_fini(struct console *c);
/* A mask of enum console_news. */
unsigned console_printed(struct console *c, uint8_t byte);
/* 16 bytes: the hash of everything printed so far. */
void console_digest(const struct console *c, uint8_t digest[16]);
