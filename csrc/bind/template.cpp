// SPDX-License-Identifier: Apache-2.0
#include "../cpu/template.hpp"

#include <pybind11/pybind11.h>

#include "arguments.hpp"

namespace sosie {
namespace {

void bind_search(const py::tuple& shape, const py::tuple& template_shape, const py::tuple& image,
                 std::uintptr_t values, std::uintptr_t weights, const py::tuple& map, int threads) {
    TemplateSearch call{};
    five_axes(shape, 1, call.shape);
    call.height = template_shape[0].cast<int64_t>();
    call.width = template_shape[1].cast<int64_t>();
    call.image = array_argument(image);
    call.values = reinterpret_cast<const void*>(values);
    call.weights = reinterpret_cast<const void*>(weights);
    call.map = array_argument(map);
    const py::gil_scoped_release released;
    template_search(call, threads);
}

}  // namespace

void register_template(py::module_& m) {
    m.def("template_search", &bind_search, py::arg("shape"), py::arg("template_shape"),
          py::arg("image"), py::arg("values"), py::arg("weights"), py::arg("map"),
          py::arg("threads"), "Sliding weighted sum of squared differences.");
}

}  // namespace sosie
