# SPDX-License-Identifier: Apache-2.0
"""Distances between sets of vectors by the CUDA kernels: on the emulator, and on devices if any.

Values are those of the float64 definition. The fixture `device` chooses what computes, all else is
the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import fake_cupy
import sosie
from distance_cases import (
    GRADIENT_TOLERANCE,
    METRICS,
    assert_distances,
    assert_gradient,
    assert_neighbours,
    expected_distances,
    sets,
    weights_of,
)
from emulator import emulated, fetch, needs_emulator
from sosie import arrays
from sosie.backends import cuda
from sosie.backends.cuda import distance_sets as plan
from sosie.reference import distance as reference

Array = Any

# Tiles are 128 x 128 in steps of 16 dimensions; more than 32 are multiplied.
DIRECT = [(1, 1, 1), (5, 6, 2), (129, 7, 3), (7, 260, 16), (131, 129, 17), (3, 40, 32)]
MULTIPLIED = [(1, 300, 33), (66, 132, 40), (10, 256, 257)]


@contextmanager
def small_products() -> Iterator[None]:
    """Everything is multiplied, in parts of at most 64 x 128 distances."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "_SHORT", 0)
        patch.setattr(plan, "_PRODUCT_TILES", 1)
        patch.setattr(plan, "_PRODUCT_ROWS", 64)
        patch.setattr(plan, "_PRODUCT_BYTES", 64 * 128 * 4)
        yield


def clusters(rows: int, columns: int, dims: int) -> tuple[Array, Array]:
    """Two float32 sets around five centres, far from the origin: a fifth of the pairs are near."""
    generator = np.random.default_rng(rows)
    centres = 100.0 + generator.standard_normal((5, dims))
    a, b = (
        (centres[generator.integers(5, size=n)] + 0.01 * generator.standard_normal((n, dims)))
        for n in (rows, columns)
    )
    b[: min(rows, columns) : 7] = a[: min(rows, columns) : 7]
    return a.astype(np.float32), b.astype(np.float32)


