"""Work on one job's numbers while the next job starts."""

from __future__ import annotations

import threading

from llmexp.jobs.reading import Reading


def test_work_goes_on_beside_the_caller_until_it_is_waited_for() -> None:
    go, done = threading.Event(), []
    reading = Reading()
    reading.start(lambda: done.append(go.wait(10)))
    assert not done
    go.set()
    reading.finish()
    assert done == [True]
    reading.finish()


def test_one_piece_of_work_after_the_other() -> None:
    order: list[int] = []
    first = threading.Event()
    reading = Reading()
    reading.start(lambda: order.append(first.wait(10) and 1))
    threading.Timer(0.05, first.set).start()
    reading.start(lambda: order.append(2))
    reading.finish()
    assert order == [1, 2]
