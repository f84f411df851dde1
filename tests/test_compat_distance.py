# SPDX-License-Identifier: Apache-2.0
"""Drop-ins of distances and neighbours agree with what they stand in for.

Installed libraries are called with the same arguments, over random shapes and options. PyTorch3D
and CuPy are not installed: `knn_points` is held against a matrix of distances that is sorted, and
``cupyx``'s ``cdist`` against SciPy's.
"""

from __future__ import annotations

import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
functional = torch.nn.functional

from sosie.compat import (  # noqa: E402
    NotCovered,
    cupyx,
    faiss,
    prdc,
    pytorch3d,
    scipy,
    sklearn,
    torch_functional,
    torchmetrics,
)

#: Two computations in float64 that differ in the order of their sums; the expansion that peers
#: compute loses up to half of the digits where rows are near.
DOUBLE = 1e-9
SINGLE = 1e-5


def peer(name: str) -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name)


def rows(count: int, dimensions: int, seed: int, dtype: str = "float64") -> np.ndarray:
    values = np.random.default_rng([seed, count]).standard_normal((count, dimensions))
    return (10 * values).astype(dtype) if np.dtype(dtype).kind == "i" else values.astype(dtype)


def check(ours: Any, theirs: Any, tolerance: float = DOUBLE) -> None:
    """Same kind, and for every part the same type, shape and numbers, relative to the largest."""
    assert type(ours) is type(theirs)
    pairs = zip(ours, theirs, strict=True) if isinstance(theirs, tuple) else [(ours, theirs)]
    for own, other in pairs:
        assert (type(own), own.dtype, own.shape) == (type(other), other.dtype, other.shape)
        scale = max(1.0, float(np.nanmax(np.abs(other))))
        np.testing.assert_allclose(own, other, rtol=0, atol=tolerance * scale)


def some(*values: Any) -> Any:
    return st.sampled_from(values)


COUNTS = st.integers(1, 40)
DIMENSIONS = st.integers(1, 20)
SEEDS = st.integers(0, 10)
FLOATS = some("float64", "float32")

sweep = settings(max_examples=25)


# --- SciPy ----------------------------------------------------------------------------------------


