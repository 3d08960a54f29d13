"""The request: what will be sent, before any API gives it a shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict


class Message(TypedDict):
    """One chat message, as OpenAI's wire names it."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a workload.

    Messages and lengths depend on seed, workload and index alone; only the nonce at the head of the first user message
    differs between jobs.
    """

    index: int
    """0, 1, 2, … in the order of the schedule; warm-up requests count from 0 on their own."""
    messages: tuple[Message, ...]
    max_tokens: int
    """The token limit sent, and the length asked for in the prompt."""
    input_tokens: int
    """Tokens of the user's text (nonce included), by the workload's tokenizer."""
    prompt_digest: str
    """Hex digest of messages without the nonce and of `max_tokens`."""
    force_output: bool = False
    """Ask the server to ignore its end-of-sequence token, where it knows how."""
    warmup: bool = False
    conversation: int | None = None
    """Which conversation a turn belongs to; turns of one are sent in order."""
    turn: int = 0
