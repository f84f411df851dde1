// SPDX-License-Identifier: Apache-2.0
//
// One table of kernels, compiled once per instruction set with SOSIE_ISA its name. Everything here
// has internal linkage: a template or inline function that left this object would be merged by the
// linker with the copy of another instruction set, and run where it must not.
#include "kernels.hpp"

#include "downsample-inl.hpp"
#include "peaks-inl.hpp"
#include "ssim-backward-inl.hpp"
#include "ssim-inl.hpp"
#include "ssim-volume-inl.hpp"

#define SOSIE_JOIN_(a, b) a##b
#define SOSIE_JOIN(a, b) SOSIE_JOIN_(a, b)
// The float and the double instantiation of a kernel.
#define SOSIE_BOTH(tasks, scratch, run)                    \
    {                                                      \
        {&tasks<float>, &scratch<float>, &run<float>}, {   \
            &tasks<double>, &scratch<double>, &run<double> \
        }                                                  \
    }
#define SOSIE_TEXT_(a) #a
#define SOSIE_TEXT(a) SOSIE_TEXT_(a)

namespace sosie {

extern const Kernels SOSIE_JOIN(kernels_, SOSIE_ISA);
const Kernels SOSIE_JOIN(kernels_, SOSIE_ISA) = {
    SOSIE_TEXT(SOSIE_ISA),
    kLanes<float>,
    SOSIE_BOTH(forward_tasks, forward_scratch, run_forward),
    SOSIE_BOTH(backward_tasks, backward_scratch, run_backward),
    SOSIE_BOTH(volume_forward_tasks, volume_forward_scratch, run_volume_forward),
    SOSIE_BOTH(volume_coefficients_tasks, volume_coefficients_scratch, run_volume_coefficients),
    SOSIE_BOTH(volume_gradient_tasks, volume_gradient_scratch, run_volume_gradient),
    SOSIE_BOTH(downsample_forward_tasks, downsample_scratch, run_downsample),
    SOSIE_BOTH(downsample_backward_tasks, downsample_scratch, run_downsample_backward),
    &fma_peak,
    &read_peak,
};

}  // namespace sosie
