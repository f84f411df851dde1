// SPDX-License-Identifier: Apache-2.0
//
// Structural similarity of images and its gradient, streamed.
//
// With s = x + y - 2c and d = x - y (c the centre of the data range) four filtered planes give all:
//     Ms = E[s], Md = E[d], Vs = E[s^2] - Ms^2, Vd = E[d^2] - Md^2, M = Ms + 2c = E[x + y]
//     A1 = (M^2 - Md^2)/2 + C1    A2 = n (Vs - Vd)/2 + C2     S  = A1 A2 / (B1 B2 + eps)
//     B1 = (M^2 + Md^2)/2 + C1    B2 = n (Vs + Vd)/2 + C2     CS = A2 / B2
// where n = 1 or NP/(NP-1). A convention whose window sums to W != 1 (float32 taps do) is E' = W E:
// then Vs gains (1 - W) M^2, Vd gains (1 - W) Md^2, n is n W, and C1, eps are C1 / W^2, eps / W^2.
// Taps whose float32 sum is 1 + e, though they should sum to 1, are a window that scales by 1 + e
// in error: Vs and Vd gain e Ms^2 and e Md^2 to be right. Where the images agree Md and Vd are
// small *before* anything is subtracted, so S stays at 1 and never exceeds it; centring takes the
// mean's digits out of s^2. The largest error of a float32 map on natural images is about 3e-5
// (5e-4 for E[x^2], E[y^2], E[xy]).
//
// Gradient: with q = 1/(B1 B2 + eps), P1 = g A2 q (B2 Md^2 + eps) q, P2 = g A1 q (B1 n Vd + eps) q,
// Q1 = g q (A2 + S B2), Q2 = g q (A1 + S B1), and g = dLoss/dS,
//     Ts = dLoss/dE[s^2] = n P2 / 2        Gs = dLoss/dMs = M P1 - 2 Ms Ts
//     Td = dLoss/dE[d^2] = -n Q2 / 2       Gd = dLoss/dMd = -Md Q1 - 2 Md Td
// (P1 and P2 are differences A2 - S B2 and A1 - S B1 written without the cancellation) and, with F'
// the adjoint filter,
//     dLoss/dx = F'[Gs + Gd] + 2 s F'[Ts] + 2 d F'[Td]   (three filters; four when y wants one
//     too).
//
// A task walks a strip of columns downwards. Rows are filtered along the row as they come in and
// kept in a window of rows; blocks of kBlock rows are then filtered downwards, panel by panel, so
// that every intermediate stays in the L1 and L2 caches and nothing image-sized exists. The
// backward pass is the same walk with a second such stage behind the first: what the forward pass
// computes is computed again rather than stored.
//
// Cost per pixel, 11 taps: 48 multiply-adds and 40 additions in four filters twice, 30 for the
// formula, one division, two transposed loads; the gradient adds 36 and 30 for three filters twice.
#pragma once
#include "arena-inl.hpp"
#include "filter-inl.hpp"
#include "rows-inl.hpp"
#include "ssim-call.hpp"

namespace {

using sosie::Kind;
using sosie::SSIMBackward;
using sosie::SSIMForward;
using sosie::SSIMPartial;
using sosie::SSIMProblem;
using sosie::Window;

constexpr int kBlock = 32;           // rows filtered downwards at once
constexpr int kRowBytes = 2048;      // of one segmented row of one plane
constexpr int kForwardChunk = 128;   // rows of the map per task
constexpr int kBackwardChunk = 256;  // rows of the gradient per task

// Vectors per buffered row: whole panels, and an odd number of cache lines, so that the rows of a
// column do not all fall into the same set of the cache.
template <class T>
constexpr int64_t row_pitch(int64_t vectors) {
    constexpr int64_t line = 64 / SOSIE_VECTOR_BYTES;
    const int64_t lines = divide_up(round_up(vectors, kPanel), line);
    return (lines % 2 == 0 ? lines + 1 : lines) * line;
}

// How a plane of `rows` x `columns` results is cut into tasks.
template <class T>
struct Tiling {
    int64_t length;  // vectors per segmented row
    int64_t strip;   // columns per task, length * kLanes
    int64_t strips, chunk, chunks, planes;

