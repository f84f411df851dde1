# SPDX-License-Identifier: Apache-2.0
"""The benchmark for devices, as far as it goes without one: who agrees with whom, what is written,
what the sanitizer watches, what is ended when its time is over."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from emulator import emulated, needs_emulator
from sosie.backends.cuda import distance_sets

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
if not (ROOT / "benchmarks" / "gpu").is_dir():
    pytest.skip("the benchmarks are not here", allow_module_level=True)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


# --- Before anything is timed ---------------------------------------------------------------------


@needs_emulator
def test_the_sanitizer_watches_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.gpu import small

    monkeypatch.setattr(distance_sets, "_PRODUCT_TILES", 1)
    with emulated() as emulator:
        small.run("cpu", vectors=30)
    kernels = {
        name
        for path in (ROOT / "csrc" / "cuda").glob("*-list.hpp")
        for name in re.findall(r"KERNEL\((\w+)<", path.read_text(encoding="utf-8"))
    }
    # The last computes nothing of anybody's, and is launched for the peak.
    assert {name.partition("<")[0] for name in emulator.launched} == kernels - {"fma_peak"}


def test_all_tests_of_devices_run() -> None:
    """Files that have such tests, by a mark or by the fixture `device`, are named."""
    from benchmarks.gpu import steps

    found = {
        f"tests/{path.name}"
        for path in (ROOT / "tests").glob("test_*.py")
        if re.search(r"mark\.gpu\b|^def test_\w+\(\s*device\b", path.read_text(), re.MULTILINE)
    } - {"tests/test_gpu_benchmark.py"}  # fmt: skip
    assert found <= set(steps.device_tests())
    assert len(found) > 5


def test_they_are_collected_where_nothing_else_is_installed(run_python: Any) -> None:
    """On a machine with torch and pytest alone an import of a peer would stop all of them."""
    from benchmarks.gpu import steps

    files = [str(ROOT / file) for file in steps.device_tests()]
    code = f"""
import importlib.util, sys
missing = ("scipy", "skimage", "hypothesis", "numba", "keras", "kornia", "piq", "torchmetrics",
           "pytorch_msssim", "faiss", "sklearn", "cv2", "rich", "typer", "PIL")
class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Bare())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in missing else find(name, *a)
import pytest
sys.exit(pytest.main(["-q", "--collect-only", "-m", "gpu", "-p", "no:cacheprovider",
                      "--rootdir", {str(ROOT)!r}, *{files!r}]))
