// SPDX-License-Identifier: Apache-2.0
//
// The gradient of structural similarity, streamed: the walk of ssim-inl.hpp, where the formula
// stands, with a second window of rows behind the first. The first stage makes the values'
// coefficients again rather than read them; the second applies the adjoint filters to them. Where
// the border shows copies of a pixel, the rows and columns near it have adjoint taps of their own
// (Window::folded).
#pragma once
#include "ssim-inl.hpp"

namespace {

// The planes of the second stage. With one gradient wanted Gs and Gd are filtered as their sum.
// The factors 2 of the formula are inside Ts and Td.
template <bool Both>
struct Coefficients {
    static constexpr int kPlanes = Both ? 4 : 3;
    static constexpr int kMean = 0, kMeanDifference = 1;
    static constexpr int kSquareSum = Both ? 2 : 1, kSquareDifference = Both ? 3 : 2;
};

// `planes` coefficients at one position, of a value whose gradient is `g`.
template <class T, Kind K, bool Masked, bool Both>
inline void coefficients(const Moments<T>& m, const Similarity<T>& r, Vec<T> g, Mask<T> inside,
                         const Constants<T>& k, Vec<T>* out, ptrdiff_t plane) {
    const Vec<T> difference = k.covariance * m.var_d;  // B2 - A2
    Vec<T> mean_s{}, mean_d{}, p2, q2;
    g = g * r.inverse;
    if constexpr (K == Kind::ssim) {
        const Vec<T> square_d = m.mean_d * m.mean_d;
        const Vec<T> p1 = g * (r.a2 * r.inverse) * (r.b2 * square_d + k.epsilon);
        const Vec<T> q1 = g * (r.a2 + r.value * r.b2);
        p2 = g * (r.a1 * r.inverse) * (r.b1 * difference + k.epsilon);
        q2 = g * (r.a1 + r.value * r.b1);
        mean_s = r.sum_mean * p1;
        mean_d = -(m.mean_d * q1);
    } else {
        p2 = g * (difference * r.inverse);
        q2 = g * (T(1) + r.value);
    }
    Vec<T> square_s = k.covariance * p2, square_d = -(k.covariance * q2);
    if (k.clamp_variance) {
        square_s = keep<T>(square_s, ~m.clamped_s);
        square_d = keep<T>(square_d, ~m.clamped_d);
    }
    mean_s -= m.mean_s * square_s;
    mean_d -= m.mean_d * square_d;
    if (k.unbalanced) {
        mean_s += (k.deficit * (m.mean_s + k.twice_center) + k.excess * m.mean_s) * square_s;
        mean_d += (k.deficit + k.excess) * m.mean_d * square_d;
    }
    if constexpr (Masked) {
        mean_s *= m.inverse_weight;
        mean_d *= m.inverse_weight;
        square_s *= m.inverse_weight;
        square_d *= m.inverse_weight;
    }
    using C = Coefficients<Both>;
    if constexpr (Both) {
        out[C::kMean * plane] = keep<T>(mean_s, inside);
        out[C::kMeanDifference * plane] = keep<T>(mean_d, inside);
    } else {
        out[C::kMean * plane] = keep<T>(mean_s + mean_d, inside);
    }
    out[C::kSquareSum * plane] = keep<T>(square_s, inside);
    out[C::kSquareDifference * plane] = keep<T>(square_d, inside);
}

// The value at one position of a panel, and its coefficients; `inside` says where they are not 0,
// and `counted`, narrowed here, where the value counts.
template <class T, Kind K, bool Masked, bool Both>
inline Vec<T> evaluate_with_gradient(const Vec<T>* panel, const Constants<T>& k, Vec<T> upstream,
                                     bool upstream_is_map, Mask<T> centre, Mask<T> inside,
                                     Mask<T>& counted, Vec<T>* out, ptrdiff_t out_plane) {
    const Moments<T> m = moments<T, Masked>(panel, SliceWalk<T, Masked>::kPanelPlane, k);
    const Similarity<T> s = similarity<T, K>(m, k);
    Vec<T> value = s.value;
    if constexpr (Masked) {
        // A map has a value wherever a window holds a valid pixel; a mean is over valid centres.
        const Mask<T> some = m.inverse_weight > Vec<T>{};
        inside &= upstream_is_map ? some : (some & centre);
        counted &= centre;
        value = keep<T>(value, some);
    }
    if (k.clamp_value) {
        value = clamp_value<T>(value, k);
        inside &= (value == s.value);
    }
    // A gradient of the images needs the factor that the scaled images brought.
    coefficients<T, K, Masked, Both>(m, s, upstream * k.scale, inside, k, out, out_plane);
    return value;
}

template <class T, bool Masked, bool Both>
struct BackwardWorkspace {
    static constexpr int kFiltered = Masked ? 5 : 4;
    static constexpr int kRawSum = kFiltered, kRawDifference = kFiltered + 1,
                         kRawMask = kFiltered + 2;
    static constexpr int kCoefficients = Coefficients<Both>::kPlanes;
    int64_t map_vectors;  // of a segmented row of the map: `length` and the reach of the window
    int64_t vectors;      // of a segmented row of the images
    int64_t segment_pitch, map_pitch, value_pitch;
    Arena arena;
    Axis<T> height, width;
    RowReader<T, Masked> reader;
    RowWindow<T> window, coefficient_window;
    Vec<T>*segments, *panel, *rows, *upstream, *grad_x, *grad_y, *flat;
    T *upstream_row, *folded;
    Mask<T>*inside, *owned, *pixels;

