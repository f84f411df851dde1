// SPDX-License-Identifier: Apache-2.0
//
// Elements of several arrays of any strides, walked together; and sums over the threads of a block
// that work on the same one.
#pragma once
#include "common.cuh"

namespace sosie {

constexpr int kMostAxes = 8;

// Elements in an order that several arrays share, axes outermost first, those that one stride can
// walk in all arrays merged. Strides count elements, may be negative, and are 0 along broadcast
// axes.
struct Axes {
    long long count;  // elements: the product of the lengths
    long long lengths[kMostAxes];
    int axes;
};
struct StridedArray {
    void* data;      // nullptr: absent
    long long step;  // along the one axis that is not among the axes: images, or a row's elements
    long long strides[kMostAxes];
    int dtype;
};

// Offsets of an element in up to `Arrays` arrays.
template <int Arrays>
struct Offsets {
    long long of[Arrays];
};

template <int Arrays>
__device__ __forceinline__ Offsets<Arrays> locate(const Axes& axes, long long element,
                                                  const StridedArray* const (&arrays)[Arrays]) {
    Offsets<Arrays> offsets;
    for (int i = 0; i < Arrays; ++i) offsets.of[i] = 0;
    for (int axis = axes.axes - 1; axis > 0; --axis) {
        long long index;
        divide(element, index, element, axes.lengths[axis]);
#pragma unroll
        for (int i = 0; i < Arrays; ++i) offsets.of[i] += index * arrays[i]->strides[axis];
    }
#pragma unroll
    for (int i = 0; i < Arrays; ++i) offsets.of[i] += element * arrays[i]->strides[0];
    return offsets;
}

template <class C>
__device__ __forceinline__ bool is_finite(C value) {
    return value - value == C(0);
}

// N gradients to where a pack's first goes.
template <class G, int N, class C>
__device__ __forceinline__ void store_gradients(const StridedArray& array, long long offset,
                                                const C (&values)[N]) {
    constexpr int kStep = N * int(sizeof(G)) > 16 ? int(16 / sizeof(G)) : N;
    G* to = static_cast<G*>(array.data) + offset;
#pragma unroll
    for (int i = 0; i < N; i += kStep) {
        Pack<G, kStep> pack;
#pragma unroll
        for (int j = 0; j < kStep; ++j) pack.values[j] = from_compute<G>(values[i + j]);
        store_pack(to + i, pack);
    }
}

template <int Threads>
struct LaneSums {
    double of[Threads];
};

// Sums over the threads of each lane, in the order of their slots; for those of slot 0. A thread's
// place is slot * lanes + lane. For all threads of a block to call.
template <int Threads>
__device__ __forceinline__ double lane_sums(double value, int place, int lanes) {
    LaneSums<Threads>& shared = shared_memory<LaneSums<Threads>>();
    __syncthreads();
    shared.of[place] = value;
    __syncthreads();
    // Halves are added to halves: lanes are a power of two, and so is the number of threads.
    for (int step = Threads / 2; step >= lanes; step /= 2) {
        if (place < step) shared.of[place] += shared.of[place + step];
        __syncthreads();
    }
    return shared.of[place];
}

}  // namespace sosie
