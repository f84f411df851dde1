# SPDX-License-Identifier: Apache-2.0
"""Every executor's gates against the float64 definition, and weights of other libraries.

The definition's whole sequences are compared with torch's LSTM and GRU, of which a convolutional
one with a kernel of 1 and one pixel is a copy; what Keras gives is a test of its own, with Keras.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from emulator import emulated, needs_emulator
from executors import EXECUTORS, computing_by
from sosie.backends import cuda
from sosie.backends._gates import rows_of
from sosie.reference import recurrent as reference

torch = pytest.importorskip("torch")

Array = Any

# float32: activations are within 3 units in the last place and a dozen operations follow, on
# numbers of the order of 1. float64: the same. Half precision: one rounding of the result.
TOLERANCE = {"float64": 1e-14, "float32": 3e-6, "float16": 2e-3, "bfloat16": 2e-2}


class Executor:
    """The functions of an executor, and the device of the arrays that it takes."""

    def __init__(self, module: Any, device: str = "cpu", *, emulated: bool = False) -> None:
        self._module, self.device, self.is_emulated = module, device, emulated

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@pytest.fixture(
    scope="module",
    params=[
        *EXECUTORS,
        pytest.param("emulated", marks=needs_emulator),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """One that computes on the processor, or the CUDA kernels on the emulator or a device."""
    if request.param == "emulated":
        with emulated():
            yield Executor(cuda, emulated=True)
    elif request.param == "cuda":
        yield Executor(cuda, "cuda")
    else:
        with computing_by(request.param) as module:
            yield Executor(module)


# --- Gates of a step ------------------------------------------------------------------------------

#: Runs on both sides of vectors (4 to 16 lanes), of a block of a device (256 or 1024 numbers) and
#: of a task of the processor (16384 numbers).
SHAPES = [(2, 3, 5), (1, 1, 4, 3), (3, 17, 2, 5), (2, 8, 3, 3, 8), (1, 33, 16, 33)]


class Arrays:
    """Random tensors ``(N, k C, ...)`` in one layout, where an executor takes them."""

    def __init__(
        self, executor: Executor, shape: tuple[int, ...], dtype: str, channels_last: bool
    ) -> None:
        if executor.is_emulated and math.prod(shape) > 16384:
            pytest.skip("a size for the processor's tasks, of which devices have none")
        self._shape, self.dtype, self._device = shape, dtype, executor.device
        self._last = channels_last and len(shape) > 3 and shape[1] > 1
        self._random = np.random.default_rng(len(shape) + shape[1])
        self.wide = "float64" if dtype == "float64" else "float32"

    def make(self, gates: int, dtype: str | None = None) -> Array:
        """Numbers between -3 and 3, multiples of 1/64: the same in every dtype."""
        batch, channels, *spatial = self._shape
        values = self._random.integers(-192, 193, (batch, gates * channels, *spatial)) / 64.0
        return self._laid_out(values, dtype or self.dtype)

    def peephole(self, per_pixel: bool) -> Array:
        _, channels, *spatial = self._shape
        sizes = spatial if per_pixel or not self._last else [1] * len(spatial)
        values = self._random.integers(-32, 33, (3, channels, *([1] * len(spatial)))) / 64.0
        if per_pixel:
            values = values * (1 + np.arange(math.prod(sizes)).reshape(sizes) % 3)
        return self._laid_out(np.broadcast_to(values, (3, channels, *sizes)), self.wide)

    def empty(self, gates: int, dtype: str | None = None) -> Array:
        array = self.make(gates, dtype)
        array[...] = math.nan
        return array

    def _laid_out(self, values: np.ndarray, dtype: str) -> Array:
        tensor = torch.from_numpy(np.array(values)).to(self._device, getattr(torch, dtype))
        if self._last:
            tensor = tensor.movedim(1, -1).contiguous().movedim(-1, 1)
        return tensor.contiguous() if not self._last else tensor


def as_float64(*arrays: Array) -> list[Any]:
    return [None if a is None else a.to("cpu", torch.float64).numpy() for a in arrays]


def assert_close(found: Array, expected: Array, dtype: str) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    difference = np.abs(as_float64(found)[0] - expected).max()
    assert difference <= TOLERANCE[dtype] * scale


ACTIVATIONS = {
    "smooth": {"activation": "tanh", "recurrent_activation": "sigmoid"},
    "hard": {"activation": "hard_tanh", "recurrent_activation": "hard_sigmoid"},
    "keras2": {"activation": "tanh", "recurrent_activation": "hard_sigmoid_keras2"},
}


COMPUTED = [
    ("float64", "smooth"), ("float64", "keras2"), ("float32", "smooth"), ("float32", "hard"),
    ("float16", "smooth"), ("bfloat16", "hard"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "activations"), COMPUTED)
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lstm_step(
    executor: Any, shape: tuple[int, ...], channels_last: bool, dtype: str, activations: str
) -> None:
    how = ACTIVATIONS[activations]
    arrays = Arrays(executor, shape, dtype, channels_last)
    inputs, recurrent = arrays.make(4), arrays.make(4)
    cell = arrays.make(1, arrays.wide)
    for peephole in (None, arrays.peephole(False), arrays.peephole(True)):
        gates, hidden = arrays.empty(4), arrays.empty(1)
        new_cell = arrays.empty(1, arrays.wide)
        executor.lstm_forward(inputs, recurrent, cell, peephole, gates, hidden, new_cell, **how)
        given = as_float64(inputs, recurrent, cell, peephole)
        expected = reference.lstm_forward(*given, **how)
        for found, values in zip((gates, hidden, new_cell), expected, strict=True):
            assert_close(found, values, dtype)
        # The cell in place, no gates kept, nothing recurrent.
        own, alone = cell.clone(), arrays.empty(1)
        executor.lstm_forward(inputs, None, own, peephole, None, alone, own, **how)
        _, values, state = reference.lstm_forward(given[0], None, *given[2:], **how)
        assert_close(alone, values, dtype)
        assert_close(own, state, dtype)
        # Backward, from what was stored.
        grad_hidden, grad_recurrent = arrays.make(1), arrays.make(1)
        grad_cell, grad_gates = arrays.make(1, arrays.wide), arrays.empty(4)
        upstream = grad_hidden.double() + grad_recurrent.double()
        by_gates, by_cell = reference.lstm_backward(
            *as_float64(gates, cell, new_cell, upstream, grad_cell, peephole), **how
        )
        executor.lstm_backward(
            gates, cell, new_cell, grad_hidden, grad_recurrent, peephole, grad_cell, grad_gates,
            **how,
        )  # fmt: skip
        assert_close(grad_gates, by_gates, dtype)
        assert_close(grad_cell, by_cell, dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize(
    "shape", [(300, 3, 5), (2, 1, 4, 3), (70, 17, 2, 5), (9, 8, 3, 3, 8)], ids=str
)
def test_gradient_of_peepholes(
    executor: Any, shape: tuple[int, ...], channels_last: bool, dtype: str
) -> None:
    """Per channel and per pixel, over many steps and images."""
    arrays = Arrays(executor, shape, dtype, channels_last)
    grad_gates = arrays.make(4)
    cell, new_cell = (arrays.make(1, arrays.wide) for _ in range(2))
    expected = reference.lstm_peephole_backward(*as_float64(grad_gates, cell, new_cell))
    # The gradient lies as peepholes do. Products are multiples of 2^-12, which add up exactly.
    per_pixel = torch.empty_like(arrays.peephole(True))
    executor.lstm_peephole_backward(grad_gates, cell, new_cell, per_pixel)
    np.testing.assert_allclose(as_float64(per_pixel)[0], expected, rtol=1e-6)
    per_channel = per_pixel.new_empty((3, shape[1], *(1,) * (len(shape) - 2)))
    executor.lstm_peephole_backward(grad_gates, cell, new_cell, per_channel)
    axes = tuple(range(2, len(shape)))
    expected = expected.sum(axes, keepdims=True)
    np.testing.assert_allclose(as_float64(per_channel)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "activations"), COMPUTED)
@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gru_step(
    executor: Any, shape: tuple[int, ...], channels_last: bool, dtype: str, activations: str
) -> None:
    how = ACTIVATIONS[activations]
    gate = {"recurrent_activation": how["recurrent_activation"]}
    arrays = Arrays(executor, shape, dtype, channels_last)
    channels = shape[1]
    inputs, recurrent, hidden = arrays.make(3), arrays.make(3), arrays.make(1)
    gates, candidate, new_hidden = arrays.empty(3), arrays.empty(1), arrays.empty(1)
    executor.gru_forward(inputs, recurrent, hidden, gates, candidate, new_hidden, **how)
    expected = reference.gru_forward(*as_float64(inputs, recurrent, hidden), **how)
    assert_close(gates, expected[0], dtype)
    assert_close(new_hidden, expected[1], dtype)
    assert torch.equal(candidate, recurrent[:, 2 * channels :])

    grad_hidden, grad_recurrent = arrays.make(1), arrays.make(1)
    carry, by_inputs, by_recurrent = arrays.make(1, arrays.wide), arrays.empty(3), arrays.empty(3)
    again = carry.clone()
    upstream = grad_hidden.double() + grad_recurrent.double() + carry.double()
    expected = reference.gru_backward(*as_float64(gates, candidate, hidden, upstream), **how)
    executor.gru_backward(
        gates, candidate, hidden, grad_hidden, grad_recurrent, carry, by_inputs, by_recurrent, **how
    )
    for found, values in zip((by_inputs, by_recurrent, carry), expected, strict=True):
        assert_close(found, values, dtype)

    by_candidate, by_gates = arrays.empty(1), arrays.empty(2)
    of_update, of_candidate, past = reference.gru_update_backward(
        *as_float64(gates, hidden, upstream), **how
    )
    executor.gru_update_backward(
        gates, hidden, grad_hidden, grad_recurrent, again, by_candidate, by_gates, **how
    )
    of_reset = arrays.make(1)
    by_reset, more = reference.gru_reset_backward(
        *as_float64(gates[:, :channels], hidden, of_reset), **gate
    )
    executor.gru_reset_backward(gates, hidden, of_reset, again, by_gates, **gate)
    assert_close(by_candidate, of_candidate, dtype)
    assert_close(by_gates, np.concatenate([by_reset, of_update], axis=1), dtype)
    assert_close(again, past + more, dtype)

    two, one = arrays.make(2), arrays.make(1)
    gates, reset, next_hidden = arrays.empty(3), arrays.empty(1), arrays.empty(1)
    executor.gru_reset_forward(inputs, two, hidden, gates, reset, **gate)
    executor.gru_update_forward(
        inputs, one, hidden, gates, next_hidden, activation=how["activation"]
    )
    both, expected_reset = reference.gru_reset_forward(*as_float64(inputs, two, hidden), **gate)
    n, state = reference.gru_update_forward(
        *as_float64(inputs, one), both[:, channels:], as_float64(hidden)[0],
        activation=how["activation"],
    )  # fmt: skip
    assert_close(gates, np.concatenate([both, n], axis=1), dtype)
    assert_close(reset, expected_reset, dtype)
    assert_close(next_hidden, state, dtype)


def test_numpy_arrays(executor: Any) -> None:
    if executor.device != "cpu":
        pytest.skip("NumPy's arrays are in host memory")
    random = np.random.default_rng(0)
    inputs, cell = random.random((2, 12, 4, 5)), random.random((2, 3, 4, 5))
    hidden, new_cell = np.empty_like(cell), np.empty_like(cell)
    executor.lstm_forward(inputs, None, cell, None, None, hidden, new_cell)
    _, expected, state = reference.lstm_forward(inputs, None, cell)
    np.testing.assert_allclose(hidden, expected, rtol=1e-14)
    np.testing.assert_allclose(new_cell, state, rtol=1e-14)


@pytest.mark.parametrize("channels_last", [False, True], ids=["first", "last"])
def test_bits_do_not_depend_on_threads(executor: Any, channels_last: bool) -> None:
    arrays = Arrays(executor, (2, 33, 32, 33), "float32", channels_last)
    inputs, cell = arrays.make(4), arrays.make(1)
    results = []
    for threads in (1, 2, 3):
        hidden, new_cell = arrays.empty(1), arrays.empty(1)
        executor.lstm_forward(inputs, None, cell, None, None, hidden, new_cell, threads=threads)
        results.append((hidden, new_cell))
    for hidden, new_cell in results[1:]:
        assert torch.equal(hidden, results[0][0])
        assert torch.equal(new_cell, results[0][1])


def test_rows_are_those_of_memory() -> None:
    first = torch.zeros(2, 3, 4, 5)
    assert rows_of(first) == (2, 60)
    assert rows_of(first.contiguous(memory_format=torch.channels_last)) == (40, 3)
    assert rows_of(np.zeros((2, 3, 4, 5))) == (2, 60)


# --- The definition -------------------------------------------------------------------------------


def test_definition_is_torchs_lstm() -> None:
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 4, bias=True, dtype=torch.float64)
    x, h, c = (torch.randn(*shape, dtype=torch.float64) for shape in ((6, 2, 3), (2, 4), (2, 4)))
    output, (_, last) = lstm(x, (h[None], c[None]))
    pixel = (..., None, None)
    states, cells = reference.conv_lstm(
        x.numpy()[pixel], h.numpy()[pixel], c.numpy()[pixel],
        lstm.weight_ih_l0.detach().numpy()[pixel], lstm.weight_hh_l0.detach().numpy()[pixel],
        (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach().numpy(),
    )  # fmt: skip
    np.testing.assert_allclose(states[..., 0, 0], output.detach(), rtol=1e-12)
    np.testing.assert_allclose(cells[-1, ..., 0, 0], last[0].detach(), rtol=1e-12)


def test_definition_is_torchs_gru() -> None:
    torch.manual_seed(0)
    gru = torch.nn.GRU(3, 4, dtype=torch.float64)
    x, h = torch.randn(6, 2, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    output, _ = gru(x, h[None])
    pixel = (..., None, None)
    bias = gru.bias_ih_l0.detach().clone()
    bias[:8] += gru.bias_hh_l0.detach()[:8]
    states = reference.conv_gru(
        x.numpy()[pixel], h.numpy()[pixel], gru.weight_ih_l0.detach().numpy()[pixel],
        gru.weight_hh_l0.detach().numpy()[pixel], bias.numpy(),
        gru.bias_hh_l0.detach().numpy()[8:], linear_before_reset=True,
    )  # fmt: skip
    np.testing.assert_allclose(states[..., 0, 0], output.detach(), rtol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolution_is_torchs(dims: int) -> None:
    random = np.random.default_rng(dims)
    x = random.random((2, 3, *(9, 7, 8)[:dims]))
    weight, bias = random.random((4, 3, *(3, 5, 1)[:dims])), random.random(4)
    options = {
        "stride": (2, 1, 3)[:dims],
        "padding": (1, 3, 2)[:dims],
        "dilation": (2, 1, 1)[:dims],
    }
    function = getattr(torch.nn.functional, f"conv{dims}d")
    expected = function(*map(torch.from_numpy, (x, weight, bias)), **options)
    np.testing.assert_allclose(reference.convolution(x, weight, bias, **options), expected)


# --- Weights of other libraries -------------------------------------------------------------------


def keras_layer(kind: str, **options: Any) -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras")
    return getattr(keras.layers, kind)(4, 3, return_sequences=True, return_state=True, **options)


KERAS_CASES: dict[str, dict[str, Any]] = {
    "valid": {},
    "same": {"padding": "same"},
    "strided": {"padding": "same", "strides": 2},
    "dilated": {"dilation_rate": 2},
    "hard": {"recurrent_activation": "hard_sigmoid"},
    "no bias": {"use_bias": False},
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", KERAS_CASES)
def test_keras(name: str) -> None:
    from sosie.nn import ConvLSTM
    from sosie.nn.recurrent_weights import from_keras

    options = KERAS_CASES[name]
    theirs = keras_layer("ConvLSTM2D", **options)
    x = np.random.default_rng(0).standard_normal((2, 5, 8, 9, 3)).astype(np.float32)
    expected, *states = (
        array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
        for array in theirs(x, training=False)
    )
    ours = ConvLSTM(
        3, 4, 3, batch_first=True,
        padding={"same": "same_upper"}.get(options.get("padding", "valid"), "valid"),
        stride=options.get("strides", 1), dilation=options.get("dilation_rate", 1),
        recurrent_activation=options.get("recurrent_activation", "sigmoid"),
        bias=options.get("use_bias", True),
    )  # fmt: skip
    ours.cells[0].load_state_dict(from_keras(theirs.get_weights()))
    output, (h, c) = ours(torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 2))))
    # Both in float32: their roundings differ.
    close = {"rtol": 2e-5, "atol": 2e-6}
    np.testing.assert_allclose(np.moveaxis(output.detach().numpy(), 2, -1), expected, **close)
    for found, state in zip((h, c), states, strict=True):
        np.testing.assert_allclose(np.moveaxis(found[0].detach().numpy(), 1, -1), state, **close)


def test_keras_numbers_without_keras() -> None:
    # A layer of Keras' own tests: all weights alike, inputs 0, 0.01, ...
    from sosie.nn import ConvLSTMCell
    from sosie.nn.recurrent_weights import from_keras

    x = (np.arange(480).reshape(2, 3, 4, 4, 5) / 100).astype(np.float32)
    bias = np.array([0.03, 0.03, 1.0, 1.0, 0.03, 0.03, 0.03, 0.03])  # forget gates begin open
    weights = [np.full((3, 3, 5, 8), 0.01), np.full((3, 3, 2, 8), 0.02), bias]
    cell = ConvLSTMCell(5, 2, 3, padding="valid")
    cell.load_state_dict(from_keras(weights))
    state = None
    for step in torch.from_numpy(np.moveaxis(x, -1, 2).copy()).unbind(1):
        state = cell(step, state)
    expected = [
        [[0.48694518, 0.50237733], [0.5461202, 0.5598283]],
        [[0.8661607, 0.86909103], [0.8774414, 0.8800861]],
    ]
    for channel in range(2):
        np.testing.assert_allclose(state[0][:, channel].detach(), expected, rtol=1e-6)


def flax_cell(x: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    """The last state by flax' formulas, images ``(T, N, H, W, C)`` and padding "SAME"."""

    def convolve(images: np.ndarray, part: dict[str, Any]) -> np.ndarray:
        weight = np.transpose(part["kernel"], (3, 2, 0, 1))
        result = reference.convolution(np.moveaxis(images, -1, 1), weight, part["bias"], padding=1)
        return np.moveaxis(result, 1, -1)

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-a))

    h = c = np.zeros((*x.shape[1:-1], params["hh"]["kernel"].shape[2]))
    for step in x:
        i, g, f, o = np.split(convolve(step, params["ih"]) + convolve(h, params["hh"]), 4, axis=-1)
        c = sigmoid(f + 1.0) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def test_flax() -> None:
    from sosie.nn import ConvLSTM
    from sosie.nn.recurrent_weights import from_flax

    random = np.random.default_rng(1)
    params = {
        part: {"kernel": random.standard_normal((3, 3, c, 16)) / 4, "bias": random.random(16)}
        for part, c in (("ih", 3), ("hh", 4))
    }
    x = random.standard_normal((4, 2, 6, 5, 3))
    layer = ConvLSTM(3, 4, dtype=torch.float64)
    layer.cells[0].load_state_dict(from_flax(params))
    _, (h, _) = layer(torch.from_numpy(np.moveaxis(x, -1, 2).copy()))
    np.testing.assert_allclose(
        np.moveaxis(h[0].detach().numpy(), 1, -1), flax_cell(x, params), rtol=1e-12
    )


