// SPDX-License-Identifier: Apache-2.0
#include "distance.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>

#include "dispatch.hpp"
#include "tasks.hpp"

namespace sosie {
namespace {

size_t precision(const VectorSet& set) {
    return set.dtype == DType::f64 ? 1 : 0;
}

// The gradient of a cosine is what is left of a larger vector: see distance-backward-inl.hpp.
size_t gradient_precision(const DistanceProblem& p) {
    return p.metric == Metric::cosine ? 1 : precision(p.a);
}

std::vector<double> norms_of(const DistanceKernels& kernels, const VectorSet& set, int64_t batch,
                             int64_t rows, int64_t dims, const double* weights, int threads) {
    std::vector<double> norms(size_t(batch * rows));
    const Norms call{batch, rows, dims, set, weights, norms.data()};
    run_tasks(kernels.norms[precision(set)], call, threads);
    return norms;
}

// What a call has to know of lengths, as long as it lasts.
class Lengths {
  public:
    Lengths(const DistanceKernels& kernels, DistanceProblem& p, int threads) {
        if (p.metric != Metric::cosine) return;
        a_ = norms_of(kernels, p.a, p.batch, p.rows, p.dims, p.weights, threads);
        p.norms_a = a_.data();
        if (p.norms_b) return;
        b_ = norms_of(kernels, p.b, p.batch, p.columns, p.dims, p.weights, threads);
        p.norms_b = b_.data();
    }

  private:
    std::vector<double> a_, b_;
};

const DistanceKernels& kernels_for(const PackedSet* packed) {
    return packed ? packed->kernels() : *active().distance;
}

bool nearer(const Neighbour& a, const Neighbour& b) {
    return a.distance < b.distance || (a.distance == b.distance && a.index < b.index);
}

// The columns of lowest index that are not among the `count` found already.
void fill_up(Neighbour* row, int64_t count, int64_t k, int64_t self) {
    std::vector<int64_t> taken(size_t(count) + 1, self);
    for (int64_t i = 0; i < count; ++i) taken[size_t(i)] = row[i].index;
    std::sort(taken.begin(), taken.end());
    int64_t index = 0;
    auto next = taken.begin();
    for (int64_t i = count; i < k; ++index) {
        while (next != taken.end() && *next < index) ++next;
        if (next != taken.end() && *next == index) continue;
        row[i++] = {std::numeric_limits<double>::quiet_NaN(), index};
    }
}

template <class T>
void write_neighbours(const Neighbour* row, int64_t k, Metric metric, T* distances,
                      int64_t* indices) {
    for (int64_t i = 0; i < k; ++i) {
        const T value = T(row[i].distance);
        distances[i] = metric == Metric::euclidean ? std::sqrt(value) : value;
        indices[i] = row[i].index;
    }
}

}  // namespace

void PackedSet::Free::operator()(void* memory) const {
    std::free(memory);
}

PackedSet::PackedSet(DistanceProblem problem, int threads) : kernels_(active().distance) {
    const size_t which = precision(problem.b);
    const int64_t width = kernels_->panel_columns[which];
    const int64_t panels = (problem.columns + width - 1) / width;
    panel_bytes_ = size_t(panels * width * std::max<int64_t>(problem.dims, 1)) * (which ? 8 : 4);
    constexpr size_t line = 64;
    panels_.reset(std::aligned_alloc(line, (panel_bytes_ / line + 1) * line));
    if (!panels_) throw std::bad_alloc();
    if (problem.metric == Metric::cosine)
        norms_ = norms_of(*kernels_, problem.b, 1, problem.columns, problem.dims, problem.weights,
                          threads);
    problem.norms_b = norms_.empty() ? nullptr : norms_.data();
    run_tasks(kernels_->pack[which], PackVectors{problem, panels_.get()}, threads);
}

void PackedSet::attach(DistanceProblem& problem) const {
    problem.panels = panels_.get();
    problem.norms_b = norms_.empty() ? nullptr : norms_.data();
}

size_t PackedSet::bytes() const {
    return panel_bytes_ + norms_.size() * sizeof(double);
}

void distance_forward(DistanceForward call, const PackedSet* packed, int threads) {
    const DistanceKernels& k = kernels_for(packed);
    if (packed) packed->attach(call.problem);
    const Lengths lengths(k, call.problem, threads);
    run_tasks(k.forward[precision(call.problem.a)], call, threads);
}

void distance_backward(DistanceBackward call, int threads) {
    const DistanceKernels& k = *active().distance;
    const Lengths lengths(k, call.problem, threads);
    run_tasks(k.backward[gradient_precision(call.problem)], call, threads);
}

void nearest_neighbours(NearestNeighbours call, const PackedSet* packed, void* distances,
                        int64_t* indices, int threads) {
    const DistanceKernels& kernels = kernels_for(packed);
    DistanceProblem& p = call.problem;
    if (packed) packed->attach(p);
    const Lengths lengths(kernels, p, threads);
    const size_t which = precision(p.a);
    const int64_t k = call.k, ranges = kernels.column_ranges(call);
    std::vector<Neighbour> found(size_t(ranges * p.rows * k));
    call.found = found.data();
    run_tasks(kernels.neighbours[which], call, threads);

    std::vector<Neighbour> merged(size_t(ranges * k));
    for (int64_t row = 0; row < p.rows; ++row) {
        auto end = merged.begin();
        for (int64_t range = 0; range < ranges; ++range) {
            const Neighbour* part = call.found + (range * p.rows + row) * k;
            end =
                std::copy_if(part, part + k, end, [](const Neighbour& n) { return n.index >= 0; });
        }
        std::sort(merged.begin(), end, &nearer);
        const int64_t count = std::min<int64_t>(end - merged.begin(), k);
        if (count < k) fill_up(merged.data(), count, k, call.exclude_self ? row : -1);
        if (which)
            write_neighbours(merged.data(), k, p.metric, static_cast<double*>(distances) + row * k,
                             indices + row * k);
        else
            write_neighbours(merged.data(), k, p.metric, static_cast<float*>(distances) + row * k,
                             indices + row * k);
    }
}

void neighbour_backward(NeighbourBackward call, int threads) {
    const DistanceKernels& k = *active().distance;
    const Lengths lengths(k, call.problem, threads);
    run_tasks(k.neighbour_backward[gradient_precision(call.problem)], call, threads);
}

}  // namespace sosie
