#include "vm/devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "device/i6300esb.h"
#include "device/irq_router.h"
#include "device/pvpanic.h"
#include "virtio/mmio.h"
#include "virtio/pci.h"
#include "vm/machine.h"

#define FIRST_SLOT 1u
#define FIRST_SOURCE 2u /* of a shared line; 0 and 1 have owners */

struct slot;

/* Cards that are not virtio's; they have no options. */
struct card {
	const char *name, *text;
	int (*make)(struct vm *vm, struct slot *s, const struct device_wires *w, unsigned place,
		    struct error *e);
};

/* Of a kind one of the two is set. */
struct kind {
	const struct virtio_row *row;
	const struct card *card;
};

struct slot {
	struct kind kind;
	struct virtio_device *virtio; /* NULL: a card */
	union {
		struct virtio_pci pci;
		struct virtio_mmio mmio;
		struct pvpanic pvpanic;
		struct i6300esb watchdog;
	};
};

struct devices {
	struct virtio_host host;
	struct slot slots[VM_DEVICES_MAX];
	unsigned count, pci_count, mmio_count;
};

/* ---- what devices may ask for ---- */

static int watch(void *opaque, int fd, void (*ready)(void *device, int fd), void *device)
{
	struct vm *vm = opaque;
	return poller_add(vm->poller, fd, (struct poller_watch){ready, device});
}

static void set_waker(void *opaque, int fd, bool is_waker)
{
	struct vm *vm = opaque;
	poller_set_waker(vm->poller, fd, is_waker);
}

static void unwatch(void *opaque, int fd)
{
	struct vm *vm = opaque;
	poller_remove(vm->poller, fd);
}

static void console_output(void *opaque, const uint8_t *bytes, size_t count)
{
	vm_console_printed(opaque, VM_SERIAL_CONSOLE, bytes, count);
}

/* Waiting input is offered between turns; the next one shall be soon. */
static void console_has_room(void *opaque)
{
	struct vm *vm = opaque;
	vm->next_poll_ns = 0;
}

/* The first of its kind; NULL. */
static struct virtio_device *first_of(const struct vm *vm, const char *kind)
{
	const struct virtio_row *row = virtio_find(kind, strlen(kind));
	for (unsigned i = 0; i < vm->devices->count; i++)
		if (vm->devices->slots[i].kind.row == row)
			return vm->devices->slots[i].virtio;
	return NULL;
}

static size_t console_input(void *opaque, const uint8_t *bytes, size_t count)
{
	return virtio_console_receive(opaque, bytes, count);
}

void devices_connect_console(struct vm *vm)
{
	struct serial *serial = vm->serials[VM_SERIAL_CONSOLE];
	if (serial)
		serial_set_sink(serial, (struct serial_sink){.receive = console_input,
							     .opaque = first_of(vm, "console")});
}

/* ---- cards ---- */

static void panicked(void *opaque, uint32_t events)
{
	struct vm *vm = opaque;
	/* A crash kernel that was loaded takes over. */
	if (!(events & PVPANIC_PANICKED))
		return;
	vm->has_panicked = true;
	if (!vm->config.ignore_panic)
		vm_end_with(vm, 0, VM_END_PANIC, 0, "the guest's kernel panicked (pvpanic)");
}

static int make_pvpanic(struct vm *vm, struct slot *s, const struct device_wires *w, unsigned place,
			struct error *e)
{
	int r = pvpanic_init(&s->pvpanic, (struct device_signal){panicked, vm}, w->pci, place, e);
	if (!r)
		w->add(w->opaque, &s->pvpanic.pci.device);
	return r;
}

static void bitten(void *opaque, uint32_t value)
{
	struct vm *vm = opaque;
	(void)value;
	if (vm->config.no_reboot)
		vm_end_with(vm, 0, VM_END_WATCHDOG, 0, "the watchdog bit");
	else
		vm_reset(vm);
}

static int make_watchdog(struct vm *vm, struct slot *s, const struct device_wires *w,
			 unsigned place, struct error *e)
{
	int r = i6300esb_init(&s->watchdog, &vm->clock, (struct device_signal){bitten, vm}, w->pci,
			      place, e);
	if (r)
		return r;
	w->add(w->opaque, &s->watchdog.pci.device);
	w->add(w->opaque, &s->watchdog.device);
	return 0;
}

static const struct card cards[] = {
	{"pvpanic", "by which a guest's kernel says that it panicked, on PCI", make_pvpanic},
	{"i6300esb", "a watchdog, which resets the machine (--no-reboot: ends it, exit code 8)",
	 make_watchdog},
};

/* ---- kinds ---- */

