# SPDX-License-Identifier: Apache-2.0
"""Models by name, their weights in files, and that each of them learns."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from sosie.zoo import create_model, list_models, register_model, save_model
from sosie.zoo.data import ImageCollection, open_collection
from sosie.zoo.evaluation import denoising_psnr
from sosie.zoo.files import InvalidFileError
from sosie.zoo.model import AdversarialPair, Classifier, RepairModel
from sosie.zoo.noise import Noise
from sosie.zoo.repair_cnn import RepairCNNConfig
from sosie.zoo.repair_unet import MaskedConv2d
from sosie.zoo.training import Settings, train
from sosie.zoo.training.repairing import Repairing
from sosie.zoo.training.run import training_sequence
from sosie.zoo.training.trainer import objective_of

pytestmark = pytest.mark.usefixtures("one_thread")

#: Every model, as small as makes sense; the variants that are other code.
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "features_lenet": ("features_lenet", {"width": 8, "dimensions": 16}),
    "gan_mlp": ("gan_mlp", {"hidden": 64, "latent": 16}),
    "gan_dcgan": ("gan_dcgan", {"width": 8, "latent": 16}),
    "gan_dcgan-hinge": ("gan_dcgan", {"width": 8, "latent": 16, "loss": "hinge"}),
    "gan_dcgan-lsgan": ("gan_dcgan", {"width": 8, "latent": 16, "loss": "lsgan"}),
    "gan_dcgan-wgan-gp": ("gan_dcgan", {"width": 8, "latent": 16, "loss": "wgan-gp"}),
    "vae_mlp": ("vae_mlp", {"hidden": 64, "latent": 8}),
    "vae_mlp-gaussian": ("vae_mlp", {"hidden": 64, "latent": 8, "likelihood": "gaussian"}),
    "vae_mlp-iwae": (
        "vae_mlp",
        {"hidden": 64, "latent": 8, "layers": 2, "activation": "tanh", "binarise": True},
    ),
    "vae_conv": ("vae_conv", {"width": 8, "latent": 8}),
    "vae_conv-mse": ("vae_conv", {"width": 8, "latent": 8, "reconstruction": "mse"}),
    "vae_conv-ssim": ("vae_conv", {"width": 8, "latent": 8, "reconstruction": "ssim"}),
    "vae_conv-wssd": ("vae_conv", {"width": 8, "latent": 8, "reconstruction": "wssd"}),
    "vae_discrete": ("vae_discrete", {"width": 16, "codes": 32, "dimensions": 8}),
    "vae_discrete-gumbel": (
        "vae_discrete",
        {"width": 16, "codes": 32, "dimensions": 8, "quantizer": "gumbel"},
    ),
    "repair_cnn": ("repair_cnn", {"width": 16, "depth": 4, "channels": 1}),
    "repair_cnn-norm": (
        "repair_cnn",
        {"width": 16, "depth": 4, "channels": 1, "batch_norm": True},
    ),
    "repair_cnn-folded": (
        "repair_cnn",
        {"width": 16, "depth": 4, "channels": 1, "residual": True, "downscale": 2},
    ),
    "repair_unet": ("repair_unet", {"widths": (8, 12, 16), "keep_known": False}),
    "repair_unet-partial": (
        "repair_unet",
        {"widths": (8, 12, 16), "convolution": "partial", "keep_known": False},
    ),
    "repair_unet-plain": (
        "repair_unet",
        {"widths": (8, 12, 16), "convolution": "plain", "keep_known": False},
    ),
    "repair_rcnn-folded": (
        "repair_rcnn",
        {"width": 16, "stages": 2, "blocks": 1, "channels": 1, "downscale": 2},
    ),
    "repair_rcnn": ("repair_rcnn", {"width": 8, "stages": 3, "blocks": 1, "channels": 1}),
    "repair_rcnn-fill": (
        "repair_rcnn",
        {"width": 8, "stages": 2, "blocks": 1, "channels": 1, "downscale": 2, "fill": (1.0, 2.0)},
    ),
}
every_model = pytest.mark.parametrize("case", SMALL)


def small(case: str, **more: Any) -> Any:
    torch.manual_seed(0)
    name, config = SMALL[case]
    return create_model(name, **config, **more)


def arguments(model: Any) -> tuple[torch.Tensor, ...]:
    """What the model's forward takes."""
    generator = torch.Generator().manual_seed(1)
    if isinstance(model, AdversarialPair):
        return (torch.randn(3, model.config.latent, generator=generator),)
    if isinstance(model, RepairModel):
        known = (torch.rand(3, 1, 24, 27, generator=generator) < 0.6).float()
        return torch.rand(3, model.channels, 24, 27, generator=generator) * known, known
    return (torch.rand(3, *model.image_shape, generator=generator),)


