# SPDX-License-Identifier: Apache-2.0
"""Every executor of the distance family against the float64 definition: values, neighbours,
gradients; and the definition against SciPy.

Public functions are tested through each executor. Inputs are read-only: nothing may change them.
"""

from __future__ import annotations

import functools
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sosie
from executors import EXECUTORS, computing_by, one_thread
from sosie.reference import distance as reference

torch = pytest.importorskip("torch")

Array = Any

METRICS = ["euclidean", "sqeuclidean", "cosine"]

#: Relative errors of a distance. float64: sums of a few hundred positive numbers, 2^-53 each.
#: float32: what is promised; differences of 2^-24 and their sum leave a tenth of it.
TOLERANCE = {"float64": 1e-13, "float32": 2e-5}


# --- Executors ------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module of an executor, which public functions use too meanwhile, on one thread."""
    with one_thread(), computing_by(request.param) as module:
        yield module


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


# --- The definition -------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
def test_definition_equals_scipy(metric: str, weighted: bool) -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    (a,), (b,) = sets(33, 17, 64)
    weights = weights_of(64) if weighted else None
    options = {} if weights is None else {"w": weights}
    actual = reference.cdist_forward(a, b, metric, weights=weights)
    # SciPy subtracts the cosine from 1, which leaves an error of 2^-53 of 1.
    np.testing.assert_allclose(actual, distance.cdist(a, b, metric, **options), rtol=1e-13)


def test_definition_of_the_cosine_distance_holds_for_nearly_parallel_vectors() -> None:
    (a,), _ = sets(33, 1, 64)
    b = 3.0 * (a + 1e-4 * sets(33, 1, 64, "spread", 2)[0][1])
    x, y = a.astype(np.longdouble), b.astype(np.longdouble)
    similarity = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    actual = np.diagonal(reference.cdist_forward(a, b, "cosine"))
    # 1 - similarity is about 5e-9 and has an error of 2^-64, 1e-11 of it.
    np.testing.assert_allclose(actual, (1 - similarity).astype(float), rtol=1e-10)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
def test_definition_of_the_gradient_is_the_slope(metric: str, weighted: bool) -> None:
    a, b = (part.copy() for part in sets(4, 5, 3, batch=2))
    weights = weights_of(3) + 0.1 if weighted else None
    upstream = np.random.default_rng(0).standard_normal((2, 4, 5))
    gradients = reference.cdist_backward(a, b, upstream, metric, weights=weights)
    for array, gradient in zip((a, b), gradients, strict=True):
        for place in np.ndindex(array.shape):
            values = []
            for step in (1e-5, -1e-5):
                before = array[place]
                array[place] += step
                distances = reference.cdist_forward(a, b, metric, weights=weights)
                values.append((upstream * distances).sum())
                array[place] = before
            # A central difference: its own error is of the order of 1e-10.
            assert abs((values[0] - values[1]) / 2e-5 - gradient[place]) < 1e-8


# --- All pairs ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_distances(size: tuple[int, int, int], metric: str, weighted: bool, dtype: str) -> None:
    a, b = (part[0].astype(dtype) for part in sets(*size))
    weights = weights_of(size[2]) if weighted else None
    actual = sosie.cdist(a, b, metric, weights=weights)
    assert_distances(actual, expected_distances(size, metric, weighted, "spread")[0], metric, dtype)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
@pytest.mark.parametrize("size", SMALL, ids=str)
def test_near_pairs_far_from_the_origin(
    size: tuple[int, int, int], metric: str, weighted: bool, dtype: str
) -> None:
    a, b = (part[0].astype(dtype) for part in sets(*size, "far"))
    weights = weights_of(size[2]) if weighted else None
    expected = expected_distances(size, metric, weighted, "far")[0]
    factor = 2.0 if metric == "sqeuclidean" else 1.0
    assert_distances(sosie.cdist(a, b, metric, weights=weights), expected, metric, dtype, factor)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dims", [2, 17, 600])
