// SPDX-License-Identifier: Apache-2.0
//
// The table of tables of one instruction set. The families' own are in *-kernels.cpp, compiled with
// the same flags.
#include "kernels.hpp"

#include "isa-inl.hpp"
#include "peaks-inl.hpp"

namespace sosie {

extern const SSIMKernels SOSIE_NAME(ssim_);
extern const DistanceKernels SOSIE_NAME(distance_);
extern const PairedKernels SOSIE_NAME(paired_);
extern const RecurrentKernels SOSIE_NAME(recurrent_);
extern const SSDKernels SOSIE_NAME(ssd_);
extern const TemplateKernels SOSIE_NAME(template_);
extern const WinogradKernels SOSIE_NAME(winograd_);

extern const Kernels SOSIE_NAME(kernels_);
const Kernels SOSIE_NAME(kernels_) = {
    SOSIE_TEXT(SOSIE_ISA),
    kLanes<float>,
    &SOSIE_NAME(ssim_),
    &SOSIE_NAME(paired_),
    &SOSIE_NAME(distance_),
    &SOSIE_NAME(ssd_),
    &SOSIE_NAME(template_),
    &SOSIE_NAME(recurrent_),
    &SOSIE_NAME(winograd_),
    &fma_peak,
    &read_peak,
};

}  // namespace sosie
