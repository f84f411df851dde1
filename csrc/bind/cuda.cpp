// SPDX-License-Identifier: Apache-2.0
//
// The module _cuda. It imports on machines without a driver, and says there that it has no device.
#include <pybind11/pybind11.h>

#include <string>
#include <string_view>

#include "../cuda/launch.hpp"

namespace py = pybind11;

namespace {

// (x, y, z)
void copy_sizes(const py::tuple& sizes, uint32_t (&to)[3]) {
    if (sizes.size() != 3)
        throw py::value_error("expected 3 sizes, got " + std::to_string(sizes.size()));
    for (size_t axis = 0; axis < 3; ++axis) to[axis] = sizes[axis].cast<uint32_t>();
}

void bind_launch(const std::string& kernel, const py::tuple& grid, const py::tuple& block,
                 size_t shared_bytes, const py::bytes& parameters, int device,
                 std::uintptr_t stream, std::uintptr_t clear, size_t clear_bytes) {
    const std::string_view bytes = parameters;
    sosie::Launch call{};
    call.kernel = kernel.c_str();
    copy_sizes(grid, call.grid);
    copy_sizes(block, call.block);
    call.shared_bytes = shared_bytes;
    call.parameters = bytes.data();
    call.parameter_bytes = bytes.size();
    call.device = device;
    call.stream = stream;
    call.clear = clear;
    call.clear_bytes = clear_bytes;
    const py::gil_scoped_release released;
    sosie::launch(call);
}

}  // namespace

PYBIND11_MODULE(_cuda, m, py::mod_gil_not_used()) {
    m.doc() = "Kernels for CUDA devices.";
    m.def("launch", &bind_launch, py::arg("kernel"), py::arg("grid"), py::arg("block"),
          py::arg("shared_bytes"), py::arg("parameters"), py::arg("device"), py::arg("stream"),
          py::arg("clear"), py::arg("clear_bytes"),
          "Launch the kernel of that name with a struct, given as bytes, on a stream.");
    m.def("device_count", &sosie::device_count, "CUDA devices here; 0 without a driver.");
    m.def("unusable_reason", &sosie::unusable_reason, "Why there is no device, or an empty text.");
    m.def("multiprocessors", &sosie::multiprocessors, py::arg("device"),
          "Streaming multiprocessors of a device.");
    m.def("most_shared_bytes", &sosie::most_shared_bytes, py::arg("device"),
          "Dynamic shared memory that a block can have.");
    m.def("built_for", &sosie::built_for, "Compute capabilities this build has kernels for.");
    m.def("toolkit_version", &sosie::toolkit_version, "1000 major + 10 minor.");
}
