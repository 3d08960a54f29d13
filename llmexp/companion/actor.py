"""A worker's companion: prepares what will be sent and explains what came back, at low priority, in its own process.

Three threads: one reads the feed, one works (prepare, decode), Ray's call the methods. A backlog of tapes beyond
`SPOOL_BYTES` lies on disk, so that memory stays flat however long the run.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import pickle
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from llmexp.clients.base import Client, HttpRequest, Target
from llmexp.config import Config
from llmexp.metrics.service_level import kept
from llmexp.records import Record
from llmexp.worker.line import Loaded, Need, Odometer, Over, Ready, Resign, Shot, Stop, Unpacker, pack
from llmexp.worker.pool import NS, Tape
from llmexp.workload.request import Message, Request

SPOOL_BYTES = 64 * 2**20
BATCH_RECORDS = 256
BATCH_S = 0.5
HOPELESS = ("auth", "not_found", "bad_request")
UNREACHABLE = ("connect", "tls")
COUNTING_S = 20.0
HURRY_NS = 2 * NS
"""An answer that ended so long ago is explained without rest, since budgets and early ends go by the counts."""
LONGEST_REST_S = 0.05
FIRST = 5
"""So many first requests that all fail alike end a job early."""


@dataclass(frozen=True)
class Task:
    """What a companion needs to know of its job."""

    config: Config
    base_url: str | None
    nonce: str
    worker: int
    workers: int
    warmup_requests: int
    """This worker's share."""
    requests: tuple[Request, ...] | None = None
    """Fixed requests instead of the workload's own, indexed by their `index`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Throwaway credentials of a rehearsal; never a user's."""


class Spool:
    """A queue of byte strings that keeps at most `limit` bytes in memory and the rest in an unnamed file."""

    def __init__(self, limit: int = SPOOL_BYTES) -> None:
        self._limit = limit
        self._memory: deque[bytes] = deque()
        self._bytes = 0
        self._file: BinaryIO | None = None
        self._read = self._written = 0
        self._lock = threading.Lock()

    def put(self, item: bytes) -> None:
        """Append; order is kept: while the file holds anything, new items go behind it."""
        with self._lock:
            if self._written == self._read and self._bytes + len(item) <= self._limit:
                self._memory.append(item)
                self._bytes += len(item)
                return
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the spool
            self._file.seek(self._written)
            self._file.write(struct.pack("<Q", len(item)) + item)
            self._written += 8 + len(item)

    def get(self) -> bytes | None:
        """The oldest item, or None."""
        with self._lock:
            if self._memory:
                item = self._memory.popleft()
                self._bytes -= len(item)
                return item
            if self._file is None or self._read == self._written:
                return None
            self._file.seek(self._read)
            (size,) = struct.unpack("<Q", self._file.read(8))
            item = self._file.read(size)
            self._read += 8 + size
            if self._read == self._written:
                self._read = self._written = 0
                self._file.truncate(0)
            return item


