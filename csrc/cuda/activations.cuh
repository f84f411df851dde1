// SPDX-License-Identifier: Apache-2.0
//
// The logistic function and the hyperbolic tangent, and their hard relatives.
//
// In float, with e = exp(-|x|), sigmoid(x) is 1 / (1 + e) or, for x < 0, e / (1 + e), so that small
// results keep their digits; with m = expm1(-2 |x|), tanh |x| is -m / (2 + m), in which nothing
// cancels. Both come from t = k ln 2 + r with |r| <= (ln 2) / 2 and a polynomial in r, the same as
// of csrc/cpu/activations-inl.hpp.
//
// Cost: some 25 issue slots, of which one is the special function unit's, a reciprocal. That unit
// takes a sixteenth of a multiprocessor's lanes at a time, eight times as long as an addition: with
// __expf and __fdividef each activation would wait for it twice, to save 5 of those slots and lose
// two or more digits where sigmoid is small. Gates wait for memory either way: five activations are
// a quarter of the time that the 60 bytes of an LSTM's step take on an H100, in float16 half of it.
//
// Accuracy: within 3 units in the last place of the exact result for every float, of which one is
// allowed for the reciprocal, which PTX bounds by one unit before it is refined here; denormal
// results may be 0. 0, 1/2, +-1 and signed zeros are exact where they are due, NaN stays NaN. All
// else is multiply-adds that are written as such, so that the emulator rounds as devices do;
// tests/simt/test_recurrent.cpp goes through the floats, with reciprocals as wrong as they may be.
// In double the functions are those of the compilers' libraries.
#pragma once
#include "common.cuh"

namespace sosie {

#ifdef __CUDACC__
__device__ __forceinline__ float approximate_reciprocal(float x) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}
#else
// Units in the last place by which the reciprocal is wrong, for tests.
inline int g_reciprocal_error = 0;

inline float approximate_reciprocal(float x) {
    return float_of_bits(bits_of_float(1.0f / x) + unsigned(g_reciprocal_error));
}
#endif

// Of numbers between 1 and 2; a step of Newton's leaves little more than its own rounding.
__device__ __forceinline__ float refined_reciprocal(float x) {
    const float guess = approximate_reciprocal(x);
    return fmaf(guess, fmaf(-x, guess, 1.0f), guess);
}

// t = k ln 2 + rest, and power = 2^k; for t that is not positive.
struct ReducedExponent {
    float rest, power;
};
__device__ __forceinline__ ReducedExponent reduce_exponent(float t) {
    constexpr float kPerLn2 = 1.44269502f;
    // ln 2 in two parts; the product of the first with any k here is exact.
    constexpr float kHigh = 0.693359375f, kLow = -2.12194440e-4f;
    constexpr float kLowest = -88.0f;  // here k is -127, and 2^k becomes 0
    // Adding this leaves the nearest integer k in the last bits, as the exponent of 2^k.
    constexpr float kRound = 12582912.0f + 127.0f;
    t = t < kLowest ? kLowest : t;  // NaN stays
    const float shifted = fmaf(t, kPerLn2, kRound), k = shifted - kRound;
    return {fmaf(k, -kLow, fmaf(k, -kHigh, t)), float_of_bits(bits_of_float(shifted) << 23)};
}

__device__ __forceinline__ float sigmoid(float x) {
    const ReducedExponent t = reduce_exponent(-fabsf(x));
    const float r = t.rest;
    float sum = 0.0013933685841038823f;
    sum = fmaf(sum, r, 0.008369184099137783f);
    sum = fmaf(sum, r, 0.041666463017463684f);
    sum = fmaf(sum, r, 0.16666504740715027f);
    sum = fmaf(sum, r, 0.5f);
    sum = fmaf(sum, r, 1.0f);
    sum = fmaf(sum, r, 1.0f);
    const float exponential = t.power * sum;
    return (x < 0.0f ? exponential : 1.0f) * refined_reciprocal(exponential + 1.0f);
}

__device__ __forceinline__ float hyperbolic_tangent(float x) {
    const float minus = -fabsf(x);
    const ReducedExponent t = reduce_exponent(minus + minus);
    const float r = t.rest;
    float sum = 0.0013926213141530752f;
    sum = fmaf(sum, r, 0.008363203145563602f);
    sum = fmaf(sum, r, 0.041666556149721146f);
    sum = fmaf(sum, r, 0.16666576266288757f);
    sum = fmaf(sum, r, 0.5f);
    const float beyond = fmaf(r * r, sum, r);  // expm1(r)
    const float m = fmaf(t.power, beyond, t.power - 1.0f);
    return copysignf(m * refined_reciprocal(m + 2.0f), x);
}

__device__ __forceinline__ double sigmoid(double x) {
    const double exponential = exp(-fabs(x));
    return (x < 0.0 ? exponential : 1.0) / (exponential + 1.0);
}
__device__ __forceinline__ double hyperbolic_tangent(double x) {
    return tanh(x);
}

template <class C>
__device__ __forceinline__ C clip(C x, C low, C high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

// Activations and their derivatives where the value is y. Smooth: known to be the smooth ones.
template <class C, bool Smooth>
struct Activations {
    bool hard_sigmoid, hard_tanh;
    C slope;  // of the hard sigmoid, slope x + 1/2 within [0, 1]

    __device__ __forceinline__ C gate(C x) const {
        return !Smooth && hard_sigmoid ? clip(slope * x + C(0.5), C(0), C(1)) : sigmoid(x);
    }
    __device__ __forceinline__ C value(C x) const {
        return !Smooth && hard_tanh ? clip(x, C(-1), C(1)) : hyperbolic_tangent(x);
    }
    __device__ __forceinline__ C gate_slope(C y) const {
        if (!Smooth && hard_sigmoid) return y > C(0) && y < C(1) ? slope : C(0);
        return y * (C(1) - y);
    }
    __device__ __forceinline__ C value_slope(C y) const {
        if (!Smooth && hard_tanh) return y > C(-1) && y < C(1) ? C(1) : C(0);
        return C(1) - y * y;
    }
};

}  // namespace sosie
