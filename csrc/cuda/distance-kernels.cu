// SPDX-License-Identifier: Apache-2.0
#include "distance-gradient.cuh"
#include "distance-list.hpp"
#include "distance-neighbours.cuh"
#include "distance-tile.cuh"
#include "kernels.hpp"

SOSIE_KERNEL_TABLE(distance_kernels, SOSIE_DISTANCE_KERNELS)
