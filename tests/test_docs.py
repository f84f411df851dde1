# SPDX-License-Identifier: Apache-2.0
"""The documentation names what there is. Its examples run as doctests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sosie

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_readme_lists_every_convention() -> None:
    rows = re.findall(r"^\| `([a-z0-9.-]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows == sosie.list_specs()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = re.compile(r"(?:^|`)make ([a-z-]+)", re.MULTILINE)
    assert {name for page in PAGES for name in called.findall(page.read_text())} <= targets


def test_files_that_are_named_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    missing = [
        name
        for name in re.findall(r"\b((?:sosie|csrc)/[\w/-]+\.\w+)", text)
        if not (ROOT / name).exists() and not (ROOT / "python" / name).exists()
    ]
    assert missing == []
