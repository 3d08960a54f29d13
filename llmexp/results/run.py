"""`Run`: a job's `Result` with its records at hand, which is what every reader takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.config import closed_loop, flatten, load
from llmexp.errors import ConfigError, ResultError
from llmexp.json_types import Tree, branch, text
from llmexp.results.files import RESULT, read
from llmexp.results.model import Curves, Metrics, Result

if TYPE_CHECKING:
    from llmexp.records.observed import Observed
    from llmexp.results.requests import Requests

TRIALS = "trials"
"""Where a search for settings keeps its trials, each a job."""
PROBES = "probes"
"""Where a capacity search keeps its probes; the job's own files speak for them."""
READERS = 4
"""Files decoded side by side; decoding Parquet leaves the interpreter free."""
REPLACED = re.compile(r"\.attempt\d+$")
"""Folders that a resumed sweep set aside."""


@dataclass(frozen=True)
class Run:
    """One job, finished or not. Its files are read when they are first asked for."""

    result: Result
    directory: Path | None = None
    held: Requests | None = None
    """Its requests, where they are no files."""

    @classmethod
    def at(cls, directory: Path) -> Run:
        """The job of a directory; `ResultError` where there is none that can be read."""
        return cls(read(directory), directory)

    @cached_property
    def requests(self) -> Requests:
        """Its requests as arrays; none for a job that failed before its load."""
        from llmexp.records import schema
        from llmexp.results.requests import from_table, load_requests

        if self.held is not None:
            return self.held
        return from_table(schema().empty_table()) if self.directory is None else load_requests(self.directory)

    @cached_property
    def observed(self) -> Observed:
        """Everything that was observed of its requests, chunks included."""
        from llmexp.records import exists
        from llmexp.records.observed import observe

        if self.directory is None or not exists(self.directory):
            return observe([])
        return observe(self.directory)

    @property
    def config(self) -> Tree:
        """The composed configuration."""
        return self.result.config

    @cached_property
    def settings(self) -> dict[str, object]:
        """The configuration, flattened with dots."""
        return flatten(self.config)

    @property
    def metrics(self) -> Metrics:
        """Its numbers."""
        return self.result.metrics

    @property
    def values(self) -> Mapping[str, float]:
        """Metric (`ttft_s/p95`, `cost_usd`) → value; what does not exist is missing."""
        return self.result.metrics.flat

    @cached_property
    def curves(self) -> Curves:
        """Its curves over time."""
        return Curves.of(self.result.curves)

    @property
    def name(self) -> str:
        """What a person calls this job."""
        job = self.result.job
        return job.name or job.id or (self.directory.name if self.directory else "run")

    @property
    def block(self) -> int:
        """The repeat that this run belongs to."""
        return self.result.job.repeat

    @property
    def verdict(self) -> str:
        """`valid`, `degraded` or `invalid`: could the client measure that?"""
        return self.result.validity.verdict

    @property
    def rehearsal(self) -> bool:
        """Whether the simulator played the model."""
        return self.result.job.rehearsal or bool(self.config.get("rehearse"))

    @property
    def searched(self) -> bool:
        """Whether this is a capacity search, whose numbers are those of the load where it ended."""
        return "capacity/estimate" in self.values

    @property
    def replaced(self) -> bool:
        """Whether a resumed sweep set this attempt aside."""
        return self.directory is not None and bool(REPLACED.search(self.directory.name))

    @cached_property
    def problem(self) -> str | None:
        """Why there is nothing to compare; None where there is something."""
        try:
            completed = bool(self.requests.completed.any())
        except ResultError as error:
            return str(error)
        if self.values and completed:
            return None
        reason = self.result.reason or "no request completed"
        return reason if self.result.status == "finished" else f"{self.result.status}: {reason}"

    @property
    def open_loop(self) -> bool:
        """Whether requests were sent by a schedule, whatever the answers did."""
        load = branch(self.config, "load")
        return not closed_loop(text(load, "kind"), text(load, "of"))

    @cached_property
    def concurrency(self) -> int | None:
        """Requests in flight as asked, also where the load's own number was taken; None: no ceiling."""
        try:
            return load(self.config).streams
        except ConfigError:
            given = self.config.get("concurrency")
            return given if isinstance(given, int) else None

    @cached_property
    def choices(self) -> dict[str, str]:
        """Which option of each config group was chosen; files of earlier versions leave that to Hydra's own."""
        if self.result.job.choices or self.directory is None:
            return dict(self.result.job.choices)
        return _choices(self.directory / ".hydra" / "hydra.yaml")

    @cached_property
    def config_dirs(self) -> list[str]:
        """The user's own config folders that it was composed from."""
        return [] if self.directory is None else _config_dirs(self.directory / ".hydra" / "hydra.yaml")


def _config_dirs(path: Path) -> list[str]:
    from omegaconf import OmegaConf

    if not path.is_file():
        return []
    tree = OmegaConf.load(path)
    sources = OmegaConf.select(tree, "hydra.runtime.config_sources")
    sources = sources or OmegaConf.select(tree, "runtime.config_sources") or []
    return [str(source.path) for source in sources if source.provider == "command-line"]


def _choices(path: Path) -> dict[str, str]:
    """Hydra's own file has everything below `hydra`; earlier versions of ours wrote a sweep's jobs without it."""
    from omegaconf import OmegaConf

    if not path.is_file():
        return {}
    tree = OmegaConf.load(path)
    chosen = OmegaConf.select(tree, "hydra.runtime.choices") or OmegaConf.select(tree, "runtime.choices") or {}
    return {str(group): str(option) for group, option in chosen.items() if option is not None}


# --- runs of directories ---------------------------------------------------------------------------------------------


def find(directories: Iterable[Path]) -> list[Path]:
    """Job directories at or right below each directory, without the ones that a resumed sweep replaced."""
    found: dict[Path, None] = {}
    for directory in directories:
        if (directory / RESULT).is_file():
            found[directory] = None
            continue
        if not directory.is_dir():
            raise ConfigError(f"{directory}: no such directory; give a sweep's or a job's output directory")
        jobs = [path.parent for path in directory.glob(f"*/{RESULT}")] or [
            path.parent for path in directory.rglob(RESULT) if path.parent.parent.name != PROBES
        ]
        found |= dict.fromkeys(sorted(jobs, key=_natural))
    return [path for path in found if not REPLACED.search(path.name)]


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts job 10 after job 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def load_runs(directories: Sequence[Path]) -> list[Run]:
    """All runs at or below the directories, their requests read; at least one must be there."""
    runs = [Run.at(directory) for directory in find(directories)]
    if not runs:
        raise ResultError(f"{', '.join(map(str, directories))}: no job has finished here yet ({RESULT} not found)")
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(lambda run: run.problem, runs))
    return runs
