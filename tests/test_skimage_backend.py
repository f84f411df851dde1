# SPDX-License-Identifier: Apache-2.0
"""scikit-image finds sosie by its entry points, and gets its own numbers from it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sosie.compat import _skimage_backend as backend

if sys.version_info >= (3, 11):
    import tomllib

metrics = pytest.importorskip("skimage.metrics")
MSE, NRMSE, SSIM = backend.information().supported_functions


@pytest.mark.skipif(sys.version_info < (3, 11), reason="scikit-image 0.26 needs Python 3.11")
def test_scikit_image_dispatches_to_sosie(run_python: Callable[..., str], tmp_path: Path) -> None:
    """With the entry points as `pyproject.toml` has them, installed or not."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]
    folder = tmp_path / "backend_of_the_test-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Name: backend-of-the-test\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(
        "\n".join(
            f"[{group}]\nsosie = {points[group]['sosie']}"
            for group in ("skimage_backends", "skimage_backend_infos")
        )
    )
    code = f"""
import sys, warnings
sys.path.append({str(tmp_path)!r})
import numpy as np
from skimage import metrics
x, y = np.random.default_rng(0).integers(0, 256, (2, 31, 29), dtype=np.uint8)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(repr(float(metrics.mean_squared_error(x, y))))
    print(repr(float(metrics.normalized_root_mse(x, y))))
    metrics.mean_squared_error(x[:0], y[:0])  # theirs: the mean of nothing
print(*(str(warning.message).split(" was dispatched to")[0] for warning in caught if
        warning.category.__name__ == "DispatchNotification"), sep="; ")
"""
    *lines, notes = run_python(code, SKIMAGE_NO_DISPATCHING="0").splitlines()
    x, y = np.random.default_rng(0).integers(0, 256, (2, 31, 29), dtype=np.uint8).astype(float)
    expected = [np.mean((x - y) ** 2), np.sqrt(np.sum((x - y) ** 2) / np.sum(x**2))]
    # float64 sums; what differs is the order.
    assert [float(line) for line in lines] == pytest.approx(expected, rel=1e-13)
    assert notes == f"Call to '{MSE}'; Call to '{NRMSE}'"


@pytest.mark.parametrize(
    "dtype", [np.bool_, np.uint8, np.int16, np.float16, np.float32, np.float64]
)
def test_what_is_taken_is_computed(dtype: type) -> None:
    x, y = (np.random.default_rng(0).random((2, 3, 9, 8)) * 2).astype(dtype)
    # The original sums float64 squares of differences of the precision that it promotes to.
    tolerance = 1e-6 if np.dtype(dtype).kind == "f" and np.dtype(dtype).itemsize < 8 else 1e-13
    for name, options in [(MSE, {}), *((NRMSE, {"normalization": n}) for n in ("mean", "min-max"))]:
        if dtype is np.bool_ and options == {"normalization": "min-max"}:
            continue
        assert backend.can_has(name, x, y, **options)
        theirs = getattr(metrics, name.rpartition(":")[2])
        ours = backend.get_implementation(name)(x, y, **options)
        assert ours == pytest.approx(theirs(x, y, **options), rel=tolerance)


def test_what_is_not_computed_is_not_taken() -> None:
    x = np.zeros((3, 4))
    assert backend.can_has(MSE, x, image1=x)
    for name, arguments in (
        (SSIM, (x, x)),  # not dispatched by any release yet
        (MSE, (x, x.tolist())),
        (MSE, (x, x[1:])),
        (MSE, (x[:0], x[:0])),
        (MSE, (x.astype(complex), x)),
        (MSE, (x.astype(object), x)),
        (NRMSE, (np.ma.masked_array(x), x)),
    ):
        assert not backend.can_has(name, *arguments)
