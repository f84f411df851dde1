# SPDX-License-Identifier: Apache-2.0
"""Recurrent layers by the CUDA kernels: on the emulator, and on devices if any.

The gates of single steps are tested with all other executors', in test_recurrent.py. What computes
is chosen by the fixture `device`, all else is the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import fake_cupy
from emulator import Emulator, emulated, needs_emulator
from sosie import arrays
from sosie.backends import cuda
from sosie.backends.cuda import launcher as seam
from sosie.reference import recurrent as reference

torch = pytest.importorskip("torch")

from sosie.nn import ConvGRU, ConvLSTM  # noqa: E402
from sosie.nn import recurrent_cells as cells  # noqa: E402
from sosie.torch import recurrent_sequence as sequences  # noqa: E402


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=needs_emulator, id="emulated"),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where tensors have to be for the CUDA kernels to compute; one thread is enough.

    Convolutions of float32 may not round to TF32 meanwhile, as they do on devices if nobody minds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if request.param == "cuda":
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                yield "cuda"
        else:
            with emulated():
                yield "cpu"
    finally:
        torch.set_num_threads(threads)


def gradients(output: Any, tensors: Any) -> list[Any]:
    """Of a weighted sum."""
    weights = torch.linspace(-1.0, 1.0, output.numel(), dtype=output.dtype, device=output.device)
    return list(torch.autograd.grad(output, tensors, weights.reshape(output.shape)))


def randomised(layer: Any) -> Any:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return layer


LAYERS: dict[str, Any] = {
    "lstm": (ConvLSTM, {}),
    "per channel": (ConvLSTM, {"peephole": "channel"}),
    "per pixel": (ConvLSTM, {"peephole": "pixel", "spatial_size": (5, 4)}),
    "hard": (ConvLSTM, {"activation": "hard_tanh", "recurrent_activation": "hard_sigmoid"}),
    "signals": (ConvLSTM, {"peephole": "channel", "spatial_dims": 1}),
    "volumes": (ConvLSTM, {"spatial_dims": 3}),
    "gru": (ConvGRU, {}),
    "gru, after": (ConvGRU, {"linear_before_reset": True, "num_layers": 2, "bidirectional": True}),
}


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(device: str, name: str, recompute: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and all gradients, against the same of torch's operations in float64."""
    kind, options = LAYERS[name]
    monkeypatch.setattr(sequences, "BLOCK_BYTES", 5000)
    layer = randomised(kind(2, 8, device=device, recompute=recompute, **options))
    sizes = (5, 4, 3)[: options.get("spatial_dims", 2)]
    x = torch.randn(4, 2, 2, *sizes, device=device).requires_grad_()
    exact = kind(2, 8, dtype=torch.float64, **options)
    exact.load_state_dict(layer.state_dict())
    images = x.detach().double().cpu().requires_grad_()
    output, last = layer(x)
    found = gradients(output, [x, *layer.parameters()])
    with torch.no_grad():
        torch.testing.assert_close(layer(x)[0], output, rtol=0, atol=0)
    monkeypatch.setattr(cells.ConvCell, "_uses_operator", lambda *_: False)
    expected, end = exact(images)
    wanted = gradients(expected, [images, *exact.parameters()])
    pairs = [(output, expected), *zip(found, wanted, strict=True)]
    if isinstance(last, tuple):
        pairs.append((last[1], end[1]))
    for one, other in pairs:
        # Relative to the largest number: the promise of layers in float32.
        scale = float(other.detach().abs().max())
        difference = float((one.double().cpu() - other).detach().abs().max())
        assert difference <= 1e-5 * scale


@pytest.mark.parametrize("kind", [ConvLSTM, ConvGRU])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(device: str, kind: Any, dtype: Any) -> None:
    layer = randomised(kind(2, 16, device=device))
    x = torch.randn(4, 2, 2, 6, 6, device=device).requires_grad_()
    parameters = [x, *layer.parameters()]
    expected, _ = layer(x)
    wanted = gradients(expected, parameters)
    with torch.autocast(device, dtype=dtype):
        output, last = layer(x)
    assert output.dtype == dtype
    if kind is ConvLSTM:
        assert last[1].dtype == torch.float32
    # Inputs, weights, states and what convolutions give are rounded at each step.
    rounding = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    assert float((output.float() - expected).detach().abs().max()) <= 8 * rounding
    for one, other in zip(gradients(output.float(), parameters), wanted, strict=True):
        assert float((one - other).norm() / other.norm()) < 8 * rounding


