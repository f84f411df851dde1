# SPDX-License-Identifier: Apache-2.0
"""Small networks that are trained with sosie's losses and judged by its measures.

`photographs` loads images, `degradations` damages them, `repair_unet` is a network that repairs
them, `training` trains it, `baselines` repairs without training, `demonstration` does all of it.
"""

from __future__ import annotations
