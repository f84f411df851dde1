// SPDX-License-Identifier: Apache-2.0
//
// Kernels launched by name, and what the driver says of the machine's devices.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace sosie {

struct Launch {
    const char* kernel;
    uint32_t grid[3], block[3];
    size_t shared_bytes;     // dynamic shared memory of a block
    const void* parameters;  // the kernel's struct
    size_t parameter_bytes;
    int device;
    uintptr_t stream;  // cudaStream_t of that device
    // Device memory that is zeroed first, on the same stream; 0 bytes: none.
    uintptr_t clear;
    size_t clear_bytes;
};

// Asynchronous: it allocates nothing, waits for nothing and can be captured in a graph. Throws
// std::invalid_argument where the call does not fit the kernel, std::runtime_error with the
// driver's reason.
void launch(const Launch& call);

int device_count();                    // 0 where there is no driver
std::string unusable_reason();         // why there is no device; empty where there is one
int multiprocessors(int device);       // of a device
size_t most_shared_bytes(int device);  // that a block can be launched with
std::string built_for();               // compute capabilities, as CMake was told
int toolkit_version();                 // 1000 major + 10 minor

}  // namespace sosie
