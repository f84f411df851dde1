# SPDX-License-Identifier: Apache-2.0
"""What all tests share: a header that says what is being tested, and fresh interpreters."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import types
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

# The reference multiplies small matrices; OpenBLAS would only make threads wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Where tests ask scikit-image, they want its own numbers and not sosie's by way of its dispatcher.
os.environ["SKIMAGE_NO_DISPATCHING"] = "1"

import numpy as np
import pytest

import executors
from emulator import emulated, needs_emulator

# The tests of CUDA devices do without: they run on machines that have torch, CuPy and pytest alone.
if importlib.util.find_spec("hypothesis") is not None:
    from hypothesis import settings

    # Machines that test are shared machines: the time of one example says nothing. The same
    # examples are tried every time, so that a failure belongs to a change.
    settings.register_profile("sosie", deadline=None, derandomize=True)
    settings.load_profile("sosie")

#: What a caller's shell may hold that changes who computes, and how.
_SETTINGS = (
    "SOSIE_ISA", "SOSIE_BACKEND", "SOSIE_CONVOLUTIONS", "SOSIE_NUM_THREADS", "OMP_NUM_THREADS"
)  # fmt: skip


def pytest_report_header() -> list[str]:
    """Say which kernels run, so that one knows what was tested."""
    from sosie.config import configuration

    found = configuration()
    isa = found["instruction_sets"]
    return [
        f"sosie {found['version']}: backend {found['backend']}, instruction set {isa['used']} of "
        f"{', '.join(isa['supported'])}, {found['threads']} threads"
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    from sosie.backends.cuda.launcher import launcher

    try:
        launcher()
    except RuntimeError as error:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run code in a fresh interpreter and return what it printed.

    Keyword arguments are environment variables; settings of the caller's are not inherited. The
    test fails when the code does, or when it is not done after two minutes: a hang.
    """

    def run(code: str, *, expect_failure: bool = False, **environment: str) -> str:
        inherited = {name: text for name, text in os.environ.items() if name not in _SETTINGS}
        try:
            finished = subprocess.run(
                [sys.executable, "-c", code],
                env=inherited | environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after 120 s:\n{code}")
        if (finished.returncode != 0) != expect_failure:
            pytest.fail(f"exit status {finished.returncode}:\n{finished.stdout}{finished.stderr}")
        return finished.stderr if expect_failure else finished.stdout

    return run


class _Anything(types.ModuleType):
    """Module in which every name is found, as a class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        import torch

        return type(name, (torch.nn.Module,), {})


@pytest.fixture(scope="session")
def importable_piq() -> None:
    """piq, where it is installed, without torchvision, which it imports for metrics unused here."""
    if {"piq", "torchvision"} & set(sys.modules) or importlib.util.find_spec("piq") is None:
        return
    names = ["torchvision", "torchvision.models", "torchvision.models.inception"]
    names += ["torchvision.models.utils", "torchvision.transforms"]
    for name in names:
        sys.modules[name] = _Anything(name)
    for name in names[1:]:
        parent, _, child = name.rpartition(".")
        setattr(sys.modules[parent], child, sys.modules[name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("piq")
    finally:
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module", params=executors.EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The module of an executor, which public functions use too meanwhile, on one thread."""
    with executors.one_thread(), executors.computing_by(request.param) as module:
        yield module


@pytest.fixture(scope="module", params=executors.OPTIMISED)
def optimised(request: pytest.FixtureRequest) -> Iterator[Any]:
    """`executor`, without the definition."""
    with executors.one_thread(), executors.computing_by(request.param) as module:
        yield module


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Several threads would wait for each other wherever other processes run beside the tests."""
    with executors.one_thread():
        yield


@pytest.fixture(
    params=[
        pytest.param("emulated", marks=needs_emulator),
        pytest.param("torch", marks=pytest.mark.gpu),
        pytest.param("cupy", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest) -> Iterator[Callable[[np.ndarray], Any]]:
    """Function that brings an array to where kernels run; `emulator.fetch` brings results back.

    The emulator's threads get their turns from the first to the last in one test, and from the last
    to the first in another: tests/simt has each kernel both ways.
    """
    if request.param == "emulated":
        with emulated(zlib.crc32(request.node.name.encode()) % 2 == 1):
            yield lambda array: array
    elif request.param == "torch":
        torch = pytest.importorskip("torch")
        yield lambda array: torch.from_numpy(array).cuda()
    else:
        yield pytest.importorskip("cupy").asarray
