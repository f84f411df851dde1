# SPDX-License-Identifier: Apache-2.0
"""Drop-ins: functions of other libraries, with their names and numbers, computed by sosie.

``sosie.compat.<library>`` holds what sosie computes of that library: change the import and nothing
else, or leave the import and use :data:`sosie.patch`. A drop-in is a convention and a signature;
it has no kernel of its own. What each covers is in its module, and in ``docs/drop-ins.md``.

A module has three tables beside its functions, for :data:`sosie.patch`: ``SEAMS`` says which names
of the library its functions take the place of, ``DISTRIBUTION`` and ``VERSIONS`` say of which
releases this is known.

Importing this package imports none of its modules.
"""

from __future__ import annotations

from sosie.compat._coverage import NotCovered

__all__ = ["NotCovered"]
