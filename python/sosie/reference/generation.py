# SPDX-License-Identifier: Apache-2.0
"""Measures of generators, as formulas, in float64 NumPy.

``real`` is ``(N, D)``, ``fake`` is ``(M, D)``: features of images, one row each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "distances",
    "frechet_distance",
    "kernel_distance",
    "moments",
    "parzen_log_likelihood",
    "prdc",
]

Array = NDArray[np.float64]


def distances(a: ArrayLike, b: ArrayLike) -> Array:
    """Euclidean distances ``(N, M)`` of all rows of a to all rows of b."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.asarray(np.sqrt(((a[:, None] - b[None]) ** 2).sum(2)))


def prdc(real: ArrayLike, fake: ArrayLike, k: int) -> tuple[float, float, float, float]:
    """Precision, recall, density and coverage, with the k-th nearest neighbour as radius.

    Examples
    --------
    >>> prdc([[0.0], [1.0], [2.0]], [[0.5], [9.0], [9.5]], 1)
    (0.3333333333333333, 1.0, 0.6666666666666666, 0.6666666666666666)
    """
    # In order, each row's first is its distance to itself, 0.
    radius_real = np.sort(distances(real, real), axis=1)[:, k]
    radius_fake = np.sort(distances(fake, fake), axis=1)[:, k]
    between = distances(real, fake)
    in_real = between < radius_real[:, None]
    return (
        float(in_real.any(axis=0).mean()),
        float((between < radius_fake[None, :]).any(axis=1).mean()),
        float(in_real.sum(axis=0).mean() / k),
        float((between.min(axis=1) < radius_real).mean()),
    )


def kernel_distance(
    real: ArrayLike,
    fake: ArrayLike,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy, polynomial kernel.

    Examples
    --------
    >>> kernel_distance([[0.0], [2.0]], [[1.0], [1.0]], degree=1)
    -1.0
    """
    x, y = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    scale = 1.0 / x.shape[1] if gamma is None else gamma

    def kernel(a: Array, b: Array) -> Array:
        return np.asarray((scale * (a @ b.T) + coef0) ** degree)

    def without_diagonal(values: Array) -> float:
        count = len(values)
        return float((values.sum() - np.trace(values)) / (count * (count - 1)))

    within = without_diagonal(kernel(x, x)) + without_diagonal(kernel(y, y))
    return within - 2.0 * float(kernel(x, y).mean())


def moments(features: ArrayLike) -> tuple[Array, Array]:
    """Mean ``(D,)`` and covariance ``(D, D)``, divided by N - 1."""
    values = np.asarray(features, np.float64)
    mean = values.mean(axis=0)
    centred = values - mean
    return mean, centred.T @ centred / (len(values) - 1)


def frechet_distance(real: ArrayLike, fake: ArrayLike) -> float:
    """Squared Frechet distance of the normal distributions with the moments of both.

    Examples
    --------
    >>> round(frechet_distance([[0.0], [2.0]], [[3.0], [5.0]]), 12)
    9.0
    """
    (mean_real, cov_real), (mean_fake, cov_fake) = moments(real), moments(fake)
    difference = mean_real - mean_fake
    # The product of two covariances has the eigenvalues of a symmetric matrix: real, not negative.
    eigenvalues = np.linalg.eigvals(cov_real @ cov_fake).real.clip(0.0)
    traces = np.trace(cov_real) + np.trace(cov_fake) - 2.0 * np.sqrt(eigenvalues).sum()
    return float(difference @ difference + traces)


def parzen_log_likelihood(centres: ArrayLike, points: ArrayLike, sigma: float) -> Array:
    """Log-density of each point under the mean of normal distributions around the centres.

    Examples
    --------
    >>> parzen_log_likelihood([[0.0], [0.0]], [[0.0]], 1.0)
    array([-0.91893853])
    """
    between = distances(points, centres)
    dimension = np.asarray(centres).shape[1]
    logs = -0.5 * (between / sigma) ** 2 - dimension * np.log(np.sqrt(2 * np.pi) * sigma)
    largest = logs.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(logs - largest).mean(axis=1)) + largest[:, 0])
