// SPDX-License-Identifier: Apache-2.0
//
// The kernels of paired rows, for each dtype of arrays.
#pragma once

#define SOSIE_PAIRED_KERNELS_OF(KERNEL, T) \
    KERNEL(paired_forward<T>)              \
    KERNEL(paired_backward<T>)             \
    KERNEL(paired_shared_backward<T>)

#define SOSIE_PAIRED_KERNELS(KERNEL)                \
    SOSIE_PAIRED_KERNELS_OF(KERNEL, unsigned char)  \
    SOSIE_PAIRED_KERNELS_OF(KERNEL, unsigned short) \
    SOSIE_PAIRED_KERNELS_OF(KERNEL, half)           \
    SOSIE_PAIRED_KERNELS_OF(KERNEL, bfloat16)       \
    SOSIE_PAIRED_KERNELS_OF(KERNEL, float)          \
    SOSIE_PAIRED_KERNELS_OF(KERNEL, double)
