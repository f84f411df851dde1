# SPDX-License-Identifier: Apache-2.0
"""Operators of the recurrent family for torch tensors: one per sequence.

First derivatives are operators too; higher ones are made of torch operations. `sosie.nn.ConvLSTM`
and its relatives check what they pass on; the functions here trust their arguments.

Sequences are ``(T, N, C, ...)`` with one to three spatial axes. float16 and bfloat16 sequences have
float32 gates and cell states, see `sosie.torch._gradients.computed_dtype`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sosie.torch import recurrent_composite as composite
from sosie.torch import recurrent_sequence as sequences
from sosie.torch import recurrent_winograd as winograd
from sosie.torch._gradients import computed_dtype
from sosie.torch._register import Operator, register
from sosie.torch.recurrent_composite import Recurrence

__all__ = ["Recurrence", "conv_gru", "conv_lstm"]

Optional = Tensor | None


def conv_lstm(
    x: Tensor,
    h: Optional,
    c: Optional,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Optional,
    peephole: Optional,
    how: Recurrence,
    *,
    all_cells: bool = False,
    recompute: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Optional]:
    """A convolutional LSTM over a sequence.

    Parameters
    ----------
    x : Tensor of shape (T, N, C_in, ...)
    h, c : Tensor of shape (N, C, ...), optional
        State before the first step, zeros by default; c in the dtype that is computed in.
    weight_ih, weight_hh : Tensor of shape (4 C, C_in, ...) and (4 C, C, ...)
        Gates in the order i, f, g, o.
    bias : Tensor of shape (4 C,), optional
    peephole : Tensor of shape (3, C, ...), optional
        Weights of the cell in i, f and o, in the dtype that is computed in; spatial axes have the
        state's length or 1.
    how : Recurrence
    all_cells : bool
        Whether cell states of all steps are wanted.
    recompute : bool
        Compute gates again in the backward pass rather than keep them.

    Returns
    -------
    output : Tensor of shape (T, N, C, ...)
        h after each step.
    hidden, cell : Tensor of shape (N, C, ...)
        State after the last.
    cells : Tensor of shape (T, N, C, ...), or None
        c after each step.
    """
    tensors = (x, h, c, weight_ih, weight_hh, bias, peephole)
    recorded = _is_recorded(tensors)
    output, hidden, cell, cells, _ = _conv_lstm(
        *tensors, *_plain(how), all_cells or recorded, recorded and not recompute
    )
    return output, hidden, cell, cells if all_cells else None


def conv_gru(
    x: Tensor,
    h: Optional,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Optional,
    recurrent_bias: Optional,
    how: Recurrence,
    *,
    recompute: bool = False,
) -> tuple[Tensor, Tensor]:
    """A convolutional GRU over a sequence.

    As `conv_lstm`, with gates r, z, n; ``recurrent_bias`` ``(C,)`` belongs to the convolution of
    the state for n. Returns the states after each step and that after the last.
    """
    tensors = (x, h, weight_ih, weight_hh, bias, recurrent_bias)
    keep = _is_recorded(tensors) and not recompute
    output, hidden, _, _ = _conv_gru(*tensors, *_plain(how), how.linear_before_reset, keep)
    return output, hidden


def _is_recorded(tensors: Sequence[Optional]) -> bool:
    """Whether a derivative may be asked for, as far as is known by now."""
    if torch._C._are_functorch_transforms_active():
        return True
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


# --- Schemas --------------------------------------------------------------------------------------

_HOW = (
    "int[] stride, int[] padding, int[] dilation, int[] recurrent_dilation, str activation, "
    "str recurrent_activation"
)


def _plain(how: Recurrence) -> tuple[Any, ...]:
    return (
        list(how.stride), list(how.padding), list(how.dilation), list(how.recurrent_dilation),
        how.activation, how.recurrent_activation,
    )  # fmt: skip


def _recurrence(plain: Sequence[Any], linear_before_reset: bool = False) -> Recurrence:
    *sizes, activation, recurrent_activation = plain
    stride, padding, dilation, recurrent_dilation = (tuple(each) for each in sizes)
    return Recurrence(
        stride, padding, dilation, recurrent_dilation, activation, recurrent_activation,
        linear_before_reset,
    )  # fmt: skip


_PLAIN = 6  # how many arguments `_plain` has


def _or_empty(tensor: Optional, like: Tensor) -> Tensor:
    return like.new_empty(0) if tensor is None else tensor


def _if_there(tensor: Tensor) -> Optional:
    """What `_or_empty` was given."""
    return None if tensor.ndim == 1 else tensor


def _fake_gradients(arguments: Sequence[Optional], needs: Sequence[bool]) -> list[Tensor]:
    """What the backward operators return: all contiguous, but for the gradient of x."""
    x = arguments[0]
    assert x is not None
    found = []
    for argument, needed in zip(arguments, needs, strict=True):
        if argument is None or not needed:
            found.append(x.new_empty(0))
        elif argument is x:
            found.append(sequences.empty_gradient(x))
        else:
            found.append(torch.empty_like(argument, memory_format=torch.contiguous_format))
    return found


def _differentiate_twice(
    primal: Callable[..., Any],
    arguments: Sequence[Optional],
    upstreams: Sequence[Optional],
    cotangents: Sequence[Tensor],
) -> tuple[list[Optional], list[Optional]]:
    """The transposed derivative of ``(arguments, upstreams) -> gradients of the arguments``.

    ``primal`` takes arguments and returns as many tensors as there are upstreams. Cotangents of
    length 0 belong to gradients that were not asked for. Absent tensors have no gradient.
    """
    places = [place for place, argument in enumerate(arguments) if argument is not None]
    given = [argument for argument in arguments if argument is not None]
    used = [place for place, upstream in enumerate(upstreams) if upstream is not None]

    def present(*values: Tensor) -> tuple[Tensor, ...]:
        filled: list[Optional] = [None] * len(arguments)
        for place, value in zip(places, values, strict=True):
            filled[place] = value
        results = primal(*filled)
        return tuple(results[place] for place in used)

    def gradients(*values: Tensor) -> Any:
        count = len(given)
        return torch.func.vjp(present, *values[:count])[1](values[count:])

    weights = [upstream for upstream in upstreams if upstream is not None]
    pull_back = torch.func.vjp(gradients, *given, *weights)[1]
    found = pull_back(
        tuple(
            cotangents[place] if cotangents[place].shape == argument.shape
            else torch.zeros_like(argument)
            for place, argument in zip(places, given, strict=True)
        )
    )  # fmt: skip
    by_arguments: list[Optional] = [None] * len(arguments)
    by_upstreams: list[Optional] = [None] * len(upstreams)
    for place, gradient in zip(places, found[: len(given)], strict=True):
        by_arguments[place] = gradient
    for place, gradient in zip(used, found[len(given) :], strict=True):
        by_upstreams[place] = gradient
    return by_arguments, by_upstreams


def _mapping(sequences_at: Sequence[int], states_at: Sequence[int]) -> Callable[..., Any]:
    """Batching rule: the mapped axis joins N where only images and states have it.

    The places of arguments that have N as their second axis, or as their first. Where weights are
    mapped too, the operator is called for each element.
    """

    def rule(
        call: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *arguments: Any
    ) -> tuple[Any, Any]:
        size = info.batch_size
        axes = {**dict.fromkeys(sequences_at, 1), **dict.fromkeys(states_at, 0)}
        mapped = [place for place, dim in enumerate(in_dims) if isinstance(dim, int)]
        if any(place not in axes for place in mapped):
            return _one_by_one(call, size, in_dims, arguments)
        folded = list(arguments)
        for place, axis in axes.items():
            tensor = arguments[place]
            if tensor is None or tensor.ndim == 1:
                continue
            if in_dims[place] is None:
                expanded = tensor.unsqueeze(axis)
                shape = list(expanded.shape)
                shape[axis] = size
                expanded = expanded.expand(shape)
            else:
                expanded = tensor.movedim(in_dims[place], axis)
            folded[place] = expanded.flatten(axis, axis + 1)
        spatial = arguments[sequences_at[0]].ndim - (in_dims[sequences_at[0]] is not None) - 3
        results, dims = [], []
        for result in call(*folded):
            # (T, B N, C, ...), (B N, C, ...), or empty
            axis = result.ndim - spatial - 2
            absent = result.ndim == 1
            results.append(result if absent else result.unflatten(axis, (size, -1)))
            dims.append(None if absent else axis)
        return tuple(results), tuple(dims)

    return rule


def _one_by_one(
    call: Callable[..., Any], size: int, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """Call once per element and stack; results that are empty stay so."""
    results = [
        call(
            *(
                argument.select(dim, index) if isinstance(dim, int) else argument
                for argument, dim in zip(arguments, in_dims, strict=True)
            )
        )
        for index in range(size)
    ]
    stacked, dims = [], []
    for parts in zip(*results, strict=True):
        absent = parts[0].ndim == 1 and parts[0].numel() == 0
        stacked.append(parts[0] if absent else torch.stack(parts))
        dims.append(None if absent else 0)
    return tuple(stacked), tuple(dims)


def _map_each(
    call: Callable[..., Any], info: Any, in_dims: tuple[Any, ...], *arguments: Any
) -> tuple[Any, Any]:
    return _one_by_one(call, info.batch_size, in_dims, arguments)


# --- sosie::conv_lstm -----------------------------------------------------------------------------


def _lstm_by(tensors: Sequence[Any], how: Recurrence) -> Any:
    """Module that computes with sosie's convolutions where they serve, else with torch's."""
    x, _, _, weight_ih, weight_hh = tensors[:5]
    return winograd if winograd.serves(x, weight_ih, weight_hh, how) else sequences


def _lstm_kernel(*arguments: Any) -> tuple[Tensor, ...]:
    *tensors, keep_cells, keep_gates = arguments
    how = _recurrence(tensors[7:])
    output, hidden, cell, cells, gates = _lstm_by(tensors, how).lstm_forward(
        *tensors[:7], how=how, keep_cells=keep_cells, keep_gates=keep_gates
    )
    return output, hidden, cell, _or_empty(cells, output), _or_empty(gates, output)


def _lstm_fake(*arguments: Any) -> tuple[Tensor, ...]:
    *tensors, keep_cells, keep_gates = arguments
    x, _, _, weight_ih, weight_hh = tensors[:5]
    layout = sequences.Layout(x, weight_ih, weight_hh, _recurrence(tensors[7:]))
    dtype = computed_dtype(x)
    output = layout.empty(x, layout.steps, 1, x.dtype)
    return (
        output,
        torch.empty_like(output[0]),
        torch.empty_like(output[0], dtype=dtype),
        layout.empty(x, layout.steps, 1, dtype) if keep_cells else x.new_empty(0),
        layout.empty(x, layout.steps, 4, x.dtype) if keep_gates else x.new_empty(0),
    )


def _save_lstm(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors, ctx.plain = inputs[:7], inputs[7 : 7 + _PLAIN]
    states, _, _, cells, gates = output
    ctx.mark_non_differentiable(gates)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, states, cells, gates)


def _lstm_derivative(
    ctx: Any,
    by_output: Optional,
    by_hidden: Optional,
    by_cell: Optional,
    by_cells: Optional,
    _by_gates: Optional,
) -> tuple[Optional, ...]:
    *tensors, states, cells, gates = ctx.saved_tensors
    needs = [
        need and t is not None for need, t in zip(ctx.needs_input_grad[:7], tensors, strict=True)
    ]
    upstreams = (by_output, by_hidden, by_cell, by_cells)
    if all(upstream is None for upstream in upstreams):
        return (None,) * (9 + _PLAIN)
    found = _conv_lstm_backward(*tensors, states, cells, gates, *upstreams, *ctx.plain, needs)
    gradients = (g if need else None for g, need in zip(found, needs, strict=True))
    return *gradients, *(None,) * (_PLAIN + 2)


_conv_lstm = register(
    Operator(
        "conv_lstm(Tensor x, Tensor? h, Tensor? c, Tensor weight_ih, Tensor weight_hh, "
        f"Tensor? bias, Tensor? peephole, {_HOW}, bool keep_cells, bool keep_gates) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
        cpu=_lstm_kernel,
        fake=_lstm_fake,
        setup_context=_save_lstm,
        backward=_lstm_derivative,
        vmap=_mapping(sequences_at=(0,), states_at=(1, 2)),
        cuda=_lstm_kernel,
    )
)


# --- sosie::conv_lstm_backward --------------------------------------------------------------------


def _lstm_backward_kernel(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, states, cells, gates = arguments[:7], *arguments[7:10]
    upstreams, plain, needs = arguments[10:14], arguments[14:-1], arguments[-1]
    by_output, by_hidden, by_cell, by_cells = upstreams
    how = _recurrence(plain)
    found = _lstm_by(tensors, how).lstm_backward(
        *tensors, how=how, output=states, cells=cells, gates=_if_there(gates),
        grad_output=by_output, grad_hidden=by_hidden, grad_cell=by_cell, grad_cells=by_cells,
        needs=needs,
    )  # fmt: skip
    return tuple(_as_declared(g, tensors[0], place) for place, g in enumerate(found))


def _as_declared(gradient: Optional, x: Tensor, place: int) -> Tensor:
    if gradient is None:
        return x.new_empty(0)
    return gradient if place == 0 else gradient.contiguous()


def _lstm_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(_fake_gradients(arguments[:7], arguments[-1]))


def _save_lstm_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    ctx.plain = inputs[14:-1]
    ctx.save_for_backward(*inputs[:7], *inputs[10:14])


def _lstm_second_derivative(ctx: Any, *cotangents: Tensor) -> tuple[Optional, ...]:
    saved = ctx.saved_tensors
    how = _recurrence(ctx.plain)

    def primal(*tensors: Any) -> tuple[Tensor, ...]:
        output, cells = composite.conv_lstm(*tensors, how=how)
        return output, output[-1], cells[-1], cells

    by_tensors, by_upstreams = _differentiate_twice(primal, saved[:7], saved[7:], cotangents)
    return *by_tensors, None, None, None, *by_upstreams, *(None,) * (_PLAIN + 1)


_conv_lstm_backward = register(
    Operator(
        "conv_lstm_backward(Tensor x, Tensor? h, Tensor? c, Tensor weight_ih, Tensor weight_hh, "
        "Tensor? bias, Tensor? peephole, Tensor states, Tensor cells, Tensor gates, "
        "Tensor? grad_output, Tensor? grad_hidden, Tensor? grad_cell, Tensor? grad_cells, "
        f"{_HOW}, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        cpu=_lstm_backward_kernel,
        fake=_lstm_backward_fake,
        setup_context=_save_lstm_backward,
        backward=_lstm_second_derivative,
        vmap=_map_each,
        cuda=_lstm_backward_kernel,
    )
)


# --- sosie::conv_gru ------------------------------------------------------------------------------


def _gru_kernel(*arguments: Any) -> tuple[Tensor, ...]:
    *given, linear_before_reset, keep_gates = arguments
    output, hidden, gates, candidates = sequences.gru_forward(
        *given[:6], how=_recurrence(given[6:], linear_before_reset), keep_gates=keep_gates
    )
    return output, hidden, _or_empty(gates, output), _or_empty(candidates, output)


def _gru_fake(*arguments: Any) -> tuple[Tensor, ...]:
    *given, linear_before_reset, keep_gates = arguments
    x, _, weight_ih, weight_hh = given[:4]
    layout = sequences.Layout(x, weight_ih, weight_hh, _recurrence(given[6:]))
    output = layout.empty(x, layout.steps, 1, x.dtype)
    keeps_candidates = keep_gates and linear_before_reset
    return (
        output,
        torch.empty_like(output[0]),
        layout.empty(x, layout.steps, 3, x.dtype) if keep_gates else x.new_empty(0),
        torch.empty_like(output) if keeps_candidates else x.new_empty(0),
    )


def _save_gru(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors, ctx.plain, ctx.linear_before_reset = inputs[:6], inputs[6 : 6 + _PLAIN], inputs[-2]
    states, _, gates, candidates = output
    ctx.mark_non_differentiable(gates, candidates)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, states, gates, candidates)


def _gru_derivative(
    ctx: Any,
    by_output: Optional,
    by_hidden: Optional,
    _by_gates: Optional,
    _by_candidates: Optional,
) -> tuple[Optional, ...]:
    *tensors, states, gates, candidates = ctx.saved_tensors
    needs = [
        need and t is not None for need, t in zip(ctx.needs_input_grad[:6], tensors, strict=True)
    ]
    if by_output is None and by_hidden is None:
        return (None,) * (8 + _PLAIN)
    found = _conv_gru_backward(
        *tensors, states, gates, candidates, by_output, by_hidden, *ctx.plain,
        ctx.linear_before_reset, needs,
    )  # fmt: skip
    gradients = (g if need else None for g, need in zip(found, needs, strict=True))
    return *gradients, *(None,) * (_PLAIN + 2)


_conv_gru = register(
    Operator(
        "conv_gru(Tensor x, Tensor? h, Tensor weight_ih, Tensor weight_hh, Tensor? bias, "
        f"Tensor? recurrent_bias, {_HOW}, bool linear_before_reset, bool keep_gates) "
        "-> (Tensor, Tensor, Tensor, Tensor)",
        cpu=_gru_kernel,
        fake=_gru_fake,
        setup_context=_save_gru,
        backward=_gru_derivative,
        vmap=_mapping(sequences_at=(0,), states_at=(1,)),
        cuda=_gru_kernel,
    )
)


# --- sosie::conv_gru_backward ---------------------------------------------------------------------


def _gru_backward_kernel(*arguments: Any) -> tuple[Tensor, ...]:
    tensors, states, gates, candidates = arguments[:6], *arguments[6:9]
    by_output, by_hidden, *plain, linear_before_reset, needs = arguments[9:]
    found = sequences.gru_backward(
        *tensors, how=_recurrence(plain, linear_before_reset), output=states,
        gates=_if_there(gates), candidates=_if_there(candidates), grad_output=by_output,
        grad_hidden=by_hidden, needs=needs,
    )  # fmt: skip
    return tuple(_as_declared(g, tensors[0], place) for place, g in enumerate(found))


def _gru_backward_fake(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(_fake_gradients(arguments[:6], arguments[-1]))


def _save_gru_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    ctx.plain, ctx.linear_before_reset = inputs[11:-2], inputs[-2]
    ctx.save_for_backward(*inputs[:6], *inputs[9:11])


def _gru_second_derivative(ctx: Any, *cotangents: Tensor) -> tuple[Optional, ...]:
    saved = ctx.saved_tensors
    how = _recurrence(ctx.plain, ctx.linear_before_reset)

    def primal(*tensors: Any) -> tuple[Tensor, ...]:
        output = composite.conv_gru(*tensors, how=how)
        return output, output[-1]

    by_tensors, by_upstreams = _differentiate_twice(primal, saved[:6], saved[6:], cotangents)
    return *by_tensors, None, None, None, *by_upstreams, *(None,) * (_PLAIN + 2)


_conv_gru_backward = register(
    Operator(
        "conv_gru_backward(Tensor x, Tensor? h, Tensor weight_ih, Tensor weight_hh, Tensor? bias, "
        "Tensor? recurrent_bias, Tensor states, Tensor gates, Tensor candidates, "
        f"Tensor? grad_output, Tensor? grad_hidden, {_HOW}, bool linear_before_reset, "
        "bool[] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        cpu=_gru_backward_kernel,
        fake=_gru_backward_fake,
        setup_context=_save_gru_backward,
        backward=_gru_second_derivative,
        vmap=_map_each,
        cuda=_gru_backward_kernel,
    )
)
