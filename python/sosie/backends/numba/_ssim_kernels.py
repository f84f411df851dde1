# SPDX-License-Identifier: Apache-2.0
"""Structural similarity of one tile of an image, and its gradient, as Numba kernels.

The numerics are those of the compiled kernels: with ``s = x + y - 2c``, ``d = x - y`` (``c`` the
centre of the data range) and ``E`` the mean under the window,

    Ms = E[s]    Md = E[d]    M = Ms + 2c    Vs = E[s^2] - Ms^2    Vd = E[d^2] - Md^2
    A1 = (M^2 - Md^2)/2 + C1    A2 = n (Vs - Vd)/2 + C2    S  = A1 A2 / (B1 B2 + eps)
    B1 = (M^2 + Md^2)/2 + C1    B2 = n (Vs + Vd)/2 + C2    CS = A2 / B2

where images agree ``Md`` and ``Vd`` are small before anything is subtracted, and the centring takes
the mean's digits out of ``s^2``. Windows are scaled to sum to 1; one that summed to ``w`` has
variances of ``w (Vs + (1 - w) M^2)`` and ``w (Vd + (1 - w) Md^2)``: that is in the constants and in
their *deficit* ``1 - w``. With ``q = 1/(B1 B2 + eps)`` and ``g = dL/dS`` the gradient is

    P2 = g A1 q (B1 n Vd + eps) q    Ts = 2 dL/dE[s^2] = n P2     dL/dMs = M P1 - Ms Ts
    Q2 = g q (A1 + S B1)             Td = 2 dL/dE[d^2] = -n Q2    dL/dMd = -Md Q1 - Md Td
    P1 = g A2 q (B2 Md^2 + eps) q    Q1 = g q (A2 + S B2)         (deficit 0)
    dL/dx = F'[dL/dMs] + s F'[Ts] + (F'[dL/dMd] + d F'[Td])    dL/dy: the bracket subtracted

with ``F'`` the adjoint of the filter; it is the filter with its taps reversed, and where the border
shows pixels a second time, *folds*: triples (pixel, position, weight) added along one axis.

Arrays are C-contiguous, of one dtype (float32 or float64), with axes (depth, height, width); an
image has a depth of 1 and a depth window of one tap. Means under a window and the formula are
always float64: vectors are half as long, but nothing that is subtracted has been rounded to
float32. Tiles bring what surrounds them, so that no kernel knows of borders. Every kernel is
compiled twice, once for each dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sosie.backends._ssim_plan import Constants
from sosie.backends.numba._tasks import compiled

__all__ = ["backward_tile", "forward_tile"]

#: The planes that are filtered, and the gradient's four terms in the order of these.
SUM, DIFFERENCE, SUM_SQUARE, DIFFERENCE_SQUARE, WEIGHT = range(5)


# --- Filters --------------------------------------------------------------------------------------
#
# Both take the taps four at a time, which saves passes over the sums, and from the window's ends
# inwards: the small ones of a Gaussian are added up before rounding can take their last digits.


@compiled
def _innermost(low: int, high: int, taps: NDArray[Any]) -> tuple[int, NDArray[Any]]:
    """The middle of one to three taps, and their weights, 0 for those that are missing."""
    weights = np.zeros(3, taps.dtype)
    middle = (low + high) // 2
    weights[0] = taps[low]
    if middle > low:
        weights[1] = taps[middle]
    if high > low:
        weights[2] = taps[high]
    return middle, weights


@compiled
def _filter_down(rows: NDArray[Any], first: int, taps: NDArray[Any], out: NDArray[Any]) -> None:
    """``out[i] = sum_k taps[k] rows[first + k, i]``."""
    out[:] = 0
    low, high = 0, taps.size - 1
    while high - low >= 3:
        a, b = rows[first + low], rows[first + high]
        c, d = rows[first + low + 1], rows[first + high - 1]
        ta, tb, tc, td = taps[low], taps[high], taps[low + 1], taps[high - 1]
        for i in range(out.size):
            out[i] += (ta * a[i] + tb * b[i]) + (tc * c[i] + td * d[i])
        low += 2
        high -= 2
    if low <= high:
        middle, weights = _innermost(low, high, taps)
        a, b, c = rows[first + low], rows[first + middle], rows[first + high]
        ta, tb, tc = weights[0], weights[1], weights[2]
        for i in range(out.size):
            out[i] += (ta * a[i] + tc * c[i]) + tb * b[i]


@compiled
def _filter_along(row: NDArray[Any], taps: NDArray[Any], out: NDArray[Any]) -> None:
    """``out[i] = sum_k taps[k] row[i + k]``."""
    out[:] = 0
    low, high = 0, taps.size - 1
    while high - low >= 3:
        a, b, c, d = row[low:], row[high:], row[low + 1 :], row[high - 1 :]
        ta, tb, tc, td = taps[low], taps[high], taps[low + 1], taps[high - 1]
        for i in range(out.size):
            out[i] += (ta * a[i] + tb * b[i]) + (tc * c[i] + td * d[i])
        low += 2
        high -= 2
    if low <= high:
        middle, weights = _innermost(low, high, taps)
        a, b, c = row[low:], row[middle:], row[high:]
        ta, tb, tc = weights[0], weights[1], weights[2]
        for i in range(out.size):
            out[i] += (ta * a[i] + tc * c[i]) + tb * b[i]


@compiled
def _adjoint_down(
    rows: NDArray[Any],
    taps: NDArray[Any],
    folds: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    out: NDArray[Any],
) -> None:
    """The adjoint filter over the first axis of ``rows`` to the first axis of ``out``."""
    reversed_taps = taps[::-1].copy()
    for r in range(out.shape[0]):
        _filter_down(rows, r, reversed_taps, out[r])
    pixels, positions, weights = folds
    for f in range(pixels.size):
        target, row, weight = out[pixels[f]], rows[positions[f]], weights[f]
        for i in range(target.size):
            target[i] += weight * row[i]


@compiled
def _adjoint_along(
    rows: NDArray[Any],
    taps: NDArray[Any],
    folds: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    out: NDArray[Any],
) -> None:
    """The adjoint filter along each row."""
    reversed_taps = taps[::-1].copy()
    pixels, positions, weights = folds
    for r in range(out.shape[0]):
        row, target = rows[r], out[r]
        _filter_along(row, reversed_taps, target)
        for f in range(pixels.size):
            target[pixels[f]] += weights[f] * row[positions[f]]


# --- Moments --------------------------------------------------------------------------------------


@compiled
def _sum_and_difference(x: NDArray[Any], y: NDArray[Any], mask: NDArray[Any], k: Constants) -> None:
    """x becomes s and y becomes d, both 0 where the mask (if it is not empty) is."""
    a, b, m = x.ravel(), y.ravel(), mask.ravel()
    for i in range(a.size):
        s, d = (a[i] + b[i]) * k.scale - k.twice_center, (a[i] - b[i]) * k.scale
        a[i] = s
        b[i] = d
    for i in range(m.size):
        a[i] = a[i] if m[i] > 0.0 else 0.0
        b[i] = b[i] if m[i] > 0.0 else 0.0


@compiled
def _filter_depth(
    s: NDArray[Any],
    d: NDArray[Any],
    mask: NDArray[Any],
    first: int,
    taps: NDArray[Any],
    planes: NDArray[Any],
) -> None:
    """The planes at one depth: s, d, their squares and the mask, filtered over the depth."""
    planes[:] = 0
    out = planes.reshape(planes.shape[0], -1)
    for k in range(taps.size):
        tap = taps[k]
        a, b = s[first + k].ravel(), d[first + k].ravel()
        of_s, of_d, of_ss, of_dd = out[0], out[1], out[2], out[3]
        for i in range(a.size):
            of_s[i] += tap * a[i]
            of_d[i] += tap * b[i]
            of_ss[i] += tap * (a[i] * a[i])
            of_dd[i] += tap * (b[i] * b[i])
        if mask.size:
            m, of_m = mask[first + k].ravel(), out[WEIGHT]
            for i in range(m.size):
                of_m[i] += tap * m[i]


@compiled
def _moment_rows(
    planes: NDArray[Any],
    first: int,
    taps_h: NDArray[Any],
    taps_w: NDArray[Any],
    column_sums: NDArray[Any],
    rows: NDArray[Any],
) -> None:
    """Means under the windows of one row of positions.

    Under a mask they are divided by the weight of the valid pixels, whose place its inverse takes;
    that is 0 where no pixel is valid.
    """
    for p in range(planes.shape[0]):
        _filter_down(planes[p], first, taps_h, column_sums)
        _filter_along(column_sums, taps_w, rows[p])
    if planes.shape[0] > WEIGHT:
        weight = rows[WEIGHT]
        for i in range(weight.size):
            weight[i] = 1.0 / weight[i] if weight[i] > 0.0 else 0.0
        for p in range(WEIGHT):
            row = rows[p]
            for i in range(row.size):
                row[i] *= weight[i]


# --- The formula ----------------------------------------------------------------------------------


@compiled
def _similarity_row(rows: NDArray[Any], k: Constants, contrast: bool, out: NDArray[Any]) -> None:
    """The map, before it is clamped, from the means of one row of positions."""
    half_covariance = 0.5 * k.covariance
    of_s, of_d, of_ss, of_dd = rows[0], rows[1], rows[2], rows[3]
    for i in range(out.size):
        ms, md = of_s[i], of_d[i]
        m = ms + k.twice_center
        var_s = (of_ss[i] - ms * ms) + k.deficit * (m * m)
        var_d = (of_dd[i] - md * md) + k.deficit * (md * md)
        half_vs = half_covariance * (0.0 if var_s < k.least_variance else var_s)
        half_vd = half_covariance * (0.0 if var_d < k.least_variance else var_d)
        a2, b2 = half_vs + (k.c2 - half_vd), half_vs + (k.c2 + half_vd)
        if contrast:
            out[i] = a2 / b2
        else:
            half_m, half_d = 0.5 * m * m, 0.5 * md * md
            a1, b1 = half_m + (k.c1 - half_d), half_m + (k.c1 + half_d)
            out[i] = (a1 * a2) / (b1 * b2 + k.epsilon)


@compiled
def _gradient_row(
    rows: NDArray[Any],
    upstream: NDArray[Any],
    k: Constants,
    contrast: bool,
    mean_s: NDArray[Any],
    mean_d: NDArray[Any],
    square_s: NDArray[Any],
    square_d: NDArray[Any],
) -> None:
    """dL/dMs, dL/dMd, Ts and Td from the means and dL/dS of one row of positions."""
    half_covariance = 0.5 * k.covariance
    of_s, of_d, of_ss, of_dd = rows[0], rows[1], rows[2], rows[3]
    for i in range(upstream.size):
        ms, md = of_s[i], of_d[i]
        m = ms + k.twice_center
        var_s = (of_ss[i] - ms * ms) + k.deficit * (m * m)
        var_d = (of_dd[i] - md * md) + k.deficit * (md * md)
        clamped_s, clamped_d = var_s < k.least_variance, var_d < k.least_variance
        var_s = 0.0 if clamped_s else var_s
        var_d = 0.0 if clamped_d else var_d
        half_vs, half_vd = half_covariance * var_s, half_covariance * var_d
        a2, b2 = half_vs + (k.c2 - half_vd), half_vs + (k.c2 + half_vd)
        half_m, half_d = 0.5 * m * m, 0.5 * md * md
        a1, b1 = half_m + (k.c1 - half_d), half_m + (k.c1 + half_d)
        if contrast:
            g = upstream[i] * k.scale / b2
            through_ms = through_md = 0.0
            ts = k.covariance * (g * (k.covariance * var_d / b2))
            td = -(k.covariance * (g * (1.0 + a2 / b2)))
        else:
            inverse = 1.0 / (b1 * b2 + k.epsilon)
            value = a1 * a2 * inverse
            g = upstream[i] * k.scale * inverse
            through_ms = m * (g * (a2 * inverse) * (b2 * (md * md) + k.epsilon))
            through_md = -(md * (g * (a2 + value * b2)))
            ts = k.covariance * (g * (a1 * inverse) * (b1 * (k.covariance * var_d) + k.epsilon))
            td = -(k.covariance * (g * (a1 + value * b1)))
        ts = 0.0 if clamped_s else ts
        td = 0.0 if clamped_d else td
        mean_s[i] = through_ms - (ms - k.deficit * m) * ts
        mean_d[i] = through_md - (md - k.deficit * md) * td
        square_s[i] = ts
        square_d[i] = td


@compiled
def _clamp_row(values: NDArray[Any], k: Constants) -> None:
    for i in range(values.size):
        value = values[i]
        value = k.lowest if value < k.lowest else value
        values[i] = k.highest if value > k.highest else value


@compiled
def _keep_defined(values: NDArray[Any], inverse_weight: NDArray[Any]) -> None:
    """0 where a window holds no valid pixel."""
    for i in range(values.size):
        values[i] = values[i] if inverse_weight[i] > 0.0 else 0.0


# --- Tiles ----------------------------------------------------------------------------------------


@compiled
def forward_tile(
    x: NDArray[Any],
    y: NDArray[Any],
    mask: NDArray[Any],
    taps: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    k: Constants,
    contrast: bool,
    step: int,
    values: NDArray[Any],
) -> None:
    """The map at every step-th position of a tile.

    ``x``, ``y`` and ``mask`` (1 where valid; empty: no mask) are the tile with what its windows
    reach; the images are overwritten.
    """
    taps_d, taps_h, taps_w = taps
    count = 5 if mask.size else 4
    planes = np.empty((count, x.shape[1], x.shape[2]), x.dtype)
    column_sums = np.empty(x.shape[2])
    rows = np.empty((count, x.shape[2] - taps_w.size + 1))
    _sum_and_difference(x, y, mask, k)
    for d in range(values.shape[0]):
        _filter_depth(x, y, mask, d * step, taps_d, planes)
        for h in range(values.shape[1]):
            _moment_rows(planes, h * step, taps_h, taps_w, column_sums, rows)
            if step > 1:
                for p in range(count):
                    row = rows[p]
                    for i in range(values.shape[2]):
                        row[i] = row[i * step]
            out = values[d, h]
            _similarity_row(rows, k, contrast, out)
            _clamp_row(out, k)
            if mask.size:
                _keep_defined(out, rows[WEIGHT])


@compiled
def backward_tile(
    x: NDArray[Any],
    y: NDArray[Any],
    mask: NDArray[Any],
    taps: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    folds: tuple[
        tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
        tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
        tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    ],
    k: Constants,
    contrast: bool,
    upstream: NDArray[Any],
    inside: NDArray[Any],
    l1_weight: Any,
    values: NDArray[Any],
    grad_x: NDArray[Any],
    grad_y: NDArray[Any],
) -> float:
    """The gradient at a tile's pixels, and the sum of ``|x - y|`` over its valid ones.

    ``upstream`` (dL/dmap), ``inside`` (1 where a position counts) and ``values`` (the map, written
    at the positions inside) are the tile with every position whose window sees one of its pixels;
    ``x``, ``y`` and ``mask`` are that with what those windows reach.
    """
    taps_d, taps_h, taps_w = taps
    terms = _gradient_terms(x, y, mask, taps, k, contrast, upstream, inside, values)
    depth, height, width = grad_x.shape
    along = np.empty((upstream.shape[0], upstream.shape[1], width), x.dtype)
    down = np.empty((upstream.shape[0], height, width), x.dtype)
    filtered = np.empty((4, depth, height, width), x.dtype)
    for p in range(4):
        for d in range(upstream.shape[0]):
            _adjoint_along(terms[p, d], taps_w, folds[2], along[d])
            _adjoint_down(along[d], taps_h, folds[1], down[d])
        _adjoint_down(
            down.reshape(down.shape[0], -1), taps_d, folds[0], filtered[p].reshape(depth, -1)
        )
    l1 = 0.0
    at_d, at_h, at_w = taps_d.size - 1, taps_h.size - 1, taps_w.size - 1
    for d in range(depth):
        for h in range(height):
            s, t = x[at_d + d, at_h + h, at_w:], y[at_d + d, at_h + h, at_w:]
            of_s, of_d = filtered[SUM, d, h], filtered[DIFFERENCE, d, h]
            of_ss, of_dd = filtered[SUM_SQUARE, d, h], filtered[DIFFERENCE_SQUARE, d, h]
            to_x, to_y = grad_x[d, h], grad_y[d, h]
            for i in range(width):
                sign = l1_weight if t[i] > 0.0 else (-l1_weight if t[i] < 0.0 else 0.0)
                from_s, from_d = of_s[i] + s[i] * of_ss[i], of_d[i] + t[i] * of_dd[i] + sign
                to_x[i] = from_s + from_d
                to_y[i] = from_s - from_d
                l1 += abs(t[i])
            if mask.size:  # invalid pixels have a difference of 0, and no gradient
                m = mask[at_d + d, at_h + h, at_w:]
                for i in range(width):
                    to_x[i] = to_x[i] if m[i] > 0.0 else 0.0
                    to_y[i] = to_y[i] if m[i] > 0.0 else 0.0
    return float(l1 / k.scale)


@compiled
def _gradient_terms(
    x: NDArray[Any],
    y: NDArray[Any],
    mask: NDArray[Any],
    taps: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    k: Constants,
    contrast: bool,
    upstream: NDArray[Any],
    inside: NDArray[Any],
    values: NDArray[Any],
) -> NDArray[Any]:
    """dL/dMs, dL/dMd, Ts and Td at every position, 0 where it does not count."""
    taps_d, taps_h, taps_w = taps
    count = 5 if mask.size else 4
    planes = np.empty((count, x.shape[1], x.shape[2]), x.dtype)
    column_sums = np.empty(x.shape[2])
    depth, height, width = upstream.shape
    rows = np.empty((count, width))
    terms = np.zeros((4, depth, height, width), x.dtype)
    _sum_and_difference(x, y, mask, k)
    for d in range(depth):
        if not inside[d].any():
            continue
        _filter_depth(x, y, mask, d, taps_d, planes)
        for h in range(height):
            counts, out = inside[d, h], values[d, h]
            if not counts.any():
                continue
            _moment_rows(planes, h, taps_h, taps_w, column_sums, rows)
            _similarity_row(rows, k, contrast, out)
            _gradient_row(
                rows, upstream[d, h], k, contrast,
                terms[0, d, h], terms[1, d, h], terms[2, d, h], terms[3, d, h],
            )  # fmt: skip
            for p in range(4):
                term = terms[p, d, h]
                if mask.size:
                    weight = rows[WEIGHT]
                    for i in range(term.size):
                        term[i] = term[i] * weight[i] if weight[i] > 0.0 else 0.0
                for i in range(term.size):
                    passes = counts[i] and not (out[i] < k.lowest or out[i] > k.highest)
                    term[i] = term[i] if passes else 0.0
            _clamp_row(out, k)
            if mask.size:
                _keep_defined(out, rows[WEIGHT])
    return terms
