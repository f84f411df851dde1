// SPDX-License-Identifier: Apache-2.0
//
// Convolutions by Winograd's transformation, and the step of an LSTM behind one.
//
// Images are cut into tiles of 4 x 4 results, each made from a patch of 6 x 6 pixels; see
// winograd-transforms-inl.hpp. Of each of a patch's 36 transformed values there is a product of
// matrices over the tiles: tiles x channels in by channels in x channels out.
//
// A task has a block of tiles small enough that its transformed patches stay in the L2 cache, along
// with those of a chunk of results: nothing transformed goes through memory. Weights are packed in
// the order in which products read them, once for all calls, and stream by once per block: from the
// L3 cache, 15 GB/s for the speed of a Zen 4 core.
//
// Arithmetic of a tile of 48 channels in, 128 out: 442k operations in products, 20k in the
// transformations. Those move 36 values where a patch has 16 of its own, which is the other half of
// their time.
#pragma once
#include "arena-inl.hpp"
#include "recurrent-inl.hpp"
#include "winograd-call.hpp"
#include "winograd-transforms-inl.hpp"

namespace {

using sosie::ImageArray;
using sosie::ImageShape;
using sosie::PackedWeights;
using sosie::TilePartial;
using sosie::WinogradForward;
using sosie::WinogradPack;

// A tile of sums in registers, of a product: rows of one factor, columns of the other.
constexpr int kSumRows = 6;
constexpr int kSumVectors = SOSIE_VECTOR_BYTES == 64 ? 4 : 2;  // as registers allow: 32, or 16
constexpr int64_t kPanel = kSumVectors * kLanes<float>;
// Channels added up in a row. Sums of these are added in turn, which halves the error of 128
// channels: of everything that rounds here, that in sums is most.
constexpr int64_t kSumDepth = 32;
constexpr int64_t kChunk = 64;        // columns whose results a block transforms at once
constexpr int64_t kBlockTiles = 16;   // about as many tiles as a block has
constexpr int64_t kTargetAlign = 16;  // at whose multiples the channels of a target begin

// ----------------------------------------------------------------------------------------- layouts

// Rows of arrays that are read side by side: an odd number of cache lines apart, so that they do
// not share the places of a cache.
inline int64_t odd_lines(int64_t floats) {
    const int64_t lines = divide_up(floats, 16);
    return (lines % 2 == 1 ? lines : lines + 1) * 16;
}

struct TileGrid {
    ImageShape shape;
    int64_t rows_per_image, rows, columns;  // of tiles
    int64_t block_rows, block_columns;      // of tiles in a block
    int64_t blocks_down, blocks_along;

    TileGrid(const ImageShape& given, int64_t wanted)
        : shape(given),
          rows_per_image(divide_up(given.height, kTileSide)),
          rows(given.batch * rows_per_image),
          columns(divide_up(given.width, kTileSide)) {
        block_columns = divide_up(columns, divide_up(columns, wanted));
        block_rows = smaller(larger(wanted / block_columns, 1), rows);
        blocks_down = divide_up(rows, block_rows);
        blocks_along = divide_up(columns, block_columns);
    }
    int64_t blocks() const { return blocks_down * blocks_along; }
    int64_t block_tiles() const { return block_rows * block_columns; }
};

// The tiles of a block, and where their pixels are.
struct TileBlock {
    const TileGrid& grid;
    int64_t first_row, end_row, first_column, end_column;

