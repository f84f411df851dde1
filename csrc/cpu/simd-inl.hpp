// SPDX-License-Identifier: Apache-2.0
//
// Vectors as GCC and Clang give them: arithmetic operators work lane by lane, `a > b ? a : b`
// selects, and `a * b + c` contracts to a fused multiply-add where the instruction set has one. The
// width is SOSIE_VECTOR_BYTES, set per instruction set; this is the only file that knows lanes.
#pragma once
#include <cstddef>
#include <cstdint>

#ifndef SOSIE_VECTOR_BYTES
#error "SOSIE_VECTOR_BYTES is set by the build, per instruction set"
#endif

namespace {

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(SOSIE_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
struct IntegerOf;
template <>
struct IntegerOf<float> {
    using type = int32_t;
};
template <>
struct IntegerOf<double> {
    using type = int64_t;
};
// Comparisons give a vector of integers: all ones where true.
template <class T>
using Mask = Vec<typename IntegerOf<T>::type>;

template <class T>
constexpr int kLanes = SOSIE_VECTOR_BYTES / int(sizeof(T));

constexpr int64_t smaller(int64_t a, int64_t b) {
    return a < b ? a : b;
}
constexpr int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}
constexpr int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
constexpr int64_t round_up(int64_t a, int64_t b) {
    return divide_up(a, b) * b;
}

template <class T>
inline Vec<T> splat(T value) {
    return value - Vec<T>{};
}

template <class T>
inline Vec<T> load(const T* p) {
    Vec<T> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline void store(T* p, Vec<T> v) {
    __builtin_memcpy(p, &v, sizeof v);
}

// The first `count` < kLanes values at p, zeros behind them.
template <class T>
inline Vec<T> load_part(const T* p, int64_t count) {
    Vec<T> v{};
    __builtin_memcpy(&v, p, size_t(count) * sizeof(T));
    return v;
}

template <class T>
inline void store_part(T* p, Vec<T> v, int64_t count) {
    __builtin_memcpy(p, &v, size_t(count) * sizeof(T));
}

#if !defined(__clang__) && defined(__SSE__)
#define SOSIE_STREAMS 1
#if SOSIE_VECTOR_BYTES >= 64 && defined(__AVX512F__)
constexpr int kStreamBytes = 64;
#elif SOSIE_VECTOR_BYTES >= 32 && defined(__AVX__)
constexpr int kStreamBytes = 32;
#else
constexpr int kStreamBytes = 16;
#endif
typedef float StreamPart __attribute__((vector_size(kStreamBytes)));

inline void stream_part(float* p, StreamPart part) {
#if SOSIE_VECTOR_BYTES >= 64 && defined(__AVX512F__)
    __builtin_ia32_movntps512(p, part);
#elif SOSIE_VECTOR_BYTES >= 32 && defined(__AVX__)
    __builtin_ia32_movntps256(p, part);
#else
    __builtin_ia32_movntps(p, part);
#endif
}
#endif

// A store past the caches, for results that are larger than they are and are written whole: a plain
// store reads every line that it fills. p is a multiple of a vector. Where an instruction set has
// no such store this is a plain one.
template <class T>
inline void stream(T* p, Vec<T> v) {
#if defined(__clang__)
    __builtin_nontemporal_store(v, reinterpret_cast<Vec<T>*>(p));
#elif defined(SOSIE_STREAMS)
    StreamPart parts[SOSIE_VECTOR_BYTES / kStreamBytes];
    __builtin_memcpy(parts, &v, sizeof v);
    char* to = reinterpret_cast<char*>(p);
    for (const StreamPart& part : parts) {
        stream_part(reinterpret_cast<float*>(to), part);
        to += kStreamBytes;
    }
#else
    store<T>(p, v);
#endif
}

// After the last `stream` of a task: what follows, on any thread, sees its values.
inline void finish_streams() {
#if defined(__SSE__)
    __builtin_ia32_sfence();
#endif
}

// The same value, as something the compiler cannot make again: GCC would rather load a vector twice
// than keep it, which doubles the loads where loads are the limit.
template <class V>
inline V in_register(V v) {
#if defined(__x86_64__) && (SOSIE_VECTOR_BYTES < 64 || defined(__AVX512F__))
    asm("" : "+v"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#endif
    return v;
}

// v where the mask is set, 0 elsewhere; unlike a product with 0 it also silences NaN.
template <class T>
inline Vec<T> keep(Vec<T> v, Mask<T> mask) {
    return (Vec<T>)((Mask<T>)v & mask);
}

template <class T>
inline Vec<T> absolute(Vec<T> v) {
    return v < Vec<T>{} ? -v : v;
}

// A loop over memory, which compilers turn into one instruction where there is one.
template <class T>
inline Vec<T> square_root(Vec<T> v) {
    T values[kLanes<T>];
    __builtin_memcpy(values, &v, sizeof v);
    for (T& value : values)
        value = sizeof(T) == 4 ? T(__builtin_sqrtf(float(value))) : T(__builtin_sqrt(value));
    return load<T>(values);
}

// Whether any lane of a comparison holds.
template <class T>
inline bool any(Mask<T> mask) {
    uint64_t words[SOSIE_VECTOR_BYTES / 8], all = 0;
    __builtin_memcpy(words, &mask, sizeof mask);
    for (const uint64_t word : words) all |= word;
    return all != 0;
}

template <class T>
inline double sum_lanes(Vec<T> v) {
    double sum = 0;
    for (int lane = 0; lane < kLanes<T>; ++lane) sum += double(v[lane]);
    return sum;
}

// As many doubles as a vector of T has lanes, to add up what vectors of T summed.
template <class T>
struct WideOf {
    typedef double type __attribute__((vector_size(sizeof(double) * size_t(kLanes<T>))));
};
template <class T>
using Wide = typename WideOf<T>::type;

template <class T>
inline Wide<T> widen_lanes(Vec<T> v) {
    return __builtin_convertvector(v, Wide<T>);
}

template <int... Values>
struct Indices {};
template <int Count, int... Values>
struct CountUp : CountUp<Count - 1, Count - 1, Values...> {};
template <int... Values>
struct CountUp<0, Values...> {
    using type = Indices<Values...>;
};

// Shuffle of two vectors whose lane map is the constexpr function Map::at(lane).
template <class Map, class V, int... Lane>
inline V shuffle(V a, V b, Indices<Lane...>) {
    return __builtin_shufflevector(a, b, Map::at(Lane)...);
}

// Lane maps of a transposition. `Interleave` works inside 128-bit blocks (one instruction each on
// every instruction set); `Exchange` swaps runs of `Half` lanes between two vectors.
template <int Lanes, int BlockLanes, int Pair, bool High>
struct Interleave {
    static constexpr int at(int lane) {
        const int block = lane / BlockLanes * BlockLanes, place = lane % BlockLanes;
        const int group = place / Pair, within = place % Pair;
        const int source = block + group / 2 * Pair + within + (High ? BlockLanes / 2 : 0);
        return group % 2 == 0 ? source : Lanes + source;
    }
};
template <int Lanes, int Half, bool High>
struct Exchange {
    static constexpr int at(int lane) {
        const bool upper = lane & Half;
        return High ? (upper ? Lanes + lane : lane + Half) : (upper ? Lanes + lane - Half : lane);
    }
};

template <class T, int Half>
inline __attribute__((always_inline)) void exchange_blocks(Vec<T>* v) {
    constexpr int lanes = kLanes<T>;
    if constexpr (Half < lanes) {
        using Every = typename CountUp<lanes>::type;
#pragma GCC unroll 32
        for (int i = 0; i < lanes; ++i) {
            if (i & Half) continue;
            const Vec<T> a = v[i], b = v[i + Half];
            v[i] = shuffle<Exchange<lanes, Half, false>>(a, b, Every{});
            v[i + Half] = shuffle<Exchange<lanes, Half, true>>(a, b, Every{});
        }
        exchange_blocks<T, Half * 2>(v);
    }
}

// In-place transposition of kLanes vectors: v[i][j] becomes v[j][i]. Inlined whatever the compiler
// thinks of its size: in a function of its own the vectors would go through memory, which takes
// longer than the transposition.
template <class T>
inline __attribute__((always_inline)) void transpose(Vec<T>* v) {
    constexpr int lanes = kLanes<T>, block = 16 / int(sizeof(T));
    using Every = typename CountUp<lanes>::type;
    if constexpr (block == 4) {
#pragma GCC unroll 32
        for (int i = 0; i < lanes; i += 4) {
            const Vec<T> a = shuffle<Interleave<lanes, 4, 1, false>>(v[i], v[i + 1], Every{});
            const Vec<T> b = shuffle<Interleave<lanes, 4, 1, true>>(v[i], v[i + 1], Every{});
            const Vec<T> c = shuffle<Interleave<lanes, 4, 1, false>>(v[i + 2], v[i + 3], Every{});
            const Vec<T> d = shuffle<Interleave<lanes, 4, 1, true>>(v[i + 2], v[i + 3], Every{});
            v[i] = shuffle<Interleave<lanes, 4, 2, false>>(a, c, Every{});
            v[i + 1] = shuffle<Interleave<lanes, 4, 2, true>>(a, c, Every{});
            v[i + 2] = shuffle<Interleave<lanes, 4, 2, false>>(b, d, Every{});
            v[i + 3] = shuffle<Interleave<lanes, 4, 2, true>>(b, d, Every{});
        }
    } else {
#pragma GCC unroll 32
        for (int i = 0; i < lanes; i += 2) {
            const Vec<T> a = v[i], b = v[i + 1];
            v[i] = shuffle<Interleave<lanes, 2, 1, false>>(a, b, Every{});
            v[i + 1] = shuffle<Interleave<lanes, 2, 1, true>>(a, b, Every{});
        }
    }
    exchange_blocks<T, block>(v);
}

}  // namespace
