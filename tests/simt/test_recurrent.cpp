// SPDX-License-Identifier: Apache-2.0
//
// Gates on the emulator: activations to their last place, and grids of several blocks for the
// sanitizers. All dtypes, layouts and options are tested from Python, with the same kernels.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "../../csrc/cuda/recurrent.cuh"

namespace {

using namespace sosie;

int g_failures = 0;

void check(bool condition, const std::string& what) {
    if (condition) return;
    ++g_failures;
    std::printf("FAILED %s\n", what.c_str());
}

// ------------------------------------------------------------------------------------ activations

// In units of the last place of the expected number.
double error_in_units(float actual, double expected) {
    if (std::isnan(expected)) return std::isnan(actual) ? 0.0 : HUGE_VAL;
    int exponent;
    std::frexp(expected, &exponent);
    return std::fabs(double(actual) - expected) / std::ldexp(1.0, exponent - 24);
}

// Positive and negative floats, every `stride`-th of them; the reciprocal off by -1, 0 and 1 units.
void check_activations(unsigned stride) {
    double worst_sigmoid = 0.0, worst_tanh = 0.0;
    for (unsigned magnitude = 0; magnitude <= 0x7f800000u; magnitude += stride)
        for (const unsigned sign : {0u, 0x80000000u}) {
            const float x = float_of_bits(sign | magnitude);
            const double wide = x, exact_tanh = std::tanh(wide);
            const double e = std::exp(-std::fabs(wide));
            const double exact_sigmoid = (wide < 0 ? e : 1.0) / (1.0 + e);
            for (g_reciprocal_error = -1; g_reciprocal_error <= 1; ++g_reciprocal_error) {
                // Denormal numbers are flushed to 0 on devices.
                if (exact_sigmoid >= 0x1p-126)
                    worst_sigmoid =
                        std::max(worst_sigmoid, error_in_units(sigmoid(x), exact_sigmoid));
                if (std::fabs(exact_tanh) >= 0x1p-126)
                    worst_tanh =
                        std::max(worst_tanh, error_in_units(hyperbolic_tangent(x), exact_tanh));
            }
        }
    g_reciprocal_error = 0;
    std::printf("largest errors: sigmoid %.3f units, tanh %.3f units\n", worst_sigmoid, worst_tanh);
    check(worst_sigmoid <= 3.0, "sigmoid within 3 units");
    check(worst_tanh <= 3.0, "tanh within 3 units");
}

void check_edges() {
    const float nan = NAN, infinity = HUGE_VALF;
    check(sigmoid(0.0f) == 0.5f && sigmoid(-0.0f) == 0.5f, "sigmoid of 0");
    check(sigmoid(infinity) == 1.0f && sigmoid(200.0f) == 1.0f, "sigmoid far above");
    check(sigmoid(-infinity) == 0.0f && sigmoid(-200.0f) == 0.0f, "sigmoid far below");
    check(std::isnan(sigmoid(nan)) && std::isnan(hyperbolic_tangent(nan)), "NaN");
    check(hyperbolic_tangent(infinity) == 1.0f && hyperbolic_tangent(-99.0f) == -1.0f, "tanh");
    check(!std::signbit(hyperbolic_tangent(0.0f)) && std::signbit(hyperbolic_tangent(-0.0f)) &&
              hyperbolic_tangent(-0.0f) == 0.0f,
          "tanh of zeros");
    check(std::isnan(clip(nan, -1.0f, 1.0f)), "hard functions of NaN");
}

// ------------------------------------------------------------------------------------------ steps

struct Random {
    unsigned state = 12345;
    float next() {
        state = state * 1664525u + 1013904223u;
        return float(int(state >> 16) % 3001 - 1500) / 1000.0f;
    }
    std::vector<float> numbers(size_t count) {
        std::vector<float> values(count);
        for (float& value : values) value = next();
        return values;
    }
};

double sigmoid_of(double x) {
    return 1.0 / (1.0 + std::exp(-x));
}

// `rows` rows of `length` numbers; peepholes repeat every `hole_rows` rows.
struct Steps {
    long long rows, length, hole_rows;
    Random random;
    simt::Order order;
    std::string what;

