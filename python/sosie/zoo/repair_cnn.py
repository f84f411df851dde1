# SPDX-License-Identifier: Apache-2.0
"""A plain stack of convolutions that predicts what is wrong with an image.

Zhang, Zuo, Chen, Meng, Zhang, "Beyond a Gaussian denoiser: residual learning of deep CNN for image
denoising" (DnCNN), IEEE TIP 2017. Noise, blur, JPEG artefacts, and the errors of bicubic
enlargement (Kim, Lee, Lee, CVPR 2016) are all small differences to be removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

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
    downscale : int
        Squares of so many pixels along a side are folded into channels before the first convolution
        and unfolded after the last, as in FFDNet (Zhang, Zuo, Zhang, TIP 2018), where it is 2: a
        quarter of the work for a network that sees twice as far. 1 folds nothing.
    """

    channels: int = 3
    depth: int = 7
    width: int = 32
    batch_norm: bool = False
    downscale: int = 1

    def __post_init__(self) -> None:
        if self.depth < 2:
            raise ValueError(f"expected a depth of 2 or more, got {self.depth}")
        if self.downscale < 1:
            raise ValueError(f"expected a downscale of 1 or more, got {self.downscale}")


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
        layers: list[nn.Module] = [nn.Conv2d(folded, width, 3, padding=1), nn.ReLU()]
        for _ in range(config.depth - 2):
            layers.append(nn.Conv2d(width, width, 3, padding=1, bias=not config.batch_norm))
            layers += [nn.BatchNorm2d(width)] if config.batch_norm else []
            layers.append(nn.ReLU())
        layers.append(nn.Conv2d(width, folded, 3, padding=1))
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        last = layers[-1]
        # Untrained, it changes images little.
        nn.init.normal_(last.weight, std=1e-3)  # type: ignore[arg-type]
        self.model = nn.Sequential(*layers)

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {
            "degradation": "gaussian_noise:0.1",
            "loss": "l1:0.16,ssim:0.84",
        }

    def forward(self, damaged: Tensor, known: Tensor | None = None) -> Tensor:
        """See :meth:`RepairModel.forward`."""
        del known
        fold = self.config.downscale
        if fold == 1:
            residual: Tensor = self.model(damaged)
            return damaged - residual
        height, width = damaged.shape[2:]
        # Repeated pixels complete the last squares.
        padded = F.pad(damaged, (0, -width % fold, 0, -height % fold), mode="replicate")
        residual = F.pixel_shuffle(self.model(F.pixel_unshuffle(padded, fold)), fold)
        return damaged - residual[..., :height, :width]
