"""A user's own prompts, or a trace's lengths, in the order of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from statistics import fmean

from llmexp.config import Workload
from llmexp.errors import ConfigError
from llmexp.workload.kit import Alone, Kit, Spot, digest, digest_of, filled, headed
from llmexp.workload.lengths import Lengths, lengths
from llmexp.workload.request import Message, Request, Text, texts_of
from llmexp.workload.row_source import rows_of
from llmexp.workload.rows import Row
from llmexp.workload.synthetic import Synthetic
from llmexp.workload.text import NONCE_WORDS, nonce_text

_SAMPLE = 64
_MARGIN = 1.5


class FromFile(Alone):
    """`kind: file`. Row 0 is request 0; after the last row the first comes again, under a new nonce.

    A chat is sent up to its first answer. The token limit is the row's budget, else drawn from
    `workload.output_tokens`, else the length of the file's own answer. `workload.instruction`, if given, is put after
    the last user message. Warm-up requests take rows from the end of the file.
    """

    def __init__(self, workload: Workload, kit: Kit) -> None:
        self._workload = workload
        self._kit = kit
        self._rows = rows_of("workload.file", workload.file or "")
        self._budget: Lengths | None = None
        if workload.output_tokens.mean is not None or workload.output_tokens.dist != "normal":
            self._budget = lengths("workload.output_tokens", workload.output_tokens)
        self._check_budgets()
        self._reply_tokens = lru_cache(maxsize=4096)(kit.composer.tokenizer.count)

    @property
    def size(self) -> int | None:
        """Rows of the file; None as long as the end of a long one was not seen."""
        return self._rows.count

    def estimated_requests(self) -> int:
        """Rows, or about how many."""
        return self._rows.estimated_count()

    def _check_budgets(self) -> None:
        if self._budget is None and any(row.output_tokens is None and row.reply is None for row in self._rows.sample()):
            raise ConfigError(
                f"workload.output_tokens.mean: must be given, as rows of '{self._workload.file}' have neither a budget "
                "(output_tokens) nor an answer of a model (output, response)"
            )

    def request(self, index: int, warmup: bool, history: Sequence[Message] | None) -> Request:  # noqa: ARG002
        """The request of an index."""
        row = self._rows.row(-1 - index if warmup else index)
        spot = self._kit.spot(index, warmup=warmup)
        output_tokens = self._output_tokens(row, spot)
        if row.input_tokens is not None:
            return self._by_length.of_lengths(spot, row.input_tokens, output_tokens, warmup=warmup)
        bare = self._with_instruction(row.opening, output_tokens)
        messages = headed(bare, self._shared_nonce(spot, warmup) if row.shares else spot.nonce())
        return Request(
            index=index,
            messages=messages,
            max_tokens=output_tokens,
            input_tokens=sum(self._kit.composer.tokenizer.count_many(texts_of(messages, row.tools))),
            prompt_digest=digest([message.text for message in bare], output_tokens)
            if all(message.is_plain for message in bare)
            else digest_of(bare, row.tools, output_tokens),
            force_output=self._workload.force_output,
            warmup=warmup,
            tools=row.tools,
            expected=row.expected,
        )

    def _shared_nonce(self, spot: Spot, warmup: bool) -> str:
        """One for the job, another for each further round through the file, and one for each warm-up request."""
        name, number = ("warmup/", spot.index) if warmup else ("job/", self._rows.again(spot.index))
        return nonce_text(self._kit.nonce, f"{self._kit.stream}{name}", number)

    @cached_property
    def _by_length(self) -> Synthetic:
        fixed = {"mean": 1.0, "dist": "fixed"}
        stand_in = {"input_tokens": fixed, "output_tokens": fixed, "kind": "synthetic"}
        return Synthetic(Workload.model_validate(self._workload.model_dump() | stand_in), self._kit)

    def _output_tokens(self, row: Row, spot: Spot) -> int:
        if row.output_tokens is not None:
            return row.output_tokens
        if self._budget is not None:
            return spot.draw("output", self._budget)
        return max(1, self._reply_tokens(row.reply or ""))

    def _with_instruction(self, messages: tuple[Message, ...], output_tokens: int) -> tuple[Message, ...]:
        if not self._workload.instruction:
            return messages
        asked, last = filled(self._workload.instruction, output_tokens), messages[-1]
        if isinstance(last.content, str):
            return (*messages[:-1], replace(last, content=f"{last.content}\n\n{asked}"))
        return (*messages[:-1], replace(last, content=(*last.content, Text(f"\n\n{asked}"))))

    @cached_property
    def _sampled(self) -> list[tuple[int, int]]:
        rows = self._rows.sample()
        chosen = rows[:: max(1, len(rows) // _SAMPLE)]
        count = self._kit.composer.tokenizer.count_many
        spots = [self._kit.spot(at, warmup=False) for at in range(len(chosen))]
        return [
            (
                sum(count(texts_of(row.opening, row.tools))) + NONCE_WORDS
                if row.input_tokens is None
                else row.input_tokens,
                self._output_tokens(row, spot),
            )
            for row, spot in zip(chosen, spots, strict=True)
        ]

    def mean_tokens(self) -> tuple[float, float]:
        """Means over rows spread evenly over the file."""
        return fmean(tokens for tokens, _ in self._sampled), fmean(tokens for _, tokens in self._sampled)

    def largest_tokens(self) -> int:
        """The longest texts by characters, counted with a margin for other tokenizers; and the largest numbers."""
        rows = self._rows.sample()
        longest = max(rows, key=lambda row: sum(len(message.text) for message in row.opening))
        reply = max((row.reply or "" for row in rows), key=len)
        said = sum(self._kit.composer.tokenizer.count_many(texts_of(longest.opening, longest.tools)))
        given = max((row.input_tokens or 0 for row in rows), default=0)
        budget = self._budget.high if self._budget is not None else round(_MARGIN * self._reply_tokens(reply))
        most = max(row.output_tokens or budget for row in rows)
        return max(round(_MARGIN * said) + 64, given) + max(1, most)

    def declared_cache_share(self) -> float:
        """Shared prefixes stand only before text of a given length; what a log shared, it shared."""
        first = self._rows.row(0)
        if first.shares:
            return 1.0
        return self._by_length.declared_cache_share() if first.input_tokens is not None else 0.0

    def notes(self) -> list[str]:
        """Rows that were left out, token ids, and turns that stand in the file and are not sent."""
        found, rows = list(self._rows.notes()), self._rows.sample()
        ids = sum(row.is_ids for row in rows)
        if ids:
            found.append(
                f"workload.file: {ids} of {len(rows)} rows are token ids; text of as many tokens is sent in their "
                "place, for ids belong to one tokenizer and leave no room for the nonce"
            )
        longer = sum(len(row.turns) > 1 for row in rows)
        if longer:
            found.append(
                f"workload.file: {longer} of {len(rows)} rows have further turns; each is sent up to its first "
                "answer (workload=multi_turn sends the others, too)"
            )
        return found
