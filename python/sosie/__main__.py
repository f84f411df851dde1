# SPDX-License-Identifier: Apache-2.0
"""``python -m sosie`` is ``sosie``: for launchers that start Python modules."""

from __future__ import annotations

from sosie.cli import main

main()
