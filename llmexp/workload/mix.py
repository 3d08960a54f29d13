"""Several workloads in one stream, by weight."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, count
from pathlib import Path
from typing import NamedTuple

from llmexp.config import Part, Workload, defaults, load
from llmexp.errors import ConfigError
from llmexp.json_types import Tree, branch
from llmexp.workload.kit import Kind, Kit
from llmexp.workload.lengths import uniform
from llmexp.workload.request import Message, Request

_PACKAGE = Path(__file__).parents[1]
_OPTIONS = (_PACKAGE / "conf" / "workload", _PACKAGE.parent / "conf" / "workload")
"""Where the shipped options lie: in an installed package, and in a checkout."""


class _Dealt(NamedTuple):
    """A session of the mix: its indexes here, whose it is, and its indexes there."""

    here: range
    part: int
    there: range


class Mix:
    """`kind: mix`. Each session (a lone request is one) is dealt to a part; within a part they keep the part's order.

    A part's weight is its share of the requests: a part of long sessions gets fewer of them.
    """

    size: int | None = None

    def __init__(self, workload: Workload, kit: Kit, kind_of: Callable[[Workload, Kit], Kind]) -> None:
        self._kit = kit
        total = sum(part.weight for part in workload.parts)
        self._shares = [part.weight / total for part in workload.parts]
        self._parts: list[Kind] = [
            kind_of(read_part(f"workload.parts.{at}.workload", part), kit.inside(str(at)))
            for at, part in enumerate(workload.parts)
        ]
        chances = [w / part.turns_per_session() for w, part in zip(self._shares, self._parts, strict=True)]
        self._bounds = [bound / sum(chances) for bound in accumulate(chances)]
        self._coming = [part.sessions(None) for part in self._parts]
        self._dealt: list[_Dealt] = []
        """Grows as indexes are asked for."""
        self._starts: list[int] = []

    def _deal(self) -> bool:
        """Deal one more session; False once a part has no more."""
        at = len(self._dealt)
        chance = uniform(self._kit.seed, f"{self._kit.stream}part", at)
        part = next((p for p, bound in enumerate(self._bounds) if chance < bound), len(self._bounds) - 1)
        there = next(self._coming[part], None)
        if there is None:
            return False
        start = self._dealt[-1].here.stop if self._dealt else 0
        self._dealt.append(_Dealt(range(start, start + len(there)), part, there))
        self._starts.append(start)
        return True

    def _where(self, index: int) -> tuple[int, int, int]:
        """(session, part, index within the part) of an index."""
        while not self._dealt or self._dealt[-1].here.stop <= index:
            if not self._deal():
                raise IndexError(index)
        number = bisect_right(self._starts, index) - 1
        dealt = self._dealt[number]
        return number, dealt.part, dealt.there[index - dealt.here.start]

    def sessions(self, limit: int | None) -> Iterator[range]:
        """As they are dealt; what does not fit into the limit is not started."""
        left = limit
        for number in count():
            if left == 0 or (len(self._dealt) <= number and not self._deal()):
                return
            here = self._dealt[number].here
            if left is None:
                yield here
            elif len(here) <= left:
                left -= len(here)
                yield here

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:
        """The request of an index."""
        number, part, there = self._where(index)
        request = self._parts[part].request(there, warmup, history)
        session = None if request.session is None else number
        return replace(request, index=index, session=session)

    def off_script(self, index: int, called: frozenset[str]) -> bool:
        """As the part says."""
        _, part, there = self._where(index)
        return self._parts[part].off_script(there, called)

    def turns_per_session(self) -> float:
        """The mean over sessions."""
        return 1 / sum(w / part.turns_per_session() for w, part in zip(self._shares, self._parts, strict=True))

    def estimated_requests(self) -> int | None:
        """Without end."""
        return None

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
    workload = _over(branch(base, "workload"), branch({"": tree}, ""))
    try:
        return load({**base, "model": {"name": "part"}, "workload": workload}).workload
    except ConfigError as error:
        raise ConfigError("\n".join(f"{key} ({path}): {line}" for line in str(error).splitlines())) from None


def _over(under: Tree, tree: Tree) -> dict[str, object]:
    """`tree` laid over `under`, mappings key by key."""
    merged = dict(under)
    for name, value in tree.items():
        below = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[name] = _over(branch(merged, name), branch(tree, name)) if both else value
    return merged
