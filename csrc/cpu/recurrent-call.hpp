// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of the recurrent family are called with: the gates of one step of a
// convolutional LSTM or GRU, between one convolution and the next.
//
// Arrays are rows. A row of an array with k gates holds k runs of `length` numbers, one per gate,
// and the next row follows. Channels first, a row is an image and a run is its channels; channels
// last, a row is a pixel. So both are walked as they lie.
#pragma once
#include "kernels.hpp"

namespace sosie {

struct GateActivations {
    bool hard_sigmoid, hard_tanh;
    double slope;  // of the hard sigmoid, slope x + 1/2 within [0, 1]
};

struct GateRows {
    int64_t rows, length;
    // Of gates, of what goes into them and of h: f16, bf16, or what is computed in. The cell state
    // is of the latter always.
    DType dtype;
    GateActivations activations;
};

// Comments give the number of gates of an array; nullptr where it may be absent.
struct LSTMForward {
    GateRows shape;
    const void* inputs;     // 4: i, f, g, o before their activations
    const void* recurrent;  // 4, added to them; or nullptr
    const void* cell;       // 1
    // Weights of the cell in i, f and o: three arrays of `peephole_rows` rows, which repeat; or
    // nullptr.
    const void* peephole;
    int64_t peephole_rows;
    void* gates;     // 4; or nullptr
    void* hidden;    // 1
    void* new_cell;  // 1; may be `cell`
    bool stream;     // gates are written past the caches
};

struct LSTMBackward {
    GateRows shape;
    const void* gates;           // 4
    const void* cell;            // 1, before the step
    const void* new_cell;        // 1, after it
    const void* grad_hidden;     // 1, or nullptr
    const void* grad_recurrent;  // 1, added to it; or nullptr
    const void* peephole;
    int64_t peephole_rows;
    void* grad_cell;   // 1: of new_cell, overwritten by that of cell
    void* grad_gates;  // 4, before their activations
};

struct GRUForward {
    GateRows shape;
    const void* inputs;     // 3: r, z, n before their activations
    const void* recurrent;  // see GRUKernels
    const void* hidden;     // 1
    void* gates;            // 3
    void* candidate;        // 1; or nullptr
    void* new_hidden;       // 1
};

struct GRUBackward {
    GateRows shape;
    const void* gates;           // 3
    const void* candidate;       // 1
    const void* hidden;          // 1, before the step
    const void* grad_hidden;     // 1, or nullptr
    const void* grad_recurrent;  // 1, added to it; or nullptr
    // 1, of the computing type: added to grad_hidden, and overwritten by what is added at the step
    // before.
    void* carry;
    void* grad_inputs;  // see GRUKernels
    void* grad_recurrent_out;
};

// Nothing is added up.
struct GatePartial {};

// A step of a GRU whose linear map comes before the reset is one kernel: `recurrent` has 3 gates,
// `candidate` is a copy of the last; the gradients have 3 gates each.
//
// One that resets first has a convolution in the middle and takes two kernels. Forward, `reset`
// makes r and z out of a `recurrent` of 2 gates and writes r h to `candidate`; `update` makes n and
// the new state out of a `recurrent` of 1. Backward, `update` writes the gradient of n to
// `grad_inputs` (1 gate) and that of z to the second gate of `grad_recurrent_out` (2 gates);
// `reset`, given that of r h in `grad_recurrent`, writes that of r to the first.
struct RecurrentKernels {
    TaskKernel<LSTMForward, GatePartial> lstm_forward[2];  // [0] computes in float, [1] in double
    TaskKernel<LSTMBackward, GatePartial> lstm_backward[2];
    TaskKernel<GRUForward, GatePartial> gru_forward[2], gru_reset_forward[2], gru_update_forward[2];
    TaskKernel<GRUBackward, GatePartial> gru_backward[2], gru_reset_backward[2],
        gru_update_backward[2];
    // Functions alone, for tests: count numbers from x to y.
    void (*sigmoid[2])(const void* x, void* y, int64_t count);
    void (*tanh[2])(const void* x, void* y, int64_t count);
};

}  // namespace sosie
