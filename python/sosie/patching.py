# SPDX-License-Identifier: Apache-2.0
"""Peers replaced in place: `sosie.patch`.

A peer is a module of `sosie.compat`. Its table ``SEAMS`` says which attributes of the peer's own
modules are replaced, and by what; ``VERSIONS`` says in which releases they are known to lie there.
A replacement has the original's parameters. It raises `NotCovered`, before it has changed anything,
where sosie does not compute what was asked for; the original is then called and the call counted.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import operator
import pkgutil
import re
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ContextDecorator, contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

from sosie import compat
from sosie.compat import NotCovered

__all__ = ["PatchError", "Patcher", "PeerReport", "Report", "patch"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

#: Sentences name the values seen, so there may be any number of them.
_REASONS_KEPT = 50
_MISSING = object()
_COMPARISONS = {">=": operator.ge, "<": operator.lt}


class PatchError(RuntimeError):
    """A peer cannot be patched, or is not. The message is the reason; nothing was changed."""


@dataclass(frozen=True)
class PeerReport:
    """Calls of one peer since it was last patched.

    Attributes
    ----------
    patched : bool
        Whether it is patched now.
    computed : int
        Calls that sosie computed.
    fallbacks : dict of str to int
        Why the peer's own code was called instead, and how often.
    """

    patched: bool
    computed: int
    fallbacks: dict[str, int]


class Report(dict[str, PeerReport]):
    """`PeerReport` by peer. As text, a line per peer and one per reason to fall back."""

    def __str__(self) -> str:
        lines = []
        for name, peer in self.items():
            state = "" if peer.patched else ", no longer patched"
            fallbacks = sum(peer.fallbacks.values())
            lines.append(f"{name}: {peer.computed} computed, {fallbacks} fell back{state}")
            lines += [f"  {count} x {reason}" for reason, count in peer.fallbacks.items()]
        return "\n".join(lines) or "nothing was patched"


class Patcher:
    """Replaces peers in place, for a while or until told otherwise.

    ``sosie.patch("pytorch_msssim", "skimage")`` is a context manager and a decorator; `install` and
    `uninstall` do the same without a block. Peers are patched for the whole process: other threads
    see it too. Blocks may be nested and overlap in any number of threads; a peer is itself again
    when the last block that names it has been left and it is not installed. A function
    that was imported while patched then calls the original.

    A function of the peer that was imported *before* is served too, unless the table of drop-ins in
    the documentation says otherwise.

    Raises
    ------
    ValueError
        There is no drop-in of that name, or none that can be patched.
    PatchError
        The peer is not installed, is of a release that sosie does not know, or is not as expected.

    Examples
    --------
    >>> import sosie, torch, pytorch_msssim
    >>> x, y = torch.rand(2, 1, 3, 32, 32)
    >>> expected = pytorch_msssim.ssim(x, y, data_range=1.0)
    >>> with sosie.patch("pytorch_msssim"):
    ...     value = pytorch_msssim.ssim(x, y, data_range=1.0)
    >>> bool((value - expected).abs() < 1e-6)
    True
    >>> print(sosie.patch.report())
    pytorch_msssim: 1 computed, 0 fell back, no longer patched
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._peers: dict[str, _Peer] = {}

    def __call__(self, *peers: str) -> _Block:
        if not peers:
            raise ValueError(f"expected the name of a peer, out of {', '.join(_names())}")
        for name in peers:
            _check_name(name)
        return _Block(self, tuple(dict.fromkeys(peers)))

    def install(self, *peers: str) -> None:
        """Replace peers until `uninstall`.

        Raises
        ------
        ValueError
            There is no drop-in of that name, or none that can be patched.
        PatchError
            A peer is installed already, or cannot be patched. None of them has been then.
        """
        block = self(*peers)
        with self._lock:
            for name in block.peers:
                if name in self._peers and self._peers[name].installed:
                    raise PatchError(f"{name} is patched already")
            self._enter(block.peers)
            for name in block.peers:
                self._peers[name].installed = True

    def uninstall(self, *peers: str) -> None:
        """Undo `install`, of all peers if none is named.

        Raises
        ------
        ValueError
            There is no drop-in of that name.
        PatchError
            A peer was not installed. None of them has been changed then.
        """
        for name in peers:
            _check_name(name)
        with self._lock:
            installed = [name for name, peer in self._peers.items() if peer.installed]
            chosen = list(dict.fromkeys(peers)) or installed
            for name in chosen:
                if name not in installed:
                    raise PatchError(f"{name} was not installed by sosie.patch.install")
            for name in chosen:
                self._peers[name].installed = False
            self._leave(chosen)

    def report(self) -> Report:
        """What was called since each peer was last patched, in the order of their patching."""
        with self._lock:
            return Report({name: peer.report() for name, peer in self._peers.items()})

    def _enter(self, names: tuple[str, ...] | list[str]) -> None:
        with self._lock:
            fresh = [
                _Peer(name)
                for name in names
                if name not in self._peers or self._peers[name].holders == 0
            ]
            # Everything that can fail has happened.
            for peer in fresh:
                self._peers.pop(peer.name, None)  # to the end of the report
                self._peers[peer.name] = peer
                peer.replace()
            for name in names:
                self._peers[name].holders += 1

    def _leave(self, names: tuple[str, ...] | list[str]) -> None:
        with self._lock:
            for name in reversed(names):
                peer = self._peers[name]
                peer.holders -= 1
                if peer.holders == 0:
                    peer.restore()


