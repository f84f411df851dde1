# SPDX-License-Identifier: Apache-2.0
"""What a device alone can show, by every family: streams, graphs, several devices, sizes beyond 32
bits. Values of all kernels are tested beside those of the emulator, in the other files.

That nothing here waits for the device or asks the host, which a graph would not bear, is tested
without one as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import sosie
from emulator import emulated, needs_emulator
from sosie.backends import cuda
from sosie.backends.cuda import distance_sets

torch = pytest.importorskip("torch")

from sosie.nn import ConvGRU, ConvLSTM, L1SSIMLoss, MSSSIMLoss, WeightedSSDLoss  # noqa: E402
from sosie.torch.ssd import _ssd_loss_cuda  # noqa: E402
from sosie.torch.ssim import _ssim_loss_cuda  # noqa: E402

Call = Callable[[Any, Any], list[Any]]


# --- Every family, as functions of two tensors ----------------------------------------------------


def differentiated(function: Callable[[Any, Any], Any]) -> Call:
    """The value of a function of two tensors, and the gradient of its sum for the first."""

    def call(x: Any, y: Any) -> list[Any]:
        x = x.detach().requires_grad_()
        value = function(x, y)
        return [value.detach(), *torch.autograd.grad(value.sum(), x)]

    return call


def vectors(images: Any, dims: int) -> Any:
    """Up to 1100 vectors out of images, enough for products where dimensions are many."""
    return images.reshape(-1, dims)[:1100]


def layer(kind: Any, device: Any) -> Any:
    torch.manual_seed(3)
    return kind(3, 8).to(device)


def sequence(images: Any) -> Any:
    """Images ``(N, C, H, W)`` as a sequence of two steps of crops."""
    return images[:, None, :, :24, :16].repeat(1, 2, 1, 1, 1)


def masked(x: Any, y: Any) -> Any:
    return sosie.ssim(x, y, data_range=1.0, mask=y[0, 0] > 0.2)


#: What the structural part of a loss weighs.
ALPHA = 0.84

CALLS: dict[str, Call] = {
    "ssd": differentiated(sosie.weighted_ssd),
    "ssd, weights": differentiated(
        lambda x, y: sosie.weighted_ssd(x, y, y[:, :1], reduction="mean")
    ),
    "ssd loss": differentiated(WeightedSSDLoss(reduction="mean")),
    "psnr": lambda x, y: [sosie.psnr(x, y, data_range=1.0)],
    "ssim": differentiated(lambda x, y: sosie.ssim(x, y, data_range=1.0)),
    "ssim, map": differentiated(lambda x, y: sosie.ssim(x, y, data_range=1.0, return_map=True)[1]),
    "ssim, mirrored": differentiated(
        lambda x, y: sosie.ssim(x, y, data_range=1.0, spec="torchmetrics")
    ),
    "ssim, mask": differentiated(masked),
    "ssim, volumes": differentiated(
        lambda x, y: sosie.ssim(
            x[..., :24, :24], y[..., :24, :24], data_range=1.0, spatial_dims=3, window_size=3
        )
    ),
    "ssim loss": differentiated(L1SSIMLoss(data_range=1.0, alpha=ALPHA, spec="wang2004")),
    "ms_ssim": differentiated(MSSSIMLoss(data_range=1.0)),
    "rows": differentiated(lambda x, y: sosie.euclidean_distance(x, y[:1, :1, :1])),
    "cosine": differentiated(lambda x, y: sosie.cosine_similarity(x, y, axis=1)),
    "cdist": differentiated(lambda x, y: sosie.cdist(vectors(x, 9), vectors(y, 9))),
    "cdist, product": differentiated(lambda x, y: sosie.cdist(vectors(x, 48), vectors(y, 48))),
    "cdist, cosine": differentiated(
        lambda x, y: sosie.cdist(vectors(x, 48), vectors(y, 48), "cosine")
    ),
    "knn": differentiated(lambda x, y: sosie.knn(vectors(x, 9), vectors(y, 9), 5).distances),
    "knn, product": differentiated(
        lambda x, y: sosie.knn(vectors(x, 48), vectors(y, 48), 5).distances
    ),
    "lstm": differentiated(lambda x, _: layer(ConvLSTM, x.device)(sequence(x))[0]),
    "gru": differentiated(lambda x, _: layer(ConvGRU, x.device)(sequence(x))[0]),
}
#: Whose convolutions or products are a library's, that may choose another algorithm next time.
LIBRARY = {"cdist, product", "cdist, cosine", "knn, product", "lstm", "gru"}
#: Whose first tensor is read as images, in any order of memory.
IMAGES = [
    name
    for name in CALLS
    if name.startswith(("ssd", "ssim", "ms_ssim", "psnr", "rows", "cosine"))
    and name != "ssim, volumes"
]

every_call = pytest.mark.parametrize("name", CALLS)


def pair(seed: int, device: str, side: int = 180) -> tuple[Any, Any]:
    """Two similar images in [0, 1], large enough for five scales."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 3, side, side, generator=generator)
    y = (x + 0.2 * torch.rand(x.shape, generator=generator)).clamp(0.0, 1.0)
    return x.to(device), y.to(device)


