# SPDX-License-Identifier: Apache-2.0
"""One process per contender, so that libraries share neither threads nor allocator.

The parent holds a :class:`Worker` per process and asks one of them at a time; requests and answers
are lines of JSON. `benchmarks.serve` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from numpy.typing import NDArray

from benchmarks import machine

__all__ = ["Ended", "Missing", "Prepared", "Worker", "WorkerError"]

#: Seconds after which a request counts as failed. Compiling a peer takes up to half a minute.
PATIENCE = 300.0


class Missing(Exception):
    """A contender cannot run here; the message says why."""


class WorkerError(Exception):
    """A contender failed at something; the message says at what."""


class Ended(WorkerError):
    """Its process is no more."""


class Prepared(NamedTuple):
    """A contender, ready to do one case.

    Attributes
    ----------
    call : callable
        What is timed. Takes nothing.
    value : callable
        The number that a result of `call` stands for.
    array : callable or None
        What else is to be checked of a result of `call`, the last one: for a case with gradients,
        the gradients that it left behind.
    before : callable
        Sets the library up for this case; runs before every block of calls.
    """

    call: Callable[[], Any]
    value: Callable[[Any], float]
    array: Callable[[Any], NDArray[Any]] | None = None
    before: Callable[[], Any] = bool


class Worker:
    """A contender in a process of its own.

    Parameters
    ----------
    module, name : str
        Module that knows the contenders, and the contender's name in it. The module's function
        ``load(name, threads)`` imports the library and returns an object with a dict ``versions``
        and a method ``prepare(case, convention) -> Prepared``.
    threads : int
        The process is pinned to as many cores, and its libraries are told to use as many threads.
    allocator : str
        One of `machine.ALLOCATORS`.
    python : str
        Interpreter to run it with.
    """

    def __init__(
        self, module: str, name: str, threads: int, allocator: str, python: str = sys.executable
    ) -> None:
        self.versions: dict[str, str] = {}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, as `close` closes it
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.serve", module, name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=machine.environment(threads, allocator),
            cwd=Path(__file__).parents[1],
            text=True,
        )

    @property
    def alive(self) -> bool:
        """Whether the process can still be asked."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Identifier of the process."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait for the library to be imported.

        Raises
        ------
        Missing
            It cannot be.
        """
        try:
            answer = self._answer()
        except Ended as error:
            raise Missing(str(error)) from None
        if "missing" in answer:
            raise Missing(answer["missing"])
        self.versions = answer["versions"]

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Have the process do something; see `benchmarks.serve.Child` for what it can do.

        Raises
        ------
        WorkerError
            It raised.
        Ended
            It took too long, or ended the process.
        """
        pipe = _open(self._process.stdin)
        with contextlib.suppress(BrokenPipeError):  # the absence of an answer will tell
            pipe.write(json.dumps({"request": request, **arguments}) + "\n")
            pipe.flush()
        answer = self._answer()
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        if self.alive:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                _open(pipe).close()

    def _answer(self) -> dict[str, Any]:
        pipe = _open(self._process.stdout)
        if not select.select([pipe], [], [], PATIENCE)[0]:
            self._process.kill()
            self._process.wait()
            raise Ended(f"no answer for {PATIENCE:.0f} s")
        line = pipe.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().strip().splitlines()[-1:] or ["no message"]
            raise Ended(f"ended with status {status}: {last[0]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _open(pipe: IO[str] | None) -> IO[str]:
    if pipe is None:
        raise Ended("the process was started without pipes")
    return pipe
