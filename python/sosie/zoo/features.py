# SPDX-License-Identifier: Apache-2.0
"""Named spaces in which sets of images are compared.

====================  ===========================================================================
``pixels``            the images as they are
``pca-64``            their 64 principal components, of the reference set that they are compared to
``lenet-fashion-v1``  the last hidden layer, 64 numbers, of a small classifier of Fashion-MNIST that
                      comes with sosie (:mod:`sosie.zoo.features_lenet`); images of 1 x 28 x 28
====================  ===========================================================================

A distance between features means something only beside others in the same space, of as many images.
Names are frozen: other weights would get another name. None of these is the network of published
Fréchet inception distances, and no number from here is one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sosie.zoo.model import Classifier
from sosie.zoo.registry import create_model

__all__ = ["FeatureSpace", "feature_space", "list_feature_spaces"]

Features = np.ndarray[Any, np.dtype[np.float32]]

_COMPONENTS = 64
#: Images that go through a network at a time.
_BATCH = 500


class FeatureSpace(ABC):
    """Makes rows of numbers of images.

    Attributes
    ----------
    name : str
        One of :func:`list_feature_spaces`.
    """

    name: str

    @abstractmethod
    def features(self, images: Tensor) -> Features:
        """Features of images (N, C, H, W) in [0, 1], float32, shape (N, D)."""

    def __repr__(self) -> str:
        return f"<feature space {self.name}>"


def list_feature_spaces() -> list[str]:
    """Names that :func:`feature_space` knows."""
    return [_Pixels.name, _PrincipalComponents.name, *_NETWORKS]


def feature_space(name: str, reference: Tensor) -> FeatureSpace:
    """A space of features for images like these.

    Parameters
    ----------
    name : str
        One of :func:`list_feature_spaces`.
    reference : Tensor, shape (N, C, H, W)
        The real images that others will be compared with, in [0, 1].

    Raises
    ------
    ValueError
        There is no such space, it is for images of another shape, or the reference is too small.

    Examples
    --------
    >>> images = torch.rand(100, 1, 28, 28)
    >>> feature_space("lenet-fashion-v1", images).features(images).shape
    (100, 64)
    """
    if name == _Pixels.name:
        return _Pixels()
    if name == _PrincipalComponents.name:
        return _PrincipalComponents(reference)
    if name not in _NETWORKS:
        raise ValueError(
            f"expected a space out of {', '.join(list_feature_spaces())}, got {name!r}"
        )
    return _Network(name, reference)


class _Pixels(FeatureSpace):
    name = "pixels"

    def features(self, images: Tensor) -> Features:
        """See :meth:`FeatureSpace.features`."""
        return images.flatten(1).float().cpu().numpy()


class _PrincipalComponents(FeatureSpace):
    name = f"pca-{_COMPONENTS}"

    def __init__(self, reference: Tensor) -> None:
        from sklearn.decomposition import PCA

        rows = reference.flatten(1)
        if min(rows.shape) <= _COMPONENTS:
            raise ValueError(
                f"{self.name} needs more than {_COMPONENTS} images of more than {_COMPONENTS} "
                f"pixels to refer to, got {rows.shape[0]} of {rows.shape[1]}"
            )
        # The default takes short cuts, by random numbers.
        analysis = PCA(_COMPONENTS, svd_solver="arpack", random_state=0)
        self._analysis = analysis.fit(rows.double().cpu().numpy())

    def features(self, images: Tensor) -> Features:
        """See :meth:`FeatureSpace.features`."""
        rows = images.flatten(1).double().cpu().numpy()
        return np.asarray(self._analysis.transform(rows), np.float32)


class _Network(FeatureSpace):
    def __init__(self, name: str, reference: Tensor) -> None:
        self.name, self._model = name, _network(name)
        shape = self._model.image_shape
        if tuple(reference.shape[1:]) != shape:
            raise ValueError(
                f"{name} is for images of shape {shape}, got {tuple(reference.shape[1:])}"
            )

    @torch.inference_mode()
    def features(self, images: Tensor) -> Features:
        """See :meth:`FeatureSpace.features`."""
        batches = images.float().cpu().split(_BATCH)
        return torch.cat([self._model.features(batch) for batch in batches]).numpy()


#: Name of a space to its model, and to the name of the weights.
_NETWORKS = {"lenet-fashion-v1": ("features_lenet", "fashion-v1")}


@cache
def _network(name: str) -> Classifier:
    model, weights = _NETWORKS[name]
    network: Any = create_model(model, weights=weights)
    classifier: Classifier = network
    return classifier
