"""The same from Python: one job, a sweep, or what either left, as objects a notebook shows.

    import llmexp
    result = llmexp.run(["model=simulated", "concurrency=4"])
    result.metrics["ttft_s"]["p50"]
    result.requests()                                            # a pandas DataFrame
    sweep = llmexp.sweep(["model=smollm2,simulated", "concurrency=1,4", "run.repeats=3"])
    sweep.table(), sweep.comparison.headline
    llmexp.load("outputs/2026-01-31/10-00-00")

What the command answers with exit status 2 raises `ConfigError` with the same message; a failed job returns its result.
A Ray that already runs in this process is used and left as it is.
"""

from __future__ import annotations

import contextlib
import html
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import composition
from llmexp.errors import ConfigError
from llmexp.metrics.wording import counted
from llmexp.results import Result
from llmexp.results.run import Run

if TYPE_CHECKING:
    import pandas as pd

    from llmexp.compare import Comparison
    from llmexp.jobs.spec import Composed
    from llmexp.jobs.sweep import Outcome
    from llmexp.results.model import Metrics

PAGE_HEIGHT_PX = 720


@dataclass(frozen=True, repr=False)
class Job:
    """One job and its files."""

    directory: Path
    run: Run
    exit_status: int | None = None
    """What the command would have ended with; None where it was loaded."""

    @property
    def result(self) -> Result:
        """Everything in `result.json`, typed."""
        return self.run.result

    @property
    def metrics(self) -> Metrics:
        """The numbers by name, as docs/metrics.md defines them: `metrics["ttft_s"]["p50"]`, or `.flat`."""
        return self.run.metrics

    @property
    def status(self) -> str:
        """`finished`, `failed` or `interrupted`."""
        return self.result.status

    @property
    def validity(self) -> str:
        """`valid`, `degraded` or `invalid`: could the client measure that?"""
        return self.run.verdict

    def requests(self) -> pd.DataFrame:
        """A row for each request: the columns of `requests.parquet`, and what follows from them, in seconds.

        Added: `ttft_s`, `time_to_first_answer_token_s`, `e2e_latency_s`, `time_per_output_token_s`, `response_ttft_s`,
        `response_latency_s`, `schedule_lag_s`, `output_tokens_per_s_per_request`; NaN where they do not exist.
        """
        from llmexp import records

        return with_latencies(records.read(self.directory).to_pandas())

    def __repr__(self) -> str:
        return f"<Job {self.run.name}: {self.status}, {self.validity}; {self.directory}>"

    def _repr_html_(self) -> str:
        return _page(self.directory / "report.html") or html.escape(repr(self))


