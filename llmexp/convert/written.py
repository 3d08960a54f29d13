"""A session as a line of the workload's file: ids renumbered, texts made up unless they are to be kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmexp.convert.exchange import Exchange, Tree, Unusable, list_of, text_of, tree_of
from llmexp.convert.grouping import Session, alone
from llmexp.convert.made_up import MadeUp, keys_of, tool_name
from llmexp.workload.chat import ROLES
from llmexp.workload.scripts import script_of


def check(found: Exchange, folder: Path) -> None:
    """Raises `Unusable` where a workload in `folder` could not read what the call is written as."""
    line = Writer(None).line(alone(found), 0)
    if not line["turns"]:
        raise Unusable("it asks nothing: its messages are the assistant's alone")
    try:
        json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unusable("a text holds half of a character, which no request can carry") from None
    try:
        script_of(line, folder)
    except ValueError as error:
        raise Unusable(str(error).removeprefix("turn 0: ")) from None


@dataclass
class Writer:
    """Writes sessions; `made_up` None keeps the texts."""

    made_up: MadeUp | None
    first_s: float | None = None
    """When the first session began; None: no times are written."""
    _ids: dict[str, str] = field(default_factory=dict)

    def line(self, session: Session, number: int) -> Tree:
        """The line of a session."""
        self._ids = {}
        made: Tree = {"session": f"s{number}"}
        if self.first_s is not None and session.start_s is not None:
            made["timestamp"] = round(session.start_s - self.first_s, 6)
        turns: list[Tree] = []
        before: object = []
        for at, turn in enumerate(session.turns):
            following = list_of(session.turns[at + 1]["messages"]) if at + 1 < len(session.turns) else ()
            answered = bool(following) and tree_of(following[0]).get("role") == "assistant"
            turns.append(self._turn(turn, before, keeps_answer=not answered))
            before = turn.get("tools") or []
        return made | {"turns": turns}

    def _turn(self, turn: Tree, tools_before: object, *, keeps_answer: bool) -> Tree:
        tools = list_of(turn.get("tools"))
        keys = frozenset[str]().union(*(keys_of(tree_of(each)) for each in tools))
        messages = [tree_of(message) for message in list_of(turn["messages"])]
        if keeps_answer and turn.get("answer") is not None:
            messages.append(tree_of(turn["answer"]))
        made: Tree = {"messages": [self._message(message, keys) for message in messages]}
        if list(tools) != list(list_of(tools_before)):
            made["tools"] = [self._tool(tree_of(each)) for each in tools]
        return made | {name: turn[name] for name in ("delay_s", "output_tokens") if name in turn}

    def _message(self, message: Mapping[str, object], keys: frozenset[str]) -> Tree:
        role = ROLES.get(str(message.get("role")), "user")
        made: Tree = {"role": role, "content": self._content(message.get("content"), role, keys)}
        calls = [self._call(tree_of(call), keys) for call in list_of(message.get("tool_calls"))]
        legacy = tree_of(message.get("function_call"))
        if legacy and not calls:
            calls = [self._call({"function": legacy, "id": legacy.get("name")}, keys)]
        if calls:
            made["tool_calls"] = calls
        if role == "tool":
            made["tool_call_id"] = self._id(str(message.get("tool_call_id") or message.get("name")))
        return made

    def _content(self, content: object, role: str, keys: frozenset[str]) -> object:
        if content is None:
            return None if role == "assistant" else ""
        if isinstance(content, str) or not list_of(content):
            return self._text(text_of(content), role, keys)
        return [self._part(tree_of(part), role, keys) for part in list_of(content)]

    def _part(self, part: Mapping[str, object], role: str, keys: frozenset[str]) -> Tree:
        asked = part.get("image_url") or part.get("image")
        if asked is not None:
            url = asked if isinstance(asked, str) else str(tree_of(asked).get("url") or "")
            return {"type": "image_url", "image_url": {"url": self.made_up.image_url(url) if self.made_up else url}}
        text = next((part[name] for name in ("text", "refusal") if isinstance(part.get(name), str)), None)
        return {"type": "text", "text": self._text(text_of(dict(part)) if text is None else str(text), role, keys)}

    def _text(self, text: str, role: str, keys: frozenset[str]) -> str:
        if self.made_up is None:
            return text
        return self.made_up.json_text(text, keys) if role == "tool" else self.made_up.text(text)

    def _call(self, call: Mapping[str, object], keys: frozenset[str]) -> Tree:
        function = tree_of(call.get("function"))
        name, arguments = str(function.get("name")), text_of(function.get("arguments") or "{}")
        if self.made_up is not None:
            name, arguments = self._name(name), self.made_up.json_text(arguments, keys)
        made: Tree = {"name": name, "arguments": arguments}
        return {"id": self._id(str(call.get("id") or name)), "type": "function", "function": made}

    def _tool(self, tool: Mapping[str, object]) -> Tree:
        function = dict(tree_of(tool.get("function")) or tool)
        if self.made_up is None:
            return {"type": "function", "function": function}
        made: Tree = {"name": self._name(str(function.get("name")))}
        if isinstance(function.get("description"), str):
            made["description"] = self.made_up.text(str(function["description"]))
        if isinstance(function.get("parameters"), Mapping):
            made["parameters"] = self.made_up.schema(function["parameters"])
        return {"type": "function", "function": made}

    def _name(self, name: str) -> str:
        """A tool's name stays: it is what answers are held against. Unless it is no name."""
        assert self.made_up is not None
        return name if tool_name(name) else self.made_up.name(name)

    def _id(self, real: str) -> str:
        return self._ids.setdefault(real, f"call_{len(self._ids)}")
