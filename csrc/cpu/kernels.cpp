// SPDX-License-Identifier: Apache-2.0
//
// One table of kernels, compiled once per instruction set with SOSIE_ISA its name. Everything here
// has internal linkage: a template or inline function that left this object would be merged by the
// linker with the copy of another instruction set, and run where it must not.
#include "kernels.hpp"

#include "downsample-inl.hpp"
#include "peaks-inl.hpp"
#include "ssim-inl.hpp"

#define SOSIE_JOIN_(a, b) a##b
#define SOSIE_JOIN(a, b) SOSIE_JOIN_(a, b)
#define SOSIE_TEXT_(a) #a
#define SOSIE_TEXT(a) SOSIE_TEXT_(a)

namespace sosie {

extern const Kernels SOSIE_JOIN(kernels_, SOSIE_ISA);
const Kernels SOSIE_JOIN(kernels_, SOSIE_ISA) = {
    SOSIE_TEXT(SOSIE_ISA),
    kLanes<float>,
    {{&forward_tasks<float>, &forward_scratch<float>, &run_forward<float>},
     {&forward_tasks<double>, &forward_scratch<double>, &run_forward<double>}},
    {{&backward_tasks<float>, &backward_scratch<float>, &run_backward<float>},
     {&backward_tasks<double>, &backward_scratch<double>, &run_backward<double>}},
    {{&downsample_forward_tasks<float>, &downsample_scratch<float>, &run_downsample<float>},
     {&downsample_forward_tasks<double>, &downsample_scratch<double>, &run_downsample<double>}},
    {{&downsample_backward_tasks<float>, &downsample_scratch<float>, &run_downsample_backward<float>},
     {&downsample_backward_tasks<double>, &downsample_scratch<double>,
      &run_downsample_backward<double>}},
    &fma_peak,
    &read_peak,
};

}  // namespace sosie
