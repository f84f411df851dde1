# SPDX-License-Identifier: Apache-2.0
"""Loops over paired rows, compiled by Numba. Everything is added up in float64.

``x`` and ``y`` are ``(rows, length)``, of any strides; what belongs to a pair is ``(rows,)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sosie.backends.numba._tasks import compiled

__all__ = ["add_gradients", "differences", "products"]


@compiled
def differences(x: Any, y: Any, sums: Any) -> None:
    """Squared distances. Four sums in turn, because an addition waits for the one before."""
    length = x.shape[1]
    whole = length - length % 4
    for row in range(x.shape[0]):
        a = b = c = d = 0.0
        for i in range(0, whole, 4):
            p = np.float64(x[row, i]) - np.float64(y[row, i])
            q = np.float64(x[row, i + 1]) - np.float64(y[row, i + 1])
            r = np.float64(x[row, i + 2]) - np.float64(y[row, i + 2])
            s = np.float64(x[row, i + 3]) - np.float64(y[row, i + 3])
            a += p * p
            b += q * q
            c += r * r
            d += s * s
        for i in range(whole, length):
            p = np.float64(x[row, i]) - np.float64(y[row, i])
            a += p * p
        sums[row] = (a + b) + (c + d)


@compiled
def products(x: Any, y: Any, sums: Any) -> None:
    """Sums of x y, x x and y y, into ``(rows, 3)``."""
    for row in range(x.shape[0]):
        xy = xx = yy = 0.0
        for i in range(x.shape[1]):
            p, q = np.float64(x[row, i]), np.float64(y[row, i])
            xy += p * q
            xx += p * p
            yy += q * q
        sums[row, 0], sums[row, 1], sums[row, 2] = xy, xx, yy


@compiled
def add_gradients(
    x: Any, y: Any, a: Any, t: Any, u: Any, grad_x: Any, grad_y: Any, need_x: bool, need_y: bool
) -> None:
    """Adds a (y - t x) and a (x - u y) to the gradients; several rows of one may be the same."""
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            p, q = np.float64(x[row, i]), np.float64(y[row, i])
            if need_x:
                grad_x[row, i] += a[row] * (q - t[row] * p)
            if need_y:
                grad_y[row, i] += a[row] * (p - u[row] * q)
