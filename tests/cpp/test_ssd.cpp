// SPDX-License-Identifier: Apache-2.0
//
// The kernels of the SSD and template families, on every instruction set that runs here, against
// loops over elements in double: sizes on both sides of vectors, blocks and tasks, dtypes, layouts,
// weights broadcast along any axes. Needs no Python; this is what sanitizers and emulators run.
//
// Usage: test_ssd [number of random cases]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/ssd.hpp"
#include "../../csrc/cpu/template.hpp"
#include "arrays.hpp"

namespace {

using sosie::DType;
using sosie::SSDArguments;
using sosie::SSDGradients;
using sosie::Strided;
using test::Layout;
using test::TestArray;
using Values = std::vector<double>;

int g_checks = 0, g_failures = 0;

// Within `tolerance` of the largest expected value; NaN where NaN is expected, and only there.
void check_close(const Values& actual, const Values& expected, double tolerance,
                 const std::string& what) {
    ++g_checks;
    double largest = 1e-300;
    for (const double value : expected) largest = std::max(largest, std::fabs(value));
    for (size_t i = 0; i < expected.size(); ++i) {
        if (std::fabs(actual[i] - expected[i]) <= tolerance * largest) continue;
        if (++g_failures <= 20)
            std::printf("FAILED %s: %s: expected %.12g, got %.12g at %zu of %zu\n",
                        sosie::active().name, what.c_str(), expected[i], actual[i], i,
                        expected.size());
        return;
    }
}

// splitmix64: the same cases on every machine.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {}
    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    // In 1/128, exact in every floating format and, times 128, in bytes.
    double fraction() { return double(next() % 128) / 128; }
    template <class T>
    T pick(std::initializer_list<T> choices) {
        return choices.begin()[next() % choices.size()];
    }
    bool chance() { return next() % 2 == 0; }

  private:
    uint64_t state_;
};

template <class Check>
void each_isa(Check check) {
    for (const std::string& isa : sosie::supported_isas()) {
        sosie::select(isa);
        check();
    }
}

bool is_integer(DType dtype) {
    return dtype == DType::u8 || dtype == DType::u16;
}

void fill(TestArray& array, DType dtype, Random& random) {
    for (int64_t i = 0; i < array.size(); ++i)
        array.set(i, random.fraction() * (is_integer(dtype) ? 128 : 1));
}

Values values_of(const TestArray& array) {
    Values values;
    for (int64_t i = 0; i < array.size(); ++i) values.push_back(array.get(i));
    return values;
}

// Strides of 0 along the axes on which `own` is 1.
Strided strided(const TestArray& array, const int64_t* own) {
    const sosie::Array a = array.array();
    Strided result{a.data, a.dtype, {}};
    for (int axis = 0; axis < 5; ++axis)
        result.strides.push_back(own[axis] == 1 ? 0 : a.strides[axis]);
    return result;
}

// ------------------------------------------------------------------------------------------- SSD

struct Case {
    int64_t shape[5], weight_shape[5];
    DType dtype, weight_dtype;
    Layout layout;
    bool weighted, per_image;

    int64_t images() const { return per_image ? shape[0] : 1; }
    int64_t size() const { return shape[0] * shape[1] * shape[2] * shape[3] * shape[4]; }
    bool broadcast() const { return !std::equal(shape, shape + 5, weight_shape); }
    // Which weight belongs to element i.
    size_t weight_of(int64_t i) const {
        int64_t index = 0, scale = 1;
        for (int axis = 4; axis >= 0; --axis) {
            if (weight_shape[axis] > 1) index += i % shape[axis] * scale;
            scale *= weight_shape[axis];
            i /= shape[axis];
        }
        return size_t(index);
    }
    std::string text() const {
        char out[200];
        std::snprintf(out, sizeof out,
                      "(%d, %d, %d, %d, %d) %s %s, weights %s (%d, %d, %d, %d, %d)%s",
                      int(shape[0]), int(shape[1]), int(shape[2]), int(shape[3]), int(shape[4]),
                      test::name_of(dtype), test::name_of(layout),
                      weighted ? test::name_of(weight_dtype) : "none", int(weight_shape[0]),
                      int(weight_shape[1]), int(weight_shape[2]), int(weight_shape[3]),
                      int(weight_shape[4]), per_image ? ", per image" : "");
        return out;
    }
};

