// SPDX-License-Identifier: Apache-2.0
//
// Distances between two sets of vectors: what all kernels of the family share.
//
// Squared distances are sums of squared differences, a - b first: nothing cancels, equal vectors
// are 0 apart, and the relative error is that of a sum of positive numbers (below 1e-6 for float32)
// wherever the origin lies. The usual |a|^2 + |b|^2 - 2ab saves a subtraction per dimension and
// loses every digit of near neighbours far from the origin. The subtraction is free where additions
// have ports of their own: on a Zen 4 core this loop was measured at 97 % of the speed of the
// matrix product (115 of 118 GFLOP/s, counting the multiply-adds of either).
//
// 1 - cosine similarity is half the squared distance of the vectors scaled to length 1, so the same
// loop serves. Scaling rounds, which pairs within an angle of a hundredth would notice: those are
// computed again in double. A zero vector is at distance 1 of all.
//
// Layout. The first set is packed into groups of kTileRows rows, value (dimension, row) of group g
// at (g * dims + dimension) * kTileRows + row; the second into panels of kPanelColumns columns in
// the same manner. So both are read as they lie in memory, while a tile of one group and one panel
// is held in registers: per dimension kTileVectors loads, kTileRows broadcasts. Blocks of
// kBlockDims dimensions keep a panel in the L1 cache; their sums are added, which also keeps
// rounding from growing with the number of dimensions. Groups are packed once per task, into the L2
// cache; panels once per call where there is more than one block of rows, else by the task.
#pragma once
#include "arena-inl.hpp"
#include "distance-call.hpp"
#include "rows-inl.hpp"

