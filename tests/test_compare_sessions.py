"""Sessions in a comparison: the same input under recorded history; live history drifts, which is told and bounded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.synthetic import Truth, write_job

from llmexp import report
from llmexp.compare import load_runs
from llmexp.compare.fairness import Finding, Side, check

TURNS = 4


def side(
    directory: Path, label: str, *, history: str, longer: float = 1.0, tokenizer: float = 1.0, off: int = 0
) -> Side:
    """A stack's run of sessions; `longer`: its later inputs, by its own answers; `off`: answers off the script."""
    write_job(directory, Truth(model=label, requests=80), 1)
    path = directory / "requests.parquet"
    table = pq.read_table(path)
    turn = np.arange(table.num_rows) % TURNS
    tokens = np.round(100 * (1 + turn) * np.where(turn > 0, longer, 1.0) * tokenizer)
    for name, values in (("turn", pa.array(turn, pa.int32())), ("input_tokens", pa.array(tokens.astype(np.int64)))):
        table = table.set_column(table.schema.get_field_index(name), name, values)
    pq.write_table(table, path)
    result = json.loads((directory / "result.json").read_text())
    result["config"]["workload"] |= {"kind": "sessions", "history": history, "file": "s.jsonl"}
    result["metrics"]["requests_off_script"] = off
    spread = {"count": 20, "p50": 0.2, "mean": 0.2}
    result["metrics"]["turns"] = [
        {"turn": at, "requests_completed": 20, "ttft_s": spread, "e2e_latency_s": spread} for at in range(TURNS)
    ]
    (directory / "result.json").write_text(json.dumps(result))
    return Side.of(label, load_runs([directory]))


def found(one: Side, two: Side) -> dict[str, Finding]:
    return {finding.reason: finding for finding in check(one, two)}


def test_recorded_history_is_the_same_input_and_needs_no_word(tmp_path: Path) -> None:
    one, two = (side(tmp_path / label, label, history="recorded") for label in "ab")
    assert not {"live_history", "history", "prompts"} & set(found(one, two))


@pytest.mark.parametrize(("longer", "off", "level"), [(1.02, 1, "label"), (1.09, 0, "refused"), (1.0, 20, "refused")])
def test_live_history_says_how_far_inputs_drifted_and_refuses_beyond_a_share(
    tmp_path: Path, longer: float, off: int, level: str
) -> None:
    one = side(tmp_path / "a", "a", history="live")
    two = side(tmp_path / "b", "b", history="live", longer=longer, tokenizer=1.3, off=off)
    finding = found(one, two)["live_history"]
    assert finding.level == level
    assert f"b {100 * off / 80:.1f} %" in finding.text
    assert f"differ by {100 * (longer - 1):.1f} % in tokens" in finding.text
    assert ("workload.history=recorded" in finding.text) == (level == "refused")


def test_two_kinds_of_history_are_no_comparison(tmp_path: Path) -> None:
    one, two = (side(tmp_path / kind, kind, history=kind) for kind in ("recorded", "live"))
    assert found(one, two)["history"].level == "refused"


def test_the_page_of_a_job_shows_its_turns(tmp_path: Path) -> None:
    side(tmp_path / "a", "a", history="recorded")
    (run,) = load_runs([tmp_path / "a"])
    report.job(run)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Turn by turn" in page
    assert "Median TTFT by turn" in page
