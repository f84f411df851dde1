// SPDX-License-Identifier: Apache-2.0
//
// The gates of one step of a convolutional LSTM or GRU between its convolutions, forward and
// backward, in one pass: the formulas of sosie/reference/recurrent.py.
//
// Arrays are rows. A row of an array with k gates holds k runs of `length` numbers, one per gate,
// and the next row follows. Channels first, a row is an image and a run is its channels; channels
// last, a row is a pixel. So both are walked as they lie, and neighbours are read by neighbours.
//
// Memory is the limit: per number of the state in float32, 60 bytes for an LSTM's step (9 numbers
// read, 6 written) and 56 for its gradient. A thread takes four neighbours of a run, reads all that
// it needs in 16-byte packs before it computes, and is done; nothing is read twice.
//
// Accuracy: numbers are computed in float (double), whatever gates and hidden states are stored in,
// and rounded once; the cell state is never narrower. Activations are within 3 units in the last
// place, see activations.cuh. Derivatives come from the values of the activations.
#pragma once
#include "activations.cuh"

namespace sosie {

constexpr int kGateThreads = 256;

// Numbers of a run that a thread takes.
template <class T>
constexpr int kGatePack = sizeof(T) == 8 ? 2 : 4;

struct GateRows {
    long long rows, length;
    double slope;  // of the hard sigmoid
    int pack;      // kGatePack where it divides the length and all arrays begin on a pack, or 1
    int hard_sigmoid, hard_tanh;
};

// Comments give the number of gates of an array; nullptr where it may be absent. Gates, what goes
// into them and h are of the storage type; the cell state is of the computing type always.
struct LSTMForward {
    GateRows shape;
    const void* inputs;     // 4: i, f, g, o before their activations
    const void* recurrent;  // 4, added to them; or nullptr
    const void* cell;       // 1
    // Weights of the cell in i, f and o: three arrays of `peephole_rows` rows, which repeat; or
    // nullptr.
    const void* peephole;
    long long peephole_rows;
    void* gates;     // 4; or nullptr
    void* hidden;    // 1
    void* new_cell;  // 1; may be `cell`
};

struct LSTMBackward {
    GateRows shape;
    const void* gates;           // 4
    const void* cell;            // 1, before the step
    const void* new_cell;        // 1, after it
    const void* grad_hidden;     // 1, or nullptr
    const void* grad_recurrent;  // 1, added to it; or nullptr
    const void* peephole;
    long long peephole_rows;
    void* grad_cell;   // 1: of new_cell, overwritten by that of cell
    void* grad_gates;  // 4, before their activations
};

// A step of a GRU whose linear map comes before the reset is one kernel: `recurrent` has 3 gates,
// `candidate` is a copy of the last; the gradients have 3 gates each.
//
// One that resets first has a convolution in the middle and takes two kernels. Forward, `reset`
// makes r and z out of a `recurrent` of 2 gates and writes r h to `candidate`; `update` makes n and
// the new state out of a `recurrent` of 1. Backward, `update` writes the gradient of n to
// `grad_inputs` (1 gate) and that of z to the second gate of `grad_recurrent_out` (2 gates);
// `reset`, given that of r h in `grad_recurrent`, writes that of r to the first.
struct GRUForward {
    GateRows shape;
    const void* inputs;  // 3: r, z, n before their activations
    const void* recurrent;
    const void* hidden;  // 1
    void* gates;         // 3
    void* candidate;     // 1; or nullptr
    void* new_hidden;    // 1
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
    void* grad_inputs;
    void* grad_recurrent_out;
};

// ------------------------------------------------------------------------------- runs of numbers

// N numbers of the computing type.
template <class C, int N>
struct Numbers {
    C of[N];
};

// Where in its arrays a thread works: a row, and the first of its numbers there.
struct GatePlace {
    long long row, i;
};

template <int N>
__device__ __forceinline__ bool find_place(const GateRows& shape, GatePlace& at) {
    const long long first = ((long long)(blockIdx.x) * kGateThreads + threadIdx.x) * N;
    if (first >= shape.rows * shape.length) return false;
    divide(at.row, at.i, first, shape.length);
    return true;
}

// A thread's numbers in one run of an array with so many gates.
template <class T, int N>
__device__ __forceinline__ Numbers<typename Compute<T>::type, N> load_run(const void* data,
                                                                          const GateRows& shape,
                                                                          const GatePlace& at,
                                                                          int gates, int gate) {
    const T* run = static_cast<const T*>(data) + (at.row * gates + gate) * shape.length + at.i;
    const Pack<T, N> pack = load_pack<T, N>(run);
    Numbers<typename Compute<T>::type, N> numbers;
#pragma unroll
    for (int n = 0; n < N; ++n) numbers.of[n] = to_compute(pack.values[n]);
    return numbers;
}
template <class T, int N, class C>
__device__ __forceinline__ void store_run(void* data, const GateRows& shape, const GatePlace& at,
                                          int gates, int gate, const Numbers<C, N>& numbers) {
    Pack<T, N> pack;
#pragma unroll
    for (int n = 0; n < N; ++n) pack.values[n] = from_compute<T>(numbers.of[n]);
    store_pack(static_cast<T*>(data) + (at.row * gates + gate) * shape.length + at.i, pack);
}

// The same of an array with one gate, which may be absent: then the numbers are 0.
template <class T, int N>
__device__ __forceinline__ Numbers<typename Compute<T>::type, N> load_state(const void* data,
                                                                            const GateRows& shape,
                                                                            const GatePlace& at) {
    if (!data) return {};
    return load_run<T, N>(data, shape, at, 1, 0);
}

template <class C, int N>
__device__ __forceinline__ Numbers<C, N> operator+(const Numbers<C, N>& a, const Numbers<C, N>& b) {
    Numbers<C, N> sum;
#pragma unroll
    for (int n = 0; n < N; ++n) sum.of[n] = a.of[n] + b.of[n];
    return sum;
}

// Weights of the cell in i, f and o.
template <class C, int N>
struct Peepholes {
    Numbers<C, N> of[3];
    bool exist;

