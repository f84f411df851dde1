# SPDX-License-Identifier: Apache-2.0
"""What this installation found on this machine, what it uses, and why the rest is missing."""

from __future__ import annotations

import platform
from typing import Any

from sosie.backends import available_backends, executor
from sosie.convolutions import chosen_convolutions
from sosie.threads import get_num_threads

__all__ = ["configuration", "show_config"]

_LIBRARIES = ("numpy", "torch", "numba", "cupy")


def configuration() -> dict[str, Any]:
    """Version, instruction sets, backends, threads and libraries, as plain data.

    Returns
    -------
    dict
        "version", "python", "machine", "threads", "backend" (the one in use), "backends" (name to
        "available" or reason), "instruction_sets" ("compiled", "supported", "used"), "convolutions"
        (see `sosie.use_convolutions`) and "libraries" (name to version, or "not installed").

    Examples
    --------
    >>> configuration()["backends"]["reference"]
    'available'
    """
    import numpy as np

    import sosie

    return {
        "version": sosie.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "threads": get_num_threads(),
        "backend": executor(np.empty(0)).__name__.rpartition(".")[2],
        "backends": available_backends(),
        "instruction_sets": _instruction_sets(),
        "convolutions": chosen_convolutions(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def show_config() -> None:
    """Print what this installation found and uses.

    Examples
    --------
    >>> import sosie
    >>> sosie.show_config()  # doctest: +ELLIPSIS
    sosie ...
    """
    found = configuration()
    isa = found["instruction_sets"]
    print(f"sosie {found['version']}, Python {found['python']}, {found['machine']}")
    print(f"threads           {found['threads']}")
    print(f"instruction set   {isa['used']} (supported: {', '.join(isa['supported']) or 'none'})")
    print(f"convolutions      {found['convolutions']}")
    for name, state in found["backends"].items():
        used = ", in use" if name == found["backend"] else ""
        print(f"backend {name:<10}{state}{used}")
    for name, version in found["libraries"].items():
        print(f"library {name:<10}{version}")


def _instruction_sets() -> dict[str, Any]:
    try:
        from sosie import _core
    except ImportError:
        return {"compiled": [], "supported": [], "used": "none (no compiled kernels)"}
    return {
        "compiled": _core.compiled_isas(),
        "supported": _core.supported_isas(),
        "used": _core.isa(),
    }


def _version(library: str) -> str:
    from importlib import metadata  # half of what importing sosie would take

    names = metadata.packages_distributions().get(library, [])
    return metadata.version(names[0]) if names else "not installed"
