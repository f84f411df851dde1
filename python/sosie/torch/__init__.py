# SPDX-License-Identifier: Apache-2.0
"""The torch side of sosie: registered operators (``torch.ops.sosie.*``) and their derivatives.

Importing this package imports torch and registers the operators. The public functions of ``sosie``
come here when they are given torch tensors; nothing else needs to.
"""

from __future__ import annotations

from sosie.torch import _tracing as _tracing
from sosie.torch import ssim

__all__ = ["ssim"]