    TileBlock(const TileGrid& g, int64_t block) : grid(g) {
        first_row = block / g.blocks_along * g.block_rows;
        end_row = smaller(first_row + g.block_rows, g.rows);
        first_column = block % g.blocks_along * g.block_columns;
        end_column = smaller(first_column + g.block_columns, g.columns);
    }
    int64_t width() const { return end_column - first_column; }
    int64_t tiles() const { return (end_row - first_row) * width(); }
    int64_t image(int64_t row) const { return row / grid.rows_per_image; }
    int64_t y(int64_t row) const { return row % grid.rows_per_image * kTileSide; }
    // Number of a pixel in the whole array.
    int64_t pixel(int64_t image, int64_t y, int64_t x) const {
        return (image * grid.shape.height + y) * grid.shape.width + x;
    }
    // body(tile, row, column)
    template <class Body>
    void each(Body body) const {
        int64_t tile = 0;
        for (int64_t row = first_row; row < end_row; ++row)
            for (int64_t column = first_column; column < end_column; ++column)
                body(tile++, row, column);
    }
};

// First column of a target's channels, and behind the last.
inline int64_t target_column(const PackedWeights& w, int target) {
    return target == 0 ? 0 : round_up(w.outputs[0], kTargetAlign);
}
inline int64_t packed_columns(const PackedWeights& w) {
    return w.outputs[1] ? target_column(w, 1) + w.outputs[1] : w.outputs[0];
}

// Packed weights: chunk by chunk of columns, point by point, panel by panel, in which a column's
// values for one channel after another are kPanel apart.
struct WeightLayout {
    int64_t inputs, columns;
    int64_t chunks() const { return divide_up(columns, kChunk); }
    int64_t panels(int64_t chunk) const {
        return divide_up(smaller(kChunk, columns - chunk * kChunk), kPanel);
    }
    int64_t panel(int64_t chunk, int64_t point, int64_t panel) const {
        return chunk * kPoints * kChunk * inputs +
               (point * panels(chunk) + panel) * kPanel * inputs;
    }
};

inline int64_t packed_size(int64_t inputs, int64_t outputs, int64_t more_outputs) {
    const PackedWeights weights{nullptr, inputs, {outputs, more_outputs}};
    return kPoints * inputs * round_up(packed_columns(weights), kChunk);
}

// ----------------------------------------------------------------------------------------- packing

inline int64_t pack_tasks(const WinogradPack& call) {
    return divide_up(packed_columns(call.packed), kPanel);
}
inline size_t pack_scratch(const WinogradPack&) {
    return 0;
}

// A task is a panel of columns.
inline void run_pack(const WinogradPack& call, int64_t task, void*, TilePartial*) {
    const PackedWeights& w = call.packed;
    const WeightLayout layout{w.inputs, packed_columns(w)};
    const int64_t chunk = task * kPanel / kChunk, panel = task % (kChunk / kPanel);
    for (int64_t lane = 0; lane < kPanel; ++lane) {
        const int64_t column = task * kPanel + lane, second = column - target_column(w, 1);
        int64_t output = column < w.outputs[0] ? column : -1;
        if (second >= 0 && second < w.outputs[1]) output = w.outputs[0] + second;
        for (int64_t k = 0; k < w.inputs; ++k) {
            const float* taps = call.weight + (output * w.inputs + k) * 9;
            along_both<double, 3, 6>(
                &transform_taps,
                [&](int row, int tap) { return output < 0 ? 0.0 : double(taps[row * 3 + tap]); },
                [&](int point, double value) {
                    w.data[layout.panel(chunk, point, panel) + k * kPanel + lane] = float(value);
                });
        }
    }
}

// ------------------------------------------------------------------------------- transformed
// pixels

// Patches of a block: value (point, tile, channel), channels of both sources one after the other.
struct Patches {
    float* data;
    int64_t tile_pitch, point_pitch;

