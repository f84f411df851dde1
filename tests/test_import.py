# SPDX-License-Identifier: Apache-2.0
"""Importing the package is cheap, and brings nothing that was not asked for."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import sosie

HEAVY = {"torch", "scipy", "numba", "typer", "rich", "jinja2", "matplotlib", "PIL", "skimage"}


def test_nothing_heavy_is_imported(run_python: Callable[..., str]) -> None:
    code = "import json, sys, sosie; print(json.dumps(sorted(sys.modules)))"
    packages = {name.partition(".")[0] for name in json.loads(run_python(code))}
    assert packages.isdisjoint(HEAVY)


def test_nothing_heavy_is_imported_for_numpy_arrays(run_python: Callable[..., str]) -> None:
    code = """
import json, sys
import numpy as np
import sosie
x = np.zeros((32, 32), np.float32)
assert sosie.ssim(x, x, data_range=1.0) == 1.0
print(json.dumps(sorted(sys.modules)))
"""
    packages = {name.partition(".")[0] for name in json.loads(run_python(code))}
    assert packages.isdisjoint(HEAVY)


def test_import_takes_at_most_40_ms_more_than_numpy(run_python: Callable[..., str]) -> None:
    # Processor time, and the least of seven: what other processes do meanwhile only ever adds.
    code = "import time; t = time.process_time(); import {0}; print(time.process_time() - t)"
    seconds: dict[str, list[float]] = {"numpy": [], "sosie": []}
    for _ in range(7):
        for name, times in seconds.items():
            times.append(float(run_python(code.format(name), OPENBLAS_NUM_THREADS="1")))
    assert min(seconds["sosie"]) - min(seconds["numpy"]) < 0.040


def test_no_thread_is_started(run_python: Callable[..., str]) -> None:
    code = """
import os
import numpy
before = len(os.listdir("/proc/self/task"))
import sosie
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert int(run_python(code)) == 0


def test_every_public_name_is_there() -> None:
    assert set(sosie.__all__) <= set(dir(sosie))
    for name in sosie.__all__:
        assert getattr(sosie, name) is not None


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Not even late, inside a function. Packages hand out names of their modules, and are apart."""
    root = Path(sosie.__file__).parent
    files = {
        ".".join(("sosie", *path.relative_to(root).with_suffix("").parts)): path
        for path in root.rglob("*.py")
        if path.name != "__init__.py"
    }
    imports = {name: _imported(path) & files.keys() for name, path in files.items()}
    assert "sosie.torch.distance" in imports["sosie.distance"]  # late
    TopologicalSorter(imports).prepare()  # which names a circle


def _imported(path: Path) -> set[str]:
    """Modules that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
