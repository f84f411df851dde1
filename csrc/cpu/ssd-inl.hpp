// SPDX-License-Identifier: Apache-2.0
//
// Weighted sum of squared differences, sum of w (x - y)^2, and its gradients
//
//     dL/dx = 2 a w (x - y)    dL/dy = -dL/dx    dL/dw = a (x - y)^2 + b
//
// with a = dL/d(sum) and b = dL/d(sum of w), in one pass each.
//
// Arithmetic: a handful of operations for the 8 to 24 bytes of an element, so memory is the limit
// and the floor is bytes / bandwidth: 12 bytes a float32 element forward, 4 more for each gradient
// that is written, past the caches where it would not fit in them. Nothing that is read is read
// twice, and weights that were broadcast are read from where they are.
//
// Accuracy: products are of the computing type; a lane adds up at most 64 of them (beside gradients
// 256) before it is widened to double. So a float sum is off by a few 2^-24 of itself, whatever the
// number of pixels.
//
// A weight of 0 takes its pixel out: where the difference there is NaN or infinite it counts as 0.
#pragma once
#include "arena-inl.hpp"
#include "ssd-call.hpp"
#include "strided-inl.hpp"

namespace {

using sosie::SSDBackward;
using sosie::SSDPartial;
using sosie::SSDProblem;

// Vectors in flight: enough to hide an addition's four cycles.
constexpr int kChains = 4;

// What a lane adds up of one block.
template <class T>
struct BlockSums {
    Vec<T> sum[kChains] = {}, weight[kChains] = {};
};

// What a task adds up.
template <class T>
struct TaskSums {
    Wide<T> sum = {}, weight = {};
    Vec<T> lowest = {}, odd = {};

    void add(const BlockSums<T>& block) {
        for (int i = 0; i < kChains; ++i) {
            sum += widen_lanes<T>(block.sum[i]);
            weight += widen_lanes<T>(block.weight[i]);
        }
    }
    SSDPartial partial() const {
        SSDPartial result{};
        for (int lane = 0; lane < kLanes<T>; ++lane) {
            result.sum += sum[lane];
            result.weight += weight[lane];
            if (double(lowest[lane]) < result.lowest) result.lowest = double(lowest[lane]);
        }
        result.odd = sum_lanes<T>(odd);
        return result;
    }
};

template <class T>
inline Mask<T> is_finite(Vec<T> v) {
    return v - v == Vec<T>{};
}

// x - y, but 0 where a pixel of weight 0 holds NaN or an infinity.
template <class T, bool Weighted>
inline Vec<T> difference(Vec<T> x, Vec<T> y, Vec<T> w) {
    const Vec<T> d = x - y;
    if constexpr (Weighted)
        return keep<T>(d, is_finite<T>(d) | (Mask<T>)(w != Vec<T>{}));
    else
        return d;
}

template <class T, bool Weighted>
inline void add_pixels(Vec<T> x, Vec<T> y, Vec<T> w, int chain, BlockSums<T>& block,
                       TaskSums<T>& task) {
    const Vec<T> d = difference<T, Weighted>(x, y, w);
    if constexpr (Weighted) {
        block.sum[chain] += (w * d) * d;
        block.weight[chain] += w;
        task.lowest = w < task.lowest ? w : task.lowest;
        task.odd += keep<T>(w, ~is_finite<T>(w));
    } else {
        block.sum[chain] += d * d;
    }
}

template <class T, bool Weighted>
void sum_block(const T* x, const T* y, const T* w, int64_t count, TaskSums<T>& task) {
    constexpr int lanes = kLanes<T>;
    const auto weight = [w](int64_t i) { return Weighted ? load<T>(w + i) : Vec<T>{}; };
    BlockSums<T> block;
    int64_t i = 0;
    for (; i + kChains * lanes <= count; i += kChains * lanes)
#pragma GCC unroll 4
        for (int chain = 0; chain < kChains; ++chain) {
            const int64_t at = i + chain * lanes;
            add_pixels<T, Weighted>(load<T>(x + at), load<T>(y + at), weight(at), chain, block,
                                    task);
        }
    for (; i + lanes <= count; i += lanes)
        add_pixels<T, Weighted>(load<T>(x + i), load<T>(y + i), weight(i), 0, block, task);
    if (i < count)
        add_pixels<T, Weighted>(load_part<T>(x + i, count - i), load_part<T>(y + i, count - i),
                                Weighted ? load_part<T>(w + i, count - i) : Vec<T>{}, 0, block,
                                task);
    task.add(block);
}

// ---------------------------------------------------------------------------------------- forward

template <class T>
int64_t ssd_forward_tasks(const SSDProblem& p) {
    return p.images * divide_up(p.pixels, p.task_pixels);
}

template <class T>
size_t ssd_forward_scratch(const SSDProblem&) {
    return 3 * kBlock<T> * sizeof(T);
}

// use(begin, count) for each block of a task. Blocks end where x's rows do, if those are long
// enough: then most are read in place.
template <class T, class Use>
inline void each_block(const SSDProblem& p, int64_t begin, int64_t end, Use use) {
    const int64_t row = p.x.lengths[p.x.axes - 1];
    while (begin < end) {
        int64_t count = smaller(kBlock<T>, end - begin);
        if (row >= kBlock<T> / 8) count = smaller(count, row - begin % row);
        use(begin, count);
        begin += count;
    }
}

struct TaskRange {
    int64_t image, begin, end;
};
inline TaskRange range_of(const SSDProblem& p, int64_t task) {
    const int64_t per_image = divide_up(p.pixels, p.task_pixels);
    const int64_t begin = task % per_image * p.task_pixels;
    return {task / per_image, begin, smaller(begin + p.task_pixels, p.pixels)};
}

template <class T, bool Weighted>
void run_ssd_forward_as(const SSDProblem& p, int64_t task, void* scratch, SSDPartial* partial) {
    T* memory = static_cast<T*>(scratch);
    const TaskRange range = range_of(p, task);
    Reader<T> x(p.x, range.image, memory), y(p.y, range.image, memory + kBlock<T>);
    Reader<T> weight(p.weight, range.image, memory + 2 * kBlock<T>);
    TaskSums<T> sums;
    each_block<T>(p, range.begin, range.end, [&](int64_t begin, int64_t count) {
        const T* w = Weighted ? weight.read(begin, count) : nullptr;
        sum_block<T, Weighted>(x.read(begin, count), y.read(begin, count), w, count, sums);
    });
    *partial = sums.partial();
}

template <class T>
void run_ssd_forward(const SSDProblem& p, int64_t task, void* scratch, SSDPartial* partial) {
    if (p.weight.data)
        run_ssd_forward_as<T, true>(p, task, scratch, partial);
    else
        run_ssd_forward_as<T, false>(p, task, scratch, partial);
}

// --------------------------------------------------------------------------------------- backward

// Where one gradient of a block goes; nullptr: nowhere.
template <class T>
struct Target {
    T* values;
    bool streams;

