"""Prompts of an exact token count, made of prose that was written for this project.

A prompt is a nonce, whole sentences in a seeded order, and a closing instruction. Each sentence's token count is known
once per process; the last sentence is chosen so that the counts sum up to what is left. The whole is then counted, and
put right where a tokenizer joins pieces in a way that sums do not see.

The body is fitted with a reference nonce in place of the real one. So it depends on the seed, the index and the
tokenizer that sizes it, whatever the job's nonce is.

That tokenizer is the workload's, never the model's (`source_for`): all models get the same text. And it is as long to
all of them: in `corpus.txt` every word with the space before it, and every mark, is one token in cl100k, o200k, and the
tokenizers of Anthropic, DeepSeek and SmolLM2; every word of a nonce is, with and without the space. Whoever adds a
sentence keeps it so; a test says which word is not. Hence no hyphens, apostrophes, digits or newlines.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property, lru_cache
from hashlib import blake2b
from importlib.resources import files
from random import Random
from typing import NamedTuple

from llmexp.workload.lengths import seeded
from llmexp.workload.tokens import Tokenizer

NONCE_WORDS = 4
_TRIES = 4


class Prompt(NamedTuple):
    """A user text and its count."""

    text: str
    tokens: int
    bare: str
    """The text without its nonce: what a digest is taken of."""


@lru_cache(maxsize=1)
def nonce_words() -> tuple[str, ...]:
    """Words that are one token to all common tokenizers, alone and after a space."""
    return tuple((files("llmexp.workload") / "nonce.txt").read_text(encoding="ascii").split())


@lru_cache(maxsize=1)
def _sentences() -> tuple[str, ...]:
    """Sentences with a space before each; every one ends in a full stop."""
    lines = (files("llmexp.workload") / "corpus.txt").read_text(encoding="ascii").splitlines()
    return tuple(f" {line}" for line in lines)


def nonce_text(job: str, name: str, index: int) -> str:
    """A few words that no other prompt begins with, such as `amber river stone window.`."""
    words = nonce_words()
    digest = blake2b(f"{job}/{name}/{index}".encode(), digest_size=2 * NONCE_WORDS + 8).digest()
    number, picked = int.from_bytes(digest, "big"), []
    for _ in range(NONCE_WORDS):
        number, at = divmod(number, len(words))
        picked.append(words[at])
    return " ".join(picked) + "."


def reference_nonce() -> str:
    """Stands for any nonce while a body is fitted."""
    return " ".join(nonce_words()[:NONCE_WORDS]) + "."


class Composer:
    """Makes prompts with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._stop = tokenizer.count(".")
        self._costs = [count - self._stop for count in tokenizer.count_many(f".{text}" for text in _sentences())]
        self._by_cost: dict[int, list[int]] = defaultdict(list)
        for at, cost in enumerate(self._costs):
            self._by_cost[cost].append(at)
        self._least, self._most = self._reachable()
        self.cost_after_stop = lru_cache(maxsize=4096)(self._cost_after_stop)
        self.count = lru_cache(maxsize=256)(tokenizer.count)

    def _reachable(self) -> tuple[int, int]:
        """What a last sentence can fill: the longest run of counts for each of which there is a sentence.

        Its upper part is left out, as few sentences are that long: short prompts would be alike too often.
        """
        runs, costs = [], sorted(self._by_cost)
        first = costs[0]
        for here, following in zip(costs, [*costs[1:], costs[-1] + 2], strict=True):
            if following != here + 1:
                runs.append((here - first, first, here))
                first = following
        _, least, most = max(runs)
        return least, min(most, 3 * least)

    def _cost_after_stop(self, text: str) -> int:
        """What a text adds to one that ends in a full stop."""
        return self.tokenizer.count(f".{text}") - self._stop

    @cached_property
    def steady_nonce(self) -> bool:
        """Whether every nonce costs this tokenizer the same: a token a word."""
        words = nonce_words()
        spaced, lined = self.tokenizer.count(" ".join(words)), self.tokenizer.count("\n".join(words))
        return spaced == len(words) and lined in (spaced, 2 * spaced - 1)

    def passage(self, draw: Random, tokens: int) -> str:
        """Sentences, and single words where no sentence is short enough, whose counts sum up to `tokens`."""
        picked, left = self._many(draw, tokens)
        if left in self._by_cost:
            choice = self._by_cost[left]
            picked.append(choice[int(draw.random() * len(choice))])
            left = 0
        return self._filler(draw, left) + "".join(_sentences()[at] for at in picked)

    def _many(self, draw: Random, tokens: int) -> tuple[list[int], int]:
        """Sentences until one more can fill the rest, none twice before all were used; and that rest."""
        picked: list[int] = []
        left, pool, refused = tokens, list(range(len(self._costs))), 0
        while left > self._most and refused < len(self._costs):
            at = pool.pop(int(draw.random() * len(pool)))
            pool = pool or list(range(len(self._costs)))
            refused += 1
            if self._costs[at] <= left - self._least:
                picked.append(at)
                left, refused = left - self._costs[at], 0
        return picked, left

    def _filler(self, draw: Random, tokens: int) -> str:
        words = nonce_words()
        return "".join(f" {words[int(draw.random() * len(words))]}" for _ in range(tokens))

    def compose(self, stream: tuple[int, str, int], tokens: int, *, head: str, closing: str = "") -> tuple[str, int]:
        """The text between head and closing that makes the whole `tokens` long, or "" where they alone are longer.

        The head ends in a full stop. Returns the text with the count of the whole. `stream` is (seed, name, index):
        the only source of chance.
        """
        aim = tokens - self.count(head) - self.cost_after_stop(closing)
        best, nearest = "", self.tokenizer.count(head + closing) if aim <= 0 else 0
        for _ in range(_TRIES):
            if aim <= 0:
                break
            body = self.passage(Random(seeded(*stream)), aim)
            count = self.tokenizer.count(head + body + closing)
            if not best or abs(count - tokens) < abs(nearest - tokens):
                best, nearest = body, count
            if count == tokens:
                break
            aim += tokens - count
        return best, nearest
