# SPDX-License-Identifier: Apache-2.0
"""Many pairs of files measured, with threads; what could not be compared, and why; the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from sosie.comparison.engines import one_thread_each
from sosie.comparison.files import Picture, UnreadableImageError, read_picture
from sosie.comparison.measures import Measure
from sosie.comparison.pairs import Pair, Unmatched, printable
from sosie.threads import get_num_threads

__all__ = [
    "Comparison",
    "Failure",
    "Options",
    "Result",
    "Summary",
    "compare_pair",
    "compare_pairs",
    "data_range_of",
    "read_pair",
]


@dataclass(frozen=True)
class Options:
    """How pairs are compared.

    Attributes
    ----------
    measures : tuple of Measure
        What is measured, in the order it is shown.
    spec : str or None
        The SSIM convention; None takes each measure's own.
    data_range : float or None
        Difference between the largest and the smallest value a pixel can have; None takes 255 and
        65535 for 8-bit and 16-bit images.
    """

    measures: tuple[Measure, ...]
    spec: str | None = None
    data_range: float | None = None


@dataclass(frozen=True)
class Result:
    """Values of one pair, by measure name."""

    pair: Pair
    width: int
    height: int
    kind: str
    values: dict[str, float]


@dataclass(frozen=True)
class Failure:
    """What could not be compared, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """One measure over all pairs."""

    mean: float
    median: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Comparison:
    """Everything that came out, in the order of the pairs' names."""

    options: Options
    results: list[Result]
    failures: list[Failure]

    def summary(self, measure: Measure) -> Summary:
        """Mean, median and extremes of one measure."""
        values = np.array([result.values[measure.name] for result in self.results])
        return Summary(*(float(reduce(values)) for reduce in (np.mean, np.median, np.min, np.max)))

    def worst_first(self) -> list[Result]:
        """Results from the least similar pair to the most similar, by the first measure."""
        first = self.options.measures[0]
        sign = 1.0 if first.higher_is_better else -1.0
        # What is not a number is worse than anything.
        return sorted(
            self.results,
            key=lambda result: np.nan_to_num(sign * result.values[first.name], nan=-np.inf),
        )


def compare_pairs(
    pairs: Sequence[Pair],
    unmatched: Sequence[Unmatched],
    options: Options,
    *,
    jobs: int | None = None,
    on_done: Callable[[], None] = lambda: None,
) -> Comparison:
    """Measure every pair.

    Parameters
    ----------
    pairs, unmatched : sequence
        What `sosie.comparison.match` found.
    options : Options
        What is measured, and how.
    jobs : int, optional
        Pairs under work at a time. By default as many as `sosie.get_num_threads`.
    on_done : callable
        Called after every pair, compared or not.

    Returns
    -------
    Comparison
        A pair that could not be compared is among its failures, as is each file without a partner.
    """
    jobs = min(jobs or get_num_threads(), max(1, len(pairs)))
    results, failures = [], [Failure(file.name, file.reason) for file in unmatched]
    with one_thread_each(jobs), ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(compare_pair, pair, options) for pair in pairs]
        try:
            for future in futures:
                outcome = future.result()
                if isinstance(outcome, Result):
                    results.append(outcome)
                else:
                    failures.append(outcome)
                on_done()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Comparison(options, results, sorted(failures, key=lambda failure: failure.name))


def read_pair(pair: Pair) -> tuple[Picture, Picture]:
    """Both images of a pair.

    Raises
    ------
    UnreadableImageError
        One of them cannot be read, or they differ in size, depth or channels.
    """
    pictures = []
    for path in (pair.a, pair.b):
        try:
            pictures.append(read_picture(path))
        except UnreadableImageError as error:
            raise UnreadableImageError(f"{printable(path)}: {error}") from error
    a, b = pictures
    if a.size != b.size:
        raise UnreadableImageError(f"sizes differ: {a.size} and {b.size} pixels")
    if a.description != b.description:
        raise UnreadableImageError(f"kinds of image differ: {a.description} and {b.description}")
    return a, b


def compare_pair(pair: Pair, options: Options) -> Result | Failure:
    """Measure one pair: values, or why there are none."""
    try:
        a, b = read_pair(pair)
        data_range = data_range_of(a, options)
        values = {
            measure.name: measure.compute(
                a.pixels, b.pixels, data_range, measure.spec(options.spec)
            )
            for measure in options.measures
        }
    except ValueError as error:  # also an image that is smaller than the window
        return Failure(pair.name, str(error))
    height, width = a.pixels.shape[:2]
    return Result(pair, width, height, a.description, values)


def data_range_of(picture: Picture, options: Options) -> float:
    """The range given, or that of the image's integers.

    Raises
    ------
    ValueError
        The image holds floating-point numbers and no range is given.
    """
    if options.data_range is not None:
        return options.data_range
    if picture.pixels.dtype.kind == "f":
        raise ValueError("floating-point images need a data range (--data-range)")
    return float(np.iinfo(picture.pixels.dtype).max)
