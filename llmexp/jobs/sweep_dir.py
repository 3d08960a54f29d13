"""A sweep's folder: its identity, the folders of its jobs, and what of them stands when it is resumed.

Half-written files and those of older versions never block a resume: what can be read is kept, the rest is run again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import results
from llmexp.config import flatten, load
from llmexp.errors import ConfigError, LlmexpError, ResultError
from llmexp.jobs import spec as jobs
from llmexp.jobs.lock import Folder
from llmexp.jobs.order import in_blocks
from llmexp.jobs.spec import Spec
from llmexp.results import Result

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("llmexp")
SWEEP_FILE = "sweep.json"
MULTIRUN_FILE = "multirun.yaml"


@dataclass
class SweepDir:
    """The folder of one sweep, owned by this process."""

    folder: Folder
    id: str = ""
    name: str = ""
    specs: list[Spec] = field(default_factory=list)
    """The command's jobs, each with its place."""

    @classmethod
    def new(cls, folder: Folder, found: list[Spec]) -> SweepDir:
        """A sweep that begins."""
        models = list(dict.fromkeys(spec.model for spec in found))
        sweep = cls(folder, uuid.uuid4().hex, f"{' vs '.join(models)} · {time.strftime('%Y-%m-%d %H:%M')}")
        sweep.place(found, {})
        return sweep

    @classmethod
    def resume(cls, folder: Folder, found: list[Spec]) -> SweepDir:
        """A sweep that goes on; `ConfigError` where the folder is none, or its jobs had another configuration."""
        kept = _checked(folder.path, found)
        sweep = cls(folder, kept.id or uuid.uuid4().hex, kept.name)
        sweep.place(found, {key: folder.path / one for key, one in kept.folders.items()})
        return sweep

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder.path

    def tell(self, **facts: object) -> None:
        """Add to what the folder says of the sweep as a whole, for whoever resumes it or logs it later."""
        results.write_json(self.path / SWEEP_FILE, results.strict(_told(self.path) | facts), indent=2)

    def keep_composition(self, composed: DictConfig | None) -> None:
        """Hydra's own file of a multirun, written only now: the folder is ours and its configs hold no credential."""
        from omegaconf import OmegaConf

        if composed is not None and not (self.path / MULTIRUN_FILE).exists():
            results.put(self.path / MULTIRUN_FILE, OmegaConf.to_yaml(composed))

    def place_beside(self, found: list[Spec]) -> None:
        """Jobs that follow from others, each where it was before, or in a place of its own."""
        self.place(found, {key: self.path / one for key, one in _kept(self.path).folders.items()})

    def place(self, found: list[Spec], known: Mapping[str, Path]) -> None:
        """Give each job its folder: the known one of its key, else a number that is free."""
        taken = {path.name for path in known.values()}
        placed = []
        for spec in found:
            path = known.get(spec.key)
            if path is None:
                path = self.path / _free_number(spec.number, len(found), taken)
                taken.add(path.name)
            placed.append(replace(spec, directory=path, sweep=self.id))
        self.specs = placed
        jobs_told = dict.fromkeys(known, "") | {spec.key: spec.name for spec in placed}
        self.tell(id=self.id, name=self.name, jobs=len(jobs_told), keys=list(jobs_told))

    def outstanding(self, *, rerun_invalid: bool) -> tuple[list[Spec], list[tuple[Spec, Result]]]:
        """Jobs to run, in their order, and those that stand with their results."""
        todo, standing = [], []
        for spec in in_blocks(self.specs, self.specs[0].config.run.seed):
            done = result_in(spec.directory)
            if done is not None and stands(done, rerun_invalid=rerun_invalid):
                standing.append((spec, done))
            else:
                todo.append(spec)
        return todo, standing


def left_of(path: Path, found: list[Spec]) -> list[Spec]:
    """The jobs that a resume in `path` would run; nothing is written. Raises `ConfigError` as a resume does."""
    kept = _checked(path, found)
    left = []
    for spec in found:
        done = result_in(path / kept.folders[spec.key]) if spec.key in kept.folders else None
        if done is None or not stands(done, rerun_invalid=spec.config.run.rerun_invalid):
            left.append(spec)
    return left


