# SPDX-License-Identifier: Apache-2.0
"""Threads: the same bits however many, none that hang, none that nobody allowed.

What could hang runs in an interpreter of its own, which is given up after two minutes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import sosie
from sosie.backends.native import ssim as native
from sosie.nn import L1SSIMLoss
from sosie.spec import SSIMParameters, ssim_spec

torch = pytest.importorskip("torch")

# Several tasks in every plane: tasks are cut at 128 rows forward, 256 backward, and 512 columns.
SHAPE = (1, 2, 300, 530)
VOLUME_SHAPE = (1, 1, 40, 37, 45)


def _pair(shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    x, y = (generator.random(shape).astype(dtype) for _ in range(2))
    return x, y


def _parameters(name: str, shape: tuple[int, ...]) -> SSIMParameters:
    return ssim_spec(name).resolve(shape[2:], 1.0)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """Put both libraries' numbers of threads back."""
    before, torch_before = sosie.get_num_threads(), torch.get_num_threads()
    yield
    sosie.set_num_threads(before)
    torch.set_num_threads(torch_before)


# --- Bits -----------------------------------------------------------------------------------------


def _everything(
    shape: tuple[int, ...], dtype: str, name: str, masked: bool, threads: int
) -> dict[str, bytes]:
    """All results of the compiled kernels for one pair of images, as bytes."""
    x, y = _pair(shape, dtype)
    mask = np.random.default_rng(8).random(shape) < 0.8 if masked else None
    p = _parameters(name, shape)
    values, similarity_map = native.ssim_forward(
        x, y, p, mask=mask, return_map=True, threads=threads
    )
    contrast, _ = native.ssim_forward(x, y, p, mask=mask, kind="cs", threads=threads)
    weights = np.linspace(-1, 1, values.size).reshape(values.shape)
    both = {"mask": mask, "need_x": True, "need_y": True, "threads": threads}
    mean_gradients = native.ssim_backward(x, y, p, weights, **both)
    map_gradients = native.ssim_backward(x, y, p, similarity_map, **both)
    loss = native.ssim_loss(x, y, p, ssim_weight=0.8, l1_weight=0.2, **both)
    pads = [(0, 1)] * (len(shape) - 2)
    reduced = native.downsample_forward(x, 2, pads, "symmetric", threads=threads)
    spread = native.downsample_backward(reduced, shape, 2, pads, "symmetric", threads=threads)
    arrays = {"values": values, "map": similarity_map, "contrast": contrast}
    arrays |= {"reduced": reduced, "spread": spread}
    arrays |= dict(zip(("mean dx", "mean dy"), mean_gradients, strict=True))
    arrays |= dict(zip(("map dx", "map dy"), map_gradients, strict=True))
    arrays |= dict(zip(("ssim", "l1", "loss dx", "loss dy"), loss, strict=True))
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["wang2004", "scikit-image", "kornia"])
@pytest.mark.parametrize("shape", [SHAPE, VOLUME_SHAPE], ids=["images", "volumes"])
def test_bits_do_not_depend_on_threads(
    shape: tuple[int, ...], name: str, dtype: str, masked: bool
) -> None:
    expected = _everything(shape, dtype, name, masked, threads=1)
    for threads in (2, 3, 7, 2):  # and neither on the run
        found = _everything(shape, dtype, name, masked, threads)
        assert [key for key, bits in expected.items() if found[key] != bits] == []


@pytest.mark.usefixtures("restored_threads")
def test_bits_of_torch_do_not_depend_on_threads() -> None:
    image, other = (torch.from_numpy(array) for array in _pair(SHAPE, "float32"))
    loss = L1SSIMLoss(data_range=1.0)
    seen = set()
    for threads in (1, 2, 3, 2, 1):
        torch.set_num_threads(threads)
        x = image.clone().requires_grad_()
        value = loss(x, other)
        value.backward()
        index = sosie.ms_ssim(image, other, data_range=1.0)
        bits = [tensor.detach().numpy().tobytes() for tensor in (value, x.grad, index)]
        seen.add(b"".join(bits))
    assert len(seen) == 1


