"""One job at a glance, for a person at a terminal: numbers, errors, cost, and whether to believe them."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llmexp.json_types import branch, number
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.distributions import all_uncarried
from llmexp.metrics.wording import capacity_headline, digits, duration, usd
from llmexp.results.model import ErrorClass, Metrics, Result, Spread
from llmexp.results.run import Run
from llmexp.terminal import capacity as capacity_glance

MIN_WIDTH, PLAIN_WIDTH = 80, 110
SHOWN = ("p50", "p90", "p99")
LATENCIES = (
    "response_ttft_s",
    "ttft_s",
    "time_to_first_answer_token_s",
    "time_per_output_token_s",
    "inter_token_latency_s",
    "response_latency_s",
    "e2e_latency_s",
)
COLOURS = {"valid": "green", "degraded": "yellow", "invalid": "red"}


def render(result: Result, directory: Path | None = None, *, colour: bool | None = None) -> str:
    """The job as text: coloured and as wide as the terminal, or plain and of a fixed width where there is none."""
    tty = sys.stdout.isatty() if colour is None else colour
    width = max(shutil.get_terminal_size().columns, MIN_WIDTH) if tty else PLAIN_WIDTH
    console = Console(
        markup=False,
        file=io.StringIO(),
        width=width,
        force_terminal=tty,
        color_system="standard" if tty else None,
        highlight=False,
        legacy_windows=False,
    )
    with console.capture() as captured:
        console.print(render_job(result, directory))
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def render_job(result: Result, directory: Path | None = None) -> RenderableType:
    """The job as `rich` prints it."""
    parts: list[RenderableType] = [_title(result)]
    latencies = _latencies(Run(result))
    if latencies.row_count:
        parts.append(latencies)
    if result.capacity_curve:
        parts.append(capacity_glance.table(result.capacity_curve))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, value in _facts(result):
        facts.add_row(name, value)
    if directory is not None:
        facts.add_row("files", Text(str(directory), overflow="fold"))
    return Group(*parts, Padding(facts, (0, 0, 0, 1)))


def _title(result: Result) -> Text:
    verdict = result.validity.verdict
    text = Text.assemble(" ", (result.job.name or "job", "bold"), " · ")
    if result.job.rehearsal:
        text.append("REHEARSAL", "bold magenta").append(" · ")
    if result.status != "finished":
        text.append(result.status, "bold red").append(" · ")
    text.append(verdict, f"bold {COLOURS[verdict]}")
    if result.reason:
        text.append(f"\n {result.reason}")
    return text


def _latencies(run: Run) -> Table:
    """A row for each latency there is; `~` marks a percentile that the sample does not carry."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    table.add_column(" latency")
    for name in ("mean", *SHOWN, "max"):
        table.add_column(name, justify="right")
    rough = all_uncarried(run.metrics)
    for name in LATENCIES:
        found = run.metrics.spread(name)
        if found is None or (name.startswith("response_") and not run.open_loop):
            continue
        mark = "≈" if run.result.rough(name) else ""
        cells: list[str | Text] = [
            f"{mark}{_duration(found.get('mean'))}",
            *(_percentile(found.get(each), mark or "~" * (each in rough.get(name, ()))) for each in SHOWN),
            f"{mark}{_duration(found.get('max'))}",
        ]
        table.add_row(f" {Metric(name).row}", *cells)
    captions = []
    if any(set(SHOWN) & set(rough.get(name, ())) for name in LATENCIES):
        captions.append("~ more requests are needed to carry this percentile")
    if any(run.result.rough(name) for name in LATENCIES):
        captions.append("≈ rests on an estimate")
    table.caption, table.caption_justify = "; ".join(captions) or None, "left"
    return table


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def _percentile(value: float | None, mark: str) -> Text:
    return Text(f"{mark}{_duration(value)}", "dim" if mark else "")


def _facts(result: Result) -> Iterator[tuple[str, RenderableType]]:
    metrics = result.metrics
    if capacity := branch(metrics, "capacity"):
        yield "capacity", Text(capacity_headline(capacity), "bold")
        if capacity.get("reason"):
            yield "", Text(str(capacity["reason"]), "yellow")
    if (tokens := metrics.number("output_tokens_per_s")) is not None:
        requests, inflight = metrics.number("requests_per_s"), metrics.number("inflight_mean")
        yield (
            "throughput",
            _joined(
                f"{digits(tokens)} output tokens/s",
                requests is not None and f"{digits(requests)} requests/s",
                inflight is not None and f"{digits(inflight)} in flight",
            ),
        )
    if "requests_completed" in metrics:
        yield "requests", _requests(metrics)
    if metrics.number("sessions_completed") is not None:
        yield "sessions", _sessions(metrics)
    yield from _errors(result.errors)
    lengths = _joined(_spread("in", metrics.spread("input_tokens")), _spread("out", metrics.spread("output_tokens")))
    if lengths:
        yield "tokens", lengths
    if metrics.number("requests_graded") is not None:
        yield "answers", _answers(result)
    yield from _service(result)
    if (cost := metrics.number("cost_usd")) is not None:
        yield "cost", _cost(cost, metrics.number("usd_per_million_output_tokens"), rehearsal=result.job.rehearsal)
    yield from _energy(metrics)
    yield from _validity(result)


