# SPDX-License-Identifier: Apache-2.0
"""What degradations have in common, several in a row, and their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Compose", "Degradation", "list_degradations", "parse_degradation", "register"]

_classes: dict[str, type[Degradation]] = {}

D = TypeVar("D", bound="type[Degradation]")


class Degradation(ABC):
    """Damages images, the same way for the same state of a generator.

    Subclasses are frozen dataclasses whose first field is how strong the damage is. Every image of
    a batch gets random numbers of its own.
    """

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Damage a batch.

        Parameters
        ----------
        images : Tensor, shape (N, C, H, W)
            In [0, 1].
        generator : torch.Generator
            Source of randomness, on the CPU.

        Returns
        -------
        damaged : Tensor, shape (N, C, H, W)
            In [0, 1]; 0 where a pixel is missing.
        known : Tensor, shape (N, 1, H, W)
            1 where a pixel is known, 0 where it is missing.

        Raises
        ------
        ValueError
            Images are of another shape.
        """
        if images.ndim != 4:
            raise ValueError(f"expected images (N, C, H, W), got shape {tuple(images.shape)}")
        damaged, known = self.apply(images, torch.ones_like(images[:, :1]), generator)
        return damaged.clamp(0.0, 1.0) * known, known

    @abstractmethod
    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The same for images that are damaged already, of which only some pixels are known."""


@dataclass(frozen=True)
class Compose(Degradation):
    """Several degradations, one after the other."""

    steps: Sequence[Degradation]

    def apply(
        self, images: Tensor, known: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`Degradation.apply`."""
        for step in self.steps:
            images, known = step.apply(images, known, generator)
        return images, known


def register(name: str) -> Callable[[D], D]:
    """Class decorator: make a degradation known to `parse_degradation`."""

    def decorate(cls: D) -> D:
        _classes[name] = cls
        return cls

    return decorate


def list_degradations() -> list[str]:
    """Names that `parse_degradation` knows."""
    return sorted(_classes)


def parse_degradation(text: str) -> Degradation:
    """Degradations from text: names with commas between them, each with its strength if need be.

    Further numbers are those of the degradation's further fields, in their order; 0 and 1 stand for
    no and yes.

    Raises
    ------
    ValueError
        No such name, no number, or a number out of range.

    Examples
    --------
    >>> parse_degradation("jpeg:30")
    JPEG(quality=30.0)
    >>> parse_degradation("missing_pixels")
    MissingPixels(share=0.5)
    >>> parse_degradation("gaussian_noise:0.1:0")
    GaussianNoise(deviation=0.1, clip=False)
    """
    steps = [_parse_one(part.strip()) for part in text.split(",")]
    return steps[0] if len(steps) == 1 else Compose(tuple(steps))


def _parse_one(text: str) -> Degradation:
    name, *numbers = text.split(":")
    cls: Any = _classes.get(name)
    if cls is None:
        near = get_close_matches(name, list_degradations(), n=3, cutoff=0.5)
        advice = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(_classes)}"
        raise ValueError(f"unknown degradation {name!r}; {advice}")
    known = fields(cls)
    if len(numbers) > len(known):
        names = ", ".join(field.name for field in known)
        raise ValueError(f"expected at most {len(known)} numbers ({names}), got {text!r}")
    values = {}
    for field, number in zip(known, numbers, strict=False):
        try:
            # Defaults tell which numbers are whole, or mean no and yes.
            values[field.name] = type(field.default)(float(number))
        except ValueError:
            raise ValueError(f"expected a number after {name}:, got {number!r}") from None
    degradation: Degradation = cls(**values)
    return degradation


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Refuse a field out of range."""
    if not low <= value <= high:
        raise ValueError(f"expected {name} between {low:g} and {high:g}, got {value!r}")


def per_image(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Uniform numbers, shape (count, 1, 1, 1)."""
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
