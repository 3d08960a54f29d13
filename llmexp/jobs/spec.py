"""Jobs before they run: from composed configs to specs with a name, a key and a place.

A job's key is a hash over model, workload, load, concurrency, slo, quality, `run.max_requests`, seed and repeat; a
resumed sweep recognises its jobs by it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.config import Config, Model, credentials, flatten, load
from llmexp.errors import ConfigError
from llmexp.jobs import judges
from llmexp.json_types import Tree
from llmexp.results.model import JobInfo

if TYPE_CHECKING:
    from omegaconf import DictConfig

KEYED = ("model", "workload", "load", "concurrency", "slo", "quality", "rehearse", "capacity")
KEYED_RUN = ("max_requests", "seed")
# Where and how long a run is kept says nothing about what was measured.
STACK = ("model", "model.name")
UNNAMED = ("run.resume", "run.rerun_invalid", "paths.outputs", "run.repeats", "dry_run", "tracking")


@dataclass(frozen=True)
class Composed:
    """One composition of Hydra's, split into our part and Hydra's."""

    task: DictConfig
    hydra: DictConfig
    overrides: tuple[str, ...]

    @classmethod
    def split(cls, config: DictConfig, overrides: tuple[str, ...]) -> Composed:
        """Take `hydra` off a full composition."""
        return cls(_ours(config), config.hydra, overrides)


@dataclass(frozen=True)
class Spec:
    """One job, checked and ready to run."""

    config: Config
    tree: Tree
    """The composed config, resolved: what result.json and the tracking store show."""
    model: str
    """What the stack is called: the option of the group `model`, or the name that the command gives."""
    overrides: tuple[str, ...]
    repeat: int
    number: int
    """Its folder in a sweep; canonical, whatever the order of running."""
    name: str = ""
    sweep: str | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    directory: Path = Path()
    composed: Composed | None = None
    option: str = ""
    """The option that was chosen for the group `model`: two options are two stacks."""
    probe: int | None = None
    """Its number, where it is a probe of a capacity search and no job of its own."""
    judges: tuple[Model, ...] = ()
    """The models that grade its answers, where models do."""

    @property
    def limit_is_set(self) -> bool:
        """Whether the user named `run.max_usd`, in the overrides or in an experiment's file: then it must hold."""
        return self.composed is not None and _names_limit(self.composed)

    @property
    def choices(self) -> dict[str, str]:
        """The option of each config group, as Hydra composed them; Hydra's own groups left out."""
        if self.composed is None:
            return {}
        chosen = self.composed.hydra.runtime.choices
        return {
            str(group): str(option) for group, option in chosen.items() if option and not str(group).startswith("hydra")
        }

    @property
    def key(self) -> str:
        """The hash that recognises this job."""
        return key_of(self.config, self.repeat, self.option)

    def info(self) -> JobInfo:
        """The `job` part of result.json."""
        return JobInfo(
            id=self.id,
            key=self.key,
            name=self.name,
            model=self.model,
            option=self.option,
            index=self.number,
            repeat=self.repeat,
            overrides=self.overrides,
            choices=self.choices,
            sweep=self.sweep,
            rehearsal=self.config.rehearse,
            probe=self.probe,
        )


def key_of(config: Config, repeat: int, option: str) -> str:
    """The key of a job; taken from the whole schema, so that a file of a version with fewer keys has the same."""
    whole = config.model_dump(mode="json", by_alias=True)
    parts = {name: whole.get(name) for name in KEYED}
    parts |= {name: whole["run"].get(name) for name in KEYED_RUN} | {"repeat": repeat, "option": option}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def is_keyed(name: str) -> bool:
    """Whether a flat config key (`run.seed`) is part of the job's key."""
    group, _, rest = name.partition(".")
    return group in KEYED or (group == "run" and rest in KEYED_RUN)


