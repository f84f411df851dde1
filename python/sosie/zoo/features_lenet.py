# SPDX-License-Identifier: Apache-2.0
"""A small classifier whose last hidden layer is a space in which to compare images.

After LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition",
1998 (LeNet-5): two convolutions, each followed by a maximum over 2 x 2 pixels, and linear layers;
with batch normalisation (Ioffe and Szegedy, ICML 2015), rectifiers and more channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sosie.zoo.model import Classifier
from sosie.zoo.registry import register_model

__all__ = ["FeaturesLeNet", "FeaturesLeNetConfig"]

_WINDOW = 5


@dataclass(frozen=True)
class FeaturesLeNetConfig:
    """How a :class:`FeaturesLeNet` is built.

    Attributes
    ----------
    image_shape : tuple of int
        Channels, height and width; sides of at least 16 pixels.
    width : int
        Channels after the first convolution; twice as many after the second.
    dimensions : int
        Numbers in a feature.
    classes : int
        To tell apart.
    dropout : float
        Share of the features that a training step leaves out.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    width: int = 16
    dimensions: int = 64
    classes: int = 10
    dropout: float = 0.25

    def __post_init__(self) -> None:
        if min(self.image_shape[1:]) < 16:
            raise ValueError(
                f"expected sides of at least 16 pixels, got image_shape={self.image_shape}"
            )


@register_model("features_lenet")
class FeaturesLeNet(Classifier):
    """Convolutional classifier; called with images of ``image_shape``.

    Examples
    --------
    >>> import torch
    >>> model = FeaturesLeNet(FeaturesLeNetConfig()).eval()
    >>> images = torch.rand(2, 1, 28, 28)
    >>> model.features(images).shape, model(images).shape
    (torch.Size([2, 64]), torch.Size([2, 10]))
    """

    Config = FeaturesLeNetConfig

    def __init__(self, config: FeaturesLeNetConfig) -> None:
        super().__init__(config)
        channels, height, width = config.image_shape
        # The first convolution pads, the second does not.
        lowest = 2 * config.width * ((height // 2 - 4) // 2) * ((width // 2 - 4) // 2)
        self.hidden = nn.Sequential(
            nn.Conv2d(channels, config.width, _WINDOW, padding=_WINDOW // 2, bias=False),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(config.width, 2 * config.width, _WINDOW, bias=False),
            nn.BatchNorm2d(2 * config.width),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(1),
            nn.Linear(lowest, config.dimensions),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(config.dimensions, config.classes)
        )

    def training_defaults(self) -> dict[str, Any]:
        """See :meth:`Model.training_defaults`."""
        return {"batch": 128, "learning_rate": 2e-3, "schedule": "cosine", "weight_decay": 0.01}

    def features(self, images: Tensor) -> Tensor:
        """See :meth:`Classifier.features`; at least 0."""
        features: Tensor = self.hidden(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """See :meth:`Classifier.forward`."""
        logits: Tensor = self.classifier(self.features(images))
        return logits
