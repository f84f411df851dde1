// SPDX-License-Identifier: Apache-2.0
//
// Distances between two sets of vectors: what all kernels of the family share.
//
// A squared distance comes from one of two sources:
//
// - directly, as a sum of squared differences: nothing cancels, equal vectors are 0 apart, and the
//   relative error is that of a sum of positive numbers wherever the origin lies;
// - for long vectors from a matrix product of the array library, |a|^2 + |b|^2 - 2ab of centred
//   rows, a multiply-add per dimension in place of two operations. Its error is relative to
//   |a|^2 + |b|^2, so near pairs, which it would cost their digits, are computed again directly,
//   from the vectors as they were given.
//
// 1 - cosine similarity is half the squared distance of the vectors scaled to length 1. Scaling
// rounds, which nearly parallel pairs would notice: those are computed in double, from the vectors
// as they were given. A zero vector is at distance 1 of all.
//
// Dtypes are known at run time where vectors are read: once per tile, or for few of the pairs.
#pragma once
#include "common.cuh"

namespace sosie {

enum DistanceMetric { kEuclidean, kSquaredEuclidean, kCosine };

// Below this 1 - similarity is computed again: an angle of about 0.014, where float32's rounding
// of the scaled vectors would cost 1e-5 of the result.
constexpr double kNearlyParallel = 1e-4;

constexpr int kDistanceThreads = 256, kDistanceWarps = kDistanceThreads / 32;

// (batch, rows, dims); strides count elements.
struct VectorSet {
    const void* data;
    long long batch_stride, row_stride, step;
    const double* norms;  // (batch, rows): lengths, for the cosine alone
    long long norm_stride;
    int dtype;
};

struct DistanceProblem {
    long long batch, rows, columns, dims;
    VectorSet a, b;         // (batch, rows, dims) and (batch, columns, dims)
    const double* weights;  // (dims,) or nullptr
    int metric;
};

__device__ __forceinline__ int lane_index() {
    return int(threadIdx.x) % 32;
}
__device__ __forceinline__ int warp_index() {
    return int(threadIdx.x) / 32;
}

template <class C>
__device__ __forceinline__ C quiet_nan() {
    return C(float_of_bits(0x7fffffff));
}

// A weight that is not finite or negative makes distances NaN: nobody waits to look at it.
__device__ __forceinline__ double weight_of(const DistanceProblem& p, long long k) {
    if (!p.weights) return 1.0;
    const double w = p.weights[k];
    return w >= 0.0 && w - w == 0.0 ? w : quiet_nan<double>();
}

__device__ __forceinline__ long long vector_offset(const VectorSet& set, long long batch,
                                                   long long row) {
    return batch * set.batch_stride + row * set.row_stride;
}
// The dtype that is computed in is asked for first, as it is the usual one.
template <class C>
__device__ __forceinline__ C component(const VectorSet& set, long long offset, long long k) {
    constexpr int kOwn = sizeof(C) == 4 ? kFloat32 : kFloat64;
    const long long at = offset + k * set.step;
    return set.dtype == kOwn ? static_cast<const C*>(set.data)[at]
                             : load_any<C>(set.data, set.dtype, at);
}
__device__ __forceinline__ double length_of(const VectorSet& set, long long batch, long long row) {
    return set.norms[batch * set.norm_stride + row];
}
// What a vector is multiplied by for length 1; a zero vector stays, and NaN.
__device__ __forceinline__ double unit_scale(double length) {
    return length > 0.0 ? 1.0 / length : length;
}

// 1 - similarity by a warp, in double.
__device__ __forceinline__ double warp_cosine(const DistanceProblem& p, long long batch,
                                              long long row, long long column) {
    const double length_a = length_of(p.a, batch, row), length_b = length_of(p.b, batch, column);
    if (length_a == 0.0 || length_b == 0.0)
        return length_a - length_a == length_b - length_b ? 1.0 : quiet_nan<double>();
    const long long a = vector_offset(p.a, batch, row), b = vector_offset(p.b, batch, column);
    double sum = 0.0;
    for (long long k = lane_index(); k < p.dims; k += 32) {
        const double d =
            component<double>(p.a, a, k) / length_a - component<double>(p.b, b, k) / length_b;
        sum += weight_of(p, k) * d * d;
    }
    return 0.5 * warp_sum(sum);
}

// Squared distance, or 1 - similarity, of the vectors as they were given, by all lanes of a warp
// and the same in all of them.
template <class C>
__device__ __forceinline__ C warp_distance(const DistanceProblem& p, long long batch, long long row,
                                           long long column) {
    if (p.metric == kCosine) return C(warp_cosine(p, batch, row, column));
    const long long a = vector_offset(p.a, batch, row), b = vector_offset(p.b, batch, column);
    C sum = C(0);
#pragma unroll 4
    for (long long k = lane_index(); k < p.dims; k += 32) {
        const C d = component<C>(p.a, a, k) - component<C>(p.b, b, k);
        sum += p.weights ? C(weight_of(p, k)) * d * d : d * d;
    }
    return warp_sum(sum);
}

// Of float to the last bit but one, in two instructions: where dimensions are few, a rounded one
// would take as long as all else.
__device__ __forceinline__ float distance_root(float value) {
#ifdef __CUDACC__
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(value));
    return root;
#else
    return std::sqrt(value);
#endif
}
__device__ __forceinline__ double distance_root(double value) {
    return sqrt(value);
}

