// SPDX-License-Identifier: Apache-2.0
//
// Whole calls on paired rows: axes put in order, tasks in parallel.
#pragma once
#include <vector>

#include "paired-call.hpp"

namespace sosie {

// `axes` of the results, in any order; those of the call are filled in here. Throws
// std::invalid_argument where more than kPairedAxes are left when those that lie in memory like one
// have been merged.
void paired_forward(PairedCall call, std::vector<PairedAxis> axes, int threads);

// An input whose gradient has stride 0 along an axis is shared along it, and so is its gradient.
void paired_backward(PairedCall call, std::vector<PairedAxis> axes, int threads);

}  // namespace sosie
