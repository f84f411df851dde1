# SPDX-License-Identifier: Apache-2.0
"""The zoo's models at work: images made, whole photographs repaired, networks exported."""

from __future__ import annotations