    // What a block of so many tiles takes. The vector that holds a source's last channels may write
    // behind them.
    Patches(Arena& arena, int64_t channels, int64_t tiles)
        : tile_pitch(round_up(channels + kLanes<float> - 1, kLanes<float>)),
          point_pitch(odd_lines(tiles * tile_pitch)) {
        data = arena.take<float>(kPoints * point_pitch);
    }
};

// The pixels of a patch, `zeros` where there are none.
inline void find_pixels(const TileBlock& block, const ImageArray& source, int64_t row,
                        int64_t column, const float* zeros, const float* (&pixels)[kPoints]) {
    const ImageShape& shape = block.grid.shape;
    const int64_t image = block.image(row);
    for (int i = 0; i < kPatchSide; ++i) {
        const int64_t y = block.y(row) + i - 1;
        for (int j = 0; j < kPatchSide; ++j) {
            const int64_t x = column * kTileSide + j - 1;
            const bool inside = y >= 0 && y < shape.height && x >= 0 && x < shape.width;
            pixels[i * kPatchSide + j] =
                inside ? source.data + block.pixel(image, y, x) * source.channels : zeros;
        }
    }
}

inline int64_t channels_of(const ImageArray* sources) {
    return sources[0].channels + (sources[1].data ? sources[1].channels : 0);
}

// `zeros`: as many as a source has channels.
inline void transform_patches(const TileBlock& block, const ImageArray* sources, const float* zeros,
                              const Patches& patches) {
    block.each([&](int64_t tile, int64_t row, int64_t column) {
        int64_t first = 0;
        for (int s = 0; s < 2 && sources[s].data; first += sources[s++].channels) {
            const float* pixels[kPoints];
            find_pixels(block, sources[s], row, column, zeros, pixels);
            const int64_t channels = sources[s].channels;
            float* out = patches.data + tile * patches.tile_pitch + first;
            const auto transform = [&](int64_t c, auto width) {
                along_both<Vec<float>, 6, 6>(
                    &transform_pixels<Vec<float>>,
                    [&](int i, int j) {
                        return width.template load<float>(pixels[i * kPatchSide + j] + c);
                    },
                    [&](int point, Vec<float> v) {
                        store<float>(out + point * patches.point_pitch + c, v);
                    });
            };
            int64_t c = 0;
            for (; c + kLanes<float> <= channels; c += kLanes<float>) transform(c, Whole{});
            if (c < channels) transform(c, Part{channels - c});
        }
    });
}

// ---------------------------------------------------------------------------------------- products

// out (Rows x a panel) = left (Rows x depth) by right (depth x a panel), or += where it adds.
template <int Rows>
inline void multiply(const float* left, int64_t left_pitch, const float* right, int64_t depth,
                     float* out, int64_t out_pitch, bool adds) {
    Vec<float> sums[Rows][kSumVectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
        Vec<float> column[kSumVectors];
#pragma GCC unroll 4
        for (int c = 0; c < kSumVectors; ++c)
            column[c] = in_register(load<float>(right + k * kPanel + c * kLanes<float>));
#pragma GCC unroll 6
        for (int r = 0; r < Rows; ++r) {
            const Vec<float> value = splat<float>(left[r * left_pitch + k]);
#pragma GCC unroll 4
            for (int c = 0; c < kSumVectors; ++c) sums[r][c] += value * column[c];
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 4
        for (int c = 0; c < kSumVectors; ++c) {
            float* at = out + r * out_pitch + c * kLanes<float>;
            store<float>(at, adds ? load<float>(at) + sums[r][c] : sums[r][c]);
        }
}

// body(first, rows) for groups of up to kSumRows rows, none much smaller than the others: few sums
// would have to wait for each other. `rows` is a Count.
template <int Value>
struct Count {
    static constexpr int value = Value;
};
template <class Body>
inline void each_group(int64_t rows, Body body) {
    const int64_t groups = divide_up(rows, kSumRows);
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t first = g * rows / groups;
        switch ((g + 1) * rows / groups - first) {
            case 1: body(first, Count<1>{}); break;
            case 2: body(first, Count<2>{}); break;
            case 3: body(first, Count<3>{}); break;
            case 4: body(first, Count<4>{}); break;
            case 5: body(first, Count<5>{}); break;
            default: body(first, Count<6>{}); break;
        }
    }
}

// Products of a chunk: value (point, tile, column of the chunk).
struct Products {
    static constexpr int64_t kTilePitch = kChunk + 16;  // no power of two
    float* data;
    int64_t point_pitch;

    Products(Arena& arena, int64_t tiles) : point_pitch(odd_lines(tiles * kTilePitch)) {
        data = arena.take<float>(kPoints * point_pitch);
    }
};

inline void multiply_chunk(const Patches& patches, int64_t tiles, int64_t depth,
                           const PackedWeights& weights, int64_t chunk, int64_t panels,
                           const Products& products) {
    const WeightLayout layout{weights.inputs, packed_columns(weights)};
    const int64_t parts = divide_up(depth, kSumDepth);
    for (int point = 0; point < kPoints; ++point)
        for (int64_t panel = 0; panel < panels; ++panel)
            for (int64_t part = 0; part < parts; ++part) {
                const int64_t k = part * depth / parts, end = (part + 1) * depth / parts;
                const float* left = patches.data + point * patches.point_pitch + k;
                const float* right = weights.data + layout.panel(chunk, point, panel) + k * kPanel;
                float* out = products.data + point * products.point_pitch + panel * kPanel;
                each_group(tiles, [&](int64_t first, auto rows) {
                    multiply<decltype(rows)::value>(
                        left + first * patches.tile_pitch, patches.tile_pitch, right, end - k,
                        out + first * Products::kTilePitch, Products::kTilePitch, part > 0);
                });
            }
}

// ----------------------------------------------------------------------------------------- results

// Channels [begin, end) of results, that are columns of a chunk from `column` on.
struct ResultRange {
    int64_t begin, end, column;
};

// Part of an image that a tile covers.
struct Covered {
    int64_t rows, columns;
    Covered(const TileBlock& block, int64_t row, int64_t column)
        : rows(smaller(kTileSide, block.grid.shape.height - block.y(row))),
          columns(smaller(kTileSide, block.grid.shape.width - column * kTileSide)) {}
};

// place(row, column): address of a tile's first pixel, row_pitch floats between rows.
template <class Place>
inline void transform_products(const TileBlock& block, const Products& products,
                               const ResultRange& range, const float* bias, int64_t channels,
                               int64_t row_pitch, Place place) {
    block.each([&](int64_t tile, int64_t row, int64_t column) {
        const Covered covered(block, row, column);
        float* corner = place(row, column);
        const float* in = products.data + tile * Products::kTilePitch + range.column - range.begin;
        const auto transform = [&](int64_t c, auto width) {
            const Vec<float> start = bias ? width.template load<float>(bias + c) : Vec<float>{};
            along_both<Vec<float>, 6, 4>(
                &transform_results<Vec<float>>,
                [&](int i, int j) {
                    return load<float>(in + (i * kPatchSide + j) * products.point_pitch + c);
                },
                [&](int pixel, Vec<float> v) {
                    const int i = pixel / kTileSide, j = pixel % kTileSide;
                    if (i < covered.rows && j < covered.columns)
                        width.template store<float>(corner + i * row_pitch + j * channels + c,
                                                    v + start);
                });
        };
        int64_t c = range.begin;
        for (; c + kLanes<float> <= range.end; c += kLanes<float>) transform(c, Whole{});
        if (c < range.end) transform(c, Part{range.end - c});
    });
}

// The columns of a chunk that belong to a target.
inline ResultRange range_of(const PackedWeights& weights, int target, int64_t chunk) {
    const int64_t first = target_column(weights, target);
    const int64_t begin = larger(chunk * kChunk - first, 0);
    const int64_t end = smaller((chunk + 1) * kChunk - first, weights.outputs[target]);
    return {begin, end, first + begin - chunk * kChunk};
}

// --------------------------------------------------------------------------------------- the tasks

struct ForwardMemory {
    Patches patches;
    Products products;
    float *zeros, *gates;

    ForwardMemory(Arena& arena, const WinogradForward& call, const TileGrid& grid)
        : patches(arena, call.weights.inputs, grid.block_tiles()),
          products(arena, grid.block_tiles()),
          zeros(arena.take<float>(call.weights.inputs)),
          gates(arena.take<float>(call.step ? grid.block_tiles() * kTileSide * kTileSide *
                                                  call.weights.outputs[0]
                                            : 0)) {}
};

inline const float* moved(const void* data, int64_t by) {
    return data ? static_cast<const float*>(data) + by : nullptr;
}
inline float* moved(void* data, int64_t by) {
    return data ? static_cast<float*>(data) + by : nullptr;
}

// The gates of `pixels` pixels of a row from number `first` of the array on, from what goes into
// them.
inline void run_step(const LSTMForward& step, const float* inputs, int64_t first, int64_t pixels) {
    LSTMForward part = step;
    const int64_t length = step.shape.length, at = first * length;
    part.shape.rows = pixels;
    part.inputs = inputs;
    part.recurrent = nullptr;
    part.cell = moved(step.cell, at);
    part.gates = moved(step.gates, 4 * at);
    part.hidden = moved(step.hidden, at);
    part.new_cell = moved(step.new_cell, at);
    // Of an image's pixels the first here; those that follow are not beyond its last.
    if (step.peephole) part.peephole = moved(step.peephole, first % step.peephole_rows * length);
    const GateTask all{0, pixels, 0, length};
    const GateActivations& activations = step.shape.activations;
    if (activations.hard_sigmoid || activations.hard_tanh)
        LSTMForwardKernel<float, float, false>::run(part, all);
    else
        LSTMForwardKernel<float, float, true>::run(part, all);
}

inline void run_steps(const WinogradForward& call, const TileBlock& block, const float* gates,
                      int64_t row_pitch) {
    const int64_t x = block.first_column * kTileSide;
    const int64_t end = smaller(block.end_column * kTileSide, block.grid.shape.width);
    for (int64_t row = block.first_row; row < block.end_row; ++row)
        for (int i = 0; i < kTileSide && block.y(row) + i < block.grid.shape.height; ++i)
            run_step(*call.step, gates + ((row - block.first_row) * kTileSide + i) * row_pitch,
                     block.pixel(block.image(row), block.y(row) + i, x), end - x);
}

inline int64_t forward_tasks(const WinogradForward& call) {
    return TileGrid(call.shape, kBlockTiles).blocks();
}
inline size_t forward_scratch(const WinogradForward& call) {
    Arena arena(nullptr);
    ForwardMemory(arena, call, TileGrid(call.shape, kBlockTiles));
    return arena.used();
}

// What a task is made of, and where its results go: to targets, or to memory for the gates.
struct ForwardTask {
    const WinogradForward& call;
    const TileBlock& block;
    const ForwardMemory& memory;
    int64_t gates_pitch;  // of a row of pixels

    void put_chunk(int64_t chunk, int target) const {
        const ResultRange range = range_of(call.weights, target, chunk);
        const int64_t channels = call.weights.outputs[target];
        const float* bias = target == 0 ? call.bias : nullptr;
        if (call.step)
            transform_products(block, memory.products, range, bias, channels, gates_pitch,
                               [&](int64_t row, int64_t column) {
                                   return memory.gates +
                                          (row - block.first_row) * kTileSide * gates_pitch +
                                          (column - block.first_column) * kTileSide * channels;
                               });
        else
            transform_products(block, memory.products, range, bias, channels,
                               call.shape.width * channels, [&](int64_t row, int64_t column) {
                                   return call.targets[target].data +
                                          block.pixel(block.image(row), block.y(row),
                                                      column * kTileSide) *
                                              channels;
                               });
    }
};

inline void run_forward(const WinogradForward& call, int64_t task, void* scratch, TilePartial*) {
    const TileGrid grid(call.shape, kBlockTiles);
    const TileBlock block(grid, task);
    Arena arena(scratch);
    const ForwardMemory memory(arena, call, grid);
    const PackedWeights& weights = call.weights;
    __builtin_memset(memory.zeros, 0, size_t(weights.inputs) * sizeof(float));
    transform_patches(block, call.sources, memory.zeros, memory.patches);
    const int64_t depth = channels_of(call.sources);
    const int targets = call.step || !call.targets[1].data ? 1 : 2;
    const int64_t columns = target_column(weights, targets - 1) + weights.outputs[targets - 1];
    const ForwardTask parts{call, block, memory, block.width() * kTileSide * weights.outputs[0]};
    for (int64_t chunk = 0; chunk * kChunk < columns; ++chunk) {
        const int64_t panels = divide_up(smaller(kChunk, columns - chunk * kChunk), kPanel);
        multiply_chunk(memory.patches, block.tiles(), depth, weights, chunk, panels,
                       memory.products);
        for (int target = 0; target < targets; ++target) parts.put_chunk(chunk, target);
    }
    if (call.step) run_steps(call, block, memory.gates, parts.gates_pitch);
}

}  // namespace
