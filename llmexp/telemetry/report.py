"""Readings → what a run drew: metrics over its window, curves on the steps of its own, and words where both are absent.

Energy, power and memory of several GPUs are summed, their utilization is averaged. A GPU that was not covered leaves
the sum without it absent: part of a machine's energy under the name of all of it would mislead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmexp.json_types import Tree, branch, items, number
from llmexp.metrics.timeline import window
from llmexp.records.observed import Floats, Observed
from llmexp.telemetry.energy import means, of_counter, of_power, refreshed_s
from llmexp.telemetry.reading import Reading
from llmexp.telemetry.watch import PowerWatch

MAX_AGE_SHARE, MAX_AGE_S = 0.1, 0.5
"""Of the window, and at the least: figures that are refreshed less often do not tell what was drawn inside it."""
Series = Callable[[Reading], float | None]


@dataclass(frozen=True, slots=True)
class Work:
    """What the run got for it, over the window."""

    start_ns: int
    end_ns: int
    output_tokens: int
    good_requests: int | None
    """None where no service level was asked for."""
    right_answers: int | None
    """None where nothing was graded."""

    @classmethod
    def of(cls, observed: Observed, summary: Tree, output_tokens: int) -> Work | None:
        """From a run's records and numbers; None where it has no window."""
        span = window(observed)
        if span is None:
            return None
        good, right = (number(summary, name) for name in ("goodput_per_s", "right_per_s"))
        counts = [None if rate is None else round(rate * span.duration_s) for rate in (good, right)]
        return cls(span.start_ns, span.end_ns, output_tokens, *counts)


@dataclass(frozen=True)
class Drawn:
    """One watch's part of a result."""

    metrics: dict[str, float | None]
    curves: dict[str, list[float | None]]
    source: dict[str, object]


def report(watch: PowerWatch, work: Work | None, curves: Tree | None) -> Drawn:
    """What a watch saw. Empty where it had no source and none was asked for."""
    if watch.source is None or not watch.samples or work is None:
        return Drawn({}, {}, {"problem": watch.problem} if watch.problem else {})
    devices = list(dict.fromkeys(name for _, found in watch.samples for name in found))
    energies = [_energy(watch, name, work) for name in devices]
    joules = _sum([energy for energy, _ in energies])
    seconds = (work.end_ns - work.start_ns) / 1e9
    mean_w, utilization, memory = (_over(watch, devices, part, work) for part in (_power, _utilization, _memory))
    metrics = {
        "energy_j": joules,
        "power_w": _sum(mean_w) if joules is None else joules / seconds,
        "utilization": None if (total := _sum(utilization)) is None else total / len(devices),
        "memory_used_bytes": _sum(memory),
        "joules_per_output_token": _per(joules, work.output_tokens),
        "joules_per_good_request": _per(joules, work.good_requests),
        "joules_per_right_answer": _per(joules, work.right_answers),
    }
    source: dict[str, object] = {
        "source": watch.source.name,
        "devices": devices,
        "readings": len(watch.samples),
        "missed": watch.missed,
        "energy_from": _from([how for _, how in energies]),
    }
    if joules is None:
        source["problem"] = _why_none(watch, devices, work)
    return Drawn(
        {name: value for name, value in metrics.items() if value is not None},
        _curves(watch, devices, work, curves or {}),
        source,
    )


def _why_none(watch: PowerWatch, devices: Sequence[str], work: Work) -> str:
    """Why there is no energy, and what would help."""
    covered = watch.samples[0][0] <= work.start_ns and watch.samples[-1][0] >= work.end_ns
    stale = [age for device in devices if (age := _stale_s(watch, device, work)) is not None]
    if covered and stale:
        return (
            f"the figures stood still for {max(stale):.1f} s, and the run's window has "
            f"{(work.end_ns - work.start_ns) / 1e9:.1f} s: have the exporter refresh them more often (dcgm-exporter: "
            "--collect-interval=100, in ms), or measure for longer"
        )
    return "the readings do not cover the whole window of the run" + (f" ({watch.problem})" if watch.problem else "")


def _stale_s(watch: PowerWatch, device: str, work: Work) -> float | None:
    """How long a device's figures stood still, where that is too long for this window."""
    age_s = refreshed_s(*_series(watch, device, _energy_j, work.start_ns))
    limit_s = max(MAX_AGE_S, MAX_AGE_SHARE * (work.end_ns - work.start_ns) / 1e9)
    return age_s if age_s is not None and age_s > limit_s else None


