# SPDX-License-Identifier: Apache-2.0
"""Who computes: chosen by the machine, the environment, the caller."""

from __future__ import annotations

import importlib.util
import platform
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import sosie
from sosie import _core
from sosie.reference import ssim as reference
from sosie.spec import ssim_spec

ON_X86 = platform.machine() in ("x86_64", "AMD64")
HAS_NUMBA = importlib.util.find_spec("numba") is not None

# Means over thousands of pixels in [0, 1]: float32 rounding of the map, averaged.
FLOAT32 = 1e-6

SSIM_OF_A_RAMP = """
import numpy as np, sosie
x = np.linspace(0, 1, 50 * 61, dtype=np.float32).reshape(50, 61)
value = sosie.ssim(x, 1 - x, data_range=1.0)
"""


def _images() -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(0, 1, 50 * 61, dtype=np.float32).reshape(50, 61)
    return x, 1 - x


def _expected() -> float:
    x, y = (image[None, None].astype(float) for image in _images())
    return float(reference.ssim(x, y, ssim_spec("wang2004"), 1.0)[0])


@pytest.fixture
def restored_isa() -> Iterator[None]:
    """Put the instruction set back that was in use."""
    before = _core.isa()
    yield
    _core.select_isa(before)


# --- Instruction sets -----------------------------------------------------------------------------


def _fastest() -> str:
    """The best there is; AVX2 on Zen 4, whose 512-bit vectors are made of two halves."""
    best = _core.supported_isas()[-1]
    if best != "avx512":
        return best
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    is_zen4 = {"AuthenticAMD", "25"} <= {line.rpartition(": ")[2] for line in facts[:4]}
    return "avx2" if is_zen4 else best


@pytest.mark.parametrize("isa", _core.supported_isas())
def test_environment_names_the_instruction_set(isa: str, run_python: Callable[..., str]) -> None:
    code = SSIM_OF_A_RAMP + "from sosie import _core; print(_core.isa(), _core.lanes(), value)"
    used, lanes, value = run_python(code, SOSIE_ISA=isa).split()
    assert used == isa
    assert int(lanes) == {"baseline": 4, "neon": 4, "avx2": 8, "avx512": 16}[isa]
    assert abs(float(value) - _expected()) < FLOAT32


@pytest.mark.parametrize("environment", [{}, {"SOSIE_ISA": ""}], ids=["unset", "empty"])
def test_the_best_instruction_set_is_the_default(
    environment: dict[str, str], run_python: Callable[..., str]
) -> None:
    code = "from sosie import _core; print(_core.isa())"
    assert run_python(code, **environment).strip() == _fastest()


def test_unknown_instruction_set_is_refused(run_python: Callable[..., str]) -> None:
    message = run_python(SSIM_OF_A_RAMP, SOSIE_ISA="avx1024", expect_failure=True)
    possible = ", ".join(_core.supported_isas())
    assert f"expected an instruction set this machine runs ({possible}), got 'avx1024'" in message


def test_instruction_set_that_was_not_built_is_refused() -> None:
    before = _core.isa()
    with pytest.raises(ValueError, match=r"expected an instruction set .* got 'abacus'"):
        _core.select_isa("abacus")
    assert _core.isa() == before


