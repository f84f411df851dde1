# SPDX-License-Identifier: Apache-2.0
"""Losses and densities against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.integrate import quad
from torch import Tensor, nn

import sosie
from sosie.zoo import create_model
from sosie.zoo.densities import (
    bernoulli_nll,
    categorical_kl_to_uniform,
    from_open_interval,
    gaussian_kl,
    gaussian_nll,
    logit_laplace_nll,
    to_open_interval,
)
from sosie.zoo.gan_losses import discriminator_loss, generator_loss, gradient_penalty
from sosie.zoo.losses import list_losses, parse_loss
from sosie.zoo.noise import Noise
from sosie.zoo.vae_conv import local_precision
from sosie.zoo.vae_discrete import nearest_codes, straight_through

pytestmark = pytest.mark.usefixtures("one_thread")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------- densities


def test_divergence_of_gaussians_is_torchs() -> None:
    mean, log_variance = numbers(3, 5), numbers(3, 5, seed=1)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


def test_likelihoods_are_those_of_scipy() -> None:
    logits, target = numbers(2, 1, 3, 4), images(2, 1, 3, 4)
    binary = (target > 0.5).double()
    expected = [
        -stats.bernoulli.logpmf(each.flatten().numpy(), torch.sigmoid(odds).flatten()).sum()
        for each, odds in zip(binary, logits, strict=True)
    ]
    np.testing.assert_allclose(bernoulli_nll(logits, binary).numpy(), expected)
    expected = [
        -stats.norm.logpdf(each.numpy(), mean.numpy(), 0.3).sum()
        for each, mean in zip(target, logits, strict=True)
    ]
    np.testing.assert_allclose(gaussian_nll(logits, target, 0.3).numpy(), expected)


def test_cross_entropy_has_the_target_where_it_belongs() -> None:
    # Sure and right costs nothing; sure and wrong costs the logit, once and not twice squashed.
    logits = torch.tensor([[30.0, -30.0]])
    assert bernoulli_nll(logits, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0, abs=1e-6)
    assert bernoulli_nll(logits, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(60)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (-1.2, 0.4), (2.0, 0.15)])
def test_logit_laplace_is_a_density(mean: float, scale: float) -> None:
    def density(x: float) -> float:
        location, log_scale, target = (
            torch.tensor([[value]], dtype=torch.float64) for value in (mean, math.log(scale), x)
        )
        return math.exp(-logit_laplace_nll(location, log_scale, target).item())

    peak = 1 / (1 + math.exp(-mean))
    total = sum(quad(density, *ends, limit=200)[0] for ends in ((0, peak), (peak, 1)))
    # For scales below 1 the density falls to 0 at both ends; quad's own estimate is 1e-8.
    assert total == pytest.approx(1, abs=1e-5)


def test_open_interval_and_back() -> None:
    x = images(1, 1, 8, 8)
    opened = to_open_interval(x)
    assert 0.1 <= opened.min() < opened.max() <= 0.9
    torch.testing.assert_close(from_open_interval(opened), x)


def test_divergence_from_uniform_symbols() -> None:
    logits = numbers(2, 7, 3, 2)
    q = torch.distributions.Categorical(logits=logits.movedim(1, -1))
    uniform = torch.distributions.Categorical(logits=torch.zeros_like(logits.movedim(1, -1)))
    expected = torch.distributions.kl_divergence(q, uniform).sum((1, 2))
    torch.testing.assert_close(categorical_kl_to_uniform(logits), expected)
    assert categorical_kl_to_uniform(torch.zeros(1, 4, 2, 2)).item() == pytest.approx(0, abs=1e-6)


# --------------------------------------------------------------------------------------- the bounds


def test_bound_is_what_the_paper_says() -> None:
    torch.manual_seed(0)
    model = create_model("vae_mlp", hidden=16, latent=3, beta=2.0).double()
    x = (images(4, 1, 28, 28) > 0.5).double()
    terms = model.terms(x, Noise(5), 0)
    mean, log_variance = model.encode(x)
    # Another step's numbers are another sample: the code must be drawn, not the mean.
    assert not torch.equal(terms["loss"], model.terms(x, Noise(6), 0)["loss"])
    codes = mean + (0.5 * log_variance).exp() * Noise(5).normal(4, 3)
    nll = -torch.distributions.Bernoulli(logits=model.decoder(codes)).log_prob(x).sum((1, 2, 3))
    kl = gaussian_kl(mean, log_variance)
    torch.testing.assert_close(terms["loss"], (nll + 2 * kl).mean())
    torch.testing.assert_close(terms["reconstruction"], nll.mean())
    # Importance sampling's bound is tighter than the single-sample one, on average and by far.
    model_1 = create_model("vae_mlp", hidden=16, latent=3).double()
    bound = -model_1.terms(x, Noise(1), 0)["loss"]
    with torch.no_grad():
        assert model_1.log_likelihood(x, Noise(2), samples=200).mean() > bound


def test_importance_sampling_finds_the_likelihood() -> None:
    torch.manual_seed(0)
    model = create_model("vae_mlp", image_shape=(1, 2, 2), hidden=4, latent=1).double()
    x = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]], dtype=torch.float64)

    def joint(z: float) -> float:
        logits = model.decoder(torch.tensor([[z]], dtype=torch.float64))
        return math.exp(-bernoulli_nll(logits, x).item()) * float(stats.norm.pdf(z))

    with torch.no_grad():
        exact = math.log(quad(joint, -8, 8)[0])
        estimate = model.log_likelihood(x, Noise(0), samples=4000).item()
    # Weights differ by some tens of percent; their mean over 4000 by half a percent.
    assert estimate == pytest.approx(exact, abs=0.02)


def test_dynamic_binarisation_draws_pixels_anew() -> None:
    torch.manual_seed(0)
    model = create_model("vae_mlp", hidden=4, latent=2, binarise=True)
    x = torch.full((64, 1, 28, 28), 0.3)
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for seed in (0, 1):
        model.terms(x, Noise(seed), 0)
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert abs(seen[0].mean().item() - 0.3) < 5 * math.sqrt(0.3 * 0.7 / x.numel())
    assert not torch.equal(*seen)


@pytest.mark.parametrize("kind", ["bce", "mse", "ssim", "wssd"])
def test_reconstruction_errors_of_the_convolutional_one(kind: str) -> None:
    torch.manual_seed(0)
    model = create_model("vae_conv", width=4, latent=2, reconstruction=kind, sigma=0.2)
    x = images(3, 1, 28, 28).float()
    terms = model.terms(x, Noise(0), 0)
    mean, log_variance = model.encode(x)
    logits = model.decoder(mean + (0.5 * log_variance).exp() * Noise(0).normal(3, 2))
    decoded = logits.sigmoid()
    expected = {
        "bce": F.binary_cross_entropy(decoded, x, reduction="sum") / 3,
        "mse": gaussian_nll(decoded, x, 0.2).mean(),
        "ssim": 784 * (1 - sosie.ssim(decoded, x, data_range=1.0)),
        "wssd": (local_precision(x) * (decoded - x).square()).sum() / (2 * 0.2**2 * 3),
    }[kind]
    # Sums of some thousand terms in float32, in another order.
    torch.testing.assert_close(terms["reconstruction"], expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------ symbols


def test_nearest_codes_are_nearest() -> None:
    encoded, codebook = numbers(2, 5, 3, 4).float(), numbers(9, 5, seed=1).float()
    distances = (encoded.movedim(1, -1)[..., None, :] - codebook).square().sum(-1)
    assert torch.equal(nearest_codes(encoded, codebook), distances.argmin(-1))


def test_gradient_goes_straight_through() -> None:
    encoded = numbers(2, 5, 3, 4).requires_grad_()
    chosen = numbers(2, 5, 3, 4, seed=1).requires_grad_()
    through = straight_through(encoded, chosen)
    torch.testing.assert_close(through, chosen)
    through.backward(weight := numbers(2, 5, 3, 4, seed=2))
    assert torch.equal(encoded.grad, weight)
    assert chosen.grad is None


def test_each_part_of_the_discrete_loss_moves_its_own_weights() -> None:
    torch.manual_seed(0)
    model = create_model("vae_discrete", width=8, codes=16, dimensions=4)
    x = images(3, 1, 28, 28).float()

    def reached(term: str) -> set[str]:
        model.zero_grad()
        model.terms(x, Noise(0), 0)[term].backward()
        return {
            name.partition(".")[0]
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and parameter.grad.abs().max() > 0
        }

    assert reached("reconstruction") == {"encoder", "decoder"}
    assert reached("codebook") == {"codebook"}
    assert reached("commitment") == {"encoder"}
    assert reached("loss") == {"encoder", "codebook", "decoder"}
    terms = model.terms(x, Noise(0), 0)
    total = terms["reconstruction"] + terms["codebook"] + 0.25 * terms["commitment"]
    torch.testing.assert_close(terms["loss"], total)
    symbols = model.symbols(x)
    shares = np.bincount(symbols.flatten().numpy(), minlength=16) / symbols.numel()
    expected = math.exp(stats.entropy(shares))
    assert terms["perplexity"].item() == pytest.approx(expected, rel=1e-5)


def test_temperature_falls_and_divergence_rises() -> None:
    model = create_model("vae_discrete", quantizer="gumbel", width=8, codes=16, annealing=300)
    assert [model.temperature(step) for step in (0, 150, 300, 999)] == pytest.approx(
        [1, 17 / 32, 1 / 16, 1 / 16]
    )
    x = images(2, 1, 28, 28).float()
    for step, beta in ((0, 0.0), (5, 0.5), (10, 1.0), (300, 1.0)):
        terms = model.terms(x, Noise(0), step)
        expected = terms["reconstruction"] + beta * terms["kl"]
        torch.testing.assert_close(terms["loss"], expected)


# -------------------------------------------------------------------------------------- adversaries


def test_adversarial_losses_are_their_formulas() -> None:
    real, fake = numbers(50), numbers(50, seed=1)
    log_d, log_1_d = F.logsigmoid(real), torch.log(1 - torch.sigmoid(fake))
    expected = {
        "vanilla": (-log_d.mean() - log_1_d.mean(), -F.logsigmoid(fake).mean()),
        "lsgan": (
            ((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2,
            ((fake - 1) ** 2).mean() / 2,
        ),
        "hinge": (
            torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + fake, min=0).mean(),
            -fake.mean(),
        ),
        "wgan-gp": (fake.mean() - real.mean(), -fake.mean()),
    }
    for name, (of_discriminator, of_generator) in expected.items():
        torch.testing.assert_close(discriminator_loss(name, real, fake), of_discriminator)
        torch.testing.assert_close(generator_loss(name, fake), of_generator)
    with pytest.raises(ValueError, match="got 'wgan'"):
        generator_loss("wgan", fake)


def test_generator_learns_even_where_it_is_always_found_out() -> None:
    scores = torch.full((4,), -50.0, requires_grad=True)
    generator_loss("vanilla", scores).backward()
    # The minimax loss would have a gradient of 1e-22 here.
    torch.testing.assert_close(scores.grad, torch.full((4,), -0.25))


def test_gradient_penalty_is_per_image() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Flatten(1), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    real, fake, mix = images(4, 1, 2, 3), images(4, 1, 2, 3, seed=1), images(4, seed=2)
    penalty = gradient_penalty(critic, real, fake, mix)
    norms = []
    for x, y, m in zip(real, fake, mix, strict=True):
        point = m * x + (1 - m) * y
        jacobian = torch.autograd.functional.jacobian(critic, point[None])
        norms.append(jacobian.norm())
    torch.testing.assert_close(penalty, torch.stack([(norm - 1) ** 2 for norm in norms]).mean())
    first = critic[1].weight

    def as_function(weight: Tensor) -> Tensor:
        return gradient_penalty(
            lambda x: torch.func.functional_call(critic, {"1.weight": weight}, (x,)),
            real, fake, mix,
        )  # fmt: skip

    assert torch.autograd.gradcheck(as_function, (first.detach().requires_grad_(),))


# ----------------------------------------------------------------------------------- losses by name


def test_losses_by_name() -> None:
    x, y = images(2, 3, 180, 176).float(), images(2, 3, 180, 176, seed=1).float()
    precision = local_precision(y)
    expected = {
        "charbonnier": ((x - y).square() + 1e-6).sqrt().mean(),
        "cosine": (1 - F.cosine_similarity(x.flatten(1), y.flatten(1))).mean(),
        "l1": (x - y).abs().mean(),
        "ms_ssim": 1 - sosie.ms_ssim(x, y, data_range=1.0),
        "mse": (x - y).square().mean(),
        "ssim": 1 - sosie.ssim(x, y, data_range=1.0),
        "wssd": (precision * (x - y).square()).sum() / precision.sum(),
    }
    assert list_losses() == list(expected)
    for name, value in expected.items():
        # Sums of 190,000 terms in float32.
        torch.testing.assert_close(parse_loss(name)(x, y), value, rtol=1e-4, atol=1e-5)
    mixed = parse_loss("l1:0.84, ssim:0.16,mse:2")(x, y)
    total = 0.84 * expected["l1"] + 0.16 * expected["ssim"] + 2 * expected["mse"]
    torch.testing.assert_close(mixed, total, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sim", "unknown loss 'sim'; nearest: ssim"),
        ("l1:much", "expected a positive weight after l1:, got 'much'"),
        ("l1:-1", "expected a positive weight after l1:, got '-1'"),
        ("l1,l1", "expected every loss once, got l1 twice"),
    ],
)
def test_losses_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_loss(text)


def test_local_precision_is_ssims_weight() -> None:
    # In a window where both images have the same mean and variance, 1 - SSIM is the mean squared
    # difference over 2 v + C2; see `local_precision`.
    generator = torch.Generator().manual_seed(0)
    y = 0.5 + 0.1 * torch.randn(1, 1, 7, 7, generator=generator, dtype=torch.float64)
    x = y.flip(-1)
    c1, c2, mean = 0.01**2, 0.03**2, y.mean()
    covariance = (x * y).mean() - mean**2
    variance = y.square().mean() - mean**2
    ssim = (2 * mean**2 + c1) * (2 * covariance + c2) / ((2 * mean**2 + c1) * (2 * variance + c2))
    weight = (1 - ssim) / (x - y).square().mean()
    # The weights are relative: beside a flat image, whose weight is 1 / C2 before scaling.
    both = torch.cat([y, torch.full((1, 1, 7, 80), 0.5, dtype=torch.float64)], -1)
    weights = local_precision(both)[0, 0, 3]
    assert (weights[3] / weights[60]).item() == pytest.approx((weight * c2).item(), rel=1e-6)
    assert local_precision(both).mean().item() == pytest.approx(1)


def test_noise_is_a_batchs_whoever_draws_it() -> None:
    whole = Noise(9)
    normal, uniform = whole.normal(6, 2), whole.uniform(6)
    parts = [Noise(9, process=process, processes=3) for process in range(3)]
    assert torch.equal(torch.cat([part.normal(2, 2) for part in parts]), normal)
    assert torch.equal(torch.cat([part.uniform(2) for part in parts]), uniform)
    assert 0 <= uniform.min() <= uniform.max() < 1
