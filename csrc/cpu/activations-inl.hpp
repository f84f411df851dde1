// SPDX-License-Identifier: Apache-2.0
//
// The logistic function and the hyperbolic tangent of a vector, and their hard relatives.
//
// With e = exp(-|x|), sigmoid(x) is 1 / (1 + e) or, for x < 0, e / (1 + e), so that small results
// keep their digits; with m = expm1(-2 |x|), tanh |x| is -m / (2 + m), in which nothing cancels.
// Both come from t = k ln 2 + r with |r| <= (ln 2) / 2 and a polynomial for expm1(r), whose own
// error is 0.02 units in the last place of a float and less of a double.
//
// Accuracy: within 2.5 units in the last place of the exact result for every float (3 for doubles),
// subnormal results among them; 0, 1/2, +-1 and signed zeros are exact where they are due, NaN
// stays NaN. tests/cpp/test_recurrent.cpp goes through the floats.
#pragma once
#include "recurrent-call.hpp"
#include "simd-inl.hpp"

namespace {

using sosie::GateActivations;

template <class T>
struct ExponentialOf;

template <>
struct ExponentialOf<float> {
    static constexpr float kRound =
        0x1.8p23f;  // adding it leaves the nearest integer in the last bits
    static constexpr float kPerLn2 = 0x1.715476p0f;
    // ln 2 in two parts; the product of the first with any k here is exact.
    static constexpr float kHigh = 0.693359375f, kLow = -2.12194440e-4f;
    static constexpr float kLowest = -104;  // exp of less rounds to 0
    static constexpr int kBias = 127, kFraction = 23;
    // (expm1(r) - r) / r^2, interpolated at Chebyshev points.
    static constexpr int kTerms = 6;
    static constexpr float kTerm[kTerms] = {0.5f,          0.16666667163f, 0.041666463018f,
                                            0.0083333105f, 0.00139336591f, 0.000198910013f};
};

template <>
struct ExponentialOf<double> {
    static constexpr double kRound = 0x1.8p52;
    static constexpr double kPerLn2 = 0x1.71547652b82fep0;
    static constexpr double kHigh = 6.93147180369123816490e-01, kLow = 1.90821492927058770002e-10;
    static constexpr double kLowest = -746;
    static constexpr int kBias = 1023, kFraction = 52;
    // Taylor's; the first term left out is 4e-17 of the sum.
    static constexpr int kTerms = 12;
    static constexpr double kTerm[kTerms] = {1.0 / 2,        1.0 / 6,         1.0 / 24,
                                             1.0 / 120,      1.0 / 720,       1.0 / 5040,
                                             1.0 / 40320,    1.0 / 362880,    1.0 / 3628800,
                                             1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
};

// t = k ln 2 + r as k and expm1(r).
template <class T>
struct Reduced {
    Mask<T> k;
    Vec<T> rest;
};
template <class T>
inline Reduced<T> reduce(Vec<T> t) {
    using E = ExponentialOf<T>;
    const Vec<T> shifted = t * E::kPerLn2 + E::kRound, k = shifted - E::kRound;
    const Vec<T> r = (t - k * E::kHigh) - k * E::kLow;
    Vec<T> sum = splat<T>(E::kTerm[E::kTerms - 1]);
#pragma GCC unroll 16
    for (int term = E::kTerms - 2; term >= 0; --term) sum = sum * r + E::kTerm[term];
    return {(Mask<T>)shifted - (Mask<T>)splat<T>(E::kRound), r + (r * r) * sum};
}

// 2^k for normal results.
template <class T>
inline Vec<T> power_of_two(Mask<T> k) {
    return (Vec<T>)((k + ExponentialOf<T>::kBias) << ExponentialOf<T>::kFraction);
}

template <class T>
inline Vec<T> sigmoid(Vec<T> x) {
    using E = ExponentialOf<T>;
    Vec<T> t = -absolute<T>(x);
    t = t < E::kLowest ? splat<T>(E::kLowest) : t;  // NaN stays
    const Reduced<T> e = reduce<T>(t);
    // In two steps, since k goes down to where results are subnormal.
    const Mask<T> half = e.k >> 1;
    const Vec<T> exponential =
        (power_of_two<T>(half) * e.rest + power_of_two<T>(half)) * power_of_two<T>(e.k - half);
    return (x < Vec<T>{} ? exponential : splat<T>(1)) / (exponential + T(1));
}

template <class T>
inline Vec<T> tanh(Vec<T> x) {
    const Vec<T> magnitude = absolute<T>(x);
    Vec<T> t = T(-2) * magnitude;
    t = t < T(-44) ? splat<T>(T(-44)) : t;  // 1 less than half a unit in the last place from there
    const Reduced<T> e = reduce<T>(t);
    const Vec<T> scale = power_of_two<T>(e.k);
    const Vec<T> m = scale * e.rest + (scale - T(1));
    const Vec<T> y = -m / (m + T(2));
    const Mask<T> sign = (Mask<T>)x & (Mask<T>)splat<T>(T(-0.0));
    return (Vec<T>)((Mask<T>)absolute<T>(y) | sign);
}

template <class T>
inline Vec<T> clip(Vec<T> x, T low, T high) {
    x = x < low ? splat<T>(low) : x;
    return x > high ? splat<T>(high) : x;
}

// Activations and their derivatives where the value is y. Smooth: known to be the smooth ones.
template <class T, bool Smooth>
class Activations {
  public:
    explicit Activations(const GateActivations& given)
        : hard_sigmoid_(given.hard_sigmoid), hard_tanh_(given.hard_tanh), slope_(T(given.slope)) {}

    Vec<T> gate(Vec<T> x) const {
        if (!Smooth && hard_sigmoid_) return clip<T>(slope_ * x + T(0.5), 0, 1);
        return sigmoid<T>(x);
    }
    Vec<T> value(Vec<T> x) const {
        if (!Smooth && hard_tanh_) return clip<T>(x, -1, 1);
        return tanh<T>(x);
    }
    Vec<T> gate_slope(Vec<T> y) const {
        if (!Smooth && hard_sigmoid_)
            return keep<T>(splat<T>(slope_), (Mask<T>)(y > Vec<T>{}) & (Mask<T>)(y < T(1)));
        return y * (T(1) - y);
    }
    Vec<T> value_slope(Vec<T> y) const {
        if (!Smooth && hard_tanh_)
            return keep<T>(splat<T>(1), (Mask<T>)(y > T(-1)) & (Mask<T>)(y < T(1)));
        return T(1) - y * y;
    }

  private:
    bool hard_sigmoid_, hard_tanh_;
    T slope_;
};

}  // namespace
