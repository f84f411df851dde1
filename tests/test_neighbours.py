# SPDX-License-Identifier: Apache-2.0
"""Every executor against the float64 definition: nearest neighbours, and sets that were packed."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import sosie
from distance_cases import (
    METRICS,
    SIZES,
    SMALL,
    TOLERANCE,
    assert_distances,
    assert_neighbours,
    expected_distances,
    frozen,
    sets,
)
from executors import EXECUTORS, computing_by
from sosie.reference import distance as reference

torch = pytest.importorskip("torch")


# --- Nearest neighbours ---------------------------------------------------------------------------


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_neighbours(size: tuple[int, int, int], metric: str, dtype: str) -> None:
    queries, database = (part[0].astype(dtype) for part in sets(*size))
    all_distances = expected_distances(size, metric, False, "spread")[0]
    for k in sorted({1, min(10, size[1]), size[1]}):
        found = sosie.knn(queries, database, k, metric)
        assert_neighbours(found.distances, found.indices, all_distances, metric, dtype)
        if dtype == "float64" and (metric != "cosine" or size[2] > 1):  # no ties but at 0 and 2
            expected = np.argsort(all_distances, axis=1, kind="stable")[:, :k]
            np.testing.assert_array_equal(found.indices, expected)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_near_neighbours_far_from_the_origin(metric: str) -> None:
    queries, database = (part[0].astype(np.float32) for part in sets(33, 241, 17, "far"))
    all_distances = reference.cdist_forward(queries, database, metric)
    distances, indices = sosie.knn(queries, database, 5, metric)
    assert_neighbours(distances, indices, all_distances, metric, "float32")
    # Gaps between neighbours are far larger than what rounding can do.
    expected = np.argsort(all_distances, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(indices, expected)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("exclude_self", [False, True], ids=["all", "others"])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("columns", [17, 257, 601])
def test_ties_go_to_the_lower_index(
    columns: int, metric: str, exclude_self: bool, dtype: str
) -> None:
    """Small whole numbers have exact distances in any dtype, and the same ones many times."""
    generator = np.random.default_rng(columns)
    database = frozen(generator.integers(0, 3, (columns, 3)).astype(dtype))
    queries = database[:13]
    for k in (1, 7, columns - exclude_self):
        expected = reference.knn_forward(queries, database, k, metric, exclude_self=exclude_self)
        actual = sosie.knn(queries, database, k, metric, exclude_self=exclude_self)
        np.testing.assert_array_equal(actual.indices, expected[1])
        np.testing.assert_allclose(actual.distances, expected[0], rtol=1e-7)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [(1, 2, 1), (6, 7, 3), (17, 17, 16), (241, 257, 7)], ids=str)
def test_others_than_itself(size: tuple[int, int, int], metric: str, dtype: str) -> None:
    database = sets(*size)[1][0].astype(dtype)
    queries = database[: size[0]]
    all_distances = reference.cdist_forward(queries, database, metric)
    np.fill_diagonal(all_distances, np.nan)
    for k in (1, size[1] - 1):
        distances, indices = sosie.knn(queries, database, k, metric, exclude_self=True)
        assert (indices != np.arange(size[0])[:, None]).all()
        assert_neighbours(distances, indices, all_distances, metric, dtype)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("exclude_self", [False, True], ids=["all", "others"])
@pytest.mark.parametrize("metric", METRICS)
def test_nan_is_no_neighbour_unless_nothing_else_is_left(metric: str, exclude_self: bool) -> None:
    database = sets(17, 33, 17)[1][0].copy()
    database[[0, 2, 3, 30], [16, 0, 7, 8]] = np.nan
    if metric != "cosine":
        database[[5, 31], 1] = np.inf
    database = frozen(database)
    queries = database[:9]
    for k in (3, 29, 30, 32):
        expected = reference.knn_forward(queries, database, k, metric, exclude_self=exclude_self)
        actual = sosie.knn(queries, database, k, metric, exclude_self=exclude_self)
        np.testing.assert_array_equal(actual.indices, expected[1])
        assert_distances(actual.distances, expected[0], metric, "float64")
    assert np.isnan(actual.distances[1]).sum() == 32 - (29 - exclude_self)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("exclude_self", [False, True], ids=["all", "others"])
def test_queries_with_nan_get_the_first_indices(exclude_self: bool) -> None:
    queries = np.full((3, 4), np.nan, np.float32)
    database = sets(6, 5, 4)[1][0].astype(np.float32)
    distances, indices = sosie.knn(queries, database, 4, exclude_self=exclude_self)
    assert np.isnan(distances).all()
    expected = [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 3, 4]] if exclude_self else [[0, 1, 2, 3]] * 3
    assert indices.tolist() == expected


@pytest.mark.usefixtures("executor")
def test_many_neighbours() -> None:
    queries, database = (part[0].astype(np.float32) for part in sets(7, 1500, 4))
    distances, indices = sosie.knn(queries, database, 1024)
    all_distances = reference.cdist_forward(queries, database)
    assert_neighbours(distances, indices, all_distances, "euclidean", "float32")


def test_the_matrix_is_never_formed(executor: Any) -> None:
    if executor.__name__.endswith("reference"):
        pytest.skip("the definition is allowed to")
    x = sets(3000, 1, 2)[0][0].astype(np.float32)
    sosie.knn(x[:10], x, 3)  # compiled
    tracemalloc.start()
    sosie.knn(x, x, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 4 / 4


# --- Packed sets ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", SMALL, ids=str)
def test_packed_sets_give_the_same_bits(
    size: tuple[int, int, int], metric: str, dtype: str
) -> None:
    a, b = (np.abs(20.0 * part[0]).astype(dtype) for part in sets(*size))
    packed = sosie.pack(b, metric)
    np.testing.assert_array_equal(sosie.cdist(a, packed, metric), sosie.cdist(a, b, metric))
    k = min(5, size[1])
    for _ in range(2):
        actual, expected = sosie.knn(a, packed, k, metric), sosie.knn(a, b, k, metric)
        np.testing.assert_array_equal(actual.distances, expected.distances)
        np.testing.assert_array_equal(actual.indices, expected.indices)
    if size[0] < size[1]:
        k = min(5, size[1] - 1)
        actual = sosie.knn(a, packed, k, metric, exclude_self=True)
        expected = sosie.knn(a, b, k, metric, exclude_self=True)
        np.testing.assert_array_equal(actual.indices, expected.indices)


@pytest.mark.usefixtures("executor")
def test_packed_sets_say_what_they_are() -> None:
    packed = sosie.pack(np.zeros((17, 3), np.float32), "cosine")
    assert isinstance(packed, sosie.PackedVectors)
    assert (packed.shape, packed.dtype, packed.metric) == ((17, 3), np.float32, "cosine")
    assert packed.nbytes >= 17 * 3 * 4
    assert repr(packed) == (
        f"PackedVectors(shape=(17, 3), dtype=float32, metric='cosine', nbytes={packed.nbytes})"
    )


NATIVE = [name for name in EXECUTORS if name.startswith("native")]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("packed_by", NATIVE)
def test_packed_sets_keep_the_kernels_that_they_were_laid_out_for(
    packed_by: str, dtype: str
) -> None:
    """Their panels are as wide as an instruction set's vectors, whichever is selected later."""
    a, b = (part[0].astype(dtype) for part in sets(33, 241, 17))
    with computing_by(packed_by):
        packed = sosie.pack(b)
        expected, nearest = sosie.cdist(a, packed), sosie.knn(a, packed, 5)
    for name in NATIVE:
        with computing_by(name):
            np.testing.assert_array_equal(sosie.cdist(a, packed), expected)
            np.testing.assert_array_equal(sosie.knn(a, packed, 5).indices, nearest.indices)


@pytest.mark.usefixtures("executor")
def test_packed_sets_serve_every_executor() -> None:
    a, b = (part[0] for part in sets(7, 17, 16))
    packed = sosie.pack(b)
    for name in {other.partition("-")[0] for other in EXECUTORS}:
        with sosie.use_backend(name):
            assert_distances(
                sosie.cdist(a, packed), reference.cdist_forward(a, b), "euclidean", "float64"
            )
