# SPDX-License-Identifier: Apache-2.0
"""One adapter per array library.

A kernel wants an address, a dtype, sizes and strides; a public function wants to give results back
in the library it was called with. An adapter says both for one library. Frameworks are looked up by
the type of the array in hand, so none is imported that the caller has not imported.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sosie.threads import get_num_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

try:
    from sosie._core import address as _address
    from sosie._core import use_large_pages as _use_large_pages
except ImportError:  # no compiled kernels, so nobody to hand an address to in a hurry

    def _address(array: object) -> int:
        address: int = np.asarray(array).__array_interface__["data"][0]
        return address

    def _use_large_pages(address: int, size: int) -> None:
        """Those who write to it one element at a time do not notice."""


__all__ = ["Adapter", "Argument", "Array", "adapter", "check_alike", "is_torch"]

#: An array of a library that has an adapter.
Array = Any

#: What the compiled kernels take: address, dtype code, strides, whether strides are in bytes.
Argument = tuple[int, int, tuple[int, ...], bool]

#: Bytes from which NumPy, too, asks for large pages for its own arrays.
_LARGE = 1 << 22
#: Bytes of a cache line, and of the longest vector; bytes from which results begin on one.
_LINE, _ALIGNED = 64, 1 << 16

#: Codes of ``sosie::DType``. bfloat16 has no NumPy dtype.
CODES = {"uint8": 0, "uint16": 1, "float16": 2, "bfloat16": 3, "float32": 4, "float64": 5}


class Adapter(Protocol):
    """What the rest of the package needs to know of an array library."""

    name: str
    #: The library, for what it has functions for.
    module: Any

    def dtype(self, array: Array) -> str:
        """Name of the array's dtype, as NumPy spells it."""

    def argument(self, array: Array) -> Argument:
        """The array as the kernels take it; it must be kept alive during the call."""

    def kernel_ready(self, array: Array) -> Array:
        """The array itself, or a copy where the kernels cannot walk its memory."""

    def empty(self, like: Array, shape: Sequence[int], dtype: str) -> Array:
        """Uninitialised array on the same device."""

    def empty_like(self, array: Array, dtype: str) -> Array:
        """Uninitialised array of the same shape, with the same order of strides."""

    def broadcast_to(self, array: Array, shape: Sequence[int]) -> Array:
        """View with strides of 0 along the axes that it lacks."""

    def as_mask(self, mask: Array, shape: Sequence[int]) -> Array:
        """Boolean mask broadcast to ``shape`` without a copy, as bytes 0 and 1."""

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """The values as a NumPy array (bfloat16 as float32)."""

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:
        """Values on the device of ``like``."""

    def contiguous(self, array: Array, dtype: str) -> Array:
        """The values in a dtype, in order, where they are; the array itself if it is so already."""

    def address(self, array: Array) -> int:
        """Where the array begins, of any dtype."""

    def product(self, a: Array, b: Array, out: Array) -> None:
        """Write ``a b^T`` of two matrices to a third."""

    def product_uses_tf32(self) -> bool:
        """Whether the library's user allows products of float32 to round to 10 bits."""

    def grouped(self, values: Array, groups: int) -> tuple[Array, Array]:
        """Where whole numbers below ``groups`` are, group by group, and where each group begins.

        Both int64: the places of all, and ``groups + 1`` offsets into them.
        """

    def device(self, array: Array) -> tuple[int, int]:
        """Number of the array's CUDA device and address of the library's current stream on it."""

    def on_device(self, array: Array) -> bool:
        """Whether the array lies in a device's memory, not the host's."""

    def threads(self) -> int:
        """Threads this library's user allows."""


