"""One job at a glance, for a person at a terminal: numbers, errors, cost, and whether to believe them."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from llmexp.metrics.distributions import all_uncarried
from llmexp.metrics.wording import capacity_headline, duration, number, usd
from llmexp.terminal import capacity as capacity_glance

MIN_WIDTH, PLAIN_WIDTH = 80, 110
SHOWN = ("p50", "p90", "p99")
LATENCIES = {
    "response_ttft_s": "first token, from intended time",
    "ttft_s": "first token (TTFT)",
    "time_to_first_answer_token_s": "first answer token",
    "time_per_output_token_s": "per output token (TPOT)",
    "inter_token_latency_s": "between tokens (ITL)",
    "response_latency_s": "end to end, from intended time",
    "e2e_latency_s": "end to end",
}
COLOURS = {"valid": "green", "degraded": "yellow", "invalid": "red"}


def render(result: Mapping[str, Any], directory: Path | None = None, *, colour: bool | None = None) -> str:
    """The job as text: coloured and as wide as the terminal, or plain and of a fixed width where there is none."""
    tty = sys.stdout.isatty() if colour is None else colour
    width = max(shutil.get_terminal_size().columns, MIN_WIDTH) if tty else PLAIN_WIDTH
    console = Console(
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


def render_job(result: Mapping[str, Any], directory: Path | None = None) -> RenderableType:
    """The job as `rich` prints it."""
    parts: list[RenderableType] = [_title(result)]
    latencies = _latencies(result)
    if latencies.row_count:
        parts.append(latencies)
    if result.get("capacity_curve"):
        parts.append(capacity_glance.table(result["capacity_curve"]))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, value in _facts(result):
        facts.add_row(name, value)
    if directory is not None:
        facts.add_row("files", Text(str(directory), overflow="fold"))
    return Group(*parts, Padding(facts, (0, 0, 0, 1)))


def _title(result: Mapping[str, Any]) -> Text:
    verdict = result["validity"]["verdict"]
    text = Text.assemble(" ", (str(result["job"].get("name") or "job"), "bold"), " · ")
    if result["job"].get("rehearsal"):
        text.append("REHEARSAL", "bold magenta").append(" · ")
    if result["status"] != "finished":
        text.append(str(result["status"]), "bold red").append(" · ")
    text.append(verdict, f"bold {COLOURS[verdict]}")
    if result.get("reason"):
        text.append(f"\n {result['reason']}")
    return text


def _latencies(result: Mapping[str, Any]) -> Table:
    """A row for each latency there is; `~` marks a percentile that the sample does not carry."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    table.add_column(" latency")
    for name in ("mean", *SHOWN, "max"):
        table.add_column(name, justify="right")
    open_loop = result["config"].get("load", {}).get("kind", "closed") != "closed"
    rough = all_uncarried(result["metrics"])
    for name, label in LATENCIES.items():
        found = result["metrics"].get(name)
        if found is None or (name.startswith("response_") and not open_loop):
            continue
        cells: list[str | Text] = [
            duration(found["mean"]),
            *(_percentile(found[one], one in rough.get(name, ())) for one in SHOWN),
            duration(found["max"]),
        ]
        table.add_row(f" {label}", *cells)
    if any(set(SHOWN) & set(rough.get(name, ())) for name in LATENCIES):
        table.caption = "~ more requests are needed to carry this percentile"
        table.caption_justify = "left"
    return table


def _percentile(value: float, rough: bool) -> Text:
    return Text(f"~{duration(value)}", "dim") if rough else Text(duration(value))


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    metrics = result["metrics"]
    if metrics.get("capacity"):
        yield "capacity", Text(capacity_headline(metrics["capacity"]), "bold")
        if metrics["capacity"]["reason"]:
            yield "", Text(metrics["capacity"]["reason"], "yellow")
    if metrics.get("output_tokens_per_s") is not None:
        yield (
            "throughput",
            _joined(
                f"{number(metrics['output_tokens_per_s'])} output tokens/s",
                f"{number(metrics['requests_per_s'])} requests/s",
                metrics.get("inflight_mean") is not None and f"{number(metrics['inflight_mean'])} in flight",
            ),
        )
    if "requests_completed" in metrics:
        yield "requests", _requests(metrics)
    yield from _errors(result.get("errors") or {})
    if metrics.get("input_tokens") or metrics.get("output_tokens"):
        yield (
            "tokens",
            _joined(_spread("in", metrics.get("input_tokens")), _spread("out", metrics.get("output_tokens"))),
        )
    yield from _service(metrics)
    if metrics.get("cost_usd") is not None:
        yield "cost", _cost(metrics, rehearsal=bool(result["job"].get("rehearsal")))
    yield from _validity(result)


def _requests(metrics: Mapping[str, Any]) -> Text:
    failed, unfinished = metrics["requests_failed"], metrics["requests_unfinished"]
    text = Text(f"{metrics['requests_completed']:,} completed")
    if failed:
        text.append(" · ").append(f"{failed:,} failed ({metrics['error_rate']:.1%})", "red")
    if unfinished:
        text.append(" · ").append(f"{unfinished:,} unfinished", "yellow")
    return text


def _errors(errors: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    for at, (name, found) in enumerate(errors.items()):
        text = Text.assemble((f"{found['count']:,} {name}", "red"))
        example = next(iter(found["examples"]), None)
        if example is not None:
            words = [str(part) for part in (example["code"], example["message"]) if part is not None]
            text.append(f": {' '.join(words)[:200]}", "dim")
        yield ("" if at else "errors"), text


def _spread(label: str, found: Mapping[str, Any] | None) -> str | None:
    if not found:
        return None
    spread = f" ± {number(found['stddev'])}" if found["stddev"] is not None else ""
    return f"{label} {number(found['mean'])}{spread}"


def _service(metrics: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    slo = metrics.get("slo")
    if slo:
        met = Text("met", "green") if slo["met"] else Text("missed", "red")
        goodput = metrics.get("goodput_per_s")
        more = f" · goodput {number(goodput)} requests/s" if goodput is not None else ""
        yield "SLO", Text.assemble(met, f", kept by {slo['attainment']:.1%} of the requests{more}")


def _cost(metrics: Mapping[str, Any], *, rehearsal: bool) -> str:
    per_million = metrics.get("usd_per_million_output_tokens")
    return _joined(
        f"{usd(metrics['cost_usd'])} USD",
        per_million is not None and f"{usd(per_million)} USD per million output tokens",
        rehearsal and "what it would have cost",
    )


def _validity(result: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    validity = result["validity"]
    for reason in validity["reasons"]:
        line = f"{reason['seen']}: {reason['why']}. {reason['remedy']}"
        yield str(reason["level"]), Text(line, COLOURS[reason["level"]])
    notes = [f"{note['seen']}: {note['why']}." for note in validity.get("notes", ())] + list(
        result["notes"].get("remarks", ())
    )
    for at, note in enumerate(notes):
        yield ("" if at else "notes"), Text(note)


def _joined(*parts: str | bool | None) -> str:
    return " · ".join(str(part) for part in parts if part)
