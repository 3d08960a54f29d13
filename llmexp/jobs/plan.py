"""What a command is about to do: requests, tokens, time and USD, before anything is sent."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.config import DEFAULT_STREAMS, Config, Model
from llmexp.errors import ConfigError
from llmexp.jobs.ledger import Ledger
from llmexp.jobs.spec import Spec
from llmexp.metrics.wording import counted

if TYPE_CHECKING:
    from llmexp.workload.source import Source


@dataclass(frozen=True)
class Expected:
    """One job's estimate. Token counts are of the whole job, warm-up included."""

    name: str
    requests: int
    input_tokens: float
    output_tokens: float
    seconds: float
    usd: float | None
    """None: no price is known."""
    price_source: str


@dataclass(frozen=True)
class Estimate:
    """The estimate of a whole command."""

    jobs: tuple[Expected, ...]

    @property
    def usd(self) -> float:
        """The sum of what has a price."""
        return sum(job.usd or 0.0 for job in self.jobs)

    @property
    def unpriced(self) -> list[str]:
        """Jobs that no price is known for."""
        return [job.name for job in self.jobs if job.usd is None]


def estimate(specs: Sequence[Spec]) -> Estimate:
    """Requests, tokens, time and money that the jobs will take, from their configs alone."""
    return Estimate(tuple(_expected(spec) for spec in specs))


def _expected(spec: Spec) -> Expected:
    from llmexp.clients import token_limits
    from llmexp.metrics import prices

    config = spec.config
    mean_input, mean_output = mean_tokens(config)
    seconds = _seconds(config, mean_output)
    requests = _requests(config, mean_output)
    price = prices.price_list(config.model)
    billed = mean_output * token_limits.answers(config.model.params)
    usd = 0.0 if config.rehearse else prices.estimate(price, requests, mean_input + _image_tokens(config), billed)
    hourly = prices.cost_of_window(price, seconds)
    if hourly is not None and not config.rehearse:
        usd = (usd or 0.0) + hourly
    source = "rehearsal" if config.rehearse else price.source or "unknown"
    if spec.judges and not config.rehearse:
        judges = _judges_usd(spec, requests - config.run.warmup_requests, mean_input + mean_output)
        usd = None if usd is None or judges is None else usd + judges
        source += f"; judges {'unknown' if judges is None else f'{judges:.4f}'}"
    return Expected(spec.name, requests, requests * mean_input, requests * mean_output, seconds, usd, source)


def _image_tokens(config: Config) -> float:
    """What the pictures of a request count for, about: no tokenizer counts them."""
    from llmexp.clients import token_limits

    if config.workload.kind != "images":
        return 0.0
    images = config.workload.images
    return images.count * min(float(token_limits.IMAGE), images.width * images.height / token_limits.PIXELS)


SET_A_LIMIT = "set a limit of tokens there, such as max_tokens, or run.max_usd=null"
JUDGE_TOKENS = 200
"""What a rubric adds to question and answer, and what a judge writes, about."""


def _judges_usd(spec: Spec, answers: int, mean_tokens: float) -> float | None:
    """What judges will cost; None where one of them has no price."""
    from llmexp.metrics import prices

    lists = [prices.price_list(model) for model in spec.judges]
    found = [prices.estimate(price, answers, mean_tokens + JUDGE_TOKENS, JUDGE_TOKENS) for price in lists]
    known = [usd for usd in found if usd is not None]
    return sum(known) if len(known) == len(found) else None


def mean_tokens(config: Config) -> tuple[float, float]:
    """Input and output tokens of a request, on average."""
    return _source(config).mean_tokens()


def _source(config: Config) -> Source:
    from llmexp.workload.source import Source
    from llmexp.workload.tokens import estimate_tokenizer

    return Source(config.workload, estimate_tokenizer(), seed=config.run.seed, nonce="plan")


def _e2e_s(config: Config, mean_output: float) -> float:
    """A guess at one request's duration, from the model's rehearsal profile, or what a simulator is told to do."""
    deployment = config.model.deployment
    profile = deployment.profile if deployment.kind == "simulated" and not config.rehearse else config.model.rehearsal
    return max(0.05, profile.ttft.mean_s + mean_output * profile.inter_token.mean_s)


def _requests(config: Config, mean_output: float) -> int:
    run = config.run
    if config.capacity.enabled:
        from llmexp.jobs import capacity_probes as probes

        measured = probes.length(config, config.capacity.start, _e2e_s(config, mean_output))
    elif (most := _most(config)) is not None:
        measured = most
    elif config.peak_rate is None:
        measured = int((config.streams or DEFAULT_STREAMS) * run.timeout_s / _e2e_s(config, mean_output)) + 1
    else:
        measured = int(config.peak_rate * run.timeout_s) + 1
    return (measured + run.warmup_requests) * probes_at_most(config)


