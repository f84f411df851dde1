// SPDX-License-Identifier: Apache-2.0
//
// The module _cuda. It imports on machines without a driver, and says there that it has no device.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string_view>

#include "../cuda/launch.hpp"

namespace py = pybind11;

namespace {

using Sizes = std::array<uint32_t, 3>;

void bind_launch(const std::string& kernel, const Sizes& grid, const Sizes& block,
                 size_t shared_bytes, const py::bytes& parameters, int device,
                 std::uintptr_t stream, std::uintptr_t clear, size_t clear_bytes) {
    const std::string_view bytes = parameters;
    const py::gil_scoped_release released;
    sosie::launch({kernel.c_str(),
                   {grid[0], grid[1], grid[2]},
                   {block[0], block[1], block[2]},
                   shared_bytes,
                   bytes.data(),
                   bytes.size(),
                   device,
                   stream,
                   clear,
                   clear_bytes});
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
