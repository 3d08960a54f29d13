"""From composed configs to finished jobs: one job, or a sweep of them in randomised blocks.

A sweep runs every job that it can: a failing job never loses the others. All jobs are validated before the first
request; what a resumed sweep already has is not run again, and counts.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.config import flatten
from llmexp.errors import FAILED, INTERRUPTED, MISSED, OK, ConfigError, JobError, LlmexpError, is_interrupt, worst
from llmexp.jobs import demands, lock, readers, sweep_dir
from llmexp.jobs import spec as jobs
from llmexp.jobs.judges import judges_configs
from llmexp.jobs.ledger import Ledger
from llmexp.jobs.lock import Folder
from llmexp.jobs.reading import Reading
from llmexp.jobs.recorder import Recorder
from llmexp.jobs.signals import shielded
from llmexp.jobs.spec import Composed, Spec
from llmexp.jobs.sweep_dir import SweepDir
from llmexp.results import RESULT, Result, Run
from llmexp.results.files import put
from llmexp.results.files import write as write_result
from llmexp.results.guard import Guard, compare_command, one_line, relog_command, shown
from llmexp.results.run import TRIALS
from llmexp.terminal.out import show

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from llmexp.compare import Comparison
    from llmexp.endpoints.served import Servers

LEFT_S = 5.0
"""Readers that two signals did not wait for get so much longer: a process that ends around them may crash."""
log = logging.getLogger("llmexp")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and where it left its files."""

    status: int
    directory: Path | None
    """None where nothing was run."""
    sweep: bool


def run_composed(task: DictConfig, hydra: DictConfig) -> Outcome:
    """A command without `-m`: one job, or a sweep of its repeats."""
    composed = Composed(task, hydra, jobs.typed_overrides(hydra))
    with owned(lock.claim(Path(str(hydra.runtime.output_dir)))) as folder:
        found = _checked([composed])
        if found[0].config.dry_run:
            return plan_only(found)
        if len(found) > 1 or found[0].config.run.resume is not None:
            return run_specs(found, folder.path)
        return CommandRun([replace(found[0], directory=folder.path)], folder, None).run()


def run_sweep(composed: Sequence[Composed], directory: str, multirun: DictConfig | None = None) -> Outcome:
    """A multirun. Raises `ConfigError` before anything is written or sent."""
    return run_specs(_checked(composed), Path(directory), multirun)


def _checked(composed: Sequence[Composed]) -> list[Spec]:
    """The command's jobs, all that can be known beforehand checked; `ConfigError` with every problem."""
    found = jobs.specs(composed)
    if problems := demands.problems(found):
        raise ConfigError("\n".join(problems))
    return found


def run_specs(found: list[Spec], directory: Path, multirun: DictConfig | None = None) -> Outcome:
    """A sweep of checked jobs into `directory`, or into the one that `run.resume` names."""
    from llmexp.jobs import plan

    config = found[0].config
    if config.dry_run:
        return plan_only(found)
    if config.run.resume is not None:
        with owned(lock.hold(Path(config.run.resume))) as folder:
            sweep = SweepDir.resume(folder, found)
            return CommandRun(sweep.specs, folder, sweep).run()
    plan.check_money(found, Ledger(config.run.max_usd))
    with owned(lock.claim(directory)) as folder:
        sweep = SweepDir.new(folder, found)
        sweep.keep_composition(multirun)
        return CommandRun(sweep.specs, folder, sweep).run()


@contextlib.contextmanager
def owned(folder: Folder) -> Iterator[Folder]:
    """Keep a folder for as long as it is worked in; nothing stays of one that nothing was written to."""
    try:
        yield folder
    finally:
        folder.drop_if_empty()


def plan_only(found: list[Spec], at_least: list[Spec] | None = None) -> Outcome:
    """The plan of these jobs on stdout; nothing is sent. `at_least`: those that the money has to suffice for."""
    from llmexp.jobs import plan

    run = found[0].config.run
    folder = None if run.resume is None or at_least else Path(run.resume)
    left = found if folder is None else sweep_dir.left_of(folder, found)
    if len(left) < len(found):
        log.info("%d of %d jobs are there already; the plan is for the rest", len(found) - len(left), len(found))
    show(plan.render(plan.estimate(left)))
    for caution in plan.cautions(left):
        log.warning("%s", caution)
    plan.check_money(at_least or left, Ledger(run.max_usd, folder))
    return Outcome(OK, None, sweep=len(found) > 1)


