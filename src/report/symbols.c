#include "report/symbols.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX (2ll << 30)
#define NAME_MAX_BYTES 200

struct symbol {
	uint64_t address;
	size_t order; /* of appearance */
	char *name;
};

struct symbols {
	struct symbol *list;
	size_t count, capacity;
};

static int add(struct symbols *s, uint64_t address, const char *name, size_t length)
{
	if (s->count == s->capacity) {
		size_t wanted = s->capacity ? 2 * s->capacity : 1024;
		struct symbol *more = reallocarray(s->list, wanted, sizeof(*more));

		if (!more)
			return -ENOMEM;
		s->list = more;
		s->capacity = wanted;
	}
	char *copy = strndup(name, length < NAME_MAX_BYTES ? length : NAME_MAX_BYTES);
	if (!copy)
		return -ENOMEM;
	/* Frames of folded stacks end at these. */
	for (char *c = copy; *c; c++)
		if (*c == ';' || *c <= ' ')
			*c = '_';
	s->list[s->count] = (struct symbol){address, s->count, copy};
	s->count++;
	return 0;
}

/* ---- System.map and nm: "ffffffff81000000 T _stext" ---- */

static bool is_code(char kind)
{
	return strchr("tTwWi", kind) != NULL;
}

static int parse_map(struct symbols *s, const char *bytes, size_t size)
{
	const char *end = bytes + size;
	int r = 0;

	while (bytes < end && !r) {
		const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
		size_t length = (size_t)((newline ? newline : end) - bytes);
		char line[NAME_MAX_BYTES + 40], kind, name[NAME_MAX_BYTES + 1];
		unsigned long long address;

		if (length < sizeof(line)) {
			memcpy(line, bytes, length);
			line[length] = 0;
			if (sscanf(line, "%llx %c %200s", &address, &kind, name) == 3 &&
			    is_code(kind))
				r = add(s, address, name, strlen(name));
		}
		bytes += length + 1;
	}
	return r;
}

/* ---- ELF ---- */

struct image {
	const char *bytes;
	size_t size;
};

/* NULL unless all of it lies in the file. */
static const void *at(const struct image *i, uint64_t offset, uint64_t size)
{
	return offset <= i->size && size <= i->size - offset ? i->bytes + offset : NULL;
}

static int add_elf_symbol(struct symbols *s, const Elf64_Sym *symbol, const char *names,
			  uint64_t names_size)
{
	unsigned type = ELF64_ST_TYPE(symbol->st_info);
	bool is_named = symbol->st_name && symbol->st_name < names_size;

	if (!is_named || (type != STT_FUNC && type != STT_NOTYPE) ||
	    symbol->st_shndx == SHN_UNDEF || symbol->st_shndx == SHN_ABS)
		return 0;
	const char *name = names + symbol->st_name;
	return add(s, symbol->st_value, name, strnlen(name, names_size - symbol->st_name));
}

static int parse_table(struct symbols *s, const struct image *image, const Elf64_Shdr *table,
		       const Elf64_Shdr *strings)
{
	const char *names = at(image, strings->sh_offset, strings->sh_size);
	const char *entries = at(image, table->sh_offset, table->sh_size);
	int r = 0;

	for (uint64_t n = 0; names && entries && !r && n < table->sh_size / sizeof(Elf64_Sym);
	     n++) {
		Elf64_Sym symbol;

		memcpy(&symbol, entries + n * sizeof(symbol), sizeof(symbol));
		r = add_elf_symbol(s, &symbol, names, strings->sh_size);
	}
	return r;
}

static int parse_elf(struct symbols *s, const struct image *image)
{
	Elf64_Ehdr head;
	int r = 0;

	if (image->size < sizeof(head))
		return 0;
	memcpy(&head, image->bytes, sizeof(head));
	const char *sections = at(image, head.e_shoff, (uint64_t)head.e_shnum * sizeof(Elf64_Shdr));
	if (head.e_ident[EI_CLASS] != ELFCLASS64 || !sections ||
	    head.e_shentsize != sizeof(Elf64_Shdr))
		return 0;
	for (unsigned n = 0; n < head.e_shnum && !r; n++) {
		Elf64_Shdr table, strings;

		memcpy(&table, sections + n * sizeof(table), sizeof(table));
		if (table.sh_type != SHT_SYMTAB || table.sh_link >= head.e_shnum)
			continue;
		memcpy(&strings, sections + table.sh_link * sizeof(strings), sizeof(strings));
		r = parse_table(s, image, &table, &strings);
	}
	return r;
}

/* ---- the whole ---- */

static int by_address(const void *left, const void *right)
{
	const struct symbol *a = left, *b = right;

	if (a->address != b->address)
		return a->address < b->address ? -1 : 1;
	return a->order < b->order ? -1 : 1;
}

int symbols_parse(const char *name, const char *bytes, size_t size_bytes, struct symbols **out,
		  struct error *e)
{
	struct symbols *s = calloc(1, sizeof(*s));
	const struct image image = {bytes, size_bytes};
	bool is_elf = size_bytes >= SELFMAG && !memcmp(bytes, ELFMAG, SELFMAG);
	int r = !s ? -ENOMEM : is_elf ? parse_elf(s, &image) : parse_map(s, bytes, size_bytes);

	if (r)
		error_set(e, r, "no memory for the symbols of '%s'", name);
	else if (!s->count)
		r = error_set(e, -EINVAL,
			      "'%s' has no symbols; a System.map, the output of nm, or a 64-bit "
			      "vmlinux that is not stripped is right",
			      name);
	if (r) {
		symbols_destroy(s);
		return r;
	}
	qsort(s->list, s->count, sizeof(*s->list), by_address);
	*out = s;
	return 0;
}

int symbols_load(const char *path, struct symbols **out, struct error *e)
{
	FILE *f = fopen(path, "re");
	struct stat about;
	char *bytes = NULL;
	size_t size = 0;
	int r = 0;

	if (!f || fstat(fileno(f), &about))
		r = error_set(e, -errno, "'%s': %s", path, strerror(errno));
	else if (!S_ISREG(about.st_mode) || about.st_size > FILE_BYTES_MAX)
		r = error_set(e, -EINVAL, "'%s' is no regular file of at most 2G", path);
	else if (!(bytes = malloc((size_t)about.st_size + 1)))
		r = error_set(e, -ENOMEM, "no memory for '%s'", path);
	else if ((size = fread(bytes, 1, (size_t)about.st_size, f)) != (size_t)about.st_size)
		r = error_set(e, -EIO, "'%s' cannot be read to its end", path);
	else
		r = symbols_parse(path, bytes, size, out, e);
	free(bytes);
	if (f)
		fclose(f);
	return r;
}

void symbols_destroy(struct symbols *s)
{
	for (size_t i = 0; s && i < s->count; i++)
		free(s->list[i].name);
	if (s)
		free(s->list);
	free(s);
}

size_t symbols_count(const struct symbols *s)
{
	return s->count;
}

const char *symbols_find(const struct symbols *s, uint64_t address)
{
	size_t low = 0, high = s->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->list[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low)
		return NULL;
	/* The first of those at the same address. */
	const struct symbol *found = &s->list[low - 1];
	while (found > s->list && found[-1].address == found->address)
		found--;
	return address - found->address < SYMBOL_SPAN_MAX ? found->name : NULL;
}
