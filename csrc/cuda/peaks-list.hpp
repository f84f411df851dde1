// SPDX-License-Identifier: Apache-2.0
//
// Kernels that measure devices.
#pragma once

#define SOSIE_PEAKS_KERNELS(KERNEL) KERNEL(fma_peak<float>)