    BackwardWorkspace(const SSIMBackward& call, const Tiling<T>& tiling, void* scratch)
        : map_vectors(tiling.length + call.problem.windows[2].size - 1),
          vectors(map_vectors + call.problem.windows[2].size - 1),
          segment_pitch(round_up(vectors + 1, kLanes<T>)),
          map_pitch(round_up(map_vectors + kPanel, kLanes<T>)),
          value_pitch(round_up(tiling.length, kLanes<T>)),
          arena(scratch),
          height(call.problem.windows[1], arena),
          width(call.problem.windows[2], arena),
          reader(call.problem, tiling.length, vectors, arena),
          window(kFiltered + 2 + Masked, map_vectors, height.size - 1, arena),
          coefficient_window(kCoefficients, tiling.length, height.size - 1, arena) {
        segments = arena.take<Vec<T>>(segment_pitch * kFiltered);
        panel = arena.take<Vec<T>>(kFiltered * (kBlock + 1) * kPanel);
        rows = arena.take<Vec<T>>(kCoefficients * kBlock * map_pitch);
        upstream = arena.take<Vec<T>>(kBlock * map_pitch);
        grad_x = arena.take<Vec<T>>(kBlock * value_pitch);
        grad_y = Both ? arena.take<Vec<T>>(kBlock * value_pitch) : nullptr;
        flat = arena.take<Vec<T>>(tiling.length + 1);
        upstream_row = arena.take<T>(linear_length<T>(tiling.length, map_vectors));
        folded = arena.take<T>(height.size);
        inside = arena.take<Mask<T>>(map_vectors);
        owned = arena.take<Mask<T>>(map_vectors);
        pixels = arena.take<Mask<T>>(tiling.length);
    }
};

// One gradient row's place among the rows or columns whose adjoint has taps of its own, or -1.
inline int64_t folded_row(const Window& w, int64_t position, int64_t length) {
    if (position < w.fold_before) return position;
    if (position >= length - w.fold_after)
        return w.fold_before + position - (length - w.fold_after);
    return -1;
}

// The adjoint filter along a segmented row, then again, lane by lane, the columns near a border.
template <class T>
void adjoint_along(const Axis<T>& axis, const Window& w, const Vec<T>* in, Vec<T>* out,
                   int64_t length, int64_t first_column, int64_t width) {
    axis.along(in, 1, out, 1, int(length), axis.reversed, axis.size);
    const int64_t last_column = smaller(first_column + length * kLanes<T>, width);
    const auto fold = [&](int64_t column) {
        const double* taps = w.folded + folded_row(w, column, width) * axis.size;
        const int64_t lane = (column - first_column) / length, i = (column - first_column) % length;
        T sum = 0;
        for (int k = 0; k < axis.size; ++k) sum += T(taps[k]) * in[i + k][lane];
        out[i][lane] = sum;
    };
    for (int64_t c = first_column; c < smaller(last_column, w.fold_before); ++c) fold(c);
    for (int64_t c = larger(first_column, larger(w.fold_before, width - w.fold_after));
         c < last_column; ++c)
        fold(c);
}

// The adjoint filter across rows [begin, end) of a panel; `first_row` is the gradient row of row 0.
template <class T>
void adjoint_across(const Axis<T>& axis, const Window& w, const Vec<T>* in, ptrdiff_t pitch,
                    Vec<T>* out, int begin, int end, int64_t first_row, int64_t height, T* folded) {
    for (int r = begin; r < end;) {
        const int64_t fold = folded_row(w, first_row + r, height);
        if (fold >= 0) {
            for (int k = 0; k < axis.size; ++k) folded[k] = T(w.folded[fold * axis.size + k]);
            general_filter<T, kPanel>(in + r * pitch, pitch, out + r * kPanel, kPanel, 1, folded,
                                      axis.size);
            ++r;
            continue;
        }
        int run = r + 1;
        while (run < end && folded_row(w, first_row + run, height) < 0) ++run;
        axis.across(in + r * pitch, pitch, out + r * kPanel, kPanel, run - r, axis.reversed,
                    axis.size);
        r = run;
    }
}

// The gradient at one pixel from the filtered coefficients of a panel.
template <class T, bool Both>
inline void combine(const Vec<T>* panel, Vec<T> s, Vec<T> d, T l1_weight, Vec<T>& x, Vec<T>& y) {
    using C = Coefficients<Both>;
    constexpr ptrdiff_t plane = (kBlock + 1) * kPanel;
    const Vec<T> weight = splat<T>(l1_weight);
    const Vec<T> sign = d > Vec<T>{} ? weight : (d < Vec<T>{} ? -weight : Vec<T>{});
    const Vec<T> from_s = panel[C::kMean * plane] + s * panel[C::kSquareSum * plane];
    Vec<T> from_d = d * panel[C::kSquareDifference * plane] + sign;
    if constexpr (Both) from_d += panel[C::kMeanDifference * plane];
    x = from_s + from_d;
    y = from_s - from_d;
}

template <class T>
inline double count_lanes(Mask<T> mask) {
    int64_t count = 0;
    for (int lane = 0; lane < kLanes<T>; ++lane) count -= mask[lane];
    return double(count);
}

// A task of the backward pass: rows [row_begin, row_end) and `strip` columns of the gradient.
template <class T, Kind K, bool Masked, bool Both>
class BackwardTask {
  public:
    BackwardTask(const SSIMBackward& call, int64_t task, void* scratch, SSIMPartial* partial)
        : call_(call),
          p_(call.problem),
          wh_(p_.windows[1]),
          ww_(p_.windows[2]),
          tiling_(p_, p_.shape[3], p_.shape[4], kBackwardChunk),
          at_(place_of(tiling_, p_, task)),
          k_(p_),
          w_(call, tiling_, scratch),
          partial_(*partial) {
        row_begin_ = at_.chunk * tiling_.chunk;
        row_end_ = smaller(row_begin_ + tiling_.chunk, p_.shape[3]);
        col_begin_ = at_.strip * tiling_.strip;
        col_end_ = smaller(col_begin_ + tiling_.strip, p_.shape[4]);
        map_low_ = wh_.crop_before;
        map_high_ = p_.shape[3] - wh_.crop_after;
        reach_above_ = wh_.size - 1 - wh_.origin;  // of the gradient into the map
        map_column_ = col_begin_ - (ww_.size - 1 - ww_.origin);
        partial_ = SSIMPartial{};
        w_.height.fill(wh_);
        w_.width.fill(ww_);
        mark();
        l1_weight_ = call.l1_weights ? T(call.l1_weights[at_.n * p_.shape[1] + at_.c]) : T(0);
    }

