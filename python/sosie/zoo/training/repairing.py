# SPDX-License-Identifier: Apache-2.0
"""Learning to repair: undo damage that was done on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import sosie
from sosie.zoo.data import ImageCollection, centre_crop, to_tensor
from sosie.zoo.degradations import Degradation
from sosie.zoo.model import RepairModel
from sosie.zoo.noise import Noise, derived_seed
from sosie.zoo.training.objective import Judge, Objective, Pixels, Update

__all__ = ["Loss", "Repairing"]

#: From repaired and original images (N, C, H, W) to a scalar.
Loss = Callable[[Tensor, Tensor], Tensor]

#: Images to judge by, their longest side, and how many of them are shown, cropped to a square.
_MOST, _LONGEST_SIDE, _SHOWN, _SHOWN_SIDE = 24, 256, 6, 96
#: Seed of the damage that is judged by; the same for all trainings, so that they compare.
_SEED = 2024


class Repairing(Objective):
    """Every estimate on the way to the repaired image is to be near the original."""

    criterion, higher_is_better = "ssim", True

    def __init__(self, model: RepairModel, loss: Loss, degradation: Degradation) -> None:
        self.model, self.loss, self.degradation = model, loss, degradation

    def networks(self) -> dict[str, nn.Module]:
        """See :meth:`Objective.networks`."""
        return {"model": self.model}

    def step(
        self, batch: dict[str, Tensor], step: int, noise: Noise, update: Update
    ) -> dict[str, Tensor]:
        """See :meth:`Objective.step`."""
        del step, noise
        images = batch["images"]
        stages = self.model.stages(batch["damaged"], batch["known"])
        loss = torch.stack([self.loss(stage, images) for stage in stages]).mean()
        update("model", loss)
        return {"loss": loss}

    def judge(self, images: ImageCollection, device: torch.device) -> Judge:
        """See :meth:`Objective.judge`."""
        return _RepairJudge(images.validation, self.degradation, self.model.channels, device)


class _RepairJudge(Judge):
    """PSNR and SSIM of repaired images, each the mean over the images."""

    def __init__(
        self,
        images: Sequence[Pixels],
        degradation: Degradation,
        channels: int,
        device: torch.device,
    ) -> None:
        self._cases = []
        for index in range(min(_MOST, len(images))):
            pixels = centre_crop(images[index], (_LONGEST_SIDE, _LONGEST_SIDE))
            original = to_tensor(pixels, channels)[None]
            generator = torch.Generator().manual_seed(derived_seed(_SEED, index))
            damaged, known = degradation(original, generator=generator)
            self._cases.append(tuple(each.to(device) for each in (original, damaged, known)))

    @torch.no_grad()
    def measure(self, model: Any) -> dict[str, float]:
        """See :meth:`Judge.measure`."""
        values = []
        for original, damaged, known in self._cases:
            repaired = model(damaged, known).clamp(0.0, 1.0)
            psnr = sosie.psnr(repaired, original, data_range=1.0)
            ssim = sosie.ssim(repaired, original, data_range=1.0)
            values.append((float(psnr), float(ssim)))
        psnr, ssim = (sum(column) / len(values) for column in zip(*values, strict=True))
        return {"psnr": psnr, "ssim": ssim}

    @torch.no_grad()
    def grid(self, model: Any) -> Tensor:
        """Damaged, repaired, original: a column for each image."""
        side = min(_SHOWN_SIDE, *(min(original.shape[2:]) for original, _, _ in self._cases))
        columns = []
        for original, damaged, known in self._cases[:_SHOWN]:
            repaired = model(damaged, known)
            top, left = ((length - side) // 2 for length in original.shape[2:])
            rows = torch.cat([damaged, repaired, original])
            columns.append(rows[..., top : top + side, left : left + side])
        return torch.stack(columns, 1)
