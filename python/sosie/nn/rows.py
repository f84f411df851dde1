# SPDX-License-Identifier: Apache-2.0
"""Losses of paired rows: embeddings, feature maps, normals."""

from __future__ import annotations

import math

from torch import Tensor, nn

from sosie.nn._autocast import of_one_dtype
from sosie.paired import cosine_similarity

__all__ = ["CosineLoss"]

_REDUCTIONS = ("mean", "sum", "none")


class CosineLoss(nn.Module):
    """One minus the cosine similarity of paired rows.

    Parameters
    ----------
    dim : int
        The dimension along which a row lies.
    eps : float
        Least norm of a row: a smaller one counts as ``eps``, so that the loss of a zero row is 1.
    reduction : {"mean", "sum", "none"}
        Average over the rows, their sum, or one loss per row.

    Raises
    ------
    ValueError
        The reduction is unknown or ``eps`` negative; when called, also where shapes do not
        broadcast.
    TypeError
        When called, dtypes differ or are not supported. Under autocast two floating-point dtypes
        may differ: both tensors are then converted to the wider one.

    Notes
    -----
    Called as ``loss(x, y)`` with tensors of equal dtype whose shapes broadcast, as for
    :func:`sosie.cosine_similarity`; differentiable in both, twice.

    Examples
    --------
    >>> import torch
    >>> loss = CosineLoss()
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]], requires_grad=True)
    >>> loss(x, torch.tensor([3.0, 0.0])).item()
    0.5
    """

    def __init__(self, dim: int = -1, eps: float = 1e-8, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"expected a reduction out of {', '.join(map(repr, _REDUCTIONS))}, "
                f"got {reduction!r}"
            )
        if not 0 <= eps < math.inf:
            raise ValueError(f"expected eps to be a finite number of at least 0, got {eps!r}")
        self.dim = dim
        self.eps = eps
        self.reduction = reduction

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss; see the class."""
        x, y = of_one_dtype(x, y)
        loss: Tensor = 1.0 - cosine_similarity(x, y, axis=self.dim, eps=self.eps)
        if self.reduction == "none":
            return loss
        return loss.mean() if self.reduction == "mean" else loss.sum()

    def extra_repr(self) -> str:
        """The options."""
        return f"dim={self.dim}, eps={self.eps}, reduction={self.reduction!r}"
