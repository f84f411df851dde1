# SPDX-License-Identifier: Apache-2.0
"""Models by name, and their weights in files.

Weights are one safetensors file; beside it lies a JSON file of the same stem that says which model
they belong to and how it is configured. Nothing is unpickled.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, fields
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

import sosie
from sosie.zoo.files import InvalidFileError, read_json, read_tensors, write_json, write_tensors
from sosie.zoo.model import Model
from sosie.zoo.weights import find_weights, list_weights

__all__ = ["create_model", "list_models", "model_class", "register_model", "save_model"]

#: Each is a module of this package that registers the model of its name when it is imported.
_BUILT_IN = (
    "gan_dcgan",
    "gan_mlp",
    "repair_cnn",
    "repair_rcnn",
    "repair_unet",
    "vae_conv",
    "vae_discrete",
    "vae_mlp",
)
_classes: dict[str, type[Model]] = {}

M = TypeVar("M", bound=type[Model])


def register_model(name: str) -> Callable[[M], M]:
    """Class decorator: make a model known by name.

    Raises
    ------
    ValueError
        Another class has that name.
    """

    def register(cls: M) -> M:
        known = _classes.get(name)
        if known is not None and known.__qualname__ != cls.__qualname__:
            raise ValueError(f"model {name!r} is {known.__qualname__} already")
        cls.name = name
        _classes[name] = cls
        return cls

    return register


def list_models(pattern: str = "*") -> list[str]:
    """Names of all models, or of those that match a shell pattern.

    Examples
    --------
    >>> list_models("vae_*")
    ['vae_conv', 'vae_discrete', 'vae_mlp']
    """
    return sorted(name for name in {*_BUILT_IN, *_classes} if fnmatch(name, pattern))


def model_class(name: str) -> type[Model]:
    """Class of a model.

    Raises
    ------
    ValueError
        There is no such model; the message has the nearest names.
    """
    if name not in _classes:
        if name not in _BUILT_IN:
            names = list_models()
            near = get_close_matches(name, names, n=3, cutoff=0.5)
            advice = f"nearest: {', '.join(near)}" if near else f"there are {', '.join(names)}"
            raise ValueError(f"unknown model {name!r}; {advice}")
        importlib.import_module(f"sosie.zoo.{name}")
    return _classes[name]


def create_model(name: str, *, weights: str | Path | None = None, **config: Any) -> Model:
    """Build a model.

    Parameters
    ----------
    name : str
        One of :func:`list_models`.
    weights : str or path, optional
        "default" or another name of :func:`sosie.zoo.list_weights`: weights that come with sosie.
        Else a safetensors file, or a folder with a ``model.safetensors``: the folder of a training,
        for example. The configuration beside it is used, unless it is given here. Without weights,
        they are random. A path that is spelt like a name is meant if it is a Path, or begins with
        ``./``.
    **config
        Fields of the model's ``Config``.

    Returns
    -------
    Model
        In evaluation mode if it has weights, else in training mode, as torch's modules are.

    Raises
    ------
    ValueError
        No such model, no such field, the weights are those of another model, or not as they were
        shipped, or there are none to be the default.
    OSError
        The file cannot be read, or there is neither file nor weights of that name.

    Examples
    --------
    >>> model = create_model("repair_cnn", depth=3, width=8, channels=1)
    >>> sum(weight.numel() for weight in model.parameters())
    737
    """
    cls = model_class(name)
    if weights is None:
        return cls(_configured(cls, config))
    shipped = find_weights(name, weights) if isinstance(weights, str) else None
    path = _weights_file(name, weights) if shipped is None else shipped.path
    model = cls(_configured(cls, {**_saved_config(name, path), **config}))
    _load(model, read_tensors(path) if shipped is None else shipped.load(), path)
    return model.eval()


def save_model(model: Model, path: Path, tensors: dict[str, Tensor] | None = None) -> None:
    """Write weights, and beside them the configuration, each whole or not at all.

    Parameters
    ----------
    path : Path
        Of the safetensors file.
    tensors : dict, optional
        State to write in place of the model's own.
    """
    write_tensors(path, model.state_dict() if tensors is None else tensors)
    write_json(path.with_suffix(".json"), description(model))


def description(model: Model) -> dict[str, Any]:
    """Which model this is, as plain data."""
    return {"model": model.name, "config": asdict(model.config), "sosie": sosie.__version__}


def _configured(cls: type[Model], config: dict[str, Any]) -> Any:
    names = [field.name for field in fields(cls.Config)]
    unknown = [name for name in config if name not in names]
    if unknown:
        raise ValueError(
            f"{cls.name} has no option {', '.join(map(repr, unknown))}; it has {', '.join(names)}"
        )
    # JSON has lists in place of tuples.
    return cls.Config(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in config.items()
        }
    )


def _weights_file(name: str, weights: str | Path) -> Path:
    path = Path(weights)
    if not path.exists():
        variants = ", ".join(each.variant for each in list_weights(name)) or "none"
        raise FileNotFoundError(
            f"no file, folder or weights of {name} {str(weights)!r}; it comes with weights: "
            f"{variants}"
        )
    return path / "model.safetensors" if path.is_dir() else path


def _saved_config(name: str, path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    if not beside.exists():
        return {}
    saved = read_json(beside)
    if not isinstance(saved, dict) or not {"model", "config"} <= saved.keys():
        raise InvalidFileError(f"{beside} does not describe a model")
    if saved["model"] != name:
        raise ValueError(f"{path} holds weights of {saved['model']}, not of {name}")
    config: dict[str, Any] = saved["config"]
    return config


def _load(model: Model, tensors: dict[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors]
    foreign = [key for key in tensors if key not in expected]
    if missing or foreign:
        parts = [
            f"{len(keys)} {kind} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for kind, keys in (("missing", missing), ("unknown", foreign))
            if keys
        ]
        raise ValueError(
            f"{path} holds weights of another architecture than {model.name} with "
            f"{json.dumps(asdict(model.config))}: tensors {' and '.join(parts)}"
        )
    for key, wanted in expected.items():
        tensor = tensors[key]
        if tensor.shape != wanted.shape:
            raise ValueError(
                f"{path} holds weights of another architecture than {model.name} with "
                f"{json.dumps(asdict(model.config))}: expected {key} of shape "
                f"{tuple(wanted.shape)}, got {tuple(tensor.shape)}"
            )
    model.load_state_dict(tensors)