    // What they add to a gate; nothing where there are none, whatever the cell is.
    __device__ __forceinline__ C times(int gate, int n, C cell) const {
        return exist ? of[gate].of[n] * cell : C(0);
    }
};
template <class C, int N>
__device__ __forceinline__ Peepholes<C, N> load_peepholes(const void* data, long long rows,
                                                          const GateRows& shape,
                                                          const GatePlace& at) {
    Peepholes<C, N> holes = {};
    if (!data) return holes;
    holes.exist = true;
    GatePlace mine = {0, at.i};
    if (rows > 1) {
        long long turns;
        divide(turns, mine.row, at.row, rows);
    }
#pragma unroll
    for (int gate = 0; gate < 3; ++gate) {
        const GatePlace place = {gate * rows + mine.row, mine.i};
        holes.of[gate] = load_run<C, N>(data, shape, place, 1, 0);
    }
    return holes;
}

template <class C, bool Smooth>
__device__ __forceinline__ Activations<C, Smooth> activations_of(const GateRows& shape) {
    return {shape.hard_sigmoid != 0, shape.hard_tanh != 0, C(shape.slope)};
}

// ------------------------------------------------------------------------------------------- LSTM

template <class T, int N, bool Smooth>
__device__ __forceinline__ void lstm_forward_pack(const LSTMForward& call) {
    typedef typename Compute<T>::type C;
    const GateRows& shape = call.shape;
    const auto act = activations_of<C, Smooth>(shape);
    GatePlace at;
    if (!find_place<N>(shape, at)) return;
    Numbers<C, N> a[4], recurrent[4] = {};
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) a[gate] = load_run<T, N>(call.inputs, shape, at, 4, gate);
    if (call.recurrent)
#pragma unroll
        for (int gate = 0; gate < 4; ++gate)
            recurrent[gate] = load_run<T, N>(call.recurrent, shape, at, 4, gate);
    const Numbers<C, N> cell = load_state<C, N>(call.cell, shape, at);
    const Peepholes<C, N> holes =
        load_peepholes<C, N>(call.peephole, call.peephole_rows, shape, at);
    Numbers<C, N> hidden, new_cell;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const C c = cell.of[n];
        const C i = act.gate(a[0].of[n] + recurrent[0].of[n] + holes.times(0, n, c));
        const C f = act.gate(a[1].of[n] + recurrent[1].of[n] + holes.times(1, n, c));
        const C g = act.value(a[2].of[n] + recurrent[2].of[n]);
        const C next = f * c + i * g;
        const C o = act.gate(a[3].of[n] + recurrent[3].of[n] + holes.times(2, n, next));
        a[0].of[n] = i;
        a[1].of[n] = f;
        a[2].of[n] = g;
        a[3].of[n] = o;
        new_cell.of[n] = next;
        hidden.of[n] = o * act.value(next);
    }
    store_run<C, N>(call.new_cell, shape, at, 1, 0, new_cell);
    store_run<T, N>(call.hidden, shape, at, 1, 0, hidden);
    if (!call.gates) return;
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) store_run<T, N>(call.gates, shape, at, 4, gate, a[gate]);
}

