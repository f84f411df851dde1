# SPDX-License-Identifier: Apache-2.0
"""Peers replaced in place: what is called and counted, and that all is as before afterwards."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sosie
import sosie.compat
from sosie.compat import NotCovered
from sosie.patching import Patcher, PatchError

torch = pytest.importorskip("torch")

#: A peer with everything that a seam can be: a function behind a public one, a class method, a
#: method, and a function that the module only gives out when asked, as scikit-image's do.
_PEER = """
def _inner(x, scale=1):
    return "theirs", x * scale

def outer(x):
    return _inner(x, scale=2)

class Search:
    @classmethod
    def compute(cls, x):
        return "theirs", cls.__name__, x

    def method(self, x):
        return "theirs", x

def __getattr__(name):
    if name == "lazy":
        return _inner
    raise AttributeError(name)
"""

_DROP_IN = """
from sosie.compat import NotCovered

DISTRIBUTION = "fake-peer"
VERSIONS = ">=1.2,<1.10"
SEAMS = {
    "fake_peer:_inner": "inner",
    "fake_peer:outer": "outer",
    "fake_peer:Search.compute": "compute",
    "fake_peer:Search.method": "method",
    "fake_peer:lazy": "inner",
}

def inner(x, scale=1):
    if x < 0:
        raise NotCovered(f"expected a positive x, got {x}")
    return "ours", x * scale

def outer(x):
    if x in (-1, 0):
        raise NotCovered(f"expected x not to be {x}")
    return inner(x, 2)

def compute(x):
    return "ours", x

def method(self, x):
    return "ours", x
"""


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A peer called ``fake_peer``, version 1.9.1, with a drop-in of the same name."""
    module, drop_in = ModuleType("fake_peer"), ModuleType("sosie.compat.fake_peer")
    exec(_PEER, vars(module))
    exec(_DROP_IN, vars(drop_in))
    monkeypatch.setitem(sys.modules, "fake_peer", module)
    monkeypatch.setitem(sys.modules, "sosie.compat.fake_peer", drop_in)
    monkeypatch.setattr(sosie.patching, "_names", lambda: ["fake_peer", "pytorch_msssim"])
    _set_version(monkeypatch, "1.9.1")
    before = _attributes(module)
    yield module
    assert _attributes(module) == before


def _set_version(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    true_version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: version if name == "fake-peer" else true_version(name),
    )


def _attributes(module: ModuleType) -> dict[str, Any]:
    return dict(vars(module)) | {f"Search.{k}": v for k, v in vars(module.Search).items()}


@pytest.fixture
def patch() -> Patcher:
    return Patcher()


def test_every_kind_of_seam_is_replaced_and_restored(peer: ModuleType, patch: Patcher) -> None:
    early, search = peer.outer, peer.Search()
    with patch("fake_peer"):
        assert peer._inner(3) == ("ours", 3)
        assert early(3) == ("ours", 6)  # imported before: served by the function behind it
        assert peer.Search.compute(3) == search.compute(3) == ("ours", 3)
        assert search.method(3) == ("ours", 3)
        assert peer.lazy(3) == ("ours", 3)
        late = peer._inner
    assert late(3) == peer._inner(3) == peer.lazy(3) == ("theirs", 3)
    assert peer.Search.compute(3) == ("theirs", "Search", 3)
    assert inspect.signature(late) == inspect.signature(peer._inner)
    assert patch.report()["fake_peer"].computed == 6


def test_what_is_not_covered_is_theirs_and_counted_once(peer: ModuleType, patch: Patcher) -> None:
    with patch("fake_peer"):
        assert peer._inner(-3) == ("theirs", -3)
        assert peer.outer(-1) == peer.outer(-1) == ("theirs", -2)
        # Theirs calls the inner seam, which would compute it: a fallback is theirs throughout.
        assert peer.outer(0) == ("theirs", 0)
        report = patch.report()["fake_peer"]
    assert report.patched
    assert report.computed == 0
    assert report.fallbacks == {
        "outer: expected x not to be -1": 2,
        "_inner: expected a positive x, got -3": 1,
        "outer: expected x not to be 0": 1,
    }
    assert str(patch.report()).splitlines()[:2] == [
        "fake_peer: 0 computed, 4 fell back, no longer patched",
        "  2 x outer: expected x not to be -1",
    ]


