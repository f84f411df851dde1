# SPDX-License-Identifier: Apache-2.0
"""Sets of vectors, what the definition says of them, and comparisons, for tests of distances."""

from __future__ import annotations

import functools
import zlib
from typing import Any

import numpy as np
import pytest

from sosie.reference import distance as reference

torch = pytest.importorskip("torch")


Array = Any

METRICS = ["euclidean", "sqeuclidean", "cosine"]

#: Relative errors of a distance. float64: sums of a few hundred positive numbers, 2^-53 each.
#: float32: what is promised; differences of 2^-24 and their sum leave a tenth of it.
TOLERANCE = {"float64": 1e-13, "float32": 2e-5}


# --- Sets of vectors ------------------------------------------------------------------------------


# Tiles are 6 rows by 8 to 64 columns in registers, blocks 240 rows by 256 columns by 256
# dimensions; Numba's are 512 by 128 by 256.
SIZES = [
    (1, 1, 1), (5, 6, 2), (6, 5, 3), (7, 15, 7), (15, 7, 8), (16, 17, 15), (17, 16, 16),
    (33, 1, 17), (1, 33, 64), (241, 7, 64), (6, 241, 255), (257, 33, 256), (16, 257, 257),
    (33, 33, 600), (241, 257, 3),
]  # fmt: skip
SMALL = [(1, 1, 1), (6, 5, 3), (7, 17, 16), (33, 15, 257), (17, 241, 2)]


def seed_of(*key: Any) -> int:
    return zlib.crc32(repr(key).encode())


def frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


@functools.lru_cache(maxsize=128)
def sets(
    rows: int, columns: int, dims: int, kind: str = "spread", batch: int = 1
) -> tuple[Array, Array]:
    """Two sets ``(batch, rows or columns, dims)``, in float64, of numbers that float32 holds.

    "far": around 1000 with a spread of 0.01, where every vector of the second set is 0.001 from one
    of the first in some directions: all digits of their norms are the same.
    """
    generator = np.random.default_rng(seed_of(rows, columns, dims, kind, batch))
    a = generator.standard_normal((batch, rows, dims))
    b = generator.standard_normal((batch, columns, dims))
    if kind == "far":
        a = 1000.0 + 0.01 * a
        b = a[:, generator.integers(rows, size=columns)] + 1e-3 * b
    return frozen(a.astype(np.float32).astype(float)), frozen(b.astype(np.float32).astype(float))


def weights_of(dims: int) -> np.ndarray:
    weights = np.random.default_rng(dims).random(dims) + 0.01
    weights[dims // 2 + 1 :: 5] = 0.0
    return frozen(weights)


@functools.lru_cache(maxsize=512)
def expected_distances(
    size: tuple[int, int, int], metric: str, weighted: bool, kind: str, batch: int = 1
) -> np.ndarray:
    weights = weights_of(size[2]) if weighted else None
    return reference.cdist_forward(*sets(*size, kind, batch), metric, weights=weights)


def assert_distances(
    actual: Array, expected: np.ndarray, metric: str, dtype: str, factor: float = 1.0
) -> None:
    """Equal but for a relative error."""
    actual = np.asarray(actual)
    assert actual.shape == expected.shape
    assert actual.dtype == dtype
    # NaN and infinity are equal to themselves here.
    np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))
    np.testing.assert_array_equal(actual[~np.isfinite(actual)], expected[~np.isfinite(expected)])
    actual, expected = actual[np.isfinite(expected)], expected[np.isfinite(expected)]
    room = factor * TOLERANCE[dtype] * np.abs(expected)
    if metric == "cosine":
        # Half a squared distance of unit vectors, whose rounding by some 2^-53, here and in the
        # definition, moves their distance sqrt(2 d) by as much.
        room += 1e-15 * np.sqrt(np.abs(expected)) + 1e-30
    wrong = np.abs(actual - expected) > room
    assert not wrong.any(), (actual[wrong][:5], expected[wrong][:5])


# --- Nearest neighbours ---------------------------------------------------------------------------


def assert_neighbours(
    distances: Array, indices: Array, all_distances: np.ndarray, metric: str, dtype: str
) -> None:
    """Distances are those of the indices and as small as they can be; indices occur once.

    Which of two neighbours comes first where rounding decides is not said.
    """
    assert indices.dtype == np.int64
    assert all(len(set(row)) == len(row) for row in indices.tolist())
    expected = np.take_along_axis(all_distances, indices, axis=1)
    assert_distances(distances, expected, metric, dtype, 2.0)
    order = np.sort(all_distances, axis=1)[:, : indices.shape[1]]
    assert_distances(distances, order, metric, dtype, 2.0)
    both = ~np.isnan(distances[:, 1:])
    assert (distances[:, :-1][both] <= distances[:, 1:][both]).all()


# --- Gradients ------------------------------------------------------------------------------------


def assert_gradient(actual: Array, expected: np.ndarray, tolerance: float) -> None:
    """Every vector's gradient relative to its own length."""
    actual = np.asarray(actual)
    assert actual.shape == expected.shape
    error = np.linalg.norm(actual - expected, axis=-1)
    assert (error <= tolerance * np.linalg.norm(expected, axis=-1)).all(), error.max()


#: Relative to the vector's whole gradient. A sum over partners of both signs is at worst some 30
#: times shorter than its longest term here.
GRADIENT_TOLERANCE = {"float64": 1e-12, "float32": 1e-4}
