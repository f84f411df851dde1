# SPDX-License-Identifier: Apache-2.0
"""Images as users hold them, and the one shape the executors take: ``(N, C, *spatial)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sosie.arrays import Array, adapter, check_alike, is_torch

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Layout", "check_pair", "default_data_range"]

_INTEGER_RANGES = {"uint8": 255.0, "uint16": 65535.0}


class Layout:
    """How an image's axes map to ``(N, C, *spatial)``. Views only, nothing is copied.

    Parameters
    ----------
    shape : tuple of int
        Shape of the user's array: ``spatial_dims`` axes (one plane), one more (channels), or two
        more (images and channels).
    spatial_dims : {2, 3}
        Spatial axes.
    channel_axis : int or None
        Which axis holds the channels; None: the first but for the images' axis.

    Raises
    ------
    ValueError
        The number of axes fits none of these, an axis is empty, or the channel axis is missing.
    """

    def __init__(self, shape: tuple[int, ...], spatial_dims: int, channel_axis: int | None) -> None:
        if spatial_dims not in (2, 3):
            raise ValueError(f"expected spatial_dims 2 or 3, got {spatial_dims!r}")
        self.shape = shape
        self.spatial_dims = spatial_dims
        self.extra = len(shape) - spatial_dims
        if self.extra not in ((1, 2) if channel_axis is not None else (0, 1, 2)):
            raise ValueError(
                f"expected images of {spatial_dims} spatial axes"
                f"{'' if channel_axis is None else f' and a channel axis at {channel_axis}'}"
                f", with at most one axis for images before them, got shape {shape}"
            )
        if 0 in shape:
            raise ValueError(f"expected images with at least one pixel, got shape {shape}")
        first = self.extra - 1
        self.channel_axis = first if channel_axis is None else _axis(channel_axis, len(shape))
        self.moves = self.extra > 0 and self.channel_axis != first

    def planes(self, image: Array) -> Array:
        """View of shape ``(N, C, *spatial)``."""
        if self.moves:
            axes = list(range(len(self.shape)))
            axes.insert(self.extra - 1, axes.pop(self.channel_axis))
            image = image.permute(axes) if is_torch(image) else image.transpose(axes)
        if self.extra == 2:
            return image
        if is_torch(image):  # one view: indexing with None makes two, and takes three times as long
            return image.expand(*(1,) * (2 - self.extra), *image.shape)
        return image[None, None] if self.extra == 0 else image[None]

    def restore(self, planes: Array) -> Array:
        """View of an ``(N, C, *spatial)`` result in the layout of the user's image."""
        if self.extra < 2:
            planes = planes[0, 0] if self.extra == 0 else planes[0]
        if self.moves:
            axes = list(range(len(self.shape)))
            axes.insert(self.channel_axis, axes.pop(self.extra - 1))
            planes = planes.permute(axes) if is_torch(planes) else planes.transpose(axes)
        return planes

    def mask(self, mask: Array, image: Array) -> Array:
        """View of a mask that broadcasts to ``(N, C, *spatial)``.

        A mask of ``spatial_dims`` axes serves all planes; any other must broadcast to the image.
        """
        library = adapter(image)
        if adapter(mask) is not library:
            raise TypeError(
                f"expected a mask of the images' library, got {type(mask)} beside {type(image)}"
            )
        if library.dtype(mask) != "bool":
            raise TypeError(f"expected a boolean mask, got dtype {mask.dtype}")
        shape = tuple(mask.shape)
        if len(shape) == self.spatial_dims:
            view = mask[None, None]
            if shape != self.spatial(image):
                raise ValueError(f"expected a mask of shape {self.spatial(image)}, got {shape}")
            return view
        if len(shape) != len(self.shape) or any(
            size not in (1, full) for size, full in zip(shape, self.shape, strict=True)
        ):
            raise ValueError(
                f"expected a mask that broadcasts to the images' shape {self.shape}, got {shape}"
            )
        return self.planes(mask)

    def spatial(self, image: Array) -> tuple[int, ...]:
        """Spatial shape of an image in the user's layout."""
        return tuple(self.planes(image).shape[2:])


def _axis(axis: int, count: int) -> int:
    if not -count <= axis < count:
        raise ValueError(f"expected a channel axis of {count} axes, got {axis}")
    return axis % count


def check_pair(x: Array, y: Array) -> None:
    """Raise unless two images can be compared: one library, shape, dtype and device.

    Raises
    ------
    TypeError
        Libraries or dtypes differ, or the dtype is none that is computed with.
    ValueError
        Shapes or devices differ.
    """
    check_alike(x, y)
    if x.shape != y.shape:
        raise ValueError(
            f"expected x and y of equal shape, got {tuple(x.shape)} and {tuple(y.shape)}"
        )


def default_data_range(x: Array) -> float | None:
    """Range of an integer dtype; None for floating-point images, whose range nobody can know."""
    return _INTEGER_RANGES.get(adapter(x).dtype(x))


def per_plane(reduction: str) -> Callable[[Any], Any]:
    """Function that reduces values ``(N, C)`` as ``reduction`` says.

    Raises
    ------
    ValueError
        The reduction is unknown.
    """
    try:
        return _REDUCTIONS[reduction]
    except (KeyError, TypeError):
        raise ValueError(
            f"expected a reduction out of {', '.join(map(repr, _REDUCTIONS))}, got {reduction!r}"
        ) from None


def _mean(values: Any) -> Any:
    # One plane is the common case, and a mean of one number takes microseconds.
    if values.shape != (1, 1):
        return values.mean()
    return values.reshape(()) if is_torch(values) else values[0, 0]


_REDUCTIONS: dict[str, Callable[[Any], Any]] = {
    "mean": _mean,
    "sum": lambda values: values.mean(1).sum(),
    "none": lambda values: values.mean(1),
    "channel": lambda values: values,
}
