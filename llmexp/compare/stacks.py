"""Who is compared with whom: runs grouped into stacks × cells × blocks.

A *stack* is what is on trial: model, deployment, API, price. A *cell* is the situation: workload, load, concurrency,
SLO. A *block* is a repeat: its runs were made close together in time.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llmexp.config import DEFAULT_STREAMS, flatten
from llmexp.json_types import Tree, branch, number, text
from llmexp.results.model import timestamp
from llmexp.results.run import Run

_CELL_PARTS = ("workload", "load", "concurrency", "slo")
_UNSEEN = (
    ".as_of",
    ".source",
    "price: as_of",
    "price: source",
    "rehearsal.",
    "model.notes",
    "ready_timeout_s",
    "server_ready_s",
    "fresh_server",
)
"""Settings that do not tell stacks apart in a label or among the differences."""
_FIRST = (
    "model.name",
    "model.api",
    "model.provider",
    "model.region",
    "model.params",
    "model.deployment.kind",
    "rehearsal",
)
_LAST = ("deployment.profile", "sha256", "host")
"""What a reader looks for first among the differences, and what last."""
_TOO_SHORT = ("mean_s", "cv", "kind", "name")


@dataclass(frozen=True, slots=True)
class Stack:
    """One side of a comparison."""

    key: str
    label: str
    model: str
    """The model's option, such as `sonnet`."""
    source: str
    """The sweep it was measured in."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One situation that stacks are compared in."""

    key: str
    workload: str
    load: str
    """In words: `concurrency 16`, `5 requests/s (poisson)`."""
    level: float
    """The load as a number, for an axis: concurrency, or requests per second."""
    axis: str
    """What `level` counts: `concurrency` or `requests/s`."""
    family: str
    """The same for cells that differ in the load's level alone: points of one curve."""

    @property
    def words(self) -> str:
        """`concurrency 16, chat`."""
        return f"{self.load}, {self.workload}"


@dataclass(frozen=True)
class Grid:
    """All runs, in their places."""

    stacks: tuple[Stack, ...]
    cells: tuple[Cell, ...]
    runs: Mapping[tuple[str, str], tuple[Run, ...]]
    """(stack key, cell key) → runs in the order of their blocks."""
    differences: tuple[Difference, ...]

    def at(self, stack: Stack, cell: Cell) -> tuple[Run, ...]:
        """The runs of a stack in a cell."""
        return self.runs.get((stack.key, cell.key), ())

    @property
    def several_workloads(self) -> bool:
        """Whether naming a load takes its workload too."""
        return len({cell.workload for cell in self.cells}) > 1

    @property
    def several_sources(self) -> bool:
        """Whether runs of different sweeps meet here."""
        return len({stack.source for stack in self.stacks}) > 1


@dataclass(frozen=True, slots=True)
class Difference:
    """One fact in which the stacks differ."""

    name: str
    values: tuple[str, ...]
    """A value for each stack, in their order; `–` where it has none."""


def arrange(runs: Sequence[Run]) -> Grid:
    """Put the runs in their places: sweeps as given, stacks as their sweep lists them, cells by rising load.

    Jobs run in a shuffled order; the first stack, which a regression is measured against, must not depend on that.
    """
    sources = list(dict.fromkeys(map(_source, runs)))
    runs = sorted(runs, key=lambda run: (sources.index(_source(run)), run.result.job.index))
    placed: dict[tuple[str, str], list[Run]] = {}
    firsts: dict[str, Run] = {}
    cells: dict[str, Run] = {}
    for run in runs:
        stack, cell = _stack_key(run), _cell_key(run)
        firsts.setdefault(stack, run)
        cells.setdefault(cell, run)
        placed.setdefault((stack, cell), []).append(run)
    differences = tuple(sorted(_differences(list(firsts.values())), key=_rank))
    return Grid(
        tuple(_label(firsts, differences)),
        tuple(_cells(cells)),
        {place: tuple(sorted(members, key=lambda run: run.block)) for place, members in placed.items()},
        differences,
    )


# --- keys ------------------------------------------------------------------------------------------------------------


def _source(run: Run) -> str:
    return str(run.result.job.sweep or run.directory or run.result.job.id)


def _stack_key(run: Run) -> str:
    """Two options are two stacks even where they say the same: that is an A/A test."""
    who = [_source(run), run.result.job.option, run.config.get("model"), run.rehearsal]
    return json.dumps(who, sort_keys=True, default=str)


