// SPDX-License-Identifier: Apache-2.0
//
// The only file that knows threads.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sosie {

// body(context, task, scratch): one task, with `scratch_bytes` of memory of its own thread.
using TaskBody = void (*)(void* context, int64_t task, void* scratch);

// Runs tasks 0 .. tasks - 1 on up to `threads` threads, the caller's among them; returns when all
// are done. Which thread runs which task is left to chance; tasks write to places of their own. May
// be called from several threads at once, and after a fork.
void parallel_for(int64_t tasks, int threads, size_t scratch_bytes, TaskBody body, void* context);

// A team of threads somebody else owns (an OpenMP runtime that torch has started already): runs
// member(context) on up to `threads` of its threads, the caller's among them. Used in place of
// our own threads in the process that registers it; a forked child goes back to our own.
using Team = void (*)(int threads, void (*member)(void* context), void* context);
void use_team(Team team);
bool has_team();

}  // namespace sosie
