# SPDX-License-Identifier: Apache-2.0
"""Losses: their numbers and derivatives, what compilers make of them, their manners as modules."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

import sosie  # noqa: E402
from sosie.nn import L1SSIMLoss, MSSSIMLoss, SSIMLoss  # noqa: E402
from sosie.reference import ssim as reference  # noqa: E402

Loss = Any

LOSSES: dict[str, Callable[..., Loss]] = {
    "ssim": lambda **options: SSIMLoss(data_range=1.0, **options),
    "l1": lambda **options: L1SSIMLoss(data_range=1.0, alpha=0.7, **options),
    # Three scales of a small window, so that small images do.
    "ms": lambda **options: MSSSIMLoss(
        data_range=1.0, weights=(0.3, 0.3, 0.4), **{"window_size": 5, **options}
    ),
}


@pytest.fixture(params=LOSSES.values(), ids=LOSSES.keys())
def make_loss(request: pytest.FixtureRequest) -> Callable[..., Loss]:
    result: Callable[..., Loss] = request.param
    return result


def photographs(
    shape: tuple[int, ...] = (3, 2, 27, 25), dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """A smooth image with noise, and the same with other noise: similarity well inside (0, 1)."""
    generator = np.random.default_rng(0)
    smooth = np.add.outer(np.linspace(0.2, 0.7, shape[-2]), np.linspace(0.0, 0.2, shape[-1]))
    images = (smooth + 0.1 * generator.random(shape) for _ in range(2))
    x, y = (torch.from_numpy(image).to(dtype) for image in images)
    return x.requires_grad_(), y


def expected_losses(name: str, x: Tensor, y: Tensor) -> Any:
    """One loss per image, by the reference."""
    x_values, y_values = x.detach().numpy(), y.numpy()
    if name == "ms":
        spec = sosie.ssim_spec("wang2003").replace(scale_weights=(0.3, 0.3, 0.4), window_size=5)
        return 1.0 - reference.ms_ssim(x_values, y_values, spec, 1.0)
    similarity = reference.ssim(x_values, y_values, sosie.ssim_spec("wang2004"), 1.0)
    if name == "ssim":
        return 1.0 - similarity
    return 0.7 * (1.0 - similarity) + 0.3 * np.abs(x_values - y_values).mean(axis=(1, 2, 3))


# --- Numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_the_reference(name: str, reduction: str) -> None:
    x, y = photographs()
    expected = expected_losses(name, x, y)
    assert (expected > 0.02).all()
    reduced = {"mean": expected.mean(), "sum": expected.sum(), "none": expected}[reduction]
    actual = LOSSES[name](reduction=reduction)(x, y)
    torch.testing.assert_close(actual, torch.as_tensor(reduced), rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_fused_gradient_equals_that_of_the_losses_per_image(
    make_loss: Callable[..., Loss], reduction: str
) -> None:
    x, y = photographs()
    y.requires_grad_()
    fused = torch.autograd.grad(make_loss(reduction=reduction)(x, y) * 1.5, (x, y))
    losses = make_loss(reduction="none")(x, y) * 1.5
    separate = torch.autograd.grad(getattr(losses, reduction)(), (x, y))
    for actual, expected in zip(fused, separate, strict=True):
        # The same terms in another order; the largest is of the order of 1e-4.
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-16)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck_and_gradgradcheck(make_loss: Callable[..., Loss], reduction: str) -> None:
    x, y = photographs((2, 1, 20, 21))
    y.requires_grad_()
    loss = make_loss(reduction=reduction, window_size=5, sigma=1.0)
    assert torch.autograd.gradcheck(loss, (x, y), fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, (x, y), fast_mode=True)


@pytest.mark.parametrize("name", ["ssim", "l1"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mask(name: str, reduction: str) -> None:
    x, y = photographs()
    mask = torch.from_numpy(np.random.default_rng(1).random((27, 25)) > 0.4)
    spec = sosie.ssim_spec("kornia")
    similarity, _ = reference.ssim_forward(
        x.detach().numpy(), y.numpy(), spec.resolve((27, 25), 1.0), mask=mask.numpy()
    )
    expected = 1.0 - similarity.mean(1)
    if name == "l1":
        error = (x - y).detach().abs()[..., mask].mean((1, 2)).numpy()
        expected = 0.7 * expected + 0.3 * error
    reduced = {"mean": expected.mean(), "sum": expected.sum(), "none": expected}[reduction]
    loss = LOSSES[name](reduction=reduction, spec=spec)
    holes = torch.where(mask, x, torch.nan).detach().requires_grad_()
    actual = loss(holes, y, mask)
    torch.testing.assert_close(actual, torch.as_tensor(reduced), rtol=1e-12, atol=0)
    (grad,) = torch.autograd.grad(actual.sum(), holes)
    assert grad.isfinite().all()
    assert (grad[..., ~mask] == 0.0).all()
    assert (grad[..., mask] != 0.0).all()


@pytest.mark.parametrize("spec", ["piq", "pytorch-msssim", "torchmetrics", "scikit-image"])
def test_conventions_that_the_fused_operator_does_not_serve(spec: str) -> None:
    """Downsampling (piq, from 384 pixels on) and a non-negative mean take the general way."""
    generator = np.random.default_rng(3)
    x, y = (torch.from_numpy(generator.random((1, 1, 390, 400))) for _ in range(2))
    options = {"nonnegative": "channel"} if spec == "pytorch-msssim" else {}
    loss = L1SSIMLoss(data_range=1.0, spec=spec, **options)
    similarity = sosie.ssim(x.numpy(), y.numpy(), data_range=1.0, spec=spec, **options)
    expected = 0.84 * (1.0 - similarity) + 0.16 * (x - y).abs().mean().item()
    assert abs(loss(x, y).item() - expected) < 1e-12
    x.requires_grad_()
    (grad,) = torch.autograd.grad(loss(x, y), x)
    (expected_grad,) = torch.autograd.grad(
        0.84 * (1.0 - sosie.ssim(x, y, data_range=1.0, spec=spec, **options))
        + 0.16 * (x - y).abs().mean(),
        x,
    )
    torch.testing.assert_close(grad, expected_grad, rtol=1e-9, atol=1e-15)


def test_layouts_and_volumes(make_loss: Callable[..., Loss]) -> None:
    x, y = photographs((2, 3, 24, 25))
    expected = make_loss()(x, y)
    last = make_loss(channel_axis=-1)(x.permute(0, 2, 3, 1), y.permute(0, 2, 3, 1))
    torch.testing.assert_close(last, expected, rtol=1e-12, atol=0)
    one_plane = make_loss()(x[0, 0], y[0, 0])
    torch.testing.assert_close(one_plane, make_loss()(x[:1, :1], y[:1, :1]), rtol=1e-12, atol=0)
    # A volume whose slices along its first axis are all the same is as similar as its slice.
    loss = make_loss(spatial_dims=3, window_size=5, border="reflect", pooling="floor")
    volumes = [image[:, :, None].expand(-1, -1, 24, -1, -1) for image in (x, y)]
    flat = make_loss(window_size=5, border="reflect", pooling="floor")
    torch.testing.assert_close(loss(*volumes), flat(x, y), rtol=1e-9, atol=0)


def test_training_finds_the_image(make_loss: Callable[..., Loss]) -> None:
    """Gradient descent on the pixels: the loss falls to a small part of where it began."""
    x, y = photographs((1, 1, 24, 24), torch.float32)
    loss = make_loss()
    optimiser = torch.optim.Adam([x], lr=0.01)
    first = loss(x, y).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss(x, y).backward()
        optimiser.step()
    assert loss(x, y).item() < 0.1 * first


# --- Mixed precision, transforms, compilers -------------------------------------------------------


def test_autocast(make_loss: Callable[..., Loss]) -> None:
    x, y = photographs(dtype=torch.float32)
    half = x.detach().bfloat16().requires_grad_()
    loss = make_loss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, y)
    assert value.dtype == torch.float32
    assert value == loss(half.float(), y)
    (grad,) = torch.autograd.grad(value, half)
    assert grad.dtype == torch.bfloat16
    with pytest.raises(TypeError, match=r"equal dtype, got torch\.bfloat16 and torch\.float32"):
        loss(half, y)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_transforms(make_loss: Callable[..., Loss], reduction: str) -> None:
    x, y = photographs()
    loss = make_loss(reduction=reduction)
    (expected,) = torch.autograd.grad(loss(x, y).sum(), x)
    x = x.detach()
    close = {"rtol": 1e-9, "atol": 1e-15}
    actual = torch.func.grad(lambda x: loss(x, y).sum())(x)
    torch.testing.assert_close(actual, expected, **close)
    jacobian = torch.func.jacrev(loss)(x, y).reshape(-1, *x.shape).sum(0)
    torch.testing.assert_close(jacobian, expected, **close)
    per_image = torch.vmap(torch.func.grad(lambda x, y: loss(x, y).sum()))(x, y)
    scale = len(x) if reduction == "mean" else 1
    torch.testing.assert_close(per_image, scale * expected, **close)


def compiled(loss: Loss, **options: Any) -> tuple[Any, list[Any]]:
    """The loss compiled in one graph, and the list to which its graphs are added."""
    torch.compiler.reset()
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        graphs.append(graph)
        return aot_eager(graph, inputs)

    return torch.compile(loss, fullgraph=True, backend=backend, **options), graphs


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_compiled(make_loss: Callable[..., Loss], reduction: str) -> None:
    x, y = photographs()
    loss = make_loss(reduction=reduction)
    function, graphs = compiled(loss)
    torch.testing.assert_close(function(x, y), loss(x, y), rtol=1e-12, atol=0)
    grads = (torch.autograd.grad(each(x, y).sum(), x)[0] for each in (function, loss))
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-15)
    assert len(graphs) == 1


def test_compiled_with_mask_and_inside_a_transform() -> None:
    x, y = photographs()
    mask = torch.from_numpy(np.random.default_rng(1).random((27, 25)) > 0.4)
    loss = L1SSIMLoss(data_range=1.0)

    def gradient(x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: loss(x, y, mask))(x)

    (expected,) = torch.autograd.grad(loss(x, y, mask), x)
    function, _ = compiled(gradient)
    torch.testing.assert_close(function(x.detach()), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["ssim", "l1"])
def test_dynamic_shapes_take_one_graph(name: str) -> None:
    loss = LOSSES[name]()
    function, graphs = compiled(loss, dynamic=True)
    for shape in ((2, 3, 16, 20), (3, 2, 31, 17), (5, 4, 12, 40)):
        x, y = photographs(shape)
        torch.testing.assert_close(function(x, y), loss(x, y), rtol=1e-12, atol=0)
        grads = (torch.autograd.grad(each(x, y), x)[0] for each in (function, loss))
        torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-15)
    assert len(graphs) == 1
    too_small = torch.rand(2, 3, 16, 10)
    with pytest.raises(Exception, match="at least 11 pixels along each axis"):
        function(too_small, too_small)


# --- Modules --------------------------------------------------------------------------------------


def test_module_manners(make_loss: Callable[..., Loss]) -> None:
    x, y = photographs()
    loss = make_loss()
    expected = loss(x, y)
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), loss.to(torch.float32)):
        assert torch.equal(other(x, y), expected)
        assert repr(other) == repr(loss)
    kept_x, kept_y = x.detach().clone(), y.clone()
    loss(x, y).backward()
    assert torch.equal(x, kept_x)
    assert torch.equal(y, kept_y)


def test_representation_gives_the_options_back() -> None:
    assert repr(SSIMLoss(data_range=1.0)) == "SSIMLoss(data_range=1.0, spec='wang2004')"
    assert repr(L1SSIMLoss(data_range=255.0, reduction="sum", sigma=2.0)) == (
        "L1SSIMLoss(alpha=0.84, data_range=255.0, spec='wang2004', sigma=2.0, reduction='sum')"
    )
    loss = MSSSIMLoss(data_range=1.0, weights=[0.5, 0.5], channel_axis=-1)
    assert repr(loss) == (
        "MSSSIMLoss(data_range=1.0, spec='wang2003', scale_weights=(0.5, 0.5), channel_axis=-1)"
    )
    assert loss.spec == sosie.ssim_spec("wang2003").replace(scale_weights=(0.5, 0.5))
    assert (loss.data_range, loss.reduction) == (1.0, "mean")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (SSIMLoss, TypeError, "data_range"),
        (lambda: SSIMLoss(data_range=1.0, spec="wang2005"), ValueError, "unknown SSIM spec"),
        (lambda: SSIMLoss(data_range=1.0, sigmas=2.0), TypeError, "no field 'sigmas'"),
        (lambda: SSIMLoss(data_range=1.0, reduction="max"), ValueError, "got 'max'"),
        (lambda: L1SSIMLoss(data_range=1.0, alpha=1.5), ValueError, "0 and 1, got 1.5"),
        (lambda: MSSSIMLoss(data_range=1.0, spec="wang2004"), ValueError, "got spec='wang2004'"),
    ],
)
def test_bad_options(make: Callable[[], Loss], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("shapes", "data_range", "error", "message"),
    [
        (((1, 1, 32, 32), (1, 1, 32, 31)), 1.0, ValueError, r"got \(1, 1, 32, 32\) and \(1, 1, 3"),
        (((1, 1, 9, 32), (1, 1, 9, 32)), 1.0, ValueError, r"at least 11 pixels .* got"),
        (((32,), (32,)), 1.0, ValueError, r"2 spatial axes.* got shape \(32,\)"),
        (((1, 1, 32, 32), (1, 1, 32, 32)), None, ValueError, "expected data_range"),
        (((1, 1, 32, 32), (1, 1, 32, 32)), -1.0, ValueError, "positive, got -1"),
    ],
)
def test_bad_calls(
    shapes: tuple[Any, Any], data_range: float | None, error: type[Exception], message: str
) -> None:
    x, y = (torch.rand(shape) for shape in shapes)
    for loss in (SSIMLoss(data_range=data_range), L1SSIMLoss(data_range=data_range)):
        with pytest.raises(error, match=message):
            loss(x, y)