    void put(int64_t i, Vec<T> v) const {
        if (!values) return;
        if (streams)
            stream<T>(values + i, v);
        else
            store<T>(values + i, v);
    }
    void put_part(int64_t i, Vec<T> v, int64_t count) const {
        if (values) store_part<T>(values + i, v, count);
    }
};

template <class T>
struct Upstream {
    T twice_sum, sum, weight;
};

// The gradients of one vector of pixels, handed to put(target, gradient).
template <class T, bool Weighted, class Put>
inline void differentiate(Vec<T> x, Vec<T> y, Vec<T> w, const Upstream<T>& upstream,
                          BlockSums<T>& block, TaskSums<T>& task, Put put) {
    const Vec<T> d = difference<T, Weighted>(x, y, w), wd = Weighted ? w * d : d;
    block.sum[0] += wd * d;
    if constexpr (Weighted) {
        block.weight[0] += w;
        task.lowest = w < task.lowest ? w : task.lowest;
        task.odd += keep<T>(w, ~is_finite<T>(w));
    }
    const Vec<T> by_x = upstream.twice_sum * wd;
    put(by_x, -by_x, (upstream.sum * d) * d + upstream.weight);
}

template <class T, bool Weighted>
void differentiate_block(const T* x, const T* y, const T* w, int64_t count,
                         const Upstream<T>& upstream, const Target<T>& grad_x,
                         const Target<T>& grad_y, const Target<T>& grad_weight, TaskSums<T>& task) {
    constexpr int lanes = kLanes<T>;
    BlockSums<T> block;
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes)
        differentiate<T, Weighted>(load<T>(x + i), load<T>(y + i),
                                   Weighted ? load<T>(w + i) : Vec<T>{}, upstream, block, task,
                                   [&](Vec<T> by_x, Vec<T> by_y, Vec<T> by_weight) {
                                       grad_x.put(i, by_x);
                                       grad_y.put(i, by_y);
                                       grad_weight.put(i, by_weight);
                                   });
    if (const int64_t rest = count - i)
        differentiate<T, Weighted>(load_part<T>(x + i, rest), load_part<T>(y + i, rest),
                                   Weighted ? load_part<T>(w + i, rest) : Vec<T>{}, upstream, block,
                                   task, [&](Vec<T> by_x, Vec<T> by_y, Vec<T> by_weight) {
                                       grad_x.put_part(i, by_x, rest);
                                       grad_y.put_part(i, by_y, rest);
                                       grad_weight.put_part(i, by_weight, rest);
                                   });
    task.add(block);
}

