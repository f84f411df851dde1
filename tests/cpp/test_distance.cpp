// SPDX-License-Identifier: Apache-2.0
//
// The kernels of the distance family against loops in double, for every instruction set that runs
// here: sizes on both sides of every tile's and block's end, dtypes, metrics, weights, packed sets,
// neighbours, gradients.
//
// Usage: test_distance [number of random cases]
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "../../csrc/cpu/distance.hpp"
#include "checks.hpp"

namespace {

using sosie::DistanceProblem;
using sosie::DType;
using sosie::Metric;
using sosie::VectorSet;
using test::Random;
using Values = std::vector<double>;

struct Case {
    int64_t rows, columns, dims, k;
    Metric metric;
    DType dtype;
    bool weighted, packed, exclude_self;

    std::string text() const {
        const char* names[] = {"euclidean", "sqeuclidean", "cosine"};
        return std::string(names[int(metric)]) + " " + std::to_string(rows) + " x " +
               std::to_string(columns) + " x " + std::to_string(dims) +
               (dtype == DType::f64 ? " f64" : " f32") + (weighted ? " weighted" : "") +
               (packed ? " packed" : "");
    }
};

// float32 rounds sums of up to some hundred squares; double does not notice.
double tolerance_of(const Case& c) {
    return c.dtype == DType::f64 ? 1e-12 : 4e-6;
}

// Vectors in memory of their type, a gap behind each.
class Set {
  public:
    Set(int64_t vectors, int64_t dims, DType dtype)
        : values(size_t(vectors * dims)),
          dtype_(dtype),
          dims_(dims),
          pitch_(dims + 3),
          floats_(size_t(vectors * pitch_)),
          doubles_(size_t(vectors * pitch_)) {}

    void fill(Random& random) {
        for (size_t i = 0; i < values.size(); ++i) set(i, 2 * random.uniform() - 1);
    }
    void set(size_t i, double value) {
        const size_t place = i / size_t(dims_) * size_t(pitch_) + i % size_t(dims_);
        floats_[place] = float(value);
        doubles_[place] = value;
        values[i] = dtype_ == DType::f64 ? value : double(float(value));
    }
    void fetch() {
        for (size_t i = 0; i < values.size(); ++i) {
            const size_t place = i / size_t(dims_) * size_t(pitch_) + i % size_t(dims_);
            values[i] = dtype_ == DType::f64 ? doubles_[place] : double(floats_[place]);
        }
    }
    VectorSet view() {
        void* data = dtype_ == DType::f64 ? static_cast<void*>(doubles_.data())
                                          : static_cast<void*>(floats_.data());
        return {data, dtype_, {0, pitch_, 1}};
    }
    Values values;  // without the gaps

  private:
    DType dtype_;
    int64_t dims_, pitch_;
    std::vector<float> floats_;
    Values doubles_;
};

double length(const Set& set, int64_t row, int64_t dims, const Values& weights) {
    double sum = 0;
    for (int64_t k = 0; k < dims; ++k) {
        const double v = set.values[size_t(row * dims + k)];
        sum += (weights.empty() ? 1 : weights[size_t(k)]) * v * v;
    }
    return std::sqrt(sum);
}

double distance(const Case& c, const Set& a, const Set& b, int64_t i, int64_t j,
                const Values& weights) {
    const bool cosine = c.metric == Metric::cosine;
    const double scale_a = cosine ? length(a, i, c.dims, weights) : 1;
    const double scale_b = cosine ? length(b, j, c.dims, weights) : 1;
    if (scale_a == 0 || scale_b == 0) return 1;
    double sum = 0;
    for (int64_t k = 0; k < c.dims; ++k) {
        const double d =
            a.values[size_t(i * c.dims + k)] / scale_a - b.values[size_t(j * c.dims + k)] / scale_b;
        sum += (weights.empty() ? 1 : weights[size_t(k)]) * d * d;
    }
    return cosine ? sum / 2 : c.metric == Metric::euclidean ? std::sqrt(sum) : sum;
}

class Experiment {
  public:
    Experiment(const Case& c, Random& random)
        : c_(c), a_(c.rows, c.dims, c.dtype), b_(c.columns, c.dims, c.dtype) {
        a_.fill(random);
        b_.fill(random);
        // An equal pair, and a zero vector.
        for (int64_t k = 0; k < c.dims; ++k) b_.set(size_t(k), a_.values[size_t(k)]);
        if (c.rows > 2)
            for (int64_t k = 0; k < c.dims; ++k) a_.set(size_t(2 * c.dims + k), 0);
        if (c.weighted)
            for (int64_t k = 0; k < c.dims; ++k) weights_.push_back(random.uniform() + 0.1);
        for (int64_t i = 0; i < c.rows; ++i)
            for (int64_t j = 0; j < c.columns; ++j)
                expected_.push_back(distance(c, a_, b_, i, j, weights_));
        problem_.batch = 1;
        problem_.rows = c.rows;
        problem_.columns = c.columns;
        problem_.dims = c.dims;
        problem_.a = a_.view();
        problem_.b = b_.view();
        problem_.metric = c.metric;
        problem_.weights = weights_.empty() ? nullptr : weights_.data();
    }

