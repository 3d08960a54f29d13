"""A run over time: in flight, tokens per second, errors; and the latency of each request when it was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from llmexp.json_types import branch
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.wording import digits
from llmexp.report.figures import (
    BAD,
    HEIGHT_IN,
    SERIES,
    WIDE_IN,
    Plot,
    colour,
    from_zero,
    label_axis,
    legend,
    margins,
    plot,
)
from llmexp.report.plots import LATENCIES, ecdf, finish_ecdf
from llmexp.results.model import Curves
from llmexp.results.run import Run

DOTS = 1500


def timeline(run: Run, name: str, title: str) -> Plot | None:
    """The curves of one run's `result.json`; None where it has none."""
    curves = _curves(run)
    if curves is None:
        return None
    panels = [panel for panel in _PANELS if panel[0] in _ALWAYS or any(_values(curves, panel[0]))]

    def draw(figure: Figure) -> None:
        for axes, (key, _, shade) in zip(_rows(figure, panels), panels, strict=True):
            values = _values(curves, key)
            _steps(axes, curves, key, shade)
            axes.stairs(values, _edges(curves), color=shade, alpha=0.15, fill=True)
            axes.set_ylim(0, 1.08 * max([*values, 1e-9]))

    return plot(name, title, _in_words(curves), draw, (WIDE_IN, 0.5 + 1.2 * len(panels)), wide=True)


def overlay(runs: Mapping[int, tuple[str, Run]], name: str, title: str) -> Plot | None:
    """One run of each stack over time, in the stacks' colours; keys are the stacks' places."""
    known = {at: (label, curves) for at, (label, run) in runs.items() if (curves := _curves(run))}
    if not known:
        return None
    panels = [
        panel
        for panel in _PANELS
        if panel[0] in _ALWAYS or any(any(_values(curves, panel[0])) for _, curves in known.values())
    ]

    def draw(figure: Figure) -> None:
        rows = _rows(figure, panels)
        for axes, (key, _, _) in zip(rows, panels, strict=True):
            for at, (label, curves) in known.items():
                _steps(axes, curves, key, colour(at), label)
            from_zero(axes)
        legend(figure, rows[-1])

    words = "; ".join(f"{label}: {_in_words(curves)}" for label, curves in known.values())
    return plot(name, title, words, draw, (WIDE_IN, 0.8 + 1.2 * len(panels)), wide=True)


_PANELS = (
    ("inflight", "in flight", SERIES[0]),
    ("output_tokens_per_s", "tokens/s", SERIES[2]),
    ("errors", "errors", BAD),
    ("server_waiting", "queued there", SERIES[1]),
    ("server_kv_cache_usage", "KV cache", SERIES[4]),
    ("server_prefix_cache_hit_rate", "cache hits", SERIES[3]),
    ("server_preemptions_per_s", "preempted/s", BAD),
    ("gpu_power_w", "GPUs, W", SERIES[5]),
    ("cpu_power_w", "CPU, W", SERIES[5]),
)
"""Ours, then what the server says of itself, then what the hardware draws."""
_ALWAYS = ("inflight", "output_tokens_per_s")


def _curves(run: Run) -> Curves | None:
    """The run's curves, the server's beside them; a single step is no curve."""
    ours, theirs = run.curves, Curves.of(branch(run.result.server, "curves"))
    if len(ours.t_s) < 2:
        return None
    if theirs.t_s != ours.t_s:
        return ours
    return replace(ours, series={**ours.series, **{f"server_{name}": found for name, found in theirs.series.items()}})


def _values(curves: Curves, key: str) -> list[float]:
    """A series with a value for each step; zeros where there is none."""
    return [value or 0.0 for value in curves.series.get(key, [0.0] * len(curves.t_s))]


def _rows(figure: Figure, panels: Sequence[tuple[str, str, str]]) -> Sequence[Axes]:
    """One set of axes for each panel, one below the other."""
    rows: list[Axes] = list(figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0])
    for axes, (key, words, _) in zip(rows, panels, strict=True):
        axes.set_ylabel(words)
        axes.margins(x=0)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10], integer=key in ("errors", "inflight")))
    rows[-1].set_xlabel("seconds since the first send")
    margins(figure, top=0.08)
    return rows