def test_sentences_with_values_do_not_fill_the_memory(peer: ModuleType, patch: Patcher) -> None:
    with patch("fake_peer"):
        for x in range(-200, 0):
            peer._inner(x)
    fallbacks = patch.report()["fake_peer"].fallbacks
    assert len(fallbacks) == 51
    assert fallbacks["other reasons"] == 150


def test_counts_begin_anew_with_every_patch(peer: ModuleType, patch: Patcher) -> None:
    for calls in (2, 1):
        with patch("fake_peer"):
            for _ in range(calls):
                peer._inner(1)
    assert patch.report()["fake_peer"].computed == 1


def test_exceptions_of_ours_are_raised_and_the_peer_restored(
    peer: ModuleType, patch: Patcher
) -> None:
    with pytest.raises(TypeError, match="not supported between"), patch("fake_peer"):
        peer._inner("x")
    assert peer._inner(1) == ("theirs", 1)


def test_decorator(peer: ModuleType, patch: Patcher) -> None:
    @patch("fake_peer")
    def count_down(n: int) -> list[Any]:
        return [peer._inner(n), *(count_down(n - 1) if n else [])]

    assert count_down(2) == [("ours", 2), ("ours", 1), ("ours", 0)]
    assert peer._inner(1) == ("theirs", 1)


def test_decorator_refuses_what_runs_later(patch: Patcher) -> None:
    def generate() -> Iterator[int]:
        yield 1

    async def wait() -> None: ...

    async def stream() -> AsyncIterator[int]:
        yield 1

    for function in (generate, wait, stream):
        with pytest.raises(TypeError, match=f"{function.__name__} runs after it has been called"):
            patch("pytorch_msssim")(function)
    with pytest.raises(TypeError, match="expected a function to decorate, got the class Counter"):
        patch("pytorch_msssim")(Counter)


def test_install(peer: ModuleType, patch: Patcher) -> None:
    patch.install("fake_peer")
    with patch("fake_peer"):
        pass
    assert peer._inner(1) == ("ours", 1)  # a block that ends leaves what was installed
    with pytest.raises(PatchError, match="fake_peer is patched already"):
        patch.install("fake_peer")
    assert peer._inner(1) == ("ours", 1)
    patch.uninstall()
    assert peer._inner(1) == ("theirs", 1)
    with pytest.raises(PatchError, match=r"fake_peer was not installed by sosie\.patch\.install"):
        patch.uninstall("fake_peer")
    patch.uninstall()  # all there are: none


def test_uninstall_leaves_a_block_patched(peer: ModuleType, patch: Patcher) -> None:
    with patch("fake_peer"):
        with pytest.raises(PatchError, match="was not installed"):
            patch.uninstall("fake_peer")
        patch.install("fake_peer")
        patch.uninstall("fake_peer")
        assert peer._inner(1) == ("ours", 1)


