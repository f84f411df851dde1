# SPDX-License-Identifier: Apache-2.0
"""The ``sosie`` command.

Exit status: 0, all done; 1, something failed and was named; 2, the command was not understood.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

#: What commands import beyond NumPy; the extra "zoo" installs all of it.
_EXTRA = {
    "PIL", "accelerate", "jinja2", "kornia", "markupsafe", "matplotlib", "rich", "safetensors",
    "scipy", "skimage", "sklearn", "tensorboard", "torch", "typer",
}  # fmt: skip


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        from sosie.cli.app import app

        app()
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _EXTRA:
            raise
        sys.exit(
            f"sosie: this command needs {library}, which is not installed: "
            "python -m pip install 'sosie[zoo]'"
        )
