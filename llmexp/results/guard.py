"""One guard for every reader: what a reader could not do is said in one line, and costs nothing else.

    guard = Guard()
    with guard("report.html was not drawn", later=f"python -m llmexp.relog {directory}"):
        report.job(run)
    worst(guard.statuses)

The numbers are on disk before the first reader starts. Ctrl-C ends the reader that is at work, and no other.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from llmexp.errors import INTERRUPTED, OK, LlmexpError
from llmexp.secrets import trimmed

log = logging.getLogger("llmexp")
LONGEST_REASON = 300


@dataclass
class Guard:
    """Keeps what failing readers mean for the exit status."""

    statuses: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def __call__(self, what: str, later: str, status: int = OK) -> Iterator[None]:
        """`what` did not happen, in words; `later` is the command that makes up for it; `status` is what that costs."""
        try:
            yield
        except KeyboardInterrupt:
            log.error("%s: interrupted; later: %s", what, later)  # noqa: TRY400 -- one line, no traceback
            self.statuses.append(INTERRUPTED)
        except LlmexpError as error:
            remedy = "" if later in str(error) else f"; later: {later}"
            log.error("%s: %s%s", what, one_line(error), remedy)  # noqa: TRY400
            self.statuses.append(status)
        except Exception as error:
            log.error("%s: %s; later: %s", what, one_line(error), later)  # noqa: TRY400
            log.debug("%s", what, exc_info=True)
            self.statuses.append(status)


def one_line(error: BaseException) -> str:
    """What an exception says, as one line of a bearable length, with its kind where its words need it."""
    said = " ".join(str(error).split())
    if not isinstance(error, LlmexpError | OSError) or not said:
        said = f"{type(error).__name__}: {said}".removesuffix(": ")
    return trimmed(said, LONGEST_REASON)


# --- what makes up for a reader --------------------------------------------------------------------------------------


def relog_command(directory: Path) -> str:
    """The command that makes up for a reader of one job."""
    return f"python -m llmexp.relog {shlex.quote(shown(directory))}"


def compare_command(directory: Path) -> str:
    """The command that makes up for a comparison."""
    return f"python -m llmexp.compare {shlex.quote(shown(directory))}"


def shown(path: Path) -> str:
    """A path relative to here where that is shorter."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
