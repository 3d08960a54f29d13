"""ShareGPT's chats: a JSON array (or lines) of `{"id", "conversations": [{"from": "human", "value": …}, …]}`."""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.convert.exchange import Exchange, Tree, Unusable, list_of, seconds_of, tree_of

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def exchange_of(record: Mapping[str, object]) -> Exchange:
    """The whole chat of a record; raises `Unusable`."""
    named = (list_of(record.get(name)) for name in ("conversations", "conversation", "items"))
    listed = next((found for found in named if found), ())
    if not listed:
        raise Unusable("no conversations")
    messages: list[Tree] = []
    for entry in listed:
        each = tree_of(entry)
        said = str(each.get("from") or each.get("role") or "").lower()
        if said not in _ROLES:
            raise Unusable(f"a turn of '{said}', which is none of {', '.join(_ROLES)}")
        text = each.get("value", each.get("content"))
        if isinstance(text, str) and text:
            messages.append({"role": _ROLES[said], "content": text})
    remark = ""
    while messages and messages[0]["role"] == "assistant":
        messages.pop(0)
        remark = "begins with an answer, which was left out: no request led to it"
    if not any(message["role"] == "user" for message in messages):
        raise Unusable("the user says nothing")
    return Exchange(messages, start_s=seconds_of(record.get("timestamp")), whole=True, remark=remark)
