# SPDX-License-Identifier: Apache-2.0
"""How likely a variational autoencoder finds images: its bound, and importance sampling."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from sosie.comparison.parts import FAILED, Row
from sosie.zoo.data import centre_crop, to_tensor
from sosie.zoo.evaluation.cases import ASKED, open_truth
from sosie.zoo.evaluation.work import Engine, Work, do_work, identity
from sosie.zoo.gaussian_autoencoder import GaussianAutoencoder
from sosie.zoo.noise import ImageNoise, derived_seed

__all__ = ["LikelihoodEvaluation", "Mean", "evaluate_likelihood"]

_BOUND, _LIKELIHOOD = "elbo", "log_likelihood"


class Mean(NamedTuple):
    """A mean over images and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: np.ndarray[Any, np.dtype[np.float64]]) -> Mean:
        """Of one value for each image."""
        error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(values.mean()), float(error))


@dataclass(frozen=True)
class LikelihoodEvaluation:
    """In nats, over the images.

    Attributes
    ----------
    samples : int
        Codes of each image.
    negative_elbo, nll : Mean
        The bound on ``-log p(x)`` that a single code gives on average, and the tighter one that all
        codes of an image give together.
    values : dict
        Both of every image, float64.
    is_density : bool
        Whether these are likelihoods: a Bernoulli likelihood of gray values is none.
    failures : list of tuple of str
        Images that could not be used, each with a reason.
    """

    samples: int
    negative_elbo: Mean
    nll: Mean
    values: dict[str, np.ndarray[Any, np.dtype[np.float64]]]
    is_density: bool
    failures: list[tuple[str, str]]


def evaluate_likelihood(
    model: GaussianAutoencoder,
    rows: Sequence[Row],
    *,
    samples: int = 500,
    seed: int = 0,
    engine: Engine | None = None,
    on_done: Callable[[int], None] = lambda _: None,
) -> LikelihoodEvaluation:
    """Bounds on the negative log-likelihood of images.

    Parameters
    ----------
    model : GaussianAutoencoder
        In evaluation mode.
    rows : sequence of dict
        Of :func:`sosie.zoo.evaluation.cases.find_cases`.
    samples : int
        Codes that are drawn of each image: Burda et al. take 5000.
    seed : int
        Of codes, and of pixels where the model draws them; an image's numbers do not depend on
        which other images there are.
    engine : Engine, optional
    on_done : callable
        Called with a number of images as they are done.

    Raises
    ------
    ValueError
        The model is trained on what is no likelihood.
    """
    model.eval()
    channels, height, width = model.config.image_shape
    blank = torch.zeros(1, channels, height, width)
    with torch.inference_mode():
        model.log_weights(blank, ImageNoise(seed, range(1)), 1)  # refuses what is no likelihood
    work = Work(
        partial(_bounds, model=model, samples=samples, seed=seed),
        (_BOUND, _LIKELIHOOD),
        ASKED,
        {**identity(model), "samples": samples, "seed": seed},
    )
    done = do_work(work, rows, engine or Engine(), on_done)
    good = [row for row in done if row[FAILED] is None]
    if not good:
        raise ValueError(f"no image could be used: {done[0]['name']}: {done[0][FAILED]}")
    values = {name: np.array([row[name] for row in good]) for name in (_BOUND, _LIKELIHOOD)}
    return LikelihoodEvaluation(
        samples,
        Mean.of(-values[_BOUND]),
        Mean.of(-values[_LIKELIHOOD]),
        values,
        model.has_density,
        [(row["name"], row[FAILED]) for row in done if row[FAILED] is not None],
    )


@torch.inference_mode()
def _bounds(row: Row, model: GaussianAutoencoder, samples: int, seed: int) -> dict[str, float]:
    channels, height, width = model.config.image_shape
    pixels = open_truth(row)
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise ValueError(
            f"{pixels.shape[1]} x {pixels.shape[0]} pixels, smaller than the model's "
            f"{width} x {height}"
        )
    image = to_tensor(centre_crop(pixels, (height, width)), channels)[None]
    noise = ImageNoise(derived_seed(seed, zlib.crc32(row["name"].encode())), range(1))
    weights = model.log_weights(model.seen(image, noise), noise, samples)
    return {
        _BOUND: float(weights.mean()),
        _LIKELIHOOD: float(torch.logsumexp(weights, 1)) - math.log(samples),
    }
