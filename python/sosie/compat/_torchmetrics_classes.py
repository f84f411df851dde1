# SPDX-License-Identifier: Apache-2.0
"""The metric classes of `sosie.compat.torchmetrics`, for which torchmetrics is imported.

Each is the original's class; only what an update computes is ours. With one exception: similarities
of single images (``reduction="none"``) are merged over processes that saw unequal numbers of
batches, where the original does not come back.
"""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics
from torch import Tensor
from torchmetrics import image as peer

from sosie.compat._torchmetrics_image import (
    _multiscale_ssim_update,
    _psnr_update,
    _ssim_check_inputs,
    _ssim_update,
)

__all__ = [
    "MultiScaleStructuralSimilarityIndexMeasure",
    "PeakSignalNoiseRatio",
    "StructuralSimilarityIndexMeasure",
]


class _Mergeable(torchmetrics.Metric):
    """A metric whose list of similarities is gathered as one tensor of each process.

    The original gathers it item by item: processes with fewer items do not come back.
    """

    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        states: Any = self
        if isinstance(states.similarity, list):
            empty = torch.empty(0, device=self.device)
            states.similarity = [torch.cat([empty, *states.similarity])]
        super()._sync_dist(*args, **kwargs)


class StructuralSimilarityIndexMeasure(_Mergeable, peer.StructuralSimilarityIndexMeasure):
    """Structural similarity over batches and processes, as torchmetrics' class.

    States are the sum of the images' similarities and their number, both with the reduction "sum";
    a list where ``reduction`` is none.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import StructuralSimilarityIndexMeasure
    >>> metric = StructuralSimilarityIndexMeasure(data_range=1.0)
    >>> image = torch.rand(2, 1, 32, 32)
    >>> metric.update(image, image)
    >>> round(float(metric.compute()), 5)
    1.0
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of images."""
        preds, target = _ssim_check_inputs(preds, target)
        wants_more = self.return_full_image or self.return_contrast_sensitivity
        result: Any = _ssim_update(
            preds, target, self.gaussian_kernel, self.sigma, self.kernel_size, self.data_range,
            self.k1, self.k2, self.return_full_image, self.return_contrast_sensitivity,
        )  # fmt: skip
        similarity, more = result if wants_more else (result, None)
        if wants_more:
            states: Any = self
            states.image_return.append(more)
        _add(self, similarity, preds.shape[0], counts_lists=False)


class MultiScaleStructuralSimilarityIndexMeasure(
    _Mergeable, peer.MultiScaleStructuralSimilarityIndexMeasure
):
    """Multi-scale structural similarity over batches and processes, as torchmetrics' class.

    States are those of `StructuralSimilarityIndexMeasure`.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of images."""
        preds, target = _ssim_check_inputs(preds, target)
        similarity = _multiscale_ssim_update(
            preds, target, self.gaussian_kernel, self.sigma, self.kernel_size, self.data_range,
            self.k1, self.k2, self.betas, self.normalize,
        )  # fmt: skip
        _add(self, similarity, preds.shape[0], counts_lists=True)


class PeakSignalNoiseRatio(peer.PeakSignalNoiseRatio):
    """Peak signal-to-noise ratio over batches and processes, as torchmetrics' class.

    States are the sum of squared differences and the number of pixels, both with the reduction
    "sum"; lists where ``dim`` is given.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of images."""
        if self.clamping_fn is not None:
            preds, target = self.clamping_fn(preds), self.clamping_fn(target)
        squares, count = _psnr_update(preds, target, dim=self.dim)
        states: Any = self
        if self.dim is None:
            states.sum_squared_error += squares
            states.total += count
        else:
            states.sum_squared_error.append(squares)
            states.total.append(count)


def _add(metric: Any, similarity: Tensor, count: int, *, counts_lists: bool) -> None:
    """Add the similarities of so many images to a metric's states."""
    if metric.reduction in ("elementwise_mean", "sum"):
        metric.similarity += similarity.sum()
        metric.total += count
        return
    metric.similarity.append(similarity)
    if counts_lists:
        metric.total += count