# --- All pairs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", DIRECT, ids=str)
def test_direct(device: Any, size: Any, metric: str, weighted: bool, dtype: str) -> None:
    a, b = (device(part[0].astype(dtype)) for part in sets(*size))
    weights = device(weights_of(size[2]).copy()) if weighted else None
    actual = fetch(cuda.cdist_forward(a, b, metric, weights=weights))[0]
    assert_distances(actual, expected_distances(size, metric, weighted, "spread")[0], metric, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", MULTIPLIED, ids=str)
def test_multiplied(device: Any, size: Any, metric: str, weighted: bool, dtype: str) -> None:
    a, b = (device(part[0].astype(dtype)) for part in sets(*size))
    weights = device(weights_of(size[2]).copy()) if weighted else None
    with small_products():
        actual = fetch(cuda.cdist_forward(a, b, metric, weights=weights))[0]
    assert_distances(actual, expected_distances(size, metric, weighted, "spread")[0], metric, dtype)


@pytest.mark.parametrize("multiplied", [False, True], ids=["direct", "multiplied"])
@pytest.mark.parametrize("metric", METRICS)
def test_near_pairs_far_from_the_origin(device: Any, metric: str, multiplied: bool) -> None:
    """Where products leave no digit: some pairs of a tile, all of them, and equal vectors."""
    for a, b in (clusters(66, 140, 40), [part[0].astype("f4") for part in sets(65, 70, 40, "far")]):
        with small_products() if multiplied else pytest.MonkeyPatch.context():
            actual = fetch(cuda.cdist_forward(device(a), device(b), metric))[0]
        expected = reference.cdist_forward(a, b, metric)
        assert_distances(actual, expected, metric, "float32", 2.0)
        assert (actual[expected == 0.0] == 0.0).all()
        assert (expected == 0.0).any() == (len(b) == 140)


def _one_after_another(a: Array, b: Array, out: Array) -> None:
    """The product as a device without blocking would sum it: a rounding per dimension."""
    total = np.zeros(out.shape, np.float32)
    for k in range(a.shape[1]):
        total += a[:, k, None] * b[:, k]
    out[...] = total


def _in_tf32(a: Array, b: Array, out: Array) -> None:
    """The product of factors that were cut to 10 bits."""
    cut = np.uint32(0xFFFFE000)
    np.matmul((a.view(np.uint32) & cut).view("f4"), (b.view(np.uint32) & cut).view("f4").T, out=out)


@needs_emulator
@pytest.mark.parametrize("product", [_one_after_another, _in_tf32])
@pytest.mark.parametrize("dims", [40, 1500])
def test_what_a_product_rounds(monkeypatch: Any, product: Any, dims: int) -> None:
    """Without TF32 all distances are as promised. With it near ones are; and neighbours are."""
    library = arrays._adapters[np.ndarray]
    monkeypatch.setattr(library, "product", product)
    monkeypatch.setattr(library, "product_uses_tf32", lambda: product is _in_tf32)
    a, b = clusters(40, 130, dims)
    expected = reference.cdist_forward(a, b, "euclidean")
    with emulated(), small_products():
        actual = cuda.cdist_forward(a, b, "euclidean")[0]
        distances, indices = cuda.knn_forward(a, b, 9, "euclidean")
    near = expected < 1.0
    assert 0.1 < near.mean() < 0.5
    assert_distances(actual[near], expected[near], "euclidean", "float32")
    # Far pairs: half of what is cut off two factors, over half the sum of squares.
    np.testing.assert_allclose(actual, expected, rtol=2.0**-9 if product is _in_tf32 else 2e-5)
    assert_neighbours(distances, indices, expected, "euclidean", "float32")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16"])
@pytest.mark.parametrize("metric", METRICS)
def test_narrow_dtypes(device: Any, metric: str, dtype: str) -> None:
    a, b = (np.abs(40.0 * part[0]).astype(dtype) for part in sets(20, 140, 9))
    expected = reference.cdist_forward(a, b, metric)
    assert_distances(
        fetch(cuda.cdist_forward(device(a), device(b), metric))[0], expected, metric, "float32"
    )
    with small_products():
        actual = fetch(cuda.cdist_forward(device(a), device(b), metric))[0]
    assert_distances(actual, expected, metric, "float32")


@needs_emulator
@pytest.mark.parametrize("multiplied", [False, True], ids=["direct", "multiplied"])
def test_layouts_and_batches(multiplied: bool) -> None:
    """Any strides, backwards too, which torch has not; a broadcast set is not spread out."""
    a, b = (part.astype(np.float32) for part in sets(20, 140, 9, "spread", 3))
    expected = reference.cdist_forward(a, b[:1])
    strided = np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0)[:, :, ::-1]
    broadcast = np.broadcast_to(b[:1, :, ::-1].copy(), b.shape)
    with emulated() as emulator, small_products() if multiplied else emulated():
        actual = sosie.cdist(strided, broadcast)
        assert_distances(actual, expected, "euclidean", "float32")
        cosine = sosie.cdist(strided, broadcast, "cosine")
    assert_distances(cosine, reference.cdist_forward(a, b[:1], "cosine"), "cosine", "float32")
    if multiplied:  # the rows of the one set were prepared once, those of the others in one part
        assert emulator.launched.count("distance_centre<float>") == 1
        assert emulator.launched.count("distance_rows<float>") == 2 * (1 + 3)


@pytest.mark.parametrize("multiplied", [False, True], ids=["direct", "multiplied"])
@pytest.mark.parametrize("metric", METRICS)
def test_nan_infinity_and_zero(device: Any, metric: str, multiplied: bool) -> None:
    a, b = (part[0].astype(np.float32).copy() for part in sets(17, 133, 17))
    a[5, 16], b[132, 0], a[6], b[7] = np.nan, np.nan, 0.0, 0.0
    if metric != "cosine":
        a[3, 2], b[9, 3] = np.inf, -np.inf
    with small_products() if multiplied else pytest.MonkeyPatch.context():
        actual = fetch(cuda.cdist_forward(device(a), device(b), metric))[0]
    assert_distances(actual, reference.cdist_forward(a, b, metric), metric, "float32")


def test_weights_that_are_not_allowed_make_distances_nan(device: Any) -> None:
    a, b = (device(part[0].astype(np.float32)) for part in sets(5, 6, 2))
    for wrong in (-1.0, np.inf, np.nan):
        weights = device(np.array([1.0, wrong]))
        for metric in METRICS:
            assert np.isnan(fetch(cuda.cdist_forward(a, b, metric, weights=weights))).all()


def test_empty_sets(device: Any) -> None:
    a, b = device(np.ones((0, 3), np.float32)), device(np.ones((4, 3), np.float32))
    for metric in METRICS:
        assert fetch(cuda.cdist_forward(a, b, metric)).shape == (1, 0, 4)
        distances = cuda.cdist_forward(b, a, metric)
        gradients = cuda.cdist_backward(b[None], a[None], distances, distances, metric)
        np.testing.assert_array_equal(fetch(gradients[0]), np.zeros((1, 4, 3)))
        assert fetch(gradients[1]).shape == (1, 0, 3)
        assert fetch(cuda.knn_forward(a, b, 2, metric)[1]).shape == (0, 2)


# --- Neighbours -----------------------------------------------------------------------------------


