// SPDX-License-Identifier: Apache-2.0
//
// What this machine can do, measured by the benchmarks beside every kernel: multiply-adds on
// registers alone, and a read of memory with nothing else to do.
#pragma once
#include "simd-inl.hpp"

namespace {

// Returns the floating-point operations done (an FMA is two). Twelve chains hide the latency of
// four or five cycles on two pipes; the volatile sink keeps the work alive.
double fma_peak(int64_t iterations) {
    constexpr int chains = 12;
    Vec<float> sum[chains];
    for (int i = 0; i < chains; ++i) sum[i] = splat<float>(float(i));
    Vec<float> scale = splat<float>(0.999f), step = splat<float>(0.5f);
    for (int64_t n = 0; n < iterations; ++n) {
        asm volatile("" : "+m"(scale), "+m"(step));
        const Vec<float> a = scale, b = step;
        for (int unroll = 0; unroll < 8; ++unroll)
#pragma GCC unroll 16
            for (int i = 0; i < chains; ++i) sum[i] = sum[i] * a + b;
    }
    volatile float sink = 0;
    for (int i = 0; i < chains; ++i) sink = sink + sum[i][0];
    return double(iterations) * 8 * chains * kLanes<float> * 2;
}

double read_peak(const float* data, int64_t count) {
    constexpr int chains = 8;
    Vec<float> sum[chains] = {};
    for (int64_t i = 0; i + chains * kLanes<float> <= count; i += chains * kLanes<float>)
#pragma GCC unroll 8
        for (int c = 0; c < chains; ++c) sum[c] += load<float>(data + i + c * kLanes<float>);
    double total = 0;
    for (int c = 0; c < chains; ++c) total += sum_lanes<float>(sum[c]);
    return total;
}

}  // namespace
