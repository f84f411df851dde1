// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of the SSIM family are called with, and what they share of reading images.
//
// One struct serves all kernels of images and volumes. It lies in the constant bank, from which a
// multiply-add takes an operand for nothing: taps need no registers and no template argument.
#pragma once
#include "common.cuh"

namespace sosie {

constexpr int kLargestWindow = 33;
constexpr int kDepth = 0, kHeight = 1, kWidth = 2;  // spatial axes; an image has depth 1

__device__ __forceinline__ int smaller(int a, int b) {
    return a < b ? a : b;
}
__device__ __forceinline__ int larger(int a, int b) {
    return a > b ? a : b;
}

enum SSIMBorder { kZero, kReflect, kSymmetric, kReplicate };
enum SSIMKind { kSimilarity, kContrastStructure };

// A borrowed array (batch, channels, depth, height, width). Strides count elements, may be negative
// and are 0 along broadcast axes.
struct Strided {
    void* data;  // nullptr: absent
    long long strides[5];
    int dtype;  // DTypeCode
};

// The window centred at position p of an axis covers [p - origin, p - origin + size). Positions
// [crop_before, length - crop_after) carry a value of the map, every `stride`-th of them is kept.
template <class T>
struct Window {
    T taps[kLargestWindow];
    int size, origin, crop_before, crop_after;
};

// Sums over one plane; those that a kernel does not make stay 0.
enum SSIMSum { kValue, kCount, kL1, kPixels, kSums };

template <class T>
struct SSIMCall {
    long long shape[5];
    Strided x, y;      // equal dtypes
    Strided mask;      // uint8, 0 or 1; may be absent
    Strided map;       // T; may be absent
    Strided upstream;  // dLoss/dmap, or a number per plane with spatial strides 0; may be absent: 1
    Strided grad_x, grad_y;
    double *values, *l1;       // (batch, channels): means of the map and of |x - y|; may be nullptr
    double* partials;          // (tiles of a plane, kSums) for every plane
    unsigned* tickets;         // (batch, channels), 0
    const double* counts;      // (batch, channels, 2) under a mask: valid centres, valid pixels
    T* coefficients;           // (batch, channels, 3 or 4, *map); of kernels that pass them on
    double positions, pixels;  // of a plane without a mask
    double upstream_factor;    // of upstream; under a mean it is divided by the count as well
    double l1_factor;          // adds l1_factor / pixels * sign(x - y) to dLoss/dx
    Window<T> windows[3];
    int border, kind, stride;
    int upstream_is_map, both;  // both: gradients for x and y
    int clamp_variance, clamp_value, unbalanced;
    int tile_width, tile_height;  // of the results of a block
    int tiles_across, tiles_down;
    T scale, twice_center, c1, c2, epsilon, covariance, deficit, excess, lowest, highest;
    T least_weight;  // of a window that holds a valid pixel, halved: rounding stays below it
};

// Where position i of an axis is read from; -1: outside, the value is 0. Windows reach at most one
// length beyond the axis, so that one reflection suffices.
__device__ __forceinline__ int border_position(int i, int length, int border) {
    if (unsigned(i) < unsigned(length)) return i;
    if (border == kZero) return -1;
    const int edge = border == kSymmetric ? 1 : 0, last = length - 1;
    if (border != kReplicate) i = i < 0 ? -i - edge : last - (i - last) + edge;
    return smaller(larger(i, 0), last);
}

__device__ __forceinline__ long long offset_of(const Strided& a, int n, int c, int d, int h,
                                               int w) {
    return n * a.strides[0] + c * a.strides[1] + d * a.strides[2] + h * a.strides[3] +
           w * a.strides[4];
}

// Which part of which plane a block computes. Blocks of one place in all channels follow each
// other: where channels are innermost in memory, they read the same lines.
struct Tile {
    int n, c, plane;
    int index;  // among the tiles of its plane
    int depth;  // the slice of it; 0 for images
    int row, column;
};

// `slices` slices of tiles_down * tiles_across tiles each.
template <class T>
__device__ __forceinline__ Tile tile_of(const SSIMCall<T>& call, int slices) {
    const int channels = int(call.shape[1]);
    const int tiles = slices * call.tiles_down * call.tiles_across;
    Tile tile;
    int rest = int(blockIdx.x);
    tile.c = rest % channels;
    rest /= channels;
    tile.index = rest % tiles;
    tile.n = rest / tiles;
    tile.plane = tile.n * channels + tile.c;
    rest = tile.index;
    tile.column = rest % call.tiles_across * call.tile_width;
    rest /= call.tiles_across;
    tile.row = rest % call.tiles_down * call.tile_height;
    tile.depth = rest / call.tiles_down;
    return tile;
}

template <class T>
__device__ __forceinline__ int map_length(const SSIMCall<T>& call, int axis) {
    const Window<T>& w = call.windows[axis];
    return (int(call.shape[2 + axis]) - w.crop_before - w.crop_after + call.stride - 1) /
           call.stride;
}

// dLoss/dmap of a plane whose values have one upstream gradient.
template <class T>
__device__ __forceinline__ T plane_upstream(const SSIMCall<T>& call, const Tile& tile) {
    const Strided& u = call.upstream;
    const double given =
        u.data ? load_any<double>(u.data, u.dtype, offset_of(u, tile.n, tile.c, 0, 0, 0)) : 1.0;
    const double count = call.counts ? call.counts[2 * tile.plane] : call.positions;
    return T(given * call.upstream_factor / (count > 0.0 ? count : 1.0));
}

template <class T>
__device__ __forceinline__ T l1_weight(const SSIMCall<T>& call, const Tile& tile) {
    const double count = call.counts ? call.counts[2 * tile.plane + 1] : call.pixels;
    return T(call.l1_factor / (count > 0.0 ? count : 1.0));
}

}  // namespace sosie
