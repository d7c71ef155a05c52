"""Increasing fits of curves over training, and where a fit reaches half of its final value. NumPy only.

The fit is isotonic regression, the least-squares increasing curve. It is computed by its min-max formula, for all curves of a
bootstrap at the same time; pooling adjacent violators gives the same values (Robertson, Wright & Dykstra 1988, section 1.4).

Letters: `K` checkpoints, `W` curves.
"""

from __future__ import annotations

import numpy as np


def fit_increasing(values: np.ndarray) -> np.ndarray:
    """float64 [..., K], the increasing curve with the least squared distance to `values` [..., K]."""
    values = np.asarray(values, np.float64)
    count = values.shape[-1]
    sums = np.concatenate([np.zeros((*values.shape[:-1], 1)), values.cumsum(-1)], -1)
    first, last = np.arange(count)[:, None], np.arange(count)[None]
    is_range = last >= first
    # Mean of each range of checkpoints, [..., first, last].
    means = (sums[..., None, 1:] - sums[..., :-1, None]) / np.where(is_range, last - first + 1, 1)
    lowest = np.minimum.accumulate(np.where(is_range, means, np.inf)[..., ::-1], -1)[..., ::-1]
    fit: np.ndarray = np.where(is_range, lowest, -np.inf).max(-2)
    return fit


def half_points(position: np.ndarray, values: np.ndarray) -> np.ndarray:
    """float64 [...], where the increasing fit of curves [..., K] reaches half of its final value.

    Between checkpoints the fit is interpolated linearly. NaN where the final value is not above 0; the first position where
    the fit begins at or above its half.

    Args:
        position: float64 [K], increasing, such as the logarithm of the training tasks.
        values: float64 [..., K].
    """
    fit = fit_increasing(values)
    level = fit[..., -1:] / 2
    index = (fit >= level).argmax(-1)
    before = np.maximum(index - 1, 0)
    above = np.take_along_axis(fit, index[..., None], -1)[..., 0]
    below = np.take_along_axis(fit, before[..., None], -1)[..., 0]
    rise = np.where(above > below, above - below, 1.0)
    share = np.where(index == 0, 0.0, (level[..., 0] - below) / rise)
    crossing = position[before] + share * (position[index] - position[before])
    return np.where(fit[..., -1] > 0, crossing, np.nan)


def simultaneous_lower(values: np.ndarray, resampled: np.ndarray, level: float) -> np.ndarray:
    """float64 [K], lower bounds that all hold with probability `level`, from a bootstrap of the whole curve.

    Args:
        values: float64 [K].
        resampled: float64 [W, K], the curve in each resample.
        level: such as 0.95.
    """
    deviation = resampled.std(0, ddof=1)
    scaled = (resampled - values) / np.where(deviation > 0, deviation, 1.0)
    return np.asarray(values - np.quantile(scaled.max(1), level) * deviation)
