"""Questions whose right answer is known, made and solved without any data set. Pure.

Each maker takes chance (a seeded `Random`) and a difficulty from 1 on, and gives a `Puzzle`. `solve` reads a prompt
that holds one and gives its answer: a simulated endpoint has nothing else to go by.

| kind | asks | a higher difficulty brings |
| --- | --- | --- |
| arithmetic | `What is 17 + 4 - 9?` | more terms, more digits, from 3 on products |
| lookup | for a number that stands somewhere in the text | more facts of the same form to confuse it with |
| format | for so many items, for JSON with these keys, for words without a letter | more items, keys, letters |
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

ALONE = "Answer with the number alone."
_LETTERS = "etaoinshr"
"""From the most frequent on: the less there are left, the harder it is to do without."""
_MOST_PRODUCTS = 2


@dataclass(frozen=True, slots=True)
class Puzzle:
    """A question, what a right answer is, and sentences that have to stand somewhere before the question."""

    question: str
    expected: object
    facts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Solution:
    """What can be said to a question."""

    right: str
    wrong: str


# --- makers ----------------------------------------------------------------------------------------------------------


def arithmetic(draw: Random, difficulty: int) -> Puzzle:
    """A sum: two numbers of one digit at difficulty 1, then terms and digits in turn."""
    terms, digits = 2 + difficulty // 2, 1 + (difficulty - 1) // 2
    numbers = [draw.randint(10 ** (digits - 1), 10**digits - 1) for _ in range(terms)]
    signs = [draw.choice("+-") for _ in numbers[1:]]
    for at in range(min(_MOST_PRODUCTS, len(signs)) if difficulty >= 3 else 0):
        signs[at] = draw.choice("+-*")
    text = str(numbers[0]) + "".join(f" {sign} {number}" for sign, number in zip(signs, numbers[1:], strict=True))
    return Puzzle(f"What is {text}?", str(_value(text)))


def lookup(draw: Random, difficulty: int, words: Sequence[str]) -> Puzzle:
    """Facts of one form, as many as the difficulty, one of which is asked for."""
    names: dict[str, str] = {}
    while len(names) < difficulty:
        names.setdefault(" ".join(draw.sample(words, 2)), str(draw.randint(1000, 9999)))
    facts = tuple(f"The number of the {name} is {number}." for name, number in names.items())
    asked = draw.choice(list(names))
    return Puzzle(f"What is the number of the {asked}?", names[asked], facts)


def layout(draw: Random, difficulty: int, words: Sequence[str]) -> Puzzle:
    """An instruction that can be checked: `quality=format` reads what is expected."""
    kind = draw.choice(("items", "keys", "without"))
    if kind == "items":
        count = draw.randint(2, 3) + difficulty
        return Puzzle(
            f"List exactly {count} things from the text above, one a line, each after a hyphen.", {kind: count}
        )
    if kind == "keys":
        keys = draw.sample(words, 1 + difficulty)
        return Puzzle(
            f"Describe the text above as a JSON object with exactly these keys: {', '.join(keys)}.", {kind: keys}
        )
    letters = _LETTERS[: min(difficulty, len(_LETTERS))]
    named = f"the letter {letters}" if len(letters) == 1 else f"any of the letters {', '.join(letters)}"
    return Puzzle(f"Name three words that do not hold {named}, and write nothing else.", {kind: letters})


# --- checking a layout -----------------------------------------------------------------------------------------------

_ITEM = re.compile(r"^\s*(?:[-*•–]|\d+[.)])\s+\S", re.MULTILINE)


def follows(answer: str, found: object, asked: Mapping[str, object]) -> bool:
    """Whether an answer has the layout that was asked for; `found` is the JSON that stands in it, None without any."""
    if "items" in asked:
        return len(_ITEM.findall(answer)) == asked["items"]
    if "keys" in asked:
        keys = asked["keys"]
        return isinstance(found, Mapping) and isinstance(keys, list) and set(found) == set(keys)
    if "without" in asked:
        words = re.findall(r"[^\W\d_]+", answer)
        return len(words) == 3 and not set(answer.lower()) & set(str(asked["without"]))
    return False


# --- solving ---------------------------------------------------------------------------------------------------------

_SUM = re.compile(r"What is (\d+(?: [-+*] \d+)+)\?")
_ASKED = re.compile(r"What is the number of the (\w+ \w+)\?")
_ITEMS = re.compile(r"List exactly (\d+) things")
_KEYS = re.compile(r"JSON object with exactly these keys: ([^.]+)\.")
_WITHOUT = re.compile(r"do not hold (?:the letter|any of the letters) ([a-z, ]+?), and")
_THREE = ("sky", "dry", "fly", "cub", "fund", "my", "pulp", "buzz", "jump")


def solve(prompt: str) -> Solution | None:
    """The answer to the last puzzle of a prompt, and one that is wrong; None where it holds none."""
    sums, asked = _SUM.findall(prompt), _ASKED.findall(prompt)
    if sums:
        return beside(str(_value(sums[-1])))
    if asked:
        found = re.search(rf"The number of the {re.escape(asked[-1])} is (\d+)\.", prompt)
        return beside(found.group(1)) if found else None
    return _laid_out(prompt)


def _laid_out(prompt: str) -> Solution | None:
    if found := _ITEMS.search(prompt):
        lines = [f"- thing {number}" for number in range(1, int(found.group(1)) + 1)]
        return Solution("\n".join(lines), "\n".join(lines[1:]))
    if found := _KEYS.search(prompt):
        tree = dict.fromkeys(found.group(1).split(", "), "text")
        return Solution(json.dumps(tree), json.dumps({**tree, "more": "text"}))
    if found := _WITHOUT.search(prompt):
        letters = set(found.group(1).replace(", ", ""))
        words = [word for word in _THREE if not set(word) & letters]
        return Solution(", ".join((words * 3)[:3]), f"these {''.join(sorted(letters))} words")
    return None


def beside(right: str) -> Solution:
    """A right answer and one that no grader takes for it."""
    if re.fullmatch(r"-?\d+", right):
        return Solution(right, str(int(right) + 7))
    if re.fullmatch(r"[A-Za-z]", right):
        return Solution(right, "B" if right.upper() == "A" else "A")
    return Solution(right, "something else entirely")


def _value(text: str) -> int:
    """The value of a sum; products bind first."""
    total = product = 0
    tokens = ["+", *text.split()]
    for mark, number in zip(tokens[::2], tokens[1::2], strict=True):
        if mark == "*":
            product *= int(number)
        else:
            total, product = total + product, -int(number) if mark == "-" else int(number)
    return total + product