    Tiling(const SSIMProblem& p, int64_t rows, int64_t columns, int64_t chunk_rows) {
        const int64_t widest = kRowBytes / int64_t(sizeof(T));
        const int64_t pieces = larger(divide_up(columns, widest), 1);
        length = divide_up(divide_up(columns, pieces), kLanes<T>);
        strip = length * kLanes<T>;
        strips = divide_up(columns, strip);
        chunks = larger(divide_up(rows, chunk_rows), 1);
        chunk = divide_up(rows, chunks);
        chunks = divide_up(rows, chunk);
        planes = p.shape[0] * p.shape[1];
    }
    int64_t tasks() const { return planes * strips * chunks; }
};

struct Place {
    int64_t n, c, strip, chunk;
};
template <class T>
Place place_of(const Tiling<T>& tiling, const SSIMProblem& p, int64_t task) {
    const int64_t plane = task / (tiling.strips * tiling.chunks);
    const int64_t rest = task % (tiling.strips * tiling.chunks);
    return {plane / p.shape[1], plane % p.shape[1], rest % tiling.strips, rest / tiling.strips};
}

// The constants of the formula, of images multiplied by `scale`.
template <class T>
struct Constants {
    T scale, twice_center, c1, c2, epsilon, covariance, deficit, excess, lowest, highest;
    T least_weight;  // of a window that holds a valid pixel, halved: rounding stays below it
    bool clamp_variance, clamp_value, unbalanced;

    explicit Constants(const SSIMProblem& p) {
        // Under a mask every mean is over weights that sum to 1, whatever the window does.
        const double sum = p.mask.data ? 1.0 : p.window_sum, square = p.scale * p.scale;
        scale = T(p.scale);
        twice_center = T(2 * p.center * p.scale);
        c1 = T(p.c1 * square / (sum * sum));
        c2 = T(p.c2 * square);
        epsilon = T(p.epsilon * square * square / (sum * sum));
        covariance = T(p.covariance_scale * sum);
        deficit = T(1.0 - sum);
        const double rounded_sum = measure_taps(p);
        excess = p.mask.data ? T(0) : T(1.0 - 1.0 / rounded_sum);
        unbalanced = deficit != 0 || excess > T(1e-9) || excess < T(-1e-9);
        lowest = T(p.lowest);
        highest = T(p.highest);
        clamp_variance = p.clamp_variance;
        clamp_value = p.clamp_value;
    }

