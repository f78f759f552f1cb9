/*
 * The run loop. All vcpus of a machine take turns on one thread.
 *
 * Virtual time: a turn is a stretch [now, end) of guest time, where `end` is the next timer's
 * deadline or one quantum away. Every vcpu runs through the same stretch, one after the other: the
 * clock is rewound for each. Timers fire between turns only, in order. A vcpu that arms an earlier
 * timer stops there (the engine sees to it), and the stretch ends there for those after it; those
 * before it are ahead by the rest and wait for the others in the next turn. Nothing in this depends
 * on the host, so two runs are alike to the last bit, as long as nobody types.
 *
 * Real time: the same turns, but the clock moves by itself; idle vcpus sleep in the poller.
 */

#include "base/host_time.h"
#include "vm/machine.h"

#define QUANTUM_ONE_VCPU 100000u
/* Shorter with several vcpus: it bounds how late one sees another's interrupt or memory write. */
#define QUANTUM_SMP 10000u
#define QUANTUM_REAL_NS 1000000u
#define QUANTUM_BUSY_NS                                                          \
	100000u /* while a device works: what it finishes is taken between turns \
		 */
/* The host's files are looked at this often: soon again when there was something, rarely when not.
 */
#define POLL_SOON_NS 50000u
#define STEP_REAL_NS 1000000000u
#define POLL_EVERY_NS 5000000u
/* A turn in real time: a timer that is due again at once would leave the guest none. */
#define TURN_MIN_NS 5000u
/* So long the TSC is compared with the clock, at least: its rate is then right to a thousandth. */
#define RATE_NS 300000u
/* A guest that sleeps for years need not make us compute with the sum. */
#define SLEEP_MAX_NS 3600000000000ull

static bool is_virtual(const struct vm *vm)
{
	return vm->clock.kind == CLOCK_VIRTUAL;
}

static bool must_leave(const struct vm *vm)
{
	return vm->outcome.end != VM_END_NONE || vm->is_paused || vm->is_reset_wanted;
}

/* ---- the host ---- */

static void poll_host(struct vm *vm, uint64_t timeout_ns)
{
	uint64_t now = host_time_ns();
	if (timeout_ns && vm->time_limit_ns != UINT64_MAX) {
		uint64_t left = vm->time_limit_ns > now ? vm->time_limit_ns - now : 0;
		if (timeout_ns > left)
			timeout_ns = left;
	}
	board_pump(vm);
	bool is_busy = poller_wait(vm->poller, timeout_ns) > 0;
	board_pump(vm);
	now = host_time_ns();
	uint64_t longer = 2 * vm->poll_interval_ns;
	vm->poll_interval_ns = is_busy			? POLL_SOON_NS
			       : longer < POLL_EVERY_NS ? longer
							: POLL_EVERY_NS;
	vm->next_poll_ns = now + vm->poll_interval_ns;
	if (now >= vm->time_limit_ns)
		vm_end_with(vm, 0, VM_END_TIMEOUT, 0, "--timeout: %.3g s are over",
			    (double)vm->config.timeout_ms / 1000);
}

static void check_limits(struct vm *vm)
{
	if (vm_instructions(vm) >= vm->instruction_limit && vm->config.max_instructions &&
	    vm->instruction_limit == vm->config.max_instructions)
		vm_end_with(vm, 0, VM_END_INSTRUCTIONS, 0, "--max-instructions: %llu are done",
			    (unsigned long long)vm->config.max_instructions);
	if (host_time_ns() >= vm->next_poll_ns)
		poll_host(vm, 0);
}

/* ---- a turn ---- */

/* The instruction count at which every vcpu stops between two instructions. */
static uint64_t stop_count(const struct vm *vm)
{
	bool is_sooner = vm->pending.call && vm->pending.instruction < vm->instruction_limit;
	return is_sooner ? vm->pending.instruction : vm->instruction_limit;
}

