"""Prompts of drawn lengths, with or without prefixes that several requests share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from random import Random

from llmexp.config import Workload
from llmexp.workload.kit import NO_PREFIX, Alone, Kit, Prefix, Spot, closing, digest, user
from llmexp.workload.lengths import lengths, seeded
from llmexp.workload.numerals import SPREAD_WORDS
from llmexp.workload.request import Message, Request
from llmexp.workload.text import nonce_text, reference_nonce


class Synthetic(Alone):
    """`kind: synthetic`. Prefix, nonce, text and instruction together are as long as `input_tokens` says.

    A shared prefix stands before the request's nonce (else no cache could serve it) and begins with a nonce of its
    own, so that only this job's requests share it. Warm-up requests share it too: a measured run meets it warm.
    """

    def __init__(self, workload: Workload, kit: Kit) -> None:
        self._workload = workload
        self._kit = kit
        self._input = lengths("workload.input_tokens", workload.input_tokens)
        self._output = lengths("workload.output_tokens", workload.output_tokens)
        self._shared = lru_cache(maxsize=64)(self._prefix)

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:  # noqa: ARG002
        """The request of an index."""
        spot = self._kit.spot(index, warmup=warmup)
        return self.of_lengths(spot, spot.draw("input", self._input), spot.draw("output", self._output), warmup=warmup)

    def of_lengths(self, spot: Spot, input_tokens: int, output_tokens: int, *, warmup: bool) -> Request:
        """A request of given lengths; an input shorter than nonce and instruction becomes as long as these."""
        workload = self._workload
        prefix = NO_PREFIX
        if workload.prefix_tokens and spot.chance("shared") < workload.prefix_share:
            prefix = self._shared(spot.pick("prefix", workload.prefix_count))
        prompt = spot.prompt(input_tokens, closing(workload, output_tokens), prefix=prefix)
        return Request(
            index=spot.index,
            messages=(user(prompt.text),),
            max_tokens=output_tokens,
            input_tokens=prompt.tokens,
            prompt_digest=digest([prompt.bare], output_tokens),
            force_output=workload.force_output,
            warmup=warmup,
        )

    def _prefix(self, number: int) -> Prefix:
        kit, name, reference = self._kit, f"{self._kit.stream}prefix", reference_nonce()
        room = max(0, self._workload.prefix_tokens - kit.composer.count(reference))
        text = kit.composer.passage(Random(seeded(kit.seed, name, number)), room)
        return Prefix(f"{nonce_text(kit.nonce, name, number)}{text} ", f"{reference}{text} ", text)

    def floor_tokens(self) -> int:
        """The shortest possible prompt: nonce and instruction."""
        last = closing(self._workload, round(self._output.mean))
        return self._kit.composer.count(reference_nonce()) + self._kit.composer.cost_after_stop(last)

    def mean_tokens(self) -> tuple[float, float]:
        """Mean input and output tokens."""
        return self._input.mean_above(self.floor_tokens()), self._output.mean

    def largest_tokens(self) -> int:
        """The largest draws together; the shortest prompt varies with the number that its instruction names."""
        floor = self.floor_tokens() + SPREAD_WORDS + self._workload.prefix_tokens
        return max(self._input.high, floor) + self._output.high

    def declared_cache_share(self) -> float:
        """Prefix tokens over input tokens."""
        share = self._workload.prefix_tokens * self._workload.prefix_share / self.mean_tokens()[0]
        return min(1.0, share)

    def notes(self) -> list[str]:
        """Whether the shortest prompts come out longer than asked."""
        floor = self.floor_tokens()
        if self._input.mean_above(floor) <= self._input.mean * 1.005:
            return []
        note = (
            f"workload.input_tokens: no prompt is shorter than its nonce and instruction ({floor} tokens), so the mean "
            f"is {self._input.mean_above(floor):.0f} instead of {self._input.mean:.0f}; raise input_tokens.mean, or "
            f"shorten workload.instruction"
        )
        return [note]
