# SPDX-License-Identifier: Apache-2.0
"""Whole sequences of a convolutional LSTM or GRU: torch's convolutions, an executor's gates.

The inputs of many steps go through one convolution before the loop over those steps, which holds
one convolution of the state and one pass over the gates per step (two of each for a GRU that resets
first). In the backward pass a step is one pass over the gates and the adjoint of one convolution;
the gradients of inputs and weights are one convolution each, over many steps, after the loop.

"Many" is as many as fit `BLOCK_BYTES`, all where images are small. A block's gates then stay in the
last cache between the loop and the convolutions, and no array of all steps is made that is not
saved. On small images it is the number of calls that counts, and there is one block.

Nothing here records derivatives. Arguments are those of `sosie.torch.recurrent`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sosie.arrays import adapter
from sosie.backends import executor
from sosie.torch._gradients import computed_dtype
from sosie.torch.recurrent_composite import Recurrence, convolve

__all__ = [
    "BLOCK_BYTES",
    "DEVICE_BLOCK_BYTES",
    "LSTMStates",
    "LSTMUpstreams",
    "Layout",
    "Sequence",
    "empty_gradient",
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
]

#: Bytes of the gates of a block of steps, of which there is at least one. On a device a convolution
#: with so many results has some thousand tiles, enough that its last wave of blocks costs little.
BLOCK_BYTES = 16 << 20
DEVICE_BLOCK_BYTES = 64 << 20

Optional = Tensor | None
Needs = tuple[bool, ...]


class Layout:
    """Sizes of a sequence, and how its arrays lie in memory: channels last, if there is a choice.

    Convolutions are up to a third faster so, and executors walk it as it is.
    """

    def __init__(self, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, how: Recurrence) -> None:
        self.steps, self.batch = x.shape[:2]
        self.channels = weight_hh.shape[1]
        self.gates = weight_hh.shape[0] // self.channels
        self.spatial = tuple(
            (size + 2 * around - apart * (taps - 1) - 1) // stride + 1
            for size, taps, stride, around, apart in zip(
                x.shape[3:], weight_ih.shape[2:], how.stride, how.padding, how.dilation, strict=True
            )
        )
        self.channels_last = how.spatial_dims > 1 and self.channels > 1

    def empty(self, like: Tensor, steps: int, gates: int, dtype: torch.dtype) -> Tensor:
        """Uninitialised ``(steps, N, gates C, ...)``."""
        return self.channels_behind(
            like.new_empty(self._in_memory(steps, gates), dtype=dtype), like.ndim
        )

    def large(self, like: Tensor, steps: int, gates: int, dtype: torch.dtype) -> Tensor:
        """The same in memory that is cheap to write for the first time."""
        name = str(dtype).removeprefix("torch.")
        memory = adapter(like).empty(like, self._in_memory(steps, gates), name)
        return self.channels_behind(memory, like.ndim)

    def dense(self, array: Tensor) -> Tensor:
        """``(N, k C, ...)`` in the order of all arrays, the array itself where it already is."""
        if not self.channels_last:
            return array.contiguous()
        formats = (torch.channels_last, torch.channels_last_3d)
        return array.contiguous(memory_format=formats[array.ndim - 4])

    def dense_sequence(self, array: Tensor) -> Tensor:
        """The same for ``(T, N, k C, ...)``."""
        result: Tensor = self.dense(array.flatten(0, 1)).unflatten(0, array.shape[:2])
        return result

    def blocks(self, x: Tensor) -> list[tuple[int, int]]:
        """First step and step behind the last of each block, for inputs like ``x``."""
        pixels = torch.Size(self.spatial).numel()
        step = self.batch * self.gates * self.channels * pixels * x.dtype.itemsize
        block = DEVICE_BLOCK_BYTES if x.is_cuda else BLOCK_BYTES
        size = max(1, min(self.steps, block // max(step, 1)))
        return [(at, min(at + size, self.steps)) for at in range(0, self.steps, size)]

    def channels_behind(self, memory: Tensor, ndim: int) -> Tensor:
        """``(T, N, ..., C)`` as ``(T, N, C, ...)``."""
        return memory.movedim(ndim - 1, 2) if self.channels_last else memory

    def _in_memory(self, steps: int, gates: int) -> tuple[int, ...]:
        channels = gates * self.channels
        if self.channels_last:
            return steps, self.batch, *self.spatial, channels
        return steps, self.batch, channels, *self.spatial


class Sequence(Layout):
    """What forward and backward passes of both kinds share."""

    def __init__(self, x: Tensor, weight_ih: Tensor, weight_hh: Tensor, how: Recurrence) -> None:
        super().__init__(x, weight_ih, weight_hh, how)
        self.x, self.how = x, how
        self.execute = executor(x)
        self.activations = {
            "activation": how.activation,
            "recurrent_activation": how.recurrent_activation,
        }
        self.weight_ih = self._dense_weight(weight_ih)
        self.weight_hh = self._dense_weight(weight_hh)

    def _dense_weight(self, weight: Tensor) -> Tensor:
        """In the order in which convolutions read it, once for all steps."""
        if self.how.spatial_dims == 1:
            return weight.contiguous()
        formats = (torch.channels_last, torch.channels_last_3d)
        return weight.contiguous(memory_format=formats[weight.ndim - 4])

    # ---- convolutions --------------------------------------------------------------------------

    def given(self, begin: int, end: int) -> Tensor:
        """Inputs of a block as one batch ``(K N, C_in, ...)``."""
        return self._dense_weight(self.x[begin:end].flatten(0, 1))

    def of_inputs(self, begin: int, end: int, bias: Optional) -> Tensor:
        """Convolution of a block's inputs ``(K, N, gates C, ...)``."""
        how = self.how
        result = convolve(
            self.given(begin, end), self.weight_ih, bias, how.stride, how.padding, how.dilation
        )
        steps: Tensor = self.dense(result).unflatten(0, (end - begin, self.batch))
        return steps

    def of_state(self, h: Tensor, weight: Tensor, bias: Optional = None) -> Tensor:
        """Convolution of states ``(N, C, ...)``."""
        how = self.how
        ones = (1,) * how.spatial_dims
        return self.dense(
            convolve(h, weight, bias, ones, how.recurrent_padding(weight), how.recurrent_dilation)
        )

    def to_state(self, upstream: Tensor, h: Tensor, weight: Tensor) -> Tensor:
        """The adjoint of `of_state`, applied to ``(N, k C, ...)``; of ``h`` its shape counts."""
        how = self.how
        ones, around = (1,) * how.spatial_dims, how.recurrent_padding(weight)
        return self.dense(
            _adjoint(
                upstream, h, weight, ones, around, how.recurrent_dilation, (True, False, False)
            )[0]
        )

    def to_recurrent_weight(
        self, upstream: Tensor, h: Tensor, weight: Tensor, with_bias: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Gradients of weight and bias of `of_state`, from those of a block of steps."""
        how = self.how
        ones, around = (1,) * how.spatial_dims, how.recurrent_padding(weight)
        given = (upstream.flatten(0, 1), h.flatten(0, 1), weight)
        _, by_weight, by_bias = _adjoint(
            *given, ones, around, how.recurrent_dilation, (False, True, with_bias)
        )
        return by_weight, by_bias

    def previous(self, states: Tensor, first: Tensor, begin: int, end: int) -> Tensor:
        """States before each step of a block, ``first`` before the first of all."""
        if begin > 0:
            return states[begin - 1 : end - 1]
        return self.dense_sequence(torch.cat([first.unsqueeze(0), states[: end - 1]]))

    # ---- small things --------------------------------------------------------------------------

    def state(self, given: Optional, dtype: torch.dtype) -> Tensor:
        """A state as executors read it; zeros where there is none."""
        if given is not None:
            return self.dense(given.to(dtype))
        return self.empty(self.x, 1, 1, dtype)[0].zero_()

    def own_state(self, given: Optional, dtype: torch.dtype) -> Tensor:
        """The same as a copy that may be written to."""
        result = self.state(given, dtype)
        return result.clone() if result is given else result

    def at(self, sequence: Optional, step: int) -> Optional:
        """One step of a sequence of states."""
        return None if sequence is None else self.dense(sequence[step])

    def peephole(self, peephole: Optional) -> Optional:
        """Peepholes as executors read them."""
        if peephole is None:
            return None
        if self.channels_last and peephole[0, 0].numel() == 1:
            return peephole.contiguous()
        return self.dense(peephole.expand(3, self.channels, *self.spatial))

    def of_peephole(
        self, by_gates: Tensor, before: Tensor, after: Tensor, peephole: Tensor
    ) -> Tensor:
        """Gradients of peepholes, from gates and cells ``(M, k C, ...)`` of any steps."""
        gradient = torch.empty_like(self.dense(peephole))
        self.execute.lstm_peephole_backward(by_gates, before, after, gradient)
        return gradient


def _adjoint(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    mask: tuple[bool, bool, bool],
) -> tuple[Any, Any, Any]:
    """Gradients of input, weight and bias of a convolution, those in the mask."""
    result: tuple[Any, Any, Any] = torch.ops.aten.convolution_backward(
        upstream, x, weight, [weight.shape[0]], stride, padding, dilation, False,
        [0] * len(stride), 1, mask,
    )  # fmt: skip
    return result


class _Gradients:
    """Sums over blocks of what belongs to inputs and weights.

    ``needs`` are those of x, weight_ih and bias.
    """

    def __init__(self, sequence: Sequence, needs: tuple[bool, bool, bool]) -> None:
        self._sequence, self._needs = sequence, needs
        self._sums: dict[str, Tensor] = {}
        self.x: Optional = None

    def add(self, name: str, part: Tensor) -> None:
        """Add a block's part, in the computing dtype."""
        part = part.to(computed_dtype(part))
        self._sums[name] = self._sums[name].add_(part) if name in self._sums else part

    def add_inputs(self, upstream: Tensor, begin: int, end: int) -> None:
        """Gradients by way of the convolution of a block's inputs."""
        if not any(self._needs):
            return
        sequence = self._sequence
        how, x = sequence.how, sequence.x
        by_x, by_weight, by_bias = _adjoint(
            upstream.flatten(0, 1), sequence.given(begin, end), sequence.weight_ih, how.stride,
            how.padding, how.dilation, self._needs,
        )  # fmt: skip
        if self._needs[0]:
            if self.x is None:
                self.x = empty_gradient(x)
            self.x[begin:end] = by_x.unflatten(0, (end - begin, sequence.batch))
        if self._needs[1]:
            self.add("weight_ih", by_weight)
        if self._needs[2]:
            self.add("bias", by_bias)

    def get(self, name: str, like: Optional, needed: bool) -> Optional:
        """The gradient of an argument, or None where none is needed."""
        if not needed or like is None:
            return None
        if name not in self._sums:
            return torch.zeros_like(like, memory_format=torch.contiguous_format)
        return self._sums[name].to(like.dtype).contiguous()


def empty_gradient(x: Tensor) -> Tensor:
    """Uninitialised gradient of inputs ``(T, N, C_in, ...)``, laid out as states are."""
    if x.ndim == 4:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    steps, batch, channels, *spatial = x.shape
    return x.new_empty((steps, batch, *spatial, channels)).movedim(-1, 2)


# --- LSTM -----------------------------------------------------------------------------------------


class LSTMStates:
    """What the forward pass of an LSTM fills, step by step.

    Attributes
    ----------
    hidden : Tensor, optional
        h before the next step; None before the first if none was given.
    """

    def __init__(
        self,
        sequence: Sequence,
        h: Optional,
        c: Optional,
        peephole: Optional,
        keep_cells: bool,
        keep_gates: bool,
    ) -> None:
        x, steps = sequence.x, sequence.steps
        dtype = computed_dtype(x)
        self._output = sequence.large(x, steps, 1, x.dtype)
        self._cells = sequence.large(x, steps, 1, dtype) if keep_cells else None
        self._gates = sequence.large(x, steps, 4, x.dtype) if keep_gates else None
        # Where the last alone is wanted, each overwrites the one before.
        self._cell = sequence.state(c, dtype) if keep_cells else sequence.own_state(c, dtype)
        self._peephole = sequence.peephole(peephole)
        self.hidden = None if h is None else sequence.dense(h)

    def arrays(self, step: int) -> tuple[Optional, ...]:
        """Arguments of an executor's step: cell, peephole, gates, new h and new cell."""
        gates = None if self._gates is None else self._gates[step]
        new_cell = self._cell if self._cells is None else self._cells[step]
        return self._cell, self._peephole, gates, self._output[step], new_cell

    def advance(self, step: int) -> None:
        """Go on to the next step."""
        self.hidden = self._output[step]
        if self._cells is not None:
            self._cell = self._cells[step]

    def results(self) -> tuple[Tensor, Tensor, Tensor, Optional, Optional]:
        """States h of all steps, last h and c, and where they are kept c and gates of all steps."""
        last = self._output[-1].clone(), self._cell.clone()
        return self._output, *last, self._cells, self._gates


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
    sequence = Sequence(x, weight_ih, weight_hh, how)
    states = LSTMStates(sequence, h, c, peephole, keep_cells, keep_gates)
    for begin, end in sequence.blocks(x):
        inputs = sequence.of_inputs(begin, end, bias)
        for step in range(begin, end):
            hidden = states.hidden
            recurrent = None if hidden is None else sequence.of_state(hidden, sequence.weight_hh)
            sequence.execute.lstm_forward(
                inputs[step - begin], recurrent, *states.arrays(step), **sequence.activations
            )
            states.advance(step)
    return states.results()


def _lstm_gates(
    sequence: Sequence,
    h: Optional,
    c: Tensor,
    bias: Optional,
    peephole: Optional,
    output: Tensor,
    cells: Tensor,
    begin: int,
    end: int,
) -> Tensor:
    """Gates of a block out of the states around each step, all steps at once."""
    x = sequence.x
    before = sequence.previous(output, sequence.state(h, x.dtype), begin, end)
    cells_before = sequence.previous(cells, c, begin, end)
    steps = end - begin
    gates = sequence.empty(x, steps, 4, x.dtype)
    hidden = sequence.empty(x, steps, 1, x.dtype)
    new_cells = sequence.empty(x, steps, 1, cells.dtype)
    sequence.execute.lstm_forward(
        sequence.of_inputs(begin, end, bias).flatten(0, 1),
        sequence.of_state(before.flatten(0, 1), sequence.weight_hh),
        cells_before.flatten(0, 1),
        peephole,
        *(array.flatten(0, 1) for array in (gates, hidden, new_cells)),
        **sequence.activations,
    )
    return gates


class LSTMUpstreams:
    """Gradients of states, on their way back through the steps of an LSTM.

    Attributes
    ----------
    first_cell, peephole : Tensor
        As executors read them.
    by_hidden : Tensor, optional
        Gradient of h after the next step, by way of the convolution of the step behind it.
    carry : Tensor
        Gradient of c.
    """

    def __init__(
        self,
        sequence: Sequence,
        c: Optional,
        peephole: Optional,
        cells: Tensor,
        grad_output: Optional,
        grad_hidden: Optional,
        grad_cell: Optional,
        grad_cells: Optional,
    ) -> None:
        self._sequence, self._cells = sequence, cells
        self._grad_output, self._grad_cells = grad_output, grad_cells
        self.first_cell = sequence.state(c, cells.dtype)
        self.carry = sequence.own_state(grad_cell, cells.dtype)
        self.by_hidden = None if grad_hidden is None else sequence.dense(grad_hidden)
        self.peephole = sequence.peephole(peephole)

    def step(self, step: int, gates: Tensor, by_gates: Tensor) -> None:
        """Fill ``by_gates`` of a step, and carry the gradient of c to the one before."""
        sequence, cells = self._sequence, self._cells
        if self._grad_cells is not None:
            self.carry += self._grad_cells[step]
        sequence.execute.lstm_backward(
            gates, cells[step - 1] if step else self.first_cell, cells[step],
            sequence.at(self._grad_output, step), self.by_hidden, self.peephole, self.carry,
            by_gates, **sequence.activations,
        )  # fmt: skip


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
    """Gradients of the first seven arguments; None for those that are not needed.

    ``output``, ``cells`` and ``gates`` are those of `lstm_forward`; without gates they are computed
    again. Upstream gradients are those of the states of all steps and of the last.
    """
    need_x, need_h, need_c, need_ih, need_hh, need_bias, need_peephole = needs
    sequence = Sequence(x, weight_ih, weight_hh, how)
    weights = sequence.weight_hh
    sums = _Gradients(sequence, (need_x, need_ih, need_bias))
    upstreams = LSTMUpstreams(
        sequence, c, peephole, cells, grad_output, grad_hidden, grad_cell, grad_cells
    )
    first_cell = upstreams.first_cell
    blocks = sequence.blocks(x)
    memory = sequence.empty(x, blocks[0][1], 4, x.dtype)
    for begin, end in reversed(blocks):
        if gates is None:
            values = _lstm_gates(
                sequence, h, first_cell, bias, upstreams.peephole, output, cells, begin, end
            )
        else:
            values = gates[begin:end]
        by_gates = memory[: end - begin]
        for step in reversed(range(begin, end)):
            upstreams.step(step, values[step - begin], by_gates[step - begin])
            if step or need_h:
                upstreams.by_hidden = sequence.to_state(
                    by_gates[step - begin], output[step], weights
                )
        sums.add_inputs(by_gates, begin, end)
        skipped = 1 if begin == 0 and h is None else 0
        if need_hh and end > begin + skipped:
            before = (
                output[: end - 1]
                if skipped
                else sequence.previous(output, sequence.state(h, x.dtype), begin, end)
            )
            part, _ = sequence.to_recurrent_weight(by_gates[skipped:], before, weights)
            sums.add("weight_hh", part)
        if need_peephole and peephole is not None:
            before = sequence.previous(cells, first_cell, begin, end)
            part = sequence.of_peephole(
                by_gates.flatten(0, 1),
                before.flatten(0, 1),
                cells[begin:end].flatten(0, 1),
                peephole,
            )
            sums.add("peephole", part)
    return [
        sums.x,
        upstreams.by_hidden if need_h else None,
        upstreams.carry.to(c.dtype) if need_c and c is not None else None,
        sums.get("weight_ih", weight_ih, need_ih),
        sums.get("weight_hh", weight_hh, need_hh),
        sums.get("bias", bias, need_bias),
        sums.get("peephole", peephole, need_peephole),
    ]


# --- GRU ------------------------------------------------------------------------------------------


class _GRU(Sequence):
    """A sequence with the weights of a GRU."""

    def __init__(
        self,
        x: Tensor,
        weight_ih: Tensor,
        weight_hh: Tensor,
        recurrent_bias: Optional,
        how: Recurrence,
    ) -> None:
        super().__init__(x, weight_ih, weight_hh, how)
        self.bias_of_candidate = recurrent_bias
        self.bias_of_all: Optional = None
        if recurrent_bias is not None:
            self.bias_of_all = torch.cat(
                [recurrent_bias.new_zeros(2 * self.channels), recurrent_bias]
            )
        self.of_gates = self._dense_weight(self.weight_hh[: 2 * self.channels])
        self.of_candidate = self._dense_weight(self.weight_hh[2 * self.channels :])
        self.gate_activation = {"recurrent_activation": how.recurrent_activation}

    def step(
        self, inputs: Tensor, hidden: Tensor, gates: Tensor, candidate: Tensor, new_hidden: Tensor
    ) -> None:
        """Gates and new state. ``candidate`` becomes ``U_n * h + d``, or ``r . h``."""
        execute = self.execute
        if self.how.linear_before_reset:
            recurrent = self.of_state(hidden, self.weight_hh, self.bias_of_all)
            execute.gru_forward(
                inputs, recurrent, hidden, gates, candidate, new_hidden, **self.activations
            )
            return
        recurrent = self.of_state(hidden, self.of_gates)
        execute.gru_reset_forward(
            inputs, recurrent, hidden, gates, candidate, **self.gate_activation
        )
        recurrent = self.of_state(candidate, self.of_candidate, self.bias_of_candidate)
        execute.gru_update_forward(
            inputs, recurrent, hidden, gates, new_hidden, activation=self.how.activation
        )


def gru_forward(
    x: Tensor,
    h: Optional,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Optional,
    recurrent_bias: Optional,
    *,
    how: Recurrence,
    keep_gates: bool,
) -> tuple[Tensor, Tensor, Optional, Optional]:
    """States of all steps, the last, and where they are kept the gates of all steps.

    Along with them is kept what the linear map gave for n, where it comes before the reset.
    """
    sequence = _GRU(x, weight_ih, weight_hh, recurrent_bias, how)
    output = sequence.large(x, sequence.steps, 1, x.dtype)
    rows = sequence.steps if keep_gates else 1
    gates = sequence.large(x, rows, 3, x.dtype)
    keeps_candidate = keep_gates and how.linear_before_reset
    candidates = sequence.large(x, rows if keeps_candidate else 1, 1, x.dtype)
    hidden = sequence.state(h, x.dtype)
    for begin, end in sequence.blocks(x):
        inputs = sequence.of_inputs(begin, end, bias)
        for step in range(begin, end):
            sequence.step(
                inputs[step - begin],
                hidden,
                gates[step if keep_gates else 0],
                candidates[step if keeps_candidate else 0],
                output[step],
            )
            hidden = output[step]
    return (
        output,
        output[-1].clone(),
        gates if keep_gates else None,
        candidates if keeps_candidate else None,
    )


class _GRUBlock:
    """Gradients before the activations, for each step of a block."""

    def __init__(self, sequence: _GRU, steps: int) -> None:
        x = sequence.x
        # With the linear map before the reset: of inputs, and of the state's convolution. Else: of
        # n, and of r and z; the convolutions of inputs and state have the same ones.
        whole = sequence.how.linear_before_reset
        self.first = sequence.empty(x, steps, 3 if whole else 1, x.dtype)
        self.second = sequence.empty(x, steps, 3 if whole else 2, x.dtype)

    def of_inputs(self, steps: int, whole: bool) -> Tensor:
        """Those of the convolution of the inputs."""
        if whole:
            return self.first[:steps]
        return torch.cat([self.second[:steps], self.first[:steps]], dim=2)


def _gru_gates(
    sequence: _GRU, h: Tensor, bias: Optional, output: Tensor, begin: int, end: int
) -> tuple[Tensor, Tensor]:
    """Gates and candidates of a block out of the states before each step, all steps at once."""
    x, steps = sequence.x, end - begin
    gates = sequence.empty(x, steps, 3, x.dtype)
    candidates = sequence.empty(x, steps, 1, x.dtype)
    hidden = sequence.empty(x, steps, 1, x.dtype)
    sequence.step(
        sequence.of_inputs(begin, end, bias).flatten(0, 1),
        *(
            array.flatten(0, 1)
            for array in (sequence.previous(output, h, begin, end), gates, candidates, hidden)
        ),
    )
    return gates, candidates


def gru_backward(
    x: Tensor,
    h: Optional,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Optional,
    recurrent_bias: Optional,
    *,
    how: Recurrence,
    output: Tensor,
    gates: Optional,
    candidates: Optional,
    grad_output: Optional,
    grad_hidden: Optional,
    needs: Needs,
) -> list[Optional]:
    """Gradients of the first six arguments; None for those that are not needed.

    See `lstm_backward`.
    """
    need_x, need_h, need_ih, need_hh, need_bias, need_recurrent_bias = needs
    sequence = _GRU(x, weight_ih, weight_hh, recurrent_bias, how)
    sums = _Gradients(sequence, (need_x, need_ih, need_bias))
    first = sequence.state(h, x.dtype)
    carry = sequence.own_state(None, computed_dtype(x))
    by_hidden = None if grad_hidden is None else sequence.dense(grad_hidden)
    blocks = sequence.blocks(x)
    memory = _GRUBlock(sequence, blocks[0][1])
    for begin, end in reversed(blocks):
        before = sequence.previous(output, first, begin, end)
        if gates is None:
            values, of_linear = _gru_gates(sequence, first, bias, output, begin, end)
        else:
            values = gates[begin:end]
            of_linear = values if candidates is None else candidates[begin:end]
        for step in reversed(range(begin, end)):
            by_hidden = _gru_step_backward(
                sequence, memory, step - begin, values[step - begin],
                of_linear[step - begin], before[step - begin],
                sequence.at(grad_output, step), by_hidden, carry, need_h or step > 0,
            )  # fmt: skip
        steps, whole = end - begin, how.linear_before_reset
        sums.add_inputs(memory.of_inputs(steps, whole), begin, end)
        if need_hh or (need_recurrent_bias and recurrent_bias is not None):
            _add_gru_weights(sequence, sums, memory, values, before, steps)
    if need_h and by_hidden is not None:
        by_hidden = (by_hidden.to(carry.dtype) + carry).to(x.dtype)
    return [
        sums.x,
        by_hidden if need_h else None,
        sums.get("weight_ih", weight_ih, need_ih),
        sums.get("weight_hh", weight_hh, need_hh),
        sums.get("bias", bias, need_bias),
        sums.get("recurrent_bias", recurrent_bias, need_recurrent_bias),
    ]


def _gru_step_backward(
    sequence: _GRU,
    memory: _GRUBlock,
    row: int,
    gates: Tensor,
    candidate: Tensor,
    before: Tensor,
    grad_output: Optional,
    by_hidden: Optional,
    carry: Tensor,
    need_before: bool,
) -> Optional:
    """Fill a row of the block; return the gradient of the state before by way of convolutions."""
    execute, first, second = sequence.execute, memory.first[row], memory.second[row]
    if sequence.how.linear_before_reset:
        execute.gru_backward(
            gates, candidate, before, grad_output, by_hidden, carry, first, second,
            **sequence.activations,
        )  # fmt: skip
        weight = sequence.weight_hh
    else:
        execute.gru_update_backward(
            gates, before, grad_output, by_hidden, carry, first, second, **sequence.activations
        )
        of_reset = sequence.to_state(first, before, sequence.of_candidate)
        execute.gru_reset_backward(
            gates, before, of_reset, carry, second, **sequence.gate_activation
        )
        weight = sequence.of_gates
    return sequence.to_state(second, before, weight) if need_before else None


def _add_gru_weights(
    sequence: _GRU, sums: _Gradients, memory: _GRUBlock, gates: Tensor, before: Tensor, steps: int
) -> None:
    """Add a block's gradients of the recurrent weights and bias."""
    channels = sequence.channels
    second = memory.second[:steps]
    with_bias = sequence.bias_of_candidate is not None
    if sequence.how.linear_before_reset:
        by_weight, by_bias = sequence.to_recurrent_weight(
            second, before, sequence.weight_hh, with_bias
        )
        by_bias = by_bias[2 * channels :].clone() if with_bias else by_bias
    else:
        by_gates, _ = sequence.to_recurrent_weight(second, before, sequence.of_gates)
        reset = sequence.dense_sequence(gates[:, :, :channels] * before)
        by_candidate, by_bias = sequence.to_recurrent_weight(
            memory.first[:steps], reset, sequence.of_candidate, with_bias
        )
        by_weight = torch.cat([by_gates, by_candidate])
    sums.add("weight_hh", by_weight)
    if with_bias:
        sums.add("recurrent_bias", by_bias)
