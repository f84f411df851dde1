# SPDX-License-Identifier: Apache-2.0
"""Paired rows by their float64 definition."""

from __future__ import annotations

from sosie.arrays import Array, adapter
from sosie.backends.reference._results import give_back, gradient
from sosie.reference import paired as definition

__all__ = ["cosine_backward", "cosine_forward", "euclidean_backward", "euclidean_forward"]


def euclidean_forward(
    x: Array,
    y: Array,
    axis: int,
    *,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Distances of all pairs of rows along ``axis``."""
    library = adapter(x)
    values = definition.euclidean_forward(library.to_numpy(x), library.to_numpy(y), axis)
    return give_back(library, values, x)


def euclidean_backward(
    x: Array,
    y: Array,
    value: Array,  # noqa: ARG001
    upstream: Array,
    axis: int,
    *,
    need_x: bool = True,
    need_y: bool = True,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``value`` is what the forward pass returned."""
    library = adapter(x)
    grad_x, grad_y = definition.euclidean_backward(
        library.to_numpy(x), library.to_numpy(y), library.to_numpy(upstream), axis
    )
    return gradient(library, grad_x, x, need_x), gradient(library, grad_y, y, need_y)


def cosine_forward(
    x: Array,
    y: Array,
    axis: int,
    floor: float,
    replacement: float,
    *,
    return_norms: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array | None, Array | None]:
    """Similarities of all pairs of rows along ``axis`` and, if wanted, both rows' norms."""
    library = adapter(x)
    value, *norms = definition.cosine_forward(
        library.to_numpy(x), library.to_numpy(y), axis, floor, replacement
    )
    norm_x, norm_y = (give_back(library, norm, x) if return_norms else None for norm in norms)
    return give_back(library, value, x), norm_x, norm_y


def cosine_backward(
    x: Array,
    y: Array,
    value: Array,  # noqa: ARG001
    norm_x: Array,  # noqa: ARG001
    norm_y: Array,  # noqa: ARG001
    upstream: Array,
    axis: int,
    floor: float,
    replacement: float,
    *,
    need_x: bool = True,
    need_y: bool = True,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``value`` and the norms are what the forward pass returned."""
    library = adapter(x)
    grad_x, grad_y = definition.cosine_backward(
        library.to_numpy(x), library.to_numpy(y), library.to_numpy(upstream), axis,
        floor, replacement,
    )  # fmt: skip
    return gradient(library, grad_x, x, need_x), gradient(library, grad_y, y, need_y)
