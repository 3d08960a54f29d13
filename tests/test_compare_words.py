"""What a comparison says: both sides of a choice, and before and after."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support import synthetic
from support.synthetic import Truth

from llmexp.compare import Comparison, Options, compare, markdown, render
from llmexp.compare.__main__ import main, newest
from llmexp.errors import MISSED
from llmexp.report import plots
from llmexp.results import Run

EARLY = Truth("early", ttft_s=0.2, time_per_output_token_s=0.03, usd_per_million_output_tokens=20)
STEADY = Truth("steady", ttft_s=0.25, time_per_output_token_s=0.02, usd_per_million_output_tokens=15)


def sweep(*truths: Truth, repeats: int = 3, concurrencies: tuple[int, ...] = (8,)) -> list[Run]:
    return [
        synthetic.run(replace(truth, repeat=repeat, concurrency=streams), 100 * repeat + streams)
        for truth in truths
        for streams in concurrencies
        for repeat in range(repeats)
    ]


def test_the_headline_says_what_speaks_for_the_other_side() -> None:
    found = compare(sweep(EARLY, STEADY)).headline
    assert found.startswith("early's mean TTFT is ")
    assert " lower than steady's at concurrency 8" in found
    assert "; steady's mean time per output token is " in found
    assert "its mean end-to-end latency is" not in found, "said in one breath"
    assert "its mean end-to-end latency " in found
    assert "its cost per million output tokens 25 % lower (intervals, no verdict)" in found


def test_a_side_that_has_nothing_is_not_spoken_for() -> None:
    found = compare(sweep(replace(EARLY, time_per_output_token_s=0.02, usd_per_million_output_tokens=15), STEADY))
    assert "no verdict" not in found.headline


@pytest.mark.parametrize(
    ("slow_s", "said"),
    [
        (0.25, "; both sustain the service level up to concurrency 8."),
        (9.0, "; the service level is sustained by early up to concurrency 8, and by steady at no load measured."),
    ],
)
def test_the_headline_says_who_keeps_the_service_level(slow_s: float, said: str) -> None:
    slo = (("ttft_s", 3.0),)
    runs = sweep(replace(EARLY, slo=slo), replace(STEADY, slo=slo, ttft_s=slow_s), concurrencies=(4, 8))
    assert compare(runs).headline.endswith(said)


def weeks(before: float, after: float, repeats: int = 3) -> Comparison:
    truth = replace(EARLY, model="vllm_b")
    first = sweep(replace(truth, sweep="w1", ttft_s=before), repeats=repeats)
    second = sweep(replace(truth, sweep="w2", ttft_s=after), repeats=repeats)
    return compare([*first, *second], Options(fail_on="regression"))


def test_two_weeks_are_spoken_of_as_change() -> None:
    found = weeks(0.2, 0.25)
    assert found.headline.startswith("vllm_b got slower: mean TTFT +")
    assert found.headline.endswith(" % at concurrency 8: a regression.")
    assert found.missed
    assert weeks(0.25, 0.2).headline.startswith("vllm_b got faster: mean TTFT −")
    assert weeks(0.2, 0.2).headline.startswith(("vllm_b: unchanged at concurrency 8", "vllm_b: undecided"))
    alone = weeks(0.2, 0.4, repeats=1)
    assert alone.headline.startswith("Within these runs, vllm_b got slower: mean TTFT +")
    assert "regression" not in alone.headline


def test_models_are_rows_and_weeks_are_columns() -> None:
    lines = [line.split() for line in render(weeks(0.2, 0.25), width=80).splitlines()]
    (head,) = [line for line in lines if line[:3] == ["load", "model", "metric"]]
    assert head == ["load", "model", "metric", "A", "B", "change"]
    (row,) = [line for line in lines if line[:2] == ["concurrency", "8"]]
    assert row[2:5] == ["vllm_b", "mean", "TTFT"]
    assert row[-2].startswith("+")


def test_the_gate_says_on_stderr_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for week, ttft_s in (("last", 0.2), ("this", 0.3)):
        for repeat in range(3):
            truth = replace(EARLY, repeat=repeat, ttft_s=ttft_s, sweep=week)
            synthetic.write_job(tmp_path / week / str(repeat), truth, repeat)
    out = str(tmp_path / "out")
    arguments = [str(tmp_path / "last"), str(tmp_path / "this"), "--fail-on", "regression", "--out", out]
    assert main(arguments) == MISSED
    told = capsys.readouterr()
    (why,) = [line for line in told.err.splitlines() if line.startswith("compare.fail_on=regression: ")]
    assert "got slower: mean TTFT +" in why
    assert why.endswith("a regression")
    assert "got slower: mean TTFT +" in told.out


def test_markdown_holds_the_table_the_verdicts_and_survives_odd_names(tmp_path: Path) -> None:
    odd = [replace(truth, model=f"{truth.model}_*[x]|<b>") for truth in (EARLY, STEADY)]
    text = markdown.render(compare(sweep(*odd)))
    lines = text.splitlines()
    assert lines[0].startswith("**early\\_\\*\\[x\\]\\|\\<b>'s mean TTFT is ")
    head = next(line for line in lines if line.startswith("| load | stack | mean TTFT | interval |"))
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 4
    assert all(row.replace("\\|", "").count("|") == head.count("|") for row in rows)
    assert "95 % intervals over repeats" in text


def test_what_a_narrow_terminal_leaves_out_is_named() -> None:
    comparison = compare(sweep(EARLY, STEADY))
    assert "not shown at this width" not in render(comparison, width=200)
    narrow = render(comparison, width=80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "not shown at this width: " in narrow
    assert "$/M out" in narrow


def test_an_interval_of_a_latency_does_not_reach_below_zero() -> None:
    """Few requests that scatter widely; below five there is no interval at all."""
    wild = Truth("wild", cv=3.0, requests=6, concurrency=1)
    for seed in range(20):
        found = compare([synthetic.run(wild, seed)])
        (value,) = [value for (_, _, name), value in found.values.items() if name == "ttft_s/mean"]
        assert value.low is not None
        assert 0 < value.low < value.value < (value.high or 0)
    few = compare([synthetic.run(replace(wild, requests=4), 1)]).values
    assert all(value.low is None for (_, _, name), value in few.items() if name == "ttft_s/mean")


def test_words_and_drawing_speak_from_the_same_side() -> None:
    """The reference wins: words begin with it, and so does the row of the drawing."""
    (contrast,) = compare(sweep(EARLY, STEADY)).verdicts
    assert contrast.better == contrast.reference
    assert contrast.text.startswith("early's mean TTFT is ")
    low, middle, high = plots._drawn(contrast)
    assert low < middle < high < 0
    assert plots._row_name(compare(sweep(EARLY, STEADY)), contrast) == "early vs steady"


def test_the_newest_sweep_is_none_of_a_search_s_probes(tmp_path: Path) -> None:
    synthetic.write_job(tmp_path / "day" / "sweep" / "0", EARLY, 1)
    synthetic.write_job(tmp_path / "day" / "search" / "probes" / "01", EARLY, 1)
    assert newest(tmp_path) == tmp_path / "day" / "sweep"
