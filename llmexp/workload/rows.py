"""Prompts and lengths from a user's file: JSONL, JSON, CSV or Parquet.

A row is known by the names of its columns, whatever their case, spaces and underscores:

| a row has | names | is |
| --- | --- | --- |
| `prompt` | prompt, text, input, question | one user message |
| `messages` | messages, conversations, conversation | a chat: OpenAI's `role`/`content`, or ShareGPT's `from`/`value` |
| budget | output_tokens, max_tokens, completion_tokens, output_length, GeneratedTokens, Response tokens | the limit |
| what is expected | expected, answer, target, … | a right answer (`llmexp.workload.expected`) |
| length | input_tokens, prompt_tokens, input_length, ContextTokens, Request tokens | a length to make text for |

A row that only has lengths, such as one of a trace, gets text of that length.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmexp.errors import ConfigError
from llmexp.workload.expected import expected_of, question_of
from llmexp.workload.request import Message, Role

_PROMPT = ("prompt", "text", "input", "question")
_MESSAGES = ("messages", "conversations", "conversation")
_OUTPUT = (
    "outputtokens",
    "maxtokens",
    "maxcompletiontokens",
    "maxnewtokens",
    "completiontokens",
    "outputlength",
    "outputlen",
    "generatedtokens",
    "responsetokens",
)
_INPUT = ("inputtokens", "prompttokens", "inputlength", "inputlen", "contexttokens", "requesttokens")
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class Row:
    """What one row asks for."""

    messages: tuple[Message, ...] = ()
    """System and user messages and, between them, the answers of the file; empty where only lengths are given."""
    output_tokens: int | None = None
    input_tokens: int | None = None
    expected: object = None
    """What a right answer is (`llmexp.workload.expected`); None: not said."""

    @property
    def opening(self) -> tuple[Message, ...]:
        """Everything before the first answer."""
        ends = (at for at, message in enumerate(self.messages) if message.role == "assistant")
        return self.messages[: next(ends, None)]

    @property
    def reply(self) -> str | None:
        """The file's own answer to the opening, whose length may serve as a budget."""
        rest = self.messages[len(self.opening) :]
        return rest[0].text if rest else None

    @property
    def system(self) -> tuple[Message, ...]:
        """The system messages."""
        return tuple(message for message in self.messages if message.role == "system")

    @property
    def turns(self) -> list[str]:
        """What the user says, turn by turn."""
        return [message.text for message in self.messages if message.role == "user"]


def read_rows(key: str, path: str) -> list[Row]:
    """The file's rows, in its order, without chats that do not begin with the user.

    Raises `ConfigError` that names `key`, the row and the remedy.
    """
    rows = []
    for number, record in enumerate(records(key, path), 1):
        try:
            row = replace(_row(record), expected=expected_of(record))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{key}: row {number} of '{path}' cannot be used: {error}") from None
        if row.input_tokens is not None or (row.opening and row.opening[-1].role == "user"):
            rows.append(row)
    if not rows:
        raise ConfigError(f"{key}: has no rows to send, got '{path}'")
    return rows


def records(key: str, path: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a JSONL, JSON, CSV or Parquet file as mappings, read as they are asked for."""
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise ConfigError(f"{key}: must end in one of {', '.join(readers)}, got '{path}'")
    try:
        yield from reader(Path(path))
    except OSError as error:
        raise ConfigError(f"{key}: cannot be read, got '{path}' ({error.strerror or error})") from None
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{key}: '{path}' does not parse as {Path(path).suffix[1:]} ({error})") from None


def column(record: Mapping[str, Any], names: Iterable[str]) -> Any:
    """The first column of that name that holds something; names are compared as `normal` writes them."""
    found = {normal(name): value for name, value in record.items() if isinstance(name, str)}
    return next((found[name] for name in names if found.get(name) not in (None, "")), None)


def normal(name: str) -> str:
    """A column's name in lower case, without spaces, underscores and hyphens."""
    return "".join(letter for letter in name.lower() if letter not in " _-\ufeff")


def _jsonl(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _json(path: Path) -> Iterator[Mapping[str, Any]]:
    parsed = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(parsed, list):
        raise ValueError("the outermost value must be a list")  # noqa: TRY004 -- reported like text that does not parse
    yield from parsed


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            yield from batch.to_pylist()


def _row(record: Mapping[str, Any]) -> Row:
    output, chat = _count(column(record, _OUTPUT)), column(record, _MESSAGES)
    if chat is not None:
        listed = json.loads(chat) if isinstance(chat, str) else chat
        return Row(tuple(map(_message, listed)), output)
    prompt = column(record, _PROMPT)
    if prompt is not None:
        return Row((Message("user", question_of(record, str(prompt))),), output)
    wanted = _count(column(record, _INPUT))
    if wanted is None:
        raise ValueError("it has neither a prompt, nor messages, nor input_tokens")
    return Row((), output, wanted)


def _count(value: Any) -> int | None:
    return None if value is None else max(1, int(float(value)))


def _message(entry: Mapping[str, Any]) -> Message:
    role = str(entry["from"] if "from" in entry else entry["role"]).lower()
    if role not in _ROLES:
        raise ValueError(f"role '{role}' is not one of {', '.join(_ROLES)}")
    content = entry["value"] if "value" in entry else entry["content"]
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    return Message(_ROLES[role], str(content))
