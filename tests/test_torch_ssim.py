# SPDX-License-Identifier: Apache-2.0
"""Operators of the SSIM family in torch: values, derivatives of both orders, transforms, compilers.

Everything is compared with the float64 reference. Images are noise, on which rounding is mild:
windows of noise have variances of the order of the squared values, so nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from sosie.reference import ssim as reference  # noqa: E402
from sosie.spec import SSIMParameters, SSIMSpec  # noqa: E402
from sosie.torch import composite  # noqa: E402
from sosie.torch import ssim as operators  # noqa: E402
from sosie.torch._register import _no_cuda_kernel  # noqa: E402


class Case(NamedTuple):
    """A convention and an image size that its derivatives can be checked at in a second."""

    spec: SSIMSpec
    shape: tuple[int, ...]
    masked: bool = False


CASES = {
    "valid": Case(SSIMSpec(window_size=5), (2, 2, 7, 6)),
    "valid-mask": Case(SSIMSpec(window_size=5), (1, 2, 8, 7), masked=True),
    "zero-crop": Case(SSIMSpec(window_size=5, border="zero", crop=1), (1, 1, 7, 6)),
    "reflect-sample": Case(
        SSIMSpec(window="uniform", window_size=3, border="reflect", covariance="sample"),
        (1, 2, 5, 6),
    ),
    "symmetric-stride": Case(SSIMSpec(window_size=5, border="symmetric", stride=2), (1, 1, 7, 6)),
    "replicate-mask": Case(SSIMSpec(window_size=5, border="replicate"), (1, 1, 6, 7), masked=True),
    "clamps": Case(
        SSIMSpec(window_size=3, epsilon=1e-3, clamp_variance=True, clamp_value=(0.0, 0.5)),
        (1, 2, 7, 6),
    ),
    "custom": Case(
        SSIMSpec(window="custom", taps=((0.2, 0.5, 0.2), (0.1, 0.2, 0.4, 0.2, 0.3))), (1, 1, 7, 8)
    ),
    "even": Case(SSIMSpec(window="uniform", window_size=4), (1, 1, 6, 7)),
    "volume": Case(SSIMSpec(window_size=3, border="reflect"), (1, 1, 4, 5, 3)),
}

Function = Callable[..., Tensor]


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    result: Case = request.param
    return result


def parameters_of(case: Case) -> SSIMParameters:
    return resolved(case.spec, case.shape[2:])


def resolved(spec: SSIMSpec, spatial_shape: tuple[int, ...]) -> SSIMParameters:
    parameters = spec.resolve(spatial_shape, 1.0)
    parameters.encode()  # is done once, and is not what compilers should trace
    return parameters


def noise(
    shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64, grad: bool = False
) -> Tensor:
    values = np.random.default_rng(seed).random(shape)
    return torch.from_numpy(values).to(dtype).requires_grad_(grad)


def pair(case: Case, dtype: torch.dtype = torch.float64, grad: bool = False) -> tuple[Tensor, ...]:
    return noise(case.shape, 0, dtype, grad), noise(case.shape, 1, dtype, grad)


def mask_of(case: Case) -> Tensor | None:
    return noise((1, *case.shape[1:]), 2) > 0.25 if case.masked else None


def numpy_of(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().double().numpy()


def mask_to_numpy(mask: Tensor | None) -> Any:
    return None if mask is None else mask.numpy()


def assert_gradient_close(actual: Tensor, expected: Any, tolerance: float) -> None:
    """Each element to a part of the largest, the direction, and no bias."""
    expected = torch.as_tensor(expected)
    difference = actual.double() - expected
    assert difference.abs().max() <= tolerance * expected.abs().max()
    cosine = torch.nn.functional.cosine_similarity(actual.double().ravel(), expected.ravel(), dim=0)
    assert 1.0 - cosine <= tolerance
    assert difference.mean().abs() <= tolerance * expected.abs().mean()


# --- Values ---------------------------------------------------------------------------------------

# float64: a few dozen roundings of numbers of order 1, divided by variances of order 0.1.
# float32: the same at 2^-24, map elements; a mean of n of them is better still.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-5}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("kind", ["ssim", "cs"])
@pytest.mark.parametrize("functions", ["operators", "composite"])
def test_values_and_map_equal_the_reference(
    case: Case, kind: str, dtype: torch.dtype, functions: str
) -> None:
    x, y = pair(case, dtype)
    parameters, mask = parameters_of(case), mask_of(case)
    expected, expected_map = reference.ssim_forward(
        numpy_of(x), numpy_of(y), parameters, mask=mask_to_numpy(mask), kind=kind
    )
    if functions == "operators":
        actual = operators.values(x, y, parameters, mask, kind)
        actual_map = operators.similarity_map(x, y, parameters, mask, kind)
    else:
        actual = composite.ssim(x, y, parameters, mask, kind)
        actual_map = composite.ssim_map(x, y, parameters, mask, kind)
    assert actual.dtype == actual_map.dtype == dtype
    # Unnormalised windows ("custom") have contrasts near 0 in places: 40 times worse conditioned.
    tolerance = TOLERANCES[dtype] * (40.0 if case.spec.window == "custom" else 1.0)
    torch.testing.assert_close(actual.double(), torch.from_numpy(expected), rtol=0, atol=tolerance)
    torch.testing.assert_close(
        actual_map.double(),
        torch.from_numpy(expected_map),
        rtol=tolerance,
        atol=tolerance,
    )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16], ids=str)
def test_narrow_dtypes_equal_float32_of_the_same_values(dtype: torch.dtype) -> None:
    parameters = SSIMSpec().resolve((24, 23), 255.0)
    x, y = ((255 * noise((2, 3, 24, 23), seed)).to(dtype) for seed in (0, 1))
    actual = operators.values(x, y, parameters)
    assert actual.dtype == torch.float32
    # Conversion is exact, so only the order of a sum may differ.
    torch.testing.assert_close(
        actual, operators.values(x.float(), y.float(), parameters), rtol=0, atol=1e-7
    )


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every second column": lambda x: x.repeat_interleave(2, dim=3)[..., ::2],
    "cropped": lambda x: torch.nn.functional.pad(x, (3, 2, 1, 4))[..., 1:-4, 3:-2],
    "flipped": lambda x: x.flip(3).flip(3),
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layout_does_not_matter(layout: Callable[[Tensor], Tensor]) -> None:
    parameters = SSIMSpec().resolve((15, 17), 1.0)
    y = noise((2, 3, 15, 17), 1, torch.float32)
    x = layout(noise((2, 3, 15, 17), 0, torch.float32)).requires_grad_()
    dense = x.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    value, expected = operators.values(x, y, parameters), operators.values(dense, y, parameters)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-7)
    (grad,) = torch.autograd.grad(value.sum(), x)
    (expected_grad,) = torch.autograd.grad(expected.sum(), dense)
    assert_gradient_close(grad, expected_grad.double(), 1e-6)  # sums in another order


def test_image_against_itself() -> None:
    parameters = SSIMSpec().resolve((16, 16), 1.0)
    x = noise((1, 2, 16, 16), 0, torch.float32, grad=True)
    value = operators.values(x, x, parameters)
    assert (value == 1.0).all()
    (grad,) = torch.autograd.grad(value.sum(), x)
    # Both images' gradients vanish at the maximum, but for rounding of terms of size 1 / 36.
    assert grad.abs().max() < 1e-6


def test_nan_stays_in_its_own_plane() -> None:
    parameters = SSIMSpec(window_size=5).resolve((9, 9), 1.0)
    x, y = noise((2, 2, 9, 9), 0), noise((2, 2, 9, 9), 1)
    expected = operators.values(x, y, parameters)
    x[1, 0, 4, 4] = torch.nan
    actual = operators.values(x, y, parameters)
    assert actual[1, 0].isnan()
    keep = torch.tensor([[True, True], [False, True]])
    assert torch.equal(actual[keep], expected[keep])


# --- First derivatives ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("of_map", [False, True], ids=["values", "map"])
@pytest.mark.parametrize("kind", ["ssim", "cs"])
def test_gradients_equal_the_reference(
    case: Case, kind: str, of_map: bool, dtype: torch.dtype
) -> None:
    x, y = pair(case, dtype, grad=True)
    parameters, mask = parameters_of(case), mask_of(case)
    function = operators.similarity_map if of_map else operators.values
    result = function(x, y, parameters, mask, kind)
    upstream = noise(tuple(result.shape), 3, dtype) - 0.3
    actual = torch.autograd.grad(result, (x, y), upstream)
    expected = reference.ssim_backward(
        numpy_of(x),
        numpy_of(y),
        parameters,
        numpy_of(upstream),
        mask=mask_to_numpy(mask),
        kind=kind,
    )
    # As for values; a gradient divides by a variance once more.
    tolerance = 1e-11 if dtype == torch.float64 else 1e-4
    tolerance *= 40.0 if case.spec.window == "custom" else 1.0
    for grad, expected_grad in zip(actual, expected, strict=True):
        assert_gradient_close(grad, expected_grad, tolerance)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
def test_loss_equals_the_reference(masked: bool) -> None:
    case = Case(SSIMSpec(), (2, 3, 20, 19), masked)
    parameters, mask = parameters_of(case), mask_of(case)
    x, y = pair(case, grad=True)
    ssim_values, l1_values, *expected = reference.ssim_loss(
        numpy_of(x),
        numpy_of(y),
        parameters,
        ssim_weight=0.8,
        l1_weight=0.3,
        mask=mask_to_numpy(mask),
    )
    expected_loss = np.mean(0.8 * (1.0 - ssim_values) + 0.3 * l1_values)
    loss = operators.loss(x, y, parameters, mask, 0.8, 0.3)
    assert abs(loss.item() - expected_loss) < 1e-13
    for grad, expected_grad in zip(torch.autograd.grad(loss, (x, y)), expected, strict=True):
        assert_gradient_close(grad, expected_grad, 1e-12)
    without_gradient = operators.loss(x.detach(), y.detach(), parameters, mask, 0.8, 0.3)
    assert not without_gradient.requires_grad
    assert abs(without_gradient.item() - expected_loss) < 1e-13


def test_loss_gradient_is_scaled_and_can_be_taken_again() -> None:
    parameters = SSIMSpec().resolve((16, 16), 1.0)
    x, y = noise((1, 1, 16, 16), 0, grad=True), noise((1, 1, 16, 16), 1)
    loss = operators.loss(x, y, parameters)
    (grad,) = torch.autograd.grad(loss, x, retain_graph=True)
    (again,) = torch.autograd.grad(loss, x, retain_graph=True)
    (scaled,) = torch.autograd.grad(loss, x, torch.tensor(0.25).double(), retain_graph=True)
    assert torch.equal(again, grad)
    assert torch.equal(scaled, 0.25 * grad)
    loss.backward(retain_graph=True)
    loss.backward()
    assert torch.equal(x.grad, 2.0 * grad)


def test_only_the_gradient_that_is_needed_is_computed() -> None:
    parameters = SSIMSpec(window_size=5).resolve((8, 8), 1.0).encode()
    x, y, upstream = noise((1, 1, 8, 8), 0), noise((1, 1, 8, 8), 1), torch.ones(1, 1).double()
    backward = torch.ops.sosie.ssim_backward
    grad_x, grad_y = backward(x, y, None, upstream, parameters, "ssim", True, True)
    only_x, empty = backward(x, y, None, upstream, parameters, "ssim", True, False)
    # One gradient needs three filtered planes and two need four: sums in another order.
    torch.testing.assert_close(only_x, grad_x, rtol=1e-12, atol=1e-15)
    assert empty.numel() == 0
    empty, only_y = backward(x, y, None, upstream, parameters, "ssim", False, True)
    torch.testing.assert_close(only_y, grad_y, rtol=1e-12, atol=1e-15)
    assert empty.numel() == 0


def test_loss_operator_that_kept_no_gradient_says_so() -> None:
    parameters = SSIMSpec(window_size=5).resolve((8, 8), 1.0).encode()
    x, y = noise((1, 1, 8, 8), 0, grad=True), noise((1, 1, 8, 8), 1)
    loss, _, _ = torch.ops.sosie.ssim_loss(x, y, None, parameters, 1.0, 0.0, False, False)
    with pytest.raises(RuntimeError, match="kept no gradient to scale"):
        loss.backward()


def test_invalid_pixels_get_no_gradient_whatever_they_hold() -> None:
    case = CASES["replicate-mask"]
    mask = mask_of(case)
    x, y = (image.requires_grad_() for image in pair(case))
    clean = operators.values(x, y, parameters_of(case), mask)
    x, y = (torch.where(mask, image, torch.nan).detach().requires_grad_() for image in (x, y))
    value = operators.values(x, y, parameters_of(case), mask)
    assert torch.equal(value, clean)
    for grad in torch.autograd.grad(value.sum(), (x, y)):
        assert grad.isfinite().all()
        assert (grad[~mask] == 0.0).all()


def test_plane_without_valid_pixel_is_nan_and_gets_no_gradient() -> None:
    parameters = SSIMSpec(window_size=3, border="reflect").resolve((6, 6), 1.0)
    x, y = noise((2, 1, 6, 6), 0, grad=True), noise((2, 1, 6, 6), 1)
    mask = torch.tensor([True, False]).reshape(2, 1, 1, 1)
    value = operators.values(x, y, parameters, mask)
    assert value[0].isfinite()
    assert value[1].isnan()
    (grad,) = torch.autograd.grad(value[0].sum(), x)
    assert (grad[1] == 0.0).all()
    assert (grad[0] != 0.0).any()


# --- Derivatives of both orders, against differences ----------------------------------------------


def functions_of(case: Case) -> dict[str, Function]:
    parameters, mask = parameters_of(case), mask_of(case)
    return {
        "values": lambda x, y: operators.values(x, y, parameters, mask),
        "contrast": lambda x, y: operators.values(x, y, parameters, mask, "cs"),
        "map": lambda x, y: operators.similarity_map(x, y, parameters, mask),
        "loss": lambda x, y: operators.loss(x, y, parameters, mask, 0.8, 0.2),
    }


@pytest.mark.parametrize("name", ["values", "contrast", "map", "loss"])
def test_gradcheck_and_gradgradcheck(case: Case, name: str) -> None:
    function, images = functions_of(case)[name], pair(case, grad=True)
    # In fast mode a random projection of the Jacobian is compared, of every entry of it at once.
    assert torch.autograd.gradcheck(function, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, images, fast_mode=True)


@pytest.mark.parametrize(
    ("factor", "padding", "border"),
    [
        (2, ((0, 0), (0, 0)), "zero"),
        (2, ((1, 0), (0, 1)), "zero"),
        (3, ((1, 1), (2, 0)), "symmetric"),
        (2, ((1, 0), (1, 0)), "replicate"),
        (2, ((0, 0), (0, 1), (1, 0)), "replicate"),
    ],
)
def test_downsampling(factor: int, padding: tuple[tuple[int, int], ...], border: str) -> None:
    x = noise((1, 2, 5, 7, 4)[: 2 + len(padding)], 0, grad=True)

    def function(x: Tensor) -> Tensor:
        return operators.downsample(x, factor, padding, border)

    expected = reference.downsample_forward(numpy_of(x), factor, padding, border)
    torch.testing.assert_close(function(x), torch.from_numpy(expected), rtol=1e-14, atol=1e-15)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)
    assert function(x.half()).dtype == torch.float32
    batch = noise((3, *x.shape), 1)
    mapped = torch.vmap(function)(batch)
    assert torch.equal(mapped, torch.stack([function(image) for image in batch]))


def test_full_jacobian_and_third_derivative() -> None:
    """Entry by entry, and once more than what a fast check sees."""
    case = Case(SSIMSpec(window_size=3), (1, 1, 4, 3))
    function, (x, y) = functions_of(case)["values"], pair(case, grad=True)
    assert torch.autograd.gradcheck(function, (x, y))

    def gradient(x: Tensor) -> Tensor:
        return torch.autograd.grad(function(x, y).sum(), x, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(gradient, x, fast_mode=True)


# --- Operators as torch sees them -----------------------------------------------------------------

#: What opcheck does without compiling; tracing second derivatives takes it minutes.
QUICK = ("test_schema", "test_autograd_registration", "test_faketensor")


def operator_calls(grad: bool, layout: Callable[[Tensor], Tensor]) -> dict[str, tuple[Any, ...]]:
    shape = (2, 3, 12, 13)
    x, y = (layout(noise(shape, seed, torch.float32)).requires_grad_(grad) for seed in (0, 1))
    mask = noise((1, 1, 12, 13), 2) > 0.25
    encoded = SSIMSpec().resolve(shape[2:], 1.0).encode()
    upstream = noise((2, 3), 3, torch.float32, grad)
    upstream_map = noise((2, 3, 2, 3), 4, torch.float32, grad)
    return {
        "ssim": (x, y, mask, encoded, "ssim"),
        "ssim_map": (x, y, None, encoded, "cs"),
        "ssim_backward": (x, y, mask, upstream, encoded, "ssim", True, True),
        "ssim_backward, map, y only": (x, y, None, upstream_map, encoded, "cs", False, True),
        "ssim_loss": (x, y, mask, encoded, 0.8, 0.2, True, True),
        "ssim_loss_backward": (
            *(x, y, None, torch.tensor(2.0), x.detach(), y.detach(), encoded, 0.8, 0.2),
        ),
        "downsample": (x, 2, [1, 0, 0, 1], "symmetric"),
        "downsample_backward": (upstream_map, [2, 3, 5, 6], 2, [0, 0, 0, 0], "zero"),
    }


@pytest.mark.parametrize("grad", [False, True], ids=["constants", "variables"])
@pytest.mark.parametrize("layout", ["channels_last", "every second column"])
@pytest.mark.parametrize("name", operator_calls(False, lambda x: x))
def test_opcheck(name: str, layout: str, grad: bool) -> None:
    operator = getattr(torch.ops.sosie, name.partition(",")[0]).default
    second_order = grad and name.startswith(("ssim_backward", "ssim_loss_backward"))
    torch.library.opcheck(
        operator,
        operator_calls(grad, LAYOUTS[layout])[name],
        test_utils=QUICK if second_order else (*QUICK, "test_aot_dispatch_dynamic"),
    )


def test_raw_operators_have_derivatives_and_batching_rules_of_their_own() -> None:
    case = CASES["valid-mask"]
    parameters, mask = parameters_of(case), mask_of(case)
    x, y = pair(case, grad=True)
    raw = torch.ops.sosie.ssim(x, y, mask, parameters.encode(), "ssim")
    ours = operators.values(x, y, parameters, mask)
    # Values that come with a gradient are added up over other tiles.
    torch.testing.assert_close(raw, ours, rtol=1e-13, atol=1e-13)
    grads = (torch.autograd.grad(result.sum(), (x, y)) for result in (raw, ours))
    for raw_grad, our_grad in zip(*grads, strict=True):
        torch.testing.assert_close(raw_grad, our_grad, rtol=1e-13, atol=1e-15)
    mapped = torch.vmap(
        lambda x: torch.ops.sosie.ssim(x, y.detach(), mask, parameters.encode(), "ssim")
    )(x.detach()[None])
    torch.testing.assert_close(mapped[0], ours.detach(), rtol=1e-13, atol=1e-13)


def test_no_derivative_is_recorded_where_none_is_wanted() -> None:
    parameters = SSIMSpec(window_size=5).resolve((8, 8), 1.0)
    x, y = noise((1, 1, 8, 8), 0, grad=True), noise((1, 1, 8, 8), 1)
    expected = operators.values(x, y, parameters)
    with torch.no_grad():
        assert not operators.values(x, y, parameters).requires_grad
    with torch.inference_mode():
        assert operators.values(x, y, parameters).is_inference()
    assert expected.requires_grad


def test_operator_without_a_cuda_kernel_says_so() -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key("sosie::ssim", "CUDA")
    with pytest.raises(NotImplementedError, match=r"sosie::ssim has no CUDA kernel .* on meta"):
        _no_cuda_kernel("ssim")(torch.empty(1, device="meta"), None, "text")


# --- Function transforms --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["values", "map", "loss"])
def test_transforms(name: str) -> None:
    case = CASES["valid-mask"]
    function, (x, y) = functions_of(case)[name], pair(case)
    variable = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(function(variable, y).sum(), variable)
    close = {"rtol": 1e-12, "atol": 1e-14}

    def total(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y).sum()

    torch.testing.assert_close(torch.func.grad(total)(x, y), expected, **close)
    jacobian = torch.func.jacrev(function)(x, y).reshape(-1, *x.shape).sum(0)
    torch.testing.assert_close(jacobian, expected, **close)
    jacobian = torch.autograd.functional.jacobian(total, (x, y), vectorize=True)[0]
    torch.testing.assert_close(jacobian, expected, **close)

    batch = torch.stack([x, y, x + y])
    stacked = torch.stack([function(image, y) for image in batch])
    mapped = torch.vmap(function, (0, None))(batch, y)
    torch.testing.assert_close(mapped, stacked, **close)
    mapped = torch.vmap(function, (3, None), out_dims=0)(batch.movedim(0, 3), y)
    torch.testing.assert_close(mapped, stacked, **close)
    per_sample = torch.vmap(torch.func.grad(total), (0, None))(batch, y)
    torch.testing.assert_close(per_sample[0], expected, **close)
    through_map = torch.func.grad(lambda x: torch.vmap(total, (None, 0))(x, y[None])[0])(x)
    torch.testing.assert_close(through_map, expected, **close)


@pytest.mark.parametrize("name", ["values", "loss"])
def test_hessian_by_transforms_equals_double_backward(name: str) -> None:
    case = Case(SSIMSpec(window_size=3), (1, 1, 5, 4))
    function, (x, y) = functions_of(case)[name], pair(case)

    def total(x: Tensor) -> Tensor:
        return function(x, y).sum()

    expected = torch.autograd.functional.hessian(total, x)
    actual = torch.func.jacrev(torch.func.jacrev(total))(x)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("mask_shape", [(8, 7), (1, 1, 8, 7), (2, 1, 8, 7), (1, 3, 8, 7)])
@pytest.mark.parametrize("mapped", [False, True], ids=["one mask", "mask per element"])
def test_vmap_over_masks(mask_shape: tuple[int, ...], mapped: bool) -> None:
    parameters = SSIMSpec(window_size=3, border="zero").resolve((8, 7), 1.0)
    x, y = noise((4, 2, 3, 8, 7), 0), noise((4, 2, 3, 8, 7), 1)
    mask = noise((4, *mask_shape) if mapped else mask_shape, 2) > 0.3

    def function(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return operators.values(x, y, parameters, mask)

    actual = torch.vmap(function, (0, 0, 0 if mapped else None))(x, y, mask)
    masks = mask if mapped else mask.expand(4, *mask_shape)
    expected = torch.stack([function(*images) for images in zip(x, y, masks, strict=True)])
    assert torch.equal(actual, expected)


# --- Compilers ------------------------------------------------------------------------------------


@pytest.fixture
def fresh_compiler() -> None:
    torch.compiler.reset()


def compiled_equals_eager(function: Function, *images: Tensor, backend: str) -> None:
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    outcomes = []
    for each in (function, compiled):
        result = each(*images)
        outcomes.append((result, *torch.autograd.grad(result.sum(), images)))
    for eager, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(other, eager, rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["values", "map", "loss"])
def test_compiled_in_one_graph(name: str) -> None:
    function = functions_of(CASES["valid-mask"])[name]
    x, y = pair(CASES["valid-mask"], grad=True)
    compiled_equals_eager(lambda x, y: function(x.sin(), y) * 2.0, x, y, backend="aot_eager")


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_compiled_by_inductor() -> None:
    parameters = resolved(SSIMSpec(window_size=5), (12, 11))
    x, y = noise((2, 3, 12, 11), 0, torch.float32, True), noise((2, 3, 12, 11), 1, torch.float32)
    y.requires_grad_()

    def function(x: Tensor, y: Tensor) -> Tensor:
        half = operators.downsample(x.sigmoid(), 2, ((0, 0), (1, 0)), "zero")
        return operators.values(x.sigmoid(), y, parameters).mean() + half.mean()

    compiled_equals_eager(function, x, y, backend="inductor")


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_with_one_image_twice() -> None:
    parameters = resolved(SSIMSpec(window_size=5), (8, 8))

    def function(x: Tensor) -> Tensor:
        return operators.similarity_map(x, x, parameters) + operators.values(
            x, x.flip(3), parameters
        )

    compiled_equals_eager(function, noise((1, 1, 8, 8), 0, grad=True), backend="aot_eager")


@pytest.mark.usefixtures("fresh_compiler")
def test_dynamic_shapes_take_one_graph() -> None:
    parameters = resolved(SSIMSpec(), (64, 64))
    graphs = 0

    def count(graph: Any, _inputs: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph

    def function(x: Tensor, y: Tensor) -> Tensor:
        return operators.values(x, y, parameters).mean() + operators.loss(x, y, parameters)

    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=count)
    for shape in ((2, 3, 16, 20), (3, 2, 31, 17), (5, 4, 12, 40)):
        x, y = noise(shape, 0, grad=True), noise(shape, 1)
        torch.testing.assert_close(compiled(x, y), function(x, y), rtol=1e-12, atol=0)
    assert graphs == 1


@pytest.mark.usefixtures("fresh_compiler")
def test_composite_can_be_compiled() -> None:
    case = CASES["symmetric-stride"]
    parameters = parameters_of(case)
    x, y = pair(case, grad=True)
    compiled_equals_eager(lambda x, y: composite.ssim(x, y, parameters), x, y, backend="aot_eager")


# --- Mixed precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_gradients(dtype: torch.dtype) -> None:
    parameters = SSIMSpec().resolve((16, 16), 1.0)
    x, y = noise((1, 2, 16, 16), 0, dtype, True), noise((1, 2, 16, 16), 1, dtype)
    exact = x.detach().float().requires_grad_()
    (expected,) = torch.autograd.grad(operators.values(exact, y.float(), parameters).sum(), exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = operators.values(x, y, parameters)
    assert value.dtype == torch.float32
    (grad,) = torch.autograd.grad(value.sum(), x)
    assert grad.dtype == dtype
    # Computed in float32 and rounded once, to 11 or 8 bits.
    assert_gradient_close(grad, expected.double(), 2.0**-11 if dtype == torch.float16 else 2.0**-8)


def test_composite_ignores_autocast() -> None:
    parameters = SSIMSpec().resolve((16, 16), 1.0)
    x, y = noise((1, 2, 16, 16), 0, torch.float32), noise((1, 2, 16, 16), 1, torch.float32)
    expected = composite.ssim(x, y, parameters)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(composite.ssim(x, y, parameters), expected)


def test_loss_gradient_of_halves_survives_loss_scaling() -> None:
    """1 / (number of pixels) is below the smallest float16: rounding must come after scaling."""
    parameters = SSIMSpec().resolve((64, 64), 1.0)
    x = noise((4, 3, 64, 64), 0, torch.float16, True)
    y = noise((4, 3, 64, 64), 1, torch.float16)
    exact = x.detach().float().requires_grad_()
    (expected,) = torch.autograd.grad(operators.loss(exact, y.float(), parameters), exact)
    scale = 2.0**16
    (grad,) = torch.autograd.grad(operators.loss(x, y, parameters) * scale, x)
    assert_gradient_close(grad.float() / scale, expected.double(), 2.0**-11)
