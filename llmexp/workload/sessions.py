"""Recorded sessions, replayed turn by turn (see `llmexp.workload.scripts` for the file).

`workload.history=recorded` sends the file's own answers as history, so that every stack gets the same input; `live`
puts the model's text in their place. A recorded tool call is sent as recorded in either mode, or its result would not
fit. One nonce a job stands before all texts, in the first tool's description and the first message: exactly the sharing
of the log remains. Where more turns are asked for than the file has, it is played again under another nonce.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import NamedTuple

from llmexp.config import Workload
from llmexp.errors import ConfigError
from llmexp.workload.kit import Kit, digest_of, headed
from llmexp.workload.lengths import Lengths, lengths
from llmexp.workload.request import Image, Message, Request, Tool, texts_of
from llmexp.workload.scripts import Script, ScriptFile, Turn
from llmexp.workload.text import nonce_text

DEFAULT_OUTPUT_TOKENS = 256
"""The limit of a turn for which neither the file nor the config has one, and whose answer was not recorded."""
_CALL_TOKENS = 32
"""What a tool call costs beside its name and arguments, at most."""
_SAMPLE = 32
_MARGIN = 1.5
PASSED_OVER = 1000
"""So many sessions in a row that do not fit into `run.max_requests` end the search for one that does."""


class _Place(NamedTuple):
    number: int
    """Counts on over the passes through the file."""
    session: int
    turn: int
    again: int
    """How often the file was played before."""


class Sessions:
    """`kind: sessions`."""

    def __init__(self, workload: Workload, kit: Kit) -> None:
        self._workload = workload
        self._kit = kit
        self._file = ScriptFile("workload.file", workload.file or "")
        self._budget: Lengths | None = None
        if workload.output_tokens.mean is not None or workload.output_tokens.dist != "normal":
            self._budget = lengths("workload.output_tokens", workload.output_tokens)
        self._count = lru_cache(maxsize=1024)(kit.composer.tokenizer.count)
        if self._file.script(0) is None:
            raise ConfigError(f"workload.file: has no sessions, got '{workload.file}'")

    @property
    def size(self) -> int | None:
        """Turns in the file, once its end was seen."""
        return None if self._file.count is None else self._file.total_turns()

    # -- which --------------------------------------------------------------------------------------------------------

    def sessions(self, limit: int | None) -> Iterator[range]:
        """The indexes of each session that is started; a session that does not fit into `limit` turns is not.

        Without a limit each session of the file once.
        """
        left, passed_over, number = limit, 0, 0
        while left is None or left > 0:
            turns = self._turns_of(number, once=limit is None)
            if turns is None or passed_over > PASSED_OVER:
                return
            if left is not None and len(turns) > left:
                passed_over += 1
            else:
                yield turns
                passed_over = 0
                left = None if left is None else left - len(turns)
            number += 1

    def _turns_of(self, number: int, *, once: bool) -> range | None:
        """The indexes of a session; None behind the last, where the file is played once."""
        count = self._file.count
        if count is None:
            script = self._file.script(number)
            if script is not None:
                first = self._file.turns_before(number)
                return range(first, first + len(script))
            count = self._file.count or 0
        again, session = divmod(number, count)
        if again and once:
            return None
        first = again * self._file.total_turns() + self._file.turns_before(session)
        return range(first, first + len(self._script(session)))

    def _script(self, session: int) -> Script:
        script = self._file.script(session)
        assert script is not None
        return script

    def _place(self, index: int) -> _Place:
        try:
            session, turn = self._file.place(index)
        except IndexError:
            again, rest = divmod(index, self._file.total_turns())
            session, turn = self._file.place(rest)
            return _Place(again * (self._file.count or 0) + session, session, turn, again)
        return _Place(session, session, turn, 0)

    # -- what ---------------------------------------------------------------------------------------------------------

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:
        """The turn of an index; a warm-up request is the first turn of a session, under a nonce of its own."""
        if warmup:
            count = self._file.count
            place = _Place(index, index if count is None else index % count, 0, 0)
            if self._file.script(place.session) is None:
                place = _Place(index, index % (self._file.count or 1), 0, 0)
        else:
            place = self._place(index)
        script = self._script(place.session)
        turn = script[place.turn]
        live = self._workload.history == "live" and history is not None and place.turn > 0
        bare = recorded(script, place.turn)
        nonce = self._nonce(index, place, warmup)
        messages = _continued(history, script, place.turn) if live and history else headed(bare, nonce)
        tools = _tools_headed(turn.tools, nonce)
        max_tokens = self._max_tokens(turn, place, warmup)
        return Request(
            index=index,
            messages=messages,
            max_tokens=max_tokens,
            input_tokens=sum(map(self._count, texts_of(messages, tools))),
            prompt_digest=digest_of(bare, turn.tools, max_tokens),
            force_output=self._workload.force_output,
            warmup=warmup,
            tools=tools,
            expected=turn.expected,
            session=None if warmup else place.number,
            turn=place.turn,
            turns=1 if warmup else len(script),
            delay_s=turn.delay_s,
        )

    def _nonce(self, index: int, place: _Place, warmup: bool) -> str:
        """The job's; warm-up requests and another pass through the file get others, so that no cache knows them."""
        if warmup:
            return nonce_text(self._kit.nonce, f"{self._kit.stream}warmup/", index)
        return nonce_text(self._kit.nonce, f"{self._kit.stream}job/", place.again)

    def _max_tokens(self, turn: Turn, place: _Place, warmup: bool) -> int:
        if turn.output_tokens is not None:
            return turn.output_tokens
        if self._budget is not None:
            kit = self._kit.inside(f"turn{place.turn}")
            return kit.spot(place.number, warmup=warmup).draw("output", self._budget)
        if not turn.answer:
            return DEFAULT_OUTPUT_TOKENS
        calls = sum(len(message.tool_calls) for message in turn.answer)
        return max(1, sum(map(self._count, texts_of(turn.answer))) + _CALL_TOKENS * calls)

    def off_script(self, index: int, called: frozenset[str]) -> bool:
        """Whether the recorded answer called a tool that this answer did not."""
        place = self._place(index)
        return not self._script(place.session)[place.turn].calls <= called

    # -- in which order -----------------------------------------------------------------------------------------------

    # -- about it -----------------------------------------------------------------------------------------------------

    @cached_property
    def _sampled(self) -> list[Script]:
        return list(self._file.sample(_SAMPLE)) or [self._script(0)]

    @cached_property
    def _totals(self) -> tuple[int, int, int]:
        """Of the sampled sessions: turns, input tokens, output tokens."""
        turns = inputs = outputs = 0
        for script in self._sampled:
            for at, turn in enumerate(script):
                whole = sum(map(self._count, texts_of(recorded(script, at), turn.tools)))
                turns, inputs = turns + 1, inputs + whole
                outputs += self._max_tokens(turn, _Place(0, 0, at, 0), warmup=False)
        return turns, inputs, outputs

    def mean_tokens(self) -> tuple[float, float]:
        """Means over the turns of sampled sessions, history included."""
        turns, inputs, outputs = self._totals
        return inputs / turns, outputs / turns

    def turns_per_session(self) -> float:
        """Mean over sampled sessions."""
        return self._totals[0] / len(self._sampled)

    def estimated_requests(self) -> int:
        """Turns of the file, or about how many."""
        if self._file.count is not None:
            return self._file.total_turns()
        return max(1, round(self._file.estimated_count() * self.turns_per_session()))

    def largest_tokens(self) -> int:
        """The longest sampled session with its last answer, with a margin for other tokenizers and longer sessions."""
        most = 0
        for script in self._sampled:
            said = sum(map(self._count, texts_of(recorded(script, len(script) - 1), script[-1].tools)))
            most = max(most, said + sum(self._max_tokens(turn, _Place(0, 0, 0, 0), warmup=False) for turn in script))
        return round(_MARGIN * most) + 64

    def declared_cache_share(self) -> float:
        """All: behind the job's nonce, what requests share is what the log shared."""
        return 1.0

    def notes(self) -> list[str]:
        """How history is sent, and what the counts leave out."""
        live = self._workload.history == "live"
        answers = "the model's own answers" if live else "the file's own answers"
        found = [f"{answers} were sent as history (workload.history={self._workload.history})"]
        if any(isinstance(part, Image) for script in self._sampled for turn in script for part in _parts(turn)):
            found.append("images are not in the tokenizer's counts of the input; the server's count has them")
        return found


def recorded(script: Script, turn: int) -> tuple[Message, ...]:
    """All messages up to a turn, answers as recorded."""
    before = [message for earlier in script[:turn] for message in (*earlier.asked, *earlier.answer)]
    return (*before, *script[turn].asked)


def _parts(turn: Turn) -> Iterator[object]:
    return (part for message in turn.asked for part in message.parts)


def _continued(history: Sequence[Message], script: Script, turn: int) -> tuple[Message, ...]:
    """What was sent before, the live answer (or the recorded tool call in its place), and what is asked now."""
    *sent, live = history
    before = script[turn - 1]
    if before.calls or not live.text:
        return (*sent, *before.answer, *script[turn].asked)
    return (*sent, live, *script[turn].asked)


def _tools_headed(tools: tuple[Tool, ...], nonce: str) -> tuple[Tool, ...]:
    """The tools with the nonce at the head of the first one: some servers put them before all messages."""
    if not tools:
        return tools
    described = nonce if tools[0].description is None else f"{nonce} {tools[0].description}"
    return (replace(tools[0], description=described), *tools[1:])