def assert_alike(name: str, found: list[Any], wanted: list[Any]) -> None:
    """The same bits, unless a library computed a part: then some float32 roundings apart."""
    for one, other in zip(found, wanted, strict=True):
        if name in LIBRARY:
            scale = float(other.abs().max())
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * scale)
        else:
            torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


# --- Without a device -----------------------------------------------------------------------------


#: What would have to wait for a device, or to know what its memory holds.
WAITING = (
    "__bool__", "__contains__", "__float__", "__index__", "__int__", "cpu", "equal", "is_nonzero",
    "item", "masked_select", "nonzero", "numpy", "tolist", "unique",
)  # fmt: skip


@contextmanager
def asynchronous() -> Iterator[None]:
    """Tensors refuse `WAITING`, within a ``with`` block: beneath operators and autograd, too."""

    def refuse(name: str) -> Any:
        def refused(*_arguments: Any, **_options: Any) -> Any:
            raise AssertionError(f"{name} waits for the device")

        return refused

    with pytest.MonkeyPatch.context() as patch:
        for name in WAITING:
            patch.setattr(torch.Tensor, name, refuse(name))
            if hasattr(torch, name):
                patch.setattr(torch, name, refuse(name))
        yield


#: What the operators of these do on devices: on the host they know the loss, and hand it over.
LOSSES: dict[str, Call] = {
    "ssd loss": lambda x, y: list(_ssd_loss_cuda(x, y, None, True, False, True, False)[:2]),
    "ssim loss": lambda x, y: list(
        _ssim_loss_cuda(
            x, y, None, sosie.ssim_spec("wang2004").resolve(x.shape[2:], 1.0).encode(),
            ALPHA, 1.0 - ALPHA, True, False,
        )[:2]
    ),
}  # fmt: skip


@needs_emulator
@every_call
def test_nothing_waits_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distance_sets, "_PRODUCT_TILES", 1)
    call = CALLS[name]
    if name.startswith("knn"):  # the emulator inserts neighbours one by one
        dims = 36 if "product" in name else 9
        call = differentiated(
            lambda x, y: sosie.knn(x[0, 0, :, :dims], y[0, 0, :, :dims], 5).distances
        )
    if name == "ms_ssim":  # five scales of such an image take the emulator seconds
        call = differentiated(MSSSIMLoss(data_range=1.0, weights=(0.4, 0.6)))
    x, y = (image[:1].contiguous() for image in pair(0, "cpu", 36))
    wanted = call(x, y)
    with emulated() as emulator:
        # Here the host may look whether an upstream gradient is 1; on devices nobody does.
        for module in (sosie.torch.ssd, sosie.torch.ssim):
            monkeypatch.setattr(module, "_is_plain_one", lambda _: False)
        with asynchronous():
            found = LOSSES[name](x, y) if name in LOSSES else call(x, y)
    assert emulator.launched
    for one, other in zip(found, wanted, strict=True):
        # Gradients of float32 by other kernels, see ssim_cases.py.
        scale = max(1e-6, float(other.abs().max()))
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * scale)


