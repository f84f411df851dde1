# SPDX-License-Identifier: Apache-2.0
"""How CUDA kernels are reached: pointers, strides, devices and streams, fallbacks, error texts.

The launcher is replaced at its one place, and CuPy by a few lines, so no device is needed.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import fake_cupy
import sosie
from emulator import Emulator, emulated, needs_emulator
from fake_cupy import DeviceArray
from sosie import arrays, backends, generation
from sosie.backends import cuda
from sosie.backends.cuda import distance_sets, sources
from sosie.backends.cuda import launcher as seam
from sosie.backends.cuda.layout import merged_axes

torch = pytest.importorskip("torch")

HAS_MODULE = seam.unusable_reason("cuda") != (
    "this build has no module for CUDA (it needs nvcc, see SOSIE_CUDA)"
)


class Recorder(Emulator):
    """Keeps what it is called with, and runs nothing."""

    def launch(self, *arguments: Any) -> None:
        """See ``sosie.backends.cuda.launcher.Launcher``."""
        self.calls = [*getattr(self, "calls", []), arguments]


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that looks like CuPy."""
    module = fake_cupy.module()
    monkeypatch.setitem(sys.modules, "cupy", module)
    known = dict(arrays._adapters)
    yield module
    arrays._adapters.clear()
    arrays._adapters.update(known)


@contextmanager
def recorded() -> Iterator[Recorder]:
    recorder = Recorder()
    with seam.use_launcher(recorder):
        yield recorder


def test_cupy_arrays_are_launched_on_where_they_are(cupy: Any) -> None:  # noqa: ARG001
    x = DeviceArray(np.zeros((2, 3, 8, 10), np.float32), device=1)
    y = DeviceArray(np.zeros((2, 3, 8, 20), np.float32), device=1)[..., ::2]
    with recorded() as recorder:
        result = sosie.weighted_ssd(x, y, reduction="none")
    assert isinstance(result, DeviceArray)
    assert result.device.id == 1
    kernel, grid, block, shared, parameters, device, stream, clear, clear_bytes = recorder.calls[0]
    assert kernel == "ssd_forward<float, false>"
    assert (grid, block, shared) == ((2, 1, 1), (256, 1, 1), 0)
    assert (device, stream) == (1, 100)
    assert (clear_bytes, clear % 4) == (8, 0)
    from sosie.backends.cuda.ssd import _Forward

    call = _Forward.from_buffer_copy(parameters)
    assert call.x.data == x.data.ptr
    assert call.y.data == y.data.ptr
    # The columns of y are 2 apart: one axis for both, as x's 1 and y's 2 walk all rows.
    assert (call.axes.axes, call.axes.count, call.pack) == (1, 240, 1)
    assert (call.x.strides[0], call.y.strides[0]) == (1, 2)
    assert (call.x.step, call.y.step) == (240, 480)


def test_arrays_on_different_devices_are_refused(cupy: Any) -> None:  # noqa: ARG001
    x, y = (DeviceArray(np.zeros((8, 8), np.float32), device=number) for number in (0, 1))
    with recorded() as recorder, pytest.raises(ValueError, match=r"on one device, got .*0.*1"):
        sosie.weighted_ssd(x, y)
    weight = DeviceArray(np.zeros((8, 8), np.float32), device=1)
    with recorded(), pytest.raises(ValueError, match=r"weights on .*0.* like the images"):
        sosie.weighted_ssd(x, x, weight)
    assert not hasattr(recorder, "calls")


def test_host_and_device_do_not_mix(cupy: Any) -> None:  # noqa: ARG001
    x = DeviceArray(np.zeros((8, 8), np.float32))
    with recorded(), pytest.raises(TypeError, match=r"of one array library, got .*DeviceArray"):
        sosie.weighted_ssd(x, x.values)


def test_an_unsupported_dtype_is_named(cupy: Any) -> None:  # noqa: ARG001
    x = DeviceArray(np.zeros((8, 8), np.int64))
    with recorded(), pytest.raises(TypeError, match=r"arrays of dtype uint8, .*, got int64"):
        sosie.weighted_ssd(x, x)


