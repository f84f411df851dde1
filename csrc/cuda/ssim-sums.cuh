// SPDX-License-Identifier: Apache-2.0
//
// Sums over the tiles of a plane, in one launch and always in the same order: threads of a warp,
// warps of a block, and, by the block that finishes last, blocks of the plane.
#pragma once
#include "ssim-call.cuh"

namespace sosie {

constexpr int kMostThreads = 256;

struct SumStorage {
    double warps[kMostThreads / 32][kSums];
};

// What the threads of the block have, added up; in every thread with an index below kSums.
__device__ __forceinline__ double sum_of_block(const double (&sums)[kSums], SumStorage& storage) {
    const int thread = int(threadIdx.x), warps = int(blockDim.x) / 32;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
        const double sum = warp_sum(sums[i]);
        if (thread % 32 == 0) storage.warps[thread / 32][i] = sum;
    }
    __syncthreads();
    double total = 0;
    if (thread < kSums)
        for (int w = 0; w < warps; ++w) total += storage.warps[w][thread];
    return total;
}

// Adds the sums of all tiles of a plane; true in the block that had the last of them, where `sums`
// then holds the plane's in the first thread.
template <class T>
__device__ __forceinline__ bool add_tiles(const SSIMCall<T>& call, const Tile& tile, int tiles,
                                          double (&sums)[kSums]) {
    SumStorage& storage = shared_memory<SumStorage>();
    const int thread = int(threadIdx.x);
    double* partials = call.partials + (long long)tile.plane * tiles * kSums;
    const double total = sum_of_block(sums, storage);
    if (thread < kSums) partials[(long long)tile.index * kSums + thread] = total;
    if (!is_last_block(call.tickets + tile.plane, unsigned(tiles))) return false;
    // Not from the first-level cache, which other blocks' writes do not reach.
    const volatile double* written = partials;
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
        sums[i] = 0;
        for (int t = thread; t < tiles; t += int(blockDim.x))
            sums[i] += written[(long long)t * kSums + i];
    }
    const double plane = sum_of_block(sums, storage);
#pragma unroll
    for (int i = 0; i < kSums; ++i) sums[i] = __shfl_sync(0xffffffffu, plane, i);
    return true;
}

// Means of a plane from its sums. Not a number where nothing counts.
template <class T>
__device__ __forceinline__ void store_means(const SSIMCall<T>& call, const Tile& tile,
                                            const double (&sums)[kSums], bool values, bool l1) {
    if (threadIdx.x != 0) return;
    if (values && call.values)
        call.values[tile.plane] =
            sums[kValue] / (call.counts ? call.counts[2 * tile.plane] : call.positions);
    if (l1 && call.l1)
        call.l1[tile.plane] =
            sums[kL1] / (call.counts ? call.counts[2 * tile.plane + 1] : call.pixels);
}

}  // namespace sosie
