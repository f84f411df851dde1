# SPDX-License-Identifier: Apache-2.0
"""Networks as files that run without sosie: ONNX, and programs of ``torch.export``.

What is exported is what makes images: of adversarial pairs the generator, of autoencoders the
decoder, of repair networks all of it. Sizes of batches are free, and where a model takes any height
and width, so are these. Only standard operations are in the graph; recurrent layers are composed of
them. Every exported network is run on numbers it was not traced with, and refused if it differs.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sosie.zoo.files import write_bytes
from sosie.zoo.model import AdversarialPair, Autoencoder, Model, RepairModel
from sosie.zoo.registry import description
from sosie.zoo.vae_discrete import DiscreteVAE

__all__ = ["Exported", "export_model", "parts_of"]

#: Largest difference that is put down to rounding, relative to 1 or the largest output: sums of
#: some thousand float32 in another order differ by less than a tenth of it.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : Path
    part : str
        Of the model.
    inputs, outputs : tuple of str
        Names, in order.
    alignment : int
        Heights and widths must be multiples of this.
    difference : float
        Largest absolute difference from the model, on numbers it was not traced with.
    checked_by : str
        What ran it: "onnxruntime", "onnx.reference" or "torch".
    """

    path: Path
    part: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    alignment: int
    difference: float
    checked_by: str


@dataclass(frozen=True)
class _Part:
    """A network, names of what goes in and comes out, examples of N inputs of height and width."""

    network: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: Callable[[torch.Generator, int, int, int], tuple[Tensor, ...]]
    alignment: int = 0  # 0: height and width are fixed


def parts_of(model: Model) -> tuple[str, ...]:
    """Parts that can be exported, the usual one first.

    Examples
    --------
    >>> from sosie.zoo import create_model
    >>> parts_of(create_model("gan_mlp", hidden=8))
    ('generator', 'discriminator')
    """
    if isinstance(model, AdversarialPair):
        return ("generator", "discriminator")
    if isinstance(model, Autoencoder):
        return ("decoder", "encoder")
    if isinstance(model, RepairModel):
        return ("repair",)
    raise ValueError(f"expected a model that generates or repairs images, got {model.name}")


def export_model(model: Model, path: str | Path, part: str | None = None) -> Exported:
    """Write a model, or a part of it, for use elsewhere.

    Parameters
    ----------
    model : Model
    path : path
        Ends in ``.onnx``, or in ``.pt2`` for a program of ``torch.export``. The model's name and
        configuration go along.
    part : str, optional
        Of adversarial pairs "generator" (the default) or "discriminator", of autoencoders "decoder"
        (the default) or "encoder", of repair networks "repair".

    Returns
    -------
    Exported

    Raises
    ------
    ValueError
        The path has another ending, there is no such part, or what was exported does not compute
        what the model does; nothing is written then.
    ModuleNotFoundError
        ONNX needs ``onnx`` and ``onnxscript``: the extra "onnx".
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from sosie.zoo import create_model
    >>> model = create_model("vae_mlp", hidden=8, latent=2)
    >>> exported = export_model(model, Path(tempfile.mkdtemp()) / "decoder.pt2")
    >>> exported.part, exported.inputs, exported.outputs, exported.difference < 1e-6
    ('decoder', ('codes',), ('images',), True)
    >>> decode = torch.export.load(exported.path).module()
    >>> decode(torch.zeros(5, 2)).shape
    torch.Size([5, 1, 28, 28])
    """
    path = Path(path)
    if path.suffix not in _FORMATS:
        raise ValueError(f"expected a file {' or '.join(_FORMATS)}, got {path}")
    names = parts_of(model)
    part = names[0] if part is None else part
    if part not in names:
        raise ValueError(f"expected a part of {model.name} out of {', '.join(names)}, got {part!r}")
    was_training = model.training
    model.eval()
    try:
        exporting = _part(model, part)
        with torch.no_grad(), _quiet():
            content, run, checked_by = _FORMATS[path.suffix](
                exporting, json.dumps(description(model))
            )
            difference = _difference(exporting, run, path)
    finally:
        model.train(was_training)
    write_bytes(path, content)
    return Exported(
        path,
        part,
        exporting.inputs,
        exporting.outputs,
        max(1, exporting.alignment),
        difference,
        checked_by,
    )


# -------------------------------------------------------------------------------------------- parts


def _part(model: Model, part: str) -> _Part:
    def random_images(source: torch.Generator, count: int, *_: int) -> tuple[Tensor, ...]:
        return (torch.rand(count, *(model.image_shape or ()), generator=source),)

    def random_codes(source: torch.Generator, count: int, *_: int) -> tuple[Tensor, ...]:
        return (torch.randn(count, model.config.latent, generator=source),)

    if isinstance(model, RepairModel):
        return _repair(model)
    if isinstance(model, AdversarialPair):
        if part == "discriminator":
            return _Part(model.discriminator, ("images",), ("scores",), random_images)
        return _Part(model.generator, ("codes",), ("images",), random_codes)
    if isinstance(model, DiscreteVAE):
        return _symbols(model, part, random_images)
    if part == "encoder":
        return _Part(_Call(model, "encode"), ("images",), ("mean", "log_variance"), random_images)
    return _Part(_Call(model, "decode"), ("codes",), ("images",), random_codes)


