// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../cpu/dispatch.hpp"
#include "../cpu/pages.hpp"
#include "../cpu/parallel.hpp"
#include "arguments.hpp"

namespace {

namespace py = pybind11;
using Released = py::call_guard<py::gil_scoped_release>;

// Where an array's memory begins, by the buffer protocol: a tenth of the time that building NumPy's
// __array_interface__ takes, which a call on a small image would notice.
std::uintptr_t address(const py::object& array) {
    Py_buffer view;
    if (PyObject_GetBuffer(array.ptr(), &view, PyBUF_STRIDES) != 0) throw py::error_already_set();
    const auto found = reinterpret_cast<std::uintptr_t>(view.buf);
    PyBuffer_Release(&view);
    return found;
}

void register_machine(py::module_& m) {
    m.def("address", &address, py::arg("array"), "Address of the first element.");
    m.def("isa", [] { return std::string(sosie::active().name); }, "Instruction set in use.");
    m.def("compiled_isas", &sosie::compiled_isas, "Instruction sets built in, worst first.");
    m.def("supported_isas", &sosie::supported_isas, "Those of them that this machine runs.");
    m.def("select_isa", &sosie::select, py::arg("name"),
          "Use another instruction set from now on.");
    m.def("lanes", [] { return sosie::active().lanes_f32; }, "float32 numbers per vector.");
    m.def(
        "use_team",
        [](std::uintptr_t address) { sosie::use_team(reinterpret_cast<sosie::Team>(address)); },
        py::arg("address"), "Run on the threads of `_openmp.team()` instead of our own.");
    m.def("use_large_pages", &sosie::use_large_pages, py::arg("address"), py::arg("size"),
          "Ask for large pages under memory that is about to be written.");
    m.def("has_team", &sosie::has_team, "Whether such threads are in use.");
    m.def(
        "fma_peak", [](int64_t iterations) { return sosie::active().fma_peak(iterations); },
        py::arg("iterations"), Released(), "Multiply and add in registers; operations done.");
    m.def(
        "read_peak",
        [](std::uintptr_t address, int64_t count) {
            return sosie::active().read_peak(reinterpret_cast<const float*>(address), count);
        },
        py::arg("address"), py::arg("count"), Released(), "Sum of float32 numbers, read once.");
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used(),
                py::multiple_interpreters::per_interpreter_gil()) {
    m.doc() = "Compiled kernels. Addresses, sizes, strides; no array library.";
    register_machine(m);
    sosie::register_distance(m);
    sosie::register_paired(m);
    sosie::register_recurrent(m);
    sosie::register_ssim(m);
    sosie::register_ssd(m);
    sosie::register_template(m);
    sosie::register_winograd(m);
}
