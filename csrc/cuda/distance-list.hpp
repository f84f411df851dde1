// SPDX-License-Identifier: Apache-2.0
//
// The kernels of distances between sets of vectors, for each type that is computed in; vectors are
// of any dtype. Lengths and gradients are computed in double alone.
#pragma once

#define SOSIE_DISTANCE_KERNELS_OF(KERNEL, C) \
    KERNEL(distance_centre<C>)               \
    KERNEL(distance_rows<C>)                 \
    KERNEL(cdist_direct<C, false>)           \
    KERNEL(cdist_direct<C, true>)            \
    KERNEL(cdist_finish<C, false>)           \
    KERNEL(cdist_finish<C, true>)            \
    KERNEL(cdist_backward<C>)                \
    KERNEL(knn_search<C>)                    \
    KERNEL(knn_merge<C>)

#define SOSIE_DISTANCE_KERNELS(KERNEL)       \
    KERNEL(distance_norms<double>)           \
    KERNEL(distance_gradient<double>)        \
    KERNEL(knn_backward<double>)             \
    SOSIE_DISTANCE_KERNELS_OF(KERNEL, float) \
    SOSIE_DISTANCE_KERNELS_OF(KERNEL, double)
