# SPDX-License-Identifier: Apache-2.0
"""``python -m sosie.run``: run a program with peers replaced in place.

.. code-block:: sh

    SOSIE_PATCH=pytorch_msssim,skimage python -m sosie.run train.py --epochs 3
    SOSIE_PATCH=torchmetrics python -m sosie.run --report -m my.evaluation

The program is run as ``python`` would run it, after `sosie.patch.install` of the peers that the
environment variable ``SOSIE_PATCH`` names, separated by commas. With ``--report``, what
`sosie.patch.report` says at the end goes to standard error. Processes that the program starts anew
are not patched; forked ones are.
"""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
from pathlib import Path
from typing import NoReturn

import sosie
from sosie.patching import PatchError

__all__ = ["main"]

_USAGE = (
    "usage: SOSIE_PATCH=PEER,... python -m sosie.run [--report] (SCRIPT | -m MODULE) [ARGUMENT]..."
)


def main(arguments: list[str]) -> None:
    """Patch, then run what the arguments name. Ends with exit status 2 where that is nothing."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return
    wants_report = arguments[:1] == ["--report"]
    program = arguments[wants_report:]
    is_module = program[:1] == ["-m"]
    program = program[is_module:]
    if not program or program[0].startswith("-"):
        _refuse("expected a script, or -m and a module")
    if not is_module and not Path(program[0]).exists():
        _refuse(f"no such script: {program[0]}")
    peers = [name.strip() for name in os.environ.get("SOSIE_PATCH", "").split(",") if name.strip()]
    if not peers:
        _refuse("expected the environment variable SOSIE_PATCH to name peers, separated by commas")
    _find_modules_as_python_does(Path.cwd() if is_module else Path(program[0]).resolve().parent)
    if is_module and not _is_module(program[0]):
        _refuse(f"no such module: {program[0]}")
    try:
        sosie.patch.install(*peers)
    except (ValueError, PatchError) as error:
        _refuse(f"SOSIE_PATCH: {error}")
    sys.argv[:] = program
    try:
        if is_module:
            runpy.run_module(program[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(program[0], run_name="__main__")
    finally:
        if wants_report:
            print(sosie.patch.report(), file=sys.stderr)


def _find_modules_as_python_does(folder: Path) -> None:
    """Where it looks first, in place of what ``-m sosie.run`` made of it."""
    if not getattr(sys.flags, "safe_path", False):  # ``python -P``, from 3.11 on: in no folder
        sys.path[0] = str(folder)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # by one of its packages
        return False


def _refuse(sentence: str) -> NoReturn:
    print(f"sosie.run: {sentence}\n{_USAGE}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
