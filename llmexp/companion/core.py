"""A companion's work on one job: prepare what will be sent, explain what came back.

Three kinds of threads meet here: one reads the feed, one works, the driver's calls ask and tell. Only the working
thread touches the supply while a phase runs; before that, the calls do.
"""

from __future__ import annotations

import contextlib
import pickle
import shutil
import threading
import time
from collections import deque
from dataclasses import replace

from llmexp.clients.base import Client, Failure, Target
from llmexp.companion import ahead, luggage
from llmexp.companion.allowance import Allowance, Spent
from llmexp.companion.feed import Feed
from llmexp.companion.luggage import Luggage
from llmexp.companion.rows import BATCH_S, Rows
from llmexp.companion.spool import Spool, SpoolFullError
from llmexp.companion.supply import Supply, times_itself
from llmexp.companion.tally import Tally
from llmexp.companion.task import Built, Drained, Task, Work
from llmexp.config.places import socket_folder
from llmexp.records import Record
from llmexp.secrets import redact
from llmexp.worker import journal
from llmexp.worker.journal import Journal
from llmexp.worker.line import (
    ODOMETER,
    Loaded,
    Need,
    Odometer,
    Over,
    Ready,
    Resign,
    SessionsEnded,
    Shot,
    Stop,
    unpack,
)
from llmexp.worker.pool import Tape
from llmexp.workload.request import Message, Request
from llmexp.workload.tokens import Tokenizer

SLICE = 64
"""Shots in one message, so that the first arrive early."""
HURRY_NS = 2_000_000_000
"""An answer that ended so long ago is explained without rest, since budgets and early ends go by the counts."""
LONGEST_REST_S = 0.05


