"""Prompts and lengths from a user's file: JSONL, JSON, CSV or Parquet.

A row is known by the names of its columns, whatever their case, spaces and underscores:

| a row has | names | is |
| --- | --- | --- |
| prompt | prompt, question, question_stem, input, inputs, user_input, text_input, query, problem, ctx, goal, sentence, text | one user message; a list of messages is a chat |
| instruction | instruction, with input or context (Alpaca, Dolly) | one user message of both |
| messages | messages, conversations, conversation, contents; a row that is itself a list of messages | a chat: OpenAI's, ShareGPT's, Gemini's |
| turns | turns; prompt, beside prompt_id or category (MT-bench) | what the user says, turn by turn |
| dialog | dialog, dialogue, utterances, data (UltraChat), as a list of texts | what the user and the model say in turn |
| pictures | image, images, image_url, image_path beside a prompt: paths, addresses, or the bytes as `datasets` keeps them | parts before the text |
| system | system, system_prompt (OpenOrca), instructions, systemInstruction | the system message |
| tools | tools, functions | what the model may call |
| answer | output, response, completion | the file's own answer, whose length may serve as a budget |
| budget | output_tokens, max_tokens, completion_tokens, output_length, output_len, osl, GeneratedTokens, Response tokens, num_decode_tokens, token_size | the limit; also inside parameters, generationConfig, inferenceConfig |
| length | input_tokens, prompt_tokens, input_length, prompt_len, isl, ContextTokens, Request tokens, num_prefill_tokens, prompt_size | a length to make text for |
| token ids | prompt or prompt_token_ids as whole numbers | their number is the length; a text beside them counts first |

The `body` of OpenAI's batch rows is read as a row, as are `params` of Anthropic's, `modelInput` of Bedrock's, `request`
of Vertex AI's, the `row` of a dataset viewer's and the `doc` of lm-eval's samples. Columns inside `inputs`, `outputs` and `expectations` (MLflow's and LangSmith's data sets) are read as the
row's own. A row that only has lengths, such as one of a trace, gets text of that length.

A row that is of none of these, or holds another kind of value, is an error that names it: the file is not what it was
taken for. A good row that cannot be sent (a chat that does not begin with the user, a failed request of a trace, half a
character) is left out, counted, and named in the notes.
"""  # noqa: E501 -- a table

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TypeGuard

from llmexp.errors import ConfigError
from llmexp.workload.chat import ROLES, SHAREGPT_ROLES, message_of, tools_of
from llmexp.workload.expected import expected_of, question_of
from llmexp.workload.layouts import flat, from_text, listed_in, pictures_of
from llmexp.workload.request import Message, Tool, texts_of
from llmexp.workload.tables import column, entries, is_empty, normal

__all__ = ["Row", "Rows", "Unusable", "column", "is_usable", "normal", "read_rows", "row_of"]

_PROMPT = (
    "prompt",
    "question",
    "questionstem",
    "input",
    "inputs",
    "userinput",
    "textinput",
    "query",
    "problem",
    "ctx",
    "goal",
    "sentence",
    "text",
)
_INSTRUCTION, _ABOUT = ("instruction",), ("input", "context")
_MESSAGES = ("messages", "conversations", "conversation")
_DIALOG = ("dialog", "dialogue", "utterances", "data")
_SYSTEM = ("system", "systemprompt", "systemmessage", "systeminstruction", "systeminstructions", "instructions")
_REPLY = ("output", "response", "completion", "reply")
_OUTPUT = (
    "outputtokens",
    "maxtokens",
    "maxcompletiontokens",
    "maxnewtokens",
    "maxoutputtokens",
    "completiontokens",
    "outputlength",
    "outputlen",
    "generatedtokens",
    "responsetokens",
    "osl",
    "outputseqlen",
    "numoutputtokens",
    "numdecodetokens",
    "numpredict",
    "maxtokenstosample",
    "maxtokencount",
    "outputtokenscount",
    "tokensize",
)
_INPUT = (
    "inputtokens",
    "prompttokens",
    "inputlength",
    "inputlen",
    "contexttokens",
    "requesttokens",
    "promptlen",
    "promptlength",
    "isl",
    "inputseqlen",
    "numinputtokens",
    "numprefilltokens",
    "prompttokenscount",
    "promptsize",
)
_OF_BENCH = ("promptid", "questionid", "category")
"""Columns that tell MT-bench's turns from a batch of prompts."""
_IDS = ("prompttokenids", "tokenids", "inputids")
_NAMED = 3
_MOST_TOKENS = 2**31 - 1
LONGEST_PROMPT = 2**24
"""Tokens: more than any model reads, and as much text as should be made of a number in a file."""


