"""A newcomer's path as the pages describe it, step by step: only the load itself is made up, since no server is here.

A first job against real weights, a wheel outside any checkout and the notebook's cells have tests of their own
(`e2e/test_jobs.py`, `e2e/test_notebook.py`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import without_load
from support.without_load import no_load  # noqa: F401 -- a fixture

import llmexp
from llmexp import command_line, composition
from llmexp.compare.__main__ import main as compare
from llmexp.config import Tracking
from llmexp.errors import MISSED, OK, ConfigError
from llmexp.jobs import sweep
from llmexp.jobs.sweep import Outcome
from llmexp.tracking import MlflowStore, open_store

pytestmark = [pytest.mark.usefixtures("no_load"), pytest.mark.service]
FASTER = re.compile(
    r"vllm_a's mean TTFT is [\d.–]+ ms \([\d.–]+ %\) lower than vllm_b's at concurrency 4".replace(" ", r"\s+")
)
"""Wherever a line of the terminal ends: the numbers' digits differ from run to run."""
LOAD = ["run.max_requests=60", "run.warmup_requests=0", "run.repeats=3"]


def own_option(name: str, *lines: str) -> None:
    Path(f"mine/model/{name}.yaml").write_text("\n".join(["defaults:", *lines, ""]))


def own_servers() -> None:
    """As docs/own.md does it: one option copied, two that build on it, one more that says the same as the first."""
    assert command_line.answer(["--copy", "model/openai_compatible", "mine"], composition.conf_dir()) == OK
    address = ["  - openai_compatible", "name: fast", "base_url: http://127.0.0.1:9/v1"]
    own_option("vllm_a", *address)
    own_option("vllm_b", "  - vllm_a", "name: slow")
    own_option("vllm_twin", "  - vllm_a")


def experiment(directory: str, *overrides: str) -> Outcome:
    with composition.opened(Path("mine")):
        composed = composition.compose_all([*LOAD, *overrides])
    return sweep.run_sweep(composed, directory)


def verdicts(directory: str | Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((Path(directory) / "comparison.json").read_text())["verdicts"]
    return found


def test_from_two_own_servers_to_a_choice_and_to_the_week_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own_servers()
    assert experiment("outputs/monday/last", "model=vllm_a,vllm_b", "concurrency=4").status == OK
    told = capsys.readouterr().out
    assert FASTER.search(told)
    assert "vllm_b · r3: " in told
    assert {row["better"] for row in verdicts("outputs/monday/last")} == {"vllm_a"}

    # `python -m llmexp.compare` alone shows the newest sweep again, and draws its page anew.
    stale = Path("outputs/monday/last/comparison_of_a_quantity_no_longer_there.png")
    stale.write_bytes(b"old")
    assert compare([]) == OK
    assert not stale.exists()
    assert FASTER.search(capsys.readouterr().out)

    # The week after, one of them has become slower.
    monkeypatch.setitem(without_load.TTFT_S, "fast", 0.26)
    assert experiment("outputs/sunday/this", "model=vllm_a", "concurrency=4").status == OK
    capsys.readouterr()
    assert compare(["outputs/monday/last", "outputs/sunday/this", "--fail-on", "regression"]) == MISSED
    told = capsys.readouterr()
    assert "vllm_a got slower: mean TTFT +" in told.out
    assert [line for line in told.err.splitlines() if line.startswith("compare.fail_on=regression: ")]
    assert {path.name for path in Path("comparison").glob("*.md")} == {"comparison.md"}

    # What is in MLflow is compared by its id, and the store stays as it was.
    store = open_store(Tracking(), Path.cwd())
    assert isinstance(store, MlflowStore)
    parent = store.resume_sweep(json.loads(Path("outputs/monday/last/sweep.json").read_text())["id"])
    before = {path: path.stat().st_mtime_ns for path in Path("mlruns").rglob("*")}
    assert parent is not None
    assert compare([parent]) == OK
    assert {path: path.stat().st_mtime_ns for path in Path("mlruns").rglob("*")} == before
    assert "vllm_b" in Path("comparison/comparison.csv").read_text()

    # From a notebook.
    loaded = llmexp.load("outputs/monday/last")
    assert FASTER.search(loaded.comparison.headline)
    assert len(loaded.table()) == 6
    assert {"ttft_s", "e2e_latency_s"} <= set(loaded.jobs[0].requests().columns)


@pytest.mark.parametrize("outputs", ["taken", "/proc/nowhere"])
def test_a_folder_that_takes_no_files_is_said_before_anything_is_sent(outputs: str) -> None:
    Path("taken").touch()
    with pytest.raises(ConfigError, match=r"set paths\.outputs to a folder of yours|choose another name"):
        experiment(f"{outputs}/sweep", "model=simulated", "tracking=none")
    assert list(Path.cwd().iterdir()) == [Path.cwd() / "taken"]


def test_two_options_that_say_the_same_are_two_stacks_and_a_page_without_a_place_costs_no_table(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    own_servers()
    Path("taken").touch()
    assert experiment("out", "model=vllm_a,vllm_twin", "run.repeats=1", "tracking=none").status == OK
    (row,) = verdicts("out")
    assert {row["reference"], row["stack"]} == {"vllm_a", "vllm_twin"}
    capsys.readouterr()
    assert compare(["out", "--out", "taken"]) != OK
    # Which of two alike is called lower is chance: both stand in the sentence.
    assert re.search(r"vllm_(a|twin)'s mean TTFT .*\svllm_(twin|a)'s", capsys.readouterr().out, re.DOTALL)
    assert "comparison.csv and comparison.json were not written" in caplog.text
