# SPDX-License-Identifier: Apache-2.0
"""Every executor of the distance family against the float64 definition: distances of
all pairs; and the definition against SciPy.

Public functions are tested through each executor. Inputs are read-only: nothing may change them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sosie
from distance_cases import (
    METRICS,
    SIZES,
    SMALL,
    TOLERANCE,
    Array,
    assert_distances,
    assert_neighbours,
    expected_distances,
    frozen,
    seed_of,
    sets,
    weights_of,
)
from sosie.reference import distance as reference

torch = pytest.importorskip("torch")


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
