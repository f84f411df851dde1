// SPDX-License-Identifier: Apache-2.0
//
// Winograd's form of a convolution, F(4 x 4, 3 x 3): 36 products for 16 results in place of 144.
//
// Four results of three taps are the coefficients of a product of polynomials, which is made at six
// points: 0, a, -a, b, -b and infinity. Along both axes, with d the pixels (6 x 6), g the taps:
//
//     result = A' [(G g G') . (B' d B)] A
//
// Accuracy: the points decide. Root mean square of the error over that of results, 128 channels:
// 2.3e-6 with the usual a = 1, b = 2; 1.0e-6 with a = 5/8, b = 3/2, which are exact, as are all
// constants but those of G; 5.5e-7 where channels are added up in parts besides (kSumDepth). Sums
// of products as they stand, one after another, are off by 6e-7, F(2 x 2, 3 x 3) by 3.5e-7 for 1.8
// times the products.
#pragma once

namespace {

constexpr int kTileSide = 4, kPatchSide = 6, kPoints = kPatchSide * kPatchSide;

constexpr double kA = 0.625, kB = 1.5;
constexpr double kA2 = kA * kA, kB2 = kB * kB;

// V: a vector of floats, or a number. B' d
template <class V>
inline void transform_pixels(const V (&d)[6], V (&out)[6]) noexcept {
    constexpr float a = float(kA), b = float(kB), a2 = float(kA2), b2 = float(kB2);
    out[0] = (d[4] - (a2 + b2) * d[2]) + a2 * b2 * d[0];
    const V even_a = d[4] - b2 * d[2], odd_a = d[3] - b2 * d[1];
    out[1] = even_a + a * odd_a;
    out[2] = even_a - a * odd_a;
    const V even_b = d[4] - a2 * d[2], odd_b = d[3] - a2 * d[1];
    out[3] = even_b + b * odd_b;
    out[4] = even_b - b * odd_b;
    out[5] = (d[5] - (a2 + b2) * d[3]) + a2 * b2 * d[1];
}

// A' m
template <class V>
inline void transform_results(const V (&m)[6], V (&out)[4]) noexcept {
    constexpr float a = float(kA), b = float(kB), a2 = float(kA2), b2 = float(kB2);
    const V sum_a = m[1] + m[2], sum_b = m[3] + m[4];
    const V difference_a = m[1] - m[2], difference_b = m[3] - m[4];
    out[0] = (m[0] + sum_a) + sum_b;
    out[1] = a * difference_a + b * difference_b;
    out[2] = a2 * sum_a + b2 * sum_b;
    out[3] = (m[5] + a * a2 * difference_a) + b * b2 * difference_b;
}

// A y
template <class V>
inline void spread_results(const V (&y)[4], V (&out)[6]) noexcept {
    constexpr float a = float(kA), b = float(kB), a2 = float(kA2), b2 = float(kB2);
    out[0] = y[0];
    const V even_a = y[0] + a2 * y[2], odd_a = y[1] + a2 * y[3];
    out[1] = even_a + a * odd_a;
    out[2] = even_a - a * odd_a;
    const V even_b = y[0] + b2 * y[2], odd_b = y[1] + b2 * y[3];
    out[3] = even_b + b * odd_b;
    out[4] = even_b - b * odd_b;
    out[5] = y[3];
}

// The derivative of the product of all other points' factors, at a and at b.
constexpr double kAtA = 1 / (2 * kA2 * (kA2 - kB2)), kAtB = 1 / (2 * kB2 * (kB2 - kA2));
constexpr double kAtZero = 1 / (kA2 * kB2);

// G g
inline void transform_taps(const double (&g)[3], double (&out)[6]) noexcept {
    out[0] = kAtZero * g[0];
    out[1] = kAtA * (g[0] + kA * g[1] + kA2 * g[2]);
    out[2] = kAtA * (g[0] - kA * g[1] + kA2 * g[2]);
    out[3] = kAtB * (g[0] + kB * g[1] + kB2 * g[2]);
    out[4] = kAtB * (g[0] - kB * g[1] + kB2 * g[2]);
    out[5] = g[2];
}

// G' u
inline void gather_taps(const double (&u)[6], double (&out)[3]) noexcept {
    const double sum_a = kAtA * (u[1] + u[2]), sum_b = kAtB * (u[3] + u[4]);
    out[0] = kAtZero * u[0] + sum_a + sum_b;
    out[1] = kAtA * kA * (u[1] - u[2]) + kAtB * kB * (u[3] - u[4]);
    out[2] = kA2 * sum_a + kB2 * sum_b + u[5];
}

// A transform along both axes: `load(row, column)` gives From x From values, `put(place, value)`
// takes To x To.
template <class V, int From, int To, class Load, class Put>
inline __attribute__((always_inline)) void along_both(void (*transform)(const V (&)[From],
                                                                        V (&)[To]) noexcept,
                                                      Load load, Put put) {
    V half[To][From];
#pragma GCC unroll 6
    for (int column = 0; column < From; ++column) {
        V values[From], found[To];
#pragma GCC unroll 6
        for (int row = 0; row < From; ++row) values[row] = load(row, column);
        transform(values, found);
#pragma GCC unroll 6
        for (int row = 0; row < To; ++row) half[row][column] = found[row];
    }
#pragma GCC unroll 6
    for (int row = 0; row < To; ++row) {
        V found[To];
        transform(half[row], found);
#pragma GCC unroll 6
        for (int column = 0; column < To; ++column) put(row * To + column, found[column]);
    }
}

}  // namespace