class _Block(ContextDecorator):
    """Keeps peers patched while it is entered, any number of times at once."""

    def __init__(self, patcher: Patcher, peers: tuple[str, ...]) -> None:
        self._patcher = patcher
        self.peers = peers

    def __enter__(self) -> None:
        self._patcher._enter(self.peers)

    def __exit__(self, *_: object) -> None:
        self._patcher._leave(self.peers)

    def __call__(self, func: _Function) -> _Function:
        runs_later = (
            inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction
        )  # fmt: skip
        if any(is_so(func) for is_so in runs_later):
            raise TypeError(
                f"{func.__qualname__} runs after it has been called; write a with statement into it"
            )
        if inspect.isclass(func):
            raise TypeError(f"expected a function to decorate, got the class {func.__qualname__}")
        return super().__call__(func)


class _Peer:
    """One peer, checked and ready to be replaced."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.holders = 0
        self.installed = False
        self._calls = _Calls()
        ours = _drop_in(name)
        self._seams: list[_Seam] = []
        self._stand_in: ModuleType | None = None
        roots = dict.fromkeys(seam.partition(":")[0].partition(".")[0] for seam in ours.SEAMS)
        missing = [root for root in roots if not _is_importable(root)]
        if missing and getattr(ours, "STAND_IN", False):
            self._stand_in = _stand_in(name, ours, self._calls)
            return
        if missing:
            raise PatchError(f"{name} cannot be patched: {missing[0]} is not installed")
        _check_version(name, next(iter(roots)), ours.DISTRIBUTION, ours.VERSIONS)
        for seam, attribute in ours.SEAMS.items():
            function = inspect.unwrap(getattr(ours, attribute))  # without a fallback of its own
            self._seams.append(_Seam(name, seam, function, self._calls))

    def replace(self) -> None:
        if self._stand_in is not None:
            sys.modules[self.name] = self._stand_in
        for seam in self._seams:
            seam.replace()

    def restore(self) -> None:
        if self._stand_in is not None and sys.modules.get(self.name) is self._stand_in:
            del sys.modules[self.name]
        for seam in reversed(self._seams):
            seam.restore()

    def report(self) -> PeerReport:
        return PeerReport(self.holders > 0, *self._calls.counts())


class _Seam:
    """One attribute of a peer's module, or of a class in it: the original, and what replaces it."""

    def __init__(self, peer: str, seam: str, ours: Callable[..., Any], calls: _Calls) -> None:
        module, _, path = seam.partition(":")
        *owners, self._name = path.split(".")
        try:
            self._owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
            original = getattr(self._owner, self._name)
        except AttributeError as error:
            raise PatchError(f"{peer} cannot be patched: there is no {seam}") from error
        except ImportError as error:
            raise PatchError(f"{peer} cannot be patched, nor imported: {error}") from error
        expected, found = _parameters(ours), _parameters(original)
        if found not in (None, expected):
            raise PatchError(
                f"{peer} cannot be patched: expected {seam} to have the parameters "
                f"{', '.join(expected or ())}, got {', '.join(found or ())}"
            )
        self._seam = seam
        # What lies in the owner itself, which a lazy module's __getattr__ or a base class may give.
        self._stored = vars(self._owner).get(self._name, _MISSING)
        self._is_active = False
        self._replacement: Any = self._around(ours, original, calls)
        if isinstance(self._stored, classmethod | staticmethod):
            self._replacement = staticmethod(self._replacement)

    def _around(
        self, ours: Callable[..., Any], original: Callable[..., Any], calls: _Calls
    ) -> Callable[..., Any]:
        is_compiling = _compiler_test()

        @functools.wraps(original)
        def replacement(*args: Any, **kwargs: Any) -> Any:
            if is_compiling():
                try:
                    return ours(*args, **kwargs) if self._is_active else original(*args, **kwargs)
                except NotCovered:
                    return original(*args, **kwargs)
            # Inactive: it was imported while patched, or has been wrapped by somebody since.
            if not self._is_active or calls.is_falling_back:
                return original(*args, **kwargs)
            try:
                result = ours(*args, **kwargs)
            except NotCovered as reason:
                calls.add(f"{self._name}: {reason}")
            else:
                calls.add(None)
                return result
            with calls.falling_back():
                return original(*args, **kwargs)

        return replacement

    def replace(self) -> None:
        self._is_active = True
        setattr(self._owner, self._name, self._replacement)

    def restore(self) -> None:
        self._is_active = False
        if vars(self._owner).get(self._name) is not self._replacement:
            warnings.warn(
                f"{self._seam} was replaced by other code while sosie patched it; left as it is",
                RuntimeWarning,
                stacklevel=5,
            )
        elif self._stored is _MISSING:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._stored)