template <class T>
inline double sum_run(const T* values, int64_t count) {
    Vec<T> sum{};
    int64_t i = 0;
    for (; i + kLanes<T> <= count; i += kLanes<T>) sum += load<T>(values + i);
    return sum_lanes<T>(sum + load_part<T>(values + i, count - i));
}

// Adds what each pixel has for its weight to that weight's sum.
template <class T>
void add_to_weights(const Elements& layout, int64_t begin, int64_t count, const T* values,
                    double* sums) {
    each_run(layout, begin, count, [&](int64_t offset, int64_t stride, int64_t run) {
        double* to = sums + offset;
        if (stride == 0) {
            *to += sum_run<T>(values, run);
        } else {
            for (int64_t i = 0; i < run; ++i) to[i * stride] += double(values[i]);
        }
        values += run;
    });
}

template <class T>
int64_t ssd_backward_tasks(const SSDBackward& call) {
    return ssd_forward_tasks<T>(call.problem);
}

template <class T>
size_t ssd_backward_scratch(const SSDBackward&) {
    return 6 * kBlock<T> * sizeof(T);
}

// Elements before the first aligned vector of the gradient that is written first.
template <class T>
inline int64_t misalignment(const SSDBackward& call, const TaskRange& range) {
    const Elements& grad = call.grad_x.data ? call.grad_x : call.grad_y;
    if (!call.stream || !grad.data) return 0;
    const T* place = Writer<T>(grad, range.image, nullptr).begin(range.begin, 1);
    const uintptr_t past = reinterpret_cast<uintptr_t>(place) % SOSIE_VECTOR_BYTES;
    return past ? int64_t((SOSIE_VECTOR_BYTES - past) / sizeof(T)) : 0;
}

template <class T, bool Weighted>
void run_ssd_backward_as(const SSDBackward& call, int64_t task, void* scratch,
                         SSDPartial* partial) {
    const SSDProblem& p = call.problem;
    T* memory = static_cast<T*>(scratch);
    const auto page = [memory](int i) { return memory + i * kBlock<T>; };
    const TaskRange range = range_of(p, task);
    Reader<T> x(p.x, range.image, page(0)), y(p.y, range.image, page(1));
    Reader<T> weight(p.weight, range.image, page(2));
    const Writer<T> grad_x(call.grad_x, range.image, page(3));
    const Writer<T> grad_y(call.grad_y, range.image, page(4));
    const Writer<T> grad_weight(call.grad_weight, range.image, page(5));
    const double* of_image = call.upstream + range.image * call.upstream_stride;
    const Upstream<T> upstream{T(2 * of_image[0]), T(of_image[0]), T(of_image[1])};
    const auto target = [&](const Writer<T>& writer, int64_t begin, int64_t count) {
        T* values = writer.present() ? writer.begin(begin, count) : nullptr;
        const bool aligned = reinterpret_cast<uintptr_t>(values) % SOSIE_VECTOR_BYTES == 0;
        return Target<T>{values, call.stream && aligned};
    };
    TaskSums<T> sums;
    const auto differentiate_some = [&](int64_t begin, int64_t count) {
        const T* w = Weighted ? weight.read(begin, count) : nullptr;
        const Target<T> to_x = target(grad_x, begin, count), to_y = target(grad_y, begin, count);
        const bool summed = call.weight_sums != nullptr;
        const Target<T> to_weight =
            summed ? Target<T>{page(5), false} : target(grad_weight, begin, count);
        differentiate_block<T, Weighted>(x.read(begin, count), y.read(begin, count), w, count,
                                         upstream, to_x, to_y, to_weight, sums);
        if (to_x.values) grad_x.finish(begin, count, to_x.values);
        if (to_y.values) grad_y.finish(begin, count, to_y.values);
        if (summed)
            add_to_weights<T>(call.grad_weight, begin, count, page(5),
                              call.weight_sums + task * call.weight_sums_piece);
        else if (to_weight.values)
            grad_weight.finish(begin, count, to_weight.values);
    };
    const int64_t head = smaller(misalignment<T>(call, range), range.end - range.begin);
    if (head) differentiate_some(range.begin, head);
    each_block<T>(p, range.begin + head, range.end, differentiate_some);
    if (call.stream) finish_streams();
    *partial = sums.partial();
}

template <class T>
void run_ssd_backward(const SSDBackward& call, int64_t task, void* scratch, SSDPartial* partial) {
    if (call.problem.weight.data)
        run_ssd_backward_as<T, true>(call, task, scratch, partial);
    else
        run_ssd_backward_as<T, false>(call, task, scratch, partial);
}

}  // namespace
