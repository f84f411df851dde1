# SPDX-License-Identifier: Apache-2.0
"""Published results that the zoo should reach, on data that cannot be shipped.

Denoising of Set12 at sigma 25 by DnCNN's published weights: 30.44 dB (Zhang et al., "Beyond a
Gaussian denoiser", TIP 2017, table III). Bicubic enlargement of Set5: 33.66, 30.39 and 28.42 dB and
an SSIM of .9299, .8682 and .8104 (the usual row of tables on super-resolution, as in Kim, Lee, Lee,
CVPR 2016).

Run with `python -m benchmarks.published FOLDER`. The folder holds `denoise/set12`, twelve gray
images, `weights/dncnn_sigma25.safetensors`, 17 layers, batch normalisation merged into them, and
`superres/set5/x2`, `x3` and `x4`, five images `*_HR.png` each.
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
from sosie.zoo.evaluation.cases import find_cases
from sosie.zoo.evaluation.repair import BICUBIC, RepairProtocol, evaluate_repair

__all__ = ["main"]

#: Decibels; the noise of the published run is not known, and twelve images leave so much to chance.
_PUBLISHED, _CHANCE = 30.44, 0.1
#: Scale to decibels and SSIM, with all the digits that are published.
_BICUBIC = {2: (33.66, 0.9299), 3: (30.39, 0.8682), 4: (28.42, 0.8104)}

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
    reached = abs(psnr - _PUBLISHED) <= _CHANCE
    for scale, published in _BICUBIC.items():
        protocol = RepairProtocol(
            degradation=f"downsample:{scale}", scale=scale, luminance=True, border=scale,
            measures="psnr,ssim",
        )  # fmt: skip
        cases = find_cases(str(folder / "superres" / "set5" / f"x{scale}" / "*_HR.png"))
        found = evaluate_repair(cases, protocol)
        values = round(found.mean(BICUBIC, "psnr"), 2), round(found.mean(BICUBIC, "ssim"), 4)
        print(
            f"Set5, x{scale}, bicubic: {values[0]:.2f} dB, {values[1]:.4f}, published {published}"
        )
        reached = reached and values == published
    raise typer.Exit(0 if reached else 1)


if __name__ == "__main__":
    sys.exit(app())
