"""The Ray actor of a companion: a worker's other half, in its own process at low priority."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping

from llmexp.companion.ahead import give_way
from llmexp.companion.allowance import Spent
from llmexp.companion.core import Core
from llmexp.companion.luggage import Luggage
from llmexp.companion.task import Built, Drained, Task, Work
from llmexp.records import Record
from llmexp.secrets import guard_streams


class Companion:
    """The body of a companion actor.

    `begin`, then `prepare` beside `attach`, the phases, `finish`; then `begin` with the next job's task, or `close`.
    """

    def __init__(self) -> None:
        give_way()
        guard_streams()  # Ray keeps what its processes print in files
        self._core: Core | None = None
        self._environment: dict[str, str | None] = {}
        """What the variables that a job set were before it."""

    def begin(self, task: Task, files: Luggage | None = None) -> Built:
        """Build all that the job needs; what the driver needs to plan the worker. `files` came with the task.

        Nothing of a job before is left: its counts, queues, requests, nonce, client and credentials are dropped with
        its `Core`, its directory is removed, and the variables that it set are as they were. Imported modules and the
        tables of tokenizers stay.
        """
        self.close()
        self._core = None
        gc.collect()
        self._set(task.environment)
        self._core = Core(task, files or {})
        return self._core.build()

    def _set(self, environment: Mapping[str, str]) -> None:
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._environment = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)

    def node(self) -> str:
        """The Ray node that this companion runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def prepare(self, count: int) -> None:
        """Prepare the first `count` measured requests, for `give` to hand over; may run while the worker connects."""
        self._now.prepare(count)

    def attach(self) -> None:
        """Take the worker's connection."""
        self._now.attach()

    def give_warmup(self) -> int:
        """Hand the warm-up requests to the worker; how many."""
        return self._now.give_warmup()

    def give(self, count: int) -> int:
        """Hand the first `count` measured requests to the worker; how many there were."""
        return self._now.give(count)

    def grant(self, usd: float, beyond: float) -> None:
        """More money; `beyond` is what could still follow."""
        self._now.grant(usd, beyond)

    def spent(self) -> Spent:
        """Where its money is."""
        return self._now.spent()

    def give_back(self) -> float:
        """Return the money that nothing needs so far."""
        return self._now.give_back()

    def warmup_records(self) -> list[Record]:
        """What the warm-up's tapes mean, once all of them have been explained."""
        return self._now.warmup_records()

    def drain(self) -> Drained:
        """Record batches since the last call, counts so far, and a reason to stop or a fault of our own."""
        return self._now.drain()

    def stop(self, *, cut: bool) -> None:
        """Tell the worker to start nothing new, and to cut what is in flight where asked."""
        self._now.stop(cut=cut)

    def finish(self, launched: int | None) -> Work:
        """Wait until every launched request is explained (None: the worker died), then report on the work itself."""
        return self._now.finish(launched)

    def close(self) -> None:
        """End the job's threads and remove its socket."""
        if self._core is not None:
            self._core.close()

    @property
    def _now(self) -> Core:
        if self._core is None:
            raise RuntimeError("no job has begun")
        return self._core
