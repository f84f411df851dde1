// SPDX-License-Identifier: Apache-2.0
//
// The kernels of paired rows against loops in double, for every instruction set that runs here:
// lengths on both sides of every vector's end, rows along the first and the last axis, dtypes,
// broadcast arrays, layouts, values and gradients.
//
// Usage: test_paired [number of random cases]
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "../../csrc/cpu/paired.hpp"
#include "arrays.hpp"
#include "checks.hpp"

namespace {

using sosie::DType;
using sosie::PairedAxis;
using sosie::PairedCall;
using sosie::PairedKind;
using sosie::PairedPlace;
using test::Layout;
using test::Random;
using test::TestArray;

using Values = std::vector<double>;

// ----------------------------------------------------------------------------------- one problem

// Arrays have five axes; rows lie along one of them.
struct Case {
    int64_t x_shape[5], y_shape[5];
    int axis = 4;
    PairedKind kind = PairedKind::euclidean;
    DType dtype = DType::f32;
    Layout x_layout = Layout::contiguous, y_layout = Layout::contiguous;
    double floor = 1e-8, replacement = 1e-8;
    bool zero_row = false;

    DType compute() const { return dtype == DType::f64 ? DType::f64 : DType::f32; }
    DType gradient() const {
        return dtype == DType::u8 || dtype == DType::u16 ? DType::f32 : dtype;
    }
    int64_t size(int a) const { return std::max(x_shape[a], y_shape[a]); }
    std::string text() const {
        std::string text = kind == PairedKind::euclidean ? "euclidean (" : "cosine (";
        for (int a = 0; a < 5; ++a) text += std::to_string(x_shape[a]) + " ";
        text += ") (";
        for (int a = 0; a < 5; ++a) text += std::to_string(y_shape[a]) + " ";
        return text + ") along " + std::to_string(axis) + ", " + test::name_of(dtype) + " " +
               test::name_of(x_layout) + " and " + test::name_of(y_layout);
    }
};

class Experiment {
  public:
    Experiment(const Case& c, Random& random)
        : case_(c),
          x_(c.x_shape, c.dtype, c.x_layout),
          y_(c.y_shape, c.dtype, c.y_layout),
          upstream_(outer(c).data(), c.compute()) {
        fill(x_, random);
        fill(y_, random);
        if (c.zero_row)
            for (int64_t i = 0; i < x_.size(); ++i) x_.set(i, 0);
        for (int64_t i = 0; i < upstream_.size(); ++i) upstream_.set(i, random.uniform() - 0.4);
        define();
    }

    // Every result with this many threads; returns their bits.
    std::string run(int threads) const {
        TestArray value(outer(case_).data(), case_.compute()),
            norm_x(outer(case_).data(), case_.compute()),
            norm_y(outer(case_).data(), case_.compute());
        const bool cosine = case_.kind == PairedKind::cosine;
        PairedCall call{};
        std::vector<PairedAxis> axes = describe(call);
        set(call, axes, sosie::kX, x_, case_.x_shape);
        set(call, axes, sosie::kY, y_, case_.y_shape);
        set(call, axes, sosie::kValue, value, outer(case_).data());
        if (cosine) {
            set(call, axes, sosie::kNormX, norm_x, outer(case_).data());
            set(call, axes, sosie::kNormY, norm_y, outer(case_).data());
        }
        sosie::paired_forward(call, axes, threads);
        const double exact = case_.dtype == DType::f64 ? 1e-13 : 1e-6;
        test::check_close(all(value), value_, exact * largest(value_), case_.text());

        TestArray grad_x(case_.x_shape, case_.gradient()), grad_y(case_.y_shape, case_.gradient());
        set(call, axes, sosie::kUpstream, upstream_, outer(case_).data());
        set(call, axes, sosie::kGradX, grad_x, case_.x_shape);
        set(call, axes, sosie::kGradY, grad_y, case_.y_shape);
        sosie::paired_backward(call, axes, threads);
        // A half has 11 digits, the other one 8; sums and products in float a few roundings.
        const double wanted = case_.gradient() == DType::f64   ? 1e-12
                              : case_.gradient() == DType::f32 ? 4e-6
                              : case_.gradient() == DType::f16 ? 0x1p-10
                                                               : 0x1p-7;
        test::check_close(all(grad_x), grad_x_, wanted * std::max(largest(grad_x_), scale_),
                          case_.text() + ", gradient of x");
        test::check_close(all(grad_y), grad_y_, wanted * std::max(largest(grad_y_), scale_),
                          case_.text() + ", gradient of y");
        std::string bits;
        for (const TestArray* array : {&value, &grad_x, &grad_y})
            bits.append(array->memory(), size_t(array->bytes()));
        return bits;
    }