@needs_emulator
def test_who_waits_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an executor's function, beneath operator and autograd."""
    forward = cuda.ssd_backward

    def waiting(x: Any, *rest: Any, **options: Any) -> Any:
        assert float(x.sum()) >= 0.0
        return forward(x, *rest, **options)

    monkeypatch.setattr(cuda, "ssd_backward", waiting)
    x, y = pair(0, "cpu", 20)
    with emulated(), pytest.raises(AssertionError, match="__float__ waits"), asynchronous():
        CALLS["ssd"](x, y)


# --- Streams, graphs, devices, orders of memory ---------------------------------------------------


@pytest.fixture
def exact() -> Iterator[None]:
    """Convolutions of float32 round to float32, and choose the same algorithm every time."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


@pytest.mark.gpu
@pytest.mark.usefixtures("exact")
@every_call
def test_in_a_graph(name: str) -> None:
    """Captured once, replayed twice with other images: tickets are cleared by the graph, too."""
    call = CALLS[name]
    x, y = pair(0, "cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is compiled, loaded or chosen is so by then
        for _ in range(3):
            call(x, y)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call(x, y)
    for seed in (1, 2):
        for image, other in zip((x, y), pair(seed, "cuda"), strict=True):
            image.copy_(other)
        graph.replay()
        assert_alike(name, captured, call(x, y))


@pytest.mark.gpu
@pytest.mark.usefixtures("exact")
@every_call
def test_on_the_current_stream(name: str) -> None:
    """What its stream has still to do is waited for: on any other, zeros would be read."""
    call = CALLS[name]
    x, y = pair(0, "cuda")
    wanted = call(x, y)
    late = torch.zeros_like(x), torch.zeros_like(y)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # In cycles: some 100 ms, longer than it takes to queue what follows.
        torch.cuda._sleep(200_000_000)
        for image, values in zip(late, (x, y), strict=True):
            image.copy_(values)
        found = call(*late)
    stream.synchronize()
    assert_alike(name, found, wanted)


@pytest.mark.gpu
@pytest.mark.usefixtures("exact")
@every_call
def test_a_second_device(name: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one device")
    wanted = CALLS[name](*pair(0, "cuda:0"))
    found = CALLS[name](*pair(0, "cuda:1"))
    assert torch.cuda.current_device() == 0
    assert {result.device for result in found} == {torch.device("cuda", 1)}
    # The devices may differ, and a kernel's tiles with their number of multiprocessors.
    for one, other in zip(found, wanted, strict=True):
        scale = float(other.abs().max())
        torch.testing.assert_close(one.to("cuda:0"), other, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", IMAGES)
def test_channels_last(name: str, dtype: Any) -> None:
    x, y = (image.to(dtype) for image in pair(0, "cuda"))
    wanted = CALLS[name](x, y)
    found = CALLS[name](x.to(memory_format=torch.channels_last), y)
    for one, other in zip(found, wanted, strict=True):
        # Sums are added in another order; a gradient in half precision is rounded once.
        rounding = 2.0**-8 if other.dtype == torch.bfloat16 else 1e-5
        scale = float(other.float().abs().max())
        torch.testing.assert_close(one, other, rtol=rounding, atol=1e-5 * scale)
    if len(found) > 1 and name != "ms_ssim":  # which adds those of all scales, in either order
        assert found[1].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.parametrize("loss", [L1SSIMLoss, MSSSIMLoss])
def test_losses_under_autocast(loss: Any) -> None:
    """A model's output in half precision meets float32, as in training."""
    x, y = pair(0, "cuda")
    narrow = x.bfloat16().requires_grad_()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        value = loss(data_range=1.0)(narrow, y)
    value.backward()
    wide = narrow.detach().float().requires_grad_()
    expected = loss(data_range=1.0)(wide, y)
    expected.backward()
    torch.testing.assert_close(value, expected)
    # Computed in the wider dtype, and rounded once.
    torch.testing.assert_close(narrow.grad, wide.grad.bfloat16(), rtol=2.0**-8, atol=0.0)


