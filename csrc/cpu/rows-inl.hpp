// SPDX-License-Identifier: Apache-2.0
//
// Rows in and out: any dtype, any strides, any border, to and from *segmented rows*.
//
// A segmented row gives each lane a run of its own: lane l of vector i holds position l * length +
// i. Neighbours in the image are then neighbours in memory *within a lane*, so a horizontal filter
// is a vertical filter over vectors: aligned loads, no shuffles, running sums in every lane at
// once. The price is one transposition of 8 (4, 16) vectors per 64 (16, 256) pixels, once, on the
// way in, and `window - 1` vectors of overlap per row.
#pragma once
#include "border.hpp"
#include "kernels.hpp"
#include "simd-inl.hpp"

namespace {

using sosie::Array;
using sosie::Border;
using sosie::border_position;
using sosie::DType;

struct Half {
    uint16_t bits;
};
struct BrainHalf {
    uint16_t bits;
};

inline float float_from_bits(uint32_t bits) {
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}
inline uint32_t bits_from_float(float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

template <class T, class Source>
inline T widen(Source value) {
    return T(value);
}
// IEEE half: shift into place, then repair the exponent by an exact multiplication with 2^112,
// which also normalises subnormals; infinities and NaN keep their all-ones exponent.
template <>
inline float widen<float, Half>(Half value) {
    const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
    const uint32_t magnitude = uint32_t(value.bits & 0x7fffu) << 13;
    const float scaled = float_from_bits(magnitude) * 5.192296858534828e33f;
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;
    return float_from_bits(bits_from_float(scaled) | special | sign);
}
template <>
inline float widen<float, BrainHalf>(BrainHalf value) {
    return float_from_bits(uint32_t(value.bits) << 16);
}

template <class Target, class T>
inline Target narrow(T value) {
    return Target(value);
}
// To nearest, ties to even. Below the smallest normal half the sum with 0.5 aligns the subnormal's
// last bit with the float's, so the hardware rounds it.
template <>
inline Half narrow<Half, float>(float value) {
    const uint32_t bits = bits_from_float(value), sign = (bits >> 16) & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
    const uint32_t tiny = bits_from_float(float_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t half = magnitude >= 0x477ff000u  ? special
                          : magnitude < 0x38800000u ? tiny
                                                    : normal;
    return Half{uint16_t(half | sign)};
}
template <>
inline BrainHalf narrow<BrainHalf, float>(float value) {
    const uint32_t bits = bits_from_float(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t nan = (bits >> 16) | 0x40u;
    return BrainHalf{uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded)};
}

inline int64_t offset_of(const Array& a, int64_t n, int64_t c, int64_t d, int64_t h) {
    return n * a.strides[0] + c * a.strides[1] + d * a.strides[2] + h * a.strides[3];
}

template <class T, class Source>
void widen_row(const Source* row, int64_t stride, int64_t begin, int64_t end, int64_t total,
               int64_t width, Border border, T* out) {
    const int64_t inner_begin = smaller(larger(begin, 0), end);
    const int64_t inner_end = larger(smaller(end, width), inner_begin);
    const auto outside = [&](int64_t column) {
        const int64_t from = border_position(column, width, border);
        return from < 0 ? T(0) : widen<T, Source>(row[from * stride]);
    };
    for (int64_t i = begin; i < inner_begin; ++i) *out++ = outside(i);
    const Source* source = row + inner_begin * stride;
    const int64_t count = inner_end - inner_begin;
    if (stride == 1) {
        for (int64_t i = 0; i < count; ++i) out[i] = widen<T, Source>(source[i]);
    } else {
        for (int64_t i = 0; i < count; ++i) out[i] = widen<T, Source>(source[i * stride]);
    }
    out += count;
    for (int64_t i = inner_end; i < end; ++i) *out++ = outside(i);
    for (int64_t i = end - begin; i < total; ++i) *out++ = T(0);
}

// Columns [begin, end) of row (n, c, d, h), in the compute type, then zeros up to `total` columns.
// d, h and the columns may lie outside the image: the border says what is seen there. Returns the
// row in place where it can be read as it is, else `scratch` (total values).
template <class T>
const T* load_row(const Array& a, const int64_t* shape, Border border, int64_t n, int64_t c,
                  int64_t d, int64_t h, int64_t begin, int64_t end, int64_t total, T* scratch) {
    const int64_t width = shape[4];
    const int64_t depth_row = border_position(d, shape[2], border);
    const int64_t height_row = border_position(h, shape[3], border);
    if (depth_row < 0 || height_row < 0) {
        __builtin_memset(scratch, 0, size_t(total) * sizeof(T));
        return scratch;
    }
    const int64_t offset = offset_of(a, n, c, depth_row, height_row), stride = a.strides[4];
    if constexpr (sizeof(T) == 4) {
        switch (a.dtype) {
            case DType::u8:
                widen_row(static_cast<const uint8_t*>(a.data) + offset, stride, begin, end, total,
                          width, border, scratch);
                break;
            case DType::u16:
                widen_row(static_cast<const uint16_t*>(a.data) + offset, stride, begin, end, total,
                          width, border, scratch);
                break;
            case DType::f16:
                widen_row(static_cast<const Half*>(a.data) + offset, stride, begin, end, total,
                          width, border, scratch);
                break;
            case DType::bf16:
                widen_row(static_cast<const BrainHalf*>(a.data) + offset, stride, begin, end, total,
                          width, border, scratch);
                break;
            default: {
                const T* row = static_cast<const T*>(a.data) + offset;
                if (stride == 1 && begin >= 0 && begin + total <= width) return row + begin;
                widen_row(row, stride, begin, end, total, width, border, scratch);
            }
        }
    } else {
        if (a.dtype == DType::u8) {  // a mask beside float64 images
            widen_row(static_cast<const uint8_t*>(a.data) + offset, stride, begin, end, total,
                      width, border, scratch);
        } else {
            const T* row = static_cast<const T*>(a.data) + offset;
            if (stride == 1 && begin >= 0 && begin + total <= width) return row + begin;
            widen_row(row, stride, begin, end, total, width, border, scratch);
        }
    }
    return scratch;
}

template <class T, class Target>
void narrow_row(const T* values, int64_t count, int64_t step, Target* row, int64_t stride) {
    for (int64_t i = 0; i < count; ++i) row[i * stride] = narrow<Target, T>(values[i * step]);
}

// Writes every step-th of `values` to columns [column, column + count) of row (n, c, d, h).
template <class T>
void store_row(const Array& a, int64_t n, int64_t c, int64_t d, int64_t h, int64_t column,
               int64_t count, int64_t step, const T* values) {
    const int64_t stride = a.strides[4], offset = offset_of(a, n, c, d, h) + column * stride;
    if constexpr (sizeof(T) == 4) {
        if (a.dtype == DType::f16)
            return narrow_row(values, count, step, static_cast<Half*>(a.data) + offset, stride);
        if (a.dtype == DType::bf16)
            return narrow_row(values, count, step, static_cast<BrainHalf*>(a.data) + offset,
                              stride);
    }
    T* row = static_cast<T*>(a.data) + offset;
    if (stride == 1 && step == 1)
        __builtin_memcpy(row, values, size_t(count) * sizeof(T));
    else
        narrow_row(values, count, step, row, stride);
}

// How many values of a linear row `segment` may read, and how many vectors it writes.
template <class T>
constexpr int64_t linear_length(int64_t length, int64_t vectors) {
    return (kLanes<T> - 1) * length + round_up(vectors, kLanes<T>);
}

// The segmented form of a row whose lanes start `length` apart: take(i, vector) for each of
// `vectors` vectors (rounded up to whole blocks of lanes). make(position, lane) returns a vector
// for kLanes consecutive positions of a lane's run.
template <class T, class Make, class Take>
inline void segment(int64_t length, int64_t vectors, Make make, Take take) {
    for (int64_t i = 0; i < vectors; i += kLanes<T>) {
        Vec<T> block[kLanes<T>];
#pragma GCC unroll 32
        for (int lane = 0; lane < kLanes<T>; ++lane) block[lane] = make(lane * length + i);
        transpose<T>(block);
#pragma GCC unroll 32
        for (int k = 0; k < kLanes<T>; ++k) take(i + k, block[k]);
    }
}

// The segmented form of values that are in memory.
template <class T>
inline void segment_row(const T* row, int64_t length, int64_t vectors, Vec<T>* out) {
    segment<T>(
        length, vectors, [row](int64_t i) { return load<T>(row + i); },
        [out](int64_t i, Vec<T> v) { out[i] = v; });
}

// The inverse: `length` vectors to kLanes * length consecutive values. `in` is read in whole
// blocks.
template <class T>
inline void unsegment(const Vec<T>* in, int64_t length, T* out) {
    constexpr int lanes = kLanes<T>;
    for (int64_t i = 0; i < length; i += lanes) {
        Vec<T> block[lanes];
#pragma GCC unroll 32
        for (int k = 0; k < lanes; ++k) block[k] = in[i + k];
        transpose<T>(block);
        const int64_t rest = length - i;
        if (rest >= lanes) {
#pragma GCC unroll 32
            for (int lane = 0; lane < lanes; ++lane) store<T>(out + lane * length + i, block[lane]);
        } else {
            for (int lane = 0; lane < lanes; ++lane)
                __builtin_memcpy(out + lane * length + i, &block[lane], size_t(rest) * sizeof(T));
        }
    }
}

}  // namespace
