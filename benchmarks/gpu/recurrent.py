# SPDX-License-Identifier: Apache-2.0
"""Gates and layers of the recurrent family on a device, and beside whom.

The gates of one step of an LSTM meet torch's own fused cell, which takes rows of gates: a view of
images whose channels lie last. Layers meet the loop that people copy, the same compiled, and the
composite of torch operations that layers fall back to, compiled.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import recurrent_cases, recurrent_peers

__all__ = ["CASES", "GateCase", "LayerCase"]


@dataclass(frozen=True)
class GateCase:
    """The gates of one LSTM step, channels last.

    Attributes
    ----------
    shape : tuple of int
        ``(batch, channels, height, width)`` of the state.
    dtype : str
        Of gates and hidden states.
    gradient : bool
        Whether it is the step's gradient, and not the step.
    bytes : float
        Traffic with device memory per number of the state.
    """

    shape: tuple[int, int, int, int]
    dtype: str = "float32"
    gradient: bool = False
    bytes: float = 60

    @property
    def elements(self) -> int:
        """Numbers of the state."""
        n, c, h, w = self.shape
        return n * c * h * w

    @property
    def operations(self) -> float:
        """Least float32 instructions per number of the state: five activations of 25, or one."""
        return 55 if self.gradient else 136

    @property
    def name(self) -> str:
        """For tables."""
        size = "x".join(map(str, self.shape))
        return f"LSTM gates {size} {self.dtype}, {'backward' if self.gradient else 'forward'}"

    @property
    def tolerance(self) -> float:
        """Relative, of values: torch rounds half precision before it adds."""
        return 1e-2 if self.dtype in ("float16", "bfloat16") else 1e-5

    @property
    def bytes_of_input(self) -> int:
        """What has to be in memory for one call."""
        return int(self.bytes * self.elements)

    def inputs(self, count: int, device: str = "cuda") -> list[dict[str, Any]]:
        """Arrays of so many steps, by their names."""
        import torch

        n, c, h, w = self.shape
        dtype = getattr(torch, self.dtype)

        def make(gates: int, dtype: Any = dtype) -> Any:
            memory = torch.randn((n, h, w, gates * c), device=device)
            return memory.to(dtype).movedim(-1, 1)

        found = []
        for _ in range(count):
            step = {"cell": make(1, torch.float32), "new_cell": make(1, torch.float32)}
            if self.gradient:
                step |= {"gates": make(4).sigmoid(), "grad_hidden": make(1), "results": make(4)}
                step["grad_cell"] = make(1, torch.float32)
                step["carry"] = step["grad_cell"].clone()  # overwritten by ours
            else:
                step |= {"inputs": make(4), "recurrent": make(4), "gates": make(4)}
                step["hidden"] = make(1)
            found.append(step)
        return found

    def contenders(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        """Functions of a step's arrays; sosie's first."""
        if self.gradient:
            return {"sosie": _sosie_backward, "torch's fused cell": _aten_backward}
        return {"sosie": _sosie_forward, "torch's fused cell": _aten_forward}

    def timed(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What is timed: the function as it is."""
        return function


def _sosie_forward(step: dict[str, Any]) -> Any:
    from sosie.backends import executor

    names = ("inputs", "recurrent", "cell", "gates", "hidden", "new_cell")
    inputs, recurrent, cell, gates, hidden, new_cell = (step[name] for name in names)
    executor(cell).lstm_forward(inputs, recurrent, cell, None, gates, hidden, new_cell)
    return hidden


def _sosie_backward(step: dict[str, Any]) -> Any:
    from sosie.backends import executor

    executor(step["cell"]).lstm_backward(
        step["gates"], step["cell"], step["new_cell"], step["grad_hidden"], None, None,
        step["carry"], step["results"],
    )  # fmt: skip
    return step["results"]


def _rows(array: Any) -> Any:
    """Pixels ``(N H W, k C)``: a view."""
    return array.movedim(1, -1).flatten(0, 2)


