# SPDX-License-Identifier: Apache-2.0
"""Batching rules: what an operator does with an axis that ``torch.vmap`` maps over.

Both have the signature of `sosie.torch._register.Operator.vmap`; ``B`` is the length of that axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["map_into_batch", "map_one_by_one"]


def map_into_batch(
    call: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], *arguments: Any
) -> tuple[Any, Any]:
    """Fold the mapped axis into N, for operators whose images do not mix.

    Every tensor argument starts with axis N, but for a boolean mask, which may lack axes of the
    first argument or have length 1 there. Results of one axis or less stay unmapped: they are the
    empty tensors returned for gradients that were not asked for.
    """
    shape = list(arguments[0].shape)
    if in_dims[0] is not None:
        del shape[in_dims[0]]
    folded = [
        _folded(argument, dim, info.batch_size, shape) if isinstance(argument, Tensor) else argument
        for argument, dim in zip(arguments, in_dims, strict=True)
    ]
    results = call(*folded)
    if isinstance(results, Tensor):
        return _unfolded(results, info.batch_size), 0
    out_dims = tuple(0 if result.ndim > 1 else None for result in results)
    return tuple(
        result if dim is None else _unfolded(result, info.batch_size)
        for result, dim in zip(results, out_dims, strict=True)
    ), out_dims


def map_one_by_one(
    call: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], *arguments: Any
) -> tuple[Any, Any]:
    """Call once per element and stack, for operators that reduce over N."""
    results = [
        call(
            *(
                argument if dim is None else argument.select(dim, index)
                for argument, dim in zip(arguments, in_dims, strict=True)
            )
        )
        for index in range(info.batch_size)
    ]
    stacked = tuple(torch.stack(result) for result in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def _unfolded(tensor: Tensor, batch_size: int) -> Tensor:
    return tensor.reshape(batch_size, tensor.shape[0] // batch_size, *tensor.shape[1:])


def _folded(tensor: Tensor, dim: int | None, batch_size: int, shape: list[int]) -> Tensor:
    """``(..., B, ...)``, or without B where nothing is mapped, to ``(B * N, ...)``."""
    tensor = tensor.unsqueeze(0) if dim is None else tensor.movedim(dim, 0)
    if tensor.dtype == torch.bool:
        missing = 1 + len(shape) - tensor.ndim
        tensor = tensor.reshape(tensor.shape[0], *(1,) * missing, *tensor.shape[1:])
        if dim is None and tensor.shape[1] == 1:
            return tensor[0]  # broadcasts over B as it does over N
    return tensor.expand(batch_size, shape[0], *tensor.shape[2:]).flatten(0, 1)
