# SPDX-License-Identifier: Apache-2.0
"""One layer of a convolutional LSTM or GRU: its weights, its options, one step or a sequence."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sosie.reference.recurrent import SLOPES
from sosie.torch import recurrent as operators
from sosie.torch import recurrent_composite as composite
from sosie.torch._gradients import computed_dtype
from sosie.torch.recurrent_composite import Extras, Recurrence

__all__ = ["ConvCell", "ConvGRUCell", "ConvLSTMCell", "check_choice", "documented", "per_axis"]

Sizes = tuple[int, ...]
Run = tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]

_PADDING_MODES = ("zeros", "reflect", "replicate", "circular")
_ACTIVATIONS = ("tanh", "hard_tanh")
_RECURRENT_ACTIVATIONS = ("sigmoid", *SLOPES)

#: What the cells and layers say of the arguments they share.
OPTIONS = """
    kernel_size : int or tuple of int
        Odd, of both convolutions.
    bias : bool
    spatial_dims : {1, 2, 3}
    stride, dilation : int or tuple of int
        Of the convolution of the input.
    padding : {"same", "same_upper", "valid"}, int or tuple of int
        Of the convolution of the input: "same" adds half a kernel on each side; "same_upper" is
        what TensorFlow, Keras and JAX call "same", which differs where the stride is not 1; "valid"
        adds nothing. The convolution of the state always keeps its size.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What is added, as in ``torch.nn.Conv2d``, by both convolutions.
    recurrent_kernel_size : int or tuple of int, optional
        Of the convolution of the state, if another. Odd.
    recurrent_dilation : int or tuple of int
        Of the convolution of the state.
    activation : {"tanh", "hard_tanh"}
    recurrent_activation : {"sigmoid", "hard_sigmoid", "hard_sigmoid_keras2"}
        Of the gates. The hard ones are ``x / 6 + 1 / 2`` and ``x / 5 + 1 / 2`` within [0, 1].
    norm : {"group", "layer"}, optional
        Normalise what goes into the activations, ``torch.nn.GroupNorm`` with each gate in one group
        ("layer") or in `norm_groups` of them.
    norm_groups : int
    zoneout : float or (float, float)
        Probability that an element of the state keeps its old value in training, for all or for h
        and c; in evaluation the two are mixed in that proportion (Krueger et al. 2016).
    recompute : bool
        Compute gates again in the backward pass: a third of the memory, for one more convolution of
        the state per step.
    device, dtype
        As for any module of torch.
