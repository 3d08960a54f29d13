"""What a row of a file says a right answer is, and the question that such a layout asks.

| layout | known by | asked | expected |
| --- | --- | --- | --- |
| ours | `expected` | the prompt | as it stands: a text, a list of texts that will do, an object |
| GSM8K-like | `question`, `answer` (`… #### 72`) | the question | the answer; graders read what follows `####` |
| MMLU-, ARC-like | `choices` or `options`, or columns `A` to `D`; `answer` is a letter, a number or the choice itself | question and lettered choices | the letter |
| SQuAD-, TriviaQA-like | `context`, `question`, `answers` | context and question | every accepted text |

Other names of `answer`: `answers`, `answerKey`, `target`, `ideal`, `reference`, `ground_truth`, `gold`, `label`.
"""  # noqa: E501 -- a table

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from string import ascii_uppercase

_EXPECTED = ("expected", "expectedanswer", "expectedoutput")
_ANSWER = (
    "answerkey",
    "answer",
    "answers",
    "target",
    "ideal",
    "reference",
    "referenceanswer",
    "groundtruth",
    "gold",
    "label",
    "answerindex",
)
_CHOICES = ("choices", "options")
_TEXTS = ("text", "value", "aliases")
CHOOSE = "Answer with the letter of the right choice alone."


def expected_of(record: Mapping[str, object]) -> object:
    """What the row expects; None where it says nothing."""
    named, choices = _first(record, _EXPECTED), choices_of(record)
    answer = _first(record, _ANSWER) if named is None else named
    if choices and isinstance(answer, str | int):
        return _letter(answer, choices, _labels(record))
    return _texts(answer) if named is None else _listed(named)


def question_of(record: Mapping[str, object], prompt: str) -> str:
    """The question as it is asked: with its context before it and its choices behind it, where the row has any."""
    context = _first(record, ("context", "passage"))
    asked = f"{context}\n\n{prompt}" if isinstance(context, str) and context.strip() else prompt
    choices = choices_of(record)
    if not choices or _first(record, (*_EXPECTED, *_ANSWER)) is None:
        return asked
    lines = [f"{letter}. {text}" for letter, text in choices.items()]
    return "\n".join([asked, *lines, CHOOSE])


def choices_of(record: Mapping[str, object]) -> dict[str, str]:
    """Letter → text of a multiple-choice question; empty where it is none."""
    listed = _first(record, _CHOICES)
    if isinstance(listed, str) and listed.lstrip().startswith(("[", "{")):
        listed = _listed(listed)
    if isinstance(listed, Mapping):
        listed = listed["text"] if "text" in listed else {str(key): str(text) for key, text in listed.items()}
    if isinstance(listed, dict):
        return listed
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        return dict(zip(ascii_uppercase, map(str, listed), strict=False))
    columns = {letter: record[letter] for letter in ascii_uppercase[:10] if record.get(letter) not in (None, "")}
    return {letter: str(text) for letter, text in columns.items()} if len(columns) > 1 and "A" in columns else {}


def _labels(record: Mapping[str, object]) -> list[str]:
    """ARC's labels, which are numbers in some rows."""
    listed = _listed(_first(record, _CHOICES))
    labels = listed.get("label") if isinstance(listed, Mapping) else None
    return [str(label) for label in labels] if isinstance(labels, Sequence) else []


def _letter(answer: str | int, choices: Mapping[str, str], labels: Sequence[str]) -> str:
    """The letter of an answer that is a label, a letter, a position from 0 on, or the choice's text."""
    letters = list(choices)
    text = str(answer).strip()
    if text in labels:
        return letters[labels.index(text)]
    if text.upper() in choices:
        return text.upper()
    for letter, choice in choices.items():
        if choice.strip() == text and not isinstance(answer, int):
            return letter
    if text.isdigit() and int(text) < len(letters):
        return letters[int(text)]
    return text


def _texts(answer: object) -> object:
    """Accepted texts: of SQuAD's `{"text": […]}`, of TriviaQA's `{"value": …, "aliases": […]}`, else as it stands."""
    answer = _listed(answer)
    if isinstance(answer, Mapping) and any(name in answer for name in _TEXTS):
        found: list[object] = []
        for name in _TEXTS:
            held = answer.get(name)
            found += list(held) if isinstance(held, list | tuple) else [] if held is None else [held]
        return list(dict.fromkeys(map(str, found))) or None
    if isinstance(answer, list) and answer and all(isinstance(one, Mapping) for one in answer):
        texts = [str(one["text"]) for one in answer if "text" in one]
        return list(dict.fromkeys(texts)) or answer
    return None if answer == [] else answer


def _listed(value: object) -> object:
    """A list or an object that a cell of a table holds as JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            parsed: object = json.loads(value)
        except ValueError:
            return value
        return parsed
    return value


def _first(record: Mapping[str, object], names: Sequence[str]) -> object:
    found = {_normal(name): value for name, value in record.items() if isinstance(name, str)}
    return next((found[name] for name in names if found.get(name) not in (None, "")), None)


def _normal(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in " _-\ufeff")
