/*
 * Placement by simulated annealing, the part of SPEC's 175.vpr that the paper's figures show:
 * blocks of a synthetic netlist on a square grid, cost = the half perimeter of each net's bounding
 * box times a factor for its number of pins. A move exchanges two sites at random within a window
 * that shrinks as moves are accepted less; it changes the boxes of all nets on both blocks. So the
 * accesses hop over blocks, nets and pins: many TLB misses, hardly a system call, about one access
 * in two instructions.
 *
 * All costs are integers. The acceptance test needs exp(-x), which is computed here with the basic
 * operations only, so that every machine decides alike.
 */
#include "suite.h"

#include <errno.h>
#include <stdlib.h>

enum { MOVES, BLOCKS, FANOUT };

#define PINS_MAX 16u
#define NETS_OF_BLOCK_MAX 12u
#define TEMPERATURES 40u

struct net {
	uint32_t pin_count;
	uint32_t pin[PINS_MAX]; /* blocks */
	int64_t cost;
};

struct block {
	int16_t x, y;
	uint32_t net_count;
	uint32_t net[NETS_OF_BLOCK_MAX];
};

struct placement {
	struct block *blocks;
	struct net *nets;
	uint32_t *site;	 /* which block is at y * side + x */
	uint32_t *stamp; /* the move that last looked at a net */
	uint32_t side, block_count, net_count;
	uint64_t random;
	int64_t cost;
};

/* What a move changes: nets with their cost before. */
struct change {
	uint32_t net_count;
	uint32_t net[2 * NETS_OF_BLOCK_MAX];
	int64_t cost_before[2 * NETS_OF_BLOCK_MAX];
	int64_t difference;
};

/* exp(-v) for v >= 0: v halved until small, a short series, squared back. */
static double exp_of_minus(double v)
{
	unsigned halvings = 0;
	double e;

	if (v > 40.0)
		return 0.0;
	for (; v > 0.0625; halvings++)
		v *= 0.5;
	e = 1.0 - v * (1.0 - v * (0.5 - v * (1.0 / 6 - v * (1.0 / 24 - v / 120.0))));
	while (halvings--)
		e *= e;
	return e;
}

/* Expected crossings of a net grow with its pins: about 1 up to 3 pins, 2 at 16; in 1/64. */
static int64_t net_cost(const struct placement *p, const struct net *n)
{
	const struct block *b = &p->blocks[n->pin[0]];
	int32_t left = b->x, right = b->x, low = b->y, high = b->y;
	int64_t factor = n->pin_count <= 3 ? 64 : 64 + ((int64_t)n->pin_count - 3) * 5;

	for (uint32_t i = 1; i < n->pin_count; i++) {
		b = &p->blocks[n->pin[i]];
		left = b->x < left ? b->x : left;
		right = b->x > right ? b->x : right;
		low = b->y < low ? b->y : low;
		high = b->y > high ? b->y : high;
	}
	return (right - left + high - low) * factor;
}

/* Another block of the net: near its driver in number for most nets, as logic is clustered. */
static uint32_t pick_pin(struct placement *p, uint32_t driver)
{
	uint64_t r = next_random(&p->random);
	uint32_t reach = r & 7 ? 256 : p->block_count;

	if (reach > p->block_count)
		reach = p->block_count;
	return (driver + 1 + (uint32_t)(r >> 32) % reach) % p->block_count;
}

static int add_pin(struct placement *p, uint32_t net, uint32_t block)
{
	struct block *b = &p->blocks[block];

	for (uint32_t i = 0; i < b->net_count; i++)
		if (b->net[i] == net)
			return 0;
	if (b->net_count == NETS_OF_BLOCK_MAX)
		return 0;
	b->net[b->net_count++] = net;
	p->nets[net].pin[p->nets[net].pin_count++] = block;
	return 1;
}

/* Each block drives one net; most have 2 to 4 pins, some up to PINS_MAX. */
static void make_netlist(struct placement *p, uint32_t fanout)
{
	for (uint32_t net = 0; net < p->net_count; net++) {
		uint64_t r = next_random(&p->random);
		uint32_t sinks = 1 + (uint32_t)r % fanout;

		if ((r >> 32) % 16 == 0)
			sinks *= 3;
		add_pin(p, net, net);
		for (uint32_t i = 0; i < sinks && p->nets[net].pin_count < PINS_MAX; i++)
			add_pin(p, net, pick_pin(p, net));
	}
}

static void place_randomly(struct placement *p)
{
	for (uint32_t i = 0; i < p->block_count; i++) {
		uint32_t j = (uint32_t)(next_random(&p->random) % (i + 1));

		p->site[i] = p->site[j];
		p->site[j] = i;
	}
	for (uint32_t i = 0; i < p->block_count; i++) {
		p->blocks[p->site[i]].x = (int16_t)(i % p->side);
		p->blocks[p->site[i]].y = (int16_t)(i / p->side);
	}
	for (uint32_t net = 0; net < p->net_count; net++) {
		p->nets[net].cost = net_cost(p, &p->nets[net]);
		p->cost += p->nets[net].cost;
	}
}

