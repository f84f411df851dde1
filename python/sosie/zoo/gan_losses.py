# SPDX-License-Identifier: Apache-2.0
"""What generators and discriminators are trained on.

Scores are what a discriminator returns before any sigmoid, shape (N,): the higher, the more real.
All losses are means over the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["GAN_LOSSES", "discriminator_loss", "generator_loss", "gradient_penalty"]

#: Names of the losses: Goodfellow et al., NeurIPS 2014, with the non-saturating generator; Mao et
#: al., ICCV 2017; Lim and Ye, 2017; Arjovsky et al., ICML 2017, with the penalty of Gulrajani et
#: al., NeurIPS 2017.
GAN_LOSSES = ("vanilla", "lsgan", "hinge", "wgan-gp")


def discriminator_loss(name: str, real: Tensor, fake: Tensor) -> Tensor:
    """Loss of a discriminator, or of a critic without its gradient penalty.

    ============  ===========================================
    ``vanilla``   ``-log s(real) - log(1 - s(fake))``
    ``lsgan``     ``((real - 1)^2 + fake^2) / 2``
    ``hinge``     ``max(0, 1 - real) + max(0, 1 + fake)``
    ``wgan-gp``   ``fake - real``
    ============  ===========================================

    ``s`` is the logistic function. It is not applied: ``-log s(x)`` is ``softplus(-x)``, which
    neither overflows nor loses digits.

    Examples
    --------
    >>> round(discriminator_loss("vanilla", torch.zeros(4), torch.zeros(4)).item(), 4)  # 2 log 2
    1.3863
    """
    if name == "vanilla":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if name == "lsgan":
        return ((real - 1).square().mean() + fake.square().mean()) / 2
    if name == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if name == "wgan-gp":
        return fake.mean() - real.mean()
    raise _unknown(name)


def generator_loss(name: str, fake: Tensor) -> Tensor:
    """Loss of a generator.

    For ``vanilla`` it is ``-log s(fake)`` rather than ``log(1 - s(fake))``, whose gradient vanishes
    where the discriminator is sure; ``(fake - 1)^2 / 2`` for ``lsgan``, ``-fake`` for the others.
    """
    if name == "vanilla":
        return F.softplus(-fake).mean()
    if name == "lsgan":
        return (fake - 1).square().mean() / 2
    if name in ("hinge", "wgan-gp"):
        return -fake.mean()
    raise _unknown(name)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor
) -> Tensor:
    """Mean of ``(|gradient| - 1)^2`` at points between real and generated images.

    Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, equation 3, without its
    factor 10. The norm is that of each image's gradient, not of the batch's.

    Parameters
    ----------
    critic : callable
        From images (N, C, H, W) to scores (N,). It must treat every image on its own: no batch
        normalisation.
    real, fake : Tensor, shape (N, C, H, W)
    mix : Tensor, shape (N,)
        Uniform in [0, 1): how much of the real image each point has.

    Returns
    -------
    Tensor
        Scalar, differentiable in the critic's weights.

    Examples
    --------
    The gradient of ``3 x + 4 y`` has the norm 5 everywhere:

    >>> def critic(images):
    ...     return images.flatten(1) @ torch.tensor([3.0, 4.0])
    >>> images = torch.rand(6, 1, 1, 2)
    >>> gradient_penalty(critic, images, images.flip(0), torch.rand(6)).item()
    16.0
    """
    weight = mix.reshape(-1, *[1] * (real.ndim - 1))
    points = (weight * real.detach() + (1 - weight) * fake.detach()).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
    norms: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
    return (norms - 1).square().mean()


def _unknown(name: str) -> ValueError:
    return ValueError(f"expected a loss out of {', '.join(GAN_LOSSES)}, got {name!r}")
