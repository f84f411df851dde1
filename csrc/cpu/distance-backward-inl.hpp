// SPDX-License-Identifier: Apache-2.0
//
// Gradients of distances, in the direct form
//     dLoss/da_i = sum_j f_ij (a_i - b_j),    f = g / d | 2 g | g    (euclidean | squared | cosine)
// with g the upstream gradient and d the distance; f is 0 where d is. The form a_i sum_j f_ij -
// sum_j f_ij b_j is a matrix product, and what remains of a near pair's gradient in it is rounding.
//
// The cosine's is that of half the squared distance of unit vectors u = a / |a|. Of h, the sum
// above for these, the part along u has to go: dLoss/da = (h - (h u) u) / |a|. What is left can be
// small beside h, and u has been rounded; so the cosine's gradient is computed in double, whatever
// the vectors' type.
//
// Most pairs are far apart, as far as their vectors are from a point c between them. For those
//     h_i = (a_i - c) sum_j f_ij - sum_j f_ij (b_j - c)
// rounds no more than the direct form, and the second sum is a matrix product: a multiply-add per
// partner and dimension. Near pairs, which it would cost their digits, are added directly. A task
// has a block of vectors, whose mean is its c, and goes over all partners and dimensions.
#pragma once
#include "distance-inl.hpp"

