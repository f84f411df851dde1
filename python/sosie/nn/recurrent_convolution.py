# SPDX-License-Identifier: Apache-2.0
"""Recurrent convolution: one image, and a state that sees more of it with every step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sosie.nn.recurrent_cells import check_choice, per_axis
from sosie.torch.recurrent_composite import convolve

__all__ = ["RecurrentConv1d", "RecurrentConv2d", "RecurrentConv3d"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _RecurrentConv(nn.Module):
    """See `RecurrentConv2d`; subclasses say how many axes images have."""

    spatial_dims: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        steps: int = 3,
        *,
        recurrent_kernel_size: int | Sequence[int] | None = None,
        bias: bool = True,
        norm: str | None = None,
        lrn_size: int | None = None,
        lrn_alpha: float = 1e-3,
        lrn_beta: float = 0.75,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if steps < 0:
            raise ValueError(f"expected steps to be at least 0, got {steps}")
        check_choice("norm", norm, (None, "lrn", "batch"))
        self.in_channels, self.out_channels, self.steps = in_channels, out_channels, steps
        self.kernel_size = per_axis(self.spatial_dims, "kernel_size", kernel_size)
        self.recurrent_kernel_size = per_axis(
            self.spatial_dims,
            "recurrent_kernel_size",
            self.kernel_size if recurrent_kernel_size is None else recurrent_kernel_size,
        )
        for sizes in (self.kernel_size, self.recurrent_kernel_size):
            if any(size % 2 == 0 for size in sizes):
                raise ValueError(
                    f"expected kernels of odd size, which keep that of images, got {sizes}"
                )
        factory = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels, *self.kernel_size, **factory)  # type: ignore[arg-type]
        )
        self.recurrent_weight = nn.Parameter(
            torch.empty(out_channels, out_channels, *self.recurrent_kernel_size, **factory)  # type: ignore[arg-type]
        )
        self.bias = nn.Parameter(torch.empty(out_channels, **factory)) if bias else None  # type: ignore[arg-type]
        self.norm = norm
        self.norms = nn.ModuleList()
        if norm == "batch":
            kind = _BATCH_NORMS[self.spatial_dims - 1]
            self.norms.extend(kind(out_channels, **factory) for _ in range(steps + 1))  # type: ignore[arg-type]
        elif norm == "lrn":
            size = out_channels // 8 + 1 if lrn_size is None else lrn_size
            self.norms.append(nn.LocalResponseNorm(size, lrn_alpha, lrn_beta))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1 over the square root of what a number of the state sums."""
        taps = self.in_channels * math.prod(self.kernel_size)
        taps += self.out_channels * math.prod(self.recurrent_kernel_size)
        for parameter in self.parameters(recurse=False):
            nn.init.uniform_(parameter, -1.0 / math.sqrt(taps), 1.0 / math.sqrt(taps))
        for norm in self.norms:
            if isinstance(norm, _BATCH_NORMS):
                norm.reset_parameters()

    def extra_repr(self) -> str:
        """Channels, kernel, and the options that are not the default."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"steps={self.steps}"
        )
        if self.recurrent_kernel_size != self.kernel_size:
            text += f", recurrent_kernel_size={self.recurrent_kernel_size}"
        return text if self.norm is None else f"{text}, norm={self.norm!r}"

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """The last state; see the class."""
        batched = input.ndim == self.spatial_dims + 2
        if input.ndim not in (self.spatial_dims + 1, self.spatial_dims + 2):
            raise ValueError(
                f"expected images (N, {self.in_channels}, ...) with {self.spatial_dims} spatial "
                f"axes, got {tuple(input.shape)}"
            )
        if input.shape[-self.spatial_dims - 1] != self.in_channels:
            raise ValueError(
                f"expected input with {self.in_channels} channels, got "
                f"{input.shape[-self.spatial_dims - 1]} in {tuple(input.shape)}"
            )
        result = self._steps(input if batched else input.unsqueeze(0))
        return result if batched else result.squeeze(0)

    def _steps(self, x: Tensor) -> Tensor:
        # What the image gives is the same at every step, and computed once.
        given = self._convolve(x, self.weight, self.bias)
        y = self._normalise(torch.relu(given), 0)
        for step in range(1, self.steps + 1):
            z = given + self._convolve(y, self.recurrent_weight, None)
            y = self._normalise(torch.relu(z), step)
        return y

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ones = (1,) * self.spatial_dims
        around = tuple(size // 2 for size in weight.shape[2:])
        return convolve(x, weight, bias, ones, around, ones)

    def _normalise(self, y: Tensor, step: int) -> Tensor:
        if not self.norms:
            return y
        result: Tensor = self.norms[step if len(self.norms) > 1 else 0](y)
        return result


class RecurrentConv2d(_RecurrentConv):
    """Recurrent convolution of images, Liang and Hu 2015.

    ``z_t = w * u + w_r * y_{t-1} + b`` and ``y_t = norm(relu(z_t))`` for ``t = 0 ... steps``, where
    ``y_{-1}`` is 0: a network of ``steps + 1`` layers with the weights of two.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or tuple of int
        Odd; images keep their size.
    steps : int
        How often the state is fed back.
    recurrent_kernel_size : int or tuple of int, optional
        Of the convolution of the state, if another.
    bias : bool
    norm : {"lrn", "batch"}, optional
        Local response normalisation, as in the article, or batch normalisation with statistics and
        weights of its own for every step.
    lrn_size : int, optional
        Channels that are normalised together; by default an eighth of all, and one.
    lrn_alpha, lrn_beta : float
    device, dtype
        As for any module of torch.

    Raises
    ------
    ValueError
        A kernel is of even size or an option unknown; when called, shapes do not fit.

    Notes
    -----
    Called with images ``(N, C, H, W)`` or ``(C, H, W)``; gives the last state. ``RecurrentConv1d``
    and ``RecurrentConv3d`` do the same for signals and volumes. Made of torch's operations. Source:
    Liang and Hu, Recurrent Convolutional Neural Network for Object Recognition, 2015.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import RecurrentConv2d
    >>> RecurrentConv2d(3, 16, steps=3, norm="lrn")(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 16, 32, 32])
    """

    spatial_dims = 2


class RecurrentConv1d(_RecurrentConv):
    """Recurrent convolution of signals ``(N, C, L)``; see :class:`RecurrentConv2d`."""

    spatial_dims = 1


class RecurrentConv3d(_RecurrentConv):
    """Recurrent convolution of volumes ``(N, C, D, H, W)``; see :class:`RecurrentConv2d`."""

    spatial_dims = 3
