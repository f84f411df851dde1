# SPDX-License-Identifier: Apache-2.0
"""Whose convolutions recurrent layers compute with.

On a CPU there are two: torch's (oneDNN), and sosie's own by Winograd's transformation, which take a
quarter of the multiplications. The latter are for 3 x 3 taps, stride 1, dilation 1 and float32.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chosen_convolutions", "use_convolutions"]

_NAMES = ("auto", "library", "winograd")
_VARIABLE = "SOSIE_CONVOLUTIONS"

_chosen: ContextVar[str | None] = ContextVar("sosie_convolutions", default=None)


def chosen_convolutions() -> str:
    """What :func:`use_convolutions` was called with, else ``SOSIE_CONVOLUTIONS``, else "auto".

    Raises
    ------
    ValueError
        The environment variable holds no name there is.

    Examples
    --------
    >>> import sosie
    >>> with sosie.use_convolutions("library"):
    ...     chosen_convolutions()
    'library'
    """
    chosen = _chosen.get()
    if chosen is not None:
        return chosen
    named = os.environ.get(_VARIABLE) or "auto"
    _check(named, _VARIABLE)
    return named


@contextmanager
def use_convolutions(name: str) -> Iterator[None]:
    """Choose the convolutions of recurrent layers inside a ``with`` block (this thread, this task).

    Results of both agree within rounding: errors of sosie's own, measured against float64, are up
    to twice those of sums in float32.

    Parameters
    ----------
    name : {"auto", "library", "winograd"}
        Torch's convolutions; sosie's own wherever they can be computed with; or, by default, these
        where they were measured to be faster.

    Raises
    ------
    ValueError
        The name is another.

    Examples
    --------
    >>> import torch, sosie
    >>> layer = sosie.nn.ConvLSTM(3, 8)
    >>> with sosie.use_convolutions("winograd"):
    ...     output, (h, c) = layer(torch.ones(2, 1, 3, 16, 16))
    """
    _check(name, "convolutions")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def _check(name: str, what: str) -> None:
    if name not in _NAMES:
        raise ValueError(f"expected {what} out of {', '.join(_NAMES)}, got {name!r}")