@pytest.mark.gpu
@pytest.mark.usefixtures("exact")
@every_call
def test_compiled_at_run_time(name: str) -> None:
    """The same sources by CuPy's compiler; where the module is missing it launches them anyway."""
    pytest.importorskip("cupy")
    x, y = pair(0, "cuda")
    wanted = CALLS[name](x, y)
    with sosie.use_backend("cupy"):
        found = CALLS[name](x, y)
    for one, other in zip(found, wanted, strict=True):
        # Another version of the compiler may fuse other operations.
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * scale)


# --- Sizes beyond 32 bits -------------------------------------------------------------------------

#: Lengths whose product is more than 2^31.
ROWS, COLUMNS = 2**15 + 16, 2**16 + 40


@pytest.fixture
def memory() -> Iterator[Callable[[int], None]]:
    """Function that skips the test unless a device has so many GiB free."""

    def need(gibibytes: int) -> None:
        torch.cuda.empty_cache()
        free = torch.cuda.mem_get_info()[0] >> 30
        if free < gibibytes:
            pytest.skip(f"needs {gibibytes} GiB of device memory, {free} are free")

    yield need
    torch.cuda.empty_cache()


def images_that_differ_in_a_corner(side: int) -> tuple[Any, Any]:
    """float16, all the same but for the last pixels of the last rows."""
    x = torch.full((1, 1, ROWS, COLUMNS), 0.5, dtype=torch.float16, device="cuda")
    y = x.clone()
    generator = torch.Generator().manual_seed(0)
    y[..., -side:, -side:] = torch.rand(side, side, generator=generator).half().cuda()
    return x, y


@pytest.mark.gpu
@pytest.mark.parametrize("masked", [False, True])
def test_more_than_2_31_pixels(memory: Callable[[int], None], masked: bool) -> None:
    """Where images agree similarity is 1 and has no slope; so the corner decides."""
    memory(20)
    x, y = images_that_differ_in_a_corner(24)
    seen = 24 + 10  # by windows that see the corner
    small = [image[..., -seen:, -seen:].contiguous() for image in (x, y)]
    convention = sosie.ssim_spec("wang2004")
    large, of_small = (convention.resolve(i.shape[2:], 1.0) for i in (x, small[0]))
    valid = torch.ones(1, 1, 1, 1, dtype=torch.bool, device="cuda") if masked else None
    positions = (ROWS - 10) * (COLUMNS - 10)
    value, _ = cuda.ssim_forward(x, y, large, mask=valid)
    wanted, _ = cuda.ssim_forward(*small, of_small, mask=valid)
    # A mean of 2^31 numbers, in float64.
    assert float((1 - value) * positions) == pytest.approx(float((1 - wanted) * 24**2), rel=1e-5)
    if masked:
        return  # the coefficients of its gradient would take 26 GB
    upstream = torch.tensor([[float(positions)]], dtype=torch.float64, device="cuda")
    gradient, _ = cuda.ssim_backward(x, y, large, upstream)
    upstream.fill_(24.0**2)
    expected, _ = cuda.ssim_backward(*small, of_small, upstream)
    corner = gradient[..., -24:, -24:].float()
    # Both are rounded to 11 bits.
    torch.testing.assert_close(corner, expected[..., -24:, -24:].float(), rtol=2e-3, atol=1e-6)
    assert bool((gradient[..., :-seen, :] == 0).all())


