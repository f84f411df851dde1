# SPDX-License-Identifier: Apache-2.0
"""``make peers``: the tests that other libraries publish, with sosie in their place.

Each library gets an environment of its own below ``build/peers``, with the version that
``peers.toml`` names. Its tests run twice: as they are, and with its functions replaced by
`sosie.patch`. What passes as it is has to pass with sosie, unless ``peers.toml`` lists it with the
reason. A library whose environment or tests break off is reported, and the next one has its turn.
``build/peers/report.md`` sums up; it is printed, too.

Needs Python 3.11 and, for libraries that publish tests in their source distribution alone, the tool
unearth, which it installs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomllib

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "peers"
#: No library's tests take longer; what does is hanging.
SECONDS = 3600


@dataclass(frozen=True)
class Peer:
    """A library and its tests, as ``peers.toml`` describes it.

    Attributes
    ----------
    distribution, version : str
        What is installed.
    patch : str
        What `sosie.patch` calls it.
    published : str
        Where its tests are: "source", in the source distribution; "wheel"; or "docstrings", for a
        library that publishes none but the examples of its functions.
    tests : list of str
        Files or modules.
    requirements : list of str
        What the tests need that the library does not ask for.
    options : list of str
        For pytest.
    dependencies : bool
        Whether to install what the library asks for.
    prepare : str
        Python code that makes files which the tests expect.
    note : str
        What is not run, and why.
    failures : list of dict
        ``test``, a regular expression of test names, and ``reason``, why sosie is right.
    """

    distribution: str
    version: str
    patch: str
    published: str
    tests: list[str]
    requirements: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    dependencies: bool = True
    prepare: str = ""
    note: str = ""
    failures: list[dict[str, str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where it is installed and run."""
        return BUILD / self.distribution

    @property
    def python(self) -> str:
        """The interpreter of its environment."""
        return str(self.folder / "environment" / "bin" / "python")


def main() -> int:
    """Run what the arguments ask for; 0 if every library's tests came out as listed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("peers", nargs="*", help="libraries, by default all")
    parser.add_argument("--sosie", type=Path, required=True, help="wheel to test")
    parser.add_argument("--newest", action="store_true", help="newest versions, not those listed")
    arguments = parser.parse_args()
    table = tomllib.loads((HERE / "peers.toml").read_text())
    peers = {name: Peer(distribution=name, **row) for name, row in table.items()}
    if unknown := set(arguments.peers) - set(peers):
        parser.error(f"expected libraries out of {', '.join(peers)}, got {', '.join(unknown)}")
    BUILD.mkdir(parents=True, exist_ok=True)
    results = []
    for name in arguments.peers or peers:
        print(f"{name}: ", end="", flush=True)
        results.append(Result.of(peers[name], arguments.sosie.resolve(), arguments.newest))
        print(results[-1].sentence, flush=True)
    summary = report(results)
    (BUILD / "report.md").write_text(summary)
    print(f"\n{summary}\nwrote {BUILD / 'report.md'}")
    return int(any(result.surprises for result in results))


class BrokenOff(Exception):
    """A library's tests could not be run to their end; the message says why."""


@dataclass
class Result:
    """What became of a library's tests."""

    peer: Peer
    version: str
    alone: dict[str, str] = field(default_factory=dict)
    patched: dict[str, str] = field(default_factory=dict)
    calls: dict[str, Any] = field(default_factory=lambda: {"computed": 0, "fallbacks": {}})
    broken_off: str = ""

    @classmethod
    def of(cls, peer: Peer, wheel: Path, newest: bool) -> Result:
        """Install and run, as far as that goes."""
        result = cls(peer, "the newest" if newest else peer.version)
        try:
            result.version = install(peer, wheel, newest)
            tests = fetch_tests(peer, result.version)
            result.alone = run_tests(peer, tests, patch=False)["tests"]
            patched = run_tests(peer, tests, patch=True)
            result.patched, result.calls = patched["tests"], patched["calls"][peer.patch]
        except (BrokenOff, subprocess.SubprocessError, OSError) as error:
            result.broken_off = str(error)
        return result

    @property
    def failing(self) -> list[str]:
        """Tests that pass without sosie, and do not with it."""
        passing = (name for name, outcome in self.alone.items() if outcome == "passed")
        return [name for name in passing if self.patched.get(name) != "passed"]

    @property
    def surprises(self) -> list[str]:
        """What is not as listed."""
        if self.broken_off:
            return [f"broke off: {self.broken_off}"]
        listed = [failure["test"] for failure in self.peer.failures]
        surprises = [
            f"{name} fails with sosie"
            for name in self.failing
            if not any(re.search(pattern, name) for pattern in listed)
        ]
        surprises += [
            f"{pattern} is listed as failing, and does not"
            for pattern in listed
            if not any(re.search(pattern, name) for name in self.failing)
        ]
        if "passed" not in self.alone.values():
            surprises.append("none of its tests passes as it is")
        if not self.calls["computed"]:
            surprises.append("sosie computed nothing")
        return surprises

    @property
    def sentence(self) -> str:
        """For the terminal."""
        return "\n    ".join([f"{self.version}, {self.counts}", *self.surprises])

    @property
    def counts(self) -> str:
        """Tests and calls in numbers."""
        alone, patched = (
            sum(outcome == "passed" for outcome in outcomes.values())
            for outcomes in (self.alone, self.patched)
        )
        fallbacks = sum(self.calls["fallbacks"].values())
        return (
            f"{alone} passed of {len(self.alone)}, with sosie {patched}; "
            f"{self.calls['computed']} calls computed, {fallbacks} fell back"
        )