const char *vm_device_kind(size_t i, const char **argument, const char **text)
{
	size_t virtio_count = 0;
	while (virtio_row(virtio_count))
		virtio_count++;
	const struct virtio_row *row = virtio_row(i);
	if (!row && i - virtio_count >= ARRAY_COUNT(cards))
		return NULL;
	*argument = row ? row->argument : "";
	*text = row ? row->text : cards[i - virtio_count].text;
	return row ? row->name : cards[i - virtio_count].name;
}

static const char *kind_name(const struct kind *k)
{
	return k->row ? k->row->name : k->card->name;
}

static int no_such_kind(const char *kind, size_t length, struct error *e)
{
	char names[200] = "";
	const char *name, *unused;
	if (!strncmp(kind, "isa-debug-exit", length))
		return error_set(e, -EINVAL,
				 "--device: isa-debug-exit is always there, at port 0xf4");
	for (size_t i = 0; (name = vm_device_kind(i, &unused, &unused)); i++) {
		size_t used = strlen(names);
		if (used + strlen(name) + 3 < sizeof(names)) {
			strcpy(names + used, used ? ", " : "");
			strcat(names, name);
		}
	}
	return error_set(e, -EINVAL, "--device: there is no '%.*s'; there are %s", (int)length,
			 kind, names);
}

static int find(struct kind *k, const struct vm_device *d, struct error *e)
{
	size_t length = strcspn(d->kind, ",");
	*k = (struct kind){.row = virtio_find(d->kind, length)};
	for (size_t i = 0; !k->row && i < ARRAY_COUNT(cards); i++)
		if (strlen(cards[i].name) == length && !strncmp(d->kind, cards[i].name, length))
			k->card = &cards[i];
	return k->row || k->card ? 0 : no_such_kind(d->kind, length, e);
}

/* Messages begin with the option that people wrote. */
static int prefix(const struct vm_device *d, const struct kind *k, struct error *e)
{
	if (d->option)
		return error_prefix(e, "--%s", d->option);
	return error_prefix(e, "--device %s", kind_name(k));
}

int devices_check(const struct vm_config *c, struct error *e)
{
	bool is_taken[ARRAY_COUNT(cards)] = {0};
	for (unsigned i = 0; i < c->device_count; i++) {
		const struct vm_device *d = &c->devices[i];
		struct kind k;
		int r = find(&k, d, e);
		if (r)
			return r;
		if (k.row)
			r = k.row->check(d->text, e);
		else if (*d->text)
			r = error_set(e, -EINVAL, "it takes no options, and so no '%s'", d->text);
		else if (is_taken[k.card - cards])
			r = error_set(e, -EINVAL, "one is enough");
		if (r)
			return prefix(d, &k, e);
		if (k.card)
			is_taken[k.card - cards] = true;
	}
	return 0;
}

/* ---- making ---- */

static void list(const struct slot *s, const struct device_wires *wires)
{
	struct virtio_device *v = s->virtio;
	wires->add(wires->opaque, &v->device);
	if (v->own_bytes)
		wires->add(wires->opaque, &v->own);
}

static int put_on_pci(struct slot *s, struct devices *all, const struct device_wires *wires,
		      struct error *e)
{
	int r = virtio_pci_init(&s->pci, s->virtio, all->count, wires->pci,
				FIRST_SLOT + all->pci_count, e);
	if (r)
		return r;
	all->pci_count++;
	list(s, wires);
	wires->add(wires->opaque, (struct device *)&s->pci.pci);
	wires->add(wires->opaque, &s->pci.msix.device);
	wires->add(wires->opaque, &s->pci.device);
	return 0;
}

static int put_on_mmio(struct slot *s, struct devices *all, const struct device_wires *wires,
		       struct error *e)
{
	unsigned place = all->mmio_count;
	if (place == PLATFORM_VIRTIO_MMIO_MAX)
		return error_set(e, -ENOSPC, "transport=mmio: at most %u devices",
				 PLATFORM_VIRTIO_MMIO_MAX);
	struct irq_line line = irq_router_line(
		wires->router, PLATFORM_VIRTIO_MMIO_GSI_FIRST + place % 4, FIRST_SOURCE + place);
	int r = virtio_mmio_init(&s->mmio, s->virtio, all->count, place, line, wires->pci->bus, e);
	if (r)
		return r;
	all->mmio_count++;
	list(s, wires);
	wires->add(wires->opaque, &s->mmio.device);
	return 0;
}

static int make_virtio(struct slot *s, struct devices *all, const struct vm_device *d,
		       const struct device_wires *wires, struct error *e)
{
	int r = s->kind.row->create(&s->virtio, d->text, &all->host, e);
	if (r)
		return r;
	return s->virtio->transport == VIRTIO_PCI ? put_on_pci(s, all, wires, e)
						  : put_on_mmio(s, all, wires, e);
}