@pytest.mark.parametrize("angle", [1e-1, 1e-2, 1e-3, 1e-5])
def test_nearly_parallel_vectors(angle: float, dims: int) -> None:
    a, noise = (part[0] for part in sets(16, 16, dims))
    scales = np.random.default_rng(0).random((16, 1)) * 100.0 + 0.01
    a, b = a.astype(np.float32), (scales * (a + angle * noise)).astype(np.float32)
    expected = reference.cdist_forward(a, b, "cosine")
    assert_distances(sosie.cdist(a, b, "cosine"), expected, "cosine", "float32")


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", SMALL, ids=str)
def test_equal_vectors_are_exactly_0_apart(
    size: tuple[int, int, int], metric: str, weighted: bool, dtype: str
) -> None:
    for kind in ("spread", "far"):
        x = sets(*size, kind)[1][0].astype(dtype)
        weights = weights_of(size[2]) if weighted else None
        distances = sosie.cdist(x, x.copy(), metric, weights=weights)
        has_length = (x * x if weights is None else weights * x * x).sum(1) > 0
        expected = np.where(has_length, 0.0, 1.0) if metric == "cosine" else 0.0
        assert (np.diagonal(distances) == expected).all()


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("metric", METRICS)
def test_scale_does_not_matter(metric: str, scale: float) -> None:
    a, b = ((part[0] * scale).astype(np.float32) for part in sets(7, 17, 16))
    expected = reference.cdist_forward(a, b, metric)
    assert_distances(sosie.cdist(a, b, metric), expected, metric, "float32")


@pytest.mark.usefixtures("executor")
def test_zero_vectors_have_the_cosine_0() -> None:
    a, b = (part[0].astype(np.float32).copy() for part in sets(7, 17, 16))
    a[2], b[3], b[16] = 0.0, 0.0, 0.0
    actual = sosie.cdist(a, b, "cosine")
    assert (actual[2] == 1.0).all()
    assert (actual[:, [3, 16]] == 1.0).all()
    assert_distances(actual, reference.cdist_forward(a, b, "cosine"), "cosine", "float32")
    weights = np.zeros(16)
    assert (sosie.cdist(a, b, "cosine", weights=weights) == 1.0).all()
    assert (sosie.cdist(a, b, "euclidean", weights=weights) == 0.0).all()


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("metric", METRICS)
def test_nan_stays_with_its_vector(metric: str, dtype: str) -> None:
    a, b = (part[0].astype(dtype).copy() for part in sets(17, 33, 17))
    a[5, 16], b[32, 0], a[6], b[7] = np.nan, np.nan, 0.0, 0.0
    actual = sosie.cdist(a, b, metric)
    assert np.isnan(actual[5]).all()
    assert np.isnan(actual[:, 32]).all()
    assert np.isnan(actual).sum() == 33 + 16
    assert_distances(actual, reference.cdist_forward(a, b, metric), metric, dtype)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_infinity_is_a_distance(metric: str) -> None:
    a, b = (part[0].astype(np.float32).copy() for part in sets(7, 9, 5))
    a[1, 2], b[3, 2], b[4, 2] = np.inf, -np.inf, np.inf
    actual = sosie.cdist(a, b, metric)
    expected = reference.cdist_forward(a, b, metric)
    assert np.isposinf(expected[1, 3])
    assert np.isnan(expected[1, 4])
    assert_distances(actual, expected, metric, "float32")


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
@pytest.mark.parametrize("metric", METRICS)
def test_narrow_dtypes_are_computed_in_float32(metric: str, dtype: str) -> None:
    a, b = (np.abs(40.0 * part[0]).astype(dtype) for part in sets(16, 33, 17))
    expected = reference.cdist_forward(a, b, metric)
    assert_distances(sosie.cdist(a, b, metric), expected, metric, "float32")
    distances, indices = sosie.knn(a, b, 3, metric)
    assert_neighbours(distances, indices, expected, metric, "float32")


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("metric", METRICS)
def test_bfloat16(metric: str) -> None:
    a, b = (torch.tensor(part[0]).bfloat16() for part in sets(16, 33, 17))
    expected = reference.cdist_forward(a.double().numpy(), b.double().numpy(), metric)
    assert_distances(sosie.cdist(a, b, metric).numpy(), expected, metric, "float32")
    distances, indices = sosie.knn(a, b, 3, metric)
    assert_neighbours(distances.numpy(), indices.numpy(), expected, metric, "float32")


def _misaligned(x: np.ndarray) -> np.ndarray:
    memory = np.empty(x.nbytes + 1, np.uint8)[1:]
    copy = memory.view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "columns first": np.asfortranarray,
    "every second": lambda x: np.repeat(np.repeat(x, 2, axis=-1), 3, axis=-2)[..., ::3, ::2],
    "flipped": lambda x: x[..., ::-1, ::-1].copy()[..., ::-1, ::-1],
    "cropped": lambda x: np.pad(x, ((2, 1), (1, 3)))[2:-1, 1:-3],
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "misaligned": _misaligned,
    "subclass": lambda x: x.view(type("Subclass", (np.ndarray,), {})),
}


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("metric", METRICS)
def test_layout_does_not_matter(metric: str, layout: str) -> None:
    a, b = (part[0].astype(np.float32) for part in sets(17, 33, 17))
    other_a, other_b = (frozen(LAYOUTS[layout](part)) for part in (a, b))
    expected = sosie.cdist(a, b, metric)
    np.testing.assert_array_equal(sosie.cdist(other_a, other_b, metric), expected)
    found = sosie.knn(other_a, other_b, 5, metric)
    for actual, dense in zip(found, sosie.knn(a, b, 5, metric), strict=True):
        np.testing.assert_array_equal(actual, dense)


