# SPDX-License-Identifier: Apache-2.0
"""Tensors and plain data in files: written whole or not at all, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

__all__ = [
    "InvalidFileError",
    "digest",
    "read_json",
    "read_tensors",
    "replacing",
    "write_bytes",
    "write_json",
    "write_tensors",
]


class InvalidFileError(ValueError):
    """A file does not hold what it should: truncated, or of another kind. The message says so."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write to a file so that it holds, even after a loss of power, its old content or the new.

    Raises
    ------
    OSError
        The disk is full, for example; an old file is then as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON, as `write_bytes` does."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as a safetensors file, as `write_bytes` does."""
    write_bytes(path, encoded(tensors))


def encoded(tensors: dict[str, Tensor]) -> bytes:
    """Content of a safetensors file. Tensors may have any strides and share memory."""
    return safetensors.torch.save(
        {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    )


def digest(content: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InvalidFileError
        It is not JSON.
    OSError
        It cannot be read.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InvalidFileError(f"{path} is not JSON, or truncated: {error}") from error


def read_tensors(path: Path, expected_digest: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises
    ------
    InvalidFileError
        It is truncated, or no safetensors file, or not the one that was written.
    OSError
        It cannot be read.
    """
    content = path.read_bytes()
    if expected_digest is not None and digest(content) != expected_digest:
        raise InvalidFileError(f"{path} is not as it was written: its checksum differs")
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise InvalidFileError(f"{path} is truncated or no safetensors file: {error}") from error