def _last(images: Any) -> Any:
    return np.moveaxis(images, 1, -1)


def _long(images: Any) -> Any:
    """Vectors of enough dimensions for CuPy to multiply them."""
    return images.reshape(216, 40)


@needs_emulator
@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: sosie.ssim(x, y, data_range=1.0),
        lambda x, y: sosie.ssim(x, y, data_range=1.0, reduction="none"),
        lambda x, y: sosie.ssim(x, y, data_range=1.0, reduction="channel"),
        lambda x, y: sosie.ssim(x, y, data_range=1.0, spec="scikit-image", return_map=True)[1],
        lambda x, y: sosie.ssim(x, y, data_range=1.0, spec="wang2004-downsample"),
        lambda x, y: sosie.ssim(x, y, data_range=1.0, mask=x[0, 0] > 0.2),
        lambda x, y: sosie.ssim(x[0], y[0], data_range=1.0, spatial_dims=3, window_size=3),
        lambda x, y: sosie.ssim((255 * x).astype(np.uint8), (255 * y).astype(np.uint8)),
        lambda x, y: sosie.ssim(_last(x), _last(y), data_range=1.0, channel_axis=-1),
        lambda x, y: sosie.ms_ssim(x, y, data_range=1.0, weights=(0.4, 0.6)),
        lambda x, y: sosie.weighted_ssd(x, y, x[:1, :, :1], reduction="mean"),
        sosie.mse,
        lambda x, y: sosie.psnr(x, y, data_range=1.0, crop_border=2),
        lambda x, y: sosie.euclidean_distance(x, y[:1, :1, :1]),
        lambda x, y: sosie.cosine_similarity(x, y, axis=1),
        sosie.cdist,
        lambda x, y: sosie.cdist(x[:, None, 0], y[None, :, 0], "cosine", weights=x[0, 0, 0]),
        lambda x, y: sosie.cdist(x[0, 0], sosie.pack(y[0, 0], "sqeuclidean"), "sqeuclidean"),
        lambda x, y: sosie.cdist(_long(x), _long(y)),
        lambda x, y: sosie.knn(x[0, 0], y[0, 1], 5).distances,
        lambda x, y: sosie.knn(_long(x), sosie.pack(_long(y)), 3, exclude_self=True).indices,
    ],
)  # fmt: skip
def test_cupy_arrays_in_public_functions(
    cupy: Any,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Any],
) -> None:
    """Values, without a copy to the host and without waiting for the device."""
    monkeypatch.setattr(distance_sets, "_PRODUCT_TILES", 1)
    generator = np.random.default_rng(0)
    x = generator.random((2, 3, 36, 40), dtype=np.float32)
    y = np.clip(x + generator.normal(0.0, 0.1, x.shape), 0.0, 1.0).astype(np.float32)
    with seam.use_launcher(Emulator()):
        found = call(DeviceArray(x), DeviceArray(y))
    assert isinstance(found, DeviceArray)
    # Maps of float32: see the tolerances of ssim_cases.py.
    np.testing.assert_allclose(found.values, call(x, y), rtol=1e-6, atol=1e-5)


