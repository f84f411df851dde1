# SPDX-License-Identifier: Apache-2.0
"""The zoo's models at work: tiles, generated images, files with what belongs to them, exports."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torch import Tensor, nn

from sosie.comparison.files import UnreadableImageError, read_picture
from sosie.zoo import (
    create_model,
    export_model,
    generate_images,
    interpolate_images,
    repair_image,
)
from sosie.zoo.inference.export import parts_of
from sosie.zoo.inference.photo_files import read_mask, read_photo
from sosie.zoo.inference.png import PNGWriter
from sosie.zoo.inference.reduction import Reduction
from sosie.zoo.inference.repair import repair_bands
from sosie.zoo.inference.tiling import spans
from sosie.zoo.model import RepairModel
from sosie.zoo.noise import ImageNoise

pytestmark = pytest.mark.usefixtures("one_thread")

Pixels = np.ndarray[Any, np.dtype[Any]]

#: Models that repair, as small as they come, and a side of tiles that their reach is far below.
REPAIR: dict[str, tuple[str, dict[str, Any], int]] = {
    "cnn": ("repair_cnn", {"depth": 4, "width": 6}, 40),
    "cnn-norm": ("repair_cnn", {"depth": 3, "width": 6, "batch_norm": True}, 40),
    "cnn-folded": ("repair_cnn", {"depth": 3, "width": 6, "downscale": 2}, 40),
    "cnn-residual": ("repair_cnn", {"depth": 4, "width": 6, "residual": True}, 40),
    "rcnn": ("repair_rcnn", {"width": 4, "stages": 2, "blocks": 1}, 64),
    "rcnn-fill": (
        "repair_rcnn",
        {"width": 4, "stages": 2, "blocks": 1, "downscale": 2, "fill": (1.0, 2.0)},
        120,
    ),
    "unet": ("repair_unet", {"widths": (4, 6, 8), "keep_known": False}, 240),
    "unet-partial": (
        "repair_unet",
        {"widths": (4, 6, 8), "convolution": "partial", "keep_known": False},
        240,
    ),
}
every_repair = pytest.mark.parametrize("case", REPAIR)


def repairer(case: str, **more: Any) -> Any:
    """A model whose every weight counts: as built, the last layer does next to nothing."""
    torch.manual_seed(0)
    name, config, _ = REPAIR[case]
    model: Any = create_model(name, **config, **more)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_normal_(layer.weight)
    return model.eval()


def photo(shape: tuple[int, ...], dtype: Any = np.uint8, seed: int = 0) -> Pixels:
    unit = np.random.default_rng(seed).random(shape)
    if np.issubdtype(dtype, np.floating):
        return unit.astype(dtype)
    return np.rint(unit * np.iinfo(dtype).max).astype(dtype)


# -------------------------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("size", [1, 47, 48, 49, 95, 131, 400])
@pytest.mark.parametrize(
    ("tile", "overlap", "reach", "alignment"),
    [(48, 16, 4, 1), (48, 24, 12, 8), (48, 0, 0, 1), (48, 20, None, 8), (40, 10, 30, 1)],
)
def test_tiles_add_up_and_leave_out_what_they_cannot_know(
    size: int, tile: int, overlap: int, reach: int | None, alignment: int
) -> None:
    found = spans(size, tile, overlap, reach, alignment)
    total = sum(np.pad(span.weights, (span.start, size - span.stop)) for span in found)
    np.testing.assert_allclose(total, 1.0, atol=1e-6)  # a sum of two roundings of float32
    assert found[0].start == 0
    assert found[-1].stop == size
    unused = reach if reach is not None and overlap >= 2 * reach else overlap // 4
    for span in found:
        assert span.start % alignment == 0
        assert span.stop - span.start <= tile
        used = np.flatnonzero(span.weights) + span.start
        assert span.start == 0 or used[0] >= span.start + unused
        assert span.stop == size or used[-1] < span.stop - unused


@every_repair
def test_tiles_do_not_show_where_they_overlap_by_the_reach(case: str) -> None:
    model, tile = repairer(case), REPAIR[case][2]
    image = photo((tile + 61, 2 * tile + 1, 3), np.float32)
    mask = photo(image.shape[:2], np.float64, 1) < 0.3
    whole = repair_image(model, image, mask, tile=1024)
    overlap = min(tile // 2, 2 * model.reach)
    assert overlap >= 2 * model.reach
    tiled = repair_image(model, image, mask, tile=tile, overlap=overlap, batch=3)
    assert whole.std() > 0.1  # not clipped to nothing
    # Roundings of float32, in sums of another order for another size.
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    # With none at all they do: the numbers above are not equal by chance.
    apart = repair_image(model, image, mask, tile=tile, overlap=0)
    assert np.abs(apart - whole).max() > 1e-3


@every_repair
def test_reach_is_as_far_as_a_pixel_is_felt(case: str) -> None:
    model = repairer(case)
    side = 2 * (model.reach + 2 * model.alignment) + 1
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, side, side, generator=generator)
    known = (torch.rand(1, 1, side, side, generator=generator) < 0.7).float()
    # The first and the last row of a cell see different ways.
    centres = [side // 2 // 8 * 8 + offset for offset in (0, 1, 7)]
    farthest = 0
    for centre in centres:
        damaged = (image * known).requires_grad_()
        # With rectifiers at work some ways are shut; signs of the gradient do not matter here.
        model(damaged, known)[..., centre, centre].sum().backward()
        assert damaged.grad is not None
        rows = damaged.grad.abs().sum((0, 1, 3)).nonzero().flatten()
        farthest = max(farthest, int((rows - centre).abs().max()))
    assert farthest <= model.reach
    # Not far less either: tiles would overlap for nothing.
    assert farthest >= 0.6 * model.reach


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (5, 9), (7, 8, 3), (300, 2, 4)])
def test_images_smaller_than_a_tile_or_than_the_network_takes(shape: tuple[int, ...]) -> None:
    model = repairer("unet")
    image = photo(shape)
    repaired = repair_image(model, image, tile=64)
    assert repaired.shape == shape
    assert repaired.dtype == np.uint8
    if max(shape[:2]) < model.least_side:
        colours = image[..., None] if image.ndim == 2 else image[..., :3]
        least = model.least_side
        border = [(0, max(0, least - side)) for side in shape[:2]]
        padded = np.pad(colours, (*border, (0, 0)), mode="reflect").repeat(3 // colours.shape[2], 2)
        with torch.no_grad():
            tensor = torch.from_numpy(padded).permute(2, 0, 1)[None] / 255
            expected = model(tensor)[0, :, : shape[0], : shape[1]].clamp(0, 1)
        expected = expected.mean(0, keepdim=True) if image.ndim == 2 else expected
        levels = 255 * expected.permute(1, 2, 0).numpy()
        # A level apart where rounding goes the other way.
        np.testing.assert_allclose(
            repaired.reshape(*shape[:2], -1)[..., : levels.shape[2]], levels, atol=0.51
        )


def direct(model: Any, planes: Pixels) -> Pixels:
    """Planes (N, C, H, W) in [0, 1] by the model itself."""
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(planes.astype(np.float32))).clamp(0, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize(("channels", "model_channels"), [(0, 3), (1, 1), (2, 3), (3, 1), (4, 3)])
def test_channels_and_depths(dtype: Any, channels: int, model_channels: int) -> None:
    model = repairer("cnn", channels=model_channels)
    image = photo((21, 33, channels) if channels else (21, 33), dtype)
    repaired = repair_image(model, image)
    assert repaired.dtype == image.dtype
    assert repaired.shape == image.shape
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1.0
    colours = 3 if channels > 2 else 1
    planes = image.reshape(21, 33, -1)[..., :colours].transpose(2, 0, 1)[None] / top
    if model_channels == 1:
        expected = direct(model, planes.transpose(1, 0, 2, 3))[:, 0]
    else:
        expected = direct(model, planes.repeat(3 // colours, 1))[0]
        expected = expected if colours == 3 else expected.mean(0, keepdims=True)
    # Half a level, and of 65535 roundings of float32 besides.
    tolerance = {np.uint8: 0.51, np.uint16: 0.6}.get(dtype, 1e-6)
    found = repaired.reshape(21, 33, -1)
    np.testing.assert_allclose(
        found[..., :colours].astype(float), top * expected.transpose(1, 2, 0), atol=tolerance
    )
    if channels in (2, 4):
        np.testing.assert_array_equal(found[..., -1], image[..., -1])


def test_what_a_missing_pixel_holds_does_not_matter() -> None:
    model = repairer("rcnn")
    image, mask = photo((40, 50, 3)), photo((40, 50), np.float64, 1) < 0.4
    other = image.copy()
    other[mask] = 255 - other[mask]
    np.testing.assert_array_equal(
        repair_image(model, image, mask), repair_image(model, other, mask)
    )
    assert (repair_image(model, image) != repair_image(model, other)).any()


@pytest.mark.parametrize("channels", [None, 3, 4])
def test_known_pixels_are_kept_where_that_is_asked_for(channels: int | None) -> None:
    model = repairer("rcnn")
    size = (70, 50)
    image = photo(size if channels is None else (*size, channels))
    mask = photo(size, np.float64, 1) < 0.4
    redrawn = repair_image(model, image, mask, tile=32)
    kept = repair_image(model, image, mask, tile=32, keep_known=True)
    np.testing.assert_array_equal(kept[~mask], image[~mask])
    np.testing.assert_array_equal(kept[mask], redrawn[mask])
    assert (redrawn[~mask] != image[~mask]).any()


def test_a_model_in_training_is_used_as_trained_and_stays_in_training() -> None:
    model = repairer("cnn-norm").train()
    image = photo((40, 50, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    repaired = repair_image(model, image)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    np.testing.assert_array_equal(repaired, repair_image(model.eval(), image))


GRAY = np.zeros((4, 4), np.uint8)
REFUSED: list[tuple[Pixels, Any, dict[str, int], type[Exception], str]] = [
    (GRAY.astype(np.int16), None, {}, TypeError, "uint8.*got int16"),
    (np.zeros((4, 4, 5), np.uint8), None, {}, ValueError, r"C from 1 to 4, got .*\(4, 4, 5\)"),
    (GRAY[:0], None, {}, ValueError, "at least one pixel"),
    (GRAY, np.zeros((4, 5), bool), {}, ValueError, r"mask of shape \(4, 4\), got \(4, 5\)"),
    (GRAY, np.zeros((4, 4)), {}, TypeError, "boolean mask, got dtype float64"),
    (GRAY, None, {"tile": 4}, ValueError, "8 pixels or more, got 4"),
    (GRAY, None, {"overlap": 129}, ValueError, "half a tile, 128, got 129"),
    (GRAY, None, {"batch": 0}, ValueError, "batch of 1 tile or more, got 0"),
    (GRAY, None, {"keep_known": True}, ValueError, "mask that says which pixels are known"),
]


@pytest.mark.parametrize(("image", "mask", "options", "error", "sentence"), REFUSED)
def test_what_is_refused(
    image: Pixels, mask: Any, options: dict[str, int], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        repair_image(repairer("cnn"), image, mask, **options)


# --------------------------------------------------------------------------------------- generation

GENERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "gan_mlp": ("gan_mlp", {"hidden": 32, "latent": 8}),
    "gan_dcgan": ("gan_dcgan", {"width": 8, "latent": 8}),
    "vae_mlp": ("vae_mlp", {"hidden": 32, "latent": 8}),
    "vae_conv": ("vae_conv", {"width": 8, "latent": 8}),
    "vae_discrete": ("vae_discrete", {"width": 8, "codes": 16, "dimensions": 8}),
}


def generator(case: str) -> Any:
    """A model whose images differ: as built, those of ``gan_dcgan`` are all gray."""
    torch.manual_seed(0)
    name, config = GENERATORS[case]
    model: Any = create_model(name, **config)
    for layer in model.modules():
        if isinstance(layer, nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_normal_(layer.weight)
    return model


@pytest.mark.parametrize("case", GENERATORS)
def test_an_image_depends_on_its_seed_and_number_alone(case: str) -> None:
    model = generator(case)
    many = generate_images(model, 37, seed=5)
    assert many.shape == (37, 28, 28, 1)
    for count in (1, 16, 17):
        np.testing.assert_array_equal(generate_images(model, count, seed=5), many[:count])
    assert (generate_images(model, 37, seed=6) != many).any()
    assert len(np.unique(many.reshape(37, -1), axis=0)) == 37
    # What `sample` makes of the same numbers, one image at a time.
    with torch.no_grad():
        alone = model.eval().sample(1, ImageNoise(5, range(20, 21)))
    # Sums in another order: a level apart where rounding goes the other way.
    assert np.abs(255 * alone.numpy()[0, 0] - many[20, ..., 0]).max() < 0.51


def test_ways_start_and_end_at_images_of_the_seed() -> None:
    model = generator("gan_mlp")
    ways = interpolate_images(model, 2, 9, seed=3)
    images = generate_images(model, 4, seed=3)
    for way, (start, end) in zip(ways, (images[:2], images[2:]), strict=True):
        for found, expected in ((way[0], start), (way[-1], end)):
            assert np.abs(found.astype(int) - expected).max() <= 1  # codes are rounded once more
    # Half the way round an arc, not along the chord.
    start, end = ImageNoise(3, range(2)).normal(2, 8)
    angle = torch.arccos(torch.nn.functional.cosine_similarity(start, end, dim=0))
    middle = (start + end) * torch.sin(angle / 2) / torch.sin(angle)
    with torch.no_grad():
        expected = (255 * model.eval()(middle[None])[0, 0]).round().numpy()
    assert np.abs(ways[0, 4, ..., 0] - expected).max() <= 1


def test_what_generates_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="generates images, got repair_cnn"):
        generate_images(repairer("cnn"), 3)
    with pytest.raises(ValueError, match="count of 1 image or more, got 0"):
        generate_images(generator("gan_mlp"), 0)
    with pytest.raises(ValueError, match="vectors of normal numbers, got vae_discrete"):
        interpolate_images(generator("vae_discrete"), 1, 3)
    with pytest.raises(ValueError, match="2 steps or more, got 1 of 1"):
        interpolate_images(generator("gan_mlp"), 1, 1)


# ------------------------------------------------------------------------------------ files written


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_png_files_hold_what_was_written(tmp_path: Path, dtype: Any, channels: int) -> None:
    shape = (37, 23, channels) if channels else (37, 23)
    # Smooth and noisy rows, so that all filters are used.
    pixels = np.cumsum(photo(shape, dtype) // 40, axis=0, dtype=dtype)
    pixels[20:] = photo(shape, dtype, 1)[20:]
    path = tmp_path / "x.png"
    with path.open("wb") as file:
        writer = PNGWriter(file, shape, dtype, dpi=(300, 150))
        for top in range(0, 37, 10):
            writer.write(pixels[top : top + 10])
        writer.close()
    read = read_picture(path)
    np.testing.assert_array_equal(read.pixels, pixels[..., 0] if channels == 1 else pixels)
    with Image.open(path) as image:
        image.verify()
        assert image.info["dpi"] == pytest.approx((300, 150), abs=0.02)  # whole pixels per metre


def test_png_files_are_nearly_as_small_as_pillow_s() -> None:
    smooth = np.cumsum(np.cumsum(photo((200, 300), np.float64) - 0.5, 0), 1)
    pixels = np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    ours, theirs = io.BytesIO(), io.BytesIO()
    writer = PNGWriter(ours, pixels.shape, pixels.dtype)
    writer.write(pixels)
    writer.close()
    Image.fromarray(pixels).save(theirs, "PNG")
    assert len(ours.getvalue()) < 1.1 * len(theirs.getvalue())


def test_reduced_pictures_are_means_over_boxes() -> None:
    pixels = photo((25, 31, 3), np.uint16)
    reduction = Reduction(pixels.shape, 8)
    for rows in np.split(pixels, (1, 7, 18)):
        reduction.add(rows)
    # Boxes of 4 x 4; the last row and the last three columns fill none.
    boxes = pixels[:24, :28].reshape(6, 4, 7, 4, 3).mean((1, 3))
    np.testing.assert_allclose(reduction.picture(), boxes / 257, atol=0.501)
    small = Reduction((3, 4), 8)
    small.add(pixels[:3, :4, 0])
    np.testing.assert_allclose(small.picture(), pixels[:3, :4, 0] / 257, atol=0.501)


# --------------------------------------------------------------------------------------- files read


def test_photographs_come_upright_with_what_belongs_to_them(tmp_path: Path) -> None:
    pixels = photo((16, 24, 3))
    image = Image.fromarray(pixels)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A maker"  # a quarter turn clockwise is needed
    image.save(tmp_path / "x.png", exif=exif, icc_profile=profile, dpi=(200, 200))
    read = read_photo(tmp_path / "x.png", 10**6)
    np.testing.assert_array_equal(read.pixels, np.rot90(pixels, -1))
    assert read.belongings["icc_profile"] == profile
    assert read.belongings["dpi"] == pytest.approx((200, 200), abs=0.01)
    file = io.BytesIO()
    writer = PNGWriter(file, read.pixels.shape, read.pixels.dtype, **read.belongings)
    writer.write(read.pixels)
    writer.close()
    with Image.open(file) as written:
        written.load()
        found = written.getexif()
        assert found[0x010F] == "A maker"
        assert 0x0112 not in found  # it is upright now
        assert written.info["icc_profile"] == profile


def save_cmyk(path: Path, pixels: Pixels) -> None:
    Image.fromarray(pixels).convert("CMYK").save(path, "TIFF")


KINDS: dict[str, tuple[Callable[[Path, Pixels], Any], str, str]] = {
    "palette": (
        lambda path, pixels: Image.fromarray(pixels).quantize(16).save(path, "PNG"),
        "8-bit RGB", "palette, written with 8 bits for each channel",
    ),
    "bilevel": (
        lambda path, pixels: Image.fromarray(pixels).convert("1").save(path, "PNG"),
        "8-bit gray", "bilevel",
    ),
    "CMYK": (save_cmyk, "8-bit RGB", "CMYK, written as RGB"),
    "transparent colour": (
        lambda path, pixels: Image.fromarray(pixels).save(path, "PNG", transparency=(0, 0, 0)),
        "8-bit RGB with alpha", "a transparent colour, written as alpha",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_converted_is_said(kind: str, tmp_path: Path) -> None:
    save, expected, note = KINDS[kind]
    pixels = photo((16, 24, 3)) // 16 * 16
    pixels[:4] = 0
    save(tmp_path / "x", pixels)
    read = read_photo(tmp_path / "x", 10**6)
    assert read.kind == expected
    assert note in read.notes[0]
    with Image.open(tmp_path / "x") as image:
        mode = {"8-bit RGB": "RGB", "8-bit gray": "L"}.get(expected, "RGBA")
        np.testing.assert_array_equal(read.pixels, np.asarray(image.convert(mode)))


def claims(width: int, height: int) -> bytes:
    """A PNG file that says it is large, and holds next to nothing."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def test_photographs_that_are_refused(tmp_path: Path) -> None:
    pixels = photo((16, 24, 3))
    image = Image.fromarray(pixels)
    (tmp_path / "text").write_text("no image")
    image.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:300])
    other = Image.fromarray(255 - pixels)
    image.save(tmp_path / "moving.gif", save_all=True, append_images=[other])
    Image.fromarray(pixels[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    image.convert("LAB").save(tmp_path / "lab.tif")
    (tmp_path / "bomb.png").write_bytes(claims(60_000, 50_000))
    for name, sentence in (
        ("text", "no image that Pillow can read"),
        ("cut.png", "truncated"),
        ("moving.gif", "expected one frame, found 2"),
        ("float.tif", "expected 8 or 16 bits, found floating point"),
        ("lab.tif", "found LAB"),
        ("bomb.png", "60000 x 50000 are 3000 megapixels, more than the limit of 500"),
        ("nowhere.png", "No such file"),
    ):
        with pytest.raises(UnreadableImageError, match=sentence):
            read_photo(tmp_path / name, 500_000_000)
    assert Image.MAX_IMAGE_PIXELS is not None  # Pillow's own limit is back


def test_masks(tmp_path: Path) -> None:
    levels = photo((16, 24))
    for name, image in (
        ("gray.png", Image.fromarray(levels)),
        ("colour.png", Image.fromarray(np.dstack([levels] * 3))),
        ("deep.png", Image.fromarray(levels.astype(np.uint16) * 257)),
    ):
        image.save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name, (16, 24)), levels >= 128)
    Image.fromarray(levels >= 128).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png", (16, 24)), levels >= 128)
    for shape in ((24, 16), (17, 24)):
        sentence = f"the mask has 24 x 16 pixels, the image {shape[1]} x {shape[0]}"
        with pytest.raises(UnreadableImageError, match=sentence):
            read_mask(tmp_path / "gray.png", shape)