# ----------------------------------------------------------------------------------------- registry


def test_names() -> None:
    assert list_models() == [
        "features_lenet", "gan_dcgan", "gan_mlp", "repair_cnn", "repair_rcnn", "repair_unet",
        "vae_conv", "vae_discrete", "vae_mlp",
    ]  # fmt: skip
    assert list_models("*cnn") == ["repair_cnn", "repair_rcnn"]
    assert {SMALL[case][0] for case in SMALL} == set(list_models())


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown model 'repair_unnet'; nearest: repair_unet"):
        create_model("repair_unnet")
    with pytest.raises(ValueError, match=r"no option 'wdith'; it has channels, depth, width"):
        create_model("repair_cnn", wdith=3)
    with pytest.raises(ValueError, match=r"loss out of vanilla.*got 'wgan'"):
        create_model("gan_dcgan", loss="wgan")
    with pytest.raises(ValueError, match=r"multiples of 4 .* got image_shape=\(1, 28, 30\)"):
        create_model("vae_conv", image_shape=(1, 28, 30))


def test_models_of_ones_own() -> None:
    @register_model("test_identity")
    class Identity(RepairModel):
        Config = RepairCNNConfig

        def forward(self, damaged: torch.Tensor, known: torch.Tensor | None = None) -> torch.Tensor:
            return damaged if known is None else damaged * known

    try:
        assert "test_identity" in list_models("test_*")
        assert isinstance(create_model("test_identity", channels=1), Identity)
        with pytest.raises(ValueError, match=r"model 'test_identity' is .*Identity already"):
            register_model("test_identity")(type("Other", (Identity,), {}))
    finally:
        from sosie.zoo import registry

        del registry._classes["test_identity"]


