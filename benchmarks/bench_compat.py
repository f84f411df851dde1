# SPDX-License-Identifier: Apache-2.0
"""Drop-ins and what they stand in for, side by side, in one run.

Every function of `sosie.compat` whose original is installed is called with the same arguments as
the original, on one thread unless told otherwise: rounds in turn, the ratio within a round, the
median over rounds. Results are compared before any time counts. Everything runs in one process,
once for each setting of the C library's allocator; see `benchmarks.machine.ALLOCATORS`.

Run with `python -m benchmarks.bench_compat`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import statistics
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks import machine
from benchmarks.tables import Table

__all__ = ["main"]

Call = Callable[[], Any]

#: Seconds that a block of calls takes at least, and how many rounds of blocks there are.
_BLOCK, _ROUNDS = 0.03, 5
#: Relative difference of results, beyond which no time counts: float32 computed in other orders.
_TOLERANCE = 1e-3

_SCIKIT_LEARN = (
    "euclidean_distances",
    "cosine_similarity",
    "cosine_distances",
    "pairwise_distances_argmin_min",
)

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Case:
    """One function on arguments of one size.

    Attributes
    ----------
    peer : str
        The drop-in's module, which is named after the library.
    function : str
        What is called.
    size : str
        What it is called with.
    module : str
        Where the original is.
    arguments : tuple
        Positional arguments; those that record gradients are differentiated by.
    options : dict
        Keyword arguments.
    """

    peer: str
    function: str
    size: str
    module: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def calls(self) -> tuple[Call, Call]:
        """Ours and theirs, ready to be timed."""
        ours = importlib.import_module(f"sosie.compat.{self.peer}")
        return self._call(ours), self._call(importlib.import_module(self.module))

    def _call(self, module: types.ModuleType) -> Call:
        function = getattr(module, self.function)
        arguments, options = self.arguments, self.options
        if self.function[0].isupper():  # a class: its instance is called
            function, options = function(**options), {}
        watched = [a for a in arguments if getattr(a, "requires_grad", False)]
        if not watched:
            return lambda: function(*arguments, **options)

        def differentiate() -> Any:
            import torch

            return torch.autograd.grad(function(*arguments, **options).mean(), watched)

        return differentiate


# --- What is measured -----------------------------------------------------------------------------


def _cases() -> Iterator[Case]:
    yield from _similarity_of_tensors()
    yield from _similarity_of_arrays()
    yield from _distances_of_arrays()
    yield from _distances_of_tensors()


def _similarity_of_tensors() -> Iterator[Case]:
    import torch

    x, y = (torch.rand(4, 3, 256, 256, generator=_seeded(i)) for i in range(2))
    trained = x.clone().requires_grad_()
    size = "4x3x256x256, gradient"
    one = {"data_range": 1.0}
    yield Case("pytorch_msssim", "ssim", size, "pytorch_msssim", (trained, y), one)
    yield Case("pytorch_msssim", "ms_ssim", size, "pytorch_msssim", (trained, y), one)
    image, pairwise = "torchmetrics.functional.image", "torchmetrics.functional.pairwise"
    name = "structural_similarity_index_measure"
    yield Case("torchmetrics", name, "4x3x256x256", image, (x, y), one)
    yield Case("torchmetrics", f"multiscale_{name}", "4x3x256x256", image, (x, y), one)
    yield Case("torchmetrics", "peak_signal_noise_ratio", "4x3x256x256", image, (x, y), one)
    a, b = (torch.randn(2000, 64, generator=_seeded(i)) for i in range(2))
    for name in ("pairwise_euclidean_distance", "pairwise_cosine_similarity"):
        yield Case("torchmetrics", name, "2000 to 2000, 64 dimensions", pairwise, (a, b), {})
    yield Case("piq", "SSIMLoss", size, "piq", (trained, y), {})
    yield Case("piq", "MultiScaleSSIMLoss", size, "piq", (trained, y), {})
    yield Case("kornia", "ssim", "4x3x256x256", "kornia.metrics", (x, y, 11), {})
    yield Case("kornia", "SSIMLoss", size, "kornia.losses", (trained, y), {"window_size": 11})
    small = (trained[:1, :, :128, :128].detach().requires_grad_(), y[:1, :, :128, :128])
    yield Case("kornia", "MS_SSIMLoss", "1x3x128x128, gradient", "kornia.losses", small, {})
    volume, other = (torch.rand(1, 1, 48, 48, 48, generator=_seeded(i)) for i in range(2))
    pair = (volume.requires_grad_(), other)
    yield Case("kornia", "ssim3d", "1x1x48x48x48", "kornia.metrics", (other, other**2, 11), {})
    yield Case("monai", "SSIMLoss", size, "monai.losses", (trained, y), {"spatial_dims": 2})
    yield Case(
        "monai", "SSIMLoss", "1x1x48x48x48, gradient", "monai.losses", pair, {"spatial_dims": 3}
    )


def _similarity_of_arrays() -> Iterator[Case]:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (512, 512), np.uint8)
    y = np.clip(x + generator.integers(-20, 21, x.shape), 0, 255).astype(np.uint8)
    module = "skimage.metrics"
    for options in ({}, {"gaussian_weights": True}, {"full": True}, {"gradient": True}):
        size = ", ".join(["512x512, uint8", *options])
        yield Case("skimage", "structural_similarity", size, module, (x, y), options)
    for name in ("mean_squared_error", "peak_signal_noise_ratio", "normalized_root_mse"):
        yield Case("skimage", name, "512x512, uint8", module, (x, y), {})


def _distances_of_arrays() -> Iterator[Case]:
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((2, 2000, 64))
    size = "2000 to 2000, 64 dimensions"
    for metric in ("euclidean", "sqeuclidean", "cosine"):
        yield Case(
            "scipy", "cdist", f"{size}, {metric}", "scipy.spatial.distance", (a, b, metric), {}
        )
    module = "sklearn.metrics.pairwise"
    for dtype in ("float64", "float32"):
        pair = a.astype(dtype), b.astype(dtype)
        for name in _SCIKIT_LEARN:
            yield Case("sklearn", name, f"{size}, {dtype}", module, pair, {})
    a, b = a.astype(np.float32), generator.standard_normal((20000, 64)).astype(np.float32)
    yield Case("faiss", "knn", "2000 to 20000, 64 dimensions, k = 10", "faiss", (a, b, 10), {})
    yield Case("faiss", "pairwise_distances", size, "faiss", (a, b[:2000]), {})
    yield Case("prdc", "compute_prdc", size, "prdc", (a, b[:2000], 5), {})


def _distances_of_tensors() -> Iterator[Case]:
    import torch

    a, b = (torch.randn(2000, 64, generator=_seeded(i)) for i in range(2))
    watched = a.clone().requires_grad_()
    functional = "torch.nn.functional"
    size = "2000 to 2000, 64 dimensions"
    yield Case("torch_functional", "cdist", size, "torch", (a, b), {})
    yield Case("torch_functional", "cdist", f"{size}, gradient", "torch", (watched, b), {})
    x, y = (torch.randn(20000, 256, generator=_seeded(i)) for i in range(2))
    for name in ("pairwise_distance", "cosine_similarity"):
        yield Case("torch_functional", name, "20000 pairs of 256", functional, (x, y), {})
    weight, trained = torch.rand(x.shape, generator=_seeded(2)), x.clone().requires_grad_()
    yield Case(
        "torch_functional", "mse_loss", "20000x256, weights, gradient", functional,
        (trained, y), {"weight": weight},
    )  # fmt: skip


def _seeded(seed: int) -> Any:
    import torch

    return torch.Generator().manual_seed(seed)


# --- Measuring ------------------------------------------------------------------------------------


def _measure(threads: int) -> Iterator[dict[str, Any]]:
    """Times of all cases, in this process."""
    import torch

    from sosie import set_num_threads

    machine.pin(threads)
    torch.set_num_threads(threads)
    set_num_threads(threads)
    for name in ("torchmetrics", "monai.losses"):  # they ask for torchvision, and do without it
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("benchmarks.ssim_peers").import_library("piq")
    for case in _cases():
        row = {"peer": case.peer, "function": case.function, "size": case.size}
        try:
            ours, theirs = case.calls()
        except ImportError as error:
            yield {**row, "missing": str(error)}
            continue
        yield {**row, "difference": _difference(ours(), theirs()), **_race(ours, theirs)}


def _difference(ours: Any, theirs: Any) -> float:
    """Largest difference of results, relative to the largest number."""
    if isinstance(theirs, dict):
        ours, theirs = list(ours.values()), list(theirs.values())
    if isinstance(theirs, (tuple, list)):
        return max(_difference(own, other) for own, other in zip(ours, theirs, strict=True))
    own, other = (
        np.asarray(getattr(each, "detach", lambda e=each: e)()) for each in (ours, theirs)
    )
    if other.dtype.kind == "i":  # neighbours, which near ties may exchange
        return float((own != other).mean())
    return float(np.abs(own - other).max() / max(np.abs(other).max(), 1e-30))


def _race(ours: Call, theirs: Call) -> dict[str, Any]:
    """Median milliseconds of both, and the median ratio within a round."""
    pairs = []
    for number in range(_ROUNDS):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        seconds = {call: _seconds(call) for call in order}
        pairs.append((seconds[ours], seconds[theirs]))
    own, other = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    return {"ours": own, "theirs": other, "ratio": ratio}


def _seconds(call: Call) -> float:
    """Of one call: the least in a block."""
    least, end = float("inf"), time.perf_counter() + _BLOCK
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        least = min(least, now - start)
        if now >= end:
            return least


# --- Reporting ------------------------------------------------------------------------------------


@app.command()
def main(
    *,
    threads: Annotated[int, typer.Option(help="Threads of every library.")] = 1,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write tables.")] = None,
    measure: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Measure the drop-ins beside their originals on this machine.

    Exit status 1 if a result is not the original's.
    """
    if measure:
        warnings.simplefilter("ignore")
        for row in _measure(threads):
            print(json.dumps(row), flush=True)
        return
    rows = {name: list(_in_environment(threads, name)) for name in machine.ALLOCATORS}
    table = _table(rows, threads)
    Console(width=160).print(table.rich())
    if markdown_file is not None:
        record = Table("Machine", ["", ""], numbers=False)
        record.rows += [(name, str(value)) for name, value in machine.machine_record().items()]
        markdown_file.write_text(record.markdown() + "\n" + table.markdown())
    wrong = [row for each in rows.values() for row in each if row.get("difference", 0) > _TOLERANCE]
    for row in wrong:
        print(
            f"{row['peer']}.{row['function']} differs by {row['difference']:.1e}", file=sys.stderr
        )
    raise typer.Exit(1 if wrong else 0)


