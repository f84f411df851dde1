// SPDX-License-Identifier: Apache-2.0
//
// Structural similarity at one position, and its gradient.
//
// With s = x + y - 2c and d = x - y (c the centre of the data range) four filtered planes give all:
//     Ms = E[s], Md = E[d], Vs = E[s^2] - Ms^2, Vd = E[d^2] - Md^2, M = Ms + 2c = E[x + y]
//     A1 = (M^2 - Md^2)/2 + C1    A2 = n (Vs - Vd)/2 + C2     S  = A1 A2 / (B1 B2 + eps)
//     B1 = (M^2 + Md^2)/2 + C1    B2 = n (Vs + Vd)/2 + C2     CS = A2 / B2
// where n = 1 or NP/(NP-1). A convention whose window sums to W != 1 is E' = W E: then Vs gains
// (1 - W) M^2 (the deficit), Vd gains (1 - W) Md^2, n is n W, C1 and eps are C1 / W^2 and eps /
// W^2. Taps whose sum in T is 1 + e, though they should sum to 1, scale by 1 + e in error: Vs and
// Vd gain e Ms^2 and e Md^2 (the excess). Where the images agree Md and Vd are small before
// anything is subtracted, so S stays at 1; centring takes the mean's digits out of s^2.
//
// Gradient: with q = 1/(B1 B2 + eps), P1 = g A2 q (B2 Md^2 + eps) q, P2 = g A1 q (B1 n Vd + eps) q,
// Q1 = g q (A2 + S B2), Q2 = g q (A1 + S B1), and g = dLoss/dS,
//     Ts = 2 dLoss/dE[s^2] = n P2     Gs = dLoss/dMs = M P1 - Ms Ts
//     Td = 2 dLoss/dE[d^2] = -n Q2    Gd = dLoss/dMd = -Md Q1 - Md Td
// (P1 and P2 are differences A2 - S B2 and A1 - S B1 written without the cancellation) and, with F'
// the adjoint filter,
//     dLoss/dx = F'[Gs + Gd] + s F'[Ts] + d F'[Td]    dLoss/dy = F'[Gs - Gd] + s F'[Ts] - d F'[Td]
// which is three filters for one of them, four for both.
#pragma once
#include "ssim-call.cuh"

