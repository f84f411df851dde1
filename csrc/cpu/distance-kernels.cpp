// SPDX-License-Identifier: Apache-2.0
#include "distance-backward-inl.hpp"
#include "distance-call.hpp"
#include "distance-inl.hpp"
#include "distance-matrix-inl.hpp"
#include "distance-neighbours-inl.hpp"
#include "isa-inl.hpp"

namespace sosie {

extern const DistanceKernels SOSIE_NAME(distance_);
const DistanceKernels SOSIE_NAME(distance_) = {
    {kPanelColumns<float>, kPanelColumns<double>},
    {&block_rows<float>, &block_rows<double>},
    SOSIE_BOTH(norm_tasks, norm_scratch, run_norms),
    SOSIE_BOTH(pack_tasks, pack_scratch, run_pack),
    SOSIE_BOTH(distance_tasks, distance_scratch, run_distance),
    SOSIE_BOTH(gradient_tasks, gradient_scratch, run_gradient),
    SOSIE_BOTH(neighbour_tasks, neighbour_scratch, run_neighbours),
    SOSIE_BOTH(neighbour_gradient_tasks, neighbour_gradient_scratch, run_neighbour_gradient),
    {&column_ranges<float>, &column_ranges<double>},
};

}  // namespace sosie