def test_threads_patch_and_call_at_once(peer: ModuleType, patch: Patcher) -> None:
    """Blocks overlap in any order; inside one, the peer is patched, whoever else leaves."""
    rounds, workers = 200, 4
    start = threading.Barrier(workers)

    def work(_: int) -> int:
        start.wait()
        wrong = 0
        for _ in range(rounds):
            with patch("fake_peer"):
                wrong += peer._inner(1) != ("ours", 1)
                wrong += peer._inner(-1) != ("theirs", -1)
        return wrong

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        # Entered throughout, so that no count begins anew.
        with patch("fake_peer"), ThreadPoolExecutor(workers) as pool:
            assert list(pool.map(work, range(workers))) == [0] * workers
        report = patch.report()["fake_peer"]
        assert report.computed == sum(report.fallbacks.values()) == workers * rounds
        with ThreadPoolExecutor(workers) as pool:  # replaced and restored all the time
            assert list(pool.map(work, range(workers))) == [0] * workers
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("version 1.10.0", r"sosie knows fake-peer>=1\.2,<1\.10, got fake-peer 1\.10\.0"),
        ("version 1.1.9", r"sosie knows fake-peer>=1\.2,<1\.10, got fake-peer 1\.1\.9"),
        ("no version", "expected fake-peer>=1.2,<1.10, got a fake_peer without a version"),
        ("no seam", "there is no fake_peer:_inner"),
        ("other parameters", "expected fake_peer:_inner to have the parameters x, scale, got x"),
        ("not installed", "fake_peer is not installed"),
    ],
)
def test_a_peer_that_is_not_as_expected_is_left_as_it_is(
    peer: ModuleType,
    patch: Patcher,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    message: str,
) -> None:
    with monkeypatch.context() as changes:
        if change.startswith("version"):
            _set_version(changes, change.split()[1])
        elif change == "no version":
            changes.setattr(importlib.metadata, "version", _no_distribution)
        elif change == "no seam":
            changes.delattr(peer, "_inner")
        elif change == "other parameters":
            changes.setattr(peer, "_inner", lambda x: x)
        else:
            changes.delitem(sys.modules, "fake_peer")
        before = _attributes(peer)
        with pytest.raises(PatchError, match=f"fake_peer cannot be patched: .*{message}"):
            patch.install("fake_peer")
        assert _attributes(peer) == before
        assert patch.report() == {}


def _no_distribution(name: str) -> str:
    raise importlib.metadata.PackageNotFoundError(name)


