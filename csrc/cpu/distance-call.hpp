// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of the distance family are called with: distances between two sets of vectors.
#pragma once
#include "kernels.hpp"

namespace sosie {

enum class Metric : int32_t { euclidean, sqeuclidean, cosine };

// A borrowed array of shape (batch, vectors, dimensions). Strides count elements, may be negative,
// and are 0 along broadcast axes.
struct VectorSet {
    void* data;  // nullptr: the set is absent
    DType dtype;
    int64_t strides[3];
};

struct DistanceProblem {
    int64_t batch, rows, columns, dims;
    VectorSet a;           // (batch, rows, dims)
    VectorSet b;           // (batch, columns, dims), of a's dtype
    const void* panels;    // b as the kernels read it (distance-inl.hpp); nullptr: not packed
    int64_t panel_stride;  // elements from a batch's panels to the next one's
    Metric metric;
    const double* weights;  // (dims,), or nullptr
    // Cosine only, (batch, rows) and (batch, columns): lengths of the vectors, by the weights.
    const double *norms_a, *norms_b;
};

struct DistanceForward {
    DistanceProblem problem;
    VectorSet distances;  // (batch, rows, columns) in the computing type, rows contiguous
};

// The gradient of the first set; that of the second is the same with the sets exchanged.
struct DistanceBackward {
    DistanceProblem problem;
    VectorSet upstream, distances;  // (batch, rows, columns) in the computing type
    VectorSet gradient;             // (batch, rows, dims)
};

struct Norms {
    int64_t batch, rows, dims;
    VectorSet vectors;
    const double* weights;
    double* norms;  // (batch, rows)
};

// Packs b into panels, of `batch` batches one after another.
struct PackVectors {
    DistanceProblem problem;
    void* panels;
};

struct Neighbour {
    double distance;  // squared, or 1 - similarity
    int64_t index;
};

// Each row keeps its k nearest columns. A task has a block of rows and a range of columns; what it
// found stands at [range][row][k], ascending, and the driver merges ranges. A row that found fewer
// than k fills up with index -1.
struct NearestNeighbours {
    DistanceProblem problem;  // batch 1
    int64_t k;
    bool exclude_self;
    Neighbour* found;  // (ranges, rows, k)
};

// The gradient of the first set through chosen pairs: row r and column partners[e], for the edges e
// from offsets[r] to offsets[r + 1].
struct NeighbourBackward {
    DistanceProblem problem;  // batch 1
    const int64_t *offsets, *partners;
    const double* factors;  // (edges,): of a_r - b_e in the gradient, see distance-backward-inl.hpp
    VectorSet gradient;     // (1, rows, dims)
};

struct NoPartial {};

struct DistanceKernels {
    // [0] float, [1] double
    int64_t panel_columns[2];                // columns side by side in a packed panel
    int64_t (*block_rows[2])(int64_t dims);  // rows compared with a panel once it is in cache
    TaskKernel<Norms, NoPartial> norms[2];
    TaskKernel<PackVectors, NoPartial> pack[2];
    TaskKernel<DistanceForward, NoPartial> forward[2];
    TaskKernel<DistanceBackward, NoPartial> backward[2];
    TaskKernel<NearestNeighbours, NoPartial> neighbours[2];
    TaskKernel<NeighbourBackward, NoPartial> neighbour_backward[2];
    int64_t (*column_ranges[2])(const NearestNeighbours&);
};

}  // namespace sosie