@pytest.mark.parametrize("multiplied", [False, True], ids=["direct", "multiplied"])
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours(device: Any, metric: str, multiplied: bool) -> None:
    """Few rows share their columns among warps; lists go on from part to part."""
    for size, k in (((1, 1500, 3), 33), ((66, 140, 40), 5), ((3, 70, 33), 70)):
        dtype = "float64" if k == 5 else "float32"
        a, b = (part[0].astype(dtype) for part in sets(*size))
        expected = expected_distances(size, metric, False, "spread")[0]
        with small_products() if multiplied else pytest.MonkeyPatch.context():
            distances, indices = cuda.knn_forward(device(a), device(b), k, metric)
        assert_neighbours(fetch(distances), fetch(indices), expected, metric, dtype)


@pytest.mark.parametrize("multiplied", [False, True], ids=["direct", "multiplied"])
@pytest.mark.parametrize("exclude_self", [False, True], ids=["all", "others"])
def test_ties_go_to_the_lower_index(device: Any, exclude_self: bool, multiplied: bool) -> None:
    """Small whole numbers have exact distances, and the same ones many times."""
    database = np.random.default_rng(0).integers(0, 3, (301, 3)).astype(np.float32)
    with small_products() if multiplied else pytest.MonkeyPatch.context():
        for k in (1, 40):
            found = cuda.knn_forward(
                device(database[:5]), device(database), k, "euclidean", exclude_self=exclude_self
            )
            wanted = reference.knn_forward(database[:5], database, k, exclude_self=exclude_self)
            np.testing.assert_array_equal(fetch(found[1]), wanted[1])
            np.testing.assert_allclose(fetch(found[0]), wanted[0], rtol=1e-7)


@pytest.mark.parametrize("multiplied", [False, True], ids=["direct", "multiplied"])
@pytest.mark.parametrize("metric", METRICS)
def test_nan_is_no_neighbour_unless_nothing_else_is_left(
    device: Any, metric: str, multiplied: bool
) -> None:
    database = sets(17, 33, 17)[1][0].copy()
    database[[0, 2, 3, 30], [16, 0, 7, 8]] = np.nan
    if metric != "cosine":
        database[[5, 31], 1] = np.inf
    with small_products() if multiplied else pytest.MonkeyPatch.context():
        for k in (3, 29, 32):
            found = cuda.knn_forward(
                device(database[:9]), device(database), k, metric, exclude_self=True
            )
            wanted = reference.knn_forward(database[:9], database, k, metric, exclude_self=True)
            np.testing.assert_array_equal(fetch(found[1]), wanted[1])
            assert_distances(fetch(found[0]), wanted[0], metric, "float64")


def test_most_neighbours(device: Any) -> None:
    queries, database = (part[0].astype(np.float32) for part in sets(1, 1100, 4))
    distances, indices = cuda.knn_forward(device(queries), device(database), 1024, "euclidean")
    expected = reference.cdist_forward(queries, database)
    assert_neighbours(fetch(distances), fetch(indices), expected, "euclidean", "float32")


@pytest.mark.parametrize("metric", METRICS)
def test_packed_sets_give_the_same_bits(device: Any, metric: str) -> None:
    queries, database = (device(part[0].astype(np.float32)) for part in sets(66, 140, 40))
    with small_products():
        packed = cuda.pack_vectors(database, metric)
        assert packed.nbytes > 140 * 40 * 4
        for given in (cuda.cdist_forward, lambda *a: cuda.knn_forward(a[0], a[1], 7, a[2])[0]):
            plain = given(queries, database, metric)
            np.testing.assert_array_equal(fetch(given(queries, packed, metric)), fetch(plain))


def test_memory_stays_below_the_matrix(device: Any, monkeypatch: Any) -> None:
    allocated = []
    library = arrays.adapter(device(np.zeros(1)))
    empty = library.empty

    def recorded(like: Array, shape: Any, dtype: str) -> Array:
        allocated.append(int(np.prod(shape)))
        return empty(like, shape, dtype)

    monkeypatch.setattr(library, "empty", recorded)
    queries, database = (device(part[0].astype(np.float32)) for part in sets(200, 300, 5))
    with small_products():
        cuda.knn_forward(queries, database, 3, "euclidean")
    assert max(allocated) <= 64 * 128
    assert sum(allocated) < 200 * 300 / 2


