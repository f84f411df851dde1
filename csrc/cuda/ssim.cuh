// SPDX-License-Identifier: Apache-2.0
//
// Structural similarity of images with a window of a size known at compile time: means and maps.
//
// A block walks a strip of columns downwards, kRows rows at a time. A thread has a column. It keeps
// the s and d of the window's rows in registers, filters the four planes down the column and puts
// the results into shared rows; then each warp has a row, a thread four neighbouring results, whose
// windows share what it loads. The images are read once, but for what windows reach beyond the
// strip; nothing but the map and sums is written. The formula is in ssim-formula.cuh.
//
// Per element of a strip of 256 columns and 11 taps: 88 multiply-adds, 16 operations to read and
// square, 35 for the formula, 20 words of shared memory, 4 + 4 stores and wide loads of it.
#pragma once
#include "ssim-formula.cuh"
#include "ssim-sums.cuh"

namespace sosie {

constexpr int kRows = 8;  // that are filtered between two barriers

// One column of the images, as the rows of a strip are read.
template <class S>
struct ImageColumn {
    const S *x, *y;  // the column's first rows
    long long x_stride, y_stride;
    int height, border;
    bool visible;  // else every pixel counts as 0
};

template <class S>
__device__ __forceinline__ ImageColumn<S> image_column(const SSIMCall<float>& call,
                                                       const Tile& tile, int column, bool needed) {
    const int source = border_position(column, int(call.shape[4]), call.border);
    ImageColumn<S> image;
    image.visible = needed && source >= 0;
    const int w = image.visible ? source : 0;
    image.x = static_cast<const S*>(call.x.data) + offset_of(call.x, tile.n, tile.c, 0, 0, w);
    image.y = static_cast<const S*>(call.y.data) + offset_of(call.y, tile.n, tile.c, 0, 0, w);
    image.x_stride = call.x.strides[3];
    image.y_stride = call.y.strides[3];
    image.height = int(call.shape[3]);
    image.border = call.border;
    return image;
}

// s and d at `row`, which may lie outside; rows from `end` on are of no interest.
template <class S>
__device__ __forceinline__ void read_pixel(const SSIMCall<float>& call, const ImageColumn<S>& image,
                                           int row, int end, float& s, float& d) {
    const int source = row < end ? border_position(row, image.height, image.border) : -1;
    float x = 0.0f, y = 0.0f;
    if (source >= 0 && image.visible) {
        x = to_compute(image.x[source * image.x_stride]);
        y = to_compute(image.y[source * image.y_stride]);
    }
    s = (x + y) * call.scale - call.twice_center;
    d = (x - y) * call.scale;
}

// Which tap is added in which turn: from the ends inwards, so that the large ones of a Gaussian do
// not take the last digits of the small ones.
template <int kWindow>
__device__ __forceinline__ constexpr int tap_in_turn(int turn) {
    return turn % 2 == 0 ? turn / 2 : kWindow - 1 - turn / 2;
}

// out[r] = sum over k of taps[k] * in[r + k], in registers. Reversed taps make the adjoint.
template <int kWindow, bool kReversed>
__device__ __forceinline__ void filter_down(const float* taps,
                                            const float (&in)[kWindow - 1 + kRows],
                                            float (&out)[kRows]) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        out[r] = 0.0f;
#pragma unroll
        for (int turn = 0; turn < kWindow; ++turn) {
            const int k = tap_in_turn<kWindow>(turn);
            out[r] += taps[kReversed ? kWindow - 1 - k : k] * in[r + k];
        }
    }
}

// The same for four neighbours along a shared row, `in` on a multiple of 16 bytes.
template <int kWindow, bool kReversed>
__device__ __forceinline__ void filter_along(const float* taps, const float* in, float (&out)[4]) {
    constexpr int kQuads = (kWindow + 3 + 3) / 4;
    float values[4 * kQuads];
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
        const float4 quad = reinterpret_cast<const float4*>(in)[q];
        values[4 * q] = quad.x;
        values[4 * q + 1] = quad.y;
        values[4 * q + 2] = quad.z;
        values[4 * q + 3] = quad.w;
    }
#pragma unroll
    for (int o = 0; o < 4; ++o) {
        out[o] = 0.0f;
#pragma unroll
        for (int turn = 0; turn < kWindow; ++turn) {
            const int k = tap_in_turn<kWindow>(turn);
            out[o] += taps[kReversed ? kWindow - 1 - k : k] * values[o + k];
        }
    }
}

