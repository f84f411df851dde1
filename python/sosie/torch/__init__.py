# SPDX-License-Identifier: Apache-2.0
"""The torch side of sosie: registered operators (``torch.ops.sosie.*``) and their derivatives.

Importing this package imports torch, registers the operators, and tells ``torch.compile`` to put
the public functions into its graphs as they are: their Python code checks arguments and resolves
conventions, which touches no tensor and is evaluated once per graph.
"""

from __future__ import annotations

import torch

from sosie.distance import _cdist, _knn
from sosie.ssim import _ms_ssim, _ssim
from sosie.torch import composite, distance, ssim

__all__ = ["composite", "distance", "ssim"]

torch.compiler.allow_in_graph((_ssim, _ms_ssim, _cdist, _knn))
