# SPDX-License-Identifier: Apache-2.0
"""The torch side of sosie: registered operators (``torch.ops.sosie.*``) and their derivatives.

Importing this package imports torch, registers the operators, and tells ``torch.compile`` to put
`sosie.ssim` and its relatives into its graphs as they are: their Python code checks arguments and
resolves conventions, which touches no tensor and is evaluated once per graph.
"""

from __future__ import annotations

import torch

from sosie.ssd import _mse, _psnr, _weighted_ssd
from sosie.ssim import _ms_ssim, _ssim
from sosie.torch import composite, ssd, ssim

__all__ = ["composite", "ssd", "ssim"]

torch.compiler.allow_in_graph((_ssim, _ms_ssim, _weighted_ssd, _mse, _psnr))