    void run() {
        const int history = w_.height.size - 1;
        const int64_t map_begin = row_begin_ - reach_above_, map_end = row_end_ + wh_.origin;
        int64_t next_input = map_begin - wh_.origin;
        for (int64_t row = map_begin; row < map_end; row += kBlock) {
            const int rows = int(smaller(kBlock, map_end - row));
            const int64_t top =
                row - wh_.origin;  // image row of the window's first, gradient row too
            for (; next_input < top + rows + history; ++next_input)
                read_row(next_input, next_input - top);
            make_coefficients(row, rows);
            for (int r = 0; r < rows; ++r) filter_coefficients(r, r + history);
            const int begin = int(smaller(larger(row_begin_ - top, 0), rows));
            const int end = int(larger(smaller(row_end_ - top, rows), begin));
            make_gradient(top, begin, end);
            w_.window.advance();
            w_.coefficient_window.advance();
        }
        if constexpr (!Masked)
            partial_.pixels = double(row_end_ - row_begin_) * double(col_end_ - col_begin_);
    }

  private:
    using W = BackwardWorkspace<T, Masked, Both>;
    using C = Coefficients<Both>;

    void mark() {
        const int64_t low = ww_.crop_before, high = p_.shape[4] - ww_.crop_after;
        const int64_t reach = col_begin_ - map_column_;
        mark_columns<T>(map_column_, tiling_.length, w_.map_vectors, low, high, low, p_.stride,
                        w_.inside);
        mark_columns<T>(col_begin_, tiling_.length, tiling_.length, col_begin_, col_end_, 0, 1,
                        w_.pixels);
        for (int64_t i = 0; i < w_.map_vectors; ++i) {
            const bool ours = i >= reach && i < reach + tiling_.length;
            w_.owned[i] = ours ? w_.inside[i] & w_.pixels[i - reach] : Mask<T>{};
        }
    }

