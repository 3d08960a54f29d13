"""A search for the best settings: trials that Optuna asks for, then the winner against the configuration as it stands.

    DIR/trials/N     a job for each trial; 0 is the configuration as it stands
    DIR/0, 1, …      the jobs that confirm: both settings, repeated in blocks, compared as any sweep is
    DIR/search.json  space, goal, trials with their settings and what they were worth, winner, verdict

All of them are child runs of one parent. A resumed search takes up the trials that stand and goes on with the next.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import results
from llmexp.compare import stats
from llmexp.config import flatten
from llmexp.errors import FAILED, INTERRUPTED, OK, ConfigError
from llmexp.jobs import lock, sweep_dir, tune_goal
from llmexp.jobs import spec as jobs
from llmexp.jobs.ledger import Ledger
from llmexp.jobs.spec import Composed, Spec
from llmexp.jobs.sweep import CommandRun, Outcome, owned, plan_only
from llmexp.jobs.sweep_dir import SweepDir
from llmexp.jobs.tune_goal import Value
from llmexp.json_types import branch, items
from llmexp.metrics.wording import digits, percent_range
from llmexp.results import Result, Run
from llmexp.results.run import TRIALS
from llmexp.secrets import redact
from llmexp.terminal.out import show

if TYPE_CHECKING:
    from collections.abc import Iterator

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

    from llmexp.compare import Comparison

log = logging.getLogger("llmexp")
FILE = "search.json"
ALPHA = 0.05


@dataclass
class Trial:
    """Settings that were tried."""

    number: int
    params: dict[str, Value]
    folder: str
    value: float | None = None
    """What it was worth; None: nothing that counts."""
    why: str | None = None
    behind: tune_goal.Behind | None = None


def run(composed: Composed) -> Outcome:
    """The whole search. Raises `ConfigError` before anything is sent."""
    with owned(lock.claim(Path(str(composed.hydra.runtime.output_dir)))) as folder:
        return _run(composed, folder)


def _run(composed: Composed, own: lock.Folder) -> Outcome:
    """The search in this folder, or in the one that `run.resume` names."""
    base = _specs(composed, {}, repeats=1)[0]
    problems = [*tune_goal.problems(base.config), *_price_problems(base)]
    if problems:
        raise ConfigError("\n".join(problems))
    space = tune_goal.space(base.config.search.space)
    _check_keys(composed, space)
    confirm = _specs(composed, {}, repeats=max(1, base.config.search.confirm))
    planned = _planned(base, confirm if base.config.search.confirm else [])
    if base.config.dry_run:
        return plan_only(planned, at_least=_least(planned, base))
    search = partial(Search, planned, composed=composed, base=base, space=space)
    resume = base.config.run.resume
    if resume is None:
        return search(own, SweepDir.new(own, confirm)).run()
    with owned(lock.hold(Path(resume))) as folder:
        return search(folder, SweepDir.resume(folder, confirm)).run()


def _planned(base: Spec, confirm: list[Spec]) -> list[Spec]:
    """As many jobs as there can be: the trials, then those that confirm."""
    named = [replace(base, name=f"trial {at}") for at in range(base.config.search.trials)]
    for side in ("as it stands", "the winner"):
        named += [replace(spec, name=f"repeat {spec.repeat + 1}, {side}") for spec in confirm]
    return [replace(spec, number=at) for at, spec in enumerate(named)]


def _least(planned: list[Spec], base: Spec) -> list[Spec]:
    """The jobs without which a search is none: two trials, and those that confirm."""
    search = base.config.search
    return planned[: min(2, search.trials)] + planned[search.trials :]


def _price_problems(base: Spec) -> Iterator[str]:
    from llmexp.jobs import plan

    if base.config.search.metric == "goodput_per_usd" and not plan.estimate([base]).usd:
        yield (
            "search.goal: goodput_per_usd needs a price, and none is known: set model.price (usd_per_instance_hour for "
            "hardware of your own), or another goal such as goodput_per_s"
        )


# --- settings → jobs -------------------------------------------------------------------------------------------------


def _specs(composed: Composed, params: Mapping[str, Value], *, repeats: int) -> list[Spec]:
    """The jobs of these settings, composed by Hydra as if they stood on the command line."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    words = [f"{key}={_word(value)}" for key, value in params.items()]
    replaced = {*params, "run.repeats"}
    kept = [word for word in composed.overrides if word.lstrip("+").partition("=")[0] not in replaced]
    overrides = [*kept, *words, f"run.repeats={repeats}"]
    try:
        config = compose(config_name="config", overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    return jobs.specs([Composed.split(config, tuple(overrides))])


def _word(value: Value) -> str:
    """A value as Hydra's command line takes it."""
    return (
        json.dumps(value) if not isinstance(value, str) else "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    )


def _check_keys(composed: Composed, space: Mapping[str, BaseDistribution]) -> None:
    """Each choice, and both ends of each range, composed alone: what is wrong is known before the first trial."""
    problems = []
    for key, distribution in space.items():
        for value in tune_goal.ends(distribution):
            try:
                _specs(composed, {key: value}, repeats=1)
            except ConfigError as error:
                if "Could not override" in str(error):
                    problems.append(f"search.space.{key}: is no key of the configuration")
                    break
                problems.append(f"search.space.{key}: {error}")
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


# --- the search ------------------------------------------------------------------------------------------------------


@dataclass
class Search(CommandRun):
    """The jobs of one search: a sweep whose jobs follow from each other."""

    composed: Composed = field(kw_only=True)
    base: Spec = field(kw_only=True)
    space: dict[str, BaseDistribution] = field(kw_only=True)
    trials: list[Trial] = field(default_factory=list)
    verdict: dict[str, object] | None = None
    headline: str = ""

    def _todo(self) -> list[Spec]:
        """As many jobs as there can be."""
        return self.specs

    def _check_money(self, todo: list[Spec], ledger: Ledger) -> None:
        """A search takes as many trials as the money allows, so no more than a few have to fit."""
        super()._check_money([] if _told(self.folder.path) else _least(todo, self.base), ledger)

    def _run_all(self, todo: list[Spec], ledger: Ledger) -> None:  # noqa: ARG002 -- what is run follows from the trials
        study = self._study()
        for trial in self._take_up(study) or ([] if self.trials else [self._new({})]):
            if not self._affords_a_trial(ledger):
                break
            self._tell(study, self._try(trial, ledger), None)
        if self.trials and self.trials[0].value is None and self._status() != INTERRUPTED:
            log.error("search.goal: the configuration as it stands has no value: %s", self.trials[0].why)
            self.statuses.append(FAILED)
            return
        while len(self.trials) < self.base.config.search.trials and self._affords_a_trial(ledger):
            asked = study.ask(fixed_distributions=self.space)
            params = {key: asked.params[key] for key in self.space}
            if any(params == one.params for one in self.trials):
                log.info("every setting of search.space was tried")
                break
            self._tell(study, self._try(self._new(params), ledger), asked)
        best = self._best()
        if best is not None and self._status() != INTERRUPTED:
            self._confirm(best, ledger)
        self._write()

    def _affords_a_trial(self, ledger: Ledger) -> bool:
        """Whether another one leaves enough for the jobs that confirm the winner."""
        from llmexp.jobs import plan

        if self._status() == INTERRUPTED:
            return False
        last = self.specs[self.base.config.search.trials :]
        problem = ledger.problem(plan.estimate([self.base, *last]).usd)
        if problem:
            words = " for another trial and the repeats that confirm the winner" if last else ""
            log.warning("%s%s; the search ends after %d trials", problem, words, len(self.trials))
        return problem is None

    # -- trials -------------------------------------------------------------------------------------------------------

    def _study(self) -> Study:
        import optuna

        from llmexp.jobs.tune_sampler import Surface

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = Surface(self.space, self.base.config.run.seed, self.base.config.search.trials)
        return optuna.create_study(direction=tune_goal.direction(self.base.config), sampler=sampler)

    def _new(self, params: dict[str, Value]) -> Trial:
        number = len(self.trials)
        self.trials.append(Trial(number, params, f"{TRIALS}/{number}"))
        return self.trials[-1]

    def _try(self, trial: Trial, ledger: Ledger) -> Trial:
        """One job with these settings."""
        trial.why = None
        self._write()
        number, words = trial.number, _words(trial.params)
        log.info("[trial %d of %d] %s", number + 1, self.base.config.search.trials, words)
        try:
            spec = _specs(self.composed, trial.params, repeats=1)[0]
            place = self.folder.path / trial.folder
            spec = replace(spec, number=number, name=f"trial {number}: {words}", directory=place, sweep=self._id)
            status = self._run_one(spec, ledger)
        except ConfigError as error:
            log.warning("trial %d: %s", number, error)
            status, trial.why = FAILED, str(error)
        except KeyboardInterrupt:
            status = INTERRUPTED
        else:
            if status != INTERRUPTED:
                status = self._judge(trial, self.results[-1])
        if status == INTERRUPTED:
            trial.why = "interrupted"
        self.statuses.append(status)
        self._write()
        return trial

    @property
    def _id(self) -> str:
        assert self.sweep is not None
        return self.sweep.id

    def _judge(self, trial: Trial, result: Result) -> int:
        """What the trial was worth; its exit status, in which a service level that was missed does not count."""
        config = self.base.config
        if result.status == "finished":
            trial.value, trial.behind = (
                tune_goal.value_of(result, config.search.metric),
                tune_goal.behind(result, config),
            )
        if trial.value is None:
            trial.why = tune_goal.why_none(result, config.search.metric)
            if result.status != "failed":  # that was told
                log.warning("trial %d: %s", trial.number, trial.why)
        else:
            best = self._best()
            assert best is not None
            assert best.value is not None
            metric = config.search.metric
            log.info(
                "trial %d: %s %s, the best so far %s", trial.number, metric, digits(trial.value), digits(best.value)
            )
        return FAILED if result.status == "failed" else OK

    def _tell(self, study: Study, done: Trial, asked: optuna.Trial | None) -> None:
        """Let Optuna know; what it did not ask for counts too where it lies in the space."""
        from optuna.trial import TrialState, create_trial

        from llmexp.jobs.tune_sampler import HEADROOM, IN_SERVICE, YIELD

        parts = done.behind
        attributes: dict[str, object] = {}
        if parts is not None:
            attributes = {YIELD: parts.served, HEADROOM: list(parts.headroom), IN_SERVICE: parts.in_service}
        state = TrialState.FAIL if done.value is None else TrialState.COMPLETE
        if asked is not None:
            for name, value in attributes.items():
                asked.set_user_attr(name, value)
            study.tell(asked, done.value, state=state)
            return
        params = done.params or self._as_it_stands()
        if set(params) == set(self.space) and all(_inside(self.space[key], value) for key, value in params.items()):
            study.add_trial(
                create_trial(
                    params=params, distributions=self.space, value=done.value, state=state, user_attrs=attributes
                )
            )

    def _as_it_stands(self) -> dict[str, Value]:
        """The configuration's own values of the keys that are searched."""
        flat = flatten(self.base.tree) | {"concurrency": self.base.config.streams, "model": self.base.model}
        found = {key: flat.get(key) for key in self.space}
        return {
            key: value for key, value in found.items() if value is None or isinstance(value, bool | int | float | str)
        }

    def _best(self) -> Trial | None:
        sign = 1 if tune_goal.direction(self.base.config) == "maximize" else -1
        known = [trial for trial in self.trials if trial.value is not None]
        return max(known, key=lambda trial: sign * (trial.value or 0.0), default=None)

    # -- an earlier command's trials ----------------------------------------------------------------------------------

    def _take_up(self, study: Study) -> list[Trial]:
        """Trials that stand count; returns those that failed or were cut off, to be tried again in their places."""
        again = []
        for told in _told(self.folder.path):
            trial = self._new(told)
            directory = self.folder.path / trial.folder
            result = sweep_dir.result_in(directory)
            if result is None or not sweep_dir.stands(result, rerun_invalid=self.base.config.run.rerun_invalid):
                again.append(trial)
                continue
            self.results.append(result)
            self.recorder.catch_up(Run(result, directory))
            self._judge(trial, result)
            self._tell(study, trial, None)
        return again

    # -- the winner ---------------------------------------------------------------------------------------------------

    def _confirm(self, best: Trial, ledger: Ledger) -> None:
        from llmexp.jobs import plan

        search = self.base.config.search
        metric, count = search.metric, len(self.trials)
        if not best.params:
            self.headline = f"Of {count} settings the configuration as it stands has the best {metric}."
            return
        self.headline = f"The best {metric} of {count} settings is {_words(best.params)}; not confirmed by repeats."
        if not search.confirm:
            return
        assert self.sweep is not None
        plain = _specs(self.composed, {}, repeats=search.confirm)
        winner = _specs(self.composed, best.params, repeats=search.confirm)
        sides = ((plain, "as it stands"), (winner, _words(best.params)))
        named = [[replace(spec, name=f"{words} · r{spec.repeat + 1}") for spec in side] for side, words in sides]
        both = [spec for pair in zip(*named, strict=True) for spec in pair]
        self.sweep.place_beside([replace(spec, number=at) for at, spec in enumerate(both)])
        todo, self.standing = self.sweep.outstanding(rerun_invalid=self.base.config.run.rerun_invalid)
        self.results += [result for _, result in self.standing]
        if problem := ledger.problem(plan.estimate(todo).usd):
            log.warning("%s to confirm the winner by repeats", problem)
            return
        super()._run_all(todo, ledger)
        values = [[self._value(spec) for spec in self.sweep.specs[side::2]] for side in (0, 1)]
        pairs = [(one, two) for one, two in zip(*values, strict=True) if one is not None and two is not None]
        self.verdict = verdict(pairs, metric, tune_goal.direction(self.base.config), self.base.config.compare.margin)
        self.headline = f"{_words(best.params)}: {self.verdict['words']}"

    def _value(self, spec: Spec) -> float | None:
        result = sweep_dir.result_in(spec.directory)
        finished = result is not None and result.status == "finished"
        return tune_goal.value_of(result, self.base.config.search.metric) if finished and result is not None else None

    def _compare(self) -> str:
        """The search's own verdict; the jobs that confirm are compared as those of any sweep."""
        compared = self.verdict is not None and super()._compare()
        if self.headline and not compared:
            show(f"\n{self.headline}")
        return self.headline

    def _headed(self, found: Comparison) -> Comparison:
        """The search's verdict goes first; where the jobs that confirm share no load, it is the only one."""
        told = found.headline if found.verdicts or found.rights else ""
        return replace(found, headline=redact(f"{self.headline}. {told}".strip()))

    def _write(self) -> None:
        search, best = self.base.config.search, self._best()
        tree = {
            "goal": search.metric,
            "direction": tune_goal.direction(self.base.config),
            "space": search.space or tune_goal.USUAL,
            "trials": [asdict(trial) for trial in self.trials],
            "best": None if best is None else asdict(best),
            "headline": self.headline,
            "verdict": self.verdict,
        }
        results.write_json(self.folder.path / FILE, results.strict(tree), indent=1)


def verdict(pairs: Sequence[tuple[float, float]], metric: str, direction: str, margin: float) -> dict[str, object]:
    """The winner against the configuration as it stands: pairs of (its value, the winner's), a pair for each repeat."""
    found: dict[str, object] = {
        "metric": metric,
        "values": [list(pair) for pair in pairs],
        "verdict": "undecided",
        "low": None,
        "high": None,
    }
    if len(pairs) < 2 or any(value <= 0 for pair in pairs for value in pair):
        return found | {"words": f"undecided: {len(pairs)} repeats of both have a {metric} above 0, and it takes 2"}
    estimate = stats.of_blocks([math.log(winner / plain) for plain, winner in pairs])
    low, high = (math.exp(end) - 1 for end in estimate.interval(ALPHA))
    upwards = direction == "maximize"
    if low > 0 or high < 0:
        found["verdict"] = "better" if (low > 0) == upwards else "worse"
    elif -margin <= low and high <= margin:
        found["verdict"] = "same"
    gap = percent_range(low, high) if low * high > 0 else f"{digits(100 * low, 2)} to {digits(100 * high, 2)} %"
    words = (
        f"{found['verdict']}, its {metric} differs by {gap} from the configuration as it stands ({len(pairs)} repeats)"
    )
    return found | {"low": low, "high": high, "words": words}


def _told(folder: Path) -> list[dict[str, Value]]:
    """Settings that an earlier command tried, in their order."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    params = [branch(trial, "params") for trial in items(told, "trials")]
    return [
        {key: value for key, value in one.items() if value is None or isinstance(value, bool | int | float | str)}
        for one in params
    ]


def _inside(distribution: BaseDistribution, value: Value) -> bool:
    from optuna.distributions import CategoricalDistribution

    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and bool(distribution._contains(distribution.to_internal_repr(value)))


def _words(params: Mapping[str, Value]) -> str:
    """`slots=8 concurrency=16`, by the last part of each key."""
    if not params:
        return "the configuration as it stands"
    return " ".join(f"{key.rpartition('.')[2]}={json.dumps(value).strip(chr(34))}" for key, value in params.items())