def install(peer: Peer, wheel: Path, newest: bool) -> str:
    """Make the environment, unless it is there, put the wheel into it; the version installed."""
    if not Path(peer.python).exists():
        subprocess.run([sys.executable, "-m", "venv", peer.folder / "environment"], check=True)
    constraints = BUILD / "constraints.txt"
    pinned = (HERE.parents[1] / "constraints.txt").read_text()
    constraints.write_text("".join(re.findall(r"^torch==.*\n", pinned, flags=re.MULTILINE)))
    library = peer.distribution if newest else f"{peer.distribution}=={peer.version}"
    pip = [peer.python, "-m", "pip", "install", "-qq", "--constraint", constraints]
    upgrade = ["--upgrade"] if newest else []
    run([*pip, *upgrade, "pytest", *peer.requirements])
    run([*pip, *upgrade, *([] if peer.dependencies else ["--no-deps"]), library])
    run([*pip, "--force-reinstall", "--no-deps", wheel])
    code = f"from importlib.metadata import version; print(version({peer.distribution!r}))"
    return run([peer.python, "-c", code]).strip()


def fetch_tests(peer: Peer, version: str) -> list[str]:
    """What pytest is given: modules, or files of the source distribution."""
    if peer.published != "source":
        return ["--pyargs", *peer.tests]
    unearth = BUILD / "unearth"
    if not unearth.exists():
        subprocess.run([sys.executable, "-m", "venv", unearth], check=True)
        run([unearth / "bin" / "python", "-m", "pip", "install", "-qq", "unearth"])
    source = peer.folder / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    release = f"{peer.distribution}=={version}"
    run([unearth / "bin" / "unearth", "--no-binary", "--download", source, release])
    (archive,) = source.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        files.extractall(source, filter="data")
    (root,) = (path for path in source.iterdir() if path.is_dir())
    # Away from the library's own source, which would be imported in place of what is installed.
    shutil.copytree(root / "tests", peer.folder / "tests", dirs_exist_ok=True)
    return peer.tests


def run_tests(peer: Peer, tests: list[str], patch: bool) -> dict[str, Any]:
    """Run a library's tests and return what `patched` noted."""
    name = "patched" if patch else "alone"
    outcomes = peer.folder / f"{name}.json"
    outcomes.unlink(missing_ok=True)
    environment = {name: text for name, text in os.environ.items() if name != "SOSIE_PATCH"}
    environment |= {"PYTHONPATH": str(HERE), "OUTCOMES": str(outcomes)}
    # sosie is a backend of scikit-image too: alone means alone.
    environment |= {"SKIMAGE_NO_DISPATCHING": "1"}
    environment |= {"SOSIE_PATCH": peer.patch} if patch else {}
    if peer.prepare:
        run([peer.python, "-c", peer.prepare], cwd=peer.folder)
    command = [peer.python, "-m", "pytest", "-p", "patched", "-p", "no:cacheprovider", "--quiet"]
    command += ["--rootdir", peer.folder, "-c", os.devnull, "--continue-on-collection-errors"]
    command += ["--import-mode=importlib", *peer.options, *tests]
    with (peer.folder / f"{name}.log").open("w") as log:
        subprocess.run(
            command,
            cwd=peer.folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
    if not outcomes.exists():
        raise BrokenOff(f"pytest did not come to its end; {log.name} says why")
    return json.loads(outcomes.read_text())


def run(command: list[Any], **options: Any) -> str:
    """Run a command that has to succeed; what it printed."""
    finished = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, timeout=SECONDS, **options
    )
    if finished.returncode:
        line = " ".join(map(str, command))
        raise BrokenOff(f"{line} failed with exit status {finished.returncode}")
    return finished.stdout


def report(results: list[Result]) -> str:
    """A table of all libraries, and what fails in each."""
    lines = [
        "| library | tests | passed alone | passed with sosie | calls computed | fell back |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        alone, patched = (
            f"{sum(outcome == 'passed' for outcome in outcomes.values())} of {len(outcomes)}"
            for outcomes in (result.alone, result.patched)
        )
        fallbacks = sum(result.calls["fallbacks"].values())
        lines.append(
            f"| {result.peer.distribution} {result.version} | {result.peer.published} | {alone} "
            f"| {patched} | {result.calls['computed']} | {fallbacks} |"
        )
    for result in results:
        lines += ["", f"{result.peer.distribution}: {result.peer.note}"] if result.peer.note else []
        for failure in result.peer.failures:
            count = sum(bool(re.search(failure["test"], name)) for name in result.failing)
            lines += ["", f"`{failure['test']}` ({count}): {failure['reason']}"]
        lines += ["", *(f"**Not listed:** {line}" for line in result.surprises)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