    // Rows of the map that have a value: elsewhere the coefficients are 0.
    bool on_map(int64_t row) const {
        return row >= map_low_ && row < map_high_ && (row - map_low_) % p_.stride == 0;
    }

    // Stage 1: an image row, filtered along the row, into the window; s and d beside it as they
    // are.
    void read_row(int64_t row, int64_t index) {
        const int64_t first = map_column_ - ww_.origin;
        const bool seen = row + wh_.origin >= map_low_ && row - reach_above_ < map_high_;
        const bool ours = row >= row_begin_ && row < row_end_;
        if (!seen && !ours) return;
        w_.reader.read(k_, at_.n, at_.c, 0, row, first, col_end_ + ww_.size - 1, w_.segments,
                       w_.segment_pitch);
        for (int plane = 0; plane < W::kFiltered; ++plane)
            w_.width.along(w_.segments + plane * w_.segment_pitch, 1, w_.window.row(plane, index),
                           1, int(w_.map_vectors), w_.width.taps, w_.width.size);
        const auto raw = [&](int plane, int target, int64_t from, int64_t count) {
            __builtin_memcpy(w_.window.row(target, index),
                             w_.segments + plane * w_.segment_pitch + from,
                             size_t(count) * sizeof(Vec<T>));
        };
        raw(kSum, W::kRawSum, ww_.size - 1, tiling_.length);
        raw(kDifference, W::kRawDifference, ww_.size - 1, tiling_.length);
        if constexpr (Masked) raw(kWeight, W::kRawMask, ww_.origin, w_.map_vectors);
    }

    // The upstream gradient of one row of the map, segmented.
    void read_upstream(int64_t row, Vec<T>* out) {
        const int64_t low = ww_.crop_before, high = p_.shape[4] - ww_.crop_after;
        const int64_t total = linear_length<T>(tiling_.length, w_.map_vectors);
        const Array& u = call_.upstream;
        const int64_t offset = offset_of(u, at_.n, at_.c, 0, (row - map_low_) / p_.stride);
        const T* source = static_cast<const T*>(u.data) + offset;
        for (int64_t i = 0; i < total; ++i) {
            const int64_t column = map_column_ + i - low;
            const bool counts = column >= 0 && column < high - low && column % p_.stride == 0;
            w_.upstream_row[i] = counts ? source[column / p_.stride * u.strides[4]] : T(0);
        }
        segment_row<T>(w_.upstream_row, tiling_.length, w_.map_vectors, out);
    }

