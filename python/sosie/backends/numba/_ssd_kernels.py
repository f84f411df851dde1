# SPDX-License-Identifier: Apache-2.0
"""Weighted squared differences of one piece of an image, and their gradients, as Numba kernels.

Arrays are one-dimensional and contiguous, images and weights of one dtype (float32 or float64).
Squares are of float64, in which they are added up. A weight of 0 takes its pixel out: where the
difference there is not finite it counts as 0. Every kernel is compiled once for each dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie.backends.numba._tasks import compiled

__all__ = ["gradient_piece", "sum_piece"]


@compiled
def _difference(x: float, y: float, w: float) -> float:
    d = np.float64(x) - np.float64(y)
    return 0.0 if w == 0.0 and not np.isfinite(d) else d


@compiled
def sum_piece(
    x: NDArray[Any], y: NDArray[Any], weight: NDArray[Any]
) -> tuple[float, float, float, float]:
    """Sum of ``w d^2``, sum of ``w``, smallest weight if below 0, sum of weights not finite."""
    total, of_weights, lowest, odd = 0.0, 0.0, 0.0, 0.0
    for i in range(x.size):
        w = np.float64(weight[i])
        d = _difference(x[i], y[i], w)
        total += w * d * d
        of_weights += w
        lowest = min(lowest, w)
        if not np.isfinite(w):
            odd += w
    return total, of_weights, lowest, odd


@compiled
def gradient_piece(
    x: NDArray[Any],
    y: NDArray[Any],
    weight: NDArray[Any],
    of_sum: float,
    of_weights: float,
    grad_x: NDArray[Any],
    grad_weight: NDArray[np.float64],
) -> None:
    """``2 a w d`` and ``a d^2 + b``, with the upstream gradients a and b."""
    for i in range(x.size):
        w = np.float64(weight[i])
        d = _difference(x[i], y[i], w)
        grad_x[i] = 2.0 * of_sum * w * d
        grad_weight[i] = of_sum * d * d + of_weights
