"""One job at a glance, for a person at a terminal: numbers, errors, cost, and whether to believe them."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping
from typing import IO, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 110
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


def show(result: Mapping[str, Any], file: IO[str] | None = None) -> None:
    """Print the job; without colours and at a fixed width where there is no terminal."""
    out = file or sys.stdout
    console = Console(file=out, highlight=False)
    if console.is_terminal:
        console.print(render_job(result))
    else:
        out.write(as_text(result))


def as_text(result: Mapping[str, Any]) -> str:
    """The job in plain lines."""
    console = Console(file=io.StringIO(), width=PLAIN_WIDTH, color_system=None, force_terminal=False, highlight=False)
    with console.capture() as captured:
        console.print(render_job(result))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def render_job(result: Mapping[str, Any]) -> RenderableType:
    """The job as `rich` prints it."""
    parts: list[RenderableType] = [_title(result)]
    latencies = _latencies(result)
    if latencies.row_count:
        parts.append(latencies)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, value in _facts(result):
        facts.add_row(name, value)
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
    uncarried = result.get("percentiles_uncarried", {})
    for name, label in LATENCIES.items():
        found = result["metrics"].get(name)
        if found is None or (name.startswith("response_") and not open_loop):
            continue
        rough = uncarried.get(name, ())
        cells = [
            duration(found["mean"]),
            *(_percentile(found[one], one in rough) for one in SHOWN),
            duration(found["max"]),
        ]
        table.add_row(f" {label}", *cells)
    if any(set(SHOWN) & set(uncarried.get(name, ())) for name in LATENCIES):
        table.caption = "~ more requests are needed to carry this percentile"
        table.caption_justify = "left"
    return table


def _percentile(value: float, rough: bool) -> Text:
    return Text(f"~{duration(value)}", "dim") if rough else Text(duration(value))


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    metrics = result["metrics"]
    if metrics.get("output_tokens_per_s") is not None:
        yield (
            "throughput",
            _joined(
                f"{number(metrics['output_tokens_per_s'])} output tokens/s",
                f"{number(metrics['requests_per_s'])} requests/s",
                metrics.get("inflight_mean") is not None and f"{number(metrics['inflight_mean'])} in flight",
            ),
        )
    yield "requests", _requests(metrics)
    yield from _errors(result.get("errors") or {})
    if metrics.get("input_tokens") or metrics.get("output_tokens"):
        yield (
            "tokens",
            _joined(_spread("in", metrics.get("input_tokens")), _spread("out", metrics.get("output_tokens"))),
        )
    yield from _service(metrics)
    if metrics.get("cost_usd") is not None:
        yield "cost", _cost(metrics)
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


def _cost(metrics: Mapping[str, Any]) -> str:
    per_million = metrics.get("usd_per_million_output_tokens")
    return _joined(
        f"{usd(metrics['cost_usd'])} USD",
        per_million is not None and f"{usd(per_million)} USD per million output tokens",
    )


def _validity(result: Mapping[str, Any]) -> Iterator[tuple[str, RenderableType]]:
    validity = result["validity"]
    for reason in validity["reasons"]:
        line = f"{reason['seen']}: {reason['why']}. {reason['remedy']}"
        yield str(reason["level"]), Text(line, COLOURS[reason["level"]])
    notes = [f"{note['seen']}: {note['why']}." for note in validity.get("notes", ())] + list(result.get("notes", ()))
    for at, note in enumerate(notes):
        yield ("" if at else "notes"), Text(note)


def _joined(*parts: str | bool | None) -> str:
    return " · ".join(str(part) for part in parts if part)


def duration(seconds: float) -> str:
    """Three significant digits in the unit that suits: µs, ms or s."""
    for limit, scale, unit in ((0.001, 1e6, "µs"), (1, 1e3, "ms")):
        if abs(seconds) < limit:
            return f"{number(seconds * scale)} {unit}"
    return f"{number(seconds)} s"


def number(value: float) -> str:
    """Three significant digits at least, thousands marked, whole numbers as they are."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 0.1 else f"{value:.2g}"


def usd(value: float) -> str:
    """Cents where there are some, else what it takes to show three digits."""
    return f"{value:,.2f}" if value == 0 or value >= 1 else f"{value:.3g}"
