# SPDX-License-Identifier: Apache-2.0
"""Self-contained HTML pages: one file, no network, light and dark."""

from __future__ import annotations

import base64
import os
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["data_uri", "render", "write_atomically"]


def render(template: str, **context: Any) -> str:
    """Fill in a template of ``sosie/report/templates``. Values are escaped.

    Parameters
    ----------
    template : str
        File name, for example "comparison.html.j2".
    **context
        What the template shows. `markupsafe.Markup` is put in as it is.

    Examples
    --------
    >>> page = render("page.html.j2", title="a < b", version="1.0")
    >>> "a &lt; b" in page, "http://" in page
    (True, False)
    """
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sosie.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["svg"] = Markup
    return environment


def data_uri(content: bytes) -> str:
    """PNG or JPEG file as the address of an inline image.

    Examples
    --------
    >>> data_uri(b"\\x89PNG")
    'data:image/png;base64,iVBORw=='
    """
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def write_atomically(path: Path, text: str) -> None:
    """Write a text file whole or not at all; its folder is made if need be.

    Readers see the old file or the new one. What is no regular file, ``/dev/stdout`` for example,
    is written to directly.

    Raises
    ------
    OSError
        The folder cannot be made, or the file not written; an old file is then as it was.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", newline="")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