@needs_emulator
def test_measures_of_generators_on_a_device(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """The features stay where they are: what comes to the host is a count per feature at most."""
    monkeypatch.setattr(generation, "_BLOCK", 20)
    generator = np.random.default_rng(0)
    real, fake = generator.standard_normal((2, 45, 40))
    fake[:20] += 0.3
    broken = real.copy()
    broken[[3, 7], [1, 2]] = np.inf, np.nan

    def to_host(array: DeviceArray) -> Any:
        assert array.values.size <= 45
        return array.values

    monkeypatch.setattr(DeviceArray, "get", to_host)
    with seam.use_launcher(Emulator()):
        found = sosie.prdc(DeviceArray(real), DeviceArray(fake), k=3)
        kernel = sosie.kernel_distance(DeviceArray(real), DeviceArray(fake))
        with pytest.raises(ValueError, match="real features that are finite, got 2 rows"):
            sosie.prdc(DeviceArray(broken), DeviceArray(fake))
        with pytest.raises(TypeError, match=r"both on one device or both in host memory.*Device"):
            sosie.prdc(DeviceArray(real), fake)
    assert found == sosie.prdc(real, fake, k=3)
    assert kernel == pytest.approx(sosie.kernel_distance(real, fake), rel=1e-12)


def test_sets_of_vectors_that_do_not_fit(cupy: Any) -> None:  # noqa: ARG001
    a, b = (DeviceArray(np.zeros((8, 3), np.float32), device=number) for number in (0, 1))
    with recorded() as recorder:
        with pytest.raises(ValueError, match=r"a and b on one device, got .*0.*1"):
            sosie.cdist(a, b)
        with pytest.raises(ValueError, match=r"weights on the device of the vectors, got .*1.*0"):
            sosie.cdist(a, a, weights=DeviceArray(np.ones(3), device=1))
        with pytest.raises(ValueError, match="finite weights of at least 0, got -1"):
            sosie.cdist(a, a, weights=[1.0, -1.0, 1.0])
        with pytest.raises(TypeError, match="equal dtype, got float32 and float64"):
            sosie.knn(a, DeviceArray(np.zeros((8, 3))), 1)
        with pytest.raises(ValueError, match="at most the 8 vectors of the database, got 9"):
            sosie.knn(a, a, 9)
    assert not hasattr(recorder, "calls")


def test_what_has_no_kernel_yet_says_so(cupy: Any) -> None:  # noqa: ARG001
    x = DeviceArray(np.zeros((8, 8), np.float32))
    with recorded(), pytest.raises(NotImplementedError, match=r"no CUDA kernel for .* yet"):
        cuda.template_search(x, x)


def test_a_host_backend_takes_no_device_array(cupy: Any) -> None:  # noqa: ARG001
    x = DeviceArray(np.zeros((8, 8), np.float32))
    with sosie.use_backend("reference"), pytest.raises(TypeError, match="'reference' computes on"):
        sosie.weighted_ssd(x, x)


# --- Sizes beyond 32 bits, of one number in memory ------------------------------------------------


def _huge(*shape: int) -> Any:
    return np.broadcast_to(np.float32(0.0), shape)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 1, 16, 2**31), "1, 16 and 2147483648"),
        ((1, 1, 2**31, 16), "1, 2147483648 and 16"),
        ((1, 1, 2**16, 2**15, 16), "1, 2147483648 and 16"),
        ((2**16, 2**15, 16, 16), "2147483648, 16 and 16"),
    ],
    ids=str,
)
def test_coordinates_of_images_have_32_bits(shape: tuple[int, ...], sizes: str) -> None:
    x = _huge(*shape)
    parameters = sosie.ssim_spec("wang2004").resolve((16,) * (len(shape) - 2), 1.0)
    with recorded() as recorder:
        with pytest.raises(ValueError, match=rf"fewer than 2147481600 .*, got {sizes} in shape"):
            cuda.ssim_forward(x, x, parameters)
        with pytest.raises(ValueError, match=f"got {sizes} in shape"):
            cuda.downsample_backward(
                _huge(1, 1, *(8,) * (len(shape) - 2)),
                shape,
                2,
                ((0, 0),) * (len(shape) - 2),
                "zero",
            )
    assert not hasattr(recorder, "calls")


def test_a_grid_has_fewer_than_2_31_blocks() -> None:
    # 2^39 numbers of the state, of which a block takes 256; in rows that no pack divides.
    state, gates = _huge(1, 1, 2**39 + 1), _huge(1, 4, 2**39 + 1)
    with recorded() as recorder, pytest.raises(ValueError, match=r"got \(2147483649, 1, 1\)"):
        cuda.lstm_forward(gates, None, state, None, None, state, state)
    assert not hasattr(recorder, "calls")


