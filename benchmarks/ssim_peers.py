# SPDX-License-Identifier: Apache-2.0
"""Who takes part in the SSIM benchmark, each called as its users call it.

A contender says which cases it does, and by which convention of `sosie.ssim`: its value has to
agree with that, and sosie is timed against it doing the same. Conversions that its users' data
would not need (channel order, a 4-byte pixel format, a range of 255) happen before the clock
starts.

Importing this module imports no contender.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import versions
from benchmarks.race import Budget, Convention, Family
from benchmarks.ssim_cases import CASES, Case, images
from benchmarks.workers import Prepared

__all__ = ["CONTENDERS", "FAMILY", "Contender", "load", "stand_in_for_torchvision"]

Image = NDArray[Any]
#: Library, case and convention to a function of two images, which are arrays of its library.
Build = Callable[[types.ModuleType, Case, Convention], Callable[[Any, Any], Any]]


@dataclass(frozen=True)
class Contender:
    """A library that computes structural similarity.

    Attributes
    ----------
    name : str
        What it is called on the command line and in tables.
    module : str
        What is imported.
    build : callable
        Makes the function that is called.
    conventions : mapping of str to mapping
        For each kind of case it does, the arguments with which sosie computes the same.
    arrays : {"numpy", "torch", "tensorflow"}
        Whose arrays `build`'s function takes. Those of torch are differentiable.
    dtypes : tuple of str
        Pixel types it takes.
    gradient : bool
        Whether it does backward passes.
    compiled : bool
        Whether the function is compiled by torch.compile.
    forward : bool
        Whether it is called without gradient too.
    ours : bool
        Whether this is sosie itself, which does every convention.
    value_tolerance : float
        How far its value may be from sosie's by the same convention.
    least_ratio : float or None
        How many times faster than this contender sosie is meant to be, forward.
    least_gradient_ratio : float or None
        The same for forward and backward.
    """

    name: str
    module: str
    build: Build
    conventions: Mapping[str, Convention] = field(default_factory=dict)
    arrays: str = "torch"
    dtypes: tuple[str, ...] = ("float32",)
    forward: bool = True
    gradient: bool = False
    compiled: bool = False
    ours: bool = False
    # float32 with five uncentred moments is off by up to 1e-5 at these sizes; a wrong border or
    # window shows in the third decimal.
    value_tolerance: float = 2e-5
    least_ratio: float | None = None
    least_gradient_ratio: float | None = None

    def convention(self, case: Case) -> Convention | None:
        """Arguments with which sosie computes the same; None for a case that is not done."""
        if case.dtype not in self.dtypes or (self.compiled and case.name == "small"):
            return None
        if not (self.gradient if case.gradient else self.forward):
            return None
        return case.convention if self.ours else self.conventions.get(case.kind)

    def goal(self, case: Case) -> float | None:
        """How many times faster sosie is meant to be at a case; None where nothing was set."""
        if case.kind == "ms-ssim" or case.name == "small":
            return None
        return self.least_gradient_ratio if case.gradient else self.least_ratio


class _Loaded:
    """A contender whose library is imported."""

    def __init__(self, contender: Contender, threads: int) -> None:
        self._contender = contender
        for name in _SET_UP.get(contender.arrays, ()):
            _limit_threads(importlib.import_module(name), threads)
        self._library = import_library(contender.module)
        _limit_threads(self._library, threads)
        self.versions = versions([contender.module])

    def prepare(self, case: dict[str, Any], convention: Convention) -> Prepared:
        """See `benchmarks.workers.Prepared`."""
        what = Case.from_plain(case)
        function = self._contender.build(self._library, what, convention)
        x, y = images(what)
        if self._contender.name == "reference":
            return _prepare_reference(function, x, y)
        if self._contender.arrays == "torch":
            return _prepare_torch(function, x, y, what, self._contender.compiled)
        return Prepared(lambda: function(x, y), lambda value: float(np.mean(value)))


def load(name: str, threads: int) -> _Loaded:
    """Import a contender's library and limit its threads."""
    return _Loaded(CONTENDERS[name], threads)


