"""The requests of a workload, by index."""

from __future__ import annotations

from collections.abc import Sequence

from llmexp.config import Workload
from llmexp.workload.kit import Kind, Kit
from llmexp.workload.request import Message, Request
from llmexp.workload.text import Composer
from llmexp.workload.tokens import Tokenizer


class Source:
    """What is sent. A request depends on workload, seed and index alone; its nonce on `nonce` too.

    `tokenizer` sizes the prompts: the workload's, the same for all models (`llmexp.workload.source_for` gives it).

    `nonce` is already unique to the job. Warm-up requests come from the same distributions with indexes of their own:
    no measured prompt was seen before.
    """

    def __init__(self, workload: Workload, tokenizer: Tokenizer, *, seed: int, nonce: str) -> None:
        self._kind = kind_of(workload, Kit(Composer(tokenizer), seed, nonce))

    def request(self, index: int, warmup: bool = False, history: Sequence[Message] | None = None) -> Request:
        """The request of an index.

        `history`: for a conversation's later turns, the messages of the turn before and the answer to it. Without it
        the answers so far are replaced by text of the length that they were asked to have.
        """
        return self._kind.request(index, warmup, history)

    def depends_on(self, index: int) -> tuple[int, float] | None:
        """(index whose answer must be known first, think time in seconds after it); None: it may be sent at once."""
        return self._kind.depends_on(index)

    def followed_by(self, index: int) -> int | None:
        """The index of the turn that waits for this one's answer; None: it is a session's last, or no turn at all."""
        return self._kind.followed_by(index)

    def partition(self, index: int) -> int:
        """Requests of one partition must be handled by one worker: a conversation's turns, else each for itself."""
        return self._kind.partition(index)

    @property
    def size(self) -> int | None:
        """How many different texts there are; beyond it they come again, under new nonces. None: no end."""
        return self._kind.size

    def mean_tokens(self) -> tuple[float, float]:
        """Mean input and output tokens of a request, for estimates."""
        return self._kind.mean_tokens()

    def context_tokens(self) -> int:
        """A bound of input plus output tokens of any one request, without a chat template."""
        return self._kind.largest_tokens()

    def declared_cache_share(self) -> float:
        """Share of input tokens that a prompt cache may serve, because the workload says so."""
        return self._kind.declared_cache_share()

    def notes(self) -> list[str]:
        """What a reader of the results should know about the workload, in words."""
        return self._kind.notes()


def kind_of(workload: Workload, kit: Kit) -> Kind:
    """The implementation that a workload names."""
    if workload.kind == "file":
        from llmexp.workload.files import FromFile

        return FromFile(workload, kit)
    if workload.kind == "conversation":
        from llmexp.workload.conversation import Conversations

        return Conversations(workload, kit)
    if workload.kind == "mix":
        from llmexp.workload.mix import Mix

        return Mix(workload, kit, kind_of)
    if workload.kind in ("arithmetic", "lookup", "format"):
        from llmexp.workload.questions import Questions

        return Questions(workload, kit)
    from llmexp.workload.synthetic import Synthetic

    return Synthetic(workload, kit)
