"""How much a request may generate, by the workload's limit and by what `model.params` say over and beside it.

`model.params` win on every wire: `max_tokens=8000` there is what is sent, and `n=4` is four answers, each of which is
billed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

_LIMITS = frozenset(
    (
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_to_sample"),
        *("maxTokens", "maxOutputTokens", "maxTokenCount", "max_gen_len", "num_predict", "n_predict"),
    )
)
_ANSWERS = frozenset({"n", "best_of", "candidateCount", "candidate_count", "num_return_sequences", "n_completions"})
IMAGE = 1600
"""Input tokens of a large image, where no server has said yet: the providers' formulas come to so much at most."""
PIXELS = 750
"""Of an image that is not large, for each token."""
_ELSEWHERE = frozenset(
    {"tools", "toolConfig", "response_format", "json_schema", "guided_json", "logit_bias", "metadata"}
)
"""Below these a number is no setting of the generation."""


def most(params: Mapping[str, object], asked: int) -> int:
    """The output tokens that a request of `asked` tokens can be billed for, over all its answers."""
    named = [found for name, value in params.items() if name in _LIMITS and (found := count(value))]
    inner = [found for value in params.values() for _, one in _below(value, _LIMITS) if (found := count(one))]
    return max([max(named, default=asked), *inner]) * answers(params)


def answers(params: Mapping[str, object]) -> int:
    """How many answers each request has."""
    return max([1, *(found for _, value in _found(params, _ANSWERS) if (found := count(value)))])


def settings(params: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Each limit of tokens by its name, at any depth, whatever its value."""
    return _found(params, _LIMITS)


def count(value: object) -> int | None:
    """A positive count, however it is written: servers take `8e3` and `"8000"` for 8000. None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return math.ceil(found) if found > 0 and math.isfinite(found) else None


def _found(tree: Mapping[str, object], names: frozenset[str]) -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if name in names and not isinstance(value, Mapping):
            yield name, value
        elif name not in _ELSEWHERE:
            yield from _below(value, names)


def _below(value: object, names: frozenset[str]) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        yield from _found({str(key): one for key, one in value.items()}, names)
