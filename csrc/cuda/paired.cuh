// SPDX-License-Identifier: Apache-2.0
//
// Distances of paired rows, and their gradients, in one pass over both arrays:
//
//     euclidean   d = sqrt(sum (x - y)^2)
//     cosine      s = sum x y / (|x|' |y|'),   n' = n < floor ? replacement : n
//
// A block has so many neighbouring rows, and so many threads ("slots") for each: lanes lie along
// rows where those are dense in memory, else across them, so that either way neighbours read
// neighbours. Long rows are cut among blocks.
//
// Memory is the limit: 8 bytes a pair of float32 elements forward, 16 with both gradients. Products
// are added up in the computing type, 16 at most, then in double: the relative error stays below
// 1e-6 however long a row is. Cuts and orders depend on sizes alone, and so do the bits.
#pragma once
#include "strided.cuh"

namespace sosie {

constexpr int kPairedThreads = 256;

// Elements of a pack of 16 bytes; of bytes 8, as more would be too many numbers at once.
template <class T>
constexpr int kPairedPack = sizeof(T) == 1 ? 8 : int(16 / sizeof(T));

struct PairedCut {
    Axes pairs;        // the axes of the results
    long long length;  // elements of a row
    int pack;          // elements of rows that follow each other, aligned: kPairedPack or 1
    int rows;          // neighbouring rows of a block, a power of two up to its threads
    int along;         // lanes lie along rows
    int splits;        // blocks that share a row
    long long split;   // elements of each, whole packs
};

struct PairedForward {
    PairedCut cut;
    StridedArray x, y;                   // `step`: along a row
    StridedArray value, norm_x, norm_y;  // one number per pair; norms may be absent
    int cosine;
    double floor, replacement;
    double* partials;   // (groups of rows, splits, 3, rows)
    unsigned* tickets;  // (groups of rows,), 0
};

struct PairedBackward {
    PairedCut cut;
    StridedArray x, y, grad_x, grad_y;  // gradients of arrays that were not broadcast; or absent
    StridedArray value, norm_x, norm_y, upstream;
    int cosine;
    double floor, replacement;
};

// What a thread works on.
struct PairedPart {
    long long pair, begin, end;  // in packs, `stride` apart
    int place, slot, slots, split;
    unsigned group;
    bool exists;
};

__device__ __forceinline__ PairedPart paired_part(const PairedCut& cut, int pack) {
    const int thread = int(threadIdx.x), slots = kPairedThreads / cut.rows;
    const int row = cut.along ? thread / slots : thread % cut.rows;
    const int slot = cut.along ? thread % slots : thread / cut.rows;
    const unsigned group = blockIdx.x / unsigned(cut.splits);
    const int split = int(blockIdx.x % unsigned(cut.splits));
    const long long pair = (long long)(group)*cut.rows + row;
    const long long begin = split * cut.split, end = begin + cut.split;
    return {pair,
            begin / pack + slot,
            (end < cut.length ? end : cut.length) / pack,
            slot * cut.rows + row,
            slot,
            slots,
            split,
            group,
            pair < cut.pairs.count};
}

// ---------------------------------------------------------------------------------------- forward

// (x - y)^2, or x y, x^2 and y^2.
template <class C>
struct PairedSums {
    C of[3];
};

template <class T, int N, class C>
__device__ __forceinline__ void add_paired_pack(const T* x, const T* y, long long step_x,
                                                long long step_y, long long pack, bool cosine,
                                                PairedSums<C>& sums) {
    const Pack<T, N> own = load_pack<T, N>(x + pack * N * step_x);
    const Pack<T, N> other = load_pack<T, N>(y + pack * N * step_y);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const C a = C(to_compute(own.values[i])), b = C(to_compute(other.values[i]));
        if (cosine) {
            sums.of[0] += a * b;
            sums.of[1] += a * a;
            sums.of[2] += b * b;
        } else {
            sums.of[0] += (a - b) * (a - b);
        }
    }
}

