// SPDX-License-Identifier: Apache-2.0
//
// The kernels of the SSIM family: images with windows of 11 and 7 pixels for each dtype that is
// computed in float, and whatever else there is in float and double.
#pragma once

#define SOSIE_SSIM_IMAGE_KERNELS(KERNEL, T) \
    KERNEL(ssim_forward<T, 11>)             \
    KERNEL(ssim_forward<T, 7>)

#define SOSIE_SSIM_GRADIENT_KERNELS(KERNEL, T) \
    KERNEL(ssim_backward<T, 11, false>)        \
    KERNEL(ssim_backward<T, 11, true>)

#define SOSIE_SSIM_GENERAL_KERNELS(KERNEL, T) \
    KERNEL(ssim_general_forward<T, false>)    \
    KERNEL(ssim_general_forward<T, true>)     \
    KERNEL(ssim_general_gradient<T, false>)   \
    KERNEL(ssim_general_gradient<T, true>)    \
    KERNEL(ssim_count<T>)                     \
    KERNEL(downsample_forward<T>)             \
    KERNEL(downsample_backward<T>)

#define SOSIE_SSIM_KERNELS(KERNEL)                   \
    SOSIE_SSIM_IMAGE_KERNELS(KERNEL, unsigned char)  \
    SOSIE_SSIM_IMAGE_KERNELS(KERNEL, unsigned short) \
    SOSIE_SSIM_IMAGE_KERNELS(KERNEL, half)           \
    SOSIE_SSIM_IMAGE_KERNELS(KERNEL, bfloat16)       \
    SOSIE_SSIM_IMAGE_KERNELS(KERNEL, float)          \
    SOSIE_SSIM_GRADIENT_KERNELS(KERNEL, half)        \
    SOSIE_SSIM_GRADIENT_KERNELS(KERNEL, bfloat16)    \
    SOSIE_SSIM_GRADIENT_KERNELS(KERNEL, float)       \
    SOSIE_SSIM_GENERAL_KERNELS(KERNEL, float)        \
    SOSIE_SSIM_GENERAL_KERNELS(KERNEL, double)
