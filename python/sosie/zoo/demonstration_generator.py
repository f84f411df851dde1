# SPDX-License-Identifier: Apache-2.0
"""The demonstration's second half: an autoencoder that learns to make up pieces of clothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from sosie.zoo.data import open_collection
from sosie.zoo.evaluation.generation import GenerationEvaluation, evaluate_generation
from sosie.zoo.registry import create_model
from sosie.zoo.training import Settings, train

__all__ = ["IMAGES", "Generator", "train_generator"]

#: What is learned from, and the space in which what comes of it is judged.
IMAGES, _SPACE = "fashion-mnist-2000", "lenet-fashion-v1"


@dataclass(frozen=True)
class Generator:
    """A generator, trained, and how well its images match real ones.

    Attributes
    ----------
    model : str
        Its name in the zoo.
    parameters, steps : int
    seconds : float
        Of the training.
    losses : list of float
        Of every step, in nats.
    evaluation : GenerationEvaluation
        On the images that were held out.
    """

    model: str
    parameters: int
    steps: int
    seconds: float
    losses: list[float]
    evaluation: GenerationEvaluation


def train_generator(
    steps: int, seed: int, watch: Callable[[str, int, int, str], None] = lambda *_: None
) -> Generator:
    """Train a convolutional variational autoencoder on Fashion-MNIST, and judge its images.

    Parameters
    ----------
    steps : int
    seed : int
    watch : callable
        Told about progress: stage, done, in all, a remark.

    Raises
    ------
    FloatingPointError
        The loss is no longer finite.
    """
    torch.manual_seed(seed)
    images = open_collection(IMAGES)
    model = create_model("vae_conv", latent=32)
    settings = Settings.of(
        model, steps=steps, learning_rate=2e-3, schedule="cosine", warm_up=0.1, clip=100.0,
        validate_every=0, seed=seed,
    )  # fmt: skip
    trained = train(model, images, settings, watch=partial(_renamed, watch))
    evaluation = evaluate_generation(
        trained.model, images, spaces=[_SPACE], parzen=False, seed=seed
    )
    return Generator(
        model.name,
        sum(weight.numel() for weight in model.parameters()),
        steps,
        trained.seconds,
        [numbers["loss"] for numbers in trained.records],
        evaluation,
    )


def _renamed(
    watch: Callable[[str, int, int, str], None], stage: str, done: int, total: int, note: str
) -> None:
    watch(f"{stage} a generator", done, total, note)
