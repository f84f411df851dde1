// SPDX-License-Identifier: Apache-2.0
//
// Whole calls of the SSIM family: tasks in parallel, their partial sums added in order.
#pragma once
#include "ssim-call.hpp"

namespace sosie {

// values: (batch, channels), the mean of the map of each plane; NaN where no position counts.
void ssim_forward(SSIMForward call, double* values, int threads);

// values and l1 (mean |x - y| of each plane) are by-products and may be nullptr. The windows'
// folded taps are made here.
void ssim_backward(SSIMBackward call, double* values, double* l1, int threads);

void downsample_forward(const Downsample& call, int threads);
void downsample_backward(const Downsample& call, int threads);

}  // namespace sosie