static void exchange(struct placement *p, uint32_t site_a, uint32_t site_b)
{
	uint32_t a = p->site[site_a], b = p->site[site_b];

	p->site[site_a] = b;
	p->site[site_b] = a;
	p->blocks[b].x = (int16_t)(site_a % p->side);
	p->blocks[b].y = (int16_t)(site_a / p->side);
	p->blocks[a].x = (int16_t)(site_b % p->side);
	p->blocks[a].y = (int16_t)(site_b / p->side);
}

/* Prices the nets of a block again, each once a move. */
static void reprice(struct placement *p, uint32_t block, uint32_t move, struct change *c)
{
	const struct block *b = &p->blocks[block];

	for (uint32_t i = 0; i < b->net_count; i++) {
		struct net *n = &p->nets[b->net[i]];

		if (p->stamp[b->net[i]] == move)
			continue;
		p->stamp[b->net[i]] = move;
		c->net[c->net_count] = b->net[i];
		c->cost_before[c->net_count++] = n->cost;
		c->difference -= n->cost;
		n->cost = net_cost(p, n);
		c->difference += n->cost;
	}
}

static int is_accepted(struct placement *p, int64_t difference, double temperature)
{
	if (difference <= 0)
		return 1;
	return (double)(next_random(&p->random) >> 11) * 0x1p-53 <
	       exp_of_minus((double)difference / temperature);
}

static int try_move(struct placement *p, uint32_t move, uint32_t window, double temperature)
{
	uint64_t r = next_random(&p->random);
	uint32_t site_a = (uint32_t)r % p->block_count;
	uint32_t x = (site_a % p->side + (uint32_t)(r >> 32) % window) % p->side;
	uint32_t y = (site_a / p->side + (uint32_t)(r >> 48) % window) % p->side;
	uint32_t site_b = y * p->side + x;
	struct change c = {0};

	if (site_a == site_b)
		return 0;
	exchange(p, site_a, site_b);
	reprice(p, p->site[site_a], move, &c);
	reprice(p, p->site[site_b], move, &c);
	if (is_accepted(p, c.difference, temperature)) {
		p->cost += c.difference;
		return 1;
	}
	exchange(p, site_a, site_b);
	for (uint32_t i = 0; i < c.net_count; i++)
		p->nets[c.net[i]].cost = c.cost_before[i];
	return 0;
}

/* VPR's schedule in outline: the window follows the share of accepted moves towards 44 %. */
static void anneal(struct placement *p, uint64_t move_count)
{
	double temperature = (double)p->cost / p->net_count * 2.0, window = p->side;
	uint32_t move = 1, moves_each = (uint32_t)(move_count / TEMPERATURES) + 1;

	for (unsigned step = 0; step < TEMPERATURES; step++) {
		uint32_t accepted = 0;

		for (uint32_t i = 0; i < moves_each; i++)
			accepted += (uint32_t)try_move(p, move++, (uint32_t)window, temperature);
		window *= 1.0 - 0.44 + (double)accepted / moves_each;
		window = window < 2 ? 2 : window > p->side ? p->side : window;
		temperature *= 0.85;
	}
}

static void *take(size_t count, size_t size_bytes)
{
	void *p = calloc(count, size_bytes);

	if (!p)
		give_up("memory");
	return p;
}

static uint64_t vpr(const uint64_t *knob)
{
	struct placement p = {.random = 175};
	uint64_t sum;
	int64_t cost_at_start, cost = 0;

	while ((uint64_t)(p.side + 1) * (p.side + 1) <= knob[BLOCKS])
		p.side++;
	p.block_count = p.net_count = p.side * p.side;
	p.blocks = take(p.block_count, sizeof(*p.blocks));
	p.nets = take(p.net_count, sizeof(*p.nets));
	p.site = take(p.block_count, sizeof(*p.site));
	p.stamp = take(p.net_count, sizeof(*p.stamp));
	make_netlist(&p, (uint32_t)knob[FANOUT]);
	place_randomly(&p);
	cost_at_start = p.cost;
	measure_begin();
	anneal(&p, knob[MOVES]);
	measure_end();
	for (uint32_t net = 0; net < p.net_count; net++)
		cost += net_cost(&p, &p.nets[net]);
	if (cost != p.cost) {
		errno = 0;
		give_up("vpr: the cost kept is not the cost of the placement");
	}
	sum = fold(fold(0, (uint64_t)cost_at_start), (uint64_t)cost);
	for (uint32_t i = 0; i < p.block_count; i += 7)
		sum = fold(sum, p.site[i]);
	free(p.blocks);
	free(p.nets);
	free(p.site);
	free(p.stamp);
	return sum;
}

const struct study vpr_study = {
	"vpr",
	"placement of a netlist by simulated annealing",
	{
		[MOVES] = {"moves", 200000, 30000, 1, 1u << 31, "exchanges tried"},
		[BLOCKS] = {"blocks", 300000, 10000, 16, 1 << 20,
			    "blocks and nets; about 150 bytes each"},
		[FANOUT] = {"fanout", 4, 4, 1, PINS_MAX, "sinks of a net, at most, but for a few"},
	},
	vpr,
};
