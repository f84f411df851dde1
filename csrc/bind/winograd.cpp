// SPDX-License-Identifier: Apache-2.0
#include "../cpu/winograd.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>

#include "arguments.hpp"

namespace sosie {
namespace {

using Address = std::uintptr_t;                       // 0: the array is absent
using Shape = std::tuple<int64_t, int64_t, int64_t>;  // batch, height, width
using Image = std::tuple<Address, int64_t>;  // of a dense array channels last, and its channels
using Images = std::tuple<Image, Image>;
// address, inputs, outputs, more outputs
using Packed = std::tuple<Address, int64_t, int64_t, int64_t>;
// rows, length, slope of the hard sigmoid or 0 for the smooth one, whether tanh is hard
using Gates = std::tuple<int64_t, int64_t, double, bool>;
// cell, peephole, gates, hidden, new cell
using Arrays = std::tuple<Address, Address, Address, Address, Address>;

float* numbers(Address address) {
    return reinterpret_cast<float*>(address);
}

ImageShape image_shape(const Shape& shape) {
    const auto [batch, height, width] = shape;
    return {batch, height, width};
}

ImageArray image(const Image& given) {
    return {numbers(std::get<0>(given)), std::get<1>(given)};
}

PackedWeights packed_weights(const Packed& given) {
    const auto [address, inputs, outputs, more] = given;
    return {numbers(address), inputs, {outputs, more}};
}

void bind_pack(Address weight, const Packed& packed, int threads) {
    const WinogradPack call{numbers(weight), packed_weights(packed)};
    const py::gil_scoped_release released;
    winograd_pack(call, threads);
}

void bind_forward(const Shape& shape, const Packed& packed, Address bias, const Images& sources,
                  const Images& targets, int threads) {
    const WinogradForward call{image_shape(shape),
                               packed_weights(packed),
                               numbers(bias),
                               {image(std::get<0>(sources)), image(std::get<1>(sources))},
                               {image(std::get<0>(targets)), image(std::get<1>(targets))},
                               nullptr};
    const py::gil_scoped_release released;
    winograd_forward(call, threads);
}

void bind_lstm(const Shape& shape, const Packed& packed, Address bias, const Images& sources,
               const Gates& gates, const Arrays& arrays, int64_t peephole_rows, int threads) {
    const auto [rows, length, slope, hard_tanh] = gates;
    const auto [cell, peephole, kept, hidden, new_cell] = arrays;
    const LSTMForward step{{rows, length, DType::f32, {slope != 0.0, hard_tanh, slope}},
                           nullptr,
                           nullptr,
                           numbers(cell),
                           numbers(peephole),
                           peephole_rows,
                           numbers(kept),
                           numbers(hidden),
                           numbers(new_cell),
                           false};
    const WinogradForward call{image_shape(shape),
                               packed_weights(packed),
                               numbers(bias),
                               {image(std::get<0>(sources)), image(std::get<1>(sources))},
                               {},
                               &step};
    const py::gil_scoped_release released;
    winograd_lstm_forward(call, threads);
}

void bind_gradient(const Shape& shape, const Images& sources, const Image& upstream, int64_t inputs,
                   Address sums, Address bias, int threads) {
    const WinogradGradient call{
        image_shape(shape), {image(std::get<0>(sources)), image(std::get<1>(sources))},
        image(upstream),    inputs,
        numbers(sums),      numbers(bias)};
    const py::gil_scoped_release released;
    winograd_gradient(call, threads);
}

void bind_finish(int64_t inputs, int64_t outputs, Address sums, Address bias_sums, Address weight,
                 Address bias, int threads) {
    const WinogradFinish call{inputs,          outputs,      numbers(sums), numbers(bias_sums),
                              numbers(weight), numbers(bias)};
    const py::gil_scoped_release released;
    winograd_finish(call, threads);
}

}  // namespace

void register_winograd(py::module_& m) {
    m.def("winograd_packed_size", &winograd_packed_size, py::arg("inputs"), py::arg("outputs"),
          py::arg("more_outputs"), "Numbers in packed weights.");
    m.def("winograd_gradient_size", &winograd_gradient_size, py::arg("inputs"), py::arg("outputs"),
          "Numbers in what gradients of weights are summed in.");
    m.def("winograd_gradient_ranges", &winograd_gradient_ranges, py::arg("outputs"),
          "Rows in what those of a bias are summed in.");
    m.def("winograd_pack", &bind_pack, py::arg("weight"), py::arg("packed"), py::arg("threads"),
          "Weights (outputs, inputs, 3, 3), transformed.");
    m.def("winograd_forward", &bind_forward, py::arg("shape"), py::arg("packed"), py::arg("bias"),
          py::arg("sources"), py::arg("targets"), py::arg("threads"), "A convolution.");
    m.def("winograd_lstm_forward", &bind_lstm, py::arg("shape"), py::arg("packed"), py::arg("bias"),
          py::arg("sources"), py::arg("gates"), py::arg("arrays"), py::arg("peephole_rows"),
          py::arg("threads"), "A convolution and the step of an LSTM behind it.");
    m.def("winograd_gradient", &bind_gradient, py::arg("shape"), py::arg("sources"),
          py::arg("upstream"), py::arg("inputs"), py::arg("sums"), py::arg("bias"),
          py::arg("threads"), "Add to the gradients of weights and bias, transformed.");
    m.def("winograd_finish", &bind_finish, py::arg("inputs"), py::arg("outputs"), py::arg("sums"),
          py::arg("bias_sums"), py::arg("weight"), py::arg("bias"), py::arg("threads"),
          "Those gradients as they are.");
}

}  // namespace sosie