def _requests(metrics: Metrics) -> Text:
    completed, failed, unfinished = (
        int(metrics.number(f"requests_{kind}") or 0) for kind in ("completed", "failed", "unfinished")
    )
    text = Text(f"{completed:,} completed")
    if failed:
        text.append(" · ").append(f"{failed:,} failed ({metrics.number('error_rate') or 0:.1%})", "red")
    if unfinished:
        text.append(" · ").append(f"{unfinished:,} unfinished", "yellow")
    return text


def _sessions(metrics: Metrics) -> Text:
    """`12 completed · 0.31 sessions/s · 41.2 s each · 3 turns skipped · 2 answers off script`."""
    rate, spread = metrics.number("sessions_per_s"), metrics.spread("session_duration_s")
    text = Text(f"{int(metrics.number('sessions_completed') or 0):,} completed")
    if rate is not None:
        text.append(f" · {digits(rate)} sessions/s")
    if spread is not None:
        text.append(f" · {_duration(spread.get('mean'))} each")
    for name, words in (("turns_skipped", "turns skipped"), ("requests_off_script", "answers off script")):
        if count := int(metrics.number(name) or 0):
            text.append(" · ").append(f"{count:,} {words}", "yellow")
    return text


def _errors(errors: Mapping[str, ErrorClass]) -> Iterator[tuple[str, RenderableType]]:
    for at, (name, found) in enumerate(errors.items()):
        text = Text.assemble((f"{found.count:,} {name}", "red"))
        for example in found.examples[:1]:
            words = [part for part in (example.code, example.message) if part is not None]
            text.append(f": {' '.join(words)[:200]}", "dim")
        yield ("" if at else "errors"), text


def _spread(label: str, found: Spread | None) -> str | None:
    if found is None:
        return None
    mean, stddev = found.get("mean"), found.get("stddev")
    spread = f" ± {digits(stddev)}" if stddev is not None else ""
    return None if mean is None else f"{label} {digits(mean)}{spread}"


def _answers(result: Result) -> str:
    """`81.2 % right (74.2–86.1) · 3 unparsed · 2 without a grade · 11.3 right/s · 0.31 USD per thousand right`."""
    metrics = result.metrics
    share, low, high = (metrics.number(name) for name in ("right_share", "right_share_low", "right_share_high"))
    right = "none graded"
    if share is not None and low is not None and high is not None:
        right = f"{100 * share:.1f} % right ({100 * low:.1f}–{100 * high:.1f})"
    counts = [
        f"{int(count):,} {words}"
        for name, words in (("unparsed", "unparsed"), ("ungraded", "without a grade"), ("truncated", "truncated"))
        if (count := metrics.number(f"requests_{name}"))
    ]
    rate, price = metrics.number("right_per_s"), metrics.number("usd_per_thousand_right")
    judge = number(result.cost.judge, "usd")
    return _joined(
        right,
        *counts,
        rate is not None and f"{digits(rate)} right/s",
        price is not None and price > 0 and f"{usd(price)} per thousand right",
        judge is not None and judge > 0 and f"judged for {usd(judge)}",
    )


def _service(result: Result) -> Iterator[tuple[str, RenderableType]]:
    metrics = result.metrics
    kept, goodput, flag = metrics.number("slo/attainment"), metrics.number("goodput_per_s"), metrics.flag("slo/met")
    met = Text("met", "green") if flag else Text("missed", "red")
    if kept is None and flag is not None:
        yield "SLO", Text.assemble(met, ", of right answers")
    if kept is not None:
        more = f" · goodput {digits(goodput)} requests/s" if goodput is not None else ""
        yield "SLO", Text.assemble(met, f", kept by {kept:.1%} of the requests{more}")
    if result.right_shortfall:
        yield "", result.right_shortfall


def _cost(cost: float, per_million: float | None, *, rehearsal: bool) -> str:
    return _joined(
        usd(cost),
        per_million is not None and f"{usd(per_million)} per million output tokens",
        rehearsal and "what it would have cost",
    )


def _energy(metrics: Metrics) -> Iterator[tuple[str, RenderableType]]:
    """`GPU 3,426 J · 400 W · 2.29 J per output token · 143 J per good request`."""
    label = "energy"
    for name in ("gpu", "cpu"):
        found = {part: metrics.number(f"{name}/{part}") for part in ("energy_j", "power_w", *_HELD_AGAINST)}
        joules, watts = found["energy_j"], found["power_w"]
        if joules is None and watts is None:
            continue
        held = [f"{digits(value)} J per {words}" for part, words in _HELD_AGAINST.items() if (value := found[part])]
        yield (
            label,
            _joined(
                f"{name.upper()} {'not known' if joules is None else f'{digits(joules)} J'}",
                watts is not None and f"{digits(watts)} W",
                *held,
            ),
        )
        label = ""


_HELD_AGAINST = {
    "joules_per_output_token": "output token",
    "joules_per_good_request": "good request",
    "joules_per_right_answer": "right answer",
}


def _validity(result: Result) -> Iterator[tuple[str, RenderableType]]:
    for reason in result.validity.reasons:
        yield reason.level, Text(str(reason), COLOURS.get(reason.level, ""))
    for at, note in enumerate([*map(str, result.validity.notes), *result.notes.remarks]):
        yield ("" if at else "notes"), Text(note)


def _joined(*parts: str | bool | None) -> str:
    return " · ".join(str(part) for part in parts if part)
