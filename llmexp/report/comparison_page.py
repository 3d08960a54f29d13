"""`comparison.html`: the verdict first, then what differs, the numbers, the drawings, the details."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmexp.compare import change, words
from llmexp.compare.evidence import Value
from llmexp.compare.model import Comparison, Contrast
from llmexp.compare.rows import columns, remarks, verdict_text
from llmexp.compare.service import Capacity, Service
from llmexp.compare.stacks import Cell, Stack
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.wording import confidence, counted
from llmexp.report import answers, plots, turns
from llmexp.report.figures import Plot, drawing
from llmexp.report.page import render
from llmexp.report.timeline import overlay
from llmexp.results.files import put
from llmexp.results.guard import Guard, compare_command
from llmexp.results.run import Run

PAGE = "comparison.html"
TIMELINES = 8
WITHIN = "within these runs"
_BADGES = {
    "lower": "different",
    "higher": "different",
    "tie": "tie",
    "undecided": "undecided",
    "refused": "no verdict",
    "withheld": "no verdict",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A value in a cell of a table."""

    text: str
    interval: str
    carried: bool


def write(compared: Comparison, directory: Path, guard: Guard) -> list[Path]:
    """Write the page and its plots, and remove plots of an earlier comparison; the files written."""
    with drawing(guard, compare_command(directory), "rehearsal" if compared.rehearsal else ""):
        sections = _sections(compared) if compared.grid.stacks else []
    page = directory / PAGE
    put(page, _page(compared, sections, directory))
    saved = [plot.save(directory) for _, _, drawn in sections for plot in drawn]
    for old in set(directory.glob("comparison_*.png")) - set(saved):
        old.unlink()
    return [page, *saved]


def _sections(compared: Comparison) -> list[tuple[str, str, list[Plot]]]:
    """(title, what to look for, drawings)."""
    better = "Lower and further right is better for throughput, lower and further left for cost."
    first = "The first run of each stack at its highest load; each run has a page of its own."
    by_turn = "Sessions turn by turn: the history grows, and a cache may serve it. All sessions and repeats pooled."
    found: list[tuple[str, str, list[Plot | None]]] = [
        ("verdicts", "", [plots.forest(compared)]),
        ("right", "", [answers.plane(compared), answers.per_dollar(compared)]),
        ("Against the load", f"Vertical lines: {_interval_words(compared)}.", list(plots.curves(compared))),
        ("Distributions", "Further left is faster. All repeats pooled.", list(plots.distributions(compared))),
        ("By turn", by_turn, list(_by_turn(compared))),
        ("Trade-offs", better, [*plots.pareto(compared), plots.cost(compared)]),
        ("Over time", first, [_timelines(compared)]),
    ]
    sections = [(title, words, [plot for plot in drawn if plot]) for title, words, drawn in found]
    return [section for section in sections if section[2]]


def _interval_words(compared: Comparison) -> str:
    bases = {value.basis for value in compared.values.values() if value.basis}
    where = "over repeats" if "blocks" in bases else WITHIN
    return f"{100 * compared.options.confidence:g} % intervals {where}"


def _by_turn(compared: Comparison) -> Iterator[Plot | None]:
    """Latency by turn at the load that most stacks met, the highest of those."""
    grid = compared.grid
    cell = max(grid.cells, key=lambda each: (sum(bool(grid.at(stack, each)) for stack in grid.stacks), each.level))
    runs = {at: (stack.label, grid.at(stack, cell)) for at, stack in enumerate(grid.stacks) if grid.at(stack, cell)}
    yield from turns.by_turn(runs, "comparison_")


def _timelines(compared: Comparison) -> Plot | None:
    """The first run of each stack at the highest load that most of them met."""
    grid = compared.grid
    cell = max(grid.cells, key=lambda each: (sum(bool(grid.at(stack, each)) for stack in grid.stacks), each.level))
    runs = {at: (stack.label, grid.at(stack, cell)[0]) for at, stack in enumerate(grid.stacks) if grid.at(stack, cell)}
    shown = dict(list(runs.items())[:TIMELINES])
    return overlay(shown, "comparison_timeline", f"{cell.load[:1].upper()}{cell.load[1:]}, {cell.workload}")


