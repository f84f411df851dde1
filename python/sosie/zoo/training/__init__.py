# SPDX-License-Identifier: Apache-2.0
"""Training of the zoo's models: plain loops, on top of Accelerate.

>>> from sosie.zoo import create_model
>>> from sosie.zoo.data import open_collection
>>> from sosie.zoo.training import Settings, train
>>> model = create_model("vae_mlp", hidden=16, latent=4)
>>> settings = Settings.of(model, steps=2, batch=8)
>>> result = train(model, open_collection("fashion-mnist-2000"), settings)
>>> len(result.records), "loss" in result.records[-1]
(2, True)

With ``output="runs/vae"`` the training leaves checkpoints, pictures and a record of every number
there, and goes on from the last checkpoint when it is called again.
"""

from __future__ import annotations

from sosie.zoo.training.run import Result, train
from sosie.zoo.training.settings import Settings
from sosie.zoo.training.trainer import Trainer

__all__ = ["Result", "Settings", "Trainer", "train"]
