"""Workloads of files too long to be read before they are sent."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from llmexp.config import Workload
from llmexp.errors import ConfigError
from llmexp.workload import row_source
from llmexp.workload.scripts import ScriptFile
from llmexp.workload.source import Source
from llmexp.workload.tokens import Estimate

LINE = json.dumps({"session": "s", "turns": [{"messages": [{"role": "user", "content": "word " * 40}]}] * 3})


def source(**fields: Any) -> Source:
    return Source(Workload.model_validate(fields), Estimate(), seed=1, nonce="job")


def test_a_file_of_sessions_is_read_no_further_than_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with path.open("w") as file:
        for _ in range(3000):
            file.write(LINE + "\n")
        file.write("{ not read\n")
    made = source(kind="sessions", file=str(path))
    assert [list(turns) for turns in made.sessions(6)] == [[0, 1, 2], [3, 4, 5]]
    assert made.request(8000).session == 2666
    assert made.estimated_requests() == pytest.approx(9000, rel=0.05)
    assert made.mean_tokens()[0] > 40


def test_rows_of_a_long_file_are_those_of_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"question {at}?", "output_tokens": 5 + at % 3} for at in range(300)]
    rows[7] = {"messages": [{"role": "assistant", "content": "never asked"}], "output_tokens": 3}
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n")
    short = source(kind="file", file=str(path))
    monkeypatch.setattr(row_source, "LONG_BYTES", 0)
    long = source(kind="file", file=str(path))
    assert long.size is None
    for index in (0, 6, 7, 250, 298, 299, 300, 700):
        assert long.request(index) == short.request(index)
    assert long.size == short.size == 299
    assert long.mean_tokens() == pytest.approx(short.mean_tokens(), rel=0.05)
    assert any("rows left out (row 8)" in note for note in long.notes())
    assert long.request(0, warmup=True).warmup


def test_two_gigabytes_begin_at_once(tmp_path: Path) -> None:
    """The file has a hole in its middle, which reads as one endless line: it takes no room on the disk."""
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        for at in range(2000):
            file.write(json.dumps({"prompt": f"question {at}?", "output_tokens": 5}).encode() + b"\n")
        file.truncate(2 << 30)
    began = time.monotonic()
    made = row_source.LongFile("workload.file", str(path))
    assert made.row(1500).messages[0].text == "question 1500?"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\x00", "{}".encode("utf-16")])
def test_a_file_whose_lines_cannot_be_found_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sessions.jsonl").write_bytes(content)
    with pytest.raises(ConfigError, match=r"workload\.file: is packed or UTF-16, got .*: unpack it"):
        ScriptFile("workload.file", str(tmp_path / "sessions.jsonl"))
