# SPDX-License-Identifier: Apache-2.0
"""Trains, measures and puts in place the weights that come with sosie.

Run with `python -m benchmarks.weights FOLDER`. The folder holds `kodak`, the 24 photographs that
repair is judged on and never trained on. A training whose folder under `--runs` holds its outcome
is not repeated; one that was interrupted goes on.

Weights are stored as float16 if nothing that is measured then differs by more than a thousandth of
itself, else as they were trained; as float16 all the same if only that is below 2 MB. What is told
of them is measured with what is stored.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import sosie
from sosie.zoo import Weights, create_model, save_model
from sosie.zoo.data import centre_crop, open_collection, to_tensor
from sosie.zoo.data.free_photographs import CREDITS
from sosie.zoo.degradations import parse_degradation
from sosie.zoo.evaluation.generation import evaluate_generation
from sosie.zoo.files import digest, write_json
from sosie.zoo.noise import derived_seed
from sosie.zoo.weights import DataSource

__all__ = ["main"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Measured = dict[str, float]

MANIFEST = Path(__file__).parents[1] / "python" / "sosie" / "zoo" / "pretrained" / "manifest.json"

#: What both repair networks learn, and how.
DAMAGE = "rain_streaks:0.2?,gaussian_noise:0.05?,missing_strokes:0.1?,missing_pixels:0.5?"
REPAIRING = (
    f"--data free-photographs --degradation {DAMAGE} --loss l1:0.9,ssim:0.1 --steps 4500 "
    "--batch 8 --crop 64 --learning-rate 3e-3 --schedule cosine --warm-up 0.03 --clip 1 "
    "--ema 0.995 --mixed-precision bf16"
)
#: What they are judged by.
JUDGED = (
    "rain_streaks:0.2",
    "missing_pixels:0.5",
    "missing_strokes:0.1",
    "gaussian_noise:0.05",
    "rain_streaks:0.2,gaussian_noise:0.05,missing_pixels:0.5",
)
#: Side of the crops from the middle of Kodak's photographs, and seed of their damage.
_CROP, _SEED = 256, 2024
#: Bytes that the tensors of no set of weights may reach.
_LIMIT = 2_000_000
#: Space that generated images are judged in.
_SPACE = "lenet-fashion-v1"

PHOTOGRAPHS = tuple(DataSource(name, *credit) for name, credit in CREDITS.items())
FASHION = (DataSource("Fashion-MNIST, the 60,000 training images", "MIT", "Zalando SE"),)


@dataclass(frozen=True)
class Recipe:
    """How a set of weights is made."""

    model: str
    variant: str
    task: str
    options: str
    data: tuple[DataSource, ...]
    degradation: str = ""

    @property
    def command(self) -> str:
        """What trains them."""
        return f"sosie train {self.model} {self.options}"


RECIPES = (
    Recipe(
        "repair_cnn",
        "photographs",
        "photographs with rain, noise, strokes or pixels missing",
        f"--set width=32 --set depth=10 --set residual=true --set downscale=2 {REPAIRING}",
        PHOTOGRAPHS,
        DAMAGE,
    ),
    Recipe(
        "repair_rcnn",
        "photographs",
        "photographs with rain, noise, strokes or pixels missing",
        "--set width=24 --set stages=4 --set blocks=3 --set downscale=2 "
        f"--set fill=[1.0,4.0,16.0] {REPAIRING}",
        PHOTOGRAPHS,
        DAMAGE,
    ),
    Recipe(
        "gan_dcgan",
        "fashion",
        "images like those of Fashion-MNIST",
        "--data fashion-mnist --set width=64 --set latent=64 --set loss=hinge --steps 10000 "
        "--batch 64 --learning-rate 3e-4 --schedule cosine --ema 0.999 --mixed-precision bf16",
        FASHION,
    ),
    Recipe(
        "vae_mlp",
        "fashion",
        "codes of images like those of Fashion-MNIST, and images of codes",
        "--data fashion-mnist --set hidden=512 --set latent=32 --steps 9380 --schedule cosine "
        "--ema 0.999",
        FASHION,
    ),
)

app = typer.Typer(add_completion=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Where the data is.", exists=True)],
    *,
    runs: Annotated[Path, typer.Option(help="Where the trainings are.")] = Path("runs"),
    only: Annotated[str | None, typer.Option(help="One model alone.")] = None,
) -> None:
    """Train what is not trained yet, measure it, and put it where sosie looks for it."""
    for recipe in RECIPES:
        if only in (None, recipe.model):
            _put_in_place(recipe, runs / f"{recipe.model}-{recipe.variant}", folder)


def _put_in_place(recipe: Recipe, run: Path, folder: Path) -> None:
    seconds = _trained(recipe, run)
    model = create_model(recipe.model, weights=run)
    state, metrics = _smallest(recipe, model, folder)
    if _size(state) >= _LIMIT:
        sys.exit(f"{recipe.model}: expected tensors below {_LIMIT} bytes, got {_size(state)}")
    path = MANIFEST.with_name(f"{recipe.model}-{recipe.variant}.safetensors")
    save_model(model, path, state)
    entry = Weights(
        model=recipe.model,
        variant=recipe.variant,
        task=recipe.task,
        file=path.name,
        sha256=digest(path.read_bytes()),
        licence="Apache-2.0",
        data=recipe.data,
        degradation=recipe.degradation,
        metrics={name: round(value, 4) for name, value in metrics.items()},
        command=recipe.command,
        seconds=round(seconds),
        sosie=sosie.__version__,
    )
    entries = json.loads(MANIFEST.read_text())["weights"]
    others = [each for each in entries if each["file"] != entry.file]
    write_json(MANIFEST, {"weights": [*others, asdict(entry)]})


def _smallest(recipe: Recipe, model: Any, folder: Path) -> tuple[dict[str, torch.Tensor], Measured]:
    """Tensors to store, halved if nothing measured shows it, and what is measured with them."""
    trained = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    halved = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in trained.items()
    }
    full = _measured(recipe, model, folder)
    model.load_state_dict(halved)
    metrics = _measured(recipe, model, folder)
    for name, value in metrics.items():
        print(f"{recipe.model}: {name} {value:.4f} ({full[name]:.4f} in float32)")
    if all(abs(value - full[name]) <= 1e-3 * abs(full[name]) for name, value in metrics.items()):
        return halved, metrics
    if _size(trained) >= _LIMIT:
        print(f"{recipe.model}: stored as float16, which changes what is measured, for its size")
        return halved, metrics
    print(f"{recipe.model}: stored as trained, as float16 changes what is measured")
    model.load_state_dict(trained)
    return trained, full


def _size(state: dict[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def _trained(recipe: Recipe, run: Path) -> float:
    """Seconds that the training took; trains if need be."""
    outcome = run / "outcome.json"
    if not outcome.exists():
        command = [sys.executable, "-m", *recipe.command.split(), "--output", str(run), "--json"]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        outcome.write_text(printed)
    return float(json.loads(outcome.read_text())["seconds"])


def _measured(recipe: Recipe, model: Any, folder: Path) -> Measured:
    if recipe.degradation:
        return repair_metrics(model, _crops(folder / "kodak"))
    images = open_collection("fashion-mnist")
    evaluation = evaluate_generation(model, images, spaces=[_SPACE], parzen=False)
    match = evaluation.matches[0]
    named = {**match.prdc._asdict(), "kernel distance": match.kernel_distance}
    return {f"{name}, {_SPACE}": value for name, value in named.items()}


def _crops(folder: Path) -> list[Pixels]:
    images = open_collection(folder)
    everything = [*images.training, *images.validation]
    return [centre_crop(pixels, (_CROP, _CROP)) for pixels in everything]


def repair_metrics(
    repair: Callable[..., torch.Tensor], crops: Sequence[Pixels], judged: Sequence[str] = JUDGED
) -> Measured:
    """PSNR and SSIM of repaired crops, means over them, for each kind of damage."""
    metrics: Measured = {}
    for damage in judged:
        degradation = parse_degradation(damage)
        values = []
        for index, pixels in enumerate(crops):
            original = to_tensor(pixels, 3)[None]
            generator = torch.Generator().manual_seed(derived_seed(_SEED, index))
            damaged, known = degradation(original, generator=generator)
            with torch.inference_mode():
                repaired = repair(damaged, known).clamp(0.0, 1.0)
            psnr = sosie.psnr(repaired, original, data_range=1.0)
            values.append((float(psnr), float(sosie.ssim(repaired, original, data_range=1.0))))
        psnr, ssim = np.mean(values, axis=0).tolist()
        metrics |= {f"PSNR, {damage}, Kodak": psnr, f"SSIM, {damage}, Kodak": ssim}
    return metrics


if __name__ == "__main__":
    sys.exit(app())