/* Runs one vcpu from the clock's present time to `end`. False: leave the turn. */
static bool run_vcpu(struct vm *vm, unsigned i, uint64_t end)
{
	struct vcpu_turn *turn = &vm->turns[i];
	turn->is_halted = false;
	for (;;) {
		uint64_t now = clock_now(&vm->clock);
		uint64_t done = vm_instructions(vm);
		if (done >= region_edge(vm))
			region_pass(vm);
		uint64_t edge = region_edge(vm);
		uint64_t stop = stop_count(vm);
		uint64_t limit = edge < stop ? edge : stop;
		if (now >= end || done >= stop)
			return true;
		if (vm->outcome.end != VM_END_NONE)
			return false;
		uint64_t until = end;
		if (limit - done < until - now)
			until = now + (limit - done);
		struct vm_exit exit = {.reason = EXIT_BUDGET};
		vm->engine_ops->run(vm->engine, i, until, &exit);
		turn->time = clock_now(&vm->clock);
		switch (vm_handle_exit(vm, i, &exit)) {
		case ACTION_CONTINUE: break;
		case ACTION_YIELD: return true;
		case ACTION_LEAVE: return false;
		}
	}
}

/* Every vcpu through [now, end). Returns false if nobody did anything: the machine is idle. */
static bool turn_virtual(struct vm *vm)
{
	uint64_t start = vm->clock.now_cycles;
	uint64_t quantum = vm->config.cpu_count == 1 ? QUANTUM_ONE_VCPU : QUANTUM_SMP;
	uint64_t deadline = clock_next_deadline(&vm->clock);
	uint64_t end = start + quantum;
	if (deadline < end)
		end = deadline > start ? deadline : start + 1;
	bool is_awake = false, is_left = false;
	for (unsigned i = 0; i < vm->config.cpu_count && !is_left; i++) {
		struct vcpu_turn *turn = &vm->turns[i];
		if (turn->time >= end) { /* ahead since the last turn */
			is_awake |= !turn->is_halted;
			continue;
		}
		uint64_t from = turn->time > start ? turn->time : start;
		clock_set(&vm->clock, from);
		is_left = !run_vcpu(vm, i, end);
		is_awake |= !turn->is_halted || turn->time > from;
		deadline = clock_next_deadline(&vm->clock);
		if (deadline < end)
			end = deadline > start ? deadline : start + 1;
	}
	/* The machine's time is that of the vcpu furthest behind among those that run. */
	uint64_t slowest = UINT64_MAX, latest = start;
	for (unsigned i = 0; i < vm->config.cpu_count; i++) {
		const struct vcpu_turn *turn = &vm->turns[i];
		if (!turn->is_halted && turn->time < slowest)
			slowest = turn->time;
		if (turn->time > latest)
			latest = turn->time;
	}
	uint64_t now = slowest == UINT64_MAX ? latest : slowest;
	clock_set(&vm->clock, now > start ? now : start);
	return is_awake || is_left;
}

static bool turn_real(struct vm *vm)
{
	bool is_awake = false;
	for (unsigned i = 0; i < vm->config.cpu_count; i++) {
		uint64_t now = clock_now(&vm->clock);
		uint64_t ns = devices_are_busy(vm) ? QUANTUM_BUSY_NS : QUANTUM_REAL_NS;
		uint64_t end = now + clock_cycles_from_ns(&vm->clock, ns);
		uint64_t deadline = clock_next_deadline(&vm->clock);
		uint64_t least = now + clock_cycles_from_ns(&vm->clock, TURN_MIN_NS);
		if (deadline < end)
			end = deadline > least ? deadline : least;
		uint64_t before = ledger_total(&vm->ledgers[i], EVENT_INSTRUCTION);
		bool is_left = !run_vcpu(vm, i, end);
		bool has_run = ledger_total(&vm->ledgers[i], EVENT_INSTRUCTION) != before;
		is_awake |= !vm->turns[i].is_halted || has_run;
		if (is_left)
			return true;
	}
	return is_awake;
}

