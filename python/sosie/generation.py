# SPDX-License-Identifier: Apache-2.0
"""How well a generator's images match real ones, by distances between features.

A feature is a row of numbers that some network made of an image. Sets of features come whole, as
arrays ``(N, D)``, or in batches: :class:`FeatureMoments` and :class:`FeatureSet` collect them, on
one machine or on several, and can be passed in place of arrays.
"""

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sosie.arrays import CODES, Array, adapter, check_alike, is_torch
from sosie.backends import is_on_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "PRDC",
    "FeatureMoments",
    "FeatureSet",
    "Moments",
    "frechet_distance",
    "kernel_distance",
    "parzen_log_likelihood",
    "prdc",
]

#: Rows and columns of a block of all pairs: 8 MiB of float64 numbers.
_BLOCK = 1024


class PRDC(NamedTuple):
    """How much of one set of features lies where the other does; see :func:`prdc`."""

    #: Share of the fakes that lie near something real.
    precision: float
    #: Share of the real ones that lie near a fake.
    recall: float
    #: How many neighbourhoods of real ones a fake lies in, over k.
    density: float
    #: Share of the real ones with a fake in their neighbourhood.
    coverage: float


class Moments(NamedTuple):
    """Mean ``(D,)`` and covariance ``(D, D)`` of a set of features, float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


# --- Sets of features -----------------------------------------------------------------------------


class FeatureSet:
    """Features in batches, for measures that need all of them.

    Objects can be pickled; merged parts give what the whole gives.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> part, other = FeatureSet(), FeatureSet()
    >>> part.update(np.zeros((2, 3)))
    >>> other.update(np.ones((1, 3)))
    >>> part.merge(other)
    >>> part.compute().shape
    (3, 3)
    """

    def __init__(self) -> None:
        self._batches: list[NDArray[Any]] = []

    def update(self, batch: Array) -> None:
        """Add a batch of features.

        Parameters
        ----------
        batch : array of shape (N, D)
            NumPy array or torch tensor of real numbers. Copied; not changed.

        Raises
        ------
        TypeError, ValueError
            It is no such array, is not finite, or has another D than the batches before.
        """
        self._append(_features(batch, "batch"), copy=True)

    def merge(self, other: FeatureSet) -> None:
        """Add the features of another set, after one's own."""
        for batch in other._batches:
            self._append(batch, copy=False)

    def compute(self) -> NDArray[Any]:
        """All features, ``(N, D)``: the memory they are kept in, not to be changed.

        Raises
        ------
        ValueError
            There are none.
        """
        if not self._batches:
            raise ValueError("expected at least one batch of features, got none")
        if len(self._batches) > 1:
            self._batches = [np.concatenate(self._batches)]
        return self._batches[0]

    def _append(self, batch: NDArray[Any], *, copy: bool) -> None:
        if self._batches:
            _check_dimension(self._batches[0].shape[1], batch.shape[1])
        self._batches.append(batch.copy() if copy else batch)