namespace {

using sosie::DistanceProblem;
using sosie::Metric;
using sosie::VectorSet;

constexpr int kTileRows = 6;
constexpr int kTileVectors = SOSIE_VECTOR_BYTES == 64 ? 4 : 2;  // as registers allow: 32, or 16
template <class T>
constexpr int kPanelColumns = kTileVectors * kLanes<T>;
constexpr int64_t kBlockDims = 256;
constexpr int64_t kBlockRows = 32 * kTileRows, kLeastRows = 8 * kTileRows;
constexpr int64_t kBlockColumns = 256;
constexpr int64_t kGroupBytes = 512 << 10;  // of a task's rows
constexpr int64_t kCachedBytes = 32 << 10;  // of panels that many rows are compared with
// Below this 1 - similarity is computed again: an angle of about 0.014, where float32's rounding
// of the scaled vectors would cost 1e-5 of the result.
constexpr double kNearlyParallel = 1e-4;

// Columns of a block of vectors of so many dimensions: more where they are short, so that results
// are stored along longer rows.
template <class T>
int64_t block_columns(int64_t dims) {
    const int64_t cached = kCachedBytes / (larger(dims, 1) * int64_t(sizeof(T)));
    return round_up(larger(kBlockColumns, smaller(cached, 2048)), 4 * kPanelColumns<T>);
}

// Rows of a task: fewer where they are long.
template <class T>
int64_t block_rows(int64_t dims) {
    const int64_t cached = kGroupBytes / (larger(dims, 1) * int64_t(sizeof(T)));
    return larger(smaller(cached, kBlockRows) / kTileRows * kTileRows, kLeastRows);
}

// Dimensions of a block, so that none is much shorter than the others.
inline int64_t even_block(int64_t dims) {
    return larger(divide_up(dims, larger(divide_up(dims, kBlockDims), 1)), 1);
}

// -------------------------------------------------------------------------------- vectors as given

inline int64_t item_bytes(DType dtype) {
    switch (dtype) {
        case DType::u8: return 1;
        case DType::u16:
        case DType::f16:
        case DType::bf16: return 2;
        case DType::f32: return 4;
        case DType::f64: return 8;
    }
    return 0;
}

template <class T, class Source>
inline T value_of(Source source) {
    return T(source);
}
template <class T>
inline T value_of(Half source) {
    return T(widen<float, Half>(source));
}
template <class T>
inline T value_of(BrainHalf source) {
    return T(widen<float, BrainHalf>(source));
}

template <class T, class Source>
inline void widen_values(const VectorSet& set, int64_t offset, int64_t count, T* out) {
    const Source* source = static_cast<const Source*>(set.data) + offset;
    const int64_t stride = set.strides[2];
    if (stride == 1) {
        for (int64_t i = 0; i < count; ++i) out[i] = value_of<T>(source[i]);
    } else {
        for (int64_t i = 0; i < count; ++i) out[i] = value_of<T>(source[i * stride]);
    }
}

// Dimensions [first, first + count) of a vector, in the computing type.
template <class T>
void read_vector(const VectorSet& set, int64_t n, int64_t row, int64_t first, int64_t count,
                 T* out) {
    const int64_t offset = n * set.strides[0] + row * set.strides[1] + first * set.strides[2];
    switch (set.dtype) {
        case DType::u8: return widen_values<T, uint8_t>(set, offset, count, out);
        case DType::u16: return widen_values<T, uint16_t>(set, offset, count, out);
        case DType::f16: return widen_values<T, Half>(set, offset, count, out);
        case DType::bf16: return widen_values<T, BrainHalf>(set, offset, count, out);
        case DType::f32: return widen_values<T, float>(set, offset, count, out);
        case DType::f64: return widen_values<T, double>(set, offset, count, out);
    }
}

// Writes dimensions [first, first + count) of a vector, in the set's type.
template <class T>
void write_vector(const T* values, const VectorSet& set, int64_t n, int64_t row, int64_t first,
                  int64_t count) {
    const int64_t stride = set.strides[2];
    const int64_t offset = n * set.strides[0] + row * set.strides[1] + first * stride;
    const auto write = [&](auto* data, auto convert) {
        for (int64_t i = 0; i < count; ++i) data[offset + i * stride] = convert(values[i]);
    };
    switch (set.dtype) {
        case DType::f16:
            return write(static_cast<Half*>(set.data),
                         [](T v) { return narrow<Half, float>(float(v)); });
        case DType::bf16:
            return write(static_cast<BrainHalf*>(set.data),
                         [](T v) { return narrow<BrainHalf, float>(float(v)); });
        case DType::f64:
            return write(static_cast<double*>(set.data), [](T v) { return double(v); });
        default: return write(static_cast<float*>(set.data), [](T v) { return float(v); });
    }
}

// Vectors as the loops want them: for the cosine scaled to length 1, and by the weights' roots.
template <class T>
class Reader {
  public:
    Reader(const DistanceProblem& p, const VectorSet& set, const double* norms, int64_t vectors)
        : set_(set),
          weights_(p.metric == Metric::cosine ? p.weights : nullptr),
          norms_(p.metric == Metric::cosine ? norms : nullptr),
          vectors_(vectors),
          in_place_(norms_ == nullptr && set.strides[2] == 1 &&
                    set.dtype == (sizeof(T) == 4 ? DType::f32 : DType::f64)) {}

    // Dimensions [first, first + count) of a vector: in place where they can be read as they are,
    // else in `out`.
    const T* read(int64_t n, int64_t row, int64_t first, int64_t count, T* out) const {
        if (in_place_)
            return static_cast<const T*>(set_.data) + n * set_.strides[0] + row * set_.strides[1] +
                   first;
        read_vector<T>(set_, n, row, first, count, out);
        if (norms_ == nullptr) return out;
        const double norm = norms_[n * vectors_ + row];
        const T scale = T(norm > 0 ? 1 / norm : norm);  // NaN stays
        for (int64_t i = 0; i < count; ++i) out[i] *= scale;
        if (weights_ == nullptr) return out;
        for (int64_t i = 0; i < count; ++i) out[i] *= T(__builtin_sqrt(weights_[first + i]));
        return out;
    }

