// SPDX-License-Identifier: Apache-2.0
//
// Whole calls of the template family: tasks in parallel.
#pragma once
#include "template-call.hpp"

namespace sosie {

void template_search(const TemplateSearch& call, int threads);

}  // namespace sosie
