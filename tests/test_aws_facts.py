"""Deployment facts, CloudWatch and credential checks against moto's control planes."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from support.aws_server import BEARER, clean_environment, model_of

from llmexp.clients.aws_credentials import credential_problems
from llmexp.config import Model
from llmexp.endpoints.aws import cloudwatch, declared, facts

pytestmark = pytest.mark.service

IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/djl-inference:0.33.0-lmi15.0.0-cu128"


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def control(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Control planes at moto, the runtime left alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    return moto_url


def _llama(name: str = "llama-3", **deployment: Any) -> Model:
    return model_of(name=name, api="sagemaker", deployment={"kind": "sagemaker"} | deployment)


def _deploy(name: str, variants: list[dict[str, Any]]) -> None:
    client = boto3.client("sagemaker")
    for variant in variants:
        client.create_model(
            ModelName=variant["ModelName"],
            ExecutionRoleArn="arn:aws:iam::123456789012:role/x",
            PrimaryContainer={
                "Image": IMAGE,
                "ModelDataUrl": "s3://models/llama.tar.gz",
                "Environment": {"HF_MODEL_ID": "meta-llama/Llama-3.1-8B-Instruct", "HF_TOKEN": "secret"},
            },
        )
    client.create_endpoint_config(EndpointConfigName=f"{name}-config", ProductionVariants=variants)
    client.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-config")
    client.close()


def _variant(name: str, instance: str, weight: float, **more: Any) -> dict[str, Any]:
    return {
        "VariantName": name,
        "ModelName": f"model-{name}",
        "InstanceType": instance,
        "InitialInstanceCount": 2,
        "InitialVariantWeight": weight,
    } | more


# --- facts -----------------------------------------------------------------------------------------------------------


def test_sagemaker_facts(control: str) -> None:
    scaling = {"Status": "ENABLED", "MinInstanceCount": 1, "MaxInstanceCount": 4}
    _deploy("facts", [_variant("AllTraffic", "ml.g4dn.2xlarge", 1, ManagedInstanceScaling=scaling)])
    found = facts(_llama("facts"))
    expected = {
        "kind": "sagemaker",
        "region": "us-east-1",
        "endpoint": "facts",
        "payload": "messages",
        "status": "InService",
        "endpoint_config": "facts-config",
        "variant": "AllTraffic",
        "instance_type": "ml.g4dn.2xlarge",
        "instance_count": 2,
        "instance_count_desired": 2,
        "image": IMAGE,
        "served_model": "model-AllTraffic",
        "model_data": "s3://models/llama.tar.gz",
        "model_id": "meta-llama/Llama-3.1-8B-Instruct",
        "managed_scaling": "ENABLED",
        "managed_scaling_min": 1,
        "managed_scaling_max": 4,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert "secret" not in json.dumps(found)
    # This control plane does not know inference components: that is said, and costs nothing else.
    assert "list_inference_components failed" in found["notes"]


def test_the_variant_that_is_called_counts(control: str) -> None:
    _deploy("two", [_variant("blue", "ml.g4dn.xlarge", 1), _variant("green", "ml.p3.16xlarge", 9)])
    assert facts(_llama("two"))["instance_type"] == "ml.p3.16xlarge"
    chosen = facts(_llama("two", target_variant="blue"))
    assert (chosen["variant"], chosen["instance_type"]) == ("blue", "ml.g4dn.xlarge")


def test_what_cannot_be_read_is_noted(control: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = facts(_llama("absent"))
    assert found["endpoint"] == "absent"
    assert "describe_endpoint failed" in found["notes"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "Could not connect" in facts(_llama("absent"))["notes"]


def test_an_undescribed_or_redirected_endpoint_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    assert facts(_llama(describe=False)) == declared(_llama())
    redirected = Model.model_validate(_llama().model_dump() | {"base_url": "http://127.0.0.1:9"})
    assert "control plane was not asked" in facts(redirected)["notes"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "http://127.0.0.1:9")
    assert "control plane was not asked" in facts(_llama())["notes"]
    assert cloudwatch(_llama(), datetime.now(UTC), datetime.now(UTC), 0)["metrics"] == {}


class _Bedrock(http.server.BaseHTTPRequestHandler):
    """Bedrock's control plane, two operations of it."""

    def do_GET(self) -> None:
        arn = "arn:aws:bedrock:{}::foundation-model/anthropic.claude-sonnet-4-6"
        profile = {
            "inferenceProfileName": "US Claude Sonnet 4.6",
            "type": "SYSTEM_DEFINED",
            "status": "ACTIVE",
            "models": [{"modelArn": arn.format(region)} for region in ("us-west-2", "us-east-1")],
        }
        about = {"modelDetails": {"modelId": "m.x", "modelArn": "a", "modelLifecycle": {"status": "LEGACY"}}}
        body = json.dumps(profile if self.path.startswith("/inference-profiles/us.") else about).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_bedrock_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Bedrock)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK", f"http://127.0.0.1:{server.server_address[1]}")
    try:
        found = facts(model_of())
        plain = facts(model_of(name="anthropic.claude-3-sonnet-20240229-v1:0"))
    finally:
        server.shutdown()
        server.server_close()
    assert found == {
        "kind": "bedrock",
        "region": "us-east-1",
        "model_id": "us.anthropic.claude-sonnet-4-6",
        "inference_profile": "US Claude Sonnet 4.6",
        "inference_profile_type": "SYSTEM_DEFINED",
        "status": "ACTIVE",
        "routing_regions": "us-east-1, us-west-2",
        "foundation_model": "anthropic.claude-sonnet-4-6",
    }
    assert plain["lifecycle"] == "LEGACY"


