"""Turns of sessions that wait for the answer before them."""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass

from llmexp.worker.plan import NS
from llmexp.workload.request import Message, Request
from llmexp.workload.source import Source

AHEAD_NS = 30 * NS
"""A turn is handed over so long before it may be sent; earlier, and its signature could expire in the worker."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn whose history is known."""

    request: Request
    not_before_ns: int


class Turns:
    """Knows which sessions go on, and makes their next turn once an answer came."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._awaited: set[int] = set()
        """Indexes of turns that were given and that others follow."""
        self._free: deque[Turn] = deque()
        self.skipped = 0
        """Turns that will not be sent, because their session ended before them."""

    @property
    def waiting(self) -> bool:
        """Whether any turn will still come, sooner or later."""
        return bool(self._awaited or self._free)

    def given(self, request: Request) -> None:
        """A turn is on its way to the worker."""
        if follows(request):
            self._awaited.add(request.index)

    def answered(self, request: Request, answer: Message, end_ns: int) -> None:
        """The answer to a turn came."""
        self._awaited.discard(request.index)
        following = self._source.after(request, answer)
        if following is not None:
            self._free.append(Turn(following, end_ns + int(following.delay_s * NS)))

    def off_script(self, request: Request, tool_calls: str | None) -> bool:
        """Whether the answer left out a tool that the recorded one called."""
        called = json.loads(tool_calls) if tool_calls else ()
        return self._source.off_script(request, frozenset(call["name"] for call in called))

    def failed(self, request: Request) -> bool:
        """A turn has no answer; whether that ends its session before the last turn."""
        self._awaited.discard(request.index)
        if not follows(request):
            return False
        self.skipped += request.turns - 1 - request.turn
        return True

    def next(self) -> Turn | None:
        """A turn that may be handed over now."""
        soon = time.monotonic_ns() + AHEAD_NS
        for turn in self._free:
            if turn.not_before_ns <= soon:
                self._free.remove(turn)
                return turn
        return None


def follows(request: Request) -> bool:
    """Whether another turn of the same session comes after this one."""
    return not request.warmup and request.turn + 1 < request.turns
