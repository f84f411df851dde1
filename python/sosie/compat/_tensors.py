# SPDX-License-Identifier: Apache-2.0
"""Which tensors sosie computes: what drop-ins check after the checks of the original."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from sosie.compat._coverage import NotCovered

__all__ = ["check_tensors", "constants"]

_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensors(*tensors: Tensor, kernel: str = "ssim_forward") -> None:
    """Raise `NotCovered` unless sosie computes these tensors.

    They have to be dense, floating-point, not empty, and of one dtype, on the CPU or on one CUDA
    device, if this installation can compute there.

    Parameters
    ----------
    *tensors : Tensor
    kernel : str
        The function of an executor that will be called; there are CUDA kernels for some.
    """
    first = tensors[0]
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise NotCovered(f"sosie computes tensors here, got {type(tensor)}")
        if tensor.dtype not in _FLOATING or tensor.layout != torch.strided:
            raise NotCovered(
                f"sosie computes dense floating-point tensors here, got {tensor.dtype}, "
                f"{tensor.layout}"
            )
        if (tensor.dtype, tensor.device) != (first.dtype, first.device):
            raise NotCovered(
                f"sosie computes tensors of one dtype on one device, got {first.dtype} on "
                f"{first.device} and {tensor.dtype} on {tensor.device}"
            )
        if 0 in tensor.shape:
            raise NotCovered(f"sosie computes nothing empty, got shape {tuple(tensor.shape)}")
    device = first.device.type
    if device in ("cpu", "meta"):
        return
    reason = _missing_on_cuda(kernel) if device == "cuda" else "there are no kernels for it"
    if reason is not None:
        raise NotCovered(f"sosie does not compute on {first.device}: {reason}")


def _missing_on_cuda(kernel: str) -> str | None:
    """Why a function of executors cannot compute on CUDA devices here; None if it can."""
    from sosie.backends import cuda
    from sosie.backends.cuda.launcher import launcher

    if kernel not in cuda.__all__:
        return f"there is no CUDA kernel for {kernel} yet"
    try:
        launcher()
    except RuntimeError as error:
        return str(error)
    return None


def constants(tensor: Tensor) -> tuple[float, ...]:
    """Numbers of a vector, for a convention; `NotCovered` where a compiler has none yet."""
    if torch.compiler.is_compiling() or isinstance(tensor, FakeTensor):
        raise NotCovered("sosie takes no numbers from a tensor while its caller is compiled")
    return tuple(tensor.tolist())


torch.compiler.assume_constant_result(_missing_on_cuda)
