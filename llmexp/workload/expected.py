"""What a row of a file says a right answer is, and the question that such a layout asks.

| layout | known by | asked | expected |
| --- | --- | --- | --- |
| ours | `expected` | the prompt | as it stands: a text, a list of texts that will do, an object |
| GSM8K-like | `question`, `answer` (`… #### 72`) | the question | the answer; graders read what follows `####` |
| MMLU-, ARC-, HellaSwag-like | `choices`, `options` or `endings`, or columns `A` to `D`, `option1`, …; `answer` is a letter, a number or the choice itself | question and lettered choices | the letter |
| GPQA-, SciQ-like, TruthfulQA's `mc1_targets` | a right answer and wrong ones apart (`llmexp.workload.distractors`) | question and lettered choices | the letter |
| SQuAD-, TriviaQA-, BoolQ-, RACE-like | `context`, `passage`, `article`, …; `question`, `answers` | context and question | every accepted text; yes or no |

Other names of `answer`: `answers`, `answerKey`, `target`, `ideal`, `reference`, `ground_truth`, `gold`, `label`, `correct_answer`,
`referenceResponse`, `solution`. One that can only be what is right goes before `answer`, which may be some model's.
"""  # noqa: E501 -- a table

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

from llmexp.workload.distractors import drawn
from llmexp.workload.layouts import context_of
from llmexp.workload.tables import column, normal

_EXPECTED = ("expected", "expectedanswer", "expectedoutput", "expectedresponse")
_ANSWER = (
    "answerkey",
    "groundtruth",
    "groundtruths",
    "goldanswer",
    "referenceanswer",
    "referenceresponse",
    "referenceoutput",
    "answer",
    "answers",
    "answerspans",
    "answersspans",
    "target",
    "targets",
    "targetoutput",
    "ideal",
    "reference",
    "references",
    "gold",
    "correctanswer",
    "correctanswers",
    "bestanswer",
    "correctoption",
    "correctchoice",
    "answernumber",
    "correct",
    "label",
    "answerindex",
    "answeridx",
    "cop",
    "solution",
)
_CHOICES = ("choices", "options", "endings")
_NUMBERED = re.compile(r"(?:option|choice|sol|ending|op|answer)([0-9]|[a-j])")
_TEXTS = ("text", "value", "aliases", "spans")
_LETTERED = re.compile(r"\s*\(?([A-Z])[.):]\s*(\S.*)", re.DOTALL)
CHOOSE = "Answer with the letter of the right choice alone."


def expected_of(record: Mapping[str, object]) -> object:
    """What the row expects; None where it says nothing."""
    named = column(record, _EXPECTED)
    apart = drawn(record) if named is None else None
    if apart is not None:
        return apart.right
    answer = _listed(column(record, _ANSWER) if named is None else named)
    choices = choices_of(record)
    if choices and isinstance(answer, str | int | float):
        return _letter(answer, choices, record)
    if choices and isinstance(answer, list) and all(isinstance(one, str | int | float) for one in answer):
        letters = [_letter(one, choices, record) for one in answer]
        return [letter for letter in letters if letter is not None] or None
    return _none_if_empty(_texts(answer) if named is None else answer)


def _none_if_empty(expected: object) -> object:
    """Null, an empty text or list and NaN say nothing; an empty object is one."""
    if expected in (None, "", []) or (isinstance(expected, float) and math.isnan(expected)):
        return None
    return expected


def question_of(record: Mapping[str, object], prompt: str) -> str:
    """The question as it is asked: with its context before it and its choices behind it, where the row has any."""
    context = context_of(record)
    asked = f"{context}\n\n{prompt}" if context.strip() and context not in prompt else prompt
    apart = drawn(record) if column(record, _EXPECTED) is None else None
    choices = choices_of(record) if apart is None else apart.choices
    if not choices or (apart is None and column(record, (*_EXPECTED, *_ANSWER)) is None):
        return asked
    if all(text in prompt for text in choices.values()):
        return asked
    lines = [f"{letter}. {text}" for letter, text in choices.items()]
    return "\n".join([asked, *lines, CHOOSE])


def choices_of(record: Mapping[str, object]) -> dict[str, str]:
    """Letter → text of a multiple-choice question; empty where it is none."""
    listed = _choices(record)
    if isinstance(listed, Mapping):
        listed = listed["text"] if "text" in listed else {str(key): str(text) for key, text in listed.items()}
    if isinstance(listed, dict):
        return listed
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        return dict(zip(ascii_uppercase, _unlettered([_words(one) for one in listed]), strict=False))
    columns = {letter: record[letter] for letter in ascii_uppercase[:10] if record.get(letter) not in (None, "")}
    if len(columns) > 1 and "A" in columns:
        return {letter: str(text) for letter, text in columns.items()}
    numbered = _numbered(record)
    return dict(zip(ascii_uppercase, numbered.values(), strict=False)) if len(numbered) > 1 else {}


