// SPDX-License-Identifier: Apache-2.0
#include "../cpu/paired.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "arguments.hpp"

namespace sosie {
namespace {

// Arrays of a call, all with the same number of axes; those of the results have length 1 along the
// rows' own axis. Where an array has length 1 and others have not, it is broadcast.
struct PairedArguments {
    PairedCall call{};
    std::vector<PairedAxis> axes;

    PairedArguments(int kind, const std::vector<int64_t>& shape, size_t axis, double floor,
                    double replacement)
        : shape_(shape), axis_(axis) {
        call.kind = PairedKind(kind);
        call.length = shape.at(axis);
        call.floor = floor;
        call.replacement = replacement;
        for (size_t a = 0; a < shape.size(); ++a)
            if (a != axis) axes.push_back({shape[a], {}});
    }

    void set(PairedPlace place, const py::object& argument) {
        if (argument.is_none()) return;
        const auto [own_shape, parts] = argument.cast<std::pair<py::tuple, py::tuple>>();
        const auto strides = parts[2].cast<py::tuple>();
        PairedOperand& operand = call.operands[place];
        operand.data = reinterpret_cast<void*>(parts[0].cast<std::uintptr_t>());
        operand.dtype = DType(parts[1].cast<int>());
        const int64_t unit = parts[3].cast<bool>() ? item_size(operand.dtype) : 1;
        size_t outer = 0;
        for (size_t a = 0; a < shape_.size(); ++a) {
            const bool one = own_shape[a].cast<int64_t>() == 1;
            const int64_t stride = one ? 0 : strides[a].cast<int64_t>() / unit;
            // A row of one element is as dense as can be.
            if (a == axis_)
                operand.step = one && call.length == 1 ? 1 : stride;
            else
                axes[outer++].strides[place] = stride;
        }
    }

  private:
    const std::vector<int64_t>& shape_;
    size_t axis_;
};

void forward(int kind, const std::vector<int64_t>& shape, size_t axis, const py::object& x,
             const py::object& y, const py::object& value, const py::object& norm_x,
             const py::object& norm_y, double floor, double replacement, int threads) {
    PairedArguments arguments(kind, shape, axis, floor, replacement);
    arguments.set(kX, x);
    arguments.set(kY, y);
    arguments.set(kValue, value);
    arguments.set(kNormX, norm_x);
    arguments.set(kNormY, norm_y);
    const py::gil_scoped_release released;
    paired_forward(arguments.call, std::move(arguments.axes), threads);
}

void backward(int kind, const std::vector<int64_t>& shape, size_t axis, const py::object& x,
              const py::object& y, const py::object& value, const py::object& norm_x,
              const py::object& norm_y, const py::object& upstream, const py::object& grad_x,
              const py::object& grad_y, double floor, double replacement, int threads) {
    PairedArguments arguments(kind, shape, axis, floor, replacement);
    arguments.set(kX, x);
    arguments.set(kY, y);
    arguments.set(kValue, value);
    arguments.set(kNormX, norm_x);
    arguments.set(kNormY, norm_y);
    arguments.set(kUpstream, upstream);
    arguments.set(kGradX, grad_x);
    arguments.set(kGradY, grad_y);
    const py::gil_scoped_release released;
    paired_backward(arguments.call, std::move(arguments.axes), threads);
}

}  // namespace

void register_paired(py::module_& m) {
    m.def("paired_forward", &forward, py::arg("kind"), py::arg("shape"), py::arg("axis"),
          py::arg("x"), py::arg("y"), py::arg("value"), py::arg("norm_x"), py::arg("norm_y"),
          py::arg("floor"), py::arg("replacement"), py::arg("threads"),
          "Distances or similarities of paired rows.");
    m.def("paired_backward", &backward, py::arg("kind"), py::arg("shape"), py::arg("axis"),
          py::arg("x"), py::arg("y"), py::arg("value"), py::arg("norm_x"), py::arg("norm_y"),
          py::arg("upstream"), py::arg("grad_x"), py::arg("grad_y"), py::arg("floor"),
          py::arg("replacement"), py::arg("threads"), "Their gradients.");
}

}  // namespace sosie
