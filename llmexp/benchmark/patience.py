"""Calls to Ray that a part of Ray must answer which may hang: they take no signal, and have no end of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from llmexp.errors import JobError

T = TypeVar("T")
ANSWER_S = 60.0


def patiently(call: Callable[[], T], limit_s: float = ANSWER_S) -> T:
    """What the call returns, made in a thread of its own, so that this one takes signals and does not wait for ever."""
    answers: queue.SimpleQueue[T] = queue.SimpleQueue()
    errors: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        try:
            answers.put(call())
        except BaseException as error:  # noqa: BLE001 -- handed to the thread that waits
            errors.append(error)
        over.set()

    threading.Thread(target=ask, name="asks Ray", daemon=True).start()
    if not over.wait(limit_s):
        raise JobError(f"Ray does not answer: a part of it has hung for {limit_s:.0f} s")
    if errors:
        raise errors[0]
    return answers.get()