@sweep
@given(
    COUNTS, COUNTS, DIMENSIONS, some("float64", "float32", "int32", "bool"), SEEDS,
    some("euclidean", "e", "sqeuclidean", "Cosine", "cos", "minkowski", "cityblock", "chebyshev"),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_scipy(n, m, dimensions, dtype, seed, metric, weighted, writes) -> None:
    theirs = peer("scipy.spatial.distance")
    a, b = rows(n, dimensions, seed, dtype), rows(m, dimensions, seed + 1, dtype)
    a[0] = 0  # without a direction
    options: dict[str, Any] = {}
    if weighted:
        options["w"] = np.arange(dimensions, dtype=float)
    if writes:
        options["out"] = np.empty((n, m))
    with np.errstate(invalid="ignore"):
        expected = theirs.cdist(a, b, metric, **{**options, "out": None})
        result = scipy.cdist(a, b, metric, **options)
    check(result, expected)
    assert not writes or result is options["out"]


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_angles_of_vectors_whose_squares_double_precision_cannot_hold(scale) -> None:
    a, b = rows(4, 3, 0), rows(5, 3, 1)
    for x, y in ((a * scale, b), (a, b * scale)):
        check(scipy.cdist(x, y, "cosine"), peer("scipy.spatial.distance").cdist(x, y, "cosine"))
        check(
            sklearn.cosine_distances(x, y),
            peer("sklearn.metrics.pairwise").cosine_distances(x, y),
        )


def test_scipy_hands_on_what_it_must() -> None:
    theirs, a = peer("scipy.spatial.distance"), rows(5, 3, 0)
    check(scipy.cdist(a, a, theirs.chebyshev), theirs.cdist(a, a, theirs.chebyshev))
    check(scipy.cdist(a, a, "minkowski", p=3), theirs.cdist(a, a, "minkowski", p=3))


def test_scipy_missing_is_said(run_python) -> None:
    code = """
import sys
for name in ("scipy", "scipy.spatial", "scipy.spatial.distance"): sys.modules[name] = None
from sosie.compat.scipy import cdist
print(cdist([[0.0]], [[2.0]])[0, 0])
cdist([[0.0]], [[2.0]], "chebyshev")
"""
    assert "scipy, which would, is not installed" in run_python(code, expect_failure=True)


# --- scikit-learn ---------------------------------------------------------------------------------


@sweep
@given(COUNTS, COUNTS, DIMENSIONS, FLOATS, SEEDS, st.booleans(), st.booleans())
def test_scikit_learn(n, m, dimensions, dtype, seed, alone, squared) -> None:
    theirs = peer("sklearn.metrics.pairwise")
    tolerance = 1e-7 if dtype == "float64" else SINGLE  # there, squares are expanded
    a, b = rows(n, dimensions, seed, dtype), rows(m, dimensions, seed + 1, dtype)
    a[0] = 0
    pair = (a,) if alone else (a, b)
    norms = {"X_norm_squared": (a**2).sum(1)}
    for name, options in (
        ("euclidean_distances", {"squared": squared, **norms}),
        ("cosine_similarity", {}),
        ("cosine_distances", {}),
    ):
        check(
            getattr(sklearn, name)(*pair, **options),
            getattr(theirs, name)(*pair, **options),
            tolerance,
        )


@sweep
@given(
    COUNTS, COUNTS, DIMENSIONS, FLOATS, SEEDS, some(0, 1),
    some(
        {}, {"metric": "sqeuclidean"}, {"metric_kwargs": {"squared": True}}, {"metric": "cityblock"}
    ),
)  # fmt: skip
def test_scikit_learn_neighbours(n, m, dimensions, dtype, seed, axis, options) -> None:
    theirs = peer("sklearn.metrics.pairwise")
    a, b = rows(n, dimensions, seed, dtype), rows(m, dimensions, seed + 1, dtype)
    check(
        sklearn.pairwise_distances_argmin_min(a, b, axis=axis, **options),
        theirs.pairwise_distances_argmin_min(a, b, axis=axis, **options),
        SINGLE if dtype == "float32" else DOUBLE,
    )
    if options.get("metric") == "cityblock":
        return
    inner = peer("sklearn.metrics._pairwise_distances_reduction").ArgKmin
    k, metric = min(3, m), options.get("metric", "euclidean")
    check(
        sklearn.ArgKmin.compute(a, b, k, metric, return_distance=True),
        inner.compute(a, b, k, metric, return_distance=True),
        SINGLE if dtype == "float32" else DOUBLE,
    )
    check(sklearn.ArgKmin.compute(a, b, k), inner.compute(a, b, k))
    assert set(sklearn.ArgKmin.valid_metrics()) <= set(inner.valid_metrics())
    for x, y, name in ((a, b, metric), (a, b.astype("int8"), metric), (a, b, "hamming")):
        assert sklearn.ArgKmin.is_usable_for(x, y, name) == inner.is_usable_for(x, y, name)


def test_scikit_learn_of_sparse_and_short_rows() -> None:
    theirs, sparse = peer("sklearn.metrics.pairwise"), peer("scipy.sparse")
    a = sparse.csr_matrix(np.eye(3))
    check(sklearn.euclidean_distances(a), theirs.euclidean_distances(a))
    short = np.array([[1e-20, 0.0], [1.0, 1.0]])  # counts as of length 1 there
    check(sklearn.cosine_similarity(short), theirs.cosine_similarity(short))


# --- faiss ----------------------------------------------------------------------------------------


@sweep
@given(COUNTS, st.integers(5, 60), DIMENSIONS, SEEDS, st.integers(1, 5), some(1, 0))
def test_faiss(n, m, dimensions, seed, k, metric) -> None:
    theirs = peer("faiss")
    queries, database = rows(n, dimensions, seed), rows(m, dimensions, seed + 1)
    check(faiss.knn(queries, database, k, metric), theirs.knn(queries, database, k, metric), SINGLE)
    check(
        faiss.pairwise_distances(queries, database, metric),
        theirs.pairwise_distances(queries, database, metric),
        SINGLE,
    )


@pytest.mark.parametrize("k", [1, 3, 40])
def test_faiss_of_vectors_without_neighbours(k) -> None:
    queries, database = rows(5, 4, 0), rows(40, 4, 1)
    queries[1, 2], queries[2, 0], database[7, 3] = np.nan, 1e30, np.inf
    check(faiss.knn(queries, database, k), peer("faiss").knn(queries, database, k), SINGLE)


def test_faiss_with_more_neighbours_than_vectors() -> None:
    check(faiss.knn(np.eye(2), np.eye(2), 3), peer("faiss").knn(np.eye(2), np.eye(2), 3))
    assert (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2) == (
        peer("faiss").METRIC_INNER_PRODUCT,
        peer("faiss").METRIC_L2,
    )


# --- torch ----------------------------------------------------------------------------------------


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


def check_torch(ours: Any, theirs: Any, arguments: list[Any]) -> None:
    """Results, their kinds, and gradients."""
    result, expected = ours(*arguments), theirs(*arguments)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9, equal_nan=True)
    upstream = torch.linspace(0.5, 1.5, expected.numel(), dtype=expected.dtype)
    pairs = zip(
        torch.autograd.grad(result, arguments, upstream.reshape(expected.shape)),
        torch.autograd.grad(expected, arguments, upstream.reshape(expected.shape)),
        strict=True,
    )
    for gradient, other in pairs:
        torch.testing.assert_close(gradient, other, rtol=1e-7, atol=1e-7, equal_nan=True)


