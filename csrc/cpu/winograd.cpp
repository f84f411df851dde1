// SPDX-License-Identifier: Apache-2.0
#include "winograd.hpp"

#include "dispatch.hpp"
#include "recurrent.hpp"
#include "tasks.hpp"

namespace sosie {

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
    run_tasks(active().winograd->pack, call, threads);
}

void winograd_forward(const WinogradForward& call, int threads) {
    run_tasks(active().winograd->forward, call, threads);
}

void winograd_lstm_forward(const WinogradForward& call, int threads) {
    LSTMForward step = *call.step;
    step.stream = streams_gates(step);
    WinogradForward with_step = call;
    with_step.step = &step;
    winograd_forward(with_step, threads);
}

void winograd_gradient(const WinogradGradient& call, int threads) {
    run_tasks(active().winograd->gradient, call, threads);
}

void winograd_finish(const WinogradFinish& call, int threads) {
    run_tasks(active().winograd->finish, call, threads);
}

}  // namespace sosie
