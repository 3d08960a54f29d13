"""Rows as other APIs and tools wrap them, laid flat: batch files, logs of requests, data sets of MLflow and LangSmith.

Also lists and chats that stand as text in a cell: as JSON, or as Python wrote them.
"""

from __future__ import annotations

import ast
import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from llmexp.workload.tables import column, normal

_WRAPS = ("body", "row", "doc")
_REQUESTS = ("params", "modelInput", "request")
"""Names of a whole request in batch files: Anthropic's, Bedrock's, Vertex AI's."""
_ASKS = frozenset({"messages", "contents", "prompt", "inputs", "input", "inputText"})
_SETTINGS = frozenset({"parameters", "generationconfig", "inferenceconfig", "textgenerationconfig", "options"})
"""Objects beside the prompt that hold the limit: TGI's, Gemini's, Converse's, Titan's, Ollama's."""
_CONTEXT = (
    "context",
    "contexts",
    "passage",
    "passages",
    "article",
    "narrative",
    "story",
    "premise",
    "body",
    "document",
    "documents",
    "retrievedcontexts",
    "ctxs",
)
"""What a question is about: SQuAD's, LongBench's, RACE's, HotpotQA's, Ragas', DPR's names."""
_PICTURES = ("image", "images", "imageurl", "imageurls", "imagepath", "imagepaths")
_KINDS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"GIF8": "gif", b"RIFF": "webp"}
_TOLD = ("text", "content", "passage_text", "page_content", "passage", "paragraph_text", "body")
_DEEPEST = 4
_LITERAL_BYTES = 4 << 20
_MANY_IDS = 16
_PYTHON = re.compile(r"\s*\[?\s*\{\s*'(?:role|from|content|value)'\s*:")
_BETWEEN_ROWS = re.compile(r"\}\s*\n\s*\{")
_WORD_SPEAKS = ("role", "from")


def flat(record: Mapping[str, object], budgets: Sequence[str]) -> Mapping[str, object]:
    """The row with what stands in columns of its inner objects; `budgets` are names of limits, in `normal` letters."""
    for name in _WRAPS:
        if isinstance(inside := record.get(name), Mapping):
            return flat(inside, budgets)
    for name in _REQUESTS:
        inside = record.get(name)
        if isinstance(inside, Mapping) and not _ASKS.isdisjoint(inside) and _ASKS.isdisjoint(record):
            return flat(inside, budgets)
    inputs = record.get("inputs")
    if isinstance(inputs, Mapping) and not {"role", "from", "content", "parts"} & inputs.keys():
        unpacked = {name: value for name, value in record.items() if name != "inputs"} | dict(inputs)
        for name in ("outputs", "expectations"):
            if isinstance(inside := record.get(name), Mapping):
                unpacked |= inside
        record = unpacked
    return {**dict(_limits(record, budgets)), **record}


def _limits(record: Mapping[str, object], budgets: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Limits that stand among the settings of a request."""
    for name, value in record.items():
        if isinstance(name, str) and isinstance(value, Mapping) and normal(name) in _SETTINGS:
            yield from ((key, inner) for key, inner in value.items() if normal(str(key)) in budgets)


def pictures_of(record: Mapping[str, object]) -> list[dict[str, object]]:
    """The pictures beside a row's prompt, as parts of a message. Raises `ValueError` for what is no picture."""
    found = column(record, _PICTURES)
    listed = found if isinstance(found, list) else [] if found is None else [found]
    return [{"type": "image", "image": _picture(one)} for one in listed if one is not None]


def _picture(found: object) -> str:
    """A path or an address; bytes as a `data:` URL, their kind told by how they begin."""
    if isinstance(found, Mapping):  # as `datasets` keeps them
        found = found.get("bytes") or found.get("path") or found.get("url")
    if isinstance(found, bytes):
        kind = next((kind for mark, kind in _KINDS.items() if found.startswith(mark)), None)
        found = kind and f"data:image/{kind};base64,{base64.b64encode(found).decode()}"
    if not isinstance(found, str) or not found:
        raise ValueError("its column of pictures holds neither paths, nor addresses, nor PNG, JPEG, GIF or WebP files")
    return found


def context_of(record: Mapping[str, object]) -> str:
    """The text that a row's question is about, of one text or several; empty where there is none."""
    context = column(record, _CONTEXT)
    if isinstance(context, str) and context.lstrip()[:1] == "[":
        listed = _literal(context)
        context = listed if isinstance(listed, list) else context
    return _told(context)


def _told(value: object, depth: int = 0) -> str:
    """The texts of a passage, a list of them, or HotpotQA's titles and sentences."""
    if isinstance(value, str):
        return value
    if depth >= _DEEPEST:
        return ""
    if isinstance(value, Mapping):
        titles, sentences = value.get("title"), value.get("sentences")
        if isinstance(titles, list) and isinstance(sentences, list):
            return _told([[title, said] for title, said in zip(titles, sentences, strict=False)], depth + 1)
        text = next((value[name] for name in _TOLD if isinstance(value.get(name), str)), "")
        return f"{titles}\n{text}" if isinstance(titles, str) and titles and text else str(text)
    if not isinstance(value, list):
        return ""
    if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], list):  # a title and its sentences
        return f"{value[0]}\n{''.join([text for text in value[1] if isinstance(text, str)])}"
    return "\n\n".join([text for one in value if (text := _told(one, depth + 1))])


def from_text(prompt: object) -> object:
    """The messages or token ids that a text holds, as cells of CSV do; any other prompt as it is.

    Raises `ValueError` for a chat as Python prints it that cannot be read: it would be sent as it is printed.
    """
    if not isinstance(prompt, str) or prompt.lstrip()[:1] not in ("[", "{"):
        return prompt
    parsed = _literal(prompt)
    listed = [parsed] if isinstance(parsed, Mapping) else parsed
    if isinstance(listed, list) and listed and (all(map(_is_message, listed)) or _are_many_ids(listed)):
        return listed
    if parsed is None and _PYTHON.match(prompt):
        raise ValueError(
            "it holds messages as Python prints them, and they cannot be read: write JSON lines or Parquet"
        )
    return prompt


def listed_in(text: str) -> object:
    """The list that a cell holds. Raises `ValueError` for any other text."""
    parsed = _literal(text)
    if parsed is None:
        raise ValueError(f"a list was expected, got the text '{text[:60]}'")
    return parsed


def _literal(text: str) -> object:
    """A value as JSON or Python writes it; None for what is neither."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return value
    if len(text) > _LITERAL_BYTES or text.lstrip()[:1] not in ("[", "{"):
        return None
    try:  # rows of an array stand in lines, without commas
        value = ast.literal_eval(_BETWEEN_ROWS.sub("},{", text).strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return value


def _is_message(value: object) -> bool:
    return isinstance(value, Mapping) and any(word in value for word in _WORD_SPEAKS)


def _are_many_ids(values: Sequence[object]) -> bool:
    """Whether a list is of token ids: fewer numbers may be somebody's question."""
    return len(values) >= _MANY_IDS and all(isinstance(value, int) and not isinstance(value, bool) for value in values)