class Unusable(Exception):  # noqa: N818 -- a finding about a row, no error of the program
    """A row that is what it should be, and yet cannot be sent; says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one row asks for."""

    messages: tuple[Message, ...] = ()
    """System and user messages and, between them, the answers of the file; empty where only lengths are given."""
    output_tokens: int | None = None
    input_tokens: int | None = None
    expected: object = None
    """What a right answer is (`llmexp.workload.expected`); None: not said."""
    tools: tuple[Tool, ...] = ()
    answer: str | None = None
    """The file's own answer, where it stands in a column of its own."""
    shares: bool = False
    """`"nonce": "job"`: one nonce a job stands before all such rows, so that they share what they begin with."""
    later: tuple[str, ...] = ()
    """What the user says in later turns, where the file holds no answers between them."""
    is_ids: bool = False
    """The row holds token ids, whose number is its length."""

    @property
    def opening(self) -> tuple[Message, ...]:
        """Everything before the first answer."""
        ends = (at for at, message in enumerate(self.messages) if message.role == "assistant")
        return self.messages[: next(ends, None)]

    @property
    def reply(self) -> str | None:
        """The file's own answer to the opening, a call of a tool included, whose length may serve as a budget."""
        rest = self.messages[len(self.opening) :][:1]
        return "".join(texts_of(rest)) or None if rest else self.answer

    @property
    def system(self) -> tuple[Message, ...]:
        """The system messages."""
        return tuple(message for message in self.messages if message.role in ("system", "developer"))

    @property
    def turns(self) -> list[str]:
        """What the user says, turn by turn."""
        return [*[message.text for message in self.messages if message.role == "user"], *self.later]


