"""What the simulator knows: the right answer to a question, and whether it gives it.

It solves what `workload=arithmetic`, `lookup` and `format` ask, grades where it is asked to judge with the rubric that
ships, and looks everything else up in the answers that a job hands it; where such an answer is the call of a tool that
the request offers, it calls that tool. Whether an answer is right follows from the seed
and the whole question: a job's nonce draws it anew. At temperature 0 the nonce does not count, so that the same
question gets the same answer whenever it is asked.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic
from typing import Literal

from llmexp.endpoints.simulator.options import Options
from llmexp.workload import words
from llmexp.workload.answers import bare_digest, right_text
from llmexp.workload.puzzles import Solution, beside, solve

Kind = Literal["right", "wrong", "unparsed"]
FULL = 8
"""Requests in flight at which a simulator without slots is under full load."""
MEMORY_S = 3.0
NOTHING_SAID = "…"
_OTHER_ARGUMENTS = '{"other": true}'
_ARGUMENTS = ("arguments", "args", "parameters", "input")
_RUBRIC = re.compile(r"\[Right answer\]\n(.*?)\n\n\[Answer to grade\]\n(.*?)\n\nDoes the answer", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer that was chosen, and what it is."""

    kind: Kind
    pieces: tuple[str, ...]
    """Its tokens; of a call, those of its arguments."""
    tool: str | None = None
    """The tool that it calls."""


class Knowledge:
    """What one simulator knows."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._answers: Mapping[str, str] = {}
        self._recent: deque[tuple[float, int]] = deque()
        """(when, requests in flight), falling: the first one is the most of those that count."""
        if options.answers is not None:
            self._answers = json.loads(Path(options.answers).read_text(encoding="utf-8"))

    def says(
        self, question: str, in_flight: int, temperature: object, tools: frozenset[str] = frozenset()
    ) -> Said | None:
        """What is answered to a question; None: words, as no answer is known or none is to be right.

        An answer that calls one of `tools` is given as that call: a wrong one has other arguments.
        """
        if self._options.accuracy is None:
            return None
        solution = self._solution(question)
        if solution is None:
            return None
        kind = self._kind(self._chance(question, temperature), self._busiest(in_flight))
        call = call_in(solution.right, tools)
        if call is not None and kind != "unparsed":
            name, arguments = call
            return Said(kind, tuple(words.pieces(arguments if kind == "right" else _OTHER_ARGUMENTS)), name)
        text = {"right": solution.right, "wrong": solution.wrong, "unparsed": NOTHING_SAID}[kind]
        return Said(kind, tuple(words.pieces(text)))

    def _solution(self, question: str) -> Solution | None:
        if found := _RUBRIC.search(question):
            wanted = (right_text(found.group(1)) or "").casefold().split(" or ")
            same = any(text.strip() in found.group(2).casefold() for text in wanted)
            verdicts = ("GRADE: RIGHT", "GRADE: WRONG")
            return Solution(*(verdicts if same else verdicts[::-1]))
        known = self._answers.get(bare_digest(question))
        return solve(question) if known is None else beside(known)

    def _chance(self, question: str, temperature: object) -> float:
        settled = isinstance(temperature, int | float) and temperature == 0
        return Random(f"{self._options.seed}/{bare_digest(question) if settled else question}").random()

    def _kind(self, chance: float, in_flight: int) -> Kind:
        right = self.accuracy(in_flight)
        if chance < right:
            return "right"
        return "unparsed" if chance >= 1 - self._options.unparsed_share else "wrong"

    def _busiest(self, in_flight: int) -> int:
        """The most requests in flight within the last `MEMORY_S`: a closed loop's requests may come in waves, whose
        first one would meet an idle server.
        """
        now, recent = monotonic(), self._recent
        while recent and recent[0][0] < now - MEMORY_S:
            recent.popleft()
        while recent and recent[-1][1] <= in_flight:
            recent.pop()
        recent.append((now, in_flight))
        return recent[0][1]

    def accuracy(self, in_flight: int) -> float:
        """The share right with so many requests in flight, this one included."""
        alone, full = self._options.accuracy or 0.0, self._options.accuracy_under_load
        if full is None:
            return alone
        slots = self._options.slots or FULL
        load = min(1.0, (in_flight - 1) / (slots - 1)) if slots > 1 else float(in_flight > 1)
        return alone + (full - alone) * load


def asked(body: Mapping[str, object]) -> str:
    """The text of the last message of a request, whatever wire it speaks."""
    for name in ("messages", "contents"):
        messages = body.get(name)
        if isinstance(messages, list) and messages:
            return _text(messages[-1])
    prompt = body.get("prompt", body.get("inputs"))
    return prompt if isinstance(prompt, str) else ""


def _text(message: object) -> str:
    """The text of a message: its `content` or `parts`, as a string or as parts with a `text`."""
    if not isinstance(message, Mapping):
        return ""
    content = message.get("content", message.get("parts"))
    if isinstance(content, str):
        return content
    return "".join(map(_of_part, content)) if isinstance(content, list) else ""


def _of_part(part: object) -> str:
    """The text of a part, be it the result of a tool in Anthropic's or Bedrock's words."""
    if not isinstance(part, Mapping):
        return ""
    result = part.get("toolResult", part)
    return _text(result) if isinstance(result, Mapping) and "content" in result else str(part.get("text") or "")


def offered(body: Mapping[str, object]) -> frozenset[str]:
    """The names of the tools that a request offers, whatever wire it speaks."""
    config = body.get("toolConfig")
    listed = config.get("tools") if isinstance(config, Mapping) else body.get("tools")
    tools = listed if isinstance(listed, list) else []
    names = [one.get("name") for tool in tools for one in _declared(tool)]
    return frozenset(name for name in names if isinstance(name, str))


def _declared(tool: object) -> list[Mapping[str, object]]:
    """A tool's declarations: one, but for Gemini's lists of them."""
    if not isinstance(tool, Mapping):
        return []
    for name in ("function", "toolSpec"):
        if isinstance(tool.get(name), Mapping):
            return [tool[name]]
    several = tool.get("functionDeclarations", tool.get("function_declarations"))
    return [one for one in several if isinstance(one, Mapping)] if isinstance(several, list) else [tool]


def call_in(text: str, tools: frozenset[str]) -> tuple[str, str] | None:
    """(name, arguments as JSON) of a right answer that is the call of an offered tool; None where it is none."""
    if text in tools:
        return text, "{}"
    try:
        tree = json.loads(text) if tools and text.startswith("{") else None
    except ValueError:
        return None
    if isinstance(tree, dict) and isinstance(several := tree.get("tool_calls"), list) and len(several) == 1:
        tree = several[0]
    if isinstance(tree, dict) and isinstance(tree.get("function"), dict):
        tree = tree["function"]
    if not isinstance(tree, dict) or tree.get("name") not in tools:
        return None
    arguments: object = next((tree[name] for name in _ARGUMENTS if name in tree), {})
    return tree["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def temperature(body: Mapping[str, object]) -> object:
    """The temperature that a request asks for, whatever wire it speaks; None where it asks for none."""
    for place in (body, *(body.get(name) for name in ("inferenceConfig", "generationConfig", "parameters"))):
        if isinstance(place, Mapping) and "temperature" in place:
            return place["temperature"]
    return None
