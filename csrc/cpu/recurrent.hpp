// SPDX-License-Identifier: Apache-2.0
//
// Whole calls of the recurrent family: tasks in parallel.
#pragma once
#include "recurrent-call.hpp"

namespace sosie {

// Whether gates of so many numbers are written past the caches.
bool streams_gates(const LSTMForward& call);

void lstm_forward(LSTMForward call, int threads);
void lstm_backward(const LSTMBackward& call, int threads);

// Which part of a step; see RecurrentKernels.
enum class GRUPart : int32_t { whole, reset, update };

void gru_forward(const GRUForward& call, GRUPart part, int threads);
void gru_backward(const GRUBackward& call, GRUPart part, int threads);

}  // namespace sosie