class FeatureMoments:
    """Mean and covariance of features in batches: as much memory for many images as for few.

    Objects can be pickled; merged parts give what the whole gives, but for rounding of float64.

    Notes
    -----
    Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", COMPSTAT 1982: sums are centred before they are squared.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> moments = FeatureMoments()
    >>> for batch in np.arange(12.0).reshape(3, 2, 2):
    ...     moments.update(batch)
    >>> moments.compute().mean
    array([5., 6.])
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.zeros(0)
        self._centred = np.zeros((0, 0))  # sum of (x - mean)(x - mean)^T

    def update(self, batch: Array) -> None:
        """Add a batch of features.

        Parameters
        ----------
        batch : array of shape (N, D)
            NumPy array or torch tensor of real numbers.

        Raises
        ------
        TypeError, ValueError
            It is no such array, is not finite, or has another D than the batches before.
        """
        features = np.asarray(_features(batch, "batch"), np.float64)
        mean = features.mean(axis=0)
        centred = features - mean
        self._add(len(features), mean, centred.T @ centred)

    def merge(self, other: FeatureMoments) -> None:
        """Add the features that another object has seen."""
        if other._count:
            self._add(other._count, other._mean, other._centred)

    def compute(self) -> Moments:
        """Mean, and covariance with divisor N - 1.

        Raises
        ------
        ValueError
            There are fewer than two features.
        """
        if self._count < 2:
            raise ValueError(f"expected at least 2 features for a covariance, got {self._count}")
        return Moments(self._mean.copy(), self._centred / (self._count - 1))

    def _add(self, count: int, mean: NDArray[np.float64], centred: NDArray[np.float64]) -> None:
        if self._count == 0:
            self._count, self._mean, self._centred = count, mean.copy(), centred.copy()
            return
        _check_dimension(len(self._mean), len(mean))
        total = self._count + count
        shift = mean - self._mean
        self._centred += centred + np.outer(shift, shift) * (self._count * count / total)
        self._mean += shift * (count / total)
        self._count = total


# --- Measures -------------------------------------------------------------------------------------


def prdc(real: Array | FeatureSet, fake: Array | FeatureSet, k: int = 5) -> PRDC:
    """Precision, recall, density and coverage of generated features.

    Parameters
    ----------
    real, fake : array of shape (N, D) and (M, D), or FeatureSet
        Features of real and of generated images. NumPy arrays, torch tensors or CuPy arrays of
        equal dtype; on a CUDA device, where they stay, both of them.
    k : int
        A feature's neighbourhood reaches up to, and without, its k-th nearest neighbour in its own
        set, itself not counted.

    Returns
    -------
    PRDC
        Named tuple of four floats: precision, recall and coverage in [0, 1], density at least 0.

    Raises
    ------
    TypeError
        Arrays are of no known kind or dtype.
    ValueError
        A set has no more than k features, features are not finite or of different lengths.

    Notes
    -----
    Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models",
    NeurIPS 2019; Naeem et al., "Reliable fidelity and diversity metrics for generative models",
    ICML 2020; the definitions are those of the latter's package ``prdc``. All pairs are looked at
    in blocks; the matrix of their distances is never there as a whole.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> real = np.arange(8.0)[:, None]
    >>> sosie.prdc(real, real[:4] + 0.25, k=1)
    PRDC(precision=1.0, recall=0.625, density=2.0, coverage=0.625)
    """
    real_rows, fake_rows = _pair(real, fake)
    for name, rows in (("real", real_rows), ("fake", fake_rows)):
        if not 1 <= k < len(rows):
            raise ValueError(
                f"expected k between 1 and the number of {name} features less 1, "
                f"got k = {k} and {len(rows)} features"
            )
    library = adapter(real_rows)
    minimum, least = library.module.minimum, library.module.amin
    distance = importlib.import_module("sosie.distance")
    radius_real, radius_fake = (
        distance.knn(rows, rows, k, exclude_self=True)[0][:, -1] for rows in (real_rows, fake_rows)
    )
    # Neighbourhoods of real ones that a fake lies in. Counts stay where features are until the end.
    near: list[Any] = [0 for _ in _blocks(len(fake_rows))]
    recalled: Any = 0
    covered: Any = 0
    for block in _blocks(len(real_rows)):
        found: Any = False
        closest: Any = None
        for i, other in enumerate(_blocks(len(fake_rows))):
            between = distance.cdist(real_rows[block], fake_rows[other])
            near[i] = near[i] + (between < radius_real[block, None]).sum(axis=0)
            found = found | (between < radius_fake[other]).any(axis=1)
            nearest = least(between, axis=1)
            closest = nearest if closest is None else minimum(closest, nearest)
        recalled = recalled + found.sum()
        covered = covered + (closest < radius_real[block]).sum()
    counts = np.concatenate([library.to_numpy(part) for part in near])
    return PRDC(
        precision=float((counts > 0).mean()),
        recall=int(library.to_numpy(recalled)) / len(real_rows),
        density=float(counts.mean() / k),
        coverage=int(library.to_numpy(covered)) / len(real_rows),
    )


def kernel_distance(
    real: Array | FeatureSet,
    fake: Array | FeatureSet,
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
) -> float:
    """Kernel distance (KID) of generated features: squared maximum mean discrepancy.

    Parameters
    ----------
    real, fake : array of shape (N, D) and (M, D), or FeatureSet
        Features of real and of generated images. NumPy arrays, torch tensors or CuPy arrays of
        equal dtype; on a CUDA device, where they stay, both of them.
    degree : int
        Of the polynomial kernel ``(gamma x y + coef0) ** degree``.
    gamma : float, optional
        1 / D by default.
    coef0 : float
        The kernel's constant.

    Returns
    -------
    float
        The unbiased estimate, from all pairs, computed in float64. It can be negative.

    Raises
    ------
    TypeError
        Arrays are of no known kind or dtype.
    ValueError
        A set has fewer than 2 features, features are not finite or of different lengths, or the
        degree is below 1.

    Notes
    -----
    Bińkowski et al., "Demystifying MMD GANs", ICLR 2018. KID is often reported as the mean over
    subsets of the features; over all of them it has less variance. All pairs are looked at in
    blocks.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> sosie.kernel_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]]), degree=1)
    -1.0
    """
    real_rows, fake_rows = (adapter(rows).contiguous(rows, "float64") for rows in _pair(real, fake))
    for name, rows in (("real", real_rows), ("fake", fake_rows)):
        if len(rows) < 2:
            raise ValueError(f"expected at least 2 {name} features, got {len(rows)}")
    if degree < 1:
        raise ValueError(f"expected a degree of at least 1, got {degree}")
    scale = 1.0 / real_rows.shape[1] if gamma is None else gamma

    library = adapter(real_rows)

    def kernel(products: Array) -> Array:
        products *= scale
        products += coef0
        products **= degree
        return products

    def own(rows: Array) -> float:
        diagonal = kernel(library.module.einsum("nd,nd->n", rows, rows))
        total = _sum_of_pairs(rows, rows, kernel) - math.fsum(library.to_numpy(diagonal))
        return total / (len(rows) * (len(rows) - 1))

    between = _sum_of_pairs(real_rows, fake_rows, kernel) / (len(real_rows) * len(fake_rows))
    return own(real_rows) + own(fake_rows) - 2.0 * between


def frechet_distance(
    real: Array | FeatureSet | FeatureMoments, fake: Array | FeatureSet | FeatureMoments
) -> float:
    """Fréchet distance (FID) of generated features, both sets taken for normally distributed.

    Parameters
    ----------
    real, fake : array of shape (N, D) and (M, D), FeatureMoments or FeatureSet
        Features of real and of generated images, or their moments. NumPy arrays or torch tensors.

    Returns
    -------
    float
        ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``, computed in float64: at least 0, and 0 for
        equal moments.

    Raises
    ------
    TypeError
        Arrays are of no known kind or dtype.
    ValueError
        A set has fewer than 2 features, features are not finite or of different lengths.

    Notes
    -----
    Heusel et al., "GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium", NeurIPS 2017, equation 6. Of N features each, the distance is too large by about a
    multiple of 1 / N (Bińkowski et al. 2018; Chong and Forsyth, CVPR 2020), so only distances of as
    many features compare. The trace of the root is the sum of the roots of the
    eigenvalues of ``S1^(1/2) S2 S1^(1/2)``, which is symmetric: no complex number appears.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> x = np.array([[0.0], [2.0]])
    >>> sosie.frechet_distance(x, x), round(sosie.frechet_distance(x, x + 3.0), 9)
    (0.0, 9.0)
    """
    (mean_real, cov_real), (mean_fake, cov_fake) = _moments(real, "real"), _moments(fake, "fake")
    _check_dimension(len(mean_real), len(mean_fake))
    difference = mean_real - mean_fake
    if np.array_equal(cov_real, cov_fake):  # the traces cancel, but for rounding
        return float(difference @ difference)
    values, vectors = np.linalg.eigh(cov_real)
    root = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ cov_fake @ root).clip(0.0)).sum()
    traces = np.trace(cov_real) + np.trace(cov_fake) - 2.0 * shared
    return float(difference @ difference + max(traces, 0.0))


def parzen_log_likelihood(
    centres: Array | FeatureSet, points: Array | FeatureSet, sigma: float | Sequence[float]
) -> NDArray[np.float64]:
    """Log-density of points under a mean of normal distributions around others, in nats.

    Parameters
    ----------
    centres, points : array of shape (N, D) and (M, D), or FeatureSet
        Features of generated and of real images, or the pixels of both. NumPy arrays or torch
        tensors of equal dtype.
    sigma : float, or sequence of them
        Standard deviation of the distributions, in each dimension; Parzen's window.

    Returns
    -------
    ndarray of float64, shape (M,)
        For a sequence of S deviations, shape (S, M).

    Raises
    ------
    TypeError
        Arrays are of no known kind or dtype.
    ValueError
        Features are not finite or of different lengths, or a deviation is not above 0.

    Notes
    -----
    ``log 1/N sum_i exp(-|x - c_i|^2 / 2 sigma^2) - D/2 log(2 pi sigma^2)``; Breuleux, Bengio,
    Vincent, "Quickly generating representative samples from an RBM-derived process", 2011, and
    Goodfellow et al. 2014 for generators. Theis, van den Oord, Bethge, "A note on the evaluation of
    generative models", ICLR 2016, show that it says little about samples. All pairs are looked at
    in blocks.

    Examples
    --------
    >>> import numpy as np, sosie
    >>> sosie.parzen_log_likelihood(np.array([[0.0], [0.0]]), np.array([[0.0], [1.0]]), 1.0)
    array([-0.91893853, -1.41893853])
    """
    centre_rows, point_rows = _pair(centres, points, ("centres", "points"))
    widths = np.atleast_1d(np.asarray(sigma, np.float64))
    if widths.ndim != 1 or not (widths > 0).all():
        raise ValueError(f"expected standard deviations above 0, got {sigma!r}")
    distance = importlib.import_module("sosie.distance")
    scales = -0.5 / widths**2
    result = np.full((len(widths), len(point_rows)), -np.inf)
    for block in _blocks(len(point_rows)):
        for other in _blocks(len(centre_rows)):
            between = distance.cdist(point_rows[block], centre_rows[other], "sqeuclidean")
            squares = np.asarray(between, np.float64)
            for row, scale in zip(result, scales, strict=True):
                row[block] = np.logaddexp(row[block], _logsumexp(scale * squares))
    result -= math.log(len(centre_rows))
    result -= 0.5 * point_rows.shape[1] * np.log(2 * np.pi * widths[:, None] ** 2)
    return result if np.ndim(sigma) else result[0]


# --- What they have in common ---------------------------------------------------------------------


def _logsumexp(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row."""
    largest = logs.max(axis=1, keepdims=True)
    total: NDArray[np.float64] = np.log(np.exp(logs - largest).sum(axis=1)) + largest[:, 0]
    return total