#: Libraries whose threads are to be limited before a contender's own, which may count them.
_SET_UP = {"torch": ("torch",)}


def _limit_threads(library: types.ModuleType, threads: int) -> None:
    if library.__name__ == "torch":
        library.set_num_threads(threads)
    elif library.__name__ == "cv2":
        library.setNumThreads(threads)
    elif library.__name__ == "tensorflow":
        library.config.threading.set_intra_op_parallelism_threads(threads)
        library.config.threading.set_inter_op_parallelism_threads(1)


def import_library(name: str) -> types.ModuleType:
    """A library, piq without what it does not need for SSIM."""
    if name == "piq":
        stand_in_for_torchvision()
    return importlib.import_module(name)


class _Anything(types.ModuleType):
    """A module in which every public name is found."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def stand_in_for_torchvision() -> None:
    """piq imports torchvision for measures other than these; do without, if it is not there."""
    try:
        importlib.import_module("torchvision")
    except ImportError:
        whole = "torchvision"
        for part in ("", ".models", ".models.inception", ".models.utils"):
            name = whole + part
            sys.modules[name] = _Anything(name)
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], last, sys.modules[name])


# --- Frameworks -----------------------------------------------------------------------------------


def _prepare_torch(
    function: Callable[[Any, Any], Any], x_image: Image, y_image: Image, case: Case, compiled: bool
) -> Prepared:
    torch: Any = importlib.import_module("torch")
    x, y = torch.from_numpy(x_image), torch.from_numpy(y_image)
    if not case.gradient:
        forward = torch.compile(function) if compiled else function
        return Prepared(
            lambda: forward(x, y),
            lambda value: float(value.mean()),
            before=lambda: torch.set_grad_enabled(False),
        )
    x.requires_grad_()

    def loss(x: Any, y: Any) -> Any:
        return 1.0 - function(x, y)

    forward = torch.compile(loss) if compiled else loss

    def step() -> Any:
        x.grad = None
        value = forward(x, y)
        value.backward()
        return value

    return Prepared(
        step,
        lambda value: 1.0 - float(value.detach()),
        lambda _: np.asarray(x.grad),
        lambda: torch.set_grad_enabled(True),
    )


def _prepare_reference(function: Callable[[Any, Any], Any], x: Image, y: Image) -> Prepared:
    return Prepared(lambda: function(x, y), lambda pair: float(pair[0]), lambda pair: pair[1])


# --- sosie ----------------------------------------------------------------------------------------


def _spec(sosie: Any, convention: Convention) -> Any:
    fields = dict(convention)
    return sosie.ssim_spec(fields.pop("spec")).replace(**fields)


def _sosie(sosie: Any, case: Case, convention: Convention) -> Callable[[Any, Any], Any]:
    function = sosie.ms_ssim if case.kind == "ms-ssim" else sosie.ssim
    options = {"data_range": case.data_range, **convention}

    def similarity(x: Any, y: Any) -> Any:
        return function(x, y, **options)

    return similarity


def _sosie_numpy(sosie: Any, case: Case, convention: Convention) -> Callable[[Any, Any], Any]:
    similarity = _sosie(sosie, case, convention)
    if case.shape[:2] != (1, 1):
        return similarity
    return lambda x, y: similarity(x[0, 0], y[0, 0])


def _sosie_loss(nn: Any, case: Case, convention: Convention) -> Callable[[Any, Any], Any]:
    kind = nn.MSSSIMLoss if case.kind == "ms-ssim" else nn.SSIMLoss
    return _OneMinus(kind(data_range=case.data_range, **convention))


class _OneMinus:
    """A similarity whose loss, one minus it, is there already."""

    def __init__(self, loss: Callable[[Any, Any], Any]) -> None:
        self.loss = loss

    def __call__(self, x: Any, y: Any) -> Any:
        return 1.0 - self.loss(x, y)


def _plain_torch(sosie: Any, case: Case, convention: Convention) -> Callable[[Any, Any], Any]:
    composite = importlib.import_module("sosie.torch.composite")
    parameters = _spec(sosie, convention).resolve(case.shape[2:], case.data_range)
    return lambda x, y: composite.ssim(x, y, parameters).mean()


def _reference(sosie: Any, case: Case, convention: Convention) -> Callable[[Any, Any], Any]:
    """Value and gradient of one minus it, in float64 by the definition."""
    spec = _spec(sosie, convention)
    reference = importlib.import_module("sosie.reference.ssim")
    multi_scale = case.kind == "ms-ssim"
    value = reference.ms_ssim if multi_scale else reference.ssim
    derivative = reference.ms_ssim_gradient if multi_scale else reference.ssim_gradient
    upstream = np.full(case.shape[0], -1.0 / case.shape[0])

    def call(x: Image, y: Image) -> tuple[float, Image | None]:
        mean = value(x, y, spec, case.data_range).mean()
        if not case.gradient:
            return mean, None
        return mean, derivative(x, y, spec, upstream, case.data_range)[0]

    return call


# --- Peers with torch tensors ---------------------------------------------------------------------


def _pytorch_msssim(library: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    function = library.ms_ssim if case.kind == "ms-ssim" else library.ssim
    return lambda x, y: function(x, y, data_range=case.data_range)


def _torchmetrics(library: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    function = library.structural_similarity_index_measure
    if case.kind == "ms-ssim":
        function = library.multiscale_structural_similarity_index_measure
    return lambda x, y: function(x, y, data_range=case.data_range)


def _piq(library: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    if case.kind == "ms-ssim":
        return lambda x, y: library.multi_scale_ssim(x, y, data_range=case.data_range)
    return lambda x, y: library.ssim(x, y, data_range=case.data_range, downsample=False)


def _kornia(library: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    return lambda x, y: library.ssim(x, y, 11, max_val=case.data_range, padding="valid").mean()


def _frame_analytics(library: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    function = library.ms_ssim if case.kind == "ms-ssim" else library.ssim
    return lambda x, y: function(x, y, data_range=case.data_range)


# --- Peers with other arrays ----------------------------------------------------------------------


def _scikit_image(library: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    options: dict[str, Any] = {"data_range": case.data_range}
    if case.kind == "gaussian":  # with these three it is Wang et al.'s, as its documentation says
        options.update(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    if case.shape[1] > 1:
        options["channel_axis"] = 0
        function = library.structural_similarity
    else:

        def function(x: Image, y: Image, **options: Any) -> Any:
            return library.structural_similarity(x[0], y[0], **options)

    return lambda x, y: np.mean([function(a, b, **options) for a, b in zip(x, y, strict=True)])


def _blurs(cv2: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    """The way it is written by hand: five blurs, then arithmetic on whole images."""
    c1, c2 = (0.01 * case.data_range) ** 2, (0.03 * case.data_range) ** 2

    def blur(image: Image) -> Image:
        blurred: Image = cv2.GaussianBlur(image, (11, 11), 1.5)[5:-5, 5:-5]
        return blurred

    def plane(x: Image, y: Image) -> Any:
        x, y = x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)
        mu_x, mu_y = blur(x), blur(y)
        mu_xx, mu_yy, mu_xy = mu_x * mu_x, mu_y * mu_y, mu_x * mu_y
        var_x, var_y = blur(x * x) - mu_xx, blur(y * y) - mu_yy
        covariance = blur(x * y) - mu_xy
        numerator = (2 * mu_xy + c1) * (2 * covariance + c2)
        return (numerator / ((mu_xx + mu_yy + c1) * (var_x + var_y + c2))).mean()

    size = case.shape[2:]
    return lambda x, y: np.mean(
        [plane(a, b) for a, b in zip(x.reshape(-1, *size), y.reshape(-1, *size), strict=True)]
    )


class _Converted:
    """A function of images in another format, into which they are brought once."""

    def __init__(
        self, convert: Callable[[Image], Any], function: Callable[[Any, Any], Any]
    ) -> None:
        self._convert, self._function = convert, function
        self._converted: tuple[Any, Any] | None = None

    def __call__(self, x: Image, y: Image) -> Any:
        if self._converted is None:
            self._converted = self._convert(x), self._convert(y)
        return self._function(*self._converted)


def _quality(cv2: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    """OpenCV's own: images of shape (H, W, C), constants for a range of 255."""
    channels = case.shape[1]

    def convert(batch: Image) -> list[Image]:
        if case.dtype != "uint8":
            batch = batch * np.float32(255.0)
        return [np.ascontiguousarray(np.moveaxis(image, 0, -1)) for image in batch]

    def similarity(x: list[Image], y: list[Image]) -> Any:
        compute = cv2.quality.QualitySSIM_compute
        return np.mean([compute(a, b)[0][:channels] for a, b in zip(x, y, strict=True)])

    return _Converted(convert, similarity)


