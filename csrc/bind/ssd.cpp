// SPDX-License-Identifier: Apache-2.0
#include "../cpu/ssd.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "arguments.hpp"

namespace sosie {
namespace {

Strided strided_argument(const py::handle& argument) {
    Strided array{};
    if (argument.is_none()) return array;
    const auto parts = py::reinterpret_borrow<py::tuple>(argument);
    array.data = reinterpret_cast<void*>(parts[0].cast<std::uintptr_t>());
    array.dtype = DType(parts[1].cast<int>());
    for (const py::handle& stride : py::reinterpret_borrow<py::tuple>(parts[2]))
        array.strides.push_back(stride.cast<int64_t>());
    const int64_t unit = item_size(array.dtype);
    if (parts[3].cast<bool>())
        for (int64_t& stride : array.strides) stride /= unit;
    return array;
}

SSDArguments ssd_arguments(std::vector<int64_t> shape, bool per_image, const py::tuple& x,
                           const py::tuple& y, const py::object& weight) {
    return {std::move(shape), per_image, strided_argument(x), strided_argument(y),
            strided_argument(weight)};
}

using Found = std::pair<double, double>;  // among the weights: the smallest, the odd

Found bind_forward(std::vector<int64_t> shape, bool per_image, const py::tuple& x,
                   const py::tuple& y, const py::object& weight, std::uintptr_t sums, int threads) {
    const SSDArguments arguments = ssd_arguments(std::move(shape), per_image, x, y, weight);
    const py::gil_scoped_release released;
    const SSDWeights found = ssd_forward(arguments, values_argument(sums), threads);
    return {found.lowest, found.odd};
}

Found bind_backward(std::vector<int64_t> shape, bool per_image, const py::tuple& x,
                    const py::tuple& y, const py::object& weight, std::uintptr_t upstream,
                    const py::object& grad_x, const py::object& grad_y,
                    const py::object& grad_weight, std::uintptr_t sums, int threads) {
    const SSDArguments arguments = ssd_arguments(std::move(shape), per_image, x, y, weight);
    const SSDGradients gradients{strided_argument(grad_x), strided_argument(grad_y),
                                 strided_argument(grad_weight)};
    const py::gil_scoped_release released;
    const SSDWeights found = ssd_backward(arguments, values_argument(upstream), gradients,
                                          values_argument(sums), threads);
    return {found.lowest, found.odd};
}

}  // namespace

void register_ssd(py::module_& m) {
    m.def("ssd_forward", &bind_forward, py::arg("shape"), py::arg("per_image"), py::arg("x"),
          py::arg("y"), py::arg("weight"), py::arg("sums"), py::arg("threads"),
          "Weighted sums of squared differences.");
    m.def("ssd_backward", &bind_backward, py::arg("shape"), py::arg("per_image"), py::arg("x"),
          py::arg("y"), py::arg("weight"), py::arg("upstream"), py::arg("grad_x"),
          py::arg("grad_y"), py::arg("grad_weight"), py::arg("sums"), py::arg("threads"),
          "Their gradients, and the sums themselves.");
}

}  // namespace sosie
