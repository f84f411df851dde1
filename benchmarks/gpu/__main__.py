# SPDX-License-Identifier: Apache-2.0
"""Build, test and measure on a CUDA device, within nine minutes.

    python -m benchmarks.gpu --out results/gpu
    python -m benchmarks.gpu --predict              counts and predicted times, without a device

Needs nvcc, torch, CuPy, pytest; no network. Steps: the module is built for this device, tests
marked ``gpu`` run, then small cases under compute-sanitizer, then everything is timed beside its
peers. What there was no time for, and who gave another value, is listed.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import cases, distance, recurrent
from benchmarks.gpu.costs import prediction
from benchmarks.tables import Table

ROOT = Path(__file__).parents[2]

#: What compute-sanitizer watches: every kernel once, on arrays of a few blocks.
_SMALL = """
import torch, sosie, sosie.nn
x, y = (torch.rand(2, 3, 70, 90, device="cuda", requires_grad=True) for _ in range(2))
w = torch.rand(2, 1, 70, 90, device="cuda", requires_grad=True)
(sosie.weighted_ssd(x, y, w, reduction="mean") - sosie.ssim(x, y, data_range=1.0)).backward()
sosie.ms_ssim(x[:, :, :, :].repeat(1, 1, 3, 2), y.repeat(1, 1, 3, 2), data_range=1.0).backward()
for layer in (
    sosie.nn.ConvLSTM(3, 6, peephole="channel", device="cuda"),
    sosie.nn.ConvGRU(3, 8, device="cuda"),
    sosie.nn.ConvGRU(3, 8, linear_before_reset=True, device="cuda"),
):
    layer(torch.rand(2, 1, 3, 19, 23, device="cuda"))[0].sum().backward()
a, b = (torch.rand(n, 40, device="cuda", requires_grad=True) for n in (300, 500))
for metric in ("euclidean", "cosine"):
    (sosie.cdist(a, b, metric).sum() + sosie.knn(a, b, 20, metric).distances.sum()).backward()
    sosie.cdist(a[:, :9], b[:, :9], metric)
(sosie.euclidean_distance(a, b[:1]) + sosie.cosine_similarity(a, a + 1)).sum().backward()
torch.cuda.synchronize()
"""


class Run:
    """One run: how much time is left, what was skipped, what was found."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.skipped: list[str] = []
        self.failed: list[str] = []
        self.results: dict[str, Any] = {}

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def command(self, what: str, limit: float, *words: str) -> bool:
        """Run a program for at most so many seconds; whether it succeeded."""
        limit = min(limit, self.left())
        if limit < 5:
            self.skipped.append(f"{what}: no time left")
            return False
        print(f"{what} ...", flush=True)
        try:
            done = subprocess.run(
                words, cwd=ROOT, timeout=limit, capture_output=True, text=True, check=False
            )
        except subprocess.TimeoutExpired:
            self.failed.append(f"{what}: not done after {limit:.0f} s")
            return False
        print(done.stdout[-2000:] + (done.stderr[-2000:] if done.returncode else ""), flush=True)
        self.results[what] = {"status": done.returncode, "output": done.stdout[-2000:]}
        if done.returncode:
            self.failed.append(f"{what}: exit status {done.returncode}")
        return done.returncode == 0