"""


def documented(described: Any) -> Any:
    """Put `OPTIONS` into a docstring in place of ``{options}``."""
    described.__doc__ = described.__doc__.replace("\n    {options}\n", OPTIONS)
    return described


class ConvCell(nn.Module):
    """What the cells of both kinds share."""

    #: How many gates there are, and what a state is made of.
    gates: int
    states: tuple[str, ...]

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int],
        *,
        bias: bool,
        spatial_dims: int,
        stride: int | Sequence[int],
        padding: str | int | Sequence[int],
        dilation: int | Sequence[int],
        padding_mode: str,
        recurrent_kernel_size: int | Sequence[int] | None,
        recurrent_dilation: int | Sequence[int],
        activation: str,
        recurrent_activation: str,
        norm: str | None,
        norm_groups: int,
        zoneout: float | tuple[float, float],
        recompute: bool,
        device: Any,
        dtype: Any,
    ) -> None:
        super().__init__()
        check_choice("spatial_dims", spatial_dims, (1, 2, 3))
        check_choice("padding_mode", padding_mode, _PADDING_MODES)
        check_choice("activation", activation, _ACTIVATIONS)
        check_choice("recurrent_activation", recurrent_activation, _RECURRENT_ACTIVATIONS)
        check_choice("norm", norm, (None, "group", "layer"))
        for name, channels in (("in_channels", in_channels), ("hidden_channels", hidden_channels)):
            if channels < 1:
                raise ValueError(f"expected {name} to be at least 1, got {channels}")
        self.in_channels, self.hidden_channels = in_channels, hidden_channels
        self.spatial_dims = spatial_dims
        for_each = functools.partial(per_axis, spatial_dims)
        self.kernel_size = for_each("kernel_size", kernel_size)
        self.recurrent_kernel_size = for_each(
            "recurrent_kernel_size",
            self.kernel_size if recurrent_kernel_size is None else recurrent_kernel_size,
        )
        self.stride, self.dilation = for_each("stride", stride), for_each("dilation", dilation)
        self.recurrent_dilation = for_each("recurrent_dilation", recurrent_dilation)
        self.padding_mode, self.recompute = padding_mode, recompute
        self.padding = self._padding(padding)
        if padding == "same_upper" and padding_mode != "zeros":
            raise ValueError(f"expected zeros where padding is 'same_upper', got {padding_mode!r}")
        if any(size % 2 == 0 for size in self.recurrent_kernel_size):
            raise ValueError(
                "expected kernels of odd size, which keep the size of the state, "
                f"got {self.recurrent_kernel_size}"
            )
        self.activation, self.recurrent_activation = activation, recurrent_activation
        self.zoneout = zoneout if isinstance(zoneout, tuple) else (zoneout,) * 2
        if not all(0.0 <= probability < 1.0 for probability in self.zoneout):
            raise ValueError(f"expected zoneout to be at least 0 and below 1, got {zoneout}")
        factory = {"device": device, "dtype": dtype}
        channels = self.gates * hidden_channels
        self.weight_ih = nn.Parameter(
            torch.empty(channels, in_channels, *self.kernel_size, **factory)
        )
        self.weight_hh = nn.Parameter(
            torch.empty(channels, hidden_channels, *self.recurrent_kernel_size, **factory)
        )
        self.bias = nn.Parameter(torch.empty(channels, **factory)) if bias else None
        self.norm, self.norm_groups = norm, norm_groups if norm == "group" else 1
        self._factory = factory

    def _padding(self, padding: str | int | Sequence[int]) -> str | Sizes:
        if isinstance(padding, str):
            check_choice("padding", padding, ("same", "same_upper", "valid"))
            if padding == "valid":
                return (0,) * self.spatial_dims
            if padding == "same_upper":
                return padding
            if any(size % 2 == 0 for size in self.kernel_size):
                raise ValueError(
                    f"expected kernels of odd size where padding is 'same', got {self.kernel_size}"
                )
            return tuple(
                d * (k - 1) // 2 for d, k in zip(self.dilation, self.kernel_size, strict=True)
            )
        return per_axis(self.spatial_dims, "padding", padding, least=0)

    def _make_norm(self, gates: int) -> nn.Module:
        if self.norm is None:
            return nn.Identity()
        if self.norm_groups < 1 or self.hidden_channels % self.norm_groups:
            raise ValueError(
                "expected norm_groups to divide the hidden channels, "
                f"got {self.norm_groups} and {self.hidden_channels}"
            )
        groups = gates * self.norm_groups
        return nn.GroupNorm(groups, gates * self.hidden_channels, **self._factory)

    def reset_parameters(self) -> None:
        """Uniform within 1 over the square root of what a gate sums, as torch's layers begin."""
        taps = self.in_channels * math.prod(self.kernel_size)
        taps += self.hidden_channels * math.prod(self.recurrent_kernel_size)
        bound = 1.0 / math.sqrt(taps)
        for name, parameter in self.named_parameters(recurse=False):
            if name == "weight_peephole":
                nn.init.zeros_(parameter)
            else:
                nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        """Channels, kernel, and the options that are not the default."""
        own: dict[str, Any] = {
            "stride": (1,) * self.spatial_dims,
            "dilation": (1,) * self.spatial_dims,
            "recurrent_kernel_size": self.kernel_size,
            "recurrent_dilation": (1,) * self.spatial_dims,
            "padding_mode": "zeros",
            "activation": "tanh",
            "recurrent_activation": "sigmoid",
            "norm": None,
            "zoneout": (0.0, 0.0),
            "recompute": False,
        }
        parts = [f"{self.in_channels}, {self.hidden_channels}, kernel_size={self.kernel_size}"]
        if self.bias is None:
            parts.append("bias=False")
        parts += [
            f"{name}={getattr(self, name)!r}"
            for name, default in own.items()
            if getattr(self, name) != default
        ]
        return ", ".join(parts)

    # ---- what is computed ----------------------------------------------------------------------

    def run(self, x: Tensor, state: Sequence[Tensor] | None, all_states: bool = False) -> Run:
        """States ``(T, N, C, ...)`` of a sequence, the last of each kind, and all where wanted.

        Arguments are in the library's own order, ``(T, N, C, ...)``, and have been checked.
        """
        raise NotImplementedError

    def _cast(self, x: Tensor) -> tuple[Tensor, torch.dtype]:
        """Inputs in the dtype of convolutions, which autocast may have narrowed."""
        dtype = x.dtype
        if torch.is_autocast_enabled(x.device.type) and dtype != torch.float64:
            dtype = torch.get_autocast_dtype(x.device.type)
        return x.to(dtype), dtype

    def _prepared(self, x: Tensor) -> tuple[Tensor, Recurrence]:
        """Inputs with what has to be added to them, and what is left to the convolution."""
        if isinstance(self.padding, str):
            x = _pad_upper(x, self.kernel_size, self.stride, self.dilation)
            padding: Sizes = (0,) * self.spatial_dims
        else:
            padding = self.padding
        return x, Recurrence(
            self.stride,
            padding,
            self.dilation,
            self.recurrent_dilation,
            self.activation,
            self.recurrent_activation,
            getattr(self, "linear_before_reset", False),
        )

    def _uses_operator(self, x: Tensor) -> bool:
        """Whether the operator does all that is asked for."""
        return (
            (x.device.type in ("cpu", "meta") or (x.is_cuda and _has_cuda_kernels()))
            and self.padding_mode == "zeros"
            and self.norm is None
            and self.zoneout == (0.0, 0.0)
            and not _is_exporting()
        )

    def _extras(self, **norms: Callable[[Tensor], Tensor]) -> Extras:
        def blend(probability: float) -> Callable[[Tensor, Tensor], Tensor]:
            def blended(new: Tensor, old: Tensor) -> Tensor:
                if probability == 0.0:
                    return new
                if not self.training:
                    return new + probability * (old - new)
                return torch.where(torch.rand_like(new) < probability, old, new)

            return blended

        hidden, cell = self.zoneout
        return Extras(
            self.padding_mode, **norms, blend_hidden=blend(hidden), blend_cell=blend(cell)
        )

    def state_shape(self, x: Tensor) -> Sizes:
        """Shape of a state for inputs ``(..., N, C_in, ...)``."""
        sizes = x.shape[-self.spatial_dims :]
        spatial = []
        for axis, size in enumerate(sizes):
            stride, taps = self.stride[axis], self.dilation[axis] * (self.kernel_size[axis] - 1)
            if isinstance(self.padding, str):
                spatial.append(-(-size // stride))
            else:
                spatial.append((size + 2 * self.padding[axis] - taps - 1) // stride + 1)
        if any(size < 1 for size in spatial):
            raise ValueError(
                f"expected images at least as large as a kernel of {self.kernel_size} with "
                f"dilation {self.dilation} and padding {self.padding}, got {tuple(sizes)}"
            )
        return (x.shape[-self.spatial_dims - 2], self.hidden_channels, *spatial)

    def check_input(self, x: Tensor, leading: str) -> None:
        """Raise unless ``x`` has axes ``leading``, a letter each, and ``C_in, ...``."""
        ndim = len(leading) + 1 + self.spatial_dims
        if x.ndim != ndim:
            axes = ", ".join([*leading, str(self.in_channels), "..."])
            raise ValueError(
                f"expected input of shape ({axes}) with {ndim} axes, got {tuple(x.shape)}"
            )
        if x.shape[-self.spatial_dims - 1] != self.in_channels:
            raise ValueError(
                f"expected input with {self.in_channels} channels, got "
                f"{x.shape[-self.spatial_dims - 1]} in {tuple(x.shape)}"
            )
        if x.device != self.weight_ih.device:
            raise ValueError(
                f"expected input on the weights' device, {self.weight_ih.device}, got {x.device}"
            )
        if not x.is_floating_point():
            raise TypeError(f"expected a floating-point input, got {x.dtype}")
        if x.dtype != self.weight_ih.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(
                f"expected input of the weights' dtype, {self.weight_ih.dtype}, got {x.dtype}"
            )

    def check_state(
        self, state: Sequence[Tensor] | Tensor, x: Tensor, shape: Sizes
    ) -> tuple[Tensor, ...]:
        """The parts of a state, if their shapes and dtypes go with those of the inputs."""
        parts = (state,) if isinstance(state, Tensor) else tuple(state)
        if len(parts) != len(self.states):
            raise ValueError(f"expected a state {self.states}, got {len(parts)} tensors")
        for name, part in zip(self.states, parts, strict=True):
            if tuple(part.shape) != shape:
                raise ValueError(f"expected state {name} of shape {shape}, got {tuple(part.shape)}")
            if part.device != x.device:
                raise ValueError(
                    f"expected state {name} on the input's device, {x.device}, got {part.device}"
                )
            allowed = {x.dtype, self.weight_ih.dtype}
            if torch.is_autocast_enabled(x.device.type):
                allowed |= {torch.float32, torch.get_autocast_dtype(x.device.type)}
            if name == "c":
                allowed.add(computed_dtype(x))
            if part.dtype not in allowed:
                raise TypeError(
                    f"expected state {name} of dtype "
                    f"{' or '.join(sorted(map(str, allowed)))}, got {part.dtype}"
                )
        return parts

    def _step(self, x: Tensor, state: Sequence[Tensor] | Tensor | None) -> tuple[Tensor, ...]:
        """One step, with or without a batch axis."""
        batched = x.ndim == self.spatial_dims + 2
        self.check_input(x, "N" if batched else "")
        if not batched:
            x = x.unsqueeze(0)
        shape = self.state_shape(x)
        if state is not None:
            parts = self.check_state(state, x, shape if batched else shape[1:])
            state = parts if batched else tuple(part.unsqueeze(0) for part in parts)
        _, last, _ = self.run(x.unsqueeze(0), state)
        return last if batched else tuple(part.squeeze(0) for part in last)


@documented
class ConvLSTMCell(ConvCell):
    """One step of a convolutional LSTM.

    Parameters
    ----------
    in_channels, hidden_channels : int
    {options}
    peephole : {"channel", "pixel"}, optional
        Let gates see the cell, with a weight per channel, or per channel and pixel.
    spatial_size : tuple of int, optional
        Spatial shape of the state, for ``peephole="pixel"``.
    forget_bias : float
        What the bias of the forget gate begins with.

    Attributes
    ----------
    weight_ih, weight_hh, bias : Parameter
        ``(4 C, C_in, ...)``, ``(4 C, C, ...)`` and ``(4 C,)``; gates in torch's order i, f, g, o.
        `sosie.nn.recurrent_weights` converts other libraries'.
    weight_peephole : Parameter
        ``(3, C)`` or ``(3, C, *spatial_size)``: of i, f and o.

    Raises
    ------
    ValueError
        An option is unknown, or a kernel that has to keep the size of an image is even; when
        called, shapes do not fit.
    TypeError
        When called, dtypes do not fit.

    Notes
    -----
    Called as ``h, c = cell(x, (h, c))``, like ``torch.nn.LSTMCell``, with images ``(N, C, ...)`` or
    ``(C, ...)``. See :class:`ConvLSTM` for sequences, which one call should be given as a whole.
    Source: Shi et al., Convolutional LSTM Network, 2015.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import ConvLSTMCell
    >>> cell = ConvLSTMCell(3, 8, kernel_size=3)
    >>> h, c = cell(torch.zeros(2, 3, 16, 16))
    >>> h, c = cell(torch.ones(2, 3, 16, 16), (h, c))
    >>> h.shape
    torch.Size([2, 8, 16, 16])
    """

    gates = 4
    states = ("h", "c")

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        bias: bool = True,
        spatial_dims: int = 2,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = "same",
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        recurrent_kernel_size: int | Sequence[int] | None = None,
        recurrent_dilation: int | Sequence[int] = 1,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        norm: str | None = None,
        norm_groups: int = 1,
        zoneout: float | tuple[float, float] = 0.0,
        recompute: bool = False,
        peephole: str | None = None,
        spatial_size: Sequence[int] | None = None,
        forget_bias: float = 1.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, hidden_channels, kernel_size, bias=bias, spatial_dims=spatial_dims,
            stride=stride, padding=padding, dilation=dilation, padding_mode=padding_mode,
            recurrent_kernel_size=recurrent_kernel_size, recurrent_dilation=recurrent_dilation,
            activation=activation, recurrent_activation=recurrent_activation, norm=norm,
            norm_groups=norm_groups, zoneout=zoneout, recompute=recompute, device=device,
            dtype=dtype,
        )  # fmt: skip
        check_choice("peephole", peephole, (None, "channel", "pixel"))
        if (peephole == "pixel") != (spatial_size is not None):
            raise ValueError(
                "expected spatial_size together with peephole='pixel', "
                f"got {spatial_size} with {peephole!r}"
            )
        self.peephole, self.forget_bias = peephole, forget_bias
        self.weight_peephole = None
        if peephole is not None:
            own = (
                () if spatial_size is None else per_axis(spatial_dims, "spatial_size", spatial_size)
            )
            self.weight_peephole = nn.Parameter(
                torch.empty(3, hidden_channels, *own, device=device, dtype=dtype)
            )
        self.norm_gates = self._make_norm(4)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin anew, with a forget gate that is open, and no peepholes."""
        super().reset_parameters()
        if self.bias is not None:
            with torch.no_grad():
                self.bias[self.hidden_channels : 2 * self.hidden_channels] = self.forget_bias

    def forward(
        self,
        input: Tensor,  # noqa: A002
        hx: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Next state; see the class."""
        h, c = self._step(input, hx)
        return h, c

    def run(self, x: Tensor, state: Sequence[Tensor] | None, all_states: bool = False) -> Run:
        """See `ConvCell.run`."""
        x, dtype = self._cast(x)
        h, c = (None, None) if state is None else state
        wide = computed_dtype(x)
        x, how = self._prepared(x)
        arguments = (
            x,
            None if h is None else h.to(dtype),
            None if c is None else c.to(wide),
            self.weight_ih.to(dtype),
            self.weight_hh.to(dtype),
            None if self.bias is None else self.bias.to(dtype),
            self._peepholes(wide),
        )
        if self._uses_operator(x):
            output, last_h, last_c, cells = operators.conv_lstm(
                *arguments, how, all_cells=all_states, recompute=self.recompute
            )
            return output, (last_h, last_c), (output,) if cells is None else (output, cells)
        extras = self._extras(normalise=self.norm_gates)
        output, cells = composite.conv_lstm(*arguments, how=how, extras=extras)
        return output, (output[-1], cells[-1]), (output, cells)

    def _peepholes(self, dtype: torch.dtype) -> Tensor | None:
        if self.weight_peephole is None:
            return None
        weights = self.weight_peephole.to(dtype)
        if self.peephole == "channel":
            return weights.reshape(*weights.shape, *(1,) * self.spatial_dims)
        return weights


@documented
class ConvGRUCell(ConvCell):
    """One step of a convolutional GRU.

    Parameters
    ----------
    in_channels, hidden_channels : int
    {options}
    linear_before_reset : bool
        Reset what the convolution of the state gives for n, as ``torch.nn.GRU`` does, rather than
        the state itself, as most convolutional GRUs do. The name is that of ONNX. One convolution
        of the state per step then suffices, where it takes two otherwise.

    Attributes
    ----------
    weight_ih, weight_hh, bias : Parameter
        ``(3 C, C_in, ...)``, ``(3 C, C, ...)`` and ``(3 C,)``; gates in torch's order r, z, n. The
        new state is ``(1 - z) n + z h``.
    bias_hh : Parameter
        ``(C,)``: of the state's convolution for n; with ``linear_before_reset`` alone, since it
        would add to `bias` otherwise.

    Raises
    ------
    ValueError, TypeError
        As :class:`ConvLSTMCell`.

    Notes
    -----
    Called as ``h = cell(x, h)``, like ``torch.nn.GRUCell``. See :class:`ConvGRU` for sequences.
    Source: Ballas et al., Delving Deeper into Convolutional Networks for Learning Video
    Representations, 2016.

    Examples
    --------
    >>> import torch
    >>> from sosie.nn import ConvGRUCell
    >>> cell = ConvGRUCell(3, 8, kernel_size=3)
    >>> cell(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    """

    gates = 3
    states = ("h",)

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        bias: bool = True,
        spatial_dims: int = 2,
        stride: int | Sequence[int] = 1,
        padding: str | int | Sequence[int] = "same",
        dilation: int | Sequence[int] = 1,
        padding_mode: str = "zeros",
        recurrent_kernel_size: int | Sequence[int] | None = None,
        recurrent_dilation: int | Sequence[int] = 1,
        activation: str = "tanh",
        recurrent_activation: str = "sigmoid",
        norm: str | None = None,
        norm_groups: int = 1,
        zoneout: float | tuple[float, float] = 0.0,
        recompute: bool = False,
        linear_before_reset: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, hidden_channels, kernel_size, bias=bias, spatial_dims=spatial_dims,
            stride=stride, padding=padding, dilation=dilation, padding_mode=padding_mode,
            recurrent_kernel_size=recurrent_kernel_size, recurrent_dilation=recurrent_dilation,
            activation=activation, recurrent_activation=recurrent_activation, norm=norm,
            norm_groups=norm_groups, zoneout=zoneout, recompute=recompute, device=device,
            dtype=dtype,
        )  # fmt: skip
        self.linear_before_reset = linear_before_reset
        self.bias_hh = None
        if bias and linear_before_reset:
            self.bias_hh = nn.Parameter(torch.empty(hidden_channels, device=device, dtype=dtype))
        self.norm_gates, self.norm_candidate = self._make_norm(2), self._make_norm(1)
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:  # noqa: A002
        """Next state; see the class."""
        return self._step(input, hx)[0]

    def run(self, x: Tensor, state: Sequence[Tensor] | None, all_states: bool = False) -> Run:  # noqa: ARG002
        """See `ConvCell.run`."""
        x, dtype = self._cast(x)
        x, how = self._prepared(x)
        arguments = (
            x,
            None if state is None else state[0].to(dtype),
            self.weight_ih.to(dtype),
            self.weight_hh.to(dtype),
            None if self.bias is None else self.bias.to(dtype),
            None if self.bias_hh is None else self.bias_hh.to(dtype),
        )
        if self._uses_operator(x):
            output, last = operators.conv_gru(*arguments, how, recompute=self.recompute)
            return output, (last,), (output,)
        norms = {"normalise": self.norm_gates, "normalise_candidate": self.norm_candidate}
        output = composite.conv_gru(*arguments, how=how, extras=self._extras(**norms))
        return output, (output[-1],), (output,)


# --- Arguments ------------------------------------------------------------------------------------


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raise unless an option has one of the values that it may have."""
    if value not in choices:
        raise ValueError(f"expected {name} out of {', '.join(map(repr, choices))}, got {value!r}")


def per_axis(spatial_dims: int, name: str, value: int | Sequence[int], least: int = 1) -> Sizes:
    """One number per spatial axis."""
    sizes = (value,) * spatial_dims if isinstance(value, int) else tuple(value)
    if len(sizes) != spatial_dims or any(size < least for size in sizes):
        raise ValueError(
            f"expected {name} to be one number or {spatial_dims}, of at least {least}, got {value}"
        )
    return sizes


def _pad_upper(x: Tensor, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Tensor:
    """Zeros so that every stride-th pixel has a result; of an odd number more behind."""
    around: list[int] = []
    for axis in reversed(range(len(kernel))):
        size = x.shape[x.ndim - len(kernel) + axis]
        reach = (
            (-(-size // stride[axis]) - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        )
        total = max(0, reach - size)
        around += [total // 2, total - total // 2]
    return F.pad(x, around)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_cuda_kernels() -> bool:
    """Whether tensors on CUDA devices need not be left to torch's own operations."""
    from sosie.backends.cuda.launcher import launcher

    try:
        launcher()
    except RuntimeError:
        return False
    return True


def _is_exporting() -> bool:
    """Whether a graph of torch's own operations is wanted."""
    exporting = getattr(torch.compiler, "is_exporting", None)
    return (
        (exporting is not None and exporting())
        or torch._C._get_tracing_state() is not None
        or torch.onnx.is_in_onnx_export()
    )
