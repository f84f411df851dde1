# SPDX-License-Identifier: Apache-2.0
"""Tasks on two arrays on a device, of which the first may get a gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

__all__ = ["PairCase"]


class PairCase(ABC):
    """A task that is called as its users call it, with two tensors.

    Attributes
    ----------
    dtype : str
        Of both.
    gradient : bool
        Whether the gradient of the first is computed as well.
    """

    dtype: str
    gradient: bool

    @property
    def tolerance(self) -> float:
        """Relative, of values: half precision is exact in float32, but peers may compute in it."""
        return 1e-3 if self.dtype in ("float16", "bfloat16") else 1e-5

    @abstractmethod
    def functions(self) -> dict[str, Callable[[Any, Any], Any]]:
        """Functions of both tensors, sosie's first; who is not installed is left out."""

    def contenders(self) -> dict[str, Callable[[Any], Any]]:
        """The same as functions of pairs."""

        def of_pair(function: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
            return lambda pair: function(*pair)

        return {who: of_pair(function) for who, function in self.functions().items()}

    def timed(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What is timed: the function, with the gradient of its sum where that is the task."""
        import torch

        def call(pair: Any) -> Any:
            if not self.gradient:
                with torch.no_grad():
                    return function(pair)
            pair[0].grad = None
            return function(pair).sum().backward()

        return call