class NumPyAdapter:
    """NumPy arrays, in host memory."""

    name = "numpy"
    module: Any = np

    def dtype(self, array: Array) -> str:
        """See :class:`Adapter`."""
        return _NUMPY_NAMES.get(array.dtype) or array.dtype.name

    def argument(self, array: Array) -> Argument:
        """See :class:`Adapter`."""
        return _address(array), _NUMPY_CODES[array.dtype], array.strides, True

    def kernel_ready(self, array: Array) -> Array:
        """See :class:`Adapter`. Byte-swapped or misaligned memory is copied."""
        if array.flags.aligned and array.dtype.isnative:
            return array
        return np.array(array, dtype=array.dtype.newbyteorder("="))

    def empty(self, like: Array, shape: Sequence[int], dtype: str) -> Array:  # noqa: ARG002
        """See :class:`Adapter`. Large results begin on a cache line.

        NumPy's own begin anywhere on a multiple of 16 bytes. Half of a kernel's stores would then
        touch two lines, and none could go past the caches: a matrix of distances took five times
        as long.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size < _ALIGNED:
            return np.empty(shape, dtype)
        memory = np.empty(size + _LINE, np.uint8)
        first = -_address(memory) % _LINE
        return memory[first : first + size].view(dtype).reshape(shape)

    def empty_like(self, array: Array, dtype: str) -> Array:
        """See :class:`Adapter`."""
        return np.empty_like(array, dtype, subok=False)

    def broadcast_to(self, array: Array, shape: Sequence[int]) -> Array:
        """See :class:`Adapter`."""
        return np.broadcast_to(array, tuple(shape))

    def as_mask(self, mask: Array, shape: Sequence[int]) -> Array:
        """See :class:`Adapter`."""
        return np.broadcast_to(mask, tuple(shape)).view(np.uint8)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """See :class:`Adapter`."""
        values: np.ndarray[Any, Any] = array
        return values

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:  # noqa: ARG002
        """See :class:`Adapter`."""
        return array

    def contiguous(self, array: Array, dtype: str) -> Array:
        """See :class:`Adapter`."""
        return np.ascontiguousarray(array, dtype)

    def address(self, array: Array) -> int:
        """See :class:`Adapter`."""
        return _address(array)

    def product(self, a: Array, b: Array, out: Array) -> None:
        """See :class:`Adapter`."""
        with np.errstate(invalid="ignore", over="ignore"):
            np.matmul(a, b.T, out=out)

    def product_uses_tf32(self) -> bool:
        """See :class:`Adapter`."""
        return False

    def grouped(self, values: Array, groups: int) -> tuple[Array, Array]:
        """See :class:`Adapter`."""
        order = np.argsort(values, kind="stable")
        return order, np.searchsorted(values[order], np.arange(groups + 1))

    def device(self, array: Array) -> tuple[int, int]:  # noqa: ARG002
        """See :class:`Adapter`. Host memory is on no device: only an emulator takes it for one."""
        return 0, 0

    def on_device(self, array: Array) -> bool:  # noqa: ARG002
        """See :class:`Adapter`."""
        return False

    def threads(self) -> int:
        """See :class:`Adapter`."""
        return get_num_threads()


_NUMPY_CODES = {np.dtype(name): code for name, code in CODES.items() if name != "bfloat16"}
_NUMPY_NAMES = {dtype: dtype.name for dtype in _NUMPY_CODES} | {np.dtype(bool): "bool"}
_NUMPY_CODES[np.dtype(bool)] = CODES["uint8"]


class TorchAdapter:
    """torch tensors, in host memory or on CUDA devices."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self.module: Any = torch
        self._torch = torch
        self._dtypes = {name: getattr(torch, name) for name in CODES if hasattr(torch, name)}
        self._names = {dtype: name for name, dtype in self._dtypes.items()}
        self._codes = {dtype: CODES[name] for name, dtype in self._dtypes.items()}
        self._dtypes["int64"] = torch.int64  # of indices
        self._codes[torch.bool] = CODES["uint8"]
        _join_team()

    def dtype(self, array: Array) -> str:
        """See :class:`Adapter`."""
        name = self._names.get(array.dtype)
        return name if name is not None else str(array.dtype).removeprefix("torch.")

    def argument(self, array: Array) -> Argument:
        """See :class:`Adapter`."""
        return array.data_ptr(), self._codes[array.dtype], array.stride(), False

    def kernel_ready(self, array: Array) -> Array:
        """See :class:`Adapter`. A lazy conjugate or negation is carried out."""
        return array.resolve_neg() if array.is_neg() else array

    def empty(self, like: Array, shape: Sequence[int], dtype: str) -> Array:
        """See :class:`Adapter`."""
        return _on_large_pages(
            self._torch.empty(tuple(shape), dtype=self._dtypes[dtype], device=like.device)
        )

    def empty_like(self, array: Array, dtype: str) -> Array:
        """See :class:`Adapter`."""
        return _on_large_pages(
            self._torch.empty_like(array, dtype=self._dtypes[dtype], requires_grad=False)
        )

    def broadcast_to(self, array: Array, shape: Sequence[int]) -> Array:
        """See :class:`Adapter`."""
        return array.expand(tuple(shape))

    def as_mask(self, mask: Array, shape: Sequence[int]) -> Array:
        """See :class:`Adapter`."""
        return mask.expand(tuple(shape))

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """See :class:`Adapter`."""
        detached = array.detach()
        if detached.dtype == self._torch.bfloat16:
            detached = detached.float()
        values: np.ndarray[Any, Any] = detached.cpu().numpy()
        return values

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:
        """See :class:`Adapter`."""
        return self._torch.from_numpy(np.ascontiguousarray(array)).to(like.device)

    def contiguous(self, array: Array, dtype: str) -> Array:
        """See :class:`Adapter`."""
        return array.to(self._dtypes[dtype]).contiguous()

    def address(self, array: Array) -> int:
        """See :class:`Adapter`."""
        address: int = array.data_ptr()
        return address

    def product(self, a: Array, b: Array, out: Array) -> None:
        """See :class:`Adapter`."""
        self._torch.mm(a, b.t(), out=out)

    def product_uses_tf32(self) -> bool:
        """See :class:`Adapter`."""
        settings = self._torch.backends.cuda.matmul
        precision = getattr(settings, "fp32_precision", None)  # torch 2.9
        return bool(settings.allow_tf32) if precision is None else precision == "tf32"

    def grouped(self, values: Array, groups: int) -> tuple[Array, Array]:
        """See :class:`Adapter`."""
        order = self._torch.argsort(values, stable=True)
        numbers = self._torch.arange(groups + 1, device=values.device)
        return order, self._torch.searchsorted(values[order], numbers)

    def device(self, array: Array) -> tuple[int, int]:
        """See :class:`Adapter`."""
        if not array.is_cuda:
            return 0, 0
        index = array.device.index
        return index, self._torch.cuda.current_stream(index).cuda_stream

    def on_device(self, array: Array) -> bool:
        """See :class:`Adapter`. A tensor without data is wherever nothing is computed."""
        return array.device.type not in ("cpu", "meta")

    def threads(self) -> int:
        """See :class:`Adapter`."""
        threads: int = self._torch.get_num_threads()
        return threads


