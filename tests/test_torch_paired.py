# SPDX-License-Identifier: Apache-2.0
"""Paired rows in torch: values, derivatives of both orders, transforms, compilers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

import sosie  # noqa: E402
from sosie.reference import paired as reference  # noqa: E402
from sosie.torch import paired as operators  # noqa: E402

F = torch.nn.functional


class Case(NamedTuple):
    """Two shapes, and the axis along which rows lie."""

    x: tuple[int, ...]
    y: tuple[int, ...]
    axis: int = -1


CASES = {
    "rows": Case((4, 9), (4, 9)),
    "single": Case((7,), (7,)),
    "columns": Case((3, 10), (3, 10), 0),
    "pixels": Case((2, 3, 4, 5), (2, 3, 4, 5), 1),
    "all pairs": Case((3, 1, 5), (4, 5)),
    "one for all": Case((6, 5), (5,)),
    "stretched": Case((4, 1), (1, 5), 1),
}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "euclidean": sosie.euclidean_distance,
    "cosine": sosie.cosine_similarity,
    "cosine-clamped": lambda x, y, axis: sosie.cosine_similarity(x, y, axis=axis, eps=1.5),
    "cosine-one": lambda x, y, axis: sosie.cosine_similarity(x, y, axis=axis, zero="scikit-learn"),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    result: Case = request.param
    return result


@pytest.fixture(params=FUNCTIONS.values(), ids=FUNCTIONS.keys())
def function(request: pytest.FixtureRequest) -> Callable[..., Tensor]:
    result: Callable[..., Tensor] = request.param
    return result


def noise(shape: tuple[int, ...], seed: int, dtype: Any = torch.float64) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(np.asarray(values)).to(dtype)


def pair(case: Case, dtype: Any = torch.float64, grad: bool = False) -> tuple[Tensor, Tensor]:
    x, y = noise(case.x, 0, dtype), noise(case.y, 1, dtype)
    return x.requires_grad_(grad), y.requires_grad_(grad)


# --- Values and derivatives -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_torch_functions_and_their_gradients(case: Case, dtype: Any) -> None:
    x, y = pair(case, dtype, True)
    wide = torch.broadcast_tensors(x, y)
    # Vectors of a few numbers: torch's roundings are as large as these.
    close = (
        {"rtol": 1e-5, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-13}
    )
    for actual, expected in (
        (
            sosie.cosine_similarity(x, y, axis=case.axis),
            F.cosine_similarity(*wide, dim=case.axis),
        ),
        (
            sosie.euclidean_distance(x, y, axis=case.axis),
            torch.linalg.vector_norm(wide[0] - wide[1], dim=case.axis),
        ),
    ):
        assert actual.dtype == dtype
        torch.testing.assert_close(actual, expected, **close)
        upstream = noise(tuple(actual.shape), 2, dtype)
        ours = torch.autograd.grad(actual, (x, y), upstream)
        theirs = torch.autograd.grad(expected, (x, y), upstream)
        for gradient, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(gradient, other, **close)


def test_gradients_equal_the_reference() -> None:
    x, y = noise((37, 301), 0, torch.float32), noise((37, 301), 1, torch.float32)
    x.requires_grad_(), y.requires_grad_()
    upstream = noise((37,), 2, torch.float32)
    numbers = [tensor.detach().numpy() for tensor in (x, y, upstream)]
    for function, expected in (
        (sosie.euclidean_distance, reference.euclidean_backward(*numbers, 1)),
        (sosie.cosine_similarity, reference.cosine_backward(*numbers, 1, 1e-8, 1e-8)),
    ):
        for gradient, other in zip(
            torch.autograd.grad(function(x, y), (x, y), upstream), expected, strict=True
        ):
            difference = gradient.numpy() - other
            # Each element to a few roundings of the largest, and no bias.
            assert np.abs(difference).max() <= 1e-6 * np.abs(other).max()
            assert abs(difference.mean()) <= 1e-7 * np.abs(other).mean()


def test_gradcheck_and_gradgradcheck(case: Case, function: Callable[..., Tensor]) -> None:
    x, y = pair(case, grad=True)

    def call(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y, axis=case.axis)

    assert torch.autograd.gradcheck(call, (x, y), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, (x, y), check_batched_grad=True)


def test_composition_equals_the_operators(case: Case) -> None:
    x, y = pair(case, grad=True)
    for ours, composed in (
        (
            sosie.euclidean_distance(x, y, axis=case.axis),
            operators.composed_euclidean_distance(x, y, case.axis),
        ),
        (
            sosie.cosine_similarity(x, y, axis=case.axis, eps=2.0),
            operators.composed_cosine_similarity(x, y, case.axis, 2.0, 2.0),
        ),
    ):
        torch.testing.assert_close(ours, composed, rtol=1e-13, atol=1e-14)
        for one, other in zip(
            torch.autograd.grad(ours.sum(), (x, y)),
            torch.autograd.grad(composed.sum(), (x, y)),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_coinciding_and_zero_rows_have_finite_derivatives() -> None:
    x, y = noise((4, 6), 0), noise((4, 6), 1)
    x[1] = y[1]
    x[2] = 0.0
    x.requires_grad_()
    (grad,) = torch.autograd.grad(sosie.euclidean_distance(x, y).sum(), x, create_graph=True)
    assert (grad[1] == 0.0).all()
    (second,) = torch.autograd.grad(grad.square().sum(), x)
    assert second.isfinite().all()
    assert (second[1] == 0.0).all()
    (grad,) = torch.autograd.grad(sosie.cosine_similarity(x, y).sum(), x)
    torch.testing.assert_close(grad[2], y[2] / y[2].norm() / 1e-8, rtol=1e-12, atol=0)
    (grad,) = torch.autograd.grad(sosie.cosine_similarity(x, y, zero="scipy").sum(), x)
    assert grad[2].isnan().all()
    assert grad[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: Any) -> None:
    x, y = noise((20, 33), 0, dtype).requires_grad_(), noise((20, 33), 1, dtype)
    exact = x.detach().float().requires_grad_()
    value = sosie.cosine_similarity(x, y)
    assert value.dtype == torch.float32
    expected = sosie.cosine_similarity(exact, y.float())
    # Conversion is exact, and sums have the same order.
    assert torch.equal(value, expected)
    (grad,) = torch.autograd.grad(value.sum(), x)
    (other,) = torch.autograd.grad(expected.sum(), exact)
    assert torch.equal(grad, other.to(dtype))


def test_large_gradients() -> None:
    # Beyond 16 MiB gradients bypass the caches; rows of 2049 numbers start anywhere.
    x, y = noise((2053, 2049), 0, torch.float32), noise((2053, 2049), 1, torch.float32)
    x.requires_grad_(), y.requires_grad_()
    grads = torch.autograd.grad(sosie.euclidean_distance(x, y).sum(), (x, y))
    distance = torch.linalg.vector_norm((x - y).detach(), dim=1, keepdim=True)
    expected = (x - y).detach() / distance
    torch.testing.assert_close(grads[0], expected, rtol=1e-5, atol=1e-8)
    assert torch.equal(grads[0], -grads[1])


# --- Transforms and registration ------------------------------------------------------------------


@pytest.mark.parametrize("in_dims", [(0, 0), (1, None), (None, 2)])
def test_vmap(function: Callable[..., Tensor], in_dims: tuple[int | None, int | None]) -> None:
    tensors = [noise((3, 4, 5), seed) for seed in (0, 1)]
    moved = [
        tensor[0] if dim is None else tensor.movedim(0, dim)
        for tensor, dim in zip(tensors, in_dims, strict=True)
    ]

    def call(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y, axis=0)

    def total(x: Tensor, y: Tensor) -> Tensor:
        return call(x, y).square().sum()

    singles = [
        [tensor[0 if dim is None else i] for tensor, dim in zip(tensors, in_dims, strict=True)]
        for i in range(3)
    ]
    close = {"rtol": 1e-12, "atol": 1e-13}
    actual = torch.vmap(call, in_dims)(*moved)
    torch.testing.assert_close(actual, torch.stack([call(*each) for each in singles]), **close)
    gradients = torch.vmap(torch.func.grad(total, (0, 1)), in_dims)(*moved)
    expected = [torch.func.grad(total, (0, 1))(*each) for each in singles]
    for own, others in zip(gradients, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(own, torch.stack(others), **close)


def test_hessian_by_transforms(function: Callable[..., Tensor]) -> None:
    x, y = noise((2, 3), 0), noise((1, 3), 1)

    def total(x: Tensor) -> Tensor:
        return function(x, y, axis=-1).sum()

    expected = torch.autograd.functional.hessian(total, x)
    actual = torch.func.jacrev(torch.func.jacrev(total))(x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    # Divided by constants, a product is linear in each of its factors.
    clamped = function is FUNCTIONS["cosine-clamped"]
    assert (expected.abs().max() < 1e-3) == clamped


def test_operators_are_registered_as_they_should_be() -> None:
    x, y = noise((3, 4, 5), 0), noise((3, 1, 5), 1)
    x.requires_grad_(), y.requires_grad_()
    ops = torch.ops.sosie
    torch.library.opcheck(ops.euclidean_distance.default, (x, y, -1))
    torch.library.opcheck(ops.cosine_similarity.default, (x, y, -1, 1e-8, 1e-8, True))
    value, norm_x, norm_y = (t.detach() for t in ops.cosine_similarity(x, y, -1, 1e-8, 1e-8, True))
    upstream = noise((3, 4), 2).requires_grad_()
    torch.library.opcheck(
        ops.euclidean_distance_backward.default, (x, y, value, upstream, -1, True, False)
    )
    torch.library.opcheck(
        ops.cosine_similarity_backward.default,
        (x, y, value, norm_x, norm_y, upstream, -1, 1e-8, 1e-8, True, True),
    )


def test_similarity_that_kept_no_norms_says_so() -> None:
    x, y = noise((3, 4), 0).requires_grad_(), noise((3, 4), 1)
    value, *norms = torch.ops.sosie.cosine_similarity(x, y, -1, 0.0, 0.0, False)
    assert [norm.numel() for norm in norms] == [0, 0]
    with pytest.raises(RuntimeError, match="kept no norms for its derivative"):
        value.sum().backward()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_compiled_in_one_graph(backend: str) -> None:
    torch.compiler.reset()

    def call(x: Tensor, y: Tensor) -> Tensor:
        distance = sosie.euclidean_distance(x.sin(), y, axis=1)
        return distance.sum() * 2.0 + sosie.cosine_similarity(x, y[0], axis=-1).square().sum()

    x, y = noise((3, 4, 5), 0).requires_grad_(), noise((3, 4, 5), 1).requires_grad_()
    compiled = torch.compile(call, fullgraph=True, backend=backend)
    for one, other in zip(
        (compiled(x, y), *torch.autograd.grad(compiled(x, y), (x, y))),
        (call(x, y), *torch.autograd.grad(call(x, y), (x, y))),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


def test_loss_compiled_for_all_sizes() -> None:
    torch.compiler.reset()
    graphs = []

    def count(graph: Any, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    loss = sosie.nn.CosineLoss(dim=1)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=count)
    for shape in ((3, 4, 5), (6, 2, 7), (4, 9, 3)):
        x, y = noise(shape, 0), noise(shape, 1)
        torch.testing.assert_close(compiled(x, y), loss(x, y), rtol=1e-12, atol=1e-13)
    assert len(graphs) == 1


# --- The loss -------------------------------------------------------------------------------------


def test_cosine_loss() -> None:
    x, y = noise((4, 6, 5), 0).requires_grad_(), noise((4, 6, 5), 1)
    each = 1.0 - F.cosine_similarity(x, y, dim=1)
    for reduction, expected in (("none", each), ("sum", each.sum()), ("mean", each.mean())):
        loss = sosie.nn.CosineLoss(dim=1, reduction=reduction)
        torch.testing.assert_close(loss(x, y), expected, rtol=1e-12, atol=1e-13)
    (grad,) = torch.autograd.grad(sosie.nn.CosineLoss(dim=1)(x, y), x)
    (expected,) = torch.autograd.grad(each.mean(), x)
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)
    clamped = sosie.nn.CosineLoss(dim=1, eps=4.0)(x, y)
    expected = (1.0 - F.cosine_similarity(x, y, dim=1, eps=4.0)).mean()
    torch.testing.assert_close(clamped, expected, rtol=1e-12, atol=0)


def test_cosine_loss_under_autocast() -> None:
    x, y = noise((4, 5), 0, torch.bfloat16), noise((4, 5), 1, torch.float32)
    loss = sosie.nn.CosineLoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(x, y), loss(x.float(), y))
    with pytest.raises(TypeError, match=r"equal dtype, got torch\.bfloat16 and torch\.float32"):
        loss(x, y)


def test_cosine_loss_says_what_it_is() -> None:
    assert repr(sosie.nn.CosineLoss(dim=1)) == "CosineLoss(dim=1, eps=1e-08, reduction='mean')"
    with pytest.raises(ValueError, match="reduction out of 'mean', 'sum', 'none', got 'max'"):
        sosie.nn.CosineLoss(reduction="max")
    with pytest.raises(ValueError, match="at least 0, got -1"):
        sosie.nn.CosineLoss(eps=-1.0)