@dataclass(frozen=True, repr=False)
class Sweep:
    """A sweep and its jobs."""

    directory: Path
    exit_status: int | None = None

    @cached_property
    def jobs(self) -> list[Job]:
        """Its jobs in the order of their folders."""
        from llmexp.results.run import load_runs

        return [Job(run.directory, run) for run in load_runs([self.directory]) if run.directory is not None]

    @cached_property
    def comparison(self) -> Comparison:
        """Its stacks side by side: `headline`, `verdicts`, `values`, …"""
        from llmexp.compare import Options, compare
        from llmexp.config import load as load_config

        runs = [job.run for job in self.jobs]
        return compare(runs, Options.from_config(load_config(runs[0].config)))

    @cached_property
    def search(self) -> dict[str, object] | None:
        """What `experiment=tune` found: `space`, `trials`, `best`, `verdict`, …; None for any other sweep."""
        try:
            told = json.loads((self.directory / "search.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return told if isinstance(told, dict) else None

    def table(self) -> pd.DataFrame:
        """A row for each job: stack, load, repeat, validity, and its numbers by name."""
        import pandas as pd

        rows = []
        for job in self.jobs:
            info = job.result.job
            own = {"job": info.name, "model": info.model, "repeat": info.repeat + 1}
            state = {"status": job.status, "validity": job.validity, "concurrency": job.run.concurrency}
            rows.append(own | state | dict(job.metrics.flat))
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return f"<Sweep of {counted(len(self.jobs), 'job')}; {self.directory}>"

    def _repr_html_(self) -> str:
        return _page(self.directory / "comparison.html") or html.escape(repr(self))


def run(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Job:
    """One job, by the command's overrides; `config_dir` is the command's `--config-dir`.

    Raises `ConfigError` before anything is sent.
    """
    from llmexp.jobs import sweep as jobs

    with _composing(config_dir):
        composed = composition.compose_all(_listed(overrides))
        _check_alone(composed)
    with _left_as_it_was():
        outcome = jobs.run_composed(composed[0].task, composed[0].hydra)
    directory = _directory(outcome)
    return Job(directory, Run.at(directory), outcome.status)


def sweep(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Sweep:
    """A sweep, by the command's overrides (`model=a,b` sweeps) or an experiment's file; `experiment=tune` is one too.

    Raises `ConfigError` before anything is sent.
    """
    from llmexp.jobs import command
    from llmexp.jobs import sweep as jobs

    with _composing(config_dir):
        composed = composition.compose_all(_listed(overrides))
        if len(composed) == 1 and composed[0].task.search.enabled:
            # A search composes its trials one after the other.
            with _left_as_it_was():
                outcome = command.run_composed(composed[0].task, composed[0].hydra)
            return Sweep(_directory(outcome), outcome.status)
    with _left_as_it_was():
        outcome = jobs.run_sweep(composed, str(composed[0].hydra.sweep.dir))
    return Sweep(_directory(outcome), outcome.status)


def load(directory: str | Path) -> Job | Sweep:
    """What a job or a sweep left in its directory. Raises `ConfigError` where there is neither."""
    from llmexp.results import RESULT
    from llmexp.results.run import find

    path = Path(directory)
    if (path / RESULT).is_file():
        return Job(path, Run.at(path))
    if not find([path]):
        raise ConfigError(f"{path}: holds no job ({RESULT} not found)")
    return Sweep(path)


def with_latencies(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns of `requests.parquet` with each request's latencies in seconds beside them."""

    def between(later: str, earlier: str) -> pd.Series:
        return (frame[later].astype("float64") - frame[earlier].astype("float64")) / 1e9

    total = frame["chunk_tokens"].map(lambda tokens: 0 if tokens is None else int(sum(tokens)))
    first = frame["chunk_tokens"].map(lambda tokens: 0 if tokens is None or len(tokens) == 0 else int(tokens[0]))
    later = (total - first).where(total > first)
    derived = {
        "ttft_s": between("first_token_ns", "sent_ns"),
        "time_to_first_answer_token_s": between("first_answer_token_ns", "sent_ns").where(frame["reasoning_streamed"]),
        "e2e_latency_s": between("last_token_ns", "sent_ns"),
        "time_per_output_token_s": between("last_token_ns", "first_token_ns") / later,
        "response_ttft_s": between("first_token_ns", "intended_ns"),
        "response_latency_s": between("last_token_ns", "intended_ns"),
        "schedule_lag_s": between("dispatched_ns", "intended_ns"),
    }
    positive = derived["e2e_latency_s"].where(derived["e2e_latency_s"] > 0)
    return frame.assign(**derived, output_tokens_per_s_per_request=total / positive)


def _listed(overrides: Sequence[str]) -> list[str]:
    """The overrides, each a text; one text alone would be read letter by letter."""
    if isinstance(overrides, str):
        raise ConfigError(f"overrides: must be a list of texts, such as ['{overrides}'], got '{overrides}'")
    return [str(override) for override in overrides]


def _check_alone(composed: Sequence[Composed]) -> None:
    """Raises `ConfigError` where the overrides ask for more than one job."""
    if len(composed) > 1:
        raise ConfigError(f"llmexp.run: these overrides make {len(composed)} jobs; use llmexp.sweep")
    asked = composed[0].task
    if asked.search.enabled:
        raise ConfigError("llmexp.run: a search has many jobs; use llmexp.sweep")
    repeats = asked.run.repeats
    if isinstance(repeats, int) and repeats > 1:
        raise ConfigError(f"llmexp.run: run.repeats={repeats} makes {repeats} jobs; use llmexp.sweep")
    if asked.run.resume is not None:
        raise ConfigError("llmexp.run: run.resume completes a sweep; use llmexp.sweep")


# --- the command, inside another process -----------------------------------------------------------------------------


@contextlib.contextmanager
def _composing(config_dir: str | Path | None) -> Iterator[None]:
    """Hydra's own errors become one message, as the command gives it."""
    from llmexp import mistakes

    composition.quiet_environment()
    folder = None if config_dir is None else Path(config_dir)
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"config_dir: no such directory: '{folder}'")
    given = [] if folder is None else ["--config-dir", str(folder)]
    try:
        with composition.opened(folder):
            yield
    except ConfigError:
        raise
    except Exception as error:
        explained = mistakes.explain(error, given, composition.conf_dir())
        if explained is None:
            raise
        raise ConfigError(explained) from None  # Hydra's own words hold what was typed, keys too


@contextlib.contextmanager
def _left_as_it_was() -> Iterator[None]:
    """The tables that the command prints are the result's here; progress goes to stderr as ever."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _directory(outcome: Outcome) -> Path:
    if outcome.directory is None:
        raise ConfigError("dry_run: nothing is run, so there is no result; leave it out")
    return outcome.directory


def _page(path: Path) -> str | None:
    """A self-contained page inside a notebook's cell."""
    if not path.is_file():
        return None
    source = html.escape(path.read_text(encoding="utf-8"), quote=True)
    return f'<iframe srcdoc="{source}" style="width:100%;height:{PAGE_HEIGHT_PX}px;border:0"></iframe>'
