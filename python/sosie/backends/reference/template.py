# SPDX-License-Identifier: Apache-2.0
"""Template search by its float64 definition."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie.arrays import Array, adapter
from sosie.backends.reference._results import give_back
from sosie.reference import template as definition

__all__ = ["template_search"]


def template_search(
    images: Array,
    template: NDArray[Any],
    weights: NDArray[Any] | None,
    dtype: str,
    *,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Map ``(N, H - h + 1, W - w + 1)`` of images ``(N, C, H, W)``, in the given dtype."""
    library = adapter(images)
    result = definition.template_search(library.to_numpy(images), template, weights)
    return give_back(library, np.asarray(result), images, dtype)
