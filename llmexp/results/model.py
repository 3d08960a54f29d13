"""`Result`: everything that is known of one job, typed and frozen. `results.files` writes it and reads it back.

What has a fixed shape is a class; what a provider, a server or a host tells freely is a tree (`json_types`). A key that
this version does not know stays where it is, so that reading a file and writing it again loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, PlainSerializer, PlainValidator

from llmexp.json_types import Tree, at, branch, items, number, numbers
from llmexp.metrics.service_level import right_enough
from llmexp.metrics.validity import CHUNK_TOKENS, ROUGH_BY_CHUNK, Validity

SCHEMA_VERSION = 1
Status = Literal["finished", "failed", "interrupted"]
Spread: TypeAlias = Mapping[str, float | None]
"""A distribution: count, mean, stddev, min, p25 … p99, max."""


@dataclass(frozen=True)
class Metrics(Mapping[str, object]):
    """The numbers of a run by name, as `metrics/dictionary.py` defines them: a number, a distribution, or a group."""

    tree: Tree

    def __getitem__(self, name: str) -> object:
        return self.tree[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tree)

    def __len__(self) -> int:
        return len(self.tree)

    def number(self, name: str) -> float | None:
        """`cost_usd`, `ttft_s/p95`, `slo/attainment`; None where it does not exist."""
        return number(self.tree, *name.split("/"))

    def spread(self, name: str) -> Spread | None:
        """The distribution of this name that holds any value; None where there is none."""
        found = branch(self.tree, *name.split("/"))
        if not found.get("count") or "p50" not in found:
            return None
        return {key: number(found, key) for key in found}

    def flag(self, name: str) -> bool | None:
        """Something that is true or false, such as `slo/met`."""
        found = at(self.tree, *name.split("/"))
        return found if isinstance(found, bool) else None

    @property
    def spreads(self) -> dict[str, Spread]:
        """All distributions at the top."""
        return {name: found for name in self.tree if (found := self.spread(name))}

    @cached_property
    def flat(self) -> dict[str, float]:
        """Every number as `{"ttft_s/p95": 0.2}`; what does not exist is missing."""
        return dict(numbers(self.tree))


def _metrics(value: object) -> Metrics:
    if isinstance(value, Metrics):
        return value
    if not isinstance(value, Mapping):
        raise ValueError("must be an object")  # noqa: TRY004 -- what pydantic takes for a wrong value
    return Metrics(value)


def timestamp(moment: datetime) -> str:
    """UTC, ISO 8601, in microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Moment = Annotated[AwareDatetime, PlainSerializer(timestamp)]
_MetricsField = Annotated[Metrics, PlainValidator(_metrics), PlainSerializer(lambda metrics: metrics.tree)]


class _Part(BaseModel):
    """A part of a result."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())


class JobInfo(_Part):
    """Who this job is."""

    id: str
    """Unique; what `relog` and MLflow know the job by."""
    key: str = ""
    """The hash that a resumed sweep recognises the job by."""
    name: str = ""
    """What a person calls it."""
    model: str = ""
    """What the stack is called: the option of the group `model`, or the name that the command gave."""
    option: str = ""
    """The option that was chosen for the group `model`; two options are two stacks."""
    index: int = 0
    """Its number in the sweep, whatever the order of running."""
    repeat: int = 0
    """Which repeat, from 0."""
    overrides: tuple[str, ...] = ()
    """What the command set."""
    choices: dict[str, str] = {}
    """Config group → the option that was chosen."""
    sweep: str | None = None
    """The id of its sweep."""
    rehearsal: bool = False
    """The simulator played the model."""
    probe: int | None = None
    """Its number, where it is a probe of a capacity search and no job of its own."""


class Environment(_Part):
    """What a number was measured with."""

    versions: dict[str, str] = {}
    """Of Python, of llmexp and of the libraries that measure."""
    host: dict[str, object] = {}
    """CPU, cores, memory, system."""
    git_commit: str | None = None
    """Of the folder that the command ran in."""
    git_dirty: bool | None = None
    """Whether files there were changed since."""


class Example(_Part):
    """One failed request."""

    index: int | None = None
    code: str | None = None
    message: str | None = None


class ErrorClass(_Part):
    """Failed requests of one class."""

    count: int
    """How many."""
    codes: dict[str, int] = {}
    """Status or the provider's code → how many."""
    examples: tuple[Example, ...] = ()
    """The first few that differ."""


class Cost(_Part):
    """What the job cost, warm-up apart."""

    cost_usd: float | None = None
    """Null where no price is known."""
    warmup_usd: float | None = None
    """Of the warm-up requests."""
    price: dict[str, object] = {}
    """The prices used, and where they come from."""
    rehearsal: bool = False
    """It is what the job would have cost."""
    judge: dict[str, object] = {}
    """What the judges of answers took: usd, calls, errors; in none of the other figures."""
    search_usd: float | None = None
    """All probes of a capacity search."""


