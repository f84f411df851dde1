// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of every family share: storage types, vectors in memory, shared memory, sums
// whose order is fixed.
//
// Device code for three compilers: nvcc, NVRTC, and a C++ compiler with the emulator (simt.hpp). So
// nothing is included here, not even for half precision, whose conversions are one instruction of
// PTX; and shared memory is asked for by a function, that the emulator can surround with traps.
#pragma once
#ifndef __CUDACC__
#include "../simt/simt.hpp"
#endif

namespace sosie {

constexpr unsigned kAllLanes = 0xffffffffu;

// ------------------------------------------------------------------------------------------ types

struct half {
    unsigned short bits;
};
struct bfloat16 {
    unsigned short bits;
};

// Codes of dtypes that are known at run time; as of the arrays' adapters in Python.
enum DTypeCode { kUint8, kUint16, kFloat16, kBfloat16, kFloat32, kFloat64 };

// What values of a storage type are computed in, and what their gradients are stored in.
template <class T>
struct Compute {
    typedef float type;
    typedef float gradient;
};
template <>
struct Compute<double> {
    typedef double type;
    typedef double gradient;
};
template <>
struct Compute<half> {
    typedef float type;
    typedef half gradient;
};
template <>
struct Compute<bfloat16> {
    typedef float type;
    typedef bfloat16 gradient;
};

__device__ __forceinline__ float float_of_bits(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
__device__ __forceinline__ unsigned bits_of_float(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#ifdef __CUDACC__
__device__ __forceinline__ float to_compute(half value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}
__device__ __forceinline__ half half_of(float value) {
    half result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
    return result;
}
#else
inline float to_compute(half value) {
    // The exponents of the two formats differ by 112; denormals are exact multiples of 2^-24.
    const unsigned sign = unsigned(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
    if (rest >= 0x7c00) return float_of_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest < 0x400) return (sign ? -1.0f : 1.0f) * float(rest) * 0x1p-24f;
    return float_of_bits(sign | ((rest << 13) + (112u << 23)));
}
inline half half_of(float value) {
    const unsigned bits = bits_of_float(value), sign = bits >> 16 & 0x8000,
                   rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return {static_cast<unsigned short>(sign | 0x7fff)};
    if (rest >= 0x477ff000) return {static_cast<unsigned short>(sign | 0x7c00)};
    // Adding a number that has the wanted last place as its own rounds to it.
    if (rest < 0x38800000) {
        const float units = float_of_bits(rest) + 0x1p-1f;
        return {
            static_cast<unsigned short>(sign | (bits_of_float(units) - bits_of_float(0x1p-1f)))};
    }
    const unsigned rounded = rest + 0xfff + (rest >> 13 & 1);
    return {static_cast<unsigned short>(sign | ((rounded - (112u << 23)) >> 13))};
}
#endif

__device__ __forceinline__ float to_compute(bfloat16 value) {
    return float_of_bits(unsigned(value.bits) << 16);
}
__device__ __forceinline__ bfloat16 bfloat16_of(float value) {
    const unsigned bits = bits_of_float(value);
    const unsigned rounded = bits + 0x7fff + (bits >> 16 & 1);  // to nearest, ties to even
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    return {static_cast<unsigned short>(is_nan ? 0x7fff : rounded >> 16)};
}
__device__ __forceinline__ float to_compute(float value) {
    return value;
}
__device__ __forceinline__ double to_compute(double value) {
    return value;
}
__device__ __forceinline__ float to_compute(unsigned char value) {
    return float(value);
}
__device__ __forceinline__ float to_compute(unsigned short value) {
    return float(value);
}

// A value of the computing type in a storage type.
template <class T>
struct Stored {
    template <class V>
    __device__ static T of(V value) {
        return T(value);
    }
};
template <>
struct Stored<half> {
    template <class V>
    __device__ static half of(V value) {
        return half_of(float(value));
    }
};
template <>
struct Stored<bfloat16> {
    template <class V>
    __device__ static bfloat16 of(V value) {
        return bfloat16_of(float(value));
    }
};
template <class T, class V>
__device__ __forceinline__ T from_compute(V value) {
    return Stored<T>::of(value);
}

// Element i of memory of a dtype known at run time.
template <class T>
__device__ __forceinline__ T load_any(const void* data, int dtype, long long i) {
    switch (dtype) {
        case kUint8: return T(static_cast<const unsigned char*>(data)[i]);
        case kUint16: return T(static_cast<const unsigned short*>(data)[i]);
        case kFloat16: return T(to_compute(static_cast<const half*>(data)[i]));
        case kBfloat16: return T(to_compute(static_cast<const bfloat16*>(data)[i]));
        case kFloat32: return T(static_cast<const float*>(data)[i]);
        default: return T(static_cast<const double*>(data)[i]);
    }
}
template <class T>
__device__ __forceinline__ void store_any(void* data, int dtype, long long i, T value) {
    switch (dtype) {
        case kFloat16: static_cast<half*>(data)[i] = half_of(float(value)); break;
        case kBfloat16: static_cast<bfloat16*>(data)[i] = bfloat16_of(float(value)); break;
        case kFloat32: static_cast<float*>(data)[i] = float(value); break;
        default: static_cast<double*>(data)[i] = double(value);
    }
}

// ----------------------------------------------------------------------------------------- memory

// N elements that one instruction reads or writes; up to 16 bytes.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T values[N];
};

template <class T, int N>
__device__ __forceinline__ Pack<T, N> load_pack(const T* address) {
#ifndef __CUDACC__
    if (!simt::is_aligned(address, sizeof(Pack<T, N>))) return {};
#endif
    return *reinterpret_cast<const Pack<T, N>*>(address);
}
template <class T, int N>
__device__ __forceinline__ void store_pack(T* address, const Pack<T, N>& pack) {
#ifndef __CUDACC__
    if (!simt::is_aligned(address, sizeof(Pack<T, N>))) return;
#endif
    *reinterpret_cast<Pack<T, N>*>(address) = pack;
}

#ifdef __CUDACC__
// One object for all threads of a block.
template <class T>
__device__ __forceinline__ T& shared_memory() {
    __shared__ T object;
    return object;
}
// The memory that the launch gives to each block.
template <class T>
__device__ __forceinline__ T* dynamic_shared_memory() {
    extern __shared__ uint4 memory[];
    return reinterpret_cast<T*>(memory);
}
#else
using simt::dynamic_shared_memory;
using simt::shared_memory;
#endif

__device__ __forceinline__ long long divide_up(long long a, long long b) {
    return (a + b - 1) / b;
}

// Nothing is faster than the one division of 64 bits that need not be done.
__device__ __forceinline__ void divide(long long& quotient, long long& remainder, long long a,
                                       long long b) {
    if (((unsigned long long)(a | b) >> 32) == 0) {
        const unsigned q = unsigned(a) / unsigned(b);
        remainder = unsigned(a) - q * unsigned(b);
        quotient = q;
    } else {
        quotient = a / b;
        remainder = a - quotient * b;
    }
}

// ------------------------------------------------------------------------------------------- sums

__device__ __forceinline__ int linear_thread() {
    return int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
}

// Sum over a warp's lanes, the same in all of them; the order is fixed.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(kAllLanes, value, bits);
    return value;
}

template <class T, int Threads, int N>
struct BlockSums {
    T of_warps[Threads / 32][N];
};

// Sums of N numbers over a block of so many threads, for thread 0 alone; the order is fixed.
template <int Threads, int N, class T>
__device__ __forceinline__ void block_sums(T (&values)[N]) {
    BlockSums<T, Threads, N>& shared = shared_memory<BlockSums<T, Threads, N>>();
    const int thread = linear_thread();
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = warp_sum(values[i]);
    __syncthreads();  // an earlier sum is done with the memory
    if (thread % 32 == 0)
#pragma unroll
        for (int i = 0; i < N; ++i) shared.of_warps[thread / 32][i] = values[i];
    __syncthreads();
    if (thread == 0)
        for (int warp = 1; warp < Threads / 32; ++warp)
#pragma unroll
            for (int i = 0; i < N; ++i) values[i] += shared.of_warps[warp][i];
}

struct LastBlock {
    bool is_last;
};

// Whether this is the last of `blocks` blocks to come here: then it sees what all others wrote to
// global memory before they came. `counter` starts at 0. For all threads of a block to call.
__device__ __forceinline__ bool is_last_block(unsigned* counter, unsigned blocks) {
    LastBlock& shared = shared_memory<LastBlock>();
    __syncthreads();
    if (linear_thread() == 0) {
#ifdef __CUDACC__
        __threadfence();
        shared.is_last = atomicAdd(counter, 1u) == blocks - 1;
        __threadfence();
#else
        shared.is_last = __atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL) == blocks - 1;
#endif
    }
    __syncthreads();
    return shared.is_last;
}

}  // namespace sosie
