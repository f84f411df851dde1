// SPDX-License-Identifier: Apache-2.0
//
// Tables of kernels, for whoever launches one by its name.
//
// A kernel takes one struct by value. A family's list (<family>-list.hpp) names all instantiations,
// and SOSIE_KERNEL_TABLE makes a table of it: for nvcc of what cudaLaunchKernel takes, for other
// compilers of what the emulator runs. The names are also what is compiled at run time.
#pragma once
#include <cstddef>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "../simt/simt.hpp"
#endif

namespace sosie {

struct Kernel {
    const char* name;
    size_t parameter_bytes;
#ifdef __CUDACC__
    const void* function;
#else
    void (*kernel)();
    void (*run)(void (*kernel)(), const void* parameters, simt::Order, dim3 grid, dim3 block,
                size_t shared_bytes);
#endif
};

struct KernelTable {
    const Kernel* kernels;
    size_t count;
};

#ifdef __CUDACC__
template <class Parameters>
Kernel kernel_entry(const char* name, void (*kernel)(Parameters)) {
    return {name, sizeof(Parameters), reinterpret_cast<const void*>(kernel)};
}
#else
template <class Parameters>
void run_emulated(void (*kernel)(), const void* parameters, simt::Order order, dim3 grid,
                  dim3 block, size_t shared_bytes) {
    simt::launch(order, grid, block, shared_bytes, reinterpret_cast<void (*)(Parameters)>(kernel),
                 *static_cast<const Parameters*>(parameters));
}
template <class Parameters>
Kernel kernel_entry(const char* name, void (*kernel)(Parameters)) {
    return {name, sizeof(Parameters), reinterpret_cast<void (*)()>(kernel),
            &run_emulated<Parameters>};
}
#endif

}  // namespace sosie

#define SOSIE_KERNEL_ENTRY(...) kernel_entry(#__VA_ARGS__, &__VA_ARGS__),
#define SOSIE_KERNEL_TABLE(table, LIST)                                                   \
    namespace sosie {                                                                     \
    static const Kernel table##_entries[] = {LIST(SOSIE_KERNEL_ENTRY)};                   \
    extern const KernelTable table;                                                       \
    const KernelTable table = {table##_entries, sizeof table##_entries / sizeof(Kernel)}; \
    }
