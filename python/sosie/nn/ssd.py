# SPDX-License-Identifier: Apache-2.0
"""Weighted squared differences as a loss, value and gradient in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sosie.images import check_pair
from sosie.nn._autocast import of_one_dtype
from sosie.ssd import broadcastable_weight, check_elements, weighted_ssd
from sosie.torch import ssd as operators

__all__ = ["WeightedSSDLoss"]

_REDUCTIONS = ("mean", "sum", "none")


class WeightedSSDLoss(nn.Module):
    """Weighted sum of squared differences of two tensors, or its mean.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        The sum of ``w (x - y)^2`` over the sum of the broadcast weights (without weights: the mean
        squared error); the sum; one sum per image ``(N,)``.
    allow_negative : bool
        Accept weights below 0.
    spatial_dims, channel_axis
        As for :func:`sosie.weighted_ssd`; they count for ``"none"`` alone.

    Raises
    ------
    ValueError
        The reduction is unknown; when called, also as :func:`sosie.weighted_ssd` does.
    TypeError
        When called, as :func:`sosie.weighted_ssd` does. Under autocast two floating-point dtypes
        may differ: both images are then converted to the wider one.

    Notes
    -----
    Called as ``loss(x, y, weight=None)``. The result is float32, or float64 for float64 images, and
    differentiable in images and weights, any number of times. With "mean" and "sum" the gradient
    of the images is computed along with the loss, unless the weights need one too: the backward
    pass then reads the images again.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import WeightedSSDLoss
    >>> x = torch.tensor([[1.0, 5.0]], requires_grad=True)
    >>> loss = WeightedSSDLoss()(x, torch.tensor([[0.0, 2.0]]), torch.tensor([3.0, 1.0]))
    >>> loss.backward()
    >>> loss.item(), x.grad
    (3.0, tensor([[1.5000, 1.5000]]))
    """

    def __init__(
        self,
        *,
        reduction: str = "mean",
        allow_negative: bool = False,
        spatial_dims: int = 2,
        channel_axis: int | None = None,
    ) -> None:
        super().__init__()
        if reduction not in _REDUCTIONS:
            raise ValueError(
                f"expected a reduction out of {', '.join(map(repr, _REDUCTIONS))}, "
                f"got {reduction!r}"
            )
        self.reduction = reduction
        self.allow_negative = allow_negative
        self.spatial_dims = spatial_dims
        self.channel_axis = channel_axis

    def extra_repr(self) -> str:
        """The options that are not the default."""
        defaults = {
            "reduction": "mean", "allow_negative": False, "spatial_dims": 2, "channel_axis": None
        }  # fmt: skip
        return ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name, default in defaults.items()
            if getattr(self, name) != default
        )

    def forward(self, x: Tensor, y: Tensor, weight: Tensor | float | None = None) -> Tensor:
        """Loss of ``x`` against ``y``; see the class."""
        if self.reduction == "none":
            result: Tensor = weighted_ssd(
                x, y, weight, reduction="none", allow_negative=self.allow_negative,
                spatial_dims=self.spatial_dims, channel_axis=self.channel_axis,
            )  # fmt: skip
            return result
        return _loss(x, y, weight, self.reduction == "mean", self.allow_negative)


def _loss(
    x: Tensor, y: Tensor, weight: Tensor | float | None, mean: bool, allow_negative: bool
) -> Tensor:
    """The fused loss. Compilers do not trace this function but call it while they trace."""
    x, y = of_one_dtype(x, y)
    check_pair(x, y)
    check_elements(x)
    return operators.loss(x, y, broadcastable_weight(weight, x), mean, allow_negative)


torch.compiler.allow_in_graph(_loss)
