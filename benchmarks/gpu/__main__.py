# SPDX-License-Identifier: Apache-2.0
"""Build, test and measure on a CUDA device, within nine minutes.

    python -m benchmarks.gpu --out results/gpu
    python -m benchmarks.gpu --predict              counts and predicted times, without a device

Needs nvcc, torch, CuPy, pytest; no network. Steps: the module is built for this device, tests
marked ``gpu`` run, and beside them small cases under compute-sanitizer, then everything is timed
beside its peers, those last that are compiled first. What there was no time for, and who gave
another value, is listed. Results are written as they come.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu import cases, distance, recurrent, steps
from benchmarks.gpu.costs import prediction
from benchmarks.gpu.measure import copies_past_caches, device_record, peaks, timing
from benchmarks.gpu.steps import Run
from benchmarks.tables import Table

CASES = (*cases.CASES, *distance.CASES, *recurrent.CASES)


def main(arguments: list[str] | None = None) -> int:
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
    given = parser.parse_args(arguments)
    if given.predict:
        for table in (prediction(), distance.predicted_cases()):
            print(table.markdown())
        return 0
    if given.out is None:
        parser.error("expected --out DIR or --predict")
    driver = _driver()
    if driver is None:
        print("no CUDA device was found: nvidia-smi is missing or fails", file=sys.stderr)
        return 1
    run = Run(given.minutes)
    if not given.no_build:
        steps.build(run)
    if not given.no_tests:
        steps.check(run)
    measurement = Measurement(run, driver, given.out)
    for compiled in (False, True):
        for case in CASES:
            measurement.time(case, compiled)
    print(measurement.text())
    return 1 if run.failed else 0


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    words = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return found.stdout.split("\n")[0].strip() if found.returncode == 0 else None


class Measurement:
    """Times of all cases, in a folder as they come."""

    def __init__(self, run: Run, driver: str, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._device, self._peaks = device_record(driver), peaks()
        self._expected: dict[str, float] = {}
        self._seconds: dict[str, dict[str, Any]] = {}
        run.results |= {
            "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
            "device": dataclasses.asdict(self._device),
            "peaks": dataclasses.asdict(self._peaks),
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    def time(self, case: Any, compiled: bool) -> None:
        """Time everyone who does the case, compiled first or not, and whose value is sosie's."""
        import torch

        run = self._run
        torch.manual_seed(0)
        contenders = {
            who: function
            for who, function in case.contenders().items()
            if ("compile" in who) == compiled
        }
        if not contenders or (compiled and case.name not in self._expected):
            return
        # What is compiled takes as long as that before it is timed.
        if run.left() < (45 if compiled else 15):
            run.skipped.append(f"{', '.join(contenders)}, {case.name}: no time left")
            return
        if 3 * case.bytes_of_input > torch.cuda.mem_get_info()[0]:
            run.skipped.append(f"{case.name}: not enough device memory")
            return
        inputs = case.inputs(copies_past_caches(case.bytes_of_input))
        for who, function in contenders.items():
            self._time_one(case, who, function, inputs)
        del inputs
        torch.cuda.empty_cache()
        self._write()

    def _time_one(self, case: Any, who: str, function: Any, inputs: Any) -> None:
        run, is_ours = self._run, who == "sosie"
        if run.left() < 10:
            run.skipped.append(f"{who}, {case.name}: no time left")
            return
        if not is_ours and case.name not in self._expected:
            return  # ours failed
        try:
            value = float(function(inputs[0]).detach().double().abs().mean())
            expected = self._expected.setdefault(case.name, value)
            if not abs(value - expected) <= case.tolerance * max(expected, 1e-3):
                run.skipped.append(f"{who}, {case.name}: another value, {value} not {expected}")
                return
            found = timing(case.timed(function), inputs)
        except Exception as error:  # a peer's may be any
            report = run.failed if is_ours else run.skipped
            lines = str(error).splitlines() or [""]
            report.append(f"{who}, {case.name}: {type(error).__name__}: {lines[0]}")
            return
        self._seconds.setdefault(case.name, {})[who] = found

    def table(self) -> Table:
        """Everything so far."""
        device, best = self._device, self._peaks
        table = Table(
            f"{device.name}, driver {device.driver}, {self._run.results['date']}",
            ("case", "who", "microseconds", "of the host", "ps per element", "GB/s", "of copy",
             "Gop/s", "of multiply-adds", "sosie is faster by"),
            notes=[
                f"measured in this run: copy {best.copy / 1e9:.0f} GB/s, "
                f"{best.fma / 1e12:.1f}e12 multiply-adds/s (float32)",
                "GB/s and Gop/s: least bytes and operations of the task (a multiply-add is one) "
                "over the time; matrix units may do more than multiply-adds at their peak",
                ", ".join(f"{name} {version}" for name, version in device.versions.items()),
            ],
            numbers=False,
        )  # fmt: skip
        for row in self.rows():
            table.rows.append((
                row["case"], row["who"], f"{1e6 * row['seconds']:.1f}",
                f"{1e6 * row['host_seconds']:.0f}", f"{1e12 * row['seconds_per_element']:.2f}",
                f"{row['bytes_per_second'] / 1e9:.0f}",
                f"{100 * row['bytes_per_second'] / best.copy:.0f} %",
                f"{row['operations_per_second'] / 1e9:.0f}",
                f"{100 * row['operations_per_second'] / best.fma:.0f} %",
                "" if row["who"] == "sosie" else f"{row['ratio']:.2f}",
            ))  # fmt: skip
        return table

    def rows(self) -> list[dict[str, Any]]:
        """Everything so far, as plain data."""
        rows = []
        for case in CASES:
            timings = self._seconds.get(case.name, {})
            for who, found in timings.items():
                rate = case.elements / found.device
                rows.append({
                    "case": case.name, "who": who, "seconds": found.device,
                    "host_seconds": found.host, "seconds_per_element": 1.0 / rate,
                    "bytes_per_second": rate * case.bytes,
                    "operations_per_second": rate * case.operations,
                    "ratio": found.device / timings["sosie"].device,
                })  # fmt: skip
        return rows

    def text(self) -> str:
        """The table, and what failed or was skipped."""
        lines = [self.table().markdown()]
        for title, items in (("Failed", self._run.failed), ("Skipped", self._run.skipped)):
            if items:
                lines += [f"### {title}", "", *(f"- {item}" for item in items), ""]
        return "\n".join(lines)

    def _write(self) -> None:
        results = self._run.results | {"cases": self.rows()}
        (self._folder / "gpu.md").write_text(self.text(), encoding="utf-8")
        (self._folder / "gpu.json").write_text(json.dumps(results, indent=2), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