  private:
    static std::vector<int64_t> outer(const Case& c) {
        std::vector<int64_t> shape;
        for (int a = 0; a < 5; ++a) shape.push_back(a == c.axis ? 1 : c.size(a));
        return shape;
    }
    static Values all(const TestArray& array) {
        Values values;
        for (int64_t i = 0; i < array.size(); ++i) values.push_back(array.get(i));
        return values;
    }
    static double largest(const Values& values) {
        double result = 0;
        for (const double v : values)
            if (std::isfinite(v)) result = std::max(result, std::fabs(v));
        return result;
    }
    void fill(TestArray& array, Random& random) const {
        // Whole numbers over 64: exact in every dtype.
        const bool whole = case_.dtype == DType::u8 || case_.dtype == DType::u16;
        for (int64_t i = 0; i < array.size(); ++i)
            array.set(
                i, whole ? double(random.between(0, 255)) : double(random.between(-127, 127)) / 64);
    }
    std::vector<PairedAxis> describe(PairedCall& call) const {
        call.kind = case_.kind;
        call.length = case_.size(case_.axis);
        call.floor = case_.floor;
        call.replacement = case_.replacement;
        std::vector<PairedAxis> axes;
        for (int a = 0; a < 5; ++a)
            if (a != case_.axis) axes.push_back({case_.size(a), {}});
        return axes;
    }
    void set(PairedCall& call, std::vector<PairedAxis>& axes, PairedPlace place,
             const TestArray& array, const int64_t* shape) const {
        const sosie::Array a = array.array();
        int next = 0;
        for (int i = 0; i < 5; ++i) {
            const int64_t stride = shape[i] == 1 ? 0 : a.strides[i];
            if (i == case_.axis)
                call.operands[place] = {a.data, a.dtype, stride};
            else
                axes[size_t(next++)].strides[place] = stride;
        }
    }
    // Position in an array of `shape` of an element of the broadcast ones.
    static int64_t place_of(const int64_t* shape, const int64_t* index) {
        int64_t place = 0;
        for (int a = 0; a < 5; ++a) place = place * shape[a] + (shape[a] == 1 ? 0 : index[a]);
        return place;
    }
    double clamped(double norm) const { return norm < case_.floor ? case_.replacement : norm; }

    // The definition, pair by pair.
    void define() {
        const std::vector<int64_t> shape = outer(case_);
        const int64_t length = case_.size(case_.axis);
        grad_x_.assign(size_t(x_.size()), 0.0);
        grad_y_.assign(size_t(y_.size()), 0.0);
        int64_t index[5];
        for (int64_t pair = 0; pair < upstream_.size(); ++pair) {
            int64_t rest = pair;
            for (int a = 4; a >= 0; --a) {
                index[a] = rest % shape[size_t(a)];
                rest /= shape[size_t(a)];
            }
            double square = 0, xy = 0, xx = 0, yy = 0;
            const auto each = [&](auto body) {
                for (index[case_.axis] = 0; index[case_.axis] < length; ++index[case_.axis]) {
                    const int64_t i = place_of(case_.x_shape, index),
                                  j = place_of(case_.y_shape, index);
                    body(x_.get(i), y_.get(j), grad_x_[size_t(i)], grad_y_[size_t(j)]);
                }
            };
            each([&](double x, double y, double&, double&) {
                square += (x - y) * (x - y);
                xy += x * y;
                xx += x * x;
                yy += y * y;
            });
            const double g = upstream_.get(pair), distance = std::sqrt(square);
            const double norm_x = std::sqrt(xx), norm_y = std::sqrt(yy);
            const double by = clamped(norm_x) * clamped(norm_y), similarity = xy / by;
            if (case_.kind == PairedKind::euclidean) {
                value_.push_back(distance);
                if (distance == 0) continue;
                each([&](double x, double y, double& grad_x, double& grad_y) {
                    grad_x += g * (x - y) / distance;
                    grad_y += g * (y - x) / distance;
                });
            } else {
                value_.push_back(similarity);
                if (xx > 0 && yy > 0)
                    scale_ = std::max(scale_, std::fabs(g) / std::min(norm_x, norm_y));
                each([&](double x, double y, double& grad_x, double& grad_y) {
                    const double own_x = norm_x < case_.floor ? 0 : similarity * x / xx;
                    const double own_y = norm_y < case_.floor ? 0 : similarity * y / yy;
                    grad_x += g * (y / by - own_x);
                    grad_y += g * (x / by - own_y);
                });
            }
        }
    }

