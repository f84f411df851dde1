# SPDX-License-Identifier: Apache-2.0
"""torch's own ``cdist``, ``pairwise_distance``, ``cosine_similarity`` and weighted ``mse_loss``.

What is not covered is handed to torch: norms other than the Euclidean, dtypes that differ, shapes
that torch broadcasts with a warning, empty tensors, unreduced losses. Results are in the dtype of
the arguments. Distances are taken from differences, so that near pairs, and their gradients, are
exact, where torch expands squares for more than 25 vectors. `cdist` takes half precision too.

A weight of 0 takes its element out of `mse_loss`, NaN included, for which torch gives NaN. Where a
vector is shorter than ``eps``, the gradient of `cosine_similarity` is the derivative of the number
that is returned; torch's gradient, of the same number, is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sosie import distance, paired
from sosie.compat._coverage import NotCovered, falling_back, refused_is_not_covered
from sosie.compat._tensors import check_tensors
from sosie.torch import ssd as operators

__all__ = ["cdist", "cosine_similarity", "mse_loss", "pairwise_distance"]

DISTRIBUTION = "torch"
VERSIONS = ">=2.6,<2.16"
_FUNCTIONAL = "torch.nn.functional"
SEAMS = {
    "torch:cdist": "cdist",
    "torch.functional:cdist": "cdist",
    "torch:cosine_similarity": "cosine_similarity",
    f"{_FUNCTIONAL}:cosine_similarity": "cosine_similarity",
    f"{_FUNCTIONAL}:mse_loss": "mse_loss",
}

_MODES = (
    "use_mm_for_euclid_dist_if_necessary",
    "use_mm_for_euclid_dist",
    "donot_use_mm_for_euclid_dist",
)


@falling_back("torch")
def cdist(
    x1: Tensor,
    x2: Tensor,
    p: float = 2.0,
    compute_mode: str | None = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:
    """Distances of all rows, as ``torch.cdist``.

    Parameters
    ----------
    x1, x2 : Tensor, shape (..., N, D) and (..., M, D)
        Floating-point, differentiable. Leading axes broadcast.
    p : float
        2 is computed here.
    compute_mode : str
        Of no meaning here: differences are always taken.

    Returns
    -------
    Tensor, shape (..., N, M)

    Raises
    ------
    RuntimeError, ValueError
        As ``torch.cdist``.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torch_functional import cdist
    >>> cdist(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    if p != 2 or compute_mode not in _MODES:
        raise NotCovered(f"sosie computes Euclidean distances, got p={p}, mode {compute_mode!r}")
    check_tensors(x1, x2, kernel="cdist_forward")
    return _computed(lambda: distance.cdist(x1, x2), x1)


@falling_back(_FUNCTIONAL)
def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """Distance of every row of x1 to its partner in x2, as in ``torch.nn.functional``.

    With ``eps`` it is no faster than torch; `sosie.patch` leaves it alone.

    Parameters
    ----------
    x1, x2 : Tensor, shape (..., D)
        Floating-point, of shapes that broadcast, differentiable.
    p : float
        2 is computed here.
    eps : float
        Added to every difference. Equal rows are ``eps sqrt(D)`` apart.
    keepdim : bool
        Keep the last axis, with length 1.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    RuntimeError
        As torch's.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torch_functional import pairwise_distance
    >>> pairwise_distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]), eps=0)
    tensor([5.])
    """
    if p != 2:
        raise NotCovered(f"sosie computes Euclidean distances, got p={p}")
    check_tensors(x1, x2, kernel="euclidean_forward")

    def compute() -> Any:
        if eps == 0:
            return paired.euclidean_distance(x1, x2)
        # In this order, for then a difference keeps what eps adds to it.
        difference = x1 - x2
        return paired.euclidean_distance(difference, difference.new_full((1,), -eps))

    distances = _computed(compute, x1)
    return distances.unsqueeze(-1) if keepdim else distances


@falling_back(_FUNCTIONAL)
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Cosine of the angle of vectors along an axis, as in ``torch.nn.functional``.

    Parameters
    ----------
    x1, x2 : Tensor
        Floating-point, of shapes that broadcast, differentiable.
    dim : int
        The axis.
    eps : float
        Least norm of a vector.

    Returns
    -------
    Tensor
        Of the broadcast shape without the axis.

    Raises
    ------
    RuntimeError, IndexError
        As torch's.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torch_functional import cosine_similarity
    >>> cosine_similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([0.6000])
    """
    check_tensors(x1, x2, kernel="cosine_forward")
    return _computed(lambda: paired.cosine_similarity(x1, x2, axis=dim, eps=eps), x1)


@falling_back(_FUNCTIONAL)
def mse_loss(
    input: Tensor,  # noqa: A002
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """Mean or sum of (weighted) squared differences, as in ``torch.nn.functional``.

    Parameters
    ----------
    input, target : Tensor of equal shape
        Floating-point, differentiable.
    size_average, reduce
        Deprecated; not computed here.
    reduction : {"mean", "sum", "none"}
        The mean divides by the sum of the weights. "none" is not computed here.
    weight : Tensor of the same shape, optional
        Differentiable.

    Returns
    -------
    Tensor
        A scalar; the mean is NaN where weights sum to 0.

    Raises
    ------
    RuntimeError, ValueError
        As torch's.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torch_functional import mse_loss
    >>> x, y = torch.tensor([[1.0, 5.0]]), torch.tensor([[0.0, 2.0]])
    >>> mse_loss(x, y, weight=torch.tensor([[2.0, 1.0]]))
    tensor(3.6667)
    """
    if size_average is not None or reduce is not None or reduction not in ("mean", "sum"):
        raise NotCovered(f"sosie computes the reductions 'mean' and 'sum', got {reduction!r}")
    tensors = (input, target) if weight is None else (input, target, weight)
    check_tensors(*tensors, kernel="ssd_forward")
    if any(tensor.shape != input.shape for tensor in tensors) or input.ndim == 0:
        raise NotCovered("sosie computes tensors of equal shapes with at least one axis here")

    def compute() -> Any:
        total, weights = operators.sums(input, target, weight, allow_negative=True)[0]
        return total / weights if reduction == "mean" else total

    return _computed(compute, input)


def _computed(compute: Callable[[], Any], like: Tensor) -> Tensor:
    """A result in the dtype of the arguments."""
    with refused_is_not_covered():
        result: Tensor = compute()
    return result.to(like.dtype)
