/*
 * The engine `trans`: a same-ISA dynamic binary translator, x86-64 to x86-64.
 *
 * It is the interpreter with a hot half. Everything begins in engine/interp: its run loop, its
 * decoded blocks, its delivery of faults and interrupts, its handlers. A block of 64-bit or flat
 * 32-bit code that has become warm is translated to host code that runs straight on the host's
 * registers, and translated blocks lead to each other without the loop. What has no translation is
 * a call of the interpreter's handler, so the engine runs whatever `interp` runs.
 * docs/translator.md tells the whole story.
 */
#pragma once

#include "engine/engine.h"

extern const struct engine_ops trans_ops;
