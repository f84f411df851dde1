# SPDX-License-Identifier: Apache-2.0
"""What ``torch.compile`` puts into its graph as one call, in place of tracing its Python code."""

from __future__ import annotations

import torch

from sosie.ssim import ms_ssim, ssim

torch.compiler.allow_in_graph((ssim, ms_ssim))
