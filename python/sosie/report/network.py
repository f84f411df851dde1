# SPDX-License-Identifier: Apache-2.0
"""What pages say about the network that made their pictures."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from sosie.zoo.weights import find_weights

if TYPE_CHECKING:
    from sosie.zoo.model import Model

__all__ = ["computed_on", "network_facts"]


def network_facts(model: Model, weights: str) -> list[tuple[str, str]]:
    """Names and texts: model, configuration, weights, device.

    Examples
    --------
    >>> from sosie.zoo import create_model
    >>> network_facts(create_model("repair_cnn", depth=2, width=1), "runs/cnn")[:2]
    [('model', 'repair_cnn, 58 parameters'), ('weights', 'runs/cnn')]
    """
    shipped = find_weights(model.name, weights)
    if shipped is not None:
        weights = f"{shipped.variant}, which come with sosie"
    count = sum(weight.numel() for weight in model.parameters())
    config = ", ".join(f"{name} {value}" for name, value in asdict(model.config).items())
    device = next((weight.device.type for weight in model.parameters()), "cpu")
    return [
        ("model", f"{model.name}, {count:,} parameters"),
        ("weights", weights),
        ("configuration", config),
        ("computed on", computed_on(device)),
    ]


def computed_on(device: str = "cpu") -> str:
    """Device, threads and library."""
    threads = torch.get_num_threads()
    return f"{device}, {threads} thread{'s' if threads != 1 else ''}, torch {torch.__version__}"