class Notes(_Part):
    """What a reader of the numbers should know beside them."""

    nonce: str | None = None
    """Given as `run.nonce` it repeats the prompts byte for byte."""
    ended_early: str | None = None
    """Why the load ended before its time although nothing went wrong."""
    token_sources: dict[str, dict[str, int]] = {}
    """Count → who counted → requests."""
    output_length: dict[str, object] | None = None
    """Whether answers had the length asked for."""
    uncarried_percentiles: tuple[str, ...] = ()
    """Percentiles that the sample does not carry."""
    load: Literal["closed", "open"] | None = None
    """Which kind of loop it was."""
    workload: tuple[str, ...] = ()
    """What the workload says of itself."""
    remarks: tuple[str, ...] = ()
    """In words, for people."""


class Result(_Part):
    """One job, finished or not."""

    schema_version: int = SCHEMA_VERSION
    """Of this file."""
    job: JobInfo
    """Who this job is."""
    status: Status = "finished"
    """`finished`, `failed` or `interrupted`."""
    reason: str | None = None
    """Why it failed or was interrupted."""
    started_at: Moment | None = None
    """UTC, ISO 8601."""
    ended_at: Moment | None = None
    """UTC, ISO 8601."""
    config: dict[str, object] = {}
    """The composed config, resolved."""
    environment: Environment = Environment()
    """What the numbers were measured with."""
    deployment: dict[str, object] = {}
    """Facts about the endpoint."""
    metrics: _MetricsField = Metrics({})
    """As the metric dictionary defines them: numbers, or distributions with `count`, `mean`, `p50`, …."""
    curves: dict[str, object] = {}
    """Over time; `Curves` reads them."""
    server: dict[str, object] = {}
    """What the server's own metrics say of the run."""
    errors: dict[str, ErrorClass] = {}
    """Class → failed requests, with the first examples."""
    validity: Validity = Validity("valid")
    """`verdict`, `reasons` and `notes`: could the client measure that?"""
    client: dict[str, object] = {}
    """How the client fared, `hosts` among it: clock, load, loop lag and versions of each host that it used."""
    cost: Cost = Cost()
    """What the job cost, warm-up apart."""
    notes: Notes = Notes()
    """What a reader of the numbers should know beside them."""
    capacity_curve: dict[str, object] | None = None
    """What a capacity search saw, by rising load."""

    @property
    def searched(self) -> bool:
        """Whether this is a capacity search, whose numbers are those of the load where it ended."""
        return bool(branch(self.metrics, "capacity"))

    def rough(self, metric: str) -> bool:
        """Whether a metric rests on an estimate, so that no verdict may rest on it."""
        said = {reason.reason for reason in (*self.validity.reasons, *self.validity.notes)}
        return CHUNK_TOKENS in said and metric.startswith(ROUGH_BY_CHUNK)

    @property
    def slo_missed(self) -> bool:
        """Whether the run missed a service level that its configuration enforces (exit status 3)."""
        return at(self.config, "slo", "enforce") is True and self.metrics.flag("slo/met") is False

    @property
    def slo_shortfall(self) -> str:
        """A missed service level in words."""
        said = []
        kept, asked = self.metrics.number("slo/attainment"), number(self.config, "slo", "attainment") or 0.0
        if kept is not None and kept < asked:
            said.append(f"{kept:.1%} of the requests kept the service level, {asked:.1%} had to")
        if too_few := self.right_shortfall:
            said.append(too_few)
        return f"slo.enforce: {self.job.name}: {'; '.join(said) or 'the service level was missed'}"

    @property
    def right_shortfall(self) -> str | None:
        """That fewer answers are right than the service level asks for, in words."""
        right, wanted = self.metrics.number("right_share"), number(self.config, "slo", "right_share")
        if wanted is None or self.metrics.flag("slo/met") is None or right_enough(right, wanted):
            return None
        if right is None:
            return f"no answer has a grade, {wanted:.1%} had to be right"
        return f"{right:.1%} of the answers are right, {wanted:.1%} had to be"

    @property
    def answered(self) -> int:
        """Requests that completed or failed."""
        return sum(int(self.metrics.number(f"requests_{kind}") or 0) for kind in ("completed", "failed"))


@dataclass(frozen=True, slots=True)
class Curves:
    """A run in steps: when each begins, and one value a step for each series."""

    t_s: list[float]
    step_s: float
    series: Mapping[str, list[float | None]]

    @classmethod
    def of(cls, tree: Tree) -> Curves:
        """From `curves` of a result, or of its `server` part; without steps where there are none."""
        t_s = [value for value in items(tree, "t_s") if isinstance(value, int | float)]
        names = [name for name, values in tree.items() if isinstance(values, list | tuple) and name != "t_s"]
        series = {name: [number({"": value}, "") for value in items(tree, name)] for name in names}
        return cls(t_s, number(tree, "step_s") or 1, series)

    @property
    def end_s(self) -> float:
        """Where the last step ends."""
        return self.t_s[-1] + self.step_s if self.t_s else 0.0