    Case case_;
    TestArray x_, y_, upstream_;
    Values value_, grad_x_, grad_y_;
    double scale_ = 0;  // of the terms whose differences gradients are
};

void run_case(const Case& c, Random& random, std::initializer_list<int> threads = {1}) {
    const Experiment experiment(c, random);
    test::each_isa([&] {
        std::set<std::string> seen;
        for (const int count : threads) seen.insert(experiment.run(count));
        test::check_true(seen.size() == 1, "bits depend on threads: " + c.text());
    });
}

// ------------------------------------------------------------------------------------------ cases

void set_shapes(Case& c, std::initializer_list<int64_t> x, std::initializer_list<int64_t> y) {
    std::copy(x.begin(), x.end(), c.x_shape);
    std::copy(y.begin(), y.end(), c.y_shape);
}

// Every length around the ends of vectors of 2 to 16 lanes and of four of them, along rows and
// across them.
void test_lengths(Random& random) {
    for (const PairedKind kind : {PairedKind::euclidean, PairedKind::cosine})
        for (const DType dtype : {DType::f32, DType::f64, DType::u8})
            for (int64_t n = 1; n <= 70; n += n < 36 ? 1 : 9) {
                Case c;
                c.kind = kind;
                c.dtype = dtype;
                set_shapes(c, {1, 1, 1, 3, n}, {1, 1, 1, 3, n});
                run_case(c, random);
                set_shapes(c, {1, 1, 1, 5, n}, {1, 1, 1, 5, n});
                c.axis = 3;
                run_case(c, random);
                set_shapes(c, {1, 1, 1, 3, n}, {1, 1, 1, 1, n});
                c.axis = 4;
                run_case(c, random);
            }
}

// Rows and numbers of rows beyond what one task does.
void test_large(Random& random) {
    for (const PairedKind kind : {PairedKind::euclidean, PairedKind::cosine}) {
        Case c;
        c.kind = kind;
        set_shapes(c, {1, 1, 1, 2, 140001}, {1, 1, 1, 2, 140001});
        run_case(c, random, {1, 2, 3});
        set_shapes(c, {1, 1, 2, 9000, 19}, {1, 1, 2, 9000, 19});
        c.axis = 3;
        run_case(c, random, {1, 2, 3});
        set_shapes(c, {1, 1, 2, 3, 1500}, {1, 1, 2, 3, 1500});
        run_case(c, random, {1, 2, 3});
        set_shapes(c, {1, 1, 1, 300, 600}, {1, 1, 1, 1, 600});
        c.axis = 4;
        run_case(c, random, {1, 2, 3});
    }
}

Case random_case(Random& random) {
    Case c;
    c.axis = int(random.between(0, 4));
    for (int a = 0; a < 5; ++a) {
        const int64_t size = a == c.axis ? random.between(1, 40)
                             : a == 4    ? random.between(1, 37)
                                         : random.between(1, 3);
        const bool lone_x = a != c.axis && random.chance(0.2), lone_y = random.chance(0.2);
        c.x_shape[a] = lone_x ? 1 : size;
        c.y_shape[a] = lone_y && a != c.axis && !lone_x ? 1 : size;
    }
    c.kind = random.pick({PairedKind::euclidean, PairedKind::cosine});
    c.dtype = random.pick(
        {DType::f32, DType::f32, DType::f64, DType::u8, DType::u16, DType::f16, DType::bf16});
    for (Layout* layout : {&c.x_layout, &c.y_layout})
        *layout = random.pick({Layout::contiguous, Layout::contiguous, Layout::channels_last,
                               Layout::flipped, Layout::strided});
    if (c.kind == PairedKind::cosine) {
        c.zero_row = random.chance(0.1);
        const double nothing = std::numeric_limits<double>::epsilon();
        const auto norms = random.pick({std::pair(1e-8, 1e-8), std::pair(nothing, 1.0),
                                        std::pair(2.0, 2.0), std::pair(0.0, 0.0)});
        c.floor = norms.first;
        c.replacement = norms.second;
        // A gradient of the order of 1e8 is none in half precision.
        if (c.dtype == DType::f16 && norms.second < 1) c.floor = c.replacement = 1;
    }
    return c;
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 600;
    Random random(1936);
    test_lengths(random);
    test_large(random);
    for (int i = 0; i < cases; ++i) run_case(random_case(random), random);
    return test::report();
}
