# SPDX-License-Identifier: Apache-2.0
"""pytest plugin for tests of other libraries: patches what ``SOSIE_PATCH`` names, and takes notes.

Runs in an environment where nothing but the library, its requirements and sosie are installed. What
became of each test, and what `sosie.patch.report` says, go to the file that ``OUTCOMES`` names.
"""

from __future__ import annotations

import json
import os
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sosie

_peers = [name for name in os.environ.get("SOSIE_PATCH", "").split(",") if name]
if _peers:  # before any test module is imported
    sosie.patch.install(*_peers)

_outcomes: dict[str, str] = {}


class Script(pytest.Item):
    """A test that its library publishes as a program: it passes unless it raises."""

    def runtest(self) -> None:
        """Run it, with arrays and files as in its own folder."""
        runpy.run_path(str(self.path), run_name="__main__")


class ScriptFile(pytest.File):
    """A file that is one test."""

    def collect(self) -> Iterator[Script]:
        """The program itself."""
        yield Script.from_parent(self, name="script")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that says that what is collected are programs."""
    parser.addoption("--scripts", action="store_true", help="Files are programs.")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScriptFile | None:
    """A program as a test."""
    if parent.config.getoption("--scripts") and file_path.suffix == ".py":
        return ScriptFile.from_parent(parent, path=file_path)
    return None


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test has passed if none of its phases did anything else."""
    if report.outcome != "passed" or report.nodeid not in _outcomes:
        _outcomes[report.nodeid] = report.outcome


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported counts as a test that failed."""
    if report.failed:
        _outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish() -> None:
    """Leave the notes."""
    calls: dict[str, Any] = {
        name: {"computed": peer.computed, "fallbacks": peer.fallbacks}
        for name, peer in sosie.patch.report().items()
    }
    Path(os.environ["OUTCOMES"]).write_text(json.dumps({"tests": _outcomes, "calls": calls}))
