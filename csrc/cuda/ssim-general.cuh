// SPDX-License-Identifier: Apache-2.0
//
// Structural similarity with any window, border, stride and mask, of images and volumes, in float
// or double; and its gradient in two launches: the coefficients of the map, then what they give
// each pixel.
//
// A block has a tile of results of one slice. It reads what its windows see, filters across slices
// while it reads, then along rows, then down columns, from one piece of shared memory into another.
// A thread makes four neighbouring results at once, which share what it loads. The formula is in
// ssim-formula.cuh.
#pragma once
#include "ssim-formula.cuh"
#include "ssim-sums.cuh"

namespace sosie {

// Four results `step` inputs apart: out[o] += sum over k of taps(o, k) * in[(o * step + k) *
// stride]. Only what a window covers is multiplied, so that NaN stays with those who see it; of
// results beyond `count` nothing is read that no other one sees.
template <class T, class Taps>
__device__ __forceinline__ void filter_four(const T* in, int stride, int size, int step, int count,
                                            Taps taps, T (&out)[4]) {
    const int seen = size + (smaller(count, 4) - 1) * step;
#pragma unroll
    for (int o = 0; o < 4; ++o) out[o] = T(0);
#pragma unroll 1
    for (int i = 0; i < seen; ++i) {
        const T value = in[i * stride];
#pragma unroll
        for (int o = 0; o < 4; ++o) {
            const int k = i - o * step;
            if (k >= 0 && k < size) out[o] += taps(o, k) * value;
        }
    }
}

// The pieces of shared memory. Pitches are odd: neighbouring lanes go down neighbouring rows when
// they filter along them.
template <class T>
struct TileMemory {
    T *seen, *filtered;  // (planes, rows, pitch): read, and filtered along the rows
    int rows, columns;   // of what is seen
    int seen_pitch, filtered_pitch;

