// SPDX-License-Identifier: Apache-2.0
//
// The emulator as a library for Python's ctypes: kernels by name, on host memory.
#include <cstdio>
#include <cstring>

#include "../../csrc/cuda/tables.hpp"

extern "C" __attribute__((visibility("default"))) int simt_launch(
    const char* name, const unsigned* grid, const unsigned* block, size_t shared_bytes,
    const void* parameters, size_t parameter_bytes, void* clear, size_t clear_bytes, int reverse,
    char* message, size_t message_bytes) {
    const sosie::Kernel* kernel = sosie::find_kernel(name);
    if (!kernel) {
        std::snprintf(message, message_bytes, "there is no kernel %s", name);
        return 1;
    }
    if (kernel->parameter_bytes != parameter_bytes) {
        std::snprintf(message, message_bytes, "%s takes %zu bytes of parameters, got %zu", name,
                      kernel->parameter_bytes, parameter_bytes);
        return 1;
    }
    if (clear_bytes) std::memset(clear, 0, clear_bytes);
    try {
        kernel->run(
            kernel->kernel, parameters, reverse ? simt::Order::reverse : simt::Order::forward,
            dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), shared_bytes);
    } catch (const simt::Fault& fault) {
        std::snprintf(message, message_bytes, "%s: %s", name, fault.what());
        return 1;
    }
    return 0;
}
