# SPDX-License-Identifier: Apache-2.0
"""prdc 0.2: precision, recall, density and coverage of a generator's features.

The numbers of features are not printed, and the matrix of all distances is never there as a whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sosie import generation
from sosie.compat.sklearn import euclidean_distances
from sosie.distance import knn

__all__ = ["compute_nearest_neighbour_distances", "compute_pairwise_distance", "compute_prdc"]

DISTRIBUTION = "prdc"
VERSIONS = ">=0.2,<0.3"
SEAMS = {
    "prdc:compute_prdc": "compute_prdc",
    "prdc.prdc:compute_prdc": "compute_prdc",
    "prdc.prdc:compute_pairwise_distance": "compute_pairwise_distance",
    "prdc.prdc:compute_nearest_neighbour_distances": "compute_nearest_neighbour_distances",
}


def compute_prdc(
    real_features: ArrayLike, fake_features: ArrayLike, nearest_k: int
) -> dict[str, np.float64]:
    """Precision, recall, density and coverage, as ``prdc.compute_prdc``.

    Parameters
    ----------
    real_features, fake_features : array, shape (N, D) and (M, D)
    nearest_k : int
        Which neighbour ends a neighbourhood.

    Returns
    -------
    dict
        "precision", "recall", "density" and "coverage".

    Raises
    ------
    ValueError
        Shapes do not fit, values are not real and finite, a set has no more than ``nearest_k``
        features.

    See Also
    --------
    sosie.prdc

    Examples
    --------
    >>> import numpy as np
    >>> from sosie.compat.prdc import compute_prdc
    >>> real = np.arange(8.0)[:, None]
    >>> float(compute_prdc(real, real[:4] + 0.25, nearest_k=1)["density"])
    2.0
    """
    real, fake = _features(real_features, fake_features)
    result = generation.prdc(real, fake, nearest_k)
    return {name: np.float64(value) for name, value in result._asdict().items()}


def compute_pairwise_distance(data_x: ArrayLike, data_y: ArrayLike | None = None) -> NDArray[Any]:
    """Euclidean distances of all rows; see `sosie.compat.sklearn.euclidean_distances`."""
    return euclidean_distances(data_x, data_y)


def compute_nearest_neighbour_distances(input_features: ArrayLike, nearest_k: int) -> NDArray[Any]:
    """Distance of every feature to its k-th nearest neighbour, itself not counted.

    Examples
    --------
    >>> from sosie.compat.prdc import compute_nearest_neighbour_distances
    >>> compute_nearest_neighbour_distances([[0.0], [1.0], [3.0]], nearest_k=1)
    array([1., 1., 2.])
    """
    features, _ = _features(input_features, input_features)
    radii: NDArray[Any] = knn(features, features, nearest_k, exclude_self=True).distances[:, -1]
    return radii


def _features(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both sets as float32 if they are, else as float64."""
    real, fake = np.asarray(first), np.asarray(second)
    if "c" in (real.dtype.kind, fake.dtype.kind):
        raise ValueError(f"expected features of real numbers, got {real.dtype} and {fake.dtype}")
    dtype = np.float32 if real.dtype == fake.dtype == np.float32 else np.float64
    return real.astype(dtype, copy=False), fake.astype(dtype, copy=False)
