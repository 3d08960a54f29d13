"""What a capacity search found, for a person at a terminal: a row for each probe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from llmexp.metrics.wording import duration, number


def table(curve: Mapping[str, Any]) -> Table:
    """The probes by rising level."""
    rows = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    rows.add_column(f" {curve['unit']}", justify="right")
    rows.add_column("probe", justify="right")
    rows.add_column("")
    for head in ("kept SLO", "good/s", "TTFT p95", "per token p95"):
        rows.add_column(head, justify="right")
    rows.add_column("why", overflow="fold")
    first_token = "response_ttft_s_p95" if curve["of"] == "rate" else "ttft_s_p95"
    for at, level in enumerate(curve["level"]):
        passed, share, good = curve["passed"][at], curve["attainment"][at], curve["goodput_per_s"][at]
        first, token = curve[first_token][at], curve["time_per_output_token_s_p95"][at]
        rows.add_row(
            f" {level:.4g}",
            str(curve["probe"][at]),
            Text("passed", "green") if passed else Text("failed", "red"),
            "" if share is None else f"{share:.1%}",
            "" if good is None else number(good),
            "" if first is None else duration(first),
            "" if token is None else duration(token),
            curve["why"][at],
        )
    return rows
