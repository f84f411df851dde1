# SPDX-License-Identifier: Apache-2.0
"""The pairwise functions of `sosie.compat.torchmetrics`."""

from __future__ import annotations

import torch
from torch import Tensor

from sosie.compat._coverage import NotCovered, error_of, refused_is_not_covered
from sosie.compat._tensors import check_tensors
from sosie.distance import cdist

__all__ = [
    "pairwise_cosine_similarity",
    "pairwise_euclidean_distance",
    "pairwise_linear_similarity",
    "pairwise_manhattan_distance",
    "pairwise_minkowski_distance",
]

_EXCEPTIONS = "torchmetrics.utilities.exceptions"


def pairwise_euclidean_distance(
    x: Tensor,
    y: Tensor | None = None,
    reduction: str | None = None,
    zero_diagonal: bool | None = None,
) -> Tensor:
    """Euclidean distances of all rows, as ``torchmetrics.functional.pairwise`` has them.

    The original takes the root of squares that may be negative, hence NaN, for equal rows; they are
    0 apart here.

    Parameters
    ----------
    x : Tensor, shape (N, D)
    y : Tensor, shape (M, D), optional
        By default the rows of x.
    reduction : {"mean", "sum", "none", None}
        Of every row of distances.
    zero_diagonal : bool, optional
        Whether the diagonal is 0; by default where there is no y.

    Returns
    -------
    Tensor, shape (N, M) or (N,)
        In the dtype of x; float32 for integers.

    Raises
    ------
    ValueError
        Shapes do not fit, or the reduction is unknown.
    NotCovered
        Dtypes or devices that sosie does not compute.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import pairwise_euclidean_distance
    >>> pairwise_euclidean_distance(torch.tensor([[2.0, 3.0], [5.0, 7.0]]))
    tensor([[0., 5.],
            [5., 0.]])
    """
    return _per_row(_pairwise_euclidean_distance_update(x, y, zero_diagonal), reduction)


def pairwise_cosine_similarity(
    x: Tensor,
    y: Tensor | None = None,
    reduction: str | None = None,
    zero_diagonal: bool | None = None,
) -> Tensor:
    """Cosine similarities of all rows, as ``torchmetrics.functional.pairwise`` has them.

    A matrix product, as there: sosie has nothing faster.

    Parameters, results and errors are those of `pairwise_euclidean_distance`. A row of zeros has no
    angle: NaN, as there.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import pairwise_cosine_similarity
    >>> pairwise_cosine_similarity(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000]])
    """
    _check_floating(x)
    x, y, zero_diagonal = _pairs(x, y, zero_diagonal)
    x, y = (rows / rows.norm(dim=1, keepdim=True) for rows in (x, y))
    return _per_row(_products(x, y, zero_diagonal), reduction)


def pairwise_linear_similarity(
    x: Tensor,
    y: Tensor | None = None,
    reduction: str | None = None,
    zero_diagonal: bool | None = None,
) -> Tensor:
    """Inner products of all rows, as ``torchmetrics.functional.pairwise`` has them.

    A matrix product, as there: sosie has nothing faster.

    Parameters, results and errors are those of `pairwise_euclidean_distance`; integers are not
    computed.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import pairwise_linear_similarity
    >>> pairwise_linear_similarity(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[11.]])
    """
    _check_floating(x)
    return _per_row(_products(*_pairs(x, y, zero_diagonal)), reduction)


def pairwise_manhattan_distance(
    x: Tensor,
    y: Tensor | None = None,
    reduction: str | None = None,
    zero_diagonal: bool | None = None,
) -> Tensor:
    """Sums of absolute differences of all rows, as ``torchmetrics.functional.pairwise`` has them.

    By ``torch.cdist``: sosie has no kernel for them. No array ``(N, M, D)`` is formed, as is there.

    Parameters, results and errors are those of `pairwise_euclidean_distance`; integers are not
    computed.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import pairwise_manhattan_distance
    >>> pairwise_manhattan_distance(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]]))
    tensor([[5.]])
    """
    _check_floating(x)
    x, y, zero_diagonal = _pairs(x, y, zero_diagonal)
    computed = torch.promote_types(x.dtype, torch.float32)
    distances = torch.cdist(x.to(computed), y.to(computed), 1.0).to(x.dtype)
    return _per_row(_off_diagonal(distances) if zero_diagonal else distances, reduction)


