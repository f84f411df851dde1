# SPDX-License-Identifier: Apache-2.0
"""Whole sequences of a convolutional LSTM by sosie's own convolutions.

Image and state are convolved as one, and the gates of a step follow block by block, while what goes
into them is in the caches: what `sosie.torch.recurrent_sequence` writes and reads again between
convolutions and gates does not exist here, and so there are no blocks of steps. In the backward
pass a step's gradients of image and state are one convolution, those of all weights another, added
up over the steps.

Nothing here records derivatives. Arguments are those of `sosie.torch.recurrent`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sosie.backends import executor
from sosie.convolutions import chosen_convolutions
from sosie.torch.recurrent_composite import Recurrence
from sosie.torch.recurrent_sequence import (
    LSTMStates,
    LSTMUpstreams,
    Needs,
    Optional,
    Sequence,
    empty_gradient,
)

__all__ = ["lstm_backward", "lstm_forward", "serves"]


def serves(x: Tensor, weight_ih: Tensor, weight_hh: Tensor, how: Recurrence) -> bool:
    """Whether sequences are to be computed here."""
    chosen = chosen_convolutions()
    if chosen == "library" or not _can_serve(x, weight_ih, weight_hh, how):
        return False
    return chosen == "winograd" or _is_faster(x, weight_ih, weight_hh)


def _can_serve(x: Tensor, weight_ih: Tensor, weight_hh: Tensor, how: Recurrence) -> bool:
    ones = (1, 1)
    return (
        x.dtype == torch.float32
        and x.numel() > 0
        and how.stride == how.padding == how.dilation == how.recurrent_dilation == ones
        and weight_ih.shape[2:] == weight_hh.shape[2:] == (3, 3)
        and weight_hh.shape[1] > 1
        and x.device.type == "cpu"
        and hasattr(executor(x), "winograd_lstm_forward")
    )


#: Weights are transformed once per sequence: least pixels, of a step and of all, for which that was
#: measured to pay, with 2 to 64 channels and 4 steps.
_LEAST_PIXELS, _LEAST_IN_ALL = 1 << 8, 1 << 12
#: Most weights: transformed they take 8 MiB, and are read again and again.
_MOST_WEIGHTS = 1 << 19


def _is_faster(x: Tensor, weight_ih: Tensor, weight_hh: Tensor) -> bool:
    steps, batch, _, height, width = x.shape
    pixels = batch * height * width
    return (
        pixels >= _LEAST_PIXELS
        and steps * pixels >= _LEAST_IN_ALL
        and weight_ih.numel() + weight_hh.numel() <= _MOST_WEIGHTS
    )


class _Convolutions(Sequence):
    """A sequence with its weights for every direction."""

    def __init__(
        self, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias: Optional, how: Recurrence
    ) -> None:
        super().__init__(x, weight_ih, weight_hh, how)
        self.both = torch.cat([weight_ih, weight_hh], dim=1).contiguous()
        self._forward: Any = None  # made by the first step: a backward pass may have none
        self._bias = None if bias is None else bias.contiguous()

    def sources(self, step: int, hidden: Optional) -> tuple[Tensor, ...]:
        """Image of a step and state before it; the image alone where there is no state."""
        image = self.dense(self.x[step])
        return (image,) if hidden is None else (image, hidden)

    def step(self, sources: tuple[Tensor, ...], arrays: tuple[Optional, ...]) -> None:
        """Gates and new state, see `LSTMStates.arrays`."""
        if self._forward is None:
            self._forward = self.execute.winograd_pack(self.both)
        self.execute.winograd_lstm_forward(
            self._forward, sources, self._bias, *arrays, **self.activations
        )


def lstm_forward(
    x: Tensor,
    h: Optional,
    c: Optional,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Optional,
    peephole: Optional,
    *,
    how: Recurrence,
    keep_cells: bool,
    keep_gates: bool,
) -> tuple[Tensor, Tensor, Tensor, Optional, Optional]:
    """See `LSTMStates.results`."""
    sequence = _Convolutions(x, weight_ih, weight_hh, bias, how)
    states = LSTMStates(sequence, h, c, peephole, keep_cells, keep_gates)
    for step in range(sequence.steps):
        sequence.step(sequence.sources(step, states.hidden), states.arrays(step))
        states.advance(step)
    return states.results()


class _Gates:
    """Gates of each step, as they were kept or computed again."""

    def __init__(self, sequence: _Convolutions, kept: Optional) -> None:
        self._sequence, self._kept = sequence, kept
        # Of a step that is computed again: gates, and both states, which come along.
        counts = () if kept is not None else (4, 1, 1)
        self._memory = [sequence.empty(sequence.x, 1, k, torch.float32)[0] for k in counts]

    def at(
        self, step: int, sources: tuple[Tensor, ...], cell: Tensor, peephole: Optional
    ) -> Tensor:
        """Valid until the next call. ``cell`` is the state before the step."""
        if self._kept is not None:
            return self._kept[step]
        self._sequence.step(sources, (cell, peephole, *self._memory))
        return self._memory[0]


class _Adjoint:
    """Gradients by way of the convolution of image and state."""

    def __init__(self, sequence: _Convolutions, need_x: bool, need_weights: bool) -> None:
        self._sequence = sequence
        execute, x = sequence.execute, sequence.x
        self.x = empty_gradient(x) if need_x else None
        # By the same convolution with its taps turned round, from gates to image and state.
        weight = sequence.both.transpose(0, 1).flip(2, 3)
        if not need_x:
            weight = weight[x.shape[2] :]
        self._packed = execute.winograd_pack(
            weight.contiguous(), sequence.channels if need_x else 0
        )
        self._by_hidden = sequence.empty(x, 1, 1, x.dtype)[0]
        inputs, outputs = sequence.both.shape[1], sequence.both.shape[0]
        self._sums = execute.winograd_sums(x, inputs, outputs) if need_weights else None

    def add_weights(self, sources: tuple[Tensor, ...], by_gates: Tensor) -> None:
        """Add a step's gradients of the weights."""
        if self._sums is not None:
            self._sequence.execute.winograd_add_gradient(self._sums, sources, by_gates)

    def to_sources(self, step: int, by_gates: Tensor, need_before: bool) -> Optional:
        """Keep the gradient of a step's image, return that of the state before it."""
        targets = [] if self.x is None else [self.x[step]]
        if need_before:
            targets.append(self._by_hidden)
        if targets:
            self._sequence.execute.winograd_forward(self._packed, (by_gates,), tuple(targets))
        return self._by_hidden if need_before else None

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of the weights of image and state, and of the bias."""
        by_weight, by_bias = self._sequence.execute.winograd_gradient(self._sums)
        of_image = self._sequence.x.shape[2]
        return by_weight[:, :of_image], by_weight[:, of_image:], by_bias


def lstm_backward(
    x: Tensor,
    h: Optional,
    c: Optional,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Optional,
    peephole: Optional,
    *,
    how: Recurrence,
    output: Tensor,
    cells: Tensor,
    gates: Optional,
    grad_output: Optional,
    grad_hidden: Optional,
    grad_cell: Optional,
    grad_cells: Optional,
    needs: Needs,
) -> list[Optional]:
    """See `sosie.torch.recurrent_sequence.lstm_backward`."""
    need_x, need_h, need_c, *need_weights, need_peephole = needs
    sequence = _Convolutions(x, weight_ih, weight_hh, bias, how)
    adjoint = _Adjoint(sequence, need_x, any(need_weights))
    upstreams = LSTMUpstreams(
        sequence, c, peephole, cells, grad_output, grad_hidden, grad_cell, grad_cells
    )
    first = None if h is None else sequence.dense(h)
    values = _Gates(sequence, gates)
    by_gates = sequence.empty(x, 1, 4, x.dtype)[0]
    by_peephole = None
    for step in reversed(range(sequence.steps)):
        sources = sequence.sources(step, output[step - 1] if step else first)
        before = cells[step - 1] if step else upstreams.first_cell
        upstreams.step(step, values.at(step, sources, before, upstreams.peephole), by_gates)
        adjoint.add_weights(sources, by_gates)
        upstreams.by_hidden = adjoint.to_sources(step, by_gates, step > 0 or need_h)
        if need_peephole and peephole is not None:
            part = sequence.of_peephole(by_gates, before, cells[step], peephole)
            by_peephole = part if by_peephole is None else by_peephole.add_(part)
    by_weights = adjoint.weights() if any(need_weights) else (None,) * 3
    return [
        adjoint.x,
        upstreams.by_hidden,
        upstreams.carry if need_c else None,
        *(by if need else None for by, need in zip(by_weights, need_weights, strict=True)),
        by_peephole,
    ]
