// SPDX-License-Identifier: Apache-2.0
//
// Lends the process's OpenMP threads to the kernels. Loaded only where torch has started that
// runtime already: a second pool would fight its spinning threads for the cores.
#include <pybind11/pybind11.h>

#include <cstdint>

namespace {

void team(int threads, void (*member)(void* context), void* context) {
#pragma omp parallel num_threads(threads)
    member(context);
}

}  // namespace

PYBIND11_MODULE(_openmp, m, pybind11::mod_gil_not_used()) {
    m.def(
        "team", [] { return reinterpret_cast<std::uintptr_t>(&team); },
        "Address of the function that `_core.use_team` takes.");
}