static int make(struct vm *vm, const struct vm_device *d, const struct device_wires *wires,
		struct error *e)
{
	struct devices *all = vm->devices;
	struct slot *s = &all->slots[all->count];
	int r = find(&s->kind, d, e);
	if (r)
		return r;
	if (s->kind.row)
		r = make_virtio(s, all, d, wires, e);
	else
		r = s->kind.card->make(vm, s, wires, FIRST_SLOT + all->pci_count++, e);
	all->count++; /* also a half-made one, so that it is ended */
	return r ? prefix(d, &s->kind, e) : 0;
}

int devices_create(struct vm *vm, const struct device_wires *wires, struct error *e)
{
	struct devices *all = vm->devices = calloc(1, sizeof(*vm->devices));
	if (!all)
		return error_set(e, -ENOMEM, "out of memory");
	all->host = (struct virtio_host){.memory = vm->memory,
					 .clock = &vm->clock,
					 .seed = vm->config.seed,
					 .watch = watch,
					 .set_waker = set_waker,
					 .unwatch = unwatch,
					 .console = {console_output, vm},
					 .console_has_room = console_has_room,
					 .opaque = vm};
	for (unsigned i = 0; i < vm->config.device_count; i++) {
		int r = make(vm, &vm->config.devices[i], wires, e);
		if (r)
			return r;
	}
	if (vm->config.serial[VM_SERIAL_CONSOLE] && !first_of(vm, "console"))
		return error_set(e, -EINVAL, "--console: the machine has no console device");
	if (devices_are_live(vm) && vm->config.clock == CLOCK_VIRTUAL)
		log_warn("a network's world does not repeat itself: with one, --clock virtual does "
			 "not make runs alike");
	return 0;
}

void devices_connect(struct vm *vm, struct irq_router *router)
{
	for (unsigned i = 0; i < vm->devices->count; i++) {
		struct slot *s = &vm->devices->slots[i];
		if (s->virtio && s->virtio->transport == VIRTIO_PCI)
			s->pci.line = irq_router_line(router, pci_device_gsi(&s->pci.pci),
						      FIRST_SOURCE + (s->pci.pci.devfn >> 3));
	}
}

void devices_destroy(struct vm *vm)
{
	for (unsigned i = 0; vm->devices && i < vm->devices->count; i++)
		virtio_destroy(vm->devices->slots[i].virtio);
	free(vm->devices);
	vm->devices = NULL;
}

/* ---- running ---- */

unsigned devices_mmio_count(const struct vm *vm)
{
	return vm->devices->mmio_count;
}

void devices_drain(struct vm *vm)
{
	for (unsigned i = 0; i < vm->devices->count; i++)
		if (vm->devices->slots[i].virtio)
			virtio_drain(vm->devices->slots[i].virtio);
}

void devices_poll(struct vm *vm)
{
	for (unsigned i = 0; i < vm->devices->count; i++)
		if (vm->devices->slots[i].virtio)
			virtio_poll(vm->devices->slots[i].virtio);
}

bool devices_are_busy(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->devices->count; i++) {
		const struct virtio_device *d = vm->devices->slots[i].virtio;
		if (d && d->in_flight)
			return true;
	}
	return false;
}

bool devices_are_live(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->devices->count; i++) {
		const struct virtio_device *d = vm->devices->slots[i].virtio;
		if (d && d->is_live)
			return true;
	}
	return false;
}

unsigned vm_device_count(const struct vm *vm)
{
	return vm->devices->count;
}

const char *vm_device(const struct vm *vm, unsigned i, const char **text)
{
	const struct slot *s = &vm->devices->slots[i];
	*text = s->virtio ? s->virtio->text : "";
	return kind_name(&s->kind);
}

const char *vm_unsavable(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->devices->count; i++) {
		const struct virtio_device *d = vm->devices->slots[i].virtio;
		if (d && d->unsavable)
			return d->unsavable;
	}
	return NULL;
}

_Static_assert(VM_BALLOON_STATS == VIRTIO_BALLOON_STATS, "the same statistics");

int vm_balloon(struct vm *vm, const uint64_t *target_bytes, struct vm_balloon *out)
{
	struct virtio_device *d = first_of(vm, "balloon");
	struct virtio_balloon_info info;
	if (!d)
		return -ENODEV;
	if (target_bytes)
		virtio_balloon_set(d, *target_bytes >> PAGE_SHIFT);
	virtio_balloon_ask(d, &info);
	*out = (struct vm_balloon){.target_bytes = info.target_pages << PAGE_SHIFT,
				   .actual_bytes = info.actual_pages << PAGE_SHIFT,
				   .has_stats = info.has_stats};
	memcpy(out->stats, info.stats, sizeof(out->stats));
	return 0;
}

const char *vm_balloon_stat_name(unsigned i)
{
	return virtio_balloon_stat_name(i);
}
