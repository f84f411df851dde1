# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the benchmark of recurrent layers, called as its users do.

ConvLSTM_pytorch is no package but a file that people copy; what is measured is the same loop,
written here: a convolution of the concatenated image and state, then its gates one by one.

Importing this module imports no contender.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import versions
from benchmarks.race import Budget, Convention, Family
from benchmarks.recurrent_cases import CASES, CHECKED, Case, inputs
from benchmarks.workers import Prepared

__all__ = ["CONTENDERS", "FAMILY", "Contender", "load"]

#: What gives the states ``(T, N, C, H, W)``, and images and weights, of which there are gradients.
Work = tuple[Callable[[], Any], tuple[Any, ...]]


@dataclass(frozen=True)
class Contender:
    """A library that computes convolutional LSTMs.

    Attributes
    ----------
    name : str
        What it is called on the command line and in tables.
    module : str
        What is imported.
    build : callable
        Library, case and tensors to what is done.
    compiled : bool
        Whether it is compiled by torch.compile.
    ours : bool
        Whether this is sosie itself.
    arrays : str
        Whose arrays it takes.
    channels_last : bool
        Whether images are ``(N, T, H, W, C)``.
    value_tolerance : float
        How far its value may be from sosie's.
    goals : mapping of bool to float
        How many times faster than this contender sosie is meant to be, forward (False) and with
        gradients (True).
    """

    name: str
    module: str
    build: Callable[[Any, Case, tuple[Any, ...]], Work]
    compiled: bool = False
    ours: bool = False
    arrays: str = "torch"
    channels_last: bool = False
    value_tolerance: float = 1e-5
    goals: Mapping[bool, float] = field(default_factory=dict)

    def convention(self, case: Case) -> Convention | None:  # noqa: ARG002
        """There is only one."""
        return {}

    def goal(self, case: Case) -> float | None:
        """See `benchmarks.race.Contender`."""
        return self.goals.get(case.gradient)


class _Loaded:
    """A contender whose library is imported."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self._contender = contender
        self._torch: Any = importlib.import_module("torch")
        self._torch.set_num_threads(threads)
        os.environ["KERAS_BACKEND"] = "torch"
        self._library = importlib.import_module(contender.module)
        self.versions = versions([contender.module])

    def prepare(self, case: dict[str, Any], _: Convention) -> Prepared:
        """See `benchmarks.workers.Prepared`."""
        what, torch = Case.from_plain(case), self._torch
        tensors = tuple(map(torch.from_numpy, inputs(what)))
        call, leaves = self._contender.build(self._library, what, tensors)
        for leaf in leaves:
            leaf.requires_grad_(what.gradient)

        def step() -> Any:
            for leaf in leaves:
                leaf.grad = None
            states = call()
            if what.gradient:
                states.sum().backward()
            return states.detach()

        def checked(states: Any) -> NDArray[Any]:
            if not what.gradient:
                return np.asarray(states[:, :CHECKED].double())
            found = leaves[0].grad
            if self._contender.channels_last:  # (N, T, H, W, C)
                found = found.permute(1, 0, 4, 2, 3)
            return np.asarray(found[:, :CHECKED].double())

        return Prepared(
            step,
            lambda states: float(states[:, :CHECKED].double().mean()),
            checked,
            lambda: torch.set_grad_enabled(what.gradient),
        )


def load(name: str, threads: int) -> _Loaded:
    """Import a contender's library and limit its threads."""
    return _Loaded(CONTENDERS[name], threads)


# --- Contenders -----------------------------------------------------------------------------------


def _sosie(nn: Any, case: Case, tensors: tuple[Any, ...], **options: Any) -> Work:
    x, *weights = tensors
    layer = nn.ConvLSTM(case.in_channels, case.channels, device=x.device, **options)
    cell = layer.cells[0]
    leaves = cell.weight_ih, cell.weight_hh, cell.bias
    for leaf, weight in zip(leaves, weights, strict=True):
        leaf.data.copy_(weight)
    return (lambda: layer(x)[0]), (x, *leaves)