class CuPyAdapter:
    """CuPy arrays, on CUDA devices."""

    name = "cupy"

    def __init__(self) -> None:
        import cupy

        self.module: Any = cupy
        self._cupy = cupy

    def dtype(self, array: Array) -> str:
        """See :class:`Adapter`."""
        return _NUMPY_NAMES.get(array.dtype) or str(array.dtype.name)

    def argument(self, array: Array) -> Argument:
        """See :class:`Adapter`."""
        return array.data.ptr, _NUMPY_CODES[array.dtype], array.strides, True

    def kernel_ready(self, array: Array) -> Array:
        """See :class:`Adapter`."""
        return array

    def empty(self, like: Array, shape: Sequence[int], dtype: str) -> Array:
        """See :class:`Adapter`."""
        with like.device:
            return self._cupy.empty(tuple(shape), dtype)

    def empty_like(self, array: Array, dtype: str) -> Array:
        """See :class:`Adapter`."""
        with array.device:
            return self._cupy.empty_like(array, dtype)

    def broadcast_to(self, array: Array, shape: Sequence[int]) -> Array:
        """See :class:`Adapter`."""
        return self._cupy.broadcast_to(array, tuple(shape))

    def as_mask(self, mask: Array, shape: Sequence[int]) -> Array:
        """See :class:`Adapter`."""
        return self._cupy.broadcast_to(mask, tuple(shape)).view(np.uint8)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """See :class:`Adapter`."""
        values: np.ndarray[Any, Any] = array.get()
        return values

    def from_numpy(self, array: np.ndarray[Any, Any], like: Array) -> Array:
        """See :class:`Adapter`."""
        with like.device:
            return self._cupy.asarray(array)

    def contiguous(self, array: Array, dtype: str) -> Array:
        """See :class:`Adapter`."""
        with array.device:
            return self._cupy.ascontiguousarray(array, dtype)

    def address(self, array: Array) -> int:
        """See :class:`Adapter`."""
        address: int = array.data.ptr
        return address

    def product(self, a: Array, b: Array, out: Array) -> None:
        """See :class:`Adapter`."""
        with out.device:
            self._cupy.matmul(a, b.T, out=out)

    def product_uses_tf32(self) -> bool:
        """See :class:`Adapter`."""
        return os.environ.get("CUPY_TF32") == "1"

    def grouped(self, values: Array, groups: int) -> tuple[Array, Array]:
        """See :class:`Adapter`."""
        with values.device:
            order = self._cupy.argsort(values)  # stable, always
            numbers = self._cupy.arange(groups + 1)
            return order, self._cupy.searchsorted(values[order], numbers)

    def device(self, array: Array) -> tuple[int, int]:
        """See :class:`Adapter`."""
        index = array.device.id
        with array.device:
            return index, self._cupy.cuda.get_current_stream().ptr

    def on_device(self, array: Array) -> bool:  # noqa: ARG002
        """See :class:`Adapter`."""
        return True

    def threads(self) -> int:
        """See :class:`Adapter`."""
        return 1


