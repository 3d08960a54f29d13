"""Several workloads in one stream, by weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from llmexp.config import Part, Workload, defaults, load
from llmexp.errors import ConfigError
from llmexp.workload.kit import Kind, Kit
from llmexp.workload.lengths import uniform
from llmexp.workload.request import Message, Request

_PACKAGE = Path(__file__).parents[1]
_OPTIONS = (_PACKAGE / "conf" / "workload", _PACKAGE.parent / "conf" / "workload")
"""Where the shipped options lie: in an installed package, and in a checkout."""


class Mix:
    """`kind: mix`. Each index is dealt to a part by its weight; within a part, requests keep the part's own order."""

    size: int | None = None

    def __init__(self, workload: Workload, kit: Kit, kind_of: Callable[[Workload, Kit], Kind]) -> None:
        self._kit = kit
        total = sum(part.weight for part in workload.parts)
        self._shares = [part.weight / total for part in workload.parts]
        self._bounds = list(accumulate(self._shares))
        self._parts: list[Kind] = [
            kind_of(read_part(f"workload.parts.{at}.workload", part), kit.inside(str(at)))
            for at, part in enumerate(workload.parts)
        ]
        self._dealt: list[tuple[int, int]] = []
        """(part, number within the part) of each index so far; grows as indexes are asked for."""
        self._members: list[list[int]] = [[] for _ in self._parts]

    def _where(self, index: int) -> tuple[int, int]:
        while len(self._dealt) <= index:
            at = len(self._dealt)
            chance = uniform(self._kit.seed, f"{self._kit.stream}part", at)
            part = next((p for p, bound in enumerate(self._bounds) if chance < bound), len(self._bounds) - 1)
            self._dealt.append((part, len(self._members[part])))
            self._members[part].append(at)
        return self._dealt[index]

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:
        """The request of an index."""
        part, number = self._where(index)
        request = self._parts[part].request(number, warmup, history)
        session = request.session
        if session is not None:
            session = session * len(self._parts) + part
        return replace(request, index=index, session=session)

    def depends_on(self, index: int) -> tuple[int, float] | None:
        """As the part says, in the indexes of the mix."""
        part, number = self._where(index)
        needed = self._parts[part].depends_on(number)
        return None if needed is None else (self._members[part][needed[0]], needed[1])

    def followed_by(self, index: int) -> int | None:
        """As the part says, in the indexes of the mix."""
        part, number = self._where(index)
        follower = self._parts[part].followed_by(number)
        if follower is None:
            return None
        while len(self._members[part]) <= follower:
            self._where(len(self._dealt))
        return self._members[part][follower]

    def partition(self, index: int) -> int:
        """As the part says, kept apart from the other parts."""
        part, number = self._where(index)
        return self._parts[part].partition(number) * len(self._parts) + part

    def mean_tokens(self) -> tuple[float, float]:
        """The parts' means, weighed."""
        means = [part.mean_tokens() for part in self._parts]
        inputs, outputs = (sum(w * mean[at] for w, mean in zip(self._shares, means, strict=True)) for at in (0, 1))
        return inputs, outputs

    def largest_tokens(self) -> int:
        """The largest of any part."""
        return max(part.largest_tokens() for part in self._parts)

    def declared_cache_share(self) -> float:
        """Cached over all input tokens."""
        weighed = [w * part.mean_tokens()[0] for w, part in zip(self._shares, self._parts, strict=True)]
        cached = sum(w * part.declared_cache_share() for w, part in zip(weighed, self._parts, strict=True))
        return cached / sum(weighed)

    def notes(self) -> list[str]:
        """The notes of the parts."""
        return [note for part in self._parts for note in part.notes()]


def read_part(key: str, part: Part) -> Workload:
    """The workload that a part names; raises `ConfigError` with the part's key and the remedy."""
    workload = _read(key, _find(key, part.workload))
    if workload.kind == "mix":
        raise ConfigError(f"{key}: a mix cannot hold another mix, got '{part.workload}'; list its parts instead")
    return workload


def _find(key: str, name: str) -> Path:
    places = [Path(name)] if name.endswith((".yaml", ".yml")) else [folder / f"{name}.yaml" for folder in _OPTIONS]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        known = sorted(option.stem for folder in _OPTIONS for option in folder.glob("*.yaml"))
        raise ConfigError(
            f"{key}: must be the path of a YAML file, or one of {', '.join(dict.fromkeys(known))}, got '{name}'"
        )
    return found


@lru_cache(maxsize=64)
def _read(key: str, path: Path) -> Workload:
    import yaml  # type: ignore[import-untyped, unused-ignore]
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{key}: {path} cannot be read as YAML ({error})") from None
    base = defaults()
    base["model"]["name"] = "part"
    base["workload"] = _over(base["workload"], tree)
    try:
        return load(base).workload
    except ConfigError as error:
        raise ConfigError("\n".join(f"{key} ({path}): {line}" for line in str(error).splitlines())) from None


def _over(under: Mapping[str, Any], tree: Any) -> dict[str, Any]:
    """`tree` laid over `under`, mappings key by key."""
    merged = dict(under)
    for name, value in tree.items() if isinstance(tree, Mapping) else ():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = _over(merged[name], value) if both else value
    return merged
