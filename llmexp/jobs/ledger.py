"""The money of a command and its resumes: one ledger, kept in the command's folder.

Whatever costs (requests, warm-up, probes, hours, judges) is reserved here before it starts and settled by what was
billed. What a killed process had at risk when it last told counts as spent: it may have been. All figures are USD.

    account = ledger.account("job 3f2a")     # a load takes and books through its account
    if ledger.reserve("judge", 0.02):        # one call
        ledger.settle("judge", 0.02, billed)
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from llmexp import results
from llmexp.errors import ResultError
from llmexp.json_types import number
from llmexp.metrics.prices import PriceList

LEDGER = "ledger.json"
ROUNDING = 1e-9
log = logging.getLogger("llmexp")


@dataclass
class Entry:
    """What one user of the money has done with it."""

    billed: float = 0.0
    unsure: float = 0.0
    """May still be billed: requests that were cut, a process that was killed."""
    reserved: float = 0.0
    """Taken and not yet settled."""
    at_risk: float = 0.0
    """Of that, what could be billed before the next figures come: what counts should the process be killed now."""

    @property
    def total(self) -> float:
        """What it has a claim on."""
        return self.billed + self.unsure + self.reserved


class Ledger:
    """All entries of a command. Threads may use it side by side."""

    def __init__(self, limit_usd: float | None, folder: Path | None = None) -> None:
        """`limit_usd` None: no limit, the ledger only keeps count."""
        self.limit_usd = limit_usd
        self._file = None if folder is None else folder / LEDGER
        self._entries = {} if folder is None else _read(folder)
        self._lock = threading.RLock()
        self._told = False

    # -- what a user of it needs ------------------------------------------------------------------------------

    @property
    def billed_usd(self) -> float:
        """Known to be spent."""
        return sum(entry.billed for entry in self._entries.values())

    @property
    def unsure_usd(self) -> float:
        """May still be billed."""
        return sum(entry.unsure for entry in self._entries.values())

    def remaining(self) -> float:
        """What may still be reserved; infinite without a limit, below 0 where more was billed than reserved."""
        if self.limit_usd is None:
            return math.inf
        return self.limit_usd - sum(entry.total for entry in self._entries.values())

    def reserve(self, what: str, usd: float) -> bool:
        """Set aside `usd`; False, and nothing set aside, where it would pass the limit."""
        with self._lock:
            if usd > self.remaining() + ROUNDING:
                return False
            entry = self._entry(what)
            entry.reserved += usd
            entry.at_risk = entry.reserved
            self._save()
            return True

    def settle(self, what: str, reserved: float, billed: float | None) -> None:
        """What was reserved is over: `billed` of it was spent. None: it is not known, and all of it may have been."""
        with self._lock:
            entry = self._entry(what)
            entry.reserved = entry.at_risk = max(0.0, entry.reserved - reserved)
            if billed is None:
                entry.unsure += reserved
            else:
                entry.billed += billed
            self._save()

    def note(
        self,
        what: str,
        *,
        kept: float,
        billed: float | None = None,
        unsure: float | None = None,
        at_risk: float | None = None,
    ) -> None:
        """The figures of an account: what it keeps for itself, and what of that is spent, may be, or is at risk."""
        with self._lock:
            entry = self._entry(what)
            entry.billed = entry.billed if billed is None else billed
            entry.unsure = entry.unsure if unsure is None else unsure
            entry.reserved = max(0.0, kept - entry.billed - entry.unsure)
            entry.at_risk = min(entry.reserved, entry.at_risk if at_risk is None else at_risk)
            self._save()

    def add(self, what: str, billed: float) -> None:
        """So much more was spent, as is known now that it is over."""
        with self._lock:
            self._entry(what).billed += billed
            self._save()

    def known(self, what: str) -> tuple[float, float]:
        """What an entry has billed so far, and what may still be."""
        entry = self._entries.get(what, Entry())
        return entry.billed, entry.unsure

    def account(self, what: str, price: PriceList, usd_per_s: float, head_usd: float | None = None) -> Account:
        """A load's share, for a driver that takes and books while it runs.

        `head_usd`: what can be billed before the first figures come; None: whatever is taken.
        """
        return Account(self, what, price, usd_per_s, head_usd)

    def problem(self, expected_usd: float | None) -> str | None:
        """Why something that is expected to cost so much must not start."""
        if (expected_usd or 0.0) <= self.remaining() + ROUNDING:
            return None
        return f"{self.state()}; about {expected_usd or 0.0:.4f} would be needed"

    def state(self) -> str:
        """Where the money is, in words."""
        unsure = f", {self.unsure_usd:.4f} more may be billed for what was cut" if self.unsure_usd > 0 else ""
        limit = "" if self.limit_usd is None else f" of {self.limit_usd:g}"
        return f"run.max_usd: {self.billed_usd:.4f} USD{limit} are spent{unsure}"

    def summary(self) -> dict[str, object]:
        """The figures for a result; `overspent_usd` is what was billed beyond the limit."""
        over = 0.0 if self.limit_usd is None else max(0.0, self.billed_usd - self.limit_usd)
        return {
            "limit_usd": self.limit_usd,
            "billed_usd": self.billed_usd,
            "unsure_usd": self.unsure_usd,
            "overspent_usd": over if over > ROUNDING else 0.0,
        }

    def passed(self) -> bool:
        """Whether more is known to be spent than the limit."""
        return self.limit_usd is not None and self.billed_usd > self.limit_usd + ROUNDING

    # -- entries ----------------------------------------------------------------------------------------------

    def _entry(self, what: str) -> Entry:
        return self._entries.setdefault(what, Entry())

    def _save(self) -> None:
        """Written at each change, so that a killed process has not forgotten what it spent."""
        if self._file is None or not (any(one.total for one in self._entries.values()) or self._file.exists()):
            return
        entries = {what: asdict(one) for what, one in self._entries.items()}
        tree = {"limit_usd": self.limit_usd, "entries": entries}
        try:
            results.write_json(self._file, results.strict(tree), indent=1)
        except OSError as error:
            if not self._told:
                log.warning("%s could not be written (%s): a resume will not know what was spent", self._file, error)
            self._told = True


class Account:
    """One load's share of a ledger: the driver's purse."""

    def __init__(
        self, ledger: Ledger, what: str, price: PriceList, usd_per_s: float, head_usd: float | None = None
    ) -> None:
        self._ledger = ledger
        self._at_risk = self._head_usd = head_usd
        self._what = what
        self._price = price
        self._usd_per_s = usd_per_s
        # A name that was used before, as a judge's that is asked again, has spent that already.
        self._billed, self._unsure = ledger.known(what)
        self._taken = self._billed + self._unsure

    @property
    def price(self) -> PriceList:
        """What requests cost."""
        return self._price

    @property
    def usd_per_s(self) -> float:
        """What the endpoint costs by itself while it is up."""
        return self._usd_per_s

    @property
    def head_usd(self) -> float | None:
        """What can be billed before the first figures come; None: whatever is taken."""
        return self._head_usd

    def left(self) -> float:
        """What can still be taken; below 0 where more was billed than reserved."""
        return self._ledger.remaining()

    def take(self, usd: float) -> None:
        """Keep so much for this load until it closes."""
        self._taken += usd
        self._ledger.note(self._what, kept=self._taken, at_risk=self._taken if self._at_risk is None else self._at_risk)

    def book(self, billed: float, unsure: float, at_risk: float) -> None:
        """What the load has cost so far; the rest of what was taken stays reserved."""
        self._at_risk = at_risk
        billed, unsure = self._billed + billed, self._unsure + unsure
        self._ledger.note(self._what, kept=self._taken, billed=billed, unsure=unsure, at_risk=at_risk)

    def close(self) -> None:
        """The load is over: nothing is reserved any more."""
        self._taken = 0.0
        self._ledger.note(self._what, kept=0.0)

    def reason(self) -> str:
        """Why nothing more may start."""
        ledger = self._ledger
        if ledger.passed():
            return f"{ledger.state()}: the limit was passed by what was in flight"
        return f"{ledger.state()}; another request could pass the limit"


def _read(folder: Path) -> dict[str, Entry]:
    """The entries of earlier commands; what those had reserved and never settled may have been billed."""
    file = folder / LEDGER
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["entries"]
        return {str(what): _entry_of(one) for what, one in entries.items()}
    except FileNotFoundError:
        return _of_results(folder)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        found = _of_results(folder)
        spent = sum(one.billed for one in found.values())
        log.warning("%s cannot be read; its jobs say that %.4f USD were spent, which counts", file, spent)
        return found


def _entry_of(told: dict[str, float | None]) -> Entry:
    billed, unsure, at_risk = (float(told.get(name) or 0.0) for name in ("billed", "unsure", "at_risk"))
    if not all(math.isfinite(usd) and usd >= 0 for usd in (billed, unsure, at_risk)):
        raise ValueError("no amounts of money")
    return Entry(billed, unsure + at_risk)


def _of_results(folder: Path) -> dict[str, Entry]:
    """What the jobs of a folder say that they cost: all that is known where a ledger is lost, or never was."""
    found = {}
    for place in ("", "*/", "trials/*/"):
        for path in sorted(folder.glob(place + results.RESULT)):
            for usd in _costs(path.parent):
                found[str(path.parent.relative_to(folder))] = Entry(billed=usd)
    return found


def _costs(directory: Path) -> Iterator[float]:
    with contextlib.suppress(ResultError, AttributeError, TypeError):
        cost = results.read(directory).cost
        own = cost.cost_usd if cost.search_usd is None else cost.search_usd
        known = [own, cost.warmup_usd, number(cost.judge, "usd")]
        if not cost.rehearsal and (total := sum(usd for usd in known if usd is not None)):
            yield total