def _far_apart(values: Any) -> Any:
    """The same numbers in rows 2^30 bytes apart: of such memory there is what was touched."""
    rows, columns = values.shape[-2:]
    apart, noreserve = 2**30, 0x4000
    memory = mmap.mmap(-1, rows * apart, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | noreserve)
    flat = np.frombuffer(memory, values.dtype)
    far = np.lib.stride_tricks.as_strided(
        flat, (rows, columns), (apart, values.itemsize), writeable=True
    )
    far[...] = values.reshape(rows, columns)
    return far[(None,) * (values.ndim - 2)]


@needs_emulator
@pytest.mark.skipif(sys.platform != "linux", reason="reserves memory as Linux does")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(
    "call",
    [
        lambda x, y, p: cuda.ssim_forward(x, y, p)[0],
        lambda x, y, p: cuda.ssim_forward(x, y, p, mask=np.ones((1, 1, 1, 1), bool))[0],
        lambda x, y, p: cuda.ssim_backward(x, y, p, np.ones((1, 1)))[0],
        lambda x, *_: cuda.downsample_forward(x, 2, ((0, 0), (0, 0)), "zero"),
        lambda x, y, _: cuda.ssd_forward(x, y),
        lambda x, y, _: cuda.euclidean_forward(x[0, 0], y[0, 0], 1),
        lambda x, y, _: cuda.euclidean_forward(x[0, 0], y[0, 0], 0),
        lambda x, y, _: cuda.cdist_forward(x[0, 0], y[0, 0], "euclidean"),
        lambda x, y, _: cuda.knn_forward(x[0, 0], y[0, 0], 3, "cosine")[1],
    ],
)  # fmt: skip
def test_strides_beyond_32_bits(call: Callable[..., Any], dtype: str) -> None:
    generator = np.random.default_rng(0)
    x, y = (generator.integers(0, 256, (1, 1, 18, 20)).astype(dtype) for _ in range(2))
    parameters = sosie.ssim_spec("wang2004").resolve((18, 20), 255.0)
    with emulated():
        expected = call(x, y, parameters)
        found = call(_far_apart(x), _far_apart(y), parameters)
    # Rows that do not follow each other are not merged: sums are added in another order.
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def _beginning_at(values: Any, element: int) -> Any:
    """A copy that begins so many elements behind a multiple of 16 bytes."""
    memory = np.zeros(values.size + 32, values.dtype)
    first = -(memory.ctypes.data // values.itemsize) % (16 // values.itemsize) + element
    copy = memory[first : first + values.size].reshape(values.shape)
    copy[...] = values
    return copy


@needs_emulator
@pytest.mark.parametrize("element", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_arrays_that_begin_anywhere(dtype: str, element: int) -> None:
    """Where packs of elements cannot be read, which the emulator would say, single ones are."""
    generator = np.random.default_rng(0)
    pair = [generator.integers(0, 9, (2, 3, 16, 32)).astype(dtype) for _ in range(2)]
    weight = pair[1].astype(np.float32)

    def results(x: Any, y: Any, w: Any) -> list[Any]:
        rows = x[0, 0], y[0, 0]
        value = cuda.euclidean_forward(*rows, 1)
        found = [
            cuda.ssd_forward(x, y, w),
            *cuda.ssd_backward(x, y, w, np.ones((1, 2)), need_y=True, need_weight=True),
            value,
            *cuda.euclidean_backward(*rows, value, np.ones_like(value), 1),
            cuda.cdist_forward(*rows, "euclidean"),
        ]
        if dtype != "uint8":
            gates = _beginning_at(np.tile(x, (1, 4, 1, 1)), element)
            hidden, cell = np.empty_like(x), w.astype("f8" if dtype == "float64" else "f4")
            cuda.lstm_forward(gates, None, cell, None, None, hidden, cell)
            found += [hidden, cell]
        return found

    with emulated():
        expected = results(*(_beginning_at(a, 0) for a in (*pair, weight)))
        found = results(*(_beginning_at(a, element) for a in (*pair, weight)))
    for one, other in zip(found, expected, strict=True):
        if other is not None:  # sums are added in another order
            np.testing.assert_allclose(one, other, rtol=1e-6)


# --- Who launches ---------------------------------------------------------------------------------


def _module(reason: str) -> Any:
    return types.SimpleNamespace(unusable_reason=lambda: reason, launch=None)


@pytest.mark.parametrize(
    ("reasons", "chosen"),
    [
        ({"sosie._cuda": "", "sosie.backends.cupy": ""}, "sosie._cuda"),
        ({"sosie._cuda": "no device", "sosie.backends.cupy": ""}, "sosie.backends.cupy"),
        ({"sosie.backends.cupy": ""}, "sosie.backends.cupy"),
    ],
)
def test_order_of_launchers(
    monkeypatch: pytest.MonkeyPatch, reasons: dict[str, str], chosen: str
) -> None:
    modules = {name: _module(reason) for name, reason in reasons.items()}

    def load(name: str) -> Any:
        if name not in modules:
            raise ImportError(name)
        return modules[name]

    monkeypatch.setattr(seam, "_default", None)
    monkeypatch.setattr(seam.importlib, "import_module", load)
    assert seam.launcher() is modules[chosen]


def test_without_anybody_to_launch_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(name: str) -> Any:
        if name == "sosie._cuda":
            return _module("the NVIDIA driver serves CUDA 11.8, this build needs CUDA 13.0")
        raise ImportError("No module named 'cupy'")

    monkeypatch.setattr(seam, "_default", None)
    monkeypatch.setattr(seam.importlib, "import_module", load)
    with pytest.raises(
        RuntimeError, match=r"serves CUDA 11\.8.*CuPy cannot be imported.*cupy-cuda"
    ):
        seam.launcher()
    with (
        pytest.raises(RuntimeError, match=r"'cupy' is not available: CuPy cannot"),
        sosie.use_backend("cupy"),
    ):
        pass


@pytest.mark.skipif(not HAS_MODULE, reason="built without nvcc")
def test_the_module_refuses_what_does_not_fit() -> None:
    from sosie import _cuda

    launch: Callable[..., None] = _cuda.launch
    with pytest.raises(ValueError, match="no kernel of_that_name"):
        launch("of_that_name", (1, 1, 1), (1, 1, 1), 0, b"", 0, 0, 0, 0)
    with pytest.raises(ValueError, match=r"takes \d+ bytes of parameters, got 3"):
        launch("ssd_forward<float, false>", (1, 1, 1), (1, 1, 1), 0, b"abc", 0, 0, 0, 0)


@pytest.mark.skipif(not HAS_MODULE, reason="built without nvcc")
def test_structs_are_as_long_as_the_kernels_say() -> None:
    from sosie import _cuda
    from sosie.backends.cuda import distance, distance_sets, paired, recurrent, ssd, ssim

    structs = {
        "downsample_backward<double>": ssim._Downsample,
        "ssim_forward<float, 11>": ssim._CALLS["float32"],
        "ssim_general_gradient<double, true>": ssim._CALLS["float64"],
        "cdist_backward<float>": distance._Backward,
        "cdist_finish<float, true>": distance_sets._Forward,
        "distance_gradient<double>": distance._Gradient,
        "distance_norms<double>": distance_sets._Norms,
        "distance_rows<float>": distance_sets._Rows,
        "gru_backward<half, true>": recurrent._GRUBackward,
        "gru_forward<half, true>": recurrent._GRUForward,
        "knn_backward<double>": distance._NeighbourBackward,
        "knn_merge<float>": distance._Merge,
        "knn_search<float>": distance._Search,
        "lstm_backward<half, true>": recurrent._LSTMBackward,
        "lstm_forward<half, true>": recurrent._LSTMForward,
        "lstm_peephole_backward<half>": recurrent._PeepholeBackward,
        "paired_backward<half>": paired._Backward,
        "paired_forward<half>": paired._Forward,
        "paired_shared_backward<half>": paired._SharedBackward,
        "ssd_backward<half, true>": ssd._Backward,
        "ssd_forward<half, true>": ssd._Forward,
        "ssd_weight_backward<half>": ssd._WeightBackward,
    }
    for kernel, struct in structs.items():
        with pytest.raises(ValueError, match=f"takes {ctypes.sizeof(struct)} bytes"):
            _cuda.launch(kernel, (1, 1, 1), (1, 1, 1), 0, b"", 0, 0, 0, 0)


@pytest.mark.skipif(not HAS_MODULE, reason="built without nvcc")
def test_without_a_device_a_launch_fails_with_a_sentence() -> None:
    from sosie import _cuda
    from sosie.backends.cuda.ssd import _Forward

    if _cuda.device_count():
        pytest.skip("there is a device here")
    assert _cuda.unusable_reason()
    kernel, parameters = "ssd_forward<float, false>", bytes(_Forward())
    with pytest.raises(RuntimeError, match="CUDA could not run anything on device 0: no"):
        _cuda.launch(kernel, (1, 1, 1), (256, 1, 1), 0, parameters, 0, 0, 0, 0)


# --- CuPy -----------------------------------------------------------------------------------------


@pytest.fixture
def launched_by_cupy(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, list[Any]]]:
    """The launcher that uses CuPy, on the parts of it that it uses; and what is done to them."""
    done: list[Any] = []

    class Function:
        shared_size_bytes = 272

        def __setattr__(self, name: str, value: Any) -> None:
            done.append((name, value))

        def __call__(self, grid: Any, block: Any, arguments: Any, *, shared_mem: int) -> None:
            (struct,) = arguments
            done.append(("launch", grid, block, bytes(struct), shared_mem))

    class Module:
        def __init__(self, code: str, options: Any, name_expressions: Any) -> None:
            assert "__global__" in code
            assert options == ("-std=c++17",)
            done.append(("compile", *name_expressions))

        def get_function(self, name: str) -> Any:
            done.append(("get", name))
            return Function()

    @contextmanager
    def entered(what: str, value: Any) -> Iterator[None]:
        done.append((what, value))
        yield

    class Device:
        def __init__(self, number: int) -> None:
            self.number = number
            self.attributes = {"MaxSharedMemoryPerBlockOptin": 100 << 10, "MultiProcessorCount": 8}
            self.scope = entered("device", number)

        def __enter__(self) -> None:
            self.scope.__enter__()

        def __exit__(self, *why: object) -> None:
            self.scope.__exit__(*why)

    module: Any = types.ModuleType("cupy")
    module.RawModule = Module
    module.cuda = types.SimpleNamespace(
        Device=Device, Stream=type("Stream", (), {}),
        ExternalStream=lambda address: entered("stream", address),
        runtime=types.SimpleNamespace(
            memsetAsync=lambda *arguments: done.append(("clear", *arguments))
        ),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.delitem(sys.modules, "sosie.backends.cupy", raising=False)
    from sosie.backends import cupy as by_cupy

    yield by_cupy, done
    del sys.modules["sosie.backends.cupy"]


def test_cupy_compiles_once_and_launches_where_it_is_told(launched_by_cupy: Any) -> None:
    by_cupy, done = launched_by_cupy
    kernel, name = "ssd_forward<half, true>", "sosie::ssd_forward<sosie::half, true>"
    for stream in (5, 6):
        by_cupy.launch(kernel, (3, 1, 1), (256, 1, 1), 0, b"abc", 1, stream, 4096, 8)
    launch = ("launch", (3, 1, 1), (256, 1, 1), b"abc", 0)
    assert done == [
        ("device", 1), ("stream", 5), ("compile", name), ("get", name), ("clear", 4096, 0, 8, 5),
        launch,
        ("device", 1), ("stream", 6), ("clear", 4096, 0, 8, 6), launch,
    ]  # fmt: skip
    done.clear()
    by_cupy.launch(kernel, (1, 1, 1), (32, 1, 1), 90 << 10, b"", 0, 0, 0, 0)  # another device
    # As much as the kernel's own variables leave, for whoever else launches it meanwhile.
    assert done[-2:] == [
        ("max_dynamic_shared_size_bytes", (100 << 10) - 272),
        ("launch", (1, 1, 1), (32, 1, 1), b"", 90 << 10),
    ]
    assert ("compile", name) in done


# --- Sources for CuPy -----------------------------------------------------------------------------


def test_sources_are_shipped_and_include_nothing_else() -> None:
    folder = sources._folder()
    names = sorted(file.name for file in folder.iterdir())
    assert {"common.cuh", "ssd.cuh", "ssd-list.hpp"} <= set(names)
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
        outside = [line for line in text.splitlines() if line.startswith("#include <")]
        assert outside == [], name


def test_a_fresh_interpreter_without_cupy_imports_none(run_python: Callable[..., str]) -> None:
    code = """
import sys, numpy as np, sosie
x = np.zeros((9, 9), np.float32)
sosie.weighted_ssd(x, x)
print(sorted(name for name in sys.modules if "cupy" in name or name == "sosie._cuda"))
"""
    assert run_python(code).strip() == "[]"


# --- Layouts, torch -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "strides", "lengths", "merged"),
    [
        ((2, 3, 4), [(12, 4, 1)], [24], [[1]]),
        ((2, 3, 4), [(1, 8, 2)], [24], [[1]]),
        ((2, 3, 4), [(1, 9, 2)], [3, 8], [[9, 1]]),
        ((2, 3, 4), [(12, 4, 1), (0, 4, 1)], [2, 12], [[12, 1], [0, 1]]),
        ((1, 1), [(7, 9)], [1], [[1]]),
        ((4, 5), [(-5, -1)], [20], [[-1]]),
    ],
)
def test_merged_axes(shape: Any, strides: Any, lengths: Any, merged: Any) -> None:
    assert merged_axes(shape, strides) == (lengths, merged)


@needs_emulator
def test_torch_derivatives_go_through_the_kernels() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, weight = (
        torch.rand(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 2, 5, 6), (2, 2, 5, 6), (1, 2, 1, 6))
    )
    with emulated() as emulator:
        assert torch.autograd.gradcheck(
            lambda *given: sosie.weighted_ssd(*given, reduction="mean"), (x, y, weight)
        )
    assert {name.partition("<")[0] for name in emulator.launched} == {
        "ssd_forward", "ssd_backward", "ssd_weight_backward",
    }  # fmt: skip


