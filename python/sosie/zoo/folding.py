# SPDX-License-Identifier: Apache-2.0
"""Squares of pixels folded into channels, and back.

A network that works on folded images does a fraction of the work and sees further (Shi et al.,
"Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
network", CVPR 2016; Zhang, Zuo, Zhang, "FFDNet", TIP 2018).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["fold", "unfold"]


def fold(images: Tensor, side: int) -> Tensor:
    """Squares of ``side`` pixels to channels: (N, C side^2, H / side, W / side), rounded up.

    Pixels at the border are repeated to complete the last squares.
    """
    if side == 1:
        return images
    height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % side, 0, -height % side), mode="replicate")
    return F.pixel_unshuffle(padded, side)


def unfold(folded: Tensor, side: int, height: int, width: int) -> Tensor:
    """What was folded, without what completed the last squares.

    Examples
    --------
    >>> import torch
    >>> images = torch.rand(2, 3, 5, 8)
    >>> fold(images, 2).shape, torch.equal(unfold(fold(images, 2), 2, 5, 8), images)
    (torch.Size([2, 12, 3, 4]), True)
    """
    return folded if side == 1 else F.pixel_shuffle(folded, side)[..., :height, :width]