def _features(array: Array, name: str) -> NDArray[Any]:
    """Features of one set as a NumPy array, checked."""
    library = adapter(array)
    _check_shape(array, name)
    values = library.to_numpy(array)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"expected {name} features that are real numbers, got {array.dtype}")
    if values.dtype.kind == "f":
        _check_finite(int((~np.isfinite(values)).any(axis=1).sum()), name)
    return values


def _features_on_device(array: Array, name: str) -> Array:
    """Features of one set where they are, checked."""
    library = adapter(array)
    _check_shape(array, name)
    if library.dtype(array) not in CODES:
        raise TypeError(f"expected {name} features of dtype {', '.join(CODES)}, got {array.dtype}")
    array = array.detach() if is_torch(array) else array
    wrong = (~library.module.isfinite(array)).any(axis=1).sum()
    _check_finite(int(library.to_numpy(wrong)), name)
    return array


def _check_shape(array: Array, name: str) -> None:
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"expected {name} features of shape (N, D), at least one of at least one number, "
            f"got shape {tuple(array.shape)}"
        )


def _check_finite(wrong: int, name: str) -> None:
    if wrong:
        raise ValueError(f"expected {name} features that are finite, got {wrong} rows that are not")


def _rows(features: Array | FeatureSet, name: str) -> NDArray[Any]:
    """Features as a NumPy array."""
    if isinstance(features, FeatureSet):
        return features.compute()
    return _features(features, name)


