// SPDX-License-Identifier: Apache-2.0
//
// Gradients of distances, in the direct form
//     dLoss/da_i = sum_j f_ij (a_i - b_j),    f = g / d | 2 g | g    (euclidean | squared | cosine)
// with g the upstream gradient and d the distance; f is 0 where d is. The form a_i sum_j f_ij -
// sum_j f_ij b_j is a matrix product, and what remains of a near pair's gradient in it is rounding.
//
// The cosine's is that of half the squared distance of unit vectors u = a / |a|. Of h, the sum
// above for these, the part along u has to go: dLoss/da = (h - (h u) u) / |a|. A task that has not
// all dimensions takes h_i u_i = sum_j g_ij d_ij. What is left can be small beside h, and u has
// been rounded; so the cosine's gradient is computed in double, whatever the vectors' type.
//
// Most pairs are far apart, as far as their vectors are from a point c between them. For those
//     h_i = (a_i - c) sum_j f_ij - sum_j f_ij (b_j - c)
// rounds no more than the direct form, and the second sum is a matrix product: a multiply-add per
// partner and dimension. Near pairs, which it would cost their digits, are added directly. A task
// has a block of vectors and of dimensions, and goes over all partners; its c is the mean of its
// vectors.
#pragma once
#include "distance-inl.hpp"

namespace {

using sosie::DistanceBackward;
using sosie::NeighbourBackward;

constexpr int64_t kGradientBlockRows = 32 * kTileRows, kPartners = 256;
// A pair is near when its squared distance is below this part of |a - c|^2 + |b - c|^2: what
// float32 rounds off those is then 1e-5 of the difference at most.
constexpr double kNear = 1e-3;

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

// `h`, with the part along the unit vector removed where the metric is the cosine, to the gradient
// of the vector as it was given: dimensions [first, first + count).
template <class T>
void finish_gradient(const DistanceProblem& p, int64_t n, int64_t row, int64_t first, int64_t count,
                     const T* own, T along, T* h) {
    const double* weights = p.weights ? p.weights + first : nullptr;
    if (p.metric != Metric::cosine) {
        if (weights)
            for (int64_t k = 0; k < count; ++k) h[k] *= T(weights[k]);
        return;
    }
    const double norm = p.norms_a[n * p.rows + row];
    const T inverse = T(norm > 0 ? 1 / norm : norm);
    for (int64_t k = 0; k < count; ++k) h[k] = (h[k] - along * own[k]) * inverse;
    if (weights)
        for (int64_t k = 0; k < count; ++k) h[k] *= T(__builtin_sqrt(weights[k]));
}

template <class T>
class GradientTask {
  public:
    GradientTask(const DistanceBackward& call, int64_t task, void* scratch)
        : call_(call),
          p_(call.problem),
          a_(p_, p_.a, p_.norms_a, p_.rows),
          b_(p_, p_.b, p_.norms_b, p_.columns),
          block_dims_(even_block(p_.dims)),
          dims_(round_up(block_dims_, kPanelColumns<T>)),
          arena_(scratch) {
        const int64_t row_blocks = divide_up(p_.rows, kGradientBlockRows);
        const int64_t dim_blocks = larger(divide_up(p_.dims, block_dims_), 1);
        n_ = task / (row_blocks * dim_blocks);
        row_ = task / dim_blocks % larger(row_blocks, 1) * kGradientBlockRows;
        first_ = task % dim_blocks * block_dims_;
        rows_ = smaller(kGradientBlockRows, p_.rows - row_);
        count_ = smaller(block_dims_, p_.dims - first_);
        own_ = arena_.take<T>(kGradientBlockRows * dims_);
        products_ = arena_.take<T>(kGradientBlockRows * dims_);
        near_ = arena_.take<T>(kGradientBlockRows * dims_);
        others_ = arena_.take<T>(kPartners * dims_);
        factors_ = arena_.take<T>(kGradientBlockRows * kPartners);
        centre_ = arena_.take<T>(dims_);
        row_a_ = arena_.take<T>(dims_);
        row_b_ = arena_.take<T>(dims_);
        square_a_ = arena_.take<T>(kGradientBlockRows);
        square_b_ = arena_.take<T>(kPartners);
        factor_sums_ = arena_.take<double>(kGradientBlockRows);
        along_ = arena_.take<double>(kGradientBlockRows);
    }
    size_t scratch_bytes() const { return arena_.used(); }

