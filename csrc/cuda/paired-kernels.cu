// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"
#include "paired-list.hpp"
#include "paired.cuh"

SOSIE_KERNEL_TABLE(paired_kernels, SOSIE_PAIRED_KERNELS)