def _pair(
    real: Array | FeatureSet,
    fake: Array | FeatureSet,
    names: tuple[str, str] = ("real", "fake"),
) -> tuple[Array, Array]:
    """Features of both sets: on a device if they are there, else as NumPy arrays."""
    on_device = [
        not isinstance(features, FeatureSet) and is_on_device(features) for features in (real, fake)
    ]
    if any(on_device):
        if not all(on_device):
            kinds = [f"{type(features).__module__}.{type(features).__name__}"
                     for features in (real, fake)]  # fmt: skip
            raise TypeError(
                f"expected {names[0]} and {names[1]} features both on one device or both in host "
                f"memory, where a FeatureSet keeps them, got {kinds[0]} and {kinds[1]}"
            )
        check_alike(real, fake, f"{names[0]} and {names[1]} features")
        real_rows, fake_rows = (
            _features_on_device(features, name)
            for features, name in zip((real, fake), names, strict=True)
        )
    else:
        real_rows, fake_rows = _rows(real, names[0]), _rows(fake, names[1])
    _check_dimension(real_rows.shape[1], fake_rows.shape[1])
    return real_rows, fake_rows


def _moments(features: Array | FeatureSet | FeatureMoments, name: str) -> Moments:
    if isinstance(features, FeatureMoments):
        return features.compute()
    moments = FeatureMoments()
    moments.update(_rows(features, name))
    return moments.compute()


def _check_dimension(first: int, second: int) -> None:
    if first != second:
        raise ValueError(f"expected features of equal length, got {first} and {second}")


def _blocks(count: int) -> Iterator[slice]:
    return (slice(begin, begin + _BLOCK) for begin in range(0, count, _BLOCK))


def _sum_of_pairs(x: Array, y: Array, kernel: Callable[[Array], Array]) -> float:
    """Sum of ``kernel(<x_i, y_j>)`` over all pairs."""
    library = adapter(x)
    sums = [
        kernel(x[rows] @ y[columns].T).sum()
        for rows in _blocks(len(x))
        for columns in _blocks(len(y))
    ]
    return math.fsum(float(library.to_numpy(part)) for part in sums)