    // Dimensions of a vector that will be read soon: it begins on another page than the one before,
    // where hardware looks for nothing.
    void fetch(int64_t n, int64_t row, int64_t first, int64_t count) const {
        if (row >= vectors_ || set_.strides[2] != 1) return;
        const int64_t bytes = item_bytes(set_.dtype);
        const int64_t offset = n * set_.strides[0] + row * set_.strides[1] + first;
        const char* begin = static_cast<const char*>(set_.data) + offset * bytes;
        for (int64_t at = 0; at < count * bytes; at += 64) __builtin_prefetch(begin + at);
    }

  private:
    const VectorSet& set_;
    const double *weights_, *norms_;
    int64_t vectors_;
    bool in_place_;
};

// ----------------------------------------------------------------------------------------- packing

// Value k of rows[lane] to out[k * width + lane], for k < count.
template <class T>
void transpose_lanes(const T* const* rows, int64_t count, int64_t width, T* out) {
    constexpr int lanes = kLanes<T>;
    const auto step = [&](int64_t k, auto load_row) {
        Vec<T> block[lanes];
#pragma GCC unroll 32
        for (int lane = 0; lane < lanes; ++lane) block[lane] = load_row(rows[lane] + k);
        transpose<T>(block);
        const int rest = int(smaller(lanes, count - k));
        for (int i = 0; i < rest; ++i) store<T>(out + (k + i) * width, block[i]);
    };
    int64_t k = 0;
    for (; k + lanes <= count; k += lanes) step(k, [](const T* row) { return load<T>(row); });
    if (k < count) step(k, [&](const T* row) { return load_part<T>(row, count - k); });
}

// Vectors [begin, begin + width) of a set, zeros where there is none, interleaved: value k of
// vector v at out[k * width + v]. `staging` is room for kLanes + 1 rows of `count`. Writes up to
// kLanes values behind the end, where width is no multiple of the lanes.
template <class T>
void interleave(const Reader<T>& reader, int64_t n, int64_t begin, int64_t width, int64_t end,
                int64_t first, int64_t count, T* staging, T* out) {
    constexpr int lanes = kLanes<T>;
    T* zeros = staging + lanes * count;
    if (begin + width > end || width % lanes != 0)
        __builtin_memset(zeros, 0, size_t(count) * sizeof(T));
    // The last lanes first: what they write too much is written again, and right, by the others.
    for (int64_t v = round_up(width, lanes) - lanes; v >= 0; v -= lanes) {
        const T* rows[lanes];
        for (int lane = 0; lane < lanes; ++lane) {
            const int64_t vector = begin + v + lane;
            if (v + lane >= width || vector >= end) {
                rows[lane] = zeros;
                continue;
            }
            reader.fetch(n, vector + lanes, first, count);
            rows[lane] = reader.read(n, vector, first, count, staging + lane * count);
        }
        transpose_lanes<T>(rows, count, width, out + v);
    }
}

// --------------------------------------------------------------------------------------- the tile

// sums[r][c] += (a[r] - b[c])^2, times the weight, over `count` dimensions: Rows rows of a group,
// Panels panels that are `panel_pitch` apart.
template <class T, int Rows, int Panels, bool Weighted>
inline __attribute__((always_inline)) void add_squares(
    const T* a, const T* b, int64_t panel_pitch, const T* weights, int64_t count,
    Vec<T> (&sums)[Rows][Panels * kTileVectors]) {
    for (int64_t k = 0; k < count; ++k) {
        Vec<T> right[Panels * kTileVectors];
#pragma GCC unroll 8
        for (int p = 0; p < Panels; ++p) {
            // One row or two wait for memory: the panels after these, into the L2 cache.
            if constexpr (Rows <= 2)
                __builtin_prefetch(b + (p + Panels) * panel_pitch + k * kPanelColumns<T>, 0, 2);
#pragma GCC unroll 8
            for (int c = 0; c < kTileVectors; ++c)
                right[p * kTileVectors + c] =
                    load<T>(b + p * panel_pitch + k * kPanelColumns<T> + c * kLanes<T>);
        }
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
            const Vec<T> left = splat<T>(a[k * kTileRows + r]);
#pragma GCC unroll 16
            for (int c = 0; c < Panels * kTileVectors; ++c) {
                const Vec<T> d = right[c] - left;
                if constexpr (Weighted)
                    sums[r][c] += d * weights[k] * d;
                else
                    sums[r][c] += d * d;
            }
        }
    }
}