template <class T, bool Smooth>
__global__ void __launch_bounds__(kGateThreads, 3) lstm_forward(const LSTMForward call) {
    if (call.shape.pack > 1)
        lstm_forward_pack<T, kGatePack<T>, Smooth>(call);
    else
        lstm_forward_pack<T, 1, Smooth>(call);
}

template <class T, int N, bool Smooth>
__device__ __forceinline__ void lstm_backward_pack(const LSTMBackward& call) {
    typedef typename Compute<T>::type C;
    const GateRows& shape = call.shape;
    const auto act = activations_of<C, Smooth>(shape);
    GatePlace at;
    if (!find_place<N>(shape, at)) return;
    Numbers<C, N> gates[4];
#pragma unroll
    for (int gate = 0; gate < 4; ++gate)
        gates[gate] = load_run<T, N>(call.gates, shape, at, 4, gate);
    const Numbers<C, N> cell = load_state<C, N>(call.cell, shape, at);
    const Numbers<C, N> new_cell = load_state<C, N>(call.new_cell, shape, at);
    const Numbers<C, N> grad_hidden = load_state<T, N>(call.grad_hidden, shape, at) +
                                      load_state<T, N>(call.grad_recurrent, shape, at);
    Numbers<C, N> grad_cell = load_state<C, N>(call.grad_cell, shape, at);
    const Peepholes<C, N> holes =
        load_peepholes<C, N>(call.peephole, call.peephole_rows, shape, at);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const C i = gates[0].of[n], f = gates[1].of[n], g = gates[2].of[n], o = gates[3].of[n];
        const C t = act.value(new_cell.of[n]), dh = grad_hidden.of[n];
        const C d_o = dh * t * act.gate_slope(o);
        const C dc = grad_cell.of[n] + dh * o * act.value_slope(t) + holes.times(2, n, d_o);
        const C d_i = dc * g * act.gate_slope(i);
        const C d_f = dc * cell.of[n] * act.gate_slope(f);
        gates[0].of[n] = d_i;
        gates[1].of[n] = d_f;
        gates[2].of[n] = dc * i * act.value_slope(g);
        gates[3].of[n] = d_o;
        grad_cell.of[n] = dc * f + holes.times(0, n, d_i) + holes.times(1, n, d_f);
    }
#pragma unroll
    for (int gate = 0; gate < 4; ++gate)
        store_run<T, N>(call.grad_gates, shape, at, 4, gate, gates[gate]);
    store_run<C, N>(call.grad_cell, shape, at, 1, 0, grad_cell);
}

template <class T, bool Smooth>
__global__ void __launch_bounds__(kGateThreads, 3) lstm_backward(const LSTMBackward call) {
    if (call.shape.pack > 1)
        lstm_backward_pack<T, kGatePack<T>, Smooth>(call);
    else
        lstm_backward_pack<T, 1, Smooth>(call);
}

// -------------------------------------------------------------------------------------------- GRU

template <class T, int N, bool Smooth>
__device__ __forceinline__ void gru_forward_pack(const GRUForward& call) {
    typedef typename Compute<T>::type C;
    const GateRows& shape = call.shape;
    const auto act = activations_of<C, Smooth>(shape);
    GatePlace at;
    if (!find_place<N>(shape, at)) return;
    Numbers<C, N> a[3], u[3];
#pragma unroll
    for (int gate = 0; gate < 3; ++gate) {
        a[gate] = load_run<T, N>(call.inputs, shape, at, 3, gate);
        u[gate] = load_run<T, N>(call.recurrent, shape, at, 3, gate);
    }
    const Numbers<C, N> hidden = load_state<T, N>(call.hidden, shape, at);
    Numbers<C, N> new_hidden;
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const C r = act.gate(a[0].of[n] + u[0].of[n]), z = act.gate(a[1].of[n] + u[1].of[n]);
        const C candidate = act.value(a[2].of[n] + r * u[2].of[n]);
        new_hidden.of[n] = candidate + z * (hidden.of[n] - candidate);
        a[0].of[n] = r;
        a[1].of[n] = z;
        a[2].of[n] = candidate;
    }
    store_run<T, N>(call.new_hidden, shape, at, 1, 0, new_hidden);
    if (call.candidate) store_run<T, N>(call.candidate, shape, at, 1, 0, u[2]);
