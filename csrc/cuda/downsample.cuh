// SPDX-License-Identifier: Apache-2.0
//
// Means over boxes, the step between the scales of MS-SSIM, and the adjoint. A thread has a result:
// a box, or a pixel that collects what its copies in the padding received. Bytes are the floor: 5
// for each float32 pixel of an image that is halved along two axes.
#pragma once
#include "ssim-call.cuh"

namespace sosie {

// output[o] = mean of padded[factor * o .. factor * (o + 1)) per axis.
struct Downsample {
    long long shape[5];  // of the full-size array
    long long reduced_shape[5];
    Strided full, reduced;  // forward reads `full`; backward reads `reduced`, a gradient
    long long padding[3];   // before depth, height, width
    long long padded[3];    // sizes after padding
    int factors[3];
    int border;
};

constexpr int kDownsampleLanes = 32, kDownsampleRows = 8, kDownsampleColumns = 128;

// Which row of an array a thread has, and of which columns. There may be more than 2^31 rows, but
// not of a plane, and not as many planes.
struct RowPlace {
    int n, c, d, h, column, end;
    bool exists;
};

__device__ __forceinline__ RowPlace row_place(const long long* shape, unsigned block) {
    const int width = int(shape[4]);
    const int across = int(divide_up(width, kDownsampleColumns));
    const long long row = (long long)(int(block) / across) * kDownsampleRows + int(threadIdx.y);
    RowPlace place;
    place.exists = row < shape[0] * shape[1] * shape[2] * shape[3];
    place.column = int(block) % across * kDownsampleColumns;
    place.end =
        width - place.column < kDownsampleColumns ? width : place.column + kDownsampleColumns;
    place.column += int(threadIdx.x);
    long long plane, in_plane, index;
    divide(plane, in_plane, row, shape[2] * shape[3]);
    divide(index, in_plane, in_plane, shape[3]);
    place.d = int(index);
    place.h = int(in_plane);
    divide(index, plane, plane, shape[1]);
    place.n = int(index);
    place.c = int(plane);
    return place;
}

template <class T>
__global__ void __launch_bounds__(kDownsampleLanes* kDownsampleRows, 4)
    downsample_forward(const Downsample call) {
    const RowPlace at = row_place(call.reduced_shape, blockIdx.x);
    if (!at.exists) return;
    const T weight = T(1) / T(call.factors[0] * call.factors[1] * call.factors[2]);
    const auto source = [&](int axis, int box, int i) {
        return border_position(box * call.factors[axis] + i - int(call.padding[axis]),
                               int(call.shape[2 + axis]), call.border);
    };
#pragma unroll 1
    for (int column = at.column; column < at.end; column += kDownsampleLanes) {
        T sum = 0;
#pragma unroll 1
        for (int i = 0; i < call.factors[0]; ++i)
#pragma unroll 1
            for (int j = 0; j < call.factors[1]; ++j)
#pragma unroll 1
                for (int k = 0; k < call.factors[2]; ++k) {
                    const int d = source(0, at.d, i), h = source(1, at.h, j),
                              w = source(2, column, k);
                    if (d < 0 || h < 0 || w < 0) continue;
                    sum += load_any<T>(call.full.data, call.full.dtype,
                                       offset_of(call.full, at.n, at.c, d, h, w));
                }
        static_cast<T*>(
            call.reduced.data)[offset_of(call.reduced, at.n, at.c, at.d, at.h, column)] =
            sum * weight;
    }
}

// use(box) with the box of every place of the padded axis that shows pixel i.
template <class Use>
__device__ __forceinline__ void each_box(const Downsample& call, int axis, int i, Use use) {
    const int length = int(call.shape[2 + axis]), before = int(call.padding[axis]),
              padded = int(call.padded[axis]), factor = call.factors[axis],
              boxes = int(call.reduced_shape[2 + axis]);
    const auto visit = [&](int place) {
        if (place / factor < boxes) use(place / factor);
    };
    visit(i + before);
    if (call.border == kZero) return;
#pragma unroll 1
    for (int place = 0; place < before; ++place)
        if (border_position(place - before, length, call.border) == i) visit(place);
#pragma unroll 1
    for (int place = before + length; place < padded; ++place)
        if (border_position(place - before, length, call.border) == i) visit(place);
}

template <class T>
__global__ void __launch_bounds__(kDownsampleLanes* kDownsampleRows, 4)
    downsample_backward(const Downsample call) {
    const RowPlace at = row_place(call.shape, blockIdx.x);
    if (!at.exists) return;
    const T weight = T(1) / T(call.factors[0] * call.factors[1] * call.factors[2]);
#pragma unroll 1
    for (int column = at.column; column < at.end; column += kDownsampleLanes) {
        T sum = 0;
        each_box(call, 0, at.d, [&](int d) {
            each_box(call, 1, at.h, [&](int h) {
                each_box(call, 2, column, [&](int w) {
                    sum += load_any<T>(call.reduced.data, call.reduced.dtype,
                                       offset_of(call.reduced, at.n, at.c, d, h, w));
                });
            });
        });
        store_any<T>(call.full.data, call.full.dtype,
                     offset_of(call.full, at.n, at.c, at.d, at.h, column), sum * weight);
    }
}

}  // namespace sosie