def test_bad_weights() -> None:
    from sosie.nn.recurrent_weights import from_convlstm_pytorch, reorder_gates

    with pytest.raises(ValueError, match="'ifgg'"):
        reorder_gates(np.zeros(8), "ifgg")
    with pytest.raises(ValueError, match=r"\(6, 2\)"):
        reorder_gates(np.zeros((6, 2)), "ifgo")
    with pytest.raises(ValueError, match=r"'conv1\.weights'"):
        from_convlstm_pytorch({"conv1.weights": torch.zeros(4)})


def original_cell(
    conv: Callable[[Array], Array], x: Array, h: Array, c: Array
) -> tuple[Array, Array]:
    """A step of ConvLSTM_pytorch."""
    i, f, o, g = conv(torch.cat([x, h], dim=1)).chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_convlstm_pytorch(bias: bool, batch_first: bool) -> None:
    from sosie.compat.convlstm_pytorch import ConvLSTM
    from sosie.nn import ConvLSTM as Ours
    from sosie.nn.recurrent_weights import from_convlstm_pytorch

    torch.manual_seed(0)
    layer = ConvLSTM(3, 4, (3, 5), 2, batch_first, bias, True).double()
    names = ["weight", "bias"][: 1 + bias]
    assert list(layer.state_dict()) == [f"cell_list.{k}.conv.{n}" for k in (0, 1) for n in names]
    x = torch.randn(5, 2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    outputs, states = layer(x.transpose(0, 1) if batch_first else x)
    images = x
    expected, total = [], 0.0
    for cell in layer.cell_list:
        h = c = x.new_zeros(2, 4, 6, 7)
        steps = []
        for step in images.unbind(0):
            h, c = original_cell(cell.conv, step, h, c)
            steps.append(h)
        images = torch.stack(steps)
        expected.append((images.transpose(0, 1), h, c))
        total = total + images.square().sum()
    parameters = [x, *layer.parameters()]
    wanted = torch.autograd.grad(total, parameters)
    found = torch.autograd.grad(sum(output.square().sum() for output in outputs), parameters)
    for (output, h, c), ours, state in zip(expected, outputs, states, strict=True):
        torch.testing.assert_close(ours, output, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(state, [h, c], rtol=1e-11, atol=1e-12)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)
    # The same weights in our own layer.
    ours = Ours(3, 4, (3, 5), 2, bias=bias, dtype=torch.float64)
    ours.load_state_dict(from_convlstm_pytorch(layer.state_dict()))
    torch.testing.assert_close(ours(x)[0], expected[-1][0].transpose(0, 1), rtol=1e-11, atol=1e-12)
    # A state to begin with goes on where another sequence ended.
    parts = [torch.cat(pair, dim=1) for pair in zip(outputs, outputs, strict=True)]
    again, _ = layer(x.transpose(0, 1) if batch_first else x, states)
    assert not torch.allclose(again[0], parts[0][:, :5])
    one = layer.cell_list[0](x[0], states[0])
    torch.testing.assert_close(one[0], again[0][:, 0])


def test_convlstm_pytorch_refuses() -> None:
    from sosie.compat.convlstm_pytorch import ConvLSTM

    with pytest.raises(ValueError, match=r"2 layers, got \[4\]"):
        ConvLSTM(3, [4], (3, 3), 2)
    with pytest.raises(ValueError, match=r"tuple.*got 3"):
        ConvLSTM(3, 4, 3, 1)
    with pytest.raises(ValueError, match=r"odd size.*\(2, 3\)"):
        ConvLSTM(3, 4, (2, 3), 1)
    layer = ConvLSTM(3, 4, (3, 3), 1)
    with pytest.raises(ValueError, match=r"3 channels, got 2"):
        layer(torch.zeros(1, 1, 2, 5, 5))
    with pytest.raises(ValueError, match=r"1 layers, got 2"):
        layer(torch.zeros(1, 1, 3, 5, 5), [None, None])
