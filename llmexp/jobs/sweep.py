"""From composed configs to finished jobs: one job, or a sweep of them in randomised blocks.

A sweep runs every job that it can: a failing job never loses the others. All jobs are validated before the first
request; what a resumed sweep already has is not run again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmexp.errors import (
    FAILED,
    INTERRUPTED,
    MISSED,
    OK,
    UNRECORDED,
    ConfigError,
    JobError,
    LlmexpError,
    RecordingError,
    worst,
)
from llmexp.jobs import spec as jobs
from llmexp.jobs.budget import Budget
from llmexp.jobs.spec import Composed, Spec

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from llmexp.tracking import Store

log = logging.getLogger("llmexp")
SWEEP_FILE = "sweep.json"


def run_composed(task: DictConfig, hydra: DictConfig) -> int:
    """A command without `-m`: one job, or a sweep of its repeats. Returns the exit status."""
    composed = Composed(task, hydra, tuple(hydra.overrides.task))
    directory = Path(str(hydra.runtime.output_dir))
    found = jobs.specs([composed])
    if len(found) > 1:
        return run_specs(found, directory)
    return _Run(found, directory, alone=True).run()


def run_sweep(composed: Sequence[Composed], directory: str) -> int:
    """A multirun. Returns the exit status; raises `ConfigError` before anything is sent."""
    return run_specs(jobs.specs(composed), Path(directory))


def run_specs(found: list[Spec], directory: Path) -> int:
    """A sweep of checked jobs into `directory`, or into the one that `run.resume` names."""
    resume = found[0].config.run.resume
    if resume is not None:
        _drop_unused(directory)
        directory = Path(resume)
    return _Run(found, directory, alone=False).run()


def _drop_unused(directory: Path) -> None:
    """Hydra made a folder for a sweep that goes on in another one."""
    with contextlib.suppress(OSError):
        (directory / "multirun.yaml").unlink(missing_ok=True)
        directory.rmdir()


def in_blocks(found: Sequence[Spec], seed: int) -> list[Spec]:
    """The order of running: repeat by repeat, shuffled inside each, so that drift favours no stack."""
    order: list[Spec] = []
    for repeat in sorted({spec.repeat for spec in found}):
        block = [spec for spec in found if spec.repeat == repeat]
        random.Random(f"{seed}/{repeat}").shuffle(block)
        order += block
    return order


@dataclass
class _Run:
    """One command's jobs, their store and their end."""

    specs: list[Spec]
    directory: Path
    alone: bool
    statuses: list[int] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    store: Store | None = None
    parent: str | None = None
    sweep_id: str | None = None

    def run(self) -> int:
        from llmexp.jobs import plan

        first = self.specs[0].config
        estimate = plan.estimate(self.specs)
        if first.dry_run:
            print(plan.render(estimate))
            return OK
        plan.check_budget(estimate, first.run.max_usd)
        self._place()
        todo = self._todo()
        if not self.alone:
            log.info(plan.one_line(estimate, len(todo), self.directory))
        self._get_ready(todo)
        budget = Budget(first.run.max_usd)
        try:
            self._run_all(todo, budget)
        finally:
            from llmexp import benchmark

            self._end()
            benchmark.stop_ray()
        return worst(self.statuses)

    # -- places -------------------------------------------------------------------------------------------------------

    def _place(self) -> None:
        """Give each job its folder and the sweep its id."""
        if self.alone:
            self.specs = [replace(spec, directory=self.directory) for spec in self.specs]
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / SWEEP_FILE
        if file.exists():
            self.sweep_id = json.loads(file.read_text())["id"]
        else:
            self.sweep_id = uuid.uuid4().hex
            self._tell(id=self.sweep_id, name=self._title(), jobs=len(self.specs))
        self.specs = [replace(spec, directory=self._folder(spec), sweep=self.sweep_id) for spec in self.specs]

    def _tell(self, **facts: Any) -> dict[str, Any]:
        """Adds to what the directory says of the sweep as a whole, for whoever resumes it or logs it later."""
        file = self.directory / SWEEP_FILE
        told: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(told | facts, indent=2, ensure_ascii=False) + "\n")
        return told | facts

    def _folder(self, spec: Spec) -> Path:
        known = self._existing().get(spec.key)
        if known is not None:
            return known
        number = spec.number
        taken = {path.name for path in self._existing().values()}
        while str(number) in taken:
            number += len(self.specs)
        return self.directory / str(number)

    def _existing(self) -> dict[str, Path]:
        """Job key → folder, of what the sweep directory already holds."""
        found = {}
        for path in self.directory.iterdir():
            if path.is_dir() and path.name.isdigit() and (key := _key_of(path)):
                found[key] = path
        return found

    def _todo(self) -> list[Spec]:
        order = in_blocks(self.specs, self.specs[0].config.run.seed)
        todo = []
        for spec in order:
            done = _result(spec.directory)
            if done is not None and _stands(done, spec.config.run.rerun_invalid):
                self.results.append(done)
            else:
                todo.append(spec)
        return todo

    # -- running ------------------------------------------------------------------------------------------------------

    def _run_all(self, todo: list[Spec], budget: Budget) -> None:
        for at, spec in enumerate(todo):
            if not self.alone:
                log.info("[%d/%d] %s", at + 1, len(todo), spec.name)
            try:
                status = self._run_one(spec, budget)
            except KeyboardInterrupt:
                status = INTERRUPTED
            self.statuses.append(status)
            if status == INTERRUPTED:
                return
            if budget.reason(0.0):
                log.error("%s; the remaining %d jobs are not started", budget.reason(0.0), len(todo) - at - 1)
                self.statuses += [FAILED] * (len(todo) > at + 1)
                return

    def _run_one(self, spec: Spec, budget: Budget) -> int:
        from llmexp.jobs import job
        from llmexp.jobs import measure as experiment
        from llmexp.results import calibration

        if beyond := calibration.warning(spec.config):
            log.warning("%s", beyond)
        self._set_aside(spec)
        spec.directory.mkdir(parents=True, exist_ok=True)
        _save_hydra(spec)
        try:
            result = job.run(spec, budget)
        except ConfigError:
            if self.alone:
                raise
            log.exception("%s", spec.name)
            return FAILED
        except LlmexpError as error:
            log.error("%s: %s", spec.name, error)  # noqa: TRY400 -- one clear message, no traceback
            result = experiment.failed(spec, str(error))
        except Exception as error:  # a fault of ours must not lose the other jobs
            log.exception("%s: internal error", spec.name)
            result = experiment.failed(spec, f"internal error: {type(error).__name__}: {error}")
        self.results.append(result)
        recorded = self._record(spec)
        print(experiment.render(result, spec.directory))
        sys.stdout.flush()
        return worst([experiment.status_of(result, spec.config), recorded])

    def _set_aside(self, spec: Spec) -> None:
        """A folder that is replaced is kept as N.attempt1, its run tagged as superseded."""
        from llmexp.jobs import measure as experiment

        if self.alone or not spec.directory.exists():
            return
        old = experiment.salvage(spec.directory)
        attempt = 1
        while (kept := spec.directory.with_name(f"{spec.directory.name}.attempt{attempt}")).exists():
            attempt += 1
        spec.directory.rename(kept)
        if old is not None and self.store is not None:
            with self._recording():
                run = self.store.find_job(old["job"]["id"]) or self.store.log_job(kept, self.parent)
                self.store.supersede(run)

    # -- recording ----------------------------------------------------------------------------------------------------

    def _get_ready(self, todo: list[Spec]) -> None:
        """Start Ray while MLflow is imported and its store opened: each takes seconds, and both end before any load."""
        from llmexp import benchmark
        from llmexp.tracking import open_store

        config = self.specs[0].config
        with ThreadPoolExecutor(1, "store") as pool:
            opening = pool.submit(open_store, config.tracking, Path.cwd())
            if todo:
                with contextlib.suppress(JobError):  # met again, and told, by the first job
                    benchmark.ensure_ray(config.ray)
            with self._recording():
                self.store = opening.result()
                if not self.alone:
                    assert self.sweep_id is not None
                    name, tags = self._name(), dict(config.tracking.tags)
                    if any(spec.config.rehearse for spec in self.specs):
                        tags["llmexp.rehearsal"] = "true"
                    self.parent = self.store.start_sweep(self.sweep_id, name, tags, self._common())

    def _name(self) -> str:
        """The sweep's name; a resumed one keeps its own."""
        return str(self._tell().get("name") or self._title())

    def _title(self) -> str:
        models = list(dict.fromkeys(spec.model for spec in self.specs))
        return f"{' vs '.join(models)} · {time.strftime('%Y-%m-%d %H:%M')}"

    def _common(self) -> dict[str, Any]:
        """The config that all jobs share."""
        from llmexp.config import flatten

        flat = [flatten(spec.tree) for spec in self.specs]
        return {key: value for key, value in flat[0].items() if all(one.get(key) == value for one in flat)}

    def _record(self, spec: Spec) -> int:
        if self.store is None:
            return UNRECORDED
        before = len(self.statuses)
        with self._recording():
            self.store.log_job(spec.directory, self.parent)
        return UNRECORDED if len(self.statuses) > before else OK

    @contextlib.contextmanager
    def _recording(self) -> Any:
        """What the store refuses is said and remembered; files are complete all the same."""
        try:
            yield
        except RecordingError as error:
            log.error("%s", error)  # noqa: TRY400 -- one clear message, no traceback
            self.statuses.append(UNRECORDED)

    def _end(self) -> None:
        """Compare, close the parent, say where to look."""
        if not self.results:
            return
        headline = "" if self.alone else self._compare()
        if headline:
            self._tell(description=headline)
        if not self.alone and self.store is not None and self.parent is not None:
            states = {OK: "finished", MISSED: "finished", UNRECORDED: "finished", INTERRUPTED: "interrupted"}
            with self._recording():
                status = states.get(worst(self.statuses), "failed")
                self.store.finish_sweep(self.parent, status, headline, self.directory)
        print(f"\nFiles: {_shown(self.directory)}")
        if self.store is not None and self.store.uri is not None:
            print("Browse: python -m llmexp.ui")
        sys.stdout.flush()

    def _compare(self) -> str:
        from llmexp import compare, report

        config = self.specs[0].config
        try:
            comparison = compare.compare(compare.load_runs([self.directory]), compare.Options.from_config(config))
            compare.write(comparison, self.directory)
            report.comparison(comparison, self.directory)
        except LlmexpError as error:
            log.error("comparison: %s", error)  # noqa: TRY400
            self.statuses.append(error.exit_status)
            return ""
        except Exception:  # a fault of ours must not hide that the jobs are measured and recorded
            log.exception("comparison: internal error")
            self.statuses.append(FAILED)
            return ""
        print(compare.render(comparison))
        if comparison.unanswered:
            log.warning("%s", comparison.unanswered)
        if comparison.regression and config.compare.fail_on == "regression":
            self.statuses.append(MISSED)
        return str(comparison.headline)


def _shown(path: Path) -> str:
    """A path relative to here where that is shorter."""
    with contextlib.suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)


def _result(directory: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((directory / "result.json").read_text())
        return found
    return None


def _key_of(directory: Path) -> str | None:
    found = _result(directory)
    return None if found is None else str(found["job"]["key"])


def _stands(result: Mapping[str, Any], rerun_invalid: bool) -> bool:
    """Whether a job need not be run again."""
    if result["status"] != "finished":
        return False
    return not (rerun_invalid and result["validity"]["verdict"] == "invalid")


def _save_hydra(spec: Spec) -> None:
    """Hydra writes `.hydra` itself for a lone job; a sweep's jobs get the same three files here."""
    from omegaconf import OmegaConf

    target = spec.directory / ".hydra"
    if spec.composed is None or target.exists():
        return
    target.mkdir()
    OmegaConf.save(spec.composed.task, target / "config.yaml")
    OmegaConf.save(spec.composed.hydra, target / "hydra.yaml")
    OmegaConf.save(OmegaConf.create(list(spec.overrides)), target / "overrides.yaml")