def _fast_ssim(library: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    data_range = int(case.data_range) if case.dtype == "uint8" else case.data_range
    return lambda x, y: library.ssim(x[0, 0], y[0, 0], data_range=data_range)


def _blazediff(**options: Any) -> Build:
    """Its native format is RGBA, 8 bits each."""

    def convert(batch: Image) -> bytes:
        gray = batch[0, 0]
        return np.dstack([gray, gray, gray, np.full_like(gray, 255)]).tobytes()

    def build(library: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
        height, width = case.shape[2:]
        return _Converted(
            convert, lambda x, y: library.compare_rgba(x, y, width, height, **options).score
        )

    return build


def _tensorflow(tf: Any, case: Case, _: Convention) -> Callable[[Any, Any], Any]:
    """Images of shape (N, H, W, C); the function is traced once into a graph."""
    function = tf.image.ssim_multiscale if case.kind == "ms-ssim" else tf.image.ssim

    def convert(batch: Image) -> Any:
        return tf.constant(np.ascontiguousarray(np.moveaxis(batch, 1, -1)))

    graph = tf.function(lambda x, y: function(x, y, max_val=case.data_range))
    return _Converted(convert, lambda x, y: graph(x, y).numpy())


# --- All of them ----------------------------------------------------------------------------------

_WANG = {"spec": "wang2004"}
_ANY_DTYPE = ("float32", "uint8")

_SLOWEST: dict[str, Any] = {"least_ratio": 20.0, "least_gradient_ratio": 12.0}
_COMPILED: dict[str, Any] = {"least_ratio": 5.0, "least_gradient_ratio": 5.0, "compiled": True}

_PYTORCH_MSSSIM: dict[str, Any] = {
    "module": "pytorch_msssim",
    "build": _pytorch_msssim,
    "gradient": True,
}
_KORNIA: dict[str, Any] = {
    "module": "kornia.metrics",
    "build": _kornia,
    "conventions": {"gaussian": {"spec": "kornia-valid"}},
    "gradient": True,
}

_ALL = (
    Contender("sosie", "sosie", _sosie_numpy, arrays="numpy", dtypes=_ANY_DTYPE, ours=True),
    Contender("sosie torch", "sosie", _sosie, dtypes=_ANY_DTYPE, gradient=True, ours=True),
    Contender("sosie loss", "sosie.nn", _sosie_loss, forward=False, gradient=True, ours=True),
    Contender(
        "reference",
        "sosie",
        _reference,
        arrays="numpy",
        dtypes=_ANY_DTYPE,
        gradient=True,
        ours=True,
    ),
    Contender(
        "frame-analytics",
        "frame_analytics",
        _frame_analytics,
        {"gaussian": _WANG, "ms-ssim": {"spec": "wang2003", "pooling": "floor"}},
        dtypes=_ANY_DTYPE,
        gradient=True,
        least_ratio=2.0,
        least_gradient_ratio=12.0,
    ),
    Contender(
        "pytorch-msssim",
        **_PYTORCH_MSSSIM,
        conventions={
            "gaussian": {"spec": "pytorch-msssim"},
            "ms-ssim": {"spec": "pytorch-msssim"},
        },
        **_SLOWEST,
    ),
    Contender(
        "torchmetrics",
        "torchmetrics.functional.image",
        _torchmetrics,
        {"gaussian": {"spec": "torchmetrics"}, "ms-ssim": {"spec": "torchmetrics"}},
        gradient=True,
        **_SLOWEST,
    ),
    Contender(
        "piq",
        "piq",
        _piq,
        {"gaussian": {"spec": "piq", "downsample": None}, "ms-ssim": {"spec": "piq"}},
        gradient=True,
        **_SLOWEST,
    ),
    Contender("kornia", **_KORNIA, least_ratio=7.0, least_gradient_ratio=12.0),
    Contender(
        "pytorch-msssim compiled",
        **_PYTORCH_MSSSIM,
        conventions={"gaussian": {"spec": "pytorch-msssim"}},
        **_COMPILED,
    ),
    Contender("kornia compiled", **_KORNIA, **_COMPILED),
    Contender(
        "plain torch", "sosie", _plain_torch, {"gaussian": _WANG}, forward=False, gradient=True
    ),
    Contender(
        "scikit-image",
        "skimage.metrics",
        _scikit_image,
        {"gaussian": _WANG, "uniform": {"spec": "scikit-image"}},
        arrays="numpy",
        dtypes=_ANY_DTYPE,
        least_ratio=7.0,
    ),
    Contender(
        "cv2.GaussianBlur",
        "cv2",
        _blurs,
        {"gaussian": _WANG},
        arrays="numpy",
        dtypes=_ANY_DTYPE,
        least_ratio=3.0,
    ),
    Contender(
        "cv2.quality",
        "cv2",
        _quality,
        {"gaussian": {"spec": "opencv"}},
        arrays="numpy",
        dtypes=_ANY_DTYPE,
        least_ratio=7.0,
    ),
    Contender(
        "fast-ssim",
        "fast_ssim",
        _fast_ssim,
        {"uniform": {"spec": "scikit-image"}},
        arrays="numpy",
        dtypes=_ANY_DTYPE,
        least_ratio=2.0,
    ),
    Contender(
        "blazediff-ssim",  # full resolution: its multi-scale index with a single scale
        "blazediff_ssim",
        _blazediff(metric="ms-ssim", weights=[1.0]),
        {"gaussian": {"spec": "wang2004", "border": "reflect"}},
        arrays="numpy",
        dtypes=("uint8",),
        least_ratio=3.0,
    ),
    Contender(
        "blazediff-ssim reduced",  # its default, which reduces large images first
        "blazediff_ssim",
        _blazediff(metric="ssim"),
        {"gaussian": {"spec": "wang2004-downsample"}},
        arrays="numpy",
        dtypes=("uint8",),
        # It averages the same boxes one pixel further up and left where their side is even.
        value_tolerance=1e-3,
        least_ratio=3.0,
    ),
    Contender(
        "tensorflow",
        "tensorflow",
        _tensorflow,
        {"gaussian": {"spec": "tensorflow"}, "ms-ssim": {"spec": "tensorflow"}},
        arrays="tensorflow",
        least_ratio=7.0,
    ),
)

#: Every contender by its name.
CONTENDERS = {contender.name: contender for contender in _ALL}


def _twin(contender: Contender, case: Case) -> str:
    return "sosie torch" if contender.arrays == "torch" or case.gradient else "sosie"


FAMILY = Family(
    "benchmarks.ssim_peers",
    CASES,
    CONTENDERS,
    # Goals refer to the peers' best, so their default gets less of the time.
    {
        "default": Budget(rounds=3, seconds=1.5, least_rounds=1),
        "no-fault": Budget(rounds=7, seconds=8.0, least_rounds=2),
    },
    _twin,
)
