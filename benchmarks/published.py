# SPDX-License-Identifier: Apache-2.0
"""Published results that the zoo should reach, on data that cannot be shipped.

Denoising of Set12 at sigma 25 by DnCNN's published weights: 30.44 dB (Zhang et al., "Beyond a
Gaussian denoiser", TIP 2017, table III).

Run with `python -m benchmarks.published FOLDER`. The folder holds `denoise/set12`, twelve gray
images, and `weights/dncnn_sigma25.safetensors`: 17 layers, batch normalisation merged into them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from sosie.zoo import create_model
from sosie.zoo.data import open_collection
from sosie.zoo.evaluation import denoising_psnr

__all__ = ["main"]

#: Decibels; the noise of the published run is not known, and twelve images leave so much to chance.
_PUBLISHED, _CHANCE = 30.44, 0.1

app = typer.Typer(add_completion=False)


@app.command()
def main(folder: Annotated[Path, typer.Argument(help="Where the data is.", exists=True)]) -> None:
    """Compare with published results; exit status 1 if one is not reached."""
    weights = folder / "weights" / "dncnn_sigma25.safetensors"
    model = create_model("repair_cnn", weights=weights, channels=1, depth=17, width=64)
    images = open_collection(folder / "denoise" / "set12")
    start = time.perf_counter()
    # Training and judging are no question here: all images count.
    psnr = denoising_psnr(model, [*images.training, *images.validation], deviation=25 / 255)
    seconds = time.perf_counter() - start
    print(f"Set12, sigma 25, DnCNN: {psnr:.2f} dB, published {_PUBLISHED} dB ({seconds:.1f} s)")
    raise typer.Exit(0 if abs(psnr - _PUBLISHED) <= _CHANCE else 1)


if __name__ == "__main__":
    sys.exit(app())