template <class T, int N>
__device__ __forceinline__ void add_paired_row(const PairedForward& call, const PairedPart& part,
                                               const T* x, const T* y, double (&totals)[3]) {
    typedef typename Compute<T>::type C;
    constexpr int kPacks = N > 4 ? 2 : 4;  // 16 elements, on their way at a time
    long long pack = part.begin;
    while (pack < part.end) {
        PairedSums<C> sums = {};
#pragma unroll
        for (int i = 0; i < kPacks; ++i, pack += part.slots)
            if (pack < part.end)
                add_paired_pack<T, N>(x, y, call.x.step, call.y.step, pack, call.cosine, sums);
#pragma unroll
        for (int i = 0; i < 3; ++i) totals[i] += double(sums.of[i]);
    }
}

__device__ __forceinline__ double paired_norm(double norm, double floor, double replacement) {
    return norm < floor ? replacement : norm;
}

__device__ __forceinline__ void store_paired(const PairedForward& call, const Offsets<5>& at,
                                             const double (&totals)[3]) {
    if (!call.cosine) {
        store_any<double>(call.value.data, call.value.dtype, at.of[2], sqrt(totals[0]));
        return;
    }
    const double norm_x = sqrt(totals[1]), norm_y = sqrt(totals[2]);
    double value = totals[0] / (paired_norm(norm_x, call.floor, call.replacement) *
                                paired_norm(norm_y, call.floor, call.replacement));
    // Rounding may lead beyond what a cosine can be.
    value = value > 1.0 ? 1.0 : value < -1.0 ? -1.0 : value;
    store_any<double>(call.value.data, call.value.dtype, at.of[2], value);
    if (!call.norm_x.data) return;
    store_any<double>(call.norm_x.data, call.norm_x.dtype, at.of[3], norm_x);
    store_any<double>(call.norm_y.data, call.norm_y.dtype, at.of[4], norm_y);
}

// Sums over the blocks that share a row, in their order; false for all but the last of them.
__device__ __forceinline__ bool add_paired_splits(const PairedForward& call, const PairedPart& part,
                                                  int numbers, double (&totals)[3]) {
    if (call.cut.splits == 1) return true;
    const int rows = call.cut.rows, row = part.place % rows;
    double* partials = call.partials + (long long)(part.group) * call.cut.splits * 3 * rows + row;
    if (part.slot == 0)
        for (int i = 0; i < numbers; ++i) partials[(part.split * 3 + i) * rows] = totals[i];
    if (!is_last_block(call.tickets + part.group, unsigned(call.cut.splits))) return false;
    for (int i = 0; i < numbers; ++i) {
        double sum = 0.0;
        for (int s = part.slot; s < call.cut.splits; s += part.slots)
            sum += partials[(s * 3 + i) * rows];
        totals[i] = lane_sums<kPairedThreads>(sum, part.place, rows);
    }
    return true;
}

template <class T>
__global__ void __launch_bounds__(kPairedThreads, 3) paired_forward(const PairedForward call) {
    const PairedPart part = paired_part(call.cut, call.cut.pack);
    double totals[3] = {0.0, 0.0, 0.0};
    Offsets<5> at = {};
    if (part.exists) {
        const StridedArray* const arrays[5] = {&call.x, &call.y, &call.value, &call.norm_x,
                                               &call.norm_y};
        at = locate(call.cut.pairs, part.pair, arrays);
        const T* x = static_cast<const T*>(call.x.data) + at.of[0];
        const T* y = static_cast<const T*>(call.y.data) + at.of[1];
        if (call.cut.pack > 1)
            add_paired_row<T, kPairedPack<T>>(call, part, x, y, totals);
        else
            add_paired_row<T, 1>(call, part, x, y, totals);
    }
    const int numbers = call.cosine ? 3 : 1;
    if (part.slots > 1)
        for (int i = 0; i < numbers; ++i)
            totals[i] = lane_sums<kPairedThreads>(totals[i], part.place, call.cut.rows);
    if (!add_paired_splits(call, part, numbers, totals)) return;
    if (part.exists && part.slot == 0) store_paired(call, at, totals);
}

// --------------------------------------------------------------------------------------- backward

