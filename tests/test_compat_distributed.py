# SPDX-License-Identifier: Apache-2.0
"""Metrics that are computed in parts, by processes, equal those of one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("torchmetrics")

_METRICS = """
import contextlib, json, sys
import torch
import torchmetrics.image as theirs
import sosie
from sosie.compat import torchmetrics as ours

torch.set_num_threads(1)

def metrics(module, **options):
    ssim, psnr = module.StructuralSimilarityIndexMeasure, module.PeakSignalNoiseRatio
    return {
        "ssim": ssim(data_range=1.0, **options),
        "sum of ssim": ssim(data_range=(0.2, 0.9), reduction="sum", **options),
        "ssim of each": ssim(data_range=1.0, reduction=None, **options),
        "ssim and maps": ssim(data_range=1.0, return_full_image=True, **options),
        "ssim and contrast": ssim(data_range=1.0, return_contrast_sensitivity=True, **options),
        "ms-ssim": module.MultiScaleStructuralSimilarityIndexMeasure(
            data_range=1.0, kernel_size=3, sigma=0.5, betas=(0.4, 0.6), **options),
        "ms-ssim of each": module.MultiScaleStructuralSimilarityIndexMeasure(
            data_range=1.0, kernel_size=3, sigma=0.5, betas=(0.4, 0.6), reduction="none",
            **options),
        "psnr": psnr(data_range=1.0, **options),
        "psnr of a part": psnr(data_range=(0.1, 0.9), **options),
        "psnr of each": psnr(data_range=1.0, reduction="none", dim=(1, 2, 3), **options),
    }

def batches():
    generator = torch.Generator().manual_seed(0)
    for size in (3, 1, 2, 2, 1):
        target = torch.rand(size, 3, 36, 41, generator=generator)
        yield (target + 0.2 * torch.rand(target.shape, generator=generator)) / 1.2, target

def computed(batches, module, without=(), **options):
    found = metrics(module, **options)
    for name in without:
        del found[name]
    for preds, target in batches:
        for metric in found.values():
            metric.update(preds, target)
    return {name: numbers(metric.compute()) for name, metric in found.items()}

def numbers(result):
    # Values of images, or of all; of maps their means.
    parts = result if isinstance(result, tuple) else (result,)
    return torch.cat([
        each.reshape(-1) if each.ndim < 2 else each.flatten(1).mean(1) for each in parts
    ]).tolist()
"""

_PROCESS = """
rank = {rank}
torch.distributed.init_process_group("gloo", init_method={store!r}, rank=rank, world_size=2)
mine = list(batches())[:3] if rank == 0 else list(batches())[3:]
results = {{"drop-in": computed(mine, ours)}}
results["one process"] = computed(batches(), theirs, sync_on_compute=False)
with sosie.patch("torchmetrics"):
    # Of which torchmetrics cannot merge lists of unequal length, and takes no merged maps.
    without = ["ssim of each", "ms-ssim of each", "ssim and maps", "ssim and contrast"]
    results["patch"] = computed(mine, theirs, without)
    calls = sosie.patch.report()["torchmetrics"]
assert calls.computed > 0 and not calls.fallbacks, calls
# A process that has seen nothing yet.
everything = list(batches()) if rank == 0 else []
results["of one alone"] = computed(everything, ours, without=["ssim and maps"])
torch.distributed.destroy_process_group()
print(json.dumps(results))
"""


def test_two_processes_equal_one(run_python: Callable[..., str], tmp_path: Path) -> None:
    """Batches of several sizes, three for one process and two for the other."""
    store = f"file://{tmp_path}/rendezvous"
    codes = [_METRICS + _PROCESS.format(rank=rank, store=store) for rank in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        # Gloo takes the interface that the machine's name leads to, unless told: the loopback.
        processes = pool.map(lambda code: run_python(code, GLOO_SOCKET_IFNAME="lo"), codes)
        results = [json.loads(printed.splitlines()[-1]) for printed in processes]
    assert results[0] == results[1]
    expected = results[0]["one process"]
    assert results[0]["drop-in"].keys() == expected.keys()
    for way in ("drop-in", "patch", "of one alone"):
        for name, value in results[0][way].items():
            # float32 sums of a few values, in another order
            assert value == pytest.approx(expected[name], rel=2e-6), (name, way)
