"""The record: what one request's tape means. A row of `requests.parquet`.

All `_ns` columns are readings of the worker's monotonic clock; `anchor` in the file's metadata maps them to wall time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Source = Literal["server", "tokenizer", "estimate"]
Status = Literal["completed", "failed", "unfinished"]
GradeStatus = Literal["graded", "unparsed", "ungraded"]
REMARKS = {
    "output_tokens_refused": "the server's count of output tokens contradicts the stream, which was counted instead",
    "input_tokens_refused": "the server's count of input tokens cannot be the prompt's, which was counted instead",
    "reasoning_tokens_refused": "the server's count of reasoning tokens contradicts its other counts and was left out",
    "cached_tokens_refused": "the server counts more cached tokens than input tokens; the count was left out",
    "no_finish_reason": "the stream came to its end mark without a finish reason",
    "repeated_text": "the last event repeated the whole answer; it was not counted again",
    "cumulative_text": "each event held the whole text so far; only what was new in it was counted",
    "noise": "the stream held events that are no part of an answer (times, pings, null); they were passed over",
}
"""Remark on a stream → what it says, in words that follow a number of answers."""
REFUSED = frozenset(name for name in REMARKS if name.endswith("_refused"))
"""Remarks that say that a count of the server's was not believed."""


@dataclass(slots=True)
class Record:
    """One request that was sent (or could not be)."""

    index: int
    """Its number in the order of the schedule."""
    worker: int
    """The worker that sent it."""
    status: Status
    """`completed`, `failed`, or `unfinished`: cut by the client at the end, which is no error."""
    intended_ns: int
    """When the schedule wanted it."""
    dispatched_ns: int
    """When the worker turned to it."""
    sent_ns: int | None = None
    """None when no connection could be had."""
    wait_s: float = 0.0
    """Waiting for the concurrency ceiling (open loop)."""
    connect_s: float = 0.0
    """Connecting on behalf of this request, TLS included; 0 on a reused connection."""
    first_byte_ns: int | None = None
    """The first byte of the response."""
    first_token_ns: int | None = None
    """The first chunk with generated text, reasoning or tool-call arguments."""
    first_answer_token_ns: int | None = None
    """First chunk that is not reasoning; equals `first_token_ns` where none was streamed."""
    last_token_ns: int | None = None
    """The last such chunk."""
    end_ns: int | None = None
    """End of the response on the wire."""
    chunk_ns: list[int] = field(default_factory=list)
    """Arrival of each read that carried generated text; events of one read are one chunk."""
    chunk_tokens: list[int] = field(default_factory=list)
    """Tokens of each chunk; their sum is the streamed tokens."""
    reasoning_streamed: bool = False
    """Whether reasoning came in chunks of its own."""
    input_tokens: int | None = None
    """The server's count, else the tokenizer's."""
    input_tokens_source: Source | None = None
    """Who counted: `server`, `tokenizer`, or `estimate`; so the other `_source` columns."""
    input_tokens_counted: int | None = None
    """The tokenizer's count of the user's text."""
    output_tokens: int | None = None
    """What is billed."""
    output_tokens_source: Source | None = None
    """Who counted."""
    output_tokens_counted: int | None = None
    """The tokenizer's count of the streamed text, where it was counted."""
    chunk_tokens_source: Source | None = None
    """How the answer's tokens were shared over its chunks."""
    reasoning_tokens: int | None = None
    """Those of `output_tokens` that were reasoning, where it is known."""
    reasoning_tokens_source: Source | None = None
    """Who counted."""
    cached_tokens: int | None = None
    """Those of `input_tokens` that a prompt cache served, where it is known."""
    cached_tokens_source: Source | None = None
    """Who counted."""
    cache_write_tokens: int | None = None
    """Those of `input_tokens` that were written to a prompt cache at a price of their own, where it is known."""
    max_tokens: int | None = None
    """The token limit sent, and the length asked for."""
    finish_reason: str | None = None
    """Why the answer ended, in the server's word."""
    error_class: str | None = None
    """The class of a failure; see troubleshooting."""
    error_code: str | None = None
    """The HTTP status or the provider's own code."""
    error_message: str | None = None
    """The server's message, trimmed."""
    stale_connections: int = 0
    """Reused connections that were reset within a round trip, so that this request was written again; 0 or 1."""
    server_latency_s: float | None = None
    """The server's own figure, where it sends one."""
    http_status: int | None = None
    """The status of the response."""
    prompt_digest: str = ""
    """Hex digest of the prompt without its nonce, and of the token limit: equal requests have equal ones."""
    session: int | None = None
    """Which session a turn belongs to."""
    turn: int = 0
    """Which turn of its session, from 0."""
    remarks: list[str] = field(default_factory=list)
    """What is unusual about the stream, by the names of `REMARKS`."""
    noise_events: int = 0
    """Events that were neither part of the answer nor an error: times, pings, null."""
    session_turns: int | None = None
    """How many turns the session has in all."""
    first_tool_call_ns: int | None = None
    """First chunk that carried a call of a tool."""
    off_script: bool | None = None
    """Whether the recorded answer called a tool that this one did not; null for requests of no session."""
    text: str | None = None
    """The answer without its reasoning. This and the next three are kept until graded, then under run.save_text."""
    tool_calls: str | None = None
    """The answer's calls of tools: JSON, a list of `{"name", "arguments"}`."""
    question: str | None = None
    """The last user message."""
    expected: str | None = None
    """What a right answer is, as JSON."""
    answer_digest: str | None = None
    """Hex digest of text and tool calls of a completed answer: equal answers have equal ones."""
    truncated: bool | None = None
    """Whether the token limit ended a completed answer."""
    score: float | None = None
    """The grade, 0 to 1."""
    right: bool | None = None
    """Whether the score reaches `quality.threshold`."""
    grade_status: GradeStatus | None = None
    """None: the request failed, was cut, or nothing is graded."""
    grade_note: str | None = None
    """Why it was graded so, where that is not plain."""

    def forget_texts(self) -> None:
        """Drop what was asked and answered; the digests stay."""
        self.text = self.tool_calls = self.question = self.expected = None

    @property
    def streamed_tokens(self) -> int:
        """Tokens that chunks carried."""
        return sum(self.chunk_tokens)