// The gradient of one row of a pair: other * by_other + own * by_own, or the difference of the rows
// times by_other.
template <class C>
struct PairedFactors {
    C by_other, by_own;
};

template <class C>
__device__ __forceinline__ C load_paired(const StridedArray& array, long long offset) {
    return array.data ? load_any<C>(array.data, array.dtype, offset) : C(0);
}

template <class C>
__device__ __forceinline__ PairedFactors<C> euclidean_factors(C value, C upstream) {
    const C factor = value == C(0) ? C(0) : upstream / value;  // coinciding rows have no slope
    return {factor, C(0)};
}
// A norm that counts as something else is a constant: nothing is subtracted for it.
template <class C>
__device__ __forceinline__ PairedFactors<C> cosine_factors(C value, C upstream, C own, C other,
                                                           C floor, C replacement) {
    const C norms = (own < floor ? replacement : own) * (other < floor ? replacement : other);
    return {upstream / norms, own < floor ? C(0) : -upstream * value / (own * own)};
}

template <class C>
__device__ __forceinline__ C paired_slope(bool cosine, const PairedFactors<C>& factors, C own,
                                          C other) {
    return cosine ? factors.by_other * other + factors.by_own * own
                  : factors.by_other * (own - other);
}

template <class T, int N>
__device__ __forceinline__ void differentiate_pairs(
    const PairedBackward& call, const PairedPart& part, const Offsets<8>& at,
    const PairedFactors<typename Compute<T>::type>& of_x,
    const PairedFactors<typename Compute<T>::type>& of_y) {
    typedef typename Compute<T>::type C;
    typedef typename Compute<T>::gradient G;
    const T* x = static_cast<const T*>(call.x.data) + at.of[0];
    const T* y = static_cast<const T*>(call.y.data) + at.of[1];
#pragma unroll(N > 1 ? 2 : 1)
    for (long long pack = part.begin; pack < part.end; pack += part.slots) {
        const Pack<T, N> a = load_pack<T, N>(x + pack * N * call.x.step);
        const Pack<T, N> b = load_pack<T, N>(y + pack * N * call.y.step);
        C gradient[N];
#pragma unroll
        for (int i = 0; i < N; ++i)
            gradient[i] = paired_slope(call.cosine, of_x, C(to_compute(a.values[i])),
                                       C(to_compute(b.values[i])));
        if (call.grad_x.data)
            store_gradients<G>(call.grad_x, at.of[2] + pack * N * call.grad_x.step, gradient);
#pragma unroll
        for (int i = 0; i < N; ++i)
            gradient[i] = paired_slope(call.cosine, of_y, C(to_compute(b.values[i])),
                                       C(to_compute(a.values[i])));
        if (call.grad_y.data)
            store_gradients<G>(call.grad_y, at.of[3] + pack * N * call.grad_y.step, gradient);
    }
}

// Gradients of arrays that were not broadcast: each element has one pair.
template <class T>
__global__ void __launch_bounds__(kPairedThreads, 3) paired_backward(const PairedBackward call) {
    typedef typename Compute<T>::type C;
    const PairedPart part = paired_part(call.cut, call.cut.pack);
    if (!part.exists) return;
    const StridedArray* const arrays[8] = {&call.x,     &call.y,      &call.grad_x, &call.grad_y,
                                           &call.value, &call.norm_x, &call.norm_y, &call.upstream};
    const Offsets<8> at = locate(call.cut.pairs, part.pair, arrays);
    const C value = load_paired<C>(call.value, at.of[4]);
    const C upstream = load_paired<C>(call.upstream, at.of[7]);
    PairedFactors<C> of_x, of_y;
    if (call.cosine) {
        const C x = load_paired<C>(call.norm_x, at.of[5]),
                y = load_paired<C>(call.norm_y, at.of[6]);
        of_x = cosine_factors(value, upstream, x, y, C(call.floor), C(call.replacement));
        of_y = cosine_factors(value, upstream, y, x, C(call.floor), C(call.replacement));
    } else {
        of_x = of_y = euclidean_factors(value, upstream);
    }
    if (call.cut.pack > 1)
        differentiate_pairs<T, kPairedPack<T>>(call, part, at, of_x, of_y);
    else
        differentiate_pairs<T, 1>(call, part, at, of_x, of_y);
}

