# SPDX-License-Identifier: Apache-2.0
"""Long comparisons: whoever works, the results are equal, kept, and computed once."""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sosie.comparison import MEASURES, compare_pairs, engines, match
from sosie.comparison.engines import ENGINES, Task, run_parts
from sosie.comparison.kept import compare_and_keep
from sosie.comparison.parts import Parts
from sosie.comparison.run import Options

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
Image = pytest.importorskip("PIL.Image")

# Ray warns of the deprecated options that it sets itself.
pytestmark = pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning")

OPTIONS = Options((MEASURES["ssim"], MEASURES["mse"]))
SCHEMA = pa.schema({"value": pa.float64(), "worker": pa.int64(), "reason": pa.string()})


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """Two workers on this machine, shared by the tests: they take seconds to start."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("RAY_ADDRESS", raising=False)
        # What tests hand to workers by reference has to be importable there.
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        environment.setenv("PYTHONPATH", os.pathsep.join(paths))
        with engines.ray_cluster(2) as ray:
            yield ray


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "ray":
        request.getfixturevalue("ray_cluster")
    return request.param


def _square(rows: Any, arrays: Any, log: Path) -> dict[str, list[Any]]:
    """``offsets[index] + x²``; writes down who computed which part, and refuses negative x."""
    offsets, x = arrays["offsets"], rows["x"].chunk(0).to_numpy(zero_copy_only=True)
    for inputs in (offsets, x):
        assert not inputs.flags.writeable
        assert not inputs.flags.owndata
    names = rows["name"].to_pylist()
    with (log / f"{names[0]}.{time.monotonic_ns()}").open("w") as entry:
        entry.write("\n".join(names))
    values = offsets[rows["index"].to_numpy()] + x**2
    return {
        "value": [None if x < 0 else value for x, value in zip(x, values, strict=True)],
        "worker": [os.getpid()] * len(x),
        "reason": [f"expected x of at least 0, got {x}" if x < 0 else None for x in x],
    }


def _square_slowly(rows: Any, arrays: Any, log: Path) -> dict[str, list[Any]]:
    time.sleep(0.2)
    return _square(rows, arrays, log)


def _computed(log: Path) -> Counter[str]:
    """How often each row was computed."""
    return Counter(name for entry in log.iterdir() for name in entry.read_text().splitlines())


def _rows(count: int) -> Any:
    names = [f"row {n:03}" for n in range(count)]
    return pa.table({"name": names, "x": np.arange(count) / 3, "index": np.arange(count) % 7})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts.open(tmp_path / "parts", ["name", "x"], {"power": 2})


@pytest.fixture
def task(log: Path) -> Task:
    offsets = np.linspace(0, 1, 7)
    return Task(functools.partial(_square, log=log), SCHEMA, {"offsets": offsets})


def _expected(rows: Any) -> list[float]:
    return list(np.linspace(0, 1, 7)[rows["index"].to_numpy()] + rows["x"].to_numpy() ** 2)


def test_every_row_is_computed_once_and_in_place(
    engine: str, task: Task, parts: Parts, log: Path
) -> None:
    rows, done = _rows(61), []
    results = run_parts(task, rows, parts, engine=engine, workers=2, on_done=done.append)
    assert [row["value"] for row in results] == _expected(rows)
    assert [row["name"] for row in results] == rows["name"].to_pylist()
    assert set(_computed(log).values()) == {1}
    assert sum(done) == 61
    assert len(done) > 4  # as parts are finished, not at the end
    processes = {row["worker"] for row in results}
    assert (processes == {os.getpid()}) == (engine == "threads")


def test_a_stopped_run_goes_on(engine: str, task: Task, parts: Parts, log: Path) -> None:
    rows, done = _rows(64), []
    slow = Task(functools.partial(_square_slowly, log=log), SCHEMA, task.arrays)

    def stop(count: int) -> None:
        done.append(count)
        if sum(done) >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_parts(slow, rows, parts, engine=engine, workers=2, on_done=stop)
    time.sleep(0.5)  # parts that were under work may still be finished
    kept = [row["name"] for row in parts.finished(rows.to_pylist()) if row]
    assert 20 <= len(kept) < 64
    before = _computed(log)
    results = run_parts(task, rows, parts, engine=engine, workers=2)
    assert [row["value"] for row in results] == _expected(rows)
    after = _computed(log)
    assert all(before[name] == after[name] for name in kept)


def test_failures_are_kept_and_tried_again(
    engine: str, task: Task, parts: Parts, log: Path
) -> None:
    rows = pa.table({"name": ["a", "b"], "x": [-1.0, 2.0], "index": [0, 0]})
    first = run_parts(task, rows, parts, engine=engine, workers=2)
    second = run_parts(task, rows, parts, engine=engine, workers=2)
    for results in (first, second):
        assert [row["reason"] for row in results] == ["expected x of at least 0, got -1.0", None]
        assert [row["value"] for row in results] == [None, 4.0]
    assert _computed(log) == {"a": 2, "b": 1}


def test_exceptions_of_the_work_reach_the_caller(engine: str, task: Task, parts: Parts) -> None:
    rows = _rows(3).drop_columns(["index"])
    with pytest.raises(Exception, match="index"):
        run_parts(task, rows, parts, engine=engine, workers=2)


def _wait_then_square(rows: Any, arrays: Any, log: Path, waiting: Path) -> dict[str, list[Any]]:
    """Says once who it is, at the row called "row 040", and waits to be killed."""
    if "row 040" in rows["name"].to_pylist() and not waiting.exists():
        partial = waiting.with_suffix(".partial")
        partial.write_text(str(os.getpid()))
        partial.rename(waiting)
        time.sleep(600)
    return _square(rows, arrays, log)


@pytest.mark.usefixtures("ray_cluster")
def test_losing_a_worker_loses_no_finished_result(
    task: Task, parts: Parts, log: Path, tmp_path: Path
) -> None:
    """A worker process of the cluster above is killed in the middle of a part."""
    rows, waiting, killed = _rows(64), tmp_path / "waiting", []
    compute = functools.partial(_wait_then_square, log=log, waiting=waiting)

    def kill(_: int) -> None:
        if waiting.exists() and not killed:
            killed.append(int(waiting.read_text()))
            os.kill(killed[0], signal.SIGKILL)

    results = run_parts(
        Task(compute, SCHEMA, task.arrays), rows, parts, engine="ray", workers=2, on_done=kill
    )
    assert len(killed) == 1
    assert killed[0] != os.getpid()
    assert [row["value"] for row in results] == _expected(rows)
    assert set(_computed(log).values()) == {1}  # the other worker's parts were not computed again


def test_a_cluster_of_ours_is_reached_from_this_machine_alone(ray_cluster: Any) -> None:
    assert {node["NodeManagerAddress"] for node in ray_cluster.nodes()} == {"127.0.0.1"}


# ------------------------------------------------------------------------------------------ parts


def _keep(parts: Parts, **columns: list[Any]) -> None:
    parts.keep(pa.table(columns))


def test_parts_of_two_folders_are_put_together_by_copying(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for n, folder in enumerate(folders):
        part = Parts.open(folder, ["name"], {})
        _keep(part, name=["both"], value=[9.0], reason=[None])
        _keep(part, name=[f"only {n}"], value=[float(n)], reason=[None])
    for path in folders[1].iterdir():
        path.replace(folders[0] / path.name)
    together = Parts.open(folders[0], ["name"], {})
    names = ["only 1", "only 0", "both", "neither"]
    rows = together.finished({"name": name} for name in names)
    assert [row and row["value"] for row in rows] == [1.0, 0.0, 9.0, None]
    assert pq.read_table(folders[0]).num_rows == 3  # any reader sees one table, without doubles


def test_a_result_counts_more_than_an_older_or_newer_failure(tmp_path: Path) -> None:
    parts = Parts.open(tmp_path, ["name"], {})
    _keep(parts, name=["a", "b"], reason=["broken", "broken"])
    _keep(parts, name=["a"], reason=[None])
    _keep(parts, name=["a", "c"], reason=["broken", "broken"])
    assert [row["reason"] for row in parts.finished([{"name": "a"}, {"name": "b"}])] == [
        None,
        "broken",
    ]


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    _keep(Parts.open(tmp_path / "p", ["name"], {"power": 2}), name=["a"], reason=[None])
    with pytest.raises(ValueError, match=r'with \{"power": 3\} in .*, got results with .*2'):
        Parts.open(tmp_path / "p", ["name"], {"power": 3})
    (tmp_path / "q").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "q" / "x.parquet")
    with pytest.raises(ValueError, match="got a file of another origin"):
        Parts.open(tmp_path / "q", ["name"], {})
    (tmp_path / "q" / "x.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        Parts.open(tmp_path / "q", ["name"], {})
    with pytest.raises(ValueError, match="expected a folder for results, got the file"):
        Parts.open(tmp_path / "q" / "x.parquet", ["name"], {})


def test_unknown_engine(task: Task, parts: Parts) -> None:
    with pytest.raises(ValueError, match="expected an engine out of threads, ray, got 'dask'"):
        run_parts(task, _rows(1), parts, engine="dask")


# ----------------------------------------------------------------------------------------- images


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Eleven pairs of pictures, one of them of two sizes, and a picture without a partner."""
    rng = np.random.default_rng(0)
    a, b = tmp_path / "a", tmp_path / "b"
    a.mkdir()
    b.mkdir()
    for n in range(11):
        pixels = rng.integers(0, 256, (24, 20 + n, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(a / f"{n:02}.png")
        Image.fromarray(pixels[:, : 20 + n - (n == 5)] // 2).save(b / f"{n:02}.png")
    Image.fromarray(pixels).save(a / "alone.png")
    return a, b


def test_kept_comparisons_equal_others(
    engine: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    pairs, unmatched = match(*folders)
    expected = compare_pairs(pairs, unmatched, OPTIONS)
    for _ in range(2):  # the second time, from the folder
        kept = compare_and_keep(
            pairs, unmatched, OPTIONS, tmp_path / "parts", engine=engine, jobs=2
        )
        assert kept == expected
    assert len(expected.results) == 10
    assert [failure.name for failure in kept.failures] == ["05.png", "alone.png"]


def test_a_picture_that_was_written_since_is_compared_again(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    compare = functools.partial(compare_and_keep, options=OPTIONS, folder=tmp_path / "parts")
    before = compare(*match(*folders))
    moved = folders[0].rename(tmp_path / "elsewhere")  # where it lies does not matter
    Image.open(folders[1] / "03.png").rotate(180).save(folders[1] / "03.png")
    done: list[int] = []
    after = compare(*match(moved, folders[1]), on_done=done.append)
    assert done == [9, 1, 1]  # kept; the picture and the pair that failed
    differing = [
        new.pair.name
        for old, new in zip(before.results, after.results, strict=True)
        if old.values != new.values
    ]
    assert differing == ["03.png"]


def test_names_that_parquet_cannot_hold_are_failures(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    for folder in folders:
        name = os.fsencode(folder) + b"/\xff.png"
        os.rename(os.fsencode(folder / "03.png"), name)  # noqa: PTH104 - bytes
    comparison = compare_and_keep(*match(*folders), OPTIONS, tmp_path / "parts")
    assert len(comparison.results) == 9
    reasons = [failure.reason for failure in comparison.failures]
    assert "expected a path in UTF-8, which Parquet needs" in reasons


def _invoke(*arguments: object) -> Any:
    from sosie.cli.app import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command(engine: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    plain, kept = tmp_path / "plain.csv", tmp_path / "kept.csv"
    assert _invoke("compare", *folders, "--csv", plain).exit_code == 1  # of the odd pair
    for _ in range(2):
        keeping = ("--parquet", tmp_path / "parts", "--engine", engine, "--jobs", 2)
        outcome = _invoke("compare", *folders, "--csv", kept, *keeping)
        assert outcome.exit_code == 1, outcome.output
        assert kept.read_text() == plain.read_text()
    table = pq.read_table(tmp_path / "parts").to_pandas()
    assert table["ssim"].notna().sum() == 10
    outcome = _invoke("compare", *folders, "--measures", "psnr", *keeping)
    assert outcome.exit_code == 1
    assert "expected results with" in outcome.output


_SLOWLY = """
import time
from sosie.cli.app import app
from sosie.comparison import kept

compare_pair = kept.compare_pair

def slowly(*arguments):
    time.sleep(0.2)
    return compare_pair(*arguments)

kept.compare_pair = slowly
app()
"""


def test_a_killed_command_goes_on_where_it_was(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """By SIGKILL, in the middle of a pair: no handler has run."""
    parts, again, plain = tmp_path / "parts", tmp_path / "again.csv", tmp_path / "plain.csv"
    command = ["compare", *map(str, folders), "--parquet", str(parts), "--jobs", "1"]
    with subprocess.Popen([sys.executable, "-c", _SLOWLY, *command]) as process:
        while len(list(parts.glob("*.parquet"))) < 2 and process.poll() is None:
            time.sleep(0.02)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert 0 < pq.read_table(parts).num_rows < 11
    outcomes = [_invoke(*command, "--csv", again), _invoke("compare", *folders, "--csv", plain)]
    assert [outcome.exit_code for outcome in outcomes] == [1, 1]  # of the odd pair
    assert again.read_text() == plain.read_text()
    assert kept.items() <= {p: p.stat().st_mtime_ns for p in parts.glob("*.parquet")}.items()


def test_command_refuses(folders: tuple[Path, Path]) -> None:
    for options, message in (
        (["--engine", "ray"], "--engine ray needs --parquet"),
        (["--engine", "dask"], "expected --engine out of threads, ray, got dask"),
    ):
        outcome = _invoke("compare", *folders, *options)
        assert outcome.exit_code == 2
        assert message in " ".join(outcome.output.replace("│", " ").split())
