# SPDX-License-Identifier: Apache-2.0
"""The SSIM family by its float64 definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sosie.arrays import Adapter, Array, adapter
from sosie.backends.reference._results import give_back, gradient
from sosie.reference import ssim as definition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sosie.spec import SSIMParameters

__all__ = [
    "downsample_backward",
    "downsample_forward",
    "ssim_backward",
    "ssim_forward",
    "ssim_loss",
    "ssim_with_gradient",
]


def _numpy_mask(library: Adapter, mask: Array | None) -> Array | None:
    return None if mask is None else library.to_numpy(mask)


def ssim_forward(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    return_map: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array | None]:
    """Mean of the map per plane, float64 ``(N, C)``, and the map if wanted."""
    library = adapter(x)
    values, similarity_map = definition.ssim_forward(
        library.to_numpy(x), library.to_numpy(y), parameters,
        mask=_numpy_mask(library, mask), kind=kind,
    )  # fmt: skip
    return (
        give_back(library, values, x, "float64"),
        give_back(library, similarity_map, x) if return_map else None,
    )


def ssim_backward(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    upstream: Array,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array | None, Array | None]:
    """Gradients for x and y. ``upstream`` belongs to the values ``(N, C)`` or to the map."""
    library = adapter(x)
    grad_x, grad_y = definition.ssim_backward(
        library.to_numpy(x), library.to_numpy(y), parameters, library.to_numpy(upstream),
        mask=_numpy_mask(library, mask), kind=kind,
    )  # fmt: skip
    return gradient(library, grad_x, x, need_x), gradient(library, grad_y, y, need_y)


def ssim_with_gradient(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    mask: Array | None = None,
    kind: str = "ssim",
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Values ``(N, C)`` as of :func:`ssim_forward`, and the gradient of each for its planes."""
    values, _ = ssim_forward(x, y, parameters, mask=mask, kind=kind, threads=threads)
    grad_x, grad_y = ssim_backward(
        x, y, parameters, adapter(x).from_numpy(np.ones(tuple(x.shape)[:2]), x),
        mask=mask, kind=kind, need_x=need_x, need_y=need_y, threads=threads,
    )  # fmt: skip
    return values, grad_x, grad_y


def ssim_loss(
    x: Array,
    y: Array,
    parameters: SSIMParameters,
    *,
    ssim_weight: float,
    l1_weight: float,
    mask: Array | None = None,
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,  # noqa: ARG001
) -> tuple[Array, Array, Array | None, Array | None]:
    """SSIM and mean |x - y| per plane, and the gradient of their weighted loss."""
    library = adapter(x)
    ssim_values, l1_values, grad_x, grad_y = definition.ssim_loss(
        library.to_numpy(x), library.to_numpy(y), parameters,
        ssim_weight=ssim_weight, l1_weight=l1_weight, mask=_numpy_mask(library, mask),
    )  # fmt: skip
    return (
        give_back(library, ssim_values, x, "float64"),
        give_back(library, l1_values, x, "float64"),
        gradient(library, grad_x, x, need_x),
        gradient(library, grad_y, y, need_y),
    )


def downsample_forward(
    x: Array,
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    *,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Means over ``factor``-sided boxes of the padded image."""
    library = adapter(x)
    pads = [(before, after) for before, after in padding]
    return give_back(
        library, definition.downsample_forward(library.to_numpy(x), factor, pads, border), x
    )


def downsample_backward(
    grad: Array,
    input_shape: Sequence[int],
    factor: int,
    padding: Sequence[Sequence[int]],
    border: str,
    *,
    threads: int | None = None,  # noqa: ARG001
) -> Array:
    """Adjoint of :func:`downsample_forward`."""
    library = adapter(grad)
    pads = [(before, after) for before, after in padding]
    values = definition.downsample_backward(
        library.to_numpy(grad), input_shape, factor, pads, border
    )
    return give_back(library, values, grad)
