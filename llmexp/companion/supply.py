"""What will be sent next: prepared ahead, signed when it is handed over, signed again where it waited too long."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from llmexp.clients.base import Client, HttpRequest
from llmexp.companion.allowance import Allowance
from llmexp.companion.task import Task
from llmexp.companion.turns import Turn, Turns, follows
from llmexp.worker.dial import through_proxy
from llmexp.worker.line import Shot
from llmexp.worker.plan import NS
from llmexp.workload.request import Request
from llmexp.workload.source import Source
from llmexp.workload.tokens import Tokenizer

COUNTING_S = 20.0
"""Counting tokens by calls to the endpoint may take so long, before the clock."""
REMEMBERED = 1024
"""Texts of sessions whose counts are remembered."""
PREPARED_BYTES = 256 * 2**20
"""Bodies that are prepared and not answered may have so many bytes, where they are enough to fill the streams twice."""


class Supply:
    """The requests that fall to one worker, in order. Not for two threads at a time."""

    def __init__(
        self, task: Task, client: Client, source: Source, tokenizer: Tokenizer, allowance: Allowance | None = None
    ) -> None:
        self._allowance = allowance or Allowance(None)
        self._task = task
        self._client = client
        self._source = source
        self._tokenizer = tokenizer
        self.turns = Turns(source)
        self.due = self._count_due()
        """Requests that fall to this worker; None: as many as there is time for, or as a file holds."""
        self.measuring = False
        """The load runs: nothing that calls the endpoint may be done beside it."""
        self._sessions = self._mine()
        self._coming: range | None = None
        """The session to begin next, once it was looked at."""
        self._ahead: deque[int] = deque()
        """Prepared, not yet handed over."""
        self._unpaid: deque[Turn] = deque()
        """Turns that wait for money."""
        self._stale: deque[int] = deque()
        """Handed back, since their signatures grew old."""
        self._requests: dict[int, Request] = {}
        self._unsigned: dict[int, HttpRequest] = {}
        self._given: dict[int, None] = {}
        """In the worker's queue or on the wire, in the order given."""
        self._turns_given: set[int] = set()
        """Those among them that hold a stream already: the worker sends them as soon as it has them."""
        self._counting_s = 0.0
        self._count_once = lru_cache(maxsize=REMEMBERED)(tokenizer.count)
        self._sizes: dict[int, int] = {}
        """Bytes of each body that is prepared and not answered."""
        self._bytes = 0
        self._enough = max(8, 2 * (task.config.streams or 64) // task.workers)

    # -- which --------------------------------------------------------------------------------------------------------

    def _mine(self) -> Iterator[range]:
        """The sessions that fall to this worker: dealt round, in the order they begin. A lone request is one."""
        task = self._task
        if task.requests is not None:
            count = len(task.requests) if task.most is None else min(task.most, len(task.requests))
            return (range(index, index + 1) for index in range(task.worker, count, task.workers))
        return itertools.islice(self._source.sessions(task.most), task.worker, None, task.workers)

    def _count_due(self) -> int | None:
        if self._task.most is None and self._task.requests is None:
            return None
        return sum(map(len, self._mine()))

    @property
    def all_given(self) -> bool:
        """Whether nothing will come any more."""
        if self._ahead or self._stale or self.waits:
            return False
        self._coming = self._coming or next(self._sessions, None)
        return self._coming is None

    @property
    def waits(self) -> bool:
        """Whether turns of sessions wait for an answer, for their time, or for money."""
        return self.turns.waiting or bool(self._unpaid)

    def _next_index(self) -> int | None:
        """The first turn of the next session; None where no session is left."""
        session = self._coming or next(self._sessions, None)
        self._coming = None
        return None if session is None else session.start

    # -- handing over -------------------------------------------------------------------------------------------------

    def prepare(self, count: int) -> None:
        """Prepare ahead until `count` requests wait to be handed over, or until they take too much memory."""
        while len(self._ahead) < count and not self.crowded and (index := self._next_index()) is not None:
            self._make(self._request(index), index)
            self._ahead.append(index)

    @property
    def crowded(self) -> bool:
        """Whether nothing more may be prepared before some of it has been answered: pictures are large."""
        return self._bytes > PREPARED_BYTES and len(self._sizes) >= self._enough

    def warmup(self) -> list[Shot]:
        """The warm-up requests; their keys are negative."""
        task = self._task
        requests = [
            self._source.request(task.worker + at * task.workers, warmup=True) for at in range(task.warmup_requests)
        ]
        keys = [self._make(request, -1 - request.index) for request in requests]
        return [self._shot(key) for key in keys if self._paid(key)]

    def take(self, count: int) -> list[Shot]:
        """Up to `count` shots that may go out as soon as there is a stream for them."""
        shots: list[Shot] = []
        while len(shots) < count:
            if self._stale:
                shots.append(self._shot(self._stale.popleft()))
                continue
            self.prepare(1)
            if not self._ahead or not self._paid(self._ahead[0]):
                break
            shots.append(self._shot(self._ahead.popleft()))
        return shots

    def take_turns(self) -> list[Shot]:
        """Turns of sessions whose answers came: they hold a stream already."""
        while (turn := self.turns.next()) is not None:
            self._make(turn.request, turn.request.index)
            self._unpaid.append(turn)
        shots: list[Shot] = []
        while self._unpaid and self._paid(self._unpaid[0].request.index):
            shots.append(self._turn(self._unpaid.popleft()))
        return shots

    def _paid(self, key: int) -> bool:
        """Whether there is money for the request at its token limit."""
        return self._allowance.reserve(key, self._requests[key])

    def _turn(self, turn: Turn) -> Shot:
        shot = self._shot(turn.request.index)
        shot.not_before_ns, shot.opens = turn.not_before_ns, False
        self._turns_given.add(shot.index)
        return shot

    def resign(self, indexes: list[int]) -> None:
        """These came back to be signed anew; they go out before all others."""
        for index in indexes:
            self._given.pop(index, None)
            self._stale.append(index)

    # -- one request --------------------------------------------------------------------------------------------------

    def _request(self, index: int) -> Request:
        return self._source.request(index) if self._task.requests is None else self._task.requests[index]

    def _make(self, request: Request, key: int) -> int:
        """All that can be done long before the send."""
        self._requests[key] = self._counted(request)
        if not times_itself(self._client):
            http = self._unsigned[key] = self._client.prepare(self._requests[key])
            self._sizes[key] = len(http.body)
            self._bytes += len(http.body)
        return key

    def _counted(self, request: Request) -> Request:
        """The request with the model's own count of its text, which was sized by a yardstick common to all models.

        A count that costs a call is made only before the clock, and for `COUNTING_S` at most.
        """
        if self._tokenizer.in_process or (self._counting_s < COUNTING_S and not self.measuring):
            began = time.monotonic()
            if request.session is None:
                count = sum(self._tokenizer.count_many(request.texts))
            else:  # a turn says again all that was said before
                count = sum(map(self._count_once, request.texts))
            self._counting_s += time.monotonic() - began
            return replace(request, input_tokens=count)
        return request

    def _shot(self, key: int) -> Shot:
        """What is handed over: freshly signed where the API signs."""
        self._given.pop(key, None)
        self._given[key] = None
        request = self._requests[key]
        self.turns.given(request)
        shot = Shot(key, b"", closes=not follows(request))
        if times_itself(self._client):
            shot.data = request
            return shot
        lifetime_s = self._client.signature_lifetime_s
        http = self._unsigned[key]
        if lifetime_s is None:
            del self._unsigned[key]
        else:
            http = self._client.sign(http)
            shot.expires_ns = time.monotonic_ns() + int(lifetime_s * NS)
        target = self._client.target
        shot.data = through_proxy(http, target).encode(target)
        return shot

    # -- what has become of it ----------------------------------------------------------------------------------------

    def ended(self, key: int) -> Request:
        """The request of a shot that is over."""
        self._unsigned.pop(key, None)
        self._given.pop(key, None)
        self._turns_given.discard(key)
        self._bytes -= self._sizes.pop(key, 0)
        return self._requests.pop(key)

    def on_the_wire(self, count: int) -> list[int]:
        """The measured shots that a worker must have launched, if it launched `count` that are not over.

        Later turns of sessions go out at once, the others in the order given.
        """
        # Copies: the working thread hands over more meanwhile.
        turns = set(self._turns_given)
        openers = [key for key in list(self._given) if key >= 0 and key not in turns]
        return [*sorted(turns), *openers][:count]


def times_itself(client: Client) -> bool:
    """Whether a client's requests can only be sent, and timed, by the library behind it."""
    return bool(getattr(client, "times_itself", False))
