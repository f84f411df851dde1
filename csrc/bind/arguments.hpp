// SPDX-License-Identifier: Apache-2.0
//
// Python arguments to the kernels' structs. An array arrives as (address, dtype code, strides,
// strides are in bytes); shapes and strides have four axes (batch, channels, height, width) or
// five, with depth in the middle.
#pragma once
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "../cpu/kernels.hpp"

namespace sosie {

namespace py = pybind11;

inline void five_axes(const py::tuple& sizes, int64_t missing, int64_t* out) {
    const size_t axes = sizes.size();
    if (axes != 4 && axes != 5)
        throw std::invalid_argument("expected 4 or 5 axes, got " + std::to_string(axes));
    size_t from = 0;
    for (size_t axis = 0; axis < 5; ++axis)
        out[axis] = axis == 2 && axes == 4 ? missing : sizes[from++].cast<int64_t>();
}

inline int64_t item_size(DType dtype) {
    switch (dtype) {
        case DType::u8: return 1;
        case DType::u16:
        case DType::f16:
        case DType::bf16: return 2;
        case DType::f32: return 4;
        case DType::f64: return 8;
    }
    throw std::invalid_argument("unknown dtype code " + std::to_string(int(dtype)));
}

inline Array array_argument(const py::handle& argument) {
    Array array{};
    if (argument.is_none()) return array;
    const auto parts = py::reinterpret_borrow<py::tuple>(argument);
    array.data = reinterpret_cast<void*>(parts[0].cast<std::uintptr_t>());
    array.dtype = DType(parts[1].cast<int>());
    five_axes(py::reinterpret_borrow<py::tuple>(parts[2]), 0, array.strides);
    const int64_t unit = item_size(array.dtype);
    if (parts[3].cast<bool>())
        for (int64_t& stride : array.strides) stride /= unit;
    return array;
}

inline double* values_argument(std::uintptr_t address) {
    return reinterpret_cast<double*>(address);
}

void register_distance(py::module_& module);
void register_paired(py::module_& module);
void register_recurrent(py::module_& module);
void register_ssim(py::module_& module);
void register_ssd(py::module_& module);
void register_template(py::module_& module);
void register_winograd(py::module_& module);

}  // namespace sosie
