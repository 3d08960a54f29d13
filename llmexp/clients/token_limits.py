"""How much a request may generate, by the workload's limit and by what `model.params` say over and beside it.

`model.params` win on every wire: `max_tokens=8000` there is what is sent, and `n=4` is four answers, each of which is
billed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_LIMITS = frozenset(
    (
        *("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "max_tokens_to_sample"),
        *("maxTokens", "maxOutputTokens", "maxTokenCount", "max_gen_len", "num_predict", "n_predict"),
    )
)
_ANSWERS = frozenset({"n", "best_of", "candidateCount", "candidate_count", "num_return_sequences", "n_completions"})
_ELSEWHERE = frozenset(
    {"tools", "toolConfig", "response_format", "json_schema", "guided_json", "logit_bias", "metadata"}
)
"""Below these a number is no setting of the generation."""


def most(params: Mapping[str, object], asked: int) -> int:
    """The output tokens that a request of `asked` tokens can be billed for, over all its answers."""
    named = [value for name, value in params.items() if name in _LIMITS and _is_count(value)]
    limit = max((int(str(value)) for value in named), default=asked)
    return max([limit, *_numbers(params, _LIMITS, nested=True)]) * answers(params)


def answers(params: Mapping[str, object]) -> int:
    """How many answers each request has."""
    return max([1, *_numbers(params, _ANSWERS)])


def _numbers(tree: Mapping[str, object], names: frozenset[str], *, nested: bool = False) -> Iterator[int]:
    """The counts under these names, at any depth; `nested`: below the first."""
    for name, value in tree.items():
        if name in _ELSEWHERE:
            continue
        if isinstance(value, Mapping):
            yield from _numbers({str(key): one for key, one in value.items()}, names)
        elif not nested and name in names and _is_count(value):
            yield int(str(value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
