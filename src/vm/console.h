/*
 * What the guest prints on its serial ports, watched: counted and hashed for the state hash, and
 * searched for the texts that end a run (--stop-at, a Linux panic's last line). Private to vm/.
 */
#pragma once

#include "base/types.h"

struct vm_config;
struct error;
struct state_reader;
struct state_writer;

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

#define CONSOLE_BLOCK_BYTES 240

/* The hash of everything printed is a chain: each full block is hashed behind the chain so far. So
 * it is plain data, and a machine that is loaded goes on with it. */
struct console_state {
	uint64_t byte_count;
	struct {
		uint8_t chain[16];
		uint8_t block[CONSOLE_BLOCK_BYTES]; /* byte_count % CONSOLE_BLOCK_BYTES of it */
	} hashed;
	uint32_t panic_matched, panic_end_matched; /* when saved */
};

struct console {
	struct console_state state;
	struct matcher stop_at, panic, panic_end, region_from, region_to;
};

void console_init(struct console *c, const struct vm_config *config);
void console_save(const struct console *c, struct state_writer *w);
int console_load(struct console *c, struct state_reader *r, struct error *e);
/* A mask of enum console_news. */
unsigned console_printed(struct console *c, uint8_t byte);
/* 16 bytes: the hash of everything printed so far. */
void console_digest(const struct console *c, uint8_t digest[16]);