// A case's arrays, and what the definition makes of them.
class Experiment {
  public:
    Experiment(const Case& c, Random& random)
        : c_(c),
          x_(c.shape, c.dtype, c.layout),
          y_(c.shape, c.dtype),
          weight_(c.weight_shape, c.weight_dtype) {
        fill(x_, c.dtype, random);
        fill(y_, c.dtype, random);
        fill(weight_, c.weight_dtype, random);
        if (c.weight_dtype == DType::u8)
            for (int64_t i = 0; i < weight_.size(); ++i) weight_.set(i, random.chance());
        for (int64_t n = 0; n < 2 * c.images(); ++n) upstream_.push_back(random.fraction() + 0.1);
        expect();
    }

    void run(int threads) const {
        const SSDArguments arguments = this->arguments();
        // A few dozen roundings of terms of one sign; gradients in half precision are rounded too.
        const double tolerance = c_.dtype == DType::f64 ? 1e-13 : 2e-6;
        const double rounding = c_.dtype == DType::f16    ? 5e-4
                                : c_.dtype == DType::bf16 ? 4e-3
                                                          : tolerance;
        Values sums(sums_.size()), beside(sums_.size());
        sosie::ssd_forward(arguments, sums.data(), threads);
        check_close(sums, sums_, tolerance, c_.text() + ": sums");
        const DType gradient = is_integer(c_.dtype) ? DType::f32 : c_.dtype;
        TestArray grad_x(c_.shape, gradient, Layout::flipped), grad_y(c_.shape, gradient);
        TestArray grad_weight(c_.weight_shape, c_.broadcast() ? DType::f64 : DType::f32);
        SSDGradients gradients{strided(grad_x, c_.shape), strided(grad_y, c_.shape), {}};
        if (c_.weighted) gradients.weight = strided(grad_weight, c_.weight_shape);
        sosie::ssd_backward(arguments, upstream_.data(), gradients, beside.data(), threads);
        check_close(beside, sums_, tolerance, c_.text() + ": sums beside the gradients");
        check_close(values_of(grad_x), grad_x_, rounding, c_.text() + ": gradient by x");
        check_close(values_of(grad_y), grad_y_, rounding, c_.text() + ": gradient by y");
        if (c_.weighted)
            check_close(values_of(grad_weight), grad_weight_, 2e-6,
                        c_.text() + ": gradient by the weights");
    }

    SSDArguments arguments() const {
        SSDArguments arguments{{c_.shape, c_.shape + 5},
                               c_.per_image,
                               strided(x_, c_.shape),
                               strided(y_, c_.shape),
                               {}};
        if (c_.layout == Layout::broadcast) {
            const sosie::Array a = x_.array();
            arguments.x.strides.assign(a.strides, a.strides + 5);
        }
        if (c_.weighted) arguments.weight = strided(weight_, c_.weight_shape);
        return arguments;
    }

  private:
    void expect() {
        sums_.assign(size_t(2 * c_.images()), 0.0);
        grad_weight_.assign(size_t(weight_.size()), 0.0);
        for (int64_t i = 0; i < c_.size(); ++i) {
            const size_t image = size_t(c_.per_image ? i / (c_.size() / c_.shape[0]) : 0);
            const double d = x_.get(i) - y_.get(i);
            const double w = c_.weighted ? weight_.get(int64_t(c_.weight_of(i))) : 1;
            const double a = upstream_[2 * image], b = upstream_[2 * image + 1];
            sums_[2 * image] += w * d * d;
            sums_[2 * image + 1] += w;
            grad_x_.push_back(2 * a * w * d);
            grad_y_.push_back(-2 * a * w * d);
            grad_weight_[c_.weight_of(i)] += a * d * d + b;
        }
    }

