// SPDX-License-Identifier: Apache-2.0
//
// Whole calls of the distance family.
#pragma once
#include <memory>
#include <vector>

#include "distance-call.hpp"

namespace sosie {

// The right-hand side of many calls: panels in the layout of the instruction set in use when they
// were packed, which reads them from then on.
class PackedSet {
  public:
    PackedSet(DistanceProblem problem, int threads);  // problem: columns, dims, b, metric
    void attach(DistanceProblem& problem) const;
    const DistanceKernels& kernels() const { return *kernels_; }
    size_t bytes() const;

  private:
    struct Free {
        void operator()(void* memory) const;
    };
    const DistanceKernels* kernels_;
    size_t panel_bytes_;
    std::unique_ptr<void, Free> panels_;
    std::vector<double> norms_;
};

// `packed` takes the place of the second set's layout, never of the set itself: near-parallel pairs
// are computed from that. nullptr: the set is packed block by block, on the way.
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
