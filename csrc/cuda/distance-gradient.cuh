// SPDX-License-Identifier: Apache-2.0
//
// Gradients of distances, in the direct form
//
//     dLoss/da_i = sum_j f_ij (a_i - b_j),    f = g / d | 2 g | g    (euclidean | squared | cosine)
//
// with g the upstream gradient and d the distance; f is 0 where d is. The form a_i sum_j f_ij -
// sum_j f_ij b_j is a matrix product, and what remains of a near pair's gradient in it is rounding.
// The other set's gradient is the same with sets swapped and matrices transposed.
//
// The cosine's is that of half the squared distance of unit vectors u = a / |a|. Of h, the sum
// above for these, the part along u has to go: dLoss/da = (h - <h, u> u) / |a|. What is left can be
// small beside h, so all of it is computed in double, whatever the vectors' type.
//
// No temporary is as large as the matrix: a block has a tile of rows and dimensions and goes over
// its share of the partners, and shares are added up in order.
#pragma once
#include "distance.cuh"

namespace sosie {

constexpr int kGradientTile = 64, kPartners = 16;  // rows and dimensions; partners at a time
constexpr int kGradientSide = 4;                   // rows and dimensions of a thread
// Partners whose terms are added in the computing type, before the sum goes on in double.
constexpr int kPartnersPerSum = 128;

// One number per pair.
struct PairNumbers {
    const void* data;
    long long batch_stride, row_stride, column_stride;
    int dtype;
};

struct DistanceBackward {
    DistanceProblem problem;  // a: the set whose gradient it is
    PairNumbers upstream, distances;
    int splits;        // blocks that share the partners
    long long share;   // partners of each, a multiple of kPartnersPerSum
    double* partials;  // (batch, splits, rows, dims): h of each share
};

template <class C>
__device__ __forceinline__ C pair_number(const PairNumbers& numbers, long long batch, long long row,
                                         long long column) {
    return load_any<C>(
        numbers.data, numbers.dtype,
        batch * numbers.batch_stride + row * numbers.row_stride + column * numbers.column_stride);
}

// What the difference of two vectors is multiplied with.
template <class C>
__device__ __forceinline__ C slope_factor(const DistanceProblem& p, C upstream, C distance,
                                          long long batch, long long row, long long column) {
    if (p.metric == kSquaredEuclidean) return C(2) * upstream;
    if (p.metric == kEuclidean) return distance == C(0) ? C(0) : upstream / distance;
    const bool zero = length_of(p.a, batch, row) == 0.0 || length_of(p.b, batch, column) == 0.0;
    return zero ? C(0) : upstream;
}

// A vector's component; for the cosine, of the unit vector.
template <class C>
__device__ __forceinline__ C scaled_component(const DistanceProblem& p, const VectorSet& set,
                                              long long batch, long long row, long long k) {
    const C value = component<C>(set, vector_offset(set, batch, row), k);
    return p.metric == kCosine ? value * C(unit_scale(length_of(set, batch, row))) : value;
}

// --------------------------------------------------------------------------------------- all pairs

template <class C>
struct GradientMemory {
    alignas(16) C factors[kPartners][kGradientTile + 4], others[kPartners][kGradientTile + 4];
};

struct GradientPlace {
    long long batch, row, dim, begin, end;  // partners [begin, end)
    int split;
};

__device__ __forceinline__ GradientPlace gradient_place(const DistanceBackward& call) {
    const DistanceProblem& p = call.problem;
    const long long row_tiles = divide_up(p.rows, kGradientTile);
    const long long dim_tiles = divide_up(p.dims, kGradientTile);
    long long block = blockIdx.x;
    const long long dim = block % dim_tiles * kGradientTile;
    block /= dim_tiles;
    const int split = int(block % call.splits);
    block /= call.splits;
    const long long begin = split * call.share, end = begin + call.share;
    return {block / row_tiles,
            block % row_tiles * kGradientTile,
            dim,
            begin,
            end < p.columns ? end : p.columns,
            split};
}

// Factors and components of kPartners partners from `first` on; zeros where there is none.
template <class C>
__device__ __forceinline__ void load_partners(const DistanceBackward& call,
                                              const GradientPlace& place, long long first,
                                              GradientMemory<C>& shared) {
    const DistanceProblem& p = call.problem;
    const bool along = call.distances.column_stride == 1;  // neighbours in memory are partners
    for (int i = int(threadIdx.x); i < kPartners * kGradientTile; i += kDistanceThreads) {
        const int r = along ? i / kPartners : i % kGradientTile;
        const int j = along ? i % kPartners : i / kGradientTile;
        const long long row = place.row + r, column = first + j;
        C factor = C(0);
        if (row < p.rows && column < place.end)
            factor = slope_factor(p, pair_number<C>(call.upstream, place.batch, row, column),
                                  pair_number<C>(call.distances, place.batch, row, column),
                                  place.batch, row, column);
        shared.factors[j][r] = factor;
        const int k = i % kGradientTile, other = i / kGradientTile;
        C value = C(0);
        if (first + other < place.end && place.dim + k < p.dims)
            value = scaled_component<C>(p, p.b, place.batch, first + other, place.dim + k);
        shared.others[other][k] = value;
    }
}

template <class C>
__global__ void __launch_bounds__(kDistanceThreads, sizeof(C) == 4 ? 2 : 1)
    cdist_backward(const DistanceBackward call) {
    GradientMemory<C>& shared = shared_memory<GradientMemory<C>>();
    const DistanceProblem& p = call.problem;
    const GradientPlace place = gradient_place(call);
    const int first_row = int(threadIdx.x) / 16 * kGradientSide;
    const int first_dim = int(threadIdx.x) % 16 * kGradientSide;
    C own[kGradientSide][kGradientSide];
    C sums[kGradientSide][kGradientSide] = {};
    double totals[kGradientSide][kGradientSide] = {};
#pragma unroll
    for (int i = 0; i < kGradientSide * kGradientSide; ++i) {
        const long long row = place.row + first_row + i / kGradientSide;
        const long long k = place.dim + first_dim + i % kGradientSide;
        own[i / kGradientSide][i % kGradientSide] =
            row < p.rows && k < p.dims ? scaled_component<C>(p, p.a, place.batch, row, k) : C(0);
    }
    for (long long first = place.begin; first < place.end; first += kPartners) {
        __syncthreads();  // all are done with the partners before
        load_partners(call, place, first, shared);
        __syncthreads();
        // Where there is no partner, nothing is multiplied: an infinity times 0 would be NaN.
        const int count = int(place.end - first < kPartners ? place.end - first : kPartners);
        for (int j = 0; j < count; ++j)
#pragma unroll
            for (int r = 0; r < kGradientSide; ++r)
#pragma unroll
                for (int k = 0; k < kGradientSide; ++k)
                    sums[r][k] += shared.factors[j][first_row + r] *
                                  (own[r][k] - shared.others[j][first_dim + k]);
        if ((first - place.begin) % kPartnersPerSum != kPartnersPerSum - kPartners &&
            first + kPartners < place.end)
            continue;
#pragma unroll
        for (int i = 0; i < kGradientSide * kGradientSide; ++i) {
            totals[i / kGradientSide][i % kGradientSide] +=
                double(sums[i / kGradientSide][i % kGradientSide]);
            sums[i / kGradientSide][i % kGradientSide] = C(0);
        }
    }
    double* partials = call.partials + (place.batch * call.splits + place.split) * p.rows * p.dims;
#pragma unroll
    for (int i = 0; i < kGradientSide * kGradientSide; ++i) {
        const long long row = place.row + first_row + i / kGradientSide;
        const long long k = place.dim + first_dim + i % kGradientSide;
        if (row < p.rows && k < p.dims)
            partials[row * p.dims + k] = totals[i / kGradientSide][i % kGradientSide];
    }
}

// -------------------------------------------------------------------------------------- neighbours

struct NeighbourBackward {
    DistanceProblem problem;  // a: the set whose gradient it is; batch 1
    // Edge e joins query e / k to vector indices[e]. Those of row i of the set are e = i * k to
    // i * k + k; or, where an order is given, order[offsets[i]] to order[offsets[i + 1]].
    long long k;
    const long long *indices, *order, *offsets;
    PairNumbers upstream, distances;  // (queries, k)
    double* sums;                     // (rows, dims): h
};

constexpr int kEdgeDims = 4;  // dimensions of a lane at a time

// A warp for each row.
template <class C>
__global__ void __launch_bounds__(kDistanceThreads) knn_backward(const NeighbourBackward call) {
    const DistanceProblem& p = call.problem;
    const long long row = (long long)(blockIdx.x) * kDistanceWarps + warp_index();
    if (row >= p.rows) return;
    const long long begin = call.order ? call.offsets[row] : row * call.k;
    const long long end = call.order ? call.offsets[row + 1] : begin + call.k;
    for (long long first = lane_index(); first < p.dims; first += 32 * kEdgeDims) {
        double own[kEdgeDims], sums[kEdgeDims] = {};
#pragma unroll
        for (int i = 0; i < kEdgeDims; ++i)
            own[i] = first + 32 * i < p.dims
                         ? scaled_component<double>(p, p.a, 0, row, first + 32 * i)
                         : 0.0;
        for (long long at = begin; at < end; ++at) {
            const long long edge = call.order ? call.order[at] : at;
            const long long query = edge / call.k, place = edge % call.k;
            const long long other = call.order ? query : call.indices[edge];
            const double factor =
                slope_factor(p, pair_number<double>(call.upstream, 0, query, place),
                             pair_number<double>(call.distances, 0, query, place), 0, row, other);
#pragma unroll
            for (int i = 0; i < kEdgeDims; ++i)
                if (first + 32 * i < p.dims)
                    sums[i] += factor * (own[i] - scaled_component<double>(p, p.b, 0, other,
                                                                           first + 32 * i));
        }
#pragma unroll
        for (int i = 0; i < kEdgeDims; ++i)
            if (first + 32 * i < p.dims) call.sums[row * p.dims + first + 32 * i] = sums[i];
    }
}

// --------------------------------------------------------------------------------------- gradients

struct DistanceGradient {
    DistanceProblem problem;  // a: the set whose gradient it is
    const double* partials;   // (batch, splits, rows, dims)
    int splits;
    void* gradient;  // (batch, rows, dims)
    long long batch_stride, row_stride, step;
    int dtype;
};

__device__ __forceinline__ double sum_of_shares(const DistanceGradient& call, long long batch,
                                                long long row, long long k) {
    const DistanceProblem& p = call.problem;
    const double* at = call.partials + (batch * call.splits * p.rows + row) * p.dims + k;
    double sum = 0.0;
    for (int split = 0; split < call.splits; ++split) sum += at[split * p.rows * p.dims];
    return sum;
}

// h to the gradient of the vector as it was given, a warp for each.
template <class C>
__global__ void __launch_bounds__(kDistanceThreads) distance_gradient(const DistanceGradient call) {
    const DistanceProblem& p = call.problem;
    const long long vector = (long long)(blockIdx.x) * kDistanceWarps + warp_index();
    if (vector >= p.batch * p.rows) return;
    const long long batch = vector / p.rows, row = vector % p.rows;
    C along = C(0), inverse = C(1);
    if (p.metric == kCosine) {
        inverse = unit_scale(length_of(p.a, batch, row));
        for (long long k = lane_index(); k < p.dims; k += 32)
            along += weight_of(p, k) * sum_of_shares(call, batch, row, k) *
                     scaled_component<C>(p, p.a, batch, row, k);
        along = warp_sum(along);
    }
    for (long long k = lane_index(); k < p.dims; k += 32) {
        C h = sum_of_shares(call, batch, row, k);
        if (p.metric == kCosine) h -= along * scaled_component<C>(p, p.a, batch, row, k);
        store_any<C>(call.gradient, call.dtype,
                     batch * call.batch_stride + row * call.row_stride + k * call.step,
                     weight_of(p, k) * h * inverse);
    }
}

}  // namespace sosie
