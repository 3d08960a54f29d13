"""What a command's comparison will be asked, checked before the first request: a paid sweep must not end in a typo."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from llmexp.jobs.spec import Spec
from llmexp.metrics.dictionary import DICTIONARY
from llmexp.metrics.distributions import STATISTICS

OPEN_GROUPS = ("client", "server", "errors", "gpu", "cpu", "steady", "capacity")
"""Groups of metrics whose names follow the machine, the server or the search."""


def problems(found: Sequence[Spec]) -> list[str]:
    """A line for each key of `compare` that no comparison of these jobs could answer."""
    return list(dict.fromkeys(line for spec in found for line in _problems(spec, found)))


def _problems(spec: Spec, found: Sequence[Spec]) -> Iterator[str]:
    asked = spec.config.compare
    if not known(asked.primary):
        near = difflib.get_close_matches(asked.primary, metric_names(), 3, 0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; docs/metrics.md lists them"
        yield f"compare.primary: no metric is called '{asked.primary}'{hint}"
    stacks = list(dict.fromkeys(name for each in found for name in (each.model, each.config.model.name)))
    if asked.baseline is not None and asked.baseline not in stacks and not _labelled(asked.baseline, stacks):
        yield f"compare.baseline: no model of this command is called '{asked.baseline}'; there are: {', '.join(stacks)}"
    several = len({each.key for each in found if each.repeat == 0}) > 1
    if asked.fail_on is not None and several and asked.baseline is None:
        yield "compare.fail_on: within one sweep a regression needs a stack to be held against: set compare.baseline"


def _labelled(baseline: str, stacks: Sequence[str]) -> bool:
    """A stack's label may go on after its model: `smollm2 slots=4`."""
    return any(baseline.startswith(f"{stack} ") for stack in stacks)


def metric_names() -> list[str]:
    """Every metric that a run may have, by its full name."""
    distributions = [
        f"{name}/{one}" for name, entry in DICTIONARY.items() if entry.kind == "distribution" for one in STATISTICS
    ]
    return [
        *(name for name, entry in DICTIONARY.items() if entry.kind == "number"),
        *distributions,
        "capacity/estimate",
    ]


def known(name: str) -> bool:
    """Whether a run may have a metric of this name."""
    return name in metric_names() or (name.partition("/")[0] in OPEN_GROUPS and "/" in name)
