"""Grades kept answers again, without asking the model: `python -m llmexp.regrade DIR quality=…`.

    python -m llmexp.regrade outputs/…/12-00-00 quality=number quality.tolerance=0.01
    python -m llmexp.regrade outputs/…/12-00-00 quality=judge quality.judge.model=sonnet

DIR is a job's directory or a sweep's; its answers must have been kept (run.save_text=true). The rest are overrides of
the group `quality`, as the command takes them, and `run.max_usd` for judges.
Exit status: 0 graded, 1 judges cost more than `run.max_usd`, which bounds all folders together, 2 there is nothing to
grade or the overrides are wrong, 130 interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import composition, secrets
from llmexp.config import Config, Model, load
from llmexp.errors import FAILED, INTERRUPTED, OK, ConfigError, LlmexpError
from llmexp.plain_flags import Parser

if TYPE_CHECKING:
    from llmexp.jobs.ledger import Ledger
    from llmexp.results import Result, Run

ALLOWED = ("quality", "run.max_usd", "slo.right_share")


def main(argv: Sequence[str] | None = None) -> int:
    """Grade each job of a directory; returns the exit status."""
    secrets.guard_streams()
    asked = _parser().parse_args(argv)
    composition.quiet_environment()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return regrade(
            Path(asked.directory), asked.overrides, None if asked.config_dir is None else Path(asked.config_dir)
        )
    except LlmexpError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m llmexp.regrade",
        description="Grades the kept answers of finished jobs again, without asking the model.",
    )
    parser.add_argument("directory", metavar="DIR", help="a job's directory, or a sweep's with all its jobs")
    parser.add_argument(
        "overrides", nargs="+", metavar="quality=…", help="how to grade, such as quality=number quality.tolerance=0.1"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of your own options, as the command takes it")
    return parser


def regrade(directory: Path, overrides: Sequence[str], config_dir: Path | None = None) -> int:
    """Grade every job at or below a directory by other rules, and write its files anew; returns the exit status."""
    from llmexp.jobs import lock
    from llmexp.jobs.spec import names_limit
    from llmexp.results import load_runs

    foreign = [each for each in overrides if not each.lstrip("+").startswith(ALLOWED)]
    if foreign:
        raise ConfigError(f"{foreign[0]}: only {', '.join(ALLOWED)} can be changed here: the answers are there already")
    if not directory.is_dir():
        raise ConfigError(f"{directory}: is not a directory; give a job's or a sweep's")
    how, judges = _asked(overrides, config_dir)
    if not how.quality.graded:
        raise ConfigError("quality: must say how to grade, such as quality=number")
    with lock.all_held(directory):
        runs = [run for run in load_runs([directory]) if run.metrics.number("requests_completed")]
        if not runs:
            raise ConfigError(f"{directory}: holds no answers; no request was completed")
        _check(runs, how, judges, limited=names_limit(overrides))
        money = _Money(how.run.max_usd)
        for run in runs:
            ledger = money.of(lock.whole(run.directory or directory))
            result = _regrade(run, how, judges, ledger)
            assert run.directory is not None
            _show(result, run.directory)
        if len(runs) > 1:
            _compare(directory)
    if any(run.settings.get("tracking.kind") != "none" for run in runs):
        print(f"MLflow's copy is as before; python -m llmexp.relog {directory} brings it up to date.", file=sys.stderr)
    if money.passed is not None:
        print(f"{money.passed}: the limit was passed", file=sys.stderr)
        return FAILED
    return OK


class _Money:
    """One limit over all folders, each of which keeps a ledger of what its own command and this one spent there."""

    def __init__(self, limit_usd: float | None) -> None:
        self._limit_usd = limit_usd
        self._ledgers: dict[Path, Ledger] = {}
        self._before: dict[Path, float] = {}
        """What each had spent before this command."""

    def of(self, folder: Path) -> Ledger:
        """The folder's ledger, which may spend what is left of the folder's own limit and of this command's."""
        from llmexp.jobs.ledger import Ledger

        if folder not in self._ledgers:
            ledger = self._ledgers[folder] = Ledger(self._limit_usd, folder)
            self._before[folder] = ledger.billed_usd + ledger.unsure_usd
        ledger = self._ledgers[folder]
        if self._limit_usd is not None:
            elsewhere = sum(
                one.billed_usd + one.unsure_usd - self._before[at] for at, one in self._ledgers.items() if at != folder
            )
            ledger.limit_usd = min(self._limit_usd, self._before[folder] + self._limit_usd - elsewhere)
        return ledger

    @property
    def passed(self) -> str | None:
        """Where the money is, in words, where more was spent than there was."""
        return next((ledger.state() for ledger in self._ledgers.values() if ledger.passed()), None)


