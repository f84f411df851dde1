# SPDX-License-Identifier: Apache-2.0
"""Convolutional LSTM and GRU made of torch operations, step by step.

They serve where the operators of `sosie.torch.recurrent` do not: for derivatives of derivatives, on
devices without kernels, in exported graphs, and for options that those lack. The convolution of the
inputs is one for all steps here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sosie.reference.recurrent import SLOPES
from sosie.torch._gradients import computed_dtype

__all__ = ["PLAIN", "Extras", "Recurrence", "conv_gru", "conv_lstm", "convolve"]

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Recurrence:
    """What the weights of a layer do not say.

    Attributes
    ----------
    stride, padding, dilation : tuple of int
        Of the convolution of the inputs, one number per spatial axis; zeros around.
    recurrent_dilation : tuple of int
        Of the convolution of the state, which keeps its size.
    activation, recurrent_activation : str
        See `sosie.reference.recurrent.lstm_forward`.
    linear_before_reset : bool
        See `sosie.reference.recurrent`; GRU only.
    """

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    recurrent_dilation: Sizes
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    linear_before_reset: bool = False

    @property
    def spatial_dims(self) -> int:
        """How many axes images have."""
        return len(self.stride)

    def recurrent_padding(self, weight_hh: Tensor) -> Sizes:
        """What the convolution of the state adds on each side to keep its size."""
        sizes = weight_hh.shape[2:]
        return tuple(d * (k - 1) // 2 for d, k in zip(self.recurrent_dilation, sizes, strict=True))


def _as_it_is(a: Tensor) -> Tensor:
    return a


def _keep_new(new: Tensor, _old: Tensor) -> Tensor:
    return new


@dataclass(frozen=True)
class Extras:
    """What only the composite can do.

    Attributes
    ----------
    padding_mode : str
        What lies around images and states, as in ``torch.nn.Conv2d``.
    normalise, normalise_candidate : callable
        Applied to what goes into the activations of all gates; for a GRU of r and z, and of n.
    blend_hidden, blend_cell : callable
        ``blend(new, old)``: the state after a step.
    """

    padding_mode: str = "zeros"
    normalise: Callable[[Tensor], Tensor] = _as_it_is
    normalise_candidate: Callable[[Tensor], Tensor] = _as_it_is
    blend_hidden: Callable[[Tensor, Tensor], Tensor] = _keep_new
    blend_cell: Callable[[Tensor, Tensor], Tensor] = _keep_new


PLAIN = Extras()


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    padding_mode: str = "zeros",
) -> Tensor:
    """Convolution of ``(N, C, ...)`` with any number of spatial axes."""
    if padding_mode != "zeros":
        around = [size for size in reversed(padding) for _ in range(2)]
        x, padding = F.pad(x, around, mode=padding_mode), (0,) * len(padding)
    function: Any = (F.conv1d, F.conv2d, F.conv3d)[x.ndim - 3]
    result: Tensor = function(x, weight, bias, stride, padding, dilation)
    return result


def _activate(x: Tensor, name: str) -> Tensor:
    if name in SLOPES:
        return (SLOPES[name] * x + 0.5).clamp(0.0, 1.0)
    if name == "hard_tanh":
        return x.clamp(-1.0, 1.0)
    return torch.tanh(x) if name == "tanh" else torch.sigmoid(x)


def _of_inputs(
    x: Tensor, weight: Tensor, bias: Tensor | None, how: Recurrence, extras: Extras
) -> Tensor:
    """Convolutions of the inputs of all steps ``(T, N, K, ...)``, in the dtype of the cell."""
    given = (how.stride, how.padding, how.dilation, extras.padding_mode)
    flat = convolve(x.flatten(0, 1), weight, bias, *given)
    result: Tensor = flat.unflatten(0, x.shape[:2])
    return result.to(computed_dtype(x))


def _of_state(
    h: Tensor, weight: Tensor, bias: Tensor | None, how: Recurrence, extras: Extras
) -> Tensor:
    ones = (1,) * how.spatial_dims
    around = how.recurrent_padding(weight)
    result = convolve(h, weight, bias, ones, around, how.recurrent_dilation, extras.padding_mode)
    return result.to(computed_dtype(h))


def conv_lstm(
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    peephole: Tensor | None,
    *,
    how: Recurrence,
    extras: Extras = PLAIN,
) -> tuple[Tensor, Tensor]:
    """States h and c ``(T, N, C, ...)`` after each step.

    Arguments as for `sosie.torch.recurrent.conv_lstm`.
    """
    inputs = _of_inputs(x, weight_ih, bias, how, extras)
    state = (x.shape[1], weight_hh.shape[1], *inputs.shape[3:])
    h = x.new_zeros(state) if h is None else h
    c = inputs.new_zeros(state) if c is None else c
    p_i, p_f, p_o = (None,) * 3 if peephole is None else peephole.unbind(0)
    hiddens, cells = [], []
    for of_input in inputs.unbind(0):
        a = extras.normalise(of_input + _of_state(h, weight_hh, None, how, extras))
        a_i, a_f, a_g, a_o = a.chunk(4, 1)
        i = _activate(a_i if p_i is None else a_i + p_i * c, how.recurrent_activation)
        f = _activate(a_f if p_f is None else a_f + p_f * c, how.recurrent_activation)
        new_c = f * c + i * _activate(a_g, how.activation)
        o = _activate(a_o if p_o is None else a_o + p_o * new_c, how.recurrent_activation)
        new_h = (o * _activate(new_c, how.activation)).to(x.dtype)
        h, c = extras.blend_hidden(new_h, h), extras.blend_cell(new_c, c)
        hiddens.append(h)
        cells.append(c)
    return torch.stack(hiddens), torch.stack(cells)


def conv_gru(
    x: Tensor,
    h: Tensor | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None,
    recurrent_bias: Tensor | None,
    *,
    how: Recurrence,
    extras: Extras = PLAIN,
) -> Tensor:
    """States ``(T, N, C, ...)`` after each step.

    Arguments as for `sosie.torch.recurrent.conv_gru`.
    """
    inputs = _of_inputs(x, weight_ih, bias, how, extras)
    channels = weight_hh.shape[1]
    h = x.new_zeros((x.shape[1], channels, *inputs.shape[3:])) if h is None else h
    w_gates, w_candidate = weight_hh[: 2 * channels], weight_hh[2 * channels :]
    bias_of_all = None
    if recurrent_bias is not None:
        bias_of_all = torch.cat([recurrent_bias.new_zeros(2 * channels), recurrent_bias])
    hiddens = []
    for of_input in inputs.unbind(0):
        a_gates, a_n = of_input[:, : 2 * channels], of_input[:, 2 * channels :]
        if how.linear_before_reset:
            u = _of_state(h, weight_hh, bias_of_all, how, extras)
            u_gates, u_n = u[:, : 2 * channels], u[:, 2 * channels :]
        else:
            u_gates, u_n = _of_state(h, w_gates, None, how, extras), None
        gates = _activate(extras.normalise(a_gates + u_gates), how.recurrent_activation)
        r, z = gates.chunk(2, 1)
        if u_n is None:
            reset = (r * h).to(x.dtype)
            a_n = a_n + _of_state(reset, w_candidate, recurrent_bias, how, extras)
        else:
            a_n = a_n + r * u_n
        n = _activate(extras.normalise_candidate(a_n), how.activation)
        h = extras.blend_hidden(((1.0 - z) * n + z * h).to(x.dtype), h)
        hiddens.append(h)
    return torch.stack(hiddens)
