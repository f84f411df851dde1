# SPDX-License-Identifier: Apache-2.0
"""The kernels' sources, for compilers at run time."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

__all__ = ["expression", "source"]


@cache
def _folder() -> Any:
    packaged = resources.files("sosie.backends.cuda") / "kernels"
    if packaged.is_dir():
        return packaged
    from sosie import _core  # an editable installation has them where its compiled modules are

    return Path(_core.__file__).parent / "backends" / "cuda" / "kernels"


def expression(kernel: str) -> str:
    """A kernel's name with the namespace of the sources before it and its types.

    Examples
    --------
    >>> expression("ssd_forward<half, true>")
    'sosie::ssd_forward<sosie::half, true>'
    """
    return "sosie::" + re.sub(r"\b(half|bfloat16)\b", r"sosie::\1", kernel)


@cache
def source(kernel: str) -> str:
    """Text of the file that a kernel is defined in, with all that it includes.

    One text, as CuPy's cache looks at it and not at files that it includes.
    """
    definition = re.compile(rf"__global__[^;{{]*\b{kernel.partition('<')[0]}\(")
    for file in sorted(_folder().iterdir(), key=lambda file: file.name):
        if file.name.endswith(".cuh") and definition.search(file.read_text(encoding="utf-8")):
            return _with_includes(file.name, set())
    raise ValueError(f"no source defines a kernel {kernel}")


def _with_includes(name: str, seen: set[str]) -> str:
    if name in seen:
        return ""
    seen.add(name)
    text = (_folder() / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
    return re.sub(
        r'^#include "([\w-]+\.cuh)"$',
        lambda match: _with_includes(match.group(1), seen),
        text,
        flags=re.MULTILINE,
    )
