# SPDX-License-Identifier: Apache-2.0
"""Losses of repaired images by name, with weights: ``l1:0.84,ssim:0.16``."""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches

import torch
from torch import Tensor, nn

from sosie.nn import CosineLoss, L1SSIMLoss, MSSSIMLoss, SSIMLoss, WeightedSSDLoss
from sosie.zoo.vae_conv import local_precision

__all__ = ["LossSum", "list_losses", "parse_loss"]


class Charbonnier(nn.Module):
    """Mean of ``sqrt((x - y)^2 + 1e-6)``: nearly L1, with a gradient that is continuous.

    Charbonnier et al., ICIP 1994; with the constant of Lai et al., CVPR 2017.
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scalar."""
        return ((x - y).square() + 1e-6).sqrt().mean()


class PrecisionWeightedSSD(nn.Module):
    """Mean squared error, weighted by :func:`sosie.zoo.vae_conv.local_precision` of the target."""

    def __init__(self) -> None:
        super().__init__()
        self.ssd = WeightedSSDLoss(reduction="mean")

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scalar."""
        loss: Tensor = self.ssd(x, y, local_precision(y))
        return loss


class CosineOfImages(nn.Module):
    """One minus the cosine similarity of images as vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.cosine = CosineLoss()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Scalar."""
        loss: Tensor = self.cosine(x.flatten(1), y.flatten(1))
        return loss


_LOSSES: dict[str, Callable[[], nn.Module]] = {
    "charbonnier": Charbonnier,
    "cosine": CosineOfImages,
    "l1": nn.L1Loss,
    "ms_ssim": lambda: MSSSIMLoss(data_range=1.0),
    "mse": nn.MSELoss,
    "ssim": lambda: SSIMLoss(data_range=1.0),
    "wssd": PrecisionWeightedSSD,
}


class LossSum(nn.Module):
    """Weighted sum of losses; called with ``(prediction, target)`` of shape (N, C, H, W).

    All are means over the batch, so that processes that share a batch can share the gradient. SSIM
    and L1 together are computed in one pass.

    Attributes
    ----------
    weights : dict
        Name to weight.
    """

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)
        parts = dict(weights)
        self._terms: list[tuple[float, nn.Module]] = []
        if {"l1", "ssim"} <= parts.keys():
            ssim, l1 = parts.pop("ssim"), parts.pop("l1")
            both = ssim + l1
            self._terms.append((both, L1SSIMLoss(data_range=1.0, alpha=ssim / both)))
        self._terms += [(weight, _LOSSES[name]()) for name, weight in parts.items()]

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar."""
        # Similarities lose their meaning in half precision; what autocast left is made whole.
        prediction = prediction.to(target.dtype)
        return torch.stack(
            [weight * loss(prediction, target) for weight, loss in self._terms]
        ).sum()

    def extra_repr(self) -> str:
        """The losses and their weights."""
        return ",".join(f"{name}:{weight:g}" for name, weight in self.weights.items())


def list_losses() -> list[str]:
    """Names that :func:`parse_loss` knows."""
    return sorted(_LOSSES)


def parse_loss(text: str) -> LossSum:
    """Losses from text: names with commas between them, each with a weight if it is not 1.

    Raises
    ------
    ValueError
        An unknown name, a weight that is no positive number, a name twice.

    Examples
    --------
    >>> loss = parse_loss("l1:0.84,ssim:0.16")
    >>> image = torch.rand(1, 3, 32, 32)
    >>> abs(round(loss(image, image).item(), 6))
    0.0
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, colon, number = part.strip().partition(":")
        if name not in _LOSSES:
            near = get_close_matches(name, list_losses(), n=3, cutoff=0.5)
            advice = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(_LOSSES)}"
            raise ValueError(f"unknown loss {name!r}; {advice}")
        try:
            weight = float(number) if colon else 1.0
        except ValueError:
            weight = math.nan
        if not 0 < weight < math.inf:
            raise ValueError(f"expected a positive weight after {name}:, got {number!r}")
        if name in weights:
            raise ValueError(f"expected every loss once, got {name} twice")
        weights[name] = weight
    return LossSum(weights)
