// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of the SSD family are called with.
#pragma once
#include "kernels.hpp"
#include "strided.hpp"

namespace sosie {

// sum of w (x - y)^2 over each image's pixels (samples of all channels), and sum of w.
struct SSDProblem {
    int64_t images, pixels;  // pixels of one image
    int64_t task_pixels;     // of one image, that one task treats; the last task of an image fewer
    Elements x, y;           // equal dtypes
    Elements weight;         // any floating dtype, or u8 with 0 and 1; absent: all 1
};

struct SSDBackward {
    SSDProblem problem;
    // (images, 2): dLoss/d(sum of w (x - y)^2) and dLoss/d(sum of w).
    const double* upstream;
    int64_t upstream_stride;  // from image to image: 2, or 0 where all have the same
    Elements grad_x, grad_y;  // either may be absent
    // Absent, or of the images' shape. Where weights were broadcast it is f64 with strides of 0
    // along those axes, and what belongs to one weight is added up in `weight_sums`.
    Elements grad_weight;
    double* weight_sums;        // one piece per task, zeros; nullptr: no weight was broadcast
    int64_t weight_sums_piece;  // weights of one piece; 0: all tasks, in turn, have the same
    // Gradients are larger than the caches: write past them.
    bool stream;
};

// What one task adds up; the driver sums tasks of an image in order.
struct SSDPartial {
    double sum;     // of w (x - y)^2
    double weight;  // sum of w
    double lowest;  // the smallest weight, or 0 if that is larger
    double odd;     // sum of the weights that are not finite, or 0
};

struct SSDKernels {
    TaskKernel<SSDProblem, SSDPartial> forward[2];    // [0] computes in float, [1] in double
    TaskKernel<SSDBackward, SSDPartial> backward[2];  // fills `sum` and `weight` too
};

}  // namespace sosie
