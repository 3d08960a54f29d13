"""A job's records and numbers onto disk, wherever there is room.

A folder that turned full or read-only during the load loses nothing: what it does not take goes to a folder below the
system's temporary one, and that is said.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import records, results
from llmexp.jobs.spec import Spec
from llmexp.records.observed import Observed, observe
from llmexp.results import Result, Run

if TYPE_CHECKING:
    from llmexp.benchmark import Measurement

log = logging.getLogger("llmexp")


@dataclass(frozen=True)
class Kept:
    """Where a job's records are."""

    directory: Path
    held: list[bytes] = field(default_factory=list)
    """Batches that no disk took: what is known of them goes into the numbers, and ends with this process."""

    @property
    def shortfall(self) -> str | None:
        """What the job's files lack, in words."""
        lost = sum(records.from_batch(batch).num_rows for batch in self.held)
        if not lost:
            return None
        return f"the disk was full: {lost} requests are in these numbers, but not among the requests on disk"

    def observe(self) -> Observed:
        """All of them as arrays."""
        batches = records.iterate(self.directory) if records.exists(self.directory) else iter(())
        return observe(itertools.chain(batches, map(records.from_batch, self.held)))


def keep_records(spec: Spec, measurement: Measurement) -> Kept:
    """Bring the job's records into their last form."""
    own = spec.directory
    if not records.exists(own):
        return Kept(own)
    if not measurement.held:
        try:
            records.to_parquet(own)
        except OSError as error:
            log.error("%s: requests.parquet could not be written: %s", spec.name, error)  # noqa: TRY400
        return Kept(own)
    other = _other_place(spec)
    try:
        _make_private(other)
        with records.Writer(other, measurement.anchor) as writer:
            for batch in records.iterate(own):
                writer.append(bytes(batch.serialize()))
            for held in measurement.held:
                writer.append(held)
        if not writer.held:
            records.to_parquet(other)
            return Kept(other)
    except OSError as error:
        log.error("%s: %s", spec.name, error)  # noqa: TRY400
    return Kept(own, measurement.held)


def _other_place(spec: Spec) -> Path:
    return Path(tempfile.gettempdir()) / f"llmexp-{spec.id}"


def _make_private(place: Path) -> None:
    """Make the folder, or take ours; one that somebody else put there is not followed."""
    place.mkdir(mode=0o700, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(errno.EEXIST, "belongs to somebody else", str(place))


def keep_result(spec: Spec, result: Result, kept: Kept) -> Run:
    """Write `result.json` beside the records, or where there is room; the run says where."""
    for place in dict.fromkeys([kept.directory, _other_place(spec)]):
        try:
            if place != spec.directory:
                _make_private(place)
            results.write(place, result)
        except OSError as error:
            log.error("%s: result.json could not be written: %s", spec.name, error)  # noqa: TRY400
            continue
        if place != spec.directory:
            log.error("%s: its files are in %s; make room in %s and run it again", spec.name, place, spec.directory)
        return Run(result, place)
    log.error("%s: no disk took its files; its numbers are in the table alone", spec.name)
    return Run(result, None)
