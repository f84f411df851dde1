# SPDX-License-Identifier: Apache-2.0
"""PyTorch3D: ``knn_points`` and ``knn_gather``, for point clouds on the CPU.

Covered is the norm 2, with up to 1024 neighbours, clouds of different lengths, and gradients for
both sets, in float32 (as there) and float64. Neighbours are always sorted; among equally near
points the first comes first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sosie.compat._coverage import NotCovered, refused_is_not_covered
from sosie.compat._tensors import check_tensors
from sosie.distance import knn

__all__ = ["knn_gather", "knn_points"]

DISTRIBUTION = "pytorch3d"
VERSIONS = ">=0.7.1,<0.8"
SEAMS = {
    "pytorch3d.ops:knn_points": "knn_points",
    "pytorch3d.ops.knn:knn_points": "knn_points",
}


class KNN(NamedTuple):
    """Neighbours of the points of every cloud.

    Attributes
    ----------
    dists : Tensor, shape (N, P1, K)
        Squared distances, ascending; 0 where there is no such point or neighbour.
    idx : Tensor of int64, shape (N, P1, K)
        Indices of the neighbours; 0 where there is none.
    knn : Tensor, shape (N, P1, K, D), or None
        The neighbours themselves.
    """

    dists: Tensor
    idx: Tensor
    knn: Tensor | None


def knn_points(
    p1: Tensor,
    p2: Tensor,
    lengths1: Tensor | None = None,
    lengths2: Tensor | None = None,
    norm: int = 2,
    K: int = 1,
    version: int = -1,  # noqa: ARG001
    return_nn: bool = False,
    return_sorted: bool = True,  # noqa: ARG001
) -> KNN:
    """Nearest points of one cloud for those of another, as ``pytorch3d.ops.knn_points``.

    Parameters
    ----------
    p1, p2 : Tensor, shape (N, P1, D) and (N, P2, D)
        Batches of clouds, differentiable.
    lengths1, lengths2 : Tensor of int64, shape (N,), optional
        How many points of each cloud count.
    norm : int
        2 is computed here.
    K : int
        How many neighbours.
    version, return_sorted
        Of no meaning here.
    return_nn : bool
        Return the neighbours themselves too.

    Returns
    -------
    KNN

    Raises
    ------
    ValueError
        Batches or dimensions differ, or the norm is neither 1 nor 2.
    NotCovered
        The norm 1, other dtypes or devices, more than 1024 neighbours.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.pytorch3d import knn_points
    >>> p1, p2 = torch.tensor([[[0.0]]]), torch.tensor([[[3.0], [1.0]]])
    >>> dists, idx, nearest = knn_points(p1, p2, K=2, return_nn=True)
    >>> dists, idx
    (tensor([[[1., 9.]]]), tensor([[[1, 0]]]))
    """
    if p1.shape[0] != p2.shape[0] or p1.shape[2] != p2.shape[2]:
        raise ValueError(
            "expected clouds of equal batch and dimensions, "
            f"got {tuple(p1.shape)} and {tuple(p2.shape)}"
        )
    if norm not in (1, 2):
        raise ValueError(f"expected norm out of 1, 2, got {norm!r}")
    if norm == 1:
        raise NotCovered("sosie computes the norm 2")
    check_tensors(p1, p2, kernel="knn_forward")
    counts1, counts2 = _counts(lengths1, p1), _counts(lengths2, p2)
    clouds = [
        _neighbours(a[:count1], b[:count2], K, p1.shape[1])
        for a, b, count1, count2 in zip(p1, p2, counts1, counts2, strict=True)
    ]
    dists, idx = (torch.stack(parts) for parts in zip(*clouds, strict=True))
    return KNN(dists, idx, knn_gather(p2, idx, lengths2) if return_nn else None)


def knn_gather(x: Tensor, idx: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Points at the indices that `knn_points` gave, as ``pytorch3d.ops.knn_gather``.

    Parameters
    ----------
    x : Tensor, shape (N, M, U)
    idx : Tensor of int64, shape (N, L, K)
    lengths : Tensor of int64, shape (N,), optional
        How many points of each cloud count.

    Returns
    -------
    Tensor, shape (N, L, K, U)
        0 for neighbours that a cloud is too short for.

    Raises
    ------
    ValueError
        Batches differ.
    """
    if x.shape[0] != idx.shape[0]:
        raise ValueError(f"expected one batch, got {tuple(x.shape)} and {tuple(idx.shape)}")
    batch = torch.arange(x.shape[0], device=x.device)[:, None, None]
    points = x[batch, idx]
    if lengths is None:
        lengths = torch.full((x.shape[0],), x.shape[1], device=x.device)
    missing = lengths[:, None] <= torch.arange(idx.shape[2], device=x.device)
    return points.masked_fill(missing[:, None, :, None], 0.0)


def _neighbours(a: Tensor, b: Tensor, K: int, rows: int) -> tuple[Tensor, Tensor]:
    """Squared distances and indices of shape ``(rows, K)``, 0 where there are none."""
    found = min(K, b.shape[0])
    if a.shape[0] == 0 or found == 0:
        # A gradient of zeros, as from a sum over nothing.
        nothing = (a.sum() + b.sum()).mul(0).expand(rows, K)
        return nothing, torch.zeros((rows, K), dtype=torch.int64, device=a.device)
    with refused_is_not_covered():
        dists, idx = knn(a, b, found, "sqeuclidean")
    padding = (0, K - found, 0, rows - a.shape[0])
    return F.pad(dists, padding), F.pad(idx, padding)


def _counts(lengths: Tensor | None, clouds: Tensor) -> list[int]:
    if lengths is None:
        return [clouds.shape[1]] * clouds.shape[0]
    counts: Any = lengths.tolist()
    return [int(count) for count in counts]