# --- CloudWatch ------------------------------------------------------------------------------------------------------


def _put(namespace: str, dimensions: dict[str, str], at: datetime, **values: list[float]) -> None:
    client = boto3.client("cloudwatch")
    named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    points = [
        {"MetricName": metric, "Dimensions": named, "Timestamp": at, "Value": value}
        for metric, series in values.items()
        for value in series
    ]
    client.put_metric_data(Namespace=namespace, MetricData=points)
    client.close()


def test_cloudwatch_figures_of_the_window(control: str) -> None:
    _deploy("watched", [_variant("only", "ml.g4dn.2xlarge", 1)])
    end = datetime.now(UTC)
    start = end - timedelta(minutes=2)
    dimensions = {"EndpointName": "watched", "VariantName": "only"}
    _put(
        "AWS/SageMaker", dimensions, start, Invocations=[1, 1], ModelLatency=[100_000, 300_000], Invocation4XXErrors=[0]
    )
    _put("AWS/SageMaker", dimensions, end, Invocations=[1], ModelLatency=[800_000])
    _put("AWS/SageMaker", dimensions, start - timedelta(hours=1), Invocations=[50])
    _put("/aws/sagemaker/Endpoints", dimensions, start, GPUUtilization=[60, 80])
    found = cloudwatch(_llama("watched"), start, end, 0)
    metrics = found["metrics"]
    assert metrics["invocations"] == {"sum": 3}
    assert metrics["model_latency_s"] == pytest.approx({"count": 3, "mean": 0.4, "max": 0.8})
    assert metrics["invocation_4xx_errors"] == {"sum": 0}
    assert metrics["gpu_utilization_percent"] == {"mean": 70, "max": 80}
    assert {"OverheadLatency", "GPUMemoryUtilization", "CPUUtilization"} <= set(found["missing"])
    assert datetime.fromisoformat(found["from"]) <= start < end < datetime.fromisoformat(found["to"])


def test_cloudwatch_is_waited_for(control: str) -> None:
    at = datetime.now(UTC)
    where = {"ModelId": "us.anthropic.claude-sonnet-4-6"}
    late = threading.Timer(0.5, _put, ("AWS/Bedrock", where, at), {"Invocations": [1], "InvocationLatency": [1500]})
    late.start()
    started = time.monotonic()
    found = cloudwatch(model_of(), at, at, 10)
    late.join()
    assert found["metrics"]["invocation_latency_s"] == {"count": 1, "mean": 1.5, "max": 1.5}
    assert 0.5 <= time.monotonic() - started < 9
    assert "InvocationThrottles" in found["missing"]


def test_cloudwatch_that_never_comes(control: str) -> None:
    now = datetime.now(UTC)
    found = cloudwatch(model_of(name="unheard-of"), now, now, 0.5)
    assert found["metrics"] == {}
    assert "Invocations" in found["missing"]


def test_cloudwatch_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    now = datetime.now(UTC)
    found = cloudwatch(model_of(), now, now, 0)
    assert found["missing"] == ["all"]
    assert "cloudwatch:GetMetricData" in found["note"]


# --- credentials -----------------------------------------------------------------------------------------------------


def test_nothing_is_missing() -> None:
    assert credential_problems(model_of()) == []
    assert credential_problems(_llama()) == []


def test_missing_keys_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    [problem] = credential_problems(model_of())
    assert "AWS_SECRET_ACCESS_KEY" in problem
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    [problem] = credential_problems(model_of())
    assert "AWS_ACCESS_KEY_ID" in problem
    assert "AWS_PROFILE" in problem
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", BEARER)
    assert credential_problems(model_of()) == []
    assert len(credential_problems(_llama())) == 1


def test_missing_profile_and_region_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "'nobody'" in credential_problems(model_of(profile="nobody"))[0]
    assert credential_problems(model_of(profile="nobody"))[0].startswith("model.profile: ")
    monkeypatch.setenv("AWS_PROFILE", "noone")
    assert credential_problems(model_of())[0].startswith("AWS_PROFILE: AWS profile 'noone'")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    [problem] = credential_problems(model_of())
    assert problem.startswith("model.region: ")


def test_an_expired_sign_on_says_how_to_sign_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "config").write_text(
        "[profile dev]\nregion = us-east-1\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = dev\n"
        "[sso-session corp]\nsso_region = us-east-1\nsso_start_url = https://corp.example/start\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    [problem] = credential_problems(model_of(profile="dev"))
    assert "aws sso login --profile dev" in problem


def test_an_endpoint_that_was_not_given_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    [problem] = credential_problems(_llama("LLMEXP_SAGEMAKER_ENDPOINT"))
    assert problem.startswith("model.name: ")
    assert "export LLMEXP_SAGEMAKER_ENDPOINT=" in problem
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert len(credential_problems(_llama("LLMEXP_SAGEMAKER_ENDPOINT"))) == 2