def _page(compared: Comparison, sections: list[tuple[str, str, list[Plot]]], directory: Path) -> str:
    grid, graded = compared.grid, bool(compared.rights or compared.load_effects)
    return render(
        "comparison.html.j2",
        compared=compared,
        primary=compared.primary.label,
        margin=f"{100 * compared.options.margin:g}",
        confidence=f"{100 * compared.options.confidence:g}",
        remarks=remarks(compared),
        stacks=[{"at": at, "label": stack.label} for at, stack in enumerate(grid.stacks)],
        verdicts=[_verdict(compared, contrast) for contrast in compared.verdicts],
        rights=[answers.verdict(right) for right in compared.rights],
        effects=[answers.verdict(right) for right in compared.load_effects if right.shown],
        right_margin=f"{100 * (compared.rights or compared.load_effects)[0].margin:g}" if graded else "",
        right_plots=next((drawn for title, _, drawn in sections if title == "right"), []),
        wrong=list(_wrong(compared)),
        decided=any(contrast.call not in ("withheld", "refused") for contrast in compared.verdicts),
        within=any(contrast.gap.basis == "within" for contrast in compared.verdicts),
        forest=next((drawn for title, _, drawn in sections if title == "verdicts"), []),
        sections=[section for section in sections if section[0] not in ("verdicts", "right")],
        metrics=[{"label": metric.label, "better": metric.better} for metric in compared.metrics],
        overview=_overview(compared),
        workloads=", ".join(dict.fromkeys(cell.workload for cell in grid.cells)),
        cells=[_cell(compared, cell) for cell in grid.cells],
        uncarried=any(not value.carried for value in compared.values.values()),
        interval_words=_interval_words(compared),
        capacities=[_capacity(compared, each) for each in compared.capacities],
        services=[_service(compared, each) for each in compared.services],
        slo=_slo(compared),
        differences=list(_all_differences(compared)),
        runs=[_run(compared, stack, cell, run, directory) for stack, cell, run in _placed(compared)],
        counts=_counts(compared),
        measured=_measured(compared),
    )


def _wrong(compared: Comparison) -> Iterator[dict[str, object]]:
    """Wrong answers of each stack at its highest load, where texts were kept."""
    for stack in compared.grid.stacks:
        cells = [cell for cell in compared.grid.cells if compared.grid.at(stack, cell)]
        runs = compared.grid.at(stack, cells[-1]) if cells else ()
        rows = answers.wrong(runs[0], answers.ON_A_COMPARISON) if runs else []
        if rows:
            yield {"stack": stack.label, "load": _load(cells[-1], compared), "rows": rows}


def _placed(compared: Comparison) -> Iterator[tuple[Stack, Cell, Run]]:
    for stack in compared.grid.stacks:
        for cell in compared.grid.cells:
            for run in compared.grid.at(stack, cell):
                yield stack, cell, run


def _counts(compared: Comparison) -> str:
    """`2 stacks, 3 loads, 18 runs`."""
    grid = compared.grid
    runs = sum(map(len, grid.runs.values()))
    return ", ".join([counted(len(grid.stacks), "stack"), counted(len(grid.cells), "load"), counted(runs, "run")])


def _measured(compared: Comparison) -> str:
    """`2026-11-24 10:00 UTC`, when the first of the runs began."""
    starts = [run.result.started_at for members in compared.grid.runs.values() for run in members]
    first = min((moment for moment in starts if moment), default=None)
    return "" if first is None else f"{first:%Y-%m-%d %H:%M} UTC"


def _verdict(compared: Comparison, contrast: Contrast) -> dict[str, object]:
    better, alone = contrast.better, contrast.call == "refused"
    changed = change.spoken(compared)
    badge, kind = (better.label, "won") if better else (_BADGES[contrast.call], contrast.call)
    if changed and better:
        badge, kind = ("regression", "missed") if contrast.regression else ("better", "met")
    return {
        "at": compared.grid.stacks.index(better) if better and not changed else None,
        "badge": badge,
        "kind": kind,
        "text": _without_badge(verdict_text(compared, contrast)),
        "interval": words.span(contrast.gap, contrast.metric, contrast.alpha) if alone else "",
        "pair": f"{contrast.candidate.label} than {contrast.reference.label}",
        "confidence": confidence(contrast.alpha),
        "basis": _basis(contrast),
    }


def _basis(contrast: Contrast) -> str:
    """`over 3 paired repeats`: what an interval was made from."""
    gap = contrast.gap
    words = {"blocks": f"over {gap.blocks} paired repeats", "groups": f"over {gap.blocks} unpaired runs"}
    return words.get(gap.basis, WITHIN)


def _without_badge(text: str) -> str:
    """The words without what the badge beside them says already."""
    for word in ("undecided: ", "tie: "):
        text = text.removeprefix(word)
    return text


def _overview(compared: Comparison) -> dict[str, object]:
    """One row for each stack at each load, the main metrics across."""
    metrics = columns(compared)
    rows = [
        {
            "load": _load(cell, compared),
            "first": at == 0,
            "at": compared.grid.stacks.index(stack),
            "label": stack.label,
            "values": [_short(_value(compared, stack, cell, metric), metric) for metric in metrics],
        }
        for cell in compared.grid.cells
        for at, stack in enumerate(stack for stack in compared.grid.stacks if compared.grid.at(stack, cell))
    ]
    return {"metrics": [_with_unit(metric) for metric in metrics], "rows": rows}