#pragma unroll
    for (int gate = 0; gate < 3; ++gate) store_run<T, N>(call.gates, shape, at, 3, gate, a[gate]);
}

template <class T, bool Smooth>
__global__ void __launch_bounds__(kGateThreads, 3) gru_forward(const GRUForward call) {
    if (call.shape.pack > 1)
        gru_forward_pack<T, kGatePack<T>, Smooth>(call);
    else
        gru_forward_pack<T, 1, Smooth>(call);
}

template <class T, int N, bool Smooth>
__device__ __forceinline__ void gru_reset_forward_pack(const GRUForward& call) {
    typedef typename Compute<T>::type C;
    const GateRows& shape = call.shape;
    const auto act = activations_of<C, Smooth>(shape);
    GatePlace at;
    if (!find_place<N>(shape, at)) return;
    Numbers<C, N> a[2];
#pragma unroll
    for (int gate = 0; gate < 2; ++gate)
        a[gate] = load_run<T, N>(call.inputs, shape, at, 3, gate) +
                  load_run<T, N>(call.recurrent, shape, at, 2, gate);
    Numbers<C, N> hidden = load_state<T, N>(call.hidden, shape, at);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        a[0].of[n] = act.gate(a[0].of[n]);
        a[1].of[n] = act.gate(a[1].of[n]);
        hidden.of[n] *= a[0].of[n];
    }
#pragma unroll
    for (int gate = 0; gate < 2; ++gate) store_run<T, N>(call.gates, shape, at, 3, gate, a[gate]);
    store_run<T, N>(call.candidate, shape, at, 1, 0, hidden);
}

template <class T, bool Smooth>
__global__ void __launch_bounds__(kGateThreads, 3) gru_reset_forward(const GRUForward call) {
    if (call.shape.pack > 1)
        gru_reset_forward_pack<T, kGatePack<T>, Smooth>(call);
    else
        gru_reset_forward_pack<T, 1, Smooth>(call);
}

template <class T, int N, bool Smooth>
__device__ __forceinline__ void gru_update_forward_pack(const GRUForward& call) {
    typedef typename Compute<T>::type C;
    const GateRows& shape = call.shape;
    const auto act = activations_of<C, Smooth>(shape);
    GatePlace at;
    if (!find_place<N>(shape, at)) return;
    Numbers<C, N> candidate = load_run<T, N>(call.inputs, shape, at, 3, 2) +
                              load_run<T, N>(call.recurrent, shape, at, 1, 0);
    const Numbers<C, N> z = load_run<T, N>(call.gates, shape, at, 3, 1);
    Numbers<C, N> hidden = load_state<T, N>(call.hidden, shape, at);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const C value = act.value(candidate.of[n]);
        candidate.of[n] = value;
        hidden.of[n] = value + z.of[n] * (hidden.of[n] - value);
    }
    store_run<T, N>(call.gates, shape, at, 3, 2, candidate);
    store_run<T, N>(call.new_hidden, shape, at, 1, 0, hidden);
}

template <class T, bool Smooth>
__global__ void __launch_bounds__(kGateThreads, 3) gru_update_forward(const GRUForward call) {
    if (call.shape.pack > 1)
        gru_update_forward_pack<T, kGatePack<T>, Smooth>(call);
    else
        gru_update_forward_pack<T, 1, Smooth>(call);
}

// What arrives at the state after a step: from the output, from the convolution of the step that
// follows, and past it.
template <class T, int N>
__device__ __forceinline__ Numbers<typename Compute<T>::type, N> grad_of_hidden(
    const GRUBackward& call, const GatePlace& at) {
    typedef typename Compute<T>::type C;
    return load_state<T, N>(call.grad_hidden, call.shape, at) +
           load_state<T, N>(call.grad_recurrent, call.shape, at) +
           load_state<C, N>(call.carry, call.shape, at);
}