def _on_large_pages(tensor: Array) -> Array:
    """The tensor, which nobody has written to yet.

    torch gives large tensors back to the system and gets them anew, page by page; with pages of 4
    KiB that takes several times as long as filling them does.
    """
    size = tensor.nbytes
    if size >= _LARGE and tensor.is_cpu:
        _use_large_pages(tensor.data_ptr(), size)
    return tensor


def _join_team() -> None:
    """Lend torch's OpenMP threads to the kernels, where both exist."""
    try:
        from sosie import _core, _openmp
    except ImportError:
        return  # no compiled kernels, or built without OpenMP: they have threads of their own
    _core.use_team(_openmp.team())


_adapters: dict[type, Adapter] = {np.ndarray: NumPyAdapter()}


def adapter(array: Array) -> Adapter:
    """Adapter of the library that ``array`` belongs to.

    Raises
    ------
    TypeError
        The array is of no library that has an adapter.
    """
    found = _adapters.get(type(array))
    return found if found is not None else _find_adapter(array)


def is_torch(array: object) -> bool:
    """Whether ``array`` is a torch tensor; imports nothing."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def _is_cupy(array: object) -> bool:
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def check_alike(x: Array, y: Array, names: str = "x and y") -> None:
    """Raise unless two arrays can be computed with together: one library, dtype and device.

    Parameters
    ----------
    x, y : array
    names : str
        What messages call the two.

    Raises
    ------
    TypeError
        Libraries or dtypes differ, or the dtype is none that is computed with.
    ValueError
        Devices differ.
    """
    library = adapter(x)
    if adapter(y) is not library:
        raise TypeError(
            f"expected {names} of one array library, got {type(x).__module__}.{type(x).__name__} "
            f"and {type(y).__module__}.{type(y).__name__}"
        )
    if x.dtype != y.dtype:
        raise TypeError(f"expected {names} of equal dtype, got {x.dtype} and {y.dtype}")
    if library.dtype(x) not in CODES:
        raise TypeError(f"expected arrays of dtype {', '.join(CODES)}, got {x.dtype}")
    if library.name != "numpy" and x.device != y.device:
        raise ValueError(f"expected {names} on one device, got {x.device} and {y.device}")


def _find_adapter(array: Array) -> Adapter:
    if isinstance(array, np.ndarray):
        found = _adapters[np.ndarray]
    elif is_torch(array):
        found = next((a for a in _adapters.values() if a.name == "torch"), None) or TorchAdapter()
    elif _is_cupy(array):
        found = CuPyAdapter()
    else:
        kind = type(array)
        raise TypeError(
            "expected NumPy arrays, torch tensors or CuPy arrays, "
            f"got {kind.__module__}.{kind.__qualname__}"
        )
    _adapters[type(array)] = found
    return found