    Case c_;
    TestArray x_, y_, weight_;
    Values upstream_, sums_, grad_x_, grad_y_, grad_weight_;
};

Case random_case(Random& random) {
    Case c{};
    for (int axis = 0; axis < 5; ++axis) {
        c.shape[axis] = axis < 3 ? random.pick<int64_t>({1, 1, 2, 3})
                                 : random.pick<int64_t>({1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 70});
        c.weight_shape[axis] = random.chance() ? 1 : c.shape[axis];
    }
    if (random.next() % 4 == 0) std::copy(c.shape, c.shape + 5, c.weight_shape);
    c.dtype = random.pick({DType::u8, DType::u16, DType::f16, DType::bf16, DType::f32, DType::f32,
                           DType::f64, DType::f64});
    c.weight_dtype =
        random.pick({DType::u8, DType::f16, DType::bf16, DType::f32, DType::f32, DType::f64});
    c.layout = random.pick({Layout::contiguous, Layout::channels_last, Layout::flipped,
                            Layout::strided, Layout::broadcast});
    c.weighted = random.next() % 4 != 0;
    c.per_image = random.chance();
    return c;
}

void run_case(const Case& c, Random& random, std::initializer_list<int> threads = {1}) {
    const Experiment experiment(c, random);
    each_isa([&] {
        for (const int count : threads) experiment.run(count);
    });
}

// More than one task of an image, with each kind of weights.
void test_large(Random& random) {
    const int64_t weight_shapes[][5] = {{2, 3, 1, 150, 160}, {1, 1, 1, 150, 160},
                                        {1, 3, 1, 1, 1},     {2, 1, 1, 1, 1},
                                        {1, 1, 1, 1, 1},     {2, 1, 1, 150, 160}};
    for (const auto& weight_shape : weight_shapes)
        for (const bool per_image : {false, true}) {
            Case c{{2, 3, 1, 150, 160}, {},   DType::f32, DType::f32,
                   Layout::contiguous,  true, per_image};
            std::copy(weight_shape, weight_shape + 5, c.weight_shape);
            run_case(c, random, {1, 3});
        }
}

void test_bits(Random& random) {
    Case c{{1, 3, 1, 300, 301},
           {1, 3, 1, 1, 1},
           DType::f32,
           DType::f32,
           Layout::contiguous,
           true,
           false};
    const Experiment experiment(c, random);
    const SSDArguments arguments = experiment.arguments();
    const double upstream[2] = {0.3, 0.7};
    each_isa([&] {
        std::set<std::string> seen;
        for (const int threads : {1, 2, 3, 7, 2}) {
            TestArray grad_x(c.shape, DType::f32), grad_weight(c.weight_shape, DType::f64);
            SSDGradients gradients;
            gradients.x = strided(grad_x, c.shape);
            gradients.weight = strided(grad_weight, c.weight_shape);
            double sums[2];
            sosie::ssd_backward(arguments, upstream, gradients, sums, threads);
            std::string bits(grad_x.memory(), size_t(grad_x.bytes()));
            bits.append(grad_weight.memory(), size_t(grad_weight.bytes()));
            bits.append(reinterpret_cast<const char*>(sums), sizeof sums);
            seen.insert(bits);
        }
        check_close({double(seen.size())}, {1}, 0, "bits for any number of threads");
    });
}

