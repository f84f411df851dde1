// SPDX-License-Identifier: Apache-2.0
//
// Weighted sum of squared differences, sum of w (x - y)^2, and its gradients
//
//     dL/dx = 2 a w (x - y)    dL/dy = -dL/dx    dL/dw = a (x - y)^2 + b
//
// with a = dL/d(sum) and b = dL/d(sum of w), in one launch each.
//
// Memory is the limit: 8 bytes a float32 element forward, 12 with weights of the images' size, 4
// more for each gradient; a broadcast weight is read from where it is. A thread has four packs of
// 16 bytes of each image on their way at a time.
//
// Accuracy: a thread adds up at most 8 packs in the computing type, everything else is double.
// Blocks have a fixed number of elements and their sums are added in order, so bits depend on
// neither the device nor the time of day.
//
// A weight of 0 takes its pixel out: where the difference there is NaN or infinite it counts as 0.
// Nobody waits for the device to look at weights: one that is not allowed makes the sums NaN.
#pragma once
#include "strided.cuh"

namespace sosie {

constexpr int kSSDThreads = 256, kSSDPacks = 8;  // packs of a thread

// float holds no square of a 16-bit difference.
template <class T>
struct SSDCompute {
    typedef typename Compute<T>::type type;
};
template <>
struct SSDCompute<unsigned short> {
    typedef double type;
};

// Elements of a pack. Of bytes 8: with 16 there would be more to compute on than registers.
template <class T>
constexpr int kSSDPack = sizeof(T) == 1 ? 8 : int(16 / sizeof(T));

struct SSDForward {
    long long images;
    Axes axes;  // of one image
    StridedArray x, y, weight;
    // Elements that follow each other, aligned, in all arrays but the weights, which may have one
    // for all of them: kSSDPack or 1.
    int pack;
    int allow_negative;
    unsigned blocks;    // per image
    double* partials;   // (images, blocks, 2)
    unsigned* tickets;  // (images,), 0
    double* sums;       // (images, 2): of w (x - y)^2 and of w
    void* values;       // (images,): sum, or mean under the weights; or nullptr
    int values_dtype, mean;
};

struct SSDBackward {
    SSDForward forward;
    // (images, 2): dL/dsums; nullptr: (1, 0) for every image. The first is multiplied by `factor`
    // and divided by `divisor`, if there is one; by 0 gives 0.
    const double* upstream;
    long long upstream_stride;
    double factor;
    const double* divisor;
    StridedArray grad_x, grad_y, grad_weight;  // absent: not wanted
};

// ---------------------------------------------------------------------------------------- elements

template <class C>
struct SSDSums {
    C sum, weight;
    bool bad;  // a weight that is not allowed
};

// x - y, but 0 where a pixel of weight 0 holds NaN or an infinity.
template <class C, bool Weighted>
__device__ __forceinline__ C ssd_difference(C x, C y, C w) {
    const C d = x - y;
    return Weighted && w == C(0) && !is_finite(d) ? C(0) : d;
}

template <class C, bool Weighted>
__device__ __forceinline__ C add_pixel(C x, C y, C w, int allow_negative, SSDSums<C>& sums) {
    const C d = ssd_difference<C, Weighted>(x, y, w);
    if (Weighted) {
        sums.sum += w * d * d;
        sums.weight += w;
        sums.bad |= !is_finite(w) || (w < C(0) && !allow_negative);
    } else {
        sums.sum += d * d;
    }
    return d;
}

// The part of an image that is a block's.
struct SSDPart {
    long long image, begin, end;  // in packs
    int thread;
};
template <int N>
__device__ __forceinline__ SSDPart part_of_block(const SSDForward& call) {
    const long long image = blockIdx.x / call.blocks, block = blockIdx.x % call.blocks;
    const long long packs = call.axes.count / N, size = kSSDThreads * kSSDPacks;
    const long long end = (block + 1) * size;
    return {image, block * size, end < packs ? end : packs, int(threadIdx.x)};
}

template <class W, class C, int N>
__device__ __forceinline__ void load_weights_of(const void* data, long long offset, C (&w)[N]) {
    const W* from = static_cast<const W*>(data) + offset;
    if (N == 4 && sizeof(W) == 4) {
        const Pack<W, 4> pack = load_pack<W, 4>(from);
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = C(to_compute(pack.values[i % 4]));
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = C(to_compute(from[i]));
    }
}

// N weights from where a pack's first is; one for all where they are broadcast along it.
template <class C, int N>
__device__ __forceinline__ void load_weights(const StridedArray& weight, long long offset,
                                             long long step, C (&w)[N]) {
    if (N > 1 && step == 0) {
        const C one = load_any<C>(weight.data, weight.dtype, offset);
#pragma unroll
        for (int i = 0; i < N; ++i) w[i] = one;
        return;
    }
    switch (weight.dtype) {  // once for all N
        case kUint8: load_weights_of<unsigned char>(weight.data, offset, w); break;
        case kFloat16: load_weights_of<half>(weight.data, offset, w); break;
        case kBfloat16: load_weights_of<bfloat16>(weight.data, offset, w); break;
        case kFloat32: load_weights_of<float>(weight.data, offset, w); break;
        default: load_weights_of<double>(weight.data, offset, w);
    }
}

// Adds a block's sums to those of its image; the last block of it writes them out.
template <class C, bool Weighted>
__device__ __forceinline__ void finish_sums(const SSDForward& call, const SSDPart& part,
                                            const SSDSums<C>& of_thread) {
    const double nan = double(float_of_bits(0x7fffffff));
    double sums[2] = {of_thread.bad ? nan : double(of_thread.sum), double(of_thread.weight)};
    block_sums<kSSDThreads>(sums);
    double* partials = call.partials + 2 * part.image * call.blocks;
    if (part.thread == 0) {
        double* mine = partials + 2 * (blockIdx.x % call.blocks);
        mine[0] = sums[0];
        mine[1] = sums[1];
    }
    if (!is_last_block(call.tickets + part.image, call.blocks)) return;
    sums[0] = sums[1] = 0.0;
    for (unsigned i = threadIdx.x; i < call.blocks; i += kSSDThreads) {
        sums[0] += partials[2 * i];
        sums[1] += partials[2 * i + 1];
    }
    block_sums<kSSDThreads>(sums);
    if (part.thread != 0) return;
    if (!Weighted) sums[1] = double(call.axes.count);
    call.sums[2 * part.image] = sums[0];
    call.sums[2 * part.image + 1] = sums[1];
    if (!call.values) return;
    const double divisor = call.mean ? sums[1] : 1.0;
    store_any<double>(call.values, call.values_dtype, part.image,
                      divisor == 0.0 ? 0.0 : sums[0] / divisor);
}

// ----------------------------------------------------------------------------------------- forward

template <class T, bool Weighted, int N>
__device__ __forceinline__ void add_pack(const SSDForward& call, const SSDPart& part,
                                         long long pack,
                                         SSDSums<typename SSDCompute<T>::type>& sums) {
    typedef typename SSDCompute<T>::type C;
    const StridedArray* const arrays[3] = {&call.x, &call.y, &call.weight};
    const Offsets<3> at = locate(call.axes, pack * N, arrays);
    const Pack<T, N> x =
        load_pack<T, N>(static_cast<const T*>(call.x.data) + part.image * call.x.step + at.of[0]);
    const Pack<T, N> y =
        load_pack<T, N>(static_cast<const T*>(call.y.data) + part.image * call.y.step + at.of[1]);
    C w[N] = {};
    if (Weighted)
        load_weights(call.weight, part.image * call.weight.step + at.of[2],
                     call.weight.strides[call.axes.axes - 1], w);
#pragma unroll
    for (int i = 0; i < N; ++i)
        add_pixel<C, Weighted>(C(to_compute(x.values[i])), C(to_compute(y.values[i])), w[i],
                               call.allow_negative, sums);
}

template <class T, bool Weighted, int N>
__device__ __forceinline__ void ssd_forward_packs(const SSDForward& call) {
    SSDSums<typename SSDCompute<T>::type> sums = {};
    const SSDPart part = part_of_block<N>(call);
#pragma unroll(N > 1 ? 4 : 1)
    for (long long pack = part.begin + part.thread; pack < part.end; pack += kSSDThreads)
        add_pack<T, Weighted, N>(call, part, pack, sums);
    finish_sums<typename SSDCompute<T>::type, Weighted>(call, part, sums);
}

template <class T, bool Weighted>
__global__ void __launch_bounds__(kSSDThreads, 3) ssd_forward(const SSDForward call) {
    if (call.pack > 1)
        ssd_forward_packs<T, Weighted, kSSDPack<T>>(call);
    else
        ssd_forward_packs<T, Weighted, 1>(call);
}

// ---------------------------------------------------------------------------------------- backward

template <class C>
struct SSDUpstream {
    C sum, weight;
};

template <class C>
__device__ __forceinline__ SSDUpstream<C> upstream_of(const SSDBackward& call, long long image) {
    const double* given = call.upstream ? call.upstream + image * call.upstream_stride : nullptr;
    const double divisor = call.divisor ? *call.divisor : 1.0;
    const double sum = (given ? given[0] : 1.0) * call.factor;
    return {C(divisor == 0.0 ? 0.0 : sum / divisor), C(given ? given[1] : 0.0)};
}

template <class T, bool Weighted, int N>
__device__ __forceinline__ void differentiate_pack(
    const SSDBackward& call, const SSDPart& part, long long pack,
    const SSDUpstream<typename SSDCompute<T>::type>& upstream,
    SSDSums<typename SSDCompute<T>::type>& sums) {
    typedef typename SSDCompute<T>::type C;
    typedef typename Compute<T>::gradient G;
    const SSDForward& of = call.forward;
    const StridedArray* const arrays[6] = {&of.x,        &of.y,        &of.weight,
                                           &call.grad_x, &call.grad_y, &call.grad_weight};
    Offsets<6> at = locate(of.axes, pack * N, arrays);
#pragma unroll
    for (int i = 0; i < 6; ++i) at.of[i] += part.image * arrays[i]->step;
    const Pack<T, N> x = load_pack<T, N>(static_cast<const T*>(of.x.data) + at.of[0]);
    const Pack<T, N> y = load_pack<T, N>(static_cast<const T*>(of.y.data) + at.of[1]);
    C w[N] = {}, d[N], gradient[N];
    if (Weighted) load_weights(of.weight, at.of[2], of.weight.strides[of.axes.axes - 1], w);
#pragma unroll
    for (int i = 0; i < N; ++i)
        d[i] = add_pixel<C, Weighted>(C(to_compute(x.values[i])), C(to_compute(y.values[i])), w[i],
                                      of.allow_negative, sums);
#pragma unroll
    for (int i = 0; i < N; ++i) gradient[i] = C(2) * upstream.sum * (Weighted ? w[i] * d[i] : d[i]);
    if (call.grad_x.data) store_gradients<G>(call.grad_x, at.of[3], gradient);
#pragma unroll
    for (int i = 0; i < N; ++i) gradient[i] = -gradient[i];
    if (call.grad_y.data) store_gradients<G>(call.grad_y, at.of[4], gradient);
    if (Weighted && call.grad_weight.data)
#pragma unroll
        for (int i = 0; i < N; ++i)
            store_any<C>(call.grad_weight.data, call.grad_weight.dtype, at.of[5] + i,
                         upstream.sum * d[i] * d[i] + upstream.weight);
}

template <class T, bool Weighted, int N>
__device__ __forceinline__ void ssd_backward_packs(const SSDBackward& call) {
    SSDSums<typename SSDCompute<T>::type> sums = {};
    const SSDPart part = part_of_block<N>(call.forward);
    const auto upstream = upstream_of<typename SSDCompute<T>::type>(call, part.image);
#pragma unroll(N > 1 ? 2 : 1)
    for (long long pack = part.begin + part.thread; pack < part.end; pack += kSSDThreads)
        differentiate_pack<T, Weighted, N>(call, part, pack, upstream, sums);
    finish_sums<typename SSDCompute<T>::type, Weighted>(call.forward, part, sums);
}

// All gradients but that of a broadcast weight; and the sums, of the same pass.
template <class T, bool Weighted>
__global__ void __launch_bounds__(kSSDThreads, 3) ssd_backward(const SSDBackward call) {
    if (call.forward.pack > 1)
        ssd_backward_packs<T, Weighted, kSSDPack<T>>(call);
    else
        ssd_backward_packs<T, Weighted, 1>(call);
}

// ------------------------------------------------------------------- gradient of broadcast weights

struct SSDWeightBackward {
    // Each weight has its samples: those of an array are at (place of the weight) + (place of the
    // sample). `upstream` is an array like the images, its second number 1 behind the first.
    Axes kept, summed;
    StridedArray kept_x, kept_y, kept_weight, kept_upstream;
    StridedArray summed_x, summed_y, summed_upstream;
    double factor;
    StridedArray grad_weight;  // (kept.count,), contiguous
    int lanes;                 // neighbouring weights of a block: 1 or 32
    int splits;                // blocks that share the samples of a weight
    double* partials;          // (groups of weights, splits, lanes)
    unsigned* tickets;         // (groups of weights,), 0
};

template <class T>
__global__ void __launch_bounds__(kSSDThreads, 3)
    ssd_weight_backward(const SSDWeightBackward call) {
    typedef typename SSDCompute<T>::type C;
    const int lane = int(threadIdx.x) % call.lanes, slot = int(threadIdx.x) / call.lanes;
    const int slots = kSSDThreads / call.lanes;
    const unsigned group = blockIdx.x / unsigned(call.splits);
    const int split = int(blockIdx.x % unsigned(call.splits));
    const long long weight = (long long)(group)*call.lanes + lane;
    const bool exists = weight < call.kept.count;
    double sum = 0.0;
    if (exists) {
        const StridedArray* const kept[4] = {&call.kept_x, &call.kept_y, &call.kept_weight,
                                             &call.kept_upstream};
        const StridedArray* const summed[3] = {&call.summed_x, &call.summed_y,
                                               &call.summed_upstream};
        const Offsets<4> base = locate(call.kept, weight, kept);
        const C w = load_any<C>(call.kept_weight.data, call.kept_weight.dtype, base.of[2]);
        const long long size = divide_up(call.summed.count, call.splits);
        const long long end = (split + 1) * size;
        for (long long i = split * size + slot; i < end && i < call.summed.count; i += slots) {
            const Offsets<3> at = locate(call.summed, i, summed);
            const C x =
                C(to_compute(static_cast<const T*>(call.kept_x.data)[base.of[0] + at.of[0]]));
            const C y =
                C(to_compute(static_cast<const T*>(call.kept_y.data)[base.of[1] + at.of[1]]));
            const double* upstream =
                static_cast<const double*>(call.kept_upstream.data) + base.of[3] + at.of[2];
            const C d = ssd_difference<C, true>(x, y, w);
            sum += call.factor * upstream[0] * double(d) * double(d) + upstream[1];
        }
    }
    sum = lane_sums<kSSDThreads>(sum, int(threadIdx.x), call.lanes);
    double* partials = call.partials + (long long)(group)*call.splits * call.lanes;
    if (slot == 0) partials[split * call.lanes + lane] = sum;
    if (!is_last_block(call.tickets + group, unsigned(call.splits))) return;
    sum = 0.0;
    for (int i = slot; i < call.splits; i += slots) sum += partials[i * call.lanes + lane];
    sum = lane_sums<kSSDThreads>(sum, int(threadIdx.x), call.lanes);
    if (slot == 0 && exists)
        store_any<double>(call.grad_weight.data, call.grad_weight.dtype, weight, sum);
}

}  // namespace sosie