def _recomputing(nn: Any, case: Case, tensors: tuple[Any, ...]) -> Work:
    return _sosie(nn, case, tensors, recompute=True)


def _composite(module: Any, case: Case, tensors: tuple[Any, ...]) -> Work:  # noqa: ARG001
    x, weight_ih, weight_hh, bias = tensors
    ones = (1, 1)
    how = module.Recurrence(ones, ones, ones, ones)

    def call() -> Any:
        return module.conv_lstm(x, None, None, weight_ih, weight_hh, bias, None, how=how)[0]

    return call, tensors


def _compiled(module: Any, case: Case, tensors: tuple[Any, ...]) -> Work:
    call, leaves = _composite(module, case, tensors)
    return importlib.import_module("torch").compile(call, dynamic=False), leaves


def _definition(module: Any, case: Case, tensors: tuple[Any, ...]) -> Work:
    """Of the sequences that are checked, in float64."""
    x, *weights = (tensor.double() for tensor in tensors)
    return _composite(module, case, (x[:, :CHECKED], *weights))


def _loop(torch: Any, case: Case, tensors: tuple[Any, ...]) -> Work:
    x, weight_ih, weight_hh, bias = tensors
    weight = torch.cat([weight_ih, weight_hh], dim=1)

    def call() -> Any:
        h = c = x.new_zeros(case.batch, case.channels, case.size, case.size)
        states = []
        for step in range(case.steps):
            both = torch.cat([x[step], h], dim=1)
            a = torch.nn.functional.conv2d(both, weight, bias, padding=1)
            i, f, g, o = torch.split(a, case.channels, dim=1)
            i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
            c = f * c + i * torch.tanh(g)
            h = o * torch.tanh(c)
            states.append(h)
        return torch.stack(states)

    return call, (x, weight, bias)


def _keras(keras: Any, case: Case, tensors: tuple[Any, ...]) -> Work:
    x, weight_ih, weight_hh, bias = tensors
    layer = keras.layers.ConvLSTM2D(case.channels, 3, padding="same", return_sequences=True)
    images = x.permute(1, 0, 3, 4, 2).contiguous()  # (N, T, H, W, C)
    layer.build(tuple(images.shape))
    layer.set_weights([weight_ih.permute(2, 3, 1, 0), weight_hh.permute(2, 3, 1, 0), bias])
    leaves = [variable.value for variable in layer.trainable_variables]
    return (lambda: layer(images).permute(1, 0, 4, 2, 3)), (images, *leaves)


_ALL = (
    Contender("sosie", "sosie.nn", _sosie, ours=True),
    Contender("reference", "sosie.torch.recurrent_composite", _definition, ours=True),
    Contender("sosie recompute", "sosie.nn", _recomputing),
    Contender(
        "composite", "sosie.torch.recurrent_composite", _composite, goals={False: 1.0, True: 1.0}
    ),
    Contender(
        "composite compiled",
        "sosie.torch.recurrent_composite",
        _compiled,
        compiled=True,
        goals={False: 1.0, True: 1.0},
    ),
    Contender("ConvLSTM_pytorch", "torch", _loop, goals={True: 1.2}),
    Contender("keras", "keras", _keras, channels_last=True, goals={False: 1.8, True: 1.8}),
)

#: Every contender by its name.
CONTENDERS = {contender.name: contender for contender in _ALL}

FAMILY = Family(
    "benchmarks.recurrent_peers",
    CASES,
    CONTENDERS,
    # A sequence takes seconds.
    {
        "default": Budget(rounds=5, seconds=10.0, least_rounds=3),
        "no-fault": Budget(rounds=5, seconds=10.0, least_rounds=3),
    },
    lambda _contender, _case: "sosie",
    own_value_tolerance=1e-5,
    own_array_tolerance=1e-5,
    array_tolerance=1e-4,
)
