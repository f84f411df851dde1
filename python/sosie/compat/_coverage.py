# SPDX-License-Identifier: Apache-2.0
"""What a drop-in does with arguments that sosie does not compute."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["NotCovered", "error_of", "falling_back", "refused_is_not_covered"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class NotCovered(NotImplementedError):
    """Arguments that the original library takes and sosie does not compute.

    Raised before anything is changed, so that the original can be called instead. The message is a
    sentence that says which argument it is.

    It is a RuntimeError too, which is what torch raises for what it cannot compute.
    """


@contextmanager
def refused_is_not_covered() -> Iterator[None]:
    """Turn what sosie refuses into `NotCovered`, after the original's own checks have passed."""
    try:
        yield
    except (TypeError, ValueError) as reason:
        raise NotCovered(f"sosie does not compute this: {reason}") from reason


def error_of(module: str, name: str, otherwise: type[Exception]) -> type[Exception]:
    """A library's own exception, or another one where the library is not installed."""
    try:
        error: type[Exception] = getattr(importlib.import_module(module), name)
    except ImportError:
        return otherwise
    return error


def falling_back(module: str) -> Callable[[_Function], _Function]:
    """Decorator that hands what is not covered to the function of the same name in ``module``.

    `inspect.unwrap` gives the function without the fallback.
    """

    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except NotCovered as reason:
                original = _original(module, function.__name__, reason)
            return original(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def _original(module: str, name: str, reason: NotCovered) -> Callable[..., Any]:
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ImportError:
        library = module.partition(".")[0]
        raise NotCovered(f"{reason}; {library}, which would, is not installed") from None
    return function