BATCHES = [
    ((3,), (3,)), ((3,), ()), ((), (3,)), ((1,), (3,)), ((2, 3), (3,)), ((2, 3), (2, 3)),
    ((2, 1), (1, 3)), ((2, 1, 3), (4, 1)), ((2, 3), ()), ((), (1, 1)), ((0,), ()), ((2, 0), (0,)),
]  # fmt: skip


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("batches", BATCHES, ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_batches_broadcast(metric: str, batches: tuple[Any, Any]) -> None:
    generator = np.random.default_rng(seed_of(batches))
    a = frozen(generator.standard_normal((*batches[0], 7, 5)))
    b = frozen(generator.standard_normal((*batches[1], 9, 5)))
    expected = reference.cdist_forward(a, b, metric)
    assert_distances(sosie.cdist(a, b, metric), expected, metric, "float64")
    # Batch axes that no single stride walks over.
    moved = np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0)
    assert_distances(sosie.cdist(moved, b, metric), expected, metric, "float64")
    if batches[1] == ():
        packed = sosie.pack(b, metric)
        assert_distances(sosie.cdist(a, packed, metric), expected, metric, "float64")
        assert_distances(sosie.cdist(moved, packed, metric), expected, metric, "float64")


@pytest.mark.usefixtures("executor")
def test_broadcast_sets_are_not_copied() -> None:
    (a,), (b,) = sets(5, 6, 2)
    wide = np.broadcast_to(a[0], (1 << 40, 2))[:7]
    np.testing.assert_array_equal(sosie.cdist(wide, b), np.tile(sosie.cdist(a[:1], b), (7, 1)))


@pytest.mark.usefixtures("executor")
def test_empty_sets() -> None:
    empty, some = np.empty((0, 3), np.float32), np.ones((4, 3), np.float32)
    for metric in METRICS:
        assert sosie.cdist(empty, some, metric).shape == (0, 4)
        assert sosie.cdist(some, empty, metric).shape == (4, 0)
        assert sosie.cdist(empty, empty, metric).dtype == np.float32
        assert sosie.cdist(empty, sosie.pack(some, metric), metric).shape == (0, 4)
        distances, indices = sosie.knn(empty, some, 2, metric)
        assert distances.shape == indices.shape == (0, 2)
        assert indices.dtype == np.int64
        with pytest.raises(ValueError, match="at most the 0 vectors of the database, got 1"):
            sosie.knn(some, empty, 1, metric)


@pytest.mark.usefixtures("executor")
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
def test_distances_equal_scipy(metric: str, weighted: bool) -> None:
    distance = pytest.importorskip("scipy.spatial.distance")
    a, b = (part[0] for part in sets(33, 17, 64))
    weights = weights_of(64) if weighted else None
    options = {} if weights is None else {"w": weights}
    actual = sosie.cdist(a, b, metric, weights=weights)
    np.testing.assert_allclose(actual, distance.cdist(a, b, metric, **options), rtol=1e-13)


@pytest.mark.usefixtures("executor")
def test_weights_may_be_a_sequence() -> None:
    a, b = (part[0] for part in sets(6, 5, 3))
    expected = sosie.cdist(a, b, weights=np.array([1.0, 0.0, 2.0]))
    np.testing.assert_array_equal(sosie.cdist(a, b, weights=[1, 0, 2]), expected)
    np.testing.assert_array_equal(sosie.cdist(a[:, ::2], b[:, ::2], weights=(1, 2)), expected)


