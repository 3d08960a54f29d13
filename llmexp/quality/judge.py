"""A judge's requests, and what its replies mean. Pure: `llmexp.jobs` runs the judges' load."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from llmexp.config import Quality
from llmexp.quality.grade import Given, Grade, graded, ungraded, unparsed
from llmexp.quality.numbers import final_number
from llmexp.quality.patience import TooLong, within
from llmexp.quality.rules import NOTHING_EXPECTED, group_of
from llmexp.quality.texts import plain, without_thoughts, wordless
from llmexp.workload.kit import digest, user
from llmexp.workload.request import Request

REPLY_TOKENS = 1024
"""The limit of a judge's reply; it may think aloud before it names its grade."""
_HOLES = re.compile(r"\{(question|answer|expected)\}")
_WORDS = {
    **dict.fromkeys(("right", "correct", "yes", "true", "pass", "passed", "good"), 1.0),
    **dict.fromkeys(("wrong", "incorrect", "no", "false", "fail", "failed", "bad"), 0.0),
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a judge said of one answer; `text` None: the call failed, `problem` says how."""

    text: str | None
    problem: str | None = None


def settled(quality: Quality, given: Given) -> Grade | None:
    """The grade of an answer that no judge needs to see; None where one does."""
    if "{expected}" in quality.judge.rubric and given.expected is None:
        return ungraded(NOTHING_EXPECTED)
    if wordless(given.text) and not given.tool_calls:
        return unparsed("the answer is empty")
    return None


def request(index: int, rubric: str, given: Given, count: int) -> Request:
    """What a judge is asked about one answer; `count`: tokens of the prompt, or a guess at them."""
    prompt = filled(rubric, given)
    return Request(
        index=index,
        messages=(user(prompt),),
        max_tokens=REPLY_TOKENS,
        input_tokens=count,
        prompt_digest=digest([prompt], REPLY_TOKENS),
    )


def filled(rubric: str, given: Given) -> str:
    """The rubric with question, answer and expected put in, once each: what an answer holds stays."""
    calls = [{"name": call.name, "arguments": call.arguments} for call in given.tool_calls]
    answer = given.text if not calls else f"{given.text}\n{json.dumps(calls, ensure_ascii=False)}".strip()
    parts = {"question": given.question, "answer": answer, "expected": _shown(given.expected)}
    return _HOLES.sub(lambda found: parts[found.group(1)], rubric)


def _shown(expected: object) -> str:
    if isinstance(expected, str):
        return expected
    if isinstance(expected, list) and all(isinstance(one, str) for one in expected):
        return " or ".join(expected)
    return "" if expected is None else json.dumps(expected, ensure_ascii=False)


def score_of(text: str, pattern: str) -> float | None:
    """The grade that a reply names, from 0 to 1; None where it names none."""
    try:
        with within():
            held = group_of(re.compile(pattern, re.MULTILINE), without_thoughts(text))
    except TooLong:
        return None
    if held is None:
        return None
    word = plain(held)
    if word in _WORDS:
        return _WORDS[word]
    number = final_number(held)
    if number is None:
        return None
    # A percentage may be read as a share, and only that is a grade.
    shares = [float(value) for value in number.readings if 0 <= value <= 1]
    return shares[-1] if shares else None


def verdict(quality: Quality, replies: Sequence[Reply]) -> Grade:
    """The judges' votes: right by majority, which is what the median of their scores says."""
    scores: list[float] = []
    for reply in replies:
        if reply.text is None:
            return ungraded(f"the judge did not answer: {reply.problem}")
        score = score_of(reply.text, quality.judge.answer)
        if score is None:
            return ungraded(f"the judge named no grade: {reply.text[-120:]}", quotes=True)
        scores.append(score)
    note = None if len(scores) == 1 else "votes: " + ", ".join(f"{score:g}" for score in scores)
    return graded(float(median(scores)), quality.right_from, note)