template <class T, int N, bool Smooth>
__device__ __forceinline__ void gru_backward_pack(const GRUBackward& call) {
    typedef typename Compute<T>::type C;
    const GateRows& shape = call.shape;
    const auto act = activations_of<C, Smooth>(shape);
    GatePlace at;
    if (!find_place<N>(shape, at)) return;
    Numbers<C, N> gates[3];
#pragma unroll
    for (int gate = 0; gate < 3; ++gate)
        gates[gate] = load_run<T, N>(call.gates, shape, at, 3, gate);
    const Numbers<C, N> hidden = load_state<T, N>(call.hidden, shape, at);
    Numbers<C, N> u = load_state<T, N>(call.candidate, shape, at);
    Numbers<C, N> carry = grad_of_hidden<T, N>(call, at);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const C r = gates[0].of[n], z = gates[1].of[n], candidate = gates[2].of[n];
        const C dh = carry.of[n];
        const C d_n = dh * (C(1) - z) * act.value_slope(candidate);
        gates[0].of[n] = d_n * u.of[n] * act.gate_slope(r);
        gates[1].of[n] = dh * (hidden.of[n] - candidate) * act.gate_slope(z);
        gates[2].of[n] = d_n;
        u.of[n] = d_n * r;
        carry.of[n] = dh * z;
    }
#pragma unroll
    for (int gate = 0; gate < 3; ++gate) {
        store_run<T, N>(call.grad_inputs, shape, at, 3, gate, gates[gate]);
        store_run<T, N>(call.grad_recurrent_out, shape, at, 3, gate, gate < 2 ? gates[gate] : u);
    }
    store_run<C, N>(call.carry, shape, at, 1, 0, carry);
}

template <class T, bool Smooth>
__global__ void __launch_bounds__(kGateThreads, 3) gru_backward(const GRUBackward call) {
    if (call.shape.pack > 1)
        gru_backward_pack<T, kGatePack<T>, Smooth>(call);
    else
        gru_backward_pack<T, 1, Smooth>(call);
}

template <class T, int N, bool Smooth>
__device__ __forceinline__ void gru_update_backward_pack(const GRUBackward& call) {
    typedef typename Compute<T>::type C;
    const GateRows& shape = call.shape;
    const auto act = activations_of<C, Smooth>(shape);
    GatePlace at;
    if (!find_place<N>(shape, at)) return;
    Numbers<C, N> z = load_run<T, N>(call.gates, shape, at, 3, 1);
    Numbers<C, N> candidate = load_run<T, N>(call.gates, shape, at, 3, 2);
    const Numbers<C, N> hidden = load_state<T, N>(call.hidden, shape, at);
    Numbers<C, N> carry = grad_of_hidden<T, N>(call, at);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const C update = z.of[n], value = candidate.of[n], dh = carry.of[n];
        candidate.of[n] = dh * (C(1) - update) * act.value_slope(value);
        z.of[n] = dh * (hidden.of[n] - value) * act.gate_slope(update);
        carry.of[n] = dh * update;
    }
    store_run<T, N>(call.grad_inputs, shape, at, 1, 0, candidate);
    store_run<T, N>(call.grad_recurrent_out, shape, at, 2, 1, z);
    store_run<C, N>(call.carry, shape, at, 1, 0, carry);
}

template <class T, bool Smooth>
__global__ void __launch_bounds__(kGateThreads, 3) gru_update_backward(const GRUBackward call) {
    if (call.shape.pack > 1)
        gru_update_backward_pack<T, kGatePack<T>, Smooth>(call);
    else
        gru_update_backward_pack<T, 1, Smooth>(call);
}

template <class T, int N, bool Smooth>
__device__ __forceinline__ void gru_reset_backward_pack(const GRUBackward& call) {
    typedef typename Compute<T>::type C;
    const GateRows& shape = call.shape;
    const auto act = activations_of<C, Smooth>(shape);
    GatePlace at;
    if (!find_place<N>(shape, at)) return;
    Numbers<C, N> r = load_run<T, N>(call.gates, shape, at, 3, 0);
    const Numbers<C, N> hidden = load_state<T, N>(call.hidden, shape, at);
    const Numbers<C, N> upstream = load_state<T, N>(call.grad_recurrent, shape, at);
    Numbers<C, N> carry = load_state<C, N>(call.carry, shape, at);
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const C reset = r.of[n], d = upstream.of[n];
        r.of[n] = d * hidden.of[n] * act.gate_slope(reset);
        carry.of[n] += d * reset;
    }
    store_run<T, N>(call.grad_recurrent_out, shape, at, 2, 0, r);
    store_run<C, N>(call.carry, shape, at, 1, 0, carry);
}

