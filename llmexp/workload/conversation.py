"""Conversations of several turns, each carrying the real history before it.

Each has `workload.turns` turns, and their indexes follow each other. `input_tokens` is the length of what the user says
in a turn; a request's own count includes the history.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple

from llmexp.config import Workload
from llmexp.errors import ConfigError
from llmexp.workload.kit import Kit, Spot, closing, digest, filled, headed, user
from llmexp.workload.lengths import lengths
from llmexp.workload.request import Message, Request, texts_of
from llmexp.workload.rows import Row, read_rows

_NEXT, _ANSWER = "Go on.", "Yes."
"""How made-up turns begin: a text's first word would be split differently by different tokenizers."""


class _Place(NamedTuple):
    session: int
    turn: int


class _Said(NamedTuple):
    """What the user says in a turn, as it is sent and without the nonce, and how long the answer shall be."""

    text: str
    bare: str
    output_tokens: int


class Conversations:
    """`kind: conversation`. The nonce stands before the first turn alone: later turns begin as the first did."""

    def __init__(self, workload: Workload, kit: Kit) -> None:
        self._workload = workload
        self._kit = kit
        self._output = lengths("workload.output_tokens", workload.output_tokens)
        self._left_out: list[str] = []
        self._scripts = self._read() if workload.file else None
        if self._scripts is None:
            self._input = lengths("workload.input_tokens", workload.input_tokens)
        self._said = lru_cache(maxsize=4096)(self._say)

    def _read(self) -> list[Row]:
        turns, path = self._workload.turns, self._workload.file or ""
        found = read_rows("workload.file", path)
        scripts = [row for row in found.rows if len(row.turns) >= turns]
        self._left_out = list(found.notes("workload.file"))
        if len(scripts) < len(found.rows):
            short = len(found.rows) - len(scripts)
            self._left_out.append(
                f"workload.file: {short} of {len(found.rows)} rows left out: fewer than {turns} turns"
            )
        if not scripts:
            raise ConfigError(f"workload.turns: no conversation of '{path}' has {turns} turns; ask for fewer")
        return scripts

    @property
    def size(self) -> int | None:
        """Turns in the file; None without one."""
        return None if self._scripts is None else len(self._scripts) * self._workload.turns

    def _place(self, index: int) -> _Place:
        return _Place(*divmod(index, self._workload.turns))

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:
        """The turn of an index; a warm-up request is the first turn of a conversation of its own."""
        place = _Place(index, 0) if warmup else self._place(index)
        said = [self._said(place.session, turn, warmup) for turn in range(place.turn + 1)]
        if place.turn and history is not None:
            messages = (*history, user(said[-1].text))
        else:
            messages = self._from_start(place, said, warmup)
        return Request(
            index=index,
            messages=messages,
            max_tokens=said[-1].output_tokens,
            input_tokens=sum(self._kit.composer.tokenizer.count_many(texts_of(messages))),
            prompt_digest=digest([turn.bare for turn in said], said[-1].output_tokens),
            force_output=self._workload.force_output,
            warmup=warmup,
            session=None if warmup else place.session,
            turn=place.turn,
            turns=1 if warmup else self._workload.turns,
            delay_s=self._workload.think_time_s if place.turn else 0.0,
        )

    def _say(self, conversation: int, turn: int, warmup: bool) -> _Said:
        spot = self._spot(conversation, turn, warmup=warmup)
        output_tokens = spot.draw("output", self._output)
        if self._scripts is not None:
            asked = filled(self._workload.instruction or "", output_tokens)
            bare = self._scripts[conversation % len(self._scripts)].turns[turn] + (f"\n\n{asked}" if asked else "")
            return _Said(bare, bare, output_tokens)
        tokens, last = spot.draw("input", self._input), closing(self._workload, output_tokens)
        if turn == 0:
            prompt = spot.prompt(tokens, last)
            return _Said(prompt.text, prompt.bare, output_tokens)
        stream = (self._kit.seed, spot.stream + "text", spot.index)
        text, _ = self._kit.composer.compose(stream, tokens, head=_NEXT, closing=last)
        return _Said(f"{_NEXT}{text}{last}", f"{_NEXT}{text}{last}", output_tokens)

    def _spot(self, conversation: int, turn: int, *, warmup: bool) -> Spot:
        """Draws of a turn; its nonce is the conversation's."""
        kit = self._kit if turn == 0 else self._kit.inside(f"turn{turn}")
        return kit.spot(conversation, warmup=warmup)

    def _from_start(self, place: _Place, said: Sequence[_Said], warmup: bool) -> tuple[Message, ...]:
        """The conversation up to this turn, with made-up answers: for plans, and where a turn was not answered."""
        script = self._scripts[place.session % len(self._scripts)] if self._scripts else None
        messages = list(script.system) if script else []
        for turn, one in enumerate(said[: place.turn]):
            stream = (self._kit.seed, f"{self._kit.stream}answer{turn}", place.session)
            answer, _ = self._kit.composer.compose(stream, one.output_tokens, head=_ANSWER)
            messages += [user(one.text), Message("assistant", f"{_ANSWER}{answer}")]
        messages.append(user(said[-1].text))
        nonce = self._spot(place.session, 0, warmup=warmup).nonce()
        return headed(messages, nonce) if script else tuple(messages)

    def sessions(self, limit: int | None) -> Iterator[range]:
        """Each with as many turns; what does not fit into the limit is not started."""
        turns = self._workload.turns
        numbers = count() if limit is None else range(limit // turns)
        return (range(number * turns, (number + 1) * turns) for number in numbers)

    def off_script(self, index: int, called: frozenset[str]) -> bool:  # noqa: ARG002
        """Nothing was recorded."""
        return False

    def estimated_requests(self) -> int | None:
        """As many as the file has turns; without end where there is none."""
        return self.size

    def turns_per_session(self) -> float:
        """As the config says."""
        return float(self._workload.turns)

    def _turn_means(self) -> tuple[float, float]:
        if self._scripts is None:
            return self._input.mean, self._output.mean
        sample = self._scripts[:: max(1, len(self._scripts) // 32)]
        turns = self._workload.turns
        counts = self._kit.composer.tokenizer.count_many(text for script in sample for text in script.turns[:turns])
        return sum(counts) / len(counts), self._output.mean

    def mean_tokens(self) -> tuple[float, float]:
        """Means over turns, history included."""
        said, answered = self._turn_means()
        return said + (self._workload.turns - 1) / 2 * (said + answered), answered

    def largest_tokens(self) -> int:
        """All turns and all answers of one conversation."""
        longest = self._input.high * self._workload.turns if self._scripts is None else self._longest_script()
        return longest + self._output.high * self._workload.turns

    def _longest_script(self) -> int:
        scripts = [script.turns[: self._workload.turns] for script in self._scripts or ()]
        longest = max(scripts, key=lambda turns: sum(map(len, turns)))
        return round(1.5 * sum(self._kit.composer.tokenizer.count_many(longest))) + 64

    def declared_cache_share(self) -> float:
        """History over all input: each turn begins with what the server has just seen."""
        said, _ = self._turn_means()
        return 1 - said / self.mean_tokens()[0] if self._workload.turns > 1 else 0.0

    def notes(self) -> list[str]:
        """Rows that were left out."""
        return self._left_out