# --- How many -------------------------------------------------------------------------------------


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of threads of every call of the compiled kernels."""
    asked: list[int] = []
    make_plan = native._plan

    class Recorder:
        def __init__(self, *arguments: Any) -> None:
            self.plan = make_plan(*arguments)

        def forward(self, *arguments: Any) -> None:
            asked.append(arguments[-1])
            self.plan.forward(*arguments)

        def backward(self, *arguments: Any) -> None:
            asked.append(arguments[-1])
            self.plan.backward(*arguments)

    monkeypatch.setattr(native, "_plan", Recorder)
    return asked


@pytest.mark.usefixtures("restored_threads")
def test_torch_decides_for_tensors(asked_for: list[int]) -> None:
    x = torch.rand(1, 1, 40, 40, requires_grad=True)
    sosie.set_num_threads(5)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        asked_for.clear()
        sosie.ssim(x, 1 - x.detach(), data_range=1.0).backward()
        assert set(asked_for) == {threads}


@pytest.mark.usefixtures("restored_threads")
def test_sosie_decides_for_numpy_arrays(asked_for: list[int]) -> None:
    x, y = _pair((40, 40), "float32")
    torch.set_num_threads(5)
    for threads in (1, 2, 3):
        sosie.set_num_threads(threads)
        sosie.ssim(x, y, data_range=1.0)
    assert asked_for == [1, 2, 3]


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_wrong_number_of_threads_is_refused(threads: Any) -> None:
    message = f"expected a number of threads of at least 1, got {threads}"
    with pytest.raises(ValueError, match=message):
        sosie.set_num_threads(threads)


@pytest.mark.parametrize("variable", ["SOSIE_NUM_THREADS", "OMP_NUM_THREADS"])
def test_wrong_environment_is_refused(variable: str, run_python: Callable[..., str]) -> None:
    code = "import sosie; sosie.get_num_threads()"
    message = run_python(code, expect_failure=True, **{variable: "many"})
    assert f"ValueError: expected {variable} to be a positive whole number, got 'many'" in message


COUNTED = """
import os
import numpy as np
import sosie

def tasks():
    return len(os.listdir("/proc/self/task"))

x = np.random.default_rng(0).random((1, 3, 700, 700), np.float32)
sosie.ssim(x[0, 0, :16, :16], x[0, 0, :16, :16], data_range=1.0)  # one task
before = tasks()
for _ in range(5):
    sosie.ssim(x, 1 - x, data_range=1.0)
print(sosie.get_num_threads(), tasks() - before)
"""


@pytest.mark.parametrize(
    ("environment", "started"),
    [
        ({"SOSIE_NUM_THREADS": "1"}, 0),
        ({"SOSIE_NUM_THREADS": "3"}, 2),  # the caller works too
        ({"OMP_NUM_THREADS": "1"}, 0),
        ({"OMP_NUM_THREADS": "1", "SOSIE_NUM_THREADS": "2"}, 1),
        ({"OMP_NUM_THREADS": "1,4"}, 0),  # a list: of nested levels
    ],
    ids=str,
)
def test_environment_is_obeyed(
    environment: dict[str, str], started: int, run_python: Callable[..., str]
) -> None:
    environment = {"OPENBLAS_NUM_THREADS": "1", **environment}
    threads, found = map(int, run_python(COUNTED, **environment).split())
    assert threads == started + 1
    assert found == started


def test_torch_starts_the_only_threads(run_python: Callable[..., str]) -> None:
    # sosie's work is done by the team that torch's own operators woke; a second set of threads
    # would fight it for the cores.
    code = """
import os
import torch
import sosie
from sosie import _core

def tasks():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(3)
x = torch.rand(1, 3, 700, 700)
torch.nn.functional.avg_pool2d(x, 5)
before = tasks()
for _ in range(5):
    sosie.ssim(x, 1 - x, data_range=1.0)
print(_core.has_team(), tasks() - before)
"""
    assert run_python(code, OPENBLAS_NUM_THREADS="1").split() == ["True", "0"]


def test_one_thread_for_torch_is_one_thread(run_python: Callable[..., str]) -> None:
    code = COUNTED.replace("import sosie", "import sosie, torch").replace(
        "\nsosie.ssim", "\nx = torch.from_numpy(x)\nsosie.ssim", 1
    )
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "SOSIE_NUM_THREADS": "4"}
    _, started = map(int, run_python(code, **environment).split())
    assert started == 0


# --- Forks ----------------------------------------------------------------------------------------

FORKED = """
import os, signal
import numpy as np
import sosie
{setup}

