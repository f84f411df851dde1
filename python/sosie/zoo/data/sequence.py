# SPDX-License-Identifier: Apache-2.0
"""The endless sequence of images that a training sees.

What stands at a position depends on the position and the seed, and on nothing that happened before.
So a training that goes on in the middle, several processes that share a batch, and any number of
workers that prepare it, all see the same images, damaged the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from sosie.zoo.degradations import Degradation
from sosie.zoo.noise import derived_seed

__all__ = ["TrainingSequence", "centre_crop", "to_tensor"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

#: Channels are raised to powers between e^-0.25 and e^0.25.
_LOG_GAMMA = 0.25
#: What a seed is for, where several are derived from one.
_ORDER, _CROP, _DAMAGE = range(3)
#: Shares of red, green and blue in gray, ITU-R BT.601.
_LUMA = np.array([0.299, 0.587, 0.114])


class TrainingSequence(Dataset[dict[str, Tensor]]):
    """Images by their position in a training.

    Parameters
    ----------
    images : sequence of ndarray of uint8, shape (H, W, C)
        Larger ones than the crop are cropped, at random.
    channels : int
        1 or 3: gray is repeated, colour becomes gray.
    crop : tuple of int
        Height and width.
    seed : int
        Of order, crops and damage.
    weights : array, optional
        Probability of each image. Without, all take turns, in a new order every time.
    augment : bool
        Mirror, transpose and recolour crops.
    degradation : Degradation, optional
        Damage to repair.
    labels : array of int, optional
        Class of each image, if all take turns.

    Raises
    ------
    ValueError
        An image is smaller than the crop, or there are labels for another number of images.

    Notes
    -----
    An item holds "images" (channels, *crop), float32 in [0, 1]; with a degradation also "damaged"
    and "known", with labels "labels".
    """

    def __init__(
        self,
        images: Sequence[Pixels],
        *,
        channels: int,
        crop: tuple[int, int],
        seed: int,
        weights: np.ndarray[Any, np.dtype[np.float64]] | None = None,
        augment: bool = False,
        degradation: Degradation | None = None,
        labels: np.ndarray[Any, np.dtype[np.int64]] | None = None,
    ) -> None:
        if not len(images):
            raise ValueError("expected at least one image to train on, got none")
        if labels is not None and (weights is not None or len(labels) != len(images)):
            raise ValueError(
                f"expected a label for each image, all of which take turns, got {len(labels)} "
                f"labels for {len(images)} images{'' if weights is None else ' with weights'}"
            )
        self._images, self._channels, self._crop = images, channels, crop
        self._seed, self._weights = seed, weights
        self._augment, self._degradation, self._labels = augment, degradation, labels
        self._epoch, self._order = -1, np.arange(0)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        image = self._cropped(position)
        if self._labels is not None:
            return {"images": image, "labels": torch.tensor(self._labels[self._turn(position)])}
        if self._degradation is None:
            return {"images": image}
        generator = torch.Generator().manual_seed(derived_seed(self._seed, _DAMAGE, position))
        damaged, known = self._degradation(image[None], generator=generator)
        return {"images": image, "damaged": damaged[0], "known": known[0]}

    def _cropped(self, position: int) -> Tensor:
        height, width = self._crop
        if self._weights is None:
            pixels = self._images[self._turn(position)]
            if pixels.shape[:2] == self._crop and not self._augment:
                return to_tensor(pixels, self._channels)
        random = np.random.default_rng((self._seed, _CROP, position))
        if self._weights is not None:
            pixels = self._images[random.choice(len(self._images), p=self._weights)]
        top = random.integers(pixels.shape[0] - height + 1)
        left = random.integers(pixels.shape[1] - width + 1)
        pixels = pixels[top : top + height, left : left + width]
        if not self._augment:
            return to_tensor(pixels, self._channels)
        pixels = pixels[:: random.choice((-1, 1)), :: random.choice((-1, 1))]
        if height == width and random.random() < 0.5:
            pixels = pixels.transpose(1, 0, 2)
        image = to_tensor(pixels[..., random.permutation(pixels.shape[2])], self._channels)
        # Few photographs have few saturated colours: a power per channel makes more.
        powers = np.exp(random.uniform(-_LOG_GAMMA, _LOG_GAMMA, (self._channels, 1, 1)))
        return image ** torch.from_numpy(powers.astype(np.float32))

    def _turn(self, position: int) -> int:
        """Whose turn it is, where all take turns."""
        epoch, turn = divmod(position, len(self._images))
        if epoch != self._epoch:
            random = np.random.default_rng((self._seed, _ORDER, epoch))
            self._epoch, self._order = epoch, random.permutation(len(self._images))
        return int(self._order[turn])


def to_tensor(pixels: Pixels, channels: int) -> Tensor:
    """(H, W, C) of 8 bits to float32 in [0, 1] of shape (channels, H, W)."""
    if pixels.shape[2] != channels:
        if channels == 1:
            gray = np.rint(pixels @ _LUMA).astype(np.uint8)
            pixels = gray[..., None]
        else:
            pixels = np.repeat(pixels, channels, axis=2)
    # In this order, the copy that makes it contiguous is of bytes.
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255.0


def centre_crop(pixels: Pixels, crop: tuple[int, int]) -> Pixels:
    """The middle of an image, or all of it along a side that is shorter than the crop."""
    (height, width), (tall, wide) = pixels.shape[:2], crop
    top, left = max(0, (height - tall) // 2), max(0, (width - wide) // 2)
    return pixels[top : top + tall, left : left + wide]
