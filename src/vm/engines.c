/*
 * The engines: the catalogue, what each goes together with, and the processor that each can show.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/interp/interp.h"
#include "engine/kvm/kvm.h"
#include "engine/trans/trans.h"
#include "vm/machine.h"

static const struct engine_entry engines[] = {
	{"interp", "exact and deterministic, the reference for all semantics", &interp_ops},
	{"trans", "translates to host code: fast, for 64-bit and 32-bit guests", &trans_ops},
	{"kvm", "the host's /dev/kvm, where it can run a kernel", &kvm_ops},
};

const char *vm_engine_name(size_t i, const char **text)
{
	if (i >= ARRAY_COUNT(engines))
		return NULL;
	if (text)
		*text = engines[i].text;
	return engines[i].name;
}

const struct engine_ops *engine_find(const char *name, struct error *e)
{
	for (size_t i = 0; i < ARRAY_COUNT(engines); i++)
		if (!strcmp(engines[i].name, name))
			return engines[i].ops;
	error_set(
		e, -EINVAL,
		"--engine: there is no engine '%s'; the engines are: interp, trans, kvm, and auto "
		"for the best of them",
		name);
	return NULL;
}

/* ---- what goes together ---- */

/* What only an engine can do that executes each instruction itself; NULL: nothing of it is wanted.
 */
static const char *wants_instructions(const struct vm_config *c)
{
	if (c->verify)
		return "--verify";
	if (c->intercept_rdtsc)
		return "--intercept-rdtsc";
	if (c->max_instructions)
		return "--max-instructions";
	if (c->region_from || c->region_to)
		return "--from and --to";
	if (c->has_data_caches)
		return "a model of the data caches";
	return NULL;
}

static int check_kvm(const struct vm_config *c, struct error *e)
{
	const char *wanted = wants_instructions(c);

	if (wanted)
		return error_set(e, -EINVAL,
				 "%s: 'kvm' does not see each instruction; it goes with --engine "
				 "interp or trans",
				 wanted);
	if (strcmp(c->paging, "native"))
		return error_set(
			e, -EINVAL,
			"--paging %s: under 'kvm' the host translates addresses in its own "
			"way; strategies go with --engine interp",
			c->paging);
	if (c->clock == CLOCK_VIRTUAL)
		return error_set(
			e, -EINVAL,
			"--clock virtual: 'kvm' cannot count the guest's instructions, which "
			"virtual time is made of; it goes with --clock real");
	return 0;
}

int engine_check(const struct vm_config *c, struct error *e)
{
	const struct engine_ops *ops = engine_find(c->engine, e);
	if (!ops)
		return -EINVAL;
	if (c->perf_map && ops != &trans_ops)
		return error_set(e, -EINVAL,
				 "--perf-map: '%s' makes no code; it goes with --engine trans",
				 c->engine);
	if (c->lockstep && ops != &trans_ops)
		return error_set(e, -EINVAL,
				 "--lockstep: '%s' has nobody to keep step with; it goes with "
				 "--engine trans",
				 c->engine);
	if (c->interpreted && ops != &trans_ops)
		return error_set(e, -EINVAL,
				 "--interpreted: '%s' translates nothing; it goes with --engine "
				 "trans",
				 c->engine);
	if (c->observer_count && ops != &interp_ops)
		return error_set(e, -EINVAL,
				 "--engine: '%s' does not show each access to the schemes that "
				 "ride along; they go with --engine interp",
				 c->engine);
	return ops == &kvm_ops ? check_kvm(c, e) : 0;
}

int engine_check_host(const struct vm_config *c, struct error *e)
{
	struct kvm_fitness fitness;

	if (engine_find(c->engine, NULL) != &kvm_ops || c->skips_kvm_test ||
	    kvm_self_test(&fitness, false))
		return 0;
	if (!fitness.is_open)
		return error_set(e, -EOPNOTSUPP, "--engine kvm: %s; --engine trans needs none",
				 fitness.reason);
	return error_set(e, -EOPNOTSUPP,
			 "--engine kvm: this host's /dev/kvm cannot run an unmodified kernel (%s); "
			 "--engine trans can, and --kvm-limits ignore tries it with kvm",
			 fitness.reason);
}

/* ---- the choice ---- */

static const char *choose_kvm(char why[VM_WHY_MAX])
{
	struct kvm_fitness fitness;

	if (kvm_self_test(&fitness, true)) {
		snprintf(why, VM_WHY_MAX, "kvm self-test passed");
		return "kvm";
	}
	snprintf(why, VM_WHY_MAX, "%s%.300s", fitness.is_open ? "kvm self-test: " : "",
		 fitness.reason);
	return "trans";
}

