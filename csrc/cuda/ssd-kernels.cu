// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"
#include "ssd-list.hpp"
#include "ssd.cuh"

SOSIE_KERNEL_TABLE(ssd_kernels, SOSIE_SSD_KERNELS)