template <class C>
__device__ __forceinline__ C finished_distance(int metric, C value) {
    return metric == kEuclidean ? distance_root(value) : value;
}

// ---------------------------------------------------------------------------------------- lengths

struct DistanceNorms {
    VectorSet set;
    long long batch, rows, dims;
    const double* weights;
    double* norms;  // (batch, rows)
};

// Lengths of vectors, a warp for each.
template <class C>
__global__ void __launch_bounds__(kDistanceThreads) distance_norms(const DistanceNorms call) {
    const long long vector = (long long)(blockIdx.x) * kDistanceWarps + warp_index();
    if (vector >= call.batch * call.rows) return;
    DistanceProblem p = {};
    p.weights = call.weights;
    const long long at = vector_offset(call.set, vector / call.rows, vector % call.rows);
    C sum = C(0);
    for (long long k = lane_index(); k < call.dims; k += 32) {
        const C value = component<C>(call.set, at, k);
        sum += C(weight_of(p, k)) * value * value;
    }
    sum = warp_sum(sum);
    if (lane_index() == 0) call.norms[vector] = double(sqrt(sum));
}

// ----------------------------------------------------------------------------------- centred rows

constexpr long long kCentreRows = 4096;  // that a centre is the mean of

struct DistanceRows {
    VectorSet set;
    long long rows, first_row, dims;  // rows [first_row, first_row + rows)
    const double* weights;
    int metric;
    double* centre;  // (dims,); nullptr: the origin
    void* centred;   // (rows, dims) of the computing type
    void* squares;   // (rows,): their squared lengths
};

struct CentreSums {
    double of[kDistanceWarps][32];
    int counts[kDistanceWarps][32];
};

// Mean of finite values in each dimension, over rows at even distances. Any point is as right, and
// one amid the vectors leaves the fewest pairs to compute again.
template <class C>
__global__ void __launch_bounds__(kDistanceThreads) distance_centre(const DistanceRows call) {
    CentreSums& shared = shared_memory<CentreSums>();
    const long long k = (long long)(blockIdx.x) * 32 + lane_index();
    const long long count = call.rows < kCentreRows ? call.rows : kCentreRows;
    C sum = C(0);
    int finite = 0;
    for (long long i = warp_index(); k < call.dims && i < count; i += kDistanceWarps) {
        const long long row = i * call.rows / count;
        const C value = component<C>(call.set, vector_offset(call.set, 0, row), k);
        const bool counts = value - value == C(0);
        sum += counts ? value : C(0);
        finite += counts;
    }
    shared.of[warp_index()][lane_index()] = sum;
    shared.counts[warp_index()][lane_index()] = finite;
    __syncthreads();
    if (warp_index() != 0 || k >= call.dims) return;
    double total = 0.0;
    finite = 0;
    for (int warp = 0; warp < kDistanceWarps; ++warp) {
        total += shared.of[warp][lane_index()];
        finite += shared.counts[warp][lane_index()];
    }
    call.centre[k] = finite > 0 ? total / finite : 0.0;
}

// Rows for the matrix product, a warp for each: scaled to length 1 for the cosine, by the roots of
// the weights, from the centre.
template <class C>
__global__ void __launch_bounds__(kDistanceThreads) distance_rows(const DistanceRows call) {
    const long long row = (long long)(blockIdx.x) * kDistanceWarps + warp_index();
    if (row >= call.rows) return;
    DistanceProblem p = {};
    p.weights = call.weights;
    const long long at = vector_offset(call.set, 0, call.first_row + row);
    const double scale =
        call.metric == kCosine ? unit_scale(length_of(call.set, 0, call.first_row + row)) : 1.0;
    C* out = static_cast<C*>(call.centred) + row * call.dims;
    double square = 0.0;
    for (long long k = lane_index(); k < call.dims; k += 32) {
        C value = component<C>(call.set, at, k);
        if (call.metric == kCosine) value *= C(scale);
        if (call.centre) value -= C(call.centre[k]);
        if (call.weights) value *= C(sqrt(weight_of(p, k)));
        out[k] = value;
        square += double(value) * double(value);
    }
    square = warp_sum(square);
    if (lane_index() == 0) static_cast<C*>(call.squares)[row] = C(square);
}

}  // namespace sosie
