// SPDX-License-Identifier: Apache-2.0
#include "isa-inl.hpp"
#include "template-call.hpp"
#include "template-inl.hpp"

namespace sosie {

extern const TemplateKernels SOSIE_NAME(template_);
const TemplateKernels SOSIE_NAME(template_) = {
    SOSIE_BOTH(template_tasks, template_scratch, run_template),
};

}  // namespace sosie
