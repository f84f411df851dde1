# SPDX-License-Identifier: Apache-2.0
"""ConvLSTM with the signature, the state dict and the numbers of ndrplz/ConvLSTM_pytorch.

What that raises NotImplementedError for works here: an initial state.

The original is a file that people copy into their projects, not a library with releases: there is
nothing that `sosie.patch` could check, so it does not replace it. Import this in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sosie.torch import recurrent as operators
from sosie.torch.recurrent import Recurrence

__all__ = ["ConvLSTM", "ConvLSTMCell"]

State = tuple[Tensor, Tensor]
KernelSize = tuple[int, int]


class ConvLSTMCell(nn.Module):
    """One step.

    Parameters
    ----------
    input_dim, hidden_dim : int
        Channels of images and of the state.
    kernel_size : (int, int)
    bias : bool

    Examples
    --------
    >>> cell = ConvLSTMCell(3, 8, (3, 3), True)
    >>> h, c = cell(torch.zeros(2, 3, 16, 16), cell.init_hidden(2, (16, 16)))
    >>> h.shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(
        self, input_dim: int, hidden_dim: int, kernel_size: KernelSize, bias: bool
    ) -> None:
        super().__init__()
        if any(size % 2 == 0 for size in kernel_size):
            raise ValueError(
                f"expected a kernel of odd size, which keeps that of images, got {kernel_size}"
            )
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.kernel_size, self.bias = kernel_size, bias
        self.padding = kernel_size[0] // 2, kernel_size[1] // 2
        self.conv = nn.Conv2d(
            input_dim + hidden_dim, 4 * hidden_dim, kernel_size, padding=self.padding, bias=bias
        )

    def forward(self, input_tensor: Tensor, cur_state: Sequence[Tensor]) -> State:
        """Next state."""
        _, state = self.run(input_tensor.unsqueeze(0), cur_state)
        return state

    def run(self, x: Tensor, state: Sequence[Tensor] | None) -> tuple[Tensor, State]:
        """States ``(T, N, C, H, W)`` of a sequence, and the last."""
        if x.shape[2] != self.input_dim:
            raise ValueError(
                f"expected images with {self.input_dim} channels, got {x.shape[2]} "
                f"in {tuple(x.shape)}"
            )
        h, c = (None, None) if state is None else state
        weight = _in_our_order(self.conv.weight)
        bias = None if self.conv.bias is None else _in_our_order(self.conv.bias)
        ones = (1, 1)
        output, hidden, cell, _ = operators.conv_lstm(
            x, h, c, weight[:, : self.input_dim], weight[:, self.input_dim :], bias, None,
            Recurrence(ones, self.padding, ones, ones),
        )  # fmt: skip
        return output, (hidden, cell)

    def init_hidden(self, batch_size: int, image_size: tuple[int, int]) -> State:
        """Zeros."""
        weight = self.conv.weight
        h, c = (weight.new_zeros(batch_size, self.hidden_dim, *image_size) for _ in range(2))
        return h, c


class ConvLSTM(nn.Module):
    """Layers of cells over a sequence.

    Parameters
    ----------
    input_dim : int
        Channels of images.
    hidden_dim : int or list of int
        Channels of the states, for all layers or for each.
    kernel_size : (int, int) or list of (int, int)
    num_layers : int
    batch_first : bool
        Images are ``(N, T, C, H, W)`` rather than ``(T, N, C, H, W)``. Outputs are so always.
    bias : bool
    return_all_layers : bool
        Return outputs and states of all layers rather than of the last.

    Raises
    ------
    ValueError
        As many hidden_dim or kernel_size as there are layers are expected, or kernels are even.

    Notes
    -----
    Called as ``outputs, states = layer(x, hidden_state=None)``: a list of outputs
    ``(N, T, C, H, W)`` and one of states ``[h, c]``.

    Examples
    --------
    >>> layer = ConvLSTM(3, [8, 4], (3, 3), 2, batch_first=True)
    >>> outputs, states = layer(torch.zeros(2, 5, 3, 16, 16))
    >>> outputs[0].shape, states[0][1].shape
    (torch.Size([2, 5, 4, 16, 16]), torch.Size([2, 4, 16, 16]))
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dim: int | list[int],
        kernel_size: KernelSize | list[KernelSize],
        num_layers: int,
        batch_first: bool = False,
        bias: bool = True,
        return_all_layers: bool = False,
    ) -> None:
        super().__init__()
        listed = kernel_size if isinstance(kernel_size, list) else [kernel_size]
        if not all(isinstance(sizes, tuple) for sizes in listed):
            raise ValueError(
                f"expected kernel_size to be a tuple or a list of tuples, got {kernel_size}"
            )
        self.kernel_size = listed if isinstance(kernel_size, list) else listed * num_layers
        self.hidden_dim = hidden_dim if isinstance(hidden_dim, list) else [hidden_dim] * num_layers
        if not len(self.kernel_size) == len(self.hidden_dim) == num_layers:
            raise ValueError(
                f"expected a hidden_dim and a kernel_size for each of {num_layers} layers, "
                f"got {hidden_dim} and {kernel_size}"
            )
        self.input_dim, self.num_layers = input_dim, num_layers
        self.batch_first, self.bias, self.return_all_layers = batch_first, bias, return_all_layers
        channels = [input_dim, *self.hidden_dim]
        self.cell_list = nn.ModuleList(
            ConvLSTMCell(channels[layer], channels[layer + 1], self.kernel_size[layer], bias)
            for layer in range(num_layers)
        )

    def forward(
        self, input_tensor: Tensor, hidden_state: Sequence[Sequence[Tensor]] | None = None
    ) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Outputs and last states; see the class."""
        if input_tensor.ndim != 5:
            raise ValueError(
                "expected images (N, T, C, H, W) or (T, N, C, H, W), "
                f"got {tuple(input_tensor.shape)}"
            )
        x = input_tensor.transpose(0, 1) if self.batch_first else input_tensor
        if hidden_state is not None and len(hidden_state) != self.num_layers:
            raise ValueError(
                f"expected a state for each of {self.num_layers} layers, got {len(hidden_state)}"
            )
        outputs, states = [], []
        for layer, cell in enumerate(self.cell_list):
            x, state = cell.run(x, None if hidden_state is None else hidden_state[layer])  # type: ignore[operator]
            outputs.append(x.transpose(0, 1))
            states.append(list(state))
        if self.return_all_layers:
            return outputs, states
        return outputs[-1:], states[-1:]


def _in_our_order(weight: Tensor) -> Tensor:
    """Gates i, f, o, g as i, f, g, o, differentiably."""
    i, f, o, g = weight.chunk(4)
    return torch.cat([i, f, g, o])