    size_t count() const { return size_t(rows * length); }
    std::vector<float> make(int gates) { return random.numbers(size_t(gates) * count()); }
    std::vector<float> empty(int gates) const {
        return std::vector<float>(size_t(gates) * count(), NAN);
    }
    size_t at(int gates, int gate, size_t n) const {
        const size_t run = size_t(length);
        return (n / run * size_t(gates) + size_t(gate)) * run + n % run;
    }
    size_t hole(int gate, size_t n) const {
        const size_t run = size_t(length), row = n / run % size_t(hole_rows);
        return (size_t(gate) * size_t(hole_rows) + row) * run + n % run;
    }
    GateRows shape() const {
        const int pack = length % kGatePack<float> == 0 ? kGatePack<float> : 1;
        return {rows, length, 0.0, pack, 0, 0};
    }
    template <class Call>
    void launch(void (*kernel)(Call), const Call& call) const {
        const long long threads = divide_up((long long)(count()), call.shape.pack);
        simt::launch(order, dim3(unsigned(divide_up(threads, kGateThreads))), dim3(kGateThreads), 0,
                     kernel, call);
    }
    // A dozen operations on numbers up to 3, with activations of 3 units.
    void close(double actual, double expected, const char* name) const {
        if (std::fabs(actual - expected) <= 4e-6 * std::max(1.0, std::fabs(expected))) return;
        check(false, what + ", " + name);
    }
};

void check_lstm(Steps s) {
    const auto inputs = s.make(4), recurrent = s.make(4), cell = s.make(1);
    const auto holes = s.random.numbers(size_t(3 * s.hole_rows * s.length));
    auto gates = s.empty(4), hidden = s.empty(1), new_cell = s.empty(1);
    s.launch(lstm_forward<float, true>,
             LSTMForward{s.shape(), inputs.data(), recurrent.data(), cell.data(), holes.data(),
                         s.hole_rows, gates.data(), hidden.data(), new_cell.data()});
    for (size_t n = 0; n < s.count(); ++n) {
        double a[4];
        for (int g = 0; g < 4; ++g) a[g] = double(inputs[s.at(4, g, n)]) + recurrent[s.at(4, g, n)];
        const double i = sigmoid_of(a[0] + double(holes[s.hole(0, n)]) * cell[n]);
        const double f = sigmoid_of(a[1] + double(holes[s.hole(1, n)]) * cell[n]);
        const double g = std::tanh(a[2]), next = f * cell[n] + i * g;
        const double o = sigmoid_of(a[3] + double(holes[s.hole(2, n)]) * next);
        const double values[4] = {i, f, g, o};
        for (int k = 0; k < 4; ++k) s.close(gates[s.at(4, k, n)], values[k], "gate");
        s.close(new_cell[n], next, "cell");
        s.close(hidden[n], o * std::tanh(next), "hidden");
    }

    const auto by_output = s.make(1), by_convolution = s.make(1), by_cell = s.make(1);
    auto grad_cell = by_cell, grad_gates = s.empty(4);
    s.launch(lstm_backward<float, true>,
             LSTMBackward{s.shape(), gates.data(), cell.data(), new_cell.data(), by_output.data(),
                          by_convolution.data(), holes.data(), s.hole_rows, grad_cell.data(),
                          grad_gates.data()});
    std::vector<double> by_holes(holes.size());
    for (size_t n = 0; n < s.count(); ++n) {
        double v[4];
        for (int k = 0; k < 4; ++k) v[k] = gates[s.at(4, k, n)];
        const double t = std::tanh(double(new_cell[n])),
                     dh = double(by_output[n]) + by_convolution[n];
        const double d_o = dh * t * v[3] * (1 - v[3]);
        const double dc = by_cell[n] + dh * v[3] * (1 - t * t) + d_o * holes[s.hole(2, n)];
        const double d[4] = {dc * v[2] * v[0] * (1 - v[0]), dc * cell[n] * v[1] * (1 - v[1]),
                             dc * v[0] * (1 - v[2] * v[2]), d_o};
        for (int k = 0; k < 4; ++k) s.close(grad_gates[s.at(4, k, n)], d[k], "gradient of a gate");
        s.close(grad_cell[n], dc * v[1] + d[0] * holes[s.hole(0, n)] + d[1] * holes[s.hole(1, n)],
                "gradient of the cell");
        by_holes[s.hole(0, n)] += double(grad_gates[s.at(4, 0, n)]) * cell[n];
        by_holes[s.hole(1, n)] += double(grad_gates[s.at(4, 1, n)]) * cell[n];
        by_holes[s.hole(2, n)] += double(grad_gates[s.at(4, 3, n)]) * new_cell[n];
    }

    const int splits = 3;
    const long long weights = s.hole_rows * s.length, groups = divide_up(weights, kPeepholeLanes);
    std::vector<double> partials(size_t(groups * splits * 3 * kPeepholeLanes), NAN);
    std::vector<unsigned> tickets(size_t(groups), 0u);
    std::vector<float> gradient(holes.size(), NAN);
    simt::launch(s.order, dim3(unsigned(groups) * splits), dim3(kGateThreads), 0,
                 lstm_peephole_backward<float>,
                 PeepholeBackward{weights, s.length, s.rows / s.hole_rows, grad_gates.data(),
                                  cell.data(), new_cell.data(), splits, partials.data(),
                                  tickets.data(), gradient.data()});
    // Sums of a few dozen products in float, then in double.
    for (size_t n = 0; n < holes.size(); ++n)
        check(std::fabs(gradient[n] - by_holes[n]) <= 1e-5, s.what + ", gradient of peepholes");
}

void check_gru(Steps s) {
    const auto inputs = s.make(3), recurrent = s.make(3), hidden = s.make(1);
    auto gates = s.empty(3), candidate = s.empty(1), new_hidden = s.empty(1);
    s.launch(gru_forward<float, true>,
             GRUForward{s.shape(), inputs.data(), recurrent.data(), hidden.data(), gates.data(),
                        candidate.data(), new_hidden.data()});
    const auto by_output = s.make(1), by_convolution = s.make(1), past = s.make(1);
    auto carry = past, by_inputs = s.empty(3), by_recurrent = s.empty(3);
    s.launch(
        gru_backward<float, true>,
        GRUBackward{s.shape(), gates.data(), candidate.data(), hidden.data(), by_output.data(),
                    by_convolution.data(), carry.data(), by_inputs.data(), by_recurrent.data()});
    for (size_t n = 0; n < s.count(); ++n) {
        double a[3], u[3], v[3];
        for (int g = 0; g < 3; ++g) {
            a[g] = inputs[s.at(3, g, n)];
            u[g] = recurrent[s.at(3, g, n)];
            v[g] = gates[s.at(3, g, n)];
        }
        const double r = sigmoid_of(a[0] + u[0]), z = sigmoid_of(a[1] + u[1]);
        const double value = std::tanh(a[2] + r * u[2]), h = hidden[n];
        s.close(v[0], r, "r");
        s.close(v[1], z, "z");
        s.close(v[2], value, "n");
        s.close(new_hidden[n], (1 - z) * value + z * h, "state");
        check(candidate[n] == recurrent[s.at(3, 2, n)], s.what + ", candidate");
        const double dh = double(by_output[n]) + by_convolution[n] + past[n];
        const double d_n = dh * (1 - v[1]) * (1 - v[2] * v[2]);
        const double d_z = dh * (h - v[2]) * v[1] * (1 - v[1]);
        const double d_r = d_n * u[2] * v[0] * (1 - v[0]);
        const double expected[6] = {d_r, d_z, d_n, d_r, d_z, d_n * v[0]};
        for (int k = 0; k < 3; ++k) {
            s.close(by_inputs[s.at(3, k, n)], expected[k], "gradient of the inputs");
            s.close(by_recurrent[s.at(3, k, n)], expected[3 + k], "gradient of the state's part");
        }
        s.close(carry[n], dh * v[1], "carry");
    }
}

// A GRU that resets first: two kernels each way.
void check_reset_gru(Steps s) {
    const auto inputs = s.make(3), of_gates = s.make(2), of_candidate = s.make(1);
    const auto hidden = s.make(1);
    auto gates = s.empty(3), reset = s.empty(1), new_hidden = s.empty(1);
    s.launch(gru_reset_forward<float, true>,
             GRUForward{s.shape(), inputs.data(), of_gates.data(), hidden.data(), gates.data(),
                        reset.data(), nullptr});
    s.launch(gru_update_forward<float, true>,
             GRUForward{s.shape(), inputs.data(), of_candidate.data(), hidden.data(), gates.data(),
                        nullptr, new_hidden.data()});
    const auto by_output = s.make(1), by_reset = s.make(1), past = s.make(1);
    auto carry = past, by_candidate = s.empty(1), by_gates = s.empty(2);
    s.launch(gru_update_backward<float, true>,
             GRUBackward{s.shape(), gates.data(), nullptr, hidden.data(), by_output.data(), nullptr,
                         carry.data(), by_candidate.data(), by_gates.data()});
    s.launch(gru_reset_backward<float, true>,
             GRUBackward{s.shape(), gates.data(), nullptr, hidden.data(), nullptr, by_reset.data(),
                         carry.data(), nullptr, by_gates.data()});
    for (size_t n = 0; n < s.count(); ++n) {
        const double r = sigmoid_of(double(inputs[s.at(3, 0, n)]) + of_gates[s.at(2, 0, n)]);
        const double z = sigmoid_of(double(inputs[s.at(3, 1, n)]) + of_gates[s.at(2, 1, n)]);
        const double value = std::tanh(double(inputs[s.at(3, 2, n)]) + of_candidate[n]);
        const double h = hidden[n], dh = double(by_output[n]) + past[n], d = by_reset[n];
        s.close(reset[n], r * h, "reset");
        s.close(gates[s.at(3, 2, n)], value, "n of two kernels");
        s.close(new_hidden[n], (1 - z) * value + z * h, "state of two kernels");
        s.close(by_candidate[n], dh * (1 - z) * (1 - value * value), "gradient of n");
        s.close(by_gates[s.at(2, 0, n)], d * h * r * (1 - r), "gradient of r");
        s.close(by_gates[s.at(2, 1, n)], dh * (h - value) * z * (1 - z), "gradient of z");
        s.close(carry[n], dh * z + d * r, "carry of two kernels");
    }
}

}  // namespace

// The stride at which the activations go through the floats; 1: all of them.
int main(int count, char** arguments) {
    check_activations(count > 1 ? unsigned(std::atoi(arguments[1])) : 4099);
    check_edges();
    for (const simt::Order order : {simt::Order::forward, simt::Order::reverse})
        for (const Steps& steps : {Steps{36, 36, 12, {}, order, "packs"},
                                   Steps{20, 35, 1, {}, order, "an odd length"}}) {
            check_lstm(steps);
            check_gru(steps);
            check_reset_gru(steps);
        }
    std::printf("%d failed\n", g_failures);
    return g_failures != 0;
}
