// SPDX-License-Identifier: Apache-2.0
//
// All kernels of the build, found by name.
#pragma once
#include <cstring>

#include "kernels.hpp"

namespace sosie {

extern const KernelTable distance_kernels, paired_kernels, peaks_kernels, recurrent_kernels,
    ssd_kernels, ssim_kernels;

// nullptr: there is none of that name.
inline const Kernel* find_kernel(const char* name) {
    for (const KernelTable* table : {&distance_kernels, &paired_kernels, &peaks_kernels,
                                     &recurrent_kernels, &ssd_kernels, &ssim_kernels})
        for (size_t i = 0; i < table->count; ++i)
            if (std::strcmp(table->kernels[i].name, name) == 0) return &table->kernels[i];
    return nullptr;
}

}  // namespace sosie
