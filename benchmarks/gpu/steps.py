# SPDX-License-Identifier: Apache-2.0
"""What happens before anything is timed: the build, and the checks; and how much time there is."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Run", "build", "check", "device_tests"]

ROOT = Path(__file__).parents[2]
#: Where what is built is installed to: no environment is changed.
SITE = ROOT / "build" / "gpu-site"

#: Seconds that steps may take at most.
_BUILD_SECONDS, _CHECK_SECONDS = 240.0, 200.0
#: What is worth a beginning.
_LEAST_SECONDS = 5.0


class Run:
    """One run: how much time is left, what was skipped, what failed, what was found."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        self.skipped: list[str] = []
        self.failed: list[str] = []
        self.results: dict[str, Any] = {"skipped": self.skipped, "failed": self.failed}

    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def together(self, limit: float, programs: Mapping[str, Sequence[str]]) -> None:
        """Run programs side by side for at most so many seconds."""
        limit = min(limit, self.left())
        if limit < _LEAST_SECONDS:
            self.skipped += [f"{what}: no time left" for what in programs]
            return
        print(f"{', '.join(programs)} ...", flush=True)
        end = time.monotonic() + limit
        started = [_Program(what, words) for what, words in programs.items()]
        for program in started:
            status = program.wait(end - time.monotonic())
            output = program.output()
            print(output, flush=True)
            self.results[program.what] = {"status": status, "output": output}
            if status is None:
                self.failed.append(f"{program.what}: not done after {limit:.0f} s")
            elif status:
                self.failed.append(f"{program.what}: exit status {status}")


class _Program:
    """A program that runs, and all that it starts."""

    def __init__(self, what: str, words: Sequence[str]) -> None:
        self.what = what
        self._log = ROOT / "build" / f"gpu-{what.replace(' ', '-')}.log"
        self._log.parent.mkdir(exist_ok=True)
        with self._log.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    def wait(self, seconds: float) -> int | None:
        """The exit status; None where it had to be ended, with whatever it had started."""
        try:
            return self._process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return None

    def output(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-4000:]


def build(run: Run, architectures: str = "native") -> None:
    """Build the package for this device, and use what was built, here and in what is started."""
    shutil.rmtree(SITE, ignore_errors=True)
    words = [
        sys.executable, "-m", "pip", "install", "--target", str(SITE), "--no-deps",
        "--no-build-isolation", "--no-index", "-C", "build-dir=build/gpu",
        "-C", "cmake.define.SOSIE_CUDA=ON",
        "-C", f"cmake.define.SOSIE_CUDA_ARCHITECTURES={architectures}", ".",
    ]  # fmt: skip
    run.together(_BUILD_SECONDS, {"build": words})
    sys.path.insert(0, str(SITE))
    importlib.invalidate_caches()
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(SITE) if before is None else f"{SITE}{os.pathsep}{before}"


def device_tests() -> list[str]:
    """Files of the tests that run on devices: others would ask for all that they compare with."""
    tests = ROOT / "tests"
    files = [*sorted(tests.glob("test_cuda_*.py")), tests / "test_recurrent.py"]
    return [str(file.relative_to(ROOT)) for file in files]


def check(run: Run) -> None:
    """Tests on the device, and beside them small cases under compute-sanitizer."""
    programs = {
        "tests": [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu",
            *device_tests(),
        ],
    }  # fmt: skip
    if shutil.which("compute-sanitizer") is None:
        run.skipped.append("compute-sanitizer: not installed")
    else:
        for tool in ("memcheck", "racecheck"):
            # Tensors of their own allocation: what lies behind one is nobody else's. Kernels by the
            # namespace in their names. What a framework asks the driver in vain is no error.
            programs[f"compute-sanitizer {tool}"] = [
                "env", "PYTORCH_NO_CUDA_MEMORY_CACHING=1", "compute-sanitizer", "--tool", tool,
                "--kernel-name", "kns=sosie",
                *(["--report-api-errors", "no"] if tool == "memcheck" else []),
                "--error-exitcode", "9", sys.executable, "-m", "benchmarks.gpu.small",
            ]  # fmt: skip
    run.together(_CHECK_SECONDS, programs)
