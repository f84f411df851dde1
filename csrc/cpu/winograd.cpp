// SPDX-License-Identifier: Apache-2.0
#include "winograd.hpp"

#include "dispatch.hpp"
#include "recurrent.hpp"
#include "tasks.hpp"

namespace sosie {
namespace {

// For weights of so many channels out: the kernels of long vectors where those fill their panels.
// Weights are read by the kernels that packed them; sums of gradients lie the same for all.
const WinogradKernels& suited_to(int64_t outputs, int64_t more_outputs = 0) {
    const WinogradKernels& roomy = *active_roomy().winograd;
    return outputs % roomy.panel == 0 && more_outputs == 0 ? roomy : *active().winograd;
}

}  // namespace

int64_t winograd_packed_size(int64_t inputs, int64_t outputs, int64_t more_outputs) {
    return active().winograd->packed_size(inputs, outputs, more_outputs);
}

int64_t winograd_gradient_size(int64_t inputs, int64_t outputs) {
    return active().winograd->gradient_size(inputs, outputs);
}

int64_t winograd_gradient_ranges(int64_t outputs) {
    return active().winograd->gradient_ranges(outputs);
}

void winograd_pack(const WinogradPack& call, int threads) {
    const auto [outputs, more] = call.packed.outputs;
    run_tasks(suited_to(outputs, more).pack, call, threads);
}

void winograd_forward(const WinogradForward& call, int threads) {
    const auto [outputs, more] = call.weights.outputs;
    run_tasks(suited_to(outputs, more).forward, call, threads);
}

void winograd_lstm_forward(const WinogradForward& call, int threads) {
    LSTMForward step = *call.step;
    step.stream = streams_gates(step);
    WinogradForward with_step = call;
    with_step.step = &step;
    winograd_forward(with_step, threads);
}

void winograd_gradient(const WinogradGradient& call, int threads) {
    run_tasks(suited_to(call.upstream.channels).gradient, call, threads);
}

void winograd_finish(const WinogradFinish& call, int threads) {
    run_tasks(active().winograd->finish, call, threads);
}

}  // namespace sosie