class _Calls:
    """Counts of all threads, and whether this one is in a call that fell back.

    What the original then calls is its own as well: an inner seam is neither tried nor counted.
    """

    def __init__(self) -> None:
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._computed = 0
        self._fallbacks: Counter[str] = Counter()

    @property
    def is_falling_back(self) -> bool:
        return getattr(self._thread, "is_falling_back", False)

    @contextmanager
    def falling_back(self) -> Iterator[None]:
        self._thread.is_falling_back = True
        try:
            yield
        finally:
            self._thread.is_falling_back = False

    def add(self, reason: str | None) -> None:
        with self._lock:
            if reason is None:
                self._computed += 1
            elif reason in self._fallbacks or len(self._fallbacks) < _REASONS_KEPT:
                self._fallbacks[reason] += 1
            else:
                self._fallbacks["other reasons"] += 1

    def counts(self) -> tuple[int, dict[str, int]]:
        with self._lock:
            return self._computed, dict(self._fallbacks.most_common())


def _stand_in(name: str, ours: ModuleType, calls: _Calls) -> ModuleType:
    """A module for a peer that is not installed, with our functions, whose calls are counted."""
    module = ModuleType(name, ours.__doc__)
    module.__spec__ = ModuleSpec(name, loader=None)  # without which nobody can ask for it
    vars(module).update({attribute: getattr(ours, attribute) for attribute in ours.__all__})
    for attribute in ours.SEAMS.values():
        setattr(module, attribute, _counted(getattr(ours, attribute), calls))
    return module


def _counted(ours: Callable[..., Any], calls: _Calls) -> Callable[..., Any]:
    is_compiling = _compiler_test()

    @functools.wraps(ours)
    def counted(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            return ours(*args, **kwargs)
        try:
            result = ours(*args, **kwargs)
        except NotCovered as reason:
            calls.add(f"{ours.__name__}: {reason}")
            raise
        calls.add(None)
        return result

    return counted


def _names() -> list[str]:
    """The drop-ins there are."""
    modules = (module.name for module in pkgutil.iter_modules(compat.__path__))
    return sorted(name for name in modules if not name.startswith("_"))


def _check_name(name: str) -> None:
    if name not in _names():
        raise ValueError(f"expected a peer out of {', '.join(_names())}, got {name!r}")


def _drop_in(name: str) -> ModuleType:
    try:
        module = importlib.import_module(f"sosie.compat.{name}")
    except ModuleNotFoundError as error:
        raise PatchError(f"{name} cannot be patched: {error.name} is not installed") from error
    if not hasattr(module, "SEAMS"):
        raise ValueError(f"{name} cannot be patched; import sosie.compat.{name} in its place")
    return module


def _is_importable(module: str) -> bool:
    return module in sys.modules or importlib.util.find_spec(module) is not None


def _check_version(peer: str, module: str, distribution: str, versions: str) -> None:
    found = _distribution_of(module, distribution)
    if found is None:
        raise PatchError(
            f"{peer} cannot be patched: expected {distribution}{versions}, "
            f"got a {peer} without a version"
        )
    name, version = found
    for bound in versions.split(","):
        sign, limit = re.fullmatch(r"(>=|<)(\d+(?:\.\d+)*)", bound.strip()).groups()  # type: ignore[union-attr]
        if not _COMPARISONS[sign](_release(version), _release(limit)):
            raise PatchError(
                f"{peer} cannot be patched: sosie knows {distribution}{versions}, "
                f"got {name} {version}"
            )


def _distribution_of(module: str, usual: str) -> tuple[str, str] | None:
    """Name and version of what brought a module: builds for GPUs have names of their own."""
    from importlib import metadata  # which takes longer to import than sosie

    try:
        return usual, metadata.version(usual)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(module, [])
        return (names[0], metadata.version(names[0])) if names else None


def _release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with, so that 1.9.0rc1 counts as 1.9.0."""
    numbers = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()


def _compiler_test() -> Callable[[], bool]:
    """Whether `torch.compile` is reading the code, which can neither take a lock nor count."""
    torch = sys.modules.get("torch")
    return torch.compiler.is_compiling if torch is not None else lambda: False


def _parameters(function: Callable[..., Any]) -> list[str] | None:
    """Names of parameters; None of a compiled function that does not tell."""
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        return None


#: The one there is.
patch = Patcher()
