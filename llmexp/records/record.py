"""The record: what one request's tape means. A row of `requests.parquet`.

All `_ns` columns are readings of the worker's monotonic clock; `anchor` in the file's metadata maps them to wall time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Source = Literal["server", "tokenizer", "estimate"]
Status = Literal["completed", "failed", "unfinished"]
GradeStatus = Literal["graded", "unparsed", "ungraded"]


@dataclass(slots=True)
class Record:
    """One request that was sent (or could not be)."""

    index: int
    worker: int
    status: Status
    intended_ns: int
    dispatched_ns: int
    sent_ns: int | None = None
    """None when no connection could be had."""
    wait_s: float = 0.0
    """Waiting for the concurrency ceiling (open loop)."""
    connect_s: float = 0.0
    """Connecting on behalf of this request, TLS included; 0 on a reused connection."""
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    first_answer_token_ns: int | None = None
    """First chunk that is not reasoning; equals `first_token_ns` where none was streamed."""
    last_token_ns: int | None = None
    end_ns: int | None = None
    """End of the response on the wire."""
    chunk_ns: list[int] = field(default_factory=list)
    """Arrival of each read that carried generated text; events of one read are one chunk."""
    chunk_tokens: list[int] = field(default_factory=list)
    """Tokens of each chunk; their sum is the streamed tokens."""
    reasoning_streamed: bool = False
    input_tokens: int | None = None
    input_tokens_source: Source | None = None
    input_tokens_counted: int | None = None
    """The tokenizer's count of the user's text."""
    output_tokens: int | None = None
    """What is billed."""
    output_tokens_source: Source | None = None
    output_tokens_counted: int | None = None
    """The tokenizer's count of the streamed text, where it was counted."""
    chunk_tokens_source: Source | None = None
    reasoning_tokens: int | None = None
    reasoning_tokens_source: Source | None = None
    cached_tokens: int | None = None
    cached_tokens_source: Source | None = None
    max_tokens: int | None = None
    finish_reason: str | None = None
    error_class: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    stale_connections: int = 0
    server_latency_s: float | None = None
    http_status: int | None = None
    prompt_digest: str = ""
    session: int | None = None
    """Which session a turn belongs to."""
    turn: int = 0
    text: str | None = None
    """The answer without its reasoning. This and the next three are kept until graded, then under run.save_text."""
    tool_calls: str | None = None
    """The answer's calls of tools: JSON, a list of `{"name", "arguments"}`."""
    question: str | None = None
    expected: str | None = None
    """What a right answer is, as JSON."""
    answer_digest: str | None = None
    """Hex digest of text and tool calls of a completed answer: equal answers have equal ones."""
    truncated: bool | None = None
    """Whether the token limit ended a completed answer."""
    score: float | None = None
    right: bool | None = None
    grade_status: GradeStatus | None = None
    """None: the request failed, was cut, or nothing is graded."""
    grade_note: str | None = None

    def forget_texts(self) -> None:
        """Drop what was asked and answered; the digests stay."""
        self.text = self.tool_calls = self.question = self.expected = None

    @property
    def streamed_tokens(self) -> int:
        """Tokens that chunks carried."""
        return sum(self.chunk_tokens)
