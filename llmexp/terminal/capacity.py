"""What a capacity search found, for a person at a terminal: a row for each probe."""

from __future__ import annotations

from collections.abc import Callable

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from llmexp.json_types import Tree, items, text
from llmexp.metrics.wording import digits, duration


def table(curve: Tree) -> Table:
    """The probes by rising level."""
    rows = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    rows.add_column(f" {text(curve, 'unit')}", justify="right")
    rows.add_column("probe", justify="right")
    rows.add_column("")
    for head in ("kept SLO", "good/s", "TTFT p95", "per token p95"):
        rows.add_column(head, justify="right")
    rows.add_column("why", overflow="fold")
    first_token = "response_ttft_s_p95" if text(curve, "of") == "rate" else "ttft_s_p95"
    names = (
        "level",
        "probe",
        "passed",
        "attainment",
        "goodput_per_s",
        first_token,
        "time_per_output_token_s_p95",
        "why",
    )
    for level, probe, passed, share, good, first, token, why in zip(
        *(items(curve, name) for name in names), strict=False
    ):
        rows.add_row(
            f" {level:.4g}",
            str(probe),
            Text("passed", "green") if passed else Text("failed", "red"),
            f"{share:.1%}" if isinstance(share, float) else "",
            _shown(digits, good),
            _shown(duration, first),
            _shown(duration, token),
            str(why or ""),
        )
    return rows


def _shown(words: Callable[[float], str], value: object) -> str:
    return words(value) if isinstance(value, int | float) else ""
