"""Money that a companion may put on the wire: reserved for each request before it is handed over, settled by its bill.

The driver grants it in portions. What is reserved is the most that a request can cost at its token limit; so the sum of
what was billed and what is reserved never passes what was granted, whatever is in flight.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import NamedTuple

from llmexp.clients import token_limits
from llmexp.metrics import bill
from llmexp.metrics.prices import PriceList
from llmexp.records import Record
from llmexp.workload.request import Request

ROUNDING = 1e-9


class Spent(NamedTuple):
    """Where the money of one companion is, in USD."""

    billed: float = 0.0
    unsure: float = 0.0
    """Could still be billed for requests that were cut."""
    reserved: float = 0.0
    """For requests that are handed over and not over."""
    free: float = 0.0
    """Granted and not needed so far."""
    wanted: float = 0.0
    """What the next request needs beyond `free`; 0 where none waits for money."""
    overdrawn: bool = False
    """More was billed than reserved, and nothing is left to make up for it: answers beyond their token limit."""


class Allowance:
    """The money of one companion. Without a price, every request fits."""

    def __init__(self, price: PriceList | None, params: Mapping[str, object] | None = None) -> None:
        """`params` are the model's: they may allow more than the workload's limit."""
        self._price = price
        self._params = params or {}
        self._granted = self._beyond = self._billed = self._unsure = self._wanted = 0.0
        self._reserved: dict[int, float] = {}
        self._images: dict[int, int] = {}
        """Of each of these requests that has any."""
        self._template_tokens = 0
        """By how many tokens the server's count of an input passed ours: its chat template."""
        self._image_tokens = token_limits.IMAGE
        self._lock = threading.Lock()

    @property
    def short(self) -> bool:
        """Whether a request waits for money."""
        return self._wanted > 0

    def grant(self, usd: float, beyond: float) -> None:
        """More of it; `beyond` is what the driver could still grant."""
        with self._lock:
            self._granted += usd
            self._beyond = beyond
            self._wanted = 0.0

    def give_back(self) -> float:
        """Return what nothing needs so far."""
        with self._lock:
            free = max(0.0, self._free())
            self._granted -= free
            return free

    def reserve(self, key: int, request: Request) -> bool:
        """Set aside what the request can cost; False where that is more than there is."""
        if self._price is None:
            return True
        images = sum(1 for _ in request.image_data)
        into = (request.input_tokens or 0) + self._template_tokens + images * self._image_tokens
        out = token_limits.most(self._params, request.max_tokens)
        usd = bill.at_most(self._price, into, out) or 0.0
        with self._lock:
            if key in self._reserved:
                return True
            missing = usd - self._free()
            if missing > ROUNDING:
                self._wanted = missing
                return False
            self._reserved[key] = usd
            if images:
                self._images[key] = images
            return True

    def settle(self, key: int, row: Record) -> None:
        """The request is over: what it cost takes the place of what was reserved."""
        if self._price is None:
            return
        self._learn(row, self._images.pop(key, 0))
        found = bill.of(self._price, row)
        with self._lock:
            reserved = self._reserved.pop(key, 0.0)
            self._billed += found.usd
            if not found.whole:
                self._unsure += max(0.0, reserved - found.usd)
            self._wanted = 0.0

    def _learn(self, row: Record, images: int) -> None:
        """What the server counts of an input beyond its texts."""
        if row.input_tokens_source != "server" or not row.input_tokens or row.input_tokens_counted is None:
            return
        beyond = row.input_tokens - row.input_tokens_counted
        if not images:
            self._template_tokens = max(self._template_tokens, beyond)
            return
        each = math.ceil((beyond - self._template_tokens) / images)
        self._image_tokens = max(each, 0 if self._image_tokens == token_limits.IMAGE else self._image_tokens)

    @property
    def overdrawn(self) -> bool:
        """Whether nothing of what was handed over may start any more."""
        return self._price is not None and self._free() + self._beyond < -ROUNDING

    def release(self) -> None:
        """Nothing is on the wire any more: what is still reserved was never sent."""
        with self._lock:
            self._reserved.clear()

    def state(self) -> Spent:
        """Where it is."""
        with self._lock:
            free = self._free()
            return Spent(
                billed=self._billed,
                unsure=self._unsure,
                reserved=sum(self._reserved.values()),
                free=max(0.0, free),
                wanted=self._wanted,
                overdrawn=self.overdrawn,
            )

    def _free(self) -> float:
        return self._granted - self._billed - self._unsure - sum(self._reserved.values())