# --- Gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", GRADIENT_TOLERANCE)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [(1, 1, 2), (70, 33, 5), (3, 1100, 20), (3, 4, 70)], ids=str)
def test_gradients(device: Any, size: Any, metric: str, weighted: bool, dtype: str) -> None:
    a, b = (part.astype(dtype) for part in sets(*size, "spread", 2))
    weights = weights_of(size[2]).copy() if weighted else None
    given = None if weights is None else device(weights)
    distances = cuda.cdist_forward(device(a), device(b), metric, weights=given)
    upstream = np.random.default_rng(3).standard_normal(tuple(distances.shape)).astype(dtype)
    actual = cuda.cdist_backward(
        device(a), device(b), device(upstream), distances, metric, weights=given
    )
    expected = reference.cdist_backward(a, b, upstream, metric, weights=weights)
    for gradient, definition in zip(actual, expected, strict=True):
        assert_gradient(fetch(gradient), definition, GRADIENT_TOLERANCE[dtype])


@pytest.mark.parametrize("metric", METRICS)
def test_gradients_of_near_pairs(device: Any, metric: str) -> None:
    """Each vector's gradient is that of one partner, 0.001 away: a difference of large products."""
    a = sets(17, 17, 16)[0] if metric == "cosine" else sets(17, 1, 16, "far")[0]
    a = a.astype(np.float32)
    b = (a + 1e-3 * sets(17, 17, 16)[1]).astype(np.float32)
    upstream = np.eye(17, dtype=np.float32)[None]
    distances = cuda.cdist_forward(device(a), device(b), metric)
    actual = cuda.cdist_backward(device(a), device(b), device(upstream), distances, metric)
    expected = reference.cdist_backward(a, b, upstream, metric)
    for gradient, definition in zip(actual, expected, strict=True):
        assert_gradient(fetch(gradient), definition, 1e-4)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("metric", METRICS)
def test_gradients_through_neighbours(device: Any, metric: str, dtype: str) -> None:
    queries, database = (part[0].astype(dtype) for part in sets(31, 45, 140))
    distances, indices = cuda.knn_forward(device(queries), device(database), 5, metric)
    upstream = np.random.default_rng(3).standard_normal((31, 5)).astype(fetch(distances).dtype)
    actual = cuda.knn_backward(
        device(queries), device(database), device(upstream), distances, indices, metric
    )
    expected = reference.knn_backward(queries, database, upstream, fetch(indices), metric)
    for gradient, definition in zip(actual, expected, strict=True):
        # float16 is rounded to 11 bits, after everything else.
        assert_gradient(fetch(gradient), definition, GRADIENT_TOLERANCE.get(dtype, 2.0**-10))


def test_the_same_bits_in_every_run(device: Any) -> None:
    a, b = (device(part) for part in clusters(66, 140, 40))

    def results() -> list[Array]:
        distances = cuda.cdist_forward(a, b, "euclidean")
        gradients = cuda.cdist_backward(a[None], b[None], distances, distances, "euclidean")
        return [fetch(array) for array in (distances, *gradients)]

    with small_products():
        first = results()
        for found, wanted in zip(results(), first, strict=True):
            np.testing.assert_array_equal(found, wanted)


# --- torch ----------------------------------------------------------------------------------------


@needs_emulator
@pytest.mark.parametrize("metric", METRICS)
def test_torch_derivatives_go_through_the_kernels(metric: str) -> None:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 4), (2, 4))
    )
    with emulated() as emulator:
        assert torch.autograd.gradcheck(lambda *x: sosie.cdist(*x, metric), (a, b))
        assert torch.autograd.gradcheck(lambda *x: sosie.knn(*x, 2, metric).distances, (a, b))
        loss = sosie.cdist(a, b, metric, weights=[1.0, 0.5, 2.0, 0.0]).sum()
        torch.autograd.grad(loss, (a, b))
    assert {"cdist_backward<double>", "knn_backward<double>"} < set(emulator.launched)


def test_what_products_may_round_to_is_asked_of_the_library(monkeypatch: Any) -> None:
    torch = pytest.importorskip("torch")
    library = arrays.adapter(torch.zeros(1))
    before = torch.get_float32_matmul_precision()
    assert not library.product_uses_tf32()
    try:
        torch.set_float32_matmul_precision("high")
        assert library.product_uses_tf32()
    finally:
        torch.set_float32_matmul_precision(before)
    assert not library.product_uses_tf32()
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    monkeypatch.setenv("CUPY_TF32", "1")
    assert arrays.CuPyAdapter().product_uses_tf32()


@needs_emulator
def test_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    a, b = (torch.tensor(part[0]).to(torch.bfloat16) for part in sets(20, 140, 9))
    expected = reference.cdist_forward(a.double().numpy(), b.double().numpy())
    with emulated():
        assert_distances(sosie.cdist(a, b), expected, "euclidean", "float32")
        with small_products():
            assert_distances(sosie.cdist(a, sosie.pack(b)), expected, "euclidean", "float32")