def pairwise_minkowski_distance(
    x: Tensor,
    y: Tensor | None = None,
    exponent: float = 2,
    reduction: str | None = None,
    zero_diagonal: bool | None = None,
) -> Tensor:
    """Minkowski distances of all rows, as ``torchmetrics.functional.pairwise`` has them.

    Exponents other than 2 are computed by ``torch.cdist``, in float64 as there, without an array
    ``(N, M, D)``. The gradient at equal rows is 0, where the original's is NaN.

    Parameters
    ----------
    x, y, reduction, zero_diagonal
        As for `pairwise_euclidean_distance`; integers are not computed.
    exponent : float
        At least 1.

    Returns
    -------
    Tensor, shape (N, M) or (N,)

    Raises
    ------
    torchmetrics.utilities.exceptions.TorchMetricsUserError
        The exponent is below 1; a ValueError where torchmetrics is not installed.
    ValueError, NotCovered
        As for `pairwise_euclidean_distance`.

    Examples
    --------
    >>> import torch
    >>> from sosie.compat.torchmetrics import pairwise_minkowski_distance
    >>> pairwise_minkowski_distance(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    if exponent == 2:
        return _per_row(
            _pairwise_minkowski_distance_update(x, y, exponent, zero_diagonal), reduction
        )
    if not isinstance(exponent, float | int) or exponent < 1:
        raise error_of(_EXCEPTIONS, "TorchMetricsUserError", ValueError)(
            f"expected an exponent of at least 1, got {exponent!r}"
        )
    _check_floating(x)
    x, y, zero_diagonal = _pairs(x, y, zero_diagonal)
    distances = torch.cdist(x.double(), y.double(), float(exponent)).to(x.dtype)
    return _per_row(_off_diagonal(distances) if zero_diagonal else distances, reduction)


def _pairwise_euclidean_distance_update(
    x: Tensor, y: Tensor | None = None, zero_diagonal: bool | None = None
) -> Tensor:
    dtype = x.dtype
    if not x.is_floating_point() and (y is None or not y.is_floating_point()):
        x, y, dtype = x.double(), None if y is None else y.double(), torch.float32
    x, y, zero_diagonal = _pairs(x, y, zero_diagonal)
    with refused_is_not_covered():
        distances: Tensor = cdist(x, y).to(dtype)
    return _off_diagonal(distances) if zero_diagonal else distances


def _pairwise_minkowski_distance_update(
    x: Tensor, y: Tensor | None = None, exponent: float = 2, zero_diagonal: bool | None = None
) -> Tensor:
    if exponent != 2:
        raise NotCovered(f"sosie computes Minkowski distances of exponent 2, got {exponent!r}")
    _check_floating(x)
    return _pairwise_euclidean_distance_update(x, y, zero_diagonal)


def _check_floating(x: Tensor) -> None:
    if not x.is_floating_point():
        raise NotCovered(f"sosie computes floating-point vectors here, got {x.dtype}")


def _pairs(x: Tensor, y: Tensor | None, zero_diagonal: bool | None) -> tuple[Tensor, Tensor, bool]:
    """Both sets, and whether the diagonal is 0."""
    if x.ndim != 2:
        raise ValueError(f"expected x of shape (N, D), got {tuple(x.shape)}")
    if y is not None and (y.ndim != 2 or y.shape[1] != x.shape[1]):
        raise ValueError(f"expected y of shape (M, {x.shape[1]}), got {tuple(y.shape)}")
    if zero_diagonal is None:
        zero_diagonal = y is None
    y = x if y is None else y
    check_tensors(x, y, kernel="cdist_forward")
    return x, y, zero_diagonal


def _products(x: Tensor, y: Tensor, zero_diagonal: bool) -> Tensor:
    """Inner products of all rows; of half precision, in single precision."""
    computed = torch.promote_types(x.dtype, torch.float32)
    products = (x.to(computed) @ y.to(computed).T).to(x.dtype)
    return _off_diagonal(products) if zero_diagonal else products


def _off_diagonal(matrix: Tensor) -> Tensor:
    """The matrix with a diagonal of 0."""
    return matrix.masked_fill(torch.eye(*matrix.shape, dtype=torch.bool, device=matrix.device), 0)


def _per_row(matrix: Tensor, reduction: str | None) -> Tensor:
    if reduction not in ("mean", "sum", "none", None):
        raise ValueError(
            f"expected reduction out of 'mean', 'sum', 'none', None, got {reduction!r}"
        )
    if reduction == "mean":
        return matrix.mean(dim=-1)
    return matrix.sum(dim=-1) if reduction == "sum" else matrix
