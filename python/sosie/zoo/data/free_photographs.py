# SPDX-License-Identifier: Apache-2.0
"""Photographs that anyone may use for anything, if need be with the photographer's name.

Those of scikit-image are in the public domain, as is one of Debian's ``lomiri-wallpapers-16.04``;
the others are under CC BY 4.0. Left out of that package are what is under a licence that asks for
its like, and what is no photograph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sosie.zoo import photographs

__all__ = ["CREDITS", "WALLPAPERS", "load_scaled"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

#: Where Debian's package has the files.
WALLPAPERS = Path("/usr/share/backgrounds")

#: Licence and who made it, by file; the first seven are scikit-image's.
CREDITS: dict[str, tuple[str, str]] = {
    "astronaut.png": ("public domain", "NASA"),
    "brick.png": ("CC0-1.0", "CC0Textures"),
    "camera.png": ("CC0-1.0", "Lav Varshney"),
    "grass.png": ("CC0-1.0", "CC0Textures"),
    "gravel.png": ("CC0-1.0", "CC0Textures"),
    "hubble_deep_field.jpg": ("public domain", "NASA"),
    "rocket.jpg": ("public domain", "SpaceX"),
    "Picture_0B_by_freespace.jpg": ("CC-BY-4.0", 'Trevor "Freespace"'),
    "Picture_1A_by_freespace.jpg": ("CC-BY-4.0", 'Trevor "Freespace"'),
    "Wine_by_Jakkub_Mede.jpg": ("CC-BY-4.0", "Jakub Mede"),
    "aitzgorri_by_Aitzol_Berasategi.jpg": ("CC-BY-4.0", "Aitzol Berasategi"),
    "friends_by_Aitzol_Berasategi.jpg": ("CC-BY-4.0", "Aitzol Berasategi"),
    "life_by_Aitzol_Berasategi.jpg": ("CC-BY-4.0", "Aitzol Berasategi"),
    "picosdeeuropa_by_Aitzol_Berasategi.jpg": ("CC-BY-4.0", "Aitzol Berasategi"),
    "seeding_by_Clements_Engelhardt.jpg": ("CC0-1.0", "Clemens Engelhardt"),
    "sunset_by_Aitzol_Berasategi.jpg": ("CC-BY-4.0", "Aitzol Berasategi"),
}


def load_scaled(name: str) -> list[Pixels]:
    """A photograph at two scales, one half of the other; RGB.

    Wallpapers are of several megapixels, where there is less detail than there are pixels: they
    come at a half and a quarter of their size, others whole and at a half.

    Raises
    ------
    FileNotFoundError
        The package with the wallpapers is not installed.
    """
    if "_by_" not in name:
        pixels = photographs.load_photograph(name)
    else:
        path = WALLPAPERS / name
        if not path.is_file():
            raise FileNotFoundError(
                f"no {path}: Debian's package lomiri-wallpapers-16.04 puts it there"
            )
        with Image.open(path) as image:
            pixels = photographs.halved(np.asarray(image.convert("RGB")))
    return [pixels, photographs.halved(pixels)]
