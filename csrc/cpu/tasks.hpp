// SPDX-License-Identifier: Apache-2.0
//
// A whole call: its tasks in parallel, what each adds up in a place of its own.
#pragma once
#include <vector>

#include "kernels.hpp"
#include "parallel.hpp"

namespace sosie {

// In the order of the tasks, whatever the number of threads.
template <class Call, class Partial>
std::vector<Partial> run_tasks(const TaskKernel<Call, Partial>& kernel, const Call& call,
                               int threads) {
    std::vector<Partial> partials(size_t(kernel.tasks(call)));
    struct Context {
        const TaskKernel<Call, Partial>& kernel;
        const Call& call;
        Partial* partials;
    } context{kernel, call, partials.data()};
    parallel_for(
        int64_t(partials.size()), threads, kernel.scratch_bytes(call),
        [](void* shared, int64_t task, void* scratch) {
            const Context& c = *static_cast<Context*>(shared);
            c.kernel.run(c.call, task, scratch, c.partials + task);
        },
        &context);
    return partials;
}

}  // namespace sosie
