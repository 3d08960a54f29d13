"""Turns of a session that wait for the answer before them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from llmexp.worker.plan import NS
from llmexp.workload.request import Message

AHEAD_NS = 30 * NS
"""A turn is handed over so long before it may be sent; earlier, and its signature could expire in the worker."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn whose history is known."""

    index: int
    history: Sequence[Message]
    not_before_ns: int


@dataclass(frozen=True, slots=True)
class _Answered:
    history: Sequence[Message]
    end_ns: int


class Turns:
    """Parks turns until their answer is known. An answer may come before its turn is parked, or after."""

    def __init__(self) -> None:
        self._parked: dict[int, tuple[int, float]] = {}
        """Index whose answer is needed → (index that waits for it, think time in s)."""
        self._answered: dict[int, _Answered] = {}
        self._dead: set[int] = set()
        """Indexes without an answer: what follows them is not sent."""
        self._free: deque[Turn] = deque()

    @property
    def waiting(self) -> bool:
        """Whether any turn will still come, sooner or later."""
        return bool(self._parked or self._free)

    def park(self, index: int, before: int, think_s: float) -> int:
        """Let the turn `index` wait for the answer to `before`; how many turns are dropped by that: 1 or 0."""
        if before in self._dead:
            self._dead.discard(before)
            self._dead.add(index)
            return 1
        self._parked[before] = (index, think_s)
        if before in self._answered:
            self._unpark(before)
        return 0

    def answered(self, index: int, history: Sequence[Message], end_ns: int) -> None:
        """The answer to `index` came; `history` is the session so far, the answer included."""
        self._answered[index] = _Answered(history, end_ns)
        if index in self._parked:
            self._unpark(index)

    def _unpark(self, before: int) -> None:
        known = self._answered.pop(before)
        index, think_s = self._parked.pop(before)
        self._free.append(Turn(index, known.history, known.end_ns + int(think_s * NS)))

    def failed(self, index: int) -> int:
        """There is no answer to `index`: its session ends here. How many parked turns are dropped."""
        dropped = 0
        while index in self._parked:
            index, _ = self._parked.pop(index)
            dropped += 1
        self._dead.add(index)
        return dropped

    def next(self) -> Turn | None:
        """A turn that may be handed over now."""
        soon = time.monotonic_ns() + AHEAD_NS
        for turn in self._free:
            if turn.not_before_ns <= soon:
                self._free.remove(turn)
                return turn
        return None
