# SPDX-License-Identifier: Apache-2.0
"""The process of one contender: ``python -m benchmarks.serve MODULE NAME THREADS``.

Started by `benchmarks.workers.Worker`; imports nothing but NumPy and what the contender needs, so
that a contender may live in another environment than the parent.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import statistics
import sys
import time
import traceback
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.workers import Prepared

__all__ = ["Child"]

#: Before a block of timed calls shorter than this comes an untimed one: whatever ran before on this
#: core has emptied its caches. Longer calls refill them in a small part of their time.
CACHE_MATTERS_BELOW = 0.1


class Child:
    """Answers requests. Every public method is one, and returns plain data.

    A case and a convention are what the contender's ``prepare`` takes, as plain data.
    """

    def __init__(self, contender: Any, threads: int) -> None:
        self._contender = contender
        self._threads = threads
        self._prepared: dict[str, Prepared] = {}
        self._seconds: dict[str, float] = {}
        self._meter: machine.PeakMeter | None = None

    def first(
        self, case: dict[str, Any], convention: dict[str, Any], array_path: str | None = None
    ) -> dict[str, Any]:
        """Prepare a case and call it once: value, seconds, bytes of extra memory.

        The array to check, if there is one, goes to a file.
        """
        key = _key(case, convention)
        prepared = self._contender.prepare(case, convention)
        prepared.before()
        start = time.perf_counter()
        result, extra = machine.extra_memory(prepared.call)
        seconds = time.perf_counter() - start
        self._prepared[key], self._seconds[key] = prepared, seconds
        value = prepared.value(result)
        if array_path is not None and prepared.array is not None:
            np.save(array_path, prepared.array(result))
        return {"value": value, "seconds": seconds, "extra_bytes": extra}

    def sample(
        self, case: dict[str, Any], convention: dict[str, Any], at_least: float, most_calls: int
    ) -> dict[str, Any]:
        """Time calls for some seconds: median and least seconds per call, and their number."""
        key = _key(case, convention)
        prepared = self._prepared[key]
        prepared.before()
        call, clock = prepared.call, time.perf_counter
        if self._seconds[key] < CACHE_MATTERS_BELOW:
            call()
        times: list[float] = []
        total = 0.0
        gc.disable()
        while not times or (total < at_least and len(times) < most_calls):
            start = clock()
            call()
            times.append(clock() - start)
            total += times[-1]
        gc.enable()
        self._seconds[key] = statistics.median(times)
        return {"median": self._seconds[key], "least": min(times), "calls": len(times)}

    def peaks(self) -> dict[str, Any]:
        """What the cores of this process can do at best."""
        if self._meter is None:
            self._meter = machine.PeakMeter(self._threads)
        return self._meter.measure()._asdict()

    def forget(self) -> dict[str, Any]:
        """Drop everything that was prepared."""
        self._prepared.clear()
        self._seconds.clear()
        gc.collect()
        return {}


def _key(case: dict[str, Any], convention: dict[str, Any]) -> str:
    return json.dumps([case, convention])


def _reason(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip().splitlines()[0]


def _serve(module: str, name: str, threads: int) -> None:
    # Libraries print: what they write to standard output goes where errors go.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    machine.pin(threads)  # first of all, as libraries count cores when they are imported
    try:
        contender = importlib.import_module(module).load(name, threads)
    except (ImportError, OSError) as error:
        send({"missing": _reason(error)})
        return
    send({"versions": contender.versions})
    child = Child(contender, threads)
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = getattr(child, arguments.pop("request"))(**arguments)
        except Exception as error:  # whatever a peer raises is an answer
            answer = {"error": _reason(error)}
        send(answer)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
