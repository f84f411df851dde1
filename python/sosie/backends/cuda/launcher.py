# SPDX-License-Identifier: Apache-2.0
"""The one place where kernels are launched.

Two can launch a kernel by its name: the compiled module ``_cuda``, and where that was not built
CuPy, which compiles the same sources at run time.
"""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sosie.arrays import Adapter, Array

__all__ = ["Launcher", "launch", "launcher", "unusable_reason", "use_launcher"]

Size = tuple[int, int, int]

#: Blocks of a grid along each axis that every device takes.
_MOST_BLOCKS = (2**31 - 1, 65535, 65535)


class Launcher(Protocol):
    """Who launches; the functions of ``_cuda``."""

    def launch(
        self,
        kernel: str,
        grid: Size,
        block: Size,
        shared_bytes: int,
        parameters: bytes,
        device: int,
        stream: int,
        clear: int,
        clear_bytes: int,
    ) -> None:
        """Launch a kernel on a stream of a device, after `clear_bytes` at `clear` became 0."""

    def multiprocessors(self, device: int) -> int:
        """How many streaming multiprocessors a device has."""

    def most_shared_bytes(self, device: int) -> int:
        """Dynamic shared memory that a block can have."""


#: Modules that launch, in order of preference.
_MODULES = {"cuda": "sosie._cuda", "cupy": "sosie.backends.cupy"}

_forced: ContextVar[Launcher | None] = ContextVar("sosie_launcher", default=None)
_default: Launcher | None = None


def launcher() -> Launcher:
    """The launcher in use.

    Raises
    ------
    RuntimeError
        Nobody can launch here; the message says why, and what to install.
    """
    global _default  # noqa: PLW0603
    forced = _forced.get()
    if forced is not None:
        return forced
    if _default is None:
        reasons = {name: unusable_reason(name) for name in _MODULES}
        usable = [name for name, reason in reasons.items() if reason is None]
        if not usable:
            raise RuntimeError(
                "arrays on a CUDA device cannot be computed with: "
                + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            )
        _default = _load(usable[0])
    return _default


@contextmanager
def use_launcher(chosen: str | Launcher) -> Iterator[None]:
    """Launch with "cuda", "cupy" or an object in a ``with`` block (this thread, this task).

    Raises
    ------
    RuntimeError
        It is not available; the message says why.
    """
    if isinstance(chosen, str):
        reason = unusable_reason(chosen)
        if reason is not None:
            raise RuntimeError(f"backend {chosen!r} is not available: {reason}")
        chosen = _load(chosen)
    token = _forced.set(chosen)
    try:
        yield
    finally:
        _forced.reset(token)


def unusable_reason(name: str) -> str | None:
    """Why "cuda" or "cupy" cannot launch here, or None."""
    try:
        module: Any = importlib.import_module(_MODULES[name])
    except ImportError as error:
        if name == "cuda":
            return "this build has no module for CUDA (it needs nvcc, see SOSIE_CUDA)"
        return f"CuPy cannot be imported ({error}); it is in the package cupy-cuda12x or -cuda13x"
    return module.unusable_reason() or None


def _load(name: str) -> Launcher:
    return cast("Launcher", importlib.import_module(_MODULES[name]))


def launch(
    library: Adapter,
    array: Array,
    kernel: str,
    blocks: int | Size,
    threads: int | Size,
    parameters: Any,
    *,
    shared_bytes: int = 0,
    clear: tuple[int, int] = (0, 0),
) -> None:
    """Launch a kernel where `array` is, on the current stream of its library.

    Parameters
    ----------
    library : Adapter
        That of the array.
    array : array
        Any of those that the kernel works on.
    kernel : str
        Its name with template arguments, as the list of its family has it.
    blocks, threads : int or (x, y, z)
        Sizes of grid and blocks.
    parameters : ctypes.Structure
        The kernel's argument.
    shared_bytes : int
        Dynamic shared memory of a block.
    clear : (address, bytes)
        Device memory that is zeroed first.

    Raises
    ------
    ValueError
        There are more blocks than a grid can have.
    """
    device, stream = library.device(array)
    grid = (blocks, 1, 1) if isinstance(blocks, int) else blocks
    if any(count > most for count, most in zip(grid, _MOST_BLOCKS, strict=True)):
        raise ValueError(
            f"expected arrays for which at most {_MOST_BLOCKS} blocks of {kernel} are launched, "
            f"got {grid}: compute them in parts"
        )
    launcher().launch(
        kernel,
        grid,
        (threads, 1, 1) if isinstance(threads, int) else threads,
        shared_bytes,
        bytes(parameters),
        device,
        stream,
        *clear,
    )
