// SPDX-License-Identifier: Apache-2.0
//
// The gradient of structural similarity of images with a window of a size known at compile time;
// the values and the absolute difference come with it. No window may see a copy of a pixel beyond
// the border: zeros, or a crop.
//
// The walk of ssim.cuh, with a second stage behind the first: what the forward pass knows is made
// again. Down the columns, along the rows, the formula and its gradient at every position of the
// map: then the coefficients along the rows, and down the columns, where a thread has a column of
// pixels again and adds what they give to its pixel. A strip of 256 columns has 236 columns of
// results for 11 taps, and a tile begins 20 rows above its first.
#pragma once
#include "ssim.cuh"

namespace sosie {

// Where a strip's parts begin. Gradient column i of a strip gathers from map columns i .. i +
// history, map column j sees image columns j .. j + history.
struct Strip {
    int image_column, map_column;  // of the image and of the uncropped map
    int gradient_columns, map_columns;
    int map_low, map_high;  // columns that have a value
};

template <int kWindow>
__device__ __forceinline__ Strip strip_of(const SSIMCall<float>& call, const Tile& tile) {
    const Window<float>& along = call.windows[kWidth];
    Strip strip;
    strip.map_column = tile.column - (kWindow - 1 - along.origin);
    strip.image_column = strip.map_column - along.origin;
    strip.gradient_columns = smaller(call.tile_width, int(call.shape[4]) - tile.column);
    strip.map_columns = strip.gradient_columns + kWindow - 1;
    strip.map_low = along.crop_before;
    strip.map_high = int(call.shape[4]) - along.crop_after;
    return strip;
}

// Four coefficients' worth of planes at neighbouring positions of the map, from the moments at
// them. Returns the sum of those values that belong to the tile.
template <bool kBoth>
__device__ __forceinline__ float coefficients_of_four(const SSIMCall<float>& call, const Tile& tile,
                                                      const Strip& strip, int map_row,
                                                      bool row_owned, int column, float upstream,
                                                      const float (&m)[kMoments][4], float* rows,
                                                      int pitch) {
    using C = Coefficient<kBoth>;
    float sum = 0.0f, out[C::kPlanes][4];
#pragma unroll
    for (int o = 0; o < 4; ++o) {
        const int at = strip.map_column + column + o;
        const bool inside = at >= strip.map_low && at < strip.map_high;
        const Moments<float> moment = moments<float, false>(
            call, m[kSum][o], m[kDifference][o], m[kSumSquare][o], m[kDifferenceSquare][o], 1.0f);
        const Similarity<float> r = similarity(call, moment);
        float value = r.value, g = upstream;
        if (call.upstream_is_map && inside)
            g = load_any<float>(
                    call.upstream.data, call.upstream.dtype,
                    offset_of(call.upstream, tile.n, tile.c, 0,
                              map_row - call.windows[kHeight].crop_before, at - strip.map_low)) *
                float(call.upstream_factor);
        g *= call.scale;  // a gradient of the images, not of what the scale made of them
        if (call.clamp_value) {
            value = clamped(call, value);
            g = value == r.value ? g : 0.0f;
        }
        const PositionGradient<float> p = position_gradient<float, false>(call, moment, r, g);
        out[C::kMean][o] = inside ? kBoth ? p.mean_s : p.mean_s + p.mean_d : 0.0f;
        if constexpr (kBoth) out[C::kMeanDifference][o] = inside ? p.mean_d : 0.0f;
        out[C::kSquareSum][o] = inside ? p.square_s : 0.0f;
        out[C::kSquareDifference][o] = inside ? p.square_d : 0.0f;
        const bool owned = at >= tile.column && at < tile.column + strip.gradient_columns;
        sum += inside && owned && row_owned ? value : 0.0f;
    }
#pragma unroll
    for (int plane = 0; plane < C::kPlanes; ++plane)
        *reinterpret_cast<float4*>(rows + plane * pitch + column) =
            make_float4(out[plane][0], out[plane][1], out[plane][2], out[plane][3]);
    return sum;
}

// What a thread's column needs of the second stage: its pixels and where their gradients go.
template <class S, int kWindow, bool kBoth>
struct GradientColumn {
    typedef typename Compute<S>::gradient G;
    float history[Coefficient<kBoth>::kPlanes][kWindow - 1 + kRows];
    ImageColumn<S> image;
    G *x, *y;
    long long x_stride, y_stride;
};

// The adjoint down a thread's column, from shared rows (kRows, kMoments, pitch); rows first_row ..
// first_row + kRows of the gradient, of which those in [begin, end) are stored. Returns the sum of
// |x - y| over them.
template <class S, int kWindow, bool kBoth>
__device__ __forceinline__ float gradient_rows(const SSIMCall<float>& call,
                                               GradientColumn<S, kWindow, kBoth>& column,
                                               const float* rows, int pitch, int first_row,
                                               int begin, int end, float l1_weight) {
    using C = Coefficient<kBoth>;
    typedef typename Compute<S>::gradient G;
    constexpr int kHistory = kWindow - 1;
    float filtered[C::kPlanes][kRows];
#pragma unroll
    for (int plane = 0; plane < C::kPlanes; ++plane) {
#pragma unroll
        for (int r = 0; r < kRows; ++r)
            column.history[plane][kHistory + r] = rows[(r * kMoments + plane) * pitch];
        filter_down<kWindow, true>(call.windows[kHeight].taps, column.history[plane],
                                   filtered[plane]);
        move_on<kHistory>(column.history[plane]);
    }
    float l1 = 0.0f;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
        const int row = first_row + r;
        if (row < begin || row >= end) continue;
        float s, d, at[C::kPlanes];
        read_pixel(call, column.image, row, end, s, d);
#pragma unroll
        for (int plane = 0; plane < C::kPlanes; ++plane) at[plane] = filtered[plane][r];
        const PixelGradient<float> g = combine<float, kBoth>(at, s, d, l1_weight);
        column.x[row * column.x_stride] = from_compute<G>(g.x);
        if constexpr (kBoth) column.y[row * column.y_stride] = from_compute<G>(g.y);
        l1 += fabsf(d);
    }
    return l1;
}

