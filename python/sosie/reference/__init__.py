# SPDX-License-Identifier: Apache-2.0
"""Definitions of every family in float64 NumPy: slow, obvious, and what all executors must equal.

Each module states one family as its formulas are written on paper, without any of the
rearrangements that make executors fast or accurate in lower precision.
"""

from __future__ import annotations
