"""What will be sent next: prepared ahead, signed when it is handed over, signed again where it waited too long."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from llmexp.clients.base import Client, HttpRequest
from llmexp.companion.task import Task
from llmexp.companion.turns import Turn, Turns
from llmexp.worker.dial import through_proxy
from llmexp.worker.line import Shot
from llmexp.worker.plan import NS
from llmexp.workload.request import Request
from llmexp.workload.source import Source
from llmexp.workload.tokens import Tokenizer

COUNTING_S = 20.0
"""Counting tokens by calls to the endpoint may take so long, before the clock."""


class Supply:
    """The requests that fall to one worker, in order. Not for two threads at a time."""

    def __init__(self, task: Task, client: Client, source: Source, tokenizer: Tokenizer) -> None:
        self._task = task
        self._client = client
        self._source = source
        self._tokenizer = tokenizer
        self.due = self._count_due()
        """Requests that fall to this worker; None: as many as there is time for."""
        self.turns = Turns()
        self.skipped = 0
        """Turns that will not be sent, because their session ended before them."""
        self.measuring = False
        """The load runs: nothing that calls the endpoint may be done beside it."""
        self._indexes = self._mine()
        self._taken = 0
        self._ahead: deque[int] = deque()
        """Prepared, not yet handed over."""
        self._stale: deque[int] = deque()
        """Handed back, since their signatures grew old."""
        self._requests: dict[int, Request] = {}
        self._unsigned: dict[int, HttpRequest] = {}
        self._given: dict[int, None] = {}
        """In the worker's queue or on the wire, in the order given."""
        self._counting_s = 0.0

    # -- which --------------------------------------------------------------------------------------------------------

    def _mine(self) -> Iterator[int]:
        """Indexes that fall to this worker: requests and whole sessions are dealt round, in the order they begin."""
        task, source = self._task, self._source
        if task.workers == 1 or task.requests is not None:
            yield from itertools.count(task.worker, task.workers)
        begun = 0
        owners: dict[int, int] = {}
        """Index that another waits for → the worker that its session fell to."""
        for index in itertools.count():
            needed = source.depends_on(index)
            if needed is None:
                owner = begun % task.workers
                begun += 1
            else:
                owner = owners.pop(needed[0])
            if source.followed_by(index) is not None:
                owners[index] = owner
            if owner == task.worker:
                yield index

    def _count_due(self) -> int | None:
        most = self._task.most
        if most is None:
            return None
        return sum(1 for _ in itertools.takewhile(lambda index: index < most, self._mine()))

    @property
    def all_given(self) -> bool:
        """Whether nothing will come any more."""
        if self.due is None or self._taken < self.due:
            return False
        return not (self._ahead or self._stale or self.turns.waiting)

    def _next_index(self) -> int | None:
        """The next request that waits for no answer; turns met on the way are parked."""
        while self.due is None or self._taken < self.due:
            self._taken += 1
            index = next(self._indexes)
            needed = None if self._task.requests is not None else self._source.depends_on(index)
            if needed is None:
                return index
            self.skipped += self.turns.park(index, *needed)
        return None

    # -- handing over -------------------------------------------------------------------------------------------------

    def prepare(self, count: int) -> None:
        """Prepare ahead until `count` requests wait to be handed over."""
        while len(self._ahead) < count and (index := self._next_index()) is not None:
            self._make(self._request(index), index)
            self._ahead.append(index)

    def warmup(self) -> list[Shot]:
        """The warm-up requests; their keys are negative."""
        task = self._task
        requests = [
            self._source.request(task.worker + at * task.workers, warmup=True) for at in range(task.warmup_requests)
        ]
        return [self._shot(self._make(request, -1 - request.index)) for request in requests]

    def take(self, count: int) -> list[Shot]:
        """Up to `count` shots that may go out as soon as there is a stream for them."""
        shots: list[Shot] = []
        while len(shots) < count:
            if self._stale:
                shots.append(self._shot(self._stale.popleft()))
                continue
            self.prepare(1)
            if not self._ahead:
                break
            shots.append(self._shot(self._ahead.popleft()))
        return shots

    def take_turns(self) -> list[Shot]:
        """Turns of sessions whose answers came: they hold a stream already."""
        shots: list[Shot] = []
        while (turn := self.turns.next()) is not None:
            shots.append(self._turn(turn))
        return shots

    def _turn(self, turn: Turn) -> Shot:
        request = self._source.request(turn.index, history=turn.history)
        shot = self._shot(self._make(request, turn.index))
        shot.not_before_ns, shot.opens = turn.not_before_ns, False
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
            self._unsigned[key] = self._client.prepare(self._requests[key])
        return key

    def _counted(self, request: Request) -> Request:
        """The request with the model's own count of its text, which was sized by a yardstick common to all models.

        A count that costs a call is made only before the clock, and for `COUNTING_S` at most.
        """
        if self._tokenizer.in_process or (self._counting_s < COUNTING_S and not self.measuring):
            began = time.monotonic()
            count = sum(self._tokenizer.count_many(request.texts))
            self._counting_s += time.monotonic() - began
            return replace(request, input_tokens=count)
        return request

    def _shot(self, key: int) -> Shot:
        """What is handed over: freshly signed where the API signs."""
        self._given.pop(key, None)
        self._given[key] = None
        shot = Shot(key, b"", closes=self._closes(key))
        if times_itself(self._client):
            shot.data = self._requests[key]
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

    def _closes(self, key: int) -> bool:
        """Whether nothing of the same session follows."""
        if key < 0 or self._task.requests is not None:
            return True
        follower, most = self._source.followed_by(key), self._task.most
        return follower is None or (most is not None and follower >= most)

    # -- what has become of it ----------------------------------------------------------------------------------------

    def ended(self, key: int) -> Request:
        """The request of a shot that is over."""
        self._unsigned.pop(key, None)
        self._given.pop(key, None)
        return self._requests.pop(key)

    def failed(self, index: int) -> bool:
        """A turn has no answer: whether that ends a session before its last turn."""
        if self._closes(index):
            return False
        self.skipped += self.turns.failed(index)
        return True

    def on_the_wire(self, count: int) -> list[int]:
        """The measured shots that a worker must have launched, if it launched `count` that are not over."""
        return [key for key in self._given if key >= 0][:count]


def times_itself(client: Client) -> bool:
    """Whether a client's requests can only be sent, and timed, by the library behind it."""
    return bool(getattr(client, "times_itself", False))
