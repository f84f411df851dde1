# SPDX-License-Identifier: Apache-2.0
"""The SSD family by its float64 definition."""

from __future__ import annotations

import numpy as np

from sosie.arrays import Adapter, Array, adapter
from sosie.backends._weights import check_weights
from sosie.backends.reference._results import give_back, gradient
from sosie.reference import ssd as definition

__all__ = ["ssd_backward", "ssd_forward", "ssd_loss"]


def ssd_forward(
    x: Array,
    y: Array,
    weight: Array | None = None,
    *,
    per_image: bool = False,
    allow_negative: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Sums of ``w (x - y)^2`` and of ``w`` for each image, float64 ``(N, 2)``."""
    library = adapter(x)
    weights = _checked(library, weight, allow_negative)
    sums = definition.ssd_forward(
        library.to_numpy(x), library.to_numpy(y), weights, per_image=per_image
    )
    return give_back(library, sums, x, "float64")


def ssd_backward(
    x: Array,
    y: Array,
    weight: Array | None,
    upstream: Array,
    *,
    per_image: bool = False,
    need_x: bool = True,
    need_y: bool = False,
    need_weight: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients for x, y and the weights, from those of the sums, ``upstream`` ``(N, 2)``."""
    library = adapter(x)
    grad_x, grad_y, grad_weight = definition.ssd_backward(
        library.to_numpy(x),
        library.to_numpy(y),
        None if weight is None else library.to_numpy(weight),
        library.to_numpy(upstream),
        per_image=per_image,
    )
    return (
        gradient(library, grad_x, x, need_x),
        gradient(library, grad_y, y, need_y),
        None if weight is None else gradient(library, grad_weight, weight, need_weight),
    )


def ssd_loss(
    x: Array,
    y: Array,
    weight: Array | None,
    *,
    mean: bool,
    allow_negative: bool = False,
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array | None, Array | None]:
    """Sums over everything, float64 ``(1, 2)``, and the gradient of their loss.

    The loss is the sum, or with ``mean`` that over the sum of the weights.
    """
    sums = ssd_forward(x, y, weight, allow_negative=allow_negative)
    total = float(sums[0, 1])
    scale = 1.0 if not mean else 0.0 if total == 0.0 else 1.0 / total
    upstream = give_back(adapter(x), np.array([[scale, 0.0]]), x, "float64")
    grad_x, grad_y, _ = ssd_backward(x, y, weight, upstream, need_x=need_x, need_y=need_y)
    return sums, grad_x, grad_y


def _checked(library: Adapter, weight: Array | None, allow_negative: bool) -> Array | None:
    if weight is None:
        return None
    weights = library.to_numpy(weight).astype(np.float64)
    check_weights(min(weights.min(), 0.0), weights[~np.isfinite(weights)].sum(), allow_negative)
    return weights