def _cell_key(run: Run) -> str:
    parts = {part: run.config.get(part) for part in _CELL_PARTS}
    if not run.open_loop and parts["concurrency"] is None:
        parts["concurrency"] = DEFAULT_STREAMS
    parts["capacity"] = bool(run.settings.get("capacity.enabled"))
    parts["slo"] = {key: value for key, value in branch(parts, "slo").items() if key != "enforce"}
    return json.dumps(parts, sort_keys=True, default=str)


def _family(cell_key: str) -> str:
    """The cell without the number that its load rises by."""
    parts = json.loads(cell_key)
    load = parts["load"] or {}
    if load.get("kind", "closed") == "closed":
        parts.pop("concurrency")
    else:
        parts["load"] = {name: value for name, value in load.items() if name != "rate"}
    return json.dumps(parts, sort_keys=True)


# --- cells in words --------------------------------------------------------------------------------------------------


def _cells(firsts: Mapping[str, Run]) -> list[Cell]:
    workloads = _workload_names(list(firsts.values()))
    cells = []
    for (key, run), workload in zip(firsts.items(), workloads, strict=True):
        words, level, axis = _load(run)
        cells.append(Cell(key, workload, words, level, axis, _family(key)))
    return _distinct(sorted(cells, key=lambda cell: (workloads.index(cell.workload), cell.axis, cell.level)))


def _load(run: Run) -> tuple[str, float, str]:
    """A load in words, as a number, and what that counts."""
    load = branch(run.config, "load")
    kind = text(load, "kind") or "closed"
    rate, ceiling = number(load, "rate") or 0.0, number(run.config, "concurrency")
    if run.settings.get("capacity.enabled"):
        return f"search for capacity ({kind} load)", 0.0, "search"
    if kind == "closed":
        streams = ceiling or DEFAULT_STREAMS
        return f"concurrency {streams:g}", float(streams), "concurrency"
    if kind == "ramp":
        unit = "requests/s" if run.open_loop else "concurrency"
        return f"a ramp from {load.get('from')} to {load.get('to')} {unit}", number(load, "to") or 0.0, unit
    if kind == "replay":
        return f"replay of {load.get('file')}", number(load, "speed") or 1.0, "speed of the replay"
    burstiness = number(load, "burstiness")
    words = f"{rate:g} requests/s ({kind}{f', burstiness {burstiness:g}' if burstiness else ''})"
    return (f"{words}, at most {ceiling:g} in flight" if ceiling else words), rate, "requests/s"


def _distinct(cells: list[Cell]) -> list[Cell]:
    """Cells whose words are alike (they differ in the SLO, say) get a number."""
    words = [(cell.workload, cell.load) for cell in cells]
    return [
        cell if words.count(word) == 1 else replace(cell, workload=f"{cell.workload} #{words[:at].count(word) + 1}")
        for at, (cell, word) in enumerate(zip(cells, words, strict=True))
    ]


def _workload_names(runs: Sequence[Run]) -> list[str]:
    """The Hydra option where the overrides name one, else its lengths."""
    return [_chosen(run, "workload") or _lengths(branch(run.config, "workload")) for run in runs]


def _chosen(run: Run, group: str) -> str | None:
    for override in run.result.job.overrides:
        name, _, value = override.partition("=")
        if name.lstrip("+") == group:
            return value
    return None


def _lengths(workload: Mapping[str, object]) -> str:
    if workload.get("kind", "synthetic") not in ("synthetic", "conversation"):
        return f"{workload.get('kind')} {workload.get('file') or ''}".strip()

    def words(tokens: Tree) -> str:
        mean, stddev = number(tokens, "mean"), number(tokens, "stddev")
        spread = f"±{stddev:g}" if stddev else ""
        return f"{mean:g}{spread}" if mean else str(tokens.get("dist", "?"))

    return f"{words(branch(workload, 'input_tokens'))} → {words(branch(workload, 'output_tokens'))} tokens"


# --- stacks in words -------------------------------------------------------------------------------------------------


def _facts(run: Run) -> dict[str, object]:
    """Everything that can tell two stacks apart."""
    environment = run.result.environment
    facts = {f"model.{name}": value for name, value in flatten(branch(run.config, "model")).items()}
    facts |= {f"deployment facts: {name}": value for name, value in flatten(run.result.deployment).items()}
    facts |= {f"version: {name}": value for name, value in environment.versions.items()}
    facts |= {name: run.settings.get(name) for name in ("ray.kind", "ray.workers", "run.seed", "run.max_requests")}
    facts |= {f"price: {name}": value for name, value in flatten(run.result.cost.price).items()}
    return facts | {"host": environment.host, "rehearsal": run.rehearsal}


