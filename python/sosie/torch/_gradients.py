# SPDX-License-Identifier: Apache-2.0
"""What the operators of every family share: dtypes of results, gradients asked for or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["computed_dtype", "fake_gradient", "or_empty", "pull_back_gradient"]


def computed_dtype(x: Tensor) -> torch.dtype:
    """What values are computed and returned in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def or_empty(gradient: Tensor | None, x: Tensor) -> Tensor:
    """An operator returns a tensor even where no gradient was asked for: one of length 0."""
    return x.new_empty(0) if gradient is None else gradient


def fake_gradient(x: Tensor, needed: bool) -> Tensor:
    """What `or_empty` returns for the gradient of ``x``, without data."""
    if not needed:
        return x.new_empty(0)
    return torch.empty_like(x, dtype=x.dtype if x.is_floating_point() else torch.float32)


def pull_back_gradient(
    function: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    upstream: Tensor,
    cotangent_x: Tensor,
    cotangent_y: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivative of ``(x, y, upstream) -> gradient of <upstream, function(x, y)>``, transposed.

    Cotangents of length 0 belong to gradients that were not asked for.
    """

    def gradient(x: Tensor, y: Tensor, upstream: Tensor) -> Any:
        return torch.func.vjp(function, x, y)[1](upstream)

    pull_back = torch.func.vjp(gradient, x, y, upstream)[1]
    result: tuple[Tensor, Tensor, Tensor] = pull_back(
        (
            cotangent_x if cotangent_x.shape == x.shape else torch.zeros_like(x),
            cotangent_y if cotangent_y.shape == y.shape else torch.zeros_like(y),
        )
    )
    return result
