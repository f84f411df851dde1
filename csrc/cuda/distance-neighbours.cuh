// SPDX-License-Identifier: Apache-2.0
//
// The k nearest columns of every row, without the matrix: its tiles come one after another, and
// every row keeps a list of what was nearest so far.
//
// A tile's values are approximate: squared distances or 1 - similarity, or products of a library's
// matrix multiplication. What cannot be nearer than a row's k-th, even if the approximation is off
// by all that it may be, is passed over, which after the first tiles is almost everything. What
// remains is computed again from the vectors as they were given, by all lanes of a warp. So lists
// hold exact distances whatever the multiplication rounded, ties too, and a value of a tile costs a
// load and a comparison.
//
// Order: by distance, then by index. NaN is never near. Few rows are shared by several warps, each
// with a list of its own; knn_merge makes one of them.
#pragma once
#include "distance.cuh"

namespace sosie {

constexpr long long kNobody = 0x7fffffffffffffff;  // index of a place that nothing took

struct NeighbourSearch {
    DistanceProblem problem;  // batch 1
    // The tile: rows [first_row, first_row + rows), and columns.
    long long first_row, first_column, rows, columns;
    const void* values;                 // (rows, columns) of the computing type
    const void *squares_a, *squares_b;  // of centred rows, whose products values are; or nullptr
    // By how much an approximate distance may be too large: in parts of itself, and of the sum of
    // both squares, or of 1.
    double relative, absolute;
    long long k;
    int splits;        // warps that share the columns of a tile
    int is_first;      // lists are empty
    int exclude_self;  // row i does not get column i
    void* distances;   // (problem.rows, splits, k) of the computing type, ascending
    long long* indices;
};

struct NeighbourMerge {
    NeighbourSearch search;
    void* distances;     // (problem.rows, k) of the computing type
    long long* indices;  // (problem.rows, k)
};

// A list in shared memory, of one warp.
template <class C>
struct NeighbourList {
    C* distances;
    long long* indices;
    int k;
};

template <class C>
__device__ __forceinline__ NeighbourList<C> list_of_warp(long long k) {
    char* memory = dynamic_shared_memory<char>();
    const long long warps = blockDim.x / 32;
    long long* indices = reinterpret_cast<long long*>(memory) + warp_index() * k;
    C* distances = reinterpret_cast<C*>(memory + warps * k * sizeof(long long)) + warp_index() * k;
    return {distances, indices, int(k)};
}

template <class C>
__device__ __forceinline__ bool nearer(C distance, long long index, C than, long long than_index) {
    return distance < than || (distance == than && index < than_index);
}

// A neighbour enters the list, whose last one it is nearer than.
template <class C>
__device__ __forceinline__ void insert_neighbour(const NeighbourList<C>& list, C distance,
                                                 long long index) {
    int position = 0;
    for (int end = list.k - 1; position < end;) {
        const int middle = (position + end) / 2;
        if (nearer(list.distances[middle], list.indices[middle], distance, index))
            position = middle + 1;
        else
            end = middle;
    }
    __syncwarp();  // all have read
    for (int first = (list.k - 1) / 32 * 32; first >= position / 32 * 32; first -= 32) {
        const int at = first + lane_index();
        const bool moves = at > position && at < list.k;
        const C moved = moves ? list.distances[at - 1] : C(0);
        const long long moved_index = moves ? list.indices[at - 1] : 0;
        __syncwarp();
        if (moves) {
            list.distances[at] = moved;
            list.indices[at] = moved_index;
        }
        __syncwarp();
    }
    if (lane_index() == 0) {
        list.distances[position] = distance;
        list.indices[position] = index;
    }
    __syncwarp();
}

template <class C>
__device__ __forceinline__ void load_list(const NeighbourList<C>& list, const C* distances,
                                          const long long* indices) {
    for (int i = lane_index(); i < list.k; i += 32) {
        list.distances[i] = distances ? distances[i] : C(float_of_bits(0x7f800000));
        list.indices[i] = indices ? indices[i] : kNobody;
    }
    __syncwarp();
}

// ------------------------------------------------------------------------------------------ search

template <class C>
struct NeighbourRow {
    long long row, own;  // of the problem, of the tile
    long long begin, end;
    C square;  // of the centred row
};

// Least value that the distance of a row and a column can have.
template <class C>
__device__ __forceinline__ C least_distance(const NeighbourSearch& call, const NeighbourRow<C>& row,
                                            long long column) {
    const C value = static_cast<const C*>(call.values)[row.own * call.columns + column];
    if (!call.squares_b) return value * C(1.0 - call.relative) - C(call.absolute);
    const C both = row.square + static_cast<const C*>(call.squares_b)[column];
    const C least = (both - C(2) * value) * C(1.0 - call.relative) - C(call.absolute) * both;
    return call.problem.metric == kCosine ? C(0.5) * least : least;
}

// Those of 32 columns that may enter the list do so, one after another.
template <class C>
__device__ __forceinline__ void take_candidates(const NeighbourSearch& call,
                                                const NeighbourRow<C>& row,
                                                const NeighbourList<C>& list, long long first,
                                                C least, C& farthest) {
    const long long own = first + lane_index();
    const bool self = call.exclude_self && call.first_column + own == row.row;
    // Not above: NaN may be an infinity less another one.
    const bool candidate = own < row.end && !self && !(least > farthest);
    unsigned candidates = __ballot_sync(kAllLanes, candidate);
    while (candidates) {
        const long long index = call.first_column + first + __ffs(int(candidates)) - 1;
        candidates &= candidates - 1;
        const C distance = warp_distance<C>(call.problem, 0, row.row, index);
        if (!nearer(distance, index, farthest, list.indices[list.k - 1])) continue;
        insert_neighbour(list, distance, index);
        farthest = list.distances[list.k - 1];
    }
}

// A warp for each row and share of the columns.
template <class C>
__global__ void __launch_bounds__(kDistanceThreads) knn_search(const NeighbourSearch call) {
    const long long warp = (long long)(blockIdx.x) * (blockDim.x / 32) + warp_index();
    if (warp >= call.rows * call.splits) return;
    const long long split = warp % call.splits, share = divide_up(call.columns, call.splits);
    NeighbourRow<C> row;
    row.own = warp / call.splits;
    row.row = call.first_row + row.own;
    row.begin = split * share;
    row.end = row.begin + share < call.columns ? row.begin + share : call.columns;
    row.square = call.squares_a ? static_cast<const C*>(call.squares_a)[row.own] : C(0);
    const NeighbourList<C> list = list_of_warp<C>(call.k);
    const long long place = (row.row * call.splits + split) * call.k;
    C* distances = static_cast<C*>(call.distances) + place;
    long long* indices = call.indices + place;
    load_list<C>(list, call.is_first ? nullptr : distances, call.is_first ? nullptr : indices);
    C farthest = list.distances[list.k - 1];
    constexpr int kAhead = 4;  // values of a lane that are on their way at a time
    for (long long first = row.begin; first < row.end; first += 32 * kAhead) {
        C least[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const long long column = first + 32 * i + lane_index();
            least[i] = column < row.end ? least_distance(call, row, column) : C(0);
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i)
            take_candidates(call, row, list, first + 32 * i, least[i], farthest);
    }
    for (int i = lane_index(); i < list.k; i += 32) {
        distances[i] = list.distances[i];
        indices[i] = list.indices[i];
    }
}

// ------------------------------------------------------------------------------------------- merge

// Places that nothing took, from `count` on, get the lowest indices that are not in the list, at
// the distance NaN.
template <class C>
__device__ __forceinline__ void fill_list(const NeighbourList<C>& list, int count, long long self) {
    long long index = 0;
    for (int place = count; place < list.k; ++index) {
        bool taken = index == self;
        for (int first = 0; !taken && first < count; first += 32) {
            const int at = first + lane_index();
            taken = __any_sync(kAllLanes, at < count && list.indices[at] == index);
        }
        if (taken) continue;
        if (lane_index() == 0) {
            list.distances[place] = quiet_nan<C>();
            list.indices[place] = index;
        }
        ++place;
    }
    __syncwarp();
}

// One list of those of all shares, a warp for each row.
template <class C>
__global__ void __launch_bounds__(kDistanceThreads) knn_merge(const NeighbourMerge call) {
    const NeighbourSearch& search = call.search;
    const long long row = (long long)(blockIdx.x) * (blockDim.x / 32) + warp_index();
    if (row >= search.problem.rows) return;
    const NeighbourList<C> list = list_of_warp<C>(search.k);
    const C* distances = static_cast<const C*>(search.distances) + row * search.splits * search.k;
    const long long* indices = search.indices + row * search.splits * search.k;
    load_list<C>(list, distances, indices);
    for (int split = 1; split < search.splits; ++split)
        for (long long i = split * search.k; i < (split + 1) * search.k; ++i) {
            const C farthest = list.distances[list.k - 1];
            // Those behind it are no nearer.
            if (!nearer(distances[i], indices[i], farthest, list.indices[list.k - 1])) break;
            insert_neighbour(list, distances[i], indices[i]);
        }
    int count = 0;
    for (int first = 0; first < list.k; first += 32) {
        const int at = first + lane_index();
        const bool taken = at < list.k && list.indices[at] != kNobody;
        count += __popc(__ballot_sync(kAllLanes, taken));
    }
    fill_list(list, count, search.exclude_self ? row : -1);
    for (int i = lane_index(); i < list.k; i += 32) {
        static_cast<C*>(call.distances)[row * search.k + i] =
            finished_distance(search.problem.metric, list.distances[i]);
        call.indices[row * search.k + i] = list.indices[i];
    }
}

}  // namespace sosie