@pytest.mark.usefixtures("executor")
@settings(max_examples=60)
@given(data=st.data())
def test_random_problems(data: st.DataObject) -> None:
    metric = data.draw(st.sampled_from(METRICS))
    dtype = data.draw(st.sampled_from(list(TOLERANCE)))
    batch, rows, columns = (data.draw(st.integers(1, most)) for most in (3, 40, 40))
    dims = data.draw(st.integers(1, 70))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    offset = data.draw(st.sampled_from([0.0, 10.0, 1000.0])) if metric != "cosine" else 0.0
    a = offset + generator.standard_normal((batch, rows, dims))
    b = offset + generator.standard_normal(
        (1 if data.draw(st.booleans()) else batch, columns, dims)
    )
    b[..., 0, :] = a[0, 0]
    a, b = frozen(a.astype(dtype)), frozen(b.astype(dtype))
    weights = generator.random(dims) if data.draw(st.booleans()) else None
    expected = reference.cdist_forward(a, b, metric, weights=weights)
    assert_distances(sosie.cdist(a, b, metric, weights=weights), expected, metric, dtype, 2.0)
    k = data.draw(st.integers(1, columns))
    distances, indices = sosie.knn(a[0], b[0], k, metric)
    expected = reference.cdist_forward(a[0], b[0], metric)
    assert_neighbours(distances, indices, expected, metric, dtype)


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


@pytest.mark.usefixtures("executor")
def test_packed_sets_serve_every_executor() -> None:
    a, b = (part[0] for part in sets(7, 17, 16))
    packed = sosie.pack(b)
    for name in {other.partition("-")[0] for other in EXECUTORS}:
        with sosie.use_backend(name):
            assert_distances(
                sosie.cdist(a, packed), reference.cdist_forward(a, b), "euclidean", "float64"
            )


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


# --- Threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("metric", METRICS)
def test_bits_do_not_depend_on_the_number_of_threads(
    executor: Any, metric: str, dtype: str
) -> None:
    a, b = (part.astype(dtype) for part in sets(530, 270, 17, "spread", 2))
    upstream = np.random.default_rng(1).standard_normal((2, 530, 270)).astype(dtype)

    def everything(threads: int) -> list[Array]:
        distances = executor.cdist_forward(a, b, metric, threads=threads)
        gradients = executor.cdist_backward(a, b, upstream, distances, metric, threads=threads)
        near, indices = executor.knn_forward(a[0], b[0], 7, metric, threads=threads)
        few, few_indices = executor.knn_forward(a[0, :3], b[0], 7, metric, threads=threads)
        through = executor.knn_backward(
            a[0], b[0], upstream[0, :, :7], near, indices, metric, threads=threads
        )
        return [distances, *gradients, near, indices, few, few_indices, *through]

    if executor.__name__.endswith("reference"):
        pytest.skip("the definition has one thread")
    expected = everything(1)
    for threads in (2, 3, 7):
        for actual, one in zip(everything(threads), expected, strict=True):
            np.testing.assert_array_equal(actual, one)


# --- What is refused ------------------------------------------------------------------------------

