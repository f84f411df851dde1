// SPDX-License-Identifier: Apache-2.0
//
// Whole calls of the distance family.
#pragma once
#include <memory>
#include <vector>

#include "distance-call.hpp"

namespace sosie {

// The second set of a problem as the kernels read it: panels of one batch after another, or of one
// batch where all share the set.
class Panels {
  public:
    Panels(const DistanceKernels& kernels, DistanceProblem problem, int threads);
    void attach(DistanceProblem& problem) const;
    size_t bytes() const { return bytes_; }

  private:
    struct Free {
        void operator()(void* memory) const;
    };
    int64_t stride_;
    size_t bytes_;
    std::unique_ptr<void, Free> memory_;
};

// The right-hand side of many calls: panels in the layout of the instruction set in use when they
// were packed, which reads them from then on.
class PackedSet {
  public:
    PackedSet(DistanceProblem problem, int threads);  // problem: columns, dims, b, metric
    void attach(DistanceProblem& problem) const;
    const DistanceKernels& kernels() const { return *kernels_; }
    size_t bytes() const;

  private:
    const DistanceKernels* kernels_;
    std::vector<double> norms_;
    std::unique_ptr<Panels> panels_;
};

// `packed` takes the place of the second set's layout, never of the set itself: near-parallel pairs
// are computed from that.
void distance_forward(DistanceForward call, const PackedSet* packed, int threads);

// The gradient of the first set.
void distance_backward(DistanceBackward call, int threads);

// distances and indices: (rows, k), ascending; distances in the computing type. Where fewer than k
// columns have a distance, NaN and the lowest indices left.
void nearest_neighbours(NearestNeighbours call, const PackedSet* packed, void* distances,
                        int64_t* indices, int threads);

// The gradient of the first set through its edges.
void neighbour_backward(NeighbourBackward call, int threads);

}  // namespace sosie
