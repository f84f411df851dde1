// SPDX-License-Identifier: Apache-2.0
#include "template.hpp"

#include "dispatch.hpp"
#include "tasks.hpp"

namespace sosie {

void template_search(const TemplateSearch& call, int threads) {
    run_tasks(active().templates->search[call.image.dtype == DType::f64 ? 1 : 0], call, threads);
}

}  // namespace sosie