@dataclass
class CommandRun:
    """One command's jobs, their store and their end."""

    specs: list[Spec]
    folder: Folder
    sweep: SweepDir | None
    """None for a job alone."""
    guard: Guard = field(default_factory=Guard)
    statuses: list[int] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    standing: list[tuple[Spec, Result]] = field(default_factory=list)
    """What an earlier command measured and this one keeps."""
    servers: Servers | None = None
    """What jobs start by a command, kept for those that follow."""
    ledger: Ledger | None = None
    """The money of all of them."""

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.guard)
        self.reading = Reading()

    def run(self) -> Outcome:
        """All of it, from the plan to the comparison."""
        from llmexp.endpoints.served import Servers
        from llmexp.jobs import plan

        todo = self._todo()
        ledger = self.ledger = Ledger(self.specs[0].config.run.max_usd, self.folder.path)
        self._count_unbooked(ledger)
        self._check_money(todo, ledger)
        if self.sweep is not None:
            log.info(plan.one_line(plan.estimate(self.specs), len(todo), self.folder.path))
        if remark := plan.money_remark(todo, ledger):
            log.warning("%s", remark)
        try:
            self._get_ready(todo)
            with Servers() as self.servers:
                self._run_all(todo, ledger)
        except KeyboardInterrupt:
            self.statuses.append(INTERRUPTED)
        finally:
            if ledger.passed() and FAILED not in self.statuses:
                log.error("%s: the limit was passed", ledger.state())
            self._close()
        return Outcome(self._status(), self.folder.path, sweep=self.sweep is not None)

    def _count_unbooked(self, ledger: Ledger) -> None:
        """What jobs cost that were killed while nobody counted, since there was no limit."""
        from llmexp.jobs import measure as experiment

        folder = self.folder.path
        for path in sorted([*folder.glob(f"*/{RESULT}"), *folder.glob(f"{TRIALS}/*/{RESULT}")]):
            old = experiment.salvage(path.parent)
            if old is None or old.job.rehearsal or old.capacity_curve:
                continue
            names = (old.job.id, str(path.parent.relative_to(folder)))  # the second where the ledger was lost
            usd = old.metrics.number("cost_usd")
            if usd and all(ledger.known(name) == (0.0, 0.0) for name in names):
                ledger.add(old.job.id, usd)

    def _check_money(self, todo: list[Spec], ledger: Ledger) -> None:
        """Raises `ConfigError` where these jobs are expected to pass the limit."""
        from llmexp.jobs import plan

        plan.check_money(todo, ledger)

    def _close(self) -> None:
        """Whatever happened: the sweep's run is closed, and no process stays."""
        from llmexp import benchmark

        try:
            with self._to_the_end():
                with self.guard("the last job's files may not be complete", relog_command(self.folder.path)):
                    self.reading.finish()
                self._end()
        finally:
            benchmark.stop_ray()
            self.reading.finish(LEFT_S)

    @contextlib.contextmanager
    def _to_the_end(self) -> Iterator[None]:
        """A signal inside waits, and counts afterwards."""
        try:
            with shielded() as shield:
                yield
        except KeyboardInterrupt:
            shield.rung = True
        if shield.rung:
            self.statuses.append(INTERRUPTED)

    def _status(self) -> int:
        passed = self.ledger is not None and self.ledger.passed()
        return worst([*self.statuses, *self.guard.statuses, FAILED if passed else OK])

    def _todo(self) -> list[Spec]:
        """The jobs that are to run; those that stand already count with what they came to."""
        from llmexp.jobs import measure as experiment

        if self.sweep is None:
            return self.specs
        todo, self.standing = self.sweep.outstanding(rerun_invalid=self.specs[0].config.run.rerun_invalid)
        for spec, result in self.standing:
            self.results.append(result)
            self.statuses.append(experiment.status_of(result, spec.config))
            self._tell_why(spec, result)
        return todo

    # -- running ------------------------------------------------------------------------------------------------------

    def _run_all(self, todo: list[Spec], ledger: Ledger) -> None:
        from llmexp.jobs import plan

        clock = plan.Clock([plan.estimate([spec]).jobs[0].seconds for spec in todo])
        for at, spec in enumerate(todo):
            if self._status() == INTERRUPTED:
                return
            if at and (problem := ledger.problem(plan.estimate([spec]).usd)):
                log.error("%s; the remaining %d jobs are not started", problem, len(todo) - at)
                self.statuses.append(FAILED)
                return
            if self.sweep is not None:
                log.info("[%d/%d] %s%s", at + 1, len(todo), spec.name, clock.left(at))
            self.statuses.append(self._run_one(spec, ledger))

    def _run_one(self, spec: Spec, ledger: Ledger) -> int:
        from llmexp.jobs import job
        from llmexp.jobs import measure as experiment
        from llmexp.results import calibration

        if beyond := calibration.warning(spec.config):
            log.warning("%s", beyond)
        try:
            self._set_aside(spec)
            spec.directory.mkdir(parents=True, exist_ok=True)
            _save_hydra(spec)
            run = job.run(spec, ledger, servers=self.servers, guard=self.guard, before_load=self.reading.finish)
            self._tell_why(spec, run.result)
        except KeyboardInterrupt:
            return self._interrupted(spec)
        except ConfigError as error:
            if self.sweep is None:
                raise
            log.error("%s: %s", spec.name, error)  # noqa: TRY400 -- one clear message, no traceback
            run = experiment.failed(spec, str(error))
        except (LlmexpError, OSError) as error:
            if is_interrupt(error):
                return self._interrupted(spec)
            log.error("%s: %s", spec.name, one_line(error))  # noqa: TRY400
            run = experiment.failed(spec, one_line(error))
        except Exception as error:  # a fault of ours must not lose the other jobs
            if is_interrupt(error):
                return self._interrupted(spec)
            log.exception("%s: internal error", spec.name)
            run = experiment.failed(spec, f"internal error: {one_line(error)}")
        self.results.append(run.result)
        with self._to_the_end():
            self._read(run)
        kept = OK if run.directory == spec.directory else FAILED
        return worst([experiment.status_of(run.result, spec.config), kept])

    def _tell_why(self, spec: Spec, result: Result) -> None:
        """A line on stderr for what makes the exit status other than 0; of a sweep's service levels the end tells."""
        from llmexp.jobs import measure as experiment

        why = experiment.why_not_ok(result, spec.config)
        if why is not None and (self.sweep is None or experiment.status_of(result, spec.config) != MISSED):
            log.error("%s", why)

    def _interrupted(self, spec: Spec) -> int:
        """A job that was interrupted outside its load: what it has on disk is kept and recorded."""
        from llmexp.jobs import measure as experiment

        with self._to_the_end(), self.guard("what was measured could not be read", f"see {spec.directory}"):
            run = experiment.interrupted(spec)
            if run is not None:
                self.results.append(run.result)
                self._read(run)
        return INTERRUPTED

    def _read(self, run: Run) -> None:
        """What is made of a job whose numbers are on disk: its line now, the rest while the next job starts."""
        from llmexp.terminal import glance, line

        with self.guard("the job's table could not be shown", f"see {run.directory}"):
            elsewhere = None if run.directory == self.folder.path else run.directory  # the end tells where that is
            show(glance.render(run.result, elsewhere) if self.sweep is None else line.render(run.result))
        self.reading.start(lambda: self._write_and_record(run))

    def _write_and_record(self, run: Run) -> None:
        readers.write_files(run, self.guard)
        self.recorder.job(run)

    def _set_aside(self, spec: Spec) -> None:
        """A folder that is replaced is kept as N.attempt1, its run tagged as superseded."""
        from llmexp.jobs import measure as experiment

        if self.sweep is None or not spec.directory.exists():
            return
        self.reading.finish()
        old = experiment.salvage(spec.directory)
        kept = sweep_dir.set_aside(spec.directory)
        if old is not None:
            self.recorder.supersede(Run(old, kept))

    # -- recording ----------------------------------------------------------------------------------------------------

    def _get_ready(self, todo: list[Spec]) -> None:
        """Start Ray while MLflow is imported and its store opened: each takes seconds, and both end before any load."""
        from llmexp import benchmark
        from llmexp.tracking import open_store

        config = self.specs[0].config
        with ThreadPoolExecutor(1, "store", benchmark.leave_signals_to_main_thread) as pool:
            opening = pool.submit(open_store, config.tracking, Path.cwd())
            if todo:
                pool.submit(readers.load)
                with contextlib.suppress(JobError):  # met again, and told, by the first job
                    benchmark.ensure_ray(todo[0].config.ray)
                    judges = [config for spec in todo for config in judges_configs(spec.config, spec.judges)]
                    benchmark.get_ready([*(spec.config for spec in todo), *judges])
            self.recorder.open(opening, self.folder.path)
        if self.sweep is None:
            return
        tags = dict(config.tracking.tags)
        if any(spec.config.rehearse for spec in self.specs):
            tags["llmexp.rehearsal"] = "true"
        self.recorder.begin_sweep(self.folder.path, self.sweep.id, self.sweep.name, tags, self._common())
        for spec, result in self.standing:
            self.recorder.catch_up(Run(result, spec.directory))

    def _common(self) -> dict[str, object]:
        """The config that all jobs share."""
        flat = [flatten(spec.tree) for spec in self.specs]
        return {key: value for key, value in flat[0].items() if all(one.get(key) == value for one in flat)}

    def _end(self) -> None:
        """Compare, close the parent, say where to look."""
        if self.sweep is not None:
            headline = self._compare() if self.results else ""
            with self.guard("the verdict was not noted in the sweep's folder", compare_command(self.folder.path)):
                if headline:
                    self.sweep.tell(description=headline)
            self.recorder.end_sweep([self._status()], headline, self.folder.path)
        if not self.results:
            return
        show(f"\nFiles: {shown(self.folder.path)}")
        if self.sweep is not None and self._status() in (INTERRUPTED, FAILED):
            show(f"To complete it: the same command with run.resume={shown(self.folder.path)}")
        if self.recorder.uri is not None:
            show("Browse: python -m llmexp.ui")

    def _compare(self) -> str:
        """Compare the sweep's jobs; the verdict in words, empty where there is none."""
        from llmexp import compare, report

        config, directory = self.specs[0].config, self.folder.path
        later = compare_command(directory)
        demanded = config.slo.enforce or config.compare.fail_on is not None
        found: Comparison | None = None
        with self.guard("the comparison could not be made", later, MISSED if demanded else OK):
            runs = self._as_known(compare.load_runs([directory]))
            found = compare.compare(runs, compare.Options.from_config(config))
        if found is None:
            return ""
        found = self._headed(found)
        with self.guard("comparison.csv and comparison.json were not written", later):
            compare.write(found, directory)
        with self.guard("the comparison's table could not be shown", later):
            show(compare.render(found))
        with self.guard("comparison.html was not drawn", later):
            report.comparison(found, directory, self.guard)
        for reason in found.shortfalls:
            log.error("%s", reason)
        if found.shortfalls:
            self.statuses.append(MISSED)
        return found.headline

    def _as_known(self, runs: Sequence[Run]) -> list[Run]:
        """A full disk keeps from a folder how its job ended. This command knows, and there may be room now."""
        known = {one.job.id: one for one in self.results if one.status != "interrupted"}
        found = []
        for run in runs:
            ended = known.get(run.result.job.id)
            if ended is not None and run.result.status == "interrupted" and run.directory is not None:
                reason = ended.reason or "its folder did not take its result"
                told = run.result.model_copy(update={"status": "failed", "reason": reason})
                with contextlib.suppress(OSError):
                    write_result(run.directory, told)
                found.append(Run(told, run.directory))
            else:
                found.append(run)
        return found

    def _headed(self, found: Comparison) -> Comparison:
        """The comparison under the command's own headline, where it has one."""
        return found


def _save_hydra(spec: Spec) -> None:
    """The three files that Hydra would write, for every job alike: only once its folder is ours."""
    from omegaconf import OmegaConf

    target = spec.directory / ".hydra"
    if spec.composed is None or target.exists():
        return
    target.mkdir()
    overrides = OmegaConf.create(list(spec.overrides))
    files = {"config": spec.composed.task, "hydra": {"hydra": spec.composed.hydra}, "overrides": overrides}
    for name, content in files.items():
        put(target / f"{name}.yaml", OmegaConf.to_yaml(content))
