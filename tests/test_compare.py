"""From runs of a known truth to verdicts in words."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest
from support import synthetic
from support.synthetic import Truth, run_sweep

from llmexp import records, report
from llmexp.compare import Options, compare, load_runs, render
from llmexp.compare.__main__ import main, newest
from llmexp.errors import ConfigError
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.wording import digits, percent_range
from llmexp.report import plots
from llmexp.results import Metrics
from llmexp.results.run import Run, find

SONNET, LLAMA = Truth("sonnet"), Truth("llama", ttft_s=0.3)
QUIET = {"cv": 0.1, "cv_between": 0.005}


@cache
def _run(truth, seed):
    return synthetic.run(truth, seed)


def sweep(*truths, blocks=3, concurrencies=(4,)):
    """The runs of a sweep over these stacks."""
    return [
        _run(replace(truth, repeat=block, concurrency=concurrency), 100 * block + 10 * at + concurrency)
        for block in range(blocks)
        for at, truth in enumerate(truths)
        for concurrency in concurrencies
    ]


def verdict(*truths, blocks=3, **options):
    (only,) = compare(sweep(*truths, blocks=blocks), Options(**options)).verdicts
    return only


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_a_clear_difference_is_called_in_words_with_the_winner_first():
    found = verdict(SONNET, LLAMA)
    assert found.call == "higher"
    assert found.better.label == "sonnet"
    assert found.text.startswith("sonnet's mean TTFT is ")
    assert found.text.endswith(" lower than llama's at concurrency 4")
    assert " ms (" in found.text
    low, high = found.gap.ratios(found.alpha)
    assert 1.03 < low < 1.5 < high < 1.9, "0.3 s against 0.2 s"


def test_the_candidate_may_win_as_well():
    found = verdict(LLAMA, SONNET)
    assert (found.call, found.better.label, found.regression) == ("lower", "sonnet", False)


def test_like_stacks_with_little_scatter_tie():
    found = verdict(replace(SONNET, **QUIET), replace(SONNET, model="twin", **QUIET), blocks=6)
    assert found.call == "tie"
    assert "differ by less than the 3 % that matter" in found.text
    low, high = found.gap.ratios(found.alpha)
    assert 1 / 1.03 < low < 1 < high < 1.03


def test_in_between_is_undecided_and_says_what_would_tell():
    found = verdict(SONNET, replace(LLAMA, ttft_s=0.212))
    assert found.call == "undecided"
    assert found.better is None
    assert " more requests" in found.text
    assert "would tell" in found.text


def test_without_a_margin_nothing_is_a_tie():
    found = verdict(replace(SONNET, **QUIET), replace(SONNET, model="twin", **QUIET), blocks=6, margin=0.0)
    assert found.call == "undecided"


def test_higher_is_better_for_throughput():
    slow = replace(LLAMA, time_per_output_token_s=0.03)
    found = verdict(SONNET, slow, primary="output_tokens_per_s")
    assert (found.call, found.better.label) == ("lower", "sonnet")
    assert found.text.startswith("sonnet's output throughput is ")
    assert " higher than llama's" in found.text


def test_shares_differ_by_percentage_points():
    found = verdict(SONNET, replace(LLAMA, error_rate=0.2), primary="error_rate")
    assert found.better.label == "sonnet"
    assert "percentage points lower" in found.text


def test_only_the_primary_metric_gets_a_verdict():
    comparison = compare(sweep(SONNET, LLAMA))
    others = [contrast for contrast in comparison.contrasts if contrast.metric.name != "ttft_s/mean"]
    assert {contrast.call for contrast in others} == {"shown"}
    assert {"ttft_s/p95", "e2e_latency_s/mean", "output_tokens_per_s"} <= {each.metric.name for each in others}


@pytest.mark.parametrize("blocks", [1, 2])
def test_one_or_two_runs_a_side_give_intervals_and_no_verdict(blocks):
    found = verdict(SONNET, LLAMA, blocks=blocks)
    assert (found.call, found.gap.basis, found.better) == ("withheld", "within", None)
    assert "within these runs" in found.text
    low, high = found.gap.ratios(found.alpha)
    assert 1.2 < low < 1.5 < high < 1.8
    # Text and drawing speak of the side that looks better, in the same numbers.
    assert found.ahead == found.reference
    percent = re.match(r"sonnet's mean TTFT at concurrency 4 is ([\d.]+)–([\d.]+) % lower than llama's", found.text)
    drawn = plots._drawn(found)
    assert percent is not None
    assert (-drawn[2], -drawn[0]) == pytest.approx((float(percent[1]), float(percent[2])), abs=0.5)


def test_a_percentile_that_the_sample_does_not_carry_gets_neither_interval_nor_verdict():
    comparison = compare(sweep(replace(SONNET, requests=40), replace(LLAMA, requests=40)), Options("ttft_s/p95"))
    assert comparison.verdicts == ()
    assert comparison.headline == "No verdict: p95 TTFT needs 59 completed requests in each run."
    shown = [value for (_, _, name), value in comparison.values.items() if name == "ttft_s/p95"]
    assert [(value.carried, value.low) for value in shown] == [(False, None)] * 2


def test_drift_of_a_block_hits_both_sides_and_drops_out():
    drifted = [
        _run(replace(truth, ttft_s=truth.ttft_s * drift, repeat=block, **QUIET), 7 * block + at)
        for block, drift in enumerate((1.0, 1.5, 0.7, 1.2))
        for at, truth in enumerate((SONNET, replace(LLAMA, ttft_s=0.23)))
    ]
    (found,) = compare(drifted).verdicts
    assert found.call == "higher", "15 % is lost in the drift unless blocks are paired"


def test_holm_covers_all_pairs_and_loads():
    comparison = compare(sweep(SONNET, LLAMA, replace(SONNET, model="nova", ttft_s=0.6), concurrencies=(1, 4)))
    assert len(comparison.verdicts) == 6
    assert min(contrast.alpha for contrast in comparison.verdicts) == pytest.approx(0.05 / 6)
    for contrast in comparison.verdicts:
        low, high = contrast.gap.ratios(contrast.alpha)
        assert (contrast.call in ("lower", "higher")) == (low > 1.03 or high < 1 / 1.03)


def test_no_primary_metric_is_a_config_error_that_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"compare.primary: no run has 'ttft_s/p42'; known here: .*ttft_s/mean"):
        compare(sweep(SONNET, LLAMA), Options("ttft_s/p42"))


def test_a_baseline_stack_is_compared_with_every_other_and_they_not_with_each_other():
    stacks = (SONNET, LLAMA, replace(SONNET, model="nova"))
    pairs = {
        (c.reference.label, c.candidate.label) for c in compare(sweep(*stacks), Options(baseline="llama")).verdicts
    }
    assert pairs == {("llama", "sonnet"), ("llama", "nova")}
    with pytest.raises(ConfigError, match="no stack is called 'gpt'; there are: sonnet, llama, nova"):
        compare(sweep(*stacks), Options(baseline="gpt"))


# --- fairness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompts": "other"}, "different prompts in 200 of 200 requests"),
        ({"max_tokens": 99}, "different max_tokens in 200 of 200 requests"),
        ({"verdict": "invalid"}, "llama: all of its runs are invalid: loop lag"),
        ({"rehearsal": True}, "llama is a rehearsal, the other side was measured"),
        ({"workload_seed": 5}, "run.seed differs: 11111 and 5"),
    ],
)
def test_an_unfair_comparison_is_refused_and_keeps_its_interval(change, reason):
    found = verdict(SONNET, replace(LLAMA, **change))
    assert found.call == "refused"
    assert reason in found.text
    assert found.gap.ratios(found.alpha)[0] > 1.2


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"verdict": "degraded"}, "llama: all of its runs are degraded: loop lag"),
        ({"version": "0.2.0"}, "measured by different versions of llmexp: 0.1.0 and 0.2.0"),
        ({"error_rate": 0.2}, "of its requests (0.0 % on the other side)"),
        ({"unfinished": 3}, "llama: 9 requests were cut by run.grace_s"),
        ({"status": "interrupted"}, "llama: 3 of 3 runs were interrupted"),
        ({"requests": 150}, "requests were sent to one side only"),
    ],
)
def test_what_a_reader_must_know_goes_along_with_the_verdict(change, note):
    found = verdict(SONNET, replace(LLAMA, **change))
    assert found.call == "higher"
    assert any(note in label for label in found.labels), found.labels


def test_two_rehearsals_are_compared_and_say_so_first():
    comparison = compare(sweep(replace(SONNET, rehearsal=True), replace(LLAMA, rehearsal=True)))
    assert comparison.headline.startswith("Rehearsal, the simulator played the models: sonnet's mean TTFT is ")


def test_longer_answers_are_told_for_the_metrics_that_follow_them():
    comparison = compare(sweep(SONNET, replace(LLAMA, answered=1.4)))
    labels = {contrast.metric.name: contrast.labels for contrast in comparison.contrasts}
    assert labels["ttft_s/mean"] == ()
    assert "llama's answers are 40 % longer than sonnet's" in labels["e2e_latency_s/mean"][0]
    assert "workload.force_output=true" in labels["e2e_latency_s/mean"][0]


def test_stacks_that_share_no_load_cannot_be_compared():
    runs = [*sweep(SONNET, concurrencies=(1,)), *sweep(LLAMA, concurrencies=(4,))]
    assert "The stacks share no workload and load" in compare(runs).headline
    last = sweep(replace(SONNET, sweep="last"), replace(LLAMA, sweep="last"), concurrencies=(1,))
    this = sweep(replace(SONNET, sweep="this"), replace(LLAMA, sweep="this"), concurrencies=(4,))
    assert "The occasions share no workload and load" in compare([*last, *this]).headline


def test_failed_jobs_are_left_out_and_named():
    dead = replace(LLAMA, error_rate=1.0, status="failed")
    comparison = compare(sweep(SONNET, dead))
    assert comparison.left_out[0][1] == "failed: the endpoint went away"
    assert comparison.headline == "One stack, sonnet: nothing to compare it with."
    assert compare([]).headline.startswith("Nothing to compare")


# --- stacks ----------------------------------------------------------------------------------------------------------


def test_namesakes_are_told_apart_by_what_differs():
    comparison = compare(sweep(Truth("smollm2", slots=1), Truth("smollm2", slots=4), SONNET))
    assert [stack.label for stack in comparison.grid.stacks] == ["smollm2 slots=1", "smollm2 slots=4", "sonnet"]
    differences = {each.name: each.values for each in comparison.grid.differences}
    assert differences["model.deployment.slots"] == ("1", "4", "–")


def test_the_first_stack_is_the_sweep_s_first_whatever_ran_first():
    runs = [
        replace(run, result=run.result.model_copy(update={"job": run.result.job.model_copy(update={"index": at})}))
        for at, run in enumerate(sweep(SONNET, LLAMA))
    ]
    assert [stack.label for stack in compare(runs[::-1]).grid.stacks] == ["sonnet", "llama"]


def test_prices_and_versions_are_among_the_differences():
    other = replace(LLAMA, usd_per_million_output_tokens=1.0, version="0.2.0")
    differences = {each.name: each.values for each in compare(sweep(SONNET, other)).grid.differences}
    assert differences["model.price.usd_per_million_output_tokens"] == ("15.0", "1.0")
    assert differences["version: llmexp"] == ("0.1.0", "0.2.0")


def test_two_sweeps_are_compared_model_by_model_and_unpaired():
    week = [
        *sweep(SONNET, LLAMA),
        *sweep(*(replace(each, sweep="later") for each in (replace(SONNET, ttft_s=0.3), LLAMA))),
    ]
    comparison = compare(week)
    pairs = [(each.reference.label, each.candidate.label) for each in comparison.verdicts]
    assert pairs == [("sonnet (A)", "sonnet (B)"), ("llama (A)", "llama (B)")]
    assert {each.gap.basis for each in comparison.verdicts} == {"groups"}
    assert comparison.verdicts[0].regression
    assert "different sweeps" in comparison.notes[0]


# --- service level ---------------------------------------------------------------------------------------------------


def test_the_highest_load_that_keeps_the_service_level():
    slo = (("ttft_s", 0.45),)
    loads = {1: 0.2, 4: 0.22, 16: 0.4}
    runs = [
        _run(
            replace(SONNET, ttft_s=ttft_s, concurrency=level, repeat=block, slo=slo, enforce=True),
            40 + 7 * block + level,
        )
        for block in range(3)
        for level, ttft_s in loads.items()
    ]
    comparison = compare(runs)
    (capacity,) = comparison.capacities
    assert (capacity.best.cell.level, capacity.tried, capacity.limit) == (4, 3, False)
    assert [each.met for each in comparison.services] == [True, True, False]
    assert comparison.slo_missed
    assert comparison.missed
    best = capacity.best
    tokens = sum(run.requests.output_tokens.sum() for run in runs if run.settings["concurrency"] == 4)
    assert best.usd_per_thousand_good == pytest.approx(1000 * 15e-6 * tokens / best.good)


def test_good_requests_are_counted_as_the_summary_does():
    for truth in (
        replace(SONNET, slo=(("ttft_s", 0.25), ("e2e_latency_s", 1.6))),
        replace(SONNET, rate=5.0, slo=(("ttft_s", 0.25),)),
    ):
        run = _run(truth, 3)
        (service,) = compare([run]).services
        assert service.share == pytest.approx(run.metrics.number("slo/attainment"))


def test_the_pareto_front_holds_what_no_other_beats():
    comparison = compare(
        sweep(SONNET, replace(LLAMA, usd_per_million_output_tokens=1.0), replace(LLAMA, model="dear", ttft_s=0.4))
    )
    assert {point.stack.label: point.front for point in comparison.points} == {
        "sonnet": True,
        "llama": True,
        "dear": False,
    }


def test_open_loops_name_their_rate_and_show_latency_from_the_intended_send():
    comparison = compare(sweep(replace(SONNET, rate=5.0), replace(LLAMA, rate=5.0)))
    assert comparison.verdicts[0].text.endswith("at 5 requests/s (poisson)")
    assert any(name == "response_ttft_s/p95" for _, _, name in comparison.values)
    assert not any(name == "response_ttft_s/p95" for _, _, name in compare(sweep(SONNET, LLAMA)).values)


def searched(truth, estimate):
    """A run as a capacity search leaves it."""
    run = _run(truth, 11)
    found = {"estimate": estimate, "low": 0.95 * estimate, "high": 1.05 * estimate, "passed_at": 0.97 * estimate}
    config = {**run.config, "capacity": {"enabled": True, "of": "rate"}}
    metrics = Metrics({**run.metrics, "capacity": found})
    return replace(run, result=run.result.model_copy(update={"config": config, "metrics": metrics}))


def test_capacity_searches_are_decided_by_the_capacity_they_found(tmp_path):
    runs = [
        searched(replace(truth, repeat=block), capacity * drift)
        for block, drift in enumerate((1.0, 1.02, 0.99))
        for truth, capacity in ((SONNET, 4.0), (LLAMA, 3.0))
    ]
    comparison = compare(runs)
    (found,) = comparison.verdicts
    assert (found.call, found.better.label) == ("lower", "sonnet")
    assert found.text.startswith("sonnet's capacity is ")
    (of_ttft,) = compare(runs, Options("ttft_s/p50")).verdicts
    assert of_ttft.call == "refused"
    assert "measured where each search ended" in of_ttft.text
    alone = compare(runs[:1])
    assert alone.grid.cells[0].level == 0
    report.comparison(alone, tmp_path)
    assert (tmp_path / "comparison_ttft_s.png").exists()  # a load without a level is drawn without a warning


def test_one_capacity_search_a_side_is_compared_by_their_intervals():
    (found,) = compare([searched(SONNET, 4.0), searched(LLAMA, 3.0)]).verdicts
    assert found.call == "withheld"
    low, high = found.gap.ratios(found.alpha)
    assert low < 0.75 < high < 0.85


# --- reading runs ----------------------------------------------------------------------------------------------------


def test_requests_read_as_the_summary_has_them(tmp_path):
    run = Run.at(
        synthetic.write_job(tmp_path / "0", replace(SONNET, error_rate=0.1, unfinished=2, tokens_per_chunk=3), 1)
    )
    for base in ("ttft_s", "e2e_latency_s", "time_per_output_token_s", "response_latency_s"):
        values = run.requests.of(base)
        spread = run.metrics.spread(base)
        assert len(values) == spread["count"]
        assert values.mean() == pytest.approx(spread["mean"], rel=1e-6)
        assert np.percentile(values, 95) == pytest.approx(spread["p95"], rel=1e-6)
    assert int(run.requests.failed.sum()) == run.metrics.number("requests_failed") > 0


def test_the_stream_form_reads_like_parquet(tmp_path):
    directory = synthetic.write_job(tmp_path / "0", SONNET, 1)
    before = Run.at(directory)
    table = pq.read_table(directory / records.PARQUET)
    with records.Writer(directory, {"wall_ns": 1, "monotonic_ns": 1}) as writer:
        for batch in table.to_batches(max_chunksize=70):
            writer.append(bytes(batch.serialize()))
    (directory / records.PARQUET).unlink()
    after = Run.at(directory)
    for base in ("ttft_s", "time_per_output_token_s"):
        assert np.array_equal(before.requests.of(base), after.requests.of(base))


def test_replaced_attempts_are_skipped_and_jobs_keep_their_order(tmp_path):
    for name in ("10", "9", "2.attempt1", "2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
    assert [path.name for path in find([tmp_path])] == ["2", "9", "10"]
    assert find([tmp_path / "9"]) == [tmp_path / "9"]


def test_what_cannot_be_read_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="no such directory"):
        load_runs([tmp_path / "none"])
    with pytest.raises(ConfigError, match="no job has finished here yet"):
        load_runs([tmp_path])
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        Run.at(tmp_path)


def test_a_job_without_requests_is_an_empty_run(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"status": "failed", "reason": "no endpoint", "job": {"id": "x"}}))
    assert Run.at(tmp_path).problem == "failed: no endpoint"


# --- files and the command line --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("outputs") / "day" / "sweep"
    return synthetic.write_sweep(
        directory, [replace(SONNET, requests=60), replace(LLAMA, requests=60)], [1, 4], repeats=3
    )


def test_two_options_of_the_same_content_are_two_stacks() -> None:
    runs = []
    for option in ("a", "b"):
        for block in range(3):
            run = synthetic.run(replace(SONNET, model="same", repeat=block), block)
            job = run.result.job.model_copy(update={"option": option, "model": option})
            runs.append(replace(run, result=run.result.model_copy(update={"job": job})))
    assert [stack.label for stack in compare(runs).grid.stacks] == ["a", "b"]
    assert "nothing to compare" not in compare(runs).headline


def test_a_sweep_ends_with_three_files_that_agree(sweep_dir):
    comparison = run_sweep(sweep_dir)
    document = json.loads((sweep_dir / "comparison.json").read_text(), parse_constant=pytest.fail)
    assert document["headline"] == comparison.headline
    assert document["regression"] is True
    assert [each["verdict"] for each in document["verdicts"]] == ["higher", "higher"]
    with (sweep_dir / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"] for row in rows} == {"value", "difference"}
    told = [row for row in rows if row["kind"] == "difference" and row["metric"] == "ttft_s/mean"]
    assert [row["text"] for row in told] == [each.text for each in comparison.verdicts]
    assert comparison.headline in (sweep_dir / "comparison.html").read_text().replace("&#39;", "'").replace(
        "\N{NO-BREAK SPACE}", " "
    )


def test_the_table_fits_the_terminal_and_leads_with_the_verdict(sweep_dir):
    comparison = compare(load_runs([sweep_dir]))
    for width in (80, 160):
        lines = render(comparison, width).splitlines()
        assert max(map(len, lines)) <= width
        assert lines[1].startswith("sonnet's mean TTFT is lower than llama's")
    assert "p95 TTFT" in render(comparison, 160)


@pytest.mark.e2e
def test_the_command_line(sweep_dir, capsys, tmp_path):
    assert main([str(sweep_dir)]) == 0
    assert "sonnet's mean TTFT" in capsys.readouterr().out
    assert main([str(sweep_dir), "--fail-on", "regression", "--out", str(tmp_path / "out")]) == 3
    assert (tmp_path / "out" / "comparison.html").exists()
    assert (
        main([str(sweep_dir), "--fail-on", "regression", "--baseline", "llama", "--json", "--out", str(tmp_path)]) == 0
    )
    assert json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["stacks"]


@pytest.mark.e2e
def test_the_newest_sweep_is_the_default(sweep_dir, capsys):
    assert newest(sweep_dir.parent.parent) == sweep_dir
    assert main(["--outputs", str(sweep_dir.parent.parent)]) == 0
    assert "sonnet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["./none"], "no such directory"),
        (["--outputs", "none"], "no sweep here yet"),
        (["SWEEP", "--margin", "-1"], "--margin: must be at least 0, got -1"),
        (["SWEEP", "--primary", "speed"], "compare.primary: no run has 'speed'"),
    ],
)
def test_a_wrong_argument_is_one_clear_message_and_exit_2(arguments, message, sweep_dir, capsys):
    assert main([str(sweep_dir) if argument == "SWEEP" else argument for argument in arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.e2e
def test_a_gate_that_could_judge_nothing_is_missed_and_says_so(tmp_path, capsys):
    synthetic.write_sweep(tmp_path / "s", [replace(SONNET, requests=30), replace(LLAMA, requests=30)], [1], repeats=1)
    assert main([str(tmp_path / "s"), "--fail-on", "regression"]) == 3
    assert "no pair could be judged" in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    heavy = {"numpy", "scipy", "pyarrow", "rich", "matplotlib", "mlflow"}
    code = f"import sys; from llmexp.compare.__main__ import parser; parser(); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


# --- numbers for people ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("ttft_s/p95", 0.2134, "213 ms"),
        ("e2e_latency_s/mean", 12.345, "12.3 s"),
        ("error_rate", 0.0312, "3.12 %"),
        ("cost_usd", 15.0, "$15.00"),
        ("cost_usd", 0.000123, "$0.000123"),
        ("output_tokens_per_s", 12345.6, "12,346 tokens/s"),
        ("ttft_s/mean", None, "–"),
        ("error_rate", 0.0, "0 %"),
    ],
)
def test_values_have_three_digits_and_a_unit(name, value, shown):
    assert Metric(name).show(value) == shown


def test_ranges_share_their_unit():
    assert Metric("ttft_s/p95").show_range(0.180, 0.240) == "180–240 ms"
    assert Metric("ttft_s/p95").show_range(-0.02, 0.5) == "−20 to 500 ms"
    assert percent_range(0.12, 0.16) == "12–16 %"
    assert digits(-0.00001234) == "−0.0000123"


def test_directions_and_labels():
    assert (Metric("ttft_s/p95").label, Metric("ttft_s/p95").better) == ("p95 TTFT", "lower")
    assert Metric("output_tokens_per_s").better == "higher"
    assert Metric("usd_per_million_output_tokens").better == "lower"
    assert Metric("output_tokens/mean").better is None