template <class T, bool Smooth>
__global__ void __launch_bounds__(kGateThreads, 3) gru_reset_backward(const GRUBackward call) {
    if (call.shape.pack > 1)
        gru_reset_backward_pack<T, kGatePack<T>, Smooth>(call);
    else
        gru_reset_backward_pack<T, 1, Smooth>(call);
}

// -------------------------------------------------------------------------- gradient of peepholes

// Threads of a block along neighbouring weights, and those that share the samples of a weight.
constexpr int kPeepholeLanes = 32, kPeepholeSlots = kGateThreads / kPeepholeLanes;

struct PeepholeBackward {
    // Of each of the three, in the order of memory: peephole_rows rows of `length`.
    long long weights, length;
    long long samples;       // rows that a weight meets: each weights behind the one before
    const void* grad_gates;  // 4
    const void* cell;        // 1, before each step
    const void* new_cell;    // 1, after it
    int splits;              // blocks that share the samples of a weight
    double* partials;        // (groups of weights, splits, 3, kPeepholeLanes)
    unsigned* tickets;       // (groups of weights,), 0
    void* gradient;          // (3, weights), of the computing type
};

// Sums of each slot and weight.
struct PeepholeSums {
    double of[3][kPeepholeSlots][kPeepholeLanes];
};

// For the threads of slot 0, sums over slots, in their order.
__device__ __forceinline__ void sum_slots(double (&sums)[3], int slot, int lane) {
    PeepholeSums& shared = shared_memory<PeepholeSums>();
    __syncthreads();  // an earlier sum is done with the memory
#pragma unroll
    for (int gate = 0; gate < 3; ++gate) shared.of[gate][slot][lane] = sums[gate];
    __syncthreads();
    if (slot > 0) return;
    for (int other = 1; other < kPeepholeSlots; ++other)
#pragma unroll
        for (int gate = 0; gate < 3; ++gate) sums[gate] += shared.of[gate][other][lane];
}

// Gradients of the cell's weights in i, f and o, over all steps that are given. A thread adds up
// its samples in the computing type, all else is double and in a fixed order.
template <class T>
__global__ void __launch_bounds__(kGateThreads, 3)
    lstm_peephole_backward(const PeepholeBackward call) {
    typedef typename Compute<T>::type C;
    const int lane = int(threadIdx.x) % kPeepholeLanes, slot = int(threadIdx.x) / kPeepholeLanes;
    const long long group = blockIdx.x / unsigned(call.splits);
    const int split = int(blockIdx.x % unsigned(call.splits));
    const long long weight = group * kPeepholeLanes + lane;
    C mine[3] = {};
    if (weight < call.weights) {
        const long long row = weight / call.length, first = row * 3 * call.length + weight;
        const T* by_gates = static_cast<const T*>(call.grad_gates) + first;
        const C* cell = static_cast<const C*>(call.cell) + weight;
        const C* new_cell = static_cast<const C*>(call.new_cell) + weight;
        const long long size = divide_up(call.samples, call.splits), begin = split * size;
        const long long end = begin + size < call.samples ? begin + size : call.samples;
#pragma unroll 4
        for (long long i = begin + slot; i < end; i += kPeepholeSlots) {
            const T* gates = by_gates + 4 * i * call.weights;
            const C before = cell[i * call.weights], after = new_cell[i * call.weights];
            mine[0] += to_compute(gates[0]) * before;
            mine[1] += to_compute(gates[call.length]) * before;
            mine[2] += to_compute(gates[3 * call.length]) * after;
        }
    }
    double sums[3] = {double(mine[0]), double(mine[1]), double(mine[2])};
    sum_slots(sums, slot, lane);
    double* partials = call.partials + 3 * kPeepholeLanes * call.splits * group;
    if (slot == 0)
        for (int gate = 0; gate < 3; ++gate)
            partials[(3 * split + gate) * kPeepholeLanes + lane] = sums[gate];
    if (!is_last_block(call.tickets + group, unsigned(call.splits))) return;
    for (int gate = 0; gate < 3; ++gate) {
        sums[gate] = 0.0;
        for (int i = slot; i < call.splits; i += kPeepholeSlots)
            sums[gate] += partials[(3 * i + gate) * kPeepholeLanes + lane];
    }
    sum_slots(sums, slot, lane);
    if (slot > 0 || weight >= call.weights) return;
    for (int gate = 0; gate < 3; ++gate)
        static_cast<C*>(call.gradient)[gate * call.weights + weight] = C(sums[gate]);
}

}  // namespace sosie
