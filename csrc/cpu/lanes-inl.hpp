// SPDX-License-Identifier: Apache-2.0
//
// Vectors of the computing type from and to memory of any dtype: next to each other or a stride
// apart. The conversions are those of rows-inl.hpp, on all lanes at once.
#pragma once
#include "rows-inl.hpp"

namespace {

// kLanes<T> numbers of another type.
template <class T, class Number>
struct PackedOf {
    typedef Number type __attribute__((vector_size(kLanes<T> * sizeof(Number))));
};

template <class T, class Number, class Source>
inline auto packed(const Source* p) {
    static_assert(sizeof(Number) == sizeof(Source), "the same bits");
    typename PackedOf<T, Number>::type v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

inline Vec<float> widen_vector(const float* p) {
    return load<float>(p);
}
inline Vec<double> widen_vector(const double* p) {
    return load<double>(p);
}
inline Vec<float> widen_vector(const uint8_t* p) {
    // In two steps: GCC would take a fourfold widening apart lane by lane.
    using Twice = typename PackedOf<float, uint16_t>::type;
    const auto twice = __builtin_convertvector(packed<float, uint8_t>(p), Twice);
    return __builtin_convertvector(__builtin_convertvector(twice, Vec<int32_t>), Vec<float>);
}
inline Vec<float> widen_vector(const uint16_t* p) {
    const auto whole = __builtin_convertvector(packed<float, uint16_t>(p), Vec<int32_t>);
    return __builtin_convertvector(whole, Vec<float>);
}
inline Vec<float> widen_vector(const BrainHalf* p) {
    return (Vec<float>)(__builtin_convertvector(packed<float, uint16_t>(p), Vec<uint32_t>) << 16);
}
inline Vec<float> widen_vector(const Half* p) {
    const auto bits = __builtin_convertvector(packed<float, uint16_t>(p), Vec<uint32_t>);
    const Vec<uint32_t> sign = (bits & 0x8000u) << 16, magnitude = (bits & 0x7fffu) << 13;
    const Vec<float> scaled = (Vec<float>)magnitude * 5.192296858534828e33f;
    const Vec<uint32_t> special = (Vec<uint32_t>)(magnitude >= 0x0f800000u) & 0x7f800000u;
    return (Vec<float>)((Vec<uint32_t>)scaled | special | sign);
}

// Positions of a row or of a column. Unit: known to lie next to each other.
template <class T, class Source, bool Unit>
struct Reader {
    const Source* data;
    int64_t stride;

    Vec<T> at(int64_t i) const {
        if (Unit || stride == 1) return widen_vector(data + i);
        if (stride == 0) return splat<T>(widen<T, Source>(*data));
        Vec<T> v;
        for (int lane = 0; lane < kLanes<T>; ++lane)
            v[lane] = widen<T, Source>(data[(i + lane) * stride]);
        return v;
    }
    // As many as there are, at most a vector; zeros behind.
    Vec<T> some(int64_t i, int64_t count) const {
        if (count >= kLanes<T>) return at(i);
        T values[kLanes<T>] = {};
        const int64_t step = Unit ? 1 : stride;
        for (int64_t lane = 0; lane < count; ++lane)
            values[lane] = widen<T, Source>(data[(i + lane) * step]);
        return load<T>(values);
    }
};

template <class T, class Target>
struct Writer {
    Target* data;
    int64_t stride;
    bool streams;  // see simd-inl.hpp

    void put(int64_t i, Vec<T> v) const {
        if (stride != 1) return put_some(i, kLanes<T>, v);
        Target* p = data + i;
        if constexpr (sizeof(Target) == sizeof(T)) {
            if (streams && reinterpret_cast<uintptr_t>(p) % sizeof v == 0)
                stream<T>(p, v);
            else
                store<T>(p, v);
        } else {
            T values[kLanes<T>];
            store<T>(values, v);
            for (int lane = 0; lane < kLanes<T>; ++lane) p[lane] = narrow<Target, T>(values[lane]);
        }
    }
    // The first `count` lanes, at most a vector.
    void put_some(int64_t i, int64_t count, Vec<T> v) const {
        T values[kLanes<T>];
        store<T>(values, v);
        const int64_t end = smaller(count, kLanes<T>);
        for (int64_t lane = 0; lane < end; ++lane)
            data[(i + lane) * stride] = narrow<Target, T>(values[lane]);
    }
};

template <class T>
struct HalfVectorOf {
    typedef T type __attribute__((vector_size(SOSIE_VECTOR_BYTES / 2)));
};

// A vector's lanes as doubles, added to `sums`, in order.
inline void add_lanes(double* sums, Vec<double> v) {
    store<double>(sums, load<double>(sums) + v);
}
inline void add_lanes(double* sums, Vec<float> v) {
    typename HalfVectorOf<float>::type half[2];
    __builtin_memcpy(half, &v, sizeof v);
    add_lanes(sums, __builtin_convertvector(half[0], Vec<double>));
    add_lanes(sums + kLanes<double>, __builtin_convertvector(half[1], Vec<double>));
}
// The same added up in pairs, in no order that matters.
inline Vec<double> folded(Vec<double> v) {
    return v;
}
inline Vec<double> folded(Vec<float> v) {
    typename HalfVectorOf<float>::type half[2];
    __builtin_memcpy(half, &v, sizeof v);
    return __builtin_convertvector(half[0], Vec<double>) +
           __builtin_convertvector(half[1], Vec<double>);
}

// The sum of all lanes, in few steps.
inline double sum_of(Vec<double> v) {
    double lane[kLanes<double>];
    store<double>(lane, v);
#pragma GCC unroll 4
    for (int half = kLanes<double> / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
    return lane[0];
}

}  // namespace
