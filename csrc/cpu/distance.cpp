// SPDX-License-Identifier: Apache-2.0
#include "distance.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

#include "dispatch.hpp"
#include "pages.hpp"
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

// Panels that a call makes for itself, where more than one task reads them.
std::unique_ptr<Panels> panels_for_call(const DistanceKernels& kernels, DistanceProblem& p,
                                        int threads) {
    if (p.panels || p.rows <= kernels.block_rows[precision(p.b)](p.dims)) return nullptr;
    auto panels = std::make_unique<Panels>(kernels, p, threads);
    panels->attach(p);
    return panels;
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

void Panels::Free::operator()(void* memory) const {
    std::free(memory);
}

Panels::Panels(const DistanceKernels& kernels, DistanceProblem problem, int threads) {
    const size_t which = precision(problem.b);
    const int64_t width = kernels.panel_columns[which];
    const int64_t panels = (problem.columns + width - 1) / width;
    const bool shared = problem.b.strides[0] == 0;
    if (shared) problem.batch = std::min<int64_t>(problem.batch, 1);
    const int64_t batch_size = panels * width * problem.dims;
    stride_ = shared ? 0 : batch_size;
    bytes_ = size_t(problem.batch * batch_size) * (which ? 8 : 4);
    // Read from end to end by every block of rows: large pages where it is long.
    constexpr size_t line = 64, large_page = size_t(2) << 20;
    const size_t unit = bytes_ < 2 * large_page ? line : large_page;
    const size_t room = (bytes_ / unit + 1) * unit;
    memory_.reset(std::aligned_alloc(unit, room));
    if (!memory_) throw std::bad_alloc();
    if (unit == large_page) use_large_pages(std::uintptr_t(memory_.get()), room);
    run_tasks(kernels.pack[which], PackVectors{problem, memory_.get()}, threads);
}

void Panels::attach(DistanceProblem& problem) const {
    problem.panels = memory_.get();
    problem.panel_stride = stride_;
}

PackedSet::PackedSet(DistanceProblem problem, int threads) : kernels_(active().distance) {
    if (problem.metric == Metric::cosine)
        norms_ = norms_of(*kernels_, problem.b, 1, problem.columns, problem.dims, problem.weights,
                          threads);
    problem.norms_b = norms_.empty() ? nullptr : norms_.data();
    panels_ = std::make_unique<Panels>(*kernels_, problem, threads);
}

void PackedSet::attach(DistanceProblem& problem) const {
    panels_->attach(problem);
    problem.norms_b = norms_.empty() ? nullptr : norms_.data();
}

size_t PackedSet::bytes() const {
    return panels_->bytes() + norms_.size() * sizeof(double);
}

void distance_forward(DistanceForward call, const PackedSet* packed, int threads) {
    const DistanceKernels& k = kernels_for(packed);
    if (packed) packed->attach(call.problem);
    const Lengths lengths(k, call.problem, threads);
    const auto panels = panels_for_call(k, call.problem, threads);
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
    const auto panels = panels_for_call(kernels, p, threads);
    const size_t which = precision(p.a);
    const int64_t k = call.k, ranges = kernels.column_ranges[which](call);
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