def specs(composed: Sequence[Composed]) -> list[Spec]:
    """Every job of a command, repeats included, in canonical order.

    Raises `ConfigError` with the problems of all jobs, each said once.
    """
    problems: dict[str, None] = {}
    found: list[Spec] = []
    for at, one in enumerate(composed):
        try:
            found.extend(_repeats(one, at, len(composed)))
        except ConfigError as error:
            problems |= dict.fromkeys(str(error).splitlines())
    for spec in found:
        problems |= dict.fromkeys(environment_problems(spec.config))
        problems |= dict.fromkeys(judges.problems(spec.judges, spec.config))
    if problems:
        raise ConfigError("\n".join(problems))
    found.sort(key=lambda spec: spec.number)
    return _named(found)


def _repeats(composed: Composed, at: int, count: int) -> Iterable[Spec]:
    tree = resolved(composed)
    config = load(tree)
    option = str(composed.hydra.runtime.choices.get("model", config.model.name))
    stack = _stack(option, config, composed.overrides)
    graders = judges.judges_of(config, composed.hydra)
    for repeat in range(config.run.repeats):
        number = repeat * count + at
        spec = Spec(config, tree, stack, composed.overrides, repeat, number, option=option, composed=composed)
        yield replace(spec, judges=graders)


def resolved(composed: Composed) -> dict[str, object]:
    """The composed config as plain data; a variable or a value that is missing is a `ConfigError`."""
    from omegaconf import OmegaConf
    from omegaconf.errors import (
        InterpolationResolutionError,
        InterpolationToMissingValueError,
        OmegaConfBaseException,
    )

    try:
        tree = OmegaConf.to_container(composed.task, resolve=True, throw_on_missing=False)
    except InterpolationToMissingValueError:
        unresolved = _plain(OmegaConf.to_container(composed.task, resolve=False))
        raise ConfigError("\n".join(_wanted(unresolved))) from None
    except InterpolationResolutionError as error:
        raise ConfigError(_interpolation(error)) from None
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    plain = _plain(tree)
    if wanted := _wanted(plain):
        raise ConfigError("\n".join([*_unknown_keys(plain), *wanted]))
    return plain


def _plain(tree: object) -> dict[str, object]:
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _wanted(plain: Tree) -> list[str]:
    """A line for each value that has to be given and is not."""
    missing = [key for key, value in flatten(plain).items() if value == "???"]
    return [f"{key}: must be given, such as {key}=VALUE" for key in missing]


def _unknown_keys(plain: Tree) -> list[str]:
    """Keys that a file holds and the schema does not: what is missing may stand under one of them."""
    try:
        load(plain)
    except ConfigError as error:
        return [line for line in str(error).splitlines() if ": unknown key" in line]
    return []


LIMIT = "run.max_usd"
_LIMIT_TYPED = re.compile(r"[+]*(?:run\.max_usd=|run=\{.*\bmax_usd\s*:)")


def names_limit(overrides: Iterable[str]) -> bool:
    """Whether one of these overrides sets `run.max_usd`, alone or within `run`."""
    return any(_LIMIT_TYPED.match(one) for one in overrides)


def _names_limit(composed: Composed) -> bool:
    hydra = composed.hydra
    params = hydra.sweeper.get("params") or {}
    typed = [*composed.overrides, *typed_overrides(hydra), *(f"{key}={params[key]}" for key in params)]
    name = hydra.runtime.choices.get("experiment")
    sources = [Path(str(source.path)) for source in hydra.runtime.config_sources if source.schema == "file"]
    return names_limit(typed) or (bool(name) and _limit_in_experiment(str(name), sources, frozenset()))


def _limit_in_experiment(name: str, sources: Sequence[Path], seen: frozenset[str]) -> bool:
    """Whether an experiment's file sets it, or one that it builds on."""
    from omegaconf import DictConfig, OmegaConf

    files = [folder / "experiment" / f"{name}.yaml" for folder in sources]
    found = next((file for file in files if file.is_file()), None)
    if found is None or name in seen:
        return False
    told = OmegaConf.load(found)
    if not isinstance(told, DictConfig):
        return False
    if OmegaConf.select(told, LIMIT, default="") != "":
        return True
    return any(_limit_in_experiment(base, sources, seen | {name}) for base in _bases(told.get("defaults") or [], name))