def _checked(path: Path, found: Sequence[Spec]) -> _Kept:
    """What a sweep's folder holds, where these jobs can go on in it."""
    kept = _kept(path)
    if not kept.is_sweep:
        raise ConfigError(f"run.resume: {path} {kept.what}; name the folder that the sweep told as 'Files:'")
    _check_same(kept, found)
    return kept


def _free_number(number: int, step: int, taken: set[str]) -> str:
    while str(number) in taken:
        number += step
    return str(number)


def set_aside(directory: Path) -> Path:
    """Keep a folder that is replaced as `N.attempt1`, or the next number that is free."""
    attempt = 1
    while (kept := directory.with_name(f"{directory.name}.attempt{attempt}")).exists():
        attempt += 1
    return directory.rename(kept)


def result_in(directory: Path) -> Result | None:
    """A job's result; None where there is none that can be read."""
    with contextlib.suppress(ResultError):
        return results.read(directory)
    return None


def stands(result: Result, *, rerun_invalid: bool) -> bool:
    """Whether a job need not be run again."""
    if result.status != "finished" or not result.metrics:
        return False
    return not (rerun_invalid and result.validity.verdict == "invalid")


# --- what a folder holds when it is resumed --------------------------------------------------------------------------


@dataclass
class _Kept:
    """What an earlier command left."""

    id: str | None
    name: str
    is_sweep: bool
    what: str
    keys: list[str]
    """Jobs of the sweep, whether they have begun or not."""
    folders: dict[str, str]
    """Job key → name of its folder."""
    configs: list[Mapping[str, object]]


def _kept(path: Path) -> _Kept:
    told = _told(path)
    folders: dict[str, str] = {}
    configs: list[Mapping[str, object]] = []
    sweeps: set[str] = set()
    for folder, result in _jobs(path):
        with contextlib.suppress(LlmexpError, KeyError, TypeError, ValueError):
            config = load(result.config)
            # Before there was `option`, `model` held it.
            option = result.job.option or result.job.model
            folders[jobs.key_of(config, result.job.repeat, option)] = folder
            configs.append(flatten(config.model_dump(mode="json", by_alias=True)))
        if result.job.sweep:
            sweeps.add(result.job.sweep)
    keys = told.get("keys")
    named = [str(key) for key in keys] if isinstance(keys, list) else []
    return _Kept(
        id=str(told["id"]) if told.get("id") else min(sweeps, default=None),
        name=str(told.get("name") or f"sweep · {path.name}"),
        is_sweep=(path / SWEEP_FILE).exists() or (path / MULTIRUN_FILE).exists() or bool(sweeps),
        what="holds one job and no sweep" if (path / results.RESULT).exists() else "is no sweep's folder",
        keys=list(dict.fromkeys([*named, *folders])),
        folders=folders,
        configs=configs,
    )


def _told(path: Path) -> dict[str, object]:
    """What `sweep.json` says; nothing where it was cut off."""
    with contextlib.suppress(OSError, ValueError):
        told = json.loads((path / SWEEP_FILE).read_text(encoding="utf-8"))
        if isinstance(told, dict):
            return told
    return {}


def _jobs(path: Path) -> Iterator[tuple[str, Result]]:
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and folder.name.isdigit():
            result = result_in(folder)
            if result is not None:
                yield folder.name, result


def _check_same(kept: _Kept, found: Sequence[Spec]) -> None:
    """A resumed sweep may leave jobs out or add some; one that does both would compare what is not alike."""
    asked = {spec.key for spec in found}
    if not kept.keys or asked <= set(kept.keys) or set(kept.keys) <= asked:
        return
    raise ConfigError(
        f"run.resume: the sweep's jobs had another configuration{_difference(kept, found)}; give the command that "
        "began it, or start a new sweep without run.resume"
    )


def _difference(kept: _Kept, found: Sequence[Spec]) -> str:
    """The keys that differ between a new job and the kept job most like it."""
    asked = [flatten(spec.config.model_dump(mode="json", by_alias=True)) for spec in found]
    pairs = [_differing(old, new) for old in kept.configs for new in asked]
    nearest = min((pair for pair in pairs if pair), key=len, default={})
    words = [f"{key} was {old}, is {new}" for key, (old, new) in sorted(nearest.items())]
    return f": {', '.join(words[:4])}" if words else ""


def _differing(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    keys = [key for key in old.keys() | new.keys() if jobs.is_keyed(key)]
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}
