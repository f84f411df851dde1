// SPDX-License-Identifier: Apache-2.0
//
// One-dimensional filters over columns of vectors: out[r] = sum_k taps[k] * in[r + k].
//
// `in` and `out` hold rows of vectors, `stride` vectors apart. Across rows (the vertical and the
// depth filter) a panel of kPanel neighbouring vectors is filtered at once; along a row (the
// horizontal filter on segmented rows, see rows-inl.hpp) a "row" is a single vector and the stride
// is 1. So one source serves every axis.
//
// A symmetric window needs taps/2 + 1 multiplications per output once mirrored inputs are added
// first. Additions run beside multiplications on most cores, loads then become the limit; so two
// outputs are made together, in the order in which each loaded value is used for both and
// forgotten: 2R + 2 loads, 4R additions, 2R + 2 multiply-adds for two outputs of a window of 2R
// + 1.
//
// Outputs are written in pairs: `out` has room for one row more than asked when the number is odd,
// and `in` may be read one row past the last one needed.
#pragma once
#include "simd-inl.hpp"

namespace {

constexpr int kPanel = 4;
constexpr int kLargestRadius = 16, kLargestWindow = 2 * kLargestRadius + 1;
constexpr int kSmallestUniform = 4, kLargestUniform = 11;

template <class T>
using Filter = void (*)(const Vec<T>* in, ptrdiff_t in_stride, Vec<T>* out, ptrdiff_t out_stride,
                        int outputs, const T* taps, int size);

// The two outputs at `in`: the window starts at row 0 for the first and row 1 for the second.
// Mirror partners: first m <-> 2R - m, second m <-> 2R + 2 - m; alternating between the two visits
// every row once, on one chain from row 0 and one from row 2R + 1.
template <class T, int R>
inline void symmetric_pair(const Vec<T>* in, ptrdiff_t stride, const Vec<T>* w, Vec<T>& first,
                           Vec<T>& second) {
    Vec<T> a{}, b{};
    Vec<T> low = in_register(in[0]), high = in_register(in[(2 * R + 1) * stride]);
#pragma GCC unroll 32
    for (int step = 0; step < R; ++step) {
        // rows low_row and high_row are loaded already
        const int low_row = step % 2 == 0 ? step : 2 * R + 1 - step;
        const int high_row = 2 * R + 1 - low_row;
        const bool even = step % 2 == 0;
        const int low_next = even ? 2 * R - low_row : 2 * R + 2 - low_row;
        const int high_next = 2 * R + 1 - low_next;
        const Vec<T> next_low = in_register(in[low_next * stride]);
        const Vec<T> next_high = in_register(in[high_next * stride]);
        // The chain from row 0 feeds the first output on even steps, the second on odd ones.
        const Vec<T> low_sum = low + next_low, high_sum = high + next_high;
        Vec<T>& low_out = even ? a : b;
        Vec<T>& high_out = even ? b : a;
        const int low_tap = even ? (low_row < low_next ? low_row : low_next)
                                 : (low_row < low_next ? low_row : low_next) - 1;
        const int high_tap = even ? (high_row < high_next ? high_row : high_next) - 1
                                  : (high_row < high_next ? high_row : high_next);
        low_out = step == 0 ? w[low_tap] * low_sum : low_out + w[low_tap] * low_sum;
        high_out = step == 0 ? w[high_tap] * high_sum : high_out + w[high_tap] * high_sum;
        low = next_low;
        high = next_high;
    }
    // The chains end on the two centre rows, R and R + 1.
    first = a + w[R] * (R % 2 == 0 ? low : high);
    second = b + w[R] * (R % 2 == 0 ? high : low);
}

template <class T, int R, int Columns>
void symmetric_filter(const Vec<T>* in, ptrdiff_t in_stride, Vec<T>* out, ptrdiff_t out_stride,
                      int outputs, const T* taps, int) {
    Vec<T> w[R + 1];
    for (int k = 0; k <= R; ++k) w[k] = splat<T>(taps[k]);
    if constexpr (Columns == 1) {
        for (int r = 0; r < outputs; r += 2) symmetric_pair<T, R>(in + r, 1, w, out[r], out[r + 1]);
    } else {
        for (int r = 0; r < outputs; r += 2) {
            const Vec<T>* rows = in + r * in_stride;
            Vec<T>* target = out + r * out_stride;
#pragma GCC unroll 4
            for (int c = 0; c < Columns; ++c)
                symmetric_pair<T, R>(rows + c, in_stride, w, target[c], target[out_stride + c]);
        }
    }
}

// Equal taps, small windows: two outputs share the rows between their ends. N + 1 loads and N
// additions for two outputs, no long chain, and no rounding carried from one output to the next.
template <class T, int N>
inline void uniform_pair(const Vec<T>* in, ptrdiff_t stride, Vec<T> weight, Vec<T>& first,
                         Vec<T>& second) {
    Vec<T> shared = in[stride];
#pragma GCC unroll 16
    for (int k = 2; k < N; ++k) shared += in[k * stride];
    first = (in[0] + shared) * weight;
    second = (shared + in[N * stride]) * weight;
}

template <class T, int N, int Columns>
void uniform_filter(const Vec<T>* in, ptrdiff_t in_stride, Vec<T>* out, ptrdiff_t out_stride,
                    int outputs, const T* taps, int) {
    const Vec<T> weight = splat<T>(taps[0]);
    if constexpr (Columns == 1) {
        for (int r = 0; r < outputs; r += 2)
            uniform_pair<T, N>(in + r, 1, weight, out[r], out[r + 1]);
    } else {
        for (int r = 0; r < outputs; r += 2) {
            const Vec<T>* rows = in + r * in_stride;
            Vec<T>* target = out + r * out_stride;
#pragma GCC unroll 4
            for (int c = 0; c < Columns; ++c)
                uniform_pair<T, N>(rows + c, in_stride, weight, target[c], target[out_stride + c]);
        }
    }
}

// Equal taps, large windows: a running sum, restarted at every call so that rounding cannot build
// up.
template <class T, int Columns>
void running_sum_filter(const Vec<T>* in, ptrdiff_t in_stride, Vec<T>* out, ptrdiff_t out_stride,
                        int outputs, const T* taps, int size) {
    const ptrdiff_t stride = Columns == 1 ? 1 : in_stride;
    const Vec<T> weight = splat<T>(taps[0]);
    Vec<T> sum[Columns] = {};
    for (int k = 0; k < size; ++k)
        for (int c = 0; c < Columns; ++c) sum[c] += in[k * stride + c];
    for (int r = 0; r < outputs; ++r) {
        for (int c = 0; c < Columns; ++c) {
            out[(Columns == 1 ? r : r * out_stride) + c] = sum[c] * weight;
            sum[c] += in[(r + size) * stride + c] - in[r * stride + c];
        }
    }
}

template <class T, int Columns>
void general_filter(const Vec<T>* in, ptrdiff_t in_stride, Vec<T>* out, ptrdiff_t out_stride,
                    int outputs, const T* taps, int size) {
    const ptrdiff_t stride = Columns == 1 ? 1 : in_stride;
    for (int r = 0; r < outputs; ++r) {
        Vec<T> sum[Columns] = {};
        for (int k = 0; k < size; ++k)
            for (int c = 0; c < Columns; ++c) sum[c] += taps[k] * in[(r + k) * stride + c];
        for (int c = 0; c < Columns; ++c) out[(Columns == 1 ? r : r * out_stride) + c] = sum[c];
    }
}

template <class T, int Columns, int R = 1>
Filter<T> symmetric_filter_of(int radius) {
    if constexpr (R > kLargestRadius) {
        return &general_filter<T, Columns>;
    } else {
        if (radius == R) return &symmetric_filter<T, R, Columns>;
        return symmetric_filter_of<T, Columns, R + 1>(radius);
    }
}

template <class T, int Columns, int N = kSmallestUniform>
Filter<T> uniform_filter_of(int size) {
    if constexpr (N > kLargestUniform) {
        return &running_sum_filter<T, Columns>;
    } else {
        if (size == N) return &uniform_filter<T, N, Columns>;
        return uniform_filter_of<T, Columns, N + 1>(size);
    }
}

template <class T, int Columns>
Filter<T> choose_filter(const double* taps, int size) {
    bool uniform = true, symmetric = size % 2 == 1 && size > 1;
    for (int k = 0; k < size; ++k) {
        uniform = uniform && taps[k] == taps[0];
        symmetric = symmetric && taps[k] == taps[size - 1 - k];
    }
    if (uniform && size >= kSmallestUniform) return uniform_filter_of<T, Columns>(size);
    if (symmetric) return symmetric_filter_of<T, Columns>(size / 2);
    return &general_filter<T, Columns>;
}

// The taps in the compute type, as good as that type can: what rounding took from their sum goes to
// the outermost taps, whose last digit is the finest, but not to those it would change visibly. A
// window that sums to 1 + e would cost a variance e times the squared mean, with the same sign
// everywhere. Equal taps must stay equal. Returns the sum.
template <class T>
double round_taps(const double* taps, int size, T* rounded) {
    double sum = 0;
    bool uniform = true;
    for (int k = 0; k < size; ++k) {
        rounded[k] = T(taps[k]);
        sum += double(rounded[k]);
        uniform = uniform && taps[k] == taps[0];
    }
    if (uniform) return sum;
    int outermost = 0;
    const auto too_small = [&](int k) { return rounded[k] < T(1e-4); };
    while (outermost < size / 2 && (too_small(outermost) || too_small(size - 1 - outermost)))
        ++outermost;
    const double rest = (1.0 - sum) / 2;
    const int last = size - 1 - outermost;
    rounded[outermost] = T(double(rounded[outermost]) + rest);
    rounded[last] = T(double(rounded[last]) + rest);
    sum = 0;
    for (int k = 0; k < size; ++k) sum += double(rounded[k]);
    return sum;
}

}  // namespace
