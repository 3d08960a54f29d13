"""Keys that would be set to no effect, and metrics that no job could have, are refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmexp import composition
from llmexp.errors import ConfigError
from llmexp.jobs import demands, plan, spec

pytestmark = pytest.mark.e2e  # whole commands, composed as the user's are


def problems(*overrides: str) -> list[str]:
    with composition.opened(None):
        found = spec.specs(composition.compose_all(["model=simulated", "dry_run=true", *overrides]))
    return demands.problems(found)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("load.file=times.txt", "load.file: has no effect with load=closed; choose load=replay"),
        ("load.from=2", "load.from: has no effect with load=closed; choose load=ramp"),
        ("load.burstiness=2", "load.burstiness: has no effect with load=closed; choose load=burst"),
        ("model.region=us-east-1", "model.region: has no effect with api=openai; choose a model on AWS"),
        ("workload.turns=3", "workload.turns: has no effect with a workload of kind 'synthetic'"),
        ("workload.images.count=2", "workload.images: has no effect with a workload of kind 'synthetic'"),
        ("quality.pattern=x", "quality.pattern: has no effect with quality=none; choose quality=regex"),
        ("quality.schema={type: object}", "quality.schema: has no effect with quality=none; choose quality=json"),
        ("slo.attainment=0.5", "slo.attainment: has no effect with no threshold"),
        ("ray.address=head:6379", "ray.address: has no effect with ray=local; choose ray=cluster"),
        ("ray.nodes=others", "ray.nodes: has no effect with ray=local; choose ray=cluster"),
        ("capacity.start=3", "capacity.start: has no effect with no capacity search; choose experiment=capacity"),
        ("compare.primary=right_share", "no job of this command has 'right_share', as no answer is graded"),
        ("compare.primary=score/mean", "no job of this command has 'score/mean', as no answer is graded"),
        ("compare.primary=goodput_per_s", "as no service level is asked for; set slo=chat"),
        ("compare.primary=session_duration_s/p50", "as nothing is sent in sessions"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    override: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("times.txt").write_text("1\n2\n")
    found = problems(override)
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model=sonnet,claude", "model.region=us-east-1"],
        ["load=closed,ramp", "load.from=2", "load.to=4"],
        ["workload=quick,multi_turn", "workload.turns=3"],
        ["workload=arithmetic", "quality=number", "quality.tolerance=0.1", "compare.primary=right_share"],
        ["slo=chat", "slo.attainment=0.5", "compare.primary=goodput_per_s"],
        ["workload=agents", "compare.primary=session_duration_s/p50"],
        ["compare.primary=cost_usd"],
    ],
)
def test_what_counts_in_one_of_the_jobs_is_taken(overrides: list[str]) -> None:
    assert problems(*overrides) == []


def test_a_job_that_is_asked_for_twice_is_told() -> None:
    said = "simulated: asked for twice, with the same settings; name each value once, or set run.repeats=2"
    assert problems("concurrency=2,2") == [said]
    assert problems("ray.workers=1,2") == []
    assert problems("concurrency=2", "run.repeats=2") == []


def test_a_metric_of_money_needs_a_price() -> None:
    own = ["model=openai_compatible", "model.name=x", "model.base_url=http://127.0.0.1:9/v1"]
    (found,) = problems(*own, "compare.primary=cost_usd")
    assert "as no price is known; set model.price" in found
    assert problems(*own, "compare.primary=cost_usd", "model.price.usd_per_instance_hour=2") == []


def test_a_value_that_others_are_made_of_is_asked_for_by_its_own_name() -> None:
    with pytest.raises(ConfigError) as caught:
        problems("model=vllm")
    assert str(caught.value) == "model.name: must be given, such as model.name=VALUE"


def test_a_plan_names_a_program_that_is_not_here() -> None:
    with composition.opened(None):
        composed = composition.compose_all(["model=vllm", "model.name=x", "dry_run=true"])
    assert plan.cautions(spec.specs(composed)) == [
        "model.deployment.command: there is no program 'vllm' here; install it, or name its whole path"
    ]


def planned(*overrides: str) -> tuple[list[int], list[str]]:
    """Requests of each job without warm-up, and what is said to keep them from their end."""
    with composition.opened(None):
        found = spec.specs(composition.compose_all(["model=simulated", "run.warmup_requests=0", *overrides]))
    return [job.requests for job in plan.estimate(found).jobs], plan.cautions(found)


def test_a_plan_knows_where_a_load_ends(tmp_path: Path) -> None:
    trace = tmp_path / "times.txt"
    trace.write_text("0\n0.5\n1.0\n")
    replay = ["load=replay", f"load.file={trace}"]
    assert planned(*replay, "run.max_requests=200") == ([3], [])
    (said,) = planned("load=constant", "load.rate=0.001")[1]
    assert said.startswith("simulated: run.timeout_s=300 ends the load after 1 of 32 requests; raise it to 32000")
    ramp = ["load=ramp", "load.from=0.1", "load.to=0.01"]
    (said,) = planned(*ramp, "run.timeout_s=20")[1]
    assert said.startswith(
        "simulated: run.timeout_s=20 ends the ramp after 2 of 32 requests; raise it, raise load.from"
    )
    agents = ["workload=agents", "load=constant", "load.rate=0.5"]
    assert planned(*agents, "run.timeout_s=30")[1] == []
    assert len(planned(*agents, "run.timeout_s=3")[1]) == 1
