// SPDX-License-Identifier: Apache-2.0
#include "downsample.cuh"
#include "kernels.hpp"
#include "ssim-backward.cuh"
#include "ssim-general.cuh"
#include "ssim-list.hpp"
#include "ssim.cuh"

SOSIE_KERNEL_TABLE(ssim_kernels, SOSIE_SSIM_KERNELS)
