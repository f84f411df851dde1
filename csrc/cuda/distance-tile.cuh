// SPDX-License-Identifier: Apache-2.0
//
// The matrix of distances of all pairs, in tiles of 128 x 128 for a block of 256 threads, each with
// 8 x 8 sums in registers.
//
// cdist_direct subtracts and squares: two operations per pair and dimension, which cost nothing up
// to about 16 dimensions, where storing the result takes longer. cdist_finish takes the products of
// a library's matrix multiplication instead, while they are in the L2 cache, and computes again
// what cancelled: few pairs one by one, a tile with many of them as cdist_direct does.
//
// Each result is stored once: 4 bytes of memory traffic per pair, and for cdist_finish 4 of the
// cache's.
#pragma once
#include "distance.cuh"

namespace sosie {

constexpr int kTile = 128, kTileDims = 16, kTileSide = 8;
// Pairs of a tile beyond which it takes longer to compute them one by one than all together: a
// thirty-second. A pair costs a warp 2 loads where it costs a thread of a tile 2 operations.
constexpr int kTileSuspects = kTile * kTile / 32;
// In place of a value that is computed later; no distance is negative.
constexpr int kPending = -1;

struct DistanceForward {
    DistanceProblem problem;
    // The part to compute: rows [first_row, first_row + rows), and columns.
    long long first_row, first_column, rows, columns;
    void* distances;                     // of the computing type, where the part begins
    long long batch_stride, row_stride;  // of distances
    const void* products;                // (rows, columns), of centred rows
    const void *squares_a, *squares_b;   // (rows,) and (columns,): their squared lengths
    double near;                         // part of the sum of these below which a pair is suspect
};

template <class C>
struct TileMemory {
    alignas(16) C a[kTileDims][kTile + 4], b[kTileDims][kTile + 4];
    C weights[kTileDims];
};
struct TileCount {
    unsigned pairs;
};

struct TilePlace {
    long long batch, row, column;  // of the problem
    int rows, columns;             // that exist
    int first_row, first_column;   // of the thread: kTileSide rows, two runs of 4 columns
};

__device__ __forceinline__ TilePlace tile_place(const DistanceForward& call) {
    // As many as blocks of a grid at most: divisions of 32 bits.
    const unsigned across = unsigned(divide_up(call.columns, kTile));
    const unsigned tiles = across * unsigned(divide_up(call.rows, kTile));
    const unsigned tile = blockIdx.x % tiles;
    const long long row = (long long)(tile / across) * kTile;
    const long long column = (long long)(tile % across) * kTile;
    const long long rows = call.rows - row, columns = call.columns - column;
    return {blockIdx.x / tiles,
            call.first_row + row,
            call.first_column + column,
            int(rows < kTile ? rows : kTile),
            int(columns < kTile ? columns : kTile),
            int(threadIdx.x) / 16 * kTileSide,
            int(threadIdx.x) % 16 * 4};
}
// Column i of a thread's 8, in the tile: runs of 4, 64 apart, so that a warp's stores are dense.
__device__ __forceinline__ int tile_column(const TilePlace& place, int i) {
    return place.first_column + i % 4 + i / 4 * (kTile / 2);
}

// -------------------------------------------------------------------------------- direct distances

// kTileDims dimensions of a tile's vectors from global to shared memory; zeros where there is none.
template <class C>
__device__ __forceinline__ void load_tile(const DistanceProblem& p, const VectorSet& set,
                                          long long batch, long long first, int count,
                                          long long first_dim, C (*out)[kTile + 4]) {
    // Neighbouring threads read neighbours, and few threads nothing where dimensions are few.
    const long long rest = p.dims - first_dim;
    const int bits = rest > 8 ? 4 : rest > 4 ? 3 : 2;
    for (int i = int(threadIdx.x); i < kTile << bits; i += kDistanceThreads) {
        const int vector = i >> bits, k = i & ((1 << bits) - 1);
        C value = C(0);
        if (vector < count && first_dim + k < p.dims) {
            value = component<C>(set, vector_offset(set, batch, first + vector), first_dim + k);
            if (p.metric == kCosine) {
                value *= C(unit_scale(length_of(set, batch, first + vector)));
                if (p.weights) value *= C(sqrt(weight_of(p, first_dim + k)));
            }
        }
        out[k][vector] = value;
    }
}

template <class C>
__device__ __forceinline__ void load_columns(const C* row, int first, C (&out)[kTileSide]) {
    constexpr int kPack = int(16 / sizeof(C));
#pragma unroll
    for (int i = 0; i < kTileSide; i += kPack) {
        const Pack<C, kPack> pack = load_pack<C, kPack>(row + first + i % 4 + i / 4 * (kTile / 2));
#pragma unroll
        for (int j = 0; j < kPack; ++j) out[i + j] = pack.values[j];
    }
}

// A thread's sums of squared differences.
template <class C, bool Weighted>
__device__ __forceinline__ void direct_tile(const DistanceProblem& p, const TilePlace& place,
                                            C (&sums)[kTileSide][kTileSide]) {
    TileMemory<C>& shared = shared_memory<TileMemory<C>>();
#pragma unroll
    for (int i = 0; i < kTileSide * kTileSide; ++i) sums[i / kTileSide][i % kTileSide] = C(0);
    for (long long first = 0; first < p.dims; first += kTileDims) {
        __syncthreads();  // all are done with the dimensions before
        load_tile<C>(p, p.a, place.batch, place.row, place.rows, first, shared.a);
        load_tile<C>(p, p.b, place.batch, place.column, place.columns, first, shared.b);
        if (Weighted && threadIdx.x < kTileDims)
            shared.weights[threadIdx.x] =
                first + threadIdx.x < p.dims ? C(weight_of(p, first + threadIdx.x)) : C(0);
        __syncthreads();
        const long long rest = p.dims - first;
        const int count = int(rest < kTileDims ? rest : kTileDims);
#pragma unroll 1  // more would not fit the registers
        for (int k = 0; k < count; ++k) {
            C b[kTileSide];
            load_columns(shared.b[k], place.first_column, b);
#pragma unroll
            for (int r = 0; r < kTileSide; ++r) {
                const C a = shared.a[k][place.first_row + r];
#pragma unroll
                for (int c = 0; c < kTileSide; ++c) {
                    const C d = a - b[c];
                    sums[r][c] += Weighted ? d * shared.weights[k] * d : d * d;
                }
            }
        }
    }
}

// ------------------------------------------------------------------------------- matrix products

// A thread's squared distances from products; kPending where they cancelled, and how many.
template <class C>
__device__ __forceinline__ int product_tile(const DistanceForward& call, const TilePlace& place,
                                            C (&sums)[kTileSide][kTileSide]) {
    const long long row = place.row - call.first_row + place.first_row;
    const long long column = place.column - call.first_column;
    const C* products = static_cast<const C*>(call.products) + row * call.columns + column;
    C b[kTileSide];
#pragma unroll
    for (int c = 0; c < kTileSide; ++c) {
        const int at = tile_column(place, c);
        b[c] = at < place.columns ? static_cast<const C*>(call.squares_b)[column + at] : C(0);
    }
    const bool packed = place.columns == kTile && call.columns % (16 / sizeof(C)) == 0;
    int suspects = 0;
#pragma unroll
    for (int r = 0; r < kTileSide; ++r) {
        const bool exists = place.first_row + r < place.rows;
        const C a = exists ? static_cast<const C*>(call.squares_a)[row + r] : C(0);
        if (exists && packed)
            load_columns(products + r * call.columns, place.first_column, sums[r]);
#pragma unroll
        for (int c = 0; c < kTileSide; ++c) {
            const int at = tile_column(place, c);
            if (!exists || at >= place.columns) {
                sums[r][c] = C(0);
                continue;
            }
            const C product = packed ? sums[r][c] : products[r * call.columns + at];
            const C both = a + b[c], square = both - C(2) * product;
            // Not below: NaN, which infinities make too, is looked at again.
            const bool clear = square > C(call.near) * both && square - square == C(0);
            sums[r][c] = clear ? square : C(kPending);
            suspects += !clear;
        }
    }
    return suspects;
}

// ------------------------------------------------------------------------------------ results

// A count over the block, for all of its threads.
__device__ __forceinline__ unsigned block_count(int mine) {
    TileCount& shared = shared_memory<TileCount>();
    __syncthreads();
    if (threadIdx.x == 0) shared.pairs = 0;
    __syncthreads();
    if (mine > 0) atomicAdd(&shared.pairs, unsigned(mine));
    __syncthreads();
    return shared.pairs;
}

// Squared distances of unit vectors to 1 - similarity; how many are to be computed in double.
template <class C>
__device__ __forceinline__ int cosine_tile(const DistanceProblem& p, const TilePlace& place,
                                           C (&sums)[kTileSide][kTileSide]) {
    int pending = 0;
#pragma unroll
    for (int r = 0; r < kTileSide; ++r) {
        const int row = place.first_row + r;
        if (row >= place.rows) continue;
        const bool zero = length_of(p.a, place.batch, place.row + row) == 0.0;
#pragma unroll
        for (int c = 0; c < kTileSide; ++c) {
            const int column = tile_column(place, c);
            if (column >= place.columns) continue;
            C value = sums[r][c];
            if (value != C(kPending)) {
                value *= C(0.5);
                if (zero || length_of(p.b, place.batch, place.column + column) == 0.0)
                    value = value == value ? C(1) : value;
                else if (value < C(kNearlyParallel))
                    value = C(kPending);
            }
            sums[r][c] = value;
            pending += value == C(kPending);
        }
    }
    return pending;
}

template <class C>
__device__ __forceinline__ void store_tile(const DistanceForward& call, const TilePlace& place,
                                           const C (&sums)[kTileSide][kTileSide], C* out) {
    constexpr int kPack = int(16 / sizeof(C));
    const bool packed = place.columns == kTile && call.row_stride % kPack == 0 &&
                        call.batch_stride % kPack == 0 &&
                        (unsigned long long)(call.distances) % 16 == 0;
#pragma unroll
    for (int r = 0; r < kTileSide; ++r) {
        if (place.first_row + r >= place.rows) continue;
        C* row = out + (place.first_row + r) * call.row_stride;
#pragma unroll
        for (int c = 0; c < kTileSide; c += kPack) {
            Pack<C, kPack> pack;
#pragma unroll
            for (int i = 0; i < kPack; ++i)
                pack.values[i] = sums[r][c + i] == C(kPending)
                                     ? C(kPending)
                                     : finished_distance(call.problem.metric, sums[r][c + i]);
            if (packed) {
                store_pack(row + tile_column(place, c), pack);
                continue;
            }
#pragma unroll
            for (int i = 0; i < kPack; ++i)
                if (tile_column(place, c + i) < place.columns)
                    row[tile_column(place, c + i)] = pack.values[i];
        }
    }
}

// Computes what is pending in a tile that has been stored: a warp looks at rows, and its lanes
// share each of the pairs that they find.
template <class C>
__device__ __forceinline__ void compute_pending(const DistanceForward& call, const TilePlace& place,
                                                C* out) {
    __syncthreads();  // the tile is stored
    for (int row = warp_index(); row < place.rows; row += kDistanceWarps)
        for (int first = 0; first < place.columns; first += 32) {
            const int own = first + lane_index();
            C* at = out + row * call.row_stride + own;
            unsigned pending = __ballot_sync(kAllLanes, own < place.columns && *at == C(kPending));
            while (pending) {
                const int lane = __ffs(int(pending)) - 1;
                pending &= pending - 1;
                const C value = warp_distance<C>(call.problem, place.batch, place.row + row,
                                                 place.column + first + lane);
                if (lane == lane_index()) *at = finished_distance(call.problem.metric, value);
            }
        }
}

template <class C>
__device__ __forceinline__ C* tile_results(const DistanceForward& call, const TilePlace& place) {
    return static_cast<C*>(call.distances) + place.batch * call.batch_stride +
           (place.row - call.first_row) * call.row_stride + (place.column - call.first_column);
}

template <class C>
__device__ __forceinline__ void finish_tile(const DistanceForward& call, const TilePlace& place,
                                            int pending, C (&sums)[kTileSide][kTileSide]) {
    if (call.problem.metric == kCosine) pending = cosine_tile(call.problem, place, sums);
    C* out = tile_results<C>(call, place);
    store_tile(call, place, sums, out);
    if (block_count(pending) > 0) compute_pending(call, place, out);
}

// A block per tile.
template <class C, bool Weighted>
__global__ void __launch_bounds__(kDistanceThreads, sizeof(C) == 4 ? 2 : 1)
    cdist_direct(const DistanceForward call) {
    const TilePlace place = tile_place(call);
    C sums[kTileSide][kTileSide];
    direct_tile<C, Weighted>(call.problem, place, sums);
    finish_tile(call, place, 0, sums);
}

template <class C, bool Weighted>
__global__ void __launch_bounds__(kDistanceThreads, sizeof(C) == 4 ? 2 : 1)
    cdist_finish(const DistanceForward call) {
    const TilePlace place = tile_place(call);
    C sums[kTileSide][kTileSide];
    int pending = product_tile(call, place, sums);
    if (block_count(pending) > unsigned(kTileSuspects)) {
        direct_tile<C, Weighted>(call.problem, place, sums);
        pending = 0;
    }
    finish_tile(call, place, pending, sums);
}

}  // namespace sosie
