# SPDX-License-Identifier: Apache-2.0
"""Weights that come with sosie: which there are, and where they come from.

`pretrained/manifest.json` describes them all. Each is a safetensors file of this project's own
training beside the configuration that it belongs to. A file whose checksum is not the manifest's is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor

from sosie.zoo.files import read_json, read_tensors

__all__ = ["DEFAULT", "DataSource", "Weights", "find_weights", "list_weights"]

#: Name of the first weights of a model, besides their own.
DEFAULT = "default"

_FOLDER = Path(str(files("sosie.zoo"))) / "pretrained"


@dataclass(frozen=True)
class DataSource:
    """Something that weights were trained on.

    Attributes
    ----------
    name, licence, attribution : str
        What it is, under which licence, and who made it.
    """

    name: str
    licence: str
    attribution: str


@dataclass(frozen=True)
class Weights:
    """One set of weights.

    Attributes
    ----------
    model, variant : str
        The model they are for, and which of its weights they are.
    task : str
        What they do, in a few words.
    file : str
        Of the tensors, in `pretrained`; the configuration is beside it, as JSON.
    sha256 : str
        Of the file.
    licence : str
        Of the weights.
    data : tuple of DataSource
        What they were trained on.
    degradation : str
        For repair: the damage they learned to repair, as
        :func:`sosie.zoo.degradations.parse_degradation` reads it.
    metrics : dict
        Name to value, as measured; the name says on what.
    command : str
        What trained them.
    seconds : float
        How long that took.
    sosie : str
        Version that trained them.
    """

    model: str
    variant: str
    task: str
    file: str
    sha256: str
    licence: str
    data: tuple[DataSource, ...]
    degradation: str
    metrics: dict[str, float]
    command: str
    seconds: float
    sosie: str

    @property
    def path(self) -> Path:
        """Of the file."""
        return _FOLDER / self.file

    def load(self) -> dict[str, Tensor]:
        """Tensors by name.

        Raises
        ------
        InvalidFileError
            The file is not the one that was shipped.
        OSError
            It cannot be read.
        """
        return read_tensors(self.path, self.sha256)


def list_weights(model: str | None = None) -> list[Weights]:
    """All weights that come with sosie, or those of one model; the default one is its first.

    Examples
    --------
    >>> all(weights.path.is_file() for weights in list_weights())
    True
    """
    return [each for each in _manifest() if model in (None, each.model)]


def find_weights(model: str, name: str) -> Weights | None:
    """Weights of a model by name, or None if it has none of that name.

    Parameters
    ----------
    model : str
        One of :func:`sosie.zoo.list_models`.
    name : str
        A variant, or "default".

    Raises
    ------
    ValueError
        The default of a model that comes without weights.
    """
    own = list_weights(model)
    if name != DEFAULT:
        return next((each for each in own if each.variant == name), None)
    if not own:
        others = ", ".join(dict.fromkeys(each.model for each in list_weights())) or "none"
        raise ValueError(f"{model} comes without weights; models with weights: {others}")
    return own[0]


@cache
def _manifest() -> tuple[Weights, ...]:
    names = [field.name for field in fields(Weights)]
    entries: list[dict[str, Any]] = read_json(_FOLDER / "manifest.json")["weights"]
    return tuple(
        Weights(
            **{
                **{name: entry[name] for name in names},
                "data": tuple(DataSource(**source) for source in entry["data"]),
            }
        )
        for entry in entries
    )
