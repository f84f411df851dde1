# SPDX-License-Identifier: Apache-2.0
"""Images out of nothing, and out of the way from one code to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sosie.zoo.model import AdversarialPair, Autoencoder, Model
from sosie.zoo.noise import ImageNoise

__all__ = ["generate_images", "interpolate_images"]

#: (N, H, W, C) of 8 bits.
Images = np.ndarray[Any, np.dtype[np.uint8]]

#: Images that are computed at a time. Always as many: sums are rounded differently in another
#: number, and an image shall not depend on how many others were asked for.
_AT_A_TIME = 16


def generate_images(
    model: Model,
    count: int,
    *,
    seed: int = 0,
    on_images: Callable[[int], None] = lambda _: None,
) -> Images:
    """New images of a generator or an autoencoder.

    Parameters
    ----------
    model : AdversarialPair or Autoencoder
        For example ``create_model("gan_dcgan", weights=...)``.
    count : int
        How many.
    seed : int
        An image depends on the seed and its own number alone: the first 10 are the first of 1,000.
    on_images : callable
        Told how many more there are, time and again.

    Returns
    -------
    ndarray of uint8, shape (count, H, W, C)

    Raises
    ------
    ValueError
        The model generates nothing, or the count is less than 1.

    Examples
    --------
    >>> from sosie.zoo import create_model, generate_images
    >>> model = create_model("vae_mlp", hidden=16, latent=4)
    >>> images = generate_images(model, 20, seed=3)
    >>> images.shape, bool((images[:5] == generate_images(model, 5, seed=3)).all())
    ((20, 28, 28, 1), True)
    """
    if not isinstance(model, AdversarialPair | Autoencoder):
        raise ValueError(f"expected a model that generates images, got {model.name}")
    if count < 1:
        raise ValueError(f"expected a count of 1 image or more, got {count}")
    device = _device(model)

    def images(chunk: range) -> Tensor:
        return model.sample(len(chunk), ImageNoise(seed, chunk, device))

    return _computed(model, count, images, on_images)


def interpolate_images(
    model: Model,
    count: int,
    steps: int,
    *,
    seed: int = 0,
    on_images: Callable[[int], None] = lambda _: None,
) -> Images:
    """Images along the ways between pairs of random codes.

    On the way, the length of a code goes from that of the one to that of the other: in many
    dimensions, normal numbers lie near a sphere, and what lies well inside was never decoded in
    training (White, "Sampling generative networks", 2016).

    Parameters
    ----------
    model : AdversarialPair or Autoencoder
        Whose codes are vectors of normal numbers.
    count, steps : int
        Ways, and images along each, both ends included.
    seed, on_images
        See :func:`generate_images`.

    Returns
    -------
    ndarray of uint8, shape (count, steps, H, W, C)

    Raises
    ------
    ValueError
        The model has no such codes, or there are fewer than two steps.

    Examples
    --------
    >>> from sosie.zoo import create_model, interpolate_images
    >>> model = create_model("gan_mlp", hidden=16, latent=4)
    >>> interpolate_images(model, 2, 5).shape
    (2, 5, 28, 28, 1)
    """
    decode = getattr(model, "decode", None) if isinstance(model, Autoencoder) else model
    latent = getattr(model.config, "latent", None)
    if decode is None or latent is None:
        raise ValueError(
            f"expected a model whose codes are vectors of normal numbers, got {model.name}"
        )
    if count < 1 or steps < 2:
        raise ValueError(f"expected 1 way or more of 2 steps or more, got {count} of {steps}")
    device = _device(model)
    codes = torch.stack([_way(latent, steps, seed, index) for index in range(count)]).flatten(0, 1)

    def images(chunk: range) -> Tensor:
        # The last chunk is filled up with any code.
        chosen = codes[torch.tensor(chunk).clamp(max=len(codes) - 1)]
        decoded: Tensor = decode(chosen.to(device))
        return decoded

    computed = _computed(model, count * steps, images, on_images)
    return computed.reshape(count, steps, *computed.shape[1:])


def _way(latent: int, steps: int, seed: int, index: int) -> Tensor:
    """Codes (steps, latent) from one random code to another."""
    noise = ImageNoise(seed, range(2 * index, 2 * index + 2))
    start, end = noise.normal(2, latent)
    share = torch.linspace(0, 1, steps)[:, None]
    cosine = torch.dot(start, end) / (start.norm() * end.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if angle.sin() < 1e-3:  # one dimension, or codes along one line: a straight way
        way: Tensor = (1 - share) * start + share * end
    else:
        parts = torch.sin((1 - share) * angle) * start, torch.sin(share * angle) * end
        way = (parts[0] + parts[1]) / angle.sin()
    return way


def _device(model: Model) -> torch.device:
    return next((weight.device for weight in model.parameters()), torch.device("cpu"))


def _computed(
    model: Model,
    count: int,
    images: Callable[[range], Tensor],
    on_images: Callable[[int], None],
) -> Images:
    """Images of 8 bits, computed in chunks of one size."""
    was_training = model.training
    model.eval()
    parts = []
    try:
        for start in range(0, count, _AT_A_TIME):
            with torch.inference_mode():
                part = images(range(start, start + _AT_A_TIME))[: count - start]
            levels = (part.clamp(0, 1) * 255).round().byte()
            parts.append(np.asarray(levels.cpu().permute(0, 2, 3, 1)))
            on_images(len(part))
    finally:
        model.train(was_training)
    return np.concatenate(parts)
