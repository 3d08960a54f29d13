"""ShareGPT's chats: a JSON array (or lines) of `{"id", "conversations": [{"from": "human", "value": …}, …]}`."""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.convert.exchange import Exchange, Tree, Unusable, list_of, seconds_of, tree_of
from llmexp.workload.chat import SHAREGPT_ROLES


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
        role = SHAREGPT_ROLES.get(said)
        if role in (None, "tool"):
            known = [name for name, meant in SHAREGPT_ROLES.items() if meant != "tool"]
            raise Unusable(f"a turn of '{said}', which is none of {', '.join(known)}")
        text = each.get("value", each.get("content"))
        if isinstance(text, str) and text:
            messages.append({"role": role, "content": text})
    remark = ""
    while messages and messages[0]["role"] == "assistant":
        messages.pop(0)
        remark = "begins with an answer, which was left out: no request led to it"
    if not any(message["role"] == "user" for message in messages):
        raise Unusable("the user says nothing")
    return Exchange(messages, start_s=seconds_of(record.get("timestamp")), whole=True, remark=remark)
