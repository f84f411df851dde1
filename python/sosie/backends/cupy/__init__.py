# SPDX-License-Identifier: Apache-2.0
"""Kernels for CUDA devices compiled at run time, by CuPy.

For installations without the compiled module, and, by ``sosie.use_backend("cupy")``, for devices
that it has no kernels for. The sources are those that it is made of. A kernel is compiled at its
first use on a device; CuPy keeps what it compiled on disk.

The functions are those of ``sosie._cuda``.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cupy
import numpy as np

from sosie.backends.cuda.sources import expression, source

__all__ = ["launch", "most_shared_bytes", "multiprocessors", "unusable_reason"]

#: Less than what a block may have without asking: 48 KiB, with the kernel's own variables.
_SHARED_BYTES = 40 << 10
_OPTIONS = ("-std=c++17",)


def launch(
    kernel: str,
    grid: tuple[int, int, int],
    block: tuple[int, int, int],
    shared_bytes: int,
    parameters: bytes,
    device: int,
    stream: int,
    clear: int,
    clear_bytes: int,
) -> None:
    """Launch the kernel of that name with a struct, given as bytes, on a stream."""
    with cupy.cuda.Device(device), _stream(stream):
        function = _function(kernel, device)
        if clear_bytes:
            cupy.cuda.runtime.memsetAsync(clear, 0, clear_bytes, stream)
        if shared_bytes > _SHARED_BYTES:
            # For everybody the same: another thread may launch the kernel with another size.
            most = most_shared_bytes(device) - function.shared_size_bytes
            function.max_dynamic_shared_size_bytes = most
        # CuPy hands NumPy's arrays over by value.
        struct = np.frombuffer(parameters, np.uint8)
        function(grid, block, (struct,), shared_mem=shared_bytes)


def multiprocessors(device: int) -> int:
    """Streaming multiprocessors of a device."""
    return int(cupy.cuda.Device(device).attributes["MultiProcessorCount"])


def most_shared_bytes(device: int) -> int:
    """Dynamic shared memory that a block can have."""
    return int(cupy.cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"])


def unusable_reason() -> str:
    """Why there is no device, or an empty text."""
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy finds no usable driver or device ({error})"
    return "" if count else "CuPy finds no CUDA device"


class _Stream:
    """A stream that somebody else made, by the protocol of CUDA's Python libraries."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


def _stream(address: int) -> Any:
    """The stream as CuPy's own, for a ``with`` block."""
    make = getattr(cupy.cuda.Stream, "from_external", None)  # CuPy 14
    return cupy.cuda.ExternalStream(address) if make is None else make(_Stream(address))


@cache
def _function(kernel: str, device: int) -> Any:  # noqa: ARG001
    """The kernel on the current device, compiled if it is the first of its name."""
    name = expression(kernel)
    module = cupy.RawModule(code=source(kernel), options=_OPTIONS, name_expressions=(name,))
    return module.get_function(name)
