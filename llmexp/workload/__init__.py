"""What is sent: prompts of asked token lengths, files, conversations and mixes.

Importing this package is free of cost: composing a configuration loads it. What a job needs comes through `source_for`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmexp.config import Config, Workload
    from llmexp.workload.request import Request
    from llmexp.workload.source import Source


LOOK_S = 0.7
"""How long a workload's file may be looked through before the load; what lies behind is met when its turn comes."""
YARDSTICK = "o200k_base"
"""The tokenizer that sizes prompts unless the workload names another: one for all stacks, so that all get the same."""


def source_for(config: Config, base_url: str | None, nonce: str) -> Source:
    """The job's requests, sized by the workload's yardstick whatever model they go to.

    So their texts are the same for all models. What the model's own tokenizer counts is recorded beside it.
    """
    from llmexp.workload.source import Source
    from llmexp.workload.tokens import tokenizer_for

    sized = config.model.model_copy(update={"tokenizer": config.workload.tokenizer or YARDSTICK})
    return Source(config.workload, tokenizer_for(sized, base_url), seed=config.run.seed, nonce=nonce)


def validate(workload: Workload) -> None:
    """Read what the workload names (files, parts), sending nothing; raises `ConfigError` with key and remedy."""
    from llmexp.workload.source import Source
    from llmexp.workload.tokens import Estimate

    Source(workload, Estimate(), seed=0, nonce="").request(0)


def every_request(workload: Workload) -> Iterator[Request]:
    """The requests of the workload, each different one once; of a workload without an end, the first few."""
    from llmexp.workload.source import Source
    from llmexp.workload.tokens import Estimate

    source = Source(workload, Estimate(), seed=0, nonce="")
    yield from (source.request(index) for index in range(source.size or _FIRST))


def recorded_calls(workload: Workload) -> dict[str, str]:
    """Question's digest → the one tool that the recorded answer called, of turns of sessions that expect nothing."""
    from llmexp.workload.answers import bare_digest
    from llmexp.workload.source import Source
    from llmexp.workload.tokens import Estimate

    source = Source(workload, Estimate(), seed=0, nonce="")
    found: dict[str, str] = {}
    for request in map(source.request, range(source.size or _FIRST)):
        if request.expected is None and source.off_script(request, frozenset()):
            names = [tool.name for tool in request.tools]
            enough = [name for name in names if not source.off_script(request, frozenset({name}))]
            found |= {bare_digest(request.messages[-1].text): name for name in enough[:1]}
    return found


_FIRST = 64


def check_fits(config: Config) -> None:
    """Whether any session fits into `run.max_requests`: one that does not is not started."""
    from llmexp.errors import ConfigError
    from llmexp.workload.source import Source
    from llmexp.workload.tokens import Estimate

    limit = config.max_requests
    if limit is None or config.workload.kind not in ("sessions", "conversation"):
        return
    source = Source(config.workload, Estimate(), seed=config.run.seed, nonce="")
    if next(iter(source.sessions(limit)), None) is None:
        turns = source.request(0).turns
        raise ConfigError(
            f"run.max_requests: no session fits into {limit} turns, as the first has {turns}, and one that does not "
            f"fit is not started; set run.max_requests={turns} or more, or auto"
        )


def looked_at(config: Config) -> Iterator[Request]:
    """Requests to check before anything is sent: the last turn of each session, which holds all before it.

    All that will be sent, where that can be read within `LOOK_S`.
    """
    from llmexp.workload.source import Source
    from llmexp.workload.tokens import Estimate

    source = Source(config.workload, Estimate(), seed=config.run.seed, nonce="")
    ends = time.monotonic() + LOOK_S
    limit = config.max_requests
    if config.workload.kind == "images":
        limit = 1
    elif limit is None and config.workload.kind == "file":
        limit = source.size
    for turns in source.sessions(limit):
        yield source.request(turns.stop - 1)
        if time.monotonic() > ends:
            return


def context_tokens(workload: Workload) -> int:
    """A bound of input plus output tokens of any one request, before any chat template."""
    from llmexp.workload.source import Source
    from llmexp.workload.tokens import Estimate

    return Source(workload, Estimate(), seed=0, nonce="").context_tokens()
