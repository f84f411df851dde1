# SPDX-License-Identifier: Apache-2.0
"""Paired rows to compute on, and how results are held against the definition."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import numpy as np

Array = Any

# Sums are 16 roundings of 2^-24 long, twice as many for a square root of them; what remains are the
# roundings of a quotient and of the result. Gradients are products of three such numbers.
TOLERANCE = {"float64": 1e-14, "float32": 1e-6}
GRADIENT = {"float64": 1e-13, "float32": 3e-6}


def noise(shape: tuple[int, ...], seed: Any, dtype: str = "float64") -> Array:
    random = np.random.default_rng(zlib.crc32(repr(seed).encode()))
    if dtype.startswith("uint"):
        return random.integers(0, 256, shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


class Rows(NamedTuple):
    """Shapes of two arrays, and the axis along which their rows lie."""

    x: tuple[int, ...]
    y: tuple[int, ...]
    axis: int


BROADCAST = [
    Rows((5, 17), (1, 17), 1), Rows((1, 33), (4, 33), 1), Rows((4, 1, 9), (1, 3, 9), 2),
    Rows((2, 3, 5, 6), (1, 3, 1, 1), 1), Rows((2, 3, 1, 6), (1, 3, 5, 1), 1),
    Rows((1, 19, 300), (2, 19, 1), 1), Rows((2, 1, 3, 1, 4, 5), (1, 2, 1, 2, 4, 5), 4),
    Rows((300, 7), (1, 7), 1),
]  # fmt: skip


def name_of(rows: Rows) -> str:
    return "{}-{}-axis{}".format(*("x".join(map(str, s)) for s in rows[:2]), rows.axis)


def assert_near(actual: Array, expected: Array, tolerance: float, scale: float = 0.0) -> None:
    """Relative, but for numbers far below the largest, or `scale`: differences of larger ones."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    if expected.size:
        scale = max(scale, np.abs(expected).max(initial=0.0))
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale)
