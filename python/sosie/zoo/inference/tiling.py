# SPDX-License-Identifier: Apache-2.0
"""Where the tiles of an image lie, and how much each says about a pixel.

Neighbouring tiles overlap. Near its border a tile knows too little of what surrounds it, unless
that is the image's border, too. So in the middle of an overlap one tile fades out while the next
fades in, along half a cosine, and what lies nearer to a tile's border is not used. Along one axis::

    tile            |--------------------------|
    next tile                          |--------------------------|
    not used                              |----|    of the tile
                                       |--|         of the next, and so on
    fading                                |-|

Where the overlap is twice as large as the network's reach or larger, all that is used is what the
network would have made of the whole image, and only then is what fades as large as what is left.
Otherwise a quarter of the overlap is not used at either side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Span", "spans"]

Weights = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Span:
    """A tile along one axis: from ``start`` to before ``stop``, used ``first`` to before ``last``.

    Attributes
    ----------
    weights : ndarray of float32, shape (stop - start,)
        How much the tile says; those of all tiles add up to 1 everywhere.
    """

    start: int
    stop: int
    first: int
    last: int
    weights: Weights


def spans(size: int, tile: int, overlap: int, reach: int | None, alignment: int) -> list[Span]:
    """Tiles along an axis.

    Parameters
    ----------
    size, tile : int
        Length of the axis and of a tile, in pixels. The last tile may be up to ``alignment - 1``
        pixels shorter.
    overlap : int
        Pixels that neighbouring tiles share, at least; no more than half a tile.
    reach : int or None
        How far away a network looks, if that is known.
    alignment : int
        Tiles start at multiples of this many pixels.

    Examples
    --------
    >>> [(span.start, span.stop) for span in spans(100, 48, 16, 4, 1)]
    [(0, 48), (32, 80), (52, 100)]
    >>> sum(np.pad(span.weights, (span.start, 100 - span.stop)) for span in spans(
    ...     100, 48, 16, 4, 1)).tolist() == [1.0] * 100
    True
    """
    if size <= tile:
        return [Span(0, size, 0, size, np.ones(size, np.float32))]
    stride = (tile - overlap) // alignment * alignment
    count = 1 + math.ceil((size - tile) / stride)
    starts = [index * stride for index in range(count - 1)]
    starts.append(math.ceil((size - tile) / alignment) * alignment)
    stops = [*(start + tile for start in starts[:-1]), size]
    unused = reach if reach is not None and overlap >= 2 * reach else overlap // 4
    # The last tile may begin soon after the one before it: fading must have ended.
    fade = min(overlap - 2 * unused, stride // 2)
    centres = [(start + stop) // 2 for start, stop in zip(starts[1:], stops[:-1], strict=True)]
    firsts = [0, *(centre - fade // 2 for centre in centres)]
    lasts = [*(first + fade for first in firsts[1:]), size]
    return [
        Span(start, stop, first, last, _weights(start, stop, first, last, fade, size))
        for start, stop, first, last in zip(starts, stops, firsts, lasts, strict=True)
    ]


def _weights(start: int, stop: int, first: int, last: int, fade: int, size: int) -> Weights:
    weights = np.zeros(stop - start)
    weights[first - start : last - start] = 1
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))
    if first > 0:
        weights[first - start : first - start + fade] = rise
    if last < size:
        # Exactly what the next tile leaves.
        weights[last - start - fade : last - start] = 1 - rise
    return weights.astype(np.float32)
