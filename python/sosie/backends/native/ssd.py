# SPDX-License-Identifier: Apache-2.0
"""The SSD family by the compiled kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sosie import _core
from sosie.arrays import Adapter, Argument, Array, adapter
from sosie.backends._dtypes import gradient_dtype
from sosie.backends._weights import check_weights

__all__ = ["ssd_backward", "ssd_forward", "ssd_loss"]


def ssd_forward(
    x: Array,
    y: Array,
    weight: Array | None = None,
    *,
    per_image: bool = False,
    allow_negative: bool = False,
    threads: int | None = None,
) -> Array:
    """Sums of ``w (x - y)^2`` and of ``w`` for each image, float64 ``(N, 2)``.

    The weights have as many axes as the images, each of the same length or of length 1.
    """
    library = adapter(x)
    x, y, weight = _ready(library, x, y, weight)
    shape = tuple(x.shape)
    sums = library.empty(x, (shape[0] if per_image else 1, 2), "float64")
    found = _core.ssd_forward(
        shape,
        per_image,
        library.argument(x),
        library.argument(y),
        _broadcast(library, weight, shape),
        library.argument(sums)[0],
        library.threads() if threads is None else threads,
    )
    check_weights(*found, allow_negative)
    return sums


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
    threads: int | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """Gradients for x, y and the weights, from those of the sums, ``upstream`` ``(N, 2)``."""
    # A contiguous copy of NumPy's; it holds a few numbers.
    given = np.ascontiguousarray(adapter(x).to_numpy(upstream), np.float64)
    gradients, _ = _gradients(
        x, y, weight, given, per_image, (need_x, need_y, need_weight), True, threads
    )
    return gradients


def ssd_loss(
    x: Array,
    y: Array,
    weight: Array | None,
    *,
    mean: bool,
    allow_negative: bool = False,
    need_x: bool = True,
    need_y: bool = False,
    threads: int | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Sums over everything, float64 ``(1, 2)``, and the gradient of their loss in the same pass.

    The loss is the sum, or with ``mean`` that over the sum of the weights. The gradient of a mean
    needs that sum first: weights of the images' own size are then read twice.
    """
    library = adapter(x)
    scale = 1.0
    if mean:
        count = float(np.prod(x.shape, dtype=float))
        total = count
        if weight is not None:
            # Their sum as they are, times how often each is used.
            own = ssd_forward(
                weight, weight, weight, allow_negative=allow_negative, threads=threads
            )
            total = float(library.to_numpy(own)[0, 1]) * count / float(np.prod(weight.shape))
        scale = 0.0 if total == 0.0 else 1.0 / total
    upstream = np.array([[scale, 0.0]])
    (grad_x, grad_y, _), sums = _gradients(
        x, y, weight, upstream, False, (need_x, need_y, False), allow_negative, threads
    )
    return sums, grad_x, grad_y


def _gradients(
    x: Array,
    y: Array,
    weight: Array | None,
    upstream: NDArray[np.float64],
    per_image: bool,
    needs: tuple[bool, bool, bool],
    allow_negative: bool,
    threads: int | None,
) -> tuple[tuple[Array | None, Array | None, Array | None], Array]:
    library = adapter(x)
    x, y, weight = _ready(library, x, y, weight)
    shape = tuple(x.shape)
    dtype = gradient_dtype(library.dtype(x))
    grad_x = library.empty_like(x, dtype) if needs[0] else None
    grad_y = library.empty_like(y, dtype) if needs[1] else None
    grad_weight, summed = None, None
    if needs[2] and weight is not None:
        if tuple(weight.shape) == shape:
            grad_weight = library.empty_like(weight, library.dtype(weight))
        else:  # added up in double
            summed = library.empty(weight, tuple(weight.shape), "float64")
    sums = library.empty(x, (shape[0] if per_image else 1, 2), "float64")

    def argument(array: Array | None) -> Argument | None:
        return None if array is None else library.argument(array)

    found = _core.ssd_backward(
        shape,
        per_image,
        library.argument(x),
        library.argument(y),
        _broadcast(library, weight, shape),
        _NUMPY_ARGUMENT(upstream)[0],
        argument(grad_x),
        argument(grad_y),
        argument(grad_weight) if summed is None else _broadcast(library, summed, shape),
        library.argument(sums)[0],
        library.threads() if threads is None else threads,
    )
    check_weights(*found, allow_negative)
    if summed is not None:
        grad_weight = library.empty_like(weight, library.dtype(weight))
        grad_weight[...] = summed
    return (grad_x, grad_y, grad_weight), sums


_NUMPY_ARGUMENT = adapter(np.empty(0)).argument


def _ready(
    library: Adapter, x: Array, y: Array, weight: Array | None
) -> tuple[Array, Array, Array | None]:
    ready = library.kernel_ready
    return ready(x), ready(y), None if weight is None else ready(weight)


def _broadcast(library: Adapter, array: Array | None, shape: tuple[int, ...]) -> Argument | None:
    """The array as the kernels take it, walked with strides of 0 along axes it lacks."""
    return None if array is None else library.argument(library.broadcast_to(array, shape))
