// SPDX-License-Identifier: Apache-2.0
//
// The gradient of a convolution's weights, by the same transformation.
//
// It is the transpose of what winograd-inl.hpp computes, in the weights: with d a patch's pixels
// and y the upstream gradients of its tile, G' [(A y A') . (B' d B)] G, summed over tiles. So per
// point there is a product of matrices again, channels in x tiles by tiles x channels out, and
// the 36 sums become 3 x 3 once, after the last call: `sums` is added to until then.
//
// A task has a chunk of the channels out and a range of the blocks; each range has sums of its own,
// so that adding up goes by the problem and not by threads. Sums are float, of one block at a time,
// those of blocks and ranges are added: about as many roundings one after the other as tiles in a
// block, blocks in a range, and calls. Ranges are added in double.
#pragma once
#include "winograd-inl.hpp"

namespace {

using sosie::WinogradFinish;
using sosie::WinogradGradient;

constexpr int64_t kGradientTiles = 32;  // about as many as a block has: sums are read and written
constexpr int64_t kGradientTasks = 8;   // about as many as there are at least

// (range, chunk, point, channel in, column of the chunk)
struct SumLayout {
    int64_t inputs, outputs;
    int64_t chunks() const { return divide_up(outputs, kChunk); }
    int64_t ranges() const { return divide_up(kGradientTasks, chunks()); }
    int64_t chunk_size() const { return kPoints * inputs * kChunk; }
    int64_t size() const { return ranges() * chunks() * chunk_size(); }
};

inline int64_t gradient_ranges(int64_t outputs) {
    return SumLayout{0, outputs}.ranges();
}
inline int64_t gradient_size(int64_t inputs, int64_t outputs) {
    return SumLayout{inputs, outputs}.size();
}

// Channels [first, end) of a block's upstream gradients, transformed; their sums over pixels are
// added to `bias`.
inline void transform_upstream(const TileBlock& block, const ImageArray& upstream, int64_t first,
                               int64_t end, const Products& products, float* bias) {
    block.each([&](int64_t tile, int64_t row, int64_t column) {
        const Covered covered(block, row, column);
        const int64_t channels = upstream.channels;
        const float* corner =
            upstream.data +
            block.pixel(block.image(row), block.y(row), column * kTileSide) * channels;
        float* out = products.data + tile * Products::kTilePitch - first;
        const auto transform = [&](int64_t c, auto width) {
            const auto pixel = [&](int i, int j) {
                if (i >= covered.rows || j >= covered.columns) return Vec<float>{};
                const int64_t place = i * block.grid.shape.width + j;
                return width.template load<float>(corner + place * channels + c);
            };
            along_both<Vec<float>, 4, 6>(
                &spread_results<Vec<float>>, pixel, [&](int point, Vec<float> v) {
                    store<float>(out + point * products.point_pitch + c, v);
                });
            Vec<float> sum{};
            for (int i = 0; i < kTileSide; ++i)
                for (int j = 0; j < kTileSide; ++j) sum += pixel(i, j);
            store<float>(bias + c - first, load<float>(bias + c - first) + sum);
        };
        int64_t c = first;
        for (; c + kLanes<float> <= end; c += kLanes<float>) transform(c, Whole{});
        if (c < end) transform(c, Part{end - c});
    });
}

// sums (Rows x a panel) += left' (Rows x tiles) by right (tiles x a panel).
template <int Rows>
inline void add_products(const float* left, int64_t left_pitch, const float* right, int64_t tiles,
                         float* sums) {
    Vec<float> added[Rows][kSumVectors] = {};
    for (int64_t tile = 0; tile < tiles; ++tile) {
        Vec<float> column[kSumVectors];
#pragma GCC unroll 4
        for (int c = 0; c < kSumVectors; ++c)
            column[c] =
                in_register(load<float>(right + tile * Products::kTilePitch + c * kLanes<float>));
#pragma GCC unroll 6
        for (int r = 0; r < Rows; ++r) {
            const Vec<float> value = splat<float>(left[tile * left_pitch + r]);
#pragma GCC unroll 4
            for (int c = 0; c < kSumVectors; ++c) added[r][c] += value * column[c];
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < kSumVectors; ++c) {
            float* sum = sums + r * kChunk + c * kLanes<float>;
            store<float>(sum, load<float>(sum) + added[r][c]);
        }
}

inline void add_block(const Patches& patches, const Products& products, int64_t tiles,
                      int64_t depth, int64_t panels, int64_t inputs, float* sums) {
    for (int point = 0; point < kPoints; ++point)
        for (int64_t panel = 0; panel < panels; ++panel)
            each_group(depth, [&](int64_t first, auto rows) {
                add_products<decltype(rows)::value>(
                    patches.data + point * patches.point_pitch + first, patches.tile_pitch,
                    products.data + point * products.point_pitch + panel * kPanel, tiles,
                    sums + (point * inputs + first) * kChunk + panel * kPanel);
            });
}

struct GradientMemory {
    Patches patches;
    Products products;
    float *zeros, *bias;

    GradientMemory(Arena& arena, const WinogradGradient& call, const TileGrid& grid)
        : patches(arena, call.inputs, grid.block_tiles()),
          products(arena, grid.block_tiles()),
          zeros(arena.take<float>(call.inputs)),
          bias(arena.take<float>(kChunk)) {}
};

inline int64_t gradient_tasks(const WinogradGradient& call) {
    const SumLayout layout{call.inputs, call.upstream.channels};
    return layout.ranges() * layout.chunks();
}
inline size_t gradient_scratch(const WinogradGradient& call) {
    Arena arena(nullptr);
    GradientMemory(arena, call, TileGrid(call.shape, kGradientTiles));
    return arena.used();
}

inline void run_gradient(const WinogradGradient& call, int64_t task, void* scratch, TilePartial*) {
    const TileGrid grid(call.shape, kGradientTiles);
    const SumLayout layout{call.inputs, call.upstream.channels};
    const int64_t range = task / layout.chunks(), chunk = task % layout.chunks();
    Arena arena(scratch);
    const GradientMemory memory(arena, call, grid);
    __builtin_memset(memory.zeros, 0, size_t(call.inputs) * sizeof(float));
    __builtin_memset(memory.bias, 0, size_t(kChunk) * sizeof(float));
    const int64_t first = chunk * kChunk, end = smaller(first + kChunk, layout.outputs);
    const int64_t blocks = grid.blocks();
    for (int64_t b = range * blocks / layout.ranges(); b < (range + 1) * blocks / layout.ranges();
         ++b) {
        const TileBlock block(grid, b);
        transform_patches(block, call.sources, memory.zeros, memory.patches);
        transform_upstream(block, call.upstream, first, end, memory.products, memory.bias);
        add_block(memory.patches, memory.products, block.tiles(), channels_of(call.sources),
                  divide_up(end - first, kPanel), call.inputs,
                  call.sums + task * layout.chunk_size());
    }
    for (int64_t c = first; c < end; ++c)
        call.bias[range * layout.outputs + c] += memory.bias[c - first];
}

// A task is a channel out.
inline int64_t finish_tasks(const WinogradFinish& call) {
    return call.outputs;
}
inline size_t finish_scratch(const WinogradFinish&) {
    return 0;
}

inline void run_finish(const WinogradFinish& call, int64_t output, void*, TilePartial*) {
    const SumLayout layout{call.inputs, call.outputs};
    const int64_t range_size = layout.chunks() * layout.chunk_size();
    const float* sums = call.sums + output / kChunk * layout.chunk_size() + output % kChunk;
    for (int64_t k = 0; k < call.inputs; ++k)
        along_both<double, 6, 3>(
            &gather_taps,
            [&](int i, int j) {
                const float* at = sums + ((i * kPatchSide + j) * call.inputs + k) * kChunk;
                double sum = 0;
                for (int64_t r = 0; r < layout.ranges(); ++r) sum += double(at[r * range_size]);
                return sum;
            },
            [&](int tap, double value) {
                call.weight[(output * call.inputs + k) * 9 + tap] = float(value);
            });
    double sum = 0;
    for (int64_t r = 0; r < layout.ranges(); ++r)
        sum += double(call.bias_sums[r * call.outputs + output]);
    call.bias[output] = float(sum);
}

}  // namespace
