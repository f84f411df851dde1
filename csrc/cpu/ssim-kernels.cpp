// SPDX-License-Identifier: Apache-2.0
#include "downsample-inl.hpp"
#include "isa-inl.hpp"
#include "ssim-backward-inl.hpp"
#include "ssim-call.hpp"
#include "ssim-inl.hpp"
#include "ssim-volume-inl.hpp"

namespace sosie {

extern const SSIMKernels SOSIE_NAME(ssim_);
const SSIMKernels SOSIE_NAME(ssim_) = {
    SOSIE_BOTH(forward_tasks, forward_scratch, run_forward),
    SOSIE_BOTH(backward_tasks, backward_scratch, run_backward),
    SOSIE_BOTH(volume_forward_tasks, volume_forward_scratch, run_volume_forward),
    SOSIE_BOTH(volume_coefficients_tasks, volume_coefficients_scratch, run_volume_coefficients),
    SOSIE_BOTH(volume_gradient_tasks, volume_gradient_scratch, run_volume_gradient),
    SOSIE_BOTH(downsample_forward_tasks, downsample_scratch, run_downsample),
    SOSIE_BOTH(downsample_backward_tasks, downsample_scratch, run_downsample_backward),
};

}  // namespace sosie
