// SPDX-License-Identifier: Apache-2.0
//
// One step of a convolutional LSTM or GRU between its convolutions, forward and backward, in one
// pass: the formulas of sosie/reference/recurrent.py.
//
// Arithmetic: an LSTM's step evaluates five activations, 100 operations and five divisions, for the
// 60 bytes that it moves per number of the state in float32, about as much as one core does while
// it waits for them. So all of a number's gates are in registers at once, and nothing is read or
// written twice. What the convolutions have just written comes from the caches.
//
// Accuracy: numbers are computed in float (double), whatever gates and hidden states are stored in,
// and rounded once; the cell state is never narrower. Activations are within 2.5 units in the last
// place, see activations-inl.hpp. Derivatives come from the values of the activations.
#pragma once
#include "activations-inl.hpp"
#include "lanes-inl.hpp"
#include "recurrent-call.hpp"

namespace {

using sosie::GatePartial;
using sosie::GateRows;
using sosie::GRUBackward;
using sosie::GRUForward;
using sosie::LSTMBackward;
using sosie::LSTMForward;

// Numbers of the state that a task treats: enough to make nothing of what starting one costs.
constexpr int64_t kTaskNumbers = 1 << 14;

// --------------------------------------------------------------------------------- rows and tasks

struct GateTask {
    int64_t first_row, end_row, begin, end;  // rows, and numbers of their runs
};

// Many short rows, or a piece of one long row.
inline int64_t rows_per_task(const GateRows& shape) {
    return larger(1, kTaskNumbers / shape.length);
}
inline int64_t pieces_of_row(const GateRows& shape) {
    return divide_up(shape.length, kTaskNumbers);
}
inline GateTask gate_task(const GateRows& shape, int64_t task) {
    const int64_t pieces = pieces_of_row(shape), rows = rows_per_task(shape);
    const int64_t first = task / pieces * rows, begin = task % pieces * kTaskNumbers;
    return {first, smaller(first + rows, shape.rows), begin,
            smaller(begin + kTaskNumbers, shape.length)};
}

template <class T, class Call>
int64_t gate_tasks(const Call& call) {
    return divide_up(call.shape.rows, rows_per_task(call.shape)) * pieces_of_row(call.shape);
}
template <class T, class Call>
size_t gate_scratch(const Call&) {
    return 0;
}

// A vector of numbers, or the last few of a run.
struct Whole {
    template <class T, class S>
    Vec<T> load(const S* p) const {
        return widen_vector(p);
    }
    template <class T, class S>
    void store(S* p, Vec<T> v) const {
        Writer<T, S>{p, 1, false}.put(0, v);
    }
    template <class T, class S>
    void stream(S* p, Vec<T> v, bool streams) const {
        Writer<T, S>{p, 1, streams}.put(0, v);
    }
};
struct Part {
    int64_t count;
    template <class T, class S>
    Vec<T> load(const S* p) const {
        return Reader<T, S, true>{p, 1}.some(0, count);
    }
    template <class T, class S>
    void store(S* p, Vec<T> v) const {
        Writer<T, S>{p, 1, false}.put_some(0, count, v);
    }
    template <class T, class S>
    void stream(S* p, Vec<T> v, bool) const {
        store<T>(p, v);
    }
};

// body(row, i, width) for each vector of a task, from number i of the runs of a row.
template <class T, class Body>
inline void each_vector(const GateTask& task, Body body) {
    for (int64_t row = task.first_row; row < task.end_row; ++row) {
        int64_t i = task.begin;
        for (; i + kLanes<T> <= task.end; i += kLanes<T>) body(row, i, Whole{});
        if (i < task.end) body(row, i, Part{task.end - i});
    }
}

// Where run `gate` of a row of `gates` begins; nullptr stays so.
template <class S>
inline S* run_of(S* data, const GateRows& shape, int64_t row, int gates, int gate, int64_t i) {
    return data ? data + (row * gates + gate) * shape.length + i : nullptr;
}

// A kernel, for the dtype that is stored and the activations that are asked for.
template <class T, class Call, template <class, class, bool> class Kernel>
void run_gates(const Call& call, int64_t task, void*, GatePartial*) {
    const GateTask range = gate_task(call.shape, task);
    const auto as = [&](auto stored) {
        using S = decltype(stored);
        const GateActivations& activations = call.shape.activations;
        if (activations.hard_sigmoid || activations.hard_tanh)
            Kernel<T, S, false>::run(call, range);
        else
            Kernel<T, S, true>::run(call, range);
    };
    if constexpr (sizeof(T) == 4) {
        if (call.shape.dtype == sosie::DType::f16) return as(Half{});
        if (call.shape.dtype == sosie::DType::bf16) return as(BrainHalf{});
    }
    as(T{});
}

// A number that may be absent.
template <class T, class Width, class S>
inline Vec<T> load_or_zero(Width width, const S* p) {
    return p ? width.template load<T>(p) : Vec<T>{};
}

// ------------------------------------------------------------------------------------------- LSTM

// Weights of the cell in gate 0, 1, 2: i, f, o.
template <class T, class Call>
inline const T* peephole_of(const Call& call, int gate, int64_t row, int64_t i) {
    const int64_t rows = call.peephole_rows;
    return static_cast<const T*>(call.peephole) + (gate * rows + row % rows) * call.shape.length +
           i;
}

template <class T, class S, bool Smooth>
struct LSTMForwardKernel {
    static void run(const LSTMForward& call, const GateTask& task) {
        const GateRows& shape = call.shape;
        const Activations<T, Smooth> act(shape.activations);
        const S* inputs = static_cast<const S*>(call.inputs);
        const S* recurrent = static_cast<const S*>(call.recurrent);
        const T* cell = static_cast<const T*>(call.cell);
        S* gates = static_cast<S*>(call.gates);
        S* hidden = static_cast<S*>(call.hidden);
        T* new_cell = static_cast<T*>(call.new_cell);
        each_vector<T>(task, [&](int64_t row, int64_t at, auto width) {
            Vec<T> a[4];
#pragma GCC unroll 4
            for (int g = 0; g < 4; ++g) {
                a[g] = width.template load<T>(run_of(inputs, shape, row, 4, g, at));
                if (recurrent)
                    a[g] += width.template load<T>(run_of(recurrent, shape, row, 4, g, at));
            }
            const Vec<T> c = width.template load<T>(run_of(cell, shape, row, 1, 0, at));
            if (call.peephole)
                for (int g = 0; g < 2; ++g)
                    a[g] += width.template load<T>(peephole_of<T>(call, g, row, at)) * c;
            const Vec<T> i = act.gate(a[0]), f = act.gate(a[1]), g = act.value(a[2]);
            const Vec<T> next = f * c + i * g;
            if (call.peephole)
                a[3] += width.template load<T>(peephole_of<T>(call, 2, row, at)) * next;
            const Vec<T> o = act.gate(a[3]);
            width.template store<T>(run_of(new_cell, shape, row, 1, 0, at), next);
            width.template store<T>(run_of(hidden, shape, row, 1, 0, at), o * act.value(next));
            if (!gates) return;
            const Vec<T> values[4] = {i, f, g, o};
#pragma GCC unroll 4
            for (int k = 0; k < 4; ++k)
                width.template stream<T>(run_of(gates, shape, row, 4, k, at), values[k],
                                         call.stream);
        });
        if (call.stream) finish_streams();
    }
};

template <class T, class S, bool Smooth>
struct LSTMBackwardKernel {
    static void run(const LSTMBackward& call, const GateTask& task) {
        const GateRows& shape = call.shape;
        const Activations<T, Smooth> act(shape.activations);
        const S* gates = static_cast<const S*>(call.gates);
        const T* cell = static_cast<const T*>(call.cell);
        const T* new_cell = static_cast<const T*>(call.new_cell);
        const S* grad_hidden = static_cast<const S*>(call.grad_hidden);
        const S* grad_recurrent = static_cast<const S*>(call.grad_recurrent);
        T* grad_cell = static_cast<T*>(call.grad_cell);
        S* grad_gates = static_cast<S*>(call.grad_gates);
        each_vector<T>(task, [&](int64_t row, int64_t at, auto width) {
            const auto gate = [&](int k) {
                return width.template load<T>(run_of(gates, shape, row, 4, k, at));
            };
            const auto put = [&](int k, Vec<T> v) {
                width.template store<T>(run_of(grad_gates, shape, row, 4, k, at), v);
            };
            const Vec<T> i = gate(0), f = gate(1), g = gate(2), o = gate(3);
            const Vec<T> c = width.template load<T>(run_of(cell, shape, row, 1, 0, at));
            const Vec<T> t =
                act.value(width.template load<T>(run_of(new_cell, shape, row, 1, 0, at)));
            const Vec<T> dh = load_or_zero<T>(width, run_of(grad_hidden, shape, row, 1, 0, at)) +
                              load_or_zero<T>(width, run_of(grad_recurrent, shape, row, 1, 0, at));
            T* carried = run_of(grad_cell, shape, row, 1, 0, at);
            const Vec<T> d_o = dh * t * act.gate_slope(o);
            Vec<T> dc = width.template load<T>(carried) + dh * o * act.value_slope(t);
            if (call.peephole) dc += d_o * width.template load<T>(peephole_of<T>(call, 2, row, at));
            const Vec<T> d_i = dc * g * act.gate_slope(i), d_f = dc * c * act.gate_slope(f);
            put(0, d_i);
            put(1, d_f);
            put(2, dc * i * act.value_slope(g));
            put(3, d_o);
            Vec<T> before = dc * f;
            if (call.peephole)
                before += d_i * width.template load<T>(peephole_of<T>(call, 0, row, at)) +
                          d_f * width.template load<T>(peephole_of<T>(call, 1, row, at));
            width.template store<T>(carried, before);
        });
    }
};

// -------------------------------------------------------------------------------------------- GRU

template <class T, class S, bool Smooth>
struct GRUForwardKernel {
    static void run(const GRUForward& call, const GateTask& task) {
        const GateRows& shape = call.shape;
        const Activations<T, Smooth> act(shape.activations);
        const S* inputs = static_cast<const S*>(call.inputs);
        const S* recurrent = static_cast<const S*>(call.recurrent);
        const S* hidden = static_cast<const S*>(call.hidden);
        S* gates = static_cast<S*>(call.gates);
        S* candidate = static_cast<S*>(call.candidate);
        S* new_hidden = static_cast<S*>(call.new_hidden);
        each_vector<T>(task, [&](int64_t row, int64_t at, auto width) {
            const auto from = [&](const S* p, int k) {
                return width.template load<T>(run_of(p, shape, row, 3, k, at));
            };
            const Vec<T> r = act.gate(from(inputs, 0) + from(recurrent, 0));
            const Vec<T> z = act.gate(from(inputs, 1) + from(recurrent, 1));
            const Vec<T> u = from(recurrent, 2), n = act.value(from(inputs, 2) + r * u);
            const Vec<T> h = width.template load<T>(run_of(hidden, shape, row, 1, 0, at));
            width.template store<T>(run_of(new_hidden, shape, row, 1, 0, at), n + z * (h - n));
            if (candidate) width.template store<T>(run_of(candidate, shape, row, 1, 0, at), u);
            const Vec<T> values[3] = {r, z, n};
            for (int k = 0; k < 3; ++k)
                width.template store<T>(run_of(gates, shape, row, 3, k, at), values[k]);
        });
    }
};

template <class T, class S, bool Smooth>
struct GRUResetForwardKernel {
    static void run(const GRUForward& call, const GateTask& task) {
        const GateRows& shape = call.shape;
        const Activations<T, Smooth> act(shape.activations);
        const S* inputs = static_cast<const S*>(call.inputs);
        const S* recurrent = static_cast<const S*>(call.recurrent);
        const S* hidden = static_cast<const S*>(call.hidden);
        S* gates = static_cast<S*>(call.gates);
        S* reset = static_cast<S*>(call.candidate);
        each_vector<T>(task, [&](int64_t row, int64_t at, auto width) {
            Vec<T> values[2];
            for (int k = 0; k < 2; ++k) {
                const Vec<T> a = width.template load<T>(run_of(inputs, shape, row, 3, k, at)) +
                                 width.template load<T>(run_of(recurrent, shape, row, 2, k, at));
                values[k] = act.gate(a);
                width.template store<T>(run_of(gates, shape, row, 3, k, at), values[k]);
            }
            const Vec<T> h = width.template load<T>(run_of(hidden, shape, row, 1, 0, at));
            width.template store<T>(run_of(reset, shape, row, 1, 0, at), values[0] * h);
        });
    }
};

template <class T, class S, bool Smooth>
struct GRUUpdateForwardKernel {
    static void run(const GRUForward& call, const GateTask& task) {
        const GateRows& shape = call.shape;
        const Activations<T, Smooth> act(shape.activations);
        const S* inputs = static_cast<const S*>(call.inputs);
        const S* recurrent = static_cast<const S*>(call.recurrent);
        const S* hidden = static_cast<const S*>(call.hidden);
        S* gates = static_cast<S*>(call.gates);
        S* new_hidden = static_cast<S*>(call.new_hidden);
        each_vector<T>(task, [&](int64_t row, int64_t at, auto width) {
            const Vec<T> n =
                act.value(width.template load<T>(run_of(inputs, shape, row, 3, 2, at)) +
                          width.template load<T>(run_of(recurrent, shape, row, 1, 0, at)));
            const Vec<T> z = width.template load<T>(run_of(gates, shape, row, 3, 1, at));
            const Vec<T> h = width.template load<T>(run_of(hidden, shape, row, 1, 0, at));
            width.template store<T>(run_of(gates, shape, row, 3, 2, at), n);
            width.template store<T>(run_of(new_hidden, shape, row, 1, 0, at), n + z * (h - n));
        });
    }
};

// What arrives at the state after a step: from the output, from the convolution of the step that
// follows, and past it.
template <class T, class S, class Width>
inline Vec<T> grad_of_hidden(const GRUBackward& call, int64_t row, int64_t at, Width width) {
    const S* grad_hidden = static_cast<const S*>(call.grad_hidden);
    const S* grad_recurrent = static_cast<const S*>(call.grad_recurrent);
    const T* carry = static_cast<const T*>(call.carry);
    return load_or_zero<T>(width, run_of(grad_hidden, call.shape, row, 1, 0, at)) +
           load_or_zero<T>(width, run_of(grad_recurrent, call.shape, row, 1, 0, at)) +
           width.template load<T>(run_of(carry, call.shape, row, 1, 0, at));
}

template <class T, class S, bool Smooth>
struct GRUBackwardKernel {
    static void run(const GRUBackward& call, const GateTask& task) {
        const GateRows& shape = call.shape;
        const Activations<T, Smooth> act(shape.activations);
        const S* gates = static_cast<const S*>(call.gates);
        const S* candidate = static_cast<const S*>(call.candidate);
        const S* hidden = static_cast<const S*>(call.hidden);
        T* carry = static_cast<T*>(call.carry);
        S* by_inputs = static_cast<S*>(call.grad_inputs);
        S* by_recurrent = static_cast<S*>(call.grad_recurrent_out);
        each_vector<T>(task, [&](int64_t row, int64_t at, auto width) {
            const auto gate = [&](int k) {
                return width.template load<T>(run_of(gates, shape, row, 3, k, at));
            };
            const auto put = [&](S* to, int k, Vec<T> v) {
                width.template store<T>(run_of(to, shape, row, 3, k, at), v);
            };
            const Vec<T> r = gate(0), z = gate(1), n = gate(2);
            const Vec<T> h = width.template load<T>(run_of(hidden, shape, row, 1, 0, at));
            const Vec<T> u = width.template load<T>(run_of(candidate, shape, row, 1, 0, at));
            const Vec<T> dh = grad_of_hidden<T, S>(call, row, at, width);
            const Vec<T> d_n = dh * (T(1) - z) * act.value_slope(n);
            const Vec<T> d_z = dh * (h - n) * act.gate_slope(z), d_r = d_n * u * act.gate_slope(r);
            put(by_inputs, 0, d_r);
            put(by_inputs, 1, d_z);
            put(by_inputs, 2, d_n);
            put(by_recurrent, 0, d_r);
            put(by_recurrent, 1, d_z);
            put(by_recurrent, 2, d_n * r);
            width.template store<T>(run_of(carry, shape, row, 1, 0, at), dh * z);
        });
    }
};

template <class T, class S, bool Smooth>
struct GRUUpdateBackwardKernel {
    static void run(const GRUBackward& call, const GateTask& task) {
        const GateRows& shape = call.shape;
        const Activations<T, Smooth> act(shape.activations);
        const S* gates = static_cast<const S*>(call.gates);
        const S* hidden = static_cast<const S*>(call.hidden);
        T* carry = static_cast<T*>(call.carry);
        S* by_candidate = static_cast<S*>(call.grad_inputs);
        S* by_gates = static_cast<S*>(call.grad_recurrent_out);
        each_vector<T>(task, [&](int64_t row, int64_t at, auto width) {
            const Vec<T> z = width.template load<T>(run_of(gates, shape, row, 3, 1, at));
            const Vec<T> n = width.template load<T>(run_of(gates, shape, row, 3, 2, at));
            const Vec<T> h = width.template load<T>(run_of(hidden, shape, row, 1, 0, at));
            const Vec<T> dh = grad_of_hidden<T, S>(call, row, at, width);
            width.template store<T>(run_of(by_candidate, shape, row, 1, 0, at),
                                    dh * (T(1) - z) * act.value_slope(n));
            width.template store<T>(run_of(by_gates, shape, row, 2, 1, at),
                                    dh * (h - n) * act.gate_slope(z));
            width.template store<T>(run_of(carry, shape, row, 1, 0, at), dh * z);
        });
    }
};

template <class T, class S, bool Smooth>
struct GRUResetBackwardKernel {
    static void run(const GRUBackward& call, const GateTask& task) {
        const GateRows& shape = call.shape;
        const Activations<T, Smooth> act(shape.activations);
        const S* gates = static_cast<const S*>(call.gates);
        const S* hidden = static_cast<const S*>(call.hidden);
        const S* of_reset = static_cast<const S*>(call.grad_recurrent);
        T* carry = static_cast<T*>(call.carry);
        S* by_gates = static_cast<S*>(call.grad_recurrent_out);
        each_vector<T>(task, [&](int64_t row, int64_t at, auto width) {
            const Vec<T> r = width.template load<T>(run_of(gates, shape, row, 3, 0, at));
            const Vec<T> h = width.template load<T>(run_of(hidden, shape, row, 1, 0, at));
            const Vec<T> d = width.template load<T>(run_of(of_reset, shape, row, 1, 0, at));
            T* carried = run_of(carry, shape, row, 1, 0, at);
            width.template store<T>(run_of(by_gates, shape, row, 2, 0, at),
                                    d * h * act.gate_slope(r));
            width.template store<T>(carried, width.template load<T>(carried) + d * r);
        });
    }
};

// ------------------------------------------------------------------------- the functions by
// themselves

template <class T, Vec<T> (*Function)(Vec<T>)>
void apply(const void* x, void* y, int64_t count) {
    each_vector<T>({0, 1, 0, count}, [&](int64_t, int64_t i, auto width) {
        width.template store<T>(static_cast<T*>(y) + i,
                                Function(width.template load<T>(static_cast<const T*>(x) + i)));
    });
}

}  // namespace