@sweep
@given(
    some(((7, 3), (5, 3)), ((2, 30, 4), (27, 4)), ((3, 1, 4, 2), (2, 6, 2))), SEEDS,
    some(2.0, 1.0, float("inf")),
)  # fmt: skip
def test_torch_cdist(shapes, seed, p) -> None:
    check_torch(
        lambda x, y: torch_functional.cdist(x, y, p),
        lambda x, y: torch.cdist(x, y, p),
        tensors(*shapes, seed=seed),
    )


def test_torch_cdist_of_near_pairs_and_halves() -> None:
    x = torch.full((30, 8), 100.0) + torch.eye(30, 8) * 1e-3
    expected = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(torch_functional.cdist(x, x).double(), expected, rtol=1e-5, atol=0)
    halves = torch.randn(4, 5).half()
    result = torch_functional.cdist(halves, halves)
    assert result.dtype == torch.float16
    torch.testing.assert_close(result, torch.cdist(halves.float(), halves.float()).half())


BROADCAST = some(((6, 5), (6, 5)), ((2, 4, 3), (4, 3)), ((3, 1, 2), (5, 2)))


@sweep
@given(
    BROADCAST, SEEDS, some({}, {"eps": 0.0}, {"eps": 0.1, "keepdim": True}, {"p": 1.0}),
    st.integers(-2, 1), some(1e-8, 0.5),
)  # fmt: skip
def test_torch_paired_rows(shapes, seed, options, dim, eps) -> None:
    arguments = tensors(*shapes, seed=seed)
    check_torch(
        lambda x, y: torch_functional.pairwise_distance(x, y, **options),
        lambda x, y: functional.pairwise_distance(x, y, **options),
        arguments,
    )
    whole = torch.broadcast_tensors(*arguments)
    if min(float(each.detach().norm(dim=dim).min()) for each in whole) < eps:
        return  # where torch's gradient is no derivative; see below
    check_torch(
        lambda x, y: torch_functional.cosine_similarity(x, y, dim, eps),
        lambda x, y: functional.cosine_similarity(x, y, dim, eps),
        arguments,
    )


def test_torch_cosine_similarity_of_short_vectors() -> None:
    """The value is torch's; the gradient is the value's derivative, which torch's is not."""
    x, y = tensors((3, 4), (3, 4))
    own, other = (
        f(x, y, 1, 10.0) for f in (torch_functional.cosine_similarity, functional.cosine_similarity)
    )
    torch.testing.assert_close(own, other)
    assert torch.autograd.gradcheck(
        lambda *z: torch_functional.cosine_similarity(*z, 1, 10.0), (x, y)
    )


def test_torch_distance_of_equal_rows() -> None:
    x, y = (tensor.detach().requires_grad_() for tensor in tensors((4, 3)) * 2)
    check_torch(torch_functional.pairwise_distance, functional.pairwise_distance, [x, y])