    // Stage 1 across rows, and the formula: `rows` rows of coefficients from map row `row`.
    void make_coefficients(int64_t row, int rows) {
        int begin = 0, end = rows;
        while (begin < end && (row + begin < map_low_ || row + begin >= map_high_)) ++begin;
        while (end > begin && row + end - 1 >= map_high_) --end;
        const T plane_upstream =
            call_.upstream_is_map
                ? T(0)
                : static_cast<const T*>(
                      call_.upstream.data)[offset_of(call_.upstream, at_.n, at_.c, 0, 0)];
        for (int r = 0; r < rows; ++r) {
            if (r < begin || r >= end || !on_map(row + r)) {
                for (int plane = 0; plane < C::kPlanes; ++plane)
                    __builtin_memset(w_.rows + (plane * kBlock + r) * w_.map_pitch, 0,
                                     size_t(w_.map_vectors) * sizeof(Vec<T>));
            } else if (call_.upstream_is_map) {
                read_upstream(row + r, w_.upstream + r * w_.map_pitch);
            }
        }
        if (begin == end) return;
        Vec<T> total{}, count{};
        for (int64_t j = 0; j < w_.map_vectors; j += kPanel) {
            for (int plane = 0; plane < W::kFiltered; ++plane)
                w_.height.across(w_.window.row(plane, begin) + j, w_.window.pitch(),
                                 w_.panel + (plane * (kBlock + 1) + begin) * kPanel, kPanel,
                                 end - begin, w_.height.taps, w_.height.size);
            for (int r = begin; r < end; ++r)
                if (on_map(row + r)) coefficients_row(row, r, j, plane_upstream, total, count);
        }
        partial_.value += sum_lanes<T>(total);
        partial_.count += sum_lanes<T>(count);
    }

    void coefficients_row(int64_t row, int r, int64_t j, T plane_upstream, Vec<T>& total,
                          Vec<T>& count) {
        const bool row_owned = row + r >= row_begin_ && row + r < row_end_;
        const int columns = int(smaller(kPanel, w_.map_vectors - j));
        for (int c = 0; c < columns; ++c) {
            Mask<T> inside = w_.inside[j + c], counted = w_.owned[j + c];
            Mask<T> centre = ~Mask<T>{};
            if constexpr (Masked)
                centre = w_.window.row(W::kRawMask, r + wh_.origin)[j + c] > Vec<T>{};
            const Vec<T> g = call_.upstream_is_map ? w_.upstream[r * w_.map_pitch + j + c]
                                                   : splat<T>(plane_upstream);
            const Vec<T> value = evaluate_with_gradient<T, K, Masked, Both>(
                w_.panel + r * kPanel + c, k_, g, call_.upstream_is_map, centre, inside, counted,
                w_.rows + r * w_.map_pitch + j + c, kBlock * w_.map_pitch);
            if (row_owned) {
                total += keep<T>(value, counted);
                count += keep<T>(splat<T>(1), counted);
            }
        }
    }

    // Stage 2: a row of coefficients, adjoint-filtered along the row, into the second window.
    void filter_coefficients(int r, int index) {
        for (int plane = 0; plane < C::kPlanes; ++plane)
            adjoint_along<T>(w_.width, ww_, w_.rows + (plane * kBlock + r) * w_.map_pitch,
                             w_.coefficient_window.row(plane, index), tiling_.length, col_begin_,
                             p_.shape[4]);
    }