// Floats between shared rows: quads that begin inside the strip may end 8 beyond it.
__device__ __forceinline__ int row_pitch(int width) {
    return width + 8;
}

// The four planes of a thread's column, filtered downwards into shared rows (kRows, kMoments,
// pitch).
template <int kWindow>
__device__ __forceinline__ void filter_column(const float* taps,
                                              const float (&s)[kWindow - 1 + kRows],
                                              const float (&d)[kWindow - 1 + kRows], float* rows,
                                              int pitch) {
    float out[kRows];
    const auto store = [&](int plane) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) rows[(r * kMoments + plane) * pitch + threadIdx.x] = out[r];
    };
    float squares[kWindow - 1 + kRows];
    const auto square = [&](const float (&values)[kWindow - 1 + kRows]) {
#pragma unroll
        for (int i = 0; i < kWindow - 1 + kRows; ++i) squares[i] = values[i] * values[i];
    };
    filter_down<kWindow, false>(taps, s, out);
    store(kSum);
    filter_down<kWindow, false>(taps, d, out);
    store(kDifference);
    square(s);
    filter_down<kWindow, false>(taps, squares, out);
    store(kSumSquare);
    square(d);
    filter_down<kWindow, false>(taps, squares, out);
    store(kDifferenceSquare);
}

// The last rows of the window become its first.
template <int kHistory>
__device__ __forceinline__ void move_on(float (&rows)[kHistory + kRows]) {
#pragma unroll
    for (int i = 0; i < kHistory; ++i) rows[i] = rows[i + kRows];
}

template <class S, int kWindow>
__global__ void __launch_bounds__(kMostThreads, 2) ssim_forward(const SSIMCall<float> call) {
    constexpr int kHistory = kWindow - 1;
    const Tile tile = tile_of(call, 1);
    const Window<float>&down = call.windows[kHeight], &along = call.windows[kWidth];
    const int row_end = smaller(tile.row + call.tile_height, map_length(call, kHeight));
    const int columns = smaller(call.tile_width, map_length(call, kWidth) - tile.column);
    const int pitch = row_pitch(int(blockDim.x));
    float* rows = dynamic_shared_memory<float>();

    const int thread = int(threadIdx.x), warps = int(blockDim.x) / 32;
    const int first_column = tile.column + along.crop_before - along.origin;
    const ImageColumn<S> image =
        image_column<S>(call, tile, first_column + thread, thread < columns + kHistory);
    const int top = down.crop_before - down.origin;  // image row of the first map row's window
    const int image_end = row_end + top + kHistory;
    float s[kHistory + kRows], d[kHistory + kRows];
#pragma unroll
    for (int i = 0; i < kHistory; ++i)
        read_pixel(call, image, tile.row + top + i, image_end, s[i], d[i]);

    double total = 0;
    for (int row = tile.row; row < row_end; row += kRows) {
#pragma unroll
        for (int i = 0; i < kRows; ++i)
            read_pixel(call, image, row + top + kHistory + i, image_end, s[kHistory + i],
                       d[kHistory + i]);
        filter_column<kWindow>(down.taps, s, d, rows, pitch);
        __syncthreads();
#pragma unroll 1
        for (int r = thread / 32; r < smaller(kRows, row_end - row); r += warps)
#pragma unroll 1
            for (int column = thread % 32 * 4; column < columns; column += 128) {
                float m[kMoments][4];
#pragma unroll
                for (int plane = 0; plane < kMoments; ++plane)
                    filter_along<kWindow, false>(
                        along.taps, rows + (r * kMoments + plane) * pitch + column, m[plane]);
                float sum = 0.0f;
#pragma unroll
                for (int o = 0; o < 4; ++o) {
                    const Moments<float> at =
                        moments<float, false>(call, m[kSum][o], m[kDifference][o], m[kSumSquare][o],
                                              m[kDifferenceSquare][o], 1.0f);
                    float value = similarity(call, at).value;
                    if (call.clamp_value) value = clamped(call, value);
                    if (column + o < columns) {
                        sum += value;
                        if (call.map.data)
                            static_cast<float*>(call.map.data)[offset_of(
                                call.map, tile.n, tile.c, 0, row + r, tile.column + column + o)] =
                                value;
                    }
                }
                total += double(sum);
            }
        __syncthreads();
        move_on<kHistory>(s);
        move_on<kHistory>(d);
    }
    double sums[kSums] = {total, 0.0, 0.0, 0.0};
    if (add_tiles(call, tile, call.tiles_down * call.tiles_across, sums))
        store_means(call, tile, sums, true, false);
}

}  // namespace sosie
