"""The alarm on real loops: never early, once for each time set, with the system's timer and without."""

from __future__ import annotations

import asyncio
from time import monotonic_ns

import pytest
import uvloop

from llmexp.worker import timer as alarm
from llmexp.worker.timer import Alarm


@pytest.fixture(params=["file", "loop"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "loop":
        monkeypatch.setattr(alarm, "_timer", lambda _libc: None)
    return str(request.param)


@pytest.mark.usefixtures("kind")
@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_rings_once_for_each_time_and_never_before_it(factory: type[asyncio.AbstractEventLoop]) -> None:
    asked = [0, 1_000_000, 1_300_000, 2_000_000, 9_900_000]
    rung: list[int] = []

    async def main() -> list[int]:
        start = monotonic_ns()
        over = asyncio.get_running_loop().create_future()

        def ring() -> None:
            rung.append(monotonic_ns())
            if len(rung) == len(asked):
                over.set_result(None)
            else:
                one.set(start + asked[len(rung)])

        one = Alarm(asyncio.get_running_loop(), ring)
        one.set(start + asked[0])
        await asyncio.wait_for(over, 10)
        one.close()
        return [start + at for at in asked]

    with asyncio.Runner(loop_factory=factory) as runner:
        times = runner.run(main())
    assert all(at <= heard for at, heard in zip(times, rung, strict=True))


@pytest.mark.usefixtures("kind")
def test_a_closed_alarm_is_silent() -> None:
    rung: list[int] = []

    async def main() -> None:
        one = Alarm(asyncio.get_running_loop(), lambda: rung.append(1))
        one.set(monotonic_ns() + 5_000_000)
        one.close()
        await asyncio.sleep(0.03)

    asyncio.run(main())
    assert not rung
