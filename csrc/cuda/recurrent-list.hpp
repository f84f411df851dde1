// SPDX-License-Identifier: Apache-2.0
//
// The gates of convolutional LSTMs and GRUs, for each dtype of gates; known to be smooth, or not.
#pragma once

#define SOSIE_GATE_KERNELS(KERNEL, T, Smooth) \
    KERNEL(lstm_forward<T, Smooth>)           \
    KERNEL(lstm_backward<T, Smooth>)          \
    KERNEL(gru_forward<T, Smooth>)            \
    KERNEL(gru_backward<T, Smooth>)           \
    KERNEL(gru_reset_forward<T, Smooth>)      \
    KERNEL(gru_reset_backward<T, Smooth>)     \
    KERNEL(gru_update_forward<T, Smooth>)     \
    KERNEL(gru_update_backward<T, Smooth>)

#define SOSIE_RECURRENT_KERNELS_OF(KERNEL, T) \
    SOSIE_GATE_KERNELS(KERNEL, T, false)      \
    SOSIE_GATE_KERNELS(KERNEL, T, true)       \
    KERNEL(lstm_peephole_backward<T>)

#define SOSIE_RECURRENT_KERNELS(KERNEL)          \
    SOSIE_RECURRENT_KERNELS_OF(KERNEL, half)     \
    SOSIE_RECURRENT_KERNELS_OF(KERNEL, bfloat16) \
    SOSIE_RECURRENT_KERNELS_OF(KERNEL, float)    \
    SOSIE_RECURRENT_KERNELS_OF(KERNEL, double)
