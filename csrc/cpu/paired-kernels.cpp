// SPDX-License-Identifier: Apache-2.0
#include "isa-inl.hpp"
#include "paired-backward-inl.hpp"
#include "paired-call.hpp"
#include "paired-inl.hpp"

namespace sosie {

extern const PairedKernels SOSIE_NAME(paired_);
const PairedKernels SOSIE_NAME(paired_) = {
    SOSIE_BOTH(paired_tasks, paired_scratch, run_paired_forward),
    SOSIE_BOTH(paired_tasks, paired_scratch, run_gradients),
    SOSIE_BOTH(shared_tasks, shared_scratch, run_shared_gradient),
    {&paired_segments<float>, &paired_segments<double>},
    {&finish_segments<float>, &finish_segments<double>},
};

}  // namespace sosie
