# SPDX-License-Identifier: Apache-2.0
"""Tests and measurements on a CUDA device, in one command: ``python -m benchmarks.gpu``."""
