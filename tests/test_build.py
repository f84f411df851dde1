# SPDX-License-Identifier: Apache-2.0
"""What the build made: objects that do not leak into each other, and stubs that tell the truth."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import platform
import re
import shutil
import subprocess
from importlib import metadata, resources
from pathlib import Path

import pytest

import sosie

#: Compiled modules, and libraries they need beyond the language's. All but the first are optional.
MODULES: dict[str, set[str]] = {"_core": set(), "_openmp": {"libgomp"}, "_cuda": set()}
BUILT = [name for name in MODULES if importlib.util.find_spec(f"sosie.{name}") is not None]

SOURCES = Path(__file__).parents[1] / "csrc" / "cpu"
#: Flags and vector bytes of an instruction set beyond the baseline.
LEAST, BYTES = (["-mavx2", "-mfma", "-mf16c"], 32) if platform.machine() == "x86_64" else ([], 16)


def _run(*command: str | Path) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def _needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


@_needs("g++", "nm")
@pytest.mark.skipif(not SOURCES.is_dir(), reason="the sources are not here")
@pytest.mark.parametrize("source", sorted(path.name for path in SOURCES.glob("*kernels.cpp")))
def test_kernels_share_no_function_with_other_objects(source: str, tmp_path: Path) -> None:
    # Of a function that several objects define, weakly, the linker keeps one copy for all: an AVX2
    # copy would then run on a processor without AVX2. Without optimisation nothing is inlined, so
    # that every function that could leak shows.
    compiled = tmp_path / "kernels.o"
    _run(
        "g++", "-std=c++17", "-O0", "-Wno-psabi", *LEAST, "-DSOSIE_ISA=leak",
        f"-DSOSIE_VECTOR_BYTES={BYTES}", "-c", SOURCES / source, "-o", compiled,
    )  # fmt: skip
    symbols = _run("nm", "-C", compiled).splitlines()
    assert [line for line in symbols if re.search(" [WVu] ", line)] == []
    visible = [line.split(maxsplit=2)[-1] for line in symbols if re.search(" [BDRT] ", line)]
    family = source.removesuffix(".cpp").removesuffix("-kernels").replace("-", "_")
    assert visible == [f"sosie::{family}_leak"]


@_needs("readelf")
@pytest.mark.parametrize("name", BUILT)
def test_modules_need_the_language_runtime_alone(name: str) -> None:
    module = importlib.import_module(f"sosie.{name}")
    dynamic = _run("readelf", "-d", str(module.__file__))
    needed = set(re.findall(r"\(NEEDED\).*\[(.+?)\.so", dynamic))
    runtime = {"libstdc++", "libgcc_s", "libm", "libc", "libpthread"}
    assert {name for name in needed if not name.startswith("ld-linux")} <= runtime | MODULES[name]


def _stub(name: str) -> ast.Module:
    return ast.parse((resources.files("sosie") / f"{name}.pyi").read_text(encoding="utf-8"))


def _stub_signatures(body: list[ast.stmt], prefix: str = "") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            found |= _stub_signatures(node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            found[prefix + node.name] = [argument.arg for argument in node.args.args]
    return found


def _signatures(holder: object, prefix: str = "") -> dict[str, list[str]]:
    """Functions of a module or class and their parameters, from pybind11's docstrings."""
    found: dict[str, list[str]] = {}
    for name, member in vars(holder).items():
        if inspect.isclass(member):
            found |= _signatures(member, f"{name}.")
        elif name == "__init__" and not (member.__doc__ or "").startswith("__init__("):
            continue  # made by functions alone
        elif isinstance(member, property):
            found[prefix + name] = ["self"]
        elif name == "__init__" or (callable(member) and not name.startswith("_")):
            signature = (member.__doc__ or "").splitlines()[0]
            found[prefix + name] = re.findall(r"[(,] ?(\w+)(?=: |[,)])", signature)
    return found


@pytest.mark.parametrize("name", BUILT)
def test_stubs_are_those_of_the_module(name: str) -> None:
    module = importlib.import_module(f"sosie.{name}")
    assert _stub_signatures(_stub(name).body) == _signatures(module)


def test_there_are_compiled_kernels() -> None:
    assert "_core" in BUILT


def test_the_package_says_that_it_is_typed() -> None:
    assert (resources.files("sosie") / "py.typed").is_file()


def test_versions_agree() -> None:
    assert metadata.version("sosie") == sosie.__version__