@needs_emulator
def test_bfloat16_and_channels_last() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, 3, 9, 16, generator=generator) for _ in range(2))
    layout = torch.channels_last
    x, y = (image.to(torch.bfloat16, memory_format=layout).requires_grad_() for image in (x, y))
    sosie.weighted_ssd(x, y, reduction="mean").backward()
    expected = x.grad
    x.grad = None
    with emulated():
        sosie.weighted_ssd(x, y, reduction="mean").backward()
    assert x.grad.is_contiguous(memory_format=layout)
    # Both round once, to 8 bits.
    torch.testing.assert_close(x.grad, expected, rtol=2.0**-8, atol=0.0)


def test_backends_are_listed() -> None:
    assert {"cuda", "cupy"} <= set(backends.available_backends())


@needs_emulator
def test_the_kernel_that_measures_the_peak_computes() -> None:
    class Call(ctypes.Structure):
        _fields_ = (("iterations", ctypes.c_int), ("results", ctypes.c_void_p))

    results = np.full(2, 2.0, np.float32)
    with emulated():
        seam.launch(
            arrays.adapter(results), results, "fma_peak<float>", 2, 256,
            Call(3, results.ctypes.data),
        )  # fmt: skip
    # 2 is a fixed point: other factors or terms would lead elsewhere.
    np.testing.assert_array_equal(results, 2.0)
