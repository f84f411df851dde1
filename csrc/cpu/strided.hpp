// SPDX-License-Identifier: Apache-2.0
//
// Arrays of any number of axes, for kernels that treat all elements alike.
#pragma once
#include <cstdint>

#include "kernels.hpp"

namespace sosie {

// Elements of a borrowed array in an order that it shares with others. Axes are listed outermost
// first; those that one stride can walk are merged into one. So a contiguous array has one axis,
// and an image of which every second row is used has two. Strides count elements, may be negative,
// and are 0 along broadcast axes.
struct Elements {
    void* data;  // nullptr: the array is absent
    DType dtype;
    int64_t image_stride;
    int32_t axes;            // of one image, at least 1
    const int64_t* lengths;  // (axes,), their product is the number of an image's elements
    const int64_t* strides;  // (axes,)
};

}  // namespace sosie