/* ---- idling ---- */

/* Could an interrupt still wake somebody? */
static bool can_wake(const struct vm *vm)
{
	for (unsigned i = 0; i < vm->config.cpu_count; i++) {
		const struct vcpu_state *s = &vm->vcpus[i].state;
		if (s->activity == ACTIVITY_RUNNING ||
		    (s->activity == ACTIVITY_HALTED && (s->rflags & FLAG_IF)))
			return true;
	}
	return false;
}

/* Does real time matter to somebody: a person, or a network? */
static bool is_watched(const struct vm *vm)
{
	if (devices_are_live(vm))
		return true;
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
		if (vm->serials[i] && serial_is_interactive(vm->serials[i]))
			return true;
	return false;
}

/* Somebody sits at the terminal: guest time that passes idle passes for him too, and a key ends the
 * sleep. */
static void sleep_virtual(struct vm *vm, uint64_t deadline)
{
	uint64_t start = vm->clock.now_cycles;
	uint64_t ns = clock_ns_from_cycles(&vm->clock, deadline - start);
	uint64_t before = host_time_ns();
	poll_host(vm, ns < SLEEP_MAX_NS ? ns : SLEEP_MAX_NS);
	uint64_t slept = clock_cycles_from_ns(&vm->clock, host_time_ns() - before);
	if (slept < deadline - start)
		clock_set(&vm->clock, start + slept);
	else
		clock_set(&vm->clock, deadline);
}

static void idle(struct vm *vm)
{
	uint64_t deadline = clock_next_deadline(&vm->clock);
	if (!can_wake(vm) || (deadline == CLOCK_NEVER && !poller_has_waker(vm->poller))) {
		vm_end_with(vm, 0, VM_END_HALTED, 0,
			    "guest halted forever: every vcpu is halted and %s",
			    can_wake(vm) ? "no timer is set" : "interrupts are off");
		return;
	}
	if (deadline == CLOCK_NEVER) {
		poll_host(vm, POLLER_FOREVER);
	} else if (!is_virtual(vm)) {
		uint64_t now = clock_now(&vm->clock);
		uint64_t ns = deadline > now ? clock_ns_from_cycles(&vm->clock, deadline - now) : 0;
		poll_host(vm, ns < SLEEP_MAX_NS ? ns : SLEEP_MAX_NS);
	} else if (is_watched(vm) && deadline > vm->clock.now_cycles) {
		sleep_virtual(vm, deadline);
	} else if (deadline > vm->clock.now_cycles) {
		clock_set(&vm->clock, deadline);
	}
}

/* ---- the debugger's step ---- */

static void step(struct vm *vm)
{
	unsigned i = (unsigned)vm->step_vcpu;
	vm->step_vcpu = -1;
	struct vcpu_turn *turn = &vm->turns[i];
	if (is_virtual(vm) && turn->time > vm->clock.now_cycles)
		clock_set(&vm->clock, turn->time);
	uint64_t now = clock_now(&vm->clock);
	struct vm_exit exit = {.reason = EXIT_BUDGET};
	/* Pausing asked for it; it would come before the instruction. */
	vcpu_withdraw(&vm->vcpus[i], REQUEST_STOP);
	/* A host that is busy may take its time over one instruction. */
	uint64_t budget = is_virtual(vm) ? QUANTUM_SMP
					 : clock_cycles_from_ns(&vm->clock, STEP_REAL_NS);
	vm->engine_ops->single_step(vm->engine, i);
	vm->engine_ops->run(vm->engine, i, now + budget, &exit);
	turn->time = clock_now(&vm->clock);
	turn->is_halted = false;
	if (exit.reason == EXIT_MARK)
		vm_mark(vm, exit.mark);
	/* A halted vcpu does not step; the debugger is answered all the same. */
	if (exit.reason == EXIT_HALT || exit.reason == EXIT_BUDGET || exit.reason == EXIT_STOP ||
	    exit.reason == EXIT_MARK)
		exit.reason = EXIT_STEPPED;
	vm_handle_exit(vm, i, &exit);
}