  private:
    // What the taps that are really used sum to (not quite 1 for equal taps in float32), and the
    // least that one of them can weigh.
    double measure_taps(const SSIMProblem& p) {
        double sum = 1, least = 0.5;
        T rounded[kLargestWindow];
        for (const Window& w : p.windows) {
            sum *= round_taps<T>(w.taps, w.size, rounded);
            double smallest = 1;
            for (int i = 0; i < w.size; ++i)
                if (rounded[i] > 0 && rounded[i] < smallest) smallest = double(rounded[i]);
            least *= smallest;
        }
        least_weight = T(least);
        return sum;
    }
};

// The planes of the first stage. Filtered both ways: the moments and, under a mask, its weight.
// Kept as they are, for the rows they belong to: the mask at the window's centre; s and d for the
// last step of the gradient.
enum Plane { kSum, kDifference, kSumSquare, kDifferenceSquare, kWeight };

template <class T>
struct Moments {
    Vec<T> mean_s, mean_d, var_s, var_d;
    Vec<T> inverse_weight;  // 1 without a mask
    Mask<T> clamped_s, clamped_d;
};

template <class T, bool Masked>
inline Moments<T> moments(const Vec<T>* panel, ptrdiff_t plane, const Constants<T>& k) {
    Moments<T> m;
    m.mean_s = panel[kSum * plane];
    m.mean_d = panel[kDifference * plane];
    Vec<T> square_s = panel[kSumSquare * plane], square_d = panel[kDifferenceSquare * plane];
    if constexpr (Masked) {
        const Vec<T> weight = panel[kWeight * plane];
        const Mask<T> some = weight > splat<T>(k.least_weight);
        m.inverse_weight = keep<T>(T(1) / weight, some);
        m.mean_s *= m.inverse_weight;
        m.mean_d *= m.inverse_weight;
        square_s *= m.inverse_weight;
        square_d *= m.inverse_weight;
    }
    m.var_s = square_s - m.mean_s * m.mean_s;
    m.var_d = square_d - m.mean_d * m.mean_d;
    if (k.unbalanced) {
        const Vec<T> mean = m.mean_s + k.twice_center;
        m.var_s += k.deficit * mean * mean + k.excess * m.mean_s * m.mean_s;
        m.var_d += (k.deficit + k.excess) * m.mean_d * m.mean_d;
    }
    if (k.clamp_variance) {
        m.clamped_s = m.var_s < Vec<T>{};
        m.clamped_d = m.var_d < Vec<T>{};
        m.var_s = m.clamped_s ? Vec<T>{} : m.var_s;
        m.var_d = m.clamped_d ? Vec<T>{} : m.var_d;
    }
    return m;
}

// Numerators, denominators and the value at one position.
template <class T>
struct Similarity {
    Vec<T> sum_mean;  // M
    Vec<T> a1, b1, a2, b2, inverse, value;
};

template <class T, Kind K>
inline Similarity<T> similarity(const Moments<T>& m, const Constants<T>& k) {
    Similarity<T> r;
    const Vec<T> half_vs = (k.covariance * T(0.5)) * m.var_s;
    const Vec<T> half_vd = (k.covariance * T(0.5)) * m.var_d;
    r.a2 = half_vs + (k.c2 - half_vd);
    r.b2 = half_vs + (k.c2 + half_vd);
    if constexpr (K == Kind::ssim) {
        r.sum_mean = m.mean_s + k.twice_center;
        const Vec<T> half_m = T(0.5) * r.sum_mean * r.sum_mean,
                     half_d = T(0.5) * m.mean_d * m.mean_d;
        r.a1 = half_m + (k.c1 - half_d);
        r.b1 = half_m + (k.c1 + half_d);
        r.inverse = T(1) / (r.b1 * r.b2 + k.epsilon);
        r.value = r.a1 * r.a2 * r.inverse;
    } else {
        r.inverse = T(1) / r.b2;
        r.value = r.a2 * r.inverse;
    }
    return r;
}

template <class T>
inline Vec<T> clamp_value(Vec<T> value, const Constants<T>& k) {
    const Vec<T> low = splat<T>(k.lowest), high = splat<T>(k.highest);
    value = value < low ? low : value;
    return value > high ? high : value;
}

// All ones where vector i of a segmented row stands at a column whose value counts: inside
// [begin, end), one of the first `owned` columns of the strip, and on the stride from `origin`.
template <class T>
void mark_columns(int64_t first_column, int64_t length, int64_t vectors, int64_t begin, int64_t end,
                  int64_t origin, int64_t stride, Mask<T>* out) {
    for (int64_t i = 0; i < vectors; ++i)
        for (int lane = 0; lane < kLanes<T>; ++lane) {
            const int64_t column = first_column + lane * length + i;
            const bool counts = column >= begin && column < end && (column - origin) % stride == 0;
            out[i][lane] = counts ? -1 : 0;
        }
}

// Reads one row of both images (and the mask) and hands out the segmented planes.
template <class T, bool Masked>
class RowReader {
  public:
    RowReader(const SSIMProblem& p, int64_t length, int64_t vectors, Arena& arena)
        : p_(p), length_(length), vectors_(vectors), total_(linear_length<T>(length, vectors)) {
        x_ = arena.take<T>(total_);
        y_ = arena.take<T>(total_);
        m_ = Masked ? arena.take<T>(total_) : nullptr;
    }

    // Columns [begin, end) matter; planes kSum.. are `pitch` vectors apart.
    void read(const Constants<T>& k, int64_t n, int64_t c, int64_t d, int64_t h, int64_t begin,
              int64_t end, Vec<T>* planes, ptrdiff_t pitch) const {
        const auto row = [&](const Array& a, T* scratch) {
            return load_row<T>(a, p_.shape, p_.border, n, c, d, h, begin, end, total_, scratch);
        };
        const T *x = row(p_.x, x_), *y = row(p_.y, y_);
        const T* m = nullptr;
        if constexpr (Masked) {
            m = row(p_.mask, m_);
            segment_row<T>(m, length_, vectors_, planes + kWeight * pitch);
        }
        // Bytes to what will be read two rows later. Harmless where the row is a copy of the
        // image's.
        const int64_t ahead_x = 2 * p_.x.strides[3] * int64_t(sizeof(T));
        const int64_t ahead_y = 2 * p_.y.strides[3] * int64_t(sizeof(T));
        const T scale = k.scale, shift = -k.twice_center;
        const auto visible = [m](Vec<T> v, int64_t i) {
            if constexpr (Masked) return keep<T>(v, load<T>(m + i) > Vec<T>{});
            return v;
        };
        const auto with_square = [=](int plane, int square) {
            Vec<T>*values = planes + plane * pitch, *squares = planes + square * pitch;
            return [=](int64_t i, Vec<T> v) {
                values[i] = v;
                squares[i] = v * v;
            };
        };
        segment<T>(
            length_, vectors_,
            [=](int64_t i) {
                // A strip's next row begins on another page, where hardware looks for nothing.
                __builtin_prefetch(reinterpret_cast<const char*>(x + i) + ahead_x, 0, 2);
                __builtin_prefetch(reinterpret_cast<const char*>(y + i) + ahead_y, 0, 2);
                return visible((load<T>(x + i) + load<T>(y + i)) * scale + shift, i);
            },
            with_square(kSum, kSumSquare));
        segment<T>(
            length_, vectors_,
            [=](int64_t i) { return visible((load<T>(x + i) - load<T>(y + i)) * scale, i); },
            with_square(kDifference, kDifferenceSquare));
    }

