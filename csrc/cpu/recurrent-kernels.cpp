// SPDX-License-Identifier: Apache-2.0
#include "isa-inl.hpp"
#include "recurrent-call.hpp"
#include "recurrent-inl.hpp"

namespace sosie {

// The float and the double instantiation of a kernel.
#define SOSIE_GATES(Call, Kernel)                                                                  \
    {                                                                                              \
        {&gate_tasks<float, Call>, &gate_scratch<float, Call>, &run_gates<float, Call, Kernel>}, { \
            &gate_tasks<double, Call>, &gate_scratch<double, Call>,                                \
                &run_gates<double, Call, Kernel>                                                   \
        }                                                                                          \
    }

extern const RecurrentKernels SOSIE_NAME(recurrent_);
const RecurrentKernels SOSIE_NAME(recurrent_) = {
    SOSIE_GATES(LSTMForward, LSTMForwardKernel),
    SOSIE_GATES(LSTMBackward, LSTMBackwardKernel),
    SOSIE_GATES(GRUForward, GRUForwardKernel),
    SOSIE_GATES(GRUForward, GRUResetForwardKernel),
    SOSIE_GATES(GRUForward, GRUUpdateForwardKernel),
    SOSIE_GATES(GRUBackward, GRUBackwardKernel),
    SOSIE_GATES(GRUBackward, GRUResetBackwardKernel),
    SOSIE_GATES(GRUBackward, GRUUpdateBackwardKernel),
    {&apply<float, &sigmoid<float>>, &apply<double, &sigmoid<double>>},
    {&apply<float, &tanh<float>>, &apply<double, &tanh<double>>},
};

}  // namespace sosie
