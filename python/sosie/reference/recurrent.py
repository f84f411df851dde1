# SPDX-License-Identifier: Apache-2.0
"""Convolutional LSTM and GRU in float64 NumPy, step by step.

With ``*`` a convolution, ``.`` a product of numbers, and ``s`` the logistic function or a hard one,

    LSTM    i = s(W_i * x + U_i * h + b_i + p_i . c)        c' = f . c + i . g
            f = s(W_f * x + U_f * h + b_f + p_f . c)        h' = o . tanh(c')
            g = tanh(W_g * x + U_g * h + b_g)
            o = s(W_o * x + U_o * h + b_o + p_o . c')

    GRU     r = s(W_r * x + U_r * h + b_r)                  h' = (1 - z) . n + z . h
            z = s(W_z * x + U_z * h + b_z)
            n = tanh(W_n * x + b_n + U_n * (r . h) + d)

    or, with the linear map before the reset,

            n = tanh(W_n * x + b_n + r . (U_n * h + d))

where h, c are the state before a step and h', c' that after it. Gates lie along the channel axis in
this order, which is that of torch.

Sources: Shi et al., Convolutional LSTM Network, 2015 (with peepholes p); Ballas et al., Delving
Deeper into Convolutional Networks for Learning Video Representations, 2016 (GRU).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "SLOPES",
    "conv_gru",
    "conv_lstm",
    "convolution",
    "gru_backward",
    "gru_forward",
    "gru_reset_backward",
    "gru_reset_forward",
    "gru_update_backward",
    "gru_update_forward",
    "lstm_backward",
    "lstm_forward",
    "lstm_peephole_backward",
    "recurrent_convolution",
]

Array = NDArray[np.float64]

#: Slopes at 0 of hard sigmoids, which are ``slope x + 1/2`` between 0 and 1: that of torch, Keras 3
#: and JAX, and that of Keras 2 and ONNX.
SLOPES = {"hard_sigmoid": 1.0 / 6.0, "hard_sigmoid_keras2": 0.2}


# --- Activations ----------------------------------------------------------------------------------


def _activate(x: Array, name: str) -> Array:
    if name in SLOPES:
        return np.clip(SLOPES[name] * x + 0.5, 0.0, 1.0)
    if name == "hard_tanh":
        return np.clip(x, -1.0, 1.0)
    if name == "tanh":
        return np.tanh(x)
    return np.exp(-np.logaddexp(0.0, -x))  # the logistic function, without overflow


def _slope(y: Array, name: str) -> Array:
    """Derivative of an activation where its value is ``y``; 0 at the corners of hard ones."""
    if name in SLOPES:
        return np.where((y > 0.0) & (y < 1.0), SLOPES[name], 0.0)
    if name == "hard_tanh":
        return np.where((y > -1.0) & (y < 1.0), 1.0, 0.0)
    return 1.0 - y * y if name == "tanh" else y * (1.0 - y)


# --- Gates of one step ----------------------------------------------------------------------------


def lstm_forward(
    inputs: ArrayLike,
    recurrent: ArrayLike | None,
    cell: ArrayLike,
    peephole: ArrayLike | None = None,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> tuple[Array, Array, Array]:
    """Gates and new state of an LSTM.

    Parameters
    ----------
    inputs, recurrent : array of shape (N, 4 C, ...)
        What the two convolutions give, biases included; their sum counts.
    cell : array of shape (N, C, ...)
    peephole : array of shape (3, C, ...), optional
        Of i, f and o; the other axes have the cell's length or 1.
    activation : {"tanh", "hard_tanh"}
    recurrent_activation : {"sigmoid", "hard_sigmoid", "hard_sigmoid_keras2"}

    Returns
    -------
    gates : ndarray of shape (N, 4 C, ...)
        i, f, g, o.
    hidden, new_cell : ndarray of shape (N, C, ...)

    Examples
    --------
    >>> gates, hidden, cell = lstm_forward(np.zeros((1, 4, 1)), None, np.ones((1, 1, 1)))
    >>> gates.ravel(), cell.item()
    (array([0.5, 0.5, 0. , 0.5]), 0.5)
    """
    a = np.asarray(inputs, np.float64)
    if recurrent is not None:
        a = a + np.asarray(recurrent, np.float64)
    c = np.asarray(cell, np.float64)
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    p_i, p_f, p_o = (0.0,) * 3 if peephole is None else np.asarray(peephole, np.float64)
    i = _activate(a_i + p_i * c, recurrent_activation)
    f = _activate(a_f + p_f * c, recurrent_activation)
    g = _activate(a_g, activation)
    new = f * c + i * g
    o = _activate(a_o + p_o * new, recurrent_activation)
    return np.concatenate([i, f, g, o], axis=1), o * _activate(new, activation), new


def lstm_backward(
    gates: ArrayLike,
    cell: ArrayLike,
    new_cell: ArrayLike,
    grad_hidden: ArrayLike,
    grad_cell: ArrayLike,
    peephole: ArrayLike | None = None,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> tuple[Array, Array]:
    """Gradients of what the convolutions gave ``(N, 4 C, ...)`` and of the cell before the step.

    ``grad_hidden`` and ``grad_cell`` are those of the state after it; ``gates``, ``cell`` and
    ``new_cell`` are those of `lstm_forward`.
    """
    i, f, g, o = np.split(np.asarray(gates, np.float64), 4, axis=1)
    c, new, dh, dc = (
        np.asarray(array, np.float64) for array in (cell, new_cell, grad_hidden, grad_cell)
    )
    p_i, p_f, p_o = (0.0,) * 3 if peephole is None else np.asarray(peephole, np.float64)
    t = _activate(new, activation)
    d_o = dh * t * _slope(o, recurrent_activation)
    dc = dc + dh * o * _slope(t, activation) + d_o * p_o
    d_i = dc * g * _slope(i, recurrent_activation)
    d_f = dc * c * _slope(f, recurrent_activation)
    d_g = dc * i * _slope(g, activation)
    return np.concatenate([d_i, d_f, d_g, d_o], axis=1), dc * f + d_i * p_i + d_f * p_f


def lstm_peephole_backward(grad_gates: ArrayLike, cell: ArrayLike, new_cell: ArrayLike) -> Array:
    """Gradients of peepholes ``(3, C, ...)``, one per channel and pixel, summed over N.

    ``grad_gates`` ``(N, 4 C, ...)`` are those of `lstm_backward`, ``cell`` and ``new_cell`` the
    cells before and after the steps; steps may have joined the batch.

    Examples
    --------
    >>> ones = np.ones((2, 1, 1))
    >>> lstm_peephole_backward(np.ones((2, 4, 1)), ones, 3.0 * ones).ravel()
    array([2., 2., 6.])
    """
    by_i, by_f, _, by_o = np.split(np.asarray(grad_gates, np.float64), 4, axis=1)
    before, after = np.asarray(cell, np.float64), np.asarray(new_cell, np.float64)
    return np.stack([(by_i * before).sum(0), (by_f * before).sum(0), (by_o * after).sum(0)])


def gru_forward(
    inputs: ArrayLike,
    recurrent: ArrayLike,
    hidden: ArrayLike,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> tuple[Array, Array]:
    """Gates r, z, n and new state of a GRU whose linear map comes before the reset.

    ``inputs`` and ``recurrent`` are what the two convolutions give, ``(N, 3 C, ...)``, biases
    included; ``hidden`` is ``(N, C, ...)``.

    Examples
    --------
    >>> gates, hidden = gru_forward(np.zeros((1, 3, 1)), np.zeros((1, 3, 1)), np.ones((1, 1, 1)))
    >>> gates.ravel(), hidden.item()
    (array([0.5, 0.5, 0. ]), 0.5)
    """
    a, u = np.asarray(inputs, np.float64), np.asarray(recurrent, np.float64)
    a_r, a_z, a_n = np.split(a, 3, axis=1)
    u_r, u_z, u_n = np.split(u, 3, axis=1)
    r = _activate(a_r + u_r, recurrent_activation)
    z = _activate(a_z + u_z, recurrent_activation)
    n = _activate(a_n + r * u_n, activation)
    return np.concatenate([r, z, n], axis=1), (1.0 - z) * n + z * np.asarray(hidden, np.float64)


def gru_backward(
    gates: ArrayLike,
    candidate: ArrayLike,
    hidden: ArrayLike,
    grad_hidden: ArrayLike,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> tuple[Array, Array, Array]:
    """Gradients of ``inputs``, of ``recurrent`` and, not by way of it, of ``hidden``.

    ``candidate`` is the last third of ``recurrent``.
    """
    r, z, n = np.split(np.asarray(gates, np.float64), 3, axis=1)
    dh, h = np.asarray(grad_hidden, np.float64), np.asarray(hidden, np.float64)
    d_n = dh * (1.0 - z) * _slope(n, activation)
    d_z = dh * (h - n) * _slope(z, recurrent_activation)
    d_r = d_n * np.asarray(candidate, np.float64) * _slope(r, recurrent_activation)
    by_inputs = np.concatenate([d_r, d_z, d_n], axis=1)
    return by_inputs, np.concatenate([d_r, d_z, d_n * r], axis=1), dh * z


def gru_reset_forward(
    inputs: ArrayLike,
    recurrent: ArrayLike,
    hidden: ArrayLike,
    *,
    recurrent_activation: str = "sigmoid",
) -> tuple[Array, Array]:
    """First half of a GRU that resets before the linear map: r, z and ``r . h``.

    ``recurrent`` is ``(N, 2 C, ...)``; of ``inputs`` ``(N, 3 C, ...)`` the first two thirds count.
    """
    channels = np.shape(hidden)[1]
    a = np.asarray(inputs, np.float64)[:, : 2 * channels] + np.asarray(recurrent, np.float64)
    gates = _activate(a, recurrent_activation)
    return gates, gates[:, :channels] * np.asarray(hidden, np.float64)


def gru_update_forward(
    inputs: ArrayLike,
    recurrent: ArrayLike,
    update: ArrayLike,
    hidden: ArrayLike,
    *,
    activation: str = "tanh",
) -> tuple[Array, Array]:
    """Second half: n and the new state, out of ``update``, which is z, and ``U_n * (r . h)``."""
    z, h = np.asarray(update, np.float64), np.asarray(hidden, np.float64)
    a_n = np.split(np.asarray(inputs, np.float64), 3, axis=1)[2]
    n = _activate(a_n + np.asarray(recurrent, np.float64), activation)
    return n, (1.0 - z) * n + z * h


def gru_update_backward(
    gates: ArrayLike,
    hidden: ArrayLike,
    grad_hidden: ArrayLike,
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> tuple[Array, Array, Array]:
    """Gradients before the activations of z and n, and of ``hidden`` by way of z alone."""
    _, z, n = np.split(np.asarray(gates, np.float64), 3, axis=1)
    dh, h = np.asarray(grad_hidden, np.float64), np.asarray(hidden, np.float64)
    d_n = dh * (1.0 - z) * _slope(n, activation)
    return dh * (h - n) * _slope(z, recurrent_activation), d_n, dh * z


def gru_reset_backward(
    reset: ArrayLike,
    hidden: ArrayLike,
    grad_reset_hidden: ArrayLike,
    *,
    recurrent_activation: str = "sigmoid",
) -> tuple[Array, Array]:
    """Gradient before the activation of r, and of ``hidden``, from that of ``r . h``."""
    r, h = np.asarray(reset, np.float64), np.asarray(hidden, np.float64)
    upstream = np.asarray(grad_reset_hidden, np.float64)
    return upstream * h * _slope(r, recurrent_activation), upstream * r


# --- Sequences ------------------------------------------------------------------------------------


def convolution(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
    dilation: Sequence[int] | int = 1,
) -> Array:
    """Cross-correlation of ``(N, C, ...)`` with ``(K, C, ...)``, zeros around, as torch's.

    Examples
    --------
    >>> convolution([[[1.0, 2.0, 3.0]]], [[[1.0, 1.0]]])
    array([[[3., 5.]]])
    """
    images, kernel = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    dims = images.ndim - 2
    stride, padding, dilation = (
        (each,) * dims if isinstance(each, int) else tuple(each)
        for each in (stride, padding, dilation)
    )
    images = np.pad(images, ((0, 0), (0, 0), *((each, each) for each in padding)))
    sizes = [
        (images.shape[2 + d] - dilation[d] * (kernel.shape[2 + d] - 1) - 1) // stride[d] + 1
        for d in range(dims)
    ]
    result = np.zeros((images.shape[0], kernel.shape[0], *sizes))
    for tap in np.ndindex(*kernel.shape[2:]):
        begins = [tap[d] * dilation[d] for d in range(dims)]
        seen = tuple(
            slice(begins[d], begins[d] + (sizes[d] - 1) * stride[d] + 1, stride[d])
            for d in range(dims)
        )
        part = images[(slice(None), slice(None), *seen)]
        result += np.moveaxis(np.tensordot(kernel[(..., *tap)], part, (1, 1)), 0, 1)
    if bias is not None:
        result += np.reshape(np.asarray(bias, np.float64), (-1,) + (1,) * dims)
    return result


def _same(weight: ArrayLike, dilation: int) -> list[int]:
    return [dilation * (size - 1) // 2 for size in np.shape(weight)[2:]]


def conv_lstm(
    x: ArrayLike,
    hidden: ArrayLike,
    cell: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias: ArrayLike | None = None,
    peephole: ArrayLike | None = None,
    *,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
    dilation: Sequence[int] | int = 1,
    recurrent_dilation: int = 1,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> tuple[Array, Array]:
    """All states h and c ``(T, N, C, ...)`` of a ConvLSTM, after each step.

    Parameters
    ----------
    x : array of shape (T, N, C_in, ...)
    hidden, cell : array of shape (N, C, ...)
        State before the first step.
    weight_ih, weight_hh : arrays of shape (4 C, C_in, ...) and (4 C, C, ...)
        Of the input and of the recurrent convolution; the latter keeps the size.
    bias : array of shape (4 C,), optional
    peephole, activation, recurrent_activation
        As for `lstm_forward`.
    stride, padding, dilation
        Of the input convolution.
    recurrent_dilation : int

    Examples
    --------
    >>> x, state = np.zeros((3, 1, 1, 5)), np.ones((1, 1, 5))
    >>> _, cells = conv_lstm(x, state, state, np.ones((4, 1, 1)), np.zeros((4, 1, 1)))
    >>> cells[:, 0, 0, 0]
    array([0.5  , 0.25 , 0.125])
    """
    h, c = np.asarray(hidden, np.float64), np.asarray(cell, np.float64)
    activations = {"activation": activation, "recurrent_activation": recurrent_activation}
    states: list[tuple[Array, Array]] = []
    for step in np.asarray(x, np.float64):
        inputs = convolution(step, weight_ih, bias, stride, padding, dilation)
        recurrent = convolution(
            h, weight_hh, None, 1, _same(weight_hh, recurrent_dilation), recurrent_dilation
        )
        _, h, c = lstm_forward(inputs, recurrent, c, peephole, **activations)
        states.append((h, c))
    hiddens, cells = zip(*states, strict=True)
    return np.stack(hiddens), np.stack(cells)


def conv_gru(
    x: ArrayLike,
    hidden: ArrayLike,
    weight_ih: ArrayLike,
    weight_hh: ArrayLike,
    bias: ArrayLike | None = None,
    recurrent_bias: ArrayLike | None = None,
    *,
    stride: Sequence[int] | int = 1,
    padding: Sequence[int] | int = 0,
    dilation: Sequence[int] | int = 1,
    recurrent_dilation: int = 1,
    linear_before_reset: bool = False,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
) -> Array:
    """All states ``(T, N, C, ...)`` of a ConvGRU, after each step.

    As for `conv_lstm`, with 3 gates in place of 4; ``recurrent_bias`` ``(C,)`` is d.

    Examples
    --------
    >>> x, state = np.zeros((2, 1, 1, 5)), np.ones((1, 1, 5))
    >>> conv_gru(x, state, np.ones((3, 1, 1)), np.zeros((3, 1, 1)))[:, 0, 0, 0]
    array([0.5 , 0.25])
    """
    h, u = np.asarray(hidden, np.float64), np.asarray(weight_hh, np.float64)
    channels = h.shape[1]
    d = np.zeros(channels) if recurrent_bias is None else np.asarray(recurrent_bias, np.float64)
    around = _same(u, recurrent_dilation)
    activations = {"activation": activation, "recurrent_activation": recurrent_activation}

    def recur(state: Array, weight: Array, bias: Array | None) -> Array:
        return convolution(state, weight, bias, 1, around, recurrent_dilation)

    states = []
    for step in np.asarray(x, np.float64):
        inputs = convolution(step, weight_ih, bias, stride, padding, dilation)
        if linear_before_reset:
            of_hidden = recur(h, u, np.concatenate([np.zeros(2 * channels), d]))
            _, h = gru_forward(inputs, of_hidden, h, **activations)
        else:
            of_hidden = recur(h, u[: 2 * channels], None)
            gates, reset = gru_reset_forward(
                inputs, of_hidden, h, recurrent_activation=recurrent_activation
            )
            of_reset = recur(reset, u[2 * channels :], d)
            _, h = gru_update_forward(
                inputs, of_reset, gates[:, channels:], h, activation=activation
            )
        states.append(h)
    return np.stack(states)


def recurrent_convolution(
    x: ArrayLike,
    weight: ArrayLike,
    recurrent_weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    steps: int = 3,
    normalise: Callable[[Array, int], Array] | None = None,
) -> Array:
    """Recurrent convolution of Liang and Hu (2015), last state.

    ``z_t = w * x + u * y_{t-1} + b`` and ``y_t = normalise(relu(z_t), t)`` for ``t = 0 ... steps``,
    where ``y_{-1}`` is 0. All convolutions keep the size.

    Examples
    --------
    >>> recurrent_convolution([[[1.0, -1.0]]], [[[2.0]]], [[[0.5]]], steps=2)
    array([[[3.5, 0. ]]])
    """
    forward = convolution(x, weight, bias, padding=_same(weight, 1))
    y: Any = np.zeros_like(forward)
    for step in range(steps + 1):
        z = forward + convolution(y, recurrent_weight, padding=_same(recurrent_weight, 1))
        y = np.maximum(z, 0.0)
        if normalise is not None:
            y = normalise(y, step)
    result: Array = y
    return result