  private:
    const SSIMProblem& p_;
    int64_t length_, vectors_, total_;
    T *x_, *y_, *m_;
};

// A window of rows of several planes that moves down: `history` rows are carried from block to
// block.
template <class T>
class RowWindow {
  public:
    RowWindow(int planes, int64_t vectors, int history, Arena& arena)
        : planes_(planes), history_(history), pitch_(row_pitch<T>(vectors + 1)) {
        plane_ = pitch_ * (history + kBlock + 1);  // one row more: filters work in pairs
        data_ = arena.take<Vec<T>>(plane_ * planes);
    }
    Vec<T>* row(int plane, int64_t index) const { return data_ + plane * plane_ + index * pitch_; }
    ptrdiff_t pitch() const { return pitch_; }
    ptrdiff_t plane() const { return plane_; }
    // The last `history` of the window's rows become its first.
    void advance() {
        for (int plane = 0; plane < planes_; ++plane)
            __builtin_memmove(row(plane, 0), row(plane, kBlock),
                              size_t(history_ * pitch_) * sizeof(Vec<T>));
    }

  private:
    int planes_, history_;
    int64_t pitch_, plane_;
    Vec<T>* data_;
};

// The taps of an axis in the compute type, and the filters chosen for them.
template <class T>
struct Axis {
    int size, origin;
    T* taps;
    T* reversed;
    Filter<T> along, across, along_adjoint, across_adjoint;

    Axis(const Window& w, Arena& arena) : size(w.size), origin(w.origin) {
        taps = arena.take<T>(size);
        reversed = arena.take<T>(size);
        along = choose_filter<T, 1>(w.taps, size);
        across = choose_filter<T, kPanel>(w.taps, size);
    }
    void fill(const Window& w) {
        round_taps<T>(w.taps, size, taps);
        for (int k = 0; k < size; ++k) reversed[k] = taps[size - 1 - k];
    }
};

// ---------------------------------------------------------------------------------------- forward

// The first stage over one slice: rows come in, are filtered along the row into a window of rows,
// and blocks of it are filtered downwards, a panel at a time.
template <class T, bool Masked>
class SliceWalk {
  public:
    static constexpr int kFiltered = Masked ? 5 : 4;
    static constexpr ptrdiff_t kPanelPlane = (kBlock + 1) * kPanel;

    SliceWalk(const SSIMProblem& p, int64_t length, Arena& arena)
        : p_(p),
          length_(length),
          segment_pitch_(round_up(length + p.windows[2].size, kLanes<T>)),
          height_(p.windows[1], arena),
          width_(p.windows[2], arena),
          reader_(p, length, length + p.windows[2].size - 1, arena),
          window_(kFiltered + Masked, length, height_.size - 1, arena),
          segments_(arena.take<Vec<T>>(segment_pitch_ * kFiltered)),
          panel_(arena.take<Vec<T>>(kFiltered * kPanelPlane)) {}

    void prepare() {
        height_.fill(p_.windows[1]);
        width_.fill(p_.windows[2]);
    }

    // Planes of vectors j .. j + kPanel of the block, row by row, kPanelPlane apart.
    const Vec<T>* panel() const { return panel_; }
    // The mask at the window's centre; rows mask_pitch() apart.
    const Vec<T>* centre_mask(int64_t j) const {
        return window_.row(kFiltered, height_.origin) + j;
    }
    ptrdiff_t mask_pitch() const { return window_.pitch(); }