    void run() {
        const auto clear = [](auto* values, int64_t count) {
            __builtin_memset(values, 0, size_t(count) * sizeof *values);
        };
        clear(own_, kGradientBlockRows * dims_);
        clear(products_, kGradientBlockRows * dims_);
        clear(near_, kGradientBlockRows * dims_);
        clear(factors_, kGradientBlockRows * kPartners);  // rows beyond the last go along with it
        clear(centre_, dims_);
        clear(factor_sums_, kGradientBlockRows);
        clear(along_, kGradientBlockRows);
        read_own();
        for (int64_t column = 0; column < p_.columns; column += kPartners)
            add_partners(column, smaller(kPartners, p_.columns - column));
        for (int64_t r = 0; r < rows_; ++r) write(r);
    }

  private:
    void read_own() {
        for (int64_t r = 0; r < rows_; ++r) {
            T* own = own_ + r * dims_;
            const T* values = a_.read(n_, row_ + r, first_, count_, own);
            if (values != own) __builtin_memcpy(own, values, size_t(count_) * sizeof(T));
            // Any centre is right. A bad vector must not spoil those of the others.
            for (int64_t k = 0; k < count_; ++k)
                centre_[k] += own[k] - own[k] == 0 ? own[k] / T(rows_) : T(0);
        }
        for (int64_t k = 0; k < count_; ++k)
            centre_[k] = centre_[k] - centre_[k] == 0 ? centre_[k] : T(0);
        for (int64_t r = 0; r < rows_; ++r) square_a_[r] = take_out_centre(own_ + r * dims_);
    }

    // Returns the squared length of what is left.
    T take_out_centre(T* values) const {
        Vec<T> sum{};
        for (int64_t k = 0; k < dims_; k += kLanes<T>) {
            const Vec<T> less = load<T>(values + k) - load<T>(centre_ + k);
            store<T>(values + k, less);
            sum += less * less;
        }
        return T(sum_lanes<T>(sum));
    }

    // Panels of kPanelColumns dimensions of all partners, one after another.
    void read_partners(int64_t column, int64_t partners) {
        constexpr int width = kPanelColumns<T>;
        T values[kBlockDims + kPanelColumns<T>];
        for (int64_t j = 0; j < partners; ++j) {
            b_.fetch(n_, column + j + 4, first_, count_);
            const T* given = b_.read(n_, column + j, first_, count_, values);
            if (given != values) __builtin_memcpy(values, given, size_t(count_) * sizeof(T));
            for (int64_t k = count_; k < dims_; ++k) values[k] = 0;
            square_b_[j] = take_out_centre(values);
            for (int64_t k = 0; k < dims_; k += width)
                __builtin_memcpy(others_ + (k * partners + j * width), values + k,
                                 sizeof(T) * width);
        }
    }

    void add_partners(int64_t column, int64_t partners) {
        read_partners(column, partners);
        for (int64_t r = 0; r < rows_; ++r) fill_factors(column, partners, r);
        for (int64_t k = 0; k < dims_; k += kPanelColumns<T>)
            for (int64_t r = 0; r < rows_; r += kTileRows)
                add_products<T>(others_ + k * partners, factors_ + r * kPartners, partners, dims_,
                                products_ + r * dims_ + k);
    }