// One tile over one block of dimensions. `partial`, rows of `partial_pitch` values with panels next
// to each other, holds the sums of the blocks before (unless this is the first) and takes the new
// ones, unless this is the last: finish(row, panel, sums of the row and panel) has those.
template <class T, int Rows, int Panels, bool Weighted, class Finish>
inline __attribute__((always_inline)) void tile(const T* a, const T* b, int64_t panel_pitch,
                                                const T* weights, int64_t count, bool first,
                                                bool last, T* partial, int64_t partial_pitch,
                                                Finish finish) {
    constexpr int vectors = Panels * kTileVectors;
    Vec<T> sums[Rows][vectors] = {};
    add_squares<T, Rows, Panels, Weighted>(a, b, panel_pitch, weights, count, sums);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
        T* row = partial + r * partial_pitch;
        if (!first)
#pragma GCC unroll 16
            for (int c = 0; c < vectors; ++c) sums[r][c] += load<T>(row + c * kLanes<T>);
        if (!last) {
#pragma GCC unroll 16
            for (int c = 0; c < vectors; ++c) store<T>(row + c * kLanes<T>, sums[r][c]);
        } else {
#pragma GCC unroll 8
            for (int p = 0; p < Panels; ++p) finish(r, p, sums[r] + p * kTileVectors);
        }
    }
}

// A block of rows, which begin() packs, and the columns that run() goes over, all dimensions:
// finish(row, column, sums of kPanelColumns columns) once for every row and panel.
template <class T>
class BlockWalk {
  public:
    BlockWalk(const DistanceProblem& p, Arena& arena)
        : p_(p),
          a_(p, p.a, p.norms_a, p.rows),
          b_(p, p.b, p.norms_b, p.columns),
          block_dims_(even_block(p.dims)),
          row_pitch_(block_rows<T>(p.dims)),
          rows_(arena.take<T>(row_pitch_ * larger(p.dims, 1) + kLanes<T>)),
          staging_(arena.take<T>((kLanes<T> + 1) * block_dims_)),
          panels_(p.panels ? nullptr : arena.take<T>(block_columns<T>(p.dims) * block_dims_)),
          weights_(arena.take<T>(block_dims_)),
          partial_(p.dims > kBlockDims ? arena.take<T>(row_pitch_ * kColumns) : nullptr) {}

    void begin(int64_t n, int64_t row, int64_t rows) {
        n_ = n;
        row_ = row;
        row_count_ = rows;
        for (int64_t first = 0; first < p_.dims; first += block_dims_) {
            const int64_t count = smaller(block_dims_, p_.dims - first);
            for (int64_t r = 0; r < rows; r += kTileRows)
                interleave<T>(a_, n, row + r, kTileRows, row + rows, first, count, staging_,
                              rows_ + row_pitch_ * first + r * count);
        }
    }

    template <class Finish>
    void run(int64_t column, int64_t columns, Finish finish) const {
        const bool weighted = p_.weights && p_.metric != Metric::cosine;
        int64_t first = 0;
        do {
            const int64_t count = smaller(block_dims_, p_.dims - first);
            if (weighted)
                for (int64_t k = 0; k < count; ++k) weights_[k] = T(p_.weights[first + k]);
            const Block block{column, columns, first, count, first == 0, first + count >= p_.dims};
            if (weighted)
                panels<true>(block, finish);
            else
                panels<false>(block, finish);
            first += count;
        } while (first < p_.dims);
    }

  private:
    static constexpr int64_t kColumns = round_up(kBlockColumns, 4 * kPanelColumns<T>);
    struct Block {
        int64_t column, columns, first, count;
        bool is_first, is_last;
    };

