"""Links between a sweep's page and the pages of its jobs, where MLflow shows them.

MLflow puts a page into a frame without an address that may open nothing: a link there is dead. So a sweep's page has
no links in the store, and the description of its run, which MLflow shows outside of any frame, has them.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmexp.metrics.wording import escaped
from llmexp.secrets import trimmed
from llmexp.tracking.names import TAG_LIMIT

PAGE = "report.html"
_LINK = re.compile(rf'<a href="[^"#]*{re.escape(PAGE)}">(.*?)</a>', re.DOTALL)


@contextmanager
def for_the_store(path: Path) -> Iterator[Path]:
    """The file as the store gets it: a page without links to files that lie beside it, anything else as it is."""
    if path.suffix != ".html":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="llmexp-") as folder:
        changed = Path(folder) / path.name
        changed.write_text(_LINK.sub(r"\1", path.read_text(encoding="utf-8")), encoding="utf-8")
        yield changed


def with_links(description: str, experiment_id: str, jobs: Sequence[tuple[str, str]]) -> str:
    """The description, and below it the way to the page of each job (name, run), as many as there is room for."""
    description = trimmed(description, TAG_LIMIT)
    links: list[str] = []
    for name, run_id in jobs:
        link = f"[{escaped(name)}](#/experiments/{experiment_id}/runs/{run_id}/artifacts/{PAGE})"
        if len(_told(description, [*links, link], 0)) > TAG_LIMIT - len(" and 99,999 more below"):
            break
        links.append(link)
    return _told(description, links, len(jobs) - len(links)) if links else description


def _told(description: str, links: Sequence[str], left_out: int) -> str:
    more = f" and {left_out:,} more below" if left_out else ""
    return f"{description.rstrip()}\n\nEach job's page: {', '.join(links)}{more}"
