// SPDX-License-Identifier: Apache-2.0
//
// Gradients of paired rows. Both measures have the same form, with three numbers a pair that follow
// from what the forward pass returned:
//
//     dL/dx = a (y - t x)      dL/dy = a (x - u y)
//
//     euclidean   a = -g / d (0 at d = 0), t = u = 1
//     cosine      a = g / (|x|' |y|'), t = s |y|' / |x|, u = s |x|' / |y|; 0 where |.|' is constant
//
// y - t x is one multiply-add: where x and y almost agree it keeps the digits that the difference
// of two rounded products would lose. Both arrays are read once and nothing else is: the floor is
// 16 bytes a pair of float32 numbers for both gradients.
//
// The gradient of a broadcast x is a sum over the pairs that share it, in the order of the pairs:
// 16 terms at most in the computing type, then in double.
#pragma once
#include "arena-inl.hpp"
#include "paired-inl.hpp"

namespace {

// Gradients larger than caches bypass them.
constexpr int64_t kStreamedBytes = 16 << 20;

// Places of the numbers of a block's pairs in scratch memory, kColumns each.
enum { kA, kT, kU, kPairUpstream, kPairValue, kPairNormX, kPairNormY };

// a, t and u of `count` pairs, from what the forward pass returned and the upstream gradient.
template <class T>
void coefficients(const PairedCall& call, int64_t count, int64_t apart, T* __restrict numbers) {
    T* const a = numbers + kA * apart;
    T* const t = numbers + kT * apart;
    T* const u = numbers + kU * apart;
    const T* const upstream = numbers + kPairUpstream * apart;
    const T* const value = numbers + kPairValue * apart;
    const T* const norm_x = numbers + kPairNormX * apart;
    const T* const norm_y = numbers + kPairNormY * apart;
    if (call.kind == PairedKind::euclidean) {
        for (int64_t i = 0; i < count; ++i) {
            a[i] = value[i] == 0 ? T(0) : -upstream[i] / value[i];
            t[i] = u[i] = 1;
        }
        return;
    }
    const T floor = T(call.floor), replacement = T(call.replacement);
    for (int64_t i = 0; i < count; ++i) {
        const T x = norm_x[i] < floor ? replacement : norm_x[i];
        const T y = norm_y[i] < floor ? replacement : norm_y[i];
        a[i] = upstream[i] / x / y;  // their product may be more than a float holds
        t[i] = norm_x[i] < floor ? T(0) : value[i] * (y / norm_x[i]);
        u[i] = norm_y[i] < floor ? T(0) : value[i] * (x / norm_y[i]);
    }
}

// Those of the pairs that are neighbours along the last axis, from `first` on.
template <class T>
void coefficients_at(const PairedCall& call, const Walk& walk, int64_t first, int64_t count,
                     int64_t apart, T* numbers) {
    const auto gather = [&](PairedPlace place, int where) {
        const int64_t stride = call.axis[call.axes - 1].strides[place];
        const T* const from = walk.at<T>(place) + first * stride;
        T* const to = numbers + where * apart;
        for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
    };
    gather(sosie::kUpstream, kPairUpstream);
    gather(sosie::kValue, kPairValue);
    if (call.kind == PairedKind::cosine) {
        gather(sosie::kNormX, kPairNormX);
        gather(sosie::kNormY, kPairNormY);
    }
    coefficients<T>(call, count, apart, numbers);
}

// What a gradient of elements of type Source is stored in.
template <class T, class Source>
struct GradientOf {
    using type = T;
};
template <>
struct GradientOf<float, Half> {
    using type = Half;
};
template <>
struct GradientOf<float, BrainHalf> {
    using type = BrainHalf;
};

template <class T>
bool gradients_stream(const PairedCall& call) {
    int64_t elements = call.length;
    for (int a = 0; a < call.axes; ++a) elements *= call.axis[a].size;
    return elements * int64_t(sizeof(T)) >= kStreamedBytes;
}

// ------------------------------------------------------------------------- a gradient of each pair

template <class T, class Source, bool Dense>
void gradient_rows(const PairedCall& call, const Cut& c, int64_t first, int64_t last,
                   int64_t segment) {
    using Target = typename GradientOf<T, Source>::type;
    const int64_t begin = segment * c.segment, end = smaller(call.length, begin + c.segment);
    const bool streams = gradients_stream<T>(call);
    const auto& operands = call.operands;
    const bool has_x = operands[sosie::kGradX].data, has_y = operands[sosie::kGradY].data;
    Walk walk(call, call.axes, first);
    for (int64_t pair = first; pair < last; ++pair, walk.next()) {
        const Reader<T, Source, Dense> x{walk.at<Source>(sosie::kX), operands[sosie::kX].step};
        const Reader<T, Source, Dense> y{walk.at<Source>(sosie::kY), operands[sosie::kY].step};
        const Writer<T, Target> grad_x{walk.at<Target>(sosie::kGradX), operands[sosie::kGradX].step,
                                       streams};
        const Writer<T, Target> grad_y{walk.at<Target>(sosie::kGradY), operands[sosie::kGradY].step,
                                       streams};
        T numbers[7];
        coefficients_at<T>(call, walk, 0, 1, 1, numbers);
        const Vec<T> a = splat<T>(numbers[kA]), t = splat<T>(numbers[kT]),
                     u = splat<T>(numbers[kU]);
        int64_t i = begin;
        for (; i + kLanes<T> <= end; i += kLanes<T>) {
            const Vec<T> vx = x.at(i), vy = y.at(i);
            if (has_x) grad_x.put(i, a * (vy - t * vx));
            if (has_y) grad_y.put(i, a * (vx - u * vy));
        }
        if (i == end) continue;
        const Vec<T> vx = x.some(i, end - i), vy = y.some(i, end - i);
        if (has_x) grad_x.put_some(i, end - i, a * (vy - t * vx));
        if (has_y) grad_y.put_some(i, end - i, a * (vx - u * vy));
    }
}

template <class T, class Source, bool Dense>
void gradient_columns(const PairedCall& call, const Cut& c, int64_t first, int64_t last,
                      int64_t segment, T* scratch) {
    using Target = typename GradientOf<T, Source>::type;
    const int64_t begin = segment * c.segment, end = smaller(call.length, begin + c.segment);
    const bool streams = gradients_stream<T>(call);
    const auto& operands = call.operands;
    const PairedAxis& columns = call.axis[call.axes - 1];
    const T* const a = scratch + kA * kColumns;
    const T* const t = scratch + kT * kColumns;
    const T* const u = scratch + kU * kColumns;
    for (int64_t number = first; number < last; ++number) {
        const Unit unit = unit_of(c, number);
        const Walk walk(call, call.axes - 1, unit.outer);
        coefficients_at<T>(call, walk, unit.first_column, unit.columns, kColumns, scratch);
        const auto place = [&](PairedPlace which, int64_t position) {
            return position * operands[which].step + unit.first_column * columns.strides[which];
        };
        for (int64_t position = begin; position < end; ++position) {
            const Reader<T, Source, Dense> x{
                walk.at<Source>(sosie::kX) + place(sosie::kX, position),
                columns.strides[sosie::kX]};
            const Reader<T, Source, Dense> y{
                walk.at<Source>(sosie::kY) + place(sosie::kY, position),
                columns.strides[sosie::kY]};
            const Writer<T, Target> grad_x{
                walk.at<Target>(sosie::kGradX) + place(sosie::kGradX, position),
                columns.strides[sosie::kGradX], streams};
            const Writer<T, Target> grad_y{
                walk.at<Target>(sosie::kGradY) + place(sosie::kGradY, position),
                columns.strides[sosie::kGradY], streams};
            for (int64_t i = 0; i < unit.columns; i += kLanes<T>) {
                const int64_t column = first_of<T>(i / kLanes<T>, unit.columns);
                const Vec<T> vx = x.at(column), vy = y.at(column), va = load<T>(a + column);
                if (operands[sosie::kGradX].data)
                    grad_x.put(column, va * (vy - load<T>(t + column) * vx));
                if (operands[sosie::kGradY].data)
                    grad_y.put(column, va * (vx - load<T>(u + column) * vy));
            }
        }
    }
}

template <class T>
void run_gradients(const PairedCall& call, int64_t task, void* scratch, PairedPartial*) {
    const Cut c = cut<T>(call);
    const int64_t segment = task % c.segments, first = task / c.segments * c.units_per_task;
    const int64_t last = smaller(c.units, first + c.units_per_task);
    const PairedAxis& columns = call.axis[call.axes - 1];
    const bool dense = c.along ? rows_are_dense(call)
                               : columns.strides[sosie::kX] == 1 && columns.strides[sosie::kY] == 1;
    T* const memory = static_cast<T*>(scratch);
    with_source<T>(call, [&](auto element) {
        using Source = decltype(element);
        if (c.along && dense)
            gradient_rows<T, Source, true>(call, c, first, last, segment);
        else if (c.along)
            gradient_rows<T, Source, false>(call, c, first, last, segment);
        else if (dense)
            gradient_columns<T, Source, true>(call, c, first, last, segment, memory);
        else
            gradient_columns<T, Source, false>(call, c, first, last, segment, memory);
    });
    finish_streams();
}

// ------------------------------------------------------------------- one gradient of several pairs

// A task is a stretch of one row of the gradient, short where there are few rows.
struct SharedCut {
    int64_t rows, stretch, stretches;
};

inline SharedCut shared_cut(const PairedCall& call) {
    int64_t pairs = 1;
    for (int a = 0; a < call.axes; ++a) pairs *= call.axis[a].size;
    SharedCut c{};
    c.rows = pairs / call.sharing;
    c.stretch = c.rows >= kAmpleTasks ? kColumns : kColumns / 4;
    c.stretches = divide_up(call.length, c.stretch);
    return c;
}

template <class T>
int64_t shared_tasks(const PairedCall& call) {
    const SharedCut c = shared_cut(call);
    return c.rows * c.stretches;
}

template <class T>
size_t shared_scratch(const PairedCall&) {
    return size_t(kColumns) * (2 * sizeof(T) + sizeof(double));
}

template <class T, class Source>
void shared_gradient(const PairedCall& call, int64_t row, int64_t begin, int64_t end,
                     void* scratch) {
    using Target = typename GradientOf<T, Source>::type;
    using Elements = Reader<T, Source, false>;
    Arena arena(scratch);
    double* const total = arena.take<double>(kColumns);
    T* const own = arena.take<T>(kColumns);
    T* const sum = arena.take<T>(kColumns);
    const int64_t count = end - begin, slots = round_up(count, kLanes<T>);
    const auto& operands = call.operands;
    Walk walk(call, call.axes, row * call.sharing);
    const Elements x{walk.at<Source>(sosie::kX) + begin * operands[sosie::kX].step,
                     operands[sosie::kX].step};
    const Writer<T, Target> grad{
        walk.at<Target>(sosie::kGradX) + begin * operands[sosie::kGradX].step,
        operands[sosie::kGradX].step, false};
    for (int64_t i = 0; i < slots; i += kLanes<T>) {
        store<T>(own + i, x.some(i, count - i));
        store<T>(sum + i, Vec<T>{});
    }
    for (int64_t i = 0; i < slots; ++i) total[i] = 0;
    for (int64_t pair = 0; pair < call.sharing; ++pair, walk.next()) {
        T numbers[7];
        coefficients_at<T>(call, walk, 0, 1, 1, numbers);
        const Vec<T> a = splat<T>(numbers[kA]), t = splat<T>(numbers[kT]);
        const Elements y{walk.at<Source>(sosie::kY) + begin * operands[sosie::kY].step,
                         operands[sosie::kY].step};
        for (int64_t i = 0; i < slots; i += kLanes<T>) {
            const Vec<T> term = a * (y.some(i, count - i) - t * load<T>(own + i));
            store<T>(sum + i, load<T>(sum + i) + term);
        }
        if (pair % 16 < 15 && pair + 1 < call.sharing) continue;
        for (int64_t i = 0; i < slots; i += kLanes<T>) {
            add_lanes(total + i, load<T>(sum + i));
            store<T>(sum + i, Vec<T>{});
        }
    }
    for (int64_t i = 0; i < count; i += kLanes<T>) {
        T values[kLanes<T>];
        for (int lane = 0; lane < kLanes<T>; ++lane) values[lane] = T(total[i + lane]);
        grad.put_some(i, count - i, load<T>(values));
    }
}

template <class T>
void run_shared_gradient(const PairedCall& call, int64_t task, void* scratch, PairedPartial*) {
    const SharedCut c = shared_cut(call);
    const int64_t row = task / c.stretches, begin = task % c.stretches * c.stretch;
    with_source<T>(call, [&](auto element) {
        shared_gradient<T, decltype(element)>(call, row, begin,
                                              smaller(call.length, begin + c.stretch), scratch);
    });
}

}  // namespace
