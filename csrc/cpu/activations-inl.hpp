// SPDX-License-Identifier: Apache-2.0
//
// The logistic function and the hyperbolic tangent of a vector, and their hard relatives.
//
// With e = exp(-|x|), sigmoid(x) is 1 / (1 + e) or, for x < 0, e / (1 + e), so that small results
// keep their digits; with m = expm1(-2 |x|), tanh |x| is -m / (2 + m), in which nothing cancels.
// Both come from t = k ln 2 + r with |r| <= (ln 2) / 2 and a polynomial in r.
//
// Accuracy: within 2.5 units in the last place of the exact result for every float (3 for doubles);
// only where sigmoid(x) is below the smallest normal number it is 0 or off by less than that. 0,
// 1/2, +-1 and signed zeros are exact where they are due, NaN stays NaN.
// tests/cpp/test_recurrent.cpp goes through the floats.
#pragma once
#include "recurrent-call.hpp"
#include "simd-inl.hpp"

namespace {

using sosie::GateActivations;

template <class T>
struct ExponentialOf;

template <>
struct ExponentialOf<float> {
    static constexpr int kBias = 127, kFraction = 23;
    static constexpr float kPerLn2 = 0x1.715476p0f;
    // ln 2 in two parts; the product of the first with any k here is exact.
    static constexpr float kHigh = 0.693359375f, kLow = -2.12194440e-4f;
    static constexpr float kLowest = -88;  // here k is -kBias, and 2^k becomes 0
    // exp(r), and (expm1(r) - r) / r^2: interpolated at Chebyshev points and rounded. They are off
    // by 0.17 and 0.43 units of 2^-24.
    static constexpr int kTerms = 7, kTermsBeyond = 5;
    static constexpr float kTerm[kTerms] = {1,
                                            1,
                                            0.5f,
                                            0.16666504740715027f,
                                            0.041666463017463684f,
                                            0.008369184099137783f,
                                            0.0013933685841038823f};
    static constexpr float kBeyond[kTermsBeyond] = {0.5f, 0.16666576266288757f,
                                                    0.041666556149721146f, 0.008363203145563602f,
                                                    0.0013926213141530752f};
};

template <>
struct ExponentialOf<double> {
    static constexpr int kBias = 1023, kFraction = 52;
    static constexpr double kPerLn2 = 0x1.71547652b82fep0;
    static constexpr double kHigh = 6.93147180369123816490e-01, kLow = 1.90821492927058770002e-10;
    static constexpr double kLowest = -709;
    // Taylor's; the first terms left out are 4e-18 and 1e-17 of the sum.
    static constexpr int kTerms = 14, kTermsBeyond = 12;
    static constexpr double kTerm[kTerms] = {1,
                                             1,
                                             1.0 / 2,
                                             1.0 / 6,
                                             1.0 / 24,
                                             1.0 / 120,
                                             1.0 / 720,
                                             1.0 / 5040,
                                             1.0 / 40320,
                                             1.0 / 362880,
                                             1.0 / 3628800,
                                             1.0 / 39916800,
                                             1.0 / 479001600,
                                             1.0 / 6227020800};
    static constexpr const double* kBeyond = kTerm + 2;
};

// t = k ln 2 + r, for t that is not positive.
template <class T>
struct Reduced {
    Vec<T> rest, power;  // r, 2^k
};
template <class T>
inline Reduced<T> reduce(Vec<T> t) {
    using E = ExponentialOf<T>;
    // Adding this leaves the nearest integer k in the last bits, as the exponent of 2^k.
    constexpr T round = T(3) * T(int64_t(1) << (E::kFraction - 1)) + T(E::kBias);
    t = t < E::kLowest ? splat<T>(E::kLowest) : t;  // NaN stays
    const Vec<T> shifted = t * E::kPerLn2 + round, k = shifted - round;
    const Vec<T> r = (t - k * E::kHigh) - k * E::kLow;
    return {r, (Vec<T>)((Mask<T>)shifted << E::kFraction)};
}

template <class T>
inline Vec<T> polynomial(const T* terms, int count, Vec<T> r) {
    Vec<T> sum = splat<T>(terms[count - 1]);
#pragma GCC unroll 16
    for (int term = count - 2; term >= 0; --term) sum = sum * r + terms[term];
    return sum;
}

template <class T>
inline Mask<T> sign_bit() {
    return (Mask<T>)splat<T>(T(-0.0));
}

template <class T>
inline Vec<T> sigmoid(Vec<T> x) {
    using E = ExponentialOf<T>;
    const Reduced<T> t = reduce<T>((Vec<T>)((Mask<T>)x | sign_bit<T>()));
    const Vec<T> exponential = t.power * polynomial<T>(E::kTerm, E::kTerms, t.rest);
    return (x < Vec<T>{} ? exponential : splat<T>(1)) / (exponential + T(1));
}

template <class T>
inline Vec<T> tanh(Vec<T> x) {
    using E = ExponentialOf<T>;
    const Vec<T> minus = (Vec<T>)((Mask<T>)x | sign_bit<T>());
    const Reduced<T> t = reduce<T>(minus + minus);
    const Vec<T> r = t.rest;
    const Vec<T> rest = r + (r * r) * polynomial<T>(E::kBeyond, E::kTermsBeyond, r);
    const Vec<T> m = t.power * rest + (t.power - T(1));
    const Vec<T> y = m / (m + T(2));  // not positive
    return (Vec<T>)(((Mask<T>)y & ~sign_bit<T>()) | ((Mask<T>)x & sign_bit<T>()));
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