def _choices(record: Mapping[str, object]) -> object:
    """What the row has under a name of choices; ARC's own files have it inside the question."""
    listed = column(record, _CHOICES)
    question = column(record, ("question",))
    if listed is None and isinstance(question, Mapping):
        listed = column(question, _CHOICES)
    return _listed(listed)


def _words(choice: object) -> str:
    """A choice's text, of a text itself or of `{"text": …, "label": …}`."""
    return str(choice["text"]) if isinstance(choice, Mapping) and "text" in choice else str(choice)


def _unlettered(choices: list[str]) -> list[str]:
    """Choices that bring their letters, as `B) Paris`, without them."""
    found = [_LETTERED.fullmatch(choice) for choice in choices]
    if [match and match.group(1) for match in found] != list(ascii_uppercase[: len(choices)]):
        return choices
    return [match.group(2) for match in found if match]


def _numbered(record: Mapping[str, object]) -> dict[str, str]:
    """Choices in columns of their own: `option1`, `option2`; `ending0`, …; `opa`, …: suffix → text."""
    found = {normal(name): str(value) for name, value in record.items() if value not in (None, "")}
    return {match.group(1): text for name, text in sorted(found.items()) if (match := _NUMBERED.fullmatch(name))}


def _labels(record: Mapping[str, object]) -> list[str]:
    """What the row calls its choices: ARC's labels, which are numbers in some rows; the ends of `option1`, …"""
    listed = _choices(record)
    if listed is None and "answera" in map(normal, map(str, record)):
        return list("123456789")  # SIQA counts its answerA, answerB, … from 1
    labels = listed.get("label") if isinstance(listed, Mapping) else None
    if isinstance(listed, list):
        labels = [one.get("label") for one in listed if isinstance(one, Mapping)]
    return [str(label) for label in labels] if isinstance(labels, Sequence) else []


def _letter(answer: str | float, choices: Mapping[str, str], record: Mapping[str, object]) -> str | None:
    """The letter of an answer that is a label, a letter, a position from 0 on, or the choice's text.

    None for a position that no choice has, as where a row of a test set hides its answer.
    """
    letters, labels = list(choices), _labels(record)
    if isinstance(answer, float) and answer.is_integer():
        answer = int(answer)  # tables with a gap write 1 as 1.0
    text = str(int(answer) if isinstance(answer, bool) else answer).strip()
    if isinstance(answer, str):
        labels = labels or list(_numbered(record))
    if text in labels and labels.index(text) < len(letters):
        return letters[labels.index(text)]
    if text.upper() in choices:
        return text.upper()
    for letter, choice in choices.items():
        if choice.strip() == text and isinstance(answer, str):
            return letter
    if text.lstrip("-").isdigit():
        return letters[int(text)] if 0 <= int(text) < len(letters) else None
    lettered = re.match(r"\(?([A-Z])[.):]", text)
    return lettered.group(1) if lettered and lettered.group(1) in choices else text


def _texts(answer: object) -> object:
    """Accepted texts: of SQuAD's `{"text": […]}`, of TriviaQA's `{"value": …, "aliases": […]}`, else as it stands."""
    named = {normal(str(name)): held for name, held in answer.items()} if isinstance(answer, Mapping) else {}
    if any(name in named for name in _TEXTS):
        found: list[object] = []
        for name in _TEXTS:
            held = named.get(name)
            found += list(held) if isinstance(held, list | tuple) else [] if held is None else [held]
        return list(dict.fromkeys(map(str, found)))
    if isinstance(answer, list) and answer and all(isinstance(one, Mapping) for one in answer):
        texts = [str(one["text"]) for one in answer if "text" in one]
        return list(dict.fromkeys(texts)) or answer
    return answer


def _listed(value: object) -> object:
    """A list or an object that a cell of a table holds, as JSON or as Python writes it."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    for read in (json.loads, _python) if "\\" not in value else (json.loads,):
        try:
            parsed: object = read(value.strip())
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        return parsed
    return value


def _python(text: str) -> object:
    """A list or an object as Python writes it; raises errors of many kinds for anything else, sets included."""
    parsed: object = json.loads(json.dumps(ast.literal_eval(text)))
    return parsed
