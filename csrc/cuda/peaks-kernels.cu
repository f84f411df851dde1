// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"
#include "peaks-list.hpp"
#include "peaks.cuh"

SOSIE_KERNEL_TABLE(peaks_kernels, SOSIE_PEAKS_KERNELS)