    __device__ TileMemory(T* memory, int planes, int rows_, int columns_, int width)
        : seen(memory), rows(rows_), columns(columns_) {
        seen_pitch = columns | 1;
        filtered_pitch = (width + 3) | 1;  // results come in fours
        filtered = seen + planes * rows * seen_pitch;
    }
    __device__ T* seen_row(int plane, int row) const {
        return seen + (plane * rows + row) * seen_pitch;
    }
    __device__ T* filtered_row(int plane, int row) const {
        return filtered + (plane * rows + row) * filtered_pitch;
    }
};

// read(row, column) for all of a tile's rows and columns; a warp has a row.
template <class Read>
__device__ __forceinline__ void each_seen(int rows, int columns, Read read) {
    const int thread = int(threadIdx.x), warps = int(blockDim.x) / 32;
#pragma unroll 1
    for (int row = thread / 32; row < rows; row += warps)
#pragma unroll 1
        for (int column = thread % 32; column < columns; column += 32) read(row, column);
}

// `rows` rows of a tile's planes filtered, `width` results each. `taps(column, k)`.
template <class T, class Taps>
__device__ __forceinline__ void filter_rows(const TileMemory<T>& memory, int planes, int rows,
                                            int width, int size, int step, Taps taps) {
    const int items = (width + 3) / 4 * rows;
    for (int item = int(threadIdx.x); item < items; item += int(blockDim.x)) {
        const int row = item % rows, column = item / rows * 4;
        for (int plane = 0; plane < planes; ++plane) {
            T out[4];
            filter_four(
                memory.seen_row(plane, row) + column * step, 1, size, step, width - column,
                [&](int o, int k) { return taps(column + o, k); }, out);
            for (int o = 0; o < 4; ++o) memory.filtered_row(plane, row)[column + o] = out[o];
        }
    }
}

// ---------------------------------------------------------------------------------------- forward

// s, d and their squares, and the mask, of a pixel; filtered across the slices that a window sees.
template <class T, bool kMasked>
struct SeenPixel {
    T planes[kMoments + kMasked];
};

template <class T, bool kMasked>
__device__ __forceinline__ SeenPixel<T, kMasked> seen_pixel(const SSIMCall<T>& call,
                                                            const Tile& tile, int depth, int row,
                                                            int column) {
    const Window<T>& across = call.windows[kDepth];
    SeenPixel<T, kMasked> result = {};
    row = border_position(row, int(call.shape[3]), call.border);
    column = border_position(column, int(call.shape[4]), call.border);
#pragma unroll 1
    for (int k = 0; k < across.size; ++k) {
        const int slice = border_position(depth + k, int(call.shape[2]), call.border);
        const bool inside = slice >= 0 && row >= 0 && column >= 0;
        bool valid = true;
        if constexpr (kMasked)
            valid =
                inside &&
                static_cast<const unsigned char*>(
                    call.mask.data)[offset_of(call.mask, tile.n, tile.c, slice, row, column)] != 0;
        T x = 0, y = 0;
        if (inside && valid) {
            x = load_any<T>(call.x.data, call.x.dtype,
                            offset_of(call.x, tile.n, tile.c, slice, row, column));
            y = load_any<T>(call.y.data, call.y.dtype,
                            offset_of(call.y, tile.n, tile.c, slice, row, column));
        }
        if (kMasked && !valid) continue;
        const T s = (x + y) * call.scale - call.twice_center, d = (x - y) * call.scale;
        const T tap = across.taps[k];
        result.planes[kSum] += tap * s;
        result.planes[kDifference] += tap * d;
        result.planes[kSumSquare] += tap * (s * s);
        result.planes[kDifferenceSquare] += tap * (d * d);
        if constexpr (kMasked) result.planes[kWeight] += tap;
    }
    return result;
}

// Values, the map and the coefficients at a position. What a window cannot see has value 0.
template <class T, bool kMasked>
__device__ __forceinline__ T evaluate(const SSIMCall<T>& call, const Tile& tile, int d, int h,
                                      int w, bool centre, const T (&m)[kMoments + kMasked]) {
    T weight = T(1);
    if constexpr (kMasked) weight = m[kWeight];
    const Moments<T> moment = moments<T, kMasked>(call, m[kSum], m[kDifference], m[kSumSquare],
                                                  m[kDifferenceSquare], weight);
    const Similarity<T> r = similarity(call, moment);
    const bool some = !kMasked || moment.inverse_weight > T(0);
    T value = r.value;
    if (call.clamp_value) value = clamped(call, value);
    const bool clips = call.clamp_value && value != r.value;
    if (!some) value = T(0);
    if (call.map.data)
        static_cast<T*>(call.map.data)[offset_of(call.map, tile.n, tile.c, d, h, w)] = value;
    if (call.coefficients) {
        const Strided& u = call.upstream;
        const bool counts = some && !clips && (call.upstream_is_map || centre);
        T g = 0;
        if (counts && call.upstream_is_map)
            g = load_any<T>(u.data, u.dtype, offset_of(u, tile.n, tile.c, d, h, w)) *
                T(call.upstream_factor);
        else if (counts)
            g = plane_upstream(call, tile);
        const PositionGradient<T> p =
            position_gradient<T, kMasked>(call, moment, r, g * call.scale);
        const long long rows = map_length(call, kHeight), columns = map_length(call, kWidth),
                        positions = map_length(call, kDepth) * rows * columns;
        const int planes = call.both ? 4 : 3;
        T* out = call.coefficients + (long long)tile.plane * planes * positions +
                 (d * rows + h) * columns + w;
        out[0] = counts ? call.both ? p.mean_s : p.mean_s + p.mean_d : T(0);
        if (call.both) out[positions] = counts ? p.mean_d : T(0);
        out[(planes - 2) * positions] = counts ? p.square_s : T(0);
        out[(planes - 1) * positions] = counts ? p.square_d : T(0);
    }
    return value;
}

template <class T, bool kMasked>
__global__ void __launch_bounds__(kMostThreads, 2) ssim_general_forward(const SSIMCall<T> call) {
    constexpr int kPlanes = kMoments + kMasked;
    const Window<T>&across = call.windows[kDepth], &down = call.windows[kHeight],
          &along = call.windows[kWidth];
    const Tile tile = tile_of(call, map_length(call, kDepth));
    const int width = smaller(call.tile_width, map_length(call, kWidth) - tile.column);
    const int height = smaller(call.tile_height, map_length(call, kHeight) - tile.row);
    const int step = call.stride;
    const TileMemory<T> memory(dynamic_shared_memory<T>(), kPlanes,
                               (call.tile_height - 1) * step + down.size,
                               (call.tile_width - 1) * step + along.size, call.tile_width);
    const int depth = tile.depth * step + across.crop_before;
    const int top = tile.row * step + down.crop_before,
              left = tile.column * step + along.crop_before;
    const int seen_rows = (height - 1) * step + down.size;
    each_seen(seen_rows, (width - 1) * step + along.size, [&](int row, int column) {
        const SeenPixel<T, kMasked> pixel =
            seen_pixel<T, kMasked>(call, tile, depth - across.origin, top - down.origin + row,
                                   left - along.origin + column);
        for (int plane = 0; plane < kPlanes; ++plane)
            memory.seen_row(plane, row)[column] = pixel.planes[plane];
    });
    __syncthreads();
    filter_rows(memory, kPlanes, seen_rows, width, along.size, step,
                [&](int, int k) { return along.taps[k]; });
    __syncthreads();

    double sums[kSums] = {0.0, 0.0, 0.0, 0.0};
    const int items = (height + 3) / 4 * width;
    for (int item = int(threadIdx.x); item < items; item += int(blockDim.x)) {
        const int column = item % width, first = item / width * 4;
        T m[kPlanes][4];
        for (int plane = 0; plane < kPlanes; ++plane)
            filter_four(
                memory.filtered_row(plane, first * step) + column, memory.filtered_pitch, down.size,
                step, height - first, [&](int, int k) { return down.taps[k]; }, m[plane]);
#pragma unroll
        for (int o = 0; o < 4; ++o) {
            const int row = first + o;
            if (row >= height) continue;
            bool centre = true;
            if constexpr (kMasked)
                centre =
                    static_cast<const unsigned char*>(
                        call.mask.data)[offset_of(call.mask, tile.n, tile.c, depth,
                                                  top + row * step, left + column * step)] != 0;
            T at[kPlanes];
#pragma unroll
            for (int plane = 0; plane < kPlanes; ++plane) at[plane] = m[plane][o];
            const T value = evaluate<T, kMasked>(call, tile, tile.depth, tile.row + row,
                                                 tile.column + column, centre, at);
            if (centre) sums[kValue] += double(value);
        }
    }
    if (add_tiles(call, tile, map_length(call, kDepth) * call.tiles_down * call.tiles_across, sums))
        store_means(call, tile, sums, true, false);
}

// --------------------------------------------------------------------------------------- gradient

// What the map's value at position q - after + k weighs pixel q of an axis by, for every place of
// the padded axis that shows the pixel.
template <class T>
__device__ __forceinline__ T adjoint_tap(const Window<T>& w, int border, int length, int q, int k) {
    const int after = w.size - 1 - w.origin;
    const auto tap = [&](int place) {
        const int i = place - (q - after + k) + w.origin;
        return i >= 0 && i < w.size ? w.taps[i] : T(0);
    };
    T sum = tap(q);
    if (border == kZero || (q > w.origin && q < length - 1 - after)) return sum;
    for (int i = 1; i <= w.origin; ++i)
        if (border_position(-i, length, border) == q) sum += tap(-i);
    for (int i = length; i < length + after; ++i)
        if (border_position(i, length, border) == q) sum += tap(i);
    return sum;
}

// The index in the map of a position of an axis; -1: there is none.
template <class T>
__device__ __forceinline__ int map_index(const SSIMCall<T>& call, int axis, int position) {
    const Window<T>& w = call.windows[axis];
    const int i = position - w.crop_before;
    return i >= 0 && position < int(call.shape[2 + axis]) - w.crop_after && i % call.stride == 0
               ? i / call.stride
               : -1;
}

template <class T, bool kBoth>
__global__ void __launch_bounds__(kMostThreads, 2) ssim_general_gradient(const SSIMCall<T> call) {
    using C = Coefficient<kBoth>;
    const Window<T>&across = call.windows[kDepth], &down = call.windows[kHeight],
          &along = call.windows[kWidth];
    const Tile tile = tile_of(call, int(call.shape[2]));
    const int width = smaller(call.tile_width, int(call.shape[4]) - tile.column);
    const int height = smaller(call.tile_height, int(call.shape[3]) - tile.row);
    const TileMemory<T> memory(dynamic_shared_memory<T>(), C::kPlanes,
                               call.tile_height + down.size - 1, call.tile_width + along.size - 1,
                               call.tile_width);
    // Each pixel's taps, for rows and columns in fours.
    T* taps_along = memory.filtered_row(C::kPlanes, 0);
    T* taps_down = taps_along + (call.tile_width + 3) * along.size;
    T* taps_across = taps_down + (call.tile_height + 3) * down.size;
    const auto make_taps = [&](int axis, int first, int count, T* taps) {
        const int size = call.windows[axis].size, length = int(call.shape[2 + axis]);
        for (int i = int(threadIdx.x); i < count * size; i += int(blockDim.x))
            taps[i] =
                adjoint_tap(call.windows[axis], call.border, length, first + i / size, i % size);
    };
    make_taps(kWidth, tile.column, (width + 3) / 4 * 4, taps_along);
    make_taps(kHeight, tile.row, (height + 3) / 4 * 4, taps_down);
    make_taps(kDepth, tile.depth, 1, taps_across);
    __syncthreads();

    const int after[3] = {across.size - 1 - across.origin, down.size - 1 - down.origin,
                          along.size - 1 - along.origin};
    const long long rows = map_length(call, kHeight), columns = map_length(call, kWidth),
                    positions = map_length(call, kDepth) * rows * columns;
    const T* coefficients = call.coefficients + (long long)tile.plane * C::kPlanes * positions;
    each_seen(height + down.size - 1, width + along.size - 1, [&](int row, int column) {
        T sums[C::kPlanes] = {};
        const int h = map_index(call, kHeight, tile.row - after[kHeight] + row);
        const int w = map_index(call, kWidth, tile.column - after[kWidth] + column);
        for (int k = 0; k < across.size && h >= 0 && w >= 0; ++k) {
            const int d = map_index(call, kDepth, tile.depth - after[kDepth] + k);
            if (d < 0) continue;
            const T* at = coefficients + (d * rows + h) * columns + w;
            for (int plane = 0; plane < C::kPlanes; ++plane)
                sums[plane] += taps_across[k] * at[plane * positions];
        }
        for (int plane = 0; plane < C::kPlanes; ++plane)
            memory.seen_row(plane, row)[column] = sums[plane];
    });
    __syncthreads();
    filter_rows(memory, C::kPlanes, height + down.size - 1, width, along.size, 1,
                [&](int column, int k) { return taps_along[column * along.size + k]; });
    __syncthreads();

    double sums[kSums] = {0.0, 0.0, 0.0, 0.0};
    const T weight = l1_weight(call, tile);
    const int items = (height + 3) / 4 * width;
    for (int item = int(threadIdx.x); item < items; item += int(blockDim.x)) {
        const int column = item % width, first = item / width * 4;
        T filtered[C::kPlanes][4];
        for (int plane = 0; plane < C::kPlanes; ++plane)
            filter_four(
                memory.filtered_row(plane, first) + column, memory.filtered_pitch, down.size, 1,
                height - first,
                [&](int o, int k) { return taps_down[(first + o) * down.size + k]; },
                filtered[plane]);
#pragma unroll
        for (int o = 0; o < 4; ++o) {
            if (first + o >= height) continue;
            const int h = tile.row + first + o, w = tile.column + column;
            const bool valid =
                !call.mask.data ||
                static_cast<const unsigned char*>(
                    call.mask.data)[offset_of(call.mask, tile.n, tile.c, tile.depth, h, w)] != 0;
            PixelGradient<T> g = {T(0), T(0)};
            if (valid) {
                const T x = load_any<T>(call.x.data, call.x.dtype,
                                        offset_of(call.x, tile.n, tile.c, tile.depth, h, w));
                const T y = load_any<T>(call.y.data, call.y.dtype,
                                        offset_of(call.y, tile.n, tile.c, tile.depth, h, w));
                const T s = (x + y) * call.scale - call.twice_center, d = (x - y) * call.scale;
                T at[C::kPlanes];
#pragma unroll
                for (int plane = 0; plane < C::kPlanes; ++plane) at[plane] = filtered[plane][o];
                g = combine<T, kBoth>(at, s, d, weight);
                sums[kL1] += double(d < T(0) ? -d : d);
            }
            store_any<T>(call.grad_x.data, call.grad_x.dtype,
                         offset_of(call.grad_x, tile.n, tile.c, tile.depth, h, w), g.x);
            if constexpr (kBoth)
                store_any<T>(call.grad_y.data, call.grad_y.dtype,
                             offset_of(call.grad_y, tile.n, tile.c, tile.depth, h, w), g.y);
        }
    }
    sums[kL1] /= double(call.scale);
    if (add_tiles(call, tile, int(call.shape[2]) * call.tiles_down * call.tiles_across, sums))
        store_means(call, tile, sums, false, true);
}

// ------------------------------------------------------------------------------------------ counts

// Valid centres and valid pixels of each plane, to `counts`. A tile has tile_height rows of a
// plane, counted through its slices.
template <class T>
__global__ void __launch_bounds__(kMostThreads, 2) ssim_count(const SSIMCall<T> call) {
    const Tile tile = tile_of(call, 1);
    const int height = int(call.shape[3]), rows = int(call.shape[2]) * height;
    const int count = smaller(call.tile_height, rows - tile.row);
    int centres = 0, pixels = 0;
    each_seen(count, int(call.shape[4]), [&](int row, int w) {
        const int d = (tile.row + row) / height, h = (tile.row + row) % height;
        if (!static_cast<const unsigned char*>(
                call.mask.data)[offset_of(call.mask, tile.n, tile.c, d, h, w)])
            return;
        pixels += 1;
        centres += map_index(call, kDepth, d) >= 0 && map_index(call, kHeight, h) >= 0 &&
                   map_index(call, kWidth, w) >= 0;
    });
    double sums[kSums] = {0.0, double(centres), 0.0, double(pixels)};
    if (!add_tiles(call, tile, call.tiles_down, sums) || threadIdx.x != 0) return;
    double* counts = const_cast<double*>(call.counts) + 2 * tile.plane;
    counts[0] = sums[kCount];
    counts[1] = sums[kPixels];
}

}  // namespace sosie
