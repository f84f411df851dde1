# SPDX-License-Identifier: Apache-2.0
"""How well generated images match real ones, in several spaces of features.

Beside them stand other real images, those that a model is trained on, as many: what they get is
what is left to chance, and to the number of images. The Fréchet distance of finitely many images is
too large on average; only distances of as many images compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import sosie
from sosie.generation import PRDC, parzen_log_likelihood
from sosie.zoo.data import ImageCollection
from sosie.zoo.evaluation.likelihood import Mean
from sosie.zoo.features import feature_space, list_feature_spaces
from sosie.zoo.inference.generation import generate_images
from sosie.zoo.model import Model
from sosie.zoo.training.autoencoding import evenly_chosen, fitting

__all__ = ["GENERATED", "REAL", "GenerationEvaluation", "Match", "Parzen", "evaluate_generation"]

#: Whose images are compared with the real ones to judge by.
GENERATED, REAL = "generated", "other real images"
#: Widths of Parzen's window to choose from, and images to choose by; Goodfellow et al. 2014.
_WIDTHS, _CHOSEN_BY = np.logspace(-1, 0, 10), 1000


@dataclass(frozen=True)
class Match:
    """How one set of images matches the real ones in one space."""

    space: str
    images: str
    prdc: PRDC
    kernel_distance: float
    frechet_distance: float

    @property
    def shown(self) -> dict[str, tuple[float, str]]:
        """Numbers, and how they are written: shares, higher being better, then distances."""
        kernel, frechet = self.kernel_distance, self.frechet_distance
        return {
            **{name: (value, f"{value:.3f}") for name, value in self.prdc._asdict().items()},
            # From one space to another it differs by powers of ten.
            "kernel distance": (kernel, f"{kernel:#.3g}".rstrip(".")),
            "Fréchet distance": (frechet, f"{frechet:.2f}"),
        }


@dataclass(frozen=True)
class Parzen:
    """Log-likelihood of the real images under normal densities around others, in nats."""

    images: str
    sigma: float
    log_likelihood: Mean


@dataclass(frozen=True)
class GenerationEvaluation:
    """Everything that came out.

    Attributes
    ----------
    count : int
        Images of each kind.
    neighbours : int
        That a neighbourhood reaches to.
    matches : list of Match
    parzen : list of Parzen
    samples, real : ndarray of uint8, shape (n, H, W, C)
        Some of the images, to show.
    refused : dict
        Spaces that are not for such images, each with a reason.
    """

    count: int
    neighbours: int
    matches: list[Match]
    parzen: list[Parzen]
    samples: np.ndarray[Any, np.dtype[np.uint8]]
    real: np.ndarray[Any, np.dtype[np.uint8]]
    refused: dict[str, str]


def evaluate_generation(
    model: Model,
    images: ImageCollection,
    *,
    count: int = 5000,
    spaces: Sequence[str] | None = None,
    neighbours: int = 5,
    parzen: bool = True,
    seed: int = 0,
    watch: Callable[[str, int, int], None] = lambda *_: None,
) -> GenerationEvaluation:
    """Compare a model's images with real ones.

    Parameters
    ----------
    model : AdversarialPair or Autoencoder
    images : ImageCollection
        Those to judge by are compared with; as many of those to train on stand beside the model's.
    count : int
        Images of each kind; fewer if there are no more.
    spaces : sequence of str, optional
        Of :func:`sosie.zoo.features.list_feature_spaces`; by default all that fit.
    neighbours : int
        See :func:`sosie.prdc`.
    parzen : bool
        Estimate the likelihood by Parzen's window, too.
    seed : int
        Of the generated images.
    watch : callable
        Told about progress: stage, done, in all.

    Raises
    ------
    ValueError
        A space that was asked for does not fit, or there are too few images.
    """
    images = images.at_least((model.config.image_shape[1], model.config.image_shape[2]))
    count = min(count, len(images.validation), len(images.training))
    if count <= neighbours:
        raise ValueError(
            f"expected more images to judge by than {neighbours} neighbours, got {count}"
        )
    samples = generate_images(
        model, count, seed=seed, on_images=_counter(watch, "generating", count)
    )
    sets = {
        GENERATED: torch.from_numpy(samples).movedim(-1, 1).float() / 255,
        REAL: fitting(evenly_chosen(images.training, count), model),
    }
    reference = fitting(evenly_chosen(images.validation, count), model)
    names = list_feature_spaces() if spaces is None else list(spaces)
    matches, refused = [], {}
    for done, name in enumerate(names):
        try:
            matches += _matches(name, reference, sets, neighbours)
        except ValueError as error:
            if spaces is not None:
                raise
            refused[name] = str(error)
        watch("comparing", done + 1, len(names))
    chosen_by = fitting(evenly_chosen(images.training[1::2], _CHOSEN_BY), model)
    return GenerationEvaluation(
        count,
        neighbours,
        matches,
        _parzen(reference, sets, chosen_by) if parzen else [],
        samples,
        _levels(reference),
        refused,
    )


def _counter(
    watch: Callable[[str, int, int], None], stage: str, total: int
) -> Callable[[int], None]:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        watch(stage, done, total)

    return count


def _matches(name: str, reference: Tensor, sets: dict[str, Tensor], neighbours: int) -> list[Match]:
    space = feature_space(name, reference)
    real = space.features(reference)
    found = []
    for images, tensor in sets.items():
        fake = space.features(tensor)
        found.append(
            Match(
                name,
                images,
                sosie.prdc(real, fake, k=neighbours),
                sosie.kernel_distance(real, fake),
                sosie.frechet_distance(real, fake),
            )
        )
    return found


def _parzen(reference: Tensor, sets: dict[str, Tensor], chosen_by: Tensor) -> list[Parzen]:
    """Windows around each set; their width is the one that finds some training images likeliest.

    The images that a width is chosen by are left out of the windows around real images: each would
    find itself there.
    """
    points, by = (each.flatten(1).numpy() for each in (reference, chosen_by))
    found = []
    for images, tensor in sets.items():
        centres = tensor.flatten(1).numpy()
        if images == REAL:
            centres = centres[~_among(centres, by)]
            if not len(centres):
                continue
        widths = [float(width) for width in _WIDTHS]
        likelihoods = parzen_log_likelihood(centres, by, widths).mean(axis=1)
        sigma = widths[int(np.argmax(likelihoods))]
        values = parzen_log_likelihood(centres, points, sigma)
        found.append(Parzen(images, sigma, Mean.of(values)))
    return found


def _among(rows: Any, others: Any) -> Any:
    known = {row.tobytes() for row in others}
    return np.array([row.tobytes() in known for row in rows], bool)


def _levels(images: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(N, C, H, W) in [0, 1] as (N, H, W, C) of 8 bits."""
    return np.asarray((images * 255).round().byte().movedim(1, -1))