namespace sosie {

// The planes that are filtered.
enum MomentPlane { kSum, kDifference, kSumSquare, kDifferenceSquare, kWeight };
constexpr int kMoments = 4;

// The planes that the adjoint filters. With one gradient wanted Gs and Gd are filtered as their
// sum.
template <bool kBoth>
struct Coefficient {
    static constexpr int kPlanes = kBoth ? 4 : 3;
    static constexpr int kMean = 0, kMeanDifference = 1;
    static constexpr int kSquareSum = kBoth ? 2 : 1, kSquareDifference = kBoth ? 3 : 2;
};

// 1 / v to a unit in the last place, without the slow path of a division for tiny v: denominators
// are products of numbers near the squared range, which the scale brings near 1.
__device__ __forceinline__ float reciprocal(float v) {
#ifdef __CUDA_ARCH__
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
    return result;
#else
    return 1.0f / v;
#endif
}
__device__ __forceinline__ double reciprocal(double v) {
    return 1.0 / v;
}
__device__ __forceinline__ float multiply_add(float a, float b, float c) {
    return fmaf(a, b, c);
}
__device__ __forceinline__ double multiply_add(double a, double b, double c) {
    return fma(a, b, c);
}

// a / b rounded once more than `inverse` = 1 / b was: exactly 1 for equal a and b.
template <class T>
__device__ __forceinline__ T quotient(T a, T b, T inverse) {
    const T q = a * inverse;
    return multiply_add(multiply_add(-b, q, a), inverse, q);
}

template <class T>
struct Moments {
    T mean_s, mean_d, var_s, var_d;
    T inverse_weight;  // 1 without a mask; 0 where no valid pixel is seen
    bool clamped_s, clamped_d;
};

// From the filtered planes; `weight`, that of the mask, counts if kMasked.
template <class T, bool kMasked>
__device__ __forceinline__ Moments<T> moments(const SSIMCall<T>& k, T sum, T difference,
                                              T sum_square, T difference_square, T weight) {
    Moments<T> m;
    m.mean_s = sum;
    m.mean_d = difference;
    m.inverse_weight = T(1);
    if constexpr (kMasked) {
        // Divided after the subtraction: what rounds the inverse would not cancel in it.
        m.inverse_weight = weight > k.least_weight ? T(1) / weight : T(0);
        m.mean_s *= m.inverse_weight;
        m.mean_d *= m.inverse_weight;
        m.var_s = multiply_add(-sum, m.mean_s, sum_square) * m.inverse_weight;
        m.var_d = multiply_add(-difference, m.mean_d, difference_square) * m.inverse_weight;
    } else {
        m.var_s = sum_square - m.mean_s * m.mean_s;
        m.var_d = difference_square - m.mean_d * m.mean_d;
    }
    if (k.unbalanced) {
        const T mean = m.mean_s + k.twice_center;
        m.var_s += k.deficit * mean * mean + k.excess * m.mean_s * m.mean_s;
        m.var_d += (k.deficit + k.excess) * m.mean_d * m.mean_d;
    }
    m.clamped_s = m.clamped_d = false;
    if (k.clamp_variance) {
        m.clamped_s = m.var_s < T(0);
        m.clamped_d = m.var_d < T(0);
        m.var_s = m.clamped_s ? T(0) : m.var_s;
        m.var_d = m.clamped_d ? T(0) : m.var_d;
    }
    return m;
}

template <class T>
struct Similarity {
    T sum_mean;  // M
    T a1, b1, a2, b2, inverse, value;
};

template <class T>
__device__ __forceinline__ Similarity<T> similarity(const SSIMCall<T>& k, const Moments<T>& m) {
    Similarity<T> r;
    const T half_s = (k.covariance * T(0.5)) * m.var_s, half_d = (k.covariance * T(0.5)) * m.var_d;
    r.a2 = half_s + (k.c2 - half_d);
    r.b2 = half_s + (k.c2 + half_d);
    r.sum_mean = m.mean_s + k.twice_center;
    const T half_m = T(0.5) * r.sum_mean * r.sum_mean, half_q = T(0.5) * m.mean_d * m.mean_d;
    r.a1 = half_m + (k.c1 - half_q);
    r.b1 = half_m + (k.c1 + half_q);
    const bool whole = k.kind == kSimilarity;
    const T numerator = whole ? r.a1 * r.a2 : r.a2;
    const T denominator = whole ? multiply_add(r.b1, r.b2, k.epsilon) : r.b2;
    r.inverse = reciprocal(denominator);
    r.value = quotient(numerator, denominator, r.inverse);
    return r;
}

template <class T>
__device__ __forceinline__ T clamped(const SSIMCall<T>& k, T value) {
    value = value < k.lowest ? k.lowest : value;
    return value > k.highest ? k.highest : value;
}

// Ts, Td, Gs and Gd of a position whose value has the gradient g.
template <class T>
struct PositionGradient {
    T mean_s, mean_d, square_s, square_d;
};

template <class T, bool kMasked>
__device__ __forceinline__ PositionGradient<T> position_gradient(const SSIMCall<T>& k,
                                                                 const Moments<T>& m,
                                                                 const Similarity<T>& r, T g) {
    PositionGradient<T> out;
    const T difference = k.covariance * m.var_d;  // B2 - A2
    g *= r.inverse;
    T p2, q2;
    if (k.kind == kSimilarity) {
        const T p1 = g * (r.a2 * r.inverse) * (r.b2 * (m.mean_d * m.mean_d) + k.epsilon);
        const T q1 = g * (r.a2 + r.value * r.b2);
        p2 = g * (r.a1 * r.inverse) * (r.b1 * difference + k.epsilon);
        q2 = g * (r.a1 + r.value * r.b1);
        out.mean_s = r.sum_mean * p1;
        out.mean_d = -m.mean_d * q1;
    } else {
        p2 = g * (difference * r.inverse);
        q2 = g * (T(1) + r.value);
        out.mean_s = out.mean_d = T(0);
    }
    out.square_s = m.clamped_s ? T(0) : k.covariance * p2;
    out.square_d = m.clamped_d ? T(0) : -k.covariance * q2;
    out.mean_s -= m.mean_s * out.square_s;
    out.mean_d -= m.mean_d * out.square_d;
    if (k.unbalanced) {
        out.mean_s += (k.deficit * r.sum_mean + k.excess * m.mean_s) * out.square_s;
        out.mean_d += (k.deficit + k.excess) * m.mean_d * out.square_d;
    }
    if constexpr (kMasked) {
        out.mean_s *= m.inverse_weight;
        out.mean_d *= m.inverse_weight;
        out.square_s *= m.inverse_weight;
        out.square_d *= m.inverse_weight;
    }
    return out;
}

// The gradient of one pixel from the filtered coefficients and its own s and d.
template <class T>
struct PixelGradient {
    T x, y;
};

template <class T, bool kBoth>
__device__ __forceinline__ PixelGradient<T> combine(
    const T (&filtered)[Coefficient<kBoth>::kPlanes], T s, T d, T l1_weight) {
    using C = Coefficient<kBoth>;
    const T from_s = filtered[C::kMean] + s * filtered[C::kSquareSum];
    T from_d = d * filtered[C::kSquareDifference];
    if constexpr (kBoth) from_d += filtered[C::kMeanDifference];
    from_d += d > T(0) ? l1_weight : d < T(0) ? -l1_weight : T(0);
    return {from_s + from_d, from_s - from_d};
}

}  // namespace sosie