X, Y = np.zeros((4, 3), np.float32), np.zeros((5, 3), np.float32)

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "metric": (
        lambda: sosie.cdist(X, Y, "euclidian"),
        ValueError,
        "expected a metric out of 'euclidean', 'sqeuclidean', 'cosine', got 'euclidian'; "
        "did you mean 'euclidean' or 'sqeuclidean'?",
    ),
    "metric of knn": (lambda: sosie.knn(X, Y, 1, "cosin"), ValueError, "did you mean 'cosine'?"),
    "metric of pack": (lambda: sosie.pack(Y, "xyz"), ValueError, "'cosine', got 'xyz'"),
    "library": (
        lambda: sosie.cdist(X, torch.zeros(5, 3)),
        TypeError,
        "expected a and b of one array library, got numpy.ndarray and torch.Tensor",
    ),
    "library of tensors": (
        lambda: sosie.knn(torch.zeros(5, 3), Y, 1),
        TypeError,
        "expected queries and database of one array library, got torch.Tensor and numpy.ndarray",
    ),
    "list": (lambda: sosie.cdist([[1.0]], Y), TypeError, "got builtins.list"),
    "dtype": (
        lambda: sosie.cdist(X, Y.astype(float)),
        TypeError,
        "expected a and b of equal dtype, got float32 and float64",
    ),
    "dtype of knn": (
        lambda: sosie.knn(X, Y.astype(np.uint8), 1),
        TypeError,
        "expected queries and database of equal dtype, got float32 and uint8",
    ),
    "integers": (
        lambda: sosie.cdist(X.astype(int), Y.astype(int)), TypeError, "float64, got int64",
    ),
    "complex": (lambda: sosie.pack(Y.astype(complex)), TypeError, "float64, got complex128"),
    "one vector": (
        lambda: sosie.cdist(X[0], Y),
        ValueError,
        "expected a and b of shapes (..., N, D) and (..., M, D), got (3,) and (5, 3)",
    ),
    "dimensions": (
        lambda: sosie.cdist(X, Y[:, :2]),
        ValueError,
        "expected vectors of equally many dimensions, at least one, got (4, 3) and (5, 2)",
    ),
    "no dimension": (
        lambda: sosie.cdist(X[:, :0], Y[:, :0]),
        ValueError,
        "expected vectors of equally many dimensions, at least one, got (4, 0) and (5, 0)",
    ),
    "batches": (
        lambda: sosie.cdist(np.zeros((2, 4, 3)), np.zeros((3, 5, 3))),
        ValueError,
        "expected leading axes of a and b that broadcast, got (2, 4, 3) and (3, 5, 3)",
    ),
    "memory": (
        lambda: sosie.cdist(*(np.broadcast_to(X[:1], (1 << 31, 3)),) * 2),
        ValueError,
        "expected a result that memory can address, got shape (2147483648, 2147483648)",
    ),
    "negative weight": (
        lambda: sosie.cdist(X, Y, weights=[1.0, -2.0, 1.0]),
        ValueError,
        "expected finite weights of at least 0, got -2.0",
    ),
    "infinite weight": (
        lambda: sosie.cdist(X, Y, weights=[1.0, np.inf, 1.0]), ValueError, "at least 0, got inf",
    ),
    "weight that is none": (
        lambda: sosie.cdist(X, Y, weights=[np.nan, 1.0, 1.0]), ValueError, "at least 0, got nan",
    ),
    "weights' shape": (
        lambda: sosie.cdist(X, Y, weights=np.ones((1, 3))),
        ValueError,
        "expected weights of shape (3,), one per dimension, got (1, 3)",
    ),
    "weights' library": (
        lambda: sosie.cdist(X, Y, weights=torch.ones(3)),
        TypeError,
        "expected weights of the vectors' library, got a torch tensor",
    ),
    "queries": (
        lambda: sosie.knn(X[None], Y, 1),
        ValueError,
        "expected queries and database of shapes (N, D) and (M, D), got (1, 4, 3) and (5, 3)",
    ),
    "dimensions of knn": (
        lambda: sosie.knn(X[:, :1], Y, 1), ValueError, "at least one, got (4, 1) and (5, 3)",
    ),
    "k is 0": (
        lambda: sosie.knn(X, Y, 0),
        ValueError,
        "expected k from 1 to 1024 and at most the 5 vectors of the database, got 0",
    ),
    "k beyond the database": (lambda: sosie.knn(X, Y, 6), ValueError, "database, got 6"),
    "k beyond the others": (
        lambda: sosie.knn(X, Y, 5, exclude_self=True),
        ValueError,
        "at most the 4 vectors other than the query itself, got 5",
    ),
    "k beyond what is kept": (
        lambda: sosie.knn(X, np.zeros((2000, 3), np.float32), 1025), ValueError, "got 1025",
    ),
    "k of another kind": (
        lambda: sosie.knn(X, Y, 2.5),
        TypeError,
        "expected k to be a whole number, got 2.5",
    ),
    "more queries than vectors": (
        lambda: sosie.knn(Y, X, 1, exclude_self=True),
        ValueError,
        "expected no more queries than vectors in the database with exclude_self: "
        "query i is vector i; got (5, 3) and (4, 3)",
    ),
    "packed for another metric": (
        lambda: sosie.knn(X, sosie.pack(Y, "cosine"), 1),
        ValueError,
        "expected a set packed for the metric 'euclidean', got one for 'cosine'",
    ),
    "packed for another metric, cdist": (
        lambda: sosie.cdist(X, sosie.pack(Y), "sqeuclidean"), ValueError, "got one for 'euclidean'",
    ),
    "weights with a packed set": (
        lambda: sosie.cdist(X, sosie.pack(Y), weights=[1, 1, 1]),
        ValueError,
        "expected no weights with packed vectors",
    ),
    "packed of another dtype": (
        lambda: sosie.cdist(X.astype(float), sosie.pack(Y)),
        TypeError,
        "expected a and b of equal dtype, got float64 and float32",
    ),
    "packed of another library": (
        lambda: sosie.knn(torch.zeros(4, 3), sosie.pack(Y), 1),
        TypeError,
        "expected queries and database of one array library",
    ),
    "packed batches": (
        lambda: sosie.pack(Y[None]),
        ValueError,
        "expected a database of shape (vectors, dimensions) with at least one dimension, "
        "got (1, 5, 3)",
    ),
    "packed without dimensions": (
        lambda: sosie.pack(Y[:, :0]), ValueError, "with at least one dimension, got (5, 0)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_sentence(name: str) -> None:
    call, kind, sentence = REFUSED[name]
    with sosie.use_backend("reference"), pytest.raises(kind) as caught:
        call()
    assert sentence in str(caught.value)
