// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

namespace sosie {

// What an axis is surrounded by.
enum class Border : int32_t { zero, reflect, symmetric, replicate };

// Where position i of an axis of `length` is read from; -1: outside, the value is 0.
// `static`: every object keeps a copy of its own, made with its own instruction set.
static inline int64_t border_position(int64_t i, int64_t length, Border border) {
    if (i >= 0 && i < length) return i;
    switch (border) {
        case Border::zero: return -1;
        case Border::replicate: return i < 0 ? 0 : length - 1;
        case Border::symmetric: {
            const int64_t period = 2 * length, m = ((i % period) + period) % period;
            return m < length ? m : period - 1 - m;
        }
        case Border::reflect: {
            if (length == 1) return 0;
            const int64_t period = 2 * (length - 1), m = ((i % period) + period) % period;
            return m < length ? m : period - m;
        }
    }
    return -1;
}

}  // namespace sosie
