# SPDX-License-Identifier: Apache-2.0
"""Results on paper: plots, CSV and JSON tables, and self-contained HTML pages."""

from __future__ import annotations
