// SPDX-License-Identifier: Apache-2.0
//
// The kernels of weighted squared differences, for each dtype of images.
#pragma once

#define SOSIE_SSD_KERNELS_OF(KERNEL, T) \
    KERNEL(ssd_forward<T, false>)       \
    KERNEL(ssd_forward<T, true>)        \
    KERNEL(ssd_backward<T, false>)      \
    KERNEL(ssd_backward<T, true>)       \
    KERNEL(ssd_weight_backward<T>)

#define SOSIE_SSD_KERNELS(KERNEL)                \
    SOSIE_SSD_KERNELS_OF(KERNEL, unsigned char)  \
    SOSIE_SSD_KERNELS_OF(KERNEL, unsigned short) \
    SOSIE_SSD_KERNELS_OF(KERNEL, half)           \
    SOSIE_SSD_KERNELS_OF(KERNEL, bfloat16)       \
    SOSIE_SSD_KERNELS_OF(KERNEL, float)          \
    SOSIE_SSD_KERNELS_OF(KERNEL, double)