/* ---- the loop ---- */

static void go(struct vm *vm)
{
	bool is_busy = is_virtual(vm) ? turn_virtual(vm) : turn_real(vm);
	if (must_leave(vm))
		return;
	if (!is_busy)
		idle(vm);
	clock_now(&vm->clock);
	clock_run_due(&vm->clock);
	devices_poll(vm);
}

static void call_pending(struct vm *vm)
{
	void (*call)(void *opaque) = vm->pending.call;
	if (!call || vm_instructions(vm) < vm->pending.instruction)
		return;
	vm->pending.call = NULL;
	call(vm->pending.opaque);
}

static void reset(struct vm *vm)
{
	struct error e = {0};
	vm->is_reset_wanted = false;
	if (vm_power_on(vm, &e))
		vm_end_with(vm, 0, VM_END_ERROR, 0, "reset: %s", e.text);
}

/* With `may_return` the caller takes over when the instruction limit is reached or the machine is
 * paused. */
static void loop(struct vm *vm, bool may_return)
{
	while (vm->outcome.end == VM_END_NONE) {
		if (vm->is_reset_wanted)
			reset(vm);
		else if (vm->step_vcpu >= 0)
			step(vm);
		else if (!vm->is_paused)
			go(vm);
		else if (may_return)
			break;
		else
			poll_host(vm, POLLER_FOREVER);
		call_pending(vm);
		check_limits(vm);
		if (may_return && vm_instructions(vm) >= vm->instruction_limit)
			break;
	}
	board_pump(vm);
}

static void finish(struct vm *vm, struct vm_outcome *outcome)
{
	*outcome = vm->outcome;
	if (vm->outcome.end == VM_END_NONE)
		return;
	for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
		if (vm->serials[i])
			serial_settle(vm->serials[i]);
	for (unsigned i = 0; i < vm->observer_count; i++)
		if (vm->observers[i].ended)
			vm->observers[i].ended(vm->observers[i].opaque, &vm->outcome);
}

/* How fast the host's TSC is: since the machine was made it has run for milliseconds, mostly. What
 * is missing is waited for, once. */
static void start_exit_times(struct vm *vm)
{
	uint64_t ns, ticks;
	if (vm->times[0].ns_per_tick)
		return;
	do {
		ns = host_time_ns() - vm->created_ns;
		ticks = __rdtsc() - vm->created_ticks;
	} while (ns < RATE_NS);
	for (unsigned i = 0; i < vm->config.cpu_count; i++)
		exit_times_set_rate(&vm->times[i], ticks, ns);
}

/* The host's time runs from the first run on. */
static void start_host_time(struct vm *vm)
{
	start_exit_times(vm);
	if (vm->config.timeout_ms && vm->time_limit_ns == UINT64_MAX)
		vm->time_limit_ns = host_time_ns() + vm->config.timeout_ms * 1000000u;
}

void vm_run(struct vm *vm, struct vm_outcome *outcome)
{
	uint64_t limit = vm->config.max_instructions;
	vm->instruction_limit = limit ? limit : UINT64_MAX;
	start_host_time(vm);
	loop(vm, false);
	finish(vm, outcome);
}

void vm_run_for(struct vm *vm, uint64_t instructions, struct vm_outcome *outcome)
{
	uint64_t done = vm_instructions(vm);
	uint64_t limit = instructions < UINT64_MAX - done ? done + instructions : UINT64_MAX;
	uint64_t max = vm->config.max_instructions;
	vm->instruction_limit = max && max < limit ? max : limit;
	start_host_time(vm);
	loop(vm, true);
	finish(vm, outcome);
}
