"""Recorded sessions: a JSONL file, a session a line.

    {"session": "a", "turns": [{"messages": […], "tools": […], "delay_s": 0.5, "output_tokens": 40, "expected": …}, …]}

Messages are OpenAI's; each turn's follow those of the turn before. The assistant's messages at a turn's end, and at the
beginning of the turn after it, are the recorded answer to the turn. A turn without `tools` keeps those of the turn
before; `tools` beside `turns` are every turn's. `{"messages": […]}` without `turns` is a whole chat, cut at its
answers.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import orjson

from llmexp.errors import ConfigError
from llmexp.workload.chat import messages_of, short, tools_of
from llmexp.workload.lines import Lines
from llmexp.workload.request import Message, Tool


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a session."""

    asked: tuple[Message, ...]
    """What is new to the model."""
    answer: tuple[Message, ...] = ()
    """What the model answered when it was recorded; empty where the file does not say."""
    tools: tuple[Tool, ...] = ()
    delay_s: float = 0.0
    output_tokens: int | None = None
    expected: object = None

    @property
    def calls(self) -> frozenset[str]:
        """The tools that the recorded answer called."""
        return frozenset(call.name for message in self.answer for call in message.tool_calls)


Script = tuple[Turn, ...]


def script_of(record: object, folder: Path) -> Script:
    """The session of a row; raises `ValueError` with what is wrong in it."""
    if not isinstance(record, Mapping):
        raise ValueError("it is no JSON object")  # noqa: TRY004 -- told like any bad row
    listed = record.get("turns")
    if listed is None and record.get("messages") is not None:
        return _of_chat(record, folder)
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
        raise ValueError("it has no turns; python -m llmexp.convert makes sessions of chats and logs")
    tools = tools_of(record.get("tools") or ())
    turns: list[Turn] = []
    for number, entry in enumerate(listed):
        try:
            turn = _turn(entry, turns[-1].tools if turns else tools, folder)
        except ValueError as error:
            raise ValueError(f"turn {number}: {error}") from None
        turns += _joined(turns, turn, number)
    return tuple(turns)


def _turn(entry: object, tools: tuple[Tool, ...], folder: Path) -> Turn:
    if not isinstance(entry, Mapping):
        raise ValueError("it is no JSON object")  # noqa: TRY004
    given = entry.get("tools")
    return Turn(
        messages_of(entry.get("messages"), folder),
        (),
        tools if given is None else tools_of(given),
        _number(entry, "delay_s") or 0.0,
        _tokens(entry),
        entry.get("expected"),
    )


def _joined(before: list[Turn], turn: Turn, number: int) -> list[Turn]:
    """The turn with what is asked and what was answered told apart; an answer at its head goes to the turn before."""
    messages = turn.asked
    head = 0
    while before and head < len(messages) and messages[head].role == "assistant":
        head += 1
    tail = len(messages)
    while tail > head and messages[tail - 1].role == "assistant":
        tail -= 1
    if head == tail:
        raise ValueError(f"turn {number}: it asks nothing: its messages are the assistant's alone")
    if head:
        before[-1] = replace(before[-1], answer=before[-1].answer + messages[:head])
    return [replace(turn, asked=messages[head:tail], answer=messages[tail:])]


def _of_chat(record: Mapping[object, object], folder: Path) -> Script:
    """A whole chat: a turn ends with each answer."""
    tools = tools_of(record.get("tools") or ())
    turns: list[Turn] = []
    asked: list[Message] = []
    for message in messages_of(record["messages"], folder):
        if message.role == "assistant" and (asked or turns):
            if asked:
                turns.append(Turn(tuple(asked), (message,), tools))
                asked = []
            else:
                turns[-1] = replace(turns[-1], answer=(*turns[-1].answer, message))
        else:
            asked.append(message)
    if asked:
        turns.append(Turn(tuple(asked), (), tools, expected=record.get("expected")))
    if not turns:
        raise ValueError("it asks nothing: its messages are the assistant's alone")
    return tuple(turns)


def _tokens(entry: Mapping[object, object]) -> int | None:
    value = _number(entry, "output_tokens")
    return None if value is None else max(1, int(value))


def _number(entry: Mapping[object, object], key: str) -> float | None:
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{key} must be a number of at least 0, got {short(value)}")
    return float(value)


class ScriptFile:
    """The sessions of a file by number, and the turns by index, both read no further than they are asked for."""

    def __init__(self, key: str, path: str) -> None:
        self._key = key
        self._path = path
        self._folder = Path(path).parent
        self._lines = Lines(key, path)
        self._ends = array("Q")
        """Turns up to the end of each session that was passed."""
        self.script = lru_cache(maxsize=256)(self._script)

    def _script(self, number: int) -> Script | None:
        """The session of this number; None behind the last."""
        line = self._lines[number]
        if line is None:
            return None
        try:
            return script_of(orjson.loads(line.removeprefix(b"\xef\xbb\xbf")), self._folder)
        except ValueError as error:
            where = self._lines.line_number(number)
            raise ConfigError(f"{self._key}: line {where} of '{self._path}' cannot be used: {error}") from None

    def turns_before(self, number: int) -> int:
        """How many turns all sessions before this one have."""
        self._pass(number)
        return self._ends[number - 1] if number else 0

    def place(self, index: int) -> tuple[int, int]:
        """(session, turn) of an index, counted over the file once; raises `IndexError` behind the last."""
        while not self._ends or self._ends[-1] <= index:
            if not self._pass(len(self._ends) + 1):
                raise IndexError(index)
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number - 1] if number else 0)

    def _pass(self, count: int) -> bool:
        """Whether there are so many sessions."""
        while len(self._ends) < count:
            script = self.script(len(self._ends))
            if script is None:
                return False
            self._ends.append((self._ends[-1] if self._ends else 0) + len(script))
        return True

    @property
    def count(self) -> int | None:
        """Sessions, once the last was passed."""
        return self._lines.count

    def total_turns(self) -> int:
        """Turns of all sessions; reads what is left of the file."""
        while self._pass(len(self._ends) + 1):
            pass
        return self._ends[-1] if self._ends else 0

    def sample(self, size: int) -> Iterator[Script]:
        """Sessions spread over the file; what cannot be read is left out, and told when its turn comes."""
        for line in self._lines.sample(size):
            try:
                yield script_of(orjson.loads(line.removeprefix(b"\xef\xbb\xbf")), self._folder)
            except ValueError:
                continue

    def estimated_count(self) -> int:
        """Sessions of the file, or about how many."""
        return self._lines.estimated_count()
