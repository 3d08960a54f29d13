"""What keeps this machine from calling a model on AWS, found before anything is sent."""

from __future__ import annotations

import re

from botocore.exceptions import BotoCoreError, ClientError

from llmexp.clients import aws
from llmexp.config import Model
from llmexp.errors import ConfigError

_GEOGRAPHIES = {
    "us": ("us-", "ca-"),
    "eu": ("eu-",),
    "apac": ("ap-",),
    "jp": ("ap-northeast-",),
    "au": ("ap-southeast-",),
    "ca": ("ca-", "us-"),
    "us-gov": ("us-gov-",),
}
"""Prefix of a Bedrock inference profile → beginnings of the regions that it is called from."""
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")


def credential_problems(model: Model) -> list[str]:
    """What keeps this machine from calling the model, a line each; asks nobody but the credential chain."""
    problems = [_endpoint_problem(model)] if is_sagemaker(model) else []
    try:
        session = aws.open_session(model)
        if aws.bearer_key(model, aws.SAGEMAKER if is_sagemaker(model) else aws.BEDROCK) is None:
            problems.append(_chain_problem(model))
        aws.region_of(model, session, model.base_url)
    except ConfigError as error:
        problems.append(str(error))
    return [problem for problem in problems if problem]


def _endpoint_problem(model: Model) -> str:
    """The shipped model file names its variable when that is not set: no endpoint has such a name."""
    if model.base_url is not None or not _VARIABLE.fullmatch(model.name):
        return ""
    return f"model.name: no SageMaker endpoint is given; export {model.name}=NAME, or set model.name=NAME"


def _chain_problem(model: Model) -> str:
    try:
        aws.remembered(aws.load_credentials(aws.open_session(model)).get_frozen_credentials())
    except (BotoCoreError, ClientError) as error:
        return aws.explain_error(error, model)
    return ""


def is_sagemaker(model: Model) -> bool:
    """Whether the model lies behind a SageMaker endpoint, by whichever path."""
    provider = model.provider or ""
    return model.api == "sagemaker" or (model.api == "litellm" and provider.startswith("sagemaker"))


def region_problems(model: Model) -> list[str]:
    """A region that AWS does not have, or an inference profile of another part of the world."""
    try:
        region = aws.region_of(model, aws.open_session(model))
    except ConfigError:
        return []  # told with the credentials
    if region not in _known_regions():
        return [f"model.region: AWS has no region '{region}' that this version of botocore knows"]
    geography = model.name.partition(".")[0]
    allowed = _GEOGRAPHIES.get(geography)
    if is_sagemaker(model) or allowed is None or region.startswith(allowed):
        return []
    fitting = next((name for name, starts in _GEOGRAPHIES.items() if region.startswith(starts)), "global")
    rest = model.name.partition(".")[2]
    problem = (
        f"model.name: '{model.name}' is an inference profile of another part of the world than region {region}; "
        f"set model.region, or model.name={fitting}.{rest} where that exists"
    )
    return [problem]


def _known_regions() -> set[str]:
    from botocore.session import get_session

    session = get_session()
    partitions = session.get_available_partitions()
    return {region for one in partitions for region in session.get_available_regions("ec2", partition_name=one)}
