# SPDX-License-Identifier: Apache-2.0
"""Everything that can compute on this machine, for fixtures that try each."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import sosie


def _optimised() -> list[str]:
    names = []
    if importlib.util.find_spec("sosie._core") is not None:
        from sosie import _core

        names += [f"native-{isa}" for isa in _core.supported_isas()]
    if importlib.util.find_spec("numba") is not None:
        names.append("numba")
    return names


#: The native kernels once per instruction set, and Numba's: what the definition is held against.
OPTIMISED = _optimised()
#: The executor that calls the definition too.
EXECUTORS = ["reference", *OPTIMISED]


@contextmanager
def computing_by(name: str) -> Iterator[Any]:
    """Public functions compute by one of `EXECUTORS`, within a ``with`` block; gives its module."""
    backend, _, isa = name.partition("-")
    with sosie.use_backend(backend):
        module = sosie.backends.executor(np.empty(0))
        if not isa:
            yield module
            return
        from sosie import _core

        before = _core.isa()
        _core.select_isa(isa)
        try:
            yield module
        finally:
            _core.select_isa(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """NumPy arrays and torch tensors are computed on by one thread, within a ``with`` block."""
    import torch

    threads, torch_threads = sosie.get_num_threads(), torch.get_num_threads()
    sosie.set_num_threads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        sosie.set_num_threads(threads)
        torch.set_num_threads(torch_threads)
