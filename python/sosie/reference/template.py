# SPDX-License-Identifier: Apache-2.0
"""Template search by weighted squared differences, in float64 NumPy.

At every position of the template inside the image::

    map[i, j] = sum over c, r, s of w[c, r, s] (image[c, i + r, j + s] - template[c, r, s])^2

A weight of 0 takes its pixel out, whatever the image holds there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["template_search"]

Array = NDArray[np.float64]


def template_search(
    images: ArrayLike, template: ArrayLike, weights: ArrayLike | None = None
) -> Array:
    """The map of every image.

    Parameters
    ----------
    images : array of shape (N, C, H, W)
    template : array of shape (C, h, w)
    weights : array of shape (C, h, w), optional

    Returns
    -------
    ndarray of shape (N, H - h + 1, W - w + 1)

    Examples
    --------
    >>> template_search([[[[1.0, 2.0, 4.0]]]], [[[2.0, 4.0]]])
    array([[[5., 0.]]])
    """
    images, template = np.asarray(images, np.float64), np.asarray(template, np.float64)
    weights = np.ones(template.shape) if weights is None else np.asarray(weights, np.float64)
    rows, columns = (
        size - own + 1 for size, own in zip(images.shape[2:], template.shape[1:], strict=True)
    )
    result = np.zeros((images.shape[0], rows, columns))
    for c, r, s in zip(*np.nonzero(weights), strict=True):
        seen = images[:, c, r : r + rows, s : s + columns]
        result += weights[c, r, s] * (seen - template[c, r, s]) ** 2
    return result
