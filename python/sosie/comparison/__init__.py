# SPDX-License-Identifier: Apache-2.0
"""Comparison of image files, in pairs, by any number of measures.

`files` reads an image file into an array, `pairs` matches the files of two folders, `measures` is
the table of what can be measured, `run` measures many pairs with threads and sums up. `kept` does
so for collections that take long: `engines` says who works, `parts` keeps what is finished.
"""

from __future__ import annotations

from sosie.comparison.measures import MEASURES, Measure
from sosie.comparison.pairs import Pair, Unmatched, match
from sosie.comparison.run import Comparison, Failure, Result, compare_pairs

__all__ = [
    "MEASURES",
    "Comparison",
    "Failure",
    "Measure",
    "Pair",
    "Result",
    "Unmatched",
    "compare_pairs",
    "match",
]