    template <bool Weighted, class Finish>
    void panels(const Block& block, Finish finish) const {
        const int64_t count = divide_up(block.columns, kPanelColumns<T>);
        const T* source = panels_;
        int64_t pitch = block.count * kPanelColumns<T>;
        if (p_.panels) {
            pitch = p_.dims * kPanelColumns<T>;
            source = static_cast<const T*>(p_.panels) + n_ * p_.panel_stride +
                     block.column / kPanelColumns<T> * pitch + block.first * kPanelColumns<T>;
        } else {
            for (int64_t p = 0; p < count; ++p)
                interleave<T>(b_, n_, block.column + p * kPanelColumns<T>, kPanelColumns<T>,
                              p_.columns, block.first, block.count, staging_, panels_ + p * pitch);
        }
        const int64_t whole = row_count_ / kTileRows * kTileRows;
        const auto one = [&](int64_t r, int64_t p) {
            tiles<kTileRows, 1, Weighted>(block, source + p * pitch, pitch, r, p, finish);
        };
        // Where all panels stay in cache, one group of rows is finished after another: results are
        // then stored along few rows, each of which is on a page of its own.
        if (count * block.count * kPanelColumns<T> * int64_t(sizeof(T)) <= kCachedBytes) {
            for (int64_t r = 0; r < whole; r += kTileRows)
                for (int64_t p = 0; p < count; ++p) one(r, p);
        } else {
            // The next panel comes closer meanwhile, a part with every group.
            const int64_t bytes = block.count * kPanelColumns<T> * int64_t(sizeof(T));
            const int64_t part = round_up(divide_up(bytes * kTileRows, larger(whole, 1)), 64);
            for (int64_t p = 0; p < count; ++p)
                for (int64_t r = 0; r < whole; r += kTileRows) {
                    const char* next = reinterpret_cast<const char*>(source + (p + 1) * pitch);
                    for (int64_t at = 0; at < part; at += 64)
                        __builtin_prefetch(next + r / kTileRows * part + at, 0, 2);
                    one(r, p);
                }
        }
        // Fewer rows: two panels at once, so that there are sums to hide an addition's wait. The
        // last ones wait for memory, and go through it in order.
        int64_t r = whole;
        if (row_count_ - r >= 3) {
            strip<3, 2, Weighted>(block, source, pitch, count, r, finish);
            r += 3;
        }
        if (row_count_ - r == 2) strip<2, 1, Weighted>(block, source, pitch, count, r, finish);
        if (row_count_ - r == 1) strip<1, 1, Weighted>(block, source, pitch, count, r, finish);
    }

    template <int Rows, int Panels, bool Weighted, class Finish>
    void strip(const Block& block, const T* source, int64_t pitch, int64_t count, int64_t r,
               Finish finish) const {
        int64_t p = 0;
        for (; p + Panels <= count; p += Panels)
            tiles<Rows, Panels, Weighted>(block, source + p * pitch, pitch, r, p, finish);
        for (; p < count; ++p)
            tiles<Rows, 1, Weighted>(block, source + p * pitch, pitch, r, p, finish);
    }

    template <int Rows, int Panels, bool Weighted, class Finish>
    __attribute__((noinline)) void tiles(const Block& block, const T* panel, int64_t pitch,
                                         int64_t r, int64_t p, Finish finish) const {
        const int64_t group = r / kTileRows * kTileRows;
        T* partial = partial_ ? partial_ + r * kColumns + p * kPanelColumns<T> : nullptr;
        const T* own = rows_ + row_pitch_ * block.first + group * block.count + r % kTileRows;
        tile<T, Rows, Panels, Weighted>(
            own, panel, pitch, weights_, block.count, block.is_first, block.is_last, partial,
            kColumns, [&](int i, int q, const Vec<T>* sums) {
                finish(row_ + r + i, block.column + (p + q) * kPanelColumns<T>, sums);
            });
    }

