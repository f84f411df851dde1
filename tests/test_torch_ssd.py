# SPDX-License-Identifier: Apache-2.0
"""Operators of the SSD family in torch: values, derivatives, transforms, compilers."""

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
from sosie.nn import WeightedSSDLoss  # noqa: E402
from sosie.reference import ssd as reference  # noqa: E402
from sosie.torch import ssd as operators  # noqa: E402

SHAPE = (2, 3, 4, 5)
WEIGHTS: dict[str, tuple[int, ...] | None] = {
    "none": None,
    "full": SHAPE,
    "pixel": (1, 1, 4, 5),
    "channel": (1, 3, 1, 1),
    "image": (2, 1, 1, 1),
}

Function = Callable[..., Tensor]


def noise(
    shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64, grad: bool = False
) -> Tensor:
    values = np.random.default_rng(seed).random(shape)
    return torch.from_numpy(values).to(dtype).requires_grad_(grad)


def arguments_of(
    weights: str, dtype: torch.dtype = torch.float64, grad: bool = False
) -> tuple[Tensor, ...]:
    shapes = (SHAPE, SHAPE, WEIGHTS[weights])
    return tuple(
        noise(shape, seed, dtype, grad) for seed, shape in enumerate(shapes) if shape is not None
    )


def functions() -> dict[str, Function]:
    return {
        "sums": lambda x, y, w=None: operators.sums(x, y, w),
        "sums of images": lambda x, y, w=None: operators.sums(x, y, w, True),
        "mean": lambda x, y, w=None: sosie.weighted_ssd(x, y, w, reduction="mean"),
        "mse": lambda x, y, w=None: sosie.mse(x, y, weight=w, reduction="none", crop_border=1),
        "loss": lambda x, y, w=None: WeightedSSDLoss()(x, y, w),
        "loss, sum": lambda x, y, w=None: WeightedSSDLoss(reduction="sum")(x, y, w),
        "loss, weight fixed": lambda x, y, w=None: WeightedSSDLoss()(
            x, y, None if w is None else w.detach()
        ),
        "psnr": lambda x, y, w=None: sosie.psnr(  # noqa: ARG005
            x, y, data_range=1.0, y_channel=True, reduction="none"
        ),
    }


# --- Derivatives, against differences -------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", functions())
def test_gradcheck_and_gradgradcheck(name: str, weights: str) -> None:
    function, arguments = functions()[name], arguments_of(weights, grad=True)
    if name in ("psnr", "loss, weight fixed"):
        function, arguments = _of_images(function, arguments), arguments[:2]
    # In fast mode a random projection of the Jacobian is compared, of every entry of it at once.
    assert torch.autograd.gradcheck(function, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, arguments, fast_mode=True)


def _of_images(function: Function, arguments: tuple[Tensor, ...]) -> Function:
    rest = tuple(tensor.detach() for tensor in arguments[2:])
    return lambda x, y: function(x, y, *rest)


