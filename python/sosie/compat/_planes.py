# SPDX-License-Identifier: Apache-2.0
"""Structural similarity of tensors ``(N, C, *spatial)``, in the pieces that drop-ins are made of.

A convention is the name of a spec and the fields that differ from it. What sosie refuses is
`NotCovered` here: drop-ins have made the checks of the original before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from sosie.compat._coverage import NotCovered, refused_is_not_covered
from sosie.spec import SSIMSpec, ssim_spec
from sosie.ssim import ms_ssim
from sosie.torch import ssim as operators

__all__ = ["check_tensors", "constants", "convention", "multi_scale", "similarity_map", "values"]

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(*tensors: Tensor) -> None:
    """Raise `NotCovered` unless all are dense floating-point tensors of one dtype on the CPU."""
    first = tensors[0]
    for tensor in tensors:
        if tensor.device.type not in ("cpu", "meta"):
            raise NotCovered(f"sosie computes on the CPU here, got a tensor on {tensor.device}")
        if tensor.dtype not in _FLOATING or tensor.layout != torch.strided:
            raise NotCovered(
                f"sosie computes dense floating-point tensors here, got {tensor.dtype}, "
                f"{tensor.layout}"
            )
        if tensor.dtype != first.dtype:
            raise NotCovered(
                f"sosie computes tensors of one dtype, got {first.dtype} and {tensor.dtype}"
            )
        if 0 in tensor.shape:
            raise NotCovered(f"sosie computes no empty images, got shape {tuple(tensor.shape)}")


def constants(tensor: Tensor) -> tuple[float, ...]:
    """Numbers of a vector, for a convention; `NotCovered` where a compiler has none yet."""
    if torch.compiler.is_compiling() or isinstance(tensor, FakeTensor):
        raise NotCovered("sosie takes no numbers from a tensor while its caller is compiled")
    return tuple(tensor.tolist())


def convention(spec: str | SSIMSpec, **changes: Any) -> SSIMSpec:
    """A spec, or that of a name, with changes."""
    with refused_is_not_covered():
        return (ssim_spec(spec) if isinstance(spec, str) else spec).replace(**changes)


def values(x: Tensor, y: Tensor, spec: SSIMSpec, data_range: float, kind: str = "ssim") -> Tensor:
    """Mean similarity or contrast-structure of every plane, ``(N, C)``.

    Parameters
    ----------
    x, y : Tensor, shape (N, C, *spatial)
        Checked with `check_tensors`. Differentiable.
    spec : SSIMSpec
        The convention; it does not downsample here.
    data_range : float
    kind : {"ssim", "cs"}

    Returns
    -------
    Tensor
        float64 for float64 images, else float32.
    """
    with refused_is_not_covered():
        parameters = operators.resolved(spec, x.shape[2:], float(data_range))
    return operators.values(x, y, parameters, None, kind)


def similarity_map(
    x: Tensor, y: Tensor, spec: SSIMSpec, data_range: float, kind: str = "ssim"
) -> Tensor:
    """The map that `values` averages, ``(N, C, *map)``."""
    with refused_is_not_covered():
        parameters = operators.resolved(spec, x.shape[2:], float(data_range))
    return operators.similarity_map(x, y, parameters, None, kind)


def multi_scale(x: Tensor, y: Tensor, spec: SSIMSpec, data_range: float) -> Tensor:
    """Multi-scale index of every image, ``(N,)``; arguments as for `values`."""
    with refused_is_not_covered():
        result: Tensor = ms_ssim(
            x,
            y,
            spec=spec,
            data_range=float(data_range),
            reduction="none",
            spatial_dims=x.ndim - 2,
        )
    return result