def regraded(metrics: Tree, right_answers: int | None) -> dict[str, object]:
    """The groups `gpu` and `cpu` of a run's metrics, their energy held against another count of right answers."""
    found: dict[str, object] = {}
    for name in ("gpu", "cpu"):
        group = dict(branch(metrics, name))
        if group:
            group.pop("joules_per_right_answer", None)
            joules = _per(number(group, "energy_j"), right_answers)
            found[name] = group if joules is None else {**group, "joules_per_right_answer": joules}
    return found


def _per(joules: float | None, count: float | None) -> float | None:
    return joules / count if joules is not None and count else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _from(how: Sequence[str | None]) -> str | None:
    return "power" if "power" in how else next((one for one in how if one), None)


def _power(reading: Reading) -> float | None:
    return reading.power_w


def _energy_j(reading: Reading) -> float | None:
    return reading.energy_j


def _utilization(reading: Reading) -> float | None:
    return reading.utilization


def _memory(reading: Reading) -> float | None:
    return reading.memory_used_bytes


def _series(watch: PowerWatch, device: str, part: Series, origin_ns: int) -> tuple[Floats, Floats]:
    """Seconds since `origin_ns`, and the values at them."""
    pairs = [
        ((at_ns - origin_ns) / 1e9, value)
        for at_ns, found in watch.samples
        if device in found and (value := part(found[device])) is not None
    ]
    return np.array([at_s for at_s, _ in pairs]), np.array([value for _, value in pairs])


def _energy(watch: PowerWatch, device: str, work: Work) -> tuple[float | None, str | None]:
    """Joules over the window, and what they come from."""
    end_s = (work.end_ns - work.start_ns) / 1e9
    counter = _series(watch, device, _energy_j, work.start_ns)
    joules = of_counter(*counter, 0.0, end_s)
    if joules is not None:
        return joules, "counter"
    if _stale_s(watch, device, work) is not None:
        return None, None
    joules = of_power(*_series(watch, device, _power, work.start_ns), 0.0, end_s)
    return joules, None if joules is None else "power"


def _over(watch: PowerWatch, devices: Sequence[str], part: Series, work: Work) -> list[float | None]:
    """Each device's mean of the readings inside the window; of memory, the most."""
    end_s = (work.end_ns - work.start_ns) / 1e9
    found: list[float | None] = []
    for device in devices:
        at_s, values = _series(watch, device, part, work.start_ns)
        inside = values[(at_s >= 0) & (at_s <= end_s)]
        if not len(inside):
            found.append(None)
        else:
            found.append(float(inside.max() if part is _memory else inside.mean()))
    return found


def _curves(watch: PowerWatch, devices: Sequence[str], work: Work, curves: Tree) -> dict[str, list[float | None]]:
    """Means over the steps of the run's own curves, under the names of the metrics."""
    starts = [value for value in items(curves, "t_s") if isinstance(value, int | float)]
    if not starts:
        return {}
    end_s = max((work.end_ns - work.start_ns) / 1e9, starts[-1] + 1e-3)
    edges = np.append(np.asarray(starts, dtype=float), end_s)
    found: dict[str, list[float | None]] = {}
    for name, part in (("power_w", _power), ("utilization", _utilization), ("memory_used_bytes", _memory)):
        each = [means(*_series(watch, device, part, work.start_ns), edges) for device in devices]
        total = np.sum(each, axis=0) / (len(devices) if part is _utilization else 1)
        if np.isfinite(total).any():
            found[name] = [round(float(value), 4) if np.isfinite(value) else None for value in total]
    if "power_w" not in found:
        each = [_slopes(*_series(watch, device, _energy_j, work.start_ns), edges) for device in devices]
        total = np.sum(each, axis=0)
        if np.isfinite(total).any():
            found["power_w"] = [round(float(value), 4) if np.isfinite(value) else None for value in total]
    return found


def _slopes(at_s: Floats, joules: Floats, edges: Floats) -> Floats:
    """A counter's growth over each step, per second."""
    if len(at_s) < 2:
        return np.full(len(edges) - 1, np.nan)
    covered = (edges[:-1] >= at_s[0]) & (edges[1:] <= at_s[-1])
    return np.where(covered, np.diff(np.interp(edges, at_s, joules)) / np.diff(edges), np.nan)
