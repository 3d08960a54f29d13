"""Reports gathered from all pairs while a load runs, money handed out, losses counted."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING

from llmexp import records
from llmexp.benchmark import cluster, pairs
from llmexp.benchmark.measurement import Job, Measurement
from llmexp.benchmark.pairs import Pair
from llmexp.benchmark.purse import End, Spending
from llmexp.errors import ConfigError, JobError
from llmexp.metrics.so_far import SoFar, Steps
from llmexp.records import Record, Writer

if TYPE_CHECKING:
    from ray import ObjectRef

    from llmexp.companion.task import Drained, Work
    from llmexp.worker.plan import Left, Watch

POLL_S = 1.0
ANSWER_S = 60.0
"""A companion that answers nothing for so long is lost: it may be stopped, or starved of CPU."""
GRANT_S = 15.0
LEFT_S = 15.0
"""A worker whose companion died ends its load at once and tells what is left."""
log = logging.getLogger("llmexp")


class Gathering:
    """What all pairs of a job tell the driver, and what they are told in return."""

    def __init__(self, job: Job, on: Sequence[Pair], result: Measurement) -> None:
        self._job = job
        self._pairs = on
        self._result = result
        self._writer: Writer | None = None
        self._reported: dict[Pair, ObjectRef[Drained]] = {}
        """Reports of companions that were asked for and have not come."""
        self._heard_s: dict[Pair, float] = {}
        self._start_ns = 0
        self._spending = Spending(job.purse, len(on))

    def begin(self, writer: Writer, start_ns: int) -> None:
        """The load begins then, by the driver's clock; records go there."""
        self._writer, self._start_ns = writer, start_ns
        self._heard_s = dict.fromkeys(self._pairs, time.monotonic())

    def end(self) -> None:
        """Nothing more is handed out. What was spent since companions last told, all of a warm-up that was broken off,
        is heard first.
        """
        try:
            if self._spending.counts and cluster.alive():
                with contextlib.suppress(Exception):
                    self._hear_of_money()
        finally:
            self._spending.end()

    def _hear_of_money(self) -> None:
        import ray

        asked = {pair.companion.spent.remote(): pair for pair in self._pairs if pair.companion_lives}
        done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=POLL_S) if asked else ([], [])
        for ref in done:
            with contextlib.suppress(Exception):  # that one has died: what it had is reckoned
                self._spending.heard(asked[ref].number, ray.get(ref))

    # -- money --------------------------------------------------------------------------------------------------------

    def give_money(self) -> None:
        """Before the first request: warm-up is paid for like any other."""
        if self._spending.counts:
            grants = self._spending.first()
            ask = "take its money"
            pairs.ask(self._pairs, lambda pair: pair.companion.grant.remote(*grants[pair.number]), GRANT_S, ask)
            self._spending.start(self._out_of_money)

    def _spend(self) -> None:
        """Portions for those that need one; the end where nothing more may start."""
        grants, end = self._spending.decide(self._recall)
        for at, grant in grants.items():
            self._pairs[at].companion.grant.remote(*grant)
        if end is not None:
            self._out_of_money(end)

    def _recall(self, at: int) -> float:
        if not self._pairs[at].companion_lives:
            return 0.0
        with contextlib.suppress(JobError):
            found: list[float] = pairs.ask(
                self._pairs[at : at + 1], lambda pair: pair.companion.give_back.remote(), POLL_S, "pay back"
            )
            return found[0]
        return 0.0

    def _out_of_money(self, end: End) -> None:
        if self._result.reason is None:
            self._give_up(end.reason)
        if end.cut:
            self.stop(cut=True)

    # -- while it runs ------------------------------------------------------------------------------------------------

    def gather(self, pending: dict[ObjectRef[Watch], Pair], limit_s: float) -> None:
        """Until every worker is done: once a second, one round of reports from all pairs, whatever their number.

        Workers end by themselves well within `limit_s`; one that does not is stopped or starved, and given up.
        """
        import ray

        polled = 0.0
        limit_s += time.monotonic()
        while pending:
            done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0.0)
            if not done:
                wait_s = max(0.01, polled + POLL_S - time.monotonic())
                done, _ = ray.wait(list(pending), num_returns=1, timeout=wait_s)
            for ref in done:
                self._worker_ended(pending.pop(ref), ref)
            for ref in [ref for ref, pair in pending.items() if not pair.alive]:
                del pending[ref]
            if time.monotonic() - polled >= POLL_S:
                polled = time.monotonic()
                self._poll()
            if time.monotonic() > limit_s:
                while pending:
                    self._give_up_worker(pending.popitem()[1], "did not end its load in time")
        self._poll()

    def _give_up_worker(self, pair: Pair, why: str) -> None:
        """Its companion explains what came back, and counts the rest as lost."""
        pair.worker_lives = False
        self._lost(f"{pair} {why}")
        pair.kill_worker()

    def _worker_ended(self, pair: Pair, ref: ObjectRef[Watch]) -> None:
        import ray
        from ray.exceptions import RayActorError, RayError

        try:
            self._result.watches[pair.number] = ray.get(ref)
        except RayActorError as error:
            pair.worker_lives = False
            self._lost(f"{pair} died ({first_line(error)})")
        except RayError as error:
            self._give_up_worker(pair, f"failed ({first_line(error)})")

    def _poll(self) -> None:
        """One round: every companion is asked at once, and what has come within a second is taken."""
        self._ask()
        self._take()
        self._judge()

    def _ask(self) -> None:
        for pair in self._pairs:
            if pair.companion_lives and pair not in self._reported:
                self._reported[pair] = pair.companion.drain.remote()

    def _take(self) -> None:
        import ray

        waiting = {ref: pair for pair, ref in self._reported.items()}
        if waiting:
            done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_S)
            for ref in done:
                self._hear(waiting[ref], ref)
        self._give_up_silent()

    def _take_the_last(self) -> None:
        """Wait for reports that are on their way, then for one more of each, which holds the last rows."""
        while self._reported:
            self._take()
        self._ask()
        while self._reported:
            self._take()
        self._judge()

    def _hear(self, pair: Pair, ref: ObjectRef[Drained]) -> None:
        import ray
        from ray.exceptions import RayError

        del self._reported[pair]
        try:
            told = ray.get(ref)
        except RayError as error:
            self._bury(pair, f"the companion of {pair} died ({first_line(error)})")
            return
        self._heard_s[pair] = time.monotonic()
        pair.counts, pair.ttft, pair.flying = Counter(told.counts), told.ttft, told.flying
        self._spending.heard(pair.number, told.spent)
        pair.received += len(told.batches)
        for batch in told.batches:
            self._write(pair, batch)
        if told.problem and self._result.reason is None:
            self._give_up(told.problem)

    def _write(self, pair: Pair, batch: bytes) -> None:
        assert self._writer is not None
        offset_ns = pair.host.clock.offset_ns
        if offset_ns:
            self._writer.append_batch(records.moved(records.from_batch(batch), -offset_ns))
        else:
            self._writer.append(batch)

    def _give_up_silent(self) -> None:
        """A companion that is stopped or starved must not hold up the rest for ever."""
        now_s = time.monotonic()
        for pair in list(self._reported):
            if now_s - self._heard_s[pair] > ANSWER_S:
                del self._reported[pair]
                self._bury(pair, f"the companion of {pair} answered nothing for {ANSWER_S:.0f} s")

    def _judge(self) -> None:
        """Whether to go on, by what all have counted so far."""
        total = self._counts()
        self._spend()
        if self._result.reason is None and (reason := self._job.spend(total)):
            self._give_up(reason)
        if self._result.reason is None and self._result.enough is None and (enough := self._job.enough(total)):
            self._result.enough = enough
            self.stop(cut=True)
        ttft: Steps = Counter()
        for pair in self._pairs:
            ttft.update(pair.ttft)
        self._job.progress(SoFar(total, max(0.0, (monotonic_ns() - self._start_ns) / 1e9), ttft))

    def _counts(self) -> Counter[str]:
        return sum((pair.counts for pair in self._pairs), Counter())

    def _give_up(self, reason: str) -> None:
        self._result.failed = True
        self._result.reason = reason
        self.stop(cut=False)

    def stop(self, *, cut: bool) -> None:
        """Nothing new starts; with `cut`, what is in flight ends."""
        for pair in self._pairs:
            if pair.companion_lives:
                pair.companion.stop.remote(cut=cut)

    # -- losses -------------------------------------------------------------------------------------------------------

    def _lost(self, why: str) -> None:
        """A worker is gone: the job has failed, the others go on."""
        self._result.workers_lost += 1
        self._result.failed = True
        self._result.reason = self._result.reason or f"{why}; its requests in flight count as client errors"
        log.warning("%s; its requests in flight count as client errors", why)

    def _bury(self, pair: Pair, why: str) -> None:
        """Nothing more comes of this pair: its rows are kept, what it had on the wire is lost with it."""
        if not pair.companion_lives:
            return
        worker_lived = pair.worker_lives
        if worker_lived:
            self._lost(why)
        pair.worker_lives = pair.companion_lives = False
        self._spending.lost(pair.number)
        pair.kill_companion()
        gone = self._left(pair) if worker_lived and self._writer is not None else pair.flying
        pair.kill()
        now = monotonic_ns()
        rows = [
            Record(
                index=index,
                worker=pair.number,
                status="failed",
                intended_ns=now,
                dispatched_ns=now,
                error_class="client",
                error_message=f"{why} while this request was in flight",
            )
            for index in gone
        ]
        if rows and self._writer is not None:
            self._writer.append(records.to_batch(rows))
            pair.counts["failed"] += len(rows)

    def _left(self, pair: Pair) -> list[int]:
        """Keep the rows that a dead companion had made and not handed over; what was sent and has no row."""
        try:
            told: list[Left] = pairs.ask(
                [pair], lambda one: one.worker.left.remote(one.received), LEFT_S, "tell the rest"
            )
        except (ConfigError, JobError):
            return pair.flying
        left = told[0]
        for data in left.batches:
            self._write(pair, data)
            pair.counts.update(records.from_batch(data).column("status").to_pylist())
        kept: set[int] = set()
        for batch in records.iterate(self._job.directory):
            places = zip(batch.column("worker").to_pylist(), batch.column("index").to_pylist(), strict=True)
            kept.update(index for worker, index in places if worker == pair.number)
        return [index for index in left.launched if index not in kept]

    def _lost_share(self) -> float:
        """Share of the load that was asked for and that nobody sent or answered because workers died."""
        gone = [pair for pair in self._pairs if not pair.alive]
        dues = [pair.built.due for pair in self._pairs]
        if not gone:
            return 0.0
        if None in dues:
            return len(gone) / len(self._pairs)
        answered = {pair: pair.counts["completed"] + pair.counts["unfinished"] for pair in gone}
        missing = sum(max(0, (pair.built.due or 0) - answered[pair]) for pair in gone)
        return missing / max(1, sum(due or 0 for due in dues))

    # -- after the load -----------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Let the companions explain what is left, then take the last records."""
        import ray

        waiting: dict[ObjectRef[Work], Pair] = {}
        for pair in self._pairs:
            if pair.companion_lives:
                watch = self._result.watches.get(pair.number)
                waiting[pair.companion.finish.remote(watch.launched if watch else None)] = pair
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=POLL_S)
            for ref in done:
                self._explained(waiting.pop(ref), ref)
            if waiting:
                self._poll()
                waiting = {ref: pair for ref, pair in waiting.items() if pair.companion_lives}
        self._take_the_last()
        self._result.lost_share = self._lost_share()

    def _explained(self, pair: Pair, ref: ObjectRef[Work]) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            self._result.companions[pair.number] = ray.get(ref)
        except RayError as error:
            self._reported.pop(pair, None)
            self._bury(pair, f"the companion of {pair} died ({first_line(error)})")


def first_line(error: Exception) -> str:
    """What an error says at its beginning; its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