    // Stage 2 across rows: rows [begin, end) of the gradient, row 0 being image row `top`.
    void make_gradient(int64_t top, int begin, int end) {
        if (begin == end) return;
        Vec<T> l1{};
        for (int64_t j = 0; j < tiling_.length; j += kPanel) {
            for (int plane = 0; plane < C::kPlanes; ++plane)
                adjoint_across<T>(w_.height, wh_, w_.coefficient_window.row(plane, 0) + j,
                                  w_.coefficient_window.pitch(),
                                  w_.panel + plane * (kBlock + 1) * kPanel, begin, end, top,
                                  p_.shape[3], w_.folded);
            const int columns = int(smaller(kPanel, tiling_.length - j));
            for (int r = begin; r < end; ++r)
                for (int c = 0; c < columns; ++c) gradient_at(r, j, c, l1);
        }
        partial_.l1 += sum_lanes<T>(l1) / p_.scale;
        for (int r = begin; r < end; ++r) {
            write_gradient(call_.grad_x, w_.grad_x, top + r, r);
            if constexpr (Both) write_gradient(call_.grad_y, w_.grad_y, top + r, r);
        }
    }

    void gradient_at(int r, int64_t j, int c, Vec<T>& l1) {
        Mask<T> valid = w_.pixels[j + c];
        if constexpr (Masked)
            valid &= w_.window.row(W::kRawMask, r)[j + c + ww_.size - 1 - ww_.origin] > Vec<T>{};
        const Vec<T> s = w_.window.row(W::kRawSum, r)[j + c];
        const Vec<T> d = w_.window.row(W::kRawDifference, r)[j + c];
        l1 += keep<T>(absolute<T>(d), valid);
        Vec<T> x, y;
        combine<T, Both>(w_.panel + r * kPanel + c, s, d, l1_weight_, x, y);
        if constexpr (Masked) {
            x = keep<T>(x, valid);
            y = keep<T>(y, valid);
            partial_.pixels += count_lanes<T>(valid);
        }
        w_.grad_x[r * w_.value_pitch + j + c] = x;
        if constexpr (Both) w_.grad_y[r * w_.value_pitch + j + c] = y;
    }

    void write_gradient(const Array& target, const Vec<T>* rows, int64_t row, int r) {
        T* flat = reinterpret_cast<T*>(w_.flat);
        unsegment<T>(rows + r * w_.value_pitch, tiling_.length, flat);
        store_row<T>(target, at_.n, at_.c, 0, row, col_begin_, col_end_ - col_begin_, 1, flat);
    }

    const SSIMBackward& call_;
    const SSIMProblem& p_;
    const Window &wh_, &ww_;
    Tiling<T> tiling_;
    Place at_;
    Constants<T> k_;
    W w_;
    SSIMPartial& partial_;
    int64_t row_begin_, row_end_, col_begin_, col_end_, map_low_, map_high_, reach_above_,
        map_column_;
    T l1_weight_;
};

template <class T>
Tiling<T> backward_tiling(const SSIMProblem& p) {
    return Tiling<T>(p, p.shape[3], p.shape[4], kBackwardChunk);
}

template <class T>
int64_t backward_tasks(const SSIMBackward& call) {
    return backward_tiling<T>(call.problem).tasks();
}

template <class T>
size_t backward_scratch(const SSIMBackward& call) {
    // The largest variant: a mask and two gradients.
    return BackwardWorkspace<T, true, true>(call, backward_tiling<T>(call.problem), nullptr)
        .arena.used();
}

template <class T, Kind K>
void run_backward_kind(const SSIMBackward& call, int64_t task, void* scratch,
                       SSIMPartial* partial) {
    const bool masked = call.problem.mask.data, both = call.grad_y.data;
    if (masked && both) return BackwardTask<T, K, true, true>(call, task, scratch, partial).run();
    if (masked) return BackwardTask<T, K, true, false>(call, task, scratch, partial).run();
    if (both) return BackwardTask<T, K, false, true>(call, task, scratch, partial).run();
    return BackwardTask<T, K, false, false>(call, task, scratch, partial).run();
}

template <class T>
void run_backward(const SSIMBackward& call, int64_t task, void* scratch, SSIMPartial* partial) {
    (call.problem.kind == Kind::ssim
         ? run_backward_kind<T, Kind::ssim>
         : run_backward_kind<T, Kind::contrast_structure>)(call, task, scratch, partial);
}

}  // namespace
