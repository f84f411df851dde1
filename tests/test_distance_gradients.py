# SPDX-License-Identifier: Apache-2.0
"""Every executor against the float64 definition: gradients of distances and neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from distance_cases import GRADIENT_TOLERANCE, METRICS, SMALL, assert_gradient, sets, weights_of
from sosie.reference import distance as reference

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("dtype", GRADIENT_TOLERANCE)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [*SMALL, (241, 33, 17), (5, 6, 600), (15, 257, 64)], ids=str)
def test_gradients(
    executor: Any, size: tuple[int, int, int], metric: str, weighted: bool, dtype: str
) -> None:
    a, b = (part.astype(dtype) for part in sets(*size, "spread", 2))
    weights = weights_of(size[2]) if weighted else None
    distances = executor.cdist_forward(a, b, metric, weights=weights)
    upstream = np.random.default_rng(3).standard_normal(distances.shape).astype(dtype)
    actual = executor.cdist_backward(a, b, upstream, distances, metric, weights=weights)
    expected = reference.cdist_backward(a, b, upstream, metric, weights=weights)
    for gradient, definition in zip(actual, expected, strict=True):
        assert gradient.dtype == dtype
        if metric == "cosine" and size[2] == 1:  # there are two directions, and no slope
            np.testing.assert_allclose(gradient, 0.0, atol=1e-5)
        else:
            assert_gradient(gradient, definition, GRADIENT_TOLERANCE[dtype])


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
def test_gradients_of_near_pairs(executor: Any, metric: str, weighted: bool) -> None:
    """Each vector's gradient is that of one partner, 0.001 away: a difference of large products."""
    if metric == "cosine":
        a, noise = (part.astype(np.float32) for part in sets(17, 17, 16))
        b = (a + 1e-3 * noise).astype(np.float32)
    else:
        a = sets(17, 1, 16, "far")[0].astype(np.float32)
        b = (a + 1e-3 * sets(17, 17, 16)[1]).astype(np.float32)
    weights = weights_of(16) if weighted else None
    upstream = np.eye(17, dtype=np.float32)[None]
    distances = executor.cdist_forward(a, b, metric, weights=weights)
    actual = executor.cdist_backward(a, b, upstream, distances, metric, weights=weights)
    expected = reference.cdist_backward(a, b, upstream, metric, weights=weights)
    for gradient, definition in zip(actual, expected, strict=True):
        assert_gradient(gradient, definition, 1e-4)


def test_gradients_where_there_is_no_slope_are_0(executor: Any) -> None:
    a, b = (part.astype(np.float32).copy() for part in sets(5, 7, 6))
    a[0, 1], b[0, 2] = 0.0, a[0, 0]
    for metric, zero in (("euclidean", (0, 2)), ("cosine", (1, 3))):
        distances = executor.cdist_forward(a, b, metric)
        upstream = np.zeros_like(distances)
        upstream[(0, *zero)] = 1.0
        for gradient in executor.cdist_backward(a, b, upstream, distances, metric):
            assert (gradient == 0.0).all()


@pytest.mark.parametrize("metric", METRICS)
def test_only_gradients_that_are_needed(executor: Any, metric: str) -> None:
    a, b = (part.astype(np.float32) for part in sets(17, 33, 17))
    distances = executor.cdist_forward(a, b, metric)
    upstream = np.ones_like(distances)
    grad_a, grad_b = executor.cdist_backward(a, b, upstream, distances, metric)
    only_a, none = executor.cdist_backward(a, b, upstream, distances, metric, need_b=False)
    assert none is None
    np.testing.assert_array_equal(only_a, grad_a)
    none, only_b = executor.cdist_backward(a, b, upstream, distances, metric, need_a=False)
    assert none is None
    np.testing.assert_array_equal(only_b, grad_b)


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_of_any_layout(executor: Any, metric: str) -> None:
    a, b = (part.astype(np.float32) for part in sets(17, 33, 17, "spread", 3))
    distances = executor.cdist_forward(a, b, metric)
    upstream = np.random.default_rng(1).standard_normal(distances.shape).astype(np.float32)
    expected = executor.cdist_backward(a, b, upstream, distances, metric)
    other_a, other_b = np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0), b[:, ::-1].copy()[:, ::-1]
    other_upstream = np.asfortranarray(upstream)
    actual = executor.cdist_backward(other_a, other_b, other_upstream, distances, metric)
    for gradient, dense in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(gradient, dense)
    upstream = np.broadcast_to(np.float32(0.5), upstream.shape)
    actual = executor.cdist_backward(a, b, upstream, distances, metric)
    expected = executor.cdist_backward(a, b, upstream.copy(), distances, metric)
    for gradient, dense in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(gradient, dense)


def test_gradients_of_a_broadcast_set(executor: Any) -> None:
    a, b = (part.astype(np.float32) for part in sets(7, 9, 5, "spread", 3))
    b = np.broadcast_to(b[:1], b.shape)
    distances = executor.cdist_forward(a, b, "euclidean")
    upstream = np.ones_like(distances)
    actual = executor.cdist_backward(a, b, upstream, distances, "euclidean")
    expected = reference.cdist_backward(a, b, upstream, "euclidean")
    for gradient, definition in zip(actual, expected, strict=True):
        assert_gradient(gradient, definition, GRADIENT_TOLERANCE["float32"])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [(1, 1, 2), (7, 17, 16), (241, 33, 3), (17, 33, 257)], ids=str)
def test_gradients_through_neighbours(
    executor: Any, size: tuple[int, int, int], metric: str, dtype: str
) -> None:
    queries, database = (part[0].astype(dtype) for part in sets(*size))
    distances, indices = executor.knn_forward(queries, database, min(5, size[1]), metric)
    upstream = np.random.default_rng(3).standard_normal(distances.shape).astype(distances.dtype)
    expected = reference.knn_backward(queries, database, upstream, indices, metric)
    arguments = (queries, database, upstream, distances, indices, metric)
    actual = executor.knn_backward(*arguments)
    # float16 is rounded to 11 bits, after everything else.
    tolerance = GRADIENT_TOLERANCE.get(dtype, 2.0**-10)
    for gradient, definition in zip(actual, expected, strict=True):
        assert gradient.dtype == dtype
        assert_gradient(gradient, definition, tolerance)
    only_queries, none = executor.knn_backward(*arguments, need_database=False)
    assert none is None
    np.testing.assert_array_equal(only_queries, actual[0])
    none, only_database = executor.knn_backward(*arguments, need_queries=False)
    assert none is None
    np.testing.assert_array_equal(only_database, actual[1])
