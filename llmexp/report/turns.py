"""Sessions turn by turn: a table for a job's page, drawings for it and for a comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from llmexp.json_types import Tree, items, number
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.wording import digits
from llmexp.report.figures import Plot, colour, dash, from_zero, label_axis, legend, marker, plot
from llmexp.results.run import Run

LATENCIES = (("ttft_s", "TTFT"), ("e2e_latency_s", "end-to-end latency"))
COLUMNS = (
    "turn",
    "completed",
    "failed",
    "p50 TTFT",
    "p90 TTFT",
    "p50 end to end",
    "p50 from due",
    "input tokens",
    "cached tokens",
    "cached",
    "output tokens",
)


def turns_of(run: Run) -> list[Tree]:
    """The turns in a run's numbers; none where it had no sessions, or sessions of one turn."""
    found = [turn for turn in items(run.metrics, "turns") if isinstance(turn, Mapping)]
    return found if len(found) > 1 else []


def table(run: Run) -> list[list[str]]:
    """A row for each turn, in the order of `COLUMNS`."""
    return [_row(turn) for turn in turns_of(run)]


def _row(turn: Tree) -> list[str]:
    times = (("ttft_s", "p50"), ("ttft_s", "p90"), ("e2e_latency_s", "p50"), ("response_latency_s", "p50"))
    means = [_mean(turn, f"{name}_tokens") for name in ("input", "cached")]
    return [
        f"{1 + int(number(turn, 'turn') or 0)}",
        f"{int(number(turn, 'requests_completed') or 0):,}",
        f"{int(number(turn, 'requests_failed') or 0):,}",
        *[Metric("ttft_s").show(number(turn, name, statistic)) for name, statistic in times],
        *means,
        Metric("error_rate").show(number(turn, "cached_share")),
        _mean(turn, "output_tokens"),
    ]


def _mean(turn: Tree, name: str) -> str:
    value = number(turn, name, "mean")
    return "–" if value is None else digits(value)


def by_turn(runs: Mapping[int, tuple[str, Sequence[Run]]], prefix: str) -> Iterator[Plot | None]:
    """Latency by turn, a line for each stack, the median over its runs' medians; keys are the stacks' places."""
    for name, words in LATENCIES:
        lines = {at: (label, found) for at, (label, members) in runs.items() if (found := _line(members, name))}
        if not lines:
            continue

        def draw(figure: Figure, lines: Mapping[int, tuple[str, list[tuple[int, float]]]] = lines) -> None:
            axes = figure.subplots()
            for at, (label, found) in lines.items():
                turns, values = zip(*found, strict=True)
                axes.plot(turns, values, color=colour(at), marker=marker(at), linestyle=dash(at), label=label)
            axes.set_xlabel("turn")
            from_zero(axes)
            label_axis(axes, "x", "")
            axes.set_xlabel("turn")
            label_axis(axes, "y", "s")
            if len(lines) > 1:
                legend(figure, axes)

        yield plot(f"{prefix}turns_{name}", f"Median {words} by turn", _in_words(lines), draw)


def _line(members: Sequence[Run], name: str) -> list[tuple[int, float]]:
    """(turn from 1, median over runs of their medians), where there is one."""
    values: dict[int, list[float]] = {}
    for run in members:
        for turn in turns_of(run):
            value = number(turn, name, "p50")
            if value is not None:
                values.setdefault(1 + int(number(turn, "turn") or 0), []).append(value)
    return [(turn, sorted(found)[len(found) // 2]) for turn, found in sorted(values.items())]


def _in_words(lines: Mapping[int, tuple[str, list[tuple[int, float]]]]) -> str:
    """What the drawing shows, for people who do not see it."""
    said = []
    for label, found in lines.values():
        (first, start), (last, end) = found[0], found[-1]
        show = Metric("ttft_s").show
        said.append(f"{label}: {show(start)} at turn {first}, {show(end)} at turn {last}")
    return "; ".join(said)
