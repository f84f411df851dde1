# SPDX-License-Identifier: Apache-2.0
"""Which executor computes.

An executor is a module with the functions of every family it serves, all with the same signatures:
``native`` (compiled kernels), ``numba`` (the same formulas, compiled at run time) and ``reference``
(float64 NumPy, the specification). For arrays in host memory the first of them that is available is
used, unless ``SOSIE_BACKEND`` or :func:`use_backend` names another.

Arrays on a CUDA device have an executor of their own, whose kernels are launched by the compiled
module (``cuda``) or, where that is missing, compiled at run time by CuPy (``cupy``).
"""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from sosie.arrays import adapter

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["available_backends", "executor", "use_backend"]

#: Executors for host memory in order of preference, and what each needs.
_HOST = {
    "native": "sosie._core",
    "numba": "numba",
    "reference": "numpy",
}
#: Who launches kernels for arrays on CUDA devices, in order of preference.
_DEVICE = ("cuda", "cupy")

_forced: ContextVar[str | None] = ContextVar("sosie_backend", default=None)
_default: Any = None


def executor(array: object) -> Any:
    """Module that computes on ``array``, where it is.

    Raises
    ------
    RuntimeError
        ``SOSIE_BACKEND`` names an executor that is missing here, or unknown; or nobody can compute
        on CUDA devices here.
    TypeError
        The array is not where the executor chosen by :func:`use_backend` computes, or on a device
        that has no executor.
    """
    forced = _forced.get()
    if is_on_device(array):
        return _device_executor(array, forced)
    return _default_executor() if forced is None else _load(forced)


def is_on_device(array: object) -> bool:
    """Whether an array lies in the memory of a device, not the host's."""
    return not isinstance(array, np.ndarray) and adapter(array).on_device(array)


def _device_executor(array: Any, forced: str | None) -> Any:
    kind = getattr(array.device, "type", "cuda")  # CuPy's devices are all CUDA's
    if kind != "cuda":
        raise TypeError(f"expected arrays in host memory or on CUDA devices, got {array.device}")
    if forced is not None:
        raise TypeError(
            f"backend {forced!r} computes on arrays in host memory, got one on {array.device}: "
            "copy it there first, or leave the choice of the backend to its device"
        )
    from sosie.backends import cuda
    from sosie.backends.cuda.launcher import launcher

    launcher()  # says what is missing, if anything is
    return cuda


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with the named executor inside a ``with`` block (this thread, this task).

    Parameters
    ----------
    name : {"native", "numba", "reference", "cuda", "cupy"}
        See :func:`available_backends`. The last two are for arrays on CUDA devices alone, the
        others for arrays in host memory alone.

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
    if name not in _HOST and name not in _DEVICE:
        raise RuntimeError(
            f"expected a backend out of {', '.join((*_HOST, *_DEVICE))}, got {name!r}"
        )
    if name in _DEVICE:
        from sosie.backends.cuda.launcher import use_launcher

        with use_launcher(name):
            yield
        return
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
    from sosie.backends.cuda.launcher import unusable_reason

    host = {name: _reason(needs) for name, needs in _HOST.items()}
    return host | {name: unusable_reason(name) or "available" for name in _DEVICE}


def _reason(needs: str) -> str:
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
