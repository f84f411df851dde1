# SPDX-License-Identifier: Apache-2.0
"""What a training is to do, and how the learning rate goes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sosie.zoo.model import Model

__all__ = ["Settings", "learning_rate_factor"]

_SCHEDULES = ("constant", "cosine", "step")
_PRECISIONS = ("no", "fp16", "bf16")
#: Where a "step" schedule falls, as shares of the training, and to what part of what it was.
_MILESTONES, _FALL = (0.5, 0.75), 0.1


@dataclass(frozen=True)
class Settings:
    """What a training is to do.

    Attributes
    ----------
    steps : int
        Steps in all, those of an interrupted training included.
    batch : int
        Images in a step, over all processes.
    crop : int
        Side of the crops that repair is learned from, in pixels.
    degradation, loss : str
        For repair: :func:`sosie.zoo.degradations.parse_degradation` and
        :func:`sosie.zoo.losses.parse_loss` read them.
    learning_rate, betas, weight_decay
        Of AdamW, which without weight decay is Adam.
    schedule : {"constant", "cosine", "step"}
        The learning rate stays, falls to 0 along half a cosine, or falls to a tenth after half and
        again after three quarters of the steps.
    warm_up : float
        Share of the steps in which the learning rate rises to its value.
    clip : float or None
        Largest norm of the gradient of a network's weights together.
    ema : float or None
        Decay of a moving average of the weights, which is then what is judged and saved.
    critic_steps : int
        Steps of a discriminator for each of its generator.
    seed : int
        Of everything random in the training.
    deterministic : bool
        Refuse operations that do not give equal results in every run. On the CPU there are hardly
        any.
    mixed_precision : {"no", "fp16", "bf16"}
    workers : int
        Processes that prepare images; 0: none besides the training itself.
    checkpoint_every, validate_every, sample_every : int
        Steps between them; 0: only at the end.
    keep : int
        Checkpoints to keep.
    patience : int or None
        Stop when so many validations in a row brought nothing better.
    """

    steps: int = 2000
    batch: int = 16
    crop: int = 64
    degradation: str = "gaussian_noise:0.1"
    loss: str = "l1:0.16,ssim:0.84"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: str = "constant"
    warm_up: float = 0.0
    clip: float | None = None
    ema: float | None = None
    critic_steps: int = 1
    seed: int = 0
    deterministic: bool = False
    mixed_precision: str = "no"
    workers: int = 0
    checkpoint_every: int = 500
    validate_every: int = 500
    sample_every: int = 500
    keep: int = 2
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop", "critic_steps", "keep"):
            _check(name, getattr(self, name) >= 1, "of at least 1", getattr(self, name))
        for name in ("seed", "workers", "checkpoint_every", "validate_every", "sample_every"):
            _check(name, getattr(self, name) >= 0, "of at least 0", getattr(self, name))
        rate = self.learning_rate
        _check("learning_rate", 0 < rate < math.inf, "above 0", rate)
        _check("warm_up", 0 <= self.warm_up <= 1, "between 0 and 1", self.warm_up)
        _check("clip", self.clip is None or self.clip > 0, "above 0", self.clip)
        _check("ema", self.ema is None or 0 <= self.ema < 1, "from 0 to below 1", self.ema)
        _check("patience", self.patience is None or self.patience >= 1, "above 0", self.patience)
        for name, values in (("schedule", _SCHEDULES), ("mixed_precision", _PRECISIONS)):
            if getattr(self, name) not in values:
                raise ValueError(
                    f"expected a {name} out of {', '.join(values)}, got {getattr(self, name)!r}"
                )

    @classmethod
    def of(cls, model: Model, **given: Any) -> Settings:
        """Settings that suit a model, with some given."""
        return cls(**{**model.training_defaults(), **given})


def learning_rate_factor(settings: Settings, step: int) -> float:
    """What the learning rate is multiplied by in a step, counted from 0.

    Examples
    --------
    >>> settings = Settings(steps=100, schedule="cosine", warm_up=0.1)
    >>> [round(learning_rate_factor(settings, step), 3) for step in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    warm_up = math.ceil(settings.warm_up * settings.steps)
    if step < warm_up:
        return (step + 1) / warm_up
    progress = (step - warm_up) / max(1, settings.steps - warm_up)
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * min(1.0, progress))) / 2
    if settings.schedule == "step":
        return _FALL ** sum(step >= milestone * settings.steps for milestone in _MILESTONES)
    return 1.0


def _check(name: str, is_right: bool, expected: str, value: object) -> None:
    if not is_right:
        raise ValueError(f"expected {name} {expected}, got {value!r}")
