# SPDX-License-Identifier: Apache-2.0
"""Registration of operators with torch, one table row each.

Every operator exists twice. The *raw* operator, ``torch.ops.sosie.<name>``, is what compilers,
exporters and profilers see: schema, kernels per device, a fake kernel (shapes, types and strides
without data), a derivative and a batching rule. In front of it stands a ``torch.autograd.Function``
made from the same row, because the derivative attached to a raw operator does not work under
``torch.func`` and costs more per call. Compilers are given the raw operator: they trace its
derivative, but are known to drop that of an autograd function under ``torch.func.grad`` and to
refuse one that is called with the same tensor twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Operator", "register"]

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
        operator itself.
    cuda : callable, optional
        Kernel for CUDA tensors. Without one such a call raises NotImplementedError.
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

    def vmap(info: Any, in_dims: Any, *arguments: Any) -> Any:
        return operator.vmap(call, info, in_dims, *arguments)

    if hasattr(torch.library, "register_vmap"):  # torch 2.5
        torch.library.register_vmap(qualified_name, vmap, lib=_library)
    function = _front(operator, raw, vmap)

    def call(*arguments: Any) -> Any:
        if torch.compiler.is_compiling():
            return raw(*arguments)
        if _may_need_gradient(arguments):
            return function.apply(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return raw(*arguments)

    call.__name__ = call.__qualname__ = operator.name
    return call


def _front(
    operator: Operator, raw: Callable[..., Any], vmap: Callable[..., Any]
) -> type[torch.autograd.Function]:
    """The autograd function in the form ``torch.func`` asks for (``forward`` without context)."""

    def forward(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return raw(*arguments)

    members = {
        "forward": forward,
        "setup_context": operator.setup_context,
        "backward": operator.backward,
        "vmap": vmap,
    }
    return type(
        f"{operator.name}_function",
        (torch.autograd.Function,),
        {name: staticmethod(member) for name, member in members.items()},
    )


def _may_need_gradient(arguments: tuple[Any, ...]) -> bool:
    if torch._C._are_functorch_transforms_active():
        return True
    return torch.is_grad_enabled() and any(
        argument.requires_grad for argument in arguments if isinstance(argument, torch.Tensor)
    )


def _no_cuda_kernel(name: str) -> Callable[..., Any]:
    def refuse(*arguments: Any) -> Any:
        devices = sorted({str(a.device) for a in arguments if isinstance(a, torch.Tensor)})
        raise NotImplementedError(
            f"sosie::{name} has no CUDA kernel in this build: expected CPU tensors, "
            f"got tensors on {', '.join(devices)}"
        )

    return refuse