@every_model
def test_weights_come_back_with_their_configuration(case: str, tmp_path: Path) -> None:
    model = small(case).eval()
    save_model(model, tmp_path / "model.safetensors")
    again = create_model(model.name, weights=tmp_path)
    assert again.config == model.config
    assert not again.training
    inputs = arguments(model)
    with torch.no_grad():
        assert torch.equal(model(*inputs), again(*inputs))


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(small("vae_mlp"), path)
    with pytest.raises(ValueError, match=r"holds weights of vae_mlp, not of repair_cnn"):
        create_model("repair_cnn", weights=path)
    path.with_suffix(".json").unlink()
    with pytest.raises(ValueError, match=r"another architecture than repair_cnn .* missing "):
        create_model("repair_cnn", weights=path)
    save_file({"model.0.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="another architecture"):
        create_model("repair_cnn", depth=2, weights=path)
    save_model(small("repair_cnn"), path)
    with pytest.raises(ValueError, match=r"of shape \(8, 1, 3, 3\), got \(16, 1, 3, 3\)"):
        create_model("repair_cnn", weights=path, width=8)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InvalidFileError, match="truncated"):
        create_model("repair_cnn", weights=path)


# -------------------------------------------------------------------------------- what they compute


@every_model
def test_images_are_images(case: str) -> None:
    model = small(case)
    inputs = arguments(model)
    with torch.no_grad():
        images = model.eval()(*inputs)
    if isinstance(model, RepairModel):
        assert images.shape == inputs[0].shape
        assert images.isfinite().all()
        return
    if isinstance(model, Classifier):
        assert images.shape == (3, model.config.classes)
        assert torch.equal(model.classifier(model.features(*inputs)), images)
        return
    assert images.shape == (3, *model.image_shape)
    samples = model.sample(5, Noise(0))
    for each in (images, samples):
        assert 0 <= each.min() <= each.max() <= 1
    assert samples.shape == (5, *model.image_shape)
    assert not torch.equal(samples[0], samples[1])
    assert torch.equal(model.sample(5, Noise(0)), samples)


#: A compiler is needed, and half a minute for all: kinds of layers rather than every variant.
@pytest.mark.parametrize(
    "case", ["gan_dcgan", "vae_conv", "vae_discrete", "repair_unet-partial", "repair_rcnn"]
)
def test_compiled_equals_eager(case: str) -> None:
    model = small(case).eval()
    inputs = arguments(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        # Decomposed operations round differently.
        torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning")  # torch's own
def test_inductor_compiles_one_of_them() -> None:
    model = small("repair_cnn").eval()
    inputs = arguments(model)
    with torch.no_grad():
        compiled = torch.compile(model)(*inputs)
        # Fused loops add in another order.
        torch.testing.assert_close(compiled, model(*inputs), rtol=1e-4, atol=1e-5)


def test_partial_convolutions_take_means_over_what_is_known() -> None:
    torch.manual_seed(0)
    layer = MaskedConv2d("partial", 2, 3, 3, padding=1)
    x = torch.rand(1, 2, 9, 8)
    known = (torch.rand(1, 1, 9, 8) < 0.3).float()
    known[..., :4, :4] = 0
    output, is_known = layer(x, known)
    weight, bias = layer.layer.weight, layer.layer.bias
    for row in range(9):
        for column in range(8):
            total, count = torch.zeros(3), 0
            for i in range(max(0, row - 1), min(9, row + 2)):
                for j in range(max(0, column - 1), min(8, column + 2)):
                    if known[0, 0, i, j]:
                        count += 1
                        total += weight[:, :, i - row + 1, j - column + 1] @ x[0, :, i, j]
            expected = total * 9 / count + bias if count else torch.zeros(3)
            assert is_known[0, 0, row, column] == (count > 0)
            torch.testing.assert_close(output[0, :, row, column], expected)


def test_what_missing_pixels_hold_does_not_matter() -> None:
    for case in ("repair_unet", "repair_unet-partial", "repair_unet-plain"):
        model = small(case).eval()
        damaged, known = arguments(model)
        with torch.no_grad():
            clean = model(damaged, known)
            dirty = model(torch.where(known > 0, damaged, 1e6), known)
        assert torch.equal(clean, dirty)


def test_known_pixels_can_be_kept() -> None:
    model = create_model("repair_unet", widths=(8, 12, 16)).eval()
    damaged, known = arguments(model)
    with torch.no_grad():
        repaired = model(damaged, known)
    assert torch.equal(repaired * known, damaged * known)
    assert not torch.equal(repaired, damaged)


# --------------------------------------------------------------------------------------- they learn


@pytest.fixture(scope="module")
def fashion() -> ImageCollection:
    images = open_collection("fashion-mnist-2000")
    assert images.training_labels is not None
    assert images.validation_labels is not None
    return ImageCollection(
        images.training[:600],
        images.validation[:100],
        training_labels=images.training_labels[:600],
        validation_labels=images.validation_labels[:100],
    )


@pytest.fixture(scope="module")
def photographs() -> ImageCollection:
    images = open_collection("photographs")
    return ImageCollection(
        [images.training[0], images.training[8]], [images.validation[0][100:228, 100:228]]
    )


#: Steps. Adversarial losses are relative to an opponent and have no reason to fall; what those
#: models are measured by is how far their images are from real ones.
LEARNING = {
    **dict.fromkeys((case for case in SMALL if case.startswith("gan")), 60),
    **dict.fromkeys((case for case in SMALL if case.startswith("vae")), 60),
    **dict.fromkeys((case for case in SMALL if case.startswith("repair")), 60),
    "gan_dcgan-wgan-gp": 100,
    "features_lenet": 60,
}


@pytest.mark.parametrize("case", LEARNING)
def test_short_trainings_help(
    case: str, fashion: ImageCollection, photographs: ImageCollection
) -> None:
    model = small(case)
    is_repair = isinstance(model, RepairModel)
    images = photographs if is_repair else fashion
    given: dict[str, Any] = {"batch": 32}
    if is_repair:
        damage = "gaussian_noise:0.1,missing_pixels:0.5" if "unet" in case else "gaussian_noise:0.1"
        given = {"batch": 4, "crop": 32, "degradation": damage, "schedule": "cosine"}
    if case != "gan_mlp":  # more than usual, for steps this few
        given["learning_rate"] = 1e-3 if case.startswith("gan") else 3e-3
    settings = Settings.of(model, steps=LEARNING[case], validate_every=0, **given)
    before = measured(model, images, settings)
    result = train(model, images, settings)
    after = measured(model, images, settings)
    assert after == pytest.approx({**after, **result.measures})
    if "ssim" in after:
        assert after["ssim"] > before["ssim"] + 0.005
    if "loss" in after:
        assert after["loss"] < before["loss"] - 0.03 * abs(before["loss"])
    if "accuracy" in after:
        assert after["accuracy"] > 0.6  # of ten classes
    if "kernel_distance" in after:
        assert after["kernel_distance"] < 0.9 * before["kernel_distance"]


def measured(model: Any, images: ImageCollection, settings: Settings) -> dict[str, float]:
    """What a validation finds; for repair also the loss, on the same 16 crops every time."""
    objective = objective_of(model, settings)
    model.eval()
    values = objective.judge(images, torch.device("cpu")).measure(model)
    if isinstance(objective, Repairing):
        sequence = training_sequence(model, images, settings)
        batch = next(iter(DataLoader([sequence[i] for i in range(16)], batch_size=16)))
        with torch.no_grad():
            stages = model.stages(batch["damaged"], batch["known"])
            losses = [objective.loss(stage, batch["images"]) for stage in stages]
        values["loss"] = float(torch.stack(losses).mean())
    model.train()
    return values


def test_gradients_of_repair_reach_every_weight() -> None:
    for case in ("repair_cnn", "repair_unet", "repair_unet-partial", "repair_rcnn"):
        model = small(case)
        damaged, known = arguments(model)
        sum(stage.square().sum() for stage in model.stages(damaged, known)).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, (case, name)
            assert parameter.grad.abs().max() > 0, (case, name)


# ---------------------------------------------------------------------------- what others published


@pytest.mark.skipif(
    "SOSIE_DATA" not in os.environ,
    reason="SOSIE_DATA does not name a folder with Set12 and the published weights of DnCNN",
)
def test_published_weights_denoise_as_published() -> None:
    data = Path(os.environ["SOSIE_DATA"])
    model = create_model(
        "repair_cnn",
        weights=data / "weights" / "dncnn_sigma25.safetensors",
        channels=1,
        depth=17,
        width=64,
    )
    assert asdict(model.config)["batch_norm"] is False
    images = open_collection(data / "denoise" / "set12")
    # 30.44 dB in the paper; its noise is not known, and twelve images leave some 0.03 dB to chance.
    psnr = denoising_psnr(model, [*images.training, *images.validation], deviation=25 / 255)
    assert psnr == pytest.approx(30.44, abs=0.1)