def _aten_forward(step: dict[str, Any]) -> Any:
    import torch

    inputs, recurrent = _rows(step["inputs"]), _rows(step["recurrent"])
    cell = _rows(step["cell"]).to(inputs.dtype)  # in float32: the tensor itself
    return torch.ops.aten._thnn_fused_lstm_cell(inputs, recurrent, cell)[0]


def _aten_backward(step: dict[str, Any]) -> Any:
    import torch

    gates, grad_hidden = _rows(step["gates"]), _rows(step["grad_hidden"])
    grad_cell, cell, new_cell = (
        _rows(step[name]).to(gates.dtype) for name in ("grad_cell", "cell", "new_cell")
    )
    return torch.ops.aten._thnn_fused_lstm_cell_backward_impl(
        grad_hidden, grad_cell, cell, new_cell, gates, False
    )[0]


@dataclass(frozen=True)
class LayerCase:
    """A ConvLSTM over a sequence, see `benchmarks.recurrent_cases`.

    Attributes
    ----------
    case : recurrent_cases.Case
    bytes : float
        Traffic of the gates with device memory per number of the states of all steps.
    """

    case: recurrent_cases.Case
    bytes: float

    @property
    def elements(self) -> int:
        """Numbers of the states of all steps."""
        case = self.case
        return case.batch * case.steps * case.channels * case.size**2

    @property
    def operations(self) -> float:
        """Multiply-adds of the convolutions per number of the states."""
        case = self.case
        taps = 4 * 3**2 * (case.in_channels + case.channels * (case.steps - 1) / case.steps)
        return taps * (3 if case.gradient else 1)

    @property
    def name(self) -> str:
        """For tables."""
        return self.case.title

    @property
    def tolerance(self) -> float:
        """Relative, of values: convolutions are computed in TF32, each in its own way."""
        return 1e-3

    @property
    def bytes_of_input(self) -> int:
        """What has to be in memory for one call."""
        return int(self.bytes * self.elements)

    def inputs(self, count: int, device: str = "cuda") -> list[Any]:  # noqa: ARG002
        """Images and weights. A sequence is larger than the caches, one is enough."""
        import torch

        arrays = map(torch.from_numpy, recurrent_cases.inputs(self.case))
        return [tuple(array.to(device) for array in arrays)]

    def contenders(self) -> dict[str, Callable[[Any], Any]]:
        """Functions of images and weights; sosie's first."""
        names = ["sosie", "sosie recompute", "ConvLSTM_pytorch"]
        found = {name: self._contender(name) for name in names}
        try:
            importlib.import_module("triton")
        except ImportError:
            return found
        found["ConvLSTM_pytorch compiled"] = self._contender("ConvLSTM_pytorch", compiled=True)
        found["composite compiled"] = self._contender("composite compiled")
        return found

    def _contender(self, name: str, compiled: bool = False) -> Callable[[Any], Any]:
        contender = recurrent_peers.CONTENDERS[name]
        built: list[Any] = []  # by the first call, which is not timed

        def run(tensors: Any) -> Any:
            if not built:
                module = importlib.import_module(contender.module)
                call, leaves = contender.build(module, self.case, tensors)
                for leaf in leaves:
                    leaf.requires_grad_(self.case.gradient)
                if compiled or contender.compiled:
                    importlib.import_module("torch").compiler.reset()  # as for other cases
                if compiled:
                    call = importlib.import_module("torch").compile(call, dynamic=False)
                built.extend((call, leaves))
            call, leaves = built
            states = call()
            if self.case.gradient:
                for leaf in leaves:
                    leaf.grad = None
                states.sum().backward()
                return leaves[0].grad
            return states

        return run

    def timed(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What is timed: the function as it is."""
        return function


_STATES = ((8, 64, 64, 64), (4, 32, 64, 64), (16, 256, 32, 32))
CASES: tuple[Any, ...] = (
    *(GateCase(shape) for shape in _STATES),
    *(GateCase(shape, gradient=True, bytes=52) for shape in _STATES),
    GateCase(_STATES[0], "bfloat16", bytes=34),
    GateCase(_STATES[0], "bfloat16", gradient=True, bytes=34),
    # Gates are kept only for gradients.
    *(LayerCase(case, 116 if case.gradient else 44) for case in recurrent_cases.CASES.values()),
)
