#include "vm/console.h"

#include <errno.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "state/state.h"
#include "vm/vm.h"

#define CONSOLE_VERSION 1

/* Linux prints the first when it dies, and the second as the very last line when it will not
 * reboot. */
#define PANIC_TEXT "Kernel panic - not syncing"
#define PANIC_END_TEXT "---[ end Kernel panic"

void matcher_init(struct matcher *m, const char *text)
{
	memset(m, 0, sizeof(*m));
	if (!text)
		return;
	m->length = (uint16_t)strnlen(text, MATCH_MAX);
	memcpy(m->text, text, m->length);
	unsigned border = 0;
	for (unsigned i = 1; i < m->length; i++) {
		while (border && m->text[i] != m->text[border])
			border = m->fallback[border - 1];
		if (m->text[i] == m->text[border])
			border++;
		m->fallback[i] = (uint8_t)border;
	}
}

bool matcher_feed(struct matcher *m, uint8_t byte)
{
	if (!m->length)
		return false;
	while (m->matched && (uint8_t)m->text[m->matched] != byte)
		m->matched = m->fallback[m->matched - 1];
	if ((uint8_t)m->text[m->matched] == byte)
		m->matched++;
	if (m->matched < m->length)
		return false;
	m->matched = m->fallback[m->length - 1];
	return true;
}

void console_init(struct console *c, const struct vm_config *config)
{
	memset(c, 0, sizeof(*c));
	matcher_init(&c->stop_at, config->stop_at);
	matcher_init(&c->region_from, config->region_from_text);
	matcher_init(&c->region_to, config->region_to_text);
	matcher_init(&c->panic, PANIC_TEXT);
	matcher_init(&c->panic_end, PANIC_END_TEXT);
}

void console_save(const struct console *c, struct state_writer *w)
{
	struct console_state s = c->state;
	/* What an earlier block left there means nothing. */
	size_t used = s.byte_count % CONSOLE_BLOCK_BYTES;
	memset(s.hashed.block + used, 0, CONSOLE_BLOCK_BYTES - used);
	s.panic_matched = c->panic.matched;
	s.panic_end_matched = c->panic_end.matched;
	state_put(w, "console", CONSOLE_VERSION, &s, sizeof(s));
}

int console_load(struct console *c, struct state_reader *r, struct error *e)
{
	struct console_state s;
	int result = state_get(r, "console", CONSOLE_VERSION, &s, sizeof(s), e);
	if (result)
		return result;
	if (s.panic_matched >= c->panic.length || s.panic_end_matched >= c->panic_end.length)
		return error_set(e, -EINVAL,
				 "saved state: section 'console': more matched than there is");
	c->state = s;
	c->panic.matched = (uint16_t)s.panic_matched;
	c->panic_end.matched = (uint16_t)s.panic_end_matched;
	return 0;
}

static void digest(const struct console_state *s, size_t used, uint8_t out[16])
{
	XXH128_canonical_t canonical;
	XXH128_canonicalFromHash(&canonical,
				 XXH3_128bits(&s->hashed, sizeof(s->hashed.chain) + used));
	memcpy(out, canonical.digest, sizeof(canonical.digest));
}

static void hash_byte(struct console_state *s, uint8_t byte)
{
	s->hashed.block[s->byte_count++ % CONSOLE_BLOCK_BYTES] = byte;
	if (s->byte_count % CONSOLE_BLOCK_BYTES == 0)
		digest(s, CONSOLE_BLOCK_BYTES, s->hashed.chain);
}

unsigned console_printed(struct console *c, uint8_t byte)
{
	unsigned news = 0;
	hash_byte(&c->state, byte);
	if (matcher_feed(&c->stop_at, byte))
		news |= CONSOLE_STOP_AT;
	if (matcher_feed(&c->panic, byte))
		news |= CONSOLE_PANIC;
	if (matcher_feed(&c->panic_end, byte))
		news |= CONSOLE_PANIC_END;
	if (matcher_feed(&c->region_from, byte))
		news |= CONSOLE_REGION_FROM;
	if (matcher_feed(&c->region_to, byte))
		news |= CONSOLE_REGION_TO;
	return news;
}

void console_digest(const struct console *c, uint8_t out[16])
{
	digest(&c->state, c->state.byte_count % CONSOLE_BLOCK_BYTES, out);
}
