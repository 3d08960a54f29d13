"""Rules that stood in several copies: every reader now says the same of the same run."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import synthetic
from support.samples import record, table
from support.synthetic import Truth

from llmexp.compare import Options, compare, render, service
from llmexp.compare.__main__ import main
from llmexp.config import Slo, closed_loop, defaults, load
from llmexp.errors import MISSED
from llmexp.jobs.measure import status_of
from llmexp.metrics import distributions, service_level
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.dictionary import DICTIONARY
from llmexp.records import Record
from llmexp.records.observed import observe
from llmexp.results import Run, parse, tree_of
from llmexp.results.requests import from_table
from llmexp.terminal import glance
from llmexp.tracking.note import describe


def rows(seed: int) -> list[Record]:
    """Requests of all kinds: fast, slow, of one chunk, failed, cut, and with stamps that are not there."""
    draw = random.Random(seed)
    made = []
    for at in range(120):
        first, gap = draw.uniform(0.1, 0.5), draw.uniform(0.01, 0.1)
        chunks = [at + first + gap * step for step in range(draw.choice([1, 5, 9]))]
        row = record(at, sent=at, intended=at - draw.choice([0, 0.3]), chunks=chunks)
        row.status = draw.choice(["completed"] * 6 + ["failed", "unfinished"])
        if draw.random() < 0.1:
            row.first_token_ns = None
        if draw.random() < 0.1:
            row.last_token_ns = None
        made.append(row)
    return made


@pytest.mark.parametrize("kind", ["closed", "poisson"])
@pytest.mark.parametrize(
    "slo",
    [Slo(ttft_s=0.3), Slo(e2e_latency_s=0.6), Slo(time_per_output_token_s=0.05), Slo(ttft_s=0.4, e2e_latency_s=1)],
)
def test_a_request_is_good_for_the_probe_the_summary_and_the_comparison_alike(slo: Slo, kind: str) -> None:
    made = rows(3)
    open_loop = kind != "closed"
    config = {"load": {"kind": kind}}
    run = Run(parse({"job": {"id": "a1"}, "config": config}, "here"), None, from_table(table(made)))
    by_row = [service_level.kept(row, slo, open_loop=open_loop) for row in made]
    by_array = service_level.meets(observe(table(made)), slo, open_loop=open_loop)
    assert by_row == by_array.tolist()
    in_order = np.argsort([row.sent_ns or 0 for row in made], kind="stable")
    assert service.good(run, slo.thresholds).tolist() == by_array[in_order].tolist()
    assert 0 < sum(by_row) < len(by_row)


@pytest.mark.parametrize(
    ("load_of", "closed"),
    [
        ({"kind": "closed"}, True),
        ({"kind": "ramp", "of": "concurrency", "from": 1, "to": 8, "steps": 4}, True),
        ({"kind": "ramp", "of": "rate", "from": 1, "to": 8, "steps": 4}, False),
        ({"kind": "poisson", "rate": 3}, False),
    ],
)
def test_what_a_closed_loop_is(load_of: dict[str, object], closed: bool) -> None:
    tree = defaults()
    tree["model"]["name"] = "m"
    tree["workload"]["input_tokens"] |= {"mean": 10}
    tree["workload"]["output_tokens"] |= {"mean": 10}
    tree["load"] |= load_of
    assert load(tree).closed is closed
    assert closed_loop(str(load_of["kind"]), str(load_of.get("of"))) is closed
    spread = distributions.distribution([0.1, 0.2, 0.3])
    metrics = {"ttft_s": spread, "response_ttft_s": spread}
    run = Run(parse({"job": {"id": "a1"}, "config": tree, "metrics": metrics}, "here"))
    assert run.open_loop is not closed
    assert ("from intended time" in glance.render(run.result, colour=False)) is not closed


@pytest.mark.parametrize("percent", [1, 5, 25, 50, 75, 90, 95, 99])
def test_a_percentile_needs_as_many_values_as_its_mirror_image(percent: int) -> None:
    assert distributions.needed(percent) == distributions.needed(100 - percent)
    least = distributions.needed(percent)
    assert distributions.carries(least, f"p{percent}")
    assert not distributions.carries(least - 1, f"p{percent}")


def test_the_note_marks_what_the_sample_does_not_carry() -> None:
    spread = distributions.distribution([0.1 + at / 100 for at in range(40)])
    note = describe(Run(parse({"job": {"id": "a1"}, "metrics": {"ttft_s": spread}}, "here")))
    assert "| first token (TTFT) | 295 ms | – | 295 ms |" in note


def test_an_enforced_service_level_ends_a_sweep_and_its_comparison_alike(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of three repeats missed; pooled, the three keep it."""
    truth = Truth(requests=100, slo=(("ttft_s", 0.5),), enforce=True)
    for repeat, ttft_s in enumerate((0.2, 0.2, 0.36)):
        synthetic.write_job(tmp_path / str(repeat), replace(truth, repeat=repeat, ttft_s=ttft_s), repeat)
    runs = [Run.at(tmp_path / str(repeat)) for repeat in range(3)]
    pooled = sum(int(service.good(run, {"ttft_s": 0.5}).sum()) for run in runs) / 300
    assert pooled >= 0.95
    statuses = [status_of(run.result, load(run.config)) for run in runs]
    assert statuses == [0, 0, MISSED]
    assert main([str(tmp_path)]) == MISSED
    assert "slo.enforce: " in capsys.readouterr().err


def test_every_metric_has_one_label_one_unit_and_one_direction() -> None:
    for name, entry in DICTIONARY.items():
        metric = Metric(f"{name}/p95" if entry.kind == "distribution" else name)
        assert (metric.base, metric.unit, metric.better) == (
            name,
            "" if entry.unit[0] == "0" else entry.unit,
            entry.better,
        )
        assert metric.label.endswith(entry.label)
        if name.endswith("_s") and entry.unit == "s" and name != "window_s":
            assert entry.better == "lower"
        if name.endswith("_per_s"):
            assert entry.better == "higher"
    assert Metric("client/loop_lag_s/p99").show(0.0021) == "2.10 ms"


def test_what_rests_on_an_estimate_is_marked_everywhere_and_decides_nothing() -> None:
    note = {"reason": "chunk_tokens_estimated", "level": "note"}
    truths = [Truth("sonnet"), Truth("llama", time_per_output_token_s=0.03)]
    runs = [synthetic.run(replace(truth, repeat=repeat), 9 + repeat) for truth in truths for repeat in range(3)]
    tree = {"verdict": "valid", "notes": [note]}
    results = [parse({**tree_of(run.result), "validity": tree}, "here") for run in runs]
    marked = [replace(run, result=result) for run, result in zip(runs, results, strict=True)]
    found = compare(marked, Options(primary="inter_token_latency_s/p99"))
    assert {contrast.call for contrast in found.verdicts} == {"refused"}
    assert all(value.rough == name.startswith("inter_token") for (_, _, name), value in found.values.items())
    assert "≈" in render(found)
    assert "inter-token latency is rough" in render(found)
    assert any(
        contrast.better for contrast in compare(marked, Options(primary="time_per_output_token_s/mean")).verdicts
    )
    text = glance.render(marked[0].result, colour=False)
    assert "between tokens (ITL)" in text
    assert "≈ rests on an estimate" in text
