# SPDX-License-Identifier: Apache-2.0
"""The emulator of CUDA devices as a launcher: every CUDA kernel and its Python, on host memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sosie import backends
from sosie.backends import cuda
from sosie.backends.cuda.launcher import use_launcher

#: Built by ``make test-cuda-emulated``.
LIBRARY = Path(
    os.environ.get(
        "SOSIE_SIMT_LIBRARY",
        Path(__file__).parents[1] / "build/cuda-emulated/tests/simt/libsosie_simt.so",
    )
)
IS_BUILT = LIBRARY.exists()
if not IS_BUILT and os.environ.get("REQUIRE_SIMT"):
    raise RuntimeError(f"the emulator was not built: there is no {LIBRARY}")
needs_emulator = pytest.mark.skipif(
    not IS_BUILT, reason="the emulator was not built (make test-cuda-emulated)"
)

#: What variables of kernels take of a block's shared memory, by ptxas: 272 bytes are the most of
#: those that ask for more at their launch, but for the search for neighbours, which has none.
_OWN_BYTES = 272


@dataclass
class Emulator:
    """A launcher that runs kernels on the CPU, before it returns.

    Attributes
    ----------
    reverse : bool
        Threads and blocks get their turns from the last to the first.
    launched : list of str
        Names of the kernels so far.
    shared_bytes : int
        What a block can have with the kernel's own variables; as of compute capability 9.0.
    """

    reverse: bool = False
    launched: list[str] = field(default_factory=list)
    shared_bytes: int = 227 << 10

    def launch(
        self,
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
        """See ``sosie.backends.cuda.launcher.Launcher``."""
        assert (device, stream) == (0, 0)
        assert shared_bytes <= self.shared_bytes - _OWN_BYTES * ("knn" not in kernel)
        sizes = ctypes.c_uint * 3
        message = ctypes.create_string_buffer(1000)
        failed = ctypes.CDLL(str(LIBRARY)).simt_launch(
            kernel.encode(), sizes(*grid), sizes(*block), ctypes.c_size_t(shared_bytes),
            parameters, ctypes.c_size_t(len(parameters)), ctypes.c_void_p(clear),
            ctypes.c_size_t(clear_bytes), int(self.reverse), message, ctypes.c_size_t(1000),
        )  # fmt: skip
        if failed:
            raise RuntimeError(message.value.decode())
        self.launched.append(kernel)

    def multiprocessors(self, _device: int) -> int:
        """See ``sosie.backends.cuda.launcher.Launcher``; few, so that grids are small."""
        return 4

    def most_shared_bytes(self, _device: int) -> int:
        """See ``sosie.backends.cuda.launcher.Launcher``."""
        return self.shared_bytes


@contextmanager
def emulated(reverse: bool = False, **settings: Any) -> Iterator[Emulator]:
    """Compute with the CUDA kernels on arrays in host memory, within a ``with`` block."""
    emulator = Emulator(reverse, **settings)
    token = backends._forced.set("emulated")
    try:
        with pytest.MonkeyPatch.context() as patch, use_launcher(emulator):
            load = backends._load
            patch.setattr(
                backends, "_load", lambda name: cuda if name == "emulated" else load(name)
            )
            yield emulator
    finally:
        backends._forced.reset(token)


def fetch(result: Any) -> np.ndarray:
    """A result as a NumPy array."""
    if isinstance(result, np.ndarray | np.generic):
        return np.asarray(result)
    return result.cpu().numpy() if hasattr(result, "cpu") else result.get()
