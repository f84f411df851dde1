// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of paired rows are called with.
#pragma once
#include "kernels.hpp"

namespace sosie {

enum class PairedKind : int32_t { euclidean, cosine };

// The arrays of a call. Results have one number per pair of rows.
enum PairedPlace {
    kX,
    kY,
    kValue,  // distance or similarity, computing dtype
    kNormX,  // cosine only, computing dtype; absent where nobody wants them
    kNormY,
    kUpstream,  // backward only: dLoss/dvalue, computing dtype
    kGradX,     // backward only; either may be absent
    kGradY,
    kPairedPlaces
};

struct PairedOperand {
    void* data;  // nullptr: the array is absent
    DType dtype;
    int64_t step;  // from one element of a row to the next; 0: one element stands for all
};

// An axis of the results, with the stride of every operand along it; 0 where it is broadcast.
// Strides count elements and may be negative.
struct PairedAxis {
    int64_t size;
    int64_t strides[kPairedPlaces];
};

constexpr int kPairedAxes = 8;

struct PairedCall {
    PairedKind kind;
    int axes;                      // of the results, at least 1
    PairedAxis axis[kPairedAxes];  // outermost first
    int64_t length;                // of a row
    PairedOperand operands[kPairedPlaces];
    // Cosine: a norm below `floor` counts as `replacement`, a constant.
    double floor, replacement;
    // Forward: (pairs, segments, 3), where rows are cut into segments; else nullptr.
    double* sums;
    // Gradient of a broadcast x: this many consecutive pairs, the last axes, share a row of it.
    int64_t sharing;
};

// Nothing is added up by a whole call.
struct PairedPartial {};

struct PairedKernels {
    TaskKernel<PairedCall, PairedPartial> forward[2];  // [0] computes in float, [1] in double
    TaskKernel<PairedCall, PairedPartial> gradients[2];
    TaskKernel<PairedCall, PairedPartial> shared_gradient[2];
    // Into how many segments forward cuts a row: more than one only where rows are few and long.
    int64_t (*segments[2])(const PairedCall&);
    // Results out of `sums`.
    void (*finish[2])(const PairedCall&);
};

}  // namespace sosie
