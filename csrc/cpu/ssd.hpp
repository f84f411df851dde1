// SPDX-License-Identifier: Apache-2.0
//
// Whole calls of the SSD family: tasks in parallel, their partial sums added in order.
#pragma once
#include <vector>

#include "ssd-call.hpp"

namespace sosie {

// An array as its owner has it: one stride per axis, in elements, 0 where it is broadcast.
struct Strided {
    void* data = nullptr;  // nullptr: absent
    DType dtype = DType::u8;
    std::vector<int64_t> strides = {};
};

struct SSDArguments {
    std::vector<int64_t> shape;  // no axis is empty
    bool per_image;              // the first axis counts images; else all is one
    Strided x, y, weight;
};

struct SSDGradients {
    Strided x, y;
    // As the weight: f64 and contiguous, with strides of 0 where that was broadcast; else the
    // images' shape and any floating dtype.
    Strided weight;
};

// What was found among the weights: the smallest if that is below 0, and the sum of those that are
// not finite.
struct SSDWeights {
    double lowest, odd;
};

// sums: (images, 2), the sum of w (x - y)^2 and that of w.
SSDWeights ssd_forward(const SSDArguments& arguments, double* sums, int threads);

// upstream: (images, 2), dLoss/dsums. sums is a by-product.
SSDWeights ssd_backward(const SSDArguments& arguments, const double* upstream,
                        const SSDGradients& gradients, double* sums, int threads);

}  // namespace sosie
