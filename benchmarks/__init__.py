# SPDX-License-Identifier: Apache-2.0
"""Measurements of sosie beside its peers: one script per family, see README.md."""