def _repair(model: RepairModel) -> _Part:
    def damaged(source: torch.Generator, count: int, height: int, width: int) -> tuple[Tensor, ...]:
        known = (torch.rand(count, 1, height, width, generator=source) < 0.7).float()
        images = torch.rand(count, model.channels, height, width, generator=source)
        return images * known, known

    return _Part(model, ("damaged", "known"), ("repaired",), damaged, model.alignment)


def _symbols(model: DiscreteVAE, part: str, images: Callable[..., tuple[Tensor, ...]]) -> _Part:
    if part == "encoder":
        return _Part(_SymbolEncoder(model), ("images",), ("symbols",), images)
    config = model.config
    height, width = (side >> config.levels for side in config.image_shape[1:])

    def random_symbols(source: torch.Generator, count: int, *_: int) -> tuple[Tensor, ...]:
        return (torch.randint(config.codes, (count, height, width), generator=source),)

    return _Part(_Call(model, "decode"), ("symbols",), ("images",), random_symbols)


class _Call(nn.Module):
    """A method of a model as a module."""

    def __init__(self, model: Model, method: str) -> None:
        super().__init__()
        self.model, self.method = model, method

    def forward(self, x: Tensor) -> Any:
        return getattr(self.model, self.method)(x)


class _SymbolEncoder(nn.Module):
    """`DiscreteVAE.symbols` of standard operations, without the search for neighbours."""

    def __init__(self, model: DiscreteVAE) -> None:
        super().__init__()
        self.encoder, self.is_vq = model.encoder, model.config.quantizer == "vq"
        # Of vectors of length 1 the nearest is the one with the largest product.
        self.register_buffer("vectors", F.normalize(model.codebook.weight.detach()))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.encoder(images)
        if self.is_vq:
            scores = torch.einsum("ndhw,kd->nkhw", F.normalize(scores), self.vectors)
        return scores.argmax(1)


# ------------------------------------------------------------------------------------------ formats


#: From numbers in to numbers out.
_Run = Callable[[tuple[Tensor, ...]], list[Tensor]]


def _program(part: _Part) -> torch.export.ExportedProgram:
    """Traced on a batch of two: what is one might be taken for broadcast."""
    source = torch.Generator().manual_seed(0)
    example = part.example(source, 2, 5 * max(8, part.alignment), 7 * max(8, part.alignment))
    batch = torch.export.Dim("batch")
    shape: dict[int, Any] = {0: batch}
    if part.alignment:
        for axis, name in ((2, "height"), (3, "width")):
            side = torch.export.Dim(name, min=2)
            shape[axis] = part.alignment * side if part.alignment > 1 else side
    return torch.export.export(part.network, example, dynamic_shapes=(shape,) * len(example))


def _torch_program(part: _Part, described: str) -> tuple[bytes, _Run, str]:
    file = io.BytesIO()
    torch.export.save(_program(part), file, extra_files={"sosie.json": described})
    file.seek(0)
    module = torch.export.load(file).module()

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        outputs = module(*inputs)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return file.getvalue(), run, "torch"


def _onnx(part: _Part, described: str) -> tuple[bytes, _Run, str]:
    import onnx
    import onnxscript  # noqa: F401  # torch asks for it later, and less clearly

    exported = torch.onnx.export(
        _program(part),
        input_names=part.inputs,
        output_names=part.outputs,
        dynamo=True,
        verbose=False,
    )
    if exported is None:
        raise ValueError("torch exported nothing")
    model = exported.model_proto
    onnx.helper.set_model_props(model, {"sosie": described})
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    session, checked_by = _session(content)

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        arrays = dict(zip(part.inputs, (each.numpy() for each in inputs), strict=True))
        return [torch.from_numpy(np.asarray(each)) for each in session.run(None, arrays)]

    return content, run, checked_by


def _session(content: bytes) -> tuple[Any, str]:
    """What runs an ONNX model here."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        import onnx
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(onnx.load_from_string(content)), "onnx.reference"
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(content, providers=providers), "onnxruntime"


_FORMATS: dict[str, Callable[[_Part, str], tuple[bytes, _Run, str]]] = {
    ".onnx": _onnx,
    ".pt2": _torch_program,
}


def _difference(part: _Part, run: _Run, path: Path) -> float:
    """Largest difference between what was exported and the model, for two other shapes."""
    largest, step = 0.0, max(1, part.alignment)
    source = torch.Generator().manual_seed(1)
    for count, height, width in ((1, 11, 2), (3, 16, 9)):
        inputs = part.example(source, count, height * step, width * step)
        expected = part.network(*inputs)
        expected = [expected] if isinstance(expected, Tensor) else list(expected)
        for name, ours, theirs in zip(part.outputs, expected, run(inputs), strict=True):
            difference = float((ours.double() - theirs.double()).abs().max())
            allowed = _TOLERANCE * max(1.0, float(ours.abs().max()))
            if ours.shape != theirs.shape or not difference <= allowed:
                raise ValueError(
                    f"{path} was not written: {name} differs from the model's by {difference:.2g}, "
                    f"more than {allowed:.2g}"
                )
            largest = max(largest, difference)
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings of itself, and of libraries that are not needed here."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.setLevel(level)
