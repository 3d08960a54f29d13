"""What a simulated endpoint is told: behaviour, shape of its streams, where it listens.

Plain dataclasses, because the simulator starts in a process of its own and should be there at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from llmexp.errors import ConfigError

STATUS_FAILURES = ("auth", "forbidden", "not_found", "bad_request", "throttled", "server", "unavailable")
SILENT_FAILURES = ("hung", "dead")
STREAM_FAILURES = ("slow", "stalled", "cut", "reset", "garbage", "in_stream", "empty")
FAILURES = (*STATUS_FAILURES, *SILENT_FAILURES, *STREAM_FAILURES)


_CHOICES = {
    "head": ("early", "late"),
    "role": ("late", "early", "none"),
    "usage": ("end", "late", "inline", "always", "never"),
    "body": ("chunked", "length", "close"),
    "payload_parts": ("cut", "whole"),
    "sagemaker": ("tgi", "djl"),
}


def _at_least(bound: float, **values: float | None) -> None:
    """Raises `ConfigError` for the first value below the bound."""
    for name, value in values.items():
        if value is not None and value < bound:
            raise ConfigError(f"{name}: must be at least {bound:g}, got {value:g}")


@dataclass(frozen=True, slots=True)
class Latency:
    """A lognormal latency: mean in seconds, and coefficient of variation (0: constant)."""

    mean_s: float
    cv: float = 0.0

    def __post_init__(self) -> None:
        _at_least(0, mean_s=self.mean_s, cv=self.cv)


@dataclass(frozen=True, slots=True)
class Shape:
    """How the bytes of a stream are laid out; the defaults are what vLLM sends."""

    head: Literal["early", "late"] = "early"
    """Response headers as soon as a slot is free, or with the first token."""
    role: Literal["late", "early", "none"] = "late"
    """The opening events (OpenAI's role-only chunk): with the first token, with the headers, or left out."""
    comments: int = 0
    """SSE comments: one with the headers, and one before every n-th event. 0: none."""
    data_space: bool = True
    """`data: x`, or `data:x`."""
    crlf: bool = False
    """Lines end with CRLF."""
    usage: Literal["end", "late", "inline", "always", "never"] = "end"
    """OpenAI's usage: in a chunk of its own without choices when asked for; the same but late; in the finishing chunk;
    in a chunk of its own even when not asked for; not at all."""
    late_s: float = 0.065
    """How late `usage: late` is."""
    done: bool = True
    """`data: [DONE]` ends the stream."""
    body: Literal["chunked", "length", "close"] = "chunked"
    """How HTTP frames a streamed body."""
    gzip: bool = False
    """Compressed although nobody asked."""
    split: bool = False
    """Every write is cut at a moving place, the rest follows after `split_s`."""
    split_s: float = 0.002
    events_per_write: int = 1
    """Events that are held back to leave in one write."""
    payload_parts: Literal["cut", "whole"] = "cut"
    """SageMaker: whether PayloadParts cut lines."""
    sagemaker: Literal["tgi", "djl"] = "tgi"
    """SageMaker: what answers a body with `inputs`. A body with `messages` gets OpenAI's chunks."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"shape.{name}: must be one of {', '.join(choices)}, got '{value}'")
        _at_least(1, **{"shape.events_per_write": self.events_per_write})
        _at_least(0, **{"shape.comments": self.comments, "shape.late_s": self.late_s, "shape.split_s": self.split_s})


@dataclass(frozen=True, slots=True)
class Options:
    """One simulated endpoint; the first keys are those of `llmexp.config.Profile`."""

    ttft: Latency = Latency(0.2)
    ttft_s_per_1k_input_tokens: float = 0.0
    inter_token: Latency = Latency(0.02)
    tokens_per_chunk: int = 1
    slots: int | None = None
    reasoning_tokens: int = 0
    failure_rate: float = 0.0
    failure: str = "server"
    prompt_cache: bool = False
    """What prompts begin with is known when another begins alike: it costs no prefill, and usage says so."""
    seed: int = 0
    accuracy: float | None = None
    """Share of questions with known answers that are answered rightly; None: answers are words."""
    accuracy_under_load: float | None = None
    unparsed_share: float = 0.0
    answers: str | None = None
    """A JSON file of right answers (`llmexp.workload.answers`)."""
    answer_tokens: Latency | None = None
    """Length of answers (mean and cv, in tokens), never above the request's limit; None: always the limit."""
    fail_after: int = 3
    """Chunks before `stalled`, `cut`, `reset`, `garbage` and `in_stream` happen."""
    retry_after_s: int = 1
    idle_close_s: float | None = None
    """Idle connections are closed after this long."""
    model: str = "simulated"
    shape: Shape = field(default_factory=Shape)
    host: str = "127.0.0.1"
    port: int = 0
    tls_cert: str | None = None
    tls_key: str | None = None
    truth: str | None = None
    """Where the truth is appended."""
    aws: tuple[str, str, str | None] | None = None
    """Access key id, secret and session token: AWS wires then answer valid signatures only."""

    def __post_init__(self) -> None:
        for name in self.failures:
            if name not in FAILURES:
                raise ConfigError(f"failure: must be one of {', '.join(FAILURES)}, got '{name}'")
        _at_least(1, tokens_per_chunk=self.tokens_per_chunk, slots=self.slots)
        _at_least(0, reasoning_tokens=self.reasoning_tokens, fail_after=self.fail_after, idle_close_s=self.idle_close_s)
        _at_least(0, ttft_s_per_1k_input_tokens=self.ttft_s_per_1k_input_tokens)
        for name in ("failure_rate", "accuracy", "accuracy_under_load", "unparsed_share"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"{name}: must be from 0 to 1, got {share:g}")

    @property
    def failures(self) -> tuple[str, ...]:
        """The kinds of failure that are drawn from."""
        return tuple(name.strip() for name in self.failure.split(","))

    @classmethod
    def of(cls, tree: Mapping[str, object]) -> Options:
        """Options from plain values, as JSON carries them."""
        known = {entry.name for entry in fields(cls)}
        # Plain values, which the dataclasses take by name.
        values: dict[str, Any] = {name: value for name, value in tree.items() if name in known and value is not None}
        for name in ("ttft", "inter_token", "answer_tokens"):
            if isinstance(values.get(name), Mapping):
                values[name] = Latency(**values[name])
        if isinstance(values.get("shape"), Mapping):
            values["shape"] = Shape(**values["shape"])
        if "aws" in values:
            values["aws"] = tuple(values["aws"])
        return cls(**values)
