# SPDX-License-Identifier: Apache-2.0
"""What sosie costs beside its time: memory, import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence

from benchmarks.race import Case, Family
from benchmarks.workers import Worker

__all__ = ["imports", "memory"]


def memory(family: Family, case: Case, threads: int) -> int | None:
    """Bytes by which a call of sosie's raises the resident memory of a fresh process at its peak.

    A call with hardly any data first loads what is loaded once. None if it cannot be measured.
    """
    contender = family.contenders["sosie"]
    worker = Worker(family.module, contender.name, threads, "default")
    try:
        worker.wait_until_ready()
        for each in (case.tiny, case):
            convention = contender.convention(each)
            answer = worker.ask("first", case=each.plain, convention=convention)
        extra: int | None = answer["extra_bytes"]
        return extra
    finally:
        worker.close()


def imports(
    statements: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Seconds that each import takes in a fresh interpreter that has NumPy already.

    What is not installed is left out; sosie takes part in all rounds, the others in the first.
    """
    found: dict[str, list[float]] = {statement: [] for statement in statements}
    for number in range(rounds):
        for statement in statements if number == 0 else statements[:1]:
            progress(f"{statement}, round {number + 1} of {rounds}")
            seconds = _import_seconds(statement)
            if seconds is not None:
                found[statement].append(seconds)
    return {statement: seconds for statement, seconds in found.items() if seconds}


def _import_seconds(statement: str) -> float | None:
    code = (
        "import json, time, numpy\n"
        "start = time.perf_counter()\n"
        f"{statement}\n"
        "print(json.dumps(time.perf_counter() - start))"
    )
    with tempfile.TemporaryDirectory() as elsewhere:  # nothing but installed modules on the path
        result = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            cwd=elsewhere,
            env=os.environ,
            check=False,
        )
    if result.returncode != 0:
        return None
    seconds: float = json.loads(result.stdout.splitlines()[-1])
    return seconds
