// SPDX-License-Identifier: Apache-2.0
//
// The contract between the kernels and everything around them: plain structs, raw pointers, sizes.
//
// A family's kernels are compiled once per instruction set, and fill one table each time. A kernel
// runs one *task* (for images, a strip of rows and columns of one plane) with scratch memory that
// the caller owns; it never allocates, never starts a thread and knows nothing of Python. Which
// tasks exist depends on the problem alone, so results do not depend on the number of threads.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sosie {

enum class DType : int32_t { u8, u16, f16, bf16, f32, f64 };

// A borrowed array of shape (batch, channels, depth, height, width); an image has depth 1.
// Strides count elements, may be negative, and are 0 along broadcast axes.
struct Array {
    void* data;  // nullptr: the array is absent
    DType dtype;
    int64_t strides[5];
};

// What the driver (tasks.hpp) runs in parallel; `partial` is a place of the task's own for what it
// adds up.
template <class Call, class Partial>
struct TaskKernel {
    int64_t (*tasks)(const Call&);
    size_t (*scratch_bytes)(const Call&);
    void (*run)(const Call&, int64_t task, void* scratch, Partial* partial);
};

struct DistanceKernels;
struct PairedKernels;
struct RecurrentKernels;
struct SSDKernels;
struct SSIMKernels;
struct TemplateKernels;
struct WinogradKernels;

// Everything that was compiled for one instruction set: a table per family.
struct Kernels {
    const char* name;
    int lanes_f32;
    const SSIMKernels* ssim;
    const PairedKernels* paired;
    const DistanceKernels* distance;
    const SSDKernels* ssd;
    const TemplateKernels* templates;
    const RecurrentKernels* recurrent;
    const WinogradKernels* winograd;
    // Floating-point operations done; the caller holds the clock.
    double (*fma_peak)(int64_t iterations);
    double (*read_peak)(const float* data, int64_t count);
};

}  // namespace sosie