def _with_unit(metric: Metric) -> str:
    """`goodput, requests/s`: a unit that is long stands in the head of the column."""
    return f"{metric.label}, {metric.unit}" if metric.unit.endswith("/s") else metric.label


def _short(value: Shown, metric: Metric) -> Shown:
    """The value without the unit that its column already names."""
    if not metric.unit.endswith("/s"):
        return value
    unit = f" {metric.unit}"
    return Shown(value.text.removesuffix(unit), value.interval.removesuffix(unit), value.carried)


def _load(cell: Cell, compared: Comparison) -> str:
    return cell.words if compared.grid.several_workloads else cell.load


def _cell(compared: Comparison, cell: Cell) -> dict[str, object]:
    rows = [
        {
            "at": at,
            "label": stack.label,
            "runs": len(runs),
            "values": [_value(compared, stack, cell, m) for m in compared.metrics],
        }
        for at, stack in enumerate(compared.grid.stacks)
        if (runs := compared.grid.at(stack, cell))
    ]
    return {"name": cell.words, "rows": rows}


def _value(compared: Comparison, stack: Stack, cell: Cell, metric: Metric) -> Shown:
    value: Value | None = compared.values.get((stack.key, cell.key, metric.name))
    if value is None:
        return Shown("–", "", carried=True)
    known = value.low is not None and value.high is not None
    interval = metric.show_range(value.low, value.high) if known else ""  # type: ignore[arg-type]
    text = f"≈ {metric.show(value.value)}" if value.rough else metric.show(value.value)
    return Shown(text, interval if interval != text else "", value.carried)


def _all_differences(compared: Comparison) -> Iterator[dict[str, object]]:
    for contrast in compared.contrasts:
        gap, metric = contrast.gap, contrast.metric
        yield {
            "load": _load(contrast.cell, compared),
            "metric": metric.label,
            "pair": f"{contrast.candidate.label} − {contrast.reference.label}",
            "absolute": metric.show_gap(*gap.differences(contrast.alpha)),
            "relative": words.span(gap, metric, contrast.alpha) if gap.ratio else "",
            "confidence": confidence(contrast.alpha),
            "basis": _basis(contrast),
        }


def _slo(compared: Comparison) -> str:
    """`TTFT ≤ 600 ms for 95 % of requests`, said once where all cells ask the same."""
    asked = list(dict.fromkeys(_asked(each) for each in compared.services))
    return asked[0] if len(asked) == 1 else ""


def _asked(each: Service) -> str:
    limits = [f"{Metric(name).label} ≤ {Metric(name).show(limit)}" for name, limit in each.thresholds.items()]
    asked = [f"{' and '.join(limits)} for {100 * each.attainment:g} % of requests"] if limits else []
    if each.right_asked is not None:
        asked.append(f"{100 * each.right_asked:g} % right answers")
    return ", ".join(asked)


def _service(compared: Comparison, each: Service) -> dict[str, object]:
    return {
        "at": compared.grid.stacks.index(each.stack),
        "stack": each.stack.label,
        "load": _load(each.cell, compared),
        "asked": _asked(each),
        "share": f"{100 * each.share:.1f} % ({100 * each.low:.1f}–{100 * each.high:.1f})",
        "met": each.met,
        "close": each.close,
        "goodput": Metric("goodput_per_s").show(each.goodput_per_s),
        "million": Metric("cost_usd").show(each.usd_per_million_output_tokens),
        "thousand": Metric("cost_usd").show(each.usd_per_thousand_good),
    }


def _capacity(compared: Comparison, each: Capacity) -> dict[str, object]:
    best = _service(compared, each.best) if each.best else None
    load = "none of the loads measured" if each.best is None else each.best.cell.load
    return {
        "at": compared.grid.stacks.index(each.stack),
        "stack": each.stack.label,
        "workload": each.workload,
        "load": load,
        "limit": each.limit,
        "best": best,
    }


def _run(compared: Comparison, stack: Stack, cell: Cell, run: Run, directory: Path) -> dict[str, object]:
    return {
        "at": compared.grid.stacks.index(stack),
        "stack": stack.label,
        "load": _load(cell, compared),
        "repeat": run.block,
        "name": run.name,
        "link": _link(run, directory),
        "completed": f"{int(run.requests.completed.sum()):,}",
        "failed": f"{int(run.requests.failed.sum()):,}",
        "validity": run.verdict,
        "primary": compared.primary.show(run.values.get(compared.primary.name)),
        "started": "" if run.result.started_at is None else f"{run.result.started_at:%Y-%m-%d %H:%M:%S}",
    }


def _link(run: Run, directory: Path) -> str:
    """The run's own page, where it lies beneath this one."""
    if run.directory is None or not (run.directory / "report.html").exists():
        return ""
    own, base = run.directory.resolve(), directory.resolve()
    return (own.relative_to(base) / "report.html").as_posix() if own.is_relative_to(base) else ""
