# SPDX-License-Identifier: Apache-2.0
"""Registration of operators with torch, one table row each.

A row makes three callables out of the same derivative:

- the *raw* operator, ``torch.ops.sosie.<name>``, which compilers, exporters and profilers see, with
  schema, kernels per device, a fake kernel (shapes, types and strides without data), a derivative
  and a batching rule. Dynamo is given this one: it traces its derivative, but is known to drop that
  of an autograd function under ``torch.func.grad``, and to refuse one that is called with the same
  tensor twice;
- an autograd function in the form that ``torch.func`` demands (``forward`` without context), which
  the derivative of a raw operator does not satisfy;
- an autograd function in the older form, for everyone else: a call through either of the others
  costs several times the kernel of a small image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Operator", "is_plainly_recorded", "is_watched", "register"]

_NAMESPACE = "sosie"
# Registrations last as long as this object.
_library = torch.library.Library(_NAMESPACE, "FRAGMENT")


@dataclass(frozen=True)
class Operator:
    """What torch has to know about one operator.

    Attributes
    ----------
    schema : str
        Name, arguments and results in torch's schema language. Results never alias arguments.
    cpu : callable
        Kernel for CPU tensors, called with the schema's arguments.
    fake : callable
        Same arguments; returns uninitialised results of the right shape, type and strides.
    setup_context : callable
        ``setup_context(ctx, inputs, output)``: stores what `backward` needs.
    backward : callable
        ``backward(ctx, *upstream)``: a gradient or None per argument. Made of differentiable
        operations and registered operators only, so that it can be traced and differentiated again.
    vmap : callable
        ``vmap(call, info, in_dims, *arguments) -> (results, out_dims)``, where ``call`` is the
        operator without the mapped axis.
    cuda : callable, optional
        Kernel for CUDA tensors, the same one where the executor of the tensors' device is all that
        it takes. Without one such a call raises NotImplementedError.
    """

    schema: str
    cpu: Callable[..., Any]
    fake: Callable[..., Any]
    setup_context: Callable[..., None]
    backward: Callable[..., Any]
    vmap: Callable[..., Any]
    cuda: Callable[..., Any] | None = None

    @property
    def name(self) -> str:
        """The operator's name within the namespace."""
        return self.schema.partition("(")[0]


def register(operator: Operator) -> Callable[..., Any]:
    """Register an operator and return the function to call it by, with positional arguments."""
    qualified_name = f"{_NAMESPACE}::{operator.name}"
    _library.define(operator.schema)
    _library.impl(operator.name, operator.cpu, "CPU")
    _library.impl(operator.name, operator.cuda or _no_cuda_kernel(operator.name), "CUDA")
    torch.library.register_fake(qualified_name, operator.fake, lib=_library)
    torch.library.register_autograd(
        qualified_name, operator.backward, setup_context=operator.setup_context, lib=_library
    )
    raw = getattr(getattr(torch.ops, _NAMESPACE), operator.name).default
    if hasattr(torch.library, "register_vmap"):  # torch 2.5

        def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
            return operator.vmap(raw, info, in_dims, *arguments)

        torch.library.register_vmap(qualified_name, vmap, lib=_library)
    transformable = _transformable_function(operator, raw)
    recording = _recording_function(operator, raw)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return raw(*arguments)
        if torch._C._are_functorch_transforms_active():
            return transformable.apply(*arguments)
        if torch.is_grad_enabled() and any(
            argument.requires_grad for argument in arguments if isinstance(argument, torch.Tensor)
        ):
            return recording.apply(*arguments)
        if _nobody_watches(arguments):
            return operator.cpu(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return raw(*arguments)

    call.__name__ = call.__qualname__ = operator.name
    return call


def is_plainly_recorded(*arguments: Any) -> bool:
    """Whether a call will be differentiated by eager autograd, with nothing else looking on."""
    return (
        not torch.compiler.is_dynamo_compiling()
        and not torch._C._are_functorch_transforms_active()
        and torch.is_grad_enabled()
        and any(a.requires_grad for a in arguments if isinstance(a, torch.Tensor))
        and _nobody_watches(arguments)
    )


def is_watched(tensor: torch.Tensor) -> bool:
    """Whether anything but this call's values is wanted: a derivative, a transform, a graph."""
    return (
        torch.compiler.is_dynamo_compiling()
        or torch._C._are_functorch_transforms_active()
        or (torch.is_grad_enabled() and tensor.requires_grad)
        or not _nobody_watches((tensor,))
    )


def _nobody_watches(arguments: tuple[Any, ...]) -> bool:
    """Whether torch's dispatcher could only do one thing with this call: run the CPU kernel.

    Going through it costs 10 microseconds, a third of what a small image takes in all.
    """
    return (
        torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._autograd._profiler_enabled()
        and all(
            type(argument) in (torch.Tensor, torch.nn.Parameter)
            and argument.is_cpu
            # ``torch.autograd.grad(is_grads_batched=True)`` maps by another mechanism than vmap.
            and not torch._C._functorch.is_legacy_batchedtensor(argument)
            for argument in arguments
            if isinstance(argument, torch.Tensor)
        )
    )


def _transformable_function(operator: Operator, raw: Callable[..., Any]) -> Any:
    def forward(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return raw(*arguments)

    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return operator.vmap(transformable.apply, info, in_dims, *arguments)

    members = {
        "forward": forward,
        "setup_context": operator.setup_context,
        "backward": operator.backward,
        "vmap": vmap,
    }
    transformable: Any = _function(operator, members)
    return transformable


def _recording_function(operator: Operator, raw: Callable[..., Any]) -> Any:
    def forward(ctx: Any, *arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            results = raw(*arguments)
        operator.setup_context(ctx, arguments, results)
        return results

    return _function(operator, {"forward": forward, "backward": operator.backward})


def _function(operator: Operator, members: dict[str, Callable[..., Any]]) -> Any:
    return type(
        f"{operator.name}_function",
        (torch.autograd.Function,),
        {name: staticmethod(member) for name, member in members.items()},
    )


def _no_cuda_kernel(name: str) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> Any:
        devices = sorted({str(a.device) for a in arguments if isinstance(a, torch.Tensor)})
        raise NotImplementedError(
            f"sosie::{name} has no CUDA kernel yet: expected CPU tensors, "
            f"got tensors on {', '.join(devices)}"
        )

    return refuse
