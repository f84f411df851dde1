# SPDX-License-Identifier: Apache-2.0
"""Random numbers that depend on what they are for, not on what was drawn before.

Every step of a training, and every image of it, has a generator of its own, seeded with the
training's seed and the number of the step or image. So there is no state to save: a training that
goes on at step 1000 draws what it would have drawn; and images are the same however many processes
or workers share the work.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

__all__ = ["ImageNoise", "Noise", "derived_seed"]


def derived_seed(*numbers: int) -> int:
    """A seed out of several numbers, such as (seed, purpose, step).

    Examples
    --------
    >>> derived_seed(0, 1) == derived_seed(0, 1), derived_seed(0, 1) == derived_seed(1, 0)
    (True, False)
    """
    # torch takes seeds below 2^63 everywhere.
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Noise:
    """Random numbers for the images of one batch, of which this process may hold only a part.

    Parameters
    ----------
    seed : int
        Equal seeds give equal numbers.
    device : torch.device or str
        Where the numbers are wanted. They are drawn on the CPU, to be the same everywhere.
    process, processes : int
        Which part of the batch this process holds, and into how many it is divided.

    Examples
    --------
    Two processes draw what one would:

    >>> whole = Noise(3).normal(4, 2)
    >>> parts = [Noise(3, process=process, processes=2).normal(2, 2) for process in (0, 1)]
    >>> torch.equal(torch.cat(parts), whole)
    True
    """

    def __init__(
        self,
        seed: int,
        *,
        device: torch.device | str = "cpu",
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._device, self._process, self._processes = device, process, processes

    def normal(self, count: int, *shape: int) -> Tensor:
        """Standard normal numbers, shape (count, *shape); ``count`` images of this process."""
        numbers = torch.randn(count * self._processes, *shape, generator=self._generator)
        return self._own(numbers, count)

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Numbers from 0 to less than 1, shape (count, *shape)."""
        numbers = torch.rand(count * self._processes, *shape, generator=self._generator)
        return self._own(numbers, count)

    def _own(self, numbers: Tensor, count: int) -> Tensor:
        start = self._process * count
        return numbers[start : start + count].to(self._device)


class ImageNoise(Noise):
    """Random numbers that every image draws by itself, so that they are the same in any batch.

    Parameters
    ----------
    seed : int
        Equal seeds give equal numbers.
    images : range
        Numbers of the images of this batch.
    device : torch.device or str
        Where the numbers are wanted.

    Examples
    --------
    >>> all_six = ImageNoise(3, range(6)).normal(6, 5)
    >>> torch.equal(ImageNoise(3, range(4, 6)).normal(2, 5), all_six[4:])
    True
    """

    def __init__(self, seed: int, images: range, device: torch.device | str = "cpu") -> None:
        super().__init__(seed, device=device)
        self._generators = [
            torch.Generator().manual_seed(derived_seed(seed, index)) for index in images
        ]

    def normal(self, count: int, *shape: int) -> Tensor:
        """See :meth:`Noise.normal`."""
        return self._stacked(torch.randn, count, shape)

    def uniform(self, count: int, *shape: int) -> Tensor:
        """See :meth:`Noise.uniform`."""
        return self._stacked(torch.rand, count, shape)

    def _stacked(self, draw: Callable[..., Tensor], count: int, shape: tuple[int, ...]) -> Tensor:
        if count != len(self._generators):
            raise ValueError(f"expected {len(self._generators)} images, got {count}")
        drawn = [draw(shape, generator=generator) for generator in self._generators]
        return torch.stack(drawn).to(self._device)