def _most(config: Config) -> int | None:
    """Requests as far as the config, a trace or a file of sessions limits them; None: only the time does."""
    if config.load.kind == "replay" and config.workload.kind != "sessions":
        return len(_arrivals(config))
    if config.max_requests is not None:
        return config.max_requests
    return _source(config).estimated_requests() if config.workload.kind == "sessions" else None


def _arrivals(config: Config) -> list[float]:
    """When the requests of an open loop are due, in seconds, as far as `run.timeout_s` allows."""
    from llmexp import schedule

    run = config.run
    return list(schedule.offsets(config.load, seed=0, timeout_s=run.timeout_s, max_requests=config.max_requests) or ())


def probes_at_most(config: Config) -> int:
    """Loads of one job: a capacity search has many, each with a warm-up of its own."""
    return config.capacity.max_probes if config.capacity.enabled else 1


def _seconds(config: Config, mean_output: float) -> float:
    run = config.run
    requests = _requests(config, mean_output)
    if config.capacity.enabled and config.capacity.of == "rate":
        need = requests / config.capacity.start
    elif config.load.kind == "replay":
        need = max(_arrivals(config), default=0.0) + _e2e_s(config, mean_output)
    elif config.peak_rate is None:
        need = requests / (config.streams or DEFAULT_STREAMS) * _e2e_s(config, mean_output)
    else:
        need = requests / _source(config).turns_per_session() / config.peak_rate  # a session begins, its turns follow
    return min(need, (run.timeout_s + run.grace_s) * probes_at_most(config))


@dataclass
class Clock:
    """How long the jobs that are left will take, by the plan and by how it held so far."""

    planned_s: list[float]
    began_s: float = field(default_factory=time.monotonic)

    def left(self, done: int) -> str:
        """`, about 3 min left`, once a job has shown how the plan holds; empty before."""
        if not done:
            return ""
        elapsed = time.monotonic() - self.began_s
        seconds = sum(self.planned_s[done:]) * elapsed / max(sum(self.planned_s[:done]), 1e-9)
        return f", about {_span(seconds)} left"


