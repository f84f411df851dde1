# SPDX-License-Identifier: Apache-2.0
"""Spaces of features: what they are made of, and that they tell images apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import sosie
from sosie.zoo import features
from sosie.zoo.data import open_collection
from sosie.zoo.features import feature_space, list_feature_spaces
from sosie.zoo.training.autoencoding import fitting
from sosie.zoo.training.objective import Judge
from sosie.zoo.training.settings import Settings
from sosie.zoo.training.trainer import objective_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def images() -> Tensor:
    collection = open_collection("fashion-mnist-2000")
    return fitting(collection.training[:600], features._network("lenet-fashion-v1"))


def test_pixels_are_pixels(images: Tensor) -> None:
    np.testing.assert_array_equal(
        feature_space("pixels", images).features(images[:3]), images[:3].reshape(3, 784)
    )


def test_principal_components_are_those_of_the_reference(images: Tensor) -> None:
    found = feature_space("pca-64", images[:300]).features(images[300:])
    rows = images.flatten(1).double().numpy()
    mean = rows[:300].mean(axis=0)
    _, _, axes = np.linalg.svd(rows[:300] - mean, full_matrices=False)
    expected = (rows[300:] - mean) @ axes[:64].T
    # Axes may point either way. The result is rounded to float32, numbers are up to 10.
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-5)


def test_the_network_tells_classes_apart() -> None:
    # What the weights were trained on has no test image of Fashion-MNIST in it.
    collection = open_collection("fashion-mnist-2000")
    model = features._network("lenet-fashion-v1")
    judge: Judge = objective_of(model, Settings()).judge(collection, torch.device("cpu"))
    assert judge.measure(model)["accuracy"] > 0.88  # 200 images: 0.92 within two deviations


@pytest.mark.parametrize("name", list_feature_spaces())
def test_spaces_order_damage(name: str, images: Tensor) -> None:
    space = feature_space(name, images)
    real, other = space.features(images[:300]), space.features(images[300:])
    assert real.dtype == np.float32
    distances = [sosie.frechet_distance(real, other)]
    for deviation in (0.1, 0.3):
        noise = deviation * torch.randn(300, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        damaged = space.features((images[300:] + noise).clamp(0, 1))
        distances.append(sosie.frechet_distance(real, damaged))
    assert distances[0] < distances[1] < distances[2]


def test_batches_do_not_matter(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    space = feature_space("lenet-fashion-v1", images)
    whole = space.features(images[:50])
    monkeypatch.setattr(features, "_BATCH", 7)
    # Convolutions of batches of another size may add in another order.
    np.testing.assert_allclose(space.features(images[:50]), whole, atol=1e-5)


def test_what_does_not_fit_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"space out of pixels, pca-64, lenet.*, got 'inception'"):
        feature_space("inception", images)
    with pytest.raises(ValueError, match=r"shape \(1, 28, 28\), got \(3, 8, 8\)"):
        feature_space("lenet-fashion-v1", torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"more than 64 images .* got 10 of 784"):
        feature_space("pca-64", images[:10])
