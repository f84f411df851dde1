# SPDX-License-Identifier: Apache-2.0
"""Measures of generators against their definitions, other packages' formulas and analytic cases."""

from __future__ import annotations

import importlib.util
import pickle
import sys
import types
from typing import Any

import numpy as np
import pytest

import sosie
from sosie import generation
from sosie.reference import generation as reference

torch = pytest.importorskip("torch")

Array = Any

MEASURES = {
    "prdc": sosie.prdc,
    "kernel_distance": sosie.kernel_distance,
    "frechet_distance": sosie.frechet_distance,
}


def _knn(
    queries: Array, database: Array, k: int, metric: str = "euclidean", exclude_self: bool = False
) -> tuple[Array, Array]:
    assert metric == "euclidean"
    between = reference.distances(queries, database)
    if exclude_self:
        np.fill_diagonal(between, np.inf)
    order = np.argsort(between, axis=1)[:, :k]
    return np.take_along_axis(between, order, axis=1), order


@pytest.fixture(autouse=True)
def distances_by_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for `sosie.distance` where that is not there."""
    if importlib.util.find_spec("sosie.distance") is None:
        module = types.ModuleType("sosie.distance")
        module.cdist = reference.distances
        module.knn = _knn
        monkeypatch.setitem(sys.modules, "sosie.distance", module)


def noise(shape: tuple[int, ...], seed: int, dtype: str = "float64") -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# --- Against the definitions ----------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("sizes", [(40, 40), (7, 33), (61, 6)])
@pytest.mark.parametrize("block", [5, 16, 1024])
def test_prdc(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int], k: int, block: int) -> None:
    monkeypatch.setattr(generation, "_BLOCK", block)
    real, fake = noise((sizes[0], 4), 0), 0.8 * noise((sizes[1], 4), 1) + 0.2
    expected = reference.prdc(real, fake, k)
    # Shares of whole numbers; but for their division nothing rounds.
    assert sosie.prdc(real, fake, k=k) == pytest.approx(expected, rel=1e-15)
    assert 0.0 < expected[0] <= 1.0


def test_prdc_of_far_and_of_equal_sets() -> None:
    real = noise((30, 3), 0)
    assert sosie.prdc(real, real + 100.0) == (0.0, 0.0, 0.0, 0.0)
    same = sosie.prdc(real, real, k=2)
    assert same.precision == same.recall == same.coverage == 1.0
    # A feature is in its own neighbourhood and, nearer than the second neighbour, in one more
    # on average.
    assert same.density == pytest.approx(1.0)


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize(
    "options", [{}, {"degree": 1}, {"degree": 2, "gamma": 0.3, "coef0": 0.0}], ids=str
)
def test_kernel_distance(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], block: int
) -> None:
    monkeypatch.setattr(generation, "_BLOCK", block)
    real, fake = noise((40, 6), 0), noise((33, 6), 1) * 1.2 + 0.1
    expected = reference.kernel_distance(real, fake, **options)
    assert sosie.kernel_distance(real, fake, **options) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("sizes", [(50, 40), (4, 5)], ids=["full rank", "fewer than axes"])
def test_frechet_distance(sizes: tuple[int, int]) -> None:
    real, fake = noise((sizes[0], 8), 0), noise((sizes[1], 8), 1) * 1.5 - 0.3
    expected = reference.frechet_distance(real, fake)
    # Roots of eigenvalues that are 0 but for 1e-16 are wrong by 1e-8.
    rel = 1e-12 if sizes[0] > 8 else 1e-7
    assert sosie.frechet_distance(real, fake) == pytest.approx(expected, rel=rel)


@pytest.mark.parametrize("block", [7, 1024])
def test_parzen_log_likelihood(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(generation, "_BLOCK", block)
    centres, points = noise((23, 5), 0), noise((31, 5), 1)
    widths = [0.01, 0.5, 3.0]
    found = sosie.parzen_log_likelihood(centres, points, widths)
    for row, width in zip(found, widths, strict=True):
        expected = reference.parzen_log_likelihood(centres, points, width)
        # Rounding of float64; the exponents of the narrow window are some ten thousand.
        np.testing.assert_allclose(row, expected, rtol=1e-12)
        alone = sosie.parzen_log_likelihood(torch.from_numpy(centres), points_of(points), width)
        np.testing.assert_array_equal(alone, row)
    for sigma in (0.0, -1.0, [1.0, float("nan")]):
        with pytest.raises(ValueError, match="expected standard deviations above 0"):
            sosie.parzen_log_likelihood(centres, points, sigma)


def points_of(points: Array) -> Array:
    features = sosie.FeatureSet()
    features.update(points)
    return features


# --- Against torchmetrics' formulas ---------------------------------------------------------------


def test_torchmetrics_kernel_distance() -> None:
    def polynomial(a: Any, b: Any) -> Any:
        return (a @ b.T * (1.0 / a.shape[1]) + 1.0) ** 3

    x, y = (torch.from_numpy(noise((25, 7), seed)) for seed in (0, 1))
    k_xx, k_yy, k_xy = polynomial(x, x), polynomial(y, y), polynomial(x, y)
    m = len(x)
    within = (k_xx.sum() - k_xx.diagonal().sum()) + (k_yy.sum() - k_yy.diagonal().sum())
    expected = within / (m * (m - 1)) - 2 * k_xy.sum() / m**2
    assert sosie.kernel_distance(x, y) == pytest.approx(expected.item(), rel=1e-11)


def test_torchmetrics_frechet_distance() -> None:
    x, y = (torch.from_numpy(noise((60, 9), seed) + seed) for seed in (0, 1))
    difference = x.mean(0) - y.mean(0)
    cov_x, cov_y = torch.cov(x.T), torch.cov(y.T)
    roots = torch.linalg.eigvals(cov_x @ cov_y).sqrt().real.sum()
    expected = difference.square().sum() + cov_x.trace() + cov_y.trace() - 2 * roots
    assert sosie.frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-11)


# --- Analytic cases -------------------------------------------------------------------------------


def test_frechet_distance_of_normal_distributions() -> None:
    # |m1 - m2|^2 + sum (s1 - s2)^2 for diagonal covariances, 4 + 1 + 0.25 + 4 here.
    scale = np.array([1.0, 2.0, 3.0])
    real = noise((200_000, 3), 0)
    fake = noise((200_000, 3), 1) * scale + np.array([2.0, 0.0, 0.5])
    expected = 4.0 + 0.25 + ((scale - 1.0) ** 2).sum()
    # Means and deviations of 200 000 samples are wrong by 0.002 to 0.007, times twice their weight.
    assert sosie.frechet_distance(real, fake) == pytest.approx(expected, abs=0.05)


def test_frechet_distance_of_equal_sets_is_0_and_never_less() -> None:
    for seed in range(20):
        real = noise((12, 20), seed)
        assert sosie.frechet_distance(real, real.copy()) == 0.0
        assert sosie.frechet_distance(real, real[::-1]) >= 0.0
        assert sosie.frechet_distance(real, real[::-1]) < 1e-6


def test_kernel_distance_is_unbiased() -> None:
    values = [
        sosie.kernel_distance(noise((20, 4), s), noise((20, 4), s + 1000)) for s in range(300)
    ]
    # Of equal distributions: the mean of 300 is 0 within four of its standard errors.
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)
    assert min(values) < 0.0


# --- In batches -----------------------------------------------------------------------------------


def parts_of(kind: type, features: Array) -> Any:
    """Features in uneven batches, in two objects, one of which has been sent elsewhere."""
    first, second = kind(), kind()
    for begin, end in ((0, 1), (1, 30), (30, 47)):
        first.update(features[begin:end])
    second.update(features[47:60])
    second.update(features[60:])
    first.merge(pickle.loads(pickle.dumps(second)))
    first.merge(kind())
    return first


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_merged_moments_equal_the_whole(offset: float) -> None:
    features = noise((83, 6), 0) + offset
    moments = parts_of(generation.FeatureMoments, features).compute()
    mean, covariance = reference.moments(features)
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-14)
    # Centred before they are squared: an offset costs digits of the features alone.
    np.testing.assert_allclose(moments.covariance, covariance, rtol=0, atol=1e-12 * (1 + offset))
    other = noise((50, 6), 1) + offset
    merged = sosie.frechet_distance(parts_of(generation.FeatureMoments, features), other)
    assert merged == pytest.approx(sosie.frechet_distance(features, other), abs=1e-10)


@pytest.mark.parametrize("name", MEASURES)
def test_merged_features_equal_the_whole(name: str) -> None:
    real, fake = noise((83, 6), 0), noise((71, 6), 1)
    features = parts_of(generation.FeatureSet, real)
    assert np.array_equal(features.compute(), real)
    assert MEASURES[name](features, fake) == MEASURES[name](real, fake)


def test_a_batch_may_be_changed_afterwards() -> None:
    batch = noise((5, 3), 0)
    features = generation.FeatureSet()
    features.update(batch)
    before = batch.copy()
    batch[:] = 0.0
    assert np.array_equal(features.compute(), before)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_torch_and_narrow_dtypes(name: str, dtype: str) -> None:
    real, fake = noise((40, 5), 0, dtype), noise((30, 5), 1, dtype)
    exact = MEASURES[name](real.astype(np.float64), fake.astype(np.float64))
    # float32 distances may order neighbours that are nearly equally far otherwise; here none are.
    assert MEASURES[name](real, fake) == pytest.approx(exact, rel=1e-6)
    tensors = [torch.from_numpy(features) for features in (real, fake)]
    assert MEASURES[name](*tensors) == pytest.approx(exact, rel=1e-6)


# --- What is refused ------------------------------------------------------------------------------

ROWS = np.ones((8, 3))


def broken(value: float) -> Array:
    rows = ROWS.copy()
    rows[2, 1] = value
    return rows


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (ROWS, np.ones((8, 4)), "features of equal length, got 3 and 4"),
        (ROWS[0], ROWS, r"real features of shape \(N, D\), .*, got shape \(3,\)"),
        (ROWS, ROWS[:0], r"features of shape \(N, D\), .*, got shape \(0, 3\)"),
        (broken(np.nan), ROWS, "features that are finite, got 1 rows"),
        (broken(np.inf), ROWS, "features that are finite, got 1 rows"),
        (generation.FeatureSet(), ROWS, "at least one batch of features, got none"),
    ],
)
def test_sets_that_are_refused(name: str, real: Array, fake: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MEASURES[name](real, fake)


@pytest.mark.parametrize("k", [0, 8, 9])
def test_neighbourhoods_that_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"real features less 1, got k = {k} and 8 features"):
        sosie.prdc(ROWS, np.ones((20, 3)), k=k)
    if k > 0:
        with pytest.raises(ValueError, match=f"fake features less 1, got k = {k} and 8 features"):
            sosie.prdc(np.ones((20, 3)), ROWS, k=k)


def test_sets_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="at least 2 fake features, got 1"):
        sosie.kernel_distance(ROWS, ROWS[:1])
    with pytest.raises(ValueError, match="at least 2 features for a covariance, got 1"):
        sosie.frechet_distance(ROWS, ROWS[:1])
    with pytest.raises(ValueError, match="at least 2 features for a covariance, got 0"):
        sosie.frechet_distance(generation.FeatureMoments(), ROWS)


def test_other_refusals() -> None:
    with pytest.raises(ValueError, match="degree of at least 1, got 0"):
        sosie.kernel_distance(ROWS, ROWS, degree=0)
    with pytest.raises(TypeError, match="real numbers, got complex128"):
        sosie.kernel_distance(ROWS.astype(complex), ROWS)
    with pytest.raises(TypeError, match=r"tensors or CuPy arrays, got builtins\.list"):
        sosie.prdc([[1.0]], ROWS)
    for kind in (generation.FeatureSet, generation.FeatureMoments):
        features = kind()
        features.update(ROWS)
        with pytest.raises(ValueError, match="equal length, got 3 and 4"):
            features.update(np.ones((2, 4)))
