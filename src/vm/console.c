#include "vm/console.h"

#include <errno.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "vm/vm.h"

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

int console_init(struct console *c, const struct vm_config *config)
{
	memset(c, 0, sizeof(*c));
	matcher_init(&c->stop_at, config->stop_at);
	matcher_init(&c->region_from, config->region_from_text);
	matcher_init(&c->region_to, config->region_to_text);
	matcher_init(&c->panic, PANIC_TEXT);
	matcher_init(&c->panic_end, PANIC_END_TEXT);
	c->hash = XXH3_createState();
	if (!c->hash || XXH3_128bits_reset(c->hash) == XXH_ERROR)
		return -ENOMEM;
	return 0;
}

void console_fini(struct console *c)
{
	XXH3_freeState(c->hash);
	c->hash = NULL;
}

unsigned console_printed(struct console *c, uint8_t byte)
{
	unsigned news = 0;
	c->byte_count++;
	XXH3_128bits_update(c->hash, &byte, 1);
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

void console_digest(const struct console *c, uint8_t digest[16])
{
	XXH128_canonical_t canonical;
	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(c->hash));
	memcpy(digest, canonical.digest, 16);
}
