# SPDX-License-Identifier: Apache-2.0
"""A plain stack of convolutions that predicts what is wrong with an image.

Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian denoiser: residual learning of deep CNN for image
denoising" (DnCNN), IEEE TIP 2017. Noise, blur, JPEG artefacts, and the errors of bicubic
enlargement (Kim, Lee, Lee, CVPR 2016) are all small differences to be removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sosie.zoo.folding import fold, unfold
from sosie.zoo.model import RepairModel
from sosie.zoo.registry import register_model

__all__ = ["RepairCNN", "RepairCNNConfig"]


@dataclass(frozen=True)
class RepairCNNConfig:
    """How a :class:`RepairCNN` is built.

    Attributes
    ----------
    channels : int
        Of the images.
    depth, width : int
        Convolutions, and channels between them. DnCNN has 17 of 64.
    batch_norm : bool
        Normalise between convolutions, as DnCNN does in training.
    residual : bool
        Every two convolutions but the first and the last are a block that adds to what passes it,
        as in EDSR (Lim, Son, Kim, Nah, Lee, CVPRW 2017). Such networks learn much faster.
    downscale : int
        Side of the squares of pixels that are folded into channels before the first convolution
        and unfolded after the last; FFDNet has 2, DnCNN 1. See :mod:`sosie.zoo.folding`.
    """

    channels: int = 3
    depth: int = 7
    width: int = 32
    batch_norm: bool = False
    residual: bool = False
    downscale: int = 1

    def __post_init__(self) -> None:
        if self.depth < 2:
            raise ValueError(f"expected a depth of 2 or more, got {self.depth}")
        if self.residual and (self.depth % 2 or self.batch_norm):
            raise ValueError(
                "expected an even depth and no batch_norm with residual blocks, "
                f"got depth={self.depth}, batch_norm={self.batch_norm}"
            )
        if self.downscale < 1:
            raise ValueError(f"expected a downscale of 1 or more, got {self.downscale}")


class ResidualBlock(nn.Module):
    """Adds what two convolutions make of features (N, C, H, W); untrained, next to nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        nn.init.normal_(second.weight, std=1e-2)
        self.body = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, features: Tensor) -> Tensor:
        """Shape (N, C, H, W)."""
        added: Tensor = self.body(features)
        return features + added


@register_model("repair_cnn")
class RepairCNN(RepairModel):
    """Residual convolutional network; called with ``(damaged, known=None)``.

    Which pixels are known is not looked at: missing ones are 0, and seen as such.

    Notes
    -----
    Parameters are named by the places of layers and rectifiers in one sequence, ``model.0.weight``,
    ``model.2.weight`` and so on, as in other implementations of DnCNN; so their weights load.

    Examples
    --------
    >>> import torch
    >>> model = RepairCNN(RepairCNNConfig(depth=3, width=8))
    >>> model(torch.rand(1, 3, 20, 31)).shape
    torch.Size([1, 3, 20, 31])
    """

    Config = RepairCNNConfig

    def __init__(self, config: RepairCNNConfig) -> None:
        super().__init__(config)
        width, folded = config.width, config.channels * config.downscale**2
        enter = nn.Conv2d(folded, width, 3, padding=1)
        leave = nn.Conv2d(width, folded, 3, padding=1)
        layers: list[nn.Module]
        if config.residual:
            blocks = [ResidualBlock(width) for _ in range(config.depth // 2 - 1)]
            layers = [enter, *blocks, leave]
        else:
            layers = [enter, nn.ReLU()]
            for _ in range(config.depth - 2):
                layers.append(nn.Conv2d(width, width, 3, padding=1, bias=not config.batch_norm))
                layers += [nn.BatchNorm2d(width)] if config.batch_norm else []
                layers.append(nn.ReLU())
            layers.append(leave)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        # Untrained, it changes images little.
        nn.init.normal_(leave.weight, std=1e-3)
        self.model = nn.Sequential(*layers)

    @property
    def reach(self) -> int:
        """See :attr:`RepairModel.reach`: a square for each convolution."""
        return int((self.config.depth + 1) * self.config.downscale - 1)

    @property
    def alignment(self) -> int:
        """See :attr:`RepairModel.alignment`: the same squares are folded."""
        return int(self.config.downscale)

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {
            "degradation": "gaussian_noise:0.1",
            "loss": "l1:0.16,ssim:0.84",
        }

    def forward(self, damaged: Tensor, known: Tensor | None = None) -> Tensor:
        """See :meth:`RepairModel.forward`."""
        del known
        side = self.config.downscale
        residual: Tensor = unfold(self.model(fold(damaged, side)), side, *damaged.shape[2:])
        return damaged - residual
