# SPDX-License-Identifier: Apache-2.0
"""Sequences of a convolutional LSTM by sosie's own convolutions, against torch's in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import sosie
from executors import OPTIMISED, computing_by

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from sosie.torch import recurrent as operators  # noqa: E402
from sosie.torch import recurrent_composite as composite  # noqa: E402
from sosie.torch import recurrent_winograd as winograd  # noqa: E402
from sosie.torch.recurrent import Recurrence  # noqa: E402

NATIVE = [name for name in OPTIMISED if name.startswith("native")]
ONES = (1, 1)
PLAIN = Recurrence(ONES, ONES, ONES, ONES)

#: Steps, sequences, channels in and out, height and width: on both sides of vectors and tiles.
SIZES = {
    "one step": (1, 2, 3, 5, 7, 9),
    "whole vectors": (3, 1, 16, 32, 13, 17),
    "flat": (2, 3, 1, 2, 1, 70),
    "below a tile": (2, 1, 8, 17, 2, 3),
    "long": (64, 1, 5, 9, 11, 6),
}
#: Relative to the largest number of each tensor, as the family promises for float32.
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _chosen() -> Iterator[None]:
    threads = torch.get_num_threads()
    with sosie.use_convolutions("winograd"):
        yield
    torch.set_num_threads(threads)


def noise(*shape: int, scale: float = 1.0) -> Tensor:
    values = np.random.default_rng(shape).standard_normal(shape) * scale
    return torch.from_numpy(values.astype(np.float32))


def problem(
    size: tuple[int, ...], state: bool = True, peephole: str = "channel"
) -> tuple[Any, ...]:
    """Arguments of the operator, all of which have gradients."""
    steps, batch, inputs, channels, height, width = size
    scale = (9 * channels) ** -0.5
    own = {"channel": (1, 1), "pixel": (height, width)}.get(peephole)
    tensors = (
        noise(steps, batch, inputs, height, width),
        noise(batch, channels, height, width, scale=0.5) if state else None,
        noise(batch, channels, height, width) if state else None,
        noise(4 * channels, inputs, 3, 3, scale=scale),
        noise(4 * channels, channels, 3, 3, scale=scale),
        noise(4 * channels),
        None if own is None else noise(3, channels, *own, scale=0.3),
    )
    return tuple(None if t is None else t.requires_grad_() for t in tensors)


def exactly(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(None if t is None else t.detach().double().requires_grad_() for t in tensors)


def gradients(results: Any, tensors: Any) -> list[Tensor]:
    """Of a weighted sum of h and c of all steps."""
    weights = [noise(*result.shape).to(result.dtype) for result in results]
    given = [tensor for tensor in tensors if tensor is not None]
    return list(torch.autograd.grad(results, given, weights))


def by_operator(tensors: Any, how: Recurrence = PLAIN, **options: Any) -> tuple[Tensor, ...]:
    output, _, _, cells = operators.conv_lstm(*tensors, how, all_cells=True, **options)
    return output, cells


def assert_close(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        atol = TOLERANCE * float(other.detach().abs().max())
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=atol)


def check(tensors: tuple[Any, ...], how: Recurrence = PLAIN, **options: Any) -> None:
    assert winograd.serves(tensors[0], tensors[3], tensors[4], how)
    exact = exactly(tensors)
    found, expected = by_operator(tensors, how, **options), composite.conv_lstm(*exact, how=how)
    assert_close(found, expected)
    assert_close(gradients(found, tensors), gradients(expected, exact))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("executor", NATIVE)
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients(size: str, executor: str, threads: int) -> None:
    torch.set_num_threads(threads)
    with computing_by(executor):
        check(problem(SIZES[size]))


@pytest.mark.parametrize("steps", [4, 16, 64])
def test_error_of_many_channels_does_not_grow_with_steps(steps: int) -> None:
    check(problem((steps, 1, 32, 48, 12, 12), peephole="none"))


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("peephole", ["none", "pixel"])
@pytest.mark.parametrize("state", [False, True], ids=["no state", "state"])
def test_options(state: bool, peephole: str, recompute: bool) -> None:
    how = replace(PLAIN, activation="hard_tanh", recurrent_activation="hard_sigmoid")
    for each in (PLAIN, how):
        # A hard activation's derivative jumps where a number is within rounding of its corner; of
        # these there is none.
        check(problem((3, 2, 4, 6, 9, 7), state, peephole), each, recompute=recompute)


def test_gradients_one_by_one() -> None:
    """What is not asked for is left out, and does not change the rest."""
    tensors = problem((3, 1, 4, 6, 9, 7))
    expected = gradients(by_operator(tensors), tensors)
    for place, wanted in enumerate(expected):
        given = [t.detach().requires_grad_(k == place) for k, t in enumerate(tensors)]
        (found,) = torch.autograd.grad(
            by_operator(given), given[place], [noise(3, 1, 6, 9, 7) for _ in range(2)]
        )
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_bits_do_not_depend_on_threads() -> None:
    tensors = problem((2, 2, 5, 24, 18, 33))
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found = by_operator(tensors)
        results.append((*found, *gradients(found, tensors)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_opcheck() -> None:
    tensors = problem((2, 1, 3, 4, 6, 5))
    plain = ([1, 1],) * 4
    torch.library.opcheck(
        torch.ops.sosie.conv_lstm.default, (*tensors, *plain, "tanh", "sigmoid", True, True)
    )


# --- Whose convolutions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "kernel", "dtype", "channels"),
    [
        (replace(PLAIN, stride=(2, 2)), 3, torch.float32, 4),
        (replace(PLAIN, recurrent_dilation=(2, 2)), 3, torch.float32, 4),
        (replace(PLAIN, padding=(2, 2)), 5, torch.float32, 4),
        (PLAIN, 3, torch.float64, 4),
        (PLAIN, 3, torch.bfloat16, 4),
        (PLAIN, 3, torch.float32, 1),
    ],
    ids=["stride", "dilation", "kernel", "float64", "bfloat16", "one channel"],
)
def test_what_they_are_not_for(how: Recurrence, kernel: int, dtype: Any, channels: int) -> None:
    x = torch.zeros(1, 1, 3, 8, 8, dtype=dtype)
    weight_ih = torch.zeros(4 * channels, 3, kernel, kernel, dtype=dtype)
    weight_hh = torch.zeros(4 * channels, channels, 3, 3, dtype=dtype)
    assert not winograd.serves(x, weight_ih, weight_hh, how)


def test_executors_without_them_use_torch_s() -> None:
    tensors = problem((2, 1, 3, 4, 6, 5))
    with computing_by("reference"):
        assert not winograd.serves(tensors[0], tensors[3], tensors[4], PLAIN)
        assert_close(by_operator(tensors), composite.conv_lstm(*exactly(tensors), how=PLAIN))


def test_choice() -> None:
    small, large = (problem((1, 1, c, c, size, size)) for c, size in ((2, 8), (32, 64)))

    def serves(tensors: tuple[Any, ...]) -> bool:
        return winograd.serves(tensors[0], tensors[3], tensors[4], PLAIN)

    with sosie.use_convolutions("auto"):
        assert (serves(small), serves(large)) == (False, True)
    with sosie.use_convolutions("library"):
        assert not serves(large)
    assert serves(small)
    with pytest.raises(ValueError, match="auto, library, winograd, got 'fft'"):
        sosie.use_convolutions("fft").__enter__()


def test_choice_by_the_environment(run_python: Any) -> None:
    code = "import sosie; print(sosie.config.configuration()['convolutions'])"
    assert run_python(code, SOSIE_CONVOLUTIONS="library").strip() == "library"
    failing = f"try:\n    {code}\nexcept ValueError as error:\n    print(error)"
    said = run_python(failing, SOSIE_CONVOLUTIONS="fft").strip()
    assert said == "expected SOSIE_CONVOLUTIONS out of auto, library, winograd, got 'fft'"