def value():
    return float(sosie.ssim(x, y, data_range=1.0))

expected = value()  # threads are running now
for _ in range(3):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if value() == expected else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert value() == expected
"""
NUMPY_IMAGES = """
sosie.set_num_threads(3)
x, y = np.random.default_rng(0).random((2, 1, 3, 400, 400), np.float32)
"""
TORCH_IMAGES = """
import torch
torch.set_num_threads(3)
x, y = torch.rand(2, 1, 3, 400, 400)
torch.nn.functional.avg_pool2d(x, 5)
"""


@pytest.mark.parametrize("setup", [NUMPY_IMAGES, TORCH_IMAGES], ids=["numpy", "torch"])
def test_fork_after_use(setup: str, run_python: Callable[..., str]) -> None:
    # Python 3.12 warns of any fork in a process with threads; that it works is what is tested.
    run_python(FORKED.format(setup=setup), PYTHONWARNINGS="ignore")


def test_fork_while_another_thread_computes(run_python: Callable[..., str]) -> None:
    code = """
import os, signal, threading
import numpy as np
import sosie

sosie.set_num_threads(3)
x, y = np.random.default_rng(0).random((2, 1, 3, 400, 400), np.float32)
expected = float(sosie.ssim(x, y, data_range=1.0))
done = False

def busy():
    while not done:
        sosie.ssim(x, y, data_range=1.0)

other = threading.Thread(target=busy)
other.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if float(sosie.ssim(x, y, data_range=1.0)) == expected else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
done = True
other.join()
"""
    run_python(code, PYTHONWARNINGS="ignore")


def test_data_loader_with_two_workers(run_python: Callable[..., str]) -> None:
    code = """
import torch
import sosie

class Similarities(torch.utils.data.Dataset):
    images = torch.rand(12, 3, 300, 300, generator=torch.Generator().manual_seed(0))
    def __len__(self):
        return len(self.images)
    def __getitem__(self, i):
        return sosie.ssim(self.images[i], self.images[i - 1], data_range=1.0)

torch.set_num_threads(2)
pairs = Similarities()
expected = torch.stack([pairs[i] for i in range(len(pairs))])
for _ in range(2):
    loader = torch.utils.data.DataLoader(pairs, batch_size=3, num_workers=2)
    assert torch.equal(torch.cat(list(loader)), expected)
    assert torch.equal(torch.stack([pairs[i] for i in range(len(pairs))]), expected)
"""
    run_python(code, PYTHONWARNINGS="ignore")


# --- Callers at once ------------------------------------------------------------------------------


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_callers_at_once(library: str, threads: int) -> None:
    sosie.set_num_threads(threads)
    torch.set_num_threads(threads)
    pairs = []
    for i in range(8):
        x, y = np.random.default_rng(i).random((2, 1, 2, 100 + 40 * i, 200), np.float32)
        pairs.append((x, y) if library == "numpy" else (torch.from_numpy(x), torch.from_numpy(y)))

    def both(pair: tuple[Any, Any]) -> tuple[float, bytes]:
        x, y = pair
        value, similarity_map = sosie.ssim(x, y, data_range=1.0, return_map=True)
        return float(value), np.asarray(similarity_map).tobytes()

    expected = [both(pair) for pair in pairs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(both, pairs)) == expected


@pytest.mark.usefixtures("restored_threads")
def test_python_goes_on_during_a_call() -> None:
    x, y = _pair((1, 1, 3000, 3000), "float64")
    sosie.set_num_threads(1)
    ticks: list[float] = []
    stop = threading.Event()

    def clock() -> None:
        while not stop.wait(0.001):
            ticks.append(time.perf_counter())

    other = threading.Thread(target=clock)
    other.start()
    try:
        start = time.perf_counter()
        sosie.ssim(x, y, data_range=1.0)
        end = time.perf_counter()
    finally:
        stop.set()
        other.join()
    # A call that held the interpreter lock would let one tick through at most, at its very end.
    assert sum(start < tick < end for tick in ticks) >= 5