@sweep
@given(
    some((5,), (2, 3), (2, 1, 4)), SEEDS, some("mean", "sum", "none"), st.booleans(), st.booleans()
)
def test_torch_mse_loss(shape, seed, reduction, weighted, zero) -> None:
    x, y, weight = tensors(shape, shape, shape, seed=seed)
    if weighted:
        weight = (weight.detach() * (not zero)).requires_grad_()  # some of them negative
        check_torch(
            lambda *z: torch_functional.mse_loss(*z[:2], reduction=reduction, weight=z[2]),
            lambda *z: functional.mse_loss(*z[:2], reduction=reduction, weight=z[2]),
            [x, y, weight],
        )
    check_torch(
        lambda *z: torch_functional.mse_loss(*z, reduction=reduction),
        lambda *z: functional.mse_loss(*z, reduction=reduction),
        [x, y],
    )


def test_torch_mse_loss_without_what_weighs_nothing() -> None:
    x, y = torch.tensor([1.0, torch.nan]), torch.zeros(2)
    assert torch_functional.mse_loss(x, y, weight=torch.tensor([2.0, 0.0])) == 1.0


# --- torchmetrics ---------------------------------------------------------------------------------


@sweep
@given(
    st.integers(2, 12), st.integers(2, 12), DIMENSIONS, SEEDS, st.booleans(),
    some(None, "mean", "sum", "none"), some(None, True, False), some(1, 2, 3.5),
)  # fmt: skip
def test_torchmetrics(n, m, dimensions, seed, alone, reduction, zero_diagonal, exponent) -> None:
    theirs = peer("torchmetrics.functional.pairwise")
    arguments = tensors((n, dimensions), (m, dimensions), seed=seed)[: 1 if alone else 2]
    options = {"reduction": reduction, "zero_diagonal": zero_diagonal}
    for name, more in (
        ("euclidean_distance", {}),
        ("cosine_similarity", {}),
        ("linear_similarity", {}),
        ("manhattan_distance", {}),
        ("minkowski_distance", {"exponent": exponent}),
    ):
        if alone and name == "euclidean_distance" and zero_diagonal is False:
            continue  # a root of some 1e-16 below or above 0 there
        if alone and name == "minkowski_distance":
            continue  # the gradient of equal rows is NaN there
        own, other = (getattr(m, f"pairwise_{name}") for m in (torchmetrics, theirs))
        check_torch(
            lambda *z, f=own, more=more: f(*z, **more, **options),
            lambda *z, f=other, more=more: f(*z, **more, **options),
            arguments,
        )


def test_torchmetrics_of_integers_zeros_and_halves() -> None:
    theirs = peer("torchmetrics.functional.pairwise")
    whole = torch.tensor([[1, 2], [4, 6], [0, 0]])
    cases = [("euclidean_distance", (whole,))]
    cases += [
        (name, (whole.to(dtype), whole.flip(0).to(dtype)))
        for name in ("cosine_similarity", "minkowski_distance", "manhattan_distance")
        for dtype in (torch.float32, torch.float16)
    ]
    for name, arguments in cases:
        own, other = (getattr(m, f"pairwise_{name}")(*arguments) for m in (torchmetrics, theirs))
        assert own.dtype == other.dtype
        torch.testing.assert_close(own, other, equal_nan=True)
    for name in ("cosine_similarity", "linear_similarity", "manhattan_distance"):
        with pytest.raises(NotCovered, match="floating-point vectors"):
            getattr(torchmetrics, f"pairwise_{name}")(whole)
    equal = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    distances = torchmetrics.pairwise_minkowski_distance(equal, exponent=3, zero_diagonal=False)
    (gradient,) = torch.autograd.grad(distances.sum(), equal)
    assert torch.equal(gradient, torch.zeros_like(equal))