@dataclass(frozen=True)
class Rows:
    """The rows of a file that can be sent."""

    rows: list[Row]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Row and reason of those that cannot."""

    def notes(self, key: str) -> Iterator[str]:
        """What a reader of the results should know: which rows were left out, and why."""
        whole = len(self.rows) + len(self.left_out)
        for reason in dict.fromkeys(reason for _, reason in self.left_out):
            places = [where for where, why in self.left_out if why == reason]
            more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
            yield f"{key}: {len(places)} of {whole} rows left out ({', '.join(places[:_NAMED])}{more}): {reason}"


def read_rows(key: str, path: str) -> Rows:
    """The file's rows, in its order. Raises `ConfigError` that names `key`, the row and the remedy."""
    found = Rows([])
    folder = Path(path).parent
    for where, record in entries(key, path):
        try:
            found.rows.append(_sendable(_row(record, folder)))
        except Unusable as error:
            found.left_out.append((where, str(error)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"{key}: {where} of '{path}' cannot be used: {_said(error)}") from None
    if not found.rows:
        reasons = "; ".join(found.notes("")) or "it is empty"
        raise ConfigError(f"{key}: has no rows to send, got '{path}' ({reasons.removeprefix(': ')})")
    return found


def is_usable(record: object, path: str) -> bool:
    """Whether a row of a trace is also a request, so that times and prompts of one file stay together."""
    try:
        _sendable(_row(record, Path(path).parent))
    except Unusable:
        return False
    except (ValueError, TypeError, KeyError, AttributeError):
        return True  # it holds no request at all: only times are read
    return True


def row_of(record: object, folder: Path) -> Row:
    """The row of a record; raises `Unusable`, and errors of many kinds for what is no row."""
    return _sendable(_row(record, folder))


def _said(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


# --- one row ---------------------------------------------------------------------------------------------------------


def _row(record: object, folder: Path) -> Row:
    if isinstance(record, list):
        return _listed(record, folder)
    if not isinstance(record, Mapping):
        raise ValueError(f"it is {_kind(record)}, not an object with columns")  # noqa: TRY004 -- told like the others
    record = flat(record, _OUTPUT)
    answer = column(record, _REPLY)
    row = replace(
        _asked(record, folder),
        output_tokens=_count(record, _OUTPUT),
        expected=expected_of(record),
        tools=_tools(record),
        answer=answer if isinstance(answer, str) else None,
        shares=record.get("nonce") == "job",
    )
    system = column(record, _SYSTEM)
    if isinstance(system, Mapping):  # Gemini's is a message without a role
        system = system.get("parts", system)
    if system is not None and row.messages and not row.system:
        row = replace(row, messages=(_message(0, {"role": "system", "content": system}, folder), *row.messages))
    return row


def _asked(record: Mapping[str, object], folder: Path) -> Row:
    """What is asked, in whichever layout."""
    chat = _chat(record)
    if chat is not None:
        return Row(_messages(chat, folder))
    spoken = _turns(record)
    if spoken is not None:
        return spoken
    instruction = column(record, _INSTRUCTION)
    if instruction is not None:
        about = column(record, _ABOUT)
        asked = _text(instruction) if about is None else f"{_text(instruction)}\n\n{_text(about)}"
        return Row((Message("user", asked),))
    prompt = from_text(_stem(column(record, _PROMPT)))
    if prompt is not None:
        return _prompted(prompt, record, folder)
    ids = _parsed(column(record, _IDS))
    if isinstance(ids, list):
        return _listed(ids, folder)
    return _lengths(record)


def _turns(record: Mapping[str, object]) -> Row | None:
    """What is said turn by turn, in lists of texts."""
    turns = _parsed(column(record, ("turns",)))
    if _are_texts(turns):
        return Row((Message("user", turns[0]),), later=tuple(turns[1:]))
    dialog = column(record, _DIALOG)
    if _are_texts(dialog) and column(record, (*_INSTRUCTION, *_PROMPT)) is None:
        return Row(tuple(Message("assistant" if at % 2 else "user", text) for at, text in enumerate(dialog)))
    return None


def _prompted(prompt: object, record: Mapping[str, object], folder: Path) -> Row:
    """A text, messages, texts of several turns, or token ids, where a prompt stands."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if _are_texts(prompt) and column(record, _OF_BENCH) is not None:
        return Row((Message("user", prompt[0]),), later=tuple(prompt[1:]))
    if isinstance(prompt, list):
        return _listed(prompt, folder)
    if isinstance(prompt, Mapping):
        return Row(_messages([prompt], folder))
    asked = question_of(record, _text(prompt))
    pictures = pictures_of(record)
    if not pictures:
        return Row((Message("user", asked),))
    return Row((message_of({"role": "user", "content": [*pictures, {"type": "text", "text": asked}]}, folder),))


def _lengths(record: Mapping[str, object]) -> Row:
    """A row that asks for made-up text of a length."""
    wanted = _count(record, _INPUT, LONGEST_PROMPT)
    if wanted is None and any(normal(str(name)) in (*_PROMPT, *_INSTRUCTION) for name in record):
        raise Unusable("its prompt is empty")
    if wanted is None:
        raise ValueError("it has neither a prompt, nor messages, nor input_tokens")
    return Row(input_tokens=wanted)


def _chat(record: Mapping[str, object]) -> object:
    """The messages, in a column of their own."""
    chat, contents = _parsed(column(record, _MESSAGES)), column(record, ("contents",))
    if chat is None and isinstance(contents, list):  # a text of that name is another thing
        return contents
    return chat


def _stem(prompt: object) -> object:
    """The words of a question that ARC's own files hold beside its choices."""
    return prompt.get("stem", prompt) if isinstance(prompt, Mapping) else prompt


def _are_texts(value: object) -> TypeGuard[list[str]]:
    """Whether it is a list of texts."""
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text for text in value)


def _text(value: object) -> str:
    """A text; a number stands for its digits, as in any table; Spark's tables hold texts as bytes."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"a text was expected, not {_kind(value)}")


def _listed(values: list[object], folder: Path) -> Row:
    """A list where a prompt was expected: messages or token ids."""
    if values and all(isinstance(value, Mapping) for value in values):
        return Row(_messages(values, folder))
    if values and all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return Row(input_tokens=len(values), is_ids=True)
    raise ValueError(f"a list of {len(values)} values is neither messages nor token ids")


def _messages(listed: object, folder: Path) -> tuple[Message, ...]:
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ValueError(f"messages must be a list, got {_kind(listed)}")  # noqa: TRY004
    return tuple(_message(at, entry, folder) for at, entry in enumerate(listed, 1))


def _message(at: int, entry: object, folder: Path) -> Message:
    """One message, in OpenAI's words or ShareGPT's."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"message {at} is {_kind(entry)}, not an object")  # noqa: TRY004
    said = dict(entry)
    if "from" in said:
        said = {"role": said["from"], "content": said.get("value", said.get("content"))}
    elif "content" not in said and ("value" in said or "parts" in said):  # Gemini's messages have parts
        said["content"] = said.get("value", said.get("parts"))
    if said.get("role") is None:
        raise ValueError(f"message {at} says not who speaks (role, or from)")
    role = str(said["role"]).lower()
    if role not in SHAREGPT_ROLES:
        raise ValueError(f"role '{role}' is not one of {', '.join(dict.fromkeys((*ROLES, *SHAREGPT_ROLES)))}")
    said["role"] = SHAREGPT_ROLES[role]
    if said["role"] == "tool" and not said.get("tool_call_id"):
        said["tool_call_id"] = str(said.get("name") or "call")
    content = said.get("content")
    if isinstance(content, Mapping):  # one part, or Gemini's list of them
        content = said["content"] = content.get("parts", [content])
    if said["role"] in ("user", "system", "developer") and (is_empty(content) or content == []):
        raise Unusable(f"a message of the {said['role']} has no content")
    if isinstance(content, int | float):
        said["content"] = None if is_empty(content) else _text(content)
    return message_of(said, folder)


def _tools(record: Mapping[str, object]) -> tuple[Tool, ...]:
    listed = _parsed(column(record, ("tools", "functions")))
    return () if listed is None else tools_of(listed)


def _sendable(row: Row) -> Row:
    """The row, if it can be sent."""
    if row.output_tokens == 0 or row.input_tokens == 0:
        raise Unusable("no tokens were read or written: the request failed where it was recorded")
    if not row.messages:
        if row.input_tokens is None:
            raise Unusable("the chat holds no message")
        return row
    if not row.opening or not any(message.role == "user" for message in row.opening):
        raise Unusable("the chat does not begin with the user")
    if row.opening[-1].role not in ("user", "tool"):
        raise Unusable("nothing is asked at the end of the chat's opening")
    try:
        for text in (*texts_of(row.messages, row.tools), *row.later):
            text.encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise Unusable(f"a text holds half of a character ({half}), which no request can carry") from None
    return row


def _count(record: Mapping[str, object], names: Sequence[str], most: int = _MOST_TOKENS) -> int | None:
    """A count of tokens; a figure that is none is named with its column."""
    value = column(record, names)
    if value is None:
        return None
    figure = math.nan
    if isinstance(value, str | int | float | Decimal) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            figure = float(value)
    if not 0 <= figure <= most:
        name = next(name for name in record if normal(str(name)) in names and record[name] not in (None, ""))
        what = "more tokens than any model reads" if most < figure < math.inf else "which is no number of tokens"
        raise ValueError(f"column '{name}' holds '{value}', {what}")
    return math.ceil(figure)


def _parsed(value: object) -> object:
    """Lists stand in cells of CSV as text."""
    return listed_in(value) if isinstance(value, str) else value


def _kind(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "a number"
    names = {list: "a list", dict: "an object", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), type(value).__name__)
