# SPDX-License-Identifier: Apache-2.0
"""The dtypes that executors compute and answer in."""

from __future__ import annotations

__all__ = ["compute_dtype", "gradient_dtype"]


def compute_dtype(dtype: str) -> str:
    """What arrays of ``dtype`` are computed in."""
    return "float64" if dtype == "float64" else "float32"


def gradient_dtype(dtype: str) -> str:
    """What the gradient of such an array is stored in: its own dtype, if that has fractions."""
    return dtype if dtype.startswith(("float", "bfloat")) else "float32"