def _bases(defaults: Iterable[object], name: str) -> Iterator[str]:
    """The experiments that an experiment's list of defaults names: beside it, or from the top of the group."""
    beside = name.rpartition("/")[0]
    for entry in defaults:
        if isinstance(entry, str) and entry != "_self_":
            base = entry.partition("@")[0].removesuffix(".yaml")
            if base.startswith("/experiment/"):
                yield base.removeprefix("/experiment/")
            elif not base.startswith("/"):
                yield f"{beside}/{base}".lstrip("/")
        elif isinstance(entry, Mapping):
            yield from (str(one) for key, one in entry.items() if str(key).partition("@")[0] == "/experiment")


def typed_overrides(hydra: DictConfig, part: str = "task") -> tuple[str, ...]:
    """The overrides as they were typed: `${oc.env:NAME}` in one of them stays what it is."""
    from omegaconf import OmegaConf

    typed = OmegaConf.to_container(hydra.overrides, resolve=False)
    assert isinstance(typed, dict)
    return tuple(map(str, typed[part]))


def refuse_credentials(composed: DictConfig) -> None:
    """`ConfigError` where a full composition holds a credential: Hydra and we write it to files and to MLflow."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    trees = [OmegaConf.to_container(composed, resolve=False)]
    with contextlib.suppress(OmegaConfBaseException):
        trees.append(OmegaConf.to_container(_ours(composed), resolve=True))
    overrides = [*typed_overrides(composed.hydra), *typed_overrides(composed.hydra, "hydra")]
    params = OmegaConf.to_container(composed.hydra.sweeper, resolve=False)
    assert isinstance(params, dict)
    overrides += [f"{key}={value}" for key, value in (params.get("params") or {}).items()]
    found: dict[str, None] = {}
    for tree in trees:
        assert isinstance(tree, dict)
        plain = {str(key): value for key, value in tree.items()}
        found |= dict.fromkeys(credentials.composed_problems(plain, overrides, os.environ))
    if found:
        raise ConfigError("\n".join(found))


def _ours(composed: DictConfig) -> DictConfig:
    from omegaconf import open_dict

    task = composed.copy()
    with open_dict(task):
        del task["hydra"]
    return task


def _interpolation(error: Exception) -> str:
    first = str(error).splitlines()[0]
    key = getattr(error, "full_key", None) or ""
    if "Environment variable" in first:
        variable = first.split("'")[1]
        return f"{key}: environment variable {variable} is not set; export it, or set {key}=VALUE"
    if unknown := re.search(r"Interpolation key '(\w+)' not found", first):
        name = unknown[1]
        first += f"; write ${{oc.env:{name}}} for an environment variable, or ${name} where a shell reads the value"
    return f"{key}: {first}"


def environment_problems(config: Config) -> list[str]:
    """What this machine lacks for the job: credentials, files."""
    problems = list(_missing_files(config))
    if not problems:
        for check in (
            _check_workload,
            _check_schedule,
            _check_endpoint,
            _check_quality,
            _check_comparison,
            _check_store,
        ):
            try:
                check(config)
            except ConfigError as error:
                problems += str(error).splitlines()
    if not (config.rehearse or config.dry_run or config.ray.kind == "cluster"):
        from llmexp.clients import credentials

        problems += credentials.problems(config.model)  # the nodes of a cluster have their own, and are asked
    return problems


def _check_workload(config: Config) -> None:
    from llmexp import workload

    workload.validate(config.workload)
    workload.check_fits(config)
    if config.workload.kind in ("sessions", "images", "file"):
        _check_carried(config)


def _check_quality(config: Config) -> None:
    from llmexp.quality import check

    check.check(config)


def _check_comparison(config: Config) -> None:
    """What the comparison shall decide has to be a metric: found out before anything is paid for."""
    from llmexp.metrics.dictionary import unknown_metric

    if problem := unknown_metric(config.compare.primary):
        raise ConfigError(f"compare.primary: {problem}")


def _check_store(config: Config) -> None:
    """Whether MLflow knows the kind of store: that it answers is found out when it is opened."""
    from llmexp.tracking.connection import uri_problem

    if config.tracking.kind == "mlflow" and (problem := uri_problem(config.tracking.uri)):
        raise ConfigError(problem)


def _check_carried(config: Config) -> None:
    """Whether the model's wire can carry what the workload sends: tools, images, roles."""
    from llmexp.clients import carry
    from llmexp.workload import looked_at

    for request in looked_at(config):
        problem = carry.problem(config.model, request)
        if problem is not None:
            where = "" if request.session is None else f" (session {request.session}, turn {request.turn})"
            raise ConfigError(f"workload.{config.workload.kind}{where}: {problem}")


