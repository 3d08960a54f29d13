"""What every kind of workload is built from, and the protocol that each kind implements."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import count
from typing import NamedTuple, Protocol

from llmexp.config import Workload
from llmexp.workload.lengths import Lengths, seeded, uniform
from llmexp.workload.numerals import in_words
from llmexp.workload.request import Image, Message, Request, Text, Tool
from llmexp.workload.text import Composer, Prompt, nonce_text, reference_nonce

DEFAULT_INSTRUCTION = "Continue this text in the same manner. Write exactly {output_tokens_in_words} tokens, no fewer."


class Kind(Protocol):
    """One kind of workload. Every method gives the same answer for the same index, in any process and any order."""

    @property
    def size(self) -> int | None:
        """How many different requests there are before their texts come again; None: no end."""
        ...

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:
        """The request of an index; `history` holds the session so far, the model's last answer included."""
        ...

    def sessions(self, limit: int | None) -> Iterator[range]:
        """The indexes of each session in order: its turns, sent one after the other. A lone request is one turn.

        `limit`: requests in all; None: as many as there are, or without end.
        """
        ...

    def off_script(self, index: int, called: frozenset[str]) -> bool:
        """Whether the recorded answer called a tool that is not among `called`."""
        ...

    def turns_per_session(self) -> float:
        """Mean turns of a session."""
        ...

    def estimated_requests(self) -> int | None:
        """About how many different requests there are; None: no end."""
        ...

    def mean_tokens(self) -> tuple[float, float]:
        """Mean input and output tokens of a request."""
        ...

    def largest_tokens(self) -> int:
        """A bound of input plus output tokens of one request."""
        ...

    def declared_cache_share(self) -> float:
        """Share of all input tokens that an earlier request began with in the same way."""
        ...

    def notes(self) -> list[str]:
        """What a reader of the results should know, in words."""
        ...


class Alone:
    """What kinds whose requests stand each for itself have in common."""

    @property
    def size(self) -> int | None:
        """Without end."""
        return None

    def estimated_requests(self) -> int | None:
        """As many as there are texts."""
        return self.size

    def sessions(self, limit: int | None) -> Iterator[range]:
        """Each request for itself."""
        return (range(index, index + 1) for index in (count() if limit is None else range(limit)))

    def off_script(self, index: int, called: frozenset[str]) -> bool:  # noqa: ARG002
        """Nothing was recorded."""
        return False

    def turns_per_session(self) -> float:
        """One."""
        return 1.0


class Prefix(NamedTuple):
    """What several prompts begin with: as it is sent, with the reference nonce, and without a nonce."""

    sent: str
    reference: str
    bare: str


NO_PREFIX = Prefix("", "", "")


@dataclass(frozen=True)
class Kit:
    """Tokenizer, seed and nonce; `stream` keeps the draws of a mix's parts apart."""

    composer: Composer
    seed: int
    nonce: str
    stream: str = ""

    def inside(self, name: str) -> Kit:
        """The same kit with draws of its own."""
        return replace(self, stream=f"{self.stream}{name}/")

    def spot(self, index: int, *, warmup: bool) -> Spot:
        """The place of one request; warm-up requests have indexes, and so draws, of their own."""
        return Spot(self, f"{self.stream}warmup/" if warmup else self.stream, index)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where all chance and the nonce of one request come from."""

    kit: Kit
    stream: str
    index: int

    def draw(self, name: str, lengths: Lengths) -> int:
        """A token count."""
        return lengths.draw(self.kit.seed, self.stream + name, self.index)

    def chance(self, name: str) -> float:
        """A number in (0, 1)."""
        return uniform(self.kit.seed, self.stream + name, self.index)

    def pick(self, name: str, count: int) -> int:
        """One of `count` alternatives."""
        return seeded(self.kit.seed, self.stream + name, self.index) % count

    def nonce(self) -> str:
        """The words that no other prompt of any job begins with."""
        return nonce_text(self.kit.nonce, self.stream, self.index)

    def prompt(self, tokens: int, closing: str, *, prefix: Prefix = NO_PREFIX) -> Prompt:
        """A prompt of `tokens` tokens: shared prefix, nonce, text, closing."""
        composer, stream = self.kit.composer, (self.kit.seed, self.stream + "text", self.index)
        body, count = composer.compose(stream, tokens, head=prefix.reference + reference_nonce(), closing=closing)
        text = f"{prefix.sent}{self.nonce()}{body}{closing}"
        if not composer.steady_nonce:
            count = composer.tokenizer.count(text)
        return Prompt(text, count, f"{prefix.bare}{body}{closing}")


def closing(workload: Workload, output_tokens: int) -> str:
    """The sentences that ask for the output's length.

    They follow the text after a space: tokenizers agree on it, and do not on the newlines of a paragraph.
    """
    wording = DEFAULT_INSTRUCTION if workload.instruction is None else workload.instruction
    asked = filled(wording, output_tokens)
    return f" {asked}" if asked else ""


def filled(wording: str, output_tokens: int) -> str:
    """An instruction with the number in digits or words, as it asks for it."""
    spoken = wording.replace("{output_tokens_in_words}", in_words(output_tokens))
    return spoken.replace("{output_tokens}", str(output_tokens)).strip()


def digest(texts: Sequence[str], max_tokens: int) -> str:
    """Identifies what is asked, whatever nonce stands before it."""
    return blake2b(json.dumps([list(texts), max_tokens]).encode(), digest_size=16).hexdigest()


def digest_of(messages: Sequence[Message], tools: Sequence[Tool], max_tokens: int) -> str:
    """Identifies what is asked by the file, whatever nonce stands before it and whatever was answered."""
    tree = [[_plain(message) for message in messages], [tool.declaration for tool in tools], max_tokens]
    return blake2b(json.dumps(tree).encode(), digest_size=16).hexdigest()


def _plain(message: Message) -> list[object]:
    parts = [[part.url or part.data] if isinstance(part, Image) else part.text for part in message.parts]
    return [message.role, parts, [[call.name, call.arguments] for call in message.tool_calls]]


def user(text: str) -> Message:
    """A message of the user."""
    return Message("user", text)


def headed(messages: Sequence[Message], nonce: str) -> tuple[Message, ...]:
    """The messages with the nonce at the head of the first one, so that no cache knows how they begin."""
    first, *rest = messages
    if isinstance(first.content, str):
        return (replace(first, content=f"{nonce}\n\n{first.content}"), *rest)
    return (replace(first, content=(Text(nonce), *first.content)), *rest)