class Core:
    """One companion, one job."""

    def __init__(self, task: Task, files: Luggage | None = None) -> None:
        self._directory = socket_folder()
        self._task = replace(task, config=luggage.unpack(task.config, files or {}, self._directory))
        self._odometer = Odometer(self._directory / ODOMETER, create=True)
        self._feed = Feed(self._directory)
        self._tapes = Spool()
        self._journal = Journal(self._directory / journal.NAME)
        self._rows = Rows(self._journal)
        self._allowance = Allowance(task.price, task.config.model.params)
        self._owed = 0
        """Requests that the worker asked for and that wait for money or for memory."""
        self._warm: list[Record] = []
        self._wishes: deque[Need | Resign] = deque()
        self._wake = threading.Event()
        self._supplying = threading.Lock()
        self._idle = threading.Condition()
        """Notified when there is no tape left to explain, and when the working thread ends."""
        self._unexplained = 0
        self._over = True
        """No phase is under way: the worker does not read."""
        self._gone = False
        """The worker hung up."""
        self._ended = False
        """The working thread has ended."""
        self._closing = False
        self._told_last = False
        self._problem: str | None = None
        self._cpu_before_s = 0.0
        self._decoded = self._chunks = self._lost = 0
        self._decode_s = 0.0
        self._client: Client
        self._tokenizer: Tokenizer
        self._supply: Supply
        self._tally: Tally

    # -- before the clock ---------------------------------------------------------------------------------------------

    def build(self) -> Built:
        """Build client, tokenizer and workload; what the driver needs to plan the worker."""
        from llmexp.clients import build
        from llmexp.workload import source_for
        from llmexp.workload.tokens import tokenizer_for

        task, config = self._task, self._task.config
        self._client = client = build(config.model, task.base_url)
        self._tokenizer = tokenizer_for(config.model, task.base_url)
        source = source_for(config, task.base_url, task.nonce)
        self._supply = Supply(task, client, source, self._tokenizer, self._allowance)
        self._tally = Tally(config, self._supply.due)
        ahead.load()
        own = times_itself(client)
        return Built(
            directory=str(self._directory),
            target=Target("http", "127.0.0.1", 1) if own else client.target,
            signed=client.signature_lifetime_s is not None,
            own_stream=own,
            paid=task.price is not None,
            due=self._supply.due,
            sessions=None if task.most is None else sum(1 for _ in source.sessions(task.most)),
            tokenizer=self._tokenizer.name,
            tokenizer_source=self._tokenizer.source,
            declared_cache_share=float(source.declared_cache_share()),
            workload_notes=tuple(source.notes()),
            workload_size=source.size,
        )

    def prepare(self, count: int) -> None:
        """Prepare the first `count` measured requests, for `give` to hand over. Needs no worker yet."""
        with self._supplying:
            self._supply.prepare(count)

    def attach(self) -> None:
        """Take the worker's connection and start the threads."""
        self._feed.accept()
        threading.Thread(target=self._read, name="feed", daemon=True).start()
        threading.Thread(target=self._work, name="work", daemon=True).start()

    def give_warmup(self) -> int:
        """Hand the warm-up requests to the worker; how many."""
        self._over = False
        with self._supplying:
            shots = self._supply.warmup()
        self._feed.send(Ready(shots, last=True))
        self._feed.send(Loaded())
        return len(shots)

    def give(self, count: int) -> int:
        """Hand the first `count` measured requests to the worker; how many there were."""
        self._over = False
        with self._supplying:
            given = self._supply_now(count)
            self._supply.measuring = True
        self._feed.send(Loaded())
        self._cpu_before_s = time.process_time()
        return given

    # -- the feed -----------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._feed.read(self._take_tape, self._hear)
        except Exception as error:  # noqa: BLE001 -- told to the driver, which ends the job
            self._problem = redact(f"{type(error).__name__}: {error}")
        self._over = self._gone = True  # nobody is left to prepare for
        self._wake.set()

    def _take_tape(self, body: bytes) -> None:
        with self._idle:
            self._unexplained += 1
        try:
            self._tapes.put(body)
        except SpoolFullError as error:
            self._tapes.put(pack_emptied(body, f"the backlog is full: {error}"), small=True)
        self._wake.set()

    def _hear(self, message: object) -> None:
        """Take what does not wait behind the tapes; what the working thread must act on is only queued here."""
        if isinstance(message, Over):
            self._over = True
            self._feed.send(Over())
        elif isinstance(message, Need | Resign):
            self._wishes.append(message)
        self._wake.set()

    # -- the working thread -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self._closing and self._step():
                pass
        except BaseException as error:  # noqa: BLE001 -- told to the driver, which ends the job
            self._problem = redact(f"{type(error).__name__}: {error}")
            self._feed.send(Stop(cut=True))
        finally:  # whatever happens: `finish` waits for it
            with self._idle:
                self._ended = True
                self._idle.notify_all()

    def _step(self) -> bool:
        """Supply first, then one tape, else wait; False when the worker is gone and nothing is left."""
        gone = self._gone
        self._grant()
        body = self._tapes.get()
        if body is not None:
            self._explain_timed(body)
            return True
        self._rows.flush()
        with self._idle:
            self._idle.notify_all()
        if gone:
            return False
        self._wake.wait(BATCH_S)
        self._wake.clear()
        return True

    def _grant(self) -> None:
        """Supply what the worker asked for, and the turns that may go out."""
        with self._supplying:
            wanted, self._owed = self._owed, 0
            while self._wishes:
                wish = self._wishes.popleft()
                if isinstance(wish, Need):
                    wanted += wish.count
                else:
                    self._supply.resign(wish.indexes)
                    wanted += len(wish.indexes)
            turns = self._supply.take_turns() if self._supply.waits and not self._over else []
            if turns:
                self._send_ready(turns)
            if wanted:
                self._supply_now(wanted)

    def _supply_now(self, count: int) -> int:
        """Hand over up to `count` shots in slices; how many there were."""
        given = 0
        while given < count and not self._closing and not self._over:
            shots = self._supply.take(min(count - given, SLICE))
            self._send_ready(shots)
            given += len(shots)
            if not shots:
                self._owed = count - given if self._allowance.short or self._supply.crowded else 0
                break
        return given

    def _send_ready(self, shots: list[Shot]) -> None:
        self._told_last = self._supply.all_given
        if not self._over:
            self._feed.send(Ready(shots, last=self._told_last))

    def _explain_timed(self, body: bytes) -> None:
        began = time.thread_time()
        tape = unpack(body)
        assert isinstance(tape, Tape)
        self._explain(tape)
        worked_s = time.thread_time() - began
        self._decode_s += worked_s
        with self._idle:
            self._unexplained -= 1
        self._rest(worked_s, tape.end_ns)

    def _rest(self, worked_s: float, ended_ns: int | None) -> None:
        """Leave the core alone for as long as it was used, while nobody is in a hurry.

        The idle class makes way at once only for tasks of its own scheduling group: whoever was started in another
        session, as a server beside us is, would wait for the scheduler's next tick.
        """
        hurry = self._over or self._wishes or self._supply.waits
        if not self._supply.measuring or hurry or time.monotonic_ns() - (ended_ns or 0) > HURRY_NS:
            return
        time.sleep(min(worked_s, LONGEST_REST_S))

    # -- understanding ------------------------------------------------------------------------------------------------

    def _explain(self, tape: Tape) -> None:
        request = self._supply.ended(tape.index)
        row = self._record(tape, request)
        self._settle(tape.index, row)
        if request.session is not None and not tape.warmup:
            self._go_on(request, row)
        if not (self._task.config.run.save_text or self._task.config.quality.graded):
            row.forget_texts()
        self._chunks += len(row.chunk_ns)
        self._decoded += 1
        if tape.warmup:
            self._warm.append(row)
        else:
            self._keep(row)

    def _settle(self, key: int, row: Record) -> None:
        self._allowance.settle(key, row)
        if self._allowance.overdrawn:
            self._feed.send(Stop(cut=False))

    def _record(self, tape: Tape, request: Request) -> Record:
        """What the tape means. A fault of ours costs this request, never the others."""
        from llmexp.companion.explain import record, unexplained

        try:
            return record(tape, request, self._client, self._tokenizer, self._task.worker)
        except Exception as error:  # noqa: BLE001 -- see above
            return unexplained(tape, request, self._task.worker, error)

    def _keep(self, row: Record) -> None:
        self._rows.add(row)
        if self._tally.add(row):
            self._feed.send(Stop(cut=False))
        self._rows.flush()

    def _go_on(self, request: Request, row: Record) -> None:
        """Free the turn that waits for this answer, or end the session where there is none."""
        turns = self._supply.turns
        if row.status == "completed":
            row.off_script = turns.off_script(request, row.tool_calls)
            turns.answered(request, Message("assistant", row.text or ""), row.end_ns or time.monotonic_ns())
        elif turns.failed(request):
            self._feed.send(SessionsEnded(1))
        if not self._told_last and self._supply.all_given:
            self._send_ready([])

    def _count_lost(self, launched: int, why: str) -> None:
        """Requests that were launched and of which nothing came back are `client` errors."""
        now = time.monotonic_ns()
        for key in self._supply.on_the_wire(max(0, launched - self._tally.done)):
            request = self._supply.ended(key)
            self._lost += 1
            row = Record(
                index=request.index,
                worker=self._task.worker,
                status="failed",
                intended_ns=now,
                dispatched_ns=now,
                max_tokens=request.max_tokens,
                prompt_digest=request.prompt_digest,
                session=request.session,
                turn=request.turn,
                session_turns=None if request.session is None else request.turns,
                error_class="client",
                error_message=why,
            )
            self._settle(key, row)
            self._keep(row)

    # -- the driver's questions ---------------------------------------------------------------------------------------

    def drain(self) -> Drained:
        """Record batches since the last call, counts so far, and a reason to stop or a fault of our own."""
        problem = self._tally.reason
        if self._problem is not None:
            problem = f"internal error while explaining answers: {self._problem}"
        counts = self._tally.counts
        if self._supply.turns.skipped:
            counts["turns_skipped"] = self._supply.turns.skipped
        flying = self._supply.on_the_wire(max(0, self._odometer.read() - self._tally.done))
        return Drained(self._rows.take(), counts, problem, flying, self._tally.ttft, self._allowance.state())

    def grant(self, usd: float, beyond: float) -> None:
        """More money; `beyond` is what could still follow."""
        self._allowance.grant(usd, beyond)
        self._wake.set()

    def spent(self) -> Spent:
        """Where its money is."""
        return self._allowance.state()

    def give_back(self) -> float:
        """Return the money that nothing needs so far."""
        return self._allowance.give_back()

    def warmup_records(self) -> list[Record]:
        """What the warm-up's tapes mean, once all of them have been explained."""
        self._wait()
        return self._warm

    def stop(self, *, cut: bool) -> None:
        """Tell the worker to start nothing new, and to cut what is in flight where asked."""
        self._feed.send(Stop(cut=cut))

    def finish(self, launched: int | None) -> Work:
        """Wait until every tape is explained, then report on the work itself.

        `launched`: what the worker said at its end; None where it died, and the odometer must tell.
        """
        self._wait()
        if launched is None:
            self._count_lost(self._odometer.read(), "the worker process died while this request was in flight")
        else:
            self._count_lost(launched, "the worker handed nothing back of this request")
        self._allowance.release()
        self._rows.flush(force=True)
        return Work(
            decoded=self._decoded,
            chunks=self._chunks,
            decode_s=self._decode_s,
            cpu_s=time.process_time() - self._cpu_before_s,
            lost_requests=self._lost,
            problem=self._problem,
        )

    def _wait(self) -> None:
        """Until the phase is over and its last tape explained, or no thread is left that could explain one."""
        with self._idle:
            self._idle.wait_for(lambda: self._ended or (self._over and not self._unexplained))

    def close(self) -> None:
        """End the threads, hang up, and remove the socket."""
        self._closing = True
        self._wake.set()
        self._feed.close()
        self._tapes.close()
        self._journal.close()
        with contextlib.suppress(OSError):
            shutil.rmtree(self._directory, ignore_errors=True)


def pack_emptied(body: bytes, why: str) -> bytes:
    """A tape without its bytes, as the failure of that request."""
    tape = unpack(body)
    assert isinstance(tape, Tape)
    tape.stamps, tape.pieces, tape.failure = tape.stamps[:0], [], Failure.of("client", None, why)
    return pickle.dumps(tape, protocol=5)
