// SPDX-License-Identifier: Apache-2.0
//
// What the kernel of the template family is called with.
#pragma once
#include "kernels.hpp"

namespace sosie {

// map[n, i, j] = sum over c, r, s of w[c, r, s] (image[n, c, i + r, j + s] - template[c, r, s])^2.
struct TemplateSearch {
    int64_t shape[5];       // of the images: (batch, channels, 1, height, width)
    int64_t height, width;  // of the template
    Array image;
    // (channels, height, width), contiguous, of the computing type; weights may be nullptr: all 1.
    const void* values;
    const void* weights;
    Array map;  // f32 or f64, (batch, 1, 1, rows, columns)
};

struct TemplatePartial {};  // nothing is added up across tasks

struct TemplateKernels {
    TaskKernel<TemplateSearch, TemplatePartial> search[2];  // [0] computes in float, [1] in double
};

}  // namespace sosie
