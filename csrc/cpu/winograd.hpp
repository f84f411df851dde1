// SPDX-License-Identifier: Apache-2.0
//
// Whole calls of the winograd family: tasks in parallel.
#pragma once
#include "winograd-call.hpp"

namespace sosie {

// Numbers in packed weights, for one set of channels out or two; and in what gradients are summed
// in. The latter have a row of channels out per range for those of the bias.
int64_t winograd_packed_size(int64_t inputs, int64_t outputs, int64_t more_outputs);
int64_t winograd_gradient_size(int64_t inputs, int64_t outputs);
int64_t winograd_gradient_ranges(int64_t outputs);

void winograd_pack(const WinogradPack& call, int threads);
void winograd_forward(const WinogradForward& call, int threads);
void winograd_lstm_forward(const WinogradForward& call, int threads);
void winograd_gradient(const WinogradGradient& call, int threads);
void winograd_finish(const WinogradFinish& call, int threads);

}  // namespace sosie