# --- prdc -----------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(st.integers(7, 40), st.integers(7, 40), DIMENSIONS, FLOATS, SEEDS, st.integers(1, 5))
def test_prdc(n, m, dimensions, dtype, seed, k) -> None:
    theirs = peer("prdc.prdc")
    real, fake = rows(n, dimensions, seed, dtype), rows(m, dimensions, seed + 1, dtype)
    own, other = (module.compute_prdc(real, fake, nearest_k=k) for module in (prdc, theirs))
    assert {name: (type(value), value) for name, value in own.items()} == {
        name: (type(value), pytest.approx(value, abs=1e-12)) for name, value in other.items()
    }
    tolerance = SINGLE if dtype == "float32" else 1e-7
    check(
        prdc.compute_nearest_neighbour_distances(real, k),
        theirs.compute_nearest_neighbour_distances(real, k),
        tolerance,
    )
    check(prdc.compute_pairwise_distance(real), theirs.compute_pairwise_distance(real), tolerance)


# --- Who is not installed -------------------------------------------------------------------------


@settings(max_examples=15)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), SEEDS, st.integers(1, 7), st.data())
def test_pytorch3d(n, m, dimensions, seed, k, data) -> None:
    """Sorted squared distances; zeros for points and neighbours that a cloud does not have."""
    p1, p2 = tensors((2, n, dimensions), (2, m, dimensions), seed=seed)
    lengths = [torch.tensor(data.draw(st.tuples(*[st.integers(0, c)] * 2))) for c in (n, m)]
    squares = ((p1[:, :, None] - p2[:, None]) ** 2).sum(-1)
    there = torch.arange(m) < lengths[1][:, None, None]
    padded = functional.pad(squares.masked_fill(~there, torch.inf), (0, k), value=torch.inf)
    expected, indices = padded.sort(stable=True, dim=-1)
    expected, indices = expected[..., :k], indices[..., :k]
    none = (torch.arange(n) >= lengths[0][:, None])[..., None] | expected.isinf()
    expected, indices = expected.masked_fill(none, 0), indices.masked_fill(none, 0)
    own = pytorch3d.knn_points(p1, p2, *lengths, K=k, return_nn=True)
    assert own._fields == ("dists", "idx", "knn")
    torch.testing.assert_close(own.idx, indices)
    torch.testing.assert_close(own.dists, expected)
    for gradient, other in zip(
        torch.autograd.grad(own.dists.sum(), [p1, p2]),
        torch.autograd.grad(expected.sum(), [p1, p2]),
        strict=True,
    ):
        torch.testing.assert_close(gradient, other)
    beyond = torch.arange(k) >= lengths[1][:, None, None]
    for cloud in range(2):
        nearest = p2[cloud][indices[cloud]].masked_fill(beyond[cloud][..., None], 0)
        torch.testing.assert_close(own.knn[cloud], nearest)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("metric", ["euclidean", "sqe", "cosine", "minkowski"])
def test_cupyx(dtype, metric) -> None:
    theirs = peer("scipy.spatial.distance")
    a, b = rows(7, 4, 0, dtype) + 1, rows(9, 4, 1, dtype) + 1
    expected = theirs.cdist(a, b, metric).astype("float32" if dtype == "int64" else dtype)
    check(cupyx.cdist(a, b, metric), expected, SINGLE)
    out = np.empty((7, 9), expected.dtype)
    assert cupyx.cdist(a, b, metric, out=out) is out
    check(out, expected, SINGLE)


# --- Bad input ------------------------------------------------------------------------------------

A = np.arange(6.0).reshape(3, 2)
T = torch.tensor(A)