def test_a_cell_beyond_half_precision_is_finite_under_autocast(device: str) -> None:
    # Open gates add 1 at each step to a cell that begins at the edge of float16.
    layer = ConvLSTM(1, 2, 1, device=device)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.cells[0].bias.fill_(20.0)
    h, c = (torch.full((1, 1, 2, 4, 4), value, device=device) for value in (0.0, 65500.0))
    with torch.autocast(device, dtype=torch.float16):
        output, (_, last) = layer(torch.zeros(64, 1, 1, 4, 4, device=device), (h, c))
    assert bool(output.isfinite().all())
    torch.testing.assert_close(last, c + 64.0)


@needs_emulator
def test_a_layer_runs_the_kernels_once_per_step() -> None:
    layer = randomised(ConvLSTM(2, 4, peephole="channel"))
    with emulated() as emulator:
        layer(torch.randn(3, 1, 2, 5, 5))[0].sum().backward()
    steps = ["lstm_forward<float, true>"] * 3 + ["lstm_backward<float, true>"] * 3
    assert emulator.launched == [*steps, "lstm_peephole_backward<float>"]


@pytest.mark.gpu
def test_a_sequence_in_a_graph() -> None:
    layer = randomised(ConvLSTM(2, 8, peephole="channel", device="cuda"))
    x = torch.randn(4, 2, 2, 16, 16, device="cuda")

    def step() -> list[Any]:
        return [layer(x)[0], *gradients(layer(x)[0], list(layer.parameters()))]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    x.copy_(torch.randn_like(x))
    graph.replay()
    for one, other in zip(captured, step(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:.*lru_cache:UserWarning")
def test_a_compiled_layer_on_a_device() -> None:
    layer = randomised(ConvGRU(2, 8, device="cuda"))
    x = torch.randn(4, 2, 2, 16, 16, device="cuda")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])


# --- Who computes ---------------------------------------------------------------------------------


def test_without_kernels_layers_are_torchs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Any:
        raise RuntimeError("no device")

    on_device = type("OnDevice", (), {"device": torch.device("cuda", 0), "is_cuda": True})()
    cell = cells.ConvGRUCell(2, 3)
    monkeypatch.setattr(seam, "launcher", nobody)
    assert not cell._uses_operator(on_device)
    monkeypatch.setattr(seam, "launcher", Emulator)
    assert cell._uses_operator(on_device)


def test_tensors_on_different_devices_are_refused() -> None:
    layer, x = ConvLSTM(2, 3), torch.zeros(3, 1, 2, 5, 5)
    with pytest.raises(ValueError, match="input on the weights' device, cpu, got meta"):
        layer(x.to("meta"))
    state = torch.zeros(1, 1, 3, 5, 5)
    with pytest.raises(ValueError, match="state c on the input's device, cpu, got meta"):
        layer(x, (state, state.to("meta")))


@contextmanager
def cupy_on_the_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    known = dict(arrays._adapters)
    try:
        with seam.use_launcher(Emulator()):
            yield
    finally:
        arrays._adapters.clear()
        arrays._adapters.update(known)


@needs_emulator
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
def test_cupy_arrays(monkeypatch: pytest.MonkeyPatch, channels_last: bool) -> None:
    random = np.random.default_rng(0)

    def make(gates: int) -> Any:
        values = random.standard_normal((2, gates * 4, 3, 5)).astype(np.float32)
        if channels_last:
            values = np.moveaxis(np.moveaxis(values, 1, -1).copy(), -1, 1)
        return fake_cupy.DeviceArray(values)

    inputs, recurrent, gates = make(4), make(4), make(4)
    cell, hidden, new_cell, grad_hidden, grad_cell = (make(1) for _ in range(5))
    upstream = grad_cell.values.copy()
    by_gates, by_holes = make(4), fake_cupy.DeviceArray(np.empty((3, 4, 1, 1), np.float32))
    with cupy_on_the_emulator(monkeypatch):
        cuda.lstm_forward(inputs, recurrent, cell, None, gates, hidden, new_cell)
        cuda.lstm_backward(gates, cell, new_cell, grad_hidden, None, None, grad_cell, by_gates)
        cuda.lstm_peephole_backward(by_gates, cell, new_cell, by_holes)
    expected = reference.lstm_forward(inputs.values, recurrent.values, cell.values)
    for one, other in zip((gates, hidden, new_cell), expected, strict=True):
        np.testing.assert_allclose(one.values, other, atol=3e-6)
    expected = reference.lstm_backward(
        gates.values, cell.values, new_cell.values, grad_hidden.values, upstream
    )
    for one, other in zip((by_gates, grad_cell), expected, strict=True):
        np.testing.assert_allclose(one.values, other, atol=1e-5)
    summed = reference.lstm_peephole_backward(by_gates.values, cell.values, new_cell.values)
    np.testing.assert_allclose(by_holes.values, summed.sum((2, 3), keepdims=True), rtol=1e-5)