def test_several_peers_or_none(
    peer: ModuleType, patch: Patcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pytorch_msssim

    theirs = pytorch_msssim.ssim
    with patch("pytorch_msssim", "fake_peer"):
        assert peer._inner(1) == ("ours", 1)
        assert pytorch_msssim.ssim is not theirs
    assert pytorch_msssim.ssim is theirs
    _set_version(monkeypatch, "2.0")
    with pytest.raises(PatchError, match=r"fake-peer 2\.0"):
        patch.install("pytorch_msssim", "fake_peer")
    assert pytorch_msssim.ssim is theirs


def test_blocks_of_several_peers_overlap(peer: ModuleType, patch: Patcher) -> None:
    """Nested, left by an exception, and in a coroutine beside others."""
    import asyncio

    import pytorch_msssim

    theirs = pytorch_msssim.ssim

    def patched() -> tuple[bool, bool]:
        return peer._inner(1) == ("ours", 1), pytorch_msssim.ssim is not theirs

    async def work(name: str, pauses: int) -> bool:
        with patch(name):
            for _ in range(pauses):
                await asyncio.sleep(0)
            return patched()[name == "pytorch_msssim"]

    async def everybody() -> list[bool]:
        turns = [work(name, n) for n in range(5) for name in ("fake_peer", "pytorch_msssim")]
        return await asyncio.gather(*turns)

    with patch("fake_peer", "pytorch_msssim"):
        with pytest.raises(ZeroDivisionError), patch("pytorch_msssim"):
            raise ZeroDivisionError
        with patch("fake_peer"), patch("fake_peer"):
            assert patched() == (True, True)
        assert patched() == (True, True)
    assert patched() == (False, False)
    assert all(asyncio.run(everybody()))
    assert patched() == (False, False)


def test_what_others_put_in_its_place_stays(peer: ModuleType, patch: Patcher) -> None:
    theirs, block = peer._inner, patch("fake_peer")
    block.__enter__()
    wrapped = peer._inner
    peer._inner = lambda x, scale=1: ("wrapped", wrapped(x, scale))
    with pytest.warns(RuntimeWarning, match="fake_peer:_inner was replaced by other code"):
        block.__exit__(None, None, None)
    assert peer._inner(1) == ("wrapped", ("theirs", 1))  # what it wraps is no longer ours
    peer._inner = theirs


def test_unknown_names(patch: Patcher) -> None:
    for call in (patch, patch.install, patch.uninstall):
        with pytest.raises(ValueError, match=r"a peer out of .*torchmetrics.*, got 'nobody'"):
            call("nobody")
    with pytest.raises(ValueError, match="expected the name of a peer"):
        patch.install()


def _splat_loss(x: Any, y: Any) -> Any:
    """Imports as gsplat does: where it is needed, whatever answers to that name."""
    try:
        from fused_ssim import fused_ssim

        return 1 - fused_ssim(x, y, padding="valid")
    except ImportError:
        return "not installed"
    except NotImplementedError:
        return "does it itself"


@pytest.fixture
def no_fused_ssim() -> Iterator[None]:
    if _is_installed("fused_ssim"):
        pytest.skip("fused_ssim is installed")
    yield
    assert _splat_loss(None, None) == "not installed"


@pytest.mark.usefixtures("no_fused_ssim")
def test_a_stand_in_takes_the_place_of_what_is_not_installed(patch: Patcher) -> None:
    x = torch.rand(1, 3, 16, 16)
    with patch("fused_ssim"):
        assert abs(float(_splat_loss(x, x))) < 1e-6  # float32
        assert importlib.util.find_spec("fused_ssim") is not None
        assert _splat_loss(x.int(), x.int()) == "does it itself"
        report = patch.report()["fused_ssim"]
    assert (report.computed, sum(report.fallbacks.values())) == (1, 1)
    (reason,) = report.fallbacks
    assert reason.startswith("fused_ssim: sosie computes dense floating-point tensors")


@pytest.mark.usefixtures("no_fused_ssim")
def test_a_stand_in_on_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the documentation says: a file of that name, with one line."""
    (tmp_path / "fused_ssim.py").write_text("from sosie.compat.fused_ssim import *\n")
    monkeypatch.syspath_prepend(tmp_path)
    x = torch.rand(1, 3, 16, 16)
    try:
        assert abs(float(_splat_loss(x, x))) < 1e-6
    finally:
        sys.modules.pop("fused_ssim", None)


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _drop_ins() -> list[str]:
    return [name for name in sosie.patching._names() if hasattr(_drop_in(name), "SEAMS")]


def _drop_in(name: str) -> Any:
    return pytest.importorskip(f"sosie.compat.{name}")


@pytest.mark.usefixtures("importable_piq")
@pytest.mark.parametrize("name", _drop_ins())
def test_every_drop_in_patches_the_peer_installed_here(name: str, patch: Patcher) -> None:
    """Versions, names and parameters are as its tables say, and nothing is left behind."""
    if not _is_installed(_drop_in(name).DISTRIBUTION):
        pytest.skip(f"{name} is not installed")
    seams = _drop_in(name).SEAMS
    before = [_look_up(seam) for seam in seams]
    with patch(name):
        assert not any(_look_up(seam) == theirs for seam, theirs in zip(seams, before, strict=True))
    assert [_look_up(seam) for seam in seams] == before


def _look_up(seam: str) -> Any:
    module, _, path = seam.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def test_early_imports_gradients_and_compiled_code() -> None:
    import pytorch_msssim

    early = pytorch_msssim.ssim
    x, y = torch.rand(2, 1, 3, 40, 36)
    expected, expected_gradient = _value_and_gradient(early, x, y)
    with sosie.patch("pytorch_msssim"):
        for ssim in (early, pytorch_msssim.ssim):
            value, gradient = _value_and_gradient(ssim, x, y)
            # float32, of values and of gradients of about 1e-4
            assert abs(value - expected) < 1e-6
            torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-8)
        compiled = torch.compile(
            lambda x, y: pytorch_msssim.ssim(x, y, data_range=1.0),
            fullgraph=True,
            backend="aot_eager",
        )
        assert abs(float(compiled(x, y)) - expected) < 1e-6
        assert sosie.patch.report()["pytorch_msssim"].computed == 2
    torch._dynamo.reset()


def _value_and_gradient(ssim: Callable[..., Any], x: Any, y: Any) -> tuple[float, Any]:
    x = x.clone().requires_grad_()
    value = ssim(x, y, data_range=1.0)
    value.backward()
    return float(value.detach()), x.grad


def test_not_covered_is_what_callers_of_torch_expect() -> None:
    assert issubclass(NotCovered, NotImplementedError)


_SCRIPT = """
import sys
import torch, pytorch_msssim
x = torch.rand(1, 1, 16, 16)
pytorch_msssim.ssim(x, x)
print(__name__, sys.argv[1:])
if "--fail" in sys.argv:
    raise ValueError("the program's own")
if "--end" in sys.argv:
    sys.exit(3)
"""


def test_run_patches_a_program(run_python: Callable[..., str], tmp_path: Any) -> None:
    (tmp_path / "program.py").write_text(_SCRIPT)
    for program in (str(tmp_path / "program.py"), "-m program"):
        code = f"""
import os, runpy, sys
os.chdir({str(tmp_path)!r})
sys.argv[1:] = {["--report", *program.split(), "--epochs", "3"]!r}
sys.stderr = sys.stdout
runpy.run_module("sosie.run", run_name="__main__", alter_sys=True)
"""
        printed = run_python(code, SOSIE_PATCH="pytorch_msssim")
        assert printed.splitlines() == [
            "__main__ ['--epochs', '3']",
            "pytorch_msssim: 1 computed, 0 fell back",
        ]


def test_run_ends_as_the_program_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sosie.run import main

    (tmp_path / "program.py").write_text(_SCRIPT)
    monkeypatch.setenv("SOSIE_PATCH", "pytorch_msssim")
    monkeypatch.chdir(tmp_path)
    for name in ("path", "argv"):
        monkeypatch.setattr(sys, name, getattr(sys, name).copy())
    with pytest.raises(ValueError, match="the program's own") as error:
        main(["--report", "program.py", "--fail"])
    assert error.traceback[-1].path.name == "program.py"
    assert capsys.readouterr().err == "pytorch_msssim: 1 computed, 0 fell back\n"
    sosie.patch.uninstall()
    with pytest.raises(SystemExit) as status:
        main(["program.py", "--end"])
    assert status.value.code == 3
    sosie.patch.uninstall()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P is new in 3.11")
def test_run_finds_modules_where_python_would(
    run_python: Callable[..., str], tmp_path: Path
) -> None:
    pytest.importorskip("scipy")
    (tmp_path / "program.py").write_text("import sys; print(*sys.path, sep='\\n')")
    code = f"""
import runpy, sys
sys.path.insert(0, "as it was")
sys.argv[1:] = [{str(tmp_path / "program.py")!r}]
runpy.run_module("sosie.run", run_name="__main__", alter_sys=True)
"""
    for safe, first in (("", str(tmp_path)), ("1", "as it was")):
        printed = run_python(code, SOSIE_PATCH="scipy", PYTHONSAFEPATH=safe)
        assert printed.splitlines()[0] == first


@pytest.mark.parametrize(
    ("arguments", "peers", "message"),
    [
        ([], "skimage", "expected a script, or -m and a module"),
        (["nowhere.py"], "skimage", "no such script: nowhere.py"),
        (["-m", "nowhere"], "skimage", "no such module: nowhere"),
        (["-m", "nowhere.at_all"], "skimage", "no such module: nowhere.at_all"),
        ([__file__], " ", "expected the environment variable SOSIE_PATCH to name peers"),
        ([__file__], "pytorch_msssim,nobody", "got 'nobody'"),
    ],
)
def test_run_refuses(
    arguments: list[str],
    peers: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from sosie.run import main

    monkeypatch.setenv("SOSIE_PATCH", peers)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    with pytest.raises(SystemExit) as status:
        main(arguments)
    assert status.value.code == 2
    assert message in capsys.readouterr().err
    with pytest.raises(PatchError):
        sosie.patch.uninstall("pytorch_msssim")