// What the kernels see of bad weights, wherever they lie.
void test_weights_found(Random& random) {
    Case c{{1, 1, 1, 1, 1100},
           {1, 1, 1, 1, 1100},
           DType::f32,
           DType::f32,
           Layout::contiguous,
           true,
           false};
    for (const int64_t at : {0, 7, 8, 1023, 1024, 1099}) {
        TestArray image(c.shape, DType::f32), weight(c.shape, DType::f32);
        fill(image, DType::f32, random);
        fill(weight, DType::f32, random);
        each_isa([&] {
            for (const double bad : {-0.5, HUGE_VAL, -HUGE_VAL, std::nan("")}) {
                const double before = weight.get(at);
                weight.set(at, bad);
                const SSDArguments arguments{{c.shape, c.shape + 5},
                                             false,
                                             strided(image, c.shape),
                                             strided(image, c.shape),
                                             strided(weight, c.shape)};
                double sums[2];
                const sosie::SSDWeights found = sosie::ssd_forward(arguments, sums, 1);
                const bool seen = std::isfinite(bad) ? found.lowest == bad && found.odd == 0
                                                     : !std::isfinite(found.odd);
                check_close({double(seen)}, {1}, 0, "bad weights are found");
                weight.set(at, before);
            }
        });
    }
}

// -------------------------------------------------------------------------------------- templates

void test_search_once(Random& random) {
    sosie::TemplateSearch call{};
    const int64_t height = random.pick<int64_t>({1, 2, 5, 16, 17, 34});
    const int64_t width = random.pick<int64_t>({1, 3, 15, 16, 17, 33, 65, 300});
    const int64_t shape[5] = {random.pick<int64_t>({1, 2}), random.pick<int64_t>({1, 3}), 1, height,
                              width};
    std::copy(shape, shape + 5, call.shape);
    call.height = 1 + int64_t(random.next() % uint64_t(std::min<int64_t>(height, 6)));
    call.width =
        1 + int64_t(random.next() % uint64_t(std::min<int64_t>(width, random.chance() ? 9 : 280)));
    const DType dtype = random.pick({DType::u8, DType::f32, DType::f64});
    const DType compute = dtype == DType::f64 ? DType::f64 : DType::f32;
    const Layout layout =
        random.pick({Layout::contiguous, Layout::channels_last, Layout::flipped, Layout::strided});
    TestArray image(shape, dtype, layout);
    fill(image, dtype, random);
    const int64_t own[5] = {1, shape[1], 1, call.height, call.width};
    TestArray values(own, compute), weights(own, compute);
    fill(values, compute, random);
    for (int64_t i = 0; i < weights.size(); ++i)
        weights.set(i, random.chance() ? 0 : random.fraction());
    const bool weighted = random.chance();
    const int64_t map_shape[5] = {shape[0], 1, 1, height - call.height + 1, width - call.width + 1};
    Values expected;
    for (int64_t p = 0; p < map_shape[0] * map_shape[3] * map_shape[4]; ++p) {
        const int64_t j = p % map_shape[4], i = p / map_shape[4] % map_shape[3];
        const int64_t n = p / map_shape[4] / map_shape[3];
        double sum = 0;
        for (int64_t t = 0; t < values.size(); ++t) {
            const int64_t s = t % own[4], r = t / own[4] % own[3], c = t / own[4] / own[3];
            const double d =
                image.get(((n * shape[1] + c) * height + i + r) * width + j + s) - values.get(t);
            sum += (weighted ? weights.get(t) : 1) * d * d;
        }
        expected.push_back(sum);
    }
    call.image = image.array();
    call.values = values.memory();
    call.weights = weighted ? weights.memory() : nullptr;
    each_isa([&] {
        TestArray map(map_shape, dtype == DType::f32 ? DType::f32 : DType::f64);
        call.map = map.array();
        sosie::template_search(call, random.pick({1, 3}));
        // At most 256 additions of terms of one sign in float.
        check_close(values_of(map), expected, compute == DType::f64 ? 1e-13 : 1e-5, "template");
    });
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 300;
    Random random(1948);
    test_weights_found(random);
    test_large(random);
    test_bits(random);
    for (int i = 0; i < cases; ++i) run_case(random_case(random), random);
    for (int i = 0; i < cases / 2; ++i) test_search_once(random);
    std::string isas;
    for (const std::string& isa : sosie::supported_isas()) isas += " " + isa;
    std::printf("%d checks, %d failed, on%s\n", g_checks, g_failures, isas.c_str());
    return g_failures == 0 ? 0 : 1;
}