def main() -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="folder for gpu.md and gpu.json")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--no-build", action="store_true", help="measure what is installed")
    parser.add_argument("--no-tests", action="store_true", help="measure only")
    parser.add_argument("--predict", action="store_true", help="print counts; needs no device")
    given = parser.parse_args()
    if given.predict:
        for table in (prediction(), distance.predicted_cases()):
            print(table.markdown())
        return 0
    if given.out is None:
        parser.error("expected --out DIR or --predict")
    run = Run(given.minutes)
    driver = _driver()
    if driver is None:
        print("no CUDA device was found: nvidia-smi is missing or fails", file=sys.stderr)
        return 1
    if not given.no_build:
        run.command(
            "build", 240, sys.executable, "-m", "pip", "install", "--no-deps",
            "--no-build-isolation", "--no-index", "-C", "build-dir=build/gpu",
            "-C", "cmake.define.SOSIE_CUDA=ON",
            "-C", "cmake.define.SOSIE_CUDA_ARCHITECTURES=native", ".",
        )  # fmt: skip
    if not given.no_tests:
        run.command("tests", 180, sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests")
        _sanitize(run)
    table = _measure(run, driver)
    given.out.mkdir(parents=True, exist_ok=True)
    text = "\n".join([table.markdown(), *_notes(run)])
    print(text)
    (given.out / "gpu.md").write_text(text, encoding="utf-8")
    run.results |= {"skipped": run.skipped, "failed": run.failed}
    (given.out / "gpu.json").write_text(json.dumps(run.results, indent=2), encoding="utf-8")
    return 1 if run.failed else 0


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    words = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found.stdout.split("\n")[0].strip() if found.returncode == 0 else None


def _sanitize(run: Run) -> None:
    if shutil.which("compute-sanitizer") is None:
        run.skipped.append("compute-sanitizer: not installed")
        return
    for tool in ("memcheck", "racecheck"):
        run.command(
            f"compute-sanitizer {tool}", 60, "compute-sanitizer", "--tool", tool,
            "--error-exitcode", "9", sys.executable, "-c", _SMALL,
        )  # fmt: skip


def _measure(run: Run, driver: str) -> Table:
    """Time every case as long as there is time."""
    from benchmarks.gpu.measure import device_record, peaks

    device, best = device_record(driver), peaks()
    run.results |= {
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
        "device": dataclasses.asdict(device),
        "peaks": dataclasses.asdict(best),
        "cases": [],
    }
    table = Table(
        f"{device.name}, driver {driver}, {run.results['date']}",
        ("case", "who", "microseconds", "ps per element", "GB/s", "of copy", "sosie is faster by"),
        notes=[
            f"measured in this run: copy {best.copy / 1e9:.0f} GB/s, "
            f"{best.fma / 1e12:.1f}e12 multiply-adds/s (float32)",
            ", ".join(f"{name} {version}" for name, version in device.versions.items()),
        ],
        numbers=False,
    )
    for case in (*cases.CASES, *distance.CASES, *recurrent.CASES):
        if run.left() < 20:
            run.skipped.append(f"{case.name}: no time left")
            continue
        ours: float | None = None
        for who, seconds in _times(run, case).items():
            ours = seconds if who == "sosie" else ours
            rate = case.bytes * case.elements / seconds
            run.results["cases"].append({"case": case.name, "who": who, "seconds": seconds})
            table.rows.append((
                case.name, who, f"{1e6 * seconds:.1f}", f"{1e12 * seconds / case.elements:.2f}",
                f"{rate / 1e9:.0f}", f"{100 * rate / best.copy:.0f} %",
                "" if ours is None or who == "sosie" else f"{seconds / ours:.2f}",
            ))  # fmt: skip
    return table


def _times(run: Run, case: Any) -> dict[str, float]:
    """Seconds per call of everyone who does the case, and whose value is sosie's."""
    import torch

    from benchmarks.gpu.measure import copies_past_caches, seconds_per_call

    if 3 * case.bytes_of_input > torch.cuda.mem_get_info()[0]:
        run.skipped.append(f"{case.name}: not enough device memory")
        return {}
    inputs = case.inputs(copies_past_caches(case.bytes_of_input))
    found: dict[str, float] = {}
    expected: float | None = None
    for who, function in case.contenders().items():
        if run.left() < 10:
            run.skipped.append(f"{who}, {case.name}: no time left")
            continue
        try:
            value = float(function(inputs[0]).detach().double().abs().mean())
            if expected is None:
                expected = value
            elif abs(value - expected) > case.tolerance * max(expected, 1e-3):
                run.skipped.append(f"{who}, {case.name}: another value, {value} not {expected}")
                continue
            found[who] = seconds_per_call(case.timed(function), inputs)
        except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
            report = run.failed if who == "sosie" else run.skipped
            report.append(f"{who}, {case.name}: {str(error).splitlines()[0]}")
            if who == "sosie":
                break
    return found


def _notes(run: Run) -> list[str]:
    lines = []
    for title, items in (("Failed", run.failed), ("Skipped", run.skipped)):
        if items:
            lines += [f"### {title}", "", *(f"- {item}" for item in items), ""]
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