def _span(seconds: float) -> str:
    """`45 s`, `3 min`, `1.6 h`: as rough as an estimate is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def cautions(specs: Sequence[Spec]) -> list[str]:
    """What will keep these jobs from running, or from running to their end, as far as it can be known; each once."""
    found: dict[str, None] = {}
    for spec in specs:
        found |= dict.fromkeys(_missing_credentials(spec.config))
        found |= dict.fromkeys(_missing_programs(spec.config))
        found |= dict.fromkeys(_too_long(spec))
        found |= dict.fromkeys(_files(spec.config))
    return list(found)


def _files(config: Config) -> list[str]:
    """Rows that are left out, what a trace was read as, and where it will be cut short."""
    found = _source(config).notes() if config.workload.kind == "file" else []
    if config.load.kind == "replay":
        from llmexp.schedule import trace

        found += trace.notes(config.load, timeout_s=config.run.timeout_s, max_requests=config.max_requests)
    return found


def _missing_credentials(config: Config) -> list[str]:
    from llmexp.clients import credentials

    if config.rehearse:
        return []
    return [*credentials.problems(config.model), *credentials.region_problems(config.model)]


def _missing_programs(config: Config) -> list[str]:
    from llmexp import endpoints

    try:
        endpoints.check(config.model, rehearse=config.rehearse)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def _too_long(spec: Spec) -> Iterator[str]:
    """Loads that `run.timeout_s` ends before their last request."""
    config = spec.config
    most = _most(config)
    if most is None or config.capacity.enabled:
        return
    _, mean_output = mean_tokens(config)
    limit_s = config.run.timeout_s
    if config.load.kind == "ramp" and not config.closed:
        yield from _ramp_too_long(spec, most)
        return
    if config.peak_rate is not None:
        need_s, about = most / _source(config).turns_per_session() / config.peak_rate, ""
    elif config.closed and config.load.kind == "closed":
        need_s, about = most / (config.streams or 1) * _e2e_s(config, mean_output), "about "
    else:
        return
    if need_s > limit_s:
        sent = max(1, int(most * limit_s / need_s))
        yield (
            f"{spec.name}: run.timeout_s={limit_s:g} ends the load after {about}{sent:,} of {most:,} requests; "
            f"raise it to {math.ceil(need_s)}, or lower run.max_requests"
        )


def _ramp_too_long(spec: Spec, most: int) -> Iterator[str]:
    sent, limit_s = len(_arrivals(spec.config)), spec.config.run.timeout_s
    if sent < most:
        yield (
            f"{spec.name}: run.timeout_s={limit_s:g} ends the ramp after {sent:,} of {most:,} requests; raise it, "
            "raise load.from or load.to, or lower run.max_requests"
        )


def check_money(specs: Sequence[Spec], ledger: Ledger) -> None:
    """Refuse jobs that are expected to pass `run.max_usd`, and a limit that cannot be held where the user set it."""
    if ledger.limit_usd is None:
        return
    expected = estimate(specs)
    if expected.usd > ledger.remaining():
        spent = f", and {ledger.limit_usd - ledger.remaining():.4f} are spent" if ledger.billed_usd else ""
        raise ConfigError(
            f"run.max_usd: this is estimated at {expected.usd:.4g} USD, above {ledger.limit_usd:g}{spent}; "
            f"raise run.max_usd, or lower run.max_requests or the number of jobs (dry_run=true shows the estimate)"
        )
    if any(spec.limit_is_set for spec in specs) and (why := unheld(_payers(specs), ledger.limit_usd)):
        raise ConfigError(why)


def _payers(specs: Sequence[Spec]) -> list[Model]:
    """The models that the jobs pay for."""
    return [model for spec in specs if not spec.config.rehearse for model in (spec.config.model, *spec.judges)]


def unheld(models: Sequence[Model], limit_usd: float) -> str | None:
    """Why a limit of so much cannot be held for these models, and what to do; None where it can."""
    if names := _unpriced(models):
        return (
            f"run.max_usd: no price is known for {', '.join(names)}, so {limit_usd:g} USD cannot be "
            "held; set model.price.usd_per_million_input_tokens and usd_per_million_output_tokens (0 where it is "
            "free) or usd_per_instance_hour, or run.max_usd=null"
        )
    if name_and_why := _unlimited(models):
        return f"run.max_usd: model.params of {name_and_why}, so {limit_usd:g} USD cannot be held; {SET_A_LIMIT}"
    return None


def _unpriced(models: Iterable[Model]) -> list[str]:
    """Models that nobody knows the price of. What the job starts itself is free unless it has one."""
    from llmexp.metrics import prices

    unknown = [model.name for model in models if not prices.known(prices.price_list(model)) and not _own(model)]
    return list(dict.fromkeys(unknown))


def _unlimited(models: Iterable[Model]) -> str | None:
    """The first model that is paid by tokens and may write as many as it likes, and why it may."""
    from llmexp.clients import unlimited
    from llmexp.metrics import prices

    for model in models:
        if prices.price_list(model).output_usd and (why := unlimited.reason(model)):
            return f"{model.name}: {why}"
    return None


def _own(model: Model) -> bool:
    return model.deployment.kind in ("llamacpp", "served", "simulated")


def money_remark(specs: Sequence[Spec], ledger: Ledger) -> str | None:
    """What to say once where the limit of a command does not hold for all of its jobs."""
    return None if ledger.limit_usd is None else remark(_payers(specs))


def remark(models: Sequence[Model]) -> str | None:
    """What keeps a limit that nobody set from being held for these models."""
    if names := _unpriced(models):
        return f"no price is known for {', '.join(names)}: run.max_usd cannot hold for that, and no cost is stated"
    if name_and_why := _unlimited(models):
        return f"model.params of {name_and_why}: run.max_usd can be passed by what is in flight"
    return None


def one_line(expected: Estimate, todo: int, directory: Path) -> str:
    """The head of a sweep."""
    have = len(expected.jobs) - todo
    skipped = f", {have} already there" if have else ""
    requests = sum(job.requests for job in expected.jobs)
    return f"{counted(todo, 'job')}{skipped}, {counted(requests, 'request')}, about {_usd(expected)} → {directory}"


def _usd(expected: Estimate) -> str:
    unknown = f" + {counted(len(expected.unpriced), 'job')} without a known price" if expected.unpriced else ""
    return f"{expected.usd:.2f} USD{unknown}"


def render(expected: Estimate) -> str:
    """The plan as a table for stdout."""
    from rich.table import Table

    table = Table(title="Plan (nothing was sent)", title_justify="left", box=None, pad_edge=False)
    table.add_column("job", overflow="fold")
    for head in ("requests", "input tokens", "output tokens", "about", "USD"):
        table.add_column(head, justify="right")
    table.add_column("price from", overflow="fold")
    for job in expected.jobs:
        usd = "unknown" if job.usd is None else f"{job.usd:.4f}"
        table.add_row(
            job.name,
            f"{job.requests:,}",
            f"{job.input_tokens:,.0f}",
            f"{job.output_tokens:,.0f}",
            f"{job.seconds:,.0f} s",
            usd,
            job.price_source,
        )
    return _text(table) + f"\nTotal: {_usd(expected)}, about {_span(sum(job.seconds for job in expected.jobs))}"


def _text(renderable: object) -> str:
    import shutil
    import sys

    from rich.console import Console

    width = shutil.get_terminal_size((120, 40)).columns
    tty = sys.stdout.isatty()
    console = Console(width=max(80, width), force_terminal=tty, no_color=not tty, markup=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().rstrip()
