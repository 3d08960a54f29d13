"""Ollama's own wire (`/api/chat`, `/api/generate`): a JSON object a line.

There is a decoder only; LiteLLM prepares these requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.clients import failures
from llmexp.clients.base import Usage
from llmexp.clients.decoding import Draft, Wire, as_text, total
from llmexp.clients.json_text import listing, mapping


def _is_chunk(tree: Mapping[str, object]) -> bool:
    return "done" in tree and not failures.is_error({key: tree[key] for key in tree if key != "message"})


def _take(draft: Draft, at_ns: int, _event: str, tree: Mapping[str, object]) -> None:
    message = mapping(tree.get("message")) or tree
    draft.say(at_ns, "reasoning", as_text(message.get("thinking")))
    draft.say(at_ns, "answer", as_text(message.get("content") or tree.get("response")))
    for call in listing(message.get("tool_calls")):
        function = mapping(mapping(call).get("function"))
        draft.call(at_ns, as_text(function.get("name")), as_text(function.get("arguments")))
    if tree["done"]:
        draft.finished = True
        draft.end(tree.get("done_reason"))
        read = total(tree.get("prompt_eval_count"))  # left out where the whole prompt was cached
        draft.count(Usage(read, total(tree.get("eval_count"))))
        draft.took(tree.get("total_duration"), per_second=1e9)


WIRE = Wire(_is_chunk, _take)
