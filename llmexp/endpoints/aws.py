"""What AWS says about a deployment, and whether this machine may ask it: facts before a run, CloudWatch after it.

Facts never fail a job. What could not be read is said in `notes`, with the permission that it takes. The control planes
are asked only when the traffic goes to AWS too: a model that `model.base_url` sends elsewhere has other facts.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError

from llmexp.clients import aws
from llmexp.clients.aws_credentials import is_sagemaker
from llmexp.clients.sagemaker import deployment_of
from llmexp.config import Model
from llmexp.endpoints.cloudwatch import Dimensions, figures
from llmexp.errors import ConfigError
from llmexp.secrets import trimmed

__all__ = ["cloudwatch", "declared", "facts"]

_AWS_HOST = re.compile(r"\.(amazonaws\.com(\.cn)?|api\.aws|api\.amazonwebservices\.com\.cn)$")
_PROFILE_ID = re.compile(r"^[a-z]{2,6}(-gov)?\.[a-z0-9-]+\.|:(application-)?inference-profile/")
_MODEL_ID_VARIABLES = ("HF_MODEL_ID", "OPTION_MODEL_ID", "SM_VLLM_MODEL", "MODEL_ID")
_DEFAULT_VARIANT = "AllTraffic"
_ELSEWHERE = "the traffic goes elsewhere than to AWS"
_REDIRECTIONS = ("AWS_ENDPOINT_URL", *(f"AWS_ENDPOINT_URL_{name}" for name in ("BEDROCK", "CLOUDWATCH", "SAGEMAKER")))

Facts = dict[str, Any]


def facts(model: Model) -> Facts:
    """The deployment as its control plane describes it, in flat keys; `notes` lists what could not be read."""
    found = declared(model)
    notes: list[str] = []
    if _is_elsewhere(model):
        notes.append(f"{_ELSEWHERE}: its control plane was not asked")
    elif is_sagemaker(model):
        found |= _sagemaker(model, notes) if deployment_of(model).describe else {}
    else:
        found |= _bedrock(model, notes)
    return found | ({"notes": "; ".join(notes)} if notes else {})


def declared(model: Model) -> Facts:
    """What the configuration alone says; asks nobody."""
    found: Facts = {"kind": "sagemaker" if is_sagemaker(model) else "bedrock"}
    with contextlib.suppress(ConfigError):
        found["region"] = aws.region_of(model, aws.open_session(model), model.base_url)
    if not is_sagemaker(model):
        return found | {"model_id": model.name}
    deployment = deployment_of(model)
    chosen = {"inference_component": deployment.inference_component, "variant": deployment.target_variant}
    return found | {"endpoint": model.name, "payload": deployment.payload} | _known(chosen)


# --- SageMaker -------------------------------------------------------------------------------------------------------


def _sagemaker(model: Model, notes: list[str]) -> Facts:
    client = _control(model, "sagemaker")
    endpoint = _ask(notes, client.describe_endpoint, EndpointName=model.name)
    if not endpoint:
        return {}
    config = _ask(notes, client.describe_endpoint_config, EndpointConfigName=endpoint["EndpointConfigName"])
    variant = _variant(endpoint.get("ProductionVariants", []), deployment_of(model).target_variant)
    planned = _variant(config.get("ProductionVariants", []), variant.get("VariantName"))
    found = {"status": endpoint.get("EndpointStatus"), "endpoint_config": endpoint["EndpointConfigName"]}
    found |= _variant_facts(variant, planned)
    found |= _component_facts(model, client, notes)
    served = found.get("served_model") or planned.get("ModelName")
    if served:
        found |= _container_facts(_ask(notes, client.describe_model, ModelName=served))
    images = [image.get("SpecifiedImage") or image.get("ResolvedImage") for image in variant.get("DeployedImages", [])]
    return _known({"image": next(iter(images), None)} | found | {"served_model": served})


def _variant(variants: list[Facts], wanted: str | None) -> Facts:
    """The variant that is called: the chosen one, else the one with the greatest weight."""
    named = [variant for variant in variants if variant.get("VariantName") == wanted]
    return max(named or variants, key=lambda variant: float(variant.get("CurrentWeight") or 0), default={})


def _variant_facts(variant: Facts, planned: Facts) -> Facts:
    scaling = variant.get("ManagedInstanceScaling") or planned.get("ManagedInstanceScaling") or {}
    serverless = variant.get("CurrentServerlessConfig") or planned.get("ServerlessConfig") or {}
    pools = [pool.get("InstanceType", "?") for pool in planned.get("InstancePools") or []]
    return _known(
        {
            "variant": variant.get("VariantName"),
            "instance_type": planned.get("InstanceType") or ", ".join(pools) or None,
            "instance_count": variant.get("CurrentInstanceCount"),
            "instance_count_desired": variant.get("DesiredInstanceCount"),
            "managed_scaling": scaling.get("Status"),
            "managed_scaling_min": scaling.get("MinInstanceCount"),
            "managed_scaling_max": scaling.get("MaxInstanceCount"),
            "routing": (variant.get("RoutingConfig") or planned.get("RoutingConfig") or {}).get("RoutingStrategy"),
            "serverless_memory_mb": serverless.get("MemorySizeInMB"),
            "serverless_max_concurrency": serverless.get("MaxConcurrency"),
        }
    )


def _component_facts(model: Model, client: Any, notes: list[str]) -> Facts:
    """Inference components of the endpoint, and what the chosen one runs."""
    chosen = deployment_of(model).inference_component
    if chosen is None:
        listed = _ask(notes, client.list_inference_components, EndpointNameEquals=model.name)
        names = [one["InferenceComponentName"] for one in listed.get("InferenceComponents", [])]
        return {"inference_components": ", ".join(names)} if names else {}
    component = _ask(notes, client.describe_inference_component, InferenceComponentName=chosen)
    specification = component.get("Specification") or {}
    needs = specification.get("ComputeResourceRequirements") or {}
    image = ((specification.get("Container") or {}).get("DeployedImage") or {}).get("SpecifiedImage")
    return _known(
        {
            "inference_component_status": component.get("InferenceComponentStatus"),
            "inference_component_copies": (component.get("RuntimeConfig") or {}).get("CurrentCopyCount"),
            "inference_component_accelerators": needs.get("NumberOfAcceleratorDevicesRequired"),
            "variant": component.get("VariantName"),
            "served_model": specification.get("ModelName"),
            "image": image,
        }
    )


def _container_facts(description: Facts) -> Facts:
    containers = [description.get("PrimaryContainer") or {}, *(description.get("Containers") or [])]
    container: Facts = next((one for one in containers if one.get("Image")), {})
    variables = container.get("Environment") or {}
    source = ((container.get("ModelDataSource") or {}).get("S3DataSource") or {}).get("S3Uri")
    return _known(
        {
            "image": container.get("Image"),
            "model_data": source or container.get("ModelDataUrl"),
            "model_id": next((variables[name] for name in _MODEL_ID_VARIABLES if variables.get(name)), None),
        }
    )


# --- Bedrock ---------------------------------------------------------------------------------------------------------


def _bedrock(model: Model, notes: list[str]) -> Facts:
    client = _control(model, "bedrock")
    if not _PROFILE_ID.search(model.name):
        about = _ask(notes, client.get_foundation_model, modelIdentifier=model.name).get("modelDetails", {})
        lifecycle = (about.get("modelLifecycle") or {}).get("status")
        return _known({"foundation_model": about.get("modelId"), "lifecycle": lifecycle})
    profile = _ask(notes, client.get_inference_profile, inferenceProfileIdentifier=model.name)
    served = [arn.split(":") for entry in profile.get("models", []) if (arn := entry.get("modelArn", ""))]
    regions = sorted({parts[3] or "any" for parts in served if len(parts) > 5})
    models = sorted({parts[5].removeprefix("foundation-model/") for parts in served if len(parts) > 5})
    return _known(
        {
            "inference_profile": profile.get("inferenceProfileName"),
            "inference_profile_type": profile.get("type"),
            "status": profile.get("status"),
            "routing_regions": ", ".join(regions) or None,
            "foundation_model": ", ".join(models) or None,
        }
    )


# --- CloudWatch ------------------------------------------------------------------------------------------------------


def cloudwatch(model: Model, start: datetime, end: datetime, wait_s: float) -> Facts:
    """CloudWatch's figures for the minutes from `start` to `end` (aware datetimes), waiting up to `wait_s` for them.

    `metrics` holds those that were published; `missing` names the others. Traffic of others in the same minutes is
    inside. Never raises for what AWS answers.
    """
    notes: list[str] = []
    if _is_elsewhere(model):
        return {
            "metrics": {},
            "missing": [],
            "note": "model.base_url leads elsewhere than AWS: CloudWatch was not asked",
        }
    dimensions = _dimensions(model, notes)
    try:
        found = figures(_control(model, "cloudwatch"), dimensions, start, end, wait_s)
    except (BotoCoreError, ClientError) as error:
        found = {"metrics": {}, "missing": ["all"]}
        notes.append(f"GetMetricData failed ({_said(error)}); it needs cloudwatch:GetMetricData")
    return found | ({"note": "; ".join(notes)} if notes else {})


def _dimensions(model: Model, notes: list[str]) -> Dimensions:
    if not is_sagemaker(model):
        return {"bedrock": {"ModelId": model.name}}
    deployment = deployment_of(model)
    variant = deployment.target_variant
    if variant is None:
        endpoint = _ask(notes, _control(model, "sagemaker").describe_endpoint, EndpointName=model.name)
        variant = _variant(endpoint.get("ProductionVariants", []), None).get("VariantName", _DEFAULT_VARIANT)
    whole = {"EndpointName": model.name, "VariantName": variant}
    component = deployment.inference_component
    return {"sagemaker": {"InferenceComponentName": component} if component else whole, "instances": whole}


# --- control planes --------------------------------------------------------------------------------------------------


def _is_elsewhere(model: Model) -> bool:
    """Whether the traffic goes to no AWS host while nothing redirects the control planes with it."""
    if any(os.environ.get(name) for name in _REDIRECTIONS):
        return False
    service = aws.SAGEMAKER if is_sagemaker(model) else aws.BEDROCK
    return not _AWS_HOST.search(aws.find_endpoint(model, service, model.base_url).target.host)


def _control(model: Model, service: str) -> Any:
    session = aws.open_session(model)
    config = BotoConfig(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2})
    return session.create_client(service, region_name=aws.region_of(model, session, model.base_url), config=config)


def _ask(notes: list[str], operation: Callable[..., Facts], **arguments: str) -> Facts:
    """The operation's answer; empty, with a note, when AWS refuses or cannot be reached."""
    try:
        return operation(**arguments)
    except (BotoCoreError, ClientError) as error:
        notes.append(f"{operation.__name__} failed: {_said(error)}")
        return {}


def _said(error: Exception) -> str:
    return trimmed(" ".join(str(error).split()), 300)


def _known(found: Facts) -> Facts:
    return {key: value for key, value in found.items() if value is not None}
