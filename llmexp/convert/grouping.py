"""Calls of a log → sessions. A call continues the one whose messages it begins with, and an answer after them.

Everything waits in a database file until all of it is read, for sessions must come in the order of their first calls
and logs hold them mixed: memory holds one call at a time, whatever the log's size.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import cast

from llmexp.convert.exchange import Exchange, Tree, list_of, tree_of

_TABLES = """
    CREATE TABLE calls (start REAL, data BLOB);
    CREATE TABLE tips (hash BLOB, session INTEGER, ended REAL);
    CREATE TABLE turns (session INTEGER, data BLOB);
    CREATE TABLE sessions (start REAL);
    CREATE INDEX call ON calls (start);
    CREATE INDEX tip ON tips (hash);
    CREATE INDEX turn ON turns (session);
"""


@dataclass(slots=True)
class Session:
    """A session as its file holds it, texts still real."""

    start_s: float | None
    turns: list[Tree]


class Sessions:
    """Takes calls in any order, gives sessions in the order of time."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="llmexp-convert-")
        self._database = sqlite3.connect(Path(self._folder.name) / "calls.db", isolation_level=None)
        self._database.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _TABLES + "BEGIN;")
        self.timed = True
        """Every call had a time."""
        self.ends_known = True
        """Every call had an end, so that delays are free of the time that answers took."""

    def add(self, found: Exchange) -> None:
        """Keep a call, or a whole chat."""
        self.timed = self.timed and found.start_s is not None
        if found.whole:
            self._put_session(found.start_s, _cut(found))
            return
        self.ends_known = self.ends_known and found.end_s is not None
        data = [
            found.messages,
            found.tools,
            found.answer,
            found.start_s,
            found.end_s,
            found.output_tokens,
            found.session,
        ]
        self._database.execute("INSERT INTO calls VALUES (?, ?)", (found.start_s, _packed(data)))

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()
        self._folder.cleanup()

    def __iter__(self) -> Iterator[Session]:
        """Every session once, the earliest first; those without a time in the order of the log."""
        self._group()
        rows = self._database.execute("SELECT rowid, start FROM sessions ORDER BY start, rowid")
        for number, start in rows:
            data = self._database.execute("SELECT data FROM turns WHERE session=? ORDER BY rowid", (number,))
            yield Session(start, [tree for (packed,) in data for tree in cast("list[Tree]", _unpacked(packed))])

    def _group(self) -> None:
        for (packed,) in self._database.execute("SELECT data FROM calls ORDER BY start, rowid"):
            values = cast("list[object]", _unpacked(packed))
            messages, tools, answer, start_s, end_s, tokens, session = values
            found = Exchange(
                cast("list[Tree]", messages),
                cast("list[Tree]", tools),
                cast("Tree | None", answer),
                cast("float | None", start_s),
                cast("float | None", end_s),
                cast("int | None", tokens),
                str(session),
            )
            self._place(found)

    def _place(self, found: Exchange) -> None:
        hashes = _chain(found)
        for at in range(len(found.messages) - 2, -1, -1):
            if found.messages[at + 1].get("role") != "assistant":
                continue
            tip = self._database.execute(
                "SELECT rowid, session, ended FROM tips WHERE hash=? ORDER BY rowid DESC LIMIT 1", (hashes[at],)
            ).fetchone()
            if tip is not None:
                row, session, ended = tip
                self._database.execute("DELETE FROM tips WHERE rowid=?", (row,))
                delay = 0.0 if ended is None or found.start_s is None else max(0.0, found.start_s - ended)
                self._put_turn(session, found, found.messages[at + 1 :], delay)
                self._tip(hashes[-1], session, found)
                return
        session = self._put_session(found.start_s, [_turn(found, found.messages, 0.0)])
        self._tip(hashes[-1], session, found)

    def _tip(self, digest: bytes, session: int, found: Exchange) -> None:
        ended = found.start_s if found.end_s is None else found.end_s
        self._database.execute("INSERT INTO tips VALUES (?, ?, ?)", (digest, session, ended))

    def _put_session(self, start_s: float | None, turns: Sequence[Tree]) -> int:
        number = self._database.execute("INSERT INTO sessions VALUES (?)", (start_s,)).lastrowid or 0
        self._database.execute("INSERT INTO turns VALUES (?, ?)", (number, _packed(list(turns))))
        return number

    def _put_turn(self, session: int, found: Exchange, messages: Sequence[Tree], delay_s: float) -> None:
        packed = _packed([_turn(found, messages, delay_s)])
        self._database.execute("INSERT INTO turns VALUES (?, ?)", (session, packed))


def alone(found: Exchange) -> Session:
    """The session of a call, or of a chat, that nothing precedes and nothing follows."""
    return Session(found.start_s, _cut(found) if found.whole else [_turn(found, found.messages, 0.0)])


def _cut(chat: Exchange) -> list[Tree]:
    """The turns of a whole chat: an answer stands at the head of the turn after it, the last one at its own's end."""
    turns: list[Tree] = []
    messages: list[Tree] = []
    asks = False
    for message in chat.messages:
        answers = message.get("role") == "assistant"
        if answers and asks:
            turns.append(_turn(chat, messages, 0.0))
            messages, asks = [], False
        messages.append(message)
        asks = asks or not answers
    if asks:
        turns.append(_turn(chat, messages, 0.0))
    elif turns:
        turns[-1]["messages"] = [*list_of(turns[-1]["messages"]), *messages]
    return turns


def _turn(found: Exchange, messages: Sequence[Tree], delay_s: float) -> Tree:
    """A turn; its answer stands beside it until the next turn's messages hold it."""
    turn: Tree = {"messages": list(messages)}
    if found.tools:
        turn["tools"] = found.tools
    if delay_s:
        turn["delay_s"] = round(delay_s, 3)
    if found.output_tokens is not None:
        turn["output_tokens"] = found.output_tokens
    if found.answer is not None:
        turn["answer"] = found.answer
    return turn


def _chain(found: Exchange) -> list[bytes]:
    """A hash for each message over all up to it, within what the log calls one conversation."""
    state, made = found.session.encode("utf-8", "surrogatepass"), []
    for message in found.messages:
        said = [message.get("role"), _words(message.get("content")), _calls(message)]
        state = blake2b(state + json.dumps(said, sort_keys=True).encode(), digest_size=16).digest()
        made.append(state)
    return made


def _words(content: object) -> object:
    """A content by its words: histories hold the same text now as a string, now as a part."""
    parts = list_of(content) if not isinstance(content, str) else ()
    if not parts:
        return content or ""
    trees = [tree_of(part) for part in parts]
    if all(isinstance(tree.get("text"), str) for tree in trees):
        return "".join(str(tree["text"]) for tree in trees)
    return [dict(tree) for tree in trees]


def _calls(message: Mapping[str, object]) -> list[object]:
    functions = [tree_of(tree_of(each).get("function")) for each in list_of(message.get("tool_calls"))]
    return [[each.get("name"), tree_of(each.get("arguments")) or each.get("arguments")] for each in functions]


def _packed(data: object) -> bytes:
    return zlib.compress(json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass"), 1)


def _unpacked(packed: bytes) -> object:
    found: object = json.loads(zlib.decompress(packed).decode("utf-8", "surrogatepass"))
    return found
