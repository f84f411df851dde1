# SPDX-License-Identifier: Apache-2.0
"""Kernels for CUDA devices compiled at run time, by CuPy.

For installations without the compiled module, and devices it has no kernels for. The sources are
those that it is made of. A family is compiled at the first use of one of its kernels on a device, a
kernel at a time; CuPy keeps what it compiled on disk.

The functions are those of ``sosie._cuda``.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any

import cupy
import numpy as np

__all__ = ["launch", "most_shared_bytes", "multiprocessors", "unusable_reason"]

#: What a block may have without asking.
_SHARED_BYTES = 48 << 10
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
            function.max_dynamic_shared_size_bytes = shared_bytes
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


def expression(kernel: str) -> str:
    """A kernel's name with the namespace of the sources before it and its types.

    Examples
    --------
    >>> expression("ssd_forward<half, true>")
    'sosie::ssd_forward<sosie::half, true>'
    """
    return "sosie::" + re.sub(r"\b(half|bfloat16)\b", r"sosie::\1", kernel)


@cache
def source(kernel: str) -> str:
    """Text of the file that a kernel is defined in, with all that it includes.

    One text, as CuPy's cache looks at it and not at files that it includes.
    """
    folder = resources.files("sosie.backends.cupy") / "sources"
    definition = re.compile(rf"__global__[^;{{]*\b{kernel.partition('<')[0]}\(")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".cuh") and definition.search(file.read_text(encoding="utf-8")):
            return _with_includes(file.name, set())
    raise ValueError(f"no source defines a kernel {kernel}")


def _with_includes(name: str, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    folder = resources.files("sosie.backends.cupy") / "sources"
    text = (folder / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
    return re.sub(
        r'^#include "([\w-]+\.cuh)"$',
        lambda match: _with_includes(match.group(1), seen),
        text,
        flags=re.MULTILINE,
    )