"""
    lines = run_python(code, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1").splitlines()
    collected = re.match(r"(\d+)/\d+ tests collected", lines[-1])
    assert collected, lines[-1]
    assert int(collected[1]) > 1000


def test_what_takes_too_long_is_ended_with_all_that_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks.gpu import steps

    monkeypatch.setattr(steps, "ROOT", tmp_path)
    monkeypatch.setattr(steps, "_LEAST_SECONDS", 0.0)
    run, alive = steps.Run(1.0), tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(1.0); pathlib.Path({str(alive)!r}).touch()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    run.together(0.5, {
        "slow": [sys.executable, "-c", parent],
        "broken": [sys.executable, "-c", "print('why'); raise SystemExit(3)"],
    })  # fmt: skip
    assert run.failed == ["slow: not done after 0 s", "broken: exit status 3"]
    assert run.results["broken"] == {"status": 3, "output": "why\n"}
    time.sleep(1.2)
    assert not alive.exists()
    run.end = time.monotonic() - 1.0
    run.together(1.0, {"late": ["true"]})
    assert run.skipped == ["late: no time left"]


# --- What is timed --------------------------------------------------------------------------------


def small_cases() -> list[Any]:
    """One of each kind, with sizes that a processor does at once."""
    from benchmarks import recurrent_cases
    from benchmarks.gpu import cases, distance, recurrent

    found = {}
    for case in (*cases.CASES, *distance.CASES, *recurrent.CASES):
        if isinstance(case, cases.Case):
            side = 180 if case.family == "ms_ssim" else 60
            found[case.family, case.gradient, case.dtype, case.channels_last] = dataclasses.replace(
                case, shape=(1, 3, side, side)
            )
        elif isinstance(case, distance.DistanceCase):
            columns = 1 if case.task == "paired" else 300
            found[case.task, case.gradient, case.dims > 32] = dataclasses.replace(
                case, rows=200, columns=columns, k=min(case.k, 5)
            )
        elif isinstance(case, recurrent.LayerCase):
            tiny = dataclasses.replace(case.case, batch=1, steps=2, size=8)
            assert isinstance(tiny, recurrent_cases.Case)
            found["layer", case.case.gradient] = dataclasses.replace(case, case=tiny)
    return list(found.values())


def test_contenders_agree_with_each_other() -> None:
    """Those that can be called here, who would be left out of the table otherwise."""
    pytest.importorskip("pytorch_msssim")
    called = set()
    torch.manual_seed(0)
    for case in small_cases():
        inputs = case.inputs(1, device="cpu")
        expected = None
        for who, function in case.contenders().items():
            if "compile" in who or who in ("faiss", "cuVS"):
                continue
            value = float(function(inputs[0]).detach().double().abs().mean())
            expected = value if expected is None else expected
            assert abs(value - expected) <= case.tolerance * max(expected, 1e-3), (case.name, who)
            case.timed(function)(inputs[0])
            called.add(who)
        assert case.operations > 0.0
    assert {"sosie", "torch", "pytorch-msssim", "torch.cdist + topk", "ConvLSTM_pytorch"} <= called


class FakeCase:
    """A task of two numbers."""

    name, tolerance, elements, bytes, operations, bytes_of_input = "task", 1e-5, 2, 8, 3, 16

    def __init__(self, **functions: Any) -> None:
        self._functions = functions

    def inputs(self, count: int) -> list[Any]:
        return [torch.ones(2)] * count

    def contenders(self) -> dict[str, Any]:
        return {name.replace("_", " "): function for name, function in self._functions.items()}

    def timed(self, function: Any) -> Any:
        return function


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Function that measures cases with a clock that gives 2 microseconds to everybody."""
    from benchmarks.gpu import __main__ as program
    from benchmarks.gpu import measure

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 30, 1 << 30))
    monkeypatch.setattr(program, "peaks", lambda: measure.Peaks(1e12, 1e13))
    monkeypatch.setattr(
        program, "device_record",
        lambda driver: measure.Device("a device", "9.0", 132, 1 << 30, driver, {"torch": "2"}),
    )  # fmt: skip
    monkeypatch.setattr(program, "timing", lambda *_: measure.Timing(2e-6, 3e-6))

    def run(*cases: Any) -> tuple[Any, Any, str]:
        monkeypatch.setattr(program, "CASES", cases)
        monkeypatch.setattr(program, "_driver", lambda: "580.1")
        status = program.main(["--out", str(tmp_path), "--no-build", "--no-tests"])
        text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
        return status, json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8")), text

    return run


def _raises(_: Any) -> Any:
    raise LookupError("no such kernel")


def test_a_table_and_plain_data(measured: Any) -> None:
    case = FakeCase(
        sosie=lambda x: x, peer=lambda x: x, wrong=lambda x: x + 1e-4,
        not_a_number=lambda x: x * float("nan"), broken=_raises, peer_compiled=lambda x: x,
    )  # fmt: skip
    status, found, text = measured(case)
    assert status == 0
    assert [row["who"] for row in found["cases"]] == ["sosie", "peer", "peer compiled"]
    assert found["cases"][1]["bytes_per_second"] == pytest.approx(8e6)
    assert found["cases"][1]["operations_per_second"] == pytest.approx(3e6)
    assert [line.partition(":")[0] for line in found["skipped"]] == [
        "wrong, task", "not a number, task", "broken, task",
    ]  # fmt: skip
    assert "| task | peer | 2.0 | 3 |" in text
    assert "- broken, task: LookupError: no such kernel" in text


def test_what_we_fail_at_is_a_failure(measured: Any) -> None:
    status, found, text = measured(FakeCase(sosie=_raises, peer=lambda x: x))
    assert (status, found["cases"]) == (1, [])
    assert found["failed"] == ["sosie, task: LookupError: no such kernel"]
    assert "### Failed" in text
