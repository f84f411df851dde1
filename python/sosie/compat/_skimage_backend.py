# SPDX-License-Identifier: Apache-2.0
"""sosie as a backend of scikit-image 0.26 and later: what its two entry points lead to.

scikit-image asks every installed backend before it computes what it dispatches, and warns of each
call that it hands on (``DispatchNotification``); ``SKIMAGE_NO_DISPATCHING=1`` turns this off. It
dispatches ``mean_squared_error`` and ``normalized_root_mse``;
``structural_similarity`` will follow here as soon as it is dispatched there.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["can_has", "get_implementation", "information"]

_SUPPORTED = (
    "skimage.metrics:mean_squared_error",
    "skimage.metrics:normalized_root_mse",
    "skimage.metrics:structural_similarity",
)


@dataclass(frozen=True)
class Information:
    """What scikit-image reads without loading the backend."""

    supported_functions: tuple[str, ...] = _SUPPORTED


def information() -> Information:
    """The entry point of the group ``skimage_backend_infos``."""
    return Information()


def can_has(name: str, *images: Any, **options: Any) -> bool:
    """Whether sosie computes a function for these arguments, of which two are images.

    There is no way back from `get_implementation`, so this takes only what is surely computed: two
    NumPy arrays of equal shape, not empty, of booleans, integers or floating-point numbers.
    """
    arguments = (*images, *options.values())
    arrays = [image for image in arguments if isinstance(image, np.ndarray)]
    return (
        name in _SUPPORTED[:2]
        and len(arrays) == 2
        and all(type(array) is np.ndarray and array.dtype.kind in "buif" for array in arrays)
        and arrays[0].shape == arrays[1].shape
        and arrays[0].size > 0
    )


def get_implementation(name: str) -> Callable[..., Any]:
    """sosie's function of a name such as ``skimage.metrics:mean_squared_error``."""
    module = importlib.import_module("sosie.compat.skimage")
    # Without the way back to scikit-image, which would lead here again.
    function: Callable[..., Any] = inspect.unwrap(getattr(module, name.rpartition(":")[2]))
    return function
