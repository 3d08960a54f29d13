"""The requests of a workload, by index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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

        `history`: for a session's later turns, the messages of the turn before and the answer to it. Without it the
        answers so far are the recorded ones, or text of the length that they were asked to have.
        """
        return self._kind.request(index, warmup, history)

    def after(self, request: Request, answer: Message) -> Request | None:
        """The turn that follows once `request` was answered, due `delay_s` later; None at the session's end."""
        if request.turn + 1 >= request.turns:
            return None
        return self._kind.request(request.index + 1, False, (*request.messages, answer))

    def off_script(self, request: Request, called: frozenset[str]) -> bool:
        """Whether the recorded answer called a tool that the model did not call; `called` names those it did."""
        return request.session is not None and self._kind.off_script(request.index, called)

    def sessions(self, limit: int | None) -> Iterator[range]:
        """The indexes of each session that is started, in order; of a lone request, its own.

        At most `limit` requests in all: a session that does not fit is not started. None: each session of a file once;
        without end where there is none. Every worker gets the same, so that each takes its share.
        """
        return self._kind.sessions(limit)

    def turns_per_session(self) -> float:
        """Mean turns of a session; 1 where each request stands for itself."""
        return self._kind.turns_per_session()

    @property
    def size(self) -> int | None:
        """How many different texts there are; beyond it they come again, under new nonces. None: no end."""
        return self._kind.size

    def estimated_requests(self) -> int | None:
        """About how many requests there are before texts come again; None: no end."""
        return self._kind.estimated_requests()

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
    if workload.kind == "sessions":
        from llmexp.workload.sessions import Sessions

        return Sessions(workload, kit)
    if workload.kind == "images":
        from llmexp.workload.images import Images

        return Images(workload, kit)
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
