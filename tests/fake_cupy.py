# SPDX-License-Identifier: Apache-2.0
"""As much of CuPy as sosie uses, on NumPy arrays: devices with streams, and no way to the host.

What CuPy would do by copying to the host, or by waiting for the device, raises here.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class Device:
    """A device as CuPy has it; in a ``with`` block it is the current one."""

    current = 0

    def __init__(self, number: int) -> None:
        self.id = number

    def __enter__(self) -> Any:
        self.before, Device.current = Device.current, self.id
        return self

    def __exit__(self, *_: object) -> None:
        Device.current = self.before

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"


class DeviceArray(NDArrayOperatorsMixin):
    """A NumPy array that says it is on a device, and is no NumPy array."""

    def __init__(self, values: Any, device: int = 0) -> None:
        self.values, self.device = np.asarray(values), Device(device)
        self.data = types.SimpleNamespace(ptr=self.values.ctypes.data)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.values, name)
        if callable(found):
            return lambda *a, **k: self._here(found(*_host(a), **_host(k)))
        return self._here(found)

    def __getitem__(self, index: Any) -> Any:
        return self._here(self.values[_host(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.values[_host(index)] = _host(value)

    def __len__(self) -> int:
        return len(self.values)

    def __array_ufunc__(self, function: Any, method: str, *a: Any, **k: Any) -> Any:
        return self._here(getattr(function, method)(*_host(a), **_host(k)))

    def __array_function__(self, function: Any, _types: Any, a: Any, k: Any) -> Any:
        return self._here(function(*_host(a), **_host(k)))

    def _here(self, result: Any) -> Any:
        return _on_device(result, self.device.id)

    def __array__(self, *_a: Any, **_k: Any) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def get(self) -> Any:
        raise AssertionError("a copy to the host")

    def __bool__(self) -> bool:
        raise AssertionError("the host waits for the device")

    __float__ = __int__ = __index__ = __bool__  # type: ignore[assignment]


def _host(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value.values
    if isinstance(value, (tuple, list)):
        return type(value)(_host(item) for item in value)
    return {key: _host(item) for key, item in value.items()} if isinstance(value, dict) else value


def _on_device(value: Any, device: int) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        return DeviceArray(value, device)
    return value


def module() -> Any:
    """What ``import cupy`` gives: NumPy's functions, on the current device.

    Streams are numbered 100 times their device.
    """

    class CuPy(types.ModuleType):
        ndarray = DeviceArray
        cuda = types.SimpleNamespace(
            get_current_stream=lambda: types.SimpleNamespace(ptr=100 * Device.current)
        )

        def __getattr__(self, name: str) -> Any:
            found = getattr(np, name)
            if not callable(found) or isinstance(found, type):
                return found
            return lambda *a, **k: _on_device(found(*_host(a), **_host(k)), Device.current)

    return CuPy("cupy")
