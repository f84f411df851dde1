# SPDX-License-Identifier: Apache-2.0
"""A recurrent convolutional network that repairs an image a little more in every stage.

Ren, Zuo, Hu, Zhu, Meng, "Progressive image deraining networks: a better and simpler baseline"
(PReNet), CVPR 2019. All stages share their weights. Each sees the damaged image and the last
estimate; what it remembers of the stages before is the state of a convolutional LSTM. Every
estimate is trained, on SSIM. Unlike PReNet's, features pass by the LSTM and the residual blocks
without being rectified, and weights begin so that at first little is added to them: it learns
several times faster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sosie.nn import ConvLSTMCell
from sosie.zoo.filling import mean_of_known
from sosie.zoo.folding import fold, unfold
from sosie.zoo.model import RepairModel
from sosie.zoo.registry import register_model
from sosie.zoo.repair_cnn import ResidualBlock

__all__ = ["RepairRCNN", "RepairRCNNConfig"]


@dataclass(frozen=True)
class RepairRCNNConfig:
    """How a :class:`RepairRCNN` is built.

    Attributes
    ----------
    channels : int
        Of the images.
    width : int
        Channels of the state and of the hidden layers.
    stages : int
        How often an image is repaired. Weights do not depend on it.
    blocks : int
        Residual blocks in a stage, with weights of their own.
    downscale : int
        Side of the squares of pixels that the network sees as channels, as in
        :class:`sosie.zoo.repair_cnn.RepairCNNConfig`; PReNet has 1.
    fill : tuple of float
        Standard deviations, in pixels, of the windows in which known pixels are averaged, the
        narrowest first (:func:`sosie.zoo.filling.mean_of_known`). Repair starts from these means
        where pixels are missing, and elsewhere, at every pixel, from as much of them as the
        network asks for. Without, as in PReNet, it starts from the damaged image, in which
        missing pixels are black.
    """

    channels: int = 3
    width: int = 32
    stages: int = 6
    blocks: int = 5
    downscale: int = 1
    fill: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.stages < 1:
            raise ValueError(f"expected at least 1 stage, got {self.stages}")
        if self.downscale < 1:
            raise ValueError(f"expected a downscale of 1 or more, got {self.downscale}")
        if not all(sigma > 0 for sigma in self.fill):
            raise ValueError(f"expected standard deviations above 0 to fill with, got {self.fill}")


@register_model("repair_rcnn")
class RepairRCNN(RepairModel):
    """Progressive recurrent network; called with ``(damaged, known=None)``.

    Examples
    --------
    >>> model = RepairRCNN(RepairRCNNConfig(width=8, stages=2, blocks=1))
    >>> damaged = torch.rand(1, 3, 20, 31)
    >>> model(damaged).shape, len(model.stages(damaged))
    (torch.Size([1, 3, 20, 31]), 2)
    """

    Config = RepairRCNNConfig

    def __init__(self, config: RepairRCNNConfig) -> None:
        super().__init__(config)
        width, square = config.width, config.downscale**2
        # The damaged image, which of its pixels are known, the last estimate.
        self.enter = nn.Conv2d((2 * config.channels + 1) * square, width, 3, padding=1)
        self.memory = ConvLSTMCell(width, width, 3)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(config.blocks)))
        # What changes each estimate and, if there are means of known pixels, their share in it.
        leaving = config.channels + bool(config.fill)
        self.leave = nn.Conv2d(width, leaving * square, 3, padding=1)
        nn.init.kaiming_normal_(self.enter.weight, nonlinearity="relu")
        # Untrained, it changes images little.
        nn.init.normal_(self.leave.weight, std=1e-3)
        if self.leave.bias is not None:
            nn.init.zeros_(self.leave.bias)

    @property
    def reach(self) -> int:
        """See :attr:`RepairModel.reach`: a square for each convolution on the longest way."""
        # In a stage: entering, memory, two in each block, leaving.
        convolutions = self.config.stages * (3 + 2 * self.config.blocks)
        window = math.ceil(3 * max(self.config.fill, default=0.0))
        return int((convolutions + 1) * self.config.downscale - 1 + window)

    @property
    def alignment(self) -> int:
        """See :attr:`RepairModel.alignment`: the same squares are folded."""
        return int(self.config.downscale)

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {"degradation": "gaussian_noise:0.1", "loss": "ssim", "clip": 1.0}

    def forward(self, damaged: Tensor, known: Tensor | None = None) -> Tensor:
        """See :meth:`RepairModel.forward`."""
        return self.stages(damaged, known)[-1]

    def stages(self, damaged: Tensor, known: Tensor | None = None) -> list[Tensor]:
        """See :meth:`RepairModel.stages`."""
        if known is None:
            known = torch.ones_like(damaged[:, :1])
        side, size = self.config.downscale, damaged.shape[2:]
        seen = fold(torch.cat([damaged, known], 1), side)
        start, to_mean = self._starts(damaged, known)
        estimate, estimates = start, []
        state: tuple[Tensor, Tensor] | None = None
        for _ in range(self.config.stages):
            features = self.enter(torch.cat([seen, fold(estimate, side)], 1))
            state = self.memory(features, state)
            features = self.blocks(features + state[0])
            change = unfold(self.leave(features), side, *size)
            estimate = start + change[:, : self.config.channels]
            if to_mean is not None:
                estimate = estimate + change[:, self.config.channels :].sigmoid() * to_mean
            estimates.append(estimate)
        return estimates

    def _starts(self, damaged: Tensor, known: Tensor) -> tuple[Tensor, Tensor | None]:
        """Where repair starts, and what would lead from there to the mean of known pixels."""
        if not self.config.fill:
            return damaged, None
        mean = mean_of_known(damaged, known, self.config.fill)
        start = torch.where(known > 0, damaged, mean)
        return start, mean - start