// Two blocks to a multiprocessor leave each thread the registers that its two windows of rows need.
template <class S, int kWindow, bool kBoth>
__global__ void __launch_bounds__(kBoth ? 128 : 192, 2) ssim_backward(const SSIMCall<float> call) {
    using C = Coefficient<kBoth>;
    typedef typename Compute<S>::gradient G;
    constexpr int kHistory = kWindow - 1;
    const Tile tile = tile_of(call, 1);
    const Window<float>&down = call.windows[kHeight], &along = call.windows[kWidth];
    const Strip strip = strip_of<kWindow>(call, tile);
    const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32,
              warps = int(blockDim.x) / 32, pitch = row_pitch(int(blockDim.x));
    // Filtered images, then filtered coefficients; and the coefficients.
    float* rows = dynamic_shared_memory<float>();
    float* coefficient_rows = rows + kRows * kMoments * pitch;

    const int begin = tile.row, end = smaller(tile.row + call.tile_height, int(call.shape[3]));
    const int map_begin = begin - (kHistory - down.origin), map_end = end + down.origin;
    const int map_low = down.crop_before, map_high = int(call.shape[3]) - down.crop_after;
    const int image_end = map_end + kHistory - down.origin;
    const ImageColumn<S> image = image_column<S>(call, tile, strip.image_column + thread,
                                                 thread < strip.map_columns + kHistory);
    const float upstream = call.upstream_is_map ? 0.0f : plane_upstream(call, tile);
    const float l1 = l1_weight(call, tile);

    const bool has_pixels = thread < strip.gradient_columns;
    const int pixel_column = has_pixels ? tile.column + thread : tile.column;
    GradientColumn<S, kWindow, kBoth> gradient;
    gradient.image = image_column<S>(call, tile, pixel_column, has_pixels);
    gradient.x = static_cast<G*>(call.grad_x.data) +
                 offset_of(call.grad_x, tile.n, tile.c, 0, 0, pixel_column);
    gradient.x_stride = call.grad_x.strides[3];
    if constexpr (kBoth) {
        gradient.y = static_cast<G*>(call.grad_y.data) +
                     offset_of(call.grad_y, tile.n, tile.c, 0, 0, pixel_column);
        gradient.y_stride = call.grad_y.strides[3];
    }

    float s[kHistory + kRows], d[kHistory + kRows];
#pragma unroll
    for (int i = 0; i < kHistory; ++i) {
        read_pixel(call, image, map_begin - down.origin + i, image_end, s[i], d[i]);
#pragma unroll
        for (int plane = 0; plane < C::kPlanes; ++plane) gradient.history[plane][i] = 0.0f;
    }
    double sums[kSums] = {0.0, 0.0, 0.0, 0.0};
#pragma unroll 1
    for (int row = map_begin; row < map_end; row += kRows) {
#pragma unroll
        for (int i = 0; i < kRows; ++i)
            read_pixel(call, image, row - down.origin + kHistory + i, image_end, s[kHistory + i],
                       d[kHistory + i]);
        filter_column<kWindow>(down.taps, s, d, rows, pitch);
        move_on<kHistory>(s);
        move_on<kHistory>(d);
        __syncthreads();
#pragma unroll 1
        for (int r = warp; r < kRows; r += warps) {
            const int map_row = row + r;
            const bool has_values = map_row >= map_low && map_row < map_high;
#pragma unroll 1
            for (int column = lane * 4; column < strip.map_columns; column += 128) {
                float* out = coefficient_rows + r * C::kPlanes * pitch;
                if (!has_values) {
#pragma unroll
                    for (int plane = 0; plane < C::kPlanes; ++plane)
                        *reinterpret_cast<float4*>(out + plane * pitch + column) =
                            make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                    continue;
                }
                float m[kMoments][4];
#pragma unroll
                for (int plane = 0; plane < kMoments; ++plane)
                    filter_along<kWindow, false>(
                        along.taps, rows + (r * kMoments + plane) * pitch + column, m[plane]);
                sums[kValue] += double(coefficients_of_four<kBoth>(
                    call, tile, strip, map_row, map_row >= begin && map_row < end, column, upstream,
                    m, out, pitch));
            }
        }
        __syncthreads();
        // The coefficients along the rows, to where the filtered images were.
#pragma unroll 1
        for (int r = warp; r < kRows; r += warps)
#pragma unroll 1
            for (int column = lane * 4; column < strip.gradient_columns; column += 128)
#pragma unroll
                for (int plane = 0; plane < C::kPlanes; ++plane) {
                    float out[4];
                    filter_along<kWindow, true>(
                        along.taps, coefficient_rows + (r * C::kPlanes + plane) * pitch + column,
                        out);
                    *reinterpret_cast<float4*>(rows + (r * kMoments + plane) * pitch + column) =
                        make_float4(out[0], out[1], out[2], out[3]);
                }
        __syncthreads();
        sums[kL1] += double(gradient_rows<S, kWindow, kBoth>(call, gradient, rows + thread, pitch,
                                                             row - down.origin, begin,
                                                             has_pixels ? end : begin, l1));
        // What comes next to these places is of the same thread's column.
    }
    sums[kL1] /= double(call.scale);
    if (add_tiles(call, tile, call.tiles_down * call.tiles_across, sums))
        store_means(call, tile, sums, true, true);
}

}  // namespace sosie
