# SPDX-License-Identifier: Apache-2.0
"""Convolutional LSTM and GRU over sequences of images, with the manners of ``torch.nn.LSTM``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sosie.nn.recurrent_cells import ConvCell, ConvGRUCell, ConvLSTMCell, documented

__all__ = ["ConvGRU", "ConvLSTM"]

Lengths = Tensor | Sequence[int] | None


class _ConvLayers(nn.Module):
    """Layers of cells, in one direction or both."""

    #: The kind of cell.
    cell: type[ConvCell]

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int],
        num_layers: int,
        *,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        **options: Any,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"expected num_layers to be at least 1, got {num_layers}")
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"expected dropout to be between 0 and 1, got {dropout}")
        self.in_channels, self.hidden_channels = in_channels, hidden_channels
        self.num_layers, self.batch_first, self.dropout = num_layers, batch_first, dropout
        self.bidirectional = bidirectional
        self.directions = 2 if bidirectional else 1
        # Layers behind the first take images as they are.
        behind = {**options, "stride": 1, "dilation": 1, "padding": "same"}
        if options.get("padding") == "same_upper":
            behind["padding"] = "same_upper"
        self.cells = nn.ModuleList()
        for layer in range(num_layers):
            channels = in_channels if layer == 0 else hidden_channels * self.directions
            for _ in range(self.directions):
                self.cells.append(
                    self.cell(
                        channels, hidden_channels, kernel_size, **(behind if layer else options)
                    )
                )

    def extra_repr(self) -> str:
        """The options that are not the default."""
        defaults = {"num_layers": 1, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        return ", ".join(
            f"{name}={getattr(self, name)!r}"
            for name, default in defaults.items()
            if getattr(self, name) != default
        )

    def reset_parameters(self) -> None:
        """Begin anew."""
        for cell in self.cells:
            cell.reset_parameters()  # type: ignore[operator]

    def _sequence(
        self, x: Tensor, state: Sequence[Tensor] | None, lengths: Lengths
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Output and last states of all layers, in the order of axes that the caller uses."""
        first: ConvCell = self.cells[0]  # type: ignore[assignment]
        batched = x.ndim != first.spatial_dims + 2
        if not batched:
            if lengths is not None:
                raise ValueError(
                    "expected lengths with a batch of sequences, got a single sequence"
                )
            first.check_input(x, "T")
            x = x.unsqueeze(1)
            state = None if state is None else tuple(part.unsqueeze(1) for part in state)
        else:
            first.check_input(x, "NT" if self.batch_first else "TN")
            x = x.transpose(0, 1) if self.batch_first else x
        if x.shape[0] == 0:
            raise ValueError(f"expected sequences of at least one step, got {tuple(x.shape)}")
        parts = self._initial(x, state)
        steps = None if lengths is None else _checked_lengths(lengths, x)
        output, last = self._layers(x, parts, steps)
        if not batched:
            return output.squeeze(1), tuple(part.squeeze(1) for part in last)
        return output.transpose(0, 1) if self.batch_first else output, last

    def _initial(
        self, x: Tensor, state: Sequence[Tensor] | None
    ) -> list[tuple[Tensor, ...] | None]:
        """The state that each cell begins with."""
        first: ConvCell = self.cells[0]  # type: ignore[assignment]
        shape = (len(self.cells), *first.state_shape(x))
        if state is None:
            return [None] * len(self.cells)
        parts = first.check_state(state, x, shape)
        return [tuple(part[place] for part in parts) for place in range(len(self.cells))]

    def _layers(
        self, x: Tensor, states: list[tuple[Tensor, ...] | None], lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        lasts: list[tuple[Tensor, ...]] = []
        past = None if lengths is None else _past(lengths, x)
        for layer in range(self.num_layers):
            if past is not None:  # so that nothing that is there, NaN perhaps, is differentiated
                x = x.masked_fill(past, 0.0)
            outputs = []
            for direction in range(self.directions):
                place = layer * self.directions + direction
                cell: ConvCell = self.cells[place]  # type: ignore[assignment]
                given = _reversed(x, lengths) if direction else x
                output, last, sequences = cell.run(given, states[place], lengths is not None)
                if lengths is not None:
                    last = tuple(_at_end(sequence, lengths) for sequence in sequences)
                outputs.append(_reversed(output, lengths) if direction else output)
                lasts.append(last)
            x = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
            if self.dropout and layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        if past is not None:
            x = x.masked_fill(past, 0.0)
        return x, tuple(torch.stack(parts) for parts in zip(*lasts, strict=True))


@documented
class ConvLSTM(_ConvLayers):
    """Convolutional LSTM over sequences of images.

    Parameters
    ----------
    in_channels, hidden_channels : int
    kernel_size : int or tuple of int
    num_layers : int
    batch_first : bool
        Sequences are ``(N, T, C, ...)`` rather than ``(T, N, C, ...)``; states are not affected.
    dropout : float
        Probability with which an element of each layer's output but the last's is set to 0 in
        training.
    bidirectional : bool
        Add a cell per layer that goes from the last step to the first; its output lies behind the
        other's along the channels.
    **options
        As for :class:`ConvLSTMCell`; stride, padding and dilation are those of the first layer.

    Raises
    ------
    ValueError, TypeError
        As :class:`ConvLSTMCell`; when called, also where there is no step, or `lengths` are none
        between 1 and the number of steps.

    Notes
    -----
    Called as ``output, (h_n, c_n) = layer(x, (h_0, c_0), lengths)``; state and lengths may be left
    out. ``output`` is ``(T, N, C, ...)``, states are ``(layers, N, C, ...)``; where bidirectional,
    the output has twice the channels and there are twice as many states. Sequences without a batch
    axis will do.

    ``lengths`` ``(N,)`` says how many steps of each sequence count: outputs behind are 0, states
    are those after the last step that counts, and the other direction begins there.

    All steps of a layer are one operator, whose convolutions are torch's and whose gates are one
    pass over memory, on CUDA devices too. Options that are rare (`norm`, `zoneout`, a
    `padding_mode`) take torch's own operations instead, and so do exported graphs, other devices,
    and CUDA devices where nobody can launch kernels (`sosie info` says why). Where autocast narrows
    convolutions, gates are computed and cell states kept in float32.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import ConvLSTM
    >>> layer = ConvLSTM(3, 8, kernel_size=3, num_layers=2, batch_first=True)
    >>> output, (h, c) = layer(torch.zeros(4, 10, 3, 16, 16))
    >>> output.shape, h.shape
    (torch.Size([4, 10, 8, 16, 16]), torch.Size([2, 4, 8, 16, 16]))
    """

    cell = ConvLSTMCell

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int] = 3,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            in_channels, hidden_channels, kernel_size, num_layers, batch_first=batch_first,
            dropout=dropout, bidirectional=bidirectional, **options,
        )  # fmt: skip

    def forward(
        self,
        input: Tensor,  # noqa: A002
        hx: tuple[Tensor, Tensor] | None = None,
        lengths: Lengths = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Output and last state; see the class."""
        output, (h, c) = self._sequence(input, hx, lengths)
        return output, (h, c)


@documented
class ConvGRU(_ConvLayers):
    """Convolutional GRU over sequences of images.

    Parameters
    ----------
    in_channels, hidden_channels, kernel_size, num_layers, batch_first, dropout, bidirectional
        As for :class:`ConvLSTM`.
    **options
        As for :class:`ConvGRUCell`; stride, padding and dilation are those of the first layer.

    Raises
    ------
    ValueError, TypeError
        As :class:`ConvLSTM`.

    Notes
    -----
    Called as ``output, h_n = layer(x, h_0, lengths)``. See :class:`ConvLSTM`.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import ConvGRU
    >>> layer = ConvGRU(3, 8, kernel_size=3, bidirectional=True)
    >>> output, h = layer(torch.zeros(10, 4, 3, 16, 16))
    >>> output.shape, h.shape
    (torch.Size([10, 4, 16, 16, 16]), torch.Size([2, 4, 8, 16, 16]))
    """

    cell = ConvGRUCell

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int] = 3,
        num_layers: int = 1,
        *,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(
            in_channels, hidden_channels, kernel_size, num_layers, batch_first=batch_first,
            dropout=dropout, bidirectional=bidirectional, **options,
        )  # fmt: skip

    def forward(
        self,
        input: Tensor,  # noqa: A002
        hx: Tensor | None = None,
        lengths: Lengths = None,
    ) -> tuple[Tensor, Tensor]:
        """Output and last state; see the class."""
        output, (h,) = self._sequence(input, None if hx is None else (hx,), lengths)
        return output, h


# --- Sequences of unequal length ------------------------------------------------------------------


def _checked_lengths(lengths: Lengths, x: Tensor) -> Tensor:
    steps, batch = x.shape[:2]
    found = torch.as_tensor(lengths, device=x.device)
    if found.is_floating_point() or found.dtype == torch.bool:
        raise TypeError(f"expected lengths to be integers, got {found.dtype}")
    if found.shape != (batch,):
        raise ValueError(f"expected {batch} lengths, one per sequence, got {tuple(found.shape)}")
    # A graph cannot depend on them.
    if not torch.compiler.is_compiling() and bool(((found < 1) | (found > steps)).any()):
        raise ValueError(
            f"expected lengths between 1 and the {steps} steps that there are, got {found.tolist()}"
        )
    return found.long()


def _past(lengths: Tensor, x: Tensor) -> Tensor:
    """Where a sequence has ended: ``(T, N, 1, ...)``."""
    past = torch.arange(x.shape[0], device=x.device).unsqueeze(1) >= lengths
    return past.reshape(*past.shape, *(1,) * (x.ndim - 2))


def _at_end(sequence: Tensor, lengths: Tensor) -> Tensor:
    """States ``(N, C, ...)`` after the last step that counts."""
    return sequence[lengths - 1, torch.arange(sequence.shape[1], device=sequence.device)]


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The steps of each sequence from the last that counts to the first."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    order = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x[order, torch.arange(x.shape[1], device=x.device)]
