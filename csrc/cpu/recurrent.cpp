// SPDX-License-Identifier: Apache-2.0
#include "recurrent.hpp"

#include "dispatch.hpp"
#include "tasks.hpp"

namespace sosie {
namespace {

size_t precision(const GateRows& shape) {
    return shape.dtype == DType::f64 ? 1 : 0;
}

// Gates are read again in the backward pass, after all other steps: what is larger than this is in
// no cache by then, and written past them.
constexpr int64_t kStreamedNumbers = 1 << 18;

}  // namespace

bool streams_gates(const LSTMForward& call) {
    return call.gates && call.shape.rows * call.shape.length >= kStreamedNumbers;
}

void lstm_forward(LSTMForward call, int threads) {
    call.stream = streams_gates(call);
    run_tasks(active_roomy().recurrent->lstm_forward[precision(call.shape)], call, threads);
}

void lstm_backward(const LSTMBackward& call, int threads) {
    run_tasks(active_roomy().recurrent->lstm_backward[precision(call.shape)], call, threads);
}

void gru_forward(const GRUForward& call, GRUPart part, int threads) {
    const RecurrentKernels& kernels = *active_roomy().recurrent;
    const auto& chosen = part == GRUPart::whole   ? kernels.gru_forward
                         : part == GRUPart::reset ? kernels.gru_reset_forward
                                                  : kernels.gru_update_forward;
    run_tasks(chosen[precision(call.shape)], call, threads);
}

void gru_backward(const GRUBackward& call, GRUPart part, int threads) {
    const RecurrentKernels& kernels = *active_roomy().recurrent;
    const auto& chosen = part == GRUPart::whole   ? kernels.gru_backward
                         : part == GRUPart::reset ? kernels.gru_reset_backward
                                                  : kernels.gru_update_backward;
    run_tasks(chosen[precision(call.shape)], call, threads);
}

}  // namespace sosie
