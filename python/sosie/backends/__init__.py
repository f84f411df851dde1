# SPDX-License-Identifier: Apache-2.0
"""Which executor computes.

An executor is a module with the functions of every family it serves, all with the same signatures:
``native`` (compiled kernels), ``numba`` (the same formulas, compiled at run time) and ``reference``
(float64 NumPy, the specification). For arrays in host memory the first of them that is available is
used, unless ``SOSIE_BACKEND`` or :func:`use_backend` names another.
"""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["available_backends", "executor", "use_backend"]

#: Executors for host memory in order of preference, and what each needs.
_HOST = {
    "native": "sosie._core",
    "numba": "numba",
    "reference": "numpy",
}
#: Executors for other memory: their arrays choose them.
_DEVICE = {"cupy": "cupy"}

_forced: ContextVar[str | None] = ContextVar("sosie_backend", default=None)
_default: Any = None


def executor(array: object) -> Any:
    """Module that computes on ``array``, a NumPy array or a torch tensor in host memory.

    Raises
    ------
    RuntimeError
        ``SOSIE_BACKEND`` names an executor that is missing here, or unknown.
    TypeError
        The array lies on a device that has no executor.
    """
    device = getattr(array, "device", None)
    if device is not None and getattr(device, "type", "cpu") not in ("cpu", "meta"):
        raise TypeError(f"expected arrays in host memory (NumPy, torch CPU), got one on {device}")
    forced = _forced.get()
    return _default_executor() if forced is None else _load(forced)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with the named executor inside a ``with`` block (this thread, this task).

    Parameters
    ----------
    name : {"native", "numba", "reference"}
        See :func:`available_backends`.

    Raises
    ------
    RuntimeError
        It is not available; the message says why.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x = np.zeros((16, 16), np.float32)
    >>> with sosie.use_backend("reference"):
    ...     value = sosie.ssim(x, x, data_range=1.0)
    >>> float(value)
    1.0
    """
    _load(name)
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def available_backends() -> dict[str, str]:
    """Every executor, with "available" or the reason why it is missing.

    Examples
    --------
    >>> import sosie
    >>> sosie.available_backends()["reference"]
    'available'
    """
    return {name: _reason(needs) for name, needs in (_HOST | _DEVICE).items()}


def _reason(needs: str) -> str:
    if needs == "cupy":
        return "no kernels for CuPy arrays yet; CuPy arrays are refused"
    try:
        importlib.import_module(needs)
    except ImportError as error:
        return f"{needs} cannot be imported: {error}"
    return "available"


def _load(name: str) -> Any:
    if name not in _HOST:
        raise RuntimeError(f"expected a backend out of {', '.join(_HOST)}, got {name!r}")
    reason = _reason(_HOST[name])
    if reason != "available":
        raise RuntimeError(f"backend {name!r} is not available: {reason}")
    return importlib.import_module(f"sosie.backends.{name}")


def _default_executor() -> Any:
    global _default  # noqa: PLW0603
    if _default is None:
        named = os.environ.get("SOSIE_BACKEND")
        usable = (name for name, needs in _HOST.items() if _reason(needs) == "available")
        _default = _load(named or next(usable))
    return _default