namespace {

using sosie::DistanceBackward;
using sosie::NeighbourBackward;

constexpr int64_t kGradientBlockRows = 32 * kTileRows, kPartners = 256;
constexpr int64_t kGradientBytes = 8 << 20;  // of a task's vectors and sums, which it reads in turn
// A pair is near when its squared distance is below this part of |a - c|^2 + |b - c|^2: what
// float32 rounds off those is then 1e-5 of the difference at most.
constexpr double kNear = 1e-3;
constexpr int64_t kRowsAhead = 4;

// sums[r] += sum_j factors[r][j] y[j]: a group of rows, kPanelColumns dimensions. Rows of sums are
// `pitch` apart, those of factors kPartners.
template <class T>
void add_products(const T* y, const T* factors, int64_t partners, int64_t pitch, T* sums) {
    Vec<T> total[kTileRows][kTileVectors] = {};
    for (int64_t j = 0; j < partners; ++j) {
        Vec<T> other[kTileVectors];
#pragma GCC unroll 8
        for (int c = 0; c < kTileVectors; ++c)
            other[c] = load<T>(y + j * kPanelColumns<T> + c * kLanes<T>);
#pragma GCC unroll 8
        for (int r = 0; r < kTileRows; ++r) {
            const Vec<T> factor = splat<T>(factors[r * kPartners + j]);
#pragma GCC unroll 8
            for (int c = 0; c < kTileVectors; ++c) total[r][c] += factor * other[c];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < kTileVectors; ++c) {
            T* place = sums + r * pitch + c * kLanes<T>;
            store<T>(place, load<T>(place) + total[r][c]);
        }
}

template <class T>
double product(const T* a, const T* b, int64_t count) {
    double sum = 0;
    for (int64_t k = 0; k < count; ++k) sum += double(a[k]) * double(b[k]);
    return sum;
}

// `h` to the gradient of the vector as it was given; `own` is the vector as the reader gives it.
template <class T>
void finish_gradient(const DistanceProblem& p, int64_t n, int64_t row, const T* own, T* h) {
    if (p.metric != Metric::cosine) {
        if (p.weights)
            for (int64_t k = 0; k < p.dims; ++k) h[k] *= T(p.weights[k]);
        return;
    }
    const double norm = p.norms_a[n * p.rows + row];
    const T along = T(product(h, own, p.dims)), inverse = T(norm > 0 ? 1 / norm : norm);
    for (int64_t k = 0; k < p.dims; ++k) h[k] = (h[k] - along * own[k]) * inverse;
    if (p.weights)
        for (int64_t k = 0; k < p.dims; ++k) h[k] *= T(__builtin_sqrt(p.weights[k]));
}

// Vectors of a task: fewer where they are long.
template <class T>
int64_t gradient_rows(const DistanceProblem& p) {
    const int64_t affordable = kGradientBytes / (3 * larger(p.dims, 1) * int64_t(sizeof(T)));
    const int64_t rows = smaller(kGradientBlockRows, p.rows);
    return larger(smaller(round_up(rows, kTileRows), affordable / kTileRows * kTileRows),
                  kTileRows);
}

template <class T>
class GradientTask {
  public:
    GradientTask(const DistanceBackward& call, int64_t task, void* scratch)
        : call_(call),
          p_(call.problem),
          a_(p_, p_.a, p_.norms_a, p_.rows),
          b_(p_, p_.b, p_.norms_b, p_.columns),
          pitch_(round_up(larger(p_.dims, 1), kPanelColumns<T>)),
          arena_(scratch) {
        const int64_t block = gradient_rows<T>(p_), blocks = larger(divide_up(p_.rows, block), 1);
        n_ = task / blocks;
        row_ = task % blocks * block;
        rows_ = smaller(block, p_.rows - row_);
        own_ = arena_.take<T>(block * pitch_);
        products_ = arena_.take<T>(block * pitch_);
        near_ = arena_.take<T>(block * pitch_);
        others_ = arena_.take<T>(kPartners * kPanelColumns<T>);
        factors_ = arena_.take<T>((block + 1) * kPartners);
        distances_ = arena_.take<T>((block + 1) * kPartners);
        centre_ = arena_.take<T>(pitch_);
        row_a_ = arena_.take<T>(pitch_);
        row_b_ = arena_.take<T>(pitch_);
        square_a_ = arena_.take<T>(block);
        square_b_ = arena_.take<T>(kPartners);
        length_b_ = arena_.take<T>(kPartners);
        factor_sums_ = arena_.take<double>(block);
        block_ = block;
    }
    size_t scratch_bytes() const { return arena_.used(); }

    void run() {
        const auto clear = [](auto* values, int64_t count) {
            __builtin_memset(values, 0, size_t(count) * sizeof *values);
        };
        clear(own_, block_ * pitch_);
        clear(products_, block_ * pitch_);
        clear(near_, block_ * pitch_);
        clear(factors_, block_ * kPartners);  // rows beyond the last go along with it
        clear(centre_, pitch_);
        clear(row_b_, pitch_);
        clear(factor_sums_, block_);
        read_own();
        for (int64_t column = 0; column < p_.columns; column += kPartners)
            add_partners(column, smaller(kPartners, p_.columns - column));
        for (int64_t r = 0; r < rows_; ++r) write(r);
    }

  private:
    void read_own() {
        for (int64_t r = 0; r < rows_; ++r) {
            T* own = own_ + r * pitch_;
            copy(a_, row_ + r, 0, p_.dims, own);
            // Any centre is right. A bad vector must not spoil those of the others.
            for (int64_t k = 0; k < p_.dims; ++k)
                centre_[k] += own[k] - own[k] == 0 ? own[k] / T(rows_) : T(0);
        }
        for (int64_t k = 0; k < p_.dims; ++k)
            centre_[k] = centre_[k] - centre_[k] == 0 ? centre_[k] : T(0);
        for (int64_t r = 0; r < rows_; ++r) square_a_[r] = take_out_centre(own_ + r * pitch_);
    }

    void copy(const Reader<T>& reader, int64_t vector, int64_t first, int64_t count, T* out) const {
        const T* values = reader.read(n_, vector, first, count, out);
        if (values != out) __builtin_memcpy(out, values, size_t(count) * sizeof(T));
    }

    // Returns the squared length of what is left.
    T take_out_centre(T* values) const {
        Vec<T> sum{};
        for (int64_t k = 0; k < pitch_; k += kLanes<T>) {
            const Vec<T> less = load<T>(values + k) - load<T>(centre_ + k);
            store<T>(values + k, less);
            sum += less * less;
        }
        return T(sum_lanes<T>(sum));
    }

    void add_partners(int64_t column, int64_t partners) {
        for (int64_t j = 0; j < partners; ++j) {
            b_.fetch(n_, column + j + 2, 0, p_.dims);
            copy(b_, column + j, 0, p_.dims, row_b_);
            square_b_[j] = take_out_centre(row_b_);
            for (int64_t k = p_.dims; k < pitch_; ++k) row_b_[k] = 0;
            if (p_.norms_b) length_b_[j] = T(p_.norms_b[n_ * p_.columns + column + j]);
        }
        // Beyond the last partner nothing is near, and nothing is added.
        for (int64_t j = partners; j < round_up(partners, kLanes<T>); ++j)
            square_b_[j] = 0, length_b_[j] = 1;
        const Pairs upstream = pairs(call_.upstream, column, partners, T(0), factors_);
        const Pairs distances =
            pairs(call_.distances, column, partners, T(__builtin_inf()), distances_);
        switch (p_.metric) {
            case Metric::euclidean:
                make_factors<Metric::euclidean>(upstream, distances, column, partners);
                break;
            case Metric::sqeuclidean:
                make_factors<Metric::sqeuclidean>(upstream, distances, column, partners);
                break;
            case Metric::cosine:
                make_factors<Metric::cosine>(upstream, distances, column, partners);
                break;
        }
        for (int64_t k = 0; k < p_.dims; k += kPanelColumns<T>) {
            read_panel(column, partners, k);
            for (int64_t r = 0; r < rows_; r += kTileRows)
                add_products<T>(others_, factors_ + r * kPartners, partners, pitch_,
                                products_ + r * pitch_ + k);
        }
    }

    // kPanelColumns dimensions of the partners, less the centre.
    void read_panel(int64_t column, int64_t partners, int64_t k) {
        constexpr int width = kPanelColumns<T>;
        const int64_t count = smaller(width, p_.dims - k);
        for (int64_t j = 0; j < partners; ++j) {
            T* panel = others_ + j * width;
            if (count < width) __builtin_memset(panel, 0, sizeof(T) * width);
            b_.fetch(n_, column + j, k + width, width);  // what the next panel has of this partner
            copy(b_, column + j, k, count, panel);
            for (int c = 0; c < width; c += kLanes<T>)
                store<T>(panel + c, load<T>(panel + c) - load<T>(centre_ + k + c));
        }
    }

    // A block of a matrix of pairs, of which whole vectors can be read.
    struct Pairs {
        const T* data;
        int64_t pitch;
    };

    // In place where that is possible, else in `room`, with `padding` beyond the last partner.
    Pairs pairs(const VectorSet& matrix, int64_t column, int64_t partners, T padding,
                T* room) const {
        const bool own_type = matrix.dtype == (sizeof(T) == 4 ? DType::f32 : DType::f64);
        const int64_t row_stride = matrix.strides[1], stride = matrix.strides[2];
        const int64_t offset = n_ * matrix.strides[0] + row_ * row_stride + column * stride;
        const T* source = static_cast<const T*>(matrix.data) + (own_type ? offset : 0);
        if (own_type && stride == 1 && partners % kLanes<T> == 0) return {source, row_stride};
        int64_t done = 0;
        if (own_type && row_stride == 1 && stride != 1)
            for (; done + kLanes<T> <= partners; done += kLanes<T>) {
                const T* columns[kLanes<T>];
                for (int lane = 0; lane < kLanes<T>; ++lane)
                    columns[lane] = source + (done + lane) * stride;
                transpose_lanes<T>(columns, rows_, kPartners, room + done);
            }
        // The gradient of a sum is one value for all: a row that all share, behind the others.
        const bool one = stride == 0 && row_stride == 0;
        if (one) room += block_ * kPartners;
        for (int64_t r = 0; r < (one ? 1 : rows_); ++r) {
            T* row = room + r * kPartners;
            read_vector<T>(matrix, n_, row_ + r, column + done, partners - done, row + done);
            for (int64_t j = partners; j < round_up(partners, kLanes<T>); ++j) row[j] = padding;
        }
        return {room, one ? 0 : kPartners};
    }

    // The factors of all rows; near pairs are added at once, and leave a factor of 0.
    template <Metric M>
    void make_factors(const Pairs& upstream, const Pairs& distances, int64_t column,
                      int64_t partners) {
        const Vec<T> limit = splat<T>(T(kNear));
        for (int64_t r = 0; r < rows_; ++r) {
            const T *g = upstream.data + r * upstream.pitch,
                    *d = distances.data + r * distances.pitch;
            T* factors = factors_ + r * kPartners;
            if (M == Metric::cosine && p_.norms_a[n_ * p_.rows + row_ + r] == 0) {
                __builtin_memset(factors, 0, size_t(partners) * sizeof(T));
                continue;
            }
            const Vec<T> own = splat<T>(square_a_[r]);
            Vec<T> sum{};
            for (int64_t j = 0; j < partners; j += kLanes<T>) {
                // A row of either begins on another page, where hardware looks for nothing.
                __builtin_prefetch(g + kRowsAhead * upstream.pitch + j);
                __builtin_prefetch(d + kRowsAhead * distances.pitch + j);
                Vec<T> factor = load<T>(g + j), square = load<T>(d + j);
                if constexpr (M == Metric::euclidean) {
                    factor = keep<T>(factor / square, square != Vec<T>{});
                    square *= square;
                } else if constexpr (M == Metric::sqeuclidean) {
                    factor *= T(2);
                } else {
                    factor = keep<T>(factor, load<T>(length_b_ + j) != Vec<T>{});
                    square *= T(2);
                }
                store<T>(factors + j, factor);
                const Mask<T> near = square < limit * (own + load<T>(square_b_ + j));
                if (any<T>(near)) {
                    for (int lane = 0; lane < kLanes<T>; ++lane)
                        if (near[lane]) add_near(column + j + lane, r, factors[j + lane]);
                    factor = load<T>(factors + j);
                }
                sum += factor;
            }
            factor_sums_[r] += sum_lanes<T>(sum);
        }
    }

    void add_near(int64_t column, int64_t r, T& factor) {
        const T* a = a_.read(n_, row_ + r, 0, p_.dims, row_a_);
        const T* b = b_.read(n_, column, 0, p_.dims, row_b_);
        T* sums = near_ + r * pitch_;
        for (int64_t k = 0; k < p_.dims; ++k) sums[k] += factor * (a[k] - b[k]);
        factor = 0;
    }

    void write(int64_t r) const {
        const T *own = own_ + r * pitch_, *products = products_ + r * pitch_;
        T* h = near_ + r * pitch_;
        const T factor_sum = T(factor_sums_[r]);
        for (int64_t k = 0; k < p_.dims; ++k) h[k] += factor_sum * own[k] - products[k];
        const T* unit = a_.read(n_, row_ + r, 0, p_.dims, row_a_);
        finish_gradient<T>(p_, n_, row_ + r, unit, h);
        write_vector<T>(h, call_.gradient, n_, row_ + r, 0, p_.dims);
    }

    const DistanceBackward& call_;
    const DistanceProblem& p_;
    Reader<T> a_, b_;
    int64_t pitch_;  // of a padded vector
    Arena arena_;
    int64_t n_, row_, rows_, block_;
    // (block, pitch): the task's vectors less the centre, the sums of products and of near pairs;
    // (kPartners, kPanelColumns): partners less the centre; (block, kPartners): of pairs
    T *own_, *products_, *near_, *others_, *factors_, *distances_;
    T *centre_, *row_a_, *row_b_, *square_a_, *square_b_, *length_b_;
    double* factor_sums_;
};

template <class T>
int64_t gradient_tasks(const DistanceBackward& call) {
    const DistanceProblem& p = call.problem;
    return p.batch * divide_up(p.rows, gradient_rows<T>(p));
}
template <class T>
size_t gradient_scratch(const DistanceBackward& call) {
    return GradientTask<T>(call, 0, nullptr).scratch_bytes();
}
template <class T>
void run_gradient(const DistanceBackward& call, int64_t task, void* scratch, sosie::NoPartial*) {
    GradientTask<T>(call, task, scratch).run();
}

// ------------------------------------------------------------------------ through chosen
// neighbours

template <class T>
int64_t neighbour_gradient_tasks(const NeighbourBackward& call) {
    return call.problem.rows;
}
template <class T>
size_t neighbour_gradient_scratch(const NeighbourBackward& call) {
    return 3 * size_t(round_up(call.problem.dims, 64)) * sizeof(T);
}
template <class T>
void run_neighbour_gradient(const NeighbourBackward& call, int64_t row, void* scratch,
                            sosie::NoPartial*) {
    const DistanceProblem& p = call.problem;
    const Reader<T> a(p, p.a, p.norms_a, p.rows), b(p, p.b, p.norms_b, p.columns);
    Arena arena(scratch);
    T *own_room = arena.take<T>(p.dims), *other_room = arena.take<T>(p.dims),
      *sums = arena.take<T>(p.dims);
    const T* own = a.read(0, row, 0, p.dims, own_room);
    for (int64_t k = 0; k < p.dims; ++k) sums[k] = 0;
    for (int64_t edge = call.offsets[row]; edge < call.offsets[row + 1]; ++edge) {
        if (p.metric == Metric::cosine && p.norms_b[call.partners[edge]] == 0) continue;
        const T* other = b.read(0, call.partners[edge], 0, p.dims, other_room);
        const T factor = T(call.factors[edge]);
        for (int64_t k = 0; k < p.dims; ++k) sums[k] += factor * (own[k] - other[k]);
    }
    finish_gradient<T>(p, 0, row, own, sums);
    write_vector<T>(sums, call.gradient, 0, row, 0, p.dims);
}

}  // namespace