    // Rows [row_begin, row_end), columns [col_begin, col_end) of the same-size map of slice d.
    // Calls on_panel(row, rows, j) for each panel of a block of rows, then on_rows(row, rows).
    template <class OnPanel, class OnRows>
    void run(const Constants<T>& k, int64_t n, int64_t c, int64_t d, int64_t row_begin,
             int64_t row_end, int64_t col_begin, int64_t col_end, OnPanel on_panel,
             OnRows on_rows) {
        const int history = height_.size - 1;
        int64_t next_input = row_begin - height_.origin;
        for (int64_t row = row_begin; row < row_end; row += kBlock) {
            const int rows = int(smaller(kBlock, row_end - row));
            const int64_t top = row - height_.origin;
            for (; next_input < top + rows + history; ++next_input) {
                reader_.read(k, n, c, d, next_input, col_begin - width_.origin,
                             col_end - width_.origin + width_.size - 1, segments_, segment_pitch_);
                filter_row(next_input - top);
            }
            for (int64_t j = 0; j < length_; j += kPanel) {
                for (int plane = 0; plane < kFiltered; ++plane)
                    height_.across(window_.row(plane, 0) + j, window_.pitch(),
                                   panel_ + plane * kPanelPlane, kPanel, rows, height_.taps,
                                   height_.size);
                on_panel(row, rows, j);
            }
            on_rows(row, rows);
            window_.advance();
        }
    }

  private:
    void filter_row(int64_t index) {
        for (int plane = 0; plane < kFiltered; ++plane)
            width_.along(segments_ + plane * segment_pitch_, 1, window_.row(plane, index), 1,
                         int(length_), width_.taps, width_.size);
        if constexpr (Masked)
            __builtin_memcpy(window_.row(kFiltered, index),
                             segments_ + kWeight * segment_pitch_ + width_.origin,
                             size_t(length_) * sizeof(Vec<T>));
    }

    const SSIMProblem& p_;
    int64_t length_, segment_pitch_;
    Axis<T> height_, width_;
    RowReader<T, Masked> reader_;
    RowWindow<T> window_;
    Vec<T>*segments_, *panel_;
};

// The value at `columns` vectors of rows first, first + step .. below `rows` of a panel: summed,
// and kept in `values` where the map is wanted.
template <class T, Kind K, bool Masked>
void evaluate_panel(const Constants<T>& k, const Vec<T>* panel, const Vec<T>* centre_mask,
                    ptrdiff_t mask_pitch, const Mask<T>* counted, int first, int rows, int step,
                    int columns, Vec<T>* values, ptrdiff_t value_pitch, SSIMPartial& sum) {
    Vec<T> total{}, count{};
    for (int r = first; r < rows; r += step) {
        for (int j = 0; j < columns; ++j) {
            const Moments<T> m =
                moments<T, Masked>(panel + r * kPanel + j, SliceWalk<T, Masked>::kPanelPlane, k);
            Vec<T> value = similarity<T, K>(m, k).value;
            if (k.clamp_value) value = clamp_value<T>(value, k);
            Mask<T> here = counted[j];
            if constexpr (Masked) {
                value = keep<T>(value, m.inverse_weight > Vec<T>{});
                here &= centre_mask[r * mask_pitch + j] > Vec<T>{};
                count += keep<T>(splat<T>(1), here);
            }
            if (values) values[r * value_pitch + j] = value;
            total += keep<T>(value, here);
        }
    }
    sum.value += sum_lanes<T>(total);
    if constexpr (Masked) sum.count += sum_lanes<T>(count);
}

// How far position `at` is from the next one on the stride that starts at `low`.
inline int64_t to_stride(int64_t at, int64_t low, int64_t stride) {
    return (stride - (at - low) % stride) % stride;
}

// Positions of the stride that starts at `low` within [begin, end).
inline int64_t on_stride(int64_t begin, int64_t end, int64_t low, int64_t stride) {
    return divide_up(end - low, stride) - divide_up(begin - low, stride);
}

// Writes one segmented row of the map: columns [col_begin, col_end) of the same-size map.
template <class T>
void store_map_row(const Array& map, const SSIMProblem& p, int64_t n, int64_t c, int64_t d,
                   int64_t h, int64_t col_begin, int64_t col_end, const Vec<T>* values,
                   int64_t length, Vec<T>* flat_vectors) {
    T* flat = reinterpret_cast<T*>(flat_vectors);
    unsegment<T>(values, length, flat);
    const int64_t low = p.windows[2].crop_before, skip = to_stride(col_begin, low, p.stride);
    store_row<T>(map, n, c, d, h, (col_begin + skip - low) / p.stride,
                 on_stride(col_begin, col_end, low, p.stride), p.stride, flat + skip);
}

template <class T, bool Masked>
struct ForwardWorkspace {
    Arena arena;
    int64_t value_pitch;
    SliceWalk<T, Masked> walk;
    Vec<T>*values, *flat;
    Mask<T>* counted;

