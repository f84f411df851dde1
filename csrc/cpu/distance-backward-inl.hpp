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
// A task has a block of vectors and of dimensions, and goes over all partners: per partner and
// dimension a subtraction and a multiply-add, as in the forward pass.
#pragma once
#include "distance-inl.hpp"

namespace {

using sosie::DistanceBackward;
using sosie::NeighbourBackward;

// Rows held in registers beside their sums, as these allow: 32, or 16.
constexpr int kGradientRows = SOSIE_VECTOR_BYTES == 64 ? 6 : 3;
constexpr int kGradientVectors = 2;
template <class T>
constexpr int kGradientDims = kGradientVectors * kLanes<T>;
constexpr int64_t kGradientBlockRows = 192, kPartners = 256;

// sums[r] += sum_j factors[r][j] (x[r] - y[j]), kGradientDims dimensions; rows of x and of sums are
// `pitch` apart, those of factors kPartners.
template <class T>
void add_differences(const T* x, const T* y, const T* factors, int64_t partners, int64_t pitch,
                     T* sums) {
    constexpr int lanes = kLanes<T>, vectors = kGradientVectors;
    Vec<T> own[kGradientRows][vectors], total[kGradientRows][vectors] = {};
#pragma GCC unroll 8
    for (int r = 0; r < kGradientRows; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < vectors; ++c)
            own[r][c] = in_register(load<T>(x + r * pitch + c * lanes));
    for (int64_t j = 0; j < partners; ++j) {
        const Vec<T> other[vectors] = {load<T>(y), load<T>(y + lanes)};
#pragma GCC unroll 8
        for (int r = 0; r < kGradientRows; ++r) {
            const Vec<T> factor = splat<T>(factors[r * kPartners + j]);
#pragma GCC unroll 2
            for (int c = 0; c < vectors; ++c) total[r][c] += factor * (own[r][c] - other[c]);
        }
        y += kGradientDims<T>;
    }
#pragma GCC unroll 8
    for (int r = 0; r < kGradientRows; ++r)
#pragma GCC unroll 2
        for (int c = 0; c < vectors; ++c) {
            T* place = sums + r * pitch + c * lanes;
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
          dims_(round_up(block_dims_, kGradientDims<T>)),
          arena_(scratch) {
        const int64_t row_blocks = divide_up(p_.rows, kGradientBlockRows);
        const int64_t dim_blocks = larger(divide_up(p_.dims, block_dims_), 1);
        n_ = task / (row_blocks * dim_blocks);
        row_ = task / dim_blocks % larger(row_blocks, 1) * kGradientBlockRows;
        first_ = task % dim_blocks * block_dims_;
        rows_ = smaller(kGradientBlockRows, p_.rows - row_);
        count_ = smaller(block_dims_, p_.dims - first_);
        own_ = arena_.take<T>(kGradientBlockRows * dims_);
        sums_ = arena_.take<T>(kGradientBlockRows * dims_);
        others_ = arena_.take<T>(kPartners * dims_);
        factors_ = arena_.take<T>(kGradientBlockRows * kPartners);
        along_ = arena_.take<double>(kGradientBlockRows);
    }
    size_t scratch_bytes() const { return arena_.used(); }

    void run() {
        const size_t bytes = size_t(kGradientBlockRows * dims_) * sizeof(T);
        __builtin_memset(own_, 0, bytes);
        __builtin_memset(sums_, 0, bytes);
        // Rows beyond the last are computed along with it.
        __builtin_memset(factors_, 0, size_t(kGradientBlockRows * kPartners) * sizeof(T));
        __builtin_memset(along_, 0, size_t(kGradientBlockRows) * sizeof(double));
        for (int64_t r = 0; r < rows_; ++r) copy(a_, row_ + r, own_ + r * dims_);
        for (int64_t column = 0; column < p_.columns; column += kPartners)
            add_partners(column, smaller(kPartners, p_.columns - column));
        for (int64_t r = 0; r < rows_; ++r) {
            T *h = sums_ + r * dims_, *own = own_ + r * dims_;
            const double along = count_ == p_.dims ? product(h, own, count_) : along_[r];
            finish_gradient<T>(p_, n_, row_ + r, first_, count_, own, T(along), h);
            write_vector<T>(h, call_.gradient, n_, row_ + r, first_, count_);
        }
    }

  private:
    void copy(const Reader<T>& reader, int64_t vector, T* out) const {
        const T* values = reader.read(n_, vector, first_, count_, out);
        if (values != out) __builtin_memcpy(out, values, size_t(count_) * sizeof(T));
    }

    // Panels of kGradientDims dimensions of all partners, one after another.
    void read_partners(int64_t column, int64_t partners) {
        constexpr int width = kGradientDims<T>;
        T values[kBlockDims + kGradientDims<T>];
        for (int64_t j = 0; j < partners; ++j) {
            b_.fetch(n_, column + j + 4, first_, count_);
            copy(b_, column + j, values);
            for (int64_t k = count_; k < dims_; ++k) values[k] = 0;
            for (int64_t k = 0; k < dims_; k += width)
                __builtin_memcpy(others_ + (k * partners + j * width), values + k,
                                 sizeof(T) * width);
        }
    }

    void add_partners(int64_t column, int64_t partners) {
        read_partners(column, partners);
        for (int64_t r = 0; r < rows_; ++r) fill_factors(column, partners, r);
        for (int64_t k = 0; k < dims_; k += kGradientDims<T>)
            for (int64_t r = 0; r < rows_; r += kGradientRows)
                add_differences<T>(own_ + r * dims_ + k, others_ + k * partners,
                                   factors_ + r * kPartners, partners, dims_,
                                   sums_ + r * dims_ + k);
    }

    void fill_factors(int64_t column, int64_t partners, int64_t r) {
        const int64_t row = row_ + r;
        T *factors = factors_ + r * kPartners, distances[kPartners];
        read_vector<T>(call_.upstream, n_, row, column, partners, factors);
        if (p_.metric == Metric::sqeuclidean) {
            for (int64_t j = 0; j < partners; ++j) factors[j] *= T(2);
            return;
        }
        read_vector<T>(call_.distances, n_, row, column, partners, distances);
        if (p_.metric == Metric::euclidean) {
            for (int64_t j = 0; j < partners; ++j)
                factors[j] = distances[j] == 0 ? T(0) : factors[j] / distances[j];
            return;
        }
        const bool zero = p_.norms_a[n_ * p_.rows + row] == 0;
        for (int64_t j = 0; j < partners; ++j) {
            if (zero || p_.norms_b[n_ * p_.columns + column + j] == 0) factors[j] = 0;
            along_[r] += double(factors[j]) * double(distances[j]);
        }
    }

    const DistanceBackward& call_;
    const DistanceProblem& p_;
    Reader<T> a_, b_;
    int64_t block_dims_, dims_;  // of a block, and of its padded rows
    Arena arena_;
    int64_t n_, row_, first_, rows_, count_;
    T *own_, *sums_, *others_, *factors_;
    double* along_;
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
