// SPDX-License-Identifier: Apache-2.0
#include "../cpu/recurrent.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "arguments.hpp"

namespace sosie {
namespace {

using Address = std::uintptr_t;  // 0: the array is absent

template <size_t Count>
std::array<void*, Count> pointers(const std::vector<Address>& addresses) {
    if (addresses.size() != Count)
        throw std::invalid_argument("expected " + std::to_string(Count) + " arrays, got " +
                                    std::to_string(addresses.size()));
    std::array<void*, Count> found;
    for (size_t i = 0; i < Count; ++i) found[i] = reinterpret_cast<void*>(addresses[i]);
    return found;
}

// rows, length, dtype code, slope of the hard sigmoid or 0 for the smooth one, whether tanh is hard
using Shape = std::tuple<int64_t, int64_t, int, double, bool>;

GateRows gate_rows(const Shape& shape) {
    const auto [rows, length, dtype, slope, hard_tanh] = shape;
    return {rows, length, DType(dtype), {slope != 0.0, hard_tanh, slope}};
}

void bind_lstm_forward(const Shape& shape, const std::vector<Address>& arrays,
                       int64_t peephole_rows, int threads) {
    const auto [inputs, recurrent, cell, peephole, gates, hidden, new_cell] = pointers<7>(arrays);
    const LSTMForward call{gate_rows(shape), inputs, recurrent, cell,     peephole,
                           peephole_rows,    gates,  hidden,    new_cell, false};
    const py::gil_scoped_release released;
    lstm_forward(call, threads);
}

void bind_lstm_backward(const Shape& shape, const std::vector<Address>& arrays,
                        int64_t peephole_rows, int threads) {
    const auto [gates, cell, new_cell, grad_hidden, grad_recurrent, peephole, grad_cell,
                grad_gates] = pointers<8>(arrays);
    const LSTMBackward call{gate_rows(shape), gates,    cell,          new_cell,  grad_hidden,
                            grad_recurrent,   peephole, peephole_rows, grad_cell, grad_gates};
    const py::gil_scoped_release released;
    lstm_backward(call, threads);
}

void bind_gru_forward(const Shape& shape, int part, const std::vector<Address>& arrays,
                      int threads) {
    const auto [inputs, recurrent, hidden, gates, candidate, new_hidden] = pointers<6>(arrays);
    const GRUForward call{gate_rows(shape), inputs,    recurrent, hidden, gates,
                          candidate,        new_hidden};
    const py::gil_scoped_release released;
    gru_forward(call, GRUPart(part), threads);
}

void bind_gru_backward(const Shape& shape, int part, const std::vector<Address>& arrays,
                       int threads) {
    const auto [gates, candidate, hidden, grad_hidden, grad_recurrent, carry, grad_inputs,
                grad_recurrent_out] = pointers<8>(arrays);
    const GRUBackward call{gate_rows(shape),  gates,          candidate, hidden,
                           grad_hidden,       grad_recurrent, carry,     grad_inputs,
                           grad_recurrent_out};
    const py::gil_scoped_release released;
    gru_backward(call, GRUPart(part), threads);
}

}  // namespace

void register_recurrent(py::module_& m) {
    m.def("lstm_forward", &bind_lstm_forward, py::arg("shape"), py::arg("arrays"),
          py::arg("peephole_rows"), py::arg("threads"), "Gates and new state of an LSTM's step.");
    m.def("lstm_backward", &bind_lstm_backward, py::arg("shape"), py::arg("arrays"),
          py::arg("peephole_rows"), py::arg("threads"), "Their gradients.");
    m.def("gru_forward", &bind_gru_forward, py::arg("shape"), py::arg("part"), py::arg("arrays"),
          py::arg("threads"), "Gates and new state of a GRU's step, or a part of them.");
    m.def("gru_backward", &bind_gru_backward, py::arg("shape"), py::arg("part"), py::arg("arrays"),
          py::arg("threads"), "Their gradients.");
}

}  // namespace sosie