def _in_environment(threads: int, allocator: str) -> Iterator[dict[str, Any]]:
    """Rows measured in a process with this allocator."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.bench_compat",
        "--measure",
        "--threads",
        str(threads),
    ]
    # sosie is a backend of scikit-image, which would hand it the original's calls.
    environment = machine.environment(threads, allocator) | {"SKIMAGE_NO_DISPATCHING": "1"}
    finished = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return (json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{"))


def _table(rows: dict[str, list[dict[str, Any]]], threads: int) -> Table:
    kept, plain = rows["no-fault"], rows["default"]
    title = f"Drop-ins, {threads} thread{'s' * (threads > 1)}: how many times faster"
    columns = ["function", "of", "ms", "original", "faster, no-fault", "default"]
    table = Table(title, columns)
    for row, other in zip(kept, plain, strict=True):
        name = f"{row['peer']}.{row['function']}"
        if "missing" in row:
            table.notes.append(f"{name}: {row['missing']}")
            continue
        numbers = [_three_digits(row["ours"]), _three_digits(row["theirs"])]
        ratios = [f"{_two_digits(each['ratio'])}x" for each in (row, other)]
        table.rows.append((name, row["size"], *numbers, *ratios))
    table.notes.append("milliseconds with the allocator that keeps its memory")
    return table


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 100 else f"{number:.3g}"


def _two_digits(number: float) -> str:
    return f"{round(number, -1):.0f}" if number >= 100 else f"{number:.2g}"


if __name__ == "__main__":
    sys.exit(app())
