# SPDX-License-Identifier: Apache-2.0
"""Trained models, as commands ask for them, and files that they may not replace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from sosie.cli.terminal import fail, messages
from sosie.comparison.pairs import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from sosie.zoo.model import Model

__all__ = [
    "GENERATORS", "REPAIRERS", "DeviceOption", "JSONOption", "OverwriteOption", "SetOption",
    "WeightsOption", "open_model", "say_failures", "wrote",
]  # fmt: skip

M = TypeVar("M", bound="Model")

#: What there is, as commands say it: to look it up would be to import torch.
GENERATORS = "gan_dcgan, gan_mlp, vae_conv, vae_discrete or vae_mlp"
REPAIRERS = "repair_cnn, repair_rcnn or repair_unet"
WeightsOption = Annotated[
    str,
    typer.Option(
        help="A training's folder, a safetensors file, or a name that sosie weights lists; "
        "default: the model's first."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A field of the model's configuration; may be repeated.",
        show_default=False,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, ...")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
JSONOption = Annotated[
    bool, typer.Option("--json", help="Print the numbers as a JSON object, not as a table.")
]


def open_model(name: str, weights: str, kinds: Sequence[type[M]], device: str = "cpu") -> M:
    """A model with its weights, in evaluation mode; ends the command if there is none.

    Parameters
    ----------
    name, weights : str
        As given on the command line.
    kinds : sequence of type
        What is expected: a model that repairs, for example.
    device : str
        Where it is to compute.
    """
    from sosie.zoo.registry import create_model, list_models, model_class

    try:
        if not issubclass(model_class(name), tuple(kinds)):
            alike = [each for each in list_models() if issubclass(model_class(each), tuple(kinds))]
            fail(f"{name} does something else; expected one of {', '.join(alike)}")
        model = create_model(name, weights=weights)
    except (OSError, ValueError) as error:
        fail(str(error))
    return model.to(_device(device))  # type: ignore[return-value]


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # torch says "not compiled with CUDA" by an AssertionError, and a bad name by a RuntimeError.
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        fail(f"no device {name!r} here: {str(error).splitlines()[0]}")
    return device


def say_failures(failures: Sequence[tuple[str, str]]) -> None:
    """Name what could not be done, with the reason."""
    for name, reason in failures:
        messages.print(
            f"{name}: {reason}", style="red", markup=False, highlight=False, soft_wrap=True
        )


def wrote(path: Path) -> None:
    """Say where the results are."""
    messages.print(f"wrote {printable(path)}", markup=False, highlight=False, soft_wrap=True)
