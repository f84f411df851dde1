// SPDX-License-Identifier: Apache-2.0
//
// The kernels of the recurrent family, on every instruction set that runs here: sigmoid and tanh
// against the C library's in double, over all floats by a stride and over edges; the gates of one
// step against formulas in double, one number at a time, with runs on both sides of vectors and
// tasks, and memory of exactly their size.
//
// Usage: test_recurrent [number of random cases] [stride through the floats; 1 is all of them]
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "../../csrc/cpu/dispatch.hpp"
#include "../../csrc/cpu/recurrent.hpp"
#include "arrays.hpp"
#include "checks.hpp"

namespace {

using sosie::DType;
using sosie::GateActivations;
using sosie::GateRows;
using test::Random;
using Values = std::vector<double>;

double exact_sigmoid(double x) {
    return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}

// ---------------------------------------------------------------------------- functions by
// themselves

// Distance in units in the last place of the exact result, as a T.
template <class T>
double ulps(T found, double exact) {
    if (std::isnan(exact)) return std::isnan(found) ? 0 : 1e300;
    int exponent;
    std::frexp(exact, &exponent);
    const int digits = std::numeric_limits<T>::digits;
    const int lowest = std::numeric_limits<T>::min_exponent;
    return std::fabs(double(found) - exact) / std::ldexp(1.0, std::max(exponent, lowest) - digits);
}

struct Worst {
    double ulps = 0, at = 0;
};

// Where the exact result is below the smallest normal number, an error below that counts as none.
template <class T>
void compare(const std::vector<T>& x, void (*function)(const void*, void*, int64_t),
             double (*exact)(double), Worst& worst) {
    std::vector<T> y(x.size());
    function(x.data(), y.data(), int64_t(x.size()));
    const double tiny = double(std::numeric_limits<T>::min());
    for (size_t i = 0; i < x.size(); ++i) {
        const double expected = exact(double(x[i]));
        const bool subnormal =
            exact == &exact_sigmoid && expected < tiny && std::fabs(double(y[i]) - expected) < tiny;
        const double error = subnormal ? 0 : ulps<T>(y[i], expected);
        if (!(error <= worst.ulps)) worst = {error, double(x[i])};
    }
}

template <class T>
std::vector<T> edges() {
    using Limits = std::numeric_limits<T>;
    std::vector<T> x = {0,
                        Limits::denorm_min(),
                        Limits::min(),
                        T(1e-20),
                        Limits::epsilon(),
                        T(0.17328679),  // half of where r changes k
                        T(0.34657359),
                        T(0.5),
                        1,
                        9,
                        T(9.1),
                        20,
                        44,
                        87,
                        T(87.5),
                        88,
                        T(88.5),
                        104,
                        708,
                        710,
                        745,
                        1000,
                        Limits::max(),
                        Limits::infinity(),
                        Limits::quiet_NaN()};
    const size_t count = x.size();
    for (size_t i = 0; i < count; ++i) {
        x.push_back(-x[i]);
        x.push_back(std::nextafter(x[i], T(0)));
        x.push_back(-std::nextafter(x[i], T(1e30)));
    }
    return x;
}

// Within which the functions stay, as activations-inl.hpp says.
template <class T>
constexpr double kUlps = sizeof(T) == 4 ? 2.5 : 3;

template <class T>
void check_functions(const std::vector<T>& x, const std::string& what) {
    constexpr size_t which = sizeof(T) == 4 ? 0 : 1;
    const sosie::RecurrentKernels& kernels = *sosie::active().recurrent;
    Worst sigmoid, tanh;
    compare<T>(x, kernels.sigmoid[which], &exact_sigmoid, sigmoid);
    compare<T>(x, kernels.tanh[which], &std::tanh, tanh);
    const auto say = [&](const char* name, const Worst& worst) {
        char text[160];
        std::snprintf(text, sizeof text, "%s of %s is off by %.2f units at %.9g", name,
                      what.c_str(), worst.ulps, worst.at);
        test::check_true(worst.ulps <= kUlps<T>, text);
    };
    say("sigmoid", sigmoid);
    say("tanh", tanh);
}

void test_functions(uint32_t stride) {
    std::vector<float> floats;
    std::vector<double> doubles;
    Random random(7);
    for (int i = 0; i < 20000; ++i) doubles.push_back((random.uniform() - 0.5) * 80);
    for (int i = 0; i < 5000; ++i)
        doubles.push_back(std::ldexp(random.uniform() - 0.5, -int(random.next() % 60)));
    test::each_isa([&] {
        check_functions<float>(edges<float>(), "edges, float");
        check_functions<double>(edges<double>(), "edges, double");
        check_functions<double>(doubles, "doubles");
        constexpr size_t kChunk = 1 << 20;
        for (uint64_t bits = 0; bits < uint64_t(1) << 32;) {
            floats.clear();
            for (; floats.size() < kChunk && bits < uint64_t(1) << 32; bits += stride) {
                const uint32_t word = uint32_t(bits);
                float value;
                std::memcpy(&value, &word, sizeof value);
                floats.push_back(value);
            }
            check_functions<float>(floats, "all floats by a stride");
        }
    });
}

void test_exact_values() {
    test::each_isa([] {
        const sosie::RecurrentKernels& kernels = *sosie::active().recurrent;
        const float infinity = std::numeric_limits<float>::infinity();
        const std::vector<float> x = {0.0f, -0.0f, infinity, -infinity, 30.0f, -30.0f, -200.0f};
        std::vector<float> s(x.size()), t(x.size());
        kernels.sigmoid[0](x.data(), s.data(), int64_t(x.size()));
        kernels.tanh[0](x.data(), t.data(), int64_t(x.size()));
        test::check_close({s[0], s[1], s[2], s[3], s[4], s[6]}, {0.5, 0.5, 1, 0, 1, 0}, 0,
                          "sigmoid is exact");
        test::check_close({t[0], t[1], t[2], t[3], t[4], t[5]}, {0, 0, 1, -1, 1, -1}, 0,
                          "tanh is exact");
        test::check_true(!std::signbit(t[0]) && std::signbit(t[1]), "tanh keeps the sign of 0");
    });
}

// --------------------------------------------------------------------------------------------
// gates

// Numbers as the kernels have them, in memory of exactly their size.
class Numbers {
  public:
    Numbers(size_t count, DType dtype)
        : array_(std::vector<int64_t>{1, 1, 1, 1, int64_t(count)}.data(), dtype), dtype_(dtype) {}
    Numbers(size_t count, DType dtype, Random& random, double low = -3, double high = 3)
        : Numbers(count, dtype) {
        // In 1/64: exact in every dtype.
        for (size_t i = 0; i < count; ++i)
            array_.set(int64_t(i), std::floor((low + (high - low) * random.uniform()) * 64) / 64);
    }
    void* data() { return const_cast<char*>(array_.memory()); }
    double operator[](size_t i) const { return array_.get(int64_t(i)); }
    Values values() const { return array_.plane(0); }
    DType dtype() const { return dtype_; }

