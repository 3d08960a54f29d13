"""A job's money while its load runs: granted to the companions in portions, and watched by the hour.

A request is paid for before it is handed to a worker, so nothing waits beside the clock until the money runs short;
then only what certainly fits goes out. An hourly price runs on by itself: a thread ends the load in time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from llmexp.companion.allowance import ROUNDING, Spent
from llmexp.metrics.prices import PriceList

PORTION = 0.75
"""Share of what is left, over all companions, that is granted at a time where there are several."""
HOURLY_TICK_S = 0.5
ENDING_S = 0.25
"""A load takes so long to end once it is told."""
HOURS_KEPT_S = 600.0
"""So long of an hourly price is kept back from what requests get, half of what is left at most."""
AHEAD_S = 2.0
"""Figures come once a second: so long is what is spent meanwhile reckoned ahead, should the process be killed."""


class Purse(Protocol):
    """A job's share of a command's money."""

    @property
    def price(self) -> PriceList:
        """What requests cost."""
        ...

    @property
    def usd_per_s(self) -> float:
        """What the endpoint costs by itself while it is up."""
        ...

    @property
    def head_usd(self) -> float | None:
        """What can be billed before the first figures come; None: whatever is taken."""
        ...

    def left(self) -> float:
        """What can still be taken; below 0 where more was billed than reserved."""
        ...

    def take(self, usd: float) -> None:
        """Keep so much for this load."""
        ...

    def book(self, billed: float, unsure: float, at_risk: float) -> None:
        """What of it is spent, what may still be billed, and what could be before the next time."""
        ...

    def reason(self) -> str:
        """Why nothing more may start, in words."""
        ...


class Grant(NamedTuple):
    """What a companion gets."""

    usd: float = 0.0
    beyond: float = 0.0
    """Its share of what could still be granted."""


class End(NamedTuple):
    """Why a load must end."""

    reason: str
    cut: bool
    """Whether what is in flight must end too: the limit is passed."""


class Spending:
    """One load's use of a purse. Without a purse, nothing is counted and nothing ends."""

    def __init__(self, purse: Purse | None, pairs: int) -> None:
        self._purse = purse
        self._pairs = pairs
        self._states: list[Spent] = [Spent()] * pairs
        self._heard_s: list[float | None] = [None] * pairs
        """When each last told of its money."""
        self._first: list[float] = [0.0] * pairs
        """What each got before its first request."""
        self._hourly_usd = self._hourly_taken = self._booked_usd = self._usd_per_s = 0.0
        self._booked_s = time.monotonic()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def counts(self) -> bool:
        """Whether there is any money to count."""
        return self._purse is not None

    def first(self) -> list[Grant]:
        """What each companion gets before its first request."""
        grants = [self._grant(0.0, self._pairs - at) for at in range(self._pairs)]
        self._first = [grant.usd for grant in grants]
        return grants

    def _grant(self, least: float, takers: int) -> Grant:
        """A portion of what is left for so many, `least` where that is more and there is so much."""
        if self._purse is None:
            return Grant()
        with self._lock:
            left = max(0.0, self._purse.left() - self._for_hours())
            share = 1.0 if self._pairs == 1 else PORTION / takers
            usd = min(left, max(least, left * share))
            self._purse.take(usd)
            return Grant(usd, (left - usd) / self._pairs)

    def _for_hours(self) -> float:
        """What is kept back for the endpoint's own price; all of it where requests have none."""
        assert self._purse is not None
        rate, left = self._purse.usd_per_s, max(0.0, self._purse.left())
        if rate <= 0:
            return 0.0
        price = self._purse.price
        if not (price.input_usd or price.output_usd):
            return left
        return min(left / 2, rate * HOURS_KEPT_S)

    def heard(self, at: int, spent: Spent) -> None:
        """What a companion said of its money."""
        if self._purse is not None:
            self._states[at], self._heard_s[at] = spent, time.monotonic()

    def lost(self, at: int) -> None:
        """A companion is gone: what it had handed over, since it last told too, may have been billed."""
        if self._purse is not None and (heard_s := self._heard_s[at]) is not None:
            state = self._states[at]
            ahead = max(AHEAD_S, time.monotonic() - heard_s) * self._usd_per_s / self._pairs
            self._states[at] = state._replace(unsure=state.unsure + min(state.free, ahead))
            self._settle(at)

    def _settle(self, at: int) -> None:
        """Nothing more will be heard of what a companion had on the wire; nor of all, where it has never told."""
        assert self._purse is not None
        state = self._states[at]
        unsure = state.unsure + state.reserved
        if self._heard_s[at] is None:
            head = self._purse.head_usd
            unsure = self._first[at] if head is None else min(self._first[at], head / self._pairs)
        self._states[at] = state._replace(unsure=unsure, reserved=0.0, free=0.0, wanted=0.0)

    def decide(self, recall: Callable[[int], float]) -> tuple[dict[int, Grant], End | None]:
        """Companion → what it gets now; and why the load must end, if it must. Asked at each round of polling.

        `recall` takes back what a companion does not need.
        """
        if self._purse is None:
            return {}, None
        self._book()
        with self._lock:
            left = self._purse.left()
        if left < -ROUNDING or any(state.overdrawn for state in self._states):
            return {}, End(self._purse.reason(), cut=left < -ROUNDING)
        grants = {
            at: self._grant(state.wanted, self._pairs) for at, state in enumerate(self._states) if state.wanted > 0
        }
        short = [at for at, grant in grants.items() if self._states[at].wanted > grant.usd + ROUNDING]
        if short:
            first = short[0]
            # All that nobody needs goes to one of them: shared out, it might do for none.
            more = sum(grants.pop(at).usd for at in short[1:])
            more += sum(recall(at) for at, state in enumerate(self._states) if at not in grants and state.free > 0)
            grants[first] = Grant(grants[first].usd + more)
        helped = any(self._states[at].wanted <= grant.usd + ROUNDING for at, grant in grants.items())
        in_flight = any(state.reserved > ROUNDING for state in self._states)
        return grants, End(self._purse.reason(), cut=False) if short and not helped and not in_flight else None

    def _book(self) -> None:
        assert self._purse is not None
        with self._lock:
            billed = sum(state.billed for state in self._states) + self._hourly_usd
            passed_s = time.monotonic() - self._booked_s
            if passed_s > AHEAD_S / 4:
                self._usd_per_s = max(0.0, billed - self._booked_usd) / passed_s
                self._booked_usd, self._booked_s = billed, time.monotonic()
            at_risk = sum(state.reserved for state in self._states) + AHEAD_S * self._usd_per_s
            self._purse.book(billed, sum(state.unsure for state in self._states), at_risk)

    # -- by the hour --------------------------------------------------------------------------------------------------

    def start(self, out: Callable[[End], None]) -> None:
        """The endpoint's own price begins to run; `out` is called once, from a thread, when it cannot be paid on."""
        if self._purse is not None and self._purse.usd_per_s > 0:
            self._watch = threading.Thread(target=self._run_hours, args=(out,), name="hourly price", daemon=True)
            self._watch.start()

    def _run_hours(self, out: Callable[[End], None]) -> None:
        assert self._purse is not None
        began, rate = time.monotonic(), self._purse.usd_per_s
        while not self._over.is_set():
            self._hourly_usd = rate * (time.monotonic() - began)
            with self._lock:
                need = self._hourly_usd + rate * HOURLY_TICK_S * 2 - self._hourly_taken
                taken = max(0.0, min(need, self._purse.left()))
                self._purse.take(taken)
                self._hourly_taken += taken
            paid_s = (self._hourly_taken - self._hourly_usd) / rate
            if paid_s <= ENDING_S:
                self._book()
                out(End(self._purse.reason(), cut=True))
                break
            self._over.wait(min(HOURLY_TICK_S, paid_s - ENDING_S))
        self._over.wait()
        self._hourly_usd = rate * (time.monotonic() - began)

    # -- its end ------------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The load is over. What a companion that died had on the wire may have been billed."""
        self._over.set()
        if self._watch is not None:
            self._watch.join()
        if self._purse is not None:
            for at in range(len(self._states)):
                self._settle(at)
            self._book()
