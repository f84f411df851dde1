# SPDX-License-Identifier: Apache-2.0
"""Images to train on: from folders, files, and packages that are installed. No network."""

from __future__ import annotations

from sosie.zoo.data.collections import ImageCollection, Skipped, list_collections, open_collection
from sosie.zoo.data.sequence import TrainingSequence, centre_crop, to_tensor

__all__ = [
    "ImageCollection",
    "Skipped",
    "TrainingSequence",
    "centre_crop",
    "list_collections",
    "open_collection",
    "to_tensor",
]
