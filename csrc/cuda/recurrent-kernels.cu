// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"
#include "recurrent-list.hpp"
#include "recurrent.cuh"

SOSIE_KERNEL_TABLE(recurrent_kernels, SOSIE_RECURRENT_KERNELS)