def _edges(curves: Curves) -> list[float]:
    return [*curves.t_s, curves.end_s]


def _steps(axes: Axes, curves: Curves, key: str, shade: str, label: str | None = None) -> None:
    """A curve as steps, each as long as it lasted."""
    axes.stairs(_values(curves, key), _edges(curves), color=shade, lw=1.4, baseline=None, label=label)


def _in_words(curves: Curves) -> str:
    parts = [
        f"{words} at most {digits(max(_values(curves, key)))}"
        for key, words in (("inflight", "in flight"), ("output_tokens_per_s", "tokens per second"))
        if key in curves.series
    ]
    failed = sum(_values(curves, "errors"))
    return f"Over {digits(curves.end_s)} seconds: {', '.join([*parts, f'{failed:.0f} errors'])}"


def latency(run: Run) -> Plot | None:
    """Distributions of the three latencies of one run, with its percentiles marked."""
    samples = {base: values for base in LATENCIES if (values := run.requests.of(base)) is not None and len(values)}
    if not samples:
        return None

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(samples), 1, squeeze=False)[:, 0]
        for axes, (base, sample), shade in zip(rows, samples.items(), SERIES, strict=False):
            metric = Metric(base)
            axes.plot(*ecdf(sample), color=shade)
            finish_ecdf(axes, metric)
            axes.set_title(metric.label)
            _mark(axes, sample, metric, shade)
        margins(figure)
        figure.subplots_adjust(hspace=0.75)

    words = "; ".join(
        f"{Metric(base).label}: median {Metric(base).show(float(np.median(s)))}" for base, s in samples.items()
    )
    return plot(
        "latency", "Latency of the completed requests", words, draw, (WIDE_IN, 0.5 + 1.75 * len(samples)), wide=True
    )


def _mark(axes: Axes, sample: np.ndarray, metric: Metric, shade: str) -> None:
    """Two percentiles, named below and to the right: the curve rises, so nothing of it lies there."""
    low, high = axes.get_xlim()
    far = high * (high / low) ** 0.2 if axes.get_xscale() == "log" else high + 0.2 * (high - low)
    axes.set_xlim(low, far)
    for percent in (50, 95):
        value = float(np.percentile(sample, percent))
        axes.plot(value, percent, "o", color=shade, ms=5)
        words = f"p{percent} {metric.show(value)}"
        axes.annotate(words, (value, percent), (7, -11), textcoords="offset points", fontsize=8)


def scatter(run: Run) -> Plot | None:
    """TTFT of each request at the moment it was sent: queueing, drift and cold starts show here."""
    requests = run.requests
    shown = requests.completed & np.isfinite(requests.ttft_s) & np.isfinite(requests.started_s)
    if shown.sum() < 2:
        return None
    at = np.flatnonzero(shown)
    at = at[:: max(1, -(-len(at) // DOTS))]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(requests.started_s[at], requests.ttft_s[at], ".", color=SERIES[0], ms=4, alpha=0.7, label="completed")
        failed = requests.started_s[requests.failed & np.isfinite(requests.started_s)]
        if len(failed):
            axes.plot(
                failed[:DOTS], np.zeros(min(len(failed), DOTS)), "x", color=BAD, ms=5, label="failed", clip_on=False
            )
            axes.legend(loc="upper right")
        axes.set_ylim(0, 1.1 * float(requests.ttft_s[at].max()))
        label_axis(axes, "y", "s")
        axes.set_ylabel(f"TTFT, {axes.get_ylabel()}")
        axes.set_xlabel("sent, seconds since the first send")
        margins(figure, top=0.08)

    alt = f"TTFT of {len(at)} requests over time, between {_span(requests.ttft_s[at])}"
    return plot("ttft", "TTFT of each request", alt, draw, (WIDE_IN, HEIGHT_IN), wide=True)


def _span(values: Sequence[float] | np.ndarray) -> str:
    return Metric("ttft_s").show_range(float(np.min(values)), float(np.max(values)))