# ------------------------------------------------------------------------------------------ exports

EXPORTED = [
    ("gan_dcgan", {"width": 4, "latent": 8, "loss": "hinge"}, "discriminator"),
    ("vae_mlp", {"hidden": 16, "latent": 4}, "encoder"),
    ("vae_discrete", {"width": 8, "codes": 16, "dimensions": 8}, "encoder"),
    ("repair_cnn", {"depth": 3, "width": 4, "downscale": 2}, "repair"),
    (
        "repair_rcnn",
        {"width": 4, "stages": 2, "blocks": 1, "downscale": 2, "fill": (1.0,)},
        "repair",
    ),
]


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
@pytest.mark.parametrize(("name", "config", "part"), EXPORTED, ids=[each[0] for each in EXPORTED])
def test_exports_compute_what_the_model_does(
    name: str, config: dict[str, Any], part: str, suffix: str, tmp_path: Path
) -> None:
    if suffix == "onnx":
        pytest.importorskip("onnxscript", reason="ONNX needs the extra onnx")
    torch.manual_seed(0)
    model: Any = create_model(name, **config).eval()
    path = tmp_path / f"model.{suffix}"
    exported = export_model(model, path, part)
    # Roundings of float32; every export of the zoo was within 3e-7.
    assert exported.difference < 1e-5
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name]
    step = exported.alignment
    shape = (3, 5 * step, 4 * step) if name.startswith("repair") else model.image_shape
    images = torch.rand(4, *shape)
    inputs = (images, torch.ones(4, 1, *shape[1:])) if part == "repair" else (images,)
    with torch.no_grad():
        call = {"encoder": getattr(model, "symbols", getattr(model, "encode", None))}
        call["discriminator"] = getattr(model, "discriminator", None)
        expected = call.get(part, model)(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found, described = loaded(path, exported.inputs, inputs)
    assert len(found) == len(expected) == len(exported.outputs)
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_allclose(theirs, ours.numpy(), atol=1e-5)
    assert described["model"] == name
    assert described["config"].items() >= json.loads(json.dumps(config)).items()


def loaded(path: Path, names: tuple[str, ...], inputs: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """What a file computes, and how it describes itself."""
    if path.suffix == ".pt2":
        extra = {"sosie.json": ""}
        outputs = torch.export.load(path, extra_files=extra).module()(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return [each.detach().numpy() for each in outputs], json.loads(extra["sosie.json"])
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(path)
    domains = {(node.domain, node.op_type) for node in model.graph.node if node.domain}
    assert domains == set()  # standard operations alone
    arrays = dict(zip(names, (each.numpy() for each in inputs), strict=True))
    described = {entry.key: entry.value for entry in model.metadata_props}
    return ReferenceEvaluator(model).run(None, arrays), json.loads(described["sosie"])


def test_exports_that_differ_or_cannot_be_are_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = create_model("vae_mlp", hidden=8, latent=2)
    assert parts_of(model) == ("decoder", "encoder")
    with pytest.raises(ValueError, match=r"\.onnx or \.pt2, got .*x\.pth"):
        export_model(model, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="out of decoder, encoder, got 'generator'"):
        export_model(model, tmp_path / "x.pt2", "generator")

    class Drifting(nn.Module):
        """Computes something else every time."""

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, codes: Tensor) -> Tensor:
            self.calls += 1
            return codes + self.calls

    monkeypatch.setattr(type(model), "decode", Drifting().forward, raising=True)
    with pytest.raises(ValueError, match=r"x\.pt2 was not written: images differs .* by 1"):
        export_model(model, tmp_path / "x.pt2")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- memory


def test_bands_need_memory_for_two_rows_of_tiles() -> None:
    import tracemalloc

    class Same(RepairModel):
        def forward(self, damaged: Tensor, known: Tensor | None = None) -> Tensor:
            del known
            return damaged

    from sosie.zoo.repair_cnn import RepairCNNConfig

    image = np.zeros((20_000, 512), np.uint8)
    model = Same(RepairCNNConfig(channels=1))
    tracemalloc.start()
    rows = sum(len(band) for band in repair_bands(model, image))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == len(image)
    # Some float32 copies of 256 x 512 pixels, of 10 million bytes of image.
    assert peak < 6 * 256 * 512 * 4
