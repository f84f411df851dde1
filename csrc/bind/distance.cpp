// SPDX-License-Identifier: Apache-2.0
#include "../cpu/distance.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "arguments.hpp"

namespace sosie {
namespace {

// A set of vectors arrives as an array does, with three axes: (batch, vectors, dimensions).
VectorSet set_argument(const py::handle& argument) {
    VectorSet set{};
    const auto parts = py::reinterpret_borrow<py::tuple>(argument);
    set.data = reinterpret_cast<void*>(parts[0].cast<std::uintptr_t>());
    set.dtype = DType(parts[1].cast<int>());
    const auto strides = py::reinterpret_borrow<py::tuple>(parts[2]);
    if (strides.size() != 3)
        throw std::invalid_argument("expected 3 axes, got " + std::to_string(strides.size()));
    const int64_t unit = parts[3].cast<bool>() ? item_size(set.dtype) : 1;
    for (size_t axis = 0; axis < 3; ++axis)
        set.strides[axis] = strides[axis].cast<int64_t>() / unit;
    return set;
}

// The problem of a call; weights live as long as it.
struct DistanceArguments {
    std::vector<double> weights;
    DistanceProblem problem{};

    // shape: (batch, rows, columns, dims)
    DistanceArguments(const std::vector<int64_t>& shape, const py::handle& a, const py::handle& b,
                      int metric, std::vector<double> given_weights)
        : weights(std::move(given_weights)) {
        problem.batch = shape.at(0);
        problem.rows = shape.at(1);
        problem.columns = shape.at(2);
        problem.dims = shape.at(3);
        problem.a = set_argument(a);
        problem.b = set_argument(b);
        problem.metric = Metric(metric);
        problem.weights = weights.empty() ? nullptr : weights.data();
    }
};

std::unique_ptr<PackedSet> pack(const std::vector<int64_t>& shape, const py::tuple& b, int metric,
                                int threads) {
    const DistanceArguments arguments(shape, b, b, metric, {});
    const py::gil_scoped_release released;
    return std::make_unique<PackedSet>(arguments.problem, threads);
}

void forward(const std::vector<int64_t>& shape, const py::tuple& a, const py::tuple& b, int metric,
             std::vector<double> weights, const PackedSet* packed, const py::tuple& distances,
             int threads) {
    const DistanceArguments arguments(shape, a, b, metric, std::move(weights));
    const DistanceForward call{arguments.problem, set_argument(distances)};
    const py::gil_scoped_release released;
    distance_forward(call, packed, threads);
}

void backward(const std::vector<int64_t>& shape, const py::tuple& a, const py::tuple& b, int metric,
              std::vector<double> weights, const py::tuple& upstream, const py::tuple& distances,
              const py::tuple& gradient, int threads) {
    const DistanceArguments arguments(shape, a, b, metric, std::move(weights));
    const DistanceBackward call{arguments.problem, set_argument(upstream), set_argument(distances),
                                set_argument(gradient)};
    const py::gil_scoped_release released;
    distance_backward(call, threads);
}

void neighbours(const std::vector<int64_t>& shape, const py::tuple& a, const py::tuple& b,
                int metric, int64_t k, bool exclude_self, const PackedSet* packed,
                std::uintptr_t distances, std::uintptr_t indices, int threads) {
    const DistanceArguments arguments(shape, a, b, metric, {});
    const NearestNeighbours call{arguments.problem, k, exclude_self, nullptr};
    const py::gil_scoped_release released;
    nearest_neighbours(call, packed, reinterpret_cast<void*>(distances),
                       reinterpret_cast<int64_t*>(indices), threads);
}

void edges_backward(const std::vector<int64_t>& shape, const py::tuple& a, const py::tuple& b,
                    int metric, std::uintptr_t offsets, std::uintptr_t partners,
                    std::uintptr_t factors, const py::tuple& gradient, int threads) {
    const DistanceArguments arguments(shape, a, b, metric, {});
    const NeighbourBackward call{arguments.problem, reinterpret_cast<const int64_t*>(offsets),
                                 reinterpret_cast<const int64_t*>(partners),
                                 reinterpret_cast<const double*>(factors), set_argument(gradient)};
    const py::gil_scoped_release released;
    neighbour_backward(call, threads);
}

}  // namespace

void register_distance(py::module_& m) {
    py::class_<PackedSet>(m, "PackedSet", "A set of vectors, laid out for many calls.")
        .def_property_readonly("nbytes", &PackedSet::bytes);
    m.def("pack_vectors", &pack, py::arg("shape"), py::arg("b"), py::arg("metric"),
          py::arg("threads"), "Lay out the second set of (1, rows, columns, dims).");
    m.def("distance_forward", &forward, py::arg("shape"), py::arg("a"), py::arg("b"),
          py::arg("metric"), py::arg("weights"), py::arg("packed"), py::arg("distances"),
          py::arg("threads"), "Distances of all pairs.");
    m.def("distance_backward", &backward, py::arg("shape"), py::arg("a"), py::arg("b"),
          py::arg("metric"), py::arg("weights"), py::arg("upstream"), py::arg("distances"),
          py::arg("gradient"), py::arg("threads"), "The gradient of the first set.");
    m.def("nearest_neighbours", &neighbours, py::arg("shape"), py::arg("a"), py::arg("b"),
          py::arg("metric"), py::arg("k"), py::arg("exclude_self"), py::arg("packed"),
          py::arg("distances"), py::arg("indices"), py::arg("threads"),
          "The k nearest of the second set for each of the first.");
    m.def("edges_backward", &edges_backward, py::arg("shape"), py::arg("a"), py::arg("b"),
          py::arg("metric"), py::arg("offsets"), py::arg("partners"), py::arg("factors"),
          py::arg("gradient"), py::arg("threads"), "The gradient of the first set by edges.");
}

}  // namespace sosie
