"""Questions with known answers among prose, so that a load is a test as well: arithmetic, lookup, format.

A prompt is a nonce, prose, and the question at its end; together they are as long as `input_tokens` says. For a lookup
the facts stand somewhere in the prose. Which question an index gets follows from seed and index alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from llmexp.config import Workload
from llmexp.workload.kit import Alone, Kit, Spot, digest, filled, user
from llmexp.workload.lengths import lengths, seeded
from llmexp.workload.puzzles import ALONE, Puzzle, arithmetic, layout, lookup
from llmexp.workload.request import Message, Request
from llmexp.workload.text import nonce_words, reference_nonce

_SAMPLE = 16
_SPREAD = 12
"""Tokens by which another tokenizer, or another draw, may count a question longer than the sampled ones."""


class Questions(Alone):
    """`kind: arithmetic`, `lookup` and `format`."""

    def __init__(self, workload: Workload, kit: Kit) -> None:
        self._workload = workload
        self._kit = kit
        self._input = lengths("workload.input_tokens", workload.input_tokens)
        self._output = lengths("workload.output_tokens", workload.output_tokens)

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:  # noqa: ARG002
        """The request of an index."""
        spot = self._kit.spot(index, warmup=warmup)
        puzzle, output_tokens = self._puzzle(spot), spot.draw("output", self._output)
        bare = self._text(spot, puzzle, output_tokens)
        text = f"{spot.nonce()}{bare}"
        return Request(
            index=index,
            messages=(user(text),),
            max_tokens=output_tokens,
            input_tokens=self._kit.composer.tokenizer.count(text),
            prompt_digest=digest([bare], output_tokens),
            warmup=warmup,
            expected=puzzle.expected,
        )

    def _puzzle(self, spot: Spot) -> Puzzle:
        draw = Random(seeded(self._kit.seed, f"{spot.stream}question", spot.index))
        difficulty = self._workload.difficulty
        if self._workload.kind == "arithmetic":
            return arithmetic(draw, difficulty)
        if self._workload.kind == "lookup":
            return lookup(draw, difficulty, nonce_words())
        return layout(draw, difficulty, nonce_words())

    def _closing(self, puzzle: Puzzle, output_tokens: int) -> str:
        """The question, and how to answer it; an instruction of the workload's own stands in place of ours."""
        ours = "" if self._workload.kind == "format" else ALONE
        asked = self._workload.instruction
        return f" {puzzle.question} {ours if asked is None else filled(asked, output_tokens)}".rstrip()

    def _text(self, spot: Spot, puzzle: Puzzle, output_tokens: int) -> str:
        """Prose, the facts at places that chance chooses, and the question; without the nonce."""
        composer, head = self._kit.composer, reference_nonce()
        closing, total = self._closing(puzzle, output_tokens), spot.draw("input", self._input)
        facts = "".join(f" {fact}" for fact in puzzle.facts)
        free = total - composer.count(head) - composer.cost_after_stop(facts + closing)
        written, before = "", 0
        for at, (place, fact) in enumerate(zip(self._places(spot, len(puzzle.facts)), puzzle.facts, strict=True)):
            upto, last = round(place * max(0, free)), f" {fact}"
            aim = composer.tokenizer.count(head + written + last) + upto - before
            body, _ = composer.compose(self._stream(spot, at), aim, head=head + written, closing=last)
            written, before = f"{written}{body}{last}", upto
        body, _ = composer.compose(self._stream(spot, -1), total, head=head + written, closing=closing)
        return f"{written}{body}{closing}"

    def _places(self, spot: Spot, count: int) -> list[float]:
        """Where the facts stand, as shares of the prose."""
        return sorted(spot.chance(f"place{at}") for at in range(count))

    def _stream(self, spot: Spot, part: int) -> tuple[int, str, int]:
        return self._kit.seed, f"{spot.stream}text{'' if part < 0 else part}", spot.index

    def floor_tokens(self) -> int:
        """The shortest prompt that a question of this difficulty needs, as far as a sample tells."""
        composer, most = self._kit.composer, 0
        for index in range(_SAMPLE):
            puzzle = self._puzzle(self._kit.spot(index, warmup=False))
            text = "".join(f" {fact}" for fact in puzzle.facts) + self._closing(puzzle, round(self._output.mean))
            most = max(most, composer.cost_after_stop(text))
        return composer.count(reference_nonce()) + most

    def mean_tokens(self) -> tuple[float, float]:
        """Mean input and output tokens."""
        return self._input.mean_above(self.floor_tokens()), self._output.mean

    def largest_tokens(self) -> int:
        """The largest draws together."""
        return max(self._input.high, self.floor_tokens() + _SPREAD) + self._output.high

    def declared_cache_share(self) -> float:
        """No prompt begins as another did."""
        return 0.0

    def notes(self) -> list[str]:
        """Whether the shortest prompts come out longer than asked."""
        floor = self.floor_tokens()
        if self._input.mean_above(floor) <= self._input.mean * 1.005:
            return []
        note = (
            f"workload.input_tokens: nonce and question alone are up to {floor} tokens, so some prompts are longer "
            f"than asked; raise input_tokens.mean, or lower workload.difficulty"
        )
        return [note]
