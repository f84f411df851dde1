# SPDX-License-Identifier: Apache-2.0
"""Which weights are refused: of elements, by what kernels saw on the way, and of dimensions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["check_dimension_weights", "check_weights"]


def check_weights(lowest: float, odd: float, allow_negative: bool) -> None:
    """Raise unless all weights are finite and, but for ``allow_negative``, at least 0.

    Parameters
    ----------
    lowest : float
        The smallest weight, if that is below 0.
    odd : float
        Sum of the weights that are not finite, or 0.

    Raises
    ------
    ValueError
        With the value seen.
    """
    if not math.isfinite(odd):
        raise ValueError(f"expected finite weights, got {odd}")
    if lowest < 0.0 and not allow_negative:
        raise ValueError(
            f"expected weights of at least 0 (or allow_negative=True), got {lowest:.9g}"
        )


def check_dimension_weights(weights: np.ndarray[Any, Any]) -> None:
    """Raise ValueError unless the weights of a distance are finite and not negative."""
    wrong = weights[~((weights >= 0) & (weights < np.inf))]
    if wrong.size:
        raise ValueError(f"expected finite weights of at least 0, got {wrong.flat[0]}")