const char *vm_choose_engine(const struct vm_config *c, const struct vm_purpose *purpose,
			     char why[VM_WHY_MAX])
{
	const char *wanted = wants_instructions(c);

	if (purpose->wants_costs || purpose->wants_paging || c->observer_count || c->verify ||
	    c->intercept_rdtsc || c->has_data_caches) {
		snprintf(why, VM_WHY_MAX, "only interp tells what translation and exits cost");
		return "interp";
	}
	if (c->perf_map || c->lockstep || c->interpreted)
		wanted = c->perf_map ? "--perf-map" : c->lockstep ? "--lockstep" : "--interpreted";
	else if (purpose->wants_counts)
		wanted = "an instruction count";
	else if (purpose->wants_virtual_time)
		wanted = "--clock virtual";
	if (!wanted)
		return choose_kvm(why);
	snprintf(why, VM_WHY_MAX, "kvm cannot do %s", wanted);
	return "trans";
}

/* ---- the processor ---- */

static bool is_kvm(const struct vm *vm)
{
	return !strcmp(vm->config.engine, "kvm");
}

bool vm_counts(const struct vm *vm, enum event e)
{
	if (is_kvm(vm))
		return kvm_counts(e);
	/* Accesses that an engine's own TLB answers pass nobody who counts. */
	bool is_hidden = event_group(e) == GROUP_TLB || event_group(e) == GROUP_WALK ||
			 (event_group(e) == GROUP_WORK && e != EVENT_INSTRUCTION);
	return !is_hidden || !vm->mmus[0]->is_unmodelled;
}

int vm_trans_statistics(const struct vm *vm, struct trans_statistics *out, struct error *e)
{
	assert(!strcmp(vm->config.engine, "trans"));
	return trans_statistics_read(vm->engine, out, e);
}

int vm_kvm_statistics(struct vm *vm, struct kvm_statistic *out, unsigned *count, struct error *e)
{
	if (!is_kvm(vm))
		return error_set(e, -EOPNOTSUPP, "the engine is '%s'", vm->config.engine);
	return kvm_statistics_read(vm->engine, out, count, e);
}

/* The guest keeps the processor that it knows. --cpu says what it may need at most. */
static int take_saved_model(struct vm *vm, struct error *e)
{
	struct cpu_model limit;
	vm->model = *vm->config.saved->model;
	if (vm->config.cpu && (cpu_model_parse(&limit, vm->config.cpu, e) ||
			       cpu_model_check_covers(&limit, &vm->model, e)))
		return error_prefix(e, "--cpu");
	int r = cpu_model_check_host(&vm->model, e);
	return !r && is_kvm(vm) ? kvm_fit_model(&vm->model, true, e) : r;
}

/* A model by its specification, and whether the engine can show it. */
static int parse_model(struct vm *vm, const char *spec, bool is_strict, struct error *e)
{
	int r = cpu_model_parse(&vm->model, spec, e);
	/* `max` is what there is. */
	bool is_max = !strncmp(spec, "max", 3) || !strncmp(spec, "host", 4);
	return !r && is_kvm(vm) ? kvm_fit_model(&vm->model, is_strict && !is_max, e) : r;
}

const char *vm_default_cpu(const char *engine)
{
	static const char *const levels[] = {"x86-64-v3", "x86-64-v2"};
	struct cpu_model m;
	for (size_t i = 0; i < ARRAY_COUNT(levels); i++)
		if (!cpu_model_parse(&m, levels[i], NULL) &&
		    (strcmp(engine, "kvm") || !kvm_fit_model(&m, true, NULL)))
			return levels[i];
	return "x86-64";
}

int engine_make_model(struct vm *vm, struct error *e)
{
	if (vm->config.saved)
		return take_saved_model(vm, e);
	const char *given = vm->config.cpu;
	/* Of the lowest level that is taken without being asked for, what there is of it. */
	if (parse_model(vm, given ? given : vm_default_cpu(vm->config.engine), given != NULL, e))
		return error_prefix(e, "--cpu");
	vm->model.vcpu_count = vm->config.cpu_count;
	vm->model.tsc_hz = vm->config.tsc_hz ? vm->config.tsc_hz : vm_profile(vm)->frequency_hz;
	vm->model.kvm_leaves = vm->config.kvm_leaves;
	/* The guest's RDTSC reads the host's. */
	return is_kvm(vm) && !vm->config.tsc_hz ? kvm_tsc_hz(&vm->model.tsc_hz, e) : 0;
}