@pytest.mark.gpu
def test_more_than_2_31_pixels_in_boxes(memory: Callable[[int], None]) -> None:
    memory(20)
    x, y = images_that_differ_in_a_corner(24)
    del x
    reduced = cuda.downsample_forward(y, 2, ((0, 0), (0, 0)), "zero")
    wanted = y[..., -24:, -24:].float().unflatten(-1, (12, 2)).unflatten(-3, (12, 2)).mean((-1, -3))
    torch.testing.assert_close(reduced[..., -12:, -12:], wanted)
    del y, reduced
    torch.cuda.empty_cache()
    # More than 2^31 rows, of fewer planes and fewer rows of each.
    shape = (2**16, 1, 2**15 + 2, 1)
    grad = torch.zeros(2**16, 1, 2**14 + 1, 1, device="cuda")
    grad[-1] = 1.0
    adjoint = cuda.downsample_backward(grad, shape, 2, ((0, 0), (0, 1)), "zero")
    assert bool((adjoint[-1] == 0.25).all())
    assert int((adjoint != 0).sum()) == shape[2]


@pytest.mark.gpu
def test_more_than_2_31_elements(memory: Callable[[int], None]) -> None:
    memory(8)
    x = torch.zeros(2**31 + 2**20, dtype=torch.uint8, device="cuda")
    y = x.clone()
    y[-1] = 3
    assert float(sosie.weighted_ssd(x, y)) == 9.0


@pytest.mark.gpu
def test_more_than_2_31_numbers_in_rows(memory: Callable[[int], None]) -> None:
    memory(8)
    x = torch.zeros(ROWS, COLUMNS, dtype=torch.uint8, device="cuda")
    y = x.clone()
    y[-1, -1] = 7
    for axis in (0, 1):
        distances = sosie.euclidean_distance(x, y, axis=axis)
        assert float(distances[-1]) == 7.0
        assert int((distances != 0).sum()) == 1
    similarity = sosie.cosine_similarity(y, y)
    assert float(similarity[-1]) == 1.0
    assert int((similarity != 0).sum()) == 1  # rows of zeros have no direction


@pytest.mark.gpu
@pytest.mark.parametrize("dims", [2, 64])
def test_more_than_2_31_distances(memory: Callable[[int], None], dims: int) -> None:
    """Directly, and by products."""
    memory(12)
    generator = torch.Generator("cuda").manual_seed(0)
    b = torch.randn(COLUMNS, dims, generator=generator, device="cuda")
    a = torch.zeros(ROWS, dims, device="cuda")
    a[-1] = 1.0
    distances = sosie.cdist(a, b)
    for rows, point in ((slice(0, -1), 0.0), (slice(-1, None), 1.0)):
        expected = (b.double() - point).norm(dim=1).float()
        for found in (distances[rows].amin(0), distances[rows].amax(0)):
            torch.testing.assert_close(found, expected, rtol=2e-5, atol=0.0)


@pytest.mark.gpu
def test_a_database_of_more_than_2_31_numbers(memory: Callable[[int], None]) -> None:
    """And a product of more than 2^31 of its own, in parts."""
    memory(16)
    generator = torch.Generator("cuda").manual_seed(0)
    shape = (2**26 + 8, 33)
    database = torch.randint(256, shape, generator=generator, dtype=torch.uint8, device="cuda")
    found = sosie.knn(database[-40:], database, 1)
    assert found.indices[:, 0].tolist() == list(range(shape[0] - 40, shape[0]))
    assert not found.distances.any()


@pytest.mark.gpu
def test_more_than_2_31_gates(memory: Callable[[int], None]) -> None:
    memory(12)
    numbers = 2**29 + 8
    inputs = torch.zeros(1, 4, numbers, dtype=torch.float16, device="cuda")
    inputs[..., -1] = 20.0  # all gates open, and the input is 1
    cell = torch.zeros(1, 1, numbers, device="cuda")
    hidden = torch.empty(1, 1, numbers, dtype=torch.float16, device="cuda")
    cuda.lstm_forward(inputs, None, cell, None, None, hidden, cell)
    assert float(cell[0, 0, -1]) == 1.0
    assert int((hidden != 0).sum()) == 1
    torch.testing.assert_close(hidden[0, 0, -1].float().cpu(), torch.tensor(1.0).tanh(), rtol=1e-3,
                               atol=0.0)  # fmt: skip
