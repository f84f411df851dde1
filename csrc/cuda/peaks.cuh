// SPDX-License-Identifier: Apache-2.0
//
// What a device can compute at best, for benchmarks to compare with.
#pragma once
#include "common.cuh"

namespace sosie {

struct PeakCall {
    int iterations;
    float* results;  // one per block, all equal to 2
};

// 64 multiply-adds per iteration and thread, in chains that are independent of each other.
template <class T>
__global__ void __launch_bounds__(256) fma_peak(const PeakCall call) {
    constexpr int kChains = 16;
    T values[kChains];
#pragma unroll
    for (int i = 0; i < kChains; ++i) values[i] = T(2);
    // 2 is where x / 2 + 1 stays. Read from memory, so that nobody computes it in advance.
    const T factor = T(0.25f * call.results[blockIdx.x]);
    for (int i = 0; i < call.iterations; ++i)
#pragma unroll
        for (int j = 0; j < 4 * kChains; ++j)
            values[j % kChains] = values[j % kChains] * factor + T(1);
    T sum = T(0);
#pragma unroll
    for (int i = 0; i < kChains; ++i) sum += values[i];
    __syncthreads();  // all have read
    if (linear_thread() == 0) call.results[blockIdx.x] = float(sum) / kChains;
}

}  // namespace sosie