    void run() {
        Set found(c_.rows, c_.columns, c_.dtype);
        const sosie::PackedSet packed(problem_, 1);
        const bool with_pack = c_.packed && !c_.weighted;
        sosie::distance_forward({problem_, found.view()}, with_pack ? &packed : nullptr, 1);
        found.fetch();
        double largest = 1;
        for (const double value : expected_) largest = std::max(largest, value);
        test::check_close(found.values, expected_, tolerance_of(c_) * largest, c_.text());
        test::check_true(found.values[0] == 0 || length(a_, 0, c_.dims, weights_) == 0,
                         c_.text() + ": equal vectors are 0 apart");
        if (!c_.weighted) neighbours(with_pack ? &packed : nullptr);
        gradient(found);
    }

  private:
    void neighbours(const sosie::PackedSet* packed) {
        std::vector<float> floats(size_t(c_.rows * c_.k));
        Values doubles(floats.size());
        std::vector<int64_t> indices(floats.size());
        const bool wide = c_.dtype == DType::f64;
        void* out = wide ? static_cast<void*>(doubles.data()) : static_cast<void*>(floats.data());
        sosie::nearest_neighbours({problem_, c_.k, c_.exclude_self, nullptr}, packed, out,
                                  indices.data(), 2);
        if (!wide) doubles.assign(floats.begin(), floats.end());
        Values sorted, at_indices;
        for (int64_t i = 0; i < c_.rows; ++i) {
            Values row;
            for (int64_t j = 0; j < c_.columns; ++j)
                if (!c_.exclude_self || i != j) row.push_back(expected(i, j));
            std::sort(row.begin(), row.end());
            sorted.insert(sorted.end(), row.begin(), row.begin() + c_.k);
            for (int64_t n = 0; n < c_.k; ++n)
                at_indices.push_back(expected(i, indices[size_t(i * c_.k + n)]));
        }
        const double tolerance = 4 * tolerance_of(c_) * std::max(1.0, double(c_.dims) / 16);
        test::check_close(doubles, sorted, tolerance, c_.text() + ", neighbours");
        test::check_close(at_indices, sorted, tolerance, c_.text() + ", their indices");
    }

    // Of sum_ij u_ij d_ij, by differences of the definition.
    void gradient(Set& distances) {
        Set upstream(c_.rows, c_.columns, c_.dtype), found(c_.rows, c_.dims, c_.dtype);
        Random random(7);
        upstream.fill(random);
        sosie::distance_backward({problem_, upstream.view(), distances.view(), found.view()}, 1);
        found.fetch();
        Values expected(found.values.size());
        for (int64_t i = 0; i < c_.rows; ++i) expected_gradient(i, upstream, expected.data());
        double largest = 1;
        for (const double value : expected) largest = std::max(largest, std::fabs(value));
        // float32: sums over columns of terms of either sign.
        const double tolerance =
            c_.dtype == DType::f64 ? 1e-10 : 1e-5 * std::sqrt(double(c_.columns));
        test::check_close(found.values, expected, tolerance * largest, c_.text() + ", gradient");
    }

    void expected_gradient(int64_t i, const Set& upstream, double* gradients) const {
        const bool cosine = c_.metric == Metric::cosine;
        const double scale = cosine ? length(a_, i, c_.dims, weights_) : 1;
        double* out = gradients + i * c_.dims;
        if (scale == 0) return;
        for (int64_t j = 0; j < c_.columns; ++j) {
            const double d = expected(i, j), g = upstream.values[size_t(i * c_.columns + j)];
            const double other = cosine ? length(b_, j, c_.dims, weights_) : 1;
            if (other == 0 || (c_.metric == Metric::euclidean && d == 0)) continue;
            const double factor = c_.metric == Metric::euclidean     ? g / d
                                  : c_.metric == Metric::sqeuclidean ? 2 * g
                                                                     : g;
            for (int64_t k = 0; k < c_.dims; ++k) {
                const double u = a_.values[size_t(i * c_.dims + k)] / scale;
                const double v = b_.values[size_t(j * c_.dims + k)] / other;
                const double w = weights_.empty() ? 1 : weights_[size_t(k)];
                out[k] += factor * w * (u - v - (cosine ? d * u : 0)) / scale;
            }
        }
    }

    double expected(int64_t i, int64_t j) const { return expected_[size_t(i * c_.columns + j)]; }

    Case c_;
    Set a_, b_;
    Values weights_, expected_;
    DistanceProblem problem_{};
};

void run_case(const Case& c, Random& random) {
    Experiment experiment(c, random);
    test::each_isa([&] { experiment.run(); });
}

Case random_case(Random& random) {
    Case c{};
    c.rows = random.pick({1, 2, 3, 5, 6, 7, 12, 33, 385});
    c.columns = random.pick({1, 7, 8, 9, 15, 16, 17, 33, 64, 65, 257});
    c.dims = random.pick({1, 2, 3, 7, 8, 9, 17, 64, 256, 257});
    if (c.rows * c.columns * c.dims > 2000000) c.dims = 9;
    c.metric = random.pick({Metric::euclidean, Metric::sqeuclidean, Metric::cosine});
    c.dtype = random.pick({DType::f32, DType::f32, DType::f64});
    c.weighted = random.chance(0.3);
    c.packed = random.chance(0.5);
    c.exclude_self = c.columns > 1 && random.chance(0.3);
    c.k = random.between(1, std::min<int64_t>(c.columns - c.exclude_self, 20));
    return c;
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 150;
    Random random(1901);
    for (int i = 0; i < cases; ++i) run_case(random_case(random), random);
    return test::report();
}
