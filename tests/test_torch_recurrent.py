# SPDX-License-Identifier: Apache-2.0
"""Operators of the recurrent family, and layers: values, derivatives, options, compilers."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from sosie.reference import recurrent as reference

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from sosie.nn import (  # noqa: E402
    ConvGRU,
    ConvGRUCell,
    ConvLSTM,
    ConvLSTMCell,
    RecurrentConv1d,
    RecurrentConv2d,
    RecurrentConv3d,
)
from sosie.torch import recurrent as operators  # noqa: E402
from sosie.torch import recurrent_composite as composite  # noqa: E402
from sosie.torch import recurrent_sequence as sequences  # noqa: E402
from sosie.torch.recurrent import Recurrence  # noqa: E402

KINDS = ("lstm", "gru", "gru-after")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(*shape: int, dtype: Any = torch.float64, grad: bool = False) -> Tensor:
    values = np.random.default_rng(shape).standard_normal(shape)
    tensor = torch.from_numpy(np.array(values)).to(dtype)
    return tensor.requires_grad_() if grad else tensor


class Problem:
    """Arguments of an operator, and both ways to compute it."""

    def __init__(
        self, kind: str, dims: int = 2, steps: int = 3, state: bool = True, peephole: str = "none",
        channels: int = 3, stride: int = 1, dtype: Any = torch.float64, grad: bool = True,
    ) -> None:  # fmt: skip
        self.lstm = kind == "lstm"
        gates = 4 if self.lstm else 3
        sizes, kernel = (5, 4, 3)[:dims], (3, 1, 3)[:dims]
        scale = (channels * 9) ** -0.5

        def weight(*shape: int) -> Tensor:
            return (noise(*shape) * scale).to(dtype).requires_grad_(grad)

        self.how = Recurrence(
            stride=(stride,) * dims, padding=tuple(size // 2 for size in kernel),
            dilation=(1,) * dims, recurrent_dilation=(2,) * dims,
            linear_before_reset=kind == "gru-after",
        )  # fmt: skip
        x = noise(steps, 2, 2, *(size * stride for size in sizes), dtype=dtype, grad=grad)
        h = noise(2, channels, *sizes, dtype=dtype, grad=grad) if state else None
        shared = (
            weight(gates * channels, 2, *kernel),
            weight(gates * channels, channels, *kernel),
            weight(gates * channels),
        )
        if self.lstm:
            own = {"channel": (1,) * dims, "pixel": sizes}.get(peephole)
            c = (
                noise(2, channels, *sizes, dtype=dtype).mul(0.5).requires_grad_(grad)
                if state
                else None
            )
            holes = None if own is None else noise(3, channels, *own, dtype=dtype, grad=grad)
            self.tensors: tuple[Any, ...] = (x, h, c, *shared, holes)
        else:
            self.tensors = (x, h, *shared, weight(channels))

    @property
    def given(self) -> list[Tensor]:
        return [tensor for tensor in self.tensors if tensor is not None]

    def operator(self, *tensors: Any, **options: Any) -> tuple[Tensor, ...]:
        if not self.lstm:
            return operators.conv_gru(*tensors, self.how, **options)
        return operators.conv_lstm(*tensors, self.how, all_cells=True, **options)

    def composite(self, *tensors: Any) -> tuple[Tensor, ...]:
        if not self.lstm:
            output = composite.conv_gru(*tensors, how=self.how)
            return output, output[-1]
        output, cells = composite.conv_lstm(*tensors, how=self.how)
        return output, output[-1], cells[-1], cells

    def filled(self, given: Any) -> list[Any]:
        """Arguments with others in place of those that are there."""
        values = iter(given)
        return [None if tensor is None else next(values) for tensor in self.tensors]


def gradients(results: Any, tensors: Any) -> list[Tensor]:
    """Of a weighted sum of everything."""
    total = sum((result * noise(*result.shape, dtype=result.dtype)).sum() for result in results)
    return list(torch.autograd.grad(total, tensors))


def assert_all_close(found: Any, expected: Any, tolerance: float) -> None:
    """Relative to the largest number of each tensor."""
    for one, other in zip(found, expected, strict=True):
        scale = max(float(other.detach().abs().max()), 1e-30)
        torch.testing.assert_close(
            one.to(other.dtype), other, rtol=0, atol=tolerance * scale
        )  # fmt: skip


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no state": {"state": False},
    "per channel": {"peephole": "channel"},
    "per pixel": {"peephole": "pixel"},
    "one step": {"steps": 1},
    "one channel": {"channels": 1},
    "strided": {"stride": 2},
    "signals": {"dims": 1},
    "volumes": {"dims": 3, "peephole": "pixel"},
}


@pytest.mark.parametrize("block", [1, 10_000, 1 << 24], ids=["steps", "some", "all"])
@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_operator_is_composite(
    kind: str, variant: str, recompute: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "BLOCK_BYTES", block)
    problem = Problem(kind, **VARIANTS[variant])
    expected = problem.composite(*problem.tensors)
    found = problem.operator(*problem.tensors, recompute=recompute)
    # float64 all along; sums of a few hundred terms, in another order.
    assert_all_close(found, expected, 1e-13)
    assert_all_close(gradients(found, problem.given), gradients(expected, problem.given), 1e-12)
    with torch.no_grad():
        assert_all_close(problem.operator(*problem.tensors), expected, 1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_one_by_one(kind: str) -> None:
    """What is not asked for is left out, and does not change the rest."""
    problem = Problem(kind, peephole="channel")
    expected = gradients(problem.composite(*problem.tensors), problem.given)
    for place, wanted in enumerate(expected):
        given = [t.detach().requires_grad_(k == place) for k, t in enumerate(problem.given)]
        found = gradients(problem.operator(*problem.filled(given)), given[place])
        assert_all_close(found, [wanted], 1e-12)
    # Of each result alone.
    for result, other in zip(
        problem.operator(*problem.tensors), problem.composite(*problem.tensors), strict=True
    ):
        found, wanted = (
            torch.autograd.grad(
                each.square().sum(), problem.given, materialize_grads=True, retain_graph=True
            )
            for each in (result, other)
        )
        for one, two in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 4, 16, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_within_1e_5_of_float64(kind: str, steps: int) -> None:
    """Values and all gradients, relative to the largest of each."""
    problem = Problem(kind, steps=steps, channels=16, dtype=torch.float32, peephole="channel")
    found = problem.operator(*problem.tensors)
    exact = [tensor.detach().double().requires_grad_() for tensor in problem.given]
    expected = problem.composite(*problem.filled(exact))
    assert_all_close(found, [result.float() for result in expected], 1e-5)
    wanted = [gradient.float() for gradient in gradients(expected, exact)]
    assert_all_close(gradients(found, problem.given), wanted, 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_are_limits_of_differences(kind: str) -> None:
    problem = Problem(kind, steps=2, peephole="channel", channels=2)

    def function(*given: Tensor) -> tuple[Tensor, ...]:
        return problem.operator(*problem.filled(given))[:3]

    torch.autograd.gradcheck(function, problem.given, fast_mode=True)
    torch.autograd.gradgradcheck(function, problem.given, fast_mode=True)


# --- Dispatch, transforms, compilers --------------------------------------------------------------


@pytest.mark.parametrize("grad", [False, True], ids=["constants", "variables"])
@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(kind: str, grad: bool) -> None:
    problem = Problem(kind, grad=grad, peephole="channel")
    plain = operators._plain(problem.how)
    if problem.lstm:
        forward = (*problem.tensors, *plain, True, True)
        output, hidden, cell, cells, gates = torch.ops.sosie.conv_lstm(*forward)
        upstream = tuple(noise(*t.shape) for t in (output, hidden, cell, cells))
        backward = (
            *problem.tensors, output, cells, gates, *upstream, *plain, [True] * len(problem.tensors)
        )  # fmt: skip
        names = ("conv_lstm", "conv_lstm_backward")
    else:
        after = problem.how.linear_before_reset
        forward = (*problem.tensors, *plain, after, True)
        output, hidden, gates, candidates = torch.ops.sosie.conv_gru(*forward)
        upstream = tuple(noise(*t.shape) for t in (output, hidden))
        backward = (
            *problem.tensors, output, gates, candidates, *upstream, *plain, after,
            [True] * len(problem.tensors),
        )  # fmt: skip
        names = ("conv_gru", "conv_gru_backward")
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        getattr(torch.ops.sosie, names[0]).default, forward,
        test_utils=(*checks, "test_aot_dispatch_dynamic"),
    )  # fmt: skip
    detached = tuple(t.detach() if isinstance(t, Tensor) else t for t in backward)
    torch.library.opcheck(
        getattr(torch.ops.sosie, names[1]).default, detached, test_utils=checks
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_transforms(kind: str) -> None:
    problem = Problem(kind, peephole="channel")
    given = [tensor.detach() for tensor in problem.given]
    places = tuple(range(len(given)))

    def total(*given: Tensor) -> Tensor:
        results = problem.operator(*problem.filled(given))
        return sum((result * noise(*result.shape)).sum() for result in results)

    expected = gradients(problem.composite(*problem.tensors), problem.given)
    assert_all_close(torch.func.grad(total, places)(*given), expected, 1e-12)
    # Images, with the same state; then weights, too.
    batch = torch.stack([given[0], 2.0 * given[0], -given[0]])
    stacked = torch.stack([problem.operator(*problem.filled([x, *given[1:]]))[0] for x in batch])
    dims = (0, *(None,) * (len(given) - 1))

    def output(*given: Tensor) -> Tensor:
        return problem.operator(*problem.filled(given))[0]

    torch.testing.assert_close(torch.vmap(output, dims)(batch, *given[1:]), stacked)
    moved = torch.vmap(output, (2, *dims[1:]))(batch.movedim(0, 2), *given[1:])
    torch.testing.assert_close(moved, stacked)
    both = [torch.stack([tensor, 0.5 * tensor]) for tensor in given]
    stacked = torch.stack([output(*given), output(*(0.5 * tensor for tensor in given))])
    torch.testing.assert_close(torch.vmap(output)(*both), stacked)
    per_sample = torch.vmap(torch.func.grad(total, places), dims)(batch, *given[1:])
    assert_all_close([gradient[0] for gradient in per_sample], expected, 1e-12)


@pytest.fixture
def fresh_compiler() -> None:
    torch.compiler.reset()


def layers() -> dict[str, torch.nn.Module]:
    torch.manual_seed(1)
    wide: dict[str, Any] = {"dtype": torch.float64}
    return {
        "lstm": ConvLSTM(2, 3, num_layers=2, bidirectional=True, peephole="channel", **wide),
        "gru": ConvGRU(2, 3, linear_before_reset=True, **wide),
    }


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.filterwarnings("ignore:.*lru_cache:UserWarning")
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_compiled_into_one_graph_with_a_node_per_sequence(name: str) -> None:
    layer, x = layers()[name], noise(5, 2, 2, 6, 5, grad=True)
    nodes = []

    def look(graph: Any, _inputs: Any) -> Any:
        nodes.extend(node.target for node in graph.graph.nodes if "sosie" in str(node.target))
        return graph

    compiled = torch.compile(layer, fullgraph=True, backend=look)
    torch.testing.assert_close(compiled(x)[0], layer(x)[0], rtol=1e-12, atol=0)
    assert len(nodes) == len(layer.cells)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    parameters = [x, *layer.parameters()]
    found = gradients([compiled(x)[0]], parameters)
    assert_all_close(found, gradients([layer(x)[0]], parameters), 1e-12)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_exported_graph_has_standard_operations(name: str) -> None:
    layer, x = layers()[name].eval(), noise(3, 2, 2, 6, 5)
    program = torch.export.export(layer, (x,))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not [target for target in targets if "sosie" in target]
    torch.testing.assert_close(program.module()(x)[0], layer(x)[0], rtol=1e-12, atol=1e-13)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx() -> None:
    pytest.importorskip("onnxscript")
    evaluator = pytest.importorskip("onnx.reference")
    layer, x = ConvGRU(2, 3).eval(), noise(3, 2, 2, 6, 5, dtype=torch.float32)
    program = torch.onnx.export(layer, (x,), dynamo=True, verbose=False)
    session = evaluator.ReferenceEvaluator(program.model_proto)
    output, h = session.run(None, {session.input_names[0]: x.numpy()})
    expected, last = layer(x)
    np.testing.assert_allclose(output, expected.detach(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(h, last.detach(), rtol=1e-5, atol=1e-6)


# --- Layers ---------------------------------------------------------------------------------------


def numpy_state(cell: Any, x: Tensor, reverse: bool = False) -> np.ndarray:
    """Outputs of a cell by the definition."""
    images = x.detach().numpy()[::-1] if reverse else x.detach().numpy()
    values = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    state = np.zeros(cell.state_shape(x))
    options = {"padding": cell.padding, "stride": cell.stride, "dilation": cell.dilation}
    if isinstance(cell, ConvLSTMCell):
        holes = values.get("weight_peephole")
        if holes is not None and holes.ndim == 2:
            holes = holes[..., None, None]
        output, _ = reference.conv_lstm(
            images, state, state, values["weight_ih"], values["weight_hh"], values.get("bias"),
            holes, **options,
        )  # fmt: skip
    else:
        output = reference.conv_gru(
            images, state, values["weight_ih"], values["weight_hh"], values.get("bias"),
            values.get("bias_hh"), linear_before_reset=cell.linear_before_reset, **options,
        )  # fmt: skip
    return output[::-1] if reverse else output


LAYERS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: ConvLSTM(2, 3, dtype=torch.float64),
    "peepholes": lambda: ConvLSTM(
        2, 3, (3, 5), peephole="pixel", spatial_size=(6, 5), dtype=torch.float64
    ),
    "no bias": lambda: ConvLSTM(2, 3, 1, bias=False, dtype=torch.float64),
    "strided, dilated": lambda: ConvLSTM(
        2, 3, 3, stride=2, dilation=2, peephole="channel", dtype=torch.float64
    ),
    "valid": lambda: ConvGRU(2, 3, 3, padding="valid", dtype=torch.float64),
    "gru": lambda: ConvGRU(2, 3, dtype=torch.float64),
    "gru, after": lambda: ConvGRU(2, 3, linear_before_reset=True, dtype=torch.float64),
}


def randomised(layer: Any) -> Any:
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.3)
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_the_definition(name: str) -> None:
    layer = randomised(LAYERS[name]())
    x = noise(4, 2, 2, 6, 5)
    expected = numpy_state(layer.cells[0], x)
    output, last = layer(x)
    np.testing.assert_allclose(output.detach(), expected, rtol=1e-11, atol=1e-13)
    h = last[0] if isinstance(last, tuple) else last
    np.testing.assert_array_equal(h[0].detach(), output[-1].detach())


@pytest.mark.parametrize("kind", [ConvLSTM, ConvGRU])
def test_layers_and_directions(kind: Any) -> None:
    layer = randomised(kind(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64))
    x = noise(4, 2, 2, 6, 5)
    images = x
    ends = []
    for first, second in ((0, 1), (2, 3)):
        ahead = numpy_state(layer.cells[first], images)
        back = numpy_state(layer.cells[second], images, reverse=True)
        ends += [ahead[-1], back[0]]
        images = torch.from_numpy(np.concatenate([ahead, back], axis=2))
    output, last = layer(x)
    torch.testing.assert_close(output, images, rtol=1e-11, atol=1e-13)
    h = last[0] if isinstance(last, tuple) else last
    np.testing.assert_allclose(h.detach(), np.stack(ends), rtol=1e-11, atol=1e-13)
    # Axes in another order, and none of a batch.
    swapped = copy.copy(layer)
    swapped.batch_first = True
    torch.testing.assert_close(swapped(x.transpose(0, 1))[0], output.transpose(0, 1))
    alone, _ = layer(x[:, 0])
    torch.testing.assert_close(alone, layer(x[:, :1])[0].squeeze(1))


@pytest.mark.parametrize("kind", [ConvLSTM, ConvGRU])
def test_a_state_goes_on(kind: Any) -> None:
    layer = randomised(kind(2, 3, num_layers=2, dtype=torch.float64))
    x = noise(5, 2, 2, 6, 5)
    whole, end = layer(x)
    first, middle = layer(x[:2])
    second, last = layer(x[2:], middle)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(last, end, rtol=1e-12, atol=1e-14)
    cell = layer.cells[0]
    state = None
    for step in x.unbind(0):
        state = cell(step, state)
    expected = tuple(part[0] for part in end) if kind is ConvLSTM else end[0]
    torch.testing.assert_close(state, expected, rtol=1e-12, atol=1e-14)
    parts = state if isinstance(state, tuple) else (state,)
    unbatched = cell(x[0, 0], tuple(p[0] for p in parts) if kind is ConvLSTM else parts[0][0])
    batched = cell(x[0], state)
    one, other = (s[0] if kind is ConvLSTM else s for s in (unbatched, batched))
    torch.testing.assert_close(one, other[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [ConvLSTM, ConvGRU])
def test_sequences_of_unequal_length(kind: Any) -> None:
    layer = randomised(kind(2, 3, num_layers=2, bidirectional=True, dtype=torch.float64))
    x, lengths = noise(5, 3, 2, 6, 5, grad=True), [2, 5, 1]
    with torch.no_grad():
        for place, length in enumerate(lengths):
            x[length:, place] = torch.nan
    output, last = layer(x, lengths=lengths)
    output.square().sum().backward()
    assert bool(x.grad.isfinite().all())
    for place, length in enumerate(lengths):
        alone, end = layer(x[:length, place : place + 1])
        torch.testing.assert_close(output[:length, place], alone[:, 0], rtol=1e-12, atol=1e-14)
        assert not output[length:, place].any()
        one, other = (s[0] if kind is ConvLSTM else s for s in (last, end))
        torch.testing.assert_close(one[:, place], other[:, 0], rtol=1e-12, atol=1e-14)
        if kind is ConvLSTM:
            torch.testing.assert_close(last[1][:, place], end[1][:, 0], rtol=1e-12, atol=1e-14)
        (grad,) = torch.autograd.grad(alone.square().sum(), x)
        torch.testing.assert_close(
            x.grad[:length, place], grad[:length, place], rtol=1e-11, atol=1e-13
        )


def test_options_of_the_composite() -> None:
    """Each against its own formula, one step from zeros, where little is left of an LSTM."""
    x = noise(1, 2, 2, 6, 5)

    def state_of(a: Tensor) -> Tensor:
        i, _, g, o = a.chunk(4, 1)
        return o.sigmoid() * (i.sigmoid() * g.tanh()).tanh()

    circular = randomised(ConvLSTM(2, 3, padding_mode="circular", dtype=torch.float64))
    conv = torch.nn.Conv2d(2, 12, 3, padding=1, padding_mode="circular", dtype=torch.float64)
    cell = circular.cells[0]
    conv.weight, conv.bias = cell.weight_ih, cell.bias
    torch.testing.assert_close(circular(x)[0][0], state_of(conv(x[0])))
    for norm, groups in (("layer", 1), ("group", 3)):
        layer = randomised(ConvLSTM(2, 3, norm=norm, norm_groups=groups, dtype=torch.float64))
        cell = layer.cells[0]
        a = torch.nn.functional.conv2d(x[0], cell.weight_ih, cell.bias, padding=1)
        scale, shift = (p[None, :, None, None] for p in cell.norm_gates.parameters())
        parts = a.unflatten(1, (4 * groups, -1)).flatten(2)
        parts = (parts - parts.mean(2, keepdim=True)) / (
            parts.var(2, unbiased=False, keepdim=True) + 1e-5
        ).sqrt()
        torch.testing.assert_close(layer(x)[0][0], state_of(parts.reshape(a.shape) * scale + shift))
    zoneout = randomised(ConvGRU(2, 3, zoneout=0.25, dtype=torch.float64)).eval()
    plain = ConvGRU(2, 3, dtype=torch.float64)
    plain.load_state_dict(zoneout.state_dict())
    h = noise(1, 2, 3, 6, 5)
    expected = 0.75 * plain(x, h)[0] + 0.25 * h
    torch.testing.assert_close(zoneout(x, h)[0], expected)
    torch.manual_seed(0)
    trained = zoneout.train()(x, h)[0]
    kept = (trained == h).double()
    torch.testing.assert_close(trained, torch.where(trained == h, h, plain(x, h)[0]))
    assert 0.1 < kept.mean() < 0.4  # of 180 numbers


def by_hand(cell: Any, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """States after all steps of a cell of 3 x 3 taps, option by option."""
    functional = torch.nn.functional

    def around(image: Tensor) -> Tensor:
        mode = "constant" if cell.padding_mode == "zeros" else cell.padding_mode
        return functional.pad(image, (1, 1, 1, 1), mode=mode)

    def normalised(a: Tensor, norm: Any) -> Tensor:
        if isinstance(norm, torch.nn.Identity):
            return a
        parts = a.unflatten(1, (norm.num_groups, -1)).flatten(2)
        spread = (parts.var(2, unbiased=False, keepdim=True) + norm.eps).sqrt()
        parts = (parts - parts.mean(2, keepdim=True)) / spread
        return parts.reshape(a.shape) * norm.weight[:, None, None] + norm.bias[:, None, None]

    def gate(a: Tensor) -> Tensor:
        return (a / 6 + 0.5).clamp(0, 1) if "hard" in cell.recurrent_activation else a.sigmoid()

    def value(a: Tensor) -> Tensor:
        return a.clamp(-1, 1) if "hard" in cell.activation else a.tanh()

    keep_h, keep_c = cell.zoneout
    of_gates, of_n = cell.norm_gates, getattr(cell, "norm_candidate", None)
    for image in x:
        a = functional.conv2d(around(image), cell.weight_ih, cell.bias)
        if isinstance(cell, ConvLSTMCell):
            a = a + functional.conv2d(around(h), cell.weight_hh)
            i, f, g, o = normalised(a, of_gates).chunk(4, 1)
            new_c = gate(f) * c + gate(i) * value(g)
            new_h = gate(o) * value(new_c)
            c = (1 - keep_c) * new_c + keep_c * c
        else:
            channels = h.shape[1]
            u = functional.conv2d(around(h), cell.weight_hh[: 2 * channels])
            r, z = gate(normalised(a[:, : 2 * channels] + u, of_gates)).chunk(2, 1)
            u = functional.conv2d(around(r * h), cell.weight_hh[2 * channels :], cell.bias_hh)
            n = value(normalised(a[:, 2 * channels :] + u, of_n))
            new_h = (1 - z) * n + z * h
        h = (1 - keep_h) * new_h + keep_h * h
    return h, c


OPTIONS: dict[str, dict[str, Any]] = {
    **{mode: {"padding_mode": mode} for mode in ("reflect", "replicate", "circular")},
    "layer norm": {"norm": "layer"},
    "group norm": {"norm": "group", "norm_groups": 3},
    "hard": {"activation": "hard_tanh", "recurrent_activation": "hard_sigmoid"},
    "zoneout": {"zoneout": (0.25, 0.1)},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", [ConvLSTM, ConvGRU])
def test_options_over_steps(kind: Any, name: str) -> None:
    """States of three steps from a state, and the gradients of everything."""
    options = dict(OPTIONS[name])
    if name == "zoneout" and kind is ConvGRU:
        options["zoneout"] = 0.25
    layer = randomised(kind(2, 3, dtype=torch.float64, **options)).eval()
    x, h, c = (noise(*shape, grad=True) for shape in ((3, 2, 2, 6, 5), *[(2, 3, 6, 5)] * 2))
    state = (h[None], c[None]) if kind is ConvLSTM else h[None]
    last = layer(x, state)[1]
    found = tuple(part[0] for part in last) if kind is ConvLSTM else (last[0],)
    expected = by_hand(layer.cells[0], x, h, c)[: len(found)]
    assert_all_close(found, expected, 1e-12)
    leaves = [x, h, *([c] if kind is ConvLSTM else []), *layer.parameters()]
    for one, other in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
        # That of a bias before a norm is 0 but for rounding.
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_dropout_lies_between_layers() -> None:
    layer = randomised(ConvGRU(2, 3, num_layers=2, dropout=1.0, dtype=torch.float64))
    x = noise(3, 2, 2, 6, 5)
    output, _ = layer(x)
    second, _ = ConvGRU.__call__(layer.eval(), x)
    assert not torch.allclose(output, second)
    cell = layer.cells[1]
    nothing = torch.zeros(3, 2, 3, 6, 5, dtype=torch.float64)
    np.testing.assert_allclose(output.detach(), numpy_state(cell, nothing), rtol=1e-11)


def test_same_upper_is_that_of_others() -> None:
    cell = ConvLSTMCell(1, 1, 3, stride=2, padding="same_upper", bias=False, dtype=torch.float64)
    x = noise(1, 1, 1, 6, 5)
    padded = torch.nn.functional.pad(x, (1, 1, 0, 1))  # 5 columns: one on each side; 6 rows: below
    twin = ConvLSTMCell(1, 1, 3, stride=2, padding="valid", bias=False, dtype=torch.float64)
    twin.load_state_dict(cell.state_dict())
    torch.testing.assert_close(cell(x[0]), twin(padded[0]))


# --- Precision and memory -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ConvLSTM, ConvGRU])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(kind: Any, dtype: torch.dtype) -> None:
    layer = randomised(kind(2, 16))
    x = noise(6, 2, 2, 8, 8, dtype=torch.float32, grad=True)
    expected, _ = layer(x)
    wanted = gradients([expected], [x, *layer.parameters()])
    with torch.autocast("cpu", dtype=dtype):
        output, last = layer(x)
        again, _ = layer(x, last)
    assert output.dtype == again.dtype == dtype
    if kind is ConvLSTM:
        assert last[1].dtype == torch.float32
    # Inputs, weights, states and what convolutions give are rounded at each step.
    rounding = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype]
    assert_all_close([output.float()], [expected], 8 * rounding)
    found = gradients([output.float()], [x, *layer.parameters()])
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < 8 * rounding


def test_a_cell_beyond_half_precision_is_finite_under_autocast() -> None:
    # Open gates add 1 at each step to a cell that begins at the edge of float16.
    layer = ConvLSTM(1, 2, 1, bias=True)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.cells[0].bias.fill_(20.0)
    h, c = torch.zeros(1, 1, 2, 4, 4), torch.full((1, 1, 2, 4, 4), 65500.0)
    with torch.autocast("cpu", dtype=torch.float16):
        output, (_, last) = layer(torch.zeros(64, 1, 1, 4, 4), (h, c))
    assert bool(output.isfinite().all())
    torch.testing.assert_close(last, c + 64.0)


@pytest.mark.parametrize(("recompute", "channels"), [(False, 4 + 2), (True, 2)])
def test_saved_for_the_backward_pass(recompute: bool, channels: int) -> None:
    """Gates and both states of every step, or the states: a third."""
    layer = ConvLSTM(1, 8, recompute=recompute)
    x = noise(10, 2, 1, 16, 16, dtype=torch.float32)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output, _ = layer(x)
    known = x.nbytes + sum(parameter.nbytes for parameter in layer.parameters())
    assert sum(saved.values()) <= channels * output.nbytes + known


# --- Recurrent convolution ------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, "lrn", "batch"])
@pytest.mark.parametrize("steps", [0, 3])
def test_recurrent_convolution(steps: int, norm: str | None) -> None:
    layer = randomised(RecurrentConv2d(2, 8, 3, steps, norm=norm, dtype=torch.float64))
    x = noise(3, 2, 6, 5)

    def normalise(y: np.ndarray, step: int) -> np.ndarray:
        if norm == "lrn":
            squares = np.pad(y * y, ((0, 0), (1, 0), (0, 0), (0, 0)))
            near = squares[:, :-1] + squares[:, 1:]
            return y / (1.0 + 1e-3 * near / 2) ** 0.75
        each = layer.norms[step]
        mean, var = y.mean((0, 2, 3), keepdims=True), y.var((0, 2, 3), keepdims=True)
        scale, shift = (p.detach().numpy()[:, None, None] for p in (each.weight, each.bias))
        return (y - mean) / np.sqrt(var + each.eps) * scale + shift

    expected = reference.recurrent_convolution(
        x.numpy(), *(p.detach().numpy() for p in layer.parameters(recurse=False)),
        steps=steps, normalise=None if norm is None else normalise,
    )  # fmt: skip
    np.testing.assert_allclose(layer(x).detach(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("layer", "dims"), [(RecurrentConv1d, 1), (RecurrentConv3d, 3)])
def test_recurrent_convolution_of_signals_and_volumes(layer: Any, dims: int) -> None:
    module = randomised(layer(2, 3, norm=None, dtype=torch.float64))
    x = noise(2, *(6, 5, 4)[:dims])
    weights = (p.detach().numpy() for p in (module.weight, module.recurrent_weight, module.bias))
    expected = reference.recurrent_convolution(x.numpy()[None], *weights)
    np.testing.assert_allclose(module(x).detach(), expected[0], rtol=1e-11, atol=1e-12)
    assert torch.autograd.gradcheck(module, x.requires_grad_(), fast_mode=True)


# --- Manners --------------------------------------------------------------------------------------


def test_modules_have_manners() -> None:
    layer = ConvLSTM(3, 8, (3, 5), 2, batch_first=True, zoneout=(0.1, 0.2))
    assert "num_layers=2, batch_first=True" in repr(layer)
    assert "3, 8, kernel_size=(3, 5), zoneout=(0.1, 0.2)" in repr(layer)
    recurrent = RecurrentConv2d(3, 8, steps=2, norm="lrn")
    assert "3, 8, kernel_size=(3, 3), steps=2, norm='lrn'" in repr(recurrent)
    layer = layer.eval()
    x = noise(2, 4, 3, 8, 8, dtype=torch.float32)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x)[0], layer(x)[0])
    cell = ConvLSTMCell(3, 8, forget_bias=2.0)
    assert torch.equal(cell.bias[8:16], torch.full((8,), 2.0))
    assert layer.cells[1].weight_ih.shape == (32, 8, 3, 5)


def bad_calls() -> dict[str, tuple[Callable[[], Any], type[Exception], str]]:
    lstm, gru = ConvLSTM(3, 4), ConvGRU(3, 4)
    x, h = torch.zeros(5, 2, 3, 8, 8), torch.zeros(1, 2, 4, 8, 8)
    return {
        "channels": (lambda: lstm(x[:, :, :2]), ValueError, r"3 channels, got 2 in \(5, 2, 2, 8"),
        "axes": (lambda: lstm(x[0, 0]), ValueError, r"got \(3, 8, 8\)"),
        "no step": (lambda: gru(x[:0]), ValueError, r"one step, got \(0, 2, 3, 8, 8\)"),
        "integers": (lambda: gru(x.long()), TypeError, "int64"),
        "dtype": (lambda: gru(x.double()), TypeError, r"float32, got torch\.float64"),
        "state shape": (
            lambda: lstm(x, (h, h[..., 1:])), ValueError,
            r"state c of shape \(1, 2, 4, 8, 8\), got \(1, 2, 4, 8, 7\)",
        ),
        "state dtype": (lambda: gru(x, h.double()), TypeError, r"state h.*got torch\.float64"),
        "state parts": (lambda: lstm(x, (h,)), ValueError, "got 1 tensors"),
        "lengths": (lambda: gru(x, lengths=[6, 1]), ValueError, r"1 and the 5 steps.*\[6, 1\]"),
        "length 0": (lambda: gru(x, lengths=[5, 0]), ValueError, r"got \[5, 0\]"),
        "too few lengths": (lambda: gru(x, lengths=[5]), ValueError, r"2 lengths.*got \(1,\)"),
        "fractional lengths": (
            lambda: gru(x, lengths=torch.ones(2)), TypeError, r"integers, got torch\.float32"
        ),
        "small image": (
            lambda: ConvLSTM(3, 4, 5, padding="valid")(x[..., :4, :4]), ValueError, r"got \(4, 4\)"
        ),
        "even kernel": (lambda: ConvLSTM(3, 4, 2), ValueError, r"odd size.*\(2, 2\)"),
        "even state kernel": (
            lambda: ConvGRU(3, 4, 3, recurrent_kernel_size=(3, 4)), ValueError, r"\(3, 4\)"
        ),
        "kernel axes": (lambda: ConvGRU(3, 4, (3, 3, 3)), ValueError, r"got \(3, 3, 3\)"),
        "activation": (lambda: ConvGRU(3, 4, activation="relu"), ValueError, "'relu'"),
        "gates": (lambda: ConvGRU(3, 4, recurrent_activation="tanh"), ValueError, "'tanh'"),
        "padding": (lambda: ConvLSTM(3, 4, padding="full"), ValueError, "'full'"),
        "peephole": (lambda: ConvLSTM(3, 4, peephole="pixel"), ValueError, r"None with 'pixel'"),
        "groups": (lambda: ConvLSTM(3, 4, norm="group", norm_groups=3), ValueError, "3 and 4"),
        "zoneout": (lambda: ConvLSTM(3, 4, zoneout=1.0), ValueError, r"got 1\.0"),
        "layers": (lambda: ConvLSTM(3, 4, num_layers=0), ValueError, "got 0"),
        "dropout": (lambda: ConvLSTM(3, 4, dropout=2.0), ValueError, r"got 2\.0"),
        "recurrent kernel": (lambda: RecurrentConv2d(3, 4, 2), ValueError, r"odd size.*\(2, 2\)"),
        "recurrent channels": (
            lambda: RecurrentConv2d(3, 4)(torch.zeros(1, 2, 8, 8)), ValueError, "3 channels, got 2"
        ),
        "steps": (lambda: RecurrentConv2d(3, 4, steps=-1), ValueError, "got -1"),
    }  # fmt: skip


@pytest.mark.parametrize("name", bad_calls())
def test_bad_input(name: str) -> None:
    call, error, message = bad_calls()[name]
    with pytest.raises(error, match=message):
        call()


def test_cells_refuse_too() -> None:
    with pytest.raises(ValueError, match="3 channels, got 2"):
        ConvGRUCell(3, 4)(torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match=r"state h of shape \(4, 8, 8\), got \(1, 4, 8, 8\)"):
        ConvGRUCell(3, 4)(torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8))
