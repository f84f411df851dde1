# SPDX-License-Identifier: Apache-2.0
"""What automatic mixed precision asks of a loss."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["of_one_dtype"]


def of_one_dtype(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors in the wider of two floating-point dtypes, if autocast made them differ."""
    if x.dtype == y.dtype or not torch.is_autocast_enabled(x.device.type):
        return x, y
    if not (x.is_floating_point() and y.is_floating_point()):
        return x, y
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)
