# SPDX-License-Identifier: Apache-2.0
"""Convolutions of 3 x 3 taps by Winograd's transformation, by the compiled kernels.

Stride 1, zeros around, float32. Images are dense arrays ``(N, C, H, W)`` whose channels lie last.
Weights are transformed once (`winograd_pack`) and serve any number of calls. No other executor has
these functions: where they are missing, a library's convolutions serve.
"""

from __future__ import annotations

from dataclasses import dataclass

from sosie import _core
from sosie.arrays import Array, adapter
from sosie.backends._gates import peephole_rows, rows_of
from sosie.reference.recurrent import SLOPES

__all__ = [
    "PackedConvolution",
    "WeightSums",
    "winograd_add_gradient",
    "winograd_forward",
    "winograd_gradient",
    "winograd_lstm_forward",
    "winograd_pack",
    "winograd_sums",
]


@dataclass(frozen=True)
class PackedConvolution:
    """Weights as the kernels read them; channels that come out may be split between two arrays."""

    memory: Array
    inputs: int
    outputs: tuple[int, int]

    @property
    def plain(self) -> tuple[int, int, int, int]:
        """As the compiled module takes it."""
        return _address(self.memory), self.inputs, *self.outputs


@dataclass(frozen=True)
class WeightSums:
    """Gradients of weights and bias, still transformed, as sums over calls."""

    weight: Array
    bias: Array
    inputs: int
    outputs: int


def winograd_pack(weight: Array, more_outputs: int = 0) -> PackedConvolution:
    """Transform weights ``(outputs, inputs, 3, 3)``, contiguous.

    The last ``more_outputs`` of the channels that come out are those of a second array.
    """
    outputs, inputs = weight.shape[:2]
    split = (outputs - more_outputs, more_outputs)
    size = _core.winograd_packed_size(inputs, *split)
    packed = PackedConvolution(adapter(weight).empty(weight, (size,), "float32"), inputs, split)
    _core.winograd_pack(_address(weight), packed.plain, _threads(weight))
    return packed


def winograd_forward(
    packed: PackedConvolution,
    sources: tuple[Array, ...],
    targets: tuple[Array, ...],
    bias: Array | None = None,
) -> None:
    """Write the convolution of one or two arrays, side by side as one, into one or two.

    With one source (target) the weights of the second one's channels are not looked at.
    """
    _core.winograd_forward(
        _shape(sources[0]), packed.plain, _address(bias), _images(sources), _images(targets),
        _threads(sources[0]),
    )  # fmt: skip


def winograd_lstm_forward(
    packed: PackedConvolution,
    sources: tuple[Array, ...],
    bias: Array | None,
    cell: Array,
    peephole: Array | None,
    gates: Array | None,
    hidden: Array,
    new_cell: Array,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> None:
    """Write gates and new state of an LSTM from the convolution of image and state.

    Arguments as for `sosie.backends.native.lstm_forward`.
    """
    rows, length = rows_of(hidden)
    slope = SLOPES.get(recurrent_activation, 0.0)
    arrays = (
        _address(cell), _address(peephole), _address(gates), _address(hidden), _address(new_cell),
    )  # fmt: skip
    _core.winograd_lstm_forward(
        _shape(hidden), packed.plain, _address(bias), _images(sources),
        (rows, length, slope, activation == "hard_tanh"), arrays,
        peephole_rows(peephole, hidden), _threads(hidden),
    )  # fmt: skip


def winograd_sums(like: Array, inputs: int, outputs: int) -> WeightSums:
    """Room for the gradients of weights ``(outputs, inputs, 3, 3)`` and bias, holding zeros."""
    sizes = (
        (_core.winograd_gradient_size(inputs, outputs),),
        (_core.winograd_gradient_ranges(outputs), outputs),
    )
    weight, bias = (adapter(like).empty(like, size, "float32") for size in sizes)
    weight[...], bias[...] = 0.0, 0.0
    return WeightSums(weight, bias, inputs, outputs)


def winograd_add_gradient(sums: WeightSums, sources: tuple[Array, ...], upstream: Array) -> None:
    """Add what one call of `winograd_forward` contributes."""
    _core.winograd_gradient(
        _shape(upstream), _images(sources), (_address(upstream), upstream.shape[1]), sums.inputs,
        _address(sums.weight), _address(sums.bias), _threads(upstream),
    )  # fmt: skip


def winograd_gradient(sums: WeightSums) -> tuple[Array, Array]:
    """Gradients of weights ``(outputs, inputs, 3, 3)`` and bias ``(outputs,)``."""
    like, sizes = sums.weight, ((sums.outputs, sums.inputs, 3, 3), (sums.outputs,))
    weight, bias = (adapter(like).empty(like, size, "float32") for size in sizes)
    _core.winograd_finish(
        sums.inputs, sums.outputs, _address(sums.weight), _address(sums.bias), _address(weight),
        _address(bias), _threads(like),
    )  # fmt: skip
    return weight, bias


def _address(array: Array | None) -> int:
    return 0 if array is None else adapter(array).argument(array)[0]


def _shape(image: Array) -> tuple[int, int, int]:
    batch, _, height, width = image.shape
    return batch, height, width


def _images(arrays: tuple[Array, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two of them; one that is absent has no address."""
    first, *others = ((_address(array), array.shape[1]) for array in arrays)
    return first, others[0] if others else (0, 0)


def _threads(array: Array) -> int:
    return adapter(array).threads()