def test_third_derivative() -> None:
    x, y, w = arguments_of("channel", grad=True)

    def gradient(x: Tensor, w: Tensor) -> Tensor:
        value = operators.sums(x, y, w)[:, 0].sum()
        return torch.autograd.grad(value, (x, w), create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, (x, w), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_equals_the_reference(reduction: str, weights: str, dtype: torch.dtype) -> None:
    arguments = arguments_of(weights, dtype)
    x, y = (tensor.clone().requires_grad_() for tensor in arguments[:2])
    weight = arguments[2] if len(arguments) > 2 else None
    values = [None if t is None else t.double().detach().numpy() for t in (x, y, weight)]
    sums = reference.ssd_forward(*values)
    scale = 1.0 / sums[0, 1] if reduction == "mean" else 1.0
    expected = reference.ssd_backward(*values, [[1.5 * scale, 0.0]])
    loss = WeightedSSDLoss(reduction=reduction)(x, y, weight)
    assert loss.dtype == dtype
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6  # a few roundings
    assert abs(loss.item() - scale * sums[0, 0]) <= tolerance * scale * sums[0, 0]
    for grad, other in zip(torch.autograd.grad(1.5 * loss, (x, y)), expected, strict=False):
        torch.testing.assert_close(grad.double(), torch.from_numpy(other), rtol=tolerance, atol=0)


def test_gradient_is_scaled_and_can_be_taken_again() -> None:
    x, y, weight = arguments_of("pixel")
    x.requires_grad_()
    loss = WeightedSSDLoss()(x, y, weight)
    (grad,) = torch.autograd.grad(loss, x, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss, x, torch.tensor(0.25).double(), retain_graph=True)
    assert torch.equal(scaled, 0.25 * grad)
    loss.backward(retain_graph=True)
    loss.backward()
    assert torch.equal(x.grad, 2.0 * grad)


def test_only_the_gradients_that_are_needed_are_computed() -> None:
    x, y, weight = arguments_of("channel")
    upstream = torch.ones(1, 2, dtype=torch.float64)
    backward = torch.ops.sosie.ssd_backward
    everything = backward(x, y, weight, upstream, False, True, True, True)
    for i in range(3):
        needs = [i == k for k in range(3)]
        found = backward(x, y, weight, upstream, False, *needs)
        for one, other, needed in zip(found, everything, needs, strict=True):
            assert torch.equal(one, other) if needed else one.numel() == 0


def test_loss_operator_that_kept_no_gradient_says_so() -> None:
    x, y, _ = arguments_of("full", grad=True)
    loss, _, _ = torch.ops.sosie.ssd_loss(x, y, None, True, False, False, False)
    with pytest.raises(RuntimeError, match="kept no gradient to scale"):
        loss.backward()


def test_pixels_of_weight_zero_get_no_gradient_whatever_they_hold() -> None:
    x, y, _ = arguments_of("full")
    for weight in (noise(SHAPE, 5) > 0.5, (noise(SHAPE, 5) > 0.5).double()):
        left_out = weight == 0
        damaged = torch.where(left_out, torch.nan, x).requires_grad_()
        for function in (WeightedSSDLoss(), functions()["mean"]):
            value = function(damaged, y, weight)
            torch.testing.assert_close(value, function(x, y, weight), rtol=1e-14, atol=0)
            (grad,) = torch.autograd.grad(value, damaged, create_graph=True)
            assert grad.isfinite().all()
            assert (grad[left_out] == 0.0).all()
            (second,) = torch.autograd.grad(grad.sum(), damaged)
            assert second.isfinite().all()


def test_bad_weights_raise_through_the_operators() -> None:
    x, y, weight = arguments_of("pixel", grad=True)
    bad = weight.detach().clone()
    bad[0, 0, 1, 1] = -0.5
    for call in (
        lambda: sosie.weighted_ssd(x, y, bad),
        lambda: WeightedSSDLoss()(x, y, bad),
        lambda: torch.func.grad(lambda x: sosie.weighted_ssd(x, y.detach(), bad))(x.detach()),
    ):
        with pytest.raises(ValueError, match=r"weights of at least 0 .*got -0\.5"):
            call()
    value = WeightedSSDLoss(allow_negative=True, reduction="sum")(x, y, bad)
    torch.testing.assert_close(value, (bad * (x - y) ** 2).sum())


# --- Operators as torch sees them -----------------------------------------------------------------

QUICK = ("test_schema", "test_autograd_registration", "test_faketensor")
LAYOUTS: dict[str, Function] = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second column": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
}


def operator_calls(grad: bool, layout: Function) -> dict[str, tuple[Any, ...]]:
    x, y, weight = arguments_of("pixel", torch.float32)
    x, y = (layout(image).requires_grad_(grad) for image in (x, y))
    weight.requires_grad_(grad)
    upstream = noise((2, 2), 3, torch.float64, grad)
    return {
        "ssd": (x, y, weight, False, False),
        "ssd, images": (x, y, None, True, False),
        "ssd_backward": (x, y, weight, upstream, True, True, True, True),
        "ssd_backward, y only": (x, y, None, upstream[:1], False, False, True, False),
        "ssd_loss": (x, y, weight.detach(), True, False, True, True),
    }