    const DistanceProblem& p_;
    Reader<T> a_, b_;
    int64_t block_dims_, row_pitch_;
    int64_t n_ = 0, row_ = 0, row_count_ = 0;
    T *rows_, *staging_, *panels_, *weights_, *partial_;
};

// ----------------------------------------------------------------------------- metrics and lengths

// 1 - similarity in double, of the vectors as they were given.
inline double cosine_distance(const DistanceProblem& p, int64_t n, int64_t row, int64_t column) {
    const double a = p.norms_a[n * p.rows + row], b = p.norms_b[n * p.columns + column];
    if (a == 0 || b == 0) return 1;
    double sum = 0, left[kBlockDims], right[kBlockDims];
    for (int64_t first = 0; first < p.dims; first += kBlockDims) {
        const int64_t count = smaller(kBlockDims, p.dims - first);
        read_vector<double>(p.a, n, row, first, count, left);
        read_vector<double>(p.b, n, column, first, count, right);
        for (int64_t k = 0; k < count; ++k) {
            const double d = left[k] / a - right[k] / b;
            sum += (p.weights ? p.weights[first + k] : 1.0) * d * d;
        }
    }
    return sum / 2;
}

// What the sums of a row and a panel are in the metric, but for roots: squared distances, or 1 -
// similarity.
template <class T>
void finish_cosine(const DistanceProblem& p, int64_t n, int64_t row, int64_t column, int64_t count,
                   T* values) {
    const bool zero = p.norms_a[n * p.rows + row] == 0;
    for (int64_t i = 0; i < count; ++i) {
        values[i] *= T(0.5);
        if (zero || p.norms_b[n * p.columns + column + i] == 0)
            values[i] = values[i] == values[i] ? T(1) : values[i];
        else if (values[i] < T(kNearlyParallel))
            values[i] = T(cosine_distance(p, n, row, column + i));
    }
}

constexpr int64_t kNormRows = 64;

template <class T>
int64_t norm_tasks(const sosie::Norms& call) {
    return call.batch * divide_up(call.rows, kNormRows);
}
template <class T>
size_t norm_scratch(const sosie::Norms&) {
    return size_t(kBlockDims) * sizeof(T);
}
template <class T>
void run_norms(const sosie::Norms& call, int64_t task, void* scratch, sosie::NoPartial*) {
    T* values = static_cast<T*>(scratch);
    const int64_t blocks = divide_up(call.rows, kNormRows), n = task / blocks;
    const int64_t begin = task % blocks * kNormRows, end = smaller(begin + kNormRows, call.rows);
    for (int64_t row = begin; row < end; ++row) {
        double sum = 0;
        for (int64_t first = 0; first < call.dims; first += kBlockDims) {
            const int64_t count = smaller(kBlockDims, call.dims - first);
            read_vector<T>(call.vectors, n, row, first, count, values);
            for (int64_t k = 0; k < count; ++k)
                sum += (call.weights ? call.weights[first + k] : 1.0) * double(values[k]) *
                       double(values[k]);
        }
        call.norms[n * call.rows + row] = __builtin_sqrt(sum);
    }
}

template <class T>
int64_t pack_tasks(const sosie::PackVectors& call) {
    return call.problem.batch * divide_up(call.problem.columns, kPanelColumns<T>);
}
template <class T>
size_t pack_scratch(const sosie::PackVectors& call) {
    return size_t((kLanes<T> + 1) * call.problem.dims) * sizeof(T);
}
template <class T>
void run_pack(const sosie::PackVectors& call, int64_t task, void* scratch, sosie::NoPartial*) {
    const DistanceProblem& p = call.problem;
    const Reader<T> reader(p, p.b, p.norms_b, p.columns);
    const int64_t panels = divide_up(p.columns, kPanelColumns<T>);
    interleave<T>(reader, task / panels, task % panels * kPanelColumns<T>, kPanelColumns<T>,
                  p.columns, 0, p.dims, static_cast<T*>(scratch),
                  static_cast<T*>(call.panels) + task * p.dims * kPanelColumns<T>);
}

}  // namespace
