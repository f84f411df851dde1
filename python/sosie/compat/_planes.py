# SPDX-License-Identifier: Apache-2.0
"""Structural similarity of tensors ``(N, C, *spatial)``, in the pieces that drop-ins are made of.

A convention is text here, because compilers take a string for a constant; see `convention`. They
do not trace these functions but call them. What sosie refuses is `NotCovered`: drop-ins have made
the checks of the original before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from sosie.compat._coverage import refused_is_not_covered
from sosie.scales import combine_scales
from sosie.spec import SSIMSpec, ssim_spec
from sosie.ssim import ms_ssim
from sosie.torch import ssim as operators

__all__ = [
    "combined",
    "convention",
    "downsampled",
    "multi_scale",
    "per_axis",
    "similarity_map",
    "values",
]


def per_axis(value: Any, axes: int) -> tuple[Any, ...]:
    """A sequence as it is; a number for every axis."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * axes


def convention(spec: str, **changes: Any) -> str:
    """Text that stands for a spec with changes.

    Parameters
    ----------
    spec : str
        The name of a spec, or what this function has returned.
    **changes
        Fields of `SSIMSpec`, hashable.
    """
    return _encoded(spec, tuple(changes.items()))


@lru_cache(maxsize=256, typed=True)
def _encoded(spec: str, changes: tuple[tuple[str, Any], ...]) -> str:
    with refused_is_not_covered():
        base = _decoded(spec) if spec.startswith("{") else ssim_spec(spec)
        return json.dumps(asdict(base.replace(**dict(changes))))


@lru_cache(maxsize=256)
def _decoded(text: str) -> SSIMSpec:
    return SSIMSpec(**json.loads(text))


def values(x: Tensor, y: Tensor, spec: str, data_range: float, kind: str = "ssim") -> Tensor:
    """Mean similarity or contrast-structure of every plane, ``(N, C)``.

    Parameters
    ----------
    x, y : Tensor, shape (N, C, *spatial)
        Checked with `check_tensors`. Differentiable.
    spec : str
        The convention; it does not downsample here.
    data_range : float
    kind : {"ssim", "cs"}

    Returns
    -------
    Tensor
        float64 for float64 images, else float32.
    """
    with refused_is_not_covered():
        parameters = operators.resolved(_decoded(spec), x.shape[2:], float(data_range))
    return operators.values(x, y, parameters, None, kind)


def similarity_map(
    x: Tensor, y: Tensor, spec: str, data_range: float, kind: str = "ssim"
) -> Tensor:
    """The map that `values` averages, ``(N, C, *map)``."""
    with refused_is_not_covered():
        parameters = operators.resolved(_decoded(spec), x.shape[2:], float(data_range))
    return operators.similarity_map(x, y, parameters, None, kind)


def multi_scale(x: Tensor, y: Tensor, spec: str, data_range: float) -> Tensor:
    """Multi-scale index of every image, ``(N,)``; arguments as for `values`."""
    with refused_is_not_covered():
        result: Tensor = ms_ssim(
            x,
            y,
            spec=_decoded(spec),
            data_range=float(data_range),
            reduction="none",
            spatial_dims=x.ndim - 2,
        )
    return result


def combined(means: Sequence[Tensor], spec: str) -> Tensor:
    """Multi-scale index of every image from the `values` of each scale, finest first."""
    result: Tensor = combine_scales(means, _decoded(spec))
    return result


def downsampled(image: Tensor, spec: str) -> Tensor:
    """The image, reduced if the convention reduces images of its size."""
    with refused_is_not_covered():
        pooling = _decoded(spec).downsampling(tuple(map(int, image.shape[2:])))
    return image if pooling is None else operators.downsample(image, *pooling)


torch.compiler.assume_constant_result(convention)
torch.compiler.allow_in_graph((values, similarity_map, multi_scale, combined, downsampled))