  private:
    test::TestArray array_;
    DType dtype_;
};

struct Case {
    GateRows shape;
    int64_t peephole_rows;  // 0: none
    bool hidden_given, recurrent_given;

    size_t size(int gates) const { return size_t(shape.rows * shape.length * gates); }
    DType computed() const { return shape.dtype == DType::f64 ? DType::f64 : DType::f32; }
    // Place of number i of run `gate`.
    size_t at(int gates, int gate, size_t i) const {
        const size_t length = size_t(shape.length);
        return (i / length * size_t(gates) + size_t(gate)) * length + i % length;
    }
    size_t peephole_at(int gate, size_t i) const {
        const size_t length = size_t(shape.length), rows = size_t(peephole_rows);
        return (size_t(gate) * rows + i / length % rows) * length + i % length;
    }
    double gate(double x) const {
        const GateActivations& a = shape.activations;
        return a.hard_sigmoid ? std::min(std::max(a.slope * x + 0.5, 0.0), 1.0) : exact_sigmoid(x);
    }
    double value(double x) const {
        return shape.activations.hard_tanh ? std::min(std::max(x, -1.0), 1.0) : std::tanh(x);
    }
    double gate_slope(double y) const {
        const GateActivations& a = shape.activations;
        return a.hard_sigmoid ? (y > 0 && y < 1 ? a.slope : 0) : y * (1 - y);
    }
    double value_slope(double y) const {
        return shape.activations.hard_tanh ? (std::fabs(y) < 1 ? 1 : 0) : 1 - y * y;
    }
    // Roundings of numbers up to about 10, a dozen one after the other, and one to the stored type.
    double tolerance() const {
        switch (shape.dtype) {
            case DType::f16: return 10 * 0x1p-11;
            case DType::bf16: return 10 * 0x1p-8;
            case DType::f64: return 1e-13;
            default: return 1e-5;
        }
    }
    std::string name() const {
        return std::string(test::name_of(shape.dtype)) + " " + std::to_string(shape.rows) + "x" +
               std::to_string(shape.length) + (shape.activations.hard_sigmoid ? " hard" : "") +
               (peephole_rows ? " peephole" : "");
    }
};

Case random_case(Random& random) {
    Case c{};
    const int64_t rows = random.pick<int64_t>({1, 2, 3, 7});
    const int64_t length = random.pick<int64_t>({1, 3, 4, 7, 8, 9, 15, 16, 17, 33, 64, 16400});
    c.shape = {rows,
               length,
               random.pick({DType::f16, DType::bf16, DType::f32, DType::f64}),
               {random.chance(0.3), random.chance(0.3), random.pick({1.0 / 6, 0.2})}};
    if (random.chance(0.5)) c.peephole_rows = rows % 2 == 0 && random.chance(0.5) ? rows / 2 : 1;
    c.hidden_given = random.chance(0.7);
    c.recurrent_given = random.chance(0.7);
    return c;
}

int any_threads(Random& random) {
    return random.pick({1, 3});
}

void test_lstm(const Case& c, Random& random) {
    const DType dtype = c.shape.dtype, wide = c.computed();
    Numbers inputs(c.size(4), dtype, random), recurrent(c.size(4), dtype, random);
    Numbers cell(c.size(1), wide, random);
    Numbers peephole(size_t(3 * std::max<int64_t>(c.peephole_rows, 1) * c.shape.length), wide,
                     random, -1, 1);
    Values gates(c.size(4)), hidden(c.size(1)), new_cell(c.size(1));
    const auto hole = [&](int gate, size_t i) {
        return c.peephole_rows ? peephole[c.peephole_at(gate, i)] : 0.0;
    };
    for (size_t i = 0; i < c.size(1); ++i) {
        double a[4];
        for (int g = 0; g < 4; ++g)
            a[g] = inputs[c.at(4, g, i)] + (c.recurrent_given ? recurrent[c.at(4, g, i)] : 0);
        const double in = c.gate(a[0] + hole(0, i) * cell[i]);
        const double forget = c.gate(a[1] + hole(1, i) * cell[i]), g = c.value(a[2]);
        new_cell[i] = forget * cell[i] + in * g;
        const double out = c.gate(a[3] + hole(2, i) * new_cell[i]);
        hidden[i] = out * c.value(new_cell[i]);
        const double values[4] = {in, forget, g, out};
        for (int k = 0; k < 4; ++k) gates[c.at(4, k, i)] = values[k];
    }
    void* holes = c.peephole_rows ? peephole.data() : nullptr;
    Numbers found_gates(c.size(4), dtype), found_hidden(c.size(1), dtype);
    Numbers found_cell(c.size(1), wide);
    sosie::lstm_forward(
        {c.shape, inputs.data(), c.recurrent_given ? recurrent.data() : nullptr, cell.data(), holes,
         c.peephole_rows, found_gates.data(), found_hidden.data(), found_cell.data(), false},
        any_threads(random));
    const std::string name = "lstm " + c.name();
    test::check_close(found_gates.values(), gates, c.tolerance(), name + ", gates");
    test::check_close(found_hidden.values(), hidden, c.tolerance(), name + ", hidden");
    test::check_close(found_cell.values(), new_cell, 2e-5, name + ", cell");
    // Backward, from the gates as they are stored.
    Numbers grad_hidden(c.size(1), dtype, random), grad_recurrent(c.size(1), dtype, random);
    Numbers grad_cell(c.size(1), wide, random), grad_gates(c.size(4), dtype);
    Values by_gates(c.size(4)), by_cell(c.size(1));
    for (size_t i = 0; i < c.size(1); ++i) {
        const auto gate = [&](int k) { return found_gates[c.at(4, k, i)]; };
        const double t = c.value(found_cell[i]);
        const double dh =
            (c.hidden_given ? grad_hidden[i] : 0) + (c.recurrent_given ? grad_recurrent[i] : 0);
        const double d_o = dh * t * c.gate_slope(gate(3));
        const double dc = grad_cell[i] + dh * gate(3) * c.value_slope(t) + d_o * hole(2, i);
        const double d_i = dc * gate(2) * c.gate_slope(gate(0));
        const double d_f = dc * cell[i] * c.gate_slope(gate(1));
        const double values[4] = {d_i, d_f, dc * gate(0) * c.value_slope(gate(2)), d_o};
        for (int k = 0; k < 4; ++k) by_gates[c.at(4, k, i)] = values[k];
        by_cell[i] = dc * gate(1) + d_i * hole(0, i) + d_f * hole(1, i);
    }
    sosie::lstm_backward({c.shape, found_gates.data(), cell.data(), found_cell.data(),
                          c.hidden_given ? grad_hidden.data() : nullptr,
                          c.recurrent_given ? grad_recurrent.data() : nullptr, holes,
                          c.peephole_rows, grad_cell.data(), grad_gates.data()},
                         any_threads(random));
    test::check_close(grad_gates.values(), by_gates, c.tolerance(), name + ", gradient of gates");
    test::check_close(grad_cell.values(), by_cell, c.tolerance(), name + ", gradient of cell");
}

// Backward passes of a GRU have the same ingredients in another order: checked as what the whole
// step, one kernel, gives.
void test_gru(const Case& c, Random& random) {
    const DType dtype = c.shape.dtype, wide = c.computed();
    Numbers inputs(c.size(3), dtype, random), recurrent(c.size(3), dtype, random);
    Numbers hidden(c.size(1), dtype, random);
    Values gates(c.size(3)), new_hidden(c.size(1)), candidate(c.size(1));
    for (size_t i = 0; i < c.size(1); ++i) {
        const auto sum = [&](int k) { return inputs[c.at(3, k, i)] + recurrent[c.at(3, k, i)]; };
        const double r = c.gate(sum(0)), z = c.gate(sum(1));
        candidate[i] = recurrent[c.at(3, 2, i)];
        const double n = c.value(inputs[c.at(3, 2, i)] + r * candidate[i]);
        new_hidden[i] = (1 - z) * n + z * hidden[i];
        const double values[3] = {r, z, n};
        for (int k = 0; k < 3; ++k) gates[c.at(3, k, i)] = values[k];
    }
    Numbers found_gates(c.size(3), dtype), found_candidate(c.size(1), dtype);
    Numbers found_hidden(c.size(1), dtype);
    sosie::gru_forward({c.shape, inputs.data(), recurrent.data(), hidden.data(), found_gates.data(),
                        found_candidate.data(), found_hidden.data()},
                       sosie::GRUPart::whole, any_threads(random));
    const std::string name = "gru " + c.name();
    test::check_close(found_gates.values(), gates, c.tolerance(), name + ", gates");
    test::check_close(found_hidden.values(), new_hidden, c.tolerance(), name + ", hidden");
    test::check_close(found_candidate.values(), candidate, 0, name + ", candidate");

    Numbers grad_hidden(c.size(1), dtype, random), grad_recurrent(c.size(1), dtype, random);
    Numbers carry(c.size(1), wide, random);
    Numbers by_inputs(c.size(3), dtype), by_recurrent(c.size(3), dtype);
    Values of_inputs(c.size(3)), of_recurrent(c.size(3)), past(c.size(1));
    Values of_candidate(c.size(1)), of_both(c.size(2)), after(c.size(1));
    Numbers of_reset(c.size(1), dtype, random);
    for (size_t i = 0; i < c.size(1); ++i) {
        const auto gate = [&](int k) { return found_gates[c.at(3, k, i)]; };
        const double dh = (c.hidden_given ? grad_hidden[i] : 0) +
                          (c.recurrent_given ? grad_recurrent[i] : 0) + carry[i];
        const double d_n = dh * (1 - gate(1)) * c.value_slope(gate(2));
        const double d_z = dh * (hidden[i] - gate(2)) * c.gate_slope(gate(1));
        const double d_r = d_n * found_candidate[i] * c.gate_slope(gate(0));
        const double values[4] = {d_r, d_z, d_n, d_n * gate(0)};
        for (int k = 0; k < 3; ++k) {
            of_inputs[c.at(3, k, i)] = values[k];
            of_recurrent[c.at(3, k, i)] = values[k < 2 ? k : 3];
        }
        past[i] = dh * gate(1);
        of_candidate[i] = d_n;
        of_both[c.at(2, 0, i)] = of_reset[i] * hidden[i] * c.gate_slope(gate(0));
        of_both[c.at(2, 1, i)] = d_z;
        after[i] = past[i] + of_reset[i] * gate(0);
    }
    Numbers same = Numbers(c.size(1), wide);
    std::memcpy(same.data(), carry.data(), size_t(test::bytes_of(wide)) * c.size(1));
    const void* given = c.hidden_given ? grad_hidden.data() : nullptr;
    const void* also = c.recurrent_given ? grad_recurrent.data() : nullptr;
    sosie::gru_backward({c.shape, found_gates.data(), found_candidate.data(), hidden.data(), given,
                         also, carry.data(), by_inputs.data(), by_recurrent.data()},
                        sosie::GRUPart::whole, any_threads(random));
    test::check_close(by_inputs.values(), of_inputs, c.tolerance(), name + ", of inputs");
    test::check_close(by_recurrent.values(), of_recurrent, c.tolerance(), name + ", of recurrent");
    test::check_close(carry.values(), past, c.tolerance(), name + ", carry");

    // In two parts, around a convolution.
    Numbers by_candidate(c.size(1), dtype), by_both(c.size(2), dtype);
    sosie::gru_backward({c.shape, found_gates.data(), nullptr, hidden.data(), given, also,
                         same.data(), by_candidate.data(), by_both.data()},
                        sosie::GRUPart::update, any_threads(random));
    sosie::gru_backward({c.shape, found_gates.data(), nullptr, hidden.data(), nullptr,
                         of_reset.data(), same.data(), nullptr, by_both.data()},
                        sosie::GRUPart::reset, any_threads(random));
    test::check_close(by_candidate.values(), of_candidate, c.tolerance(), name + ", of n");
    test::check_close(by_both.values(), of_both, c.tolerance(), name + ", of r and z");
    test::check_close(same.values(), after, c.tolerance(), name + ", carry in parts");

    Numbers two(c.size(2), dtype, random), one(c.size(1), dtype, random);
    Numbers part_gates(c.size(3), dtype), reset(c.size(1), dtype), next(c.size(1), dtype);
    Values expected_reset(c.size(1)), expected_next(c.size(1)), expected_gates(c.size(3));
    for (size_t i = 0; i < c.size(1); ++i) {
        const double r = c.gate(inputs[c.at(3, 0, i)] + two[c.at(2, 0, i)]);
        const double z = c.gate(inputs[c.at(3, 1, i)] + two[c.at(2, 1, i)]);
        const double n = c.value(inputs[c.at(3, 2, i)] + one[i]);
        const double values[3] = {r, z, n};
        for (int k = 0; k < 3; ++k) expected_gates[c.at(3, k, i)] = values[k];
        expected_reset[i] = r * hidden[i];
        expected_next[i] = (1 - z) * n + z * hidden[i];
    }
    sosie::gru_forward({c.shape, inputs.data(), two.data(), hidden.data(), part_gates.data(),
                        reset.data(), nullptr},
                       sosie::GRUPart::reset, any_threads(random));
    sosie::gru_forward({c.shape, inputs.data(), one.data(), hidden.data(), part_gates.data(),
                        nullptr, next.data()},
                       sosie::GRUPart::update, any_threads(random));
    test::check_close(part_gates.values(), expected_gates, c.tolerance(), name + ", part gates");
    test::check_close(reset.values(), expected_reset, c.tolerance(), name + ", reset");
    test::check_close(next.values(), expected_next, c.tolerance(), name + ", update");
}

// Gates larger than caches are written past them, without and with the last vector's rest.
void test_large(Random& random) {
    for (const int64_t length : {32, 33}) {
        Case c{};
        c.shape = {(1 << 18) / 32, length, DType::f32, {false, false, 0}};
        c.hidden_given = c.recurrent_given = true;
        test_lstm(c, random);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 200;
    // A prime, so that all last bits occur; small enough that every exponent is seen often.
    const uint32_t stride = argc > 2 ? uint32_t(std::atoi(argv[2])) : 1009;
    Random random(2015);
    test_exact_values();
    test_functions(stride);
    for (int i = 0; i < cases; ++i) {
        const Case c = random_case(random);
        test::each_isa([&] {
            Random same(uint64_t(i) + 1);
            test_lstm(c, same);
            test_gru(c, same);
        });
    }
    test::each_isa([&] { test_large(random); });
    return test::report();
}
