# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's compilers make of the CUDA kernels; no device is needed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sosie.backends.cuda.sources import expression, source

SOURCES = Path(__file__).parents[1] / "csrc" / "cuda"
LISTS = sorted(path.name.removesuffix("-list.hpp") for path in SOURCES.glob("*-list.hpp"))

#: Registers of a thread that each kernel may use, by the start of its name. 65536 of a
#: multiprocessor are shared by its blocks: with 256 threads each there is room for 4 blocks at 64,
#: 3 at 80, 2 at 128, which keep enough loads on their way where memory is the limit. The gradient
#: of SSIM has 128 or 192 threads and asks for 2 blocks, which ptxas then makes room for. Tiles of
#: distances hold 64 sums in registers; those of double, one block alone.
BUDGETS = {
    "cdist_backwardIf": 128,
    "cdist_backwardId": 255,
    "cdist_directIf": 128,
    "cdist_directId": 255,
    "cdist_finishIf": 128,
    "cdist_finishId": 255,
    "distance_": 64,
    "downsample": 64,
    "fma_peak": 64,
    "gru_": 64,
    "knn_backward": 64,
    "knn_merge": 64,
    "knn_search": 128,
    "lstm_": 80,
    "paired_backward": 80,
    "paired_forward": 64,
    "paired_shared_backward": 128,
    "ssd_backward": 80,
    "ssd_forward": 80,
    "ssd_weight_backward": 80,
    "ssim_backward": 255,
    "ssim_count": 64,
    "ssim_forward": 128,
    "ssim_general": 128,
}

pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="the sources are not here")
needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None and not os.environ.get("REQUIRE_NVCC"),
    reason="nvcc is not installed (CUDA toolkit)",
)
needs_nvrtc = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("cuda", "nvidia"))
    and not os.environ.get("REQUIRE_NVCC"),
    reason="NVRTC is not installed (packages cuda-bindings and nvidia-cuda-nvrtc)",
)


def kernels(family: str) -> list[str]:
    """Names of all kernels of a family, from its list."""
    program = (
        f'#include "{SOURCES / family}-list.hpp"\n'
        f"#define NAME(...) [__VA_ARGS__];\nSOSIE_{family.upper()}_KERNELS(NAME)\n"
    )
    text = subprocess.run(
        ["g++", "-E", "-P", "-x", "c++", "-"],
        input=program, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return re.findall(r"\[(.*?)\];", " ".join(text.split()))


@needs_nvcc
@pytest.mark.parametrize("family", LISTS)
def test_kernels_keep_to_their_registers(family: str, tmp_path: Path) -> None:
    compiled = subprocess.run(
        [
            "nvcc", "-std=c++17", "-O3", "-arch=sm_90", "-ftz=true", "-cubin",
            "-Xcompiler=-Wall,-Wextra", "-Werror=all-warnings",
            "--ptxas-options=-v,--warn-on-spills", SOURCES / f"{family}-kernels.cu",
            "-o", tmp_path / "kernels.cubin",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compiled.returncode == 0, compiled.stderr
    report = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers",
        compiled.stderr,
        flags=re.DOTALL,
    )
    assert len(report) == len(kernels(family))
    for symbol, stores, loads, registers in report:
        # The longest of the names that the mangled one holds.
        name = max((name for name in BUDGETS if name in symbol), key=len)
        assert (stores, loads) == ("0", "0"), symbol
        assert int(registers) <= BUDGETS[name], symbol


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize("family", LISTS)
def test_kernels_compile_at_run_time(family: str, architecture: str) -> None:
    from cuda.bindings import nvrtc

    def check(result: tuple[object, ...]) -> object:
        if result[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            size = nvrtc.nvrtcGetProgramLogSize(program)[1]
            log = b" " * size
            nvrtc.nvrtcGetProgramLog(program, log)
            pytest.fail(f"{result[0]}\n{log.decode()}")
        return result[1] if len(result) > 1 else None

    # To PTX, not optimised: what may differ from nvcc, which has its own test, is the language.
    virtual = architecture.replace("sm", "compute")
    options = [b"-std=c++17", f"-arch={virtual}".encode(), b"--device-debug"]
    by_text: dict[str, list[str]] = {}
    for kernel in kernels(family):
        by_text.setdefault(source(kernel), []).append(kernel)
    for text, names in by_text.items():
        program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernels.cu", 0, [], [])[1]
        for name in names:
            check(nvrtc.nvrtcAddNameExpression(program, expression(name).encode()))
        check(nvrtc.nvrtcCompileProgram(program, len(options), options))
        for name in names:
            assert check(nvrtc.nvrtcGetLoweredName(program, expression(name).encode()))
