# SPDX-License-Identifier: Apache-2.0
"""Drop-ins have the names, parameters and defaults of what they stand in for."""

from __future__ import annotations

import importlib
import inspect
import warnings
from typing import Any

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("importable_piq")

#: By drop-in: where the library has the names, and which.
INSTALLED = [
    ("pytorch_msssim", "pytorch_msssim", "ssim ms_ssim SSIM MS_SSIM"),
    (
        "torchmetrics",
        "torchmetrics.functional.image",
        "structural_similarity_index_measure multiscale_structural_similarity_index_measure "
        "peak_signal_noise_ratio",
    ),
    (
        "torchmetrics",
        "torchmetrics.functional.pairwise",
        "pairwise_cosine_similarity pairwise_euclidean_distance pairwise_linear_similarity "
        "pairwise_manhattan_distance pairwise_minkowski_distance",
    ),
    (
        "torchmetrics",
        "torchmetrics.image",
        "StructuralSimilarityIndexMeasure MultiScaleStructuralSimilarityIndexMeasure "
        "PeakSignalNoiseRatio",
    ),
    ("piq", "piq", "ssim multi_scale_ssim SSIMLoss MultiScaleSSIMLoss"),
    ("kornia", "kornia.metrics", "ssim ssim3d SSIM SSIM3D"),
    ("kornia", "kornia.losses", "ssim_loss ssim3d_loss SSIMLoss SSIM3DLoss MS_SSIMLoss"),
    ("monai", "monai.metrics.regression", "compute_ssim_and_cs"),
    ("monai", "monai.losses", "SSIMLoss"),
    (
        "skimage",
        "skimage.metrics",
        "structural_similarity mean_squared_error peak_signal_noise_ratio normalized_root_mse",
    ),
    ("scipy", "scipy.spatial.distance", "cdist"),
    (
        "sklearn",
        "sklearn.metrics.pairwise",
        "euclidean_distances cosine_similarity cosine_distances pairwise_distances_argmin_min",
    ),
    ("sklearn", "sklearn.metrics._pairwise_distances_reduction", "ArgKmin"),
    ("faiss", "faiss", "knn pairwise_distances"),
    ("torch_functional", "torch", "cdist"),
    ("torch_functional", "torch.nn.functional", "mse_loss"),
    (
        "prdc",
        "prdc.prdc",
        "compute_prdc compute_pairwise_distance compute_nearest_neighbour_distances",
    ),
]

#: Of functions that are not installed, or do not tell: from their documentation.
DOCUMENTED = {
    "fused_ssim.fused_ssim": "(img1, img2, padding='same', train=True)",
    "fused_ssim.fused_ssim3d": "(img1, img2, padding='same', train=True)",
    "fussim.fused_ssim": "(img1, img2, padding='same', train=True, window_size=11)",
    "fussim.ssim": (
        "(X, Y, data_range=255, size_average=True, win_size=11, win_sigma=1.5, win=None, "
        "K=(0.01, 0.03), nonnegative_ssim=False)"
    ),
    "tensorflow.ssim": (
        "(img1, img2, max_val, filter_size=11, filter_sigma=1.5, k1=0.01, k2=0.03, "
        "return_index_map=False)"
    ),
    "tensorflow.ssim_multiscale": (
        "(img1, img2, max_val, power_factors=(0.0448, 0.2856, 0.3001, 0.2363, 0.1333), "
        "filter_size=11, filter_sigma=1.5, k1=0.01, k2=0.03)"
    ),
    "pytorch3d.knn_points": (
        "(p1, p2, lengths1=None, lengths2=None, norm=2, K=1, version=-1, return_nn=False, "
        "return_sorted=True)"
    ),
    "pytorch3d.knn_gather": "(x, idx, lengths=None)",
    "cupyx.cdist": "(XA, XB, metric='euclidean', out=None, **kwargs)",
    "torch_functional.pairwise_distance": "(x1, x2, p=2.0, eps=1e-06, keepdim=False)",
    "torch_functional.cosine_similarity": "(x1, x2, dim=1, eps=1e-08)",
    "convlstm_pytorch.ConvLSTM": (
        "(input_dim, hidden_dim, kernel_size, num_layers, batch_first=False, bias=True, "
        "return_all_layers=False)"
    ),
}


def _signature(function: Any) -> inspect.Signature:
    """Without annotations, which say the same in other words."""
    signature = inspect.signature(function)
    bare = [
        each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()
    ]
    return inspect.Signature(bare)


@pytest.mark.parametrize(("drop_in", "module", "names"), INSTALLED)
def test_signatures_are_the_librarys(drop_in: str, module: str, names: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip(module)
    ours = importlib.import_module(f"sosie.compat.{drop_in}")
    for name in names.split():
        own, other = getattr(ours, name), getattr(theirs, name)
        assert name in ours.__all__
        assert _signature(own) == _signature(other), name
        for method in ("forward", "update", "compute"):
            if isinstance(other, type) and hasattr(other, method):
                own_method, other_method = getattr(own, method), getattr(other, method)
                assert _signature(own_method) == _signature(other_method), f"{name}.{method}"


@pytest.mark.parametrize("path", DOCUMENTED)
def test_signatures_are_the_documented_ones(path: str) -> None:
    module, _, name = path.partition(".")
    ours = importlib.import_module(f"sosie.compat.{module}")
    assert name in ours.__all__
    assert str(_signature(getattr(ours, name))) == DOCUMENTED[path]
