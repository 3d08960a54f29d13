"""Joules between two moments, from readings of a counter or of the power. Pure."""

from __future__ import annotations

import numpy as np

from llmexp.records.observed import Floats

CONTINUOUS = 0.8
"""Share of readings that differ from the one before, from which a counter moves all the time."""
MAX_GAP_S = 2.5
MAX_GAP_READINGS = 6


def of_counter(at_s: Floats, joules: Floats, start_s: float, end_s: float) -> float | None:
    """What a counter grew by; None where it began anew, or where it was not seen on both sides.

    Exporters refresh their figures in steps. A step happened somewhere between two readings, and what the counter
    says holds for that moment, not for the readings that only repeat it.
    """
    if len(at_s) < 2 or (np.diff(joules) < 0).any():
        return None
    moved = np.diff(joules) > 0
    if not moved.any():
        return None
    if moved.mean() < CONTINUOUS:
        steps = np.flatnonzero(moved) + 1
        at_s, joules = (at_s[steps - 1] + at_s[steps]) / 2, joules[steps]
    if at_s[0] > start_s or at_s[-1] < end_s:
        return None
    before, after = np.interp([start_s, end_s], at_s, joules)
    return float(after - before)


def refreshed_s(at_s: Floats, joules: Floats) -> float | None:
    """The longest that a counter stood still: what its exporter says may be so old. None without such a counter."""
    if len(at_s) < 2 or not joules.any():
        return None
    moved = at_s[1:][np.diff(joules) != 0]
    return float(np.diff(np.concatenate([at_s[:1], moved, at_s[-1:]])).max())


def of_power(at_s: Floats, watts: Floats, start_s: float, end_s: float) -> float | None:
    """Power over time; None where the readings leave a gap or do not reach over both ends."""
    if len(at_s) < 2 or at_s[0] > start_s or at_s[-1] < end_s:
        return None
    gaps = np.diff(at_s)
    inside = (at_s[1:] > start_s) & (at_s[:-1] < end_s)
    if gaps[inside].max() > max(MAX_GAP_S, MAX_GAP_READINGS * float(np.median(gaps))):
        return None
    before, after = np.interp([start_s, end_s], at_s, cumulated(at_s, watts))
    return float(after - before)


def cumulated(at_s: Floats, values: Floats) -> Floats:
    """The integral of values over time up to each reading, straight between them."""
    areas = np.diff(at_s) * (values[1:] + values[:-1]) / 2
    return np.concatenate([[0.0], np.cumsum(areas)])


def means(at_s: Floats, values: Floats, edges: Floats) -> Floats:
    """The mean over each step; NaN where the readings do not reach."""
    if len(at_s) < 2:
        return np.full(len(edges) - 1, np.nan)
    grown = np.interp(edges, at_s, cumulated(at_s, values))
    covered = (edges[:-1] >= at_s[0]) & (edges[1:] <= at_s[-1])
    return np.where(covered, np.diff(grown) / np.diff(edges), np.nan)
