"""What a command's comparison will be asked of all jobs together, checked before the first request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from llmexp.config import Config, unused
from llmexp.jobs.spec import Spec


def problems(found: Sequence[Spec]) -> list[str]:
    """A line for each key of `compare` that no comparison of these jobs could answer, and for each without effect."""
    said = dict.fromkeys(line for spec in found for line in _problems(spec, found))
    alike = [*_limits(found), *_twice(found)]
    return [*unused.problems([spec.config for spec in found]), *alike, *_primary(found), *said]


def _twice(found: Sequence[Spec]) -> Iterator[str]:
    """Jobs that the command asks for more than once, word for word."""
    seen: set[tuple[int, str, str]] = set()
    for spec in found:
        asked = (spec.repeat, spec.option, json.dumps(spec.tree, sort_keys=True, default=str))
        if asked in seen and spec.repeat == 0:
            yield f"{spec.name}: asked for twice, with the same settings; name each value once, or set run.repeats=2"
        seen.add(asked)


def _limits(found: Sequence[Spec]) -> Iterator[str]:
    """One ledger has one limit."""
    limits = list(dict.fromkeys(spec.config.run.max_usd for spec in found))
    if len(limits) > 1:
        shown = ", ".join("null" if one is None else f"{one:g}" for one in limits)
        yield f"run.max_usd: is the limit of the whole command, got {shown}; give it one value"


_GRADED = ("score/", "right_", "usd_per_thousand_right", "requests_graded", "requests_unparsed", "requests_ungraded")
_TIMED = ("goodput_per_s", "right_goodput_per_s", "slo/")
_OF_SESSIONS = ("session_duration_s/", "sessions_", "requests_off_script")
_IN_SESSIONS = ("sessions", "conversation", "mix")
_PAID = ("cost_usd", "usd_per_")


def _primary(found: Sequence[Spec]) -> Iterator[str]:
    """Whether the declared metric is one that a job of this command can have."""
    metric = found[0].config.compare.primary
    configs = [spec.config for spec in found]
    said = f"compare.primary: no job of this command has '{metric}'"
    if metric.startswith(_GRADED) and not any(config.quality.graded for config in configs):
        yield f"{said}, as no answer is graded; choose how, such as quality=number"
    if metric.startswith(_TIMED) and not any(config.slo.asked for config in configs):
        yield f"{said}, as no service level is asked for; set slo=chat, or slo.ttft_s=0.5"
    if metric.startswith(_OF_SESSIONS) and not any(config.workload.kind in _IN_SESSIONS for config in configs):
        yield f"{said}, as nothing is sent in sessions; choose workload=sessions or workload=multi_turn"
    if metric.startswith(_PAID) and not any(_has_price(config) for config in configs):
        yield f"{said}, as no price is known; set model.price"


def _has_price(config: Config) -> bool:
    from llmexp.metrics import prices

    return prices.known(prices.price_list(config.model))


def _problems(spec: Spec, found: Sequence[Spec]) -> Iterator[str]:
    if spec.config.search.enabled:
        yield (
            "search: is one command of its own (python -m llmexp experiment=tune …, without -m); what shall be "
            "compared goes into search.space, such as search.space={model: [vllm, sglang]}"
        )
    asked = spec.config.compare
    stacks = list(dict.fromkeys(name for each in found for name in (each.model, each.config.model.name)))
    if asked.baseline is not None and asked.baseline not in stacks and not _labelled(asked.baseline, stacks):
        yield f"compare.baseline: no model of this command is called '{asked.baseline}'; there are: {', '.join(stacks)}"
    several = len({each.key for each in found if each.repeat == 0}) > 1
    if asked.fail_on is not None and several and asked.baseline is None:
        yield "compare.fail_on: within one sweep a regression needs a stack to be held against: set compare.baseline"


def _labelled(baseline: str, stacks: Sequence[str]) -> bool:
    """A stack's label may go on after its model: `smollm2 slots=4`."""
    return any(baseline.startswith(f"{stack} ") for stack in stacks)