    ForwardWorkspace(const SSIMProblem& p, int64_t length, void* scratch)
        : arena(scratch), value_pitch(round_up(length, kLanes<T>)), walk(p, length, arena) {
        values = arena.take<Vec<T>>(kBlock * value_pitch);
        flat = arena.take<Vec<T>>(length + 1);
        counted = arena.take<Mask<T>>(length);
    }
};

template <class T, Kind K, bool Masked>
void forward_task(const SSIMForward& call, int64_t task, void* scratch, SSIMPartial* partial) {
    const SSIMProblem& p = call.problem;
    const Window &wh = p.windows[1], &ww = p.windows[2];
    const int64_t row_low = wh.crop_before, row_high = p.shape[3] - wh.crop_after;
    const int64_t col_low = ww.crop_before, col_high = p.shape[4] - ww.crop_after;
    const Tiling<T> tiling(p, row_high - row_low, col_high - col_low, kForwardChunk);
    const Place at = place_of(tiling, p, task);
    const int64_t row_begin = row_low + at.chunk * tiling.chunk;
    const int64_t row_end = smaller(row_begin + tiling.chunk, row_high);
    const int64_t col_begin = col_low + at.strip * tiling.strip;
    const int64_t col_end = smaller(col_begin + tiling.strip, col_high);
    const int64_t length = tiling.length;

    const Constants<T> k(p);
    ForwardWorkspace<T, Masked> w(p, length, scratch);
    w.walk.prepare();
    mark_columns<T>(col_begin, length, length, col_begin, col_end, col_low, p.stride, w.counted);
    const bool want_map = call.map.data != nullptr;

    *partial = SSIMPartial{};
    w.walk.run(
        k, at.n, at.c, 0, row_begin, row_end, col_begin, col_end,
        [&](int64_t row, int rows, int64_t j) {
            evaluate_panel<T, K, Masked>(
                k, w.walk.panel(), w.walk.centre_mask(j), w.walk.mask_pitch(), w.counted + j,
                int(to_stride(row, row_low, p.stride)), rows, p.stride,
                int(smaller(kPanel, length - j)), want_map ? w.values + j : nullptr, w.value_pitch,
                *partial);
        },
        [&](int64_t row, int rows) {
            if (!want_map) return;
            for (int r = int(to_stride(row, row_low, p.stride)); r < rows; r += p.stride)
                store_map_row<T>(call.map, p, at.n, at.c, 0, (row + r - row_low) / p.stride,
                                 col_begin, col_end, w.values + r * w.value_pitch, length, w.flat);
        });
    if constexpr (!Masked)
        partial->count = double(on_stride(row_begin, row_end, row_low, p.stride)) *
                         double(on_stride(col_begin, col_end, col_low, p.stride));
}

template <class T>
Tiling<T> forward_tiling(const SSIMProblem& p) {
    const Window &h = p.windows[1], &w = p.windows[2];
    return Tiling<T>(p, p.shape[3] - h.crop_before - h.crop_after,
                     p.shape[4] - w.crop_before - w.crop_after, kForwardChunk);
}

template <class T>
int64_t forward_tasks(const SSIMForward& call) {
    return forward_tiling<T>(call.problem).tasks();
}

template <class T>
size_t forward_scratch(const SSIMForward& call) {
    const Tiling<T> tiling = forward_tiling<T>(call.problem);
    return ForwardWorkspace<T, true>(call.problem, tiling.length, nullptr).arena.used();
}

template <class T>
void run_forward(const SSIMForward& call, int64_t task, void* scratch, SSIMPartial* partial) {
    const bool masked = call.problem.mask.data != nullptr;
    if (call.problem.kind == Kind::ssim)
        (masked ? forward_task<T, Kind::ssim, true>
                : forward_task<T, Kind::ssim, false>)(call, task, scratch, partial);
    else
        (masked ? forward_task<T, Kind::contrast_structure, true>
                : forward_task<T, Kind::contrast_structure, false>)(call, task, scratch, partial);
}

}  // namespace