class Companion:
    """The body of a companion actor."""

    def __init__(self, task: Task) -> None:
        _give_way()
        os.environ.update(task.environment)
        self._task = task
        self._directory = Path(tempfile.mkdtemp(prefix="llmexp-"))
        self._odometer = Odometer(self._directory / "launched", create=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._directory / "feed.sock"))
        self._listener.listen(1)
        self._peer: socket.socket | None = None
        self._send_lock = threading.Lock()
        self._tapes = Spool()
        self._wake = threading.Event()
        self._wishes: deque[Need | Resign] = deque()
        self._need = self._next = 0
        self._due: int | None = None
        """Requests that the worker will send at most; None: as many as there is time for."""
        self._over = True
        """No phase is under way: the worker does not read."""
        self._resign: deque[int] = deque()
        self._given: dict[int, None] = {}
        """Indexes in the worker's queue or on the wire, in the order given."""
        self._requests: dict[int, Request] = {}
        self._unsigned: dict[int, HttpRequest] = {}
        self._parked: dict[int, tuple[int, float]] = {}
        """Index whose answer is needed → (index that waits for it, think time in s)."""
        self._unparked: deque[tuple[int, list[Message], int]] = deque()
        self._answered: dict[int, tuple[list[Message], int]] = {}
        self._counting_s = 0.0
        self._measuring = False
        self._cpu_before_s = 0.0
        self._owed = 0
        """Shots asked for that only wait for answers."""
        self._records: list[Record] = []
        self._records_lock = threading.Lock()
        self._flushed = time.monotonic()
        self._batches: deque[bytes] = deque()
        self._progress: Counter[str] = Counter()
        self._first_errors: list[str | None] = []
        self._reason: str | None = None
        self._problem: str | None = None
        self._decoded = 0
        self._chunks = 0
        self._decode_s = 0.0
        self._peer_gone = threading.Event()
        self._closing = False
        self._lost = 0
        self._warm: list[Record] = []
        self._client: Client
        self._source: Any
        self._tokenizer: Any

    # -- before the clock ---------------------------------------------------------------------------------------------

    def build(self) -> dict[str, Any]:
        """Build client, tokenizer and workload; what the driver needs to plan the worker."""
        from llmexp.clients import build
        from llmexp.workload import source_for
        from llmexp.workload.tokens import tokenizer_for

        config = self._task.config
        self._client = build(config.model, self._task.base_url)
        self._tokenizer = tokenizer_for(config.model, self._task.base_url)
        self._source = source_for(config, self._task.base_url, self._task.nonce)
        _warm_up()
        own = bool(getattr(self._client, "times_itself", False))
        return {
            "directory": str(self._directory),
            "target": self._client.target if not own else Target("http", "127.0.0.1", 1),
            "signed": self._client.signature_lifetime_s is not None,
            "own_stream": own,
            "tokenizer": self._tokenizer.name,
            "tokenizer_source": self._tokenizer.source,
            "declared_cache_share": float(self._source.declared_cache_share()),
            "workload_notes": self._source.notes(),
            "workload_size": self._source.size,
        }

    def node(self) -> str:
        """The Ray node that this companion runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def attach(self, due: int | None) -> None:
        """Take the worker's connection and start the threads. `due`: requests that the worker will send, if known."""
        self._due = due
        self._listener.settimeout(60)
        self._peer, _ = self._listener.accept()
        self._peer.setblocking(True)
        threading.Thread(target=self._read_feed, name="feed", daemon=True).start()
        threading.Thread(target=self._work, name="work", daemon=True).start()

    def give_warmup(self) -> int:
        """Hand the warm-up requests to the worker; how many."""
        self._over = False
        task = self._task
        shots = []
        for at in range(task.warmup_requests):
            request = self._source.request(task.worker + at * task.workers, warmup=True)
            shots.append(self._shot(request, -1 - request.index))
        self._send(Ready(shots, last=True))
        self._send(Loaded())
        return len(shots)

    def give(self, count: int) -> int:
        """Hand the first `count` measured requests to the worker; how many there were."""
        self._over = False
        before = len(self._given)
        self._supply(count)
        self._send(Loaded())
        self._measuring = True
        self._cpu_before_s = time.process_time()
        return len(self._given) - before

    # -- preparing ----------------------------------------------------------------------------------------------------

    def _supply(self, count: int) -> None:
        """Prepare up to `count` shots in slices, so that the first arrive early."""
        while count > 0 and not self._closing and not self._over:
            shots = list(itertools.islice(iter(self._next_shot, None), min(count, 64)))
            self._send(Ready(shots, last=self._all_given()))
            count -= len(shots)
            if not shots:
                break
        self._owed += count

    def _all_given(self) -> bool:
        due = self._due
        return due is not None and self._next >= due and not (self._resign or self._parked or self._unparked)

    def _next_shot(self) -> Shot | None:
        """The next request in order; turns of a conversation wait until the answer before them is known."""
        if self._resign:
            return self._aim(self._resign.popleft())
        if self._unparked:
            index, before, not_before_ns = self._unparked.popleft()
            return self._shot(self._source.request(index, history=before), index, not_before_ns)
        while self._due is None or self._next < self._due:
            index = self._task.worker + self._next * self._task.workers
            self._next += 1
            fixed = self._fixed(index)
            if fixed is not None:
                return self._shot(fixed, index)
            needed = self._source.depends_on(index)
            if needed is None:
                return self._shot(self._source.request(index), index)
            before, think_s = needed
            self._parked[before] = (index, think_s)
            if before in self._answered:
                self._unpark(before)
                return self._next_shot()
        return None

    def _unpark(self, before: int) -> None:
        """The answer to `before` is known: the turn behind it can be prepared."""
        messages, end_ns = self._answered.pop(before)
        index, think_s = self._parked.pop(before)
        self._unparked.append((index, messages, end_ns + int(think_s * NS)))

    def _remember(self, request: Request, row: Record) -> None:
        """Keep the conversation so far for the turn that follows."""
        answer = Message("assistant", row.text or "")
        self._answered[request.index] = ([*request.messages, answer], row.end_ns or time.monotonic_ns())
        if request.index in self._parked:
            self._unpark(request.index)
            self._need, self._owed = self._need + min(1, self._owed), max(0, self._owed - 1)

    def _fixed(self, index: int) -> Request | None:
        return None if self._task.requests is None else self._task.requests[index]

    def _shot(self, request: Request, key: int, not_before_ns: int = 0) -> Shot:
        request = self._requests[key] = self._counted(request)
        if getattr(self._client, "times_itself", False):
            self._given[key] = None
            return Shot(key, request, 0, not_before_ns)
        self._unsigned[key] = self._client.prepare(request)
        return self._aim(key, not_before_ns)

    def _counted(self, request: Request) -> Request:
        """The request with the model's own count of its text, which was sized by a yardstick common to all models.

        A count that costs a call is made only before the clock, and for `COUNTING_S` at most.
        """
        if self._tokenizer.in_process or (self._counting_s < COUNTING_S and not self._measuring):
            began = time.monotonic()
            count = sum(self._tokenizer.count_many(request.texts))
            self._counting_s += time.monotonic() - began
            return replace(request, input_tokens=count)
        return request

    def _aim(self, key: int, not_before_ns: int = 0) -> Shot:
        """The bytes of a prepared request, freshly signed where the API signs."""
        lifetime_s = self._client.signature_lifetime_s
        http = self._unsigned[key]
        expires_ns = 0
        if lifetime_s is None:
            del self._unsigned[key]
        else:
            http = self._client.sign(http)
            expires_ns = time.monotonic_ns() + int(lifetime_s * NS)
        self._given.pop(key, None)
        self._given[key] = None
        return Shot(key, self._encode(http), expires_ns, not_before_ns)

    def _encode(self, http: HttpRequest) -> bytes:
        from llmexp.worker.dial import through_proxy

        target = self._client.target
        return through_proxy(http, target).encode(target)

    def _send(self, message: object) -> None:
        with self._send_lock, contextlib.suppress(OSError):
            if self._peer is not None and not (self._over and isinstance(message, Ready)):
                self._peer.sendall(pack(message))

    # -- understanding ------------------------------------------------------------------------------------------------

    def _read_feed(self) -> None:
        assert self._peer is not None
        unpacker = Unpacker()
        buffer = memoryview(bytearray(1 << 18))
        while True:
            try:
                count = self._peer.recv_into(buffer)
            except OSError:
                count = 0
            if not count:
                self._over = True  # nobody is left to prepare for
                self._peer_gone.set()
                self._wake.set()
                return
            for is_tape, body in unpacker.feed(buffer[:count]):
                if is_tape:
                    self._tapes.put(body)
                else:
                    self._hear(pickle.loads(body))  # noqa: S301 -- our own worker, over a private socket
                self._wake.set()

    def _hear(self, message: object) -> None:
        """Take what does not wait behind the tapes; what the working thread must act on is only queued here."""
        if isinstance(message, Over):
            self._over = True
            self._send(Over())
        elif isinstance(message, Need | Resign):
            self._wishes.append(message)

    def _work(self) -> None:
        try:
            while not self._closing:
                while self._wishes:
                    self._note_wish(self._wishes.popleft())
                if self._need:
                    count, self._need = self._need, 0
                    self._supply(count)
                gone = self._peer_gone.is_set()
                body = self._tapes.get()
                if body is not None:
                    began = time.thread_time()
                    tape = pickle.loads(body)  # noqa: S301 -- our own worker, over a private socket
                    self._explain(tape)
                    worked_s = time.thread_time() - began
                    self._decode_s += worked_s
                    self._rest(worked_s, tape.end_ns)
                    continue
                self._flush(force=time.monotonic() - self._flushed > BATCH_S)
                if gone:
                    self._count_lost()
                    self._flush(force=True)
                    return
                self._wake.wait(BATCH_S)
                self._wake.clear()
        except Exception as error:  # noqa: BLE001 -- told to the driver, which ends the job
            self._problem = f"{type(error).__name__}: {error}"
            self._send(Stop(cut=True))

    def _note_wish(self, message: Need | Resign) -> None:
        if isinstance(message, Need):
            self._need += message.count
            return
        for index in message.indexes:
            self._given.pop(index, None)
            self._resign.append(index)
        self._need += len(message.indexes)

    def _rest(self, worked_s: float, ended_ns: int | None) -> None:
        """Leave the core alone for as long as it was used, while nobody is in a hurry.

        The idle class makes way at once only for tasks of its own scheduling group: whoever was started in another
        session, as a server beside us is, would wait for the scheduler's next tick.
        """
        behind_ns = time.monotonic_ns() - (ended_ns or 0)
        if self._measuring and not (self._over or self._parked or self._wishes) and behind_ns < HURRY_NS:
            time.sleep(min(worked_s, LONGEST_REST_S))

    def _explain(self, tape: Tape) -> None:
        from llmexp.companion.explain import record

        request = self._requests.pop(tape.index)
        self._unsigned.pop(tape.index, None)
        self._given.pop(tape.index, None)
        row = record(tape, request, self._client, self._tokenizer, self._task.worker)
        if request.session is not None and not tape.warmup:
            self._remember(request, row)
        if not (self._task.config.run.save_text or self._task.config.quality.graded):
            row.forget_texts()
        self._chunks += len(row.chunk_ns)
        self._decoded += 1
        if tape.warmup:
            self._warm.append(row)
            return
        with self._records_lock:
            self._records.append(row)
        self._note(row)
        self._flush(force=False)

    def _note(self, row: Record) -> None:
        self._progress[row.status] += 1
        self._progress["output_tokens"] += row.output_tokens or 0
        self._progress["input_tokens"] += row.input_tokens or 0
        self._progress["cached_tokens"] += row.cached_tokens or 0
        self._progress["slo_missed"] += self._missed(row)
        if self._reason is None and len(self._first_errors) < 4 * FIRST:
            self._first_errors.append(row.error_class)
            self._reason = hopeless(self._first_errors, row.error_message, self._due)
            if self._reason is not None:
                self._send(Stop(cut=False))

    def _missed(self, row: Record) -> bool:
        """Whether a request missed the service level; what the client cut itself neither kept nor missed it."""
        slo = self._task.config.slo
        if not slo.thresholds or row.status == "unfinished":
            return False
        return not kept(row, slo, open_loop=not self._task.config.closed)

    def _flush(self, *, force: bool) -> None:
        """Called by the working thread and by `finish`: without the lock, both could hand over the same records."""
        from llmexp.records import to_batch

        with self._records_lock:
            if not self._records or (len(self._records) < BATCH_RECORDS and not force):
                return
            self._batches.append(to_batch(self._records))
            self._records = []
            self._flushed = time.monotonic()

    def _count_lost(self) -> None:
        """The worker died: what it had launched and not handed back are `client` errors."""
        if self._closing:
            return
        launched = self._odometer.read()
        done = self._progress["completed"] + self._progress["failed"] + self._progress["unfinished"]
        on_the_wire = [key for key in self._given if key >= 0][: max(0, launched - done)]
        now = time.monotonic_ns()
        for key in on_the_wire:
            request = self._requests.pop(key)
            row = Record(
                index=request.index,
                worker=self._task.worker,
                status="failed",
                intended_ns=now,
                dispatched_ns=now,
                max_tokens=request.max_tokens,
                prompt_digest=request.prompt_digest,
                error_class="client",
                error_message="the worker process died while this request was in flight",
            )
            with self._records_lock:
                self._records.append(row)
            self._progress["failed"] += 1
            self._lost += 1

    # -- the driver's questions ---------------------------------------------------------------------------------------

    def drain(self) -> tuple[list[bytes], dict[str, int], str | None]:
        """Record batches since the last call, counts so far, and a reason to stop or a fault of our own."""
        batches = []
        while self._batches:
            batches.append(self._batches.popleft())
        problem = f"internal error while explaining answers: {self._problem}" if self._problem else self._reason
        return batches, dict(self._progress), problem

    def warmup_records(self) -> list[Record]:
        """What the warm-up's tapes mean, once all of them have been explained."""
        deadline = time.monotonic() + 60
        while len(self._warm) < self._task.warmup_requests and time.monotonic() < deadline and not self._problem:
            time.sleep(0.01)
        return self._warm

    def stop(self, *, cut: bool) -> None:
        """Tell the worker to start nothing new, and to cut what is in flight where asked."""
        self._send(Stop(cut=cut))

    def finish(self, launched: int | None) -> dict[str, Any]:
        """Wait until every launched request is explained (None: the worker died), then report on the work itself."""
        while self._problem is None:
            done = self._progress["completed"] + self._progress["failed"] + self._progress["unfinished"]
            if launched is not None and done >= launched:
                break
            if launched is None and self._peer_gone.is_set() and self._lost_counted():
                break
            time.sleep(0.01)
        self._flush(force=True)
        return {
            "decoded": self._decoded,
            "chunks": self._chunks,
            "decode_s": self._decode_s,
            "cpu_s": time.process_time() - self._cpu_before_s,
            "lost_requests": self._lost,
            "problem": self._problem,
        }

    def _lost_counted(self) -> bool:
        return not any(thread.name == "work" for thread in threading.enumerate())

    def close(self) -> None:
        """End the threads and remove the socket."""
        self._closing = True
        self._wake.set()
        for sock in (self._peer, self._listener):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _give_way() -> None:
    """Run only where nobody else wants the core, and be put aside at once when the worker wakes up."""
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _warm_up() -> None:
    """Load before the clock what explaining and handing over need: imports of a second or two."""
    import llmexp.companion.explain  # noqa: F401
    from llmexp.records import to_batch

    _spare_pandas()
    to_batch([])


def _spare_pandas() -> None:
    """Have Arrow find no pandas: it looks once, for its kinds of lists, and importing it is 50 MB and most of a second.

    Where Arrow looks in another way, pandas is imported and nothing else changes.
    """
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        with contextlib.suppress(ImportError, AttributeError):
            pa.array([0])
    finally:
        del sys.modules["pandas"]


def hopeless(errors: list[str | None], message: str | None, expected: int | None) -> str | None:
    """Why to stop early: the first requests all failed alike in a way that more requests cannot mend."""
    alike = set(errors)
    if len(alike) != 1:
        return None
    kind = errors[0]
    enough = FIRST if kind in HOPELESS else 4 * FIRST if kind in UNREACHABLE else None
    if enough is None or len(errors) < min(enough, expected or enough):
        return None
    return f"the first {len(errors)} requests all failed with '{kind}': {message}"


def nonce_of(job_id: str) -> str:
    """A fresh nonce for a job."""
    return hashlib.sha256(job_id.encode()).hexdigest()[:16]
