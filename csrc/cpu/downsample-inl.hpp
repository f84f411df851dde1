// SPDX-License-Identifier: Apache-2.0
//
// Means over boxes, the step between the scales of MS-SSIM, and the adjoint.
//
// One task is one row of the result. Forward: factor (x factor) input rows are added up, then
// neighbours along the row. Backward: a gradient pixel collects what its copies in the padding
// received, first over rows, then over columns.
#pragma once
#include "arena-inl.hpp"
#include "rows-inl.hpp"
#include "ssim-call.hpp"

namespace {

using sosie::Downsample;
using sosie::SSIMPartial;

inline int64_t rows_of(const int64_t* shape) {
    return shape[0] * shape[1] * shape[2] * shape[3];
}

struct RowIndex {
    int64_t n, c, d, h;
};
inline RowIndex row_index(const int64_t* shape, int64_t row) {
    const int64_t h = row % shape[3], d = row / shape[3] % shape[2];
    const int64_t plane = row / (shape[3] * shape[2]);
    return {plane / shape[1], plane % shape[1], d, h};
}

template <class T>
int64_t downsample_forward_tasks(const Downsample& call) {
    return rows_of(call.output_shape);
}
template <class T>
int64_t downsample_backward_tasks(const Downsample& call) {
    return rows_of(call.shape);
}
template <class T>
size_t downsample_scratch(const Downsample& call) {
    Arena arena(nullptr);
    arena.take<T>(call.padded[2]);
    arena.take<T>(call.padded[2]);
    return arena.used();
}

template <class T>
void run_downsample(const Downsample& call, int64_t task, void* scratch, SSIMPartial*) {
    Arena arena(scratch);
    T *row = arena.take<T>(call.padded[2]), *sum = arena.take<T>(call.padded[2]);
    const RowIndex at = row_index(call.output_shape, task);
    const int64_t width = call.padded[2], out_width = call.output_shape[4];
    __builtin_memset(sum, 0, size_t(width) * sizeof(T));
    for (int64_t i = 0; i < call.factors[0]; ++i)
        for (int64_t j = 0; j < call.factors[1]; ++j) {
            const T* values = load_row<T>(call.full, call.shape, call.border, at.n, at.c,
                                          at.d * call.factors[0] + i - call.padding[0],
                                          at.h * call.factors[1] + j - call.padding[1],
                                          -call.padding[2], width - call.padding[2], width, row);
            for (int64_t k = 0; k < width; ++k) sum[k] += values[k];
        }
    const int64_t factor = call.factors[2];
    const T weight = T(1) / T(factor * call.factors[0] * call.factors[1]);
    if (factor == 2) {
        for (int64_t o = 0; o < out_width; ++o) row[o] = (sum[2 * o] + sum[2 * o + 1]) * weight;
    } else {
        for (int64_t o = 0; o < out_width; ++o) {
            T total = 0;
            for (int64_t k = 0; k < factor; ++k) total += sum[o * factor + k];
            row[o] = total * weight;
        }
    }
    store_row<T>(call.reduced, at.n, at.c, at.d, at.h, 0, out_width, 1, row);
}

// Calls use(o) with the box of every place in the padded axis that shows position i of the image.
template <class Use>
inline void each_box(int64_t i, int64_t length, int64_t before, int64_t padded, int64_t factor,
                     int64_t boxes, Border border, Use use) {
    const auto visit = [&](int64_t place) {
        if (place / factor < boxes) use(place / factor);
    };
    visit(i + before);
    for (int64_t place = 0; place < before; ++place)
        if (border_position(place - before, length, border) == i) visit(place);
    for (int64_t place = before + length; place < padded; ++place)
        if (border_position(place - before, length, border) == i) visit(place);
}

template <class T>
void run_downsample_backward(const Downsample& call, int64_t task, void* scratch, SSIMPartial*) {
    Arena arena(scratch);
    T *row = arena.take<T>(call.padded[2]), *sum = arena.take<T>(call.padded[2]);
    const RowIndex at = row_index(call.shape, task);
    const int64_t boxes = call.output_shape[4], width = call.shape[4];
    __builtin_memset(sum, 0, size_t(boxes) * sizeof(T));
    each_box(at.d, call.shape[2], call.padding[0], call.padded[0], call.factors[0],
             call.output_shape[2], call.border, [&](int64_t d) {
                 each_box(at.h, call.shape[3], call.padding[1], call.padded[1], call.factors[1],
                          call.output_shape[3], call.border, [&](int64_t h) {
                              const T* values =
                                  load_row<T>(call.reduced, call.output_shape, Border::zero, at.n,
                                              at.c, d, h, 0, boxes, boxes, row);
                              for (int64_t k = 0; k < boxes; ++k) sum[k] += values[k];
                          });
             });
    const int64_t factor = call.factors[2], before = call.padding[2];
    const T weight = T(1) / T(factor * call.factors[0] * call.factors[1]);
    const auto box = [&](int64_t place) {
        return place / factor < boxes ? sum[place / factor] * weight : T(0);
    };
    for (int64_t i = 0; i < width; ++i) row[i] = box(i + before);
    const auto copy_back = [&](int64_t place) {
        const int64_t i = border_position(place - before, width, call.border);
        if (i >= 0) row[i] += box(place);
    };
    for (int64_t place = 0; place < before; ++place) copy_back(place);
    for (int64_t place = before + width; place < call.padded[2]; ++place) copy_back(place);
    store_row<T>(call.full, at.n, at.c, at.d, at.h, 0, width, 1, row);
}

}  // namespace
