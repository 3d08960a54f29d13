"""What a command's comparison will be asked of all jobs together, checked before the first request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmexp.jobs.spec import Spec


def problems(found: Sequence[Spec]) -> list[str]:
    """A line for each key of `compare` that no comparison of these jobs could answer."""
    return list(dict.fromkeys(line for spec in found for line in _problems(spec, found)))


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
