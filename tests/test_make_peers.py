# SPDX-License-Identifier: Apache-2.0
"""``make peers``, but for the libraries: what breaks off stops no other, and is told at the end."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

if sys.version_info < (3, 11):
    pytest.skip("make peers needs Python 3.11", allow_module_level=True)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program, installing nothing and working in a folder of the test."""
    path = Path(__file__).parent / "peers" / "run.py"
    spec = importlib.util.spec_from_file_location("run_peers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look for types
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", tmp_path)
    monkeypatch.setattr(module, "fetch_tests", lambda *_: [])
    monkeypatch.setattr(module, "install", lambda peer, _, newest: f"{peer.version}, {newest}")
    return module


def _main(run: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["run.py", "--sosie", "sosie.whl", *arguments])
    return run.main()


def _outcomes(peer: Any, tests: list[str], patch: bool) -> dict[str, Any]:  # noqa: ARG001
    """What comes out as `peers.toml` has it: what is listed fails with sosie, the rest passes."""
    listed = [failure["test"].replace("\\", "") for failure in peer.failures]
    outcomes = {**dict.fromkeys(listed, "failed" if patch else "passed"), "another": "passed"}
    calls = {peer.patch: {"computed": 3, "fallbacks": {"too large": 1}}}
    return {"tests": outcomes, "calls": calls}


def test_what_is_as_listed_succeeds(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_tests", _outcomes)
    assert _main(run, monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "| piq 0.8.0, False | docstrings | 1 of 1 | 1 of 1 | 3 | 1 |" in printed
    assert "| scikit-image 0.26.0, False | source | 2 of 2 | 1 of 2 | 3 | 1 |" in printed
    assert "Not listed" not in printed


def test_what_fails_stops_no_other(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(peer: Any, tests: list[str], patch: bool) -> dict[str, Any]:
        if peer.distribution == "piq":
            raise run.BrokenOff("pytest did not come to its end")
        found = _outcomes(peer, tests, patch)
        if peer.distribution == "kornia" and patch:
            found["tests"]["another"] = "failed"
        if peer.distribution == "scikit-image":
            found["tests"]["test_structural_similarity_image"] = "passed"
        return found

    monkeypatch.setattr(run, "run_tests", broken)
    assert _main(run, monkeypatch, "piq", "kornia", "scikit-image", "scipy") == 1
    printed = capsys.readouterr().out
    assert "| scipy 1.17.1, False | wheel | 1 of 1 | 1 of 1 | 3 | 1 |" in printed
    for surprise in (
        "broke off: pytest did not come to its end",
        "another fails with sosie",
        "test_structural_similarity_image is listed as failing, and does not",
    ):
        assert f"**Not listed:** {surprise}" in printed


def test_newest_and_unknown_libraries(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "run_tests", _outcomes)
    assert _main(run, monkeypatch, "--newest", "piq") == 0
    assert "| piq 0.8.0, True |" in capsys.readouterr().out
    with pytest.raises(SystemExit) as status:
        _main(run, monkeypatch, "numpy")
    assert status.value.code == 2
    assert "expected libraries out of pytorch-msssim, torchmetrics" in capsys.readouterr().err
