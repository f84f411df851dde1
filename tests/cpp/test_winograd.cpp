// SPDX-License-Identifier: Apache-2.0
//
// The kernels of the winograd family, on every instruction set that runs here: convolutions, their
// gradients and the step of an LSTM against sums in double, one number at a time, with images and
// channels on both sides of tiles, blocks and vectors, and memory of exactly their size.
//
// Usage: test_winograd [number of random cases]
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/recurrent.hpp"
#include "../../csrc/cpu/winograd.hpp"
#include "checks.hpp"

namespace {

using sosie::ImageArray;
using sosie::ImageShape;
using sosie::PackedWeights;
using test::Random;
using Floats = std::vector<float>;
using Values = std::vector<double>;

// Numbers are of size 1 and weights such that sums are too. Errors are about 1e-6 in the root mean
// square (see winograd-transforms-inl.hpp), the largest of thousands up to six times that.
constexpr double kTolerance = 1e-5;

Floats noise(size_t count, Random& random, double scale = 1) {
    Floats values(count);
    for (float& value : values) value = float((2 * random.uniform() - 1) * scale);
    return values;
}

Values doubles(const Floats& values) {
    return Values(values.begin(), values.end());
}

struct Case {
    ImageShape shape;
    int64_t inputs[2], outputs[2];  // the second may be 0
    bool first_source_alone, first_target_alone, with_bias;
    int threads;

    int64_t all_inputs() const { return inputs[0] + inputs[1]; }
    int64_t all_outputs() const { return outputs[0] + outputs[1]; }
    size_t pixels() const { return size_t(shape.batch * shape.height * shape.width); }
    std::string name() const {
        const auto text = [](int64_t number) { return std::to_string(number); };
        return text(shape.batch) + "x" + text(shape.height) + "x" + text(shape.width) + ", " +
               text(inputs[0]) + "+" + text(inputs[1]) + " to " + text(outputs[0]) + "+" +
               text(outputs[1]);
    }
};

Case random_case(Random& random) {
    const auto channels = [&] { return random.pick<int64_t>({1, 2, 3, 7, 8, 9, 16, 17, 33}); };
    const auto size = [&] { return random.pick<int64_t>({1, 2, 3, 4, 5, 7, 8, 9, 13, 17}); };
    Case c{};
    c.shape = {random.between(1, 3), size(), random.chance(0.1) ? 70 : size()};
    c.inputs[0] = channels(), c.outputs[0] = channels();
    if (random.chance(0.2)) c.outputs[0] = random.pick<int64_t>({63, 64, 65, 132});
    if (random.chance(0.6)) c.inputs[1] = channels();
    if (random.chance(0.6)) c.outputs[1] = channels();
    c.first_source_alone = random.chance(0.3), c.first_target_alone = random.chance(0.3);
    c.with_bias = random.chance(0.5);
    c.threads = random.pick({1, 3});
    return c;
}

// Arrays of a case, and how their numbers are found.
struct Problem {
    const Case& c;
    Floats sources[2], weight, bias, packed;

