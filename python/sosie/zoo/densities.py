# SPDX-License-Identifier: Apache-2.0
"""Log-densities and divergences of autoencoders, in nats.

Everything here is per image: sums over pixels and codes, one number for each image of a batch, so
that reconstruction and divergence keep the weights that the bound on the likelihood gives them.
Averaging one of them over its elements would put a factor of hundreds between the two.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "bernoulli_nll",
    "categorical_kl_to_uniform",
    "gaussian_kl",
    "gaussian_nll",
    "logit_laplace_nll",
    "to_open_interval",
]

#: Half of what logit-Laplace densities leave out at either end of [0, 1]; Ramesh et al. 2021, A.3.
_MARGIN = 0.1


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Divergence of N(mean, diag(variance)) from N(0, 1), shape (N,).

    ``-1/2 sum (1 + log v - mean^2 - v)``: Kingma and Welling, "Auto-encoding variational Bayes",
    ICLR 2014, appendix B.

    Parameters
    ----------
    mean, log_variance : Tensor, shape (N, ...)

    Examples
    --------
    >>> gaussian_kl(torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2))
    tensor([2.])
    """
    elements = 1 + log_variance - mean.square() - log_variance.exp()
    return -0.5 * elements.flatten(1).sum(1)


def bernoulli_nll(logits: Tensor, target: Tensor) -> Tensor:
    """``-log p(target)`` under independent Bernoulli distributions, shape (N,).

    Parameters
    ----------
    logits : Tensor, shape (N, ...)
        Log-odds of a pixel to be 1.
    target : Tensor of the same shape
        0 or 1. Values between give the cross entropy, which is no density of gray values.
    """
    losses = F.binary_cross_entropy_with_logits(input=logits, target=target, reduction="none")
    return losses.flatten(1).sum(1)


def gaussian_nll(mean: Tensor, target: Tensor, sigma: float) -> Tensor:
    """``-log p(target)`` under N(mean, sigma^2) for each pixel, shape (N,).

    ``|target - mean|^2 / (2 sigma^2) + D/2 log(2 pi sigma^2)`` for D pixels.
    """
    squares = (target - mean).square().flatten(1)
    constant = 0.5 * squares.shape[1] * math.log(2 * math.pi * sigma**2)
    return squares.sum(1) / (2 * sigma**2) + constant


def to_open_interval(images: Tensor) -> Tensor:
    """[0, 1] to [0.1, 0.9], where logits are finite.

    Ramesh et al., "Zero-shot text-to-image generation", ICML 2021, appendix A.3. Undone by
    ``(y - 0.1) / 0.8``.
    """
    return (1 - 2 * _MARGIN) * images + _MARGIN


def from_open_interval(images: Tensor) -> Tensor:
    """What `to_open_interval` does, undone, and clipped to [0, 1]."""
    return ((images - _MARGIN) / (1 - 2 * _MARGIN)).clamp(0.0, 1.0)


def logit_laplace_nll(mean: Tensor, log_scale: Tensor, target: Tensor) -> Tensor:
    """``-log p(target)`` under logit-Laplace distributions, shape (N,).

    The density on (0, 1) of a number whose logit is Laplacian,
    ``exp(-|logit x - mean| / b) / (2 b x (1 - x))``; Ramesh et al. 2021, equation 2.

    Parameters
    ----------
    mean, log_scale : Tensor, shape (N, ...)
        Location of the logit, and log b.
    target : Tensor of the same shape
        In (0, 1): see :func:`to_open_interval`.
    """
    losses = (
        math.log(2)
        + log_scale
        + target.log()
        + torch.log1p(-target)
        + (torch.logit(target) - mean).abs() * torch.exp(-log_scale)
    )
    return losses.flatten(1).sum(1)


def categorical_kl_to_uniform(logits: Tensor) -> Tensor:
    """Divergence of categorical distributions from the uniform one, shape (N,).

    ``log K + sum_k q_k log q_k``, summed over the cells.

    Parameters
    ----------
    logits : Tensor, shape (N, K, ...)
        Unnormalised log-probabilities of K classes, for each cell.
    """
    log_q = F.log_softmax(logits, dim=1)
    cells = math.log(logits.shape[1]) + (log_q.exp() * log_q).sum(1)
    return cells.flatten(1).sum(1)
