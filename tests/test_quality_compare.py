"""Verdicts on right answers, beside the ones on speed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import synthetic
from support.synthetic import Truth, run_sweep

from llmexp.compare import Comparison, Options, compare, render
from llmexp.compare.output import document
from llmexp.compare.quality import Right
from llmexp.compare.shares import Answers, Side, difference

FAST = Truth(model="fast", ttft_s=0.15, requests=300, timings=False, cv=0.1, right=0.8)
SLOW = Truth(model="slow", ttft_s=0.2, requests=300, timings=False, cv=0.1, right=0.8)


@cache
def _run(truth: Truth, seed: int) -> Any:
    return synthetic.run(truth, seed)


def compared(*truths: Truth, blocks: int = 3, concurrencies: tuple[int, ...] = (4,), **options: Any) -> Comparison:
    runs = [
        _run(replace(truth, repeat=block, concurrency=level), 100 * at + 10 * block + level)
        for at, truth in enumerate(truths)
        for block in range(blocks)
        for level in concurrencies
    ]
    return compare(runs, Options(**options))


def right(*truths: Truth, **options: Any) -> Right:
    (found,) = compared(*truths, **options).rights
    return found


# --- shares ----------------------------------------------------------------------------------------------------------


def answers(table: list[list[float]]) -> Answers:
    values = np.asarray(table, dtype=float)
    prompts = np.repeat(np.asarray([f"{at:04}" for at in range(len(values))], dtype="S16"), values.shape[1])
    return Answers(prompts, np.tile(np.arange(values.shape[1]), len(values)), values.ravel())


def width(one: Answers, two: Answers) -> float:
    found = difference(one, two)
    assert found is not None
    low, high = found.interval(0.05)
    return high - low


def test_an_interval_is_never_of_zero_width() -> None:
    perfect = answers([[1, 1, 1]] * 30)
    found = difference(perfect, perfect)
    assert found is not None
    low, high = found.interval(0.05)
    assert -0.2 < low < 0 < high < 0.2
    assert found.mean == 0


def test_wilson_by_hand() -> None:
    side = Side(share=0.8, variance=0.8 * 0.2 / 100, prompts=100, answers=100)
    assert side.interval(1.959964) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    assert Side(1.0, 0.0, 20, 60).interval(1.959964) == pytest.approx((0.8389, 1.0), abs=1e-4)


def test_answers_that_are_repeated_say_one_thing_once() -> None:
    rng = np.random.default_rng(5)
    one, two = (rng.random(200) < 0.8).astype(float), (rng.random(200) < 0.8).astype(float)
    once = width(answers([[x] for x in one]), answers([[x] for x in two]))
    thrice = width(answers([[x] * 3 for x in one]), answers([[x] * 3 for x in two]))
    anew = width(answers((rng.random((200, 3)) < 0.8).tolist()), answers((rng.random((200, 3)) < 0.8).tolist()))
    assert thrice == pytest.approx(once)
    assert anew < 0.7 * thrice


def test_pairing_by_prompt_takes_out_what_both_share() -> None:
    rng = np.random.default_rng(3)
    one = (rng.random(400) < 0.8).astype(float)
    two = np.where(rng.random(400) < 0.2, (rng.random(400) < 0.8), one)
    apart = answers([[x] for x in two])
    elsewhere = Answers(np.char.add(apart.prompt, b"x"), apart.block, apart.right)
    paired, unpaired = (
        difference(answers([[x] for x in one]), apart),
        difference(answers([[x] for x in one]), elsewhere),
    )
    assert paired is not None
    assert unpaired is not None
    assert paired.correlation == pytest.approx(np.corrcoef(one, two)[0, 1])
    assert (paired.paired, unpaired.paired) == (True, False)
    widths = [high - low for low, high in (paired.interval(0.05), unpaired.interval(0.05))]
    assert widths[0] / widths[1] == pytest.approx(np.sqrt(1 - paired.correlation), abs=0.02)


def test_where_repeats_scatter_more_than_prompts_the_wider_interval_counts() -> None:
    rng = np.random.default_rng(4)
    calm = answers((rng.random((300, 3)) < 0.8).tolist())
    stormy = answers((rng.random((300, 3)) < np.array([0.95, 0.8, 0.6])).tolist())
    found = difference(calm, stormy)
    assert found is not None
    assert found.scatter is not None
    assert width(calm, stormy) > 3 * width(calm, calm)


def test_the_p_value_agrees_with_the_interval() -> None:
    rng = np.random.default_rng(6)
    found = difference(answers((rng.random((200, 3)) < 0.7).tolist()), answers((rng.random((200, 3)) < 0.8).tolist()))
    assert found is not None
    p = found.p_beyond(0.02)
    assert 0 < p < 0.05
    assert found.interval(p)[0] == pytest.approx(0.02, abs=1e-4)
    assert found.p_beyond(0.5) == 1.0


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_a_faster_stack_whose_answers_are_not_worse() -> None:
    comparison = compared(SLOW, replace(FAST, agreement=0.5, margin=0.05), replace(SLOW, right=None))
    assert len(comparison.rights) == 1  # the third stack has no grades
    found = compared(replace(SLOW, agreement=0.5, margin=0.05), replace(FAST, agreement=0.5, margin=0.05))
    (verdict,) = found.rights
    assert verdict.call == "not_worse"
    assert verdict.difference.correlation > 0.3
    assert "%) lower than slow's at concurrency 4, and its answers are not worse (" in found.headline
    assert "points)" in found.headline
    assert not found.regression


def test_worse_answers_are_a_regression_and_spoil_the_headline() -> None:
    found = compared(SLOW, replace(FAST, right=0.6), fail_on="regression")
    (verdict,) = found.rights
    assert verdict.call == "worse"
    assert verdict.regression
    assert found.regression
    assert found.missed
    assert ", but its answers are worse (right " in found.headline
    assert "less often" in verdict.text


def test_better_answers_are_called() -> None:
    verdict = right(replace(SLOW, right=0.7), replace(FAST, right=0.9))
    assert verdict.call == "better"
    assert verdict.interval[0] > 0.02
    assert verdict.p is not None
    assert verdict.p < 0.05


def test_undecided_says_how_many_prompts_would_tell() -> None:
    verdict = right(replace(SLOW, requests=60), replace(FAST, requests=60))
    assert verdict.call == "undecided"
    assert "more prompts would tell" in verdict.text


def test_no_verdict_without_three_repeats_but_an_interval() -> None:
    verdict = right(SLOW, FAST, blocks=1)
    assert verdict.call == "withheld"
    assert "run.repeats=3" in verdict.text
    low, high = verdict.interval
    assert low < high


@pytest.mark.parametrize(
    ("share", "call", "labelled"), [(0.01, "not_worse", False), (0.06, "not_worse", True), (0.2, "refused", False)]
)
def test_missing_grades_are_told_and_then_refused(share: float, call: str, labelled: bool) -> None:
    both = {"agreement": 0.6, "margin": 0.1}
    verdict = right(replace(SLOW, **both), replace(FAST, ungraded=share, **both))
    assert verdict.call == call
    assert bool(verdict.labels) == labelled
    if call == "refused":
        assert "of its answers have no grade" in verdict.text


def test_failed_requests_count_as_answers_without_a_grade() -> None:
    assert right(SLOW, replace(FAST, error_rate=0.3)).call == "refused"


def test_grades_by_other_rules_are_not_compared() -> None:
    one, two = (_run(replace(SLOW, model=name), 1) for name in ("one", "two"))
    config = json.loads(json.dumps(two.result.config))
    config["quality"]["tolerance"] = 0.5
    other = replace(two, result=two.result.model_copy(update={"config": config}))
    (verdict,) = compare([one, other]).rights
    assert (verdict.call, verdict.text) == ("refused", "no verdict: graded by different rules: quality.tolerance")


def test_the_primary_metric_may_be_right_answers() -> None:
    found = compared(replace(SLOW, right=0.6), FAST, primary="right_share")
    assert found.rights[0].call == "better"
    assert found.headline.startswith("fast's answers at concurrency 4 are right more often than slow's")


def test_rows_for_machines_and_the_text_for_people() -> None:
    found = compared(SLOW, replace(FAST, right=0.6), concurrencies=(1, 4))
    tree = document(found)
    rows = [row for row in tree["verdicts"] if row["metric"] == "right_share"]  # type: ignore[attr-defined]
    assert len(rows) == 2
    for row in rows:
        assert {"metric", "reference", "stack", "verdict", "low", "high"} <= set(row)
        assert (row["reference"], row["stack"], row["verdict"], row["regression"]) == ("slow", "fast", "worse", True)
        assert row["low"] < row["value"] < row["high"] < -0.02
    json.dumps(tree, allow_nan=False)
    sized = r"fast's answers are worse than slow's at concurrency 1 \(−\d.* to −\d.* points\) and 4 \(−"
    assert re.search(sized, found.headline)
    assert re.search(r"a right answer of fast costs [\d. to]+ times as much", found.headline)
    text = render(found, width=200)
    assert "are right less often than slow's" in text
    assert "right" in text.split("What differs")[-1]


def test_load_effects_set_a_stack_beside_itself() -> None:
    runs = [
        _run(
            replace(SLOW, repeat=block, concurrency=level, right=share, settled=level == 1, temperature=0.0),
            block + level,
        )
        for block in range(3)
        for level, share in ((1, 0.9), (8, 0.9), (64, 0.6))
    ]
    found = compare(runs)
    rows = document(found)["load_effects"]
    assert isinstance(rows, list)
    verdicts = {(row["metric"], row["load"]): row for row in rows}
    assert verdicts["right_share", "concurrency 64"]["verdict"] == "worse"
    assert verdicts["right_share", "concurrency 8"]["verdict"] in ("not_worse", "undecided")
    assert verdicts["identical_share", "concurrency 8"]["verdict"] == "worse"  # drawn anew, and the lowest load is not
    assert {row["reference"] for row in rows} == {"concurrency 1"}
    assert not found.regression
    assert "those at concurrency 1" in found.headline


def test_without_grades_and_with_chance_there_are_no_load_effects() -> None:
    assert compared(replace(SLOW, right=None), concurrencies=(1, 4)).load_effects == ()


def test_files_of_a_sweep(tmp_path: Path) -> None:
    synthetic.write_sweep(tmp_path, [SLOW, replace(FAST, right=0.6)], [1, 4], repeats=3)
    run_sweep(tmp_path)
    tree = json.loads((tmp_path / "comparison.json").read_text())
    assert {row["metric"] for row in tree["verdicts"]} == {"ttft_s/mean", "right_share"}
    assert {row["stack"] for row in tree["load_effects"]} == {"slow", "fast"}
    assert "right_share" in (tmp_path / "comparison.csv").read_text()
