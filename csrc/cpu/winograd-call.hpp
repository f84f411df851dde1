// SPDX-License-Identifier: Apache-2.0
//
// What the kernels of the winograd family are called with: convolutions of 3 x 3 taps, stride 1,
// zeros around, on images of float32 that lie channels last.
#pragma once
#include "recurrent-call.hpp"

namespace sosie {

struct ImageShape {
    int64_t batch, height, width;
};

// A dense array (batch, height, width, channels).
struct ImageArray {
    float* data;  // nullptr: the array is absent
    int64_t channels;
};

// Weights as the kernels read them. Channels that go in are those of up to two arrays, one after
// the other, and so are channels that come out.
struct PackedWeights {
    float* data;
    int64_t inputs;
    int64_t outputs[2];
};

struct WinogradPack {
    const float* weight;  // (outputs, inputs, 3, 3)
    PackedWeights packed;
};

// A convolution. Of sources and targets the second may be absent; then so are its channels among
// the weights.
struct WinogradForward {
    ImageShape shape;
    PackedWeights weights;
    const float* bias;  // (outputs[0],), or nullptr
    ImageArray sources[2];
    ImageArray targets[2];
    // A step of an LSTM, in place of targets: its gates are computed from each block of results
    // while that is in the caches. `inputs` and `recurrent` are not looked at, rows are pixels.
    const LSTMForward* step;
};

// Sums of an image's products with gradients, still transformed; see winograd-gradient-inl.hpp.
struct WinogradGradient {
    ImageShape shape;
    ImageArray sources[2];
    ImageArray upstream;  // of what came out
    int64_t inputs;       // room for those of both sources
    float* sums;          // added to
    float* bias;          // (ranges, outputs), added to
};

struct WinogradFinish {
    int64_t inputs, outputs;
    const float* sums;
    const float* bias_sums;
    float* weight;  // (outputs, inputs, 3, 3)
    float* bias;    // (outputs,)
};

// Nothing is added up.
struct TilePartial {};

struct WinogradKernels {
    TaskKernel<WinogradPack, TilePartial> pack;
    TaskKernel<WinogradForward, TilePartial> forward;
    TaskKernel<WinogradGradient, TilePartial> gradient;
    TaskKernel<WinogradFinish, TilePartial> finish;
    int64_t panel;  // columns that are computed side by side
    int64_t (*packed_size)(int64_t inputs, int64_t outputs, int64_t more_outputs);
    int64_t (*gradient_ranges)(int64_t outputs);
    int64_t (*gradient_size)(int64_t inputs, int64_t outputs);
};

}  // namespace sosie