    Problem(const Case& given, Random& random) : c(given) {
        for (int s = 0; s < 2; ++s) sources[s] = noise(c.pixels() * size_t(c.inputs[s]), random);
        const size_t size = size_t(c.all_outputs() * c.all_inputs() * 9);
        weight = noise(size, random, 1 / std::sqrt(3.0 * double(c.all_inputs())));
        bias = noise(size_t(c.outputs[0]), random);
        packed.resize(
            size_t(sosie::winograd_packed_size(c.all_inputs(), c.outputs[0], c.outputs[1])));
        sosie::winograd_pack({weight.data(), weights()}, c.threads);
    }
    PackedWeights weights() {
        return {packed.data(), c.all_inputs(), {c.outputs[0], c.outputs[1]}};
    }
    bool has_second_source() const { return c.inputs[1] > 0 && !c.first_source_alone; }
    ImageArray source(int s) {
        if (s == 1 && !has_second_source()) return {};
        return {sources[s].data(), c.inputs[s]};
    }
    // Channel k of both sources at a pixel; 0 outside.
    double value(int64_t k, int64_t n, int64_t y, int64_t x) const {
        if (y < 0 || y >= c.shape.height || x < 0 || x >= c.shape.width) return 0;
        const int s = k < c.inputs[0] ? 0 : 1;
        if (s == 1 && !has_second_source()) return 0;
        const int64_t pixel = (n * c.shape.height + y) * c.shape.width + x;
        return double(sources[s][size_t(pixel * c.inputs[s] + k - s * c.inputs[0])]);
    }
    // body(pixel's number, n, y, x)
    template <class Body>
    void each_pixel(Body body) const {
        size_t pixel = 0;
        for (int64_t n = 0; n < c.shape.batch; ++n)
            for (int64_t y = 0; y < c.shape.height; ++y)
                for (int64_t x = 0; x < c.shape.width; ++x) body(pixel++, n, y, x);
    }
    Values convolved(int64_t first, int64_t count, bool with_bias) const {
        Values result(c.pixels() * size_t(count));
        each_pixel([&](size_t pixel, int64_t n, int64_t y, int64_t x) {
            for (int64_t o = 0; o < count; ++o) {
                double sum = with_bias ? double(bias[size_t(o)]) : 0;
                for (int64_t k = 0; k < c.all_inputs(); ++k)
                    for (int64_t t = 0; t < 9; ++t)
                        sum += value(k, n, y + t / 3 - 1, x + t % 3 - 1) *
                               double(weight[size_t(((first + o) * c.all_inputs() + k) * 9 + t)]);
                result[pixel * size_t(count) + size_t(o)] = sum;
            }
        });
        return result;
    }
};

void test_forward(const Case& c, Random& random) {
    Problem problem(c, random);
    const bool both = c.outputs[1] > 0 && !c.first_target_alone;
    Floats first(c.pixels() * size_t(c.outputs[0]));
    Floats second(both ? c.pixels() * size_t(c.outputs[1]) : 0);
    sosie::winograd_forward(
        {c.shape,
         problem.weights(),
         c.with_bias ? problem.bias.data() : nullptr,
         {problem.source(0), problem.source(1)},
         {{first.data(), c.outputs[0]}, {both ? second.data() : nullptr, c.outputs[1]}},
         nullptr},
        c.threads);
    test::check_close(doubles(first), problem.convolved(0, c.outputs[0], c.with_bias), kTolerance,
                      c.name() + ", first target");
    if (both)
        test::check_close(doubles(second), problem.convolved(c.outputs[0], c.outputs[1], false),
                          kTolerance, c.name() + ", second target");
}

// In two calls, as for two steps of a sequence; relative to the roots of how many are summed.
void test_gradient(const Case& c, Random& random) {
    Problem problem(c, random);
    const int64_t inputs = c.all_inputs(), outputs = c.outputs[0];
    Floats upstream = noise(c.pixels() * size_t(outputs), random);
    Floats sums(size_t(sosie::winograd_gradient_size(inputs, outputs)), 0.0f);
    Floats bias_sums(size_t(sosie::winograd_gradient_ranges(outputs) * outputs), 0.0f);
    for (int call = 0; call < 2; ++call)
        sosie::winograd_gradient({c.shape,
                                  {problem.source(0), problem.source(1)},
                                  {upstream.data(), outputs},
                                  inputs,
                                  sums.data(),
                                  bias_sums.data()},
                                 c.threads);
    Floats weight(size_t(outputs * inputs * 9)), bias(size_t(outputs), 0.0f);
    sosie::winograd_finish(
        {inputs, outputs, sums.data(), bias_sums.data(), weight.data(), bias.data()}, c.threads);
    Values by_weight(weight.size()), by_bias(bias.size());
    problem.each_pixel([&](size_t pixel, int64_t n, int64_t y, int64_t x) {
        for (int64_t o = 0; o < outputs; ++o) {
            const double by = 2 * double(upstream[pixel * size_t(outputs) + size_t(o)]);
            by_bias[size_t(o)] += by;
            for (int64_t k = 0; k < inputs; ++k)
                for (int64_t t = 0; t < 9; ++t)
                    by_weight[size_t((o * inputs + k) * 9 + t)] +=
                        by * problem.value(k, n, y + t / 3 - 1, x + t % 3 - 1);
        }
    });
    const double scale = std::sqrt(double(c.pixels()));
    test::check_close(doubles(weight), by_weight, kTolerance * scale, c.name() + ", weight");
    test::check_close(doubles(bias), by_bias, kTolerance * scale, c.name() + ", bias");
}

// Behind a convolution in double, by the kernels of gates, which have tests of their own.
void test_lstm(const Case& given, Random& random) {
    Case c = given;
    c.outputs[0] = 4 * given.inputs[0], c.outputs[1] = 0;
    Problem problem(c, random);
    const int64_t channels = given.inputs[0], area = c.shape.height * c.shape.width;
    const size_t size = c.pixels() * size_t(channels);
    const int64_t peephole_rows = random.pick<int64_t>({0, 1, area});
    const Floats cell = noise(size, random);
    const Floats peephole = noise(size_t(3 * peephole_rows * channels), random);
    Values exact = problem.convolved(0, c.outputs[0], c.with_bias);
    const Floats inputs(exact.begin(), exact.end());
    const bool keeps = random.chance(0.7), hard = random.chance(0.3);
    Floats gates[2], hidden[2], new_cell[2];
    for (int by = 0; by < 2; ++by) {
        gates[by].resize(keeps ? 4 * size : 0);
        hidden[by].resize(size), new_cell[by].resize(size);
        const sosie::LSTMForward step{
            {int64_t(c.pixels()), channels, sosie::DType::f32, {hard, hard, 0.2}},
            by == 0 ? inputs.data() : nullptr,
            nullptr,
            cell.data(),
            peephole_rows ? peephole.data() : nullptr,
            peephole_rows,
            keeps ? gates[by].data() : nullptr,
            hidden[by].data(),
            new_cell[by].data(),
            false};
        if (by == 0)
            sosie::lstm_forward(step, 1);
        else
            sosie::winograd_lstm_forward({c.shape,
                                          problem.weights(),
                                          c.with_bias ? problem.bias.data() : nullptr,
                                          {problem.source(0), problem.source(1)},
                                          {},
                                          &step},
                                         c.threads);
    }
    const std::string name = "lstm " + c.name();
    // Cells are up to a few times larger than what goes into the gates.
    test::check_close(doubles(gates[1]), doubles(gates[0]), kTolerance, name + ", gates");
    test::check_close(doubles(hidden[1]), doubles(hidden[0]), 2 * kTolerance, name + ", hidden");
    test::check_close(doubles(new_cell[1]), doubles(new_cell[0]), 2 * kTolerance, name + ", cell");
}

// Bits do not depend on the number of threads.
void test_threads(Random& random) {
    Case c{};
    c.shape = {2, 33, 37};
    c.inputs[0] = 5, c.inputs[1] = 12, c.outputs[0] = 70;
    Problem problem(c, random);
    Floats found[2];
    for (const int threads : {1, 4}) {
        Floats& target = found[threads == 4];
        target.resize(c.pixels() * 70);
        sosie::winograd_forward({c.shape,
                                 problem.weights(),
                                 nullptr,
                                 {problem.source(0), problem.source(1)},
                                 {{target.data(), 70}, {}},
                                 nullptr},
                                threads);
    }
    test::check_true(found[0] == found[1], "the same numbers from 1 and 4 threads");
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 60;
    Random random(2016);
    for (int i = 0; i < cases; ++i) {
        const Case c = random_case(random);
        test::each_isa([&] {
            Random same(uint64_t(i) + 1);
            test_forward(c, same);
            test_gradient(c, same);
            test_lstm(c, same);
        });
    }
    test::each_isa([&] { test_threads(random); });
    return test::report();
}