@pytest.mark.parametrize("grad", [False, True], ids=["constants", "variables"])
@pytest.mark.parametrize("layout", ["channels_last", "every second column"])
@pytest.mark.parametrize("name", operator_calls(False, lambda x: x))
def test_opcheck(name: str, layout: str, grad: bool) -> None:
    operator = getattr(torch.ops.sosie, name.partition(",")[0]).default
    second_order = grad and name.startswith("ssd_backward")
    torch.library.opcheck(
        operator,
        operator_calls(grad, LAYOUTS[layout])[name],
        test_utils=QUICK if second_order else (*QUICK, "test_aot_dispatch_dynamic"),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision(dtype: torch.dtype, layout: str) -> None:
    x, y = (LAYOUTS[layout](tensor) for tensor in arguments_of("none", dtype))
    weight = noise((4, 5), 2, torch.float32)
    exact = x.float().requires_grad_()
    expected = sosie.weighted_ssd(exact, y.float(), weight, reduction="mean")
    x.requires_grad_()
    for value in (
        sosie.weighted_ssd(x, y, weight, reduction="mean"), WeightedSSDLoss()(x, y, weight)
    ):  # fmt: skip
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
        (grad,) = torch.autograd.grad(value, x)
        assert grad.dtype == dtype
        (other,) = torch.autograd.grad(expected, exact, retain_graph=True)
        # Computed in float32 and rounded once, to 11 or 8 bits.
        rounding = 2.0**-11 if dtype == torch.float16 else 2.0**-8
        torch.testing.assert_close(grad.float(), other, rtol=rounding, atol=1e-7)


def test_loss_gradient_of_halves_survives_loss_scaling() -> None:
    """1 / (number of pixels) is below the smallest float16: rounding must come after scaling."""
    x = noise((4, 3, 64, 64), 0, torch.float16, True)
    y = noise((4, 3, 64, 64), 1, torch.float16)
    scale = 2.0**16
    (grad,) = torch.autograd.grad(WeightedSSDLoss()(x, y) * scale, x)
    expected = 2.0 * (x.detach().float() - y.float()) / x.numel()
    torch.testing.assert_close(grad.float() / scale, expected, rtol=2.0**-10, atol=1e-9)


def test_autocast_may_make_dtypes_differ() -> None:
    x, y = arguments_of("none", torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = WeightedSSDLoss()(x.bfloat16(), y)
    torch.testing.assert_close(value, torch.nn.functional.mse_loss(x.bfloat16().float(), y))


# --- Function transforms --------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", functions())
def test_transforms(name: str, weights: str) -> None:
    function, arguments = functions()[name], arguments_of(weights)
    x, *rest = arguments
    close = {"rtol": 1e-12, "atol": 1e-14}
    variables = [tensor.clone().requires_grad_() for tensor in arguments]

    def total(*arguments: Tensor) -> Tensor:
        return function(*arguments).sum()

    expected = torch.autograd.grad(total(*variables), variables, materialize_grads=True)
    found = torch.func.grad(total, tuple(range(len(arguments))))(*arguments)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **close)
    batch = torch.stack([x, 2.0 * x, x * x])
    dims = (0, *(None,) * len(rest))
    stacked = torch.stack([function(image, *rest) for image in batch])
    torch.testing.assert_close(torch.vmap(function, dims)(batch, *rest), stacked, **close)
    mapped = torch.vmap(function, (2, *dims[1:]))(batch.movedim(0, 2), *rest)
    torch.testing.assert_close(mapped, stacked, **close)
    per_sample = torch.vmap(torch.func.grad(total), dims)(batch, *rest)
    torch.testing.assert_close(per_sample[0], expected[0], **close)
    if len(arguments) > 2:
        many = torch.stack([rest[1], 3.0 * rest[1]])
        stacked = torch.stack([function(x, rest[0], weight) for weight in many])
        mapped = torch.vmap(function, (None, None, 0))(x, rest[0], many)
        torch.testing.assert_close(mapped, stacked, **close)


def test_hessian_by_transforms() -> None:
    x, y, weight = arguments_of("pixel")

    def total(x: Tensor) -> Tensor:
        return WeightedSSDLoss(reduction="sum")(x, y, weight)

    hessian = torch.func.jacrev(torch.func.jacrev(total))(x).reshape(x.numel(), -1)
    expected = torch.diag(2.0 * weight.expand(SHAPE).reshape(-1))
    torch.testing.assert_close(hessian, expected, rtol=1e-12, atol=1e-14)


# --- Compilers ------------------------------------------------------------------------------------


@pytest.fixture
def fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:.*lru_cache:UserWarning")  # it caches an import
@pytest.mark.parametrize("name", functions())
def test_compiled_in_one_graph(name: str) -> None:
    function, arguments = functions()[name], arguments_of("pixel", grad=True)

    def model(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return function(x.sin(), y, weight).sum() * 2.0

    outcomes = []
    for each in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        value = each(*arguments)
        grads = torch.autograd.grad(value, arguments, materialize_grads=True)
        outcomes.append((value, *grads))
    for eager, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(other, eager, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:.*lru_cache:UserWarning")
def test_dynamic_shapes_take_one_graph() -> None:
    graphs = 0

    def count(graph: Any, _inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph

    def function(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        mean = sosie.weighted_ssd(x, y, weight, reduction="mean")
        return mean + WeightedSSDLoss()(x, y, weight)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=count)
    for shape in ((2, 3, 16, 20), (3, 2, 31, 17), (5, 4, 12, 40)):
        x, y, weight = noise(shape, 0, grad=True), noise(shape, 1), noise(shape[2:], 2)
        torch.testing.assert_close(
            compiled(x, y, weight), function(x, y, weight), rtol=1e-12, atol=0
        )
    assert graphs == 1


# --- The module -----------------------------------------------------------------------------------


def test_module_has_manners() -> None:
    loss = WeightedSSDLoss(reduction="none", spatial_dims=3)
    assert repr(loss) == "WeightedSSDLoss(reduction='none', spatial_dims=3)"
    assert not list(loss.parameters())
    x, y = noise((2, 1, 3, 4, 5), 0), noise((2, 1, 3, 4, 5), 1)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert torch.equal(other(x, y), loss(x, y))
    torch.testing.assert_close(loss(x, y), ((x - y) ** 2).flatten(1).sum(1))
    with pytest.raises(ValueError, match=r"'mean'.*'median'"):
        WeightedSSDLoss(reduction="median")
    with pytest.raises(ValueError, match=r"\(2, 1, 3, 4, 5\) and \(1, 3, 4, 5\)"):
        loss(x, y[0])