WRONG = {
    "scipy axes": ("scipy.spatial.distance", "cdist", (A, A[0]), {}),
    "scipy columns": ("scipy.spatial.distance", "cdist", (A, A[:, :1]), {}),
    "scipy metric": ("scipy.spatial.distance", "cdist", (A, A, "cosinus"), {}),
    "scipy kind of metric": ("scipy.spatial.distance", "cdist", (A, A, 3), {}),
    "scipy weights": ("scipy.spatial.distance", "cdist", (A, A), {"w": [-1, 1]}),
    "scipy out": ("scipy.spatial.distance", "cdist", (A, A), {"out": np.empty((2, 2))}),
    "scipy option": ("scipy.spatial.distance", "cdist", (A, A), {"q": 1}),
    "sklearn axes": ("sklearn.metrics.pairwise", "euclidean_distances", (A[0],), {}),
    "sklearn columns": ("sklearn.metrics.pairwise", "euclidean_distances", (A, A[:, :1]), {}),
    "sklearn NaN": ("sklearn.metrics.pairwise", "cosine_similarity", (A * np.nan,), {}),
    "sklearn empty": ("sklearn.metrics.pairwise", "euclidean_distances", (A[:0],), {}),
    "sklearn complex": ("sklearn.metrics.pairwise", "euclidean_distances", (A * 1j,), {}),
    "sklearn norms": (
        "sklearn.metrics.pairwise", "euclidean_distances", (A,), {"X_norm_squared": [1.0]},
    ),
    "sklearn metric": (
        "sklearn.metrics.pairwise", "pairwise_distances_argmin_min", (A, A), {"metric": "cosinus"},
    ),
    "sklearn axis": (
        "sklearn.metrics.pairwise", "pairwise_distances_argmin_min", (A, A), {"axis": 2},
    ),
    "faiss columns": ("faiss", "knn", (A, A[:, :1], 1), {}),
    "faiss axes": ("faiss", "pairwise_distances", (A, A[0]), {}),
    "torch dtypes": ("torch", "cdist", (T.long(), T.long()), {}),
    "torch mode": ("torch", "cdist", (T, T), {"compute_mode": "fast"}),
    "torch columns": ("torch", "cdist", (T, T[:, :1]), {}),
    "torch shapes": ("torch.nn.functional", "pairwise_distance", (T, T[:2]), {}),
    "torch axis": ("torch.nn.functional", "cosine_similarity", (T, T, 4), {}),
    "torch reduction": ("torch.nn.functional", "mse_loss", (T, T), {"reduction": "max"}),
    "torch weights": ("torch.nn.functional", "mse_loss", (T, T), {"weight": T[0]}),
    "torchmetrics axes": (
        "torchmetrics.functional.pairwise", "pairwise_euclidean_distance", (T[0],), {},
    ),
    "torchmetrics columns": (
        "torchmetrics.functional.pairwise", "pairwise_cosine_similarity", (T, T[:, :1]), {},
    ),
    "torchmetrics reduction": (
        "torchmetrics.functional.pairwise", "pairwise_cosine_similarity", (T,),
        {"reduction": "max"},
    ),
    "torchmetrics exponent": (
        "torchmetrics.functional.pairwise", "pairwise_minkowski_distance", (T,), {"exponent": 0.5},
    ),
    "prdc columns": ("prdc", "compute_prdc", (A, A[:, :1], 1), {}),
    "prdc NaN": ("prdc", "compute_prdc", (A * np.nan, A, 1), {}),
    "prdc complex": ("prdc", "compute_prdc", (A * 1j, A, 1), {}),
    "prdc neighbours": ("prdc", "compute_prdc", (A, A, 7), {}),
}  # fmt: skip
OURS = {
    "scipy": scipy,
    "sklearn": sklearn,
    "faiss": faiss,
    "torch": torch_functional,
    "torchmetrics": torchmetrics,
    "prdc": prdc,
}


@pytest.mark.parametrize("case", WRONG)
def test_exceptions_are_of_the_same_type(case) -> None:
    module, name, arguments, options = WRONG[case]
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        getattr(peer(module), name)(*arguments, **options)
    with pytest.raises(theirs.type):
        getattr(OURS[module.partition(".")[0]], name)(*arguments, **options)


def test_wrong_clouds_and_matrices() -> None:
    p1, p2 = tensors((2, 3, 3), (2, 3, 2))
    with pytest.raises(ValueError, match=r"\(2, 3, 3\) and \(2, 3, 2\)"):
        pytorch3d.knn_points(p1, p2)
    with pytest.raises(ValueError, match="norm"):
        pytorch3d.knn_points(p1, p1, norm=3)
    with pytest.raises(NotCovered, match="norm 2"):
        pytorch3d.knn_points(p1, p1, norm=1)
    with pytest.raises(ValueError, match="metric"):
        cupyx.cdist(A, A, "cosinus")
    with pytest.raises(TypeError, match="string"):
        cupyx.cdist(A, A, 3)
    with pytest.raises(NotCovered, match="chebyshev"):
        cupyx.cdist(A, A, "chebyshev")
