// SPDX-License-Identifier: Apache-2.0
#include "isa-inl.hpp"
#include "winograd-call.hpp"
#include "winograd-gradient-inl.hpp"
#include "winograd-inl.hpp"

namespace sosie {

extern const WinogradKernels SOSIE_NAME(winograd_);
const WinogradKernels SOSIE_NAME(winograd_) = {
    {&pack_tasks, &pack_scratch, &run_pack},
    {&forward_tasks, &forward_scratch, &run_forward},
    {&gradient_tasks, &gradient_scratch, &run_gradient},
    {&finish_tasks, &finish_scratch, &run_finish},
    kPanel,
    &packed_size,
    &gradient_ranges,
    &gradient_size,
};

}  // namespace sosie