def _check_schedule(config: Config) -> None:
    from llmexp import schedule

    if config.capacity.enabled:
        return
    schedule.offsets(config.load, seed=config.run.seed, timeout_s=config.run.timeout_s, max_requests=1)


def _check_endpoint(config: Config) -> None:
    from llmexp import endpoints

    endpoints.check(config.model, rehearse=config.rehearse, starts=not config.dry_run)


def _missing_files(config: Config) -> Iterable[str]:
    files = {
        "workload.file": config.workload.file,
        "workload.input_tokens.file": config.workload.input_tokens.file,
        "workload.output_tokens.file": config.workload.output_tokens.file,
        "load.file": config.load.file,
        "run.resume": config.run.resume,
    }
    for key, name in files.items():
        if name is not None and not Path(name).exists():
            yield f"{key}: no such file or directory: '{name}'"
    tokenizer = config.model.tokenizer
    if tokenizer and tokenizer.endswith(".json") and not Path(tokenizer).exists():
        yield f"model.tokenizer: no such file: '{tokenizer}'"


def _named(found: list[Spec]) -> list[Spec]:
    """Name each job by its stack and by what else varies over the command: `vllm_a · c8 · r2`."""
    keys = dict.fromkeys(key for spec in found for key in _set_keys(spec))
    flat = [flatten(spec.tree) | dict(_choices(spec)) for spec in found]
    varying = [key for key in keys if len({str(one.get(key)) for one in flat}) > 1]
    named = []
    for spec, one in zip(found, flat, strict=True):
        words = [spec.model, *(_word(key, one.get(key), key in _choices(spec)) for key in varying if key not in STACK)]
        if spec.config.run.repeats > 1:
            words.append(f"r{spec.repeat + 1}")
        named.append(replace(spec, name=" · ".join(words)))
    return named


def _set_keys(spec: Spec) -> Iterator[str]:
    """The keys that the command sets, of those that say what is measured."""
    for override in spec.overrides:
        key = override.lstrip("+~").partition("=")[0]
        if not key.startswith(UNNAMED):
            yield key


def _choices(spec: Spec) -> dict[str, object]:
    """The chosen option of each config group."""
    if spec.composed is None:
        return {}
    return {str(group): option for group, option in spec.composed.hydra.runtime.choices.items()}


def _word(key: str, value: object, is_group: bool) -> str:
    if key == "concurrency":
        return f"c{value}"
    if key == "load.rate":
        return f"{value}/s"
    return str(value) if is_group else f"{key.rpartition('.')[2]}={value}"


def _stack(option: str, config: Config, overrides: Sequence[str]) -> str:
    """What a stack is called: its option, or the model's name where the command gives one."""
    given = any(override.lstrip("+").startswith("model.name=") for override in overrides)
    return config.model.name if given else option