    // The factors of a row; near pairs are added at once, and leave a factor of 0.
    void fill_factors(int64_t column, int64_t partners, int64_t r) {
        const int64_t row = row_ + r;
        T *factors = factors_ + r * kPartners, squares[kPartners];
        read_vector<T>(call_.upstream, n_, row, column, partners, factors);
        read_vector<T>(call_.distances, n_, row, column, partners, squares);
        switch (p_.metric) {
            case Metric::euclidean:
                for (int64_t j = 0; j < partners; ++j) {
                    factors[j] = squares[j] == 0 ? T(0) : factors[j] / squares[j];
                    squares[j] *= squares[j];
                }
                break;
            case Metric::sqeuclidean:
                for (int64_t j = 0; j < partners; ++j) factors[j] *= T(2);
                break;
            case Metric::cosine: fill_cosine(column, partners, r, factors, squares);
        }
        bool some_near = false;
        for (int64_t j = 0; j < partners; ++j)
            some_near |= squares[j] < T(kNear) * (square_a_[r] + square_b_[j]);
        if (some_near)
            for (int64_t j = 0; j < partners; ++j)
                if (squares[j] < T(kNear) * (square_a_[r] + square_b_[j]))
                    add_near(column + j, r, factors[j]);
        double sum = 0;
        for (int64_t j = 0; j < partners; ++j) sum += double(factors[j]);
        factor_sums_[r] += sum;
    }

    void fill_cosine(int64_t column, int64_t partners, int64_t r, T* factors, T* squares) {
        const bool zero = p_.norms_a[n_ * p_.rows + row_ + r] == 0;
        for (int64_t j = 0; j < partners; ++j) {
            if (zero || p_.norms_b[n_ * p_.columns + column + j] == 0) factors[j] = 0;
            along_[r] += double(factors[j]) * double(squares[j]);
            squares[j] *= T(2);
        }
    }

    void add_near(int64_t column, int64_t r, T& factor) {
        const T* a = a_.read(n_, row_ + r, first_, count_, row_a_);
        const T* b = b_.read(n_, column, first_, count_, row_b_);
        T* sums = near_ + r * dims_;
        for (int64_t k = 0; k < count_; ++k) sums[k] += factor * (a[k] - b[k]);
        factor = 0;
    }

    void write(int64_t r) const {
        const T *own = own_ + r * dims_, *products = products_ + r * dims_;
        T* h = near_ + r * dims_;
        const T factor_sum = T(factor_sums_[r]);
        for (int64_t k = 0; k < count_; ++k) h[k] += factor_sum * own[k] - products[k];
        const T* unit =
            p_.metric == Metric::cosine ? a_.read(n_, row_ + r, first_, count_, row_a_) : nullptr;
        const double along = unit && count_ == p_.dims ? product(h, unit, count_) : along_[r];
        finish_gradient<T>(p_, n_, row_ + r, first_, count_, unit, T(along), h);
        write_vector<T>(h, call_.gradient, n_, row_ + r, first_, count_);
    }

    const DistanceBackward& call_;
    const DistanceProblem& p_;
    Reader<T> a_, b_;
    int64_t block_dims_, dims_;  // of a block, and of its padded rows
    Arena arena_;
    int64_t n_, row_, first_, rows_, count_;
    // (kGradientBlockRows, dims_): the task's vectors less the centre, the sums of products and of
    // near pairs; partners less the centre; factors (kGradientBlockRows, kPartners)
    T *own_, *products_, *near_, *others_, *factors_;
    T *centre_, *row_a_, *row_b_, *square_a_, *square_b_;
    double *factor_sums_, *along_;
};

template <class T>
int64_t gradient_tasks(const DistanceBackward& call) {
    const DistanceProblem& p = call.problem;
    return p.batch * divide_up(p.rows, kGradientBlockRows) *
           larger(divide_up(p.dims, even_block(p.dims)), 1);
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
    finish_gradient<T>(p, 0, row, 0, p.dims, own, T(product(sums, own, p.dims)), sums);
    write_vector<T>(sums, call.gradient, 0, row, 0, p.dims);
}

}  // namespace