def _differences(firsts: Sequence[Run]) -> Iterator[Difference]:
    facts = [_facts(run) for run in firsts]
    said: set[tuple[str, tuple[str, ...]]] = set()
    for name in dict.fromkeys(itertools.chain.from_iterable(facts)):
        values = tuple(_show(fact.get(name)) for fact in facts)
        if len(set(values)) == 1 or any(unseen in name for unseen in _UNSEEN):
            continue
        tail = name.rpartition(".")[2].rpartition(": ")[2]
        if (tail, values) not in said:
            said.add((tail, values))
            yield Difference(name, values)


def _rank(difference: Difference) -> int:
    """Small for what a reader looks for first; the rest keeps its order."""
    name = difference.name
    if any(part in name for part in _LAST):
        return len(_FIRST) + 1
    return next((at for at, first in enumerate(_FIRST) if name.startswith(first)), len(_FIRST))


def _show(value: object) -> str:
    if value is None or value in ({}, []):
        return "–"
    return str(value) if isinstance(value, str) else json.dumps(value, default=str)


def _label(firsts: Mapping[str, Run], differences: Sequence[Difference]) -> Iterator[Stack]:
    """Each stack's shortest telling name: the model, then what sets it apart from its namesakes, then the sweep."""
    runs = list(firsts.values())
    models = [_named(at, runs, differences) for at in range(len(runs))]
    occasions = _occasions(runs)
    labels = [
        f"{model} ({occasions[_source(run)]})" if occasions else model for model, run in zip(models, runs, strict=True)
    ]
    for at, (key, run) in enumerate(firsts.items()):
        label = labels[at] if labels.count(labels[at]) == 1 else f"{labels[at]} #{labels[: at + 1].count(labels[at])}"
        yield Stack(key, label, models[at], _source(run))


def _model(run: Run) -> str:
    return run.result.job.model or _chosen(run, "model") or text(run.config, "model", "name") or run.name


def _named(at: int, runs: Sequence[Run], differences: Sequence[Difference]) -> str:
    """`smollm2 slots=4` where two stacks of one sweep share a model."""
    run = runs[at]
    namesakes = [o for o, other in enumerate(runs) if (_model(other), _source(other)) == (_model(run), _source(run))]
    telling = [
        each
        for each in differences
        if each.name.startswith("model.") and len({each.values[other] for other in namesakes}) > 1
    ]
    return " ".join([_model(run), *(f"{_short(each.name)}={each.values[at]}" for each in telling[:2])])


def _short(name: str) -> str:
    """`slots` of `model.deployment.slots`, but `ttft.mean_s`: what a number alone is of."""
    parts = name.split(".")
    return ".".join(parts[-2:] if parts[-1] in _TOO_SHORT else parts[-1:])


def _occasions(runs: Sequence[Run]) -> dict[str, str]:
    """What tells the sweeps apart: the day, the time, or a letter; nothing for a single sweep."""
    began = {_source(run): timestamp(run.result.started_at) if run.result.started_at else "" for run in reversed(runs)}
    sources = list(dict.fromkeys(_source(run) for run in runs))
    if len(sources) < 2:
        return {}
    letters = [chr(ord("A") + at) if at < 26 else str(at + 1) for at in range(len(sources))]
    days = [began[source][:10] for source in sources]
    times = [began[source][:16].replace("T", " ") for source in sources]
    seconds = [began[source][:19].replace("T", " ") for source in sources]
    known = (days, times, seconds)
    names = next((each for each in known if all(each) and len(set(each)) == len(sources)), letters)
    return dict(zip(sources, names, strict=True))


# --- pairs -----------------------------------------------------------------------------------------------------------


def pairs(grid: Grid, baseline: Stack | None) -> list[tuple[Stack, Stack]]:
    """(reference, candidate) stacks to compare.

    With a baseline: it against each other one. Across sweeps: the same model in the first sweep and in each later one
    where there is such, else every pair of stacks.
    """
    if baseline is not None:
        return [(baseline, other) for other in grid.stacks if other is not baseline]
    every = list(itertools.combinations(grid.stacks, 2))
    if not grid.several_sources:
        return every
    first = grid.stacks[0].source
    same = [(one, two) for one, two in every if one.source == first != two.source and one.model == two.model]
    return same or [(one, two) for one, two in every if one.source != two.source]