def _asked(overrides: Sequence[str], config_dir: Path | None) -> tuple[Config, tuple[Model, ...]]:
    """The configuration that the overrides compose, and the judges that it names."""
    from llmexp import mistakes
    from llmexp.jobs.judges import judges_of
    from llmexp.jobs.spec import resolved

    try:
        with composition.opened(config_dir):
            (composed,) = composition.compose_all([*overrides, "model=simulated"])
    except ConfigError:
        raise
    except Exception as error:
        explained = mistakes.explain(error, list(overrides), composition.conf_dir())
        if explained is None:
            raise
        raise ConfigError(explained) from None
    config = load(resolved(composed))
    return config, judges_of(config, composed.hydra)


def _check(runs: Sequence[Run], how: Config, judges: tuple[Model, ...], *, limited: bool) -> None:
    """Everything that can be known to be wrong before a file is touched; `limited`: the user set a limit."""
    from llmexp.jobs import plan
    from llmexp.jobs.judges import problems
    from llmexp.quality import build, grading

    lacking = [run for run in runs if run.directory is None or not grading.has_texts(run.directory)]
    if lacking:
        raise ConfigError(
            f"{lacking[0].directory}: its answers were not kept; only jobs with run.save_text=true can be graded again"
        )
    if how.quality.kind != "judge":
        build.build(how.quality)
    if build.needs_expected(how.quality):
        for run in runs:
            assert run.directory is not None
            expected = [given.expected for _, given in grading.answers(run.directory)]
            if problem := build.problem_of(how.quality, expected):
                raise ConfigError(f"{run.directory}: {problem}")
    if found := problems(judges, how):
        raise ConfigError("\n".join(found))
    if how.run.max_usd is None:
        return
    if limited and (why := plan.unheld(judges, how.run.max_usd)):
        raise ConfigError(why)
    if remark := plan.remark(judges):
        print(remark, file=sys.stderr)


def _regrade(run: Run, how: Config, judges: tuple[Model, ...], ledger: Ledger) -> Result:
    """One job: grades, numbers, result and page."""
    from llmexp import report, results
    from llmexp.jobs import grading
    from llmexp.jobs.measure import regraded
    from llmexp.jobs.spec import Spec

    assert run.directory is not None
    tree = dict(run.result.config)
    tree["quality"] = how.quality.model_dump(mode="json", by_alias=True)
    tree["run"] = {**_mapping(tree.get("run")), "save_text": True}
    if how.slo.right_share is not None:
        tree["slo"] = {**_mapping(tree.get("slo")), "right_share": how.slo.right_share}
    config = load(tree)
    info = run.result.job
    spec = Spec(config, tree, info.model, info.overrides, info.repeat, info.index, name=run.name, id=info.id)
    spec = replace(spec, directory=run.directory, judges=judges)
    graded = grading.grade(spec, run.result.notes.nonce or "", None, None, ledger)
    result = regraded(run.result, spec, graded, None if graded.cost is None else ledger.summary())
    results.write(run.directory, result)
    report.job(results.Run(result, run.directory))
    if graded.interrupted:
        raise KeyboardInterrupt
    return result


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}


def _show(result: Result, directory: Path) -> None:
    from llmexp.terminal import glance

    print(glance.render(result, directory))


def _compare(directory: Path) -> None:
    """The sweep's comparison, drawn anew."""
    from llmexp import report
    from llmexp.compare import Options, compare, load_runs, render, write
    from llmexp.config import load as load_config

    runs = load_runs([directory])
    comparison = compare(runs, Options.from_config(load_config(runs[0].config)))
    write(comparison, directory)
    report.comparison(comparison, directory)
    print(render(comparison))


if __name__ == "__main__":
    sys.exit(main())