@pytest.mark.skipif(not ON_X86, reason="x86 names of processor features")
def test_what_is_supported_is_what_the_processor_says() -> None:
    text = Path("/proc/cpuinfo").read_text()
    flags = set(next(line for line in text.splitlines() if line.startswith("flags")).split())
    needs = {
        "baseline": set(),
        "avx2": {"avx2", "fma", "f16c"},
        "avx512": {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    }
    assert _core.compiled_isas() == list(needs)
    assert _core.supported_isas() == [isa for isa, features in needs.items() if features <= flags]


@pytest.mark.skipif(platform.machine() not in ("aarch64", "arm64"), reason="Arm's instruction set")
def test_neon_is_all_there_is_on_arm() -> None:
    assert _core.compiled_isas() == _core.supported_isas() == ["neon"]


@pytest.mark.usefixtures("restored_isa")
def test_instruction_sets_agree() -> None:
    x, y = _images()
    values = []
    for isa in _core.supported_isas():
        _core.select_isa(isa)
        assert _core.isa() == isa
        values.append(float(sosie.ssim(x, y, data_range=1.0)))
    np.testing.assert_allclose(values, _expected(), rtol=0, atol=FLOAT32)


# --- Backends -------------------------------------------------------------------------------------

BACKENDS = ["native", *(["numba"] if HAS_NUMBA else []), "reference"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_use_backend(backend: str) -> None:
    x, y = _images()
    with sosie.use_backend(backend):
        assert sosie.backends.executor(x).__name__ == f"sosie.backends.{backend}"
        value = float(sosie.ssim(x, y, data_range=1.0))
    assert abs(value - _expected()) < FLOAT32


def test_use_backend_nests() -> None:
    x, _ = _images()
    before = sosie.backends.executor(x)
    with sosie.use_backend("reference"):
        with sosie.use_backend("native"):
            assert sosie.backends.executor(x).__name__.endswith("native")
        assert sosie.backends.executor(x).__name__.endswith("reference")
    assert sosie.backends.executor(x) is before


def test_use_backend_ends_with_an_error() -> None:
    x, _ = _images()
    before = sosie.backends.executor(x)
    with pytest.raises(ValueError, match="equal shape"), sosie.use_backend("reference"):
        sosie.ssim(x, x[1:], data_range=1.0)
    assert sosie.backends.executor(x) is before


def test_use_backend_is_for_this_thread_alone() -> None:
    x, _ = _images()
    seen = []
    with sosie.use_backend("reference"):
        other = threading.Thread(target=lambda: seen.append(sosie.backends.executor(x).__name__))
        other.start()
        other.join()
    assert seen == [sosie.backends.executor(x).__name__]


def test_unknown_backend_is_refused() -> None:
    with (
        pytest.raises(RuntimeError, match=r"expected a backend out of native, .* got 'abacus'"),
        sosie.use_backend("abacus"),
    ):
        pass


@pytest.mark.parametrize("backend", BACKENDS)
def test_environment_names_the_backend(backend: str, run_python: Callable[..., str]) -> None:
    code = SSIM_OF_A_RAMP + "print(sosie.backends.executor(x).__name__, value)"
    used, value = run_python(code, SOSIE_BACKEND=backend).split()
    assert used == f"sosie.backends.{backend}"
    assert abs(float(value) - _expected()) < FLOAT32


def test_unknown_backend_in_the_environment_is_refused(run_python: Callable[..., str]) -> None:
    message = run_python(SSIM_OF_A_RAMP, SOSIE_BACKEND="abacus", expect_failure=True)
    assert "expected a backend out of native, numba, reference, got 'abacus'" in message


WITHOUT = "import sys\nfor name in {0}: sys.modules[name] = None\n"


@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed")
def test_without_compiled_kernels_numba_computes(run_python: Callable[..., str]) -> None:
    code = WITHOUT.format(["sosie._core"]) + SSIM_OF_A_RAMP
    code += "print(sosie.available_backends()['native'])\n"
    code += "print(sosie.backends.executor(x).__name__, value)"
    reason, answer = run_python(code).splitlines()
    assert reason.startswith("sosie._core cannot be imported: ")
    used, value = answer.split()
    assert used == "sosie.backends.numba"
    assert abs(float(value) - _expected()) < FLOAT32


def test_without_anything_the_definition_computes(run_python: Callable[..., str]) -> None:
    code = WITHOUT.format(["sosie._core", "numba"]) + SSIM_OF_A_RAMP
    code += "print(sosie.backends.executor(x).__name__, value)\nsosie.show_config()"
    answer, *config = run_python(code).splitlines()
    used, value = answer.split()
    assert used == "sosie.backends.reference"
    assert abs(float(value) - _expected()) < FLOAT32
    assert any("no compiled kernels" in line for line in config)
    assert any("numba cannot be imported" in line for line in config)


def test_show_config_says_what_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    sosie.show_config()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"sosie {sosie.__version__}, Python ")
    assert any(line.split()[:3] == ["instruction", "set", _core.isa()] for line in lines)
    for name in sosie.available_backends():
        assert sum(line.startswith(f"backend {name} ") for line in lines) == 1
    assert sum(line.endswith("in use") for line in lines) == 1
