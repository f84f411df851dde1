# SPDX-License-Identifier: Apache-2.0
from collections.abc import Sequence
from typing import TypeAlias

from sosie.arrays import Argument

#: An array with its shape, for arrays of any number of axes.
_Shaped: TypeAlias = tuple[tuple[int, ...], Argument]

class PackedSet:
    @property
    def nbytes(self) -> int: ...

class SSIMPlan:
    def __init__(
        self,
        taps: Sequence[Sequence[float]],
        border: int,
        crop: Sequence[tuple[int, int]],
        stride: int,
        covariance_scale: float,
        c1: float,
        c2: float,
        epsilon: float,
        clamp_variance: bool,
        clamp_value: tuple[float, float] | None,
        data_range: float,
        kind: int,
    ) -> None: ...
    def forward(
        self,
        shape: tuple[int, ...],
        x: Argument,
        y: Argument,
        mask: Argument | None,
        map: Argument | None,  # noqa: A002
        values: int,
        threads: int,
    ) -> None: ...
    def backward(
        self,
        shape: tuple[int, ...],
        x: Argument,
        y: Argument,
        mask: Argument | None,
        upstream: Argument,
        upstream_is_map: bool,
        grad_x: Argument,
        grad_y: Argument | None,
        l1_weights: int,
        values: int,
        l1: int,
        threads: int,
    ) -> None: ...

def address(array: object) -> int: ...
def compiled_isas() -> list[str]: ...
def distance_backward(
    shape: Sequence[int],
    a: Argument,
    b: Argument,
    metric: int,
    weights: Sequence[float],
    upstream: Argument,
    distances: Argument,
    gradient: Argument,
    threads: int,
) -> None: ...
def distance_forward(
    shape: Sequence[int],
    a: Argument,
    b: Argument,
    metric: int,
    weights: Sequence[float],
    packed: PackedSet | None,
    distances: Argument,
    threads: int,
) -> None: ...
def downsample_backward(
    shape: tuple[int, ...],
    reduced_shape: tuple[int, ...],
    factor: int,
    padding: Sequence[tuple[int, int]],
    border: int,
    full: Argument,
    reduced: Argument,
    threads: int,
) -> None: ...
def downsample_forward(
    shape: tuple[int, ...],
    reduced_shape: tuple[int, ...],
    factor: int,
    padding: Sequence[tuple[int, int]],
    border: int,
    full: Argument,
    reduced: Argument,
    threads: int,
) -> None: ...
def edges_backward(
    shape: Sequence[int],
    a: Argument,
    b: Argument,
    metric: int,
    offsets: int,
    partners: int,
    factors: int,
    gradient: Argument,
    threads: int,
) -> None: ...
def fma_peak(iterations: int) -> float: ...
def gru_backward(
    shape: tuple[int, int, int, float, bool],
    part: int,
    arrays: Sequence[int],
    threads: int,
) -> None: ...
def gru_forward(
    shape: tuple[int, int, int, float, bool],
    part: int,
    arrays: Sequence[int],
    threads: int,
) -> None: ...
def has_team() -> bool: ...
def isa() -> str: ...
def lanes() -> int: ...
def lstm_backward(
    shape: tuple[int, int, int, float, bool],
    arrays: Sequence[int],
    peephole_rows: int,
    threads: int,
) -> None: ...
def lstm_forward(
    shape: tuple[int, int, int, float, bool],
    arrays: Sequence[int],
    peephole_rows: int,
    threads: int,
) -> None: ...
def nearest_neighbours(
    shape: Sequence[int],
    a: Argument,
    b: Argument,
    metric: int,
    k: int,
    exclude_self: bool,
    packed: PackedSet | None,
    distances: int,
    indices: int,
    threads: int,
) -> None: ...
def pack_vectors(shape: Sequence[int], b: Argument, metric: int, threads: int) -> PackedSet: ...
def paired_backward(
    kind: int,
    shape: Sequence[int],
    axis: int,
    x: _Shaped | None,
    y: _Shaped | None,
    value: _Shaped | None,
    norm_x: _Shaped | None,
    norm_y: _Shaped | None,
    upstream: _Shaped | None,
    grad_x: _Shaped | None,
    grad_y: _Shaped | None,
    floor: float,
    replacement: float,
    threads: int,
) -> None: ...
def paired_forward(
    kind: int,
    shape: Sequence[int],
    axis: int,
    x: _Shaped | None,
    y: _Shaped | None,
    value: _Shaped | None,
    norm_x: _Shaped | None,
    norm_y: _Shaped | None,
    floor: float,
    replacement: float,
    threads: int,
) -> None: ...
def read_peak(address: int, count: int) -> float: ...
def select_isa(name: str) -> None: ...
def ssd_backward(
    shape: tuple[int, ...],
    per_image: bool,
    x: Argument,
    y: Argument,
    weight: Argument | None,
    upstream: int,
    grad_x: Argument | None,
    grad_y: Argument | None,
    grad_weight: Argument | None,
    sums: int,
    threads: int,
) -> tuple[float, float]: ...
def ssd_forward(
    shape: tuple[int, ...],
    per_image: bool,
    x: Argument,
    y: Argument,
    weight: Argument | None,
    sums: int,
    threads: int,
) -> tuple[float, float]: ...
def supported_isas() -> list[str]: ...
def use_large_pages(address: int, size: int) -> None: ...
def template_search(
    shape: tuple[int, ...],
    template_shape: tuple[int, ...],
    image: Argument,
    values: int,
    weights: int,
    map: Argument,  # noqa: A002
    threads: int,
) -> None: ...
def use_team(address: int) -> None: ...
def winograd_finish(
    inputs: int,
    outputs: int,
    sums: int,
    bias_sums: int,
    weight: int,
    bias: int,
    threads: int,
) -> None: ...
def winograd_forward(
    shape: tuple[int, int, int],
    packed: tuple[int, int, int, int],
    bias: int,
    sources: tuple[tuple[int, int], tuple[int, int]],
    targets: tuple[tuple[int, int], tuple[int, int]],
    threads: int,
) -> None: ...
def winograd_gradient(
    shape: tuple[int, int, int],
    sources: tuple[tuple[int, int], tuple[int, int]],
    upstream: tuple[int, int],
    inputs: int,
    sums: int,
    bias: int,
    threads: int,
) -> None: ...
def winograd_gradient_ranges(outputs: int) -> int: ...
def winograd_gradient_size(inputs: int, outputs: int) -> int: ...
def winograd_lstm_forward(
    shape: tuple[int, int, int],
    packed: tuple[int, int, int, int],
    bias: int,
    sources: tuple[tuple[int, int], tuple[int, int]],
    gates: tuple[int, int, float, bool],
    arrays: tuple[int, int, int, int, int],
    peephole_rows: int,
    threads: int,
) -> None: ...
def winograd_pack(weight: int, packed: tuple[int, int, int, int], threads: int) -> None: ...
def winograd_packed_size(inputs: int, outputs: int, more_outputs: int) -> int: ...
