# SPDX-License-Identifier: Apache-2.0
"""Every kernel once, on arrays of a few blocks: what compute-sanitizer watches.

compute-sanitizer python -m benchmarks.gpu.small
"""

from __future__ import annotations

from typing import Any

__all__ = ["run"]


def run(device: str, vectors: int = 1100) -> None:
    """Call every family, forward and backward, on tensors of a device.

    Parameters
    ----------
    device : str
        Of torch.
    vectors : int
        Of each set whose distances come from a matrix product: enough that they do.
    """
    import torch

    torch.manual_seed(0)
    _images(device)
    _rows(device)
    _distances(device, vectors)
    _layers(device)


def _random(*shape: int, device: str, dtype: Any = None) -> Any:
    import torch

    return torch.rand(shape, device=device, dtype=dtype).requires_grad_()


def _images(device: str) -> None:
    import sosie

    x, y = (_random(2, 3, 43, 70, device=device) for _ in range(2))
    for weight in (_random(2, 1, 43, 70, device=device), _random(2, 3, 43, 70, device=device)):
        sosie.weighted_ssd(x, y, weight, reduction="mean").backward()
    sosie.mse(x, y).backward()
    for options in (
        {},
        {"window_size": 7},
        {"spec": "torchmetrics"},
        {"mask": y.detach()[0, 0] > 0.2},
    ):
        sosie.ssim(x, y, data_range=1.0, **options).backward()
    sosie.ms_ssim(x, y, data_range=1.0, weights=(0.4, 0.6)).backward()
    sosie.ssim((255 * x).byte(), (255 * y).byte())


def _rows(device: str) -> None:
    import sosie

    x, y = _random(30, 70, device=device), _random(1, 70, device=device)
    for function in (sosie.euclidean_distance, sosie.cosine_similarity):
        function(x, y).sum().backward()


def _distances(device: str, vectors: int) -> None:
    import sosie

    for count, dims in ((60, 9), (vectors, 40)):
        a, b = (_random(count, dims, device=device) for _ in range(2))
        for metric in ("euclidean", "cosine"):
            sosie.cdist(a, b, metric).sum().backward()
            sosie.knn(a[:20], b, 3, metric).distances.sum().backward()
            sosie.knn(a, b, 3, metric)


def _layers(device: str) -> None:
    from sosie import nn

    for layer in (
        nn.ConvLSTM(3, 6, peephole="channel", device=device),
        nn.ConvGRU(3, 8, device=device),
        nn.ConvGRU(3, 8, linear_before_reset=True, device=device),
    ):
        layer(_random(2, 1, 3, 9, 13, device=device))[0].sum().backward()


if __name__ == "__main__":
    import torch

    run("cuda")
    torch.cuda.synchronize()
