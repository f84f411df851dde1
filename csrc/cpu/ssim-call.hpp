// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of the SSIM family are called with.
#pragma once
#include "border.hpp"
#include "kernels.hpp"

namespace sosie {

enum class Kind : int32_t { ssim, contrast_structure };

// One axis of a separable window. The window centred at position p covers [p - origin, p - origin +
// size). Positions [crop_before, length - crop_after) of the axis carry a value of the map.
struct Window {
    const double* taps;  // (size,), sum 1
    int32_t size;
    int32_t origin;
    int32_t crop_before;
    int32_t crop_after;
    // Adjoint of the padding. The gradient at q < fold_before (or among the last fold_after
    // positions) gathers from the map with taps of its own, because padded copies of the pixel
    // were seen too: (fold_before + fold_after, size), row q or row fold_before + q - (length -
    // fold_after).
    const double* folded;
    int32_t fold_before;
    int32_t fold_after;
};

struct SSIMProblem {
    int64_t shape[5];   // (batch, channels, depth, height, width)
    Array x, y;         // equal dtypes
    Array mask;         // u8, 0 or 1; may be absent
    Window windows[3];  // depth, height, width; the depth window of an image has size 1
    Border border;
    Kind kind;
    int32_t stride;
    double scale;  // power of two that brings the data range near 1: nothing over- or underflows in
                   // float32
    double center;
    double c1, c2;  // of the unscaled images
    double epsilon;
    double window_sum;  // of the window as the convention has it; the taps above sum to 1
    double covariance_scale;
    bool clamp_variance;
    bool clamp_value;
    double lowest, highest;
};

struct SSIMForward {
    SSIMProblem problem;
    Array map;  // compute dtype, may be absent
};

struct SSIMBackward {
    SSIMProblem problem;
    Array upstream;  // compute dtype; dLoss/dmap, or one number per plane with spatial strides 0
    bool upstream_is_map;
    Array grad_x, grad_y;  // either may be absent
    // (batch, channels): adds weight * sign(x - y) to dLoss/dx, its negative to dLoss/dy; or
    // nullptr.
    const double* l1_weights;
    // Volumes only: room for three (both gradients: four) cropped maps in the compute dtype.
    void* coefficients;
};

// What one task adds up; the driver sums tasks of a plane in order.
struct SSIMPartial {
    double value;  // sum of the map
    double count;  // positions summed
    double l1;     // sum of |x - y| over valid pixels (backward only)
    double pixels;
};

// Means over boxes, after padding: output[o] = mean of padded[factor * o .. factor * (o + 1)) per
// axis.
struct Downsample {
    int64_t shape[5];         // of the full-size array
    int64_t output_shape[5];  // of the reduced one
    int64_t padding[3];       // before depth, height, width; what is needed after follows
    int64_t padded[3];        // sizes after padding
    int32_t factors[3];       // depth, height, width
    Border border;
    Array full,
        reduced;  // forward reads `full`; backward reads `reduced`, the gradient, writes `full`
};

struct SSIMKernels {
    TaskKernel<SSIMForward, SSIMPartial> forward[2];  // [0] computes in float, [1] in double
    TaskKernel<SSIMBackward, SSIMPartial> backward[2];
    // Volumes. The gradient is two calls: coefficients of the map, then what they give each voxel.
    TaskKernel<SSIMForward, SSIMPartial> volume_forward[2];
    TaskKernel<SSIMBackward, SSIMPartial> volume_coefficients[2];
    TaskKernel<SSIMBackward, SSIMPartial> volume_gradient[2];
    TaskKernel<Downsample, SSIMPartial> downsample_forward[2];
    TaskKernel<Downsample, SSIMPartial> downsample_backward[2];
};

}  // namespace sosie
