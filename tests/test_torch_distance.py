# SPDX-License-Identifier: Apache-2.0
"""Operators of the distance family in torch: values, derivatives of both orders, transforms,
compilers. The derivatives of the same formula in plain torch operations say what is right.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import sosie  # noqa: E402
from sosie.reference import distance as reference  # noqa: E402
from sosie.torch import distance as operators  # noqa: E402

METRICS = ["euclidean", "sqeuclidean", "cosine"]
DTYPES = [torch.float64, torch.float32]
#: float64: sums of some ten roundings, divided by distances of order 1. float32: the same.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


@pytest.fixture(autouse=True, scope="module")
def _executor() -> Iterator[None]:
    """The compiled kernels where they have this family, else Numba, else the definition."""
    names = ["numba"] if importlib.util.find_spec("numba") is not None else ["reference"]
    module = sosie.backends.executor(np.empty(0))
    if hasattr(module, "cdist_forward"):
        names = [module.__name__.rpartition(".")[-1]]
    with sosie.use_backend(names[0]):
        yield


def noise(
    *shape: int, seed: int = 0, dtype: torch.dtype = torch.float64, grad: bool = False
) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(values).to(dtype).requires_grad_(grad)


def sets(
    dtype: torch.dtype = torch.float64, grad: bool = False, batch: int = 2
) -> tuple[Tensor, Tensor]:
    return noise(batch, 4, 3, dtype=dtype, grad=grad), noise(
        batch, 5, 3, seed=1, dtype=dtype, grad=grad
    )


def composed(a: Tensor, b: Tensor, metric: str, weights: Tensor | None = None) -> Tensor:
    """The definition in plain torch operations, for vectors that are apart and not zero."""
    w = torch.ones(a.shape[-1], dtype=a.dtype) if weights is None else weights.to(a.dtype)
    a, b = a[..., :, None, :], b[..., None, :, :]
    if metric == "cosine":
        lengths = (w * a * a).sum(-1).sqrt() * (w * b * b).sum(-1).sqrt()
        return 1.0 - (w * a * b).sum(-1) / lengths
    squared = (w * (a - b) ** 2).sum(-1)
    return squared if metric == "sqeuclidean" else squared.sqrt()


def composed_knn(queries: Tensor, database: Tensor, k: int, metric: str) -> Tensor:
    return composed(queries, database, metric).sort(dim=-1, stable=True).values[..., :k]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    actual, expected = actual.detach().double(), expected.detach().double()
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * largest)


# --- Values and first derivatives -----------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("metric", METRICS)
def test_values_and_gradients(metric: str, weighted: bool, dtype: torch.dtype) -> None:
    a, b = sets(dtype, grad=True)
    weights = torch.tensor([0.5, 0.0, 2.0]) if weighted else None
    distances = sosie.cdist(a, b, metric, weights=weights)
    assert distances.dtype == dtype
    exact = [x.detach().double().requires_grad_() for x in (a, b)]
    expected = composed(*exact, metric, weights)
    assert_close(distances, expected, TOLERANCES[dtype])
    upstream = noise(*distances.shape, seed=2)
    actual_gradients = torch.autograd.grad(distances, (a, b), upstream.to(dtype))
    expected_gradients = torch.autograd.grad(expected, exact, upstream.to(dtype).double())
    for actual, gradient in zip(actual_gradients, expected_gradients, strict=True):
        assert actual.dtype == dtype
        assert_close(actual, gradient, 10 * TOLERANCES[dtype])


@pytest.mark.parametrize("shape", [(1, 5, 7, 3), (2, 33, 17, 64), (3, 17, 1, 2)], ids=str)
def test_equals_torch(shape: tuple[int, int, int, int]) -> None:
    batch, rows, columns, dims = shape
    a, b = noise(batch, rows, dims, grad=True), noise(batch, columns, dims, seed=1, grad=True)
    actual, expected = sosie.cdist(a, b), torch.cdist(a, b)
    assert_close(actual, expected, 1e-13)
    upstream = noise(*expected.shape, seed=2)
    gradients = (torch.autograd.grad(values, (a, b), upstream) for values in (actual, expected))
    for gradient, torch_gradient in zip(*gradients, strict=True):
        assert_close(gradient, torch_gradient, 1e-12)


SHAPES = [
    ((4, 3), (5, 3)), ((2, 4, 3), (5, 3)), ((4, 3), (2, 5, 3)), ((2, 1, 4, 3), (3, 5, 3)),
    ((2, 3, 4, 3), (2, 3, 5, 3)), ((1, 4, 3), (1, 1, 5, 3)), ((2, 1, 4, 3), (1, 3, 5, 3)),
    ((0, 4, 3), (5, 3)), ((0, 3), (5, 3)), ((2, 4, 3), (2, 0, 3)),
]  # fmt: skip


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradients_of_broadcast_batches(shapes: tuple[Any, Any]) -> None:
    a, b = noise(*shapes[0], grad=True), noise(*shapes[1], seed=1, grad=True)
    actual, expected = sosie.cdist(a, b), composed(a, b, "euclidean")
    assert_close(actual, expected, 1e-13)
    upstream = noise(*expected.shape, seed=2)
    gradients = (torch.autograd.grad(values, (a, b), upstream) for values in (actual, expected))
    for gradient, definition in zip(*gradients, strict=True):
        assert_close(gradient, definition, 1e-12)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_and_gradients(metric: str, dtype: torch.dtype) -> None:
    queries = noise(17, 5, dtype=dtype, grad=True)
    database = noise(33, 5, seed=1, dtype=dtype, grad=True)
    distances, indices = sosie.knn(queries, database, 4, metric)
    assert not indices.requires_grad
    exact = [x.detach().double().requires_grad_() for x in (queries, database)]
    expected = composed_knn(*exact, 4, metric)
    assert_close(distances, expected, TOLERANCES[dtype])
    chosen = torch.take_along_dim(composed(*exact, metric), indices, 1)
    assert_close(chosen, expected, TOLERANCES[dtype])
    upstream = noise(17, 4, seed=2).to(dtype)
    actual = torch.autograd.grad(distances, (queries, database), upstream)
    definition = torch.autograd.grad(chosen, exact, upstream.double())
    for gradient, expected_gradient in zip(actual, definition, strict=True):
        assert gradient.dtype == dtype
        assert_close(gradient, expected_gradient, 10 * TOLERANCES[dtype])


def test_neighbours_of_a_set_in_itself() -> None:
    x = noise(17, 5, grad=True)
    distances, indices = sosie.knn(x, x, 3, exclude_self=True)
    assert (indices != torch.arange(17)[:, None]).all()
    (gradient,) = torch.autograd.grad(distances.sum(), x)
    y = x.detach().requires_grad_()
    far = torch.eye(17, dtype=torch.bool)
    # A root has no derivative at 0: the diagonal is left out before it is taken.
    squared = composed(y, y, "sqeuclidean").masked_fill(far, torch.inf)
    (expected,) = torch.autograd.grad(squared.sort(1).values[:, :3].sqrt().sum(), y)
    assert_close(gradient, expected, 1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_near_pairs_have_exact_gradients(metric: str) -> None:
    """Pairs 0.001 apart around 1000, where |a|^2 + |b|^2 - 2ab has no digit left."""
    offset = 0.0 if metric == "cosine" else 1000.0
    a = (offset + noise(17, 16) * (1.0 if metric == "cosine" else 0.01)).float()
    b = (a + 1e-3 * noise(17, 16, seed=1)).float()
    a.requires_grad_()
    distances = sosie.cdist(a, b, metric)
    (actual,) = torch.autograd.grad(distances.diagonal().sum(), a)
    upstream = np.eye(17)
    expected, _ = reference.cdist_backward(a.detach().numpy(), b.numpy(), upstream, metric)
    error = (actual.double() - torch.from_numpy(expected)).norm(dim=1)
    assert (error <= 1e-4 * torch.from_numpy(expected).norm(dim=1)).all()


def test_derivatives_where_there_is_no_slope_are_0() -> None:
    a, b = noise(4, 3), noise(5, 3, seed=1)
    a[0], b[1] = b[2], 0.0
    a, b = a.requires_grad_(), b.requires_grad_()
    for metric, pair in (("euclidean", (0, 2)), ("cosine", (3, 1))):
        value = sosie.cdist(a, b, metric)[pair]
        gradients = torch.autograd.grad(value, (a, b), create_graph=True)
        assert all((gradient == 0).all() for gradient in gradients)
        second = torch.autograd.grad(sum((g**2).sum() + g.sum() for g in gradients), (a, b))
        assert all((gradient == 0).all() for gradient in second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_half_precision(metric: str, dtype: torch.dtype) -> None:
    a, b = sets(dtype, grad=True)
    exact = [x.detach().double().requires_grad_() for x in (a, b)]
    distances, expected = sosie.cdist(a, b, metric), composed(*exact, metric)
    assert distances.dtype == torch.float32
    assert_close(distances, expected, TOLERANCES[torch.float32])
    gradients = torch.autograd.grad(distances.sum(), (a, b))
    # Computed in float32 and rounded once, to 11 or 8 bits.
    rounding = 2.0**-11 if dtype == torch.float16 else 2.0**-8
    for gradient, definition in zip(
        gradients, torch.autograd.grad(expected.sum(), exact), strict=True
    ):
        assert gradient.dtype == dtype
        assert_close(gradient, definition, rounding)
    queries, database = a[0], b[0]
    near = sosie.knn(queries, database, 2, metric).distances
    assert near.dtype == torch.float32
    (gradient,) = torch.autograd.grad(near.sum(), a)
    near = composed_knn(exact[0][0], exact[1][0], 2, metric)
    assert_close(gradient, torch.autograd.grad(near.sum(), exact[0])[0], rounding)


def test_integers_have_distances() -> None:
    a, b = (200 * noise(6, 3).abs()).byte(), (200 * noise(7, 3, seed=1).abs()).byte()
    assert_close(sosie.cdist(a, b), composed(a.double(), b.double(), "euclidean"), 1e-6)
    assert sosie.knn(a, a, 1).indices.shape == (6, 1)


def test_lazy_negation() -> None:
    z = torch.complex(noise(4, 3), noise(4, 3, seed=1))
    negated = z.conj().imag
    assert negated.is_neg()
    assert_close(
        sosie.cdist(negated, negated + 1.0), composed(-z.imag, 1.0 - z.imag, "euclidean"), 1e-13
    )


# --- Second derivatives ---------------------------------------------------------------------------


FUNCTIONS: dict[str, Callable[[Tensor, Tensor, str], Tensor]] = {
    "cdist": operators.cdist,
    "weighted": lambda a, b, metric: operators.cdist(
        a, b, metric, torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
    ),
    "knn": lambda a, b, metric: operators.knn(a[0], b[0], 3, metric)[0],
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradcheck(name: str, metric: str) -> None:
    def function(a: Tensor, b: Tensor) -> Tensor:
        return FUNCTIONS[name](a, b, metric)

    assert torch.autograd.gradcheck(function, sets(grad=True))
    assert torch.autograd.gradgradcheck(function, sets(grad=True))
    (a, b), (other_a, other_b) = sets(grad=True), sets()
    assert torch.autograd.gradgradcheck(lambda a: function(a, other_b), a)
    assert torch.autograd.gradgradcheck(lambda b: function(other_a, b), b)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_third_derivative(name: str) -> None:
    a, b = sets(grad=True)

    def gradient(a: Tensor) -> Tensor:
        result = FUNCTIONS[name](a, b, "euclidean")
        return torch.autograd.grad(result.sum(), a, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, a, fast_mode=True)


class _LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that anything returned."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("name", ["cdist", "knn"])
def test_second_derivatives_take_a_few_rows_at_a_time(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = noise(1, 60, 3, grad=True), noise(1, 50, 3, seed=1, grad=True)

    def second_derivative() -> tuple[Tensor, ...]:
        result = FUNCTIONS[name](a, b, "euclidean")
        gradients = torch.autograd.grad(result.square().sum() / 2, (a, b), create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in gradients), (a, b))

    expected = second_derivative()
    monkeypatch.setattr(operators, "_MOST_AT_A_TIME", 4 * 50 * 3)
    largest = _LargestTensor()
    with largest:
        actual = second_derivative()
    # The matrix of distances is larger than the differences of four rows; those of all would be
    # three times as large as it.
    assert largest.numbers <= 60 * 50
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, other, 1e-12)


# --- Operators as torch sees them -----------------------------------------------------------------

QUICK = ("test_schema", "test_autograd_registration", "test_faketensor")

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "dense": lambda x: x,
    "transposed": lambda x: x.mT.contiguous().mT,
    "every second": lambda x: x.repeat_interleave(2, -1)[..., ::2],
}


def operator_calls(grad: bool, layout: Callable[[Tensor], Tensor]) -> dict[str, tuple[Any, ...]]:
    a, b = (
        layout(noise(2, size, 3, seed=size, dtype=torch.float32)).requires_grad_(grad)
        for size in (4, 5)
    )
    queries, database = (
        layout(noise(size, 3, seed=size, dtype=torch.float32)).requires_grad_(grad)
        for size in (4, 5)
    )
    weights = torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)
    upstream = noise(2, 4, 5, seed=3, dtype=torch.float32, grad=grad)
    distances = torch.cdist(a.detach(), b.detach())
    near, indices = torch.cdist(queries.detach(), database.detach()).sort(1)
    near, indices = near[:, :2].contiguous(), indices[:, :2].contiguous()
    through = noise(4, 2, seed=4, dtype=torch.float32, grad=grad)
    return {
        "cdist": (a, b, None, "euclidean"),
        "cdist, weighted": (a, b, weights, "cosine"),
        "cdist_backward": (a, b, upstream, distances, weights, "euclidean", True, True),
        "cdist_backward, b only": (a, b, upstream, distances, None, "sqeuclidean", False, True),
        "knn": (queries, database, 2, "euclidean", False),
        "knn_backward": (queries, database, through, near, indices, "euclidean", True, True),
        "knn_backward, queries only": (
            *(queries, database, through, near, indices, "sqeuclidean", True, False),
        ),
    }


@pytest.mark.parametrize("grad", [False, True], ids=["constants", "variables"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", operator_calls(False, lambda x: x))
def test_opcheck(name: str, layout: str, grad: bool) -> None:
    operator = getattr(torch.ops.sosie, name.partition(",")[0]).default
    second_order = grad and "_backward" in name
    torch.library.opcheck(
        operator,
        operator_calls(grad, LAYOUTS[layout])[name],
        test_utils=QUICK if second_order else (*QUICK, "test_aot_dispatch_dynamic"),
    )


def test_only_the_gradient_that_is_needed() -> None:
    a, b = sets()
    distances = operators.cdist(a, b, "euclidean")
    arguments = (a, b, torch.ones_like(distances), distances, None, "euclidean")
    grad_a, grad_b = torch.ops.sosie.cdist_backward(*arguments, True, True)
    only_a, empty = torch.ops.sosie.cdist_backward(*arguments, True, False)
    assert torch.equal(only_a, grad_a)
    assert empty.numel() == 0
    empty, only_b = torch.ops.sosie.cdist_backward(*arguments, False, True)
    assert torch.equal(only_b, grad_b)
    assert empty.numel() == 0


def test_weights_are_constants() -> None:
    a, b = sets()
    with pytest.raises(ValueError, match="expected weights that require no gradient"):
        sosie.cdist(a, b, weights=torch.ones(3, requires_grad=True))
    with pytest.raises(ValueError, match=r"expected finite weights of at least 0, got -1\.0"):
        sosie.cdist(a, b, weights=torch.tensor([1.0, -1.0, 0.0]))
    with pytest.raises(ValueError, match=r"expected weights of shape \(3,\).*, got \(2,\)"):
        sosie.cdist(a, b, weights=[1.0, 1.0])
    expected = sosie.cdist(a, b, weights=torch.tensor([1.0, 2.0, 0.0]))
    assert torch.equal(sosie.cdist(a, b, weights=[1, 2, 0]), expected)
    assert torch.equal(sosie.cdist(a, b, weights=np.array([1, 2, 0])), expected)


# --- Packed sets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_packed_sets(metric: str) -> None:
    (a,), (b,) = sets(batch=1)
    packed = sosie.pack(b.clone().requires_grad_(), metric)
    assert torch.equal(sosie.cdist(a, packed, metric), sosie.cdist(a, b, metric))
    for actual, expected in zip(
        sosie.knn(a, packed, 2, metric), sosie.knn(a, b, 2, metric), strict=True
    ):
        assert torch.equal(actual, expected)
    assert repr(packed).startswith("PackedVectors(shape=(5, 3), dtype=torch.float64")
    # Gradients of the queries.
    a.requires_grad_()
    (actual,) = torch.autograd.grad(sosie.cdist(a, packed, metric).sum(), a)
    (expected,) = torch.autograd.grad(sosie.cdist(a, b, metric).sum(), a)
    assert torch.equal(actual, expected)
    (actual,) = torch.autograd.grad(sosie.knn(a, packed, 2, metric).distances.sum(), a)
    (expected,) = torch.autograd.grad(sosie.knn(a, b, 2, metric).distances.sum(), a)
    assert torch.equal(actual, expected)
    with torch.no_grad():
        assert not sosie.cdist(a, packed, metric).requires_grad
    mapped = torch.vmap(lambda a: sosie.cdist(a, packed, metric))(a.detach()[None])
    assert torch.equal(mapped[0], sosie.cdist(a, b, metric))
    with pytest.raises(ValueError, match="expected a set packed for the metric"):
        sosie.cdist(a, packed, METRICS[METRICS.index(metric) - 1])


# --- Function transforms --------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_transforms(name: str, metric: str) -> None:
    a, b = sets()

    def function(a: Tensor, b: Tensor) -> Tensor:
        return FUNCTIONS[name](a, b, metric)

    def total(a: Tensor, b: Tensor) -> Tensor:
        return function(a, b).sum()

    variable = a.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(variable, b), variable)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(torch.func.grad(total)(a, b), expected, **close)
    jacobian = torch.func.jacrev(function)(a, b).reshape(-1, *a.shape).sum(0)
    torch.testing.assert_close(jacobian, expected, **close)
    jacobian = torch.autograd.functional.jacobian(total, (a, b), vectorize=True)[0]
    torch.testing.assert_close(jacobian, expected, **close)
    per_sample = torch.vmap(torch.func.grad(total), (0, None))(torch.stack([a, 2 * a]), b)
    torch.testing.assert_close(per_sample[0], expected, **close)
    hessian = torch.func.jacrev(torch.func.jacrev(total))(a, b)
    expected = torch.autograd.functional.hessian(lambda a: total(a, b), a)
    torch.testing.assert_close(hessian, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0), (2, 1)], ids=str)
@pytest.mark.parametrize("name", ["cdist", "knn"])
def test_vmap(name: str, dims: tuple[int | None, int | None]) -> None:
    a, b = noise(6, 4, 3), noise(6, 5, 3, seed=1)
    a, b = (x[0] if dim is None else x for x, dim in zip((a, b), dims, strict=True))

    def function(a: Tensor, b: Tensor) -> Any:
        return sosie.cdist(a, b) if name == "cdist" else tuple(sosie.knn(a, b, 2))

    moved = (x if dim is None else x.movedim(0, dim) for x, dim in zip((a, b), dims, strict=True))
    actual = torch.vmap(function, dims)(*moved)
    parts = [
        function(*(x if dim is None else x[i] for x, dim in zip((a, b), dims, strict=True)))
        for i in range(6)
    ]
    if name == "cdist":
        actual, parts = (actual,), [(part,) for part in parts]
    for result, expected in zip(actual, zip(*parts, strict=True), strict=True):
        assert torch.equal(result, torch.stack(expected))


def test_vmap_over_weights_and_of_a_set_in_itself() -> None:
    a, b = sets()
    weights = noise(3, 3).abs()
    actual = torch.vmap(lambda weights: sosie.cdist(a, b, weights=weights))(weights)
    assert torch.equal(actual, torch.stack([sosie.cdist(a, b, weights=w) for w in weights]))
    actual = torch.vmap(lambda b: sosie.knn(b, b, 2, exclude_self=True).indices)(b)
    expected = torch.stack([sosie.knn(x, x, 2, exclude_self=True).indices for x in b])
    assert torch.equal(actual, expected)


# --- Compilers ------------------------------------------------------------------------------------


def searched(a: Tensor, b: Tensor) -> Tensor:
    near = sosie.knn(a[0].sin(), b[0], 2)
    total = sosie.cdist(a.sin(), b, "cosine", weights=[0.5, 2.0, 1.5]).sum()
    return total + near.distances.sum() + near.indices.sum()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_compiled_in_one_graph(backend: str) -> None:
    torch.compiler.reset()
    compiled = torch.compile(searched, fullgraph=True, backend=backend)
    outcomes = []
    for function in (searched, compiled):
        a, b = sets(grad=True)
        result = function(a, b)
        outcomes.append((result, *torch.autograd.grad(result, (a, b))))
    for eager, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(other, eager, rtol=1e-12, atol=1e-13)


def test_dynamic_shapes_take_one_graph() -> None:
    torch.compiler.reset()
    graphs = 0

    def count(graph: Any, _inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph

    compiled = torch.compile(searched, fullgraph=True, dynamic=True, backend=count)
    for batch, rows, columns in ((2, 4, 5), (3, 7, 6), (5, 33, 17)):
        a, b = noise(batch, rows, 3), noise(batch, columns, 3, seed=1)
        torch.testing.assert_close(compiled(a, b), searched(a, b), rtol=1e-12, atol=0)
    assert graphs == 1


def test_compiled_with_a_packed_set() -> None:
    torch.compiler.reset()
    (a,), (b,) = sets(batch=1)
    packed = sosie.pack(b)

    def function(a: Tensor) -> Tensor:
        return sosie.cdist(a.sin(), packed) + sosie.knn(a, packed, 1).distances

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(a), function(a), rtol=1e-13, atol=0)
