// SPDX-License-Identifier: Apache-2.0
#include "isa-inl.hpp"
#include "ssd-call.hpp"
#include "ssd-inl.hpp"

namespace sosie {

extern const SSDKernels SOSIE_NAME(ssd_);
const SSDKernels SOSIE_NAME(ssd_) = {
    SOSIE_BOTH(ssd_forward_tasks, ssd_forward_scratch, run_ssd_forward),
    SOSIE_BOTH(ssd_backward_tasks, ssd_backward_scratch, run_ssd_backward),
};

}  // namespace sosie