// ------------------------------------------------------------------ gradients of broadcast arrays

struct PairedSharedBackward {
    // Each element of the broadcast array has its samples, one per copy: those of an array are at
    // (place of the element) + (place of the copy).
    Axes kept, summed;
    // own, other, value, norm of own, norm of other, upstream
    StridedArray of_kept[6], of_summed[6];
    int cosine;
    double floor, replacement;
    StridedArray gradient;  // (kept.count,), contiguous
    int lanes;              // neighbouring elements of a block: 1 or 32
    int splits;             // blocks that share the copies of an element
    double* partials;       // (groups of elements, splits, lanes)
    unsigned* tickets;      // (groups of elements,), 0
};

template <class T>
__device__ __forceinline__ double shared_slope(const PairedSharedBackward& call,
                                               const Offsets<6>& base, long long copy) {
    typedef typename Compute<T>::type C;
    const StridedArray* const arrays[6] = {&call.of_summed[0], &call.of_summed[1],
                                           &call.of_summed[2], &call.of_summed[3],
                                           &call.of_summed[4], &call.of_summed[5]};
    Offsets<6> at = locate(call.summed, copy, arrays);
#pragma unroll
    for (int i = 0; i < 6; ++i) at.of[i] += base.of[i];
    const C own = C(to_compute(static_cast<const T*>(call.of_kept[0].data)[at.of[0]]));
    const C other = C(to_compute(static_cast<const T*>(call.of_kept[1].data)[at.of[1]]));
    const C value = load_paired<C>(call.of_kept[2], at.of[2]);
    const C upstream = load_paired<C>(call.of_kept[5], at.of[5]);
    if (!call.cosine)
        return double(paired_slope(false, euclidean_factors(value, upstream), own, other));
    const PairedFactors<C> factors = cosine_factors(
        value, upstream, load_paired<C>(call.of_kept[3], at.of[3]),
        load_paired<C>(call.of_kept[4], at.of[4]), C(call.floor), C(call.replacement));
    return double(paired_slope(true, factors, own, other));
}

template <class T>
__global__ void __launch_bounds__(kPairedThreads, 2)
    paired_shared_backward(const PairedSharedBackward call) {
    const int thread = int(threadIdx.x), lane = thread % call.lanes, slot = thread / call.lanes;
    const int slots = kPairedThreads / call.lanes;
    const unsigned group = blockIdx.x / unsigned(call.splits);
    const int split = int(blockIdx.x % unsigned(call.splits));
    const long long element = (long long)(group)*call.lanes + lane;
    double sum = 0.0;
    if (element < call.kept.count) {
        const StridedArray* const arrays[6] = {&call.of_kept[0], &call.of_kept[1],
                                               &call.of_kept[2], &call.of_kept[3],
                                               &call.of_kept[4], &call.of_kept[5]};
        const Offsets<6> base = locate(call.kept, element, arrays);
        const long long size = divide_up(call.summed.count, call.splits);
        const long long end = (split + 1) * size;
        for (long long i = split * size + slot; i < end && i < call.summed.count; i += slots)
            sum += shared_slope<T>(call, base, i);
    }
    sum = lane_sums<kPairedThreads>(sum, thread, call.lanes);
    double* partials = call.partials + (long long)(group)*call.splits * call.lanes;
    if (slot == 0) partials[split * call.lanes + lane] = sum;
    if (!is_last_block(call.tickets + group, unsigned(call.splits))) return;
    sum = 0.0;
    for (int i = slot; i < call.splits; i += slots) sum += partials[i * call.lanes + lane];
    sum = lane_sums<kPairedThreads>(sum, thread, call.lanes);
    if (slot == 0 && element < call.kept.count)
        store_any<double>(call.gradient.data, call.gradient.dtype, element, sum);
}

}  // namespace sosie
